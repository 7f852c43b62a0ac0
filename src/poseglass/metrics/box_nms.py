"""Soft non-maximum suppression of boxes: duplicates lose score instead of being dropped.

Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code" (ICCV 2017), section 3, linear and Gaussian
rescoring. CenterNet (Zhou et al., "Objects as Points", 2019) merges the detections of several test scales, class by
class, by the Gaussian one with width 0.5; its public code also sets N_t to 0.5, which only the linear one uses.
How this differs: the overlap is that of edge-to-edge boxes.

Boxes far from the best one are not compared with it: pages and scans give tens of thousands.
"""

from typing import Literal, get_args

import numpy as np

from poseglass.core.boxes import iou

Method = Literal["gaussian", "linear"]


def soft_box_nms(
    box_xyxy: np.ndarray,
    score: np.ndarray,
    label: np.ndarray | None = None,
    *,
    method: Method = "gaussian",
    width: float = 0.5,
    threshold: float = 0.5,
    lowest: float = 0.001,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower the score of each box for every better box of its class that it overlaps, and drop the lowest.

    From the best down, each box multiplies the scores of the remaining ones: Gaussian by ``exp(-iou^2 / width)``,
    linear by ``1 - iou`` where the IoU is above the threshold.

    Args:
        box_xyxy: ``(N, 4)`` pixels, boxes of one image.
        score: ``(N,)``.
        label: ``(N,)`` class of each box; boxes of different classes do not affect each other. None: all are one class.
        method: "gaussian" or "linear".
        width: For "gaussian" (the paper's sigma): the smaller it is, the more a nearby box loses.
        threshold: For "linear" (the paper's N_t): an IoU above it lowers the score; one equal to it does not.
        lowest: A box whose score falls below it is dropped.

    Returns:
        Indices of the kept rows ``(M,)`` int64, best first by reduced score, and their reduced scores ``(M,)`` float64.
        Equal scores keep their order.

    Raises:
        ValueError: The method is neither of the two, the width is not positive, or the shapes do not match.

    Example:
        The second box overlaps the first by an IoU of 0.6, and so loses 60 % of its score.

        >>> boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 6], [50, 0, 60, 10]])
        >>> rows, scores = soft_box_nms(boxes, np.array([0.9, 0.8, 0.7]), method="linear")
        >>> rows.tolist(), scores.round(2).tolist()
        ([0, 2, 1], [0.9, 0.7, 0.32])
    """
    boxes, lowered = np.asarray(box_xyxy, np.float64), np.array(score, np.float64)
    classes = np.zeros(len(boxes), np.int64) if label is None else np.asarray(label)
    n = len(boxes)
    if boxes.shape != (n, 4) or lowered.shape != (n,) or classes.shape != (n,):
        raise ValueError(
            f"Soft-NMS needs box_xyxy (N, 4) and one score and one label for each of the N boxes, got {boxes.shape}, "
            f"{lowered.shape} and {classes.shape}."
        )
    if method not in get_args(Method):
        raise ValueError(f"The method of soft-NMS must be 'gaussian' or 'linear', got {method!r}.")
    if not width > 0:
        raise ValueError(f"The width of soft-NMS must be above 0, got {width}; CenterNet's is 0.5.")
    left = np.where(lowered >= lowest, lowered, -np.inf)  # of each box that is not taken or dropped yet
    neighbours = _Neighbours(boxes)
    kept: list[int] = []
    for _ in range(n):
        best = int(left.argmax())
        if left[best] == -np.inf:
            break
        kept.append(best)
        left[best] = -np.inf
        near = neighbours.of(best)
        near = near[(left[near] > -np.inf) & (classes[near] == classes[best])]
        overlap = np.nan_to_num(iou(boxes[best][None], boxes[near])[0])
        if method == "gaussian":
            lowered[near] *= np.exp(-(overlap**2) / width)
        else:
            lowered[near] *= np.where(overlap > threshold, 1 - overlap, 1.0)
        left[near] = np.where(lowered[near] >= lowest, lowered[near], -np.inf)
    rows = np.array(kept, np.int64)
    return rows, lowered[rows]


class _Neighbours:
    """Finds the boxes that may overlap a box: by their left edges, in groups of boxes of about equal width.

    Within a group, a box that overlaps another begins at most the largest width of the group before it, and before it
    ends. A few wide boxes therefore do not make neighbours of all the narrow ones.
    """

    def __init__(self, box_xyxy: np.ndarray) -> None:
        self._boxes = box_xyxy
        rows = np.flatnonzero(np.isfinite(box_xyxy).all(-1))
        width = np.maximum(box_xyxy[rows, 2] - box_xyxy[rows, 0], 1.0)
        group = np.floor(np.log2(width)).astype(np.int64)
        self._groups: list[tuple[np.ndarray, np.ndarray, float]] = []
        for each in np.unique(group):
            inside = rows[group == each]
            inside = inside[np.argsort(box_xyxy[inside, 0], kind="stable")]
            self._groups.append((inside, box_xyxy[inside, 0], 2.0 ** (float(each) + 1)))

    def of(self, row: int) -> np.ndarray:
        """Return the rows of boxes whose horizontal extent may overlap that of a box, itself included."""
        low, high = self._boxes[row, 0], self._boxes[row, 2]
        if not np.isfinite(self._boxes[row]).all():
            return np.zeros(0, np.int64)
        spans = [
            rows[np.searchsorted(left, low - widest) : np.searchsorted(left, high, side="right")]
            for rows, left, widest in self._groups
        ]
        return np.concatenate(spans)
