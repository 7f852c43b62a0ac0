import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.metrics.errors import KINDS, USUAL_SIGMA, KeypointErrors, keypoint_errors

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

FACE = Skeleton("face", ("nose", "left_eye", "right_eye"), sigmas=(0.02, 0.02, 0.02))
TWO = np.array([[[50.0, 50], [70, 30], [30, 30]], [[250, 50], [270, 30], [230, 30]]])
"""Two people of area 10,000: at 5 pixels the similarity is 0.46, at 4 it is 0.61, at 2 it is 0.88."""


def people(xy, skeleton=FACE, area=10000.0):
    return Instances.from_keypoints(skeleton, xy, extra={"area": np.full(len(xy), area)})


def names(predicted, truth, **numbers):
    kinds = keypoint_errors(predicted, truth, **numbers)
    return [["unknown" if kind < 0 else KINDS[kind] for kind in row] for row in kinds]


@pytest.mark.parametrize(
    ("keypoint", "place", "kind"),
    [
        (0, (52.0, 50.0), "good"),
        (0, (54.0, 50.0), "jitter"),
        (0, (55.0, 50.0), "miss"),
        (0, (np.nan, np.nan), "miss"),
        (0, (70.0, 30.0), "miss"),  # on an eye: another part, and not its mirror
        (0, (250.0, 51.0), "swap"),
        (1, (30.0, 31.0), "inversion"),
        (1, (270.0, 30.0), "swap"),
        (1, (230.0, 30.0), "swap"),  # the other person's other eye
    ],
)
def test_every_kind(keypoint, place, kind):
    xy = TWO.copy()
    xy[0, keypoint] = place
    got = names(people(xy), people(TWO))
    assert got[0][keypoint] == kind
    got[0][keypoint] = "good"
    assert got == [["good"] * 3] * 2


def test_of_inversion_and_swap_the_closer_one():
    truth = TWO.copy()
    truth[1, 1] = truth[0, 2] + [4, 0]  # the other's left eye, 4 pixels from this right eye
    for offset, kind in ((1.0, "inversion"), (3.0, "swap")):
        xy = truth.copy()
        xy[0, 1] = truth[0, 2] + [offset, 0]
        assert names(people(xy), people(truth))[0][1] == kind


def test_nearness_is_that_of_the_place():
    # The right eye's tolerance is ten times the left one's: the left eye's prediction, 20 pixels from it, is near.
    uneven = Skeleton("uneven", FACE.keypoints, sigmas=(0.02, 0.02, 0.2))
    xy = TWO.copy()
    xy[0, 1] = TWO[0, 2] + [0, 20]
    assert names(people(xy, uneven), people(TWO, uneven))[0][1] == "inversion"
    assert names(people(xy), people(TWO))[0][1] == "miss"


def test_unknown_truth_does_not_count_and_other_people_only_by_what_is_labelled():
    truth = TWO.copy()
    truth[0, 0] = np.nan
    truth[1, 1] = truth[1, 2] = np.nan
    xy = TWO.copy()
    xy[0, 1] = 270, 30
    assert names(people(xy), people(truth)) == [["unknown", "miss", "good"], ["good", "unknown", "unknown"]]


def test_a_skeleton_without_sigmas_takes_the_usual_one():
    plain = Skeleton("plain", ("a", "b"))
    half = 2 * USUAL_SIGMA * 100 * np.sqrt(2 * np.log(2))  # pixels at which the similarity is a half
    xy = np.array([[[0.0, 0.0], [500.0, 0.0]]])
    off = xy + np.array([[0.0, half - 0.01], [0.0, half + 0.01]])
    np.testing.assert_allclose(np.mean(COCO17.sigmas[5:]), USUAL_SIGMA, atol=1e-3)
    assert names(people(off, plain), people(xy, plain)) == [["jitter", "miss"]]
    assert names(people(off, plain), people(xy, plain), sigmas=(0.01, 0.2)) == [["miss", "good"]]


def test_metric_counts_each_keypoint():
    metric = KeypointErrors()
    metric.update(people(TWO[:, [0, 2, 1]]), people(TWO))
    metric.update(people(TWO), people(TWO))
    results, table = metric.compute(), metric.table()
    assert results["errors/inversion"] == pytest.approx(1 / 3)
    assert sum(results.values()) == pytest.approx(1)
    assert table["nose"] == {"count": 4, "good": 1, "jitter": 0, "inversion": 0, "swap": 0, "miss": 0}
    assert table["left_eye"]["inversion"] == 0.5
    assert metric.counts.sum() == 12
    assert KeypointErrors().table() == {}
    assert np.isnan(KeypointErrors().compute()["errors/good"])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_properties(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(3):
        xy = rng.uniform(0, 60, (3, 17, 2))
        found = xy + rng.normal(0, 4, xy.shape)
        xy[rng.random((3, 17)) < 0.3] = np.nan
        images.append((people(found, COCO17, 900.0), people(xy, COCO17, 900.0)))
    one, two, both = KeypointErrors(), KeypointErrors(), KeypointErrors()
    for predicted, truth in images:
        both.update(predicted, truth)
        assert keypoint_errors(truth, truth).max() <= 0
        np.testing.assert_array_equal(keypoint_errors(predicted, truth) == -1, ~truth.known)
        # The order of people does not matter.
        np.testing.assert_array_equal(
            keypoint_errors(predicted[::-1], truth[::-1]), keypoint_errors(predicted, truth)[::-1]
        )
    one.update(*images[2])
    for image in images[:2]:
        two.update(*image)
    one.merge(two)
    assert one.compute() == both.compute()


def test_bad_use():
    assert keypoint_errors(Instances.empty(FACE), Instances.empty(FACE)).shape == (0, 3)
    with pytest.raises(ValueError, match=r"needs 0 < near <= good <= 1, got near=0\.9, good=0\.85"):
        KeypointErrors(near=0.9)
    with pytest.raises(ValueError, match="Rows of predictions"):
        keypoint_errors(people(TWO[:1]), people(TWO))
    plain = Instances.from_keypoints(FACE, TWO)
    with pytest.raises(ValueError, match="OKS needs the area"):
        keypoint_errors(plain, plain, box_area_factor=None)
    metric = KeypointErrors()
    metric.update(people(TWO), people(TWO))
    other = people(np.zeros((1, 17, 2)), COCO17)
    with pytest.raises(ValueError, match="has seen skeleton 'face' and now gets 'coco17'"):
        metric.update(other, other)
