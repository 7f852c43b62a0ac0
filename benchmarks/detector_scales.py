"""Which scales the detector looks at: boxes of people in the photographs that were kept out for choosing.

These are the photographs of part "choose" of data/coco, and of data/coco_more those in which everybody is labelled
(people19.json, which recipes/people/labels.py writes). Right boxes overlap a labelled person by half (IoU), each at
most once, best score first.

    python benchmarks/detector_scales.py --data data
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, write_rows

import poseglass as pg
from poseglass.core.boxes import iou
from poseglass.metrics import BoxAp
from poseglass.readers.coco import coco

SCALES = (
    (1.0,), (1.0, 1.333), (1.0, 1.667), (1.0, 2.0), (0.667, 1.667), (0.667, 1.0, 1.333), (0.667, 1.0, 1.667),
    (0.5, 1.0, 1.5), (0.5, 1.0, 2.0),
)  # fmt: skip
WITH_FLIP_TEST = ((1.0,), (0.667, 1.0, 1.667), (0.5, 1.0, 1.5))
SCORE = 0.3
"""The default score, at which right and wrong boxes are counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with coco and coco_more.")
    parser.add_argument("--detector", default="people")
    given = parser.parse_args()
    datasets = [
        coco(given.data / "coco/people19.json", where={"part": "choose"}),
        coco(given.data / "coco_more/people19.json", where={"part": "choose", "boxes_complete": True}),
    ]
    rows: list[dict[str, object]] = []
    for flip_test, scales in [(False, each) for each in SCALES] + [(True, each) for each in WITH_FLIP_TEST]:
        find = pg.load_detector(given.detector, min_box_score=0.02, scales=scales, flip_test=flip_test)
        metric, right, wrong, people = BoxAp(), 0, 0, 0
        with torch.inference_mode():
            for dataset in datasets:
                for index in range(len(dataset)):
                    found, truth = find(dataset.image(index)), dataset.instances(index)
                    metric.update(found, truth)
                    sure = found.box_xyxy[found.box_score >= SCORE]
                    hits = matched(sure, truth.box_xyxy)
                    right, wrong, people = right + hits, wrong + len(sure) - hits, people + len(truth)
        results = metric.compute()
        rows.append(
            {
                "scales": " ".join(f"{scale:g}" for scale in scales), "flip test": flip_test,
                "AP50": f"{results['box_AP50']:.4f}", "AP": f"{results['box_AP']:.4f}", "right": right, "wrong": wrong,
                "people": people, "images": sum(map(len, datasets)),
            }
        )  # fmt: skip
        print(*rows[-1].values(), sep="  ", flush=True)
    write_rows(RESULTS / "detector-scales.csv", rows)


def matched(found_xyxy: np.ndarray, truth_xyxy: np.ndarray) -> int:
    """Return how many of the boxes, best first, overlap a labelled one that is free."""
    free, overlaps = set(range(len(truth_xyxy))), iou(found_xyxy, truth_xyxy)
    for row in overlaps:
        best = max(free, key=lambda place: row[place], default=None)
        if best is not None and row[best] >= 0.5:
            free.discard(best)
    return len(truth_xyxy) - len(free)


if __name__ == "__main__":
    main()
