import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from poseglass.core.files import write_bytes, write_chunks
from poseglass.core.image import decode_image, read_image, write_image

hypothesis = pytest.importorskip("hypothesis")
HealthCheck, given, settings, st = hypothesis.HealthCheck, hypothesis.given, hypothesis.settings, hypothesis.strategies


def original(width: int = 64, height: int = 48) -> np.ndarray:
    """Four corners of different colours over a gradient: any turn or exchange of channels shows."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)
    h, w = height // 4, width // 4
    image[:h, :w], image[:h, -w:], image[-h:, :w], image[-h:, -w:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3
    return image


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def corners(image: np.ndarray) -> np.ndarray:
    """Mean colours of the four corners, clockwise from the top left: ``(4, 3)``."""
    h, w = max(image.shape[0] // 8, 1), max(image.shape[1] // 8, 1)
    return np.array(
        [p.reshape(-1, 3).mean(0) for p in (image[:h, :w], image[:h, -w:], image[-h:, -w:], image[-h:, :w])]
    )


CORNERS = np.array([(255, 0, 0), (0, 255, 0), (255, 255, 255), (0, 0, 255)])


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    image = original()
    np.testing.assert_array_equal(decode_image(encoded(image, kind), "p"), image)
    np.testing.assert_array_equal(decode_image(encoded(image, kind), "p", reduce=4), image)  # full size, as promised


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossy_formats_come_close(kind: str, options: dict) -> None:
    image = original()
    decoded = decode_image(encoded(image, kind, **options), "p")
    assert decoded.shape == image.shape
    np.testing.assert_allclose(corners(decoded), CORNERS, atol=6)
    assert mean_difference(decoded, image) < 4


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 47), (71, 55), (7, 5), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])  # decoded by OpenCV and by Pillow
def test_reduced_jpeg_has_the_promised_size(width: int, height: int, reduce: int, mode: str) -> None:
    data = encoded(Image.fromarray(original(width, height)).convert(mode), "JPEG", quality=95)
    if min(width, height) < reduce:
        reduce = 1
    assert decode_image(data, "p", reduce=reduce).shape == (-(-height // reduce), -(-width // reduce), 3)


@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_reduced_pixels_lie_where_promised(reduce: int) -> None:
    """Pixel x of the result is at ``reduce * x + (reduce - 1) / 2``, also where the sides do not divide."""
    y, x = np.mgrid[:157, :203]
    image = np.stack([x, y, 0 * x], -1).astype(np.uint8)  # a pixel's colour is its place
    small = decode_image(encoded(image, "JPEG", quality=100, subsampling=0), "p", reduce=reduce).astype(float)
    rows, columns = np.mgrid[: small.shape[0], : small.shape[1]]
    inside = np.s_[:-1, :-1]  # the last row and column average what the encoder padded
    np.testing.assert_allclose(small[..., 0][inside], (reduce * columns + (reduce - 1) / 2)[inside], atol=2.1)
    np.testing.assert_allclose(small[..., 1][inside], (reduce * rows + (reduce - 1) / 2)[inside], atol=2.1)
    assert abs((small[..., 0] - reduce * columns)[inside].mean() - (reduce - 1) / 2) < 0.2


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "PNG"])
def test_exif_rotated_images_come_upright(orientation: int, reduce: int, kind: str) -> None:
    image = Image.fromarray(original(128, 96))
    turns = Image.Transpose
    stored = {  # what a camera stores, so that the tag turns it upright
        1: image,
        2: image.transpose(turns.FLIP_LEFT_RIGHT),
        3: image.transpose(turns.ROTATE_180),
        4: image.transpose(turns.FLIP_TOP_BOTTOM),
        5: image.transpose(turns.TRANSPOSE),
        6: image.transpose(turns.ROTATE_90),
        7: image.transpose(turns.TRANSVERSE),
        8: image.transpose(turns.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "CMYK":
        stored = stored.convert("CMYK")
    data = encoded(stored, "PNG" if kind == "PNG" else "JPEG", exif=exif, **({} if kind == "PNG" else {"quality": 95}))
    decoded = decode_image(data, "p", reduce=reduce)
    shrunk = 1 if kind == "PNG" else reduce
    assert decoded.shape == (96 // shrunk, 128 // shrunk, 3)
    assert decoded.flags.c_contiguous
    np.testing.assert_allclose(corners(decoded), CORNERS, atol=8)


def test_rotated_jpeg_with_uneven_sides_is_decoded_at_full_size() -> None:
    """Reduced and turned, its first pixel would be a part of a block and every other lie elsewhere."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(original(65, 47), "JPEG", exif=exif), "p", reduce=2).shape == (65, 47, 3)
    assert decode_image(encoded(original(64, 48), "JPEG", exif=exif), "p", reduce=2).shape == (32, 24, 3)


def test_damaged_exif_does_not_lose_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(original(), "JPEG", exif=exif, quality=95)
    start = data.index(b"Exif\0\0") + 6
    broken = data[:start] + b"\xff" * 12 + data[start + 12 :]
    assert decode_image(broken, "p").shape == (48, 64, 3)
    exif[0x0112] = 99
    assert decode_image(encoded(original(), "JPEG", exif=exif), "p").shape == (48, 64, 3)


def test_unusual_colours_become_rgb() -> None:
    image = Image.fromarray(original())
    grey = np.asarray(image.convert("L"))
    for data in (encoded(image.convert("L"), "PNG"), encoded(image.convert("LA"), "PNG")):
        np.testing.assert_array_equal(decode_image(data, "p"), np.repeat(grey[..., None], 3, 2))
    assert mean_difference(decode_image(encoded(image.convert("L"), "JPEG", quality=95), "p")[..., 0], grey) < 2
    assert set(np.unique(decode_image(encoded(image.convert("1"), "PNG"), "p"))) == {0, 255}
    np.testing.assert_allclose(
        corners(decode_image(encoded(image.convert("CMYK"), "JPEG", quality=95), "p")), CORNERS, atol=8
    )
    np.testing.assert_allclose(corners(decode_image(encoded(image.convert("CMYK"), "TIFF"), "p")), CORNERS, atol=3)
    np.testing.assert_allclose(
        corners(decode_image(encoded(image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), "p")), CORNERS, atol=20
    )


def test_transparency_lies_over_white() -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., :3] = (200, 100, 0)
    rgba[:, 3:, 3] = 255
    rgba[0, 0] = (0, 0, 0, 128)
    decoded = decode_image(encoded(rgba, "PNG"), "p")
    assert decoded[1, 0].tolist() == [255, 255, 255]
    assert decoded[1, 4].tolist() == [200, 100, 0]
    np.testing.assert_allclose(decoded[0, 0], 127, atol=1)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((2, 2), 1)
    see_through = decode_image(encoded(palette, "PNG", transparency=0), "p")
    assert see_through[0, 0].tolist() == [255, 255, 255]
    assert see_through[2, 2].tolist() == [200, 100, 0]


def png(width: int, height: int, *, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG written by hand, for depths that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_keeps_its_own_white() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    expected = (ramp / 257).round()
    dark = ramp // 4
    for values in (ramp, dark):  # a dark image stays dark
        data = encoded(Image.fromarray(np.tile(values, (8, 1))), "PNG")
        np.testing.assert_allclose(decode_image(data, "p")[0, :, 1], values / 257, atol=0.51)
    data = encoded(Image.fromarray(np.tile(ramp, (8, 1))), "TIFF")
    np.testing.assert_allclose(decode_image(data, "p")[0, :, 2], expected, atol=1)
    rgb = np.stack([ramp, ramp[::-1], ramp // 2], -1).astype(">u2")
    decoded = decode_image(png(64, 1, depth=16, color=2, rows=b"\0" + rgb.tobytes()), "p")
    np.testing.assert_allclose(decoded[0], rgb / 257, atol=1)


def test_floating_point_tiff_is_scaled_by_its_range() -> None:
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (4, 1))
    for top in (1.0, 255.0, 65535.0):
        decoded = decode_image(encoded(Image.fromarray(ramp * np.float32(top)), "TIFF"), "p")
        np.testing.assert_allclose(decoded[0, :, 0], ramp[0] * 255, atol=0.51)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 255, 0))]
    for kind in ("GIF", "WEBP", "TIFF"):
        decoded = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), "p")
        np.testing.assert_allclose(decoded.reshape(-1, 3).mean(0), (255, 0, 0), atol=3)


def test_the_array_is_the_callers_own() -> None:
    for kind in ("PNG", "JPEG", "GIF"):
        decoded = decode_image(encoded(original(), kind), "p")
        decoded[0, 0] = 7
        assert decoded[0, 0].tolist() == [7, 7, 7]


# --- bad input -----------------------------------------------------------------------------------------------------


def test_truncated_files_are_refused_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP"):
        data = encoded(noisy, kind)
        for share in (0.3, 0.7, 0.98):
            file = tmp_path / f"cut.{kind.lower()}"
            file.write_bytes(data[: int(len(data) * share)])
            with pytest.raises(ValueError, match=rf"cut\.{kind.lower()} is (a damaged or truncated|not a) image"):
                read_image(file)


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am a text\n" * 20, b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF"]
)
def test_text_named_jpg_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "holiday.jpg"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"holiday\.jpg is (not an image that can be read|a damaged)"):
        read_image(file)


def test_no_file_a_folder_and_a_wrong_factor(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such image: .*gone\.png\. Check the path"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="Expected an image file, got a folder"):
        read_image(tmp_path)
    with pytest.raises(ValueError, match="reduce must be 1, 2, 4 or 8, got 3"):
        read_image(tmp_path / "gone.png", reduce=3)


def huge(kind: str, side: int) -> bytes:
    """A few bytes whose header promises side x side pixels."""
    if kind == "png":
        return png(side, side, depth=8, color=2, rows=b"")
    if kind == "bmp":
        return (
            b"BM"
            + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
        )
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HHBBB", min(side, 65535), min(side, 65535), 0, 0, 0) + b";"
    data = bytearray(encoded(original(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "bmp", "jpeg"])
def test_sizes_are_bounded_before_decoding(kind: str) -> None:
    with pytest.raises(
        ValueError, match=r"bomb( is 60000 x 60000 pixels, more than| has more pixels than) the maximum of 100,000,000"
    ):
        decode_image(huge(kind, 60_000), "bomb")
    with pytest.raises(ValueError, match=r"p is 64 x 48 pixels, more than the maximum of 1,000"):
        decode_image(encoded(original(), "PNG"), "p", max_pixels=1000)


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "jpeg"])
def test_no_pixels_at_all(kind: str) -> None:
    with pytest.raises(ValueError, match=r"empty (is 0 x 0 pixels|is not an image|is a damaged)"):
        decode_image(huge(kind, 0), "empty")


SEEDS = [
    encoded(original(), "JPEG"),
    encoded(original(), "JPEG", progressive=True),
    encoded(Image.fromarray(original()).convert("CMYK"), "JPEG"),
    encoded(original(), "PNG"),
    encoded(Image.fromarray(original()).convert("P"), "PNG", transparency=3),
    encoded(original(), "BMP"),
    encoded(original(), "GIF"),
    encoded(original(), "WEBP"),
    encoded(original(), "TIFF"),
    encoded(original(), "TIFF", compression="tiff_lzw"),
    encoded(original(), "PPM"),
    encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"),
]


@settings(max_examples=150, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_give_an_image_or_a_value_error(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        span = data.draw(st.integers(0, 8))
        content[at : at + span] = data.draw(st.binary(max_size=8))
        if not content:
            break
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    reduce = data.draw(st.sampled_from([1, 2, 4, 8]))
    try:
        image = decode_image(bytes(content), "fuzzed", reduce=reduce, max_pixels=1_000_000)
    except ValueError as error:
        if not str(error).startswith("fuzzed "):
            raise
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.size > 0


@settings(max_examples=40, deadline=2000, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="junk is"):
        decode_image(content, "junk")


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".PNG"])
def test_write_then_read(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", original())
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), original())


def test_write_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Cannot tell the format from 'a\.doc'"):
        write_image(tmp_path / "a.doc", original())
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8 RGB"):
        write_image(tmp_path / "a.png", original().astype(np.float32))
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_image(tmp_path / "none" / "a.png", original())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    write_bytes(file, b"old")

    def chunks():
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_chunks(file, chunks())
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_opencv_without_rgb_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV 4.10 has no IMREAD_COLOR_RGB; the channels are then exchanged afterwards."""
    data = encoded(original(), "JPEG", quality=95)
    direct = decode_image(data, "p")
    monkeypatch.setattr("poseglass.core.image._RGB", 0)
    np.testing.assert_array_equal(decode_image(data, "p"), direct)
    assert decode_image(data, "p", reduce=2).shape == (24, 32, 3)
    assert cv2.__version__
