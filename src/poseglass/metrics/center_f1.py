"""The F1 score of Kaggle's Kuzushiji recognition: a point in the right box, with the right class."""

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.metrics.metric import Better, check_pair, check_same, check_seen


@dataclass(frozen=True, eq=False)
class CenterF1:
    """F1 of all images together: a prediction is right if its middle lies in a label's box of the same class.

    Predictions are taken best first. Each label is found at most once; of several that hold a point, the one whose
    middle is nearest. Also reported is F1 of the places alone ("place_f1"), without classes.

    Args:
        min_score: Predictions with a lower box score do not count.
        most: Predictions of an image beyond this number do not count; 1,200 in the competition.

    Raises:
        ValueError: A score that is not in [0, 1], or a number below 1.

    Source:
        The evaluation page of the competition; what it does not say is which of several boxes a point finds.

    Example:
        >>> from poseglass.core.skeleton import Skeleton
        >>> page = Skeleton("boxes", ())
        >>> def characters(boxes, labels):
        ...     count = len(boxes)
        ...     return Instances(page, np.zeros((count, 0, 2)), np.zeros((count, 0)), boxes, np.ones(count), labels)
        >>> metric = CenterF1()
        >>> truth = characters([[0, 0, 9, 9], [28, 0, 40, 9]], [1, 1])
        >>> metric.update(characters([[4, 4, 8, 8], [30, 4, 34, 8]], [1, 2]), truth)
        >>> metric.compute()["f1"], metric.compute()["place_f1"]
        (0.5, 1.0)
    """

    rows_correspond: ClassVar[bool] = False

    min_score: float = 0.0
    most: int = 1200
    _counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _classes: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    _skeleton: list[Skeleton] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1 or self.most < 1:
            raise ValueError(
                f"CenterF1 needs min_score in [0, 1] and most of at least 1, got {self.min_score} and {self.most}."
            )

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image; crowds among the labels are neither to be found nor wrong to find.

        Raises:
            ValueError: Skeletons differ.
        """
        check_pair(predicted, truth, same_rows=False)
        check_seen(self._skeleton, truth.skeleton)
        if not self._skeleton:
            self._skeleton.append(truth.skeleton)
        crowd = np.asarray(truth.extra.get("crowd", np.zeros(len(truth))), bool)
        best = np.argsort(-predicted.box_score, kind="stable")
        best = best[predicted.box_score[best] >= self.min_score][: self.most]
        points = ((predicted.box_xyxy[:, :2] + predicted.box_xyxy[:, 2:]) / 2)[best].astype(np.float64)
        labels = predicted.label[best]
        if crowd.any() and len(points):
            excused = _holds(truth.box_xyxy[crowd], points).any(0) & ~_holds(truth.box_xyxy[~crowd], points).any(0)
            points, labels = points[~excused], labels[~excused]
        boxes, wanted = truth.box_xyxy[~crowd], truth.label[~crowd]
        inside = _holds(boxes, points)
        right = _matched(boxes, points, inside & (wanted[:, None] == labels[None]))
        place = _matched(boxes, points, inside)
        numbers = {"right": (right >= 0).sum(), "placed": (place >= 0).sum(), "found": len(points), "there": len(boxes)}
        self._counts.update({name: int(number) for name, number in numbers.items()})
        for number in np.unique(np.concatenate([wanted, labels])):
            row = np.array([(wanted[right >= 0] == number).sum(), (labels == number).sum(), (wanted == number).sum()])
            self._classes[int(number)] = self._classes.get(int(number), np.zeros(3, np.int64)) + row

    def compute(self) -> dict[str, float]:
        """Return "f1", "precision", "recall", and "place_f1", that of the places alone; NaN without any character."""
        counts = self._counts
        right, placed, found, there = (counts[name] for name in ("right", "placed", "found", "there"))
        return {
            "f1": _f1(right, found, there), "precision": right / found if found else float("nan"),
            "recall": right / there if there else float("nan"), "place_f1": _f1(placed, found, there),
        }  # fmt: skip

    def better(self, name: str) -> Better:
        """Return "higher" for all."""
        return "higher"

    def table(self) -> dict[str, dict[str, float]]:
        """Return F1, precision, recall and the number of labels of each class, by its number."""
        rows = {}
        for number in sorted(self._classes):
            right, found, there = (float(value) for value in self._classes[number])
            rows[str(number)] = {
                "f1": _f1(right, found, there), "precision": _ratio(right, found), "recall": _ratio(right, there),
                "labels": there,
            }  # fmt: skip
        return rows

    def merge(self, other: Self) -> None:
        """Merge the data of another metric with the same fields.

        Raises:
            ValueError: The fields differ.
        """
        check_same(self, other)
        if not self._skeleton:
            self._skeleton.extend(other._skeleton)
        self._counts.update(other._counts)
        for number, row in other._classes.items():
            self._classes[number] = self._classes.get(number, np.zeros(3, np.int64)) + row


def _holds(box_xyxy: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which boxes ``(N, 4)`` hold which points ``(M, 2)``: ``(N, M)`` bool, edges included."""
    low, high = box_xyxy[:, None, :2], box_xyxy[:, None, 2:]
    return np.asarray(((points[None] >= low) & (points[None] <= high)).all(-1))


def _matched(boxes: np.ndarray, points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the point that each box gets ``(N,)`` int64, -1 for none: points in their order, the nearest free box."""
    taken = np.full(len(boxes), -1, np.int64)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    for number in np.flatnonzero(allowed.any(0)):
        free = np.flatnonzero(allowed[:, number] & (taken < 0))
        if len(free):
            far = np.square(middles[free] - points[number]).sum(-1)
            taken[free[int(far.argmin())]] = number
    return taken


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _f1(right: float, found: float, there: float) -> float:
    return float(2 * right / (found + there)) if found + there else float("nan")
