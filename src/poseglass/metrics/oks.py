"""OKS, the similarity of two poses, and the average precision that COCO builds on it.

Sources: Lin et al., "Microsoft COCO" (ECCV 2014) and the evaluation page of the dataset; Ronchi and Perona, "Benchmarking
and error diagnosis in multi-instance pose estimation" (ICCV 2017), section 2. The figures equal those of pycocotools
(``iouType="keypoints"``) with any skeleton and any sigmas. People are never looped over: every pair of a detection and
a person of one image is one row of an array, and matching goes by rank of the detection over all images at once.

One thing is mended: pycocotools takes an annotation whose id is 0 for "not matched"; here it is a person as any other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Self

import numpy as np

from poseglass.core.boxes import xyxy_to_xywh
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.metrics.metric import check_pair

THRESHOLDS: tuple[float, ...] = tuple(float(x) for x in np.linspace(0.5, 0.95, 10))
"""COCO's ten thresholds of OKS, 0.50 to 0.95."""

AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e5**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""COCO's ranges of a person's area, square pixels, both ends included."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 4096
"""Pairs whose keypoints are compared at a time: about what the second-level cache holds."""


def keypoint_similarity(
    predicted_xy: np.ndarray, truth_xy: np.ndarray, area: np.ndarray | float, sigmas: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return ``exp(-d^2 / (2 area (2 sigma)^2))`` of each keypoint.

    Args:
        predicted_xy: ``(..., K, 2)`` pixels, NaN = missing.
        truth_xy: ``(..., K, 2)`` pixels, NaN = unknown; leading axes broadcast.
        area: ``(...)`` of the person, square pixels.
        sigmas: ``(K,)``.

    Returns:
        ``(..., K)`` in [0, 1]; 0 where the prediction is missing, NaN where the truth is unknown.

    Example:
        At a distance of ``2 sigma sqrt(area)`` it is exp(-1/2).

        >>> truth = np.array([[0.0, 0.0], [0.0, 0.0]])
        >>> predicted = np.array([[0.0, 0.0], [0.0, 20.0]])
        >>> keypoint_similarity(predicted, truth, 10000.0, (0.1, 0.1)).round(4).tolist()
        [1.0, 0.6065]
    """
    predicted, truth = np.asarray(predicted_xy, np.float64), np.asarray(truth_xy, np.float64)
    difference = predicted - truth
    squared = difference[..., 0] ** 2 + difference[..., 1] ** 2
    variance = (2 * np.asarray(sigmas, np.float64)) ** 2
    scale = np.asarray(area, np.float64)[..., None] + np.spacing(1)
    similarity = np.exp(-squared / variance / scale / 2)
    similarity = np.where(np.isfinite(predicted).all(-1), similarity, 0.0)
    return np.where(np.isfinite(truth).all(-1), similarity, np.nan)


def oks(
    predicted_xy: np.ndarray, truth_xy: np.ndarray, area: np.ndarray | float, sigmas: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return the object keypoint similarity of poses: the mean of ``keypoint_similarity`` over the labelled keypoints.

    Args:
        predicted_xy: ``(..., K, 2)`` pixels, NaN = missing.
        truth_xy: ``(..., K, 2)`` pixels, NaN = unknown; leading axes broadcast.
        area: ``(...)`` of the person, square pixels.
        sigmas: ``(K,)``.

    Returns:
        ``(...)`` in [0, 1]; NaN where nothing is labelled.

    Example:
        >>> truth = np.array([[0.0, 0.0], [0.0, 0.0], [np.nan, np.nan]])
        >>> predicted = np.array([[0.0, 0.0], [0.0, 20.0], [5.0, 5.0]])
        >>> oks(predicted, truth, 10000.0, (0.1, 0.1, 0.1)).round(4).item()
        0.8033
    """
    similarity = keypoint_similarity(predicted_xy, truth_xy, area, sigmas)
    counted = ~np.isnan(similarity)
    total = counted.sum(-1)
    summed = np.where(counted, similarity, 0.0).sum(-1)
    return np.divide(summed, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def oks_matrix(
    predicted: Instances,
    truth: Instances,
    sigmas: Sequence[float] | None = None,
    *,
    box_area_factor: float | None = None,
) -> np.ndarray:
    """Return the OKS of every predicted with every true person of an image.

    Args:
        predicted: N people.
        truth: M people; ``extra["area"]`` is theirs.
        sigmas: K; None takes the skeleton's.
        box_area_factor: As in ``person_area``.

    Returns:
        ``(N, M)`` float64; NaN in the column of a person without labelled keypoints.

    Raises:
        ValueError: Skeletons differ, or there are no sigmas or areas.
    """
    check_pair(predicted, truth, same_rows=False)
    return oks(
        _known_xy(predicted)[:, None],
        _known_xy(truth)[None],
        person_area(truth, box_area_factor)[None],
        known_sigmas(truth.skeleton, sigmas),
    )


def known_sigmas(skeleton: Skeleton, sigmas: Sequence[float] | None = None) -> np.ndarray:
    """Return the sigmas given, or the skeleton's own: ``(K,)`` float64.

    Raises:
        ValueError: There are none, or not one positive number per keypoint.
    """
    values = skeleton.sigmas if sigmas is None else sigmas
    if not len(values):
        raise ValueError(
            f"Skeleton {skeleton.name!r} has no sigmas, and OKS needs one per keypoint. Give sigmas=(...), "
            f"{len(skeleton)} numbers; COCO's run from 0.025 (eyes) to 0.107 (hips)."
        )
    array = np.asarray(values, np.float64)
    if array.shape != (len(skeleton),) or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(
            f"OKS needs {len(skeleton)} positive sigmas (one per keypoint of {skeleton.name!r}), got "
            f"{array.size}: {array.tolist()}."
        )
    return array


def person_area(instances: Instances, box_area_factor: float | None = None) -> np.ndarray:
    """Return the area that scales OKS: ``(N,)`` square pixels.

    Args:
        instances: With ``extra["area"]`` (in COCO: of the segmentation).
        box_area_factor: Where there is no area, this times the area of the box stands for it; 0.53 is usual. None
            refuses.

    Raises:
        ValueError: An area is missing and no factor is given.
    """
    area = np.full(len(instances), np.nan)
    if "area" in instances.extra:
        area = np.asarray(instances.extra["area"], np.float64).reshape(len(instances))
    missing = ~np.isfinite(area)
    if missing.any():
        if box_area_factor is None:
            raise ValueError(
                f"OKS needs the area of every person, extra['area']; {int(missing.sum())} of {len(instances)} people of "
                f"{instances.skeleton.name!r} have none. Give box_area_factor=0.53 to take it from their boxes."
            )
        area = np.where(missing, _box_area(instances) * box_area_factor, area)
    return area


@dataclass(frozen=True, slots=True, eq=False)
class OksTruth:
    """The labels of many images, flat.

    Args:
        image: ``(G,)`` int64 number of the image; images of equal scores are taken in this order.
        category: ``(G,)`` int64 from 0.
        xy: ``(G, K, 2)`` float64 pixels.
        labelled: ``(G, K)`` bool; elsewhere ``xy`` does not matter.
        area: ``(G,)`` square pixels.
        box_xywh: ``(G, 4)`` pixels; matters for people without labelled keypoints.
        crowd: ``(G,)`` bool: any number of detections may match it, and none of them counts.
        ignored: ``(G,)`` bool: a detection that matches it does not count; crowds and people with no keypoint.

    Raises:
        ValueError: The shapes do not fit.
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
        _check_shapes(
            self,
            {"image": (g,), "category": (g,), "xy": (g, k, 2), "labelled": (g, k), "area": (g,), "box_xywh": (g, 4),
             "crowd": (g,), "ignored": (g,)},
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class OksDetections:
    """The detections of many images, flat.

    Args:
        image: ``(D,)`` int64, as in ``OksTruth``.
        category: ``(D,)`` int64.
        xy: ``(D, K, 2)`` float64 pixels, NaN = missing.
        score: ``(D,)`` float64.
        area: ``(D,)`` square pixels: an unmatched detection outside a range of areas does not count there.

    Raises:
        ValueError: The shapes do not fit, or a score is not finite.
    """

    image: np.ndarray
    category: np.ndarray
    xy: np.ndarray
    score: np.ndarray
    area: np.ndarray

    def __post_init__(self) -> None:
        d, k = self.xy.shape[:2]
        _check_shapes(self, {"image": (d,), "category": (d,), "xy": (d, k, 2), "score": (d,), "area": (d,)})
        bad = ~np.isfinite(self.score)
        if bad.any():
            raise ValueError(
                f"Scores of detections must be finite, got {self.score[bad][0]} in detection {int(np.flatnonzero(bad)[0])} "
                f"({int(bad.sum())} in all)."
            )


@dataclass(frozen=True, slots=True, eq=False)
class OksResult:
    """Precision and recall at every threshold, category and range of areas; -1 where there is nobody to find.

    Args:
        precision: ``(T, 101, C, A)`` at recall 0, 0.01, ... 1.
        recall: ``(T, C, A)`` the highest reached.
        thresholds: ``(T,)`` of OKS.
        areas: A names of ranges.
    """

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray
    areas: tuple[str, ...]

    def figures(self, category: int | None = None) -> dict[str, float]:
        """Return COCO's ten figures in COCO's order, in [0, 1], or -1 where there is nobody to find.

        Args:
            category: One of C; None takes the mean over all.
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
                part = part[..., chosen, self.areas.index(area)]
                part = part[part > -1]
                result[name + suffix] = float(part.mean()) if part.size else -1.0
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
    """Match detections with people and return precision and recall, as pycocotools' evaluate and accumulate.

    In each image and category the detections, best score first and at most ``max_detections``, take the free person of
    highest OKS at or above the threshold; people who count go before people who are ignored. Equal scores keep their
    order: by image, then as given.

    Args:
        truth: G people.
        detections: D detections.
        sigmas: ``(K,)``.
        thresholds: T of OKS.
        areas: Ranges by name, square pixels.
        max_detections: Per image and category.
        categories: How many there are; None takes the highest number plus 1.

    Raises:
        ValueError: The number of keypoints or sigmas differs.
    """
    deviation = np.asarray(sigmas, np.float64)
    if not deviation.shape == (truth.xy.shape[1],) == (detections.xy.shape[1],):
        raise ValueError(
            f"Sigmas, labels and detections must have one number of keypoints, got {deviation.size} sigmas, "
            f"{truth.xy.shape[1]} and {detections.xy.shape[1]} keypoints."
        )
    if categories is None:
        categories = 1 + int(max(truth.category.max(initial=0), detections.category.max(initial=0)))
    limit = np.asarray(thresholds, np.float64)

    # A group is an image and a category. Detections: best first within the group, and cut there.
    groups = 1 + int(max(truth.image.max(initial=0), detections.image.max(initial=0)))
    truth_group = truth.category.astype(np.int64) * groups + truth.image
    detection_group = detections.category.astype(np.int64) * groups + detections.image
    by_group = np.argsort(detection_group, kind="stable")
    best_first = by_group[np.argsort(-detections.score[by_group], kind="stable")]
    order = best_first[np.argsort(detection_group[best_first], kind="stable")]
    rank = _position_in_run(detection_group[order])
    order, rank = order[rank < max_detections], rank[rank < max_detections]

    people = np.argsort(truth_group, kind="stable")
    detection, person, similarity = _candidates(truth, detections, order, people, truth_group, detection_group,
                                                deviation, limit.min(initial=1.0))  # fmt: skip

    low, high = (np.array([bounds[end] for bounds in areas.values()]) for end in (0, 1))
    area = truth.area[people]
    ignored = truth.ignored[people] | (area < low[:, None]) | (area > high[:, None])
    matched, uncounted = _match(detection, person, similarity, rank, ignored, truth.crowd[people], limit)
    area = detections.area[order]
    outside = (area < low[:, None]) | (area > high[:, None])
    uncounted |= ~matched & outside[..., None]

    # Accumulate: all detections of a category, best first.
    place = np.full(len(detections.score), -1)
    place[order] = np.arange(len(order))
    globally = place[best_first]
    globally = globally[globally >= 0]
    category = detections.category[order][globally]
    precision = np.full((len(limit), len(_RECALLS), categories, len(areas)), -1.0)
    recall = np.full((len(limit), categories, len(areas)), -1.0)
    for c in range(categories):
        rows = globally if categories == 1 else globally[category == c]
        for a in range(len(areas)):
            found = int((~ignored[a] & (truth.category[people] == c)).sum())
            if found:
                counted = ~uncounted[a, rows]
                right = matched[a, rows] & counted
                for t in range(len(limit)):
                    precision[t, :, c, a], recall[t, c, a] = _precision_at_recall(right[:, t], counted[:, t], found)
    return OksResult(precision, recall, limit, tuple(areas))


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
        results: A list with "image_id", "category_id", "keypoints" and "score", and maybe "bbox".
        sigmas: K.
        max_detections: Per image and category.

    Raises:
        ValueError: A field is missing, a list of keypoints is not 3 K long, or a result is of an image that the dataset
            does not have.

    Example:
        Two people; one is found exactly, the other not at all.

        >>> person = {"category_id": 1, "area": 5000.0, "bbox": [0, 0, 50, 100], "iscrowd": 0, "num_keypoints": 2}
        >>> here, there = [10, 10, 2, 10, 90, 2], [40, 10, 2, 40, 90, 2]
        >>> dataset = {"images": [{"id": 7}], "categories": [{"id": 1}], "annotations": [
        ...     person | {"id": 1, "image_id": 7, "keypoints": here},
        ...     person | {"id": 2, "image_id": 7, "keypoints": there}]}
        >>> found = [{"image_id": 7, "category_id": 1, "keypoints": here, "score": 0.9}]
        >>> figures = oks_ap(dataset, found, (0.05, 0.05)).figures()
        >>> round(figures["AP"], 4), figures["AR"], figures["AP_large"]
        (0.505, 0.5, -1.0)
    """
    truth, detections, category_ids = read_coco(dataset, results, len(sigmas))
    return evaluate_oks(
        truth, detections, sigmas, max_detections=max_detections, categories=max(len(category_ids), 1)
    )


def read_coco(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]], num_keypoints: int
) -> tuple[OksTruth, OksDetections, np.ndarray]:
    """Turn a COCO dataset and results into arrays.

    As pycocotools: the area of a detection is that of its "bbox" if the first result has one, else that of the
    box around its keypoints; results of a category that the dataset does not have are dropped.

    Args:
        dataset: With "images", "annotations" and "categories".
        results: A list of detections.
        num_keypoints: K.

    Returns:
        truth: Images numbered by ascending id.
        detections: Those of the dataset's categories.
        category_ids: ``(C,)``, ascending.

    Raises:
        ValueError: As ``oks_ap``.
    """
    images = np.unique(_column(dataset["images"], "id", "image"))
    categories = np.unique(_column(dataset["categories"], "id", "category"))
    annotations, results = dataset["annotations"], list(results)
    points = _keypoints(annotations, num_keypoints, "annotation")
    labelled = points[..., 2] > 0
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
    count = np.array([a.get("num_keypoints", -1) for a in annotations], np.int64)
    count = np.where(count < 0, labelled.sum(-1), count)
    category, known = _numbered(_column(annotations, "category_id", "annotation"), categories)
    image, there = _numbered(_column(annotations, "image_id", "annotation"), images)
    known &= there
    truth = OksTruth(
        image=image[known],
        category=category[known],
        xy=points[known, :, :2],
        labelled=labelled[known],
        area=_column(annotations, "area", "annotation").astype(np.float64)[known],
        box_xywh=_boxes(annotations, "annotation")[known],
        crowd=crowd[known],
        ignored=(crowd | (count == 0))[known],
    )
    points = _keypoints(results, num_keypoints, "result")
    if results and results[0].get("bbox"):
        box_xywh = _boxes(results, "result")
        area = box_xywh[:, 2] * box_xywh[:, 3]
    else:
        area = np.ptp(points[..., 0], axis=-1) * np.ptp(points[..., 1], axis=-1)
    image_id = _column(results, "image_id", "result")
    image, there = _numbered(image_id, images)
    if not there.all():
        lost = image_id[~there]
        raise ValueError(
            f"{len(lost)} of {len(results)} results are of images that the dataset does not have, such as image_id "
            f"{lost[0]}; evaluate them against the annotations of the same images."
        )
    category, known = _numbered(_column(results, "category_id", "result"), categories)
    score = _column(results, "score", "result").astype(np.float64)
    detections = OksDetections(image[known], category[known], points[known, :, :2], score[known], area[known])
    return truth, detections, categories


@dataclass(frozen=True, eq=False)
class OksAp:
    """COCO's average precision by OKS, over images.

    Rows need not correspond: detections are matched with people. A keypoint that is missing in a prediction is
    infinitely far. Detections of equal score in different images keep the order in which the images came, as those of
    pycocotools keep the order of image ids.

    Args:
        sigmas: K; None takes those of the skeleton.
        box_area_factor: Where labels have no ``extra["area"]``, this times the box's area stands for it; 0.53 is usual.
            None refuses.
        score: Of an instance: ``"box_times_keypoints"`` (box score times the mean of the keypoints' scores, what
            ``Instances.to_coco`` writes) or ``"box"``.
        per_category: Evaluate each ``extra["category_id"]`` by itself, and average.
        max_detections: Per image and category.

    Raises:
        ValueError: The score is neither of the two.

    Example:
        >>> from poseglass.core.skeletons import COCO17
        >>> xy = np.stack([np.arange(17.0) * 5, np.arange(17.0) * 9], -1)[None]
        >>> truth = Instances.from_keypoints(COCO17, xy, extra={"area": np.array([2000.0])})
        >>> metric = OksAp()
        >>> metric.update(Instances.from_keypoints(COCO17, xy + [0, 4]), truth)
        >>> figures = metric.compute()
        >>> round(oks_matrix(Instances.from_keypoints(COCO17, xy + [0, 4]), truth).item(), 3)
        0.738
        >>> round(figures["AP"], 3), figures["AP50"], figures["AP75"], figures["AP_large"]
        (0.5, 1.0, 0.0, -1.0)
    """

    sigmas: tuple[float, ...] | None = None
    box_area_factor: float | None = None
    score: str = "box_times_keypoints"
    per_category: bool = False
    max_detections: int = 20
    _images: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = field(
        default_factory=list, init=False, repr=False
    )
    _skeleton: list[Skeleton] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.score not in ("box_times_keypoints", "box"):
            raise ValueError(f"OksAp score must be 'box_times_keypoints' or 'box', got {self.score!r}.")
        if self.sigmas is not None:
            object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Take in one image.

        Raises:
            ValueError: Skeletons differ; sigmas, areas or (if asked for) categories are missing.
        """
        check_pair(predicted, truth, same_rows=False)
        known_sigmas(truth.skeleton, self.sigmas)
        if not self._skeleton:
            self._skeleton.append(truth.skeleton)
        elif self._skeleton[0].keypoints != truth.skeleton.keypoints:
            raise ValueError(
                f"This metric has seen skeleton {self._skeleton[0].name!r} and now gets {truth.skeleton.name!r}; "
                "use one metric per skeleton, or in_skeleton() first."
            )
        crowd = np.asarray(truth.extra.get("crowd", np.zeros(len(truth))), bool)
        labelled = truth.known
        score = predicted.box_score.astype(np.float64)
        if self.score == "box_times_keypoints":
            score = score * predicted.score.mean(-1, dtype=np.float64)
        xy = _known_xy(predicted)
        area = _box_area(predicted)
        unboxed = ~np.isfinite(area)
        if unboxed.any():
            area = np.where(unboxed, _extent(xy), area)
        self._images.append(
            (
                {
                    "category": self._category(truth, "labels"),
                    "xy": np.where(labelled[..., None], truth.xy, 0.0).astype(np.float64),
                    "labelled": labelled,
                    "area": person_area(truth, self.box_area_factor),
                    "box_xywh": np.nan_to_num(xyxy_to_xywh(truth.box_xyxy.astype(np.float64))),
                    "crowd": crowd,
                    "ignored": crowd | ~labelled.any(-1),
                },
                {"category": self._category(predicted, "predictions"), "xy": xy, "score": score, "area": area},
            )
        )

    def result(self) -> OksResult:
        """Return precision and recall at every threshold, category and range of areas.

        Raises:
            ValueError: There was no image.
        """
        if not self._images:
            raise ValueError("OksAp has seen no image yet; call update(predicted, truth) for each.")
        categories = self._categories()
        flat: list[dict[str, np.ndarray]] = []
        for side in (0, 1):
            parts = [image[side] for image in self._images]
            joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
            joined["image"] = np.repeat(np.arange(len(parts)), [len(p["area"]) for p in parts])
            joined["category"], known = _numbered(joined["category"], categories)
            flat.append({name: array[known] for name, array in joined.items()})
        return evaluate_oks(
            OksTruth(**flat[0]),
            OksDetections(**flat[1]),
            known_sigmas(self._skeleton[0], self.sigmas),
            max_detections=self.max_detections,
            categories=max(len(categories), 1),
        )

    def compute(self) -> dict[str, float]:
        """Return ``AP AP50 AP75 AP_medium AP_large`` and the same five of ``AR``; -1 where there is nobody to find.

        Raises:
            ValueError: There was no image.
        """
        return self.result().figures()

    def table(self) -> dict[str, dict[str, float]]:
        """Return the ten figures per category: row ``"1"`` of category 1, or ``"all"`` where they are not told apart."""
        result = self.result()
        names = [str(c) for c in self._categories()] if self.per_category else ["all"]
        return {name: result.figures(c) for c, name in enumerate(names)}

    def merge(self, other: Self) -> None:
        """Take in what another metric of the same fields has collected, as from another process."""
        if other._skeleton and not self._skeleton:
            self._skeleton.append(other._skeleton[0])
        self._images.extend(other._images)

    def reset(self) -> None:
        """Forget every image."""
        self._images.clear()
        self._skeleton.clear()

    def _category(self, instances: Instances, what: str) -> np.ndarray:
        if not self.per_category:
            return np.zeros(len(instances), np.int64)
        if "category_id" not in instances.extra:
            raise ValueError(
                f"OksAp(per_category=True) needs extra['category_id'], and the {what} have none; give it, or take "
                "per_category=False."
            )
        return np.asarray(instances.extra["category_id"], np.int64)

    def _categories(self) -> np.ndarray:
        return np.unique(np.concatenate([truth["category"] for truth, _ in self._images]))


def _candidates(
    truth: OksTruth,
    detections: OksDetections,
    order: np.ndarray,
    people: np.ndarray,
    truth_group: np.ndarray,
    detection_group: np.ndarray,
    sigmas: np.ndarray,
    lowest: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of one group with an OKS of at least ``lowest``, by detection.

    Args:
        truth: G people.
        detections: D detections.
        order: Indices of the detections that take part, sorted by group.
        people: Indices of the people, sorted by group.
        truth_group: ``(G,)``.
        detection_group: ``(D,)``.
        sigmas: ``(K,)``.
        lowest: No threshold is below.

    Returns:
        detection: ``(P,)`` positions in ``order``, ascending.
        person: ``(P,)`` positions in ``people``.
        similarity: ``(P,)`` OKS.
    """
    groups, of_detection = truth_group[people], detection_group[order]
    first = np.searchsorted(groups, of_detection, "left")
    count = np.searchsorted(groups, of_detection, "right") - first
    detection = np.repeat(np.arange(len(order)), count)
    start = np.cumsum(count) - count
    person = np.arange(len(detection)) + np.repeat(first - start, count)

    here = np.concatenate([detections.xy[order, :, 0], detections.xy[order, :, 1]], -1)
    here = np.where(np.isfinite(here), here, np.inf)
    labelled = truth.labelled[people]
    there = np.concatenate([truth.xy[people, :, 0], truth.xy[people, :, 1]], -1)
    there = np.where(np.concatenate([labelled, labelled], -1), there, 0.0)
    scale = -0.5 / ((2 * sigmas) ** 2 * (truth.area[people] + np.spacing(1))[:, None])
    weight = labelled.astype(np.float64)
    total = labelled.sum(-1)
    box = truth.box_xywh[people]
    k = len(sigmas)

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

    close = np.flatnonzero(similarity >= min(lowest, 1 - 1e-10))
    return detection[close], person[close], similarity[close]


def _match(
    detection: np.ndarray,
    person: np.ndarray,
    similarity: np.ndarray,
    rank: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
    limit: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection at most one person, best detection first, at every threshold and range of areas.

    A pair whose detection and person have no other candidate is decided by its OKS alone. The rest goes in waves: one
    candidate of one detection per image at a time, all images at once.

    Args:
        detection: ``(P,)`` of candidate pairs, ascending.
        person: ``(P,)``.
        similarity: ``(P,)`` OKS.
        rank: ``(D,)`` of the detection in its image, 0 is best.
        ignored: ``(A, G)`` bool, whether the person is ignored in a range of areas.
        crowd: ``(G,)`` bool, may be matched many times.
        limit: ``(T,)`` thresholds.

    Returns:
        matched: ``(A, D, T)`` bool.
        uncounted: ``(A, D, T)`` bool, matched with somebody who is ignored.
    """
    ranges, num_people, num_detections = len(ignored), len(crowd), len(rank)
    shape = (ranges, num_detections, len(limit))
    matched, uncounted = np.zeros(shape, bool), np.zeros(shape, bool)
    hit = similarity[:, None] >= np.minimum(limit, 1 - 1e-10)

    choices = np.bincount(detection, minlength=num_detections)
    rivals = np.bincount(person, minlength=num_people)
    alone = (choices[detection] == 1) & ((rivals[person] == 1) | crowd[person])
    d, g = detection[alone], person[alone]
    matched[:, d] = hit[alone]
    uncounted[:, d] = hit[alone] & ignored[:, g, None]

    # The ranges of areas side by side, as if each had its own detections and people.
    rest = np.flatnonzero(~alone)
    d = (np.arange(ranges)[:, None] * num_detections + detection[rest]).ravel()
    g = (np.arange(ranges)[:, None] * num_people + person[rest]).ravel()
    pair = np.tile(rest, ranges)
    skip = ignored.ravel()[g]
    # Who counts goes first, then the higher OKS; of equals the later person, as pycocotools has it.
    preferred = np.lexsort((-g, -similarity[pair], skip, d))
    slot = _position_in_run(d[preferred])
    wave = rank[d[preferred] % max(num_detections, 1)] * (int(slot.max(initial=0)) + 1) + slot
    by_wave = np.argsort(wave, kind="stable")
    preferred, wave = preferred[by_wave], wave[by_wave]
    d, g, skip, hit = d[preferred], g[preferred], skip[preferred], hit[pair[preferred]]
    shared = np.tile(crowd, ranges)[g]

    matched, uncounted = matched.reshape(-1, len(limit)), uncounted.reshape(-1, len(limit))
    taken = np.zeros((ranges * num_people, len(limit)), bool)
    edges = np.flatnonzero(np.diff(wave, prepend=-1, append=-1)) if len(wave) else np.zeros(0, np.int64)
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        dd, gg = d[begin:end], g[begin:end]
        now = hit[begin:end] & ~matched[dd] & ~taken[gg]
        matched[dd] |= now
        uncounted[dd] |= now & skip[begin:end, None]
        taken[gg] |= now & ~shared[begin:end, None]
    return matched.reshape(shape), uncounted.reshape(shape)


def _precision_at_recall(right: np.ndarray, counted: np.ndarray, people: int) -> tuple[np.ndarray, float]:
    """Return the precision envelope at 101 recalls, and the recall reached.

    Args:
        right: ``(D,)`` bool, detections best first that found somebody.
        counted: ``(D,)`` bool, detections that count.
        people: How many there were to find.
    """
    hits = np.flatnonzero(right)
    found = np.arange(1, len(hits) + 1, dtype=np.float64)
    wrong = np.cumsum(counted)[hits] - found
    precision = found / (wrong + found + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    at = np.searchsorted(found / people, _RECALLS, side="left")
    return envelope[at], len(hits) / people


def _position_in_run(values: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, ... within each run of equal neighbours."""
    index = np.arange(len(values))
    starts = np.diff(values, prepend=values[:1] - 1) != 0
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def _known_xy(instances: Instances) -> np.ndarray:
    return np.where(instances.known[..., None], instances.xy, np.nan).astype(np.float64)


def _box_area(instances: Instances) -> np.ndarray:
    size_wh = (instances.box_xyxy[:, 2:] - instances.box_xyxy[:, :2]).astype(np.float64)
    return size_wh[:, 0] * size_wh[:, 1]


def _extent(xy: np.ndarray) -> np.ndarray:
    """Return the area of the box around known points, ``(N,)``, 0 where none is known."""
    known = np.isfinite(xy)
    size = np.where(known, xy, -np.inf).max(-2) - np.where(known, xy, np.inf).min(-2)
    return np.where(np.isfinite(size), size, 0.0).prod(-1)


def _check_shapes(value: object, expected: dict[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        got = np.shape(getattr(value, name))
        if got != shape:
            raise ValueError(f"{type(value).__name__}.{name} must have shape {shape}, got {got}.")


def _numbered(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of each value among the ascending known ones, and whether it is there."""
    if not len(known) or not len(values):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return at, known[at] == values


def _column(records: Sequence[Mapping[str, Any]], key: str, what: str) -> np.ndarray:
    """Return one field of all records as an array."""
    return np.array(_field(records, key, what, list))


def _field(
    records: Sequence[Mapping[str, Any]], key: str, what: str, collect: Callable[[Any], Any]
) -> Any:
    try:
        return collect(map(itemgetter(key), records))
    except KeyError:
        at = next(i for i, record in enumerate(records) if key not in record)
        raise ValueError(
            f"{what.capitalize()} {at} of {len(records)} has no {key!r}; OKS-AP needs it in each {what}. "
            f"It has: {', '.join(sorted(map(str, records[at])))}."
        ) from None


def _keypoints(records: Sequence[Mapping[str, Any]], num_keypoints: int, what: str) -> np.ndarray:
    """Return ``(N, K, 3)`` float64 of "keypoints"."""
    lists = _field(records, "keypoints", what, list)
    lengths = np.fromiter(map(len, lists), np.int64, count=len(lists))
    wrong = np.flatnonzero(lengths != 3 * num_keypoints)
    if len(wrong):
        raise ValueError(
            f"Keypoints of {what} {wrong[0]} must be {3 * num_keypoints} numbers (x, y, v of {num_keypoints} keypoints, "
            f"one per sigma), got {lengths[wrong[0]]}."
        )
    flat = np.fromiter(chain.from_iterable(lists), np.float64, count=len(lists) * 3 * num_keypoints)
    return flat.reshape(-1, num_keypoints, 3)


def _boxes(records: Sequence[Mapping[str, Any]], what: str) -> np.ndarray:
    return np.array(_field(records, "bbox", what, list), np.float64).reshape(-1, 4)
