import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.metrics.matching import align, match
from poseglass.metrics.pck import Pck


def crowd(n, seed=0):
    xy = np.random.default_rng(seed).uniform(0, 100, (1, 17, 2)) + np.arange(n)[:, None, None] * 80
    return Instances.from_keypoints(COCO17, xy)


def with_scores(people, scores):
    return Instances(COCO17, people.xy, people.score, people.box_xyxy, scores)


def test_match_is_greedy_by_score():
    truth = crowd(2)
    near = Instances.from_keypoints(COCO17, np.stack([truth.xy[0] + 2, truth.xy[0] + 1, truth.xy[1] + 1]))
    assert match(with_scores(near, [0.9, 0.8, 0.7]), truth, threshold=0.5).tolist() == [0, -1, 1]
    assert match(with_scores(near, [0.7, 0.8, 0.9]), truth, threshold=0.5).tolist() == [-1, 0, 1]
    assert match(near, truth[:0]).tolist() == [-1, -1, -1]
    assert match(near[:0], truth).tolist() == []


def test_threshold_of_a_match():
    truth = crowd(1)
    off = Instances.from_keypoints(COCO17, truth.xy + 8)
    assert match(off, truth, threshold=0.1).tolist() == [0]
    assert match(off, truth, threshold=0.9).tolist() == [-1]


def test_aligned_predictions_go_into_pck():
    truth = crowd(3)
    predicted = truth[[2, 0]]
    aligned = align(predicted, truth, threshold=0.5)
    np.testing.assert_array_equal(aligned.xy[[0, 2]], truth.xy[[0, 2]])
    assert not aligned.known[1].any()
    metric = Pck()
    metric.update(aligned, truth)
    assert metric.compute()["pck@0.2"] == pytest.approx(2 / 3)


def test_sigmas_are_needed():
    people = Instances.from_keypoints(Skeleton("plain", ("a", "b")), np.array([[[0.0, 0.0], [9.0, 9.0]]]))
    for function in (lambda: match(people, people), lambda: align(people, people)):
        with pytest.raises(ValueError, match="'plain' has no sigmas"):
            function()
    assert match(people, people, sigmas=(0.08, 0.08)).tolist() == [0]
