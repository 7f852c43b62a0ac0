import numpy as np
import pytest

from poseglass.core import warp as warp_module
from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.warp import warp_image
from poseglass.transforms import TRANSFORMS, RandomAffine

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

HANDS = Skeleton("hands3", ("left_hand", "right_hand", "nose"))


def smooth(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [128 + 100 * np.sin(x / 9), 128 + 100 * np.cos(y / 7), (x + y) * 255 / (width + height)], -1
    ).astype(np.uint8)


def sample_of(image: np.ndarray, xy: np.ndarray) -> PoseSample:
    return PoseSample(image, Instances.from_keypoints(HANDS, xy[None]), Affine.identity(), "s")


def test_the_identity_changes_nothing() -> None:
    image = smooth(60, 40)
    np.testing.assert_array_equal(warp_image(image, Affine.identity(), (60, 40)), image)


@pytest.mark.parametrize("shift", [(3, 0), (0, -5), (7, 11)])
def test_whole_shifts_move_pixels_exactly(shift: tuple[int, int]) -> None:
    image = smooth(60, 40)
    out = warp_image(image, Affine.about((0, 0), shift_xy=shift), (60, 40))
    x, y = shift
    inside = out[max(y, 0) : 40 + min(y, 0), max(x, 0) : 60 + min(x, 0)]
    np.testing.assert_array_equal(inside, image[max(-y, 0) : 40 - max(y, 0), max(-x, 0) : 60 - max(x, 0)])
    assert not out[:, : max(x, 0)].any()  # outside is black
    assert not out[: max(y, 0)].any()


def test_flipping_is_exact_and_its_own_inverse() -> None:
    image = smooth(61, 40)
    flip = Affine.flip(61)
    once = warp_image(image, flip, (61, 40))
    np.testing.assert_array_equal(once, image[:, ::-1])
    np.testing.assert_array_equal(warp_image(once, flip, (61, 40)), image)


def test_there_and_back() -> None:
    image = smooth(200, 160)
    there = Affine.about((100, 80), scale=1.4, degrees=25, shift_xy=(4.3, -2.6))
    back = warp_image(warp_image(image, there, (320, 320)), there.inverse(), (200, 160))
    middle = np.s_[50:110, 60:140]
    assert np.abs(back[middle].astype(int) - image[middle]).max() <= 12  # two interpolations of a smooth image
    assert np.abs(back[middle].astype(int) - image[middle]).mean() < 2


@pytest.mark.parametrize("factor", [2, 3, 5, 8])
def test_shrinking_averages_what_it_skips(factor: int) -> None:
    """A fine checkerboard becomes grey, not black or white dots."""
    y, x = np.mgrid[: 40 * factor, : 60 * factor]
    board = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, 2)
    to_small = Affine.crop(np.array([-0.5, -0.5, 60 * factor - 0.5, 40 * factor - 0.5]), (60, 40))
    small = warp_image(board, to_small, (60, 40))
    # an odd factor averages one pixel more of one kind: 255 / (2 factor^2) off the middle
    np.testing.assert_allclose(small[2:-2, 2:-2], 127.5, atol=1 + 255 / (2 * factor**2) * (factor % 2))


@pytest.mark.parametrize("scale", [1.7, 1.0, 0.6, 0.45, 0.3, 0.11])
def test_shrinking_keeps_positions(scale: float) -> None:
    """A blob lands where the map says, at any scale; a tenth of a pixel holds for OpenCV 4 and 5."""
    sigma = max(3.0 / scale, 3.0)
    for degrees in (0, 33):
        y, x = np.mgrid[:400, :500]
        blob = 255 * np.exp(-((x - 260.3) ** 2 + (y - 190.7) ** 2) / (2 * sigma**2))
        image = np.repeat(blob[..., None], 3, 2).astype(np.uint8)
        to_target = Affine.about((260, 190), scale=scale, degrees=degrees, shift_xy=(-160.2, -120.4))
        out = warp_image(image, to_target, (200, 140))[..., 0].astype(float)
        v, u = np.mgrid[:140, :200]
        found = np.array([(out * u).sum(), (out * v).sum()]) / out.sum()
        np.testing.assert_allclose(found, to_target(np.array([260.3, 190.7])), atol=0.1)


def test_four_channels_give_what_three_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short cut of OpenCV 5 changes no value: parts of images and whole ones are warped alike."""
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    rotated = Affine.about((50, 40), scale=0.9, degrees=20)
    monkeypatch.setattr(warp_module, "_FOUR_ARE_FASTER", True)
    fast = warp_image(image, rotated, (64, 80))
    monkeypatch.setattr(warp_module, "_FOUR_ARE_FASTER", False)
    np.testing.assert_array_equal(fast, warp_image(image, rotated, (64, 80)))
    assert fast.shape == (80, 64, 3)


def test_an_image_wholly_outside_is_black() -> None:
    far = Affine.about((0, 0), shift_xy=(5000, 5000))
    assert not warp_image(smooth(50, 40), far, (32, 32)).any()
    shrunk = Affine.about((0, 0), scale=0.1, shift_xy=(5000, 5000))
    assert not warp_image(smooth(50, 40), shrunk, (32, 32)).any()
    one = warp_image(np.full((1, 1, 3), 200, np.uint8), Affine.about((0, 0), shift_xy=(3, 3)), (8, 8))
    assert one[3, 3].tolist() == [200, 200, 200]


def test_warping_a_sample_moves_everything_and_updates_to_source() -> None:
    xy = np.array([(20.0, 30.0), (60.0, 35.0), (40.0, 10.0)])
    sample = sample_of(smooth(80, 50), xy)
    first, second = Affine.about((40, 25), degrees=30), Affine.flip(64)
    moved = sample.warped(first).warped(second, (64, 64))
    assert moved.size_wh == (64, 64)
    np.testing.assert_allclose(moved.instances.xy[0], second(first(xy))[[1, 0, 2]], atol=1e-4)  # left is right now
    np.testing.assert_allclose(moved.to_source(moved.instances.xy[0].astype(float)), xy[[1, 0, 2]], atol=1e-3)


def test_flipped_twice_is_the_same_person() -> None:
    xy = np.array([(20.0, 30.0), (60.0, 35.0), (np.nan, np.nan)])
    sample = sample_of(smooth(80, 50), xy)
    twice = sample.flipped().flipped()
    np.testing.assert_array_equal(twice.instances.xy, sample.instances.xy)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(sample.flipped().image, sample.image[:, ::-1])
    assert sample.flipped().to_source.flips


affines = st.builds(
    lambda low, more, degrees, shift, distribution: RandomAffine(
        (low, low + more), degrees, 0.7, shift, 0.5, distribution
    ),
    st.floats(0.2, 1.5),
    st.floats(0, 1.5),
    st.floats(0, 200),
    st.floats(0, 0.4),
    st.sampled_from(["uniform", "normal"]),
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(affine=affines, seed=st.integers(0, 999), width=st.integers(8, 300), height=st.integers(8, 300))
def test_draws_keep_to_their_ranges_and_reach(affine: RandomAffine, seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    reach = np.array(affine.reach((width, height)))
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    for _ in range(10):
        drawn = affine.draw((width, height), rng)
        assert affine.scale[0] * (1 - 1e-9) <= drawn.scale <= affine.scale[1] * (1 + 1e-9)
        seen = drawn.inverse().box(np.array([-0.5, -0.5, width - 0.5, height - 0.5]))
        assert (np.abs(seen - np.tile(middle, 2)) * drawn.scale <= np.tile(reach, 2) * (1 + 1e-9)).all()


@pytest.mark.slow
def test_reach_is_attained() -> None:
    """No smaller region would do: some draw comes within 3 % of it."""
    rng = np.random.default_rng(0)
    for affine in (
        RandomAffine(),
        RandomAffine((1, 1), 90, shift=0.1),
        RandomAffine((1, 1), 20, distribution="normal"),
    ):
        reach, furthest = np.array(affine.reach((100, 60))), np.zeros(2)
        for _ in range(4000):
            drawn = affine.draw((100, 60), rng)
            seen = drawn.inverse().box(np.array([-0.5, -0.5, 99.5, 59.5])) - np.array([49.5, 29.5] * 2)
            furthest = np.maximum(furthest, np.abs(seen).reshape(2, 2).max(0) * drawn.scale)
        assert (furthest > 0.97 * reach).all()
        assert (furthest <= reach * (1 + 1e-9)).all()


def test_a_zoomed_crop_shows_a_part_of_what_it_would_have_shown() -> None:
    rng, places = np.random.default_rng(0), []
    affine = RandomAffine((1, 1), 0, flip_probability=0, zoom=(2, 4), zoom_probability=0.5)
    for _ in range(1000):
        drawn = affine.draw((100, 60), rng)
        x0, y0, x1, y1 = drawn.inverse().box(np.array([-0.5, -0.5, 99.5, 59.5]))
        assert min(x0, y0) >= -0.5 - 1e-9
        assert x1 <= 99.5 + 1e-9
        assert y1 <= 59.5 + 1e-9
        if drawn.scale > 1.5:
            assert 2 <= drawn.scale <= 4
            places.append(((x0 + x1) / 2, (y0 + y1) / 2))
    assert 430 < len(places) < 570
    assert np.ptp(places, axis=0) == pytest.approx([75, 45], rel=0.05)  # from side to side
    assert affine.largest_scale == 4
    assert RandomAffine(zoom=(2, 4)).largest_scale == 1.25


def test_probabilities_of_rotating_and_flipping() -> None:
    rng = np.random.default_rng(0)
    drawn = [RandomAffine(rotate_probability=0.3, flip_probability=0.5).draw((64, 64), rng) for _ in range(2000)]
    flipped = np.mean([d.flips for d in drawn])
    upright = np.mean([abs(d.matrix[0, 1]) < 1e-12 for d in drawn])
    assert abs(flipped - 0.5) < 0.04
    assert abs(upright - 0.7) < 0.04
    never = RandomAffine((1, 1), 0, flip_probability=0)
    np.testing.assert_allclose(never.draw((64, 48), rng).matrix, np.eye(2, 3), atol=1e-12)
    assert all(RandomAffine(flip_probability=1).draw((64, 48), rng).flips for _ in range(20))


def test_the_normal_distribution_is_clipped_at_twice_its_spread() -> None:
    rng = np.random.default_rng(0)
    affine = RandomAffine((0.75, 1.25), 30, flip_probability=0, distribution="normal")
    drawn = [affine.draw((64, 64), rng) for _ in range(3000)]
    degrees = np.rad2deg([np.arctan2(d.matrix[1, 0], d.matrix[0, 0]) for d in drawn])
    assert 25 < degrees.std() < 31
    assert np.abs(degrees).max() == pytest.approx(60)
    assert [min(d.scale for d in drawn), max(d.scale for d in drawn)] == pytest.approx([0.75, 1.25])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"scale": (0, 1)}, r"scale must be \(low, high\) with 0 < low <= high, got \(0, 1\)"),
        ({"scale": (1.2, 0.8)}, r"scale must be \(low, high\)"),
        ({"zoom": (0.5, 2)}, r"zoom must be \(low, high\) with 1 <= low <= high, got \(0.5, 2\)"),
        ({"zoom_probability": 2}, "zoom_probability must be within 0 and 1, got 2"),
        ({"flip_probability": 1.5}, "flip_probability must be within 0 and 1, got 1.5"),
        ({"rotate_probability": -0.1}, "rotate_probability must be within 0 and 1"),
        ({"distribution": "gaussian"}, "distribution must be 'uniform' or 'normal', got 'gaussian'"),
        ({"degrees": -3.0}, "degrees must be 0 or more, got -3.0"),
        ({"shift": -0.1}, "shift must be 0 or more, got -0.1"),
        ({"degrees": float("nan")}, "degrees must be 0 or more, got nan"),
    ],
)
def test_invalid_ranges_are_refused(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomAffine(**numbers)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_is_made_by_name_with_defaults(name: str) -> None:
    assert repr(TRANSFORMS[name]()) == repr(TRANSFORMS[name]())
