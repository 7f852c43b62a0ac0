"""Suppression against a loop over pairs, written out."""

import math

import numpy as np
import pytest

from poseglass.core.skeletons import COCO17
from poseglass.metrics.oks_nms import oks_nms, soft_oks_nms

SIGMAS = COCO17.sigmas


def similarity(a, b, area):
    total = 0.0
    for (xa, ya), (xb, yb), sigma in zip(a, b, SIGMAS, strict=True):
        total += math.exp(-((xa - xb) ** 2 + (ya - yb) ** 2) / (2 * area * (2 * sigma) ** 2))
    return total / len(SIGMAS)


def loop(xy, score, area, threshold):
    """Return what is kept: from the best down, all that are not too like one that is kept."""
    kept = []
    for i in sorted(range(len(xy)), key=lambda i: -score[i]):
        if all(similarity(xy[i], xy[j], (area[i] + area[j]) / 2) <= threshold for j in kept):
            kept.append(i)
    return kept


def soft_loop(xy, score, area, width, most):
    score, left, kept = list(score), list(range(len(xy))), []
    while left and len(kept) < most:
        best = max(left, key=lambda i: score[i])
        left.remove(best)
        kept.append((best, score[best]))
        for i in left:
            score[i] *= math.exp(-(similarity(xy[i], xy[best], (area[i] + area[best]) / 2) ** 2) / width)
    return kept


def crowd(seed, n=40):
    """Make poses of which many are near copies of one another."""
    rng = np.random.default_rng(seed)
    people = rng.uniform(0, 300, (6, 17, 2))
    xy = people[rng.integers(0, 6, n)] + rng.normal(0, 1, (n, 17, 2)) * rng.uniform(0.1, 12, (n, 1, 1))
    return xy, rng.permutation(n) / n, rng.uniform(2000, 20000, n)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_hard_equals_a_loop(seed, threshold):
    xy, score, area = crowd(seed)
    kept = oks_nms(xy, score, area, SIGMAS, threshold=threshold)
    assert 6 <= len(kept) < 40
    assert kept.tolist() == loop(xy, score, area, threshold)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [7, 100])
def test_soft_equals_a_loop(seed, most):
    xy, score, area = crowd(seed)
    kept, lowered = soft_oks_nms(xy, score, area, SIGMAS, width=0.5, most=most)
    expected = soft_loop(xy, score, area, 0.5, most)
    assert len(kept) == min(most, 40)
    assert kept.tolist() == [i for i, _ in expected]
    np.testing.assert_allclose(lowered, [s for _, s in expected], rtol=1e-9)


def test_the_larger_the_area_the_more_alike():
    xy = np.zeros((2, 17, 2))
    xy[1] += 5.0
    score = np.array([0.4, 0.6])
    assert oks_nms(xy, score, np.full(2, 1e2), SIGMAS).tolist() == [1, 0]
    assert oks_nms(xy, score, np.full(2, 1e6), SIGMAS).tolist() == [1]


def test_equal_scores_keep_their_order_and_nobody_is_fine():
    xy = np.arange(3.0)[:, None, None] * 1000 + np.zeros((3, 17, 2))
    assert oks_nms(xy, np.ones(3), np.ones(3), SIGMAS).tolist() == [0, 1, 2]
    assert oks_nms(xy[:0], np.ones(0), np.ones(0), SIGMAS).tolist() == []
    assert soft_oks_nms(xy[:0], np.ones(0), np.ones(0), SIGMAS)[0].tolist() == []


def test_rows_must_correspond():
    with pytest.raises(ValueError, match=r"one score and one area for each of the N poses, got \(2, 17, 2\), \(3,\)"):
        oks_nms(np.zeros((2, 17, 2)), np.ones(3), np.ones(2), SIGMAS)
