"""Boxes in space of rendered streets that training has not seen: average precision, depth and heading, by class.

    python benchmarks/streets.py runs/streets-3d/best.safetensors --out streets.csv

Scenes are those of another seed than the recipe's. Cameras are also taken by thirds of their focal lengths, to see
whether depth follows the focal length.
"""

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import machine

from poseglass.core.environment import source_commit
from poseglass.estimators.load import load_detector
from poseglass.metrics.kitti_ap import KittiAp
from poseglass.synthetic.streets import CLASSES, streets

LEAST_HEIGHT_PX = (16.0, 10.0, 10.0)
"""Of KITTI's 40, 25 and 25 px, as much as the pictures are smaller."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = streets(args.count, seed=args.seed)
    finder = replace(load_detector(str(args.weights)), min_box_score=0.01)
    thirds = np.quantile([data.projection(i)[0, 0] for i in range(len(data))], (1 / 3, 2 / 3))
    parts = {"all": KittiAp(least_height_px=LEAST_HEIGHT_PX)}
    parts |= {name: KittiAp(least_height_px=LEAST_HEIGHT_PX) for name in (*CLASSES, "short", "medium", "long")}
    began = time.perf_counter()
    for i in range(len(data)):
        projection = data.projection(i)
        found, truth = finder(data.image(i), projection=projection), data.instances(i)
        focal = ("short", "medium", "long")[int(np.searchsorted(thirds, projection[0, 0]))]
        for name in ("all", focal):
            parts[name].update(found, truth)
        for label, name in enumerate(CLASSES):
            parts[name].update(found[found.label == label], truth[truth.label == label])
    rows = []
    for name, metric in parts.items():
        row = {"part": name} | {key: round(value, 4) for key, value in metric.compute().items()}
        rows.append(row)
        print(", ".join(f"{key} {row[key]}" for key in ("part", "AP40_bev_moderate", "AP40_3d_moderate", "depth_error",
                                                        "yaw_15", "found")))  # fmt: skip
    seconds = time.perf_counter() - began
    print(f"{len(data)} streets of seed {args.seed} in {seconds:.0f} s, {machine()}, commit {source_commit()}")
    if args.out is not None:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "count", "seed", "machine", "commit"])
            writer.writeheader()
            extra = {"count": len(data), "seed": args.seed, "machine": machine(), "commit": source_commit()}
            writer.writerows(row | extra for row in rows)


if __name__ == "__main__":
    main()
