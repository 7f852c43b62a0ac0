"""How well people are found: boxes, poses in one stage and in two, and what found boxes cost against given ones.

The test set is the images of COCO 2017 in data/coco_more whose field "split" is val2017; nothing that ships
was trained on them. (Those of data/coco are left out: the pose network was trained on them.) Average
precision is measured in the images in which everybody is labelled. Intervals are of 1,000 draws of images with
replacement, 95 %.

    python benchmarks/found_people.py [--data data] [--detector people] [--poses hg2-light-lspet]
    python benchmarks/found_people.py --scales 0.5 1 1.5 --output FILE    # the detector looks at three sizes
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, write_rows

import poseglass as pg
from poseglass.estimators.load import DEFAULT
from poseglass.evaluation.evaluate import evaluate
from poseglass.evaluation.found import evaluate_found
from poseglass.metrics import BoxAp, OksAp, Pck
from poseglass.readers.coco import coco

DRAWS = 1000


def interval(metrics: list, name: str) -> str:
    """Return the 95 % interval of a result over images drawn with replacement; ``metrics`` holds one per image."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(DRAWS):
        drawn = type(metrics[0])(**{key: getattr(metrics[0], key) for key in _fields(metrics[0])})
        for place in rng.integers(0, len(metrics), len(metrics)):
            drawn.merge(metrics[place])
        values.append(drawn.compute()[name])
    values = [value for value in values if np.isfinite(value) and value >= 0]
    return f"{np.percentile(values, 2.5):.3f} to {np.percentile(values, 97.5):.3f}"


def _fields(metric: object) -> list[str]:
    return [field.name for field in dataclasses.fields(metric) if field.init]  # type: ignore[arg-type]


class PerImage:
    """Keeps a metric of every image beside the one over all."""

    def __init__(self, make) -> None:
        self.make, self.whole, self.images = make, make(), []
        self.rows_correspond = getattr(self.whole, "rows_correspond", True)

    def update(self, predicted, truth) -> None:
        self.whole.update(predicted, truth)
        one = self.make()
        one.update(predicted, truth)
        self.images.append(one)

    def compute(self) -> dict[str, float]:
        return self.whole.compute()

    def table(self) -> dict:
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--detector", default="people")
    parser.add_argument("--poses", default=DEFAULT)
    parser.add_argument("--flip-test", action="store_true")
    parser.add_argument("--size", type=int, default=0, help="Side of the detector's view; 0 is the card's.")
    parser.add_argument("--scales", type=float, nargs="+", help="Scales at which the detector looks.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "found-people.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = {"split": "val2017"}
    test = coco(arguments.data / "coco_more" / "train.json", where=chosen)
    whole = coco(arguments.data / "coco_more" / "train.json", where=chosen | {"boxes_complete": True})
    boxes = sum(len(whole.instances(i)) for i in range(len(whole)))
    people = sum(int(test.instances(i).known.any(1).sum()) for i in range(len(test)))
    print(f"{len(test)} images, {people} people with keypoints; average precision in {len(whole)} with {boxes} boxes")
    size_wh = (arguments.size, arguments.size) if arguments.size else None
    detector = pg.load_detector(
        arguments.detector, min_box_score=0.05, flip_test=arguments.flip_test, size_wh=size_wh,
        scales=tuple(arguments.scales) if arguments.scales else None,
    )  # fmt: skip
    poses = pg.load_top_down(arguments.poses, flip_test=True)
    both = pg.TwoStageEstimator(detector, poses)
    rows: list[dict[str, object]] = []

    def row(what: str, measure: str, metric, name: str) -> None:
        value = metric.compute()[name]
        images = [one for one in metric.images if _counts(one)]
        rows.append({"what": what, "measure": measure, "value": f"{value:.4f}", "interval": interval(images, name)})
        print(f"{what:48} {measure:28} {value:.3f}  ({rows[-1]['interval']})", flush=True)

    def pck() -> PerImage:
        return PerImage(lambda: Pck("torso", (0.2,)))

    ap, oks, found = PerImage(BoxAp), PerImage(OksAp), pck()
    evaluate_found(detector, whole, [ap, oks])
    evaluate_found(detector, test, [found])
    row("boxes", "AP50", ap, "box_AP50")
    row("boxes", "AP", ap, "box_AP")
    row("poses in one stage", "OKS-AP", oks, "AP")
    row("poses in one stage", "OKS-AP50", oks, "AP50")
    row("poses in one stage, found at the person", "PCK@0.2", found, "pck@0.2")
    given, found = pck(), pck()
    evaluate(poses, test, [given])
    evaluate_found(both, test, [found])
    row("poses in two stages, given boxes", "PCK@0.2 of 12 joints", given, "pck@0.2")
    row("poses in two stages, found boxes", "PCK@0.2 of 12 joints", found, "pck@0.2")
    write_rows(arguments.output, rows)


def _counts(metric) -> bool:
    """Whether an image has something to measure; Pck has no result without."""
    return not isinstance(metric, Pck) or metric.people > 0


if __name__ == "__main__":
    main()
