"""How well the pose networks find the keypoints of people in given boxes, beside MoveNet: the figures of what ships.

Three test sets, none of which was used to train, to choose or to calibrate: lspet/val; and everyday people, who are the
people of COCO's val2017 images in coco and coco_more, or in coco_more alone, for networks that were trained on coco.
A keypoint is right within a fifth of the torso. Intervals are of 2,000 draws of people with replacement, 95 %.

    python benchmarks/people_poses.py WEIGHTS... [--data data] [--teacher FOLDER]

FOLDER holds movenet_torch.py, see recipes/people/ask_teacher.py; MoveNet then sees the same people in the same boxes,
enlarged by 1.1 for lspet and by 1.25 for COCO, as it does best. It has no neck and no head top.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, write_rows

import poseglass as pg
from poseglass.core.instances import Instances
from poseglass.core.skeletons import COCO17, PEOPLE19
from poseglass.evaluation.evaluate import people_to_judge
from poseglass.evaluation.reliability import reliability_of
from poseglass.metrics.oks import keypoint_similarity
from poseglass.metrics.pck import normalised_distance, torso_px
from poseglass.readers.coco import coco
from poseglass.readers.labelled import LabelledImages

DRAWS = 2000
LIMBS = PEOPLE19.keypoints[5:17]
Found = Callable[[np.ndarray, np.ndarray], Instances]


def test_sets(data: Path) -> dict[str, list[LabelledImages]]:
    """Return the test sets by name."""
    val = {"split": "val2017"}
    more = coco(data / "coco_more" / "train.json", where=val)
    return {
        "lspet/val": [coco(data / "lspet" / "val.json")],
        "everyday": [coco(data / "coco" / "train.json", where=val), more],
        "everyday, coco_more": [more],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", nargs="*")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--trained-on-coco", nargs="*", default=["hg2-light-lspet"])
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--no-flip-test", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "people-poses.csv")
    given = parser.parse_args()
    torch.set_num_threads(2)
    rows: list[dict[str, object]] = []
    for name in given.weights:
        estimator = pg.load_top_down(name, flip_test=not given.no_flip_test)
        card = estimator.card
        assert card is not None
        for where, sets in test_sets(given.data).items():
            if where == "everyday" and name in given.trained_on_coco:
                continue
            pairs = people_of(sets, estimator)
            rows += measured(card.name, where, pairs)
            calibration = estimator.torch_program.calibration
            if calibration is not None:
                held = reliability_of([p for p, _ in pairs], [t for _, t in pairs], calibration)
                assert held is not None
                print(f"  {held.in_words()}")
                for what, value in held.results().items():
                    rows.append({"network": card.name, "people": where, "measure": what, "value": f"{value:.4f}"})
    if given.teacher is not None:
        for where, sets in test_sets(given.data).items():
            pairs = people_of(sets, movenet(given.teacher, 1.1 if where.startswith("lspet") else 1.25))
            rows += measured("MoveNet Thunder", where, pairs)
    write_rows(given.output, rows)


def people_of(sets: Sequence[LabelledImages], estimate: Found) -> list[tuple[Instances, Instances]]:
    """Return predictions and labels of every image."""
    pairs = []
    for data in sets:
        for i in range(len(data)):
            truth = people_to_judge(data.instances(i))
            if not len(truth):
                continue
            found = estimate(data.image(i), truth.box_xyxy)
            pairs.append((found.in_skeleton(PEOPLE19), truth.in_skeleton(PEOPLE19)))
    return pairs


def measured(network: str, where: str, pairs: Sequence[tuple[Instances, Instances]]) -> list[dict[str, object]]:
    """Return rows with PCK@0.2 and mean OKS, and print them."""
    distance = np.concatenate(
        [
            normalised_distance(found.xy, np.where(truth.known[..., None], truth.xy, np.nan), torso_px(truth))
            for found, truth in pairs
        ]
    )
    predicted = np.concatenate([found.known for found, _ in pairs]).any(0)
    limbs = PEOPLE19.indices_of(LIMBS)
    rows = []
    for words, columns in (("12 limb joints", limbs), ("all it predicts", np.flatnonzero(predicted))):
        chosen = distance[:, columns]
        chosen = chosen[(~np.isnan(chosen)).any(1)]
        value, low, high = with_interval(chosen <= 0.2, ~np.isnan(chosen))
        rows.append(
            {
                "network": network, "people": where, "measure": f"PCK@0.2, {words}", "value": f"{value:.4f}",
                "low": f"{low:.4f}", "high": f"{high:.4f}", "counted": len(chosen),
            }
        )  # fmt: skip
        print(
            f"{network:24} {where:20} PCK@0.2, {words:16} {value:.3f} ({low:.3f} to {high:.3f}), {len(chosen)} people"
        )
    similarity: list[float] = []
    for found, truth in pairs:
        labels = np.where(truth.known[..., None], truth.xy, np.nan)[:, :17]
        each = keypoint_similarity(found.xy[:, :17], labels, np.asarray(truth.extra["area"]), COCO17.sigmas)
        similarity += [float(np.nanmean(row)) for row in each if not np.isnan(row).all()]
    rows.append({"network": network, "people": where, "measure": "mean OKS", "value": f"{np.mean(similarity):.4f}"})
    return rows


def with_interval(right: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Return a share over people's keypoints ``(N, K)``, and its 95 % interval over people drawn with replacement."""
    rng = np.random.default_rng(0)
    hits, total = (right & counts).sum(1), counts.sum(1)
    drawn = rng.integers(0, len(hits), (DRAWS, len(hits)))
    shares = hits[drawn].sum(1) / total[drawn].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(hits.sum() / total.sum()), float(low), float(high)


def movenet(folder: Path, padding: float) -> Found:
    """Return MoveNet as a function of an image and boxes."""
    sys.path.insert(0, str(folder))
    teacher = importlib.import_module("movenet_torch")

    def estimate(image: np.ndarray, boxes_xyxy: np.ndarray) -> Instances:
        points = []
        for x0, y0, x1, y1 in boxes_xyxy.tolist():
            points.append(teacher.pose(image, [x0, y0, x1 - x0, y1 - y0], pad=padding))
        found = np.stack(points)
        return Instances(COCO17, found[..., :2], np.clip(found[..., 2], 0, 1), boxes_xyxy, np.ones(len(found)))

    return estimate


if __name__ == "__main__":
    main()
