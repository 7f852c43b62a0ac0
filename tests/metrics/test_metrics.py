"""The contract: every metric of the table keeps it."""

import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeletons import COCO17
from poseglass.core.table import build
from poseglass.metrics import METRICS

NUMBERS = {"pckh": {"excluded": ()}}
LOWER = {"errors/jitter", "errors/inversion", "errors/swap", "errors/miss"}
SHOWN = {"pck": "pck@0.2", "pckh": "pckh@0.5", "oks_ap": "AP", "errors": "errors/good"}


def images(shift=0.0):
    for seed in range(4):
        xy = np.random.default_rng(seed).uniform(0, 90, (2, 17, 2)) + np.array([0, 200])[:, None, None]
        extra = {"area": np.full(2, 4000.0), "head_px": np.full(2, 20.0)}
        truth = Instances.from_keypoints(COCO17, xy, extra=extra)
        moved = Instances.from_keypoints(COCO17, xy + shift * seed)
        # Scores that differ: equal ones keep the order of the images.
        yield Instances(COCO17, moved.xy, moved.score, moved.box_xyxy, [0.9 - seed / 10, 0.85 - seed / 10]), truth


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

    best, middling, worst = figure(images()), figure(images(3.5)), figure(images(500.0))
    assert best == pytest.approx(1)
    assert worst < middling < best
    assert worst < 0.26  # of four images the first is not moved
    assert figure(list(images(3.5))[::-1]) == pytest.approx(middling)
