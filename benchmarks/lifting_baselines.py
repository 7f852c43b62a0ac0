"""How far a mean pose and a linear lifter are from poses of motion capture, seen from eight sides.

    python benchmarks/lifting_baselines.py poses.npz

Baselines that everything that lifts must beat:

- "mean seen": the mean of what the cameras see of the training subjects, relative to the pelvis. It has about the
  least MPJPE of all that do not look; as people are seen from all sides it is nearly a vertical line;
- "mean person": the mean of the same poses, each turned to face the camera. It is what PA-MPJPE should be held against;
- "linear": least squares from keypoints (centred on the pelvis, divided by their spread) to 3D, on pairs of a tenth of
  the training poses, chosen at random;
- "ridge": the same with a penalty on large weights, which bones of fixed length otherwise leave undetermined.

Subjects are held out whole: groups of the CMU database, then the retargeted character, whose bones, neck and head are
one character's, so it is held out as a whole, too. Every group is lifted by baselines that never saw its subjects.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import RESULTS, write_rows

from poseglass.core.lifting_pairs import EIGHT_SIDES, LiftingPairs, view_poses
from poseglass.core.motion import RETARGETED, PoseClips
from poseglass.metrics.mpjpe import Pose3dErrors
from poseglass.readers.poses_npz import read_poses

GROUPS = 5
"""CMU subjects are dealt to so many groups, by number of poses; the retargeted ones are a further group."""

SHARE = 0.1
PENALTY = 0.01
"""Of "ridge": squared weights count as this many squared keypoints of each pair."""

COLUMNS = ("mpjpe", "n_mpjpe", "pa_mpjpe", "pa_mpjpe_reflected", "pck3d@150", "auc3d", "symmetry_error")


def groups_of(clips: PoseClips) -> dict[str, list[str]]:
    """Return subjects by group: the largest go first, each to the group that has fewest poses."""
    subjects, counts = np.unique(clips.subject_of_pose, return_counts=True)
    order = [str(name) for name in subjects[np.argsort(-counts, kind="stable")]]
    size = dict(zip(subjects.tolist(), counts.tolist(), strict=True))
    groups: list[list[str]] = [[] for _ in range(GROUPS)]
    for name in order:
        if not name.startswith(RETARGETED):
            min(groups, key=lambda group: sum(size[n] for n in group)).append(name)
    named = {f"cmu {number}": group for number, group in enumerate(groups, 1)}
    return named | {"retargeted": [name for name in order if name.startswith(RETARGETED)]}


def normalised(pairs: LiftingPairs) -> np.ndarray:
    """Return keypoints centred on the pelvis and divided by their spread, with a 1: ``(N, 2 K + 1)``."""
    xy = pairs.xy.astype(np.float64)
    xy = xy - xy[:, pairs.skeleton.index("pelvis")][:, None]
    xy /= np.sqrt(np.square(xy).mean((1, 2), keepdims=True))
    return np.concatenate([xy.reshape(len(xy), -1), np.ones((len(xy), 1))], 1)


def mean_pose(train: LiftingPairs) -> Callable[[LiftingPairs], np.ndarray]:
    mean = train.xyz_mm.astype(np.float64).mean(0)
    return lambda pairs: np.broadcast_to(mean, pairs.xyz_mm.shape)


def ridge(train: LiftingPairs) -> Callable[[LiftingPairs], np.ndarray]:
    seen, wanted = normalised(train), train.xyz_mm.reshape(len(train), -1).astype(np.float64)
    penalty = PENALTY * len(train) * np.diag([1.0] * (seen.shape[1] - 1) + [0.0])
    weights = np.linalg.solve(seen.T @ seen + penalty, seen.T @ wanted)
    return lambda pairs: (normalised(pairs) @ weights).reshape(pairs.xyz_mm.shape)


def linear(train: LiftingPairs) -> Callable[[LiftingPairs], np.ndarray]:
    weights, *_ = np.linalg.lstsq(
        normalised(train), train.xyz_mm.reshape(len(train), -1).astype(np.float64), rcond=None
    )
    return lambda pairs: (normalised(pairs) @ weights).reshape(pairs.xyz_mm.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("poses", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    clips = read_poses(given.poses)
    for note in clips.notes:
        print(note)
    rows = []
    for group, subjects in groups_of(clips).items():
        rest, held_out = clips.split_by_subject(subjects)
        some = np.sort(np.random.default_rng(given.seed).choice(len(rest), round(SHARE * len(rest)), replace=False))
        all_pairs = view_poses(rest.xyz_mm, clips.skeleton, EIGHT_SIDES)
        few_pairs = view_poses(rest.select(some).xyz_mm, clips.skeleton, EIGHT_SIDES)
        wanted = view_poses(held_out.xyz_mm, clips.skeleton, EIGHT_SIDES)
        facing = view_poses(rest.xyz_mm, clips.skeleton, (0.0,), relative_to="person")
        baselines = {
            "mean seen": (mean_pose, all_pairs), "mean person": (mean_pose, facing),
            "linear": (linear, few_pairs), "ridge": (ridge, few_pairs),
        }  # fmt: skip
        for name, (fit, pairs) in baselines.items():
            lift = fit(pairs)
            errors = Pose3dErrors(clips.skeleton)
            errors.update(lift(wanted), wanted.xyz_mm)
            found = errors.compute()
            rows.append(
                {"baseline": name, "held_out": group, "subjects": " ".join(sorted(subjects)), "poses": len(held_out)}
                | {"views": len(wanted), "trained_on": len(pairs)}
                | {column: f"{found[column]:.{3 if column in ('pck3d@150', 'auc3d') else 1}f}" for column in COLUMNS}
            )
            print(
                f"{name:11} {group:10}", *(f"{column} {rows[-1][column]}" for column in COLUMNS), sep="  ", flush=True
            )
    write_rows(RESULTS / "lifting_baselines.csv", rows, "core", "metrics", "readers")


if __name__ == "__main__":
    main()
