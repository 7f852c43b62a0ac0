"""Warp an image by an affine map: bilinear, without aliasing."""

import cv2
import numpy as np

from poseglass.core.affine import Affine

_FOUR_ARE_FASTER = int(cv2.__version__.split(".")[0]) >= 5


def warp_image(
    image: np.ndarray,
    to_target: Affine,
    size_wh: tuple[int, int],
    *,
    border_rgb: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """Warp ``(H, W, 3)`` uint8 to ``size_wh``, bilinear; outside the image is ``border_rgb``.

    Where the map shrinks by two or more, the visible part is first averaged down by a whole factor, so that
    no pixel is skipped (aliasing).
    """
    scale = to_target.scale
    factor = int(1 / scale) if scale > 0 else 1
    if factor >= 2:
        image, to_part = _shrunk_part(image, to_target, size_wh, factor)
        to_target = to_part.inverse().then(to_target)
    # OpenCV 5 warps four channels twice as fast as three, with identical results; copying pays off for images not much
    # larger than the target.
    four = _FOUR_ARE_FASTER and image.size <= 12 * size_wh[0] * size_wh[1]
    warped = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA) if four else image,
        to_target.matrix,
        size_wh,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(*border_rgb, 0),
    )
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB) if four else warped


def _shrunk_part(
    image: np.ndarray, to_target: Affine, size_wh: tuple[int, int], factor: int
) -> tuple[np.ndarray, Affine]:
    """Crop the part that the target shows, shrink it by ``factor``; return it and the map from the image to it."""
    height, width = image.shape[:2]
    seen = to_target.inverse().box(np.array([-0.5, -0.5, size_wh[0] - 0.5, size_wh[1] - 0.5]))
    x0, y0 = (
        int(np.clip(np.floor(v) - factor, 0, side - 1)) for v, side in zip(seen[:2], (width, height), strict=True)
    )
    x1, y1 = (
        int(np.clip(np.ceil(v) + factor + 1, low + 1, side))
        for v, low, side in zip(seen[2:], (x0, y0), (width, height), strict=True)
    )
    small_wh = (max((x1 - x0) // factor, 1), max((y1 - y0) // factor, 1))
    small = cv2.resize(image[y0:y1, x0:x1], small_wh, interpolation=cv2.INTER_AREA)
    return small, Affine.crop(np.array([x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5]), small_wh)
