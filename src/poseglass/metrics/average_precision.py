"""COCO's average precision for keypoints, computed from arrays or from COCO's JSON.

The results equal those of pycocotools (``iouType="keypoints"``) with any skeleton and any sigmas. Matching is that of
``precision_recall``; here is the similarity of a detection and a person.

Source: the evaluation page of the dataset (cocodataset.org, "Keypoint evaluation"), and the behaviour of pycocotools.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poseglass.metrics.coco_json import coco_rows, column, crowds, numbers
from poseglass.metrics.precision_recall import THRESHOLDS, check_scores, check_shapes, mean_found, precision_and_recall

AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e5**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""COCO's ranges of a person's area, square pixels, both ends included."""

_CHUNK = 4096
"""Pairs whose keypoints are compared at a time: about as many as fit the second-level cache."""


@dataclass(frozen=True, slots=True, eq=False)
class OksTruth:
    """The labels of many images, in flat arrays.

    Args:
        image: ``(G,)`` int64 index of the image; images with equal scores are processed in this order.
        category: ``(G,)`` int64, starting at 0.
        xy: ``(G, K, 2)`` float64 pixels.
        labelled: ``(G, K)`` bool; ``xy`` is ignored where it is False.
        area: ``(G,)`` square pixels.
        box_xywh: ``(G, 4)`` pixels; only used for people without labelled keypoints.
        crowd: ``(G,)`` bool: any number of detections may match it, and none of them counts.
        ignored: ``(G,)`` bool: a detection that matches it does not count; true for crowds and people without
            keypoints.

    Raises:
        ValueError: The shapes do not match.
    """

    image: np.ndarray
    category: np.ndarray
    xy: np.ndarray
    labelled: np.ndarray
    area: np.ndarray
    box_xywh: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray

    def __post_init__(self) -> None:
        g, k = self.xy.shape[:2]
        check_shapes(
            self,
            {"image": (g,), "category": (g,), "xy": (g, k, 2), "labelled": (g, k), "area": (g,), "box_xywh": (g, 4),
             "crowd": (g,), "ignored": (g,)},
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class OksDetections:
    """The detections of many images, in flat arrays.

    Args:
        image: ``(D,)`` int64, as in ``OksTruth``.
        category: ``(D,)`` int64.
        xy: ``(D, K, 2)`` float64 pixels, NaN = missing.
        score: ``(D,)`` float64.
        area: ``(D,)`` square pixels: an unmatched detection whose area is outside a range does not count there.

    Raises:
        ValueError: The shapes do not match, or a score is not finite.
    """

    image: np.ndarray
    category: np.ndarray
    xy: np.ndarray
    score: np.ndarray
    area: np.ndarray

    def __post_init__(self) -> None:
        d, k = self.xy.shape[:2]
        check_shapes(self, {"image": (d,), "category": (d,), "xy": (d, k, 2), "score": (d,), "area": (d,)})
        check_scores(self.score)


@dataclass(frozen=True, slots=True, eq=False)
class OksResult:
    """Precision and recall at every threshold, category and area range; -1 if there are no people to find.

    Args:
        precision: ``(T, 101, C, A)`` at recall 0, 0.01, ... 1.
        recall: ``(T, C, A)`` maximum recall.
        thresholds: ``(T,)`` OKS thresholds.
        areas: Names of the A area ranges.
    """

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray
    areas: tuple[str, ...]

    def results(self, category: int | None = None) -> dict[str, float]:
        """Return COCO's ten results in COCO's order, in [0, 1], or -1 if there are no people to find.

        Args:
            category: Index of one category; None returns the mean over all C.
        """
        chosen = slice(None) if category is None else slice(category, category + 1)
        result: dict[str, float] = {}
        for name, values in (("AP", self.precision), ("AR", self.recall)):
            for suffix, threshold, area in (
                ("", None, "all"), ("50", 0.5, "all"), ("75", 0.75, "all"), ("_medium", None, "medium"),
                ("_large", None, "large"),
            ):  # fmt: skip
                part = values if threshold is None else values[self.thresholds == threshold]
                if area not in self.areas:
                    result[name + suffix] = -1.0
                    continue
                result[name + suffix] = mean_found(part[..., chosen, self.areas.index(area)])
        return result


def evaluate_oks(
    truth: OksTruth,
    detections: OksDetections,
    sigmas: Sequence[float] | np.ndarray,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    areas: Mapping[str, tuple[float, float]] = AREAS,
    max_detections: int = 20,
    categories: int | None = None,
) -> OksResult:
    """Match detections with people and return precision and recall, like pycocotools' evaluate and accumulate.

    How they are matched, see ``precision_and_recall``.

    Args:
        truth: G people.
        detections: D detections.
        sigmas: ``(K,)``.
        thresholds: T OKS thresholds.
        areas: Area ranges by name, square pixels.
        max_detections: Maximum number per image and category.
        categories: Number of categories; None means the highest index plus 1.

    Raises:
        ValueError: The numbers of keypoints or sigmas differ.
    """
    deviation = np.asarray(sigmas, np.float64)
    if not deviation.shape == (truth.xy.shape[1],) == (detections.xy.shape[1],):
        raise ValueError(
            f"Sigmas, labels and detections must have the same number of keypoints, got {deviation.size} sigmas, "
            f"{truth.xy.shape[1]} and {detections.xy.shape[1]} keypoints."
        )
    precision, recall = precision_and_recall(
        truth, detections, _similarity(truth, detections, deviation), thresholds=thresholds, areas=areas,
        max_detections=(max_detections,), categories=categories,
    )  # fmt: skip
    return OksResult(precision, recall[..., 0], np.asarray(thresholds, np.float64), tuple(areas))


def oks_ap(
    dataset: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float] | np.ndarray,
    *,
    max_detections: int = 20,
) -> OksResult:
    """Evaluate COCO results against a COCO dataset, both as ``json.load`` gives them, as pycocotools does.

    Args:
        dataset: With "images", "annotations" and "categories".
        results: A list of entries with "image_id", "category_id", "keypoints" and "score", and optionally "bbox".
        sigmas: K per-keypoint sigmas.
        max_detections: Maximum number per image and category.

    Raises:
        ValueError: A field is missing, a list of keypoints does not have length 3 K, or a result belongs to an image
            that the dataset does not have.

    Example:
        Two people; one is found exactly, the other not at all.

        >>> person = {"category_id": 1, "area": 5000.0, "bbox": [0, 0, 50, 100], "iscrowd": 0, "num_keypoints": 2}
        >>> here, there = [10, 10, 2, 10, 90, 2], [40, 10, 2, 40, 90, 2]
        >>> dataset = {"images": [{"id": 7}], "categories": [{"id": 1}], "annotations": [
        ...     person | {"id": 1, "image_id": 7, "keypoints": here},
        ...     person | {"id": 2, "image_id": 7, "keypoints": there}]}
        >>> found = [{"image_id": 7, "category_id": 1, "keypoints": here, "score": 0.9}]
        >>> results = oks_ap(dataset, found, (0.05, 0.05)).results()
        >>> round(results["AP"], 4), results["AR"], results["AP_large"]
        (0.505, 0.5, -1.0)
    """
    truth, detections, category_ids = read_coco(dataset, results, len(sigmas))
    return evaluate_oks(truth, detections, sigmas, max_detections=max_detections, categories=max(len(category_ids), 1))


def read_coco(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]], num_keypoints: int
) -> tuple[OksTruth, OksDetections, np.ndarray]:
    """Convert a COCO dataset and results to arrays.

    As in pycocotools, the area of a detection is that of its "bbox" if the first result has one, else that of the box
    around its keypoints; results of a category that the dataset does not have are dropped.

    Args:
        dataset: With "images", "annotations" and "categories".
        results: A list of detections.
        num_keypoints: Number of keypoints, K.

    Returns:
        truth: Images numbered by ascending id.
        detections: Those in the dataset's categories.
        category_ids: ``(C,)``, ascending.

    Raises:
        ValueError: As in ``oks_ap``.
    """
    labels, found, categories = coco_rows(dataset, results)
    annotations, known = labels.records, labels.known
    points = numbers(annotations, "keypoints", 3 * num_keypoints, "annotation").reshape(-1, num_keypoints, 3)
    labelled = points[..., 2] > 0
    crowd = crowds(annotations)
    count = np.array([a.get("num_keypoints", -1) for a in annotations], np.int64)
    count = np.where(count < 0, labelled.sum(-1), count)
    truth = OksTruth(
        image=labels.image[known],
        category=labels.category[known],
        xy=points[known, :, :2],
        labelled=labelled[known],
        area=column(annotations, "area", "annotation").astype(np.float64)[known],
        box_xywh=numbers(annotations, "bbox", 4, "annotation")[known],
        crowd=crowd[known],
        ignored=(crowd | (count == 0))[known],
    )
    points = numbers(found.records, "keypoints", 3 * num_keypoints, "result").reshape(-1, num_keypoints, 3)
    if found.records and found.records[0].get("bbox"):
        box_xywh = numbers(found.records, "bbox", 4, "result")
        area = box_xywh[:, 2] * box_xywh[:, 3]
    else:
        area = np.ptp(points[..., 0], axis=-1) * np.ptp(points[..., 1], axis=-1)
    score, known = column(found.records, "score", "result").astype(np.float64), found.known
    detections = OksDetections(
        found.image[known], found.category[known], points[known, :, :2], score[known], area[known]
    )
    return truth, detections, categories


def _similarity(
    truth: OksTruth, detections: OksDetections, sigmas: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the function from rows of detections and of people, both ``(P,)``, to their OKS ``(P,)``."""
    here = np.concatenate([detections.xy[..., 0], detections.xy[..., 1]], -1)
    here = np.where(np.isfinite(here), here, np.inf)
    there = np.concatenate([truth.xy[..., 0], truth.xy[..., 1]], -1)
    there = np.where(np.concatenate([truth.labelled, truth.labelled], -1), there, 0.0)
    scale = -0.5 / ((2 * sigmas) ** 2 * (truth.area + np.spacing(1))[:, None])
    weight = truth.labelled.astype(np.float64)
    total = truth.labelled.sum(-1)
    box = truth.box_xywh
    k = len(sigmas)

    def similarity_of(detection: np.ndarray, person: np.ndarray) -> np.ndarray:
        similarity = np.empty(len(detection))
        for begin in range(0, len(detection), _CHUNK):
            d, g = detection[begin : begin + _CHUNK], person[begin : begin + _CHUNK]
            difference = here[d]
            difference -= there[g]
            difference *= difference
            exponent = difference[:, :k]
            exponent += difference[:, k:]
            exponent *= scale[g]
            closeness = np.exp(exponent)
            similarity[begin : begin + _CHUNK] = np.einsum("pk,pk->p", closeness, weight[g]) / np.maximum(total[g], 1)

        # A person without labelled keypoints: the distance from a box of three times the size, over all keypoints.
        bare = np.flatnonzero(total[person] == 0)
        if len(bare):
            d, g = detection[bare], person[bare]
            outside = np.zeros((len(bare), k))
            for axis in (0, 1):
                near = (box[g, axis] - box[g, axis + 2])[:, None]
                far = (box[g, axis] + box[g, axis + 2] * 2)[:, None]
                at = here[d][:, axis * k : (axis + 1) * k]
                outside += (np.maximum(near - at, 0) + np.maximum(at - far, 0)) ** 2
            similarity[bare] = np.exp(outside * scale[g]).mean(-1)
        return similarity

    return similarity_of
