"""Soft suppression against a loop over pairs, written out."""

import math

import numpy as np
import pytest

from poseglass.metrics.box_nms import soft_box_nms


def overlap(a, b):
    w, h = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    if w <= 0 or h <= 0:
        return 0.0
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return w * h / (area_a + area_b - w * h)


def loop(boxes, score, label, method, width, threshold, lowest):
    score, left, kept = list(score), [i for i in range(len(boxes)) if score[i] >= lowest], []
    while left:
        best = max(left, key=lambda i: score[i])
        left.remove(best)
        kept.append((best, score[best]))
        for i in left:
            value = overlap(boxes[i], boxes[best]) if label[i] == label[best] else 0.0
            if method == "gaussian":
                score[i] *= math.exp(-(value**2) / width)
            elif value > threshold:
                score[i] *= 1 - value
        left = [i for i in left if score[i] >= lowest]
    return kept


@pytest.mark.parametrize("method", ["gaussian", "linear"])
@pytest.mark.parametrize("seed", range(4))
def test_as_the_loop_does(method, seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (30, 2))], -1)
    score, label = rng.random(30), rng.integers(0, 2, 30)
    rows, lowered = soft_box_nms(boxes, score, label, method=method, width=0.4, threshold=0.3, lowest=0.1)
    expected = loop(boxes, score, label, method, 0.4, 0.3, 0.1)
    assert rows.tolist() == [row for row, _ in expected]
    assert 2 < len(rows) < 30
    assert lowered == pytest.approx([value for _, value in expected])


@pytest.mark.parametrize("method", ["gaussian", "linear"])
def test_boxes_of_all_sizes_over_a_large_image_are_as_in_the_loop(method):
    rng = np.random.default_rng(5)
    corner = rng.uniform(-500, 500, (250, 2))
    boxes = np.concatenate([corner, corner + np.exp2(rng.uniform(-3, 10, (250, 2)))], -1)
    boxes[7] = np.nan  # overlaps nothing
    boxes[8, 2] = np.inf
    score, label = rng.random(250), rng.integers(0, 2, 250)
    rows, lowered = soft_box_nms(boxes, score, label, method=method, lowest=0.1)
    finite = np.nan_to_num(boxes, nan=1e9, posinf=1e9)
    finite[[7, 8]] = [[1e9, 1e9, 1e9, 1e9], [2e9, 2e9, 2e9, 2e9]]
    expected = loop(finite, score, label, method, 0.5, 0.5, 0.1)
    assert rows.tolist() == [row for row, _ in expected]
    assert 20 < len(rows) < 250
    assert lowered == pytest.approx([value for _, value in expected])


def test_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [90, 0, 99, 9]])
    rows, score = soft_box_nms(boxes, np.array([0.8, 0.6, 0.5]))
    assert rows.tolist() == [0, 2, 1]
    assert score == pytest.approx([0.8, 0.5, 0.6 * math.exp(-0.25 / 0.5)])
    rows, score = soft_box_nms(boxes, np.array([0.8, 0.6, 0.5]), method="linear")  # an IoU of exactly 0.5 is kept
    assert score == pytest.approx([0.8, 0.6, 0.5])
    rows, score = soft_box_nms(boxes, np.array([0.8, 0.6, 0.5]), method="linear", threshold=0.4)
    assert score == pytest.approx([0.8, 0.5, 0.3])
    rows, score = soft_box_nms(boxes, np.array([0.8, 0.6, 0.5]), np.array([1, 2, 2]))
    assert score == pytest.approx([0.8, 0.6, 0.5])


def test_what_comes_in_stays_and_nothing_gives_nothing():
    boxes, score = np.array([[0.0, 0, 1, 1]] * 2), np.array([0.9, 0.9])
    rows, lowered = soft_box_nms(boxes, score, method="linear")  # the same box: the score falls to 0
    assert rows.tolist() == [0]
    assert score.tolist() == [0.9, 0.9]
    rows, lowered = soft_box_nms(np.zeros((0, 4)), np.zeros(0))
    assert (rows.tolist(), lowered.tolist()) == ([], [])
    assert rows.dtype == np.int64


def test_messages():
    boxes, score = np.zeros((2, 4)), np.zeros(2)
    with pytest.raises(ValueError, match=r"box_xyxy \(N, 4\) and one score and one label .* got \(2, 4\), \(3,\)"):
        soft_box_nms(boxes, np.zeros(3))
    with pytest.raises(ValueError, match="must be 'gaussian' or 'linear', got 'hard'"):
        soft_box_nms(boxes, score, method="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="width of soft-NMS must be above 0, got 0"):
        soft_box_nms(boxes, score, width=0)
