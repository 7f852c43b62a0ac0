import tracemalloc

import numpy as np
import pytest
from PIL import Image

from poseglass.core.large_image import LargeImage
from poseglass.core.view import View

RNG = np.random.default_rng(0)


def smooth(width: int, height: int) -> np.ndarray:
    """Return an image that reducing and warping change little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 100 * np.sin(x / 9), 127 + 100 * np.cos(y / 13), (x + y) % 256], -1).astype(np.uint8)


def saved(path, image: np.ndarray, **options):
    Image.fromarray(image).save(path, **options)
    return path


WAYS = [
    ({}, 0), ({"compression": "tiff_lzw"}, 0), ({"compression": "tiff_deflate"}, 0), ({"compression": "packbits"}, 0),
    ({"compression": "jpeg", "quality": 95}, 12),
    ({"tiffinfo": {278: 64}}, 0), ({"compression": "tiff_deflate", "tiffinfo": {278: 16, 317: 2}}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("options", "off"), WAYS)
def test_parts_are_those_of_the_image(tmp_path, options, off):
    image = smooth(211, 173)
    large = LargeImage(saved(tmp_path / "a.tif", image, **options))
    assert large.size_wh == (211, 173)
    assert large.shape == image.shape
    for _ in range(10):
        x0, y0 = int(RNG.integers(0, 200)), int(RNG.integers(0, 160))
        x1, y1 = int(RNG.integers(x0 + 1, 212)), int(RNG.integers(y0 + 1, 174))
        with Image.open(tmp_path / "a.tif") as whole:
            expected = np.asarray(whole.convert("RGB"))[y0:y1, x0:x1]
        assert np.abs(large.read(x0, y0, x1, y1).astype(int) - expected).max() <= off


def tiled(path, image: np.ndarray, side: int = 64) -> None:
    """Write tiles without compression, byte by byte; Pillow writes strips alone."""
    import struct

    height, width = image.shape[:2]
    across, down = -(-width // side), -(-height // side)
    padded = np.zeros((down * side, across * side, 3), np.uint8)
    padded[:height, :width] = image
    tiles = [padded[y * side : (y + 1) * side, x * side : (x + 1) * side].tobytes()
             for y in range(down) for x in range(across)]  # fmt: skip
    count, size = len(tiles), side * side * 3
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3),
               (284, 3, 1, 1), (322, 3, 1, side), (323, 3, 1, side)]  # fmt: skip
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(324, 4, count, start), (325, 4, count, start + 4 * count)]
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    data += b"".join(struct.pack("<HHII", *entry) for entry in entries) + b"\0\0\0\0"
    first = start + 8 * count
    data += struct.pack(f"<{count}I", *(first + i * size for i in range(count)))
    data += struct.pack(f"<{count}I", *[size] * count) + b"".join(tiles)
    path.write_bytes(data)


def test_tiles(tmp_path):
    image = smooth(300, 200)
    tiled(tmp_path / "a.tif", image)
    large = LargeImage(tmp_path / "a.tif")
    np.testing.assert_array_equal(large.read(0, 0, 300, 200), image)
    np.testing.assert_array_equal(large.read(50, 60, 140, 199), image[60:199, 50:140])


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.6, 0.3, 0.1])
def test_views_are_those_of_the_image(tmp_path, scale):
    image = smooth(500, 400)
    large = LargeImage(saved(tmp_path / "a.tif", image))
    for corner in ((-20.5, -10.5), (100.0, 150.0), (430.0, 380.0)):
        view = View.chip(corner, scale, (64, 48))
        assert np.abs(view.read(large).astype(int) - view.read(image)).mean() < (
            0.1 if scale >= 0.6 else 3.0
        )  # rounding
    assert not View.chip((900.0, 900.0), scale, (16, 16)).read(large).any()


def test_a_reduced_part_is_the_mean(tmp_path):
    image = RNG.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    large = LargeImage(saved(tmp_path / "a.tif", image))
    means = image.reshape(16, 4, 24, 4, 3).mean((1, 3))
    assert np.abs(large.read(0, 0, 96, 64, reduce=4) - means).max() <= 1
    small, factor = large.reduced(30)
    assert (factor, small.shape) == (4, (16, 24, 3))


def test_memory_does_not_grow_with_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr("poseglass.core.large_image.KEPT_BYTES", 1_000_000)
    monkeypatch.setattr("poseglass.core.large_image._BAND_PX", 100_000)
    path = saved(tmp_path / "a.tif", np.zeros((6000, 2000, 3), np.uint8), compression="tiff_deflate")
    large = LargeImage(path)
    tracemalloc.start()
    view = View.letterbox(large.size_wh, (128, 128)).read(large)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert view.shape == (128, 128, 3)
    assert most < 6e6  # the image has 36 MB


def test_what_cannot_be_read_in_parts(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such image"):
        LargeImage(tmp_path / "none.tif")
    Image.fromarray(smooth(40, 30)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a.png is too large .* no TIFF, .* up to 100,000,000 pixels and 536,870,912"):
        LargeImage(tmp_path / "a.png")
    deep = saved(tmp_path / "deep.tif", RNG.integers(0, 60000, (30, 40)).astype(np.uint16))
    with pytest.raises(ValueError, match="this one has 1 of 16 bits"):
        LargeImage(deep)
    turned = saved(tmp_path / "turned.tif", smooth(40, 30), tiffinfo={274: 6})
    with pytest.raises(ValueError, match="of 8/8/8 bits, rotated"):
        LargeImage(turned)
    good = saved(tmp_path / "good.tif", smooth(80, 60), compression="tiff_deflate")
    with pytest.raises(ValueError, match="The part 0, 0, 90, 10 is not inside the image of 80 x 60"):
        LargeImage(good).read(0, 0, 90, 10)
    data = bytearray(good.read_bytes())
    data[20:60] = b"\0" * 40
    bad = tmp_path / "bad.tif"
    bad.write_bytes(data)
    with pytest.raises(ValueError, match=r"bad.tif.*(cannot be decoded|damaged)"):
        LargeImage(bad).read(0, 0, 80, 60)


def test_a_file_that_takes_whole_images_refuses_it(tmp_path):
    from poseglass.estimators.whole_image import WholeImageEstimator

    large = LargeImage(saved(tmp_path / "a.tif", smooth(40, 30)))
    whole = object.__new__(WholeImageEstimator)  # the refusal comes before the file is used
    with pytest.raises(ValueError, match=r"is too large for a file that takes whole images. Use the weights"):
        whole(large)
