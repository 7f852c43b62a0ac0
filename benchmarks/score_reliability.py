"""Calibration of scores: the share of keypoints within 0.2 torso of the label, by their score.

Also the share of all keypoints above a threshold, and how many of them are correct: the effect of ``--min-score``.

    python benchmarks/score_reliability.py data/lspet/val.json [--weights NAME] [--output benchmarks/results]
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from machine import RESULTS, write_rows

import poseglass as pg
from poseglass.estimators.load import DEFAULT, find_weights
from poseglass.estimators.weights_file import sha256_of
from poseglass.evaluation.evaluate import evaluate
from poseglass.metrics.pck import normalised_distance, torso_px
from poseglass.readers import coco

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default=DEFAULT)
    parser.add_argument("--threshold", type=float, default=0.2)
    parser.add_argument("--no-flip-test", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = evaluate(
        pg.load_top_down(arguments.weights, flip_test=not arguments.no_flip_test), coco(arguments.data), []
    )
    score, distance = [], []
    for found, truth in zip(result.predicted, result.truth, strict=True):
        score.append(found.score)
        distance.append(normalised_distance(found.xy, truth.xy, torso_px(truth)))
    score, distance = np.concatenate(score).ravel(), np.concatenate(distance).ravel()
    labelled = np.isfinite(distance)
    score, right = score[labelled], distance[labelled] <= arguments.threshold
    rows = []
    for low, high in itertools.pairwise(EDGES):
        here = (score >= low) & (score < high if high < 1 else score <= high)
        above = score >= low
        rows.append(
            {
                "score from": low,
                "to": high,
                "points": int(here.sum()),
                "right": f"{right[here].mean():.3f}" if here.any() else "",
                "kept by this threshold": f"{above.mean():.3f}",
                "right of those": f"{right[above].mean():.3f}" if above.any() else "",
                "weights": arguments.weights,
                "data": arguments.data.parent.name + "/" + arguments.data.stem,
                "threshold": arguments.threshold,
                "flip test": not arguments.no_flip_test,
                "sha256": sha256_of(find_weights(arguments.weights))[:12],
            }
        )
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in list(row.items())[:6]))
    write_rows(arguments.output / f"score-{Path(arguments.weights).stem}.csv", rows, "estimators")


if __name__ == "__main__":
    main()
