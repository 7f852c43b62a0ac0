"""Labels that contradict each other: fractions for pixels, corners for width and height, areas in another unit.

Readers reject labels that contradict each other as a whole, metrics reject areas that would make a result meaningless,
and the audit reports both; all use these functions.
"""

import numpy as np

from poseglass.core.boxes import area, around, xywh_to_xyxy

MIN_POINTS = 4
"""Coordinates are judged to be fractions only with at least this many labelled keypoints."""


def fractions(xy: np.ndarray, box_xyxy: np.ndarray, sizes_wh: np.ndarray) -> bool:
    """Return whether coordinates are fractions of the image's size instead of pixels.

    Args:
        xy: ``(N, K, 2)``, NaN where unknown.
        box_xyxy: ``(N, 4)``, NaN where there is none.
        sizes_wh: ``(N, 2)``, the size of each instance's image, NaN where unknown.
    """
    known = np.isfinite(xy).all(-1)
    points = xy[known]
    if len(points) < MIN_POINTS or np.abs(points).max() > 1.5 or np.ptp(points, axis=0).max() == 0:
        return False
    largest = [np.nanmax(a, initial=0.0) for a in (sizes_wh, box_xyxy)]
    smallest = np.nanmin(sizes_wh, initial=np.inf)
    return smallest >= 8 if np.isfinite(smallest) else (max(largest) >= 8 or not np.allclose(points, np.round(points)))


def box_fractions(xy: np.ndarray, box_xyxy: np.ndarray) -> bool:
    """Return whether boxes are fractions of the image's size while keypoints are pixels; arguments as ``fractions``."""
    boxes = box_xyxy[np.isfinite(box_xyxy).all(1)]
    points = xy[np.isfinite(xy).all(-1)]
    if not len(boxes) or not len(points) or np.abs(boxes).max() > 2.0 or np.ptp(points, axis=0).max() < 8:
        return False
    return not np.allclose(boxes, np.round(boxes))  # [0, 0, 1, 1] stands for no box


def boxes_as_corners(box_xywh: np.ndarray, xy: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
    """Return which boxes, read as x, y, width, height, look like corners x0, y0, x1, y1: ``(N,)`` bool.

    All are False unless nearly all boxes agree. A box looks like corners if it extends beyond its image as x, y, width,
    height but not as corners, or if it fits the keypoints much better as corners.

    Args:
        box_xywh: ``(N, 4)`` as written, NaN where there is none.
        xy: ``(N, K, 2)``, NaN where unknown.
        sizes_wh: ``(N, 2)``, the size of each instance's image, NaN where unknown.
    """
    nobody = np.zeros(len(box_xywh), dtype=bool)
    extent = around(xy)
    usable = np.isfinite(box_xywh).all(1) & np.isfinite(extent).all(1)
    if not usable.any():
        return nobody
    corners, boxes = box_xywh, xywh_to_xyxy(box_xywh)
    with np.errstate(invalid="ignore"):
        rising = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        points = np.isfinite(xy).all(-1)
        within = points & (xy >= corners[:, None, :2] - 2).all(-1) & (xy <= corners[:, None, 2:] + 2).all(-1)
        inside = within.sum(1) >= 0.9 * points.sum(1)
        slack = 0.02 * sizes_wh.max(1)
        out = (boxes[:, 2:] > sizes_wh + slack[:, None]).any(1) & (corners[:, 2:] <= sizes_wh + slack[:, None]).all(1)
    as_boxes, as_corners = (_own_iou(extent, each) for each in (boxes, corners))
    fits = (as_boxes < 0.6 * as_corners) & (as_corners > 0.3)  # a head alone fits neither
    likely: np.ndarray = usable & rising & inside & (out | fits)
    against: np.ndarray = usable & (~rising | ~inside | (as_corners < 0.6 * as_boxes))
    total = usable.sum()
    if likely.sum() < 0.7 * total or against.sum() > 0.1 * total or (total < 4 and not (likely & out).any()):
        return nobody
    return likely


def implausible_areas(
    area_px2: np.ndarray, box_xyxy: np.ndarray, sizes_wh: np.ndarray, labelled: np.ndarray
) -> np.ndarray:
    """Return which areas are implausible for their boxes: ``(N,)`` bool.

    A mask lies within its box. An area of less than 2 % of the box (0, 1, or in another unit), of more than 1.5 times
    the box, or larger than the image is implausible.

    Args:
        area_px2: ``(N,)`` as written, NaN where there is none.
        box_xyxy: ``(N, 4)``, NaN where there is none.
        sizes_wh: ``(N, 2)``, the size of each instance's image, NaN where unknown.
        labelled: ``(N,)`` bool: the instance has a labelled keypoint; areas of others are not used.
    """
    with np.errstate(invalid="ignore"):
        of_box = area(box_xyxy)
        share = area_px2 / np.where(of_box > 0, of_box, np.nan)
        return labelled & ((share < 0.02) | (share > 1.5) | (area_px2 > 1.01 * sizes_wh.prod(1)))


def _own_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each box with its counterpart: ``(N,)``."""
    with np.errstate(invalid="ignore"):
        overlap = np.clip(np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2]), 0, None)
        shared = np.nan_to_num(overlap).prod(1)
        union = np.nan_to_num(area(first)) + np.nan_to_num(area(second)) - shared
    return np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)
