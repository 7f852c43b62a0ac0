"""Matching of detections with labels and precision over recall, as pycocotools computes them, for any similarity.

There is no loop over objects: every pair of a detection and a label of the same image and category is one row of an
array, and matching proceeds by the detections' rank, over all images at once. Keypoints (``average_precision``) and
boxes (``box_average_precision``) differ only in the similarity of a pair.

Source: the evaluation page of the dataset (cocodataset.org), and the behaviour of pycocotools. One bug is fixed:
pycocotools treats an annotation whose id is 0 as "not matched"; here it is an object like any other.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

THRESHOLDS: tuple[float, ...] = tuple(float(x) for x in np.linspace(0.5, 0.95, 10))
"""COCO's ten thresholds of similarity, 0.50 to 0.95."""

_RECALLS = np.linspace(0.0, 1.0, 101)


class Truth(Protocol):
    """The labels of many images, in flat arrays: what matching needs of them."""

    @property
    def image(self) -> np.ndarray:
        """``(G,)`` int64 index of the image."""
        ...

    @property
    def category(self) -> np.ndarray:
        """``(G,)`` int64, starting at 0."""
        ...

    @property
    def area(self) -> np.ndarray:
        """``(G,)`` square pixels."""
        ...

    @property
    def crowd(self) -> np.ndarray:
        """``(G,)`` bool: any number of detections may match it."""
        ...

    @property
    def ignored(self) -> np.ndarray:
        """``(G,)`` bool: a detection that matches it does not count."""
        ...


class Detections(Protocol):
    """The detections of many images, in flat arrays: what matching needs of them."""

    @property
    def image(self) -> np.ndarray:
        """``(D,)`` int64 index of the image."""
        ...

    @property
    def category(self) -> np.ndarray:
        """``(D,)`` int64, starting at 0."""
        ...

    @property
    def score(self) -> np.ndarray:
        """``(D,)`` float64, finite."""
        ...

    @property
    def area(self) -> np.ndarray:
        """``(D,)`` square pixels."""
        ...


def precision_and_recall(
    truth: Truth,
    detections: Detections,
    similarity: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    thresholds: Sequence[float],
    areas: Mapping[str, tuple[float, float]],
    max_detections: Sequence[int],
    categories: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Match detections with labels, and return precision and recall, like pycocotools' evaluate and accumulate.

    In each image and category, the ``max_detections`` detections of highest score are processed in order of score. Each
    is matched with the free label of highest similarity at or above the threshold; labels that count are preferred over
    labels that are ignored. Equal scores keep their order: by image, then as given.

    Args:
        truth: G labels.
        detections: D detections.
        similarity: Rows of P detections and of P labels, both ``(P,)``, to their similarity ``(P,)``.
        thresholds: T thresholds of similarity.
        areas: A area ranges by name, square pixels, both ends included.
        max_detections: M maximum numbers per image and category, ascending.
        categories: Number of categories, C; None means the highest index plus 1.

    Returns:
        precision: ``(T, 101, C, A)`` at recall 0, 0.01, ... 1, of the last of ``max_detections``; -1 if there is no
            label to find.
        recall: ``(T, C, A, M)`` maximum recall; -1 if there is no label to find.
    """
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
    order, rank = order[rank < max_detections[-1]], rank[rank < max_detections[-1]]

    objects = np.argsort(truth_group, kind="stable")
    detection, label = _pairs_of_groups(detection_group[order], truth_group[objects])
    value = similarity(order[detection], objects[label])
    close = np.flatnonzero(value >= min(threshold.min(initial=1.0), 1 - 1e-10))

    low, high = (np.array([bounds[end] for bounds in areas.values()]) for end in (0, 1))
    area = truth.area[objects]
    ignored = truth.ignored[objects] | (area < low[:, None]) | (area > high[:, None])
    matched, uncounted = _match(
        detection[close], label[close], value[close], rank, ignored, truth.crowd[objects], threshold
    )
    area = detections.area[order]
    outside = (area < low[:, None]) | (area > high[:, None])
    uncounted |= ~matched & outside[..., None]

    # Accumulate: all detections of a category, sorted by score.
    place = np.full(len(detections.score), -1)
    place[order] = np.arange(len(order))
    globally = place[best_first]
    globally = globally[globally >= 0]
    category = detections.category[order][globally]
    by_category = np.argsort(category, kind="stable")
    edges = np.searchsorted(category[by_category], np.arange(categories + 1))
    precision = np.full((len(threshold), len(_RECALLS), categories, len(areas)), -1.0)
    recall = np.full((len(threshold), categories, len(areas), len(max_detections)), -1.0)
    of_category = truth.category[objects]
    counts = [np.bincount(of_category[~part], minlength=categories) for part in ignored]
    for c in range(categories):
        rows = globally[by_category[edges[c] : edges[c + 1]]]
        for a in range(len(areas)):
            found = int(counts[a][c])
            if found:
                counted = ~uncounted[a, rows]
                right = matched[a, rows] & counted
                for t in range(len(threshold)):
                    precision[t, :, c, a] = _precision_at_recall(right[:, t], counted[:, t], found)
                for m, most in enumerate(max_detections):
                    recall[:, c, a, m] = right[rank[rows] < most].sum(0) / found
    return precision, recall


def mean_found(values: np.ndarray) -> float:
    """Return the mean of the values that are not -1 (nothing to find), or -1 if there are none."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def check_shapes(value: object, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless the arrays of a dataclass have the expected shapes.

    Raises:
        ValueError: One has another shape; it is named.
    """
    for name, shape in expected.items():
        got = np.shape(getattr(value, name))
        if got != shape:
            raise ValueError(f"{type(value).__name__}.{name} must have shape {shape}, got {got}.")


def check_scores(score: np.ndarray) -> None:
    """Raise unless all scores of detections are finite.

    Raises:
        ValueError: One is not; the first is named.
    """
    bad = ~np.isfinite(score)
    if bad.any():
        raise ValueError(
            f"Scores of detections must be finite, got {score[bad][0]} in detection "
            f"{int(np.flatnonzero(bad)[0])} ({int(bad.sum())} in all)."
        )


def flat_arrays(images: Sequence[Mapping[str, np.ndarray]], categories: np.ndarray) -> dict[str, np.ndarray]:
    """Join the arrays of several images along their first axis, without rows of other categories.

    Args:
        images: Arrays by name, the same names in every image, among them "category".
        categories: Ascending categories, which are then numbered from 0.

    Returns:
        The joined arrays and "image", the number of each row's image.
    """
    joined = {name: np.concatenate([image[name] for image in images]) for name in images[0]}
    joined["image"] = np.repeat(np.arange(len(images)), [len(image["category"]) for image in images])
    joined["category"], known = numbered(joined["category"], categories)
    return {name: array[known] for name, array in joined.items()}


def numbered(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of each value among the ascending known ones, and whether it is among them."""
    if not len(known) or not len(values):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return at, known[at] == values


def _pairs_of_groups(of_detection: np.ndarray, of_label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs within a group, ``(P,)`` each, sorted by detection.

    Args:
        of_detection: ``(D,)`` group of each detection, ascending.
        of_label: ``(G,)`` group of each label, ascending.
    """
    first = np.searchsorted(of_label, of_detection, "left")
    count = np.searchsorted(of_label, of_detection, "right") - first
    detection = np.repeat(np.arange(len(of_detection)), count)
    start = np.cumsum(count) - count
    return detection, np.arange(len(detection)) + np.repeat(first - start, count)


def _match(
    detection: np.ndarray,
    label: np.ndarray,
    similarity: np.ndarray,
    rank: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
    threshold: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Match each detection with at most one label, best detection first, at every threshold and area range.

    A pair whose detection and label have no other candidate is decided by its similarity alone. The rest is processed
    in waves: one candidate of one detection per image at a time, all images at once.

    Args:
        detection: ``(P,)`` detection of each candidate pair, ascending.
        label: ``(P,)`` label of each pair.
        similarity: ``(P,)`` similarity of each pair.
        rank: ``(D,)`` rank of the detection in its image, 0 is best.
        ignored: ``(A, G)`` bool, whether the label is ignored in an area range.
        crowd: ``(G,)`` bool, may be matched many times.
        threshold: ``(T,)`` minimum similarity for a match.

    Returns:
        matched: ``(A, D, T)`` bool.
        uncounted: ``(A, D, T)`` bool, matched with a label that is ignored.
    """
    ranges, num_labels, num_detections = len(ignored), len(crowd), len(rank)
    shape = (ranges, num_detections, len(threshold))
    matched, uncounted = np.zeros(shape, bool), np.zeros(shape, bool)
    hit = similarity[:, None] >= np.minimum(threshold, 1 - 1e-10)

    choices = np.bincount(detection, minlength=num_detections)
    rivals = np.bincount(label, minlength=num_labels)
    alone = (choices[detection] == 1) & ((rivals[label] == 1) | crowd[label])
    d, g = detection[alone], label[alone]
    matched[:, d] = hit[alone]
    uncounted[:, d] = hit[alone] & ignored[:, g, None]

    # The area ranges side by side, as if each had its own detections and labels.
    rest = np.flatnonzero(~alone)
    d = (np.arange(ranges)[:, None] * num_detections + detection[rest]).ravel()
    g = (np.arange(ranges)[:, None] * num_labels + label[rest]).ravel()
    pair = np.tile(rest, ranges)
    skip = ignored.ravel()[g]
    # Labels that count go first, then higher similarity; of equal ones the later label, as in pycocotools.
    preferred = np.lexsort((-g, -similarity[pair], skip, d))
    slot = _position_in_run(d[preferred])
    wave = rank[d[preferred] % max(num_detections, 1)] * (int(slot.max(initial=0)) + 1) + slot
    by_wave = np.argsort(wave, kind="stable")
    preferred, wave = preferred[by_wave], wave[by_wave]
    d, g, skip, hit = d[preferred], g[preferred], skip[preferred], hit[pair[preferred]]
    shared = np.tile(crowd, ranges)[g]

    matched, uncounted = matched.reshape(-1, len(threshold)), uncounted.reshape(-1, len(threshold))
    taken = np.zeros((ranges * num_labels, len(threshold)), bool)
    edges = np.flatnonzero(np.diff(wave, prepend=-1, append=-1)) if len(wave) else np.zeros(0, np.int64)
    for begin, end in pairwise(edges):
        dd, gg = d[begin:end], g[begin:end]
        now = hit[begin:end] & ~matched[dd] & ~taken[gg]
        matched[dd] |= now
        uncounted[dd] |= now & skip[begin:end, None]
        taken[gg] |= now & ~shared[begin:end, None]
    return matched.reshape(shape), uncounted.reshape(shape)


def _precision_at_recall(right: np.ndarray, counted: np.ndarray, objects: int) -> np.ndarray:
    """Return the precision envelope at 101 recalls, ``(101,)``.

    Args:
        right: ``(D,)`` bool, whether each detection (best first) matched a label.
        counted: ``(D,)`` bool, whether each detection counts.
        objects: Number of labels to find.
    """
    hits = np.flatnonzero(right)
    found = np.arange(1, len(hits) + 1, dtype=np.float64)
    wrong = np.cumsum(counted)[hits] - found
    precision = found / (wrong + found + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    at = np.searchsorted(found / objects, _RECALLS, side="left")
    return envelope[at]


def _position_in_run(values: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, ... within each run of equal adjacent values."""
    index = np.arange(len(values))
    starts = np.diff(values, prepend=values[:1] - 1) != 0
    return index - np.maximum.accumulate(np.where(starts, index, 0))
