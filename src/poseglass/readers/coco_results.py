"""COCO result files: a list of detected boxes or poses with scores.

``read_coco_results`` reads a list of results for a protocol, whose images have numeric ids; ``read_boxes`` reads input
boxes from such a list or from an object with ``images`` and ``annotations``.

The format: https://cocodataset.org/#format-results. A detector's file has ``image_id``, ``category_id``, ``bbox``
(x, y, width, height) and ``score`` in each record; a file of poses has ``keypoints`` and possibly no ``bbox``: then the
box around the keypoints is used, without those of score 0, which are absent and lie at 0, 0.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.boxes import around
from poseglass.readers.coco_records import id_of
from poseglass.readers.json_file import finite_number, read_json, shortened, whole_number

MAX_RESULTS = 20_000_000
"""Records in a file; COCO's largest detection files have a few million."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes detected in many images.

    Args:
        path: The file they came from.
        image_id: ``(N,)`` int64.
        category_id: ``(N,)`` int64.
        box_xyxy: ``(N, 4)`` float64, pixels, with area.
        score: ``(N,)`` float64.
        file_name: N image names, "" where a record has none.
    """

    path: Path
    image_id: np.ndarray
    category_id: np.ndarray
    box_xyxy: np.ndarray
    score: np.ndarray
    file_name: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: np.ndarray) -> "Detections":
        """Select by a mask or by indices."""
        chosen = np.arange(len(self))[rows]
        return Detections(
            self.path, self.image_id[chosen], self.category_id[chosen], self.box_xyxy[chosen], self.score[chosen],
            tuple(self.file_name[i] for i in chosen.tolist()),
        )  # fmt: skip

    def of_images(self, image_ids: Collection[int], *, where: str) -> "Detections":
        """Return these detections after checking that the images of all are known.

        Raises:
            ValueError: Some belong to other images, for example those of another data set.
        """
        unknown = ~np.isin(self.image_id, np.fromiter(image_ids, np.int64, len(image_ids)))
        if unknown.any():
            raise ValueError(
                f"{self.path}: {int(unknown.sum()):,} of {len(self):,} detections are of images that {where} does not "
                f"have, such as image_id {self.image_id[unknown][0]}; pass detections of the same images."
            )
        return self

    def of_categories(self, category_ids: Collection[int], *, where: str) -> "Detections":
        """Return the detections of some categories; a detector's file usually has many more.

        Raises:
            ValueError: There are none.
        """
        mine = np.isin(self.category_id, np.fromiter(category_ids, np.int64, len(category_ids)))
        if not mine.any():
            there = ", ".join(map(str, np.unique(self.category_id)[:10]))
            raise ValueError(
                f"{self.path}: none of {len(self):,} detections is of a category of {where} "
                f"({', '.join(map(str, sorted(category_ids)))}); 'category_id' is {there}. COCO's person is 1."
            )
        return self[mine]


def read_coco_results(path: str | Path) -> Detections:
    """Read a COCO result file of boxes or poses, plain or gzipped.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a list of results, empty, or an invalid record; the message names file, record and field.
    """
    path = Path(path)
    data = read_json(path, drop=("segmentation",))
    expected = "expected a list of results with 'image_id', 'category_id', 'bbox' and 'score'"
    if isinstance(data, dict) and "annotations" in data:
        raise ValueError(f"{path} holds annotations, not results: {expected}. Pass labels as the data set.")
    if not isinstance(data, list):
        raise ValueError(f"{path} is not a COCO result file: {expected}, got {type(data).__name__}.")
    if not data:
        raise ValueError(f"{path} is an empty list: {expected}. Did the detector find anything, above which score?")
    if len(data) > MAX_RESULTS:
        raise ValueError(f"{path} has {len(data):,} results; at most {MAX_RESULTS:,} are read.")
    rows = [_record(path, number, record) for number, record in enumerate(data)]
    return Detections(
        path,
        np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float64),
        np.array([r[3] for r in rows], np.float64),
        tuple(r[4] for r in rows),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ImageBoxes:
    """Boxes of images, with the image ids of the file.

    Args:
        path: The file they came from.
        image_id: N ids as in the file, whole numbers or strings.
        file_name: N image names, "" where the file gives none.
        category_id: ``(N,)`` int64.
        box_xyxy: ``(N, 4)`` float64, pixels, with area.
        score: ``(N,)`` float64; 1 where the file has none, as for labels.
        images: Name and id of every image that the file lists, including those without a box.
        notes: What was excluded, a sentence each.
    """

    path: Path
    image_id: tuple[int | str, ...]
    file_name: tuple[str, ...]
    category_id: np.ndarray
    box_xyxy: np.ndarray
    score: np.ndarray
    images: tuple[tuple[str, int | str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.score)


def _category_name(data: Any, category: int) -> str | None:
    """Return what a file of labels calls a category, None where it does not."""
    listed = data.get("categories") if isinstance(data, dict) else None
    named = [c for c in listed if isinstance(c, dict) and c.get("id") == category] if isinstance(listed, list) else []
    name = named[0].get("name") if named else None
    return name if isinstance(name, str) else None


def read_boxes(path: str | Path) -> ImageBoxes:
    """Read boxes from COCO results, or from an object with ``images`` and ``annotations`` as label files have.

    In labels, boxes of crowds and boxes without area are excluded. Category: 1 in a list of results; in an object the
    only category, or the one named "person", or 1.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is neither of the two, is empty, has an invalid record, or no box of the category.
    """
    path = Path(path)
    data = read_json(path, drop=("segmentation",))
    images: list[tuple[str, int | str]] = []
    notes: list[str] = []
    category = 1
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        images = [_image(f"{path}: image {number}", record) for number, record in enumerate(data["images"])]
        category = _person(data.get("categories"))
        records = data.get("annotations")
        if not isinstance(records, list):
            raise ValueError(f"{path} has 'images' but no list of 'annotations' with their boxes.")
    elif isinstance(data, list):
        records = data
    else:
        raise ValueError(
            f"{path} holds no boxes: expected a list of results with 'image_id' and 'bbox', or an object with 'images' "
            f"and 'annotations', got {_outline(data)}."
        )
    if len(records) > MAX_RESULTS:
        raise ValueError(f"{path} has {len(records):,} records; at most {MAX_RESULTS:,} are read.")
    if not records:
        raise ValueError(f"{path} has no boxes in it. Did the detector find anything, above which score?")
    names = {image_id: name for name, image_id in images}
    found: list[tuple[int | str, str, int, list[float], float]] = []
    crowds = areas = 0
    for number, record in enumerate(records):
        where = f"{path}: {'annotation' if images else 'result'} {number}"
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected an object with 'image_id' and 'bbox', got {shortened(record)}.")
        image_id = _id(where, record, "image_id")
        if images and image_id not in names:
            raise ValueError(f"{where}: 'image_id' {image_id!r} is not in the table 'images'.")
        category_id = whole_number(record.get("category_id", category if images else None))
        if category_id is None:
            raise ValueError(f"{where}: 'category_id' must be a whole number, {_got(record, 'category_id')}.")
        if images and record.get("iscrowd"):
            crowds += 1
            continue
        if images and _no_area(record.get("bbox")):
            areas += 1
            continue
        score = finite_number(record.get("score", 1.0 if images else None))
        if score is None or not 0 <= score <= 1:
            raise ValueError(f"{where}: 'score' must be a number from 0 to 1, {_got(record, 'score')}.")
        name = names.get(image_id) or record.get("file_name", "")
        found.append((image_id, name if isinstance(name, str) else "", category_id, _box(where, record), score))
    for count, what in ((crowds, "of crowds"), (areas, "without an area")):
        if count:
            notes.append(f"{path}: {count:,} box{'es' * (count > 1)} {what} excluded.")
    called = _category_name(data, category)
    if called not in (None, "person"):
        notes.append(f"{path}: its boxes are of category {called!r}.")
    mine = [row for row in found if row[2] == category]
    if not mine:
        there = ", ".join(map(str, sorted({row[2] for row in found})[:10])) or "none left"
        raise ValueError(
            f"{path}: none of {len(found):,} boxes is of the category of people ({category}); 'category_id' is "
            f"{there}. COCO's person is 1."
        )
    if len(mine) < len(found):
        notes.append(f"{path}: {len(found) - len(mine):,} of {len(found):,} boxes are not of category {category}.")
    return ImageBoxes(
        path,
        tuple(row[0] for row in mine),
        tuple(row[1] for row in mine),
        np.array([row[2] for row in mine], np.int64),
        np.array([row[3] for row in mine], np.float64),
        np.array([row[4] for row in mine], np.float64),
        tuple(images),
        tuple(notes),
    )


def _image(where: str, record: Any) -> tuple[str, int | str]:
    name = record.get("file_name") if isinstance(record, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: expected an object with 'id' and 'file_name', got {shortened(record)}.")
    return name, _id(where, record, "id")


def _id(where: str, record: dict[str, Any], field: str) -> int | str:
    """Return an id by the rule for labels, so that boxes match labels with the same id."""
    key = id_of(record.get(field))
    if key is None:
        raise ValueError(f"{where}: {field!r} must be a whole number or a string, {_got(record, field)}.")
    return key


def _person(categories: Any) -> int:
    """Return the id of the category whose boxes are read."""
    table: dict[int, Any] = {}
    for record in categories if isinstance(categories, list) else ():
        if isinstance(record, dict) and (key := whole_number(record.get("id"))) is not None:
            table[key] = record.get("name")
    if len(table) == 1:
        return next(iter(table))
    return next((key for key, name in table.items() if name == "person"), 1)


def _no_area(box: Any) -> bool:
    numbers = [finite_number(v) for v in box] if isinstance(box, list) else []
    return len(numbers) == 4 and all(v is not None and v <= 0 for v in numbers[2:])


def _outline(data: Any) -> str:
    return f"an object with {', '.join(map(repr, list(data)[:6]))}" if isinstance(data, dict) else type(data).__name__


def _record(path: Path, number: int, record: Any) -> tuple[int, int, list[float], float, str]:
    where = f"{path}: result {number}"
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object with 'image_id', 'bbox' and 'score', got {shortened(record)}.")
    ids = []
    for field, number_of in (("image_id", id_of), ("category_id", whole_number)):
        value = number_of(record.get(field))
        if not isinstance(value, int):
            raise ValueError(f"{where}: {field!r} must be a whole number, {_got(record, field)}.")
        ids.append(value)
    score = finite_number(record.get("score"))
    if score is None:
        raise ValueError(f"{where}: 'score' must be a finite number, {_got(record, 'score')}.")
    name = record.get("file_name", "")
    return ids[0], ids[1], _box(where, record), score, name if isinstance(name, str) else ""


def _box(where: str, record: dict[str, Any]) -> list[float]:
    if record.get("bbox"):
        box = record["bbox"]
        numbers = [finite_number(v) for v in box] if isinstance(box, list) else []
        if len(numbers) == 4 and all(v is not None and abs(v) < 1e9 for v in numbers):
            x, y, width, height = (float(v) for v in numbers if v is not None)
            if width > 0 and height > 0:
                return [x, y, x + width, y + height]
        raise ValueError(
            f"{where}: 'bbox' must be x, y, width and height in pixels, both sides above 0, {_got(record, 'bbox')}."
        )
    points = record.get("keypoints")
    if points is None:
        raise ValueError(
            f"{where}: 'bbox' (or 'keypoints') is {'empty' if 'bbox' in record else 'missing'}; the record has "
            f"{', '.join(map(repr, list(record)[:8]))}."
        )
    numbers = [finite_number(v) for v in points] if isinstance(points, list) else [None]
    if any(v is None for v in numbers) or not numbers or len(numbers) % 3:
        raise ValueError(f"{where}: 'keypoints' must be x, y and score of each keypoint, {_got(record, 'keypoints')}.")
    found = np.array(numbers, np.float64).reshape(-1, 3)
    box = around(found[found[:, 2] != 0, :2]).astype(np.float64) if found[:, 2].any() else np.zeros(4)
    if not (box[2] > box[0] and box[3] > box[1]):
        raise ValueError(f"{where}: its 'keypoints' span no area and there is no 'bbox' to use instead.")
    return box.tolist()


def _got(record: dict[str, Any], field: str) -> str:
    return f"got {shortened(record[field])}" if field in record else "and it is missing"
