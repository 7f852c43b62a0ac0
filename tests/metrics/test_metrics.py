"""The contract: every metric of the table keeps it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeletons import COCO17
from poseglass.core.table import build
from poseglass.metrics import METRICS
from poseglass.training.distributed import Processes

NUMBERS = {"pckh": {"excluded": ()}}
LOWER = {"errors/jitter", "errors/inversion", "errors/swap", "errors/miss", "depth_error"}
SHOWN = {
    "pck": "pck@0.2", "pckh": "pckh@0.5", "oks_ap": "AP", "box_ap": "box_AP", "center_f1": "f1",
    "kitti_ap": "found", "errors": "errors/good",
}  # fmt: skip
SHIFT = {"center_f1": 30.0, "kitti_ap": 12.0}
"""Pixels that make some predictions wrong; 3.5 if nothing else stands here."""


def solid(people):
    """Return instances with boxes in space 20 m away, where their boxes in the image are at 100 mm for a pixel."""
    low, high = np.split(people.box_xyxy.astype(float), 2, axis=1)
    middle, size = (low + high) * 50, (high - low) * 100
    rest = np.tile([20000.0, 5000.0, 0.3], (len(people), 1))
    box = np.concatenate([middle, rest[:, :1], size, rest[:, 1:]], 1)
    camera = np.broadcast_to(np.eye(3, 4), (len(people), 3, 4))
    return replace(people, box_3d=box, projection=camera)


def images(shift=0.0):
    for seed in range(4):
        xy = np.random.default_rng(seed).uniform(0, 90, (2, 17, 2)) + np.array([0, 200])[:, None, None]
        extra = {"area": np.full(2, 4000.0), "head_px": np.full(2, 20.0)}
        truth = Instances.from_keypoints(COCO17, xy, extra=extra)
        moved = Instances.from_keypoints(COCO17, xy + shift * seed)
        # Scores that differ: equal ones keep the order of the images.
        found = Instances(COCO17, moved.xy, moved.score, moved.box_xyxy, [0.9 - seed / 10, 0.85 - seed / 10])
        yield solid(found), solid(truth)


def test_table_of_contents():
    assert set(METRICS) == set(SHOWN)


@pytest.mark.parametrize("name", METRICS)
def test_contract(name):
    def figure(pairs):
        metric = build(METRICS, name, **NUMBERS.get(name, {}))
        for pair in pairs:
            metric.update(*pair)
        results = metric.compute()
        assert all(isinstance(value, float) for value in results.values())
        assert metric.compute() == results
        assert {key: metric.better(key) for key in results} == {k: "lower" if k in LOWER else "higher" for k in results}
        rows = metric.table()
        assert rows
        assert all(isinstance(value, float) for row in rows.values() for value in row.values())
        return results[SHOWN[name]]

    some = SHIFT.get(name, 3.5)
    best, middling, worst = figure(images()), figure(images(some)), figure(images(500.0))
    assert best == pytest.approx(1)
    assert worst < middling < best
    assert worst < 0.26  # of four images the first is not moved
    assert figure(list(images(some))[::-1]) == pytest.approx(middling)


def ties():
    """Images of which every pose has the same score, found or not by turns; the fifth is of nobody."""
    rng = np.random.default_rng(5)
    for number in range(9):
        people = 0 if number == 4 else 1 + number % 3
        xy = rng.uniform(0, 90, (people, 17, 2))
        truth_xy = np.where(rng.random((people, 17, 1)) < 0.2, np.nan, xy)
        found_xy = xy + rng.normal(0, 4 + 40 * (number % 2), xy.shape)
        extra = {"area": np.full(people, 4000.0), "head_px": np.full(people, 20.0)}
        found = Instances.from_keypoints(COCO17, found_xy)
        scores = np.full(people, 0.9, np.float32)
        yield (
            solid(Instances(COCO17, found.xy, found.score, found.box_xyxy, scores)),
            solid(Instances.from_keypoints(COCO17, truth_xy, extra=extra)),
        )


def seen(name, pairs):
    metric = build(METRICS, name, **NUMBERS.get(name, {}))
    for pair in pairs:
        metric.update(*pair)
    return metric


@pytest.mark.parametrize("world", [2, 3, 12])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_parts_merge_into_that_of_the_whole(name, world):
    """Exactly, ties and means over floats included; twelve parts of nine images leave some without any."""
    pairs = list(ties())
    parts = [pairs[Processes(rank, world).part_of([len(truth) for _, truth in pairs])] for rank in range(world)]
    assert sum(map(len, parts)) == len(pairs)
    first, *others = (pickle.loads(pickle.dumps(seen(name, part))) for part in parts)
    for other in others:
        first.merge(other)
    whole = seen(name, pairs)
    np.testing.assert_equal(first.compute(), whole.compute())
    np.testing.assert_equal(first.table(), whole.table())


def test_the_order_of_the_parts_matters_to_equal_scores():
    """So parts are neighbours, and are merged by rank: every second image to each process would give another AP."""
    pairs = list(ties())
    turned = seen("oks_ap", pairs[::2])
    turned.merge(seen("oks_ap", pairs[1::2]))
    assert turned.compute()["AP"] != seen("oks_ap", pairs).compute()["AP"]


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_other_fields_do_not_merge(name):
    other = {"pck": {"thresholds": (0.3,)}, "pckh": {"thresholds": (0.3,)}, "oks_ap": {"max_detections": 3},
             "box_ap": {"max_detections": (1, 3)}, "center_f1": {"most": 3},
             "kitti_ap": {"min_score": 0.5}, "errors": {"good": 0.9}}[name]  # fmt: skip
    metric = build(METRICS, name, **NUMBERS.get(name, {}))
    with pytest.raises(ValueError, match="Only metrics with the same fields can be merged, got"):
        metric.merge(build(METRICS, name, **NUMBERS.get(name, {}) | other))
