"""How far keypoints move because an exported file reads its own crops, which differ by rounding.

The same network in PyTorch, in float32, on crops read by the graph and on crops read by the estimator, of up to four
people in each of 40 images of coco_more; distances in pixels of a crop.

    python benchmarks/crops.py [WEIGHTS] [--data data]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, write_rows

from poseglass.core.view import View
from poseglass.estimators.load import load_top_down
from poseglass.programs.graphs import BoxesGraph
from poseglass.readers import coco


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", nargs="?", default="people-pose")
    parser.add_argument("--data", type=Path, default=Path("data"))
    given = parser.parse_args()
    estimator = load_top_down(given.weights)
    graph = BoxesGraph(estimator.torch_program).eval()
    people = coco(given.data / "coco_more" / "train.json")
    away, scores = [], []
    for i in np.linspace(0, len(people) - 1, 40).round().astype(int):
        image, boxes = people.image(int(i)), people.instances(int(i)).box_xyxy
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 20).all(1)][:4].astype(np.float32)
        if not len(boxes):
            continue
        with torch.inference_mode():
            one = graph.named(torch.from_numpy(image), torch.from_numpy(boxes))["xy"].numpy()
        other = estimator(image, boxes)
        scale = np.array([View.crop(box, estimator.input).to_view.scale for box in boxes])
        away.append((np.linalg.norm(one - other.xy, axis=-1) * scale[:, None]).ravel())
        scores.append(other.score.ravel())
    distance, score = np.concatenate(away), np.concatenate(scores)
    rows = []
    for least in (0.0, 0.3, 0.5, 0.7):
        some = distance[score >= least]
        rows.append(
            {
                "weights": given.weights, "least score": least, "keypoints": len(some),
                "median px": f"{np.median(some):.4f}", "p99 px": f"{np.quantile(some, 0.99):.3f}",
                "over half a pixel": int((some > 0.5).sum()),
            }
        )  # fmt: skip
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    write_rows(RESULTS / "crops.csv", rows, "programs")


if __name__ == "__main__":
    main()
