"""Read and write images: always RGB uint8, with a size check before decoding, upright by their orientation tag.

The content of a file determines its format; its name is ignored. How values of more than 8 bits become 0 to 255 is
stated in ``core.levels``.
"""

import importlib
import io
import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from poseglass.core.file_kinds import HEAD_BYTES, file_kind
from poseglass.core.files import write_bytes
from poseglass.core.levels import Levels, WhiteLevels, measured, to_uint8
from poseglass.core.sample import check_image

T = TypeVar("T")

MAX_PIXELS = 100_000_000
"""Images with more pixels than this are rejected by their header, before decoding (300 MB as RGB)."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
"""Supported formats. Pillow supports more, some of which start other programs (EPS)."""
for _plugin in ("Jpeg", "Png", "Bmp", "WebP", "Tiff", "Gif", "Ppm"):  # Pillow only finds imported plugins
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")

MAX_FILE_BYTES = 512 * 1024 * 1024
"""Larger files are not read as images."""

DECODING = 2
"""Increased when the decoded pixels of a file change, so that older caches are not used."""

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".pnm")
"""Usual suffixes of images. The content decides what is read; a suffix only tells what was meant to be an image."""


def read_image(
    path: str | Path, *, reduce: int = 1, max_pixels: int = MAX_PIXELS, white: float | WhiteLevels | None = None
) -> np.ndarray:
    """Read an image as ``(H, W, 3)`` uint8 RGB, upright.

    Grey, palette, RGBA (over white), CMYK, 16-bit, floating-point and rotated files are converted to plain RGB. Of an
    animation or a file of several pages the first is read. Values of more than 8 bits are scaled by the rule that
    ``core.levels`` states: the result depends on the file and on ``white``, never on other images.

    Args:
        path: Path of the file.
        reduce: 1, 2, 4 or 8: a JPEG is decoded at this fraction of its size, which is faster; sides are rounded up,
            and pixel x of the result lies at ``reduce * x + (reduce - 1) / 2`` of the full image. Other formats,
            JPEGs that are rotated and whose sides ``reduce`` does not divide, and images smaller than ``reduce`` are
            returned at full size.
        max_pixels: Larger images are rejected before decoding.
        white: For images of more than 8 bits, the value that becomes 255, e.g. 4095 for a camera's 12 bits in a 16-bit
            file; or what ``white_levels`` found for the images of a source. None takes what the file declares, else
            the largest value of its type; a Python warning is given if the image is then nearly black.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an image, truncated, damaged, empty or too large; the message says which.
    """
    image, levels = read_with_levels(path, reduce=reduce, max_pixels=max_pixels, white=white)
    if white is None and levels is not None and levels.highest > 0 and levels.likely <= levels.white / 4:
        warnings.warn(
            f"An image of {levels.kind} values has none above {levels.likely:,.0f}, but {levels.white:,.0f} is taken "
            f"as white, so it comes out dark. Pass white={levels.likely:.0f} if that is its white level, or "
            f"white={levels.white:.0f} to keep the result without this warning.",
            stacklevel=2,
        )
    return image


def read_with_levels(
    path: str | Path, *, reduce: int = 1, max_pixels: int = MAX_PIXELS, white: float | WhiteLevels | None = None
) -> tuple[np.ndarray, Levels | None]:
    """Read an image as ``read_image`` does, without the warning, and return how its values were scaled.

    Returns:
        The image and its levels; the levels are None for an 8-bit image.
    """
    if reduce not in (1, 2, 4, 8):
        raise ValueError(f"reduce must be 1, 2, 4 or 8, got {reduce}.")
    path = _checked_path(path)
    return _decode(path.read_bytes(), str(path), reduce=reduce, max_pixels=max_pixels, white=white)


def decode_image(
    data: bytes,
    name: str,
    *,
    reduce: int = 1,
    max_pixels: int = MAX_PIXELS,
    white: float | WhiteLevels | None = None,
) -> np.ndarray:
    """Decode the bytes of an image file as ``read_image`` does, without the warning; messages use ``name``.

    Raises:
        ValueError: Not an image, truncated, damaged, empty or too large.
    """
    return _decode(data, name, reduce=reduce, max_pixels=max_pixels, white=white)[0]


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of an image file.

    Args:
        size_wh: Width and height of the decoded image, upright, at full size.
        orientation: The orientation tag, 1 to 8; from 5 on it exchanges width and height.
        deep: The kind of its values where they have more than 8 bits ("16-bit", "floating-point"), else "".
    """

    size_wh: tuple[int, int]
    orientation: int
    deep: str


def read_header(source: str | Path | bytes, name: str = "") -> ImageHeader:
    """Read the header of an image: the size that ``read_image`` gives, without decoding any pixels.

    Args:
        source: A path, or the bytes of a file.
        name: Used in messages; empty takes the path.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an image, or a damaged one.
    """
    if isinstance(source, bytes):
        return _header(io.BytesIO(source), name or "the image")
    path = _checked_path(source)
    with path.open("rb") as file:
        return _header(file, name or str(path))


def count_frames(path: Path) -> int:
    """Return the number of frames of an animation, or of pages, in an image file; 1 where that cannot be told."""
    with path.open("rb") as file:
        if file.read(2) == b"\xff\xd8":  # a JPEG has one
            return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                return int(getattr(image, "n_frames", 1))
    except Exception:  # damaged frames after the first; that one was read
        return 1


def white_levels(paths: Sequence[Path], *, most: int = 32) -> WhiteLevels:
    """Find the white level of the images of one source, by the rule of ``core.levels``.

    Only headers are read, except that images of more than 8 bits are decoded. Missing and damaged files are skipped;
    reading them raises the error.

    Args:
        paths: Paths of all images of the source.
        most: At most this many are examined, spread evenly.
    """
    found: list[tuple[str, Levels]] = []
    for path in spread(paths, most):
        try:
            if read_header(path).deep:
                levels = read_with_levels(path)[1]
                if levels is not None:
                    found.append((path.name, levels))
        except (ValueError, OSError):
            continue
    return WhiteLevels.decided(found)


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` items, evenly spread, including the first and the last.

    Example:
        >>> [str(p) for p in spread([Path(str(i)) for i in range(10)], 4)]
        ['0', '3', '6', '9']
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No such image: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise ValueError(f"Expected an image file, got a folder: {path}.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TooLargeError(f"{path} has {path.stat().st_size:,} bytes; images of at most {MAX_FILE_BYTES:,} are read.")
    return path


def _decode(
    data: bytes, name: str, *, reduce: int, max_pixels: int, white: float | WhiteLevels | None
) -> tuple[np.ndarray, Levels | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the check below decides
            try:
                opened = Image.open(io.BytesIO(data), formats=_FORMATS)
            except UnidentifiedImageError:
                return _decoded_tiff(data, name, max_pixels, white)
            with opened as image:
                _check_size(_stored_size(image), name, max_pixels)
                if image.format == "TIFF":
                    _check_developed(image.tag_v2, name)  # type: ignore[attr-defined]
                return _decoded(image, data, reduce, white)
    except _Refused:
        raise
    except UnidentifiedImageError:
        raise ValueError(_what_it_is(data[:HEAD_BYTES], name)) from None
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"{name} has more pixels than the maximum of {max_pixels:,}. Scale it down first."
        ) from None
    except Exception as error:  # a damaged file may raise anything in the decoders
        raise ValueError(
            f"{name} is a damaged or truncated image ({error or type(error).__name__}). Fetch or export it again."
        ) from error


def _header(file: Any, name: str) -> ImageHeader:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with Image.open(file, formats=_FORMATS) as image:
                    width, height = _stored_size(image)
                    no_tag = image.format == "PNG" and not _png_has_metadata(file)
                    orientation = 1 if no_tag else _orientation(image)
                    deep = _deep_kind(image, head)
            except UnidentifiedImageError:
                file.seek(0)
                tags = tiff_tags(file)
                width, height = int(tags[256]), int(tags[257])
                orientation, deep = _orientation_tag(tags.get(274, 1)), _tiff_kind(tags)
    except UnidentifiedImageError:
        raise ValueError(_what_it_is(head, name)) from None
    except Image.DecompressionBombError:
        raise TooLargeError(f"{name} has too many pixels to decode. Scale it down first.") from None
    except Exception as error:  # a damaged file may raise anything in the decoders
        raise ValueError(
            f"{name} is a damaged or truncated image ({error or type(error).__name__}). Fetch or export it again."
        ) from error
    return ImageHeader((height, width) if orientation >= 5 else (width, height), orientation, deep or "")


def _what_it_is(head: bytes, name: str) -> str:
    kind = file_kind(head)
    if kind.group == "image":
        return f"{name} is a damaged or truncated image: it starts like {kind.name}. Fetch or export it again."
    remedy = f" {kind.remedy}" if kind.remedy else ""
    return (
        f"{name} is not an image that can be read (its content, not its name, decides): it is {kind.name}.{remedy} "
        "Expected JPEG, PNG, BMP, WebP, TIFF, GIF or PPM."
    )


class _Refused(ValueError):
    """An image rejected before decoding; kept apart from the errors of decoders."""


class TooLargeError(_Refused):
    """An image with too many pixels or bytes to decode at once; of a TIFF, ``LargeImage`` reads parts."""


def _check_size(size_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise _Refused(f"{name} is {width} x {height} pixels; an image needs at least one pixel.")
    if width * height > max_pixels:
        raise TooLargeError(
            f"{name} is {width} x {height} pixels, more than the maximum of {max_pixels:,}. Scale it down first."
        )


def _check_developed(tags: Any, name: str) -> None:
    """Reject a camera raw file in the form of a TIFF: its first image is a thumbnail, the others are raw.

    DNG has a version; NEF, ARW, PEF and similar formats have a preview first and the rest in sub-images.
    """
    preview = int(_first(tags.get(254, 0))) & 1 and 330 in tags
    if preview or 50706 in tags:
        raise _Refused(
            f"{name} is not an image that can be read: it is a camera raw file (DNG, NEF, ARW, ...). Develop it to "
            "TIFF or JPEG first, with the camera's program, darktable or RawTherapee."
        )


_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)  # from OpenCV 4.11 on it decodes to RGB directly


def _decoded(
    image: Image.Image, data: bytes, reduce: int, white: float | WhiteLevels | None
) -> tuple[np.ndarray, Levels | None]:
    """Decode an opened image of acceptable size: RGB, upright, with how values of more than 8 bits were scaled."""
    width, height = image.size
    orientation = _orientation(image)
    uneven = orientation != 1 and (width % reduce or height % reduce)
    if image.format != "JPEG" or uneven or min(width, height) < reduce:
        # A reduced image starts with whole blocks and ends with a partial one; if rotated, it would start with the
        # partial one, and its pixels would be shifted against those of an upright image.
        reduce = 1
    # OpenCV decodes baseline and progressive JPEG faster, but silently fills the missing part of a truncated file with
    # grey: it only gets files that end correctly.
    if image.format == "JPEG" and image.mode in ("RGB", "L") and data.endswith(b"\xff\xd9"):
        flags = (_RGB or cv2.IMREAD_COLOR) | _REDUCED[reduce] | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if decoded is not None and decoded.ndim == 3:
            return _upright(decoded if _RGB else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), orientation), None
    kind = _deep_kind(image, data[:HEAD_BYTES])
    if kind is not None and image.mode in ("RGB", "RGBA"):
        # Pillow keeps the upper byte of 16-bit channels, which leaves only 4 of a camera's 12 bits
        deep = _from_opencv(data)
        if deep is not None and deep.shape[:2] == (_stored_size(image)[1], _stored_size(image)[0]):
            rgb, levels = _scaled(deep, kind, _declared(image, deep, kind, data), white)
            return _upright(rgb, orientation), levels
        kind = None
    if reduce > 1:
        image.draft(None, (max(width // reduce, 1), max(height // reduce, 1)))
    image.load()
    left = _orientation(image) if orientation != 1 else 1  # Pillow rotates TIFF while loading, and drops the tag
    if kind is None:
        return _upright(to_rgb(image), left), None
    values = np.asarray(image)
    if kind == "signed 8-bit":
        values = values.view(np.int8)
    elif kind == "32-bit":
        values = values.astype(np.int32).view(np.uint32)
    elif kind == "16-bit":
        values = values.astype(np.uint16)
    rgb, levels = _scaled(values, kind, _declared(image, values, kind, data), white)
    if image.format == "TIFF" and _first(image.tag_v2.get(262, 1)) == 0:  # type: ignore[attr-defined]
        rgb = 255 - rgb  # white is 0
    return _upright(rgb, left), levels


_FULL: dict[str, float] = {
    "signed 8-bit": 2**7 - 1, "16-bit": 2**16 - 1, "signed 16-bit": 2**15 - 1, "32-bit": 2**32 - 1,
    "signed 32-bit": 2**31 - 1, "floating-point": np.inf,
}  # fmt: skip
"""The largest value of each kind."""


def _deep_kind(image: Image.Image, head: bytes) -> str | None:
    """Return the kind of an image's values by its header, None if they are 0 to 255."""
    if image.format == "TIFF":
        return _tiff_kind(image.tag_v2) if image.mode in _DEEP_MODES else None  # type: ignore[attr-defined]
    if image.format == "PNG":
        return "16-bit" if head[24:25] == b"\x10" else None
    if image.format == "PPM" and image.mode == "F":
        return "floating-point"
    if image.format == "PPM" and image.mode in ("I", "I;16", "I;16B"):
        return "16-bit"
    return "16-bit" if image.format == "PPM" and image.mode == "RGB" and _largest(head) == 65535 else None


_DEEP_MODES = ("I", "F", "L", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes in which Pillow returns values of more than 8 bits, or ones that it took for bytes."""


def _tiff_kind(tags: Any) -> str | None:
    bits, form = max(_all(tags.get(258, 1))), _first(tags.get(339, 1))
    if form == 3:
        return "floating-point"
    if form == 2 and bits in (8, 16, 32):
        return f"signed {bits}-bit"
    return None if bits <= 8 else "16-bit" if bits <= 16 else "32-bit"


def _declared(image: Image.Image, values: np.ndarray, kind: str, data: bytes) -> float | None:
    """Return the white level that a file declares, None if it declares none."""
    if image.format == "TIFF":
        return _tiff_declared(image.tag_v2, values)  # type: ignore[attr-defined]
    if image.format == "PNG" and (bits := _significant_bits(data)) and bits < 16:
        low = values.max(initial=0) < 2**bits and (values % 2 ** (16 - bits)).any()
        return 2.0**bits - 1 if low else 65535.0
    if image.format == "PPM" and kind == "16-bit" and _largest(data[:HEAD_BYTES]) != 65535:
        return 65535.0  # Pillow has scaled the declared maximum to this
    return None


def _tiff_declared(tags: Any, values: np.ndarray) -> float | None:
    bits = max(_all(tags.get(258, 1)))
    if _first(tags.get(339, 1)) != 1:
        return 127.0 if bits == 8 else None
    if bits in (10, 12, 14):
        # OpenCV shifts them to the upper end of 16 bits, Pillow leaves them
        return float((2**bits - 1) << (16 - bits)) if values.ndim == 3 or bits != 12 else 4095.0
    largest = _first(tags.get(281, 0))
    # some writers put the image's own maximum here, which says nothing about white
    return float(largest) if bits == 16 and largest in (511, 1023, 2047, 4095, 8191, 16383, 32767) else None


def _scaled(
    values: np.ndarray, kind: str, declared: float | None, white: float | WhiteLevels | None
) -> tuple[np.ndarray, Levels]:
    """Scale values of more than 8 bits, ``(H, W)`` or ``(H, W, 3 or 4)`` RGB(A), to ``(H, W, 3)`` uint8, over white."""
    full = _FULL[kind]
    colours = values[..., :3] if values.ndim == 3 else values
    levels = measured(colours, kind, full=full, declared=declared, white=white)
    rgb = to_uint8(colours, levels.white)
    if rgb.ndim == 2:
        rgb = np.repeat(rgb[..., None], 3, axis=2)
    if values.ndim == 3 and values.shape[2] == 4:
        opaque = values[..., 3:]
        # alpha has the depth of the colours where it fits, so that a camera's opaque 4,095 is opaque
        most = levels.white if full == np.inf or opaque.max(initial=0) <= levels.white else full
        share = np.clip(np.nan_to_num(opaque.astype(np.float64)) / most, 0, 1)
        rgb = np.round(rgb * share + 255 * (1 - share)).astype(np.uint8)
    return np.ascontiguousarray(rgb), levels


def _from_opencv(data: bytes) -> np.ndarray | None:
    """Decode values of any type as they are stored, RGB(A) or grey, not rotated; None where OpenCV cannot."""
    # OpenCV's versions treat the orientation of a TIFF differently, so the tag is removed first
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = cv2.imdecode(np.frombuffer(_without_orientation(data), np.uint8), flags)
    except cv2.error:
        return None
    if found is None or found.dtype == np.uint8:
        return None
    if found.ndim == 3 and found.shape[2] in (3, 4):
        return found[..., [2, 1, 0, 3][: found.shape[2]]]
    return found if found.ndim == 2 else None


def _decoded_tiff(
    data: bytes, name: str, max_pixels: int, white: float | WhiteLevels | None
) -> tuple[np.ndarray, Levels | None]:
    """Decode a TIFF of a type that Pillow does not know: RGB in floating point, 64-bit, 10-bit, signed RGB.

    Raises:
        UnidentifiedImageError: OpenCV does not know it either, or it is not a TIFF.
    """
    tags = tiff_tags(io.BytesIO(data))
    _check_developed(tags, name)
    size_wh = int(tags[256]), int(tags[257])
    _check_size(size_wh, name, max_pixels)
    kind = _tiff_kind(tags)
    values = None if kind is None else _from_opencv(data)
    if kind is None or values is None or values.shape[:2] != size_wh[::-1]:
        bits, samples = "/".join(map(str, _all(tags.get(258, 1)))), _first(tags.get(277, 1))
        raise _Refused(
            f"{name} is a TIFF of an unsupported type ({samples} channel{'s' * (samples != 1)} of {bits} bits, "
            f"compression {_first(tags.get(259, 1))}), or a damaged one. Convert it to 8- or 16-bit grey or RGB first."
        )
    rgb, levels = _scaled(values, kind, _tiff_declared(tags, values), white)
    if _first(tags.get(262, 1)) == 0:
        rgb = 255 - rgb
    return _upright(rgb, _orientation_tag(tags.get(274, 1))), levels


def tiff_tags(file: Any) -> Any:
    """Read the tags of a TIFF's first image.

    Raises:
        UnidentifiedImageError: It is not a TIFF, or states no size.
    """
    head = file.read(16)
    if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise UnidentifiedImageError
    tags = TiffImagePlugin.ImageFileDirectory_v2(head if head[2:3] == b"+" or head[3:4] == b"+" else head[:8])
    file.seek(tags.next)
    tags.load(file)
    if not {256, 257} <= set(tags):
        raise UnidentifiedImageError
    return tags


def _without_orientation(data: bytes) -> bytes:
    """Return the bytes of a TIFF with orientation 1 in its first image; other formats are returned unchanged."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or data[2:4] not in (b"*\0", b"\0*"):
        return data
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", data, place)[0] == 274:
            changed = bytearray(data)
            struct.pack_into(f"{order}HIHH", changed, place + 2, 3, 1, 1, 0)
            return bytes(changed)
    return data


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as stored, before rotation; Pillow exchanges those of some TIFF while opening it."""
    if image.format != "TIFF":
        return image.size
    tags = image.tag_v2  # type: ignore[attr-defined]
    return int(tags[256]), int(tags[257])


def _orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, of EXIF or XMP; 1 where the tag is missing or damaged."""
    try:
        return _orientation_tag(image.getexif().get(0x0112, 1))
    except Exception:  # damaged metadata do not make the pixels unreadable
        return 1


def _orientation_tag(value: Any) -> int:
    return value if value in range(1, 9) else 1


def _png_has_metadata(file: Any) -> bool:
    """Return whether a PNG may hold an orientation tag. Otherwise Pillow would decode the image to look behind it."""
    file.seek(8)
    while len(start := file.read(8)) == 8:
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
            return True
        file.seek(length + 4, io.SEEK_CUR)
    return False


def _significant_bits(data: bytes) -> int:
    """Return the largest number of significant bits in a PNG's sBIT chunk, 0 without one."""
    place = 8
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"sBIT":
            return max(data[place + 8 : place + 8 + length], default=0)
        if kind == b"IDAT":
            break
        place += length + 12
    return 0


def _largest(head: bytes) -> int:
    """Return the largest value that a PGM's or PPM's header declares, 0 where it is invalid."""
    match = _PPM.match(head)
    return int(match.group(1)) if match else 0


_PPM = re.compile(rb"P[2356](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d+)")


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _all(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) and value else (value,) if isinstance(value, int) else (1,)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an orientation: images with 2 to 8 are flipped or rotated."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return a decoded image as ``(H, W, 3)`` uint8; what is transparent is white."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(canvas, layer)
    return np.array(image.convert("RGB"))  # a copy: Pillow's memory is read-only


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write ``(H, W, 3)`` uint8 RGB in the format of the suffix, atomically.

    Raises:
        ValueError: The image is not uint8 RGB, or the suffix names no format.
        OSError: The folder is missing, full or not writable.
    """
    check_image(image)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"):
        raise ValueError(f"Cannot tell the format from {path.name!r}; end the name in .png or .jpg.")
    ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"{path.name}: this image cannot be written as {suffix}; use .png.")
    write_bytes(path, data.tobytes())
