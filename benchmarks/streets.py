"""Boxes in space of rendered streets that training has not seen: average precision, depth and heading, by class.

    python -m poseglass train recipes/streets/boxes_3d.toml --run runs/streets-3d
    python benchmarks/streets.py runs/streets-3d/best.safetensors

Scenes are those of another seed than the recipe's. Cameras are also taken by thirds of their focal lengths, to see
whether depth follows the focal length. Objects by their height in the picture have no average precision, as what is
found has no true height. Wider pictures (--width) show the same scenes, so heights are counted as in a width of 384.
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, write_rows

from poseglass.estimators.load import load_detector
from poseglass.metrics.kitti_ap import KittiAp
from poseglass.synthetic.streets import CLASSES, SIZE_WH, streets_of_width

HEIGHTS_PX = (0.0, 16.0, 24.0, 32.0, 48.0, np.inf)
"""Limits of the parts by height."""

LEAST_HEIGHT_PX = (16.0, 10.0, 10.0)
"""Of KITTI's 40, 25 and 25 px, as much as the pictures are smaller."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--width", type=int, default=SIZE_WH[0], help="Width of the pictures, as for write_streets.")
    parser.add_argument("--min-score", type=float, default=0.3, help="From it on, objects count as found.")
    parser.add_argument("--flip-test", action="store_true", help="Average with the flipped picture.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "streets" / "unseen.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, scale = streets_of_width(args.count, args.seed, args.width), args.width / SIZE_WH[0]
    least_px = tuple(scale * height for height in LEAST_HEIGHT_PX)
    finder = replace(load_detector(str(args.weights), flip_test=args.flip_test), min_box_score=0.01)
    thirds = np.quantile([data.projection(i)[0, 0] for i in range(len(data))], (1 / 3, 2 / 3))
    parts = {
        name: KittiAp(least_height_px=least_px, min_score=args.min_score)
        for name in ("all", *CLASSES, "short", "medium", "long")
    }
    ranges = {f"{low:.0f} to {high:.0f} px": (low, high) for low, high in itertools.pairwise(HEIGHTS_PX)}
    parts |= {name: KittiAp(least_height_px=least_px, min_score=args.min_score) for name in ranges}
    began = time.perf_counter()
    for i in range(len(data)):
        projection = data.projection(i)
        found, truth = finder(data.image(i), projection=projection), data.instances(i)
        focal = ("short", "medium", "long")[int(np.searchsorted(thirds, projection[0, 0]))]
        for name in ("all", focal):
            parts[name].update(found, truth)
        for label, name in enumerate(CLASSES):
            parts[name].update(found[found.label == label], truth[truth.label == label])
        height = (truth.box_xyxy[:, 3] - truth.box_xyxy[:, 1]) / scale
        for name, (low, high) in ranges.items():
            parts[name].update(found, truth[(height >= low) & (height < high)])
    rows: list[dict[str, object]] = []
    for name, metric in parts.items():
        results = metric.compute()
        if name in ranges:
            results = {key: np.nan if "AP" in key else value for key, value in results.items()}
        row = {"part": name, "streets": len(data), "seed": args.seed, "width": args.width}
        rows.append(row | {"flip_test": args.flip_test, "min_score": args.min_score} | results)
        shown = ("AP40_bev_moderate", "AP40_3d_moderate", "depth_error", "yaw_15", "found")
        print(f"{name:<12}", *(f"{key} {rows[-1][key]:.4f}" for key in shown))
    print(f"{len(data)} streets in {time.perf_counter() - began:.0f} s")
    write_rows(args.output, rows)


if __name__ == "__main__":
    main()
