"""Half-body crops: which half, which box, how often, and that pixels and points agree."""

import numpy as np
import pytest

from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, MPII16
from poseglass.data.crops import Crops
from poseglass.synthetic.people import synthetic_people
from poseglass.transforms import HalfBody


def person(skeleton: Skeleton = COCO17) -> tuple[np.ndarray, np.ndarray]:
    """A person whose upper half lies in x 0 to 10 and whose lower half lies in x 100 to 110."""
    lower = np.array([any(w in n for w in ("hip", "knee", "ankle", "pelvis")) for n in skeleton.keypoints])
    across = np.linspace(0, 10, len(skeleton))
    return np.stack([across + 100 * lower, across * 2], -1), np.ones(len(skeleton), bool)


@pytest.mark.parametrize(("skeleton", "upper"), [(COCO17, 11), (MPII16, 9)])
def test_the_halves_are_those_of_the_public_code(skeleton: Skeleton, upper: int) -> None:
    xy, known = person(skeleton)
    rng = np.random.default_rng(0)
    above = HalfBody(1.0, upper_probability=1.0).draw(xy, known, skeleton, 1.0, rng)
    below = HalfBody(1.0, upper_probability=0.0).draw(xy, known, skeleton, 1.0, rng)
    assert above is not None
    assert below is not None
    assert (xy[:, 0] < 50).sum() == upper
    assert above[[0, 2]].mean() == pytest.approx(xy[xy[:, 0] < 50, 0].mean())
    assert below[[0, 2]].mean() == pytest.approx(xy[xy[:, 0] > 50, 0].mean())
    extent = np.ptp(xy[xy[:, 0] < 50], axis=0).max()
    assert above[2] - above[0] == pytest.approx(1.5 * extent)
    assert above[3] - above[1] == pytest.approx(1.5 * extent)


def test_as_often_as_asked() -> None:
    xy, known = person()
    rng = np.random.default_rng(0)
    drawn = [HalfBody(0.3).draw(xy, known, COCO17, 0.75, rng) for _ in range(4000)]
    halves = [box for box in drawn if box is not None]
    assert len(halves) / 4000 == pytest.approx(0.3, abs=0.03)
    assert np.mean([box[[0, 2]].mean() < 50 for box in halves]) == pytest.approx(0.69, abs=0.05)


def test_too_few_keypoints_and_other_draws_stay_where_they_are() -> None:
    xy, known = person()
    few = known & (np.arange(17) < 8)
    after = []
    for which in (known, few):
        rng = np.random.default_rng(5)
        box = HalfBody(1.0).draw(xy, which, COCO17, 1.0, rng)
        assert (box is None) == (which is few)
        after.append(rng.random())
    assert after[0] == after[1]


def test_with_less_than_three_keypoints_the_other_half_is_taken() -> None:
    xy, known = person()
    known[13:] = False  # two of the lower half are left
    box = HalfBody(1.0, upper_probability=0.0).draw(xy, known, COCO17, 1.0, np.random.default_rng(0))
    assert box is not None
    assert box[[0, 2]].mean() < 50


def test_a_crop_shows_the_half_and_its_points_lie_where_they_are_drawn() -> None:
    dataset = synthetic_people(6, seed=3, size_wh=(160, 160), skeleton=COCO17)
    whole = Crops(dataset, InputSpec((64, 64)))
    half = Crops(dataset, InputSpec((64, 64)), (HalfBody(1.0, more_than=2, upper_probability=1.0),))
    enlarged = 0
    for i in range(len(whole)):
        a, b = whole[(0, i, 64, 64)], half[(0, i, 64, 64)]
        back = [s.to_source(s.instances.xy) for s in (a, b)]
        np.testing.assert_allclose(back[0], back[1], atol=1e-3)
        enlarged += b.to_source.scale < a.to_source.scale
    assert enlarged >= len(whole) // 2


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"probability": 1.5}, "probability must be within 0 and 1, got 1.5"),
        ({"upper_probability": -0.1}, "upper_probability must be within"),
        ({"padding": 0.0}, "padding > 0, got 8 and 0.0"),
        ({"more_than": -1}, "more_than >= 0"),
    ],
)
def test_numbers_that_make_no_half_body(numbers: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HalfBody(**numbers)  # type: ignore[arg-type]
