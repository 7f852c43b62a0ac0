"""The records of a COCO dataset and of COCO results, as ``json.load`` gives them, in arrays.

Source: the format page of the dataset (cocodataset.org) and the behaviour of pycocotools.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from poseglass.metrics.precision_recall import numbered


@dataclass(frozen=True, slots=True, eq=False)
class CocoRows:
    """What annotations or results have in common, one row per record.

    Args:
        records: N records.
        image: ``(N,)`` int64, numbered by ascending id.
        category: ``(N,)`` int64, numbered by ascending id.
        known: ``(N,)`` bool: the dataset has the image and the category.
    """

    records: Sequence[Mapping[str, Any]]
    image: np.ndarray
    category: np.ndarray
    known: np.ndarray


def coco_rows(
    dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> tuple[CocoRows, CocoRows, np.ndarray]:
    """Number the images and categories of annotations and results.

    Args:
        dataset: With "images", "annotations" and "categories".
        results: A list of detections.

    Returns:
        annotations: Those of other images are not known.
        results: Those of a category that the dataset does not have are not known, as in pycocotools.
        category_ids: ``(C,)``, ascending.

    Raises:
        ValueError: A field is missing, or a result belongs to an image that the dataset does not have.
    """
    lost = [key for key in ("images", "annotations", "categories") if key not in dataset]
    if lost:
        raise ValueError(
            f"A COCO dataset has 'images', 'annotations' and 'categories'; {', '.join(map(repr, lost))} missing, got "
            f"{', '.join(map(repr, dataset))}."
        )
    images = np.unique(column(dataset["images"], "id", "image"))
    categories = np.unique(column(dataset["categories"], "id", "category"))
    annotations, results = list(dataset["annotations"]), list(results)
    category, known = numbered(column(annotations, "category_id", "annotation"), categories)
    image, there = numbered(column(annotations, "image_id", "annotation"), images)
    labels = CocoRows(annotations, image, category, known & there)
    image_id = column(results, "image_id", "result")
    image, there = numbered(image_id, images)
    if not there.all():
        lost = image_id[~there]
        raise ValueError(
            f"{len(lost)} of {len(results)} results belong to images that the dataset does not have, such as image_id "
            f"{lost[0]}; evaluate them against the annotations of the same images."
        )
    category, known = numbered(column(results, "category_id", "result"), categories)
    return labels, CocoRows(results, image, category, known), categories


def crowds(annotations: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return which annotations are crowds, ``(N,)`` bool; one without "iscrowd" is none."""
    return np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)


def column(records: Sequence[Mapping[str, Any]], key: str, what: str) -> np.ndarray:
    """Return one field of all records as an array ``(N,)``.

    Args:
        records: N records.
        key: Name of the field.
        what: What a record is, for the error.

    Raises:
        ValueError: A record lacks the field; the first is named.
    """
    return np.array(_field(records, key, what, list))


def numbers(records: Sequence[Mapping[str, Any]], key: str, length: int, what: str) -> np.ndarray:
    """Return a field that is a list of numbers, ``(N, length)`` float64.

    Raises:
        ValueError: A record lacks the field, or it is not ``length`` numbers; the first is named.
    """
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


def _field(records: Sequence[Mapping[str, Any]], key: str, what: str, collect: Callable[[Any], Any]) -> Any:
    try:
        return collect(map(itemgetter(key), records))
    except KeyError:
        at = next(i for i, record in enumerate(records) if key not in record)
        raise ValueError(
            f"{what.capitalize()} {at} of {len(records)} has no {key!r}; AP needs it in each {what}. "
            f"It has: {', '.join(sorted(map(str, records[at])))}."
        ) from None


def _is_row(value: Any, length: int) -> bool:
    try:
        return np.asarray(value, np.float64).shape == (length,)
    except (TypeError, ValueError):
        return False
