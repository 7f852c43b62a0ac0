"""The images and annotations of a COCO file, checked record by record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.boxes import area as box_area
from poseglass.core.boxes import around, xywh_to_xyxy
from poseglass.core.instances import Instances
from poseglass.readers.coco_categories import Categories
from poseglass.readers.json_file import finite_number, shortened, whole_number


@dataclass(frozen=True, slots=True)
class ImageTable:
    """Ids, names and sizes of the images: lists of M, ``sizes_wh`` ``(M, 2)``, and the row of each id."""

    ids: list[int]
    row_of: dict[int, int]
    file_names: list[str]
    sizes_wh: np.ndarray


class Faults:
    """Where a faulty record goes: raised at once, or left out and counted."""

    def __init__(self, path: Path, *, drop: bool) -> None:
        self.path, self.drop = path, drop
        self.excluded: list[str] = []

    def add(self, record: str, text: str) -> None:
        """Report a fault of a record.

        Raises:
            ValueError: Faulty records are not to be left out.
        """
        if not self.drop:
            raise ValueError(f"{self.path}: {record}: {text} Mend the file, or pass bad='drop' to leave it out.")
        self.excluded.append(f"Left out {record}: {text}")

    def notes(self, *, most: int = 50) -> list[str]:
        """Return what was left out, a sentence each, at most so many and then their number."""
        more = len(self.excluded) - most
        return self.excluded[:most] + ([f"Left out {more} more faulty records."] if more > 0 else [])


def read_image_table(path: Path, records: list[Any], faults: Faults) -> ImageTable:
    """Read and check the table of images.

    Raises:
        ValueError: A record is faulty and faulty records are not to be left out.
    """
    ids: list[int] = []
    row_of: dict[int, int] = {}
    files: list[str] = []
    sizes: list[tuple[int, int]] = []
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            faults.add(
                f"image number {number}", f"expected an object with 'id' and 'file_name', got {shortened(record)}."
            )
            continue
        key, file = whole_number(record.get("id")), record.get("file_name")
        where = f"image {record.get('id', f'number {number}')!r}"
        if key is None:
            faults.add(f"image number {number}", f"'id' must be a whole number, got {shortened(record.get('id'))}.")
            continue
        if key in row_of:
            faults.add(where, "its id is there twice; ids of images must be unique.")
            continue
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            faults.add(where, f"'file_name' must be the name of an image, got {shortened(file)}.")
            continue
        size = []
        for field in ("width", "height"):
            value = record.get(field)
            whole = 0 if value is None else whole_number(value)
            if whole is None or whole < 0 or (whole == 0 and value is not None):
                faults.add(where, f"{field!r} must be a whole number of pixels above 0, got {shortened(value)}.")
                break
            size.append(min(whole, 2**31))
        if len(size) < 2:
            continue
        row_of[key] = len(ids)
        ids.append(key)
        files.append(file)
        sizes.append((size[0], size[1]))
    return ImageTable(ids, row_of, files, np.array(sizes, dtype=np.int64).reshape(-1, 2))


def read_people(
    path: Path,
    records: list[Any],
    chosen: Categories,
    table: ImageTable,
    faults: Faults,
    notes: list[str],
) -> tuple[Instances, np.ndarray]:
    """Return all instances of the chosen categories and the row of the image of each, ``(N,)`` int64."""
    kept: list[dict[str, Any]] = []
    keys: list[int] = []
    rows: list[int] = []
    categories: list[int] = []
    no_ids = not any(isinstance(r, dict) and "id" in r for r in records)
    if no_ids and records:
        notes.append("Annotations have no 'id'; they are numbered from 1 in the file's order.")
    seen: set[int] = set()
    one_category = next(iter(chosen.places)) if len(chosen.all_ids) == 1 else None
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            faults.add(f"annotation number {number}", f"expected an object, got {shortened(record)}.")
            continue
        category = whole_number(record.get("category_id", one_category))
        if category is None or category not in chosen.all_ids:
            faults.add(
                f"annotation {shortened(record.get('id'))}" if "id" in record else f"annotation number {number}",
                f"'category_id' must be one of {sorted(chosen.all_ids)[:20]}, "
                f"got {shortened(record.get('category_id'))}.",
            )
            continue
        if category not in chosen.places:
            continue
        key = number + 1 if no_ids else whole_number(record.get("id"))
        if key is None:
            faults.add(
                f"annotation number {number}", f"'id' must be a whole number, got {shortened(record.get('id'))}."
            )
            continue
        if key in seen:
            faults.add(f"annotation {key}", "its id is there twice; ids of annotations must be unique.")
            continue
        row = table.row_of.get(whole_number(record.get("image_id")))  # type: ignore[arg-type]
        if row is None:
            faults.add(
                f"annotation {key}", f"'image_id' {shortened(record.get('image_id'))} is not in the table 'images'."
            )
            continue
        seen.add(key)
        kept.append(record)
        keys.append(key)
        rows.append(row)
        categories.append(category)

    xyv, good = _keypoints(kept, keys, categories, chosen, faults)
    boxes, has_box, fine = _boxes(kept, keys, rows, table, faults)
    good &= fine
    points = xyv[..., :2].copy()
    labelled = xyv[..., 2] > 0
    points[~labelled] = np.nan
    _note_visibility(xyv, notes)
    if not has_box.all():
        boxes[~has_box] = around(points[~has_box])
        count = int((~has_box & good).sum())
        if count:
            notes.append(f"{count} annotations have no 'bbox'; theirs is the tight box around the labelled keypoints.")
    areas, fine = _areas(kept, keys, boxes, faults, notes)
    good &= fine
    lengths: dict[str, np.ndarray] = {}
    for field in ("head_px", "torso_px"):
        numbers = [finite_number(r.get(field)) for r in kept]
        if kept and all(n is not None and 0 < n < 1e9 for n in numbers):
            lengths[field] = np.array(numbers, dtype=np.float32)
    hidden = (xyv[..., 2] == 1) & bool((xyv[..., 2] == 2).any())
    crowd = np.array([_is_true(r.get("iscrowd", r.get("crowd", 0))) for r in kept], dtype=bool)
    class_of = {category: i for i, category in enumerate(sorted(chosen.places))}
    people = Instances(
        chosen.skeleton,
        points.astype(np.float32),
        labelled.astype(np.float32),
        boxes.astype(np.float32),
        np.ones(len(kept), np.float32),
        np.array([class_of[category] for category in categories], dtype=np.int64),
        extra={
            "area": areas.astype(np.float32),
            "crowd": crowd,
            "annotation_id": np.array(keys, dtype=np.int64),
            "category_id": np.array(categories, dtype=np.int64),
        }
        | lengths,
        keypoint_extra={"occluded": hidden},
    )
    image_of = np.array(rows, dtype=np.int64)
    return (people, image_of) if good.all() else (people[good], image_of[good])


def _keypoints(
    records: list[dict[str, Any]],
    keys: list[int],
    categories: list[int],
    chosen: Categories,
    faults: Faults,
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(N, K, 3)`` float64 x, y, v in the union skeleton, and ``(N,)`` bool: the record is good."""
    xyv = np.zeros((len(records), len(chosen.skeleton), 3))
    good = np.ones(len(records), dtype=bool)
    category_of = np.array(categories, dtype=np.int64)
    for category, places in chosen.places.items():
        width = 3 * len(places)
        mine = np.flatnonzero(category_of == category)
        lists = [records[i].get("keypoints") for i in mine]
        lists = [[0] * width if one is None or one == [] else one for one in lists]  # a box alone
        block = _as_block(lists, width)
        if block is None:  # a faulty list somewhere: look at each
            block = np.zeros((len(mine), width))
            for j, (i, listed) in enumerate(zip(mine, lists, strict=True)):
                text = _wrong_list(listed, width)
                if text is None:
                    block[j] = listed
                else:
                    good[i] = False
                    faults.add(f"annotation {keys[i]}", text)
        flat = block.reshape(len(mine), len(places), 3)
        odd = ~np.isin(flat[..., 2], (0, 1, 2))
        for j in np.flatnonzero(odd.any(1)):
            k = int(np.flatnonzero(odd[j])[0])
            good[mine[j]] = False
            faults.add(
                f"annotation {keys[mine[j]]}",
                f"'keypoints': v of {chosen.skeleton.keypoints[places[k]]!r} must be 0 (unlabelled), 1 (hidden) or "
                f"2 (visible), got {flat[j, k, 2]:g}. Scores of a prediction are no visibility.",
            )
        xyv[np.ix_(mine, places)] = flat
    return xyv, good


def _as_block(lists: list[Any], width: int) -> np.ndarray | None:
    """Return ``(n, width)`` float64 if every list is that long and holds finite numbers, else None."""
    if not all(isinstance(one, list) and len(one) == width for one in lists):
        return None
    if not lists:
        return np.zeros((0, width))
    try:
        block = np.array(lists)
    except (ValueError, OverflowError):
        return None
    if block.shape != (len(lists), width) or block.dtype.kind not in "iuf":
        return None
    block = block.astype(np.float64)
    return block if np.isfinite(block).all() and (np.abs(block) < 1e9).all() else None


def _wrong_list(listed: Any, width: int) -> str | None:
    if not isinstance(listed, list):
        return f"'keypoints' must be a flat list of {width} numbers, got {shortened(listed)}."
    if len(listed) != width:
        return (
            f"'keypoints' must have {width} numbers (x, y, v of {width // 3} keypoints), got {len(listed)}"
            f"{_guess_length(len(listed), width // 3)}."
        )
    for place, value in enumerate(listed):
        number = finite_number(value)
        if number is None or abs(number) >= 1e9:
            what = f"{'xyv'[place % 3]} of number {place // 3}"
            return f"'keypoints'[{place}] ({what}) must be a number, got {shortened(value)}."
    return None


def _guess_length(length: int, k: int) -> str:
    if length == 2 * k:
        return "; these look like x, y without v"
    if length == k:
        return "; these look like points in lists of their own: flatten them"
    return "; is it another skeleton's?" if length % 3 == 0 else ""


def _boxes(
    records: list[dict[str, Any]], keys: list[int], rows: list[int], table: ImageTable, faults: Faults
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(N, 4)`` boxes xyxy, ``(N,)`` whether the record has one, and ``(N,)`` whether it is good."""
    lists = [r.get("bbox") for r in records]
    has = np.array([b is not None and b != [] for b in lists], dtype=bool)
    good = np.ones(len(records), dtype=bool)
    xywh = np.full((len(records), 4), np.nan)
    block = _as_block([lists[i] for i in np.flatnonzero(has)], 4)
    if block is not None:
        xywh[has] = block
    else:
        for i in np.flatnonzero(has):
            one = lists[i]
            numbers = [finite_number(v) for v in one] if isinstance(one, list) else []
            if len(numbers) != 4 or any(v is None or abs(v) >= 1e9 for v in numbers):
                good[i] = False
                faults.add(
                    f"annotation {keys[i]}", f"'bbox' must be 4 numbers x, y, width, height, got {shortened(one)}."
                )
            else:
                xywh[i] = [v for v in numbers if v is not None]
    empty = has & good & ~((xywh[:, 2] > 0) & (xywh[:, 3] > 0))
    boxes = xywh_to_xyxy(xywh)
    size = table.sizes_wh[np.array(rows, dtype=np.int64)].astype(np.float64).reshape(-1, 2)
    size[size == 0] = np.inf
    outside = has & good & ~empty
    outside &= ((boxes[:, :2] >= size).any(1)) | ((boxes[:, 2:] <= 0).any(1))
    for i in np.flatnonzero(empty | outside):
        good[i] = False
        listed = [float(f"{v:g}") for v in xywh[i]]
        if empty[i]:
            faults.add(f"annotation {keys[i]}", f"'bbox' {listed} (x, y, width, height) has no area.")
        else:
            image = table.ids[rows[i]]
            w, h = (int(s) if np.isfinite(s) else "?" for s in size[i])
            faults.add(
                f"annotation {keys[i]}",
                f"'bbox' {listed} (x, y, width, height) lies outside image {image} of {w} x {h} pixels.",
            )
    return boxes, has, good


def _areas(
    records: list[dict[str, Any]], keys: list[int], boxes: np.ndarray, faults: Faults, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    areas = np.nan_to_num(box_area(boxes))
    good = np.ones(len(records), dtype=bool)
    missing = 0
    for i, record in enumerate(records):
        value = record.get("area")
        if value is None:
            missing += 1
            continue
        number = finite_number(value)
        if number is None or not 0 <= number < 1e18:
            good[i] = False
            faults.add(f"annotation {keys[i]}", f"'area' must be a number of square pixels, got {shortened(value)}.")
            continue
        areas[i] = number
    if missing:
        notes.append(f"{missing} annotations have no 'area'; theirs is that of the box.")
    return areas, good


def _is_true(value: Any) -> bool:
    return value in (1, True, "1")


def _note_visibility(xyv: np.ndarray, notes: list[str]) -> None:
    v = xyv[..., 2]
    if (v == 1).any() and not (v == 2).any():
        notes.append("No keypoint has v = 2: v = 1 is taken for labelled, and nothing for hidden.")
    ghosts = int(((v == 0) & (xyv[..., :2] != 0).any(-1)).sum())
    if ghosts:
        notes.append(f"{ghosts} keypoints have coordinates and v = 0; they are unlabelled, as COCO defines it.")
    corner = int(((v > 0) & (xyv[..., :2] == 0).all(-1)).sum())
    if corner:
        notes.append(f"{corner} keypoints have v > 0 and stand at (0, 0); often this means unlabelled.")
