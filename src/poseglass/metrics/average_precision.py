"""COCO's average precision for keypoints, computed from arrays or from COCO's JSON.

The results equal those of pycocotools (``iouType="keypoints"``) with any skeleton and any sigmas. There is no loop over
people: every pair of a detection and a person in the same image is one row of an array, and matching proceeds by the
detections' rank, over all images at once.

Source: the evaluation page of the dataset (cocodataset.org, "Keypoint evaluation"), and the behaviour of pycocotools.
One bug is fixed: pycocotools treats an annotation whose id is 0 as "not matched"; here it is a person like any other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter
from typing import Any

import numpy as np

THRESHOLDS: tuple[float, ...] = tuple(float(x) for x in np.linspace(0.5, 0.95, 10))
"""COCO's ten OKS thresholds, 0.50 to 0.95."""

AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e5**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
"""COCO's ranges of a person's area, square pixels, both ends included."""

_RECALLS = np.linspace(0.0, 1.0, 101)
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
        _check_shapes(
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
        _check_shapes(self, {"image": (d,), "category": (d,), "xy": (d, k, 2), "score": (d,), "area": (d,)})
        bad = ~np.isfinite(self.score)
        if bad.any():
            raise ValueError(
                f"Scores of detections must be finite, got {self.score[bad][0]} in detection "
                f"{int(np.flatnonzero(bad)[0])} ({int(bad.sum())} in all)."
            )


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
    """Match detections with people and return precision and recall, like pycocotools' evaluate and accumulate.

    In each image and category, the ``max_detections`` detections of highest score are processed in order of score. Each
    is matched with the free person of highest OKS at or above the threshold; people who count are preferred over people
    who are ignored. Equal scores keep their order: by image, then as given.

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
    if categories is None:
        categories = 1 + int(max(truth.category.max(initial=0), detections.category.max(initial=0)))
    threshold = np.asarray(thresholds, np.float64)

    # A group is an image and a category. Detections are sorted by score within the group, and only the best count.
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
                                                deviation, threshold.min(initial=1.0))  # fmt: skip

    low, high = (np.array([bounds[end] for bounds in areas.values()]) for end in (0, 1))
    area = truth.area[people]
    ignored = truth.ignored[people] | (area < low[:, None]) | (area > high[:, None])
    matched, uncounted = _match(detection, person, similarity, rank, ignored, truth.crowd[people], threshold)
    area = detections.area[order]
    outside = (area < low[:, None]) | (area > high[:, None])
    uncounted |= ~matched & outside[..., None]

    # Accumulate: all detections of a category, sorted by score.
    place = np.full(len(detections.score), -1)
    place[order] = np.arange(len(order))
    globally = place[best_first]
    globally = globally[globally >= 0]
    category = detections.category[order][globally]
    precision = np.full((len(threshold), len(_RECALLS), categories, len(areas)), -1.0)
    recall = np.full((len(threshold), categories, len(areas)), -1.0)
    for c in range(categories):
        rows = globally if categories == 1 else globally[category == c]
        for a in range(len(areas)):
            found = int((~ignored[a] & (truth.category[people] == c)).sum())
            if found:
                counted = ~uncounted[a, rows]
                right = matched[a, rows] & counted
                for t in range(len(threshold)):
                    precision[t, :, c, a], recall[t, c, a] = _precision_at_recall(right[:, t], counted[:, t], found)
    return OksResult(precision, recall, threshold, tuple(areas))


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
    lost = [key for key in ("images", "annotations", "categories") if key not in dataset]
    if lost:
        raise ValueError(
            f"A COCO dataset has 'images', 'annotations' and 'categories'; {', '.join(map(repr, lost))} missing, got "
            f"{', '.join(map(repr, dataset))}."
        )
    images = np.unique(_column(dataset["images"], "id", "image"))
    categories = np.unique(_column(dataset["categories"], "id", "category"))
    annotations, results = dataset["annotations"], list(results)
    points = _numbers(annotations, "keypoints", 3 * num_keypoints, "annotation").reshape(-1, num_keypoints, 3)
    labelled = points[..., 2] > 0
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
    count = np.array([a.get("num_keypoints", -1) for a in annotations], np.int64)
    count = np.where(count < 0, labelled.sum(-1), count)
    category, known = numbered(_column(annotations, "category_id", "annotation"), categories)
    image, there = numbered(_column(annotations, "image_id", "annotation"), images)
    known &= there
    truth = OksTruth(
        image=image[known],
        category=category[known],
        xy=points[known, :, :2],
        labelled=labelled[known],
        area=_column(annotations, "area", "annotation").astype(np.float64)[known],
        box_xywh=_numbers(annotations, "bbox", 4, "annotation")[known],
        crowd=crowd[known],
        ignored=(crowd | (count == 0))[known],
    )
    points = _numbers(results, "keypoints", 3 * num_keypoints, "result").reshape(-1, num_keypoints, 3)
    if results and results[0].get("bbox"):
        box_xywh = _numbers(results, "bbox", 4, "result")
        area = box_xywh[:, 2] * box_xywh[:, 3]
    else:
        area = np.ptp(points[..., 0], axis=-1) * np.ptp(points[..., 1], axis=-1)
    image_id = _column(results, "image_id", "result")
    image, there = numbered(image_id, images)
    if not there.all():
        lost = image_id[~there]
        raise ValueError(
            f"{len(lost)} of {len(results)} results belong to images that the dataset does not have, such as image_id "
            f"{lost[0]}; evaluate them against the annotations of the same images."
        )
    category, known = numbered(_column(results, "category_id", "result"), categories)
    score = _column(results, "score", "result").astype(np.float64)
    detections = OksDetections(image[known], category[known], points[known, :, :2], score[known], area[known])
    return truth, detections, categories


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
    """Return the pairs within a group that have an OKS of at least ``lowest``, sorted by detection.

    Args:
        truth: G people.
        detections: D detections.
        order: Indices of the detections that are evaluated, sorted by group.
        people: Indices of the people, sorted by group.
        truth_group: ``(G,)``.
        detection_group: ``(D,)``.
        sigmas: ``(K,)``.
        lowest: The lowest threshold.

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
    threshold: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Match each detection with at most one person, best detection first, at every threshold and area range.

    A pair whose detection and person have no other candidate is decided by its OKS alone. The rest is processed in
    waves: one candidate of one detection per image at a time, all images at once.

    Args:
        detection: ``(P,)`` detection of each candidate pair, ascending.
        person: ``(P,)`` person of each pair.
        similarity: ``(P,)`` OKS of each pair.
        rank: ``(D,)`` rank of the detection in its image, 0 is best.
        ignored: ``(A, G)`` bool, whether the person is ignored in an area range.
        crowd: ``(G,)`` bool, may be matched many times.
        threshold: ``(T,)`` minimum OKS for a match.

    Returns:
        matched: ``(A, D, T)`` bool.
        uncounted: ``(A, D, T)`` bool, matched with a person who is ignored.
    """
    ranges, num_people, num_detections = len(ignored), len(crowd), len(rank)
    shape = (ranges, num_detections, len(threshold))
    matched, uncounted = np.zeros(shape, bool), np.zeros(shape, bool)
    hit = similarity[:, None] >= np.minimum(threshold, 1 - 1e-10)

    choices = np.bincount(detection, minlength=num_detections)
    rivals = np.bincount(person, minlength=num_people)
    alone = (choices[detection] == 1) & ((rivals[person] == 1) | crowd[person])
    d, g = detection[alone], person[alone]
    matched[:, d] = hit[alone]
    uncounted[:, d] = hit[alone] & ignored[:, g, None]

    # The area ranges side by side, as if each had its own detections and people.
    rest = np.flatnonzero(~alone)
    d = (np.arange(ranges)[:, None] * num_detections + detection[rest]).ravel()
    g = (np.arange(ranges)[:, None] * num_people + person[rest]).ravel()
    pair = np.tile(rest, ranges)
    skip = ignored.ravel()[g]
    # People who count go first, then higher OKS; of equal ones the later person, as in pycocotools.
    preferred = np.lexsort((-g, -similarity[pair], skip, d))
    slot = _position_in_run(d[preferred])
    wave = rank[d[preferred] % max(num_detections, 1)] * (int(slot.max(initial=0)) + 1) + slot
    by_wave = np.argsort(wave, kind="stable")
    preferred, wave = preferred[by_wave], wave[by_wave]
    d, g, skip, hit = d[preferred], g[preferred], skip[preferred], hit[pair[preferred]]
    shared = np.tile(crowd, ranges)[g]

    matched, uncounted = matched.reshape(-1, len(threshold)), uncounted.reshape(-1, len(threshold))
    taken = np.zeros((ranges * num_people, len(threshold)), bool)
    edges = np.flatnonzero(np.diff(wave, prepend=-1, append=-1)) if len(wave) else np.zeros(0, np.int64)
    for begin, end in pairwise(edges):
        dd, gg = d[begin:end], g[begin:end]
        now = hit[begin:end] & ~matched[dd] & ~taken[gg]
        matched[dd] |= now
        uncounted[dd] |= now & skip[begin:end, None]
        taken[gg] |= now & ~shared[begin:end, None]
    return matched.reshape(shape), uncounted.reshape(shape)


def _precision_at_recall(right: np.ndarray, counted: np.ndarray, people: int) -> tuple[np.ndarray, float]:
    """Return the precision envelope at 101 recalls, and the recall reached.

    Args:
        right: ``(D,)`` bool, whether each detection (best first) matched a person.
        counted: ``(D,)`` bool, whether each detection counts.
        people: Number of people to find.
    """
    hits = np.flatnonzero(right)
    found = np.arange(1, len(hits) + 1, dtype=np.float64)
    wrong = np.cumsum(counted)[hits] - found
    precision = found / (wrong + found + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    at = np.searchsorted(found / people, _RECALLS, side="left")
    return envelope[at], len(hits) / people


def _position_in_run(values: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, ... within each run of equal adjacent values."""
    index = np.arange(len(values))
    starts = np.diff(values, prepend=values[:1] - 1) != 0
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def _check_shapes(value: object, expected: dict[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        got = np.shape(getattr(value, name))
        if got != shape:
            raise ValueError(f"{type(value).__name__}.{name} must have shape {shape}, got {got}.")


def numbered(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of each value among the ascending known ones, and whether it is among them."""
    if not len(known) or not len(values):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return at, known[at] == values


def _column(records: Sequence[Mapping[str, Any]], key: str, what: str) -> np.ndarray:
    """Return one field of all records as an array."""
    return np.array(_field(records, key, what, list))


def _field(records: Sequence[Mapping[str, Any]], key: str, what: str, collect: Callable[[Any], Any]) -> Any:
    try:
        return collect(map(itemgetter(key), records))
    except KeyError:
        at = next(i for i, record in enumerate(records) if key not in record)
        raise ValueError(
            f"{what.capitalize()} {at} of {len(records)} has no {key!r}; OKS-AP needs it in each {what}. "
            f"It has: {', '.join(sorted(map(str, records[at])))}."
        ) from None


def _numbers(records: Sequence[Mapping[str, Any]], key: str, length: int, what: str) -> np.ndarray:
    """Return ``(N, length)`` float64 of a field that is a list of numbers."""
    lists = _field(records, key, what, list)
    try:
        lengths = np.fromiter(map(len, lists), np.int64, count=len(lists))
        if (lengths == length).all():
            flat = np.fromiter(chain.from_iterable(lists), np.float64, count=len(lists) * length)
            return flat.reshape(-1, length)
    except (TypeError, ValueError):
        pass
    at, value = next((i, v) for i, v in enumerate(lists) if not _is_row(v, length))
    got = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
    raise ValueError(
        f"{key!r} of {what} {at} must be {length} numbers, got {got}: {str(value)[:60]}. Keypoints are a flat list of "
        "x, y and v for each keypoint, as many keypoints as there are sigmas; a box is x, y, width and height."
    )


def _is_row(value: Any, length: int) -> bool:
    try:
        return np.asarray(value, np.float64).shape == (length,)
    except (TypeError, ValueError):
        return False
