"""Read and write images: always RGB uint8, bounded before they are decoded, rotated upright by their EXIF tag."""

import importlib
import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from poseglass.core.files import write_bytes
from poseglass.core.sample import check_image

MAX_PIXELS = 100_000_000
"""Images with more pixels than this are refused by their header, before any of them is decoded (300 MB as RGB)."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
"""What is read. Pillow knows more, some of which start other programs (EPS)."""
for _plugin in ("Jpeg", "Png", "Bmp", "WebP", "Tiff", "Gif", "Ppm"):  # Pillow finds only what has been imported
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")

MAX_FILE_BYTES = 512 * 1024 * 1024
"""A file larger than this is not read as an image at all."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")
"""What a folder of images is searched for."""


def read_image(path: str | Path, *, reduce: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image as ``(H, W, 3)`` uint8 RGB, upright.

    Grey, palette, RGBA (over white), CMYK, 16-bit (scaled to its own bit depth) and EXIF-rotated files come out as
    plain RGB. Of an animation the first frame is read.

    Args:
        path: Of the file.
        reduce: 1, 2, 4 or 8: a JPEG is decoded at this fraction of its size, which is faster; sides are rounded up,
            and pixel x of the result lies at ``reduce * x + (reduce - 1) / 2`` of the full image. Other formats,
            and JPEGs that are rotated and do not divide, or smaller than ``reduce``, come at full size.
        max_pixels: Refuse larger images before decoding them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an image, truncated, damaged, empty or too large; the message says which.
    """
    path = Path(path)
    if reduce not in (1, 2, 4, 8):
        raise ValueError(f"reduce must be 1, 2, 4 or 8, got {reduce}.")
    if not path.exists():
        raise FileNotFoundError(f"No such image: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise ValueError(f"Expected an image file, got a folder: {path}.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than {MAX_FILE_BYTES} are not read as an image."
        )
    return decode_image(path.read_bytes(), str(path), reduce=reduce, max_pixels=max_pixels)


def decode_image(data: bytes, name: str, *, reduce: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the bytes of an image file; ``name`` stands in the messages. As ``read_image``.

    Raises:
        ValueError: Not an image, truncated, damaged, empty or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the bound below decides
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_size(image.size, name, max_pixels)
                return _decoded(image, data, reduce)
    except _RefusedSize:
        raise
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} is not an image that can be read (its content, not its name, decides). "
            "Expected JPEG, PNG, BMP, WebP, TIFF, GIF or PPM."
        ) from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{name} has more pixels than the {max_pixels:,} that are decoded. Scale it down first."
        ) from None
    except Exception as error:  # a damaged file may raise anything in the decoders
        raise ValueError(
            f"{name} is a damaged or truncated image ({error or type(error).__name__}). Fetch or export it again."
        ) from error


class _RefusedSize(ValueError):
    """A size that is refused before decoding; kept apart from what decoders raise."""


def _check_size(size_wh: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise _RefusedSize(f"{name} is {width} x {height} pixels; an image needs at least one pixel.")
    if width * height > max_pixels:
        raise _RefusedSize(
            f"{name} is {width} x {height} pixels, more than the {max_pixels:,} that are decoded. "
            "Scale it down first, or pass max_pixels=."
        )


_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)  # from OpenCV 4.11 on: the decoder writes RGB, no pass over the image


def _decoded(image: Image.Image, data: bytes, reduce: int) -> np.ndarray:
    """Decode an opened image of acceptable size: RGB, upright."""
    width, height = image.size
    orientation = _orientation(image)
    uneven = orientation != 1 and (width % reduce or height % reduce)
    if image.format != "JPEG" or uneven or min(width, height) < reduce:
        # A reduced image starts with whole blocks and ends with a part of one; rotated, it would start with the part,
        # and its pixels would lie elsewhere than in an upright one.
        reduce = 1
    # OpenCV decodes baseline and progressive JPEG faster, but fills what a truncated file lacks with grey and says
    # nothing: only files that end as they must are given to it.
    if image.format == "JPEG" and image.mode in ("RGB", "L") and data.endswith(b"\xff\xd9"):
        flags = (_RGB or cv2.IMREAD_COLOR) | _REDUCED[reduce] | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if decoded is not None and decoded.ndim == 3:
            return _upright(decoded if _RGB else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), orientation)
    if reduce > 1:
        image.draft(None, (max(width // reduce, 1), max(height // reduce, 1)))
    image.load()
    return _upright(_to_rgb(image), orientation)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the tag is missing or damaged."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata do not make the pixels unreadable
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2 to 8 are flipped and rotated images."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        # 16-bit files keep their bit depth: white is 65535 even where the image has no white. Of floating point,
        # the range tells whether white is 1, 255 or 65535.
        highest = values.max(initial=0)
        top = 65535.0 if image.mode != "F" or highest > 255 else 255.0 if highest > 1 else 1.0
        grey = np.clip(values / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(canvas, layer)
    return np.array(image.convert("RGB"))  # a copy of its own: Pillow lends read-only memory


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write ``(H, W, 3)`` uint8 RGB in the format of the suffix; aside first, so no half image is left.

    Raises:
        ValueError: Not uint8 RGB, or a suffix that names no format.
        OSError: The folder is missing, full or not writable.
    """
    check_image(image)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"):
        raise ValueError(f"Cannot tell a format from {path.name!r}; end the name in .png or .jpg.")
    ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"{path.name}: this image cannot be written as {suffix}; use .png.")
    write_bytes(path, data.tobytes())
