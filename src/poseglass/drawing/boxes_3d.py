"""Draws boxes in space over an image, the front of each marked."""

from collections.abc import Sequence

import cv2
import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.box_3d import EDGES, corners_of, project
from poseglass.core.instances import Instances
from poseglass.core.sample import check_image
from poseglass.drawing.text import text_size, write_text

COLORS = ((255, 120, 60), (60, 200, 255), (255, 220, 60), (160, 255, 120), (230, 120, 255))
"""Of the classes, RGB; further classes begin again."""

SHORTEST_PX = 960
"""Smaller images are enlarged to about this longer side, so that lines do not hide what they are around."""

_NEAREST_MM = 300.0
_SHIFT = 4


def draw_boxes_3d(
    image: np.ndarray, found: Instances, *, names: Sequence[str] = (), numbers: bool = True, enlarge: bool = True
) -> np.ndarray:
    """Return an image with the edges of boxes in space, the farthest drawn first.

    The front face is tinted and has a cross. Edges that reach behind the camera are cut off before it.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        found: Instances with ``box_3d`` and ``projection``; where a box is unknown (NaN), that in the image is drawn.
        names: Names of the classes; empty writes none.
        numbers: Whether the row, from 1, is written at each box.
        enlarge: Whether a small image is enlarged.

    Returns:
        A new image, larger by a whole number if the image is small and may be enlarged.

    Raises:
        ValueError: An image that is not uint8 RGB, or instances without boxes in space.
    """
    check_image(image)
    if len(found) and (found.box_3d is None or found.projection is None):
        raise ValueError(
            "draw_boxes_3d needs instances with box_3d and projection, and these have none. Draw boxes in the image "
            "with poseglass.drawing.draw(image, instances, boxes=True)."
        )
    times = max(-(-SHORTEST_PX // max(image.shape[:2])), 1) if enlarge else 1
    size_wh = (image.shape[1] * times, image.shape[0] * times)
    canvas = image.copy() if times == 1 else cv2.resize(image, size_wh, interpolation=cv2.INTER_CUBIC)
    if not len(found):
        return canvas
    moved = found.moved(Affine.about((-0.5, -0.5), scale=float(times)))
    assert moved.box_3d is not None
    assert moved.projection is not None
    thick = max(round(max(canvas.shape[:2]) / 700), 1)
    for row in np.argsort(-np.nan_to_num(moved.box_3d[:, 2], nan=np.inf), kind="stable"):
        color = COLORS[int(moved.label[row]) % len(COLORS)]
        box, projection = moved.box_3d[row].astype(np.float64), moved.projection[row]
        at = moved.box_xyxy[row, :2].astype(float)
        if not np.isfinite(box).all():
            low, high = (tuple(np.round(v).astype(int).tolist()) for v in np.split(moved.box_xyxy[row], 2))
            cv2.rectangle(canvas, low, high, color, thick, cv2.LINE_AA)
        else:
            _draw(canvas, corners_of(box), projection, color, thick)
        words = [str(row + 1)] if numbers else []
        words += [names[int(moved.label[row])]] if int(moved.label[row]) < len(names) else []
        if np.isfinite(box[2]):
            words.append(f"{box[2] / 1000:.1f} m")
        _write(canvas, " ".join(words), at, color)
    return canvas


def _draw(canvas: np.ndarray, corners: np.ndarray, projection: np.ndarray, color: tuple[int, ...], thick: int) -> None:
    front = corners[:4]
    if front[:, 2].min() > _NEAREST_MM:
        pixels = _fixed(project(front, projection))
        tinted = canvas.copy()
        cv2.fillConvexPoly(tinted, cv2.convexHull(pixels), color, cv2.LINE_AA, _SHIFT)
        cv2.addWeighted(tinted, 0.35, canvas, 0.65, 0, canvas)
    for n, (a, b) in enumerate((*EDGES, (0, 2), (1, 3))):
        ends = _before(corners[a], corners[b])
        if ends is None:
            continue
        first, last = _fixed(project(ends, projection)).tolist()
        crossing = n >= len(EDGES)
        cv2.line(canvas, first, last, color, thick + (n < 4) if not crossing else 1, cv2.LINE_AA, _SHIFT)


def _before(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Return the part of an edge that is in front of the camera ``(2, 3)``, or None."""
    if max(a[2], b[2]) <= _NEAREST_MM:
        return None
    if min(a[2], b[2]) >= _NEAREST_MM:
        return np.stack([a, b])
    cut = a + (b - a) * (_NEAREST_MM - a[2]) / (b[2] - a[2])
    return np.stack([cut, b]) if a[2] < _NEAREST_MM else np.stack([a, cut])


def _fixed(pixels: np.ndarray) -> np.ndarray:
    return np.round(np.clip(pixels, -1e6, 1e6) * 2**_SHIFT).astype(np.int32)


def _write(canvas: np.ndarray, words: str, at: np.ndarray, color: tuple[int, int, int]) -> None:
    size_px = max(round(min(canvas.shape[:2]) / 28), 11)
    width, height = text_size(words, size_px)
    x = float(np.clip(at[0], 0, max(canvas.shape[1] - width, 0)))
    y = float(np.clip(at[1] - height - 1, 0, max(canvas.shape[0] - height, 0)))
    write_text(canvas, words, (x, y), size_px=size_px, color=color, outline=(25, 25, 25))
