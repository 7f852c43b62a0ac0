"""COCO's result files: a list of boxes or poses that somebody found, with scores.

The format: https://cocodataset.org/#format-results. A detector's file has ``image_id``, ``category_id``, ``bbox``
(x, y, width, height) and ``score`` in each record; one of poses has ``keypoints``, and maybe no ``bbox``: then the box
around the keypoints stands for it, without those of score 0, which are absent and lie at 0, 0.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.boxes import around
from poseglass.readers.json_file import finite_number, read_json, shortened, whole_number

MAX_RESULTS = 20_000_000
"""Records in a file; COCO's largest detection files have a few millions."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes that were found in many images.

    Args:
        path: The file they came from.
        image_id: ``(N,)`` int64.
        category_id: ``(N,)`` int64.
        box_xyxy: ``(N, 4)`` float64, pixels, with area.
        score: ``(N,)`` float64.
        file_name: N names of images, "" where a record has none.
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
        """Return these, having made sure that every one is of an image that is there.

        Raises:
            ValueError: Some are of other images, as those of another data set are.
        """
        unknown = ~np.isin(self.image_id, np.fromiter(image_ids, np.int64, len(image_ids)))
        if unknown.any():
            raise ValueError(
                f"{self.path}: {int(unknown.sum()):,} of {len(self):,} detections are of images that {where} does not "
                f"have, such as image_id {self.image_id[unknown][0]}; give detections of the same images."
            )
        return self

    def of_categories(self, category_ids: Collection[int], *, where: str) -> "Detections":
        """Return those of some categories; a detector's file usually has many more.

        Raises:
            ValueError: There is none of them.
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
        ValueError: Not a list of results, empty, or a faulty record; the message names file, record and field.
    """
    path = Path(path)
    data = read_json(path, drop=("segmentation",))
    expected = "expected a list of results with 'image_id', 'category_id', 'bbox' and 'score'"
    if isinstance(data, dict) and "annotations" in data:
        raise ValueError(f"{path} holds annotations, not results: {expected}. Labels go where the data are named.")
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


def _record(path: Path, number: int, record: Any) -> tuple[int, int, list[float], float, str]:
    where = f"{path}: result {number}"
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object with 'image_id', 'bbox' and 'score', got {shortened(record)}.")
    ids = []
    for field in ("image_id", "category_id"):
        value = whole_number(record.get(field))
        if value is None:
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
            f"{where}: 'bbox' (or 'keypoints') is missing; it has {', '.join(map(repr, list(record)[:8]))}."
        )
    numbers = [finite_number(v) for v in points] if isinstance(points, list) else [None]
    if any(v is None for v in numbers) or not numbers or len(numbers) % 3:
        raise ValueError(f"{where}: 'keypoints' must be x, y and score of each keypoint, {_got(record, 'keypoints')}.")
    found = np.array(numbers, np.float64).reshape(-1, 3)
    box = around(found[found[:, 2] != 0, :2]).astype(np.float64) if found[:, 2].any() else np.zeros(4)
    if not (box[2] > box[0] and box[3] > box[1]):
        raise ValueError(f"{where}: its 'keypoints' span no area and there is no 'bbox' to take instead.")
    return box.tolist()


def _got(record: dict[str, Any], field: str) -> str:
    return f"got {shortened(record[field])}" if field in record else "and it is missing"
