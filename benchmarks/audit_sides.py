"""The measurements behind two thresholds of the audit: NOT_SYMMETRIC, and CLEARLY for sets too small for the critic.

1. Distance of flipped poses to the nearest poses of a set, relative to the distance of the poses to each other: with
   the right flip pairs, with none, and for drawings of a house with its chimney on one side.
2. What comparing poses finds in small sets: the fraction of planted swaps of whole bodies, arms and legs, and the
   fraction of unchanged people that it reports.

    python benchmarks/audit_sides.py data/coco/train.json data/lspet/train.json [--output FILE.csv]

Writes benchmarks/results/audit-sides.csv unless told otherwise, in about half a minute. Nothing is timed.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from poseglass.audit.critic import faults_of
from poseglass.audit.few import judge_few
from poseglass.audit.labels import read_coco_leniently
from poseglass.audit.pose import center_and_size, mean_square
from poseglass.core.skeleton import Skeleton

HOUSE = Skeleton("house", ("left_base", "right_base", "left_eave", "right_eave", "ridge", "chimney"))
SIDES = ("swapped-body", "swapped-arms", "swapped-legs")


def houses(count: int) -> np.ndarray:
    """Return drawn houses with the chimney on the right: ``(N, 6, 2)`` pixels."""
    rng = np.random.default_rng(1)
    corners = np.array([[-1, 1], [1, 1], [-1, 0], [1, 0], [0, -0.7], [0.5, -0.6]], float)
    xy = np.tile(corners, (count, 1, 1))
    xy[..., 0] *= rng.uniform(0.8, 1.3, (count, 1))
    xy += rng.normal(0, 0.05, xy.shape)
    angle = rng.uniform(-0.3, 0.3, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    return xy @ turn * 100 + 300


def ratio(skeleton: Skeleton, xy: np.ndarray) -> float:
    """Return how far flipped poses are from the nearest poses, relative to the poses themselves."""
    known = np.isfinite(xy).all(-1)
    _, size = center_and_size(xy)
    k = len(skeleton)
    rows = np.random.default_rng(0).permutation(np.flatnonzero((known.sum(1) >= min(k, max(4, k // 2))) & (size > 0)))
    center, size = center_and_size(xy[rows])
    poses = (xy[rows] - center) / size[:, None, None]
    bank, query = poses[:1500], poses[:300]

    def nearest(mean: np.ndarray) -> float:
        three = np.sqrt(np.sort(mean, axis=1)[:, :3])
        return float(np.where(np.isfinite(three).all(1), three.mean(1), 3.0).mean())

    own = mean_square(query, bank)
    own[np.arange(len(query)), np.arange(len(query))] = np.inf
    flipped = (query * np.array([-1.0, 1.0]))[:, skeleton.flip]
    return nearest(mean_square(flipped, bank)) / nearest(own)


def found_in_small_sets(skeleton: Skeleton, xy: np.ndarray, count: int) -> dict[str, float]:
    """Return the shares found of planted swaps, and of unchanged people reported, over 5 sets of ``count`` people."""
    full = np.flatnonzero(np.isfinite(xy).all(-1).sum(1) >= 8)
    seen: dict[str, list[float]] = {kind: [] for kind in ("unchanged", *SIDES)}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        people = xy[rng.choice(full, min(count, len(full)), replace=False)]
        verdict = judge_few(skeleton, people)
        assert verdict is not None
        seen["unchanged"] += list(verdict.probability[:, 0] < 0.5)
        for fault in faults_of(skeleton):
            if fault.kind not in SIDES:
                continue
            bad = rng.choice(len(people), max(1, count // 10), replace=False)
            changed = people.copy()
            changed[bad] = changed[bad][:, list(fault.order)]
            verdict = judge_few(skeleton, changed)
            assert verdict is not None
            seen[fault.kind] += list(verdict.probability[np.isin(verdict.rows, bad), 0] < 0.5)
    return {kind: float(np.mean(values)) for kind, values in seen.items() if values}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+", help="COCO keypoint JSON files of people.")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/audit-sides.csv"))
    arguments = parser.parse_args()
    rows: list[tuple[str, str, str]] = []
    for path in arguments.labels:
        name = f"{path.parent.name}/{path.stem}"
        group = read_coco_leniently(path).groups[0]
        rows.append((name, "flipped / unflipped distance", f"{ratio(group.skeleton, group.xy):.2f}"))
        without = replace(group.skeleton, flip_pairs=())
        rows.append((name, "the same without flip pairs", f"{ratio(without, group.xy):.2f}"))
        for count in (20, 40, 80, 140):
            for kind, share in found_in_small_sets(group.skeleton, group.xy, count).items():
                rows.append((name, f"{kind}: reported in sets of {count}", f"{share:.3f}"))
    for count in (60, 120, 600):
        rows.append((f"{count} houses", "flipped / unflipped distance", f"{ratio(HOUSE, houses(count)):.2f}"))
    few = judge_few(HOUSE, houses(200), mirror=False)
    assert few is not None
    rows += [("200 houses", f"{kind}: planted swaps found", f"{power:.3f}") for kind, power in few.power.items()]
    with arguments.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("set", "what", "value"))
        writer.writerows(rows)
    for row in rows:
        print("  ".join(row))


if __name__ == "__main__":
    main()
