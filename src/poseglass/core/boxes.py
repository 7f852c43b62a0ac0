"""Boxes: layout conversion, overlap, and fitting a box to a network's aspect ratio. Pure NumPy."""

import numpy as np


def xywh_to_xyxy(box_xywh: np.ndarray) -> np.ndarray:
    """Convert boxes ``(..., 4)`` from corner and size to two corners; both edge to edge.

    Example:
        >>> xywh_to_xyxy(np.array([10.0, 20.0, 5.0, 6.0])).tolist()
        [10.0, 20.0, 15.0, 26.0]
    """
    box = np.asarray(box_xywh)
    return np.concatenate([box[..., :2], box[..., :2] + box[..., 2:]], -1)


def xyxy_to_xywh(box_xyxy: np.ndarray) -> np.ndarray:
    """Convert boxes ``(..., 4)`` from two corners to corner and size."""
    box = np.asarray(box_xyxy)
    return np.concatenate([box[..., :2], box[..., 2:] - box[..., :2]], -1)


def area(box_xyxy: np.ndarray) -> np.ndarray:
    """Return the area of boxes ``(..., 4)``, square pixels, 0 for empty ones."""
    size = np.clip(np.asarray(box_xyxy)[..., 2:] - np.asarray(box_xyxy)[..., :2], 0, None)
    return size[..., 0] * size[..., 1]


def whole_image(size_wh: tuple[int, int]) -> np.ndarray:
    """Return the box of a whole image, ``(4,)`` float32: pixel centres are on integers."""
    return np.array([-0.5, -0.5, size_wh[0] - 0.5, size_wh[1] - 0.5], dtype=np.float32)


def share_inside(box_xyxy: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Return the fraction of each box ``(..., 4)`` that lies in an image, in [0, 1]; 0 for empty ones.

    Example:
        >>> share_inside(np.array([-10.5, 9.5, 9.5, 19.5]), (100, 100)).tolist()
        0.5
    """
    box = np.asarray(box_xyxy, np.float64)
    image = whole_image(size_wh).astype(np.float64)
    inside = np.concatenate([np.maximum(box[..., :2], image[:2]), np.minimum(box[..., 2:], image[2:])], -1)
    whole = area(box)
    return np.divide(area(inside), whole, out=np.zeros_like(whole), where=whole > 0)


def around(xy: np.ndarray) -> np.ndarray:
    """Return the tight boxes around known points: ``(..., K, 2)`` to ``(..., 4)``, NaN where none is known."""
    points = np.asarray(xy, dtype=np.float32)
    known = np.isfinite(points).all(-1, keepdims=True)
    low = np.where(known, points, np.inf).min(-2)
    high = np.where(known, points, -np.inf).max(-2)
    box = np.concatenate([low, high], -1)
    return np.where(np.isfinite(box), box, np.nan)


def iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """Return the intersection over union of all pairs: ``(N, 4)`` and ``(M, 4)`` to ``(N, M)`` in [0, 1]."""
    a, b = np.asarray(a_xyxy)[:, None], np.asarray(b_xyxy)[None]
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    union = area(a) + area(b) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap, dtype=np.float64), where=union > 0)


def fit_aspect(box_xyxy: np.ndarray, aspect: float, *, padding: float = 1.0) -> np.ndarray:
    """Enlarge boxes about their centre to an aspect ratio, then by a factor; they are never clipped.

    Args:
        box_xyxy: ``(..., 4)``, pixels.
        aspect: Width over height.
        padding: Factor by which both sides are then enlarged; 1.25 is common.

    Returns:
        ``(..., 4)`` of the same dtype.

    Example:
        >>> fit_aspect(np.array([0.0, 0.0, 10.0, 40.0]), 1.0, padding=1.5).tolist()
        [-25.0, -10.0, 35.0, 50.0]
    """
    box = np.asarray(box_xyxy)
    center = (box[..., :2] + box[..., 2:]) / 2
    width, height = (box[..., 2:] - box[..., :2])[..., 0], (box[..., 2:] - box[..., :2])[..., 1]
    width, height = np.maximum(width, height * aspect), np.maximum(height, width / aspect)
    half = np.stack([width, height], -1) * (padding / 2)
    return np.concatenate([center - half, center + half], -1).astype(box.dtype)


def inside_pixels(box_xyxy: np.ndarray, size_wh: tuple[int, int] | np.ndarray) -> np.ndarray:
    """Clip boxes to an image as the COCO readers of SimpleBaseline and HRNet do, which makes them a pixel smaller.

    Their ``x1 = max(0, x)`` and ``x2 = min(W - 1, x1 + max(0, w - 1))`` count whole pixels, including the last. A box
    that begins outside the image keeps its size and is thus moved into the image.

    Args:
        box_xyxy: ``(..., 4)`` pixels.
        size_wh: Size of the image, pixels.

    Returns:
        ``(..., 4)`` float64; a box of at most one pixel, or beyond the right or lower edge, has no area left.

    Example:
        >>> inside_pixels(np.array([-5.0, 10.0, 15.0, 50.0]), (640, 30)).tolist()
        [0.0, 10.0, 19.0, 29.0]
    """
    box = np.asarray(box_xyxy, np.float64)
    low = np.maximum(box[..., :2], 0.0)
    size = np.maximum(box[..., 2:] - box[..., :2] - 1.0, 0.0)
    return np.concatenate([low, np.minimum(np.asarray(size_wh, np.float64) - 1.0, low + size)], -1)
