"""Draws what was read on a page: a box around each character, and the character beside it."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from poseglass.core.instances import Instances
from poseglass.core.sample import check_image

INK_RGB = (210, 20, 30)
BOX_RGB = (40, 90, 220)


def draw_characters(image: np.ndarray, found: Instances, characters: Sequence[str], font: Path | None) -> np.ndarray:
    """Return the image with boxes, and to the right of each the character that was read.

    Args:
        image: ``(H, W, 3)`` uint8 RGB; it is not changed.
        found: In this image's pixels.
        characters: That of each instance.
        font: A font with the characters; None draws the boxes alone.

    Raises:
        ValueError: The image is not uint8 RGB, or there is not one character for each instance.
    """
    check_image(image)
    if len(characters) != len(found):
        raise ValueError(f"There are {len(found)} instances and {len(characters)} characters.")
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for (x0, y0, x1, y1), character in zip(found.box_xyxy.tolist(), characters, strict=True):
        pen.rectangle((x0 + 0.5, y0 + 0.5, x1, y1), outline=BOX_RGB)
        if font is not None:
            size = int(np.clip(0.7 * max(x1 - x0, y1 - y0), 9, 200))
            pen.text((x1 + 1, (y0 + y1) / 2), character, fill=INK_RGB, font=_font(str(font), size), anchor="lm")
    return np.array(canvas)


@lru_cache(maxsize=64)
def _font(file: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size_px)
