"""COCO's average precision for boxes, computed from arrays or from COCO's JSON.

The results equal those of pycocotools (``iouType="bbox"``). Matching is that of ``precision_recall``; here is the
similarity of a detection and a labelled box.

Source: the evaluation page of the dataset (cocodataset.org, "Detection evaluation"), and the behaviour of pycocotools.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poseglass.metrics.coco_json import coco_rows, column, crowds, numbers
from poseglass.metrics.precision_recall import THRESHOLDS, check_scores, check_shapes, mean_found, precision_and_recall

AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""COCO's ranges of an object's area, square pixels, both ends included."""

MAX_DETECTIONS: tuple[int, ...] = (1, 10, 100)
"""COCO's maximum numbers of detections per image and category."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxTruth:
    """The labelled boxes of many images, in flat arrays.

    Args:
        image: ``(G,)`` int64 index of the image; images with equal scores are processed in this order.
        category: ``(G,)`` int64, starting at 0.
        box_xywh: ``(G, 4)`` float64 pixels.
        area: ``(G,)`` square pixels; in COCO, that of the segmentation. It only assigns an object to an area range.
        crowd: ``(G,)`` bool: any number of detections may match it, and none of them counts.

    Raises:
        ValueError: The shapes do not match, or a box is not finite.
    """

    image: np.ndarray
    category: np.ndarray
    box_xywh: np.ndarray
    area: np.ndarray
    crowd: np.ndarray

    def __post_init__(self) -> None:
        g = len(self.box_xywh)
        check_shapes(self, {"image": (g,), "category": (g,), "box_xywh": (g, 4), "area": (g,), "crowd": (g,)})
        check_boxes(self.box_xywh, "label")

    @property
    def ignored(self) -> np.ndarray:
        """``(G,)`` bool: a detection that matches it does not count; the crowds."""
        return self.crowd


@dataclass(frozen=True, slots=True, eq=False)
class BoxDetections:
    """The detected boxes of many images, in flat arrays.

    Args:
        image: ``(D,)`` int64, as in ``BoxTruth``.
        category: ``(D,)`` int64.
        box_xywh: ``(D, 4)`` float64 pixels.
        score: ``(D,)`` float64.

    Raises:
        ValueError: The shapes do not match, or a box or a score is not finite.
    """

    image: np.ndarray
    category: np.ndarray
    box_xywh: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        d = len(self.box_xywh)
        check_shapes(self, {"image": (d,), "category": (d,), "box_xywh": (d, 4), "score": (d,)})
        check_boxes(self.box_xywh, "detection")
        check_scores(self.score)

    @property
    def area(self) -> np.ndarray:
        """``(D,)`` square pixels: an unmatched detection whose area is outside a range does not count there."""
        return self.box_xywh[:, 2] * self.box_xywh[:, 3]


@dataclass(frozen=True, slots=True, eq=False)
class BoxResult:
    """Precision and recall at every threshold, category and area range; -1 if there is nothing to find.

    Args:
        precision: ``(T, 101, C, A)`` at recall 0, 0.01, ... 1, with the last of ``max_detections``.
        recall: ``(T, C, A, M)`` maximum recall.
        thresholds: ``(T,)`` IoU thresholds.
        areas: Names of the A area ranges.
        max_detections: M maximum numbers per image and category.
    """

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray
    areas: tuple[str, ...]
    max_detections: tuple[int, ...]

    def results(self, category: int | None = None) -> dict[str, float]:
        """Return COCO's twelve results in COCO's order, in [0, 1], or -1 if there is nothing to find.

        They are ``AP AP50 AP75 AP_small AP_medium AP_large AR1 AR10 AR100 AR_small AR_medium AR_large``; with other
        ``max_detections``, the numbers after AR are those.

        Args:
            category: Index of one category; None returns the mean over all C.
        """
        chosen = slice(None) if category is None else slice(category, category + 1)

        def precision(area: str, threshold: float | None = None) -> float:
            if area not in self.areas:
                return -1.0
            part = self.precision if threshold is None else self.precision[self.thresholds == threshold]
            return mean_found(part[..., chosen, self.areas.index(area)])

        def recall(area: str, most: int = -1) -> float:
            return mean_found(self.recall[:, chosen, self.areas.index(area), most]) if area in self.areas else -1.0

        result = {"AP": precision("all"), "AP50": precision("all", 0.5), "AP75": precision("all", 0.75)}
        result |= {f"AP_{area}": precision(area) for area in ("small", "medium", "large")}
        result |= {f"AR{most}": recall("all", m) for m, most in enumerate(self.max_detections)}
        return result | {f"AR_{area}": recall(area) for area in ("small", "medium", "large")}


def evaluate_boxes(
    truth: BoxTruth,
    detections: BoxDetections,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    areas: Mapping[str, tuple[float, float]] = AREAS,
    max_detections: Sequence[int] = MAX_DETECTIONS,
    categories: int | None = None,
) -> BoxResult:
    """Match detected with labelled boxes and return precision and recall, like pycocotools' evaluate and accumulate.

    How they are matched, see ``precision_and_recall``.

    Args:
        truth: G labelled boxes.
        detections: D detected boxes.
        thresholds: T IoU thresholds.
        areas: Area ranges by name, square pixels.
        max_detections: M maximum numbers per image and category, ascending. Precision is that of the last.
        categories: Number of categories; None means the highest index plus 1.

    Raises:
        ValueError: ``max_detections`` are not ascending positive numbers.
    """
    most = check_max_detections(max_detections)

    def similarity(detection: np.ndarray, label: np.ndarray) -> np.ndarray:
        return pair_iou(detections.box_xywh[detection], truth.box_xywh[label], truth.crowd[label])

    precision, recall = precision_and_recall(
        truth, detections, similarity, thresholds=thresholds, areas=areas, max_detections=most, categories=categories
    )
    return BoxResult(precision, recall, np.asarray(thresholds, np.float64), tuple(areas), most)


def pair_iou(detected_xywh: np.ndarray, labelled_xywh: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return COCO's IoU of pairs of boxes, ``(P,)`` in [0, 1].

    With a crowd, it is the intersection over the area of the detection, because a crowd holds many objects.

    Args:
        detected_xywh: ``(P, 4)`` pixels.
        labelled_xywh: ``(P, 4)`` pixels.
        crowd: ``(P,)`` bool, of the labels.

    Example:
        >>> pair_iou(np.array([[0.0, 0, 10, 10]] * 2), np.array([[5.0, 0, 10, 10]] * 2), np.array([False, True]))
        array([0.33333333, 0.5       ])
    """
    d, g = (np.asarray(box, np.float64).reshape(-1, 4) for box in (detected_xywh, labelled_xywh))
    side_wh = np.minimum(d[:, :2] + d[:, 2:], g[:, :2] + g[:, 2:]) - np.maximum(d[:, :2], g[:, :2])
    overlap = side_wh[:, 0] * side_wh[:, 1]
    detected, labelled = d[:, 2] * d[:, 3], g[:, 2] * g[:, 3]
    whole = np.where(crowd, detected, detected + labelled - overlap)
    return np.divide(overlap, whole, out=np.zeros(len(d)), where=(side_wh > 0).all(-1) & (whole > 0))


def box_ap(
    dataset: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> BoxResult:
    """Evaluate COCO results against a COCO dataset, both as ``json.load`` gives them, as pycocotools does.

    Args:
        dataset: With "images", "annotations" and "categories".
        results: A list of entries with "image_id", "category_id", "bbox" and "score".
        max_detections: M maximum numbers per image and category, ascending.

    Raises:
        ValueError: A field is missing, a box is not four numbers, or a result belongs to an image that the dataset does
            not have.

    Example:
        Two boxes; one is found exactly, the other not at all.

        >>> label = {"image_id": 7, "category_id": 1, "area": 5000.0, "iscrowd": 0}
        >>> dataset = {"images": [{"id": 7}], "categories": [{"id": 1}], "annotations": [
        ...     label | {"id": 1, "bbox": [0, 0, 50, 100]}, label | {"id": 2, "bbox": [90, 0, 50, 100]}]}
        >>> found = [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 50, 100], "score": 0.9}]
        >>> results = box_ap(dataset, found).results()
        >>> round(results["AP"], 4), results["AR100"], results["AP_large"]
        (0.505, 0.5, -1.0)
    """
    truth, detections, category_ids = read_coco_boxes(dataset, results)
    return evaluate_boxes(truth, detections, max_detections=max_detections, categories=max(len(category_ids), 1))


def read_coco_boxes(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> tuple[BoxTruth, BoxDetections, np.ndarray]:
    """Convert the boxes of a COCO dataset and of results to arrays.

    As in pycocotools, results of a category that the dataset does not have are dropped.

    Args:
        dataset: With "images", "annotations" and "categories".
        results: A list of detections.

    Returns:
        truth: Images numbered by ascending id.
        detections: Those in the dataset's categories.
        category_ids: ``(C,)``, ascending.

    Raises:
        ValueError: As in ``box_ap``.
    """
    labels, found, categories = coco_rows(dataset, results)
    box_xywh = numbers(labels.records, "bbox", 4, "annotation")
    area = column(labels.records, "area", "annotation").astype(np.float64)
    known = labels.known
    truth = BoxTruth(
        labels.image[known], labels.category[known], box_xywh[known], area[known], crowds(labels.records)[known]
    )
    box_xywh = numbers(found.records, "bbox", 4, "result")
    score, known = column(found.records, "score", "result").astype(np.float64), found.known
    detections = BoxDetections(found.image[known], found.category[known], box_xywh[known], score[known])
    return truth, detections, categories


def check_boxes(box_xywh: np.ndarray, what: str) -> None:
    """Raise unless all boxes are finite.

    Args:
        box_xywh: ``(N, 4)``.
        what: What a box is of, for the error.

    Raises:
        ValueError: A box is not finite; the first is named.
    """
    bad = ~np.isfinite(box_xywh).all(-1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"AP of boxes needs a finite box of every {what}, got {np.asarray(box_xywh[first]).tolist()} (x, y, width, "
            f"height) in {what} {first} ({int(bad.sum())} in all); give it a box or drop it."
        )


def check_max_detections(numbers: Sequence[int]) -> tuple[int, ...]:
    """Return the maximum numbers of detections as a tuple.

    Raises:
        ValueError: They are not ascending positive whole numbers.
    """
    most = tuple(numbers)
    whole = all(isinstance(n, int | np.integer) and n > 0 for n in most)
    if not most or not whole or sorted(set(most)) != list(most):
        raise ValueError(
            f"max_detections must be ascending positive whole numbers, such as {MAX_DETECTIONS}, got {most}."
        )
    return tuple(int(n) for n in most)
