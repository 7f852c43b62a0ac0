"""Text on images, in any script of DejaVu Sans: OpenCV's own letters are ASCII only."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from poseglass.core.sample import check_image


@lru_cache(maxsize=32)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    # matplotlib includes DejaVu Sans: Latin, Greek, Cyrillic, Arabic, mathematics; Pillow's own font is Latin only.
    # Importing it takes a quarter of a second, and finding its folder does not.
    found = find_spec("matplotlib")
    folder = Path(found.origin).parent / "mpl-data" if found is not None and found.origin is not None else None
    if folder is None or not (folder / "fonts").is_dir():  # a distribution that moved its data
        import matplotlib

        folder = Path(matplotlib.get_data_path())
    return ImageFont.truetype(str(folder / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)


def printable(text: str) -> str:
    r"""Return the text on one line, with lone surrogates (which no file can hold) and control characters replaced.

    Example:
        >>> printable("two\nlines\udcff.jpg")
        'two lines?.jpg'
    """
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in clean)


def text_size(text: str, size_px: int) -> tuple[int, int]:
    """Return width and height of a line of text, pixels; the height is that of a full line."""
    font = _font(size_px)
    ascent, descent = font.getmetrics()
    return int(np.ceil(font.getlength(printable(text)))), ascent + descent


def fit_text(text: str, size_px: int, width_px: int) -> str:
    """Return the text, with its middle removed if it is wider than ``width_px``: its ends identify a file.

    Example:
        >>> fit_text("a_very_long_folder/im00021.jpg", 12, 120)
        'a_very_l…0021.jpg'
    """
    text = printable(text)[:1000]
    if text_size(text, size_px)[0] <= width_px:
        return text
    short, long = 0, len(text)
    while long - short > 1:  # the longest that fits, by halving
        keep = (short + long) // 2
        cut = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
        short, long = (keep, long) if text_size(cut, size_px)[0] <= width_px else (short, keep)
    return text[: (short + 1) // 2] + "…" + text[len(text) - short // 2 :]


def put_text(
    image: np.ndarray,
    text: str,
    xy: tuple[float, float],
    *,
    size_px: int = 14,
    color: tuple[int, int, int] = (255, 255, 255),
    ground: tuple[int, int, int] | None = None,
    outline: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Return the image with a line of text.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        text: One line, any script; characters that the font lacks become empty boxes.
        xy: Top left corner of the text, pixels; text may extend beyond the image.
        size_px: Size of the letters.
        color: Colour of the letters.
        ground: Colour of a box behind the letters, or None.
        outline: Colour around the letters, or None.

    Raises:
        ValueError: The image is not uint8 RGB.
    """
    check_image(image)
    out = image.copy()
    write_text(out, text, xy, size_px=size_px, color=color, ground=ground, outline=outline)
    return out


def write_text(
    image: np.ndarray,
    text: str,
    xy: tuple[float, float],
    *,
    size_px: int = 14,
    color: tuple[int, int, int] = (255, 255, 255),
    ground: tuple[int, int, int] | None = None,
    outline: tuple[int, int, int] | None = None,
) -> None:
    """Write a line of text into the image itself; otherwise like ``put_text``."""
    text = printable(text)
    width, height = text_size(text, size_px)
    edge = max(1, round(size_px / 9)) if outline is not None else 0
    pad = max(2, size_px // 4) if ground is not None else edge
    left, top = round(float(xy[0])), round(float(xy[1]))
    x0, y0 = max(left - pad, 0), max(top - pad, 0)
    x1, y1 = min(left + width + pad, image.shape[1]), min(top + height + pad, image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    patch = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    pen = ImageDraw.Draw(patch)
    if ground is not None:
        pen.rectangle((0, 0, x1 - x0, y1 - y0), fill=ground)
    pen.text((left - x0, top - y0), text, fill=color, font=_font(size_px), stroke_width=edge, stroke_fill=outline)
    image[y0:y1, x0:x1] = np.asarray(patch)
