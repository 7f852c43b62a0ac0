import numpy as np
import pytest

from poseglass.transforms import ColorJitter, Occlusion


def random_image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_no_jitter_changes_nothing() -> None:
    image = random_image()
    still = ColorJitter(channel=0, contrast=0, brightness=0)
    np.testing.assert_array_equal(still.repaint(image, np.random.default_rng(0)), image)
    np.testing.assert_array_equal(Occlusion(0).repaint(image, np.random.default_rng(0)), image)


def test_the_input_stays_as_it_is() -> None:
    image, copy = random_image(), random_image()
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert ColorJitter(0.4, 0.3, 0.2, 0.5).repaint(image, rng).dtype == np.uint8
        assert Occlusion(1.0).repaint(image, rng).shape == image.shape
    np.testing.assert_array_equal(image, copy)


def test_the_same_generator_gives_the_same_colours() -> None:
    image = random_image()
    for change in (ColorJitter(0.4, 0.3, 0.2, 0.5), Occlusion(0.5)):
        a, b = (change.repaint(image, np.random.default_rng(3)) for _ in range(2))
        np.testing.assert_array_equal(a, b)


def test_jitter_is_gain_then_contrast_then_shift() -> None:
    """One matrix does what floats would do step by step, to the rounding of the result."""
    image = random_image()
    for seed in range(20):
        out = ColorJitter(0.4, 0.3, 0.2).repaint(image, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        gains, contrast, shift = rng.uniform(0.6, 1.4, 3), rng.uniform(0.7, 1.3), rng.uniform(-0.2, 0.2) * 255
        exact = np.clip((image * gains - 127.5) * contrast + 127.5 + shift, 0, 255)
        assert np.abs(out - exact).max() <= 0.51


def test_grey_is_the_luma_and_takes_the_gains_afterwards() -> None:
    image = random_image()
    out = ColorJitter(channel=0.4, grey_probability=1).repaint(image, np.random.default_rng(5))
    gains = np.random.default_rng(5).uniform(0.6, 1.4, 3)
    exact = np.clip((image @ np.array([0.299, 0.587, 0.114]))[..., None] * gains, 0, 255)
    assert np.abs(out - exact).max() <= 0.75  # OpenCV sums three channels in fixed point


def test_grey_has_no_colour() -> None:
    out = ColorJitter(channel=0, grey_probability=1).repaint(random_image(), np.random.default_rng(0))
    assert (out == out[..., :1]).all()


def test_patches_are_as_large_as_said() -> None:
    image = np.full((100, 200, 3), 7, np.uint8)
    rng = np.random.default_rng(0)
    covered, one_color = [], 0
    for _ in range(200):
        changed = (Occlusion(0.5, (0.1, 0.3)).repaint(image, rng) != image).any(-1)
        covered.append(bool(changed.any()))
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert 9 <= height <= 30
            assert 19 <= width <= 60
            one_color += changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert 70 < sum(covered) < 130
    assert one_color > 20


def test_a_patch_fits_into_a_tiny_crop() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert Occlusion(1.0, (0.5, 1.0)).repaint(image, rng).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColorJitter(channel=-0.1), r"ColorJitter\.channel must be within 0 and 1, got -0\.1"),
        (lambda: ColorJitter(contrast=1.5), r"ColorJitter\.contrast must be within 0 and 1, got 1\.5"),
        (lambda: ColorJitter(brightness=2), r"ColorJitter\.brightness must be within 0 and 1, got 2"),
        (lambda: ColorJitter(grey_probability=-1), r"ColorJitter\.grey_probability must be within 0 and 1"),
        (lambda: Occlusion(probability=1.1), r"Occlusion\.probability must be within 0 and 1, got 1\.1"),
        (lambda: Occlusion(size=(0.3, 0.1)), r"Occlusion\.size must be \(low, high\) with 0 < low <= high <= 1"),
        (lambda: Occlusion(size=(0.5, 1.5)), r"Occlusion\.size must be \(low, high\)"),
    ],
)
def test_invalid_numbers_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
