import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeletons import BOXES
from poseglass.metrics.center_f1 import CenterF1


def characters(boxes, labels, scores=None, crowd=None) -> Instances:
    count = len(boxes)
    extra = {} if crowd is None else {"crowd": np.array(crowd)}
    score = np.ones(count) if scores is None else np.array(scores)
    shape = np.array(boxes, np.float32).reshape(-1, 4)
    return Instances(BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), shape, score, np.array(labels), extra=extra)


def at(*points):
    return [[x, y, x, y] for x, y in points]


TRUTH = characters([[0, 0, 10, 10], [20, 0, 30, 10], [5, 5, 15, 15]], [1, 2, 1])


def test_a_label_is_found_once_by_the_best_prediction():
    metric = CenterF1()
    metric.update(characters(at((2, 2), (3, 3), (25, 5)), [1, 1, 1], [0.5, 0.9, 0.8]), TRUTH)
    # (3, 3) finds the first label, (2, 2) finds it taken, (25, 5) has the wrong class.
    assert metric.compute() == {"f1": 2 / 6, "precision": 1 / 3, "recall": 1 / 3, "place_f1": 4 / 6}


def test_of_two_boxes_the_nearer_one_and_then_the_other():
    metric = CenterF1()
    metric.update(characters(at((9, 9), (8, 8)), [1, 1]), TRUTH)  # both points lie in both boxes
    assert metric.compute()["recall"] == 2 / 3


def test_scores_and_numbers_are_limited():
    metric, few = CenterF1(min_score=0.6), CenterF1(most=1)
    found = characters(at((2, 2), (25, 5)), [1, 2], [0.5, 0.9])
    for one in (metric, few):
        one.update(found, TRUTH)
        assert one.compute()["precision"] == 1.0
        assert one.compute()["recall"] == 1 / 3


def test_images_are_counted_together_and_merged_in_parts():
    rng = np.random.default_rng(0)
    parts, whole = [CenterF1(), CenterF1()], CenterF1()
    for number in range(8):
        low = rng.uniform(0, 90, (6, 2))
        truth = characters(np.concatenate([low, low + 12], 1), rng.integers(0, 3, 6))
        found = characters(at(*rng.uniform(0, 100, (9, 2))), rng.integers(0, 3, 9), rng.random(9))
        whole.update(found, truth)
        parts[number // 4].update(found, truth)
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()
    assert parts[0].table() == whole.table()
    assert sum(row["labels"] for row in whole.table().values()) == 48


def test_crowds_are_neither_missed_nor_wrong():
    metric = CenterF1()
    truth = characters([[0, 0, 10, 10], [50, 50, 90, 90]], [1, 1], crowd=[False, True])
    metric.update(characters(at((5, 5), (60, 60)), [1, 1]), truth)
    assert metric.compute()["f1"] == 1.0


def test_nothing_at_all():
    metric = CenterF1()
    metric.update(characters([], []), characters([], []))
    assert np.isnan(metric.compute()["f1"])


def test_impossible_numbers():
    with pytest.raises(ValueError, match=r"CenterF1 needs min_score in \[0, 1\] and most of at least 1, got 2"):
        CenterF1(min_score=2)
