"""Every type of pixel that a file may have, in every orientation, and values of more than 8 bits."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from poseglass.core.image import decode_image, read_header, read_image, read_with_levels, white_levels
from poseglass.core.levels import likely_white

TURNS = Image.Transpose
STORED = {  # what is stored so that the tag turns it upright
    2: TURNS.FLIP_LEFT_RIGHT, 3: TURNS.ROTATE_180, 4: TURNS.FLIP_TOP_BOTTOM, 5: TURNS.TRANSPOSE, 6: TURNS.ROTATE_90,
    7: TURNS.TRANSVERSE, 8: TURNS.ROTATE_270,
}  # fmt: skip


def scene() -> np.ndarray:
    """``(48, 64, 3)``, no two corners alike and none of them grey."""
    y, x = np.mgrid[:48, :64]
    image = np.stack([x * 255 // 64, y * 255 // 48, (x + y) * 255 // 112], -1).astype(np.uint8)
    image[:12, :16], image[:12, -16:], image[-12:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return image


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores of an image with this orientation tag."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 6, 7):
        image = image[::-1] if orientation != 3 else image[::-1, ::-1]
    if orientation in (2, 7, 8):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def tiff(
    values: np.ndarray,
    *,
    orientation: int = 1,
    order: Literal["<", ">"] = "<",
    bits: int = 0,
    packed: bytes | None = None,
    tags: dict[int, tuple[int, int]] | None = None,
    photometric: int | None = None,
    tiled: bool = False,
) -> bytes:
    """A TIFF written by hand, for types that no writer here has. ``tags`` are pairs of a type and a value.

    A tiled one is one tile, so its sides must be multiples of 16.
    """
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    body = packed if packed is not None else values.astype(values.dtype.newbyteorder(order)).tobytes()
    body += b"\0" * (len(body) % 2)
    more = 8 + len(body)
    bits = bits or 8 * values.dtype.itemsize
    lists = struct.pack(f"{order}{2 * samples}H", *[bits] * samples, *[form] * samples)
    entries = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, samples, bits if samples == 1 else more), 259: (3, 1, 1),
        262: (3, 1, photometric if photometric is not None else 1 if samples == 1 else 2), 273: (4, 1, 8),
        274: (3, 1, orientation), 277: (3, 1, samples), 278: (4, 1, height), 279: (4, 1, len(body)),
        339: (3, samples, form if samples == 1 else more + 2 * samples),
    }  # fmt: skip
    if samples == 4:
        entries[338] = (3, 1, 2)
    if tiled:
        entries |= {322: (4, 1, width), 323: (4, 1, height), 324: entries.pop(273), 325: entries.pop(279)}
        del entries[278]
    entries |= {tag: (kind, 1, value) for tag, (kind, value) in (tags or {}).items()}
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", more + len(lists)) + body + lists
    out += struct.pack(f"{order}H", len(entries))
    for tag, (kind, count, value) in sorted(entries.items()):
        short = kind == 3 and count == 1
        out += struct.pack(f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, value, *([0] if short else []))
    return out + struct.pack(f"{order}I", 0)


def png(values: np.ndarray, *, chunks: dict[bytes, bytes] | None = None) -> bytes:
    """A PNG of 16 bits a channel, ``(H, W)`` or ``(H, W, C)`` with C 1 to 4."""
    height, width = values.shape[:2]
    color = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0))
    extra = b"".join(chunk(kind, body) for kind, body in (chunks or {}).items())
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def stored(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(STORED[orientation])


GREY = np.asarray(Image.fromarray(scene()).convert("L"))
MODES = {
    **{mode: Image.fromarray(scene()).convert(mode) for mode in ("RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "YCbCr")},
    "16-bit": Image.fromarray(GREY.astype(np.uint16) * 257),
    "32-bit": Image.fromarray(GREY.astype(np.int32) * (2**31 // 256)),
    "float": Image.fromarray(GREY.astype(np.float32) / 255),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_a_tiff_is_rotated_once(mode: str, compression: str | None) -> None:
    if compression == "jpeg" and mode in ("P", "1", "16-bit", "32-bit", "float"):
        pytest.skip("JPEG holds 8 bits of grey or colour")
    image = MODES[mode]
    expected = decode_image(saved(image, "TIFF", compression=compression), "t").astype(int)
    assert expected.shape == (48, 64, 3)
    for orientation in range(1, 9):
        data = saved(stored(image, orientation), "TIFF", compression=compression, tiffinfo={274: orientation})
        got = decode_image(data, "t")
        assert read_header(data).size_wh == (64, 48)
        assert read_header(data).orientation == orientation
        assert got.shape == expected.shape
        # JPEG's blocks lie elsewhere in an image that is stored turned
        assert np.abs(got - expected).mean() <= (6 if compression == "jpeg" else 0), orientation


TYPES = {
    "RGB 16-bit": scene().astype(np.uint16) * 257,
    "RGBA 16-bit": np.dstack([scene(), np.full((48, 64), 255, np.uint8)]).astype(np.uint16) * 257,
    "RGB float32": scene().astype(np.float32) / 255,
    "RGB float64": scene().astype(np.float64) / 255,
    "float64": GREY.astype(np.float64) / 255,
    "signed 16-bit": GREY.astype(np.int16) * 128,
    "signed RGB 16-bit": scene().astype(np.int16) * 128,
    "signed 8-bit": (GREY // 2).astype(np.int8),
    "32-bit": GREY.astype(np.uint32) * (2**32 // 256),
    "RGB 32-bit": scene().astype(np.uint32) * (2**32 // 256),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TYPES)
def test_rare_types_are_read_and_rotated_once(kind: str, order: Literal["<", ">"]) -> None:
    values = TYPES[kind]
    expected = scene() if values.ndim == 3 else np.repeat(GREY[..., None], 3, 2)
    for orientation in range(1, 9):
        data = tiff(turned(values, orientation), orientation=orientation, order=order)
        assert read_header(data).size_wh == (64, 48)
        assert read_header(data).deep
        np.testing.assert_allclose(decode_image(data, "t"), expected, atol=2, err_msg=f"{orientation}")


def test_pages_and_tiles(tmp_path: Path) -> None:
    image = Image.fromarray(turned(scene(), 6))
    other = Image.new("RGB", (10, 10))
    data = saved(image, "TIFF", save_all=True, append_images=[other], tiffinfo={274: 6})
    np.testing.assert_array_equal(decode_image(data, "t"), scene())
    assert read_header(data).size_wh == (64, 48)
    for values in (scene(), scene().astype(np.uint16) * 257, GREY.astype(np.float32) / 255):
        plain = decode_image(tiff(values), "t")
        for orientation in range(1, 9):
            tiled = tiff(turned(values, orientation), orientation=orientation, tiled=True)
            np.testing.assert_array_equal(decode_image(tiled, "t"), plain)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "MPO"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "16-bit"])
def test_other_formats_are_rotated_once(kind: str, mode: str, orientation: int) -> None:
    if (kind != "PNG" and mode in ("P", "16-bit")) or (kind in ("JPEG", "MPO") and mode == "RGBA"):
        pytest.skip(f"{kind} holds no {mode}")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = MODES[mode]
    options: dict = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "MPO") else {}
    plain = decode_image(saved(image, kind, **options), "p").astype(int)
    data = saved(stored(image, orientation), kind, exif=exif, **options)
    assert read_header(data).size_wh == (64, 48)
    got = decode_image(data, "p")
    assert got.shape == plain.shape
    assert np.abs(got - plain).mean() < (8 if kind in ("JPEG", "MPO") else 0.01)


def test_a_header_is_read_without_decoding(tmp_path: Path) -> None:
    """Also that of a PNG, in which Pillow looks for metadata behind the pixels by decoding them."""
    data = saved(Image.fromarray(scene()), "PNG")
    cut = data[: len(data) // 2]
    assert read_header(cut).size_wh == (64, 48)
    with pytest.raises(ValueError, match="damaged or truncated"):
        decode_image(cut, "p")
    (tmp_path / "a.png").write_bytes(data)
    assert read_header(tmp_path / "a.png").size_wh == (64, 48)
    with pytest.raises(FileNotFoundError, match=r"No such image: .*gone\.png"):
        read_header(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"notes is not an image .* it is text"):
        read_header(b"notes\n", "notes")


# --- values of more than 8 bits ------------------------------------------------------------------------------------

RAMP = np.tile(np.arange(64, dtype=np.uint16) * 65, (8, 1))  # 0 to 4095
EIGHT = np.clip(RAMP / 4095 * 255 + 0.5, 0, 255).astype(np.uint8)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_white_is_the_largest_value_of_the_type_by_default(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", png(RAMP))
    assert decode_image(path.read_bytes(), "a").max() == 16
    np.testing.assert_array_equal(read_image(path, white=4095)[..., 0], EIGHT)
    with pytest.warns(UserWarning, match=r"none above 4,095, but 65,535 is taken .* Pass white=4095 .* white=65535"):
        assert read_image(path).max() == 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path, white=65535)
        read_image(written(tmp_path / "b.png", png(RAMP * 16)))
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="white level must be a number above 0"):
            read_image(path, white=wrong)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("form", ["png", "<", ">"])
def test_all_bits_of_a_channel_count(tmp_path: Path, channels: int, form: Literal["png", "<", ">"]) -> None:
    values = RAMP if channels == 1 else np.stack([RAMP, RAMP[:, ::-1], RAMP // 2, np.full_like(RAMP, 4095)], -1)
    values = values[..., :channels] if channels > 1 else values
    data = png(values) if form == "png" else tiff(values, order=form)
    got = decode_image(data, "a", white=4095)
    np.testing.assert_array_equal(got[..., 0], EIGHT)
    if channels > 1:
        np.testing.assert_array_equal(got[..., 1], EIGHT[:, ::-1])
    whole = decode_image(tiff(values.astype(np.uint16) * 16) if form != "png" else png(values * 16), "a")
    np.testing.assert_allclose(whole[..., 0], EIGHT, atol=1)


def packed(values: np.ndarray, bits: int) -> bytes:
    rows = []
    for row in values.reshape(len(values), -1):
        text = "".join(format(int(v), f"0{bits}b") for v in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))
    return b"".join(rows)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_declared_depth_is_taken(tmp_path: Path, bits: int, channels: int) -> None:
    """Also of an image that is dark, and whatever the source of it is said to have."""
    for share in (1.0, 0.25):
        values = np.round(np.tile(np.linspace(0, share * (2**bits - 1), 64), (8, 1))).astype(np.uint16)
        if channels == 3:
            values = np.repeat(values[..., None], 3, 2)
        data = tiff(values, bits=bits, packed=packed(values, bits))
        image, levels = read_with_levels(written(tmp_path / "a.tif", data))
        assert levels is not None
        np.testing.assert_allclose(image[0, :, 0], np.linspace(0, share * 255, 64), atol=1)
        assert levels.declared
    declared = tiff(np.round(RAMP * 0.25).astype(np.uint16), tags={281: (3, 4095)})
    np.testing.assert_allclose(decode_image(declared, "a")[..., 0], EIGHT * 0.25, atol=1)
    not_a_depth = tiff(RAMP, tags={281: (3, 4000)})  # an image's own maximum says nothing of white
    assert decode_image(not_a_depth, "a").max() == 16


def test_significant_bits_of_a_png() -> None:
    """The standard scales values to the whole range; many cameras leave them in the low bits."""
    chunk = {b"sBIT": bytes([12])}
    np.testing.assert_array_equal(decode_image(png(RAMP, chunks=chunk), "low")[..., 0], EIGHT)
    np.testing.assert_allclose(decode_image(png(RAMP * 16, chunks=chunk), "high")[..., 0], EIGHT, atol=1)
    dark = decode_image(png(RAMP // 16 * 16, chunks=chunk), "dark, in the high bits")
    assert dark.max() == 16


def test_the_largest_value_of_a_pgm() -> None:
    data = b"P5 64 8 4095\n" + RAMP.astype(">u2").tobytes()
    np.testing.assert_allclose(decode_image(data, "a")[..., 0], EIGHT, atol=1)
    dark = b"P5 64 8 4095\n" + (RAMP // 8).astype(">u2").tobytes()
    assert decode_image(dark, "a").max() == 32
    undeclared = b"P5 64 8 65535\n" + RAMP.astype(">u2").tobytes()
    assert decode_image(undeclared, "a").max() == 16
    colour = b"P6 64 8 65535\n" + np.repeat(RAMP[..., None], 3, 2).astype(">u2").tobytes()
    np.testing.assert_array_equal(decode_image(colour, "a", white=4095)[..., 2], EIGHT)


def test_one_white_for_all_frames_of_a_source(tmp_path: Path) -> None:
    frames = [written(tmp_path / f"{i}.png", png(RAMP // (4 - i))) for i in range(3)]
    whites = white_levels(frames)
    assert whites.whites == (("16-bit", 4095.0),)
    brightest = [read_image(frame, white=whites).max() for frame in frames]
    assert brightest == [round(255 * (4095 // (4 - i)) / 4095) for i in range(3)]
    assert whites.notes("Set it with --white.") == [
        "The 16-bit values of 0.png, 1.png, 2.png were read as 12-bit ones: 4,095 is white in all images of this "
        "source, as no examined value is above it. The full range goes up to 65,535. Set it with --white."
    ]
    full = written(tmp_path / "full.png", png(RAMP * 16))
    assert white_levels([*frames, full]).of("16-bit") == 65535
    assert white_levels([*frames, full]).notes() == []


def test_kinds_of_values_are_decided_apart_and_8_bits_are_left_alone(tmp_path: Path) -> None:
    paths = [
        written(tmp_path / "eight.png", saved(Image.fromarray(scene()), "PNG")),
        written(tmp_path / "twelve.png", png(RAMP)),
        written(tmp_path / "float.tif", tiff(RAMP.astype(np.float32) / 16)),
        written(tmp_path / "declared.tif", tiff(RAMP, bits=12, packed=packed(RAMP, 12))),
        written(tmp_path / "broken.png", b"\x89PNG\r\n\x1a\nand no more"),
        tmp_path / "gone.png",
    ]
    assert dict(white_levels(paths).whites) == {"16-bit": 4095.0, "floating-point": 255.0}
    assert white_levels(paths[:1]).whites == ()
    assert read_with_levels(paths[0])[1] is None


def test_negative_and_non_finite_values(tmp_path: Path) -> None:
    """NaN and negative values are black, infinity and what is above white is white; all are counted."""
    values = np.array([[np.nan, -np.inf, np.inf, -5.0, 0.0, 0.5, 1.0, 1.5]], np.float32)
    for data in (tiff(values), saved(Image.fromarray(values), "TIFF")):
        image, levels = read_with_levels(written(tmp_path / "f.tif", data))
        assert image[0, :, 1].tolist() == [0, 0, 255, 0, 0, 128, 255, 255]
        assert levels is not None
        assert (levels.white, levels.highest, levels.not_finite) == (1.0, 1.5, 3)
        assert (levels.below, levels.above) == (2, 2)
    signed = np.array([[-32768, -1, 0, 16384, 32767]], np.int16)
    image, levels = read_with_levels(written(tmp_path / "s.tif", tiff(signed)))
    assert image[0, :, 0].tolist() == [0, 0, 0, 128, 255]
    assert levels is not None
    assert levels.below == 2
    eight = tiff(np.array([[-128, -1, 0, 64, 127]], np.int8))
    assert decode_image(eight, "e")[0, :, 0].tolist() == [0, 0, 0, 129, 255]


def test_white_is_zero_in_some(tmp_path: Path) -> None:
    for dtype, white in ((np.uint16, 65535), (np.float32, 1.0)):
        values = np.array([[0, white / 2, white]], np.float64).astype(dtype)
        got = decode_image(tiff(values, photometric=0), "a")[0, :, 0]
        np.testing.assert_allclose(got, [255, 127, 0], atol=1)


@pytest.mark.parametrize(
    ("highest", "full", "white"),
    [(0, 65535, 65535), (255, 65535, 255), (256, 65535, 1023), (1024, 65535, 4095), (4095, 65535, 4095),
     (5000, 65535, 16383), (16384, 65535, 65535), (20000, 32767, 32767), (1.2, np.inf, 1), (200.0, np.inf, 255),
     (261.0, np.inf, 255),
     (4000.0, np.inf, 4095),
     (1e12, np.inf, 1e12)],
)  # fmt: skip
def test_likely_white(highest: float, full: float, white: float) -> None:
    assert likely_white(highest, full) == white


def test_a_camera_raw_file_is_not_its_thumbnail() -> None:
    for tags in ({50706: (4, 0x00000401)}, {254: (4, 1), 330: (4, 8)}):
        with pytest.raises(ValueError, match=r"a\.nef is not an image .* camera raw file .* Develop it"):
            decode_image(tiff(scene(), tags=tags), "a.nef")


@pytest.mark.shared
def test_the_cases(shared: Path) -> None:
    cases = shared / "cases"
    turned_file, upright = cases / "tiff-orientation/images/person.tif", cases / "tiff-orientation/upright.png"
    np.testing.assert_array_equal(read_image(turned_file), read_image(upright))
    assert read_header(turned_file).size_wh == read_header(upright).size_wh
    camera = cases / "camera-12-bit/grey12_in16.png"
    eight = read_image(cases / "camera-12-bit/same_in8.png").astype(int)
    assert np.abs(read_image(camera, white=white_levels([camera])) - eight).max() <= 1
