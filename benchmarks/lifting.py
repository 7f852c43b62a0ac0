r"""Lifters on subjects that they were not trained on, seen from eight sides; with baselines on the same split.

    python benchmarks/lifting.py poses.npz --runs RUNS --train repnet_narrow repnet_narrow_no_chain \
        repnet_narrow_no_mirror --seeds 3
    python benchmarks/lifting.py poses.npz --runs RUNS --train repnet_narrow --labels data/lspet/train.json --seeds 3
    python benchmarks/lifting.py poses.npz --runs RUNS

The first trains recipes that are not in RUNS yet, one after the other, into RUNS/RECIPE-SEED, and resumes those that
were interrupted. The second trains a RepNet with labels of photographs, which are half of each batch, into
RUNS/RECIPE_labels-SEED. All measure every run in RUNS, and write lifting.csv (a row for each run and group of test
subjects), lifting_curves.csv (errors on the validation subjects during training), and, for the lifter that ships,
lifting_shipped.csv (what becomes of it with points as pose networks give them, for every fourth pose). --pack RUN --out
FILE writes the lifter of a run in half precision, with its results in the card.

Baselines are "mean seen", "mean person" and "linear" of lifting_baselines.py, fitted to poses of one size, as the
lifters' training has them. All methods are compared over RepNet's 16 keypoints. Intervals, of PA-MPJPE and of the
symmetry error, are the 2.5 and 97.5 percentiles of 1,000 samples of the test clips, drawn with replacement: poses of
one clip are much alike.
"""

import argparse
import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lifting_baselines import linear, mean_pose
from machine import RESULTS, write_rows

from poseglass.core.instances import Instances
from poseglass.core.lifting_pairs import EIGHT_SIDES, LiftingPairs, view_poses
from poseglass.core.motion import RETARGETED, PoseClips
from poseglass.core.skeletons import COCO17, PEOPLE19
from poseglass.lifting import Lifter, load_lifter, save_lifter
from poseglass.lifting.labelled import labelled_points
from poseglass.lifting.recipe import read_lift_recipe, recipe_text
from poseglass.lifting.repnet import REPNET16
from poseglass.lifting.train import bodies_of, train_lifter
from poseglass.metrics.mpjpe import AUC_MM, align_procrustes, distances_mm, symmetry_error_mm
from poseglass.readers.coco import coco
from poseglass.readers.poses_npz import read_poses

SPLIT = read_lift_recipe("lift_people").split
SHARE = 0.1
"""Of the training poses, for the linear lifter."""

Lift = Callable[[LiftingPairs], np.ndarray]
"""Pairs to poses ``(N, 16, 3)`` in millimetres."""


def of_16(xyz_mm: np.ndarray, skeleton: object) -> np.ndarray:
    """Return RepNet's keypoints, relative to the middle of the hips."""
    out = xyz_mm[:, skeleton.indices_of(REPNET16.keypoints)].astype(np.float64)  # type: ignore[attr-defined]
    hips = [REPNET16.index("left_hip"), REPNET16.index("right_hip")]
    return out - out[:, hips].mean(1, keepdims=True)


def of_lifter(lifter: Lifter) -> Lift:
    def lift(pairs: LiftingPairs) -> np.ndarray:
        points = pairs.xy[:, pairs.skeleton.indices_of(lifter.skeleton.keypoints)]
        return of_16(lifter(points), lifter.skeleton)

    return lift


def errors_of_each(lift: Lift, pairs: LiftingPairs) -> dict[str, np.ndarray]:
    """Return errors in millimetres of each of N pairs, the share of keypoints within 150 mm, and the AUC."""
    predicted, truth = lift(pairs), of_16(pairs.xyz_mm, pairs.skeleton)
    apart = distances_mm(predicted, truth)
    return {
        "pa_mpjpe": distances_mm(align_procrustes(predicted, truth, reflection=False), truth).mean(1),
        "pa_mpjpe_reflected": distances_mm(align_procrustes(predicted, truth, reflection=True), truth).mean(1),
        "mpjpe": apart.mean(1),
        "symmetry_error": symmetry_error_mm(predicted, REPNET16),
        "pck3d@150": (apart <= 150).mean(1),
        "auc3d": np.mean([(apart <= mm).mean(1) for mm in AUC_MM], 0),
    }


def summary(each: dict[str, np.ndarray], clip: np.ndarray) -> dict[str, float]:
    """Return the means, and intervals over clips of PA-MPJPE and symmetry error; ``clip`` is that of each pair."""
    found = {name: float(np.nanmean(values)) for name, values in each.items()}
    clips = np.unique(clip)
    counts = np.array([(clip == one).sum() for one in clips])
    drawn = np.random.default_rng(0).integers(len(clips), size=(1000, len(clips)))
    for name, short in (("pa_mpjpe", "pa"), ("symmetry_error", "symmetry")):
        sums = np.array([each[name][clip == one].sum() for one in clips])
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        found[f"{short}_low"], found[f"{short}_high"] = (float(np.percentile(means, q)) for q in (2.5, 97.5))
    return found


def poses_of_test(clips: PoseClips, every: int = 1) -> tuple[PoseClips, dict[str, np.ndarray]]:
    """Return the poses of the test subjects, and masks of the two kinds of them."""
    _, test = clips.split_by_subject(SPLIT.test)
    test = test.select(np.arange(0, len(test), every))
    retargeted = np.array([name.startswith(RETARGETED) for name in test.subject_of_pose])
    return test, {"all": np.ones(len(test), bool), "cmu": ~retargeted, "retargeted": retargeted}


def row_of(name: str, seed: object, group: str, found: dict[str, float], **more: object) -> dict[str, object]:
    digits = {"pck3d@150": 3, "auc3d": 3}
    numbers = {key: f"{value:.{digits.get(key, 1)}f}" for key, value in found.items()}
    return {"lifter": name, "seed": seed, "test_subjects": group, **more, **numbers}


def points_of_labels(labels: Path, clips: PoseClips) -> np.ndarray:
    """Return the labelled people as RepNet's training takes them."""
    dataset = coco(labels)
    people = Instances.concatenate([dataset.instances(i) for i in range(len(dataset))])
    rest, _ = clips.split_by_subject([*SPLIT.test, *SPLIT.validation])
    return labelled_points(people, rest.xyz_mm[np.isfinite(rest.xyz_mm).all((1, 2))], clips.skeleton)


def runs_in(folder: Path) -> dict[tuple[str, int], Path]:
    """Return the finished runs by recipe and seed."""
    found = {}
    for file in sorted(folder.glob("*/lifter.safetensors")):
        recipe, _, seed = file.parent.name.rpartition("-")
        if seed.isdigit():
            found[recipe, int(seed)] = file
    return found


def shipped_rows(clips: PoseClips, lifter: Lifter) -> list[dict[str, object]]:
    """Return what becomes of the lifter with points as pose networks give them, over all 17 keypoints."""
    skeleton, rng = clips.skeleton, np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    test, groups = poses_of_test(clips, every=4)
    for elevation in (0.0, 30.0):
        pairs = view_poses(test.xyz_mm, skeleton, EIGHT_SIDES, elevation_degrees=elevation)
        truth = pairs.xyz_mm.astype(np.float64)
        height = np.ptp(pairs.xy[..., 1], axis=1)[:, None, None]
        have = {
            "all 17 keypoints": np.ones(17, bool),
            "those of people19": np.isin(skeleton.keypoints, PEOPLE19.keypoints),
            "those of coco17": np.isin(skeleton.keypoints, COCO17.keypoints),
        }
        for points_are, known in have.items():
            for noise in (0.0, 0.02):
                points = pairs.xy + noise * height * rng.normal(size=pairs.xy.shape)
                lifted = lifter.lift(np.where(known[:, None], points, np.nan))
                assert lifted.spread_mm is not None
                aligned = distances_mm(
                    align_procrustes(lifted.xyz_mm.astype(np.float64), truth, reflection=False), truth
                )
                error = distances_mm(lifted.xyz_mm, truth)
                for group, poses in groups.items():
                    of = poses[pairs.pose]
                    spread = lifted.spread_mm[of]
                    rows.append(
                        {
                            "points": points_are, "noise_of_height": noise, "elevation_degrees": elevation,
                            "test_subjects": group, "views": int(of.sum()), "pa_mpjpe": f"{aligned[of].mean():.1f}",
                            "mpjpe": f"{error[of].mean():.1f}", "expected_error": f"{spread.mean():.1f}",
                            "correlation": f"{np.corrcoef(spread.ravel(), error[of].ravel())[0, 1]:.2f}",
                            "residual": f"{np.median(lifted.residual[of]):.3f}",
                        }
                    )  # fmt: skip
    return rows


def pack(run: Path, out: Path, clips: PoseClips) -> None:
    """Write a lifter in half precision, with its results in the card."""
    lifter = load_lifter(run)
    pairs = view_poses(poses_of_test(clips)[0].xyz_mm, clips.skeleton)
    errors = distances_mm(
        align_procrustes(lifter(pairs.xy).astype(np.float64), pairs.xyz_mm.astype(np.float64), reflection=False),
        pairs.xyz_mm,
    )
    card = dataclasses.replace(
        lifter.card,
        results={"mocap test subjects, eight sides, PA-MPJPE mm": round(float(errors.mean()), 2)},
        data="CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu), 19 subjects, in pairs with projections from "
        f"random cameras. Held out: {', '.join([*SPLIT.test, *SPLIT.validation])}",
        license="The CMU database is free for all uses. The weights are under Apache-2.0, as the code.",
        notes="Trained with pairs, so it is not RepNet. Poses have the mean size of the training people.",
    )
    save_lifter(out, Lifter(card, lifter.network, lifter.critic), half=True)
    print(f"{out}: {out.stat().st_size:,} bytes; {card.results}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("poses", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--train", nargs="*", default=[], help="names of recipes")
    parser.add_argument("--labels", type=Path, help="2D labels of photographs, in COCO's format, for --train")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pack", type=Path, help="a run")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    clips = read_poses(given.poses)
    if given.pack:
        pack(given.pack, given.out, clips)
        return
    labelled = points_of_labels(given.labels, clips) if given.labels and given.train else None
    for seed in range(given.seeds):  # every recipe has its first seed before any has its second
        for name in given.train:
            folder = given.runs / f"{name}{'_labels' if labelled is not None else ''}-{seed}"
            if not (folder / "lifter.safetensors").is_file():
                recipe, resume = read_lift_recipe(name), (folder / "last.pt").is_file()
                text = recipe_text(name)
                train_lifter(recipe, clips, folder, seed=seed, labelled=labelled, resume=resume, recipe_text=text)
    rest, _ = clips.split_by_subject([*SPLIT.test, *SPLIT.validation])
    some = np.sort(np.random.default_rng(0).choice(len(rest), round(SHARE * len(rest)), replace=False))
    # of one size, as the lifters' training has them, so that the errors without alignment compare too
    bodies, _ = bodies_of(rest)
    sized = 1000 * bodies.world.numpy()
    every, few = view_poses(sized, clips.skeleton), view_poses(sized[some], clips.skeleton)
    facing = view_poses(sized, clips.skeleton, (0.0,), relative_to="person")
    lifts: list[tuple[str, object, Lift, dict[str, object]]] = []
    baselines = (
        ("mean seen", mean_pose(every), every),
        ("mean person", mean_pose(facing), facing),
        ("linear, a tenth of pairs", linear(few), few),
    )
    for name, lift, pairs in baselines:
        lifts.append((name, "", lambda seen, lift=lift: of_16(lift(seen), clips.skeleton), {"steps": len(pairs)}))
    shipped_lifter = load_lifter()
    parameters = sum(p.numel() for p in shipped_lifter.network.parameters())
    lifts.append((f"{shipped_lifter.card.name} (ships)", "", of_lifter(shipped_lifter), {"parameters": parameters}))
    curves: list[dict[str, object]] = []
    for (recipe, seed), file in runs_in(given.runs).items():
        lifter = load_lifter(file)
        parameters = sum(p.numel() for p in lifter.network.parameters())
        rows = list(csv.DictReader((file.parent / "curve.csv").read_text().splitlines()))
        curves += [{"recipe": recipe, "seed": seed} | row for row in rows]
        about = {"parameters": parameters, "steps": rows[-1]["step"], "seconds": rows[-1]["seconds"]}
        lifts.append((recipe, seed, of_lifter(lifter), about))
    rows_out = []
    test, groups = poses_of_test(clips)
    pairs = view_poses(test.xyz_mm, clips.skeleton)
    for name, seed, lift, about in lifts:
        each = errors_of_each(lift, pairs)
        for group, poses in groups.items():
            of = poses[pairs.pose]
            found = summary({key: values[of] for key, values in each.items()}, test.clip[pairs.pose][of])
            more = {key: about.get(key, "") for key in ("parameters", "steps", "seconds")}
            rows_out.append(row_of(name, seed, group, found, **more))
            print(*(f"{key} {value}" for key, value in rows_out[-1].items() if value != ""), sep="  ", flush=True)
    write_rows(RESULTS / "lifting.csv", rows_out, "lifting", "core", "metrics")
    keys = list(dict.fromkeys(key for row in curves for key in row))
    if curves:
        write_rows(
            RESULTS / "lifting_curves.csv", [{key: row.get(key, "") for key in keys} for row in curves], "lifting"
        )
    shipped = shipped_rows(clips, shipped_lifter)
    for row in shipped:
        print(*(f"{key} {value}" for key, value in row.items()), sep="  ")
    write_rows(RESULTS / "lifting_shipped.csv", shipped, "lifting", "core", "metrics")


if __name__ == "__main__":
    main()
