"""View: the one place where a box, an image or a chip becomes network input."""

import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.input_spec import InputSpec
from poseglass.core.view import View, grown

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies


def spot(size_wh: tuple[int, int], xy: tuple[float, float], sigma: float = 2.0) -> np.ndarray:
    """An image with one bright spot."""
    x, y = np.meshgrid(np.arange(size_wh[0]), np.arange(size_wh[1]))
    values = 255 * np.exp(-((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / (2 * sigma**2))
    return np.repeat(values.round().astype(np.uint8)[..., None], 3, axis=2)


def centre_of(image: np.ndarray) -> np.ndarray:
    """Where the spot is: its centre of mass, pixels."""
    weight = image[..., 0].astype(np.float64)
    x, y = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0]))
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


VIEWS = {
    "crop": View.crop(np.array([40.0, 30.0, 120.0, 110.0]), InputSpec((64, 96), 1.25)),
    "msra crop": View.crop(np.array([40.0, 30.0, 120.0, 110.0]), InputSpec((64, 96), 1.25, crop="msra")),
    "udp crop": View.crop(np.array([40.0, 30.0, 120.0, 110.0]), InputSpec((64, 96), 1.25, crop="udp")),
    "region": View.of_region(np.array([30.0, 30.0, 130.0, 110.0]), (100, 100)),
    "letterbox": View.letterbox((200, 150), (128, 128)),
    "chip": View.chip((49.5, 39.5), 1.5, (96, 96)),
    "flipped and rotated": View.crop(np.array([40.0, 30.0, 120.0, 110.0]), InputSpec((96, 96), 1.25)).then(
        Affine.flip(96).then(Affine.about((47.5, 47.5), degrees=25.0, scale=0.9))
    ),
}


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_seen_is_where_the_coordinates_say(name: str) -> None:
    """Draw a blob, read the view, find the blob: it is at the mapped place, and ``home`` brings it back."""
    view, at = VIEWS[name], (83.0, 71.0)
    pixels = view.read(spot((200, 150), at))
    assert pixels.shape == (view.size_wh[1], view.size_wh[0], 3)
    found = centre_of(pixels)
    np.testing.assert_allclose(found, view.to_view(np.array(at)), atol=0.05)
    np.testing.assert_allclose(view.home(found), at, atol=0.1)


def test_a_crop_shows_the_box_grown_to_its_aspect_and_padded() -> None:
    spec = InputSpec((192, 256), 1.25)
    box = np.array([10.0, 20.0, 40.0, 120.0])
    larger = grown(box, spec)
    np.testing.assert_allclose(larger, [25 - 46.875, 70 - 62.5, 25 + 46.875, 70 + 62.5])
    view = View.crop(box, spec)
    np.testing.assert_allclose(view.to_view.box(larger), [-0.5, -0.5, 191.5, 255.5])
    small = View.crop(box, spec, size_wh=(96, 128))
    np.testing.assert_allclose(small.to_view.box(larger), [-0.5, -0.5, 95.5, 127.5])
    np.testing.assert_array_equal(grown(np.stack([box, box]), spec), [larger, larger])


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.tuples(st.integers(1, 1024), st.integers(1, 1024)))
def test_a_letterbox_holds_the_whole_image_as_large_as_fits(image_wh, size_wh) -> None:
    view = View.letterbox(image_wh, size_wh)
    x0, y0, x1, y1 = view.to_view.box(np.array([-0.5, -0.5, image_wh[0] - 0.5, image_wh[1] - 0.5]))
    inside = np.array([x0 + 0.5, y0 + 0.5, size_wh[0] - 0.5 - x1, size_wh[1] - 0.5 - y1])
    assert (inside > -1e-6).all()
    np.testing.assert_allclose(inside[:2], inside[2:], atol=1e-6)  # as much on the left as on the right
    assert min(inside[0], inside[1]) < 1e-6
    assert (x1 - x0) / (y1 - y0) == pytest.approx(image_wh[0] / image_wh[1])


def test_chips_lie_beside_each_other() -> None:
    """The next chip's first pixel follows the one before; at scale 1 a chip is the image's own pixels."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    left, right = (View.chip((x - 0.5, 7.5), 1.0, (20, 16)).read(image) for x in (4, 24))
    np.testing.assert_array_equal(np.concatenate([left, right], 1), image[8:24, 4:44])
    double = View.chip((3.5, 7.5), 2.0, (40, 32))
    np.testing.assert_allclose(double.to_view.box(np.array([3.5, 7.5, 23.5, 23.5])), [-0.5, -0.5, 39.5, 31.5])


def test_outside_is_black_or_the_border_colour() -> None:
    view = View.of_region(np.array([50.0, 50.0, 60.0, 60.0]), (5, 5))
    image = np.full((20, 20, 3), 255, np.uint8)
    assert not view.read(image).any()
    assert (view.read(image, border_rgb=(1, 2, 3)) == [1, 2, 3]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: View((0, 5), Affine.identity()), r"size_wh must be two whole numbers above 0, got \(0, 5\)"),
        (lambda: View((64.7, 5), Affine.identity()), r"two whole numbers above 0, got \(64\.7, 5\)"),
        (lambda: View.letterbox((0, 5), (8, 8)), "an image with area, got 0 x 5"),
        (lambda: View.chip((0.0, 0.0), 0.0, (8, 8)), "scale must be above 0, got 0.0"),
        (lambda: View.crop(np.array([3.0, 3.0, 3.0, 9.0]), InputSpec((8, 8), 1.0, crop="edges")).size_wh, None),
        (lambda: View.of_region(np.array([3.0, 3.0, 3.0, 9.0]), (8, 8)), "needs a box with area"),
    ],
)
def test_what_is_no_view_is_refused(make, message) -> None:
    if message is None:  # a box without width gets one from the crop's aspect
        assert make() == (8, 8)
        return
    with pytest.raises(ValueError, match=message):
        make()
