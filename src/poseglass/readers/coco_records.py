"""The images and annotations of a COCO file, checked record by record."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poseglass.core.boxes import area as box_area
from poseglass.core.boxes import around, xywh_to_xyxy, xyxy_to_xywh
from poseglass.core.instances import Instances
from poseglass.core.plausible import box_fractions, boxes_as_corners, fractions, implausible_areas
from poseglass.core.table import counted
from poseglass.readers.coco_categories import Categories
from poseglass.readers.json_file import finite_number, shortened, whole_number

Kind = Literal["bad-record", "wrong-k", "visibility-value", "box-empty", "box-outside-image", "bad-category"]
"""What is wrong with a record, as the audit names it."""


@dataclass(frozen=True, slots=True)
class ImageTable:
    """Ids, names and sizes of M images: lists, ``sizes_wh`` ``(M, 2)``, and the row of each id.

    ``boxes_complete`` has for each image what its record states, or None; ``left_out`` are the ids of the images that
    were not chosen.
    """

    ids: list[int | str]
    row_of: dict[int | str, int]
    file_names: list[str]
    sizes_wh: np.ndarray
    boxes_complete: list[bool | None] = dataclasses.field(default_factory=list)
    left_out: frozenset[int | str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one record.

    Args:
        kind: As the audit names it.
        record: "annotation 12", "image number 3".
        text: What was expected and what was found.
        image: Row in the table of images, or None.
        annotation: Id of the annotation as written, or None.
    """

    kind: Kind
    record: str
    text: str
    image: int | None = None
    annotation: int | str | None = None


class Faults:
    """The invalid records of a file, and the skipped ones that are not used in any case."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[Fault] = []
        self.unused: list[str] = []

    def add(self, kind: Kind, record: str, text: str, *, image: int | None = None, annotation: Any = None) -> None:
        """Note an invalid record."""
        if not isinstance(annotation, int | str | None):
            annotation = repr(annotation)
        self.found.append(Fault(kind, record, text, image, annotation))

    def skip(self, record: str, text: str) -> None:
        """Note a record that is not needed: an annotation without labelled keypoints, or an image without labels."""
        self.unused.append(f"{record}: {text}")

    def refuse(self) -> None:
        """Raise an error for the first invalid record.

        Raises:
            ValueError: There is one.
        """
        if self.found:
            first, more = self.found[0], len(self.found) - 1
            others = f" {counted(more, 'more record')} cannot be read either." if more else ""
            raise ValueError(
                f"{self.path}: {first.record}: {first.text}{others} `poseglass check` lists every such record. Fix the "
                'file, or skip them with the data set\'s option bad = "drop".'
            )

    def notes(self, *, most: int = 20) -> list[str]:
        """Return what was excluded, a sentence each; at most ``most``, and then the number of others."""
        lines = [f"Skipped {fault.record}: {fault.text}" for fault in self.found]
        more = len(lines) - most
        lines = lines[:most] + ([f"Skipped {more:,} more invalid records."] if more > 0 else [])
        return lines + self.notes_of_unused()

    def notes_of_unused(self) -> list[str]:
        """Return a sentence about the skipped records that are not needed, if there are any."""
        if not self.unused:
            return []
        shown = " ".join(self.unused[:3]) + (" ..." if len(self.unused) > 3 else "")
        return [f"Skipped {counted(len(self.unused), 'unusable record')} without a labelled keypoint: {shown}"]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """The N annotations of the chosen categories whose keypoints could be read, as written.

    Args:
        raw: ``(N, K, 3)`` float64, x, y and visibility in the union skeleton, as written; invalid coordinates are 0
            where v is 0.
        box_xywh: ``(N, 4)`` float64, NaN where there is none or it cannot be read.
        has_box: ``(N,)`` bool.
        area_px2: ``(N,)`` float64 as written, NaN where there is none or it cannot be read.
        crowd: ``(N,)`` bool.
        declared: ``(N,)`` int64, "num_keypoints" as written, -1 where it is missing.
        image_of: ``(N,)`` int64, row in the table of images.
        category: ``(N,)`` int64, id of the category.
        ids: N ids as written.
        good: ``(N,)`` bool: all their fields are valid.
        numbered: No annotation has an id; ``ids`` count from 1 in the file's order.
        lengths: "head_px" and "torso_px", ``(N,)`` float32 each, where every annotation has them.
    """

    raw: np.ndarray
    box_xywh: np.ndarray
    has_box: np.ndarray
    area_px2: np.ndarray
    crowd: np.ndarray
    declared: np.ndarray
    image_of: np.ndarray
    category: np.ndarray
    ids: list[int | str]
    good: np.ndarray
    numbered: bool
    lengths: dict[str, np.ndarray]

    @property
    def xy(self) -> np.ndarray:
        """``(N, K, 2)`` float64, NaN where not labelled."""
        return np.where(self.raw[..., 2:] > 0, self.raw[..., :2], np.nan)


def id_of(value: Any) -> int | str | None:
    """Return an id as a whole number (also for 3.0 and "3"), or as the string it is; None for anything else.

    A string is a number only where the number is written like it: "0001" and "1" are two ids.
    """
    whole = whole_number(value)
    if whole is not None and (not isinstance(value, str) or str(whole) == value):
        return whole
    return value if isinstance(value, str) and value.strip() else None


def is_unlabelled(record: dict[str, Any]) -> bool:
    """Return whether an annotation itself states that no keypoint is labelled: it has none, or all have v = 0."""
    listed = record.get("keypoints")
    if listed is None or listed == []:
        return True
    return isinstance(listed, list) and len(listed) % 3 == 0 and all(finite_number(v) == 0 for v in listed[2::3])


def read_image_table(
    path: Path,
    records: list[Any],
    annotations: list[Any],
    faults: Faults,
    *,
    keep: Sequence[bool] | None = None,
    boxes_only: bool = False,
) -> ImageTable:
    """Read and check the table of images; an invalid record of an image without labels is skipped.

    Args:
        path: Path of the file.
        records: The images.
        annotations: The annotations.
        faults: Invalid records are added to it.
        keep: Which records to read; None reads all.
        boxes_only: A box alone is a label.
    """
    wanted: set[int | str | None] | None = None  # images with labels; only needed where a record is invalid
    ids: list[int | str] = []
    row_of: dict[int | str, int] = {}
    files: list[str] = []
    sizes: list[tuple[int, int]] = []

    def report(record: str, text: str, key: int | str | None) -> None:
        nonlocal wanted
        if wanted is None:
            wanted = {
                id_of(a.get("image_id"))
                for a in annotations
                if isinstance(a, dict) and (boxes_only or not is_unlabelled(a))
            }
        if key is not None and key not in wanted:
            faults.skip(record, text)
        else:
            faults.add("bad-record", record, text)

    left_out: set[int | str] = set()
    complete: list[bool | None] = []
    for number, record in enumerate(records):
        if keep is not None and not keep[number]:
            key = id_of(record.get("id"))
            left_out |= set() if key is None else {key}
            continue
        if not isinstance(record, dict):
            text = f"expected an object with 'id' and 'file_name', got {shortened(record)}."
            faults.add("bad-record", f"image number {number}", text)
            continue
        key, file = id_of(record.get("id")), record.get("file_name")
        where = f"image {record.get('id', f'number {number}')!r}"
        if key is None:
            text = f"'id' must be a whole number or a text, got {shortened(record.get('id'))}."
            faults.add("bad-record", f"image number {number}", text)
            continue
        if key in row_of:
            faults.add("bad-record", where, "its id is used twice; image ids must be unique.", image=row_of[key])
            continue
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            report(where, f"'file_name' must be the name of an image, got {shortened(file)}.", key)
            continue
        size = []
        for field in ("width", "height"):
            value = record.get(field)
            whole = 0 if value is None else whole_number(value)
            if whole is None or whole < 0 or (whole == 0 and value is not None):
                report(where, f"{field!r} must be a whole number of pixels above 0, got {shortened(value)}.", key)
                break
            size.append(min(whole, 2**31))
        if len(size) < 2:
            continue
        stated = record.get("boxes_complete")
        if stated is not None and stated not in (0, 1):
            text = f"'boxes_complete' must be true or false (whether everybody has a box), got {shortened(stated)}."
            report(where, text, key)
            continue
        complete.append(None if stated is None else bool(stated))
        row_of[key] = len(ids)
        ids.append(key)
        files.append(file)
        sizes.append((size[0], size[1]))
    sizes_wh = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    return ImageTable(ids, row_of, files, sizes_wh, complete, frozenset(left_out - set(ids)))


def read_records(
    records: list[Any], chosen: Categories, table: ImageTable, faults: Faults, *, corners: bool = False
) -> Records:
    """Read the annotations of the chosen categories; invalid records go to ``faults``.

    An annotation without a labelled keypoint that cannot be used for another reason (no image, a box without area) is
    skipped: there is nothing to learn from it. Where the skeleton has no keypoints the boxes are the labels, and each
    must be valid.
    """
    boxes_only = len(chosen.skeleton) == 0

    def report(number: int, text: str, image: int | None = None) -> None:
        record = records[number]
        key = id_of(record.get("id"))
        name = f"annotation number {number}" if key is None else f"annotation {shortened(key)}"
        if not boxes_only and is_unlabelled(record):
            faults.skip(name, text)
        else:
            faults.add("bad-record", name, text, image=image, annotation=record.get("id"))

    kept: list[dict[str, Any]] = []
    ids: list[int | str] = []
    rows: list[int] = []
    categories: list[int] = []
    no_ids = not any(isinstance(r, dict) and "id" in r for r in records)
    seen: set[int | str] = set()
    one_category = next(iter(chosen.places)) if len(chosen.all_ids) == 1 else None
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            faults.add("bad-record", f"annotation number {number}", f"expected an object, got {shortened(record)}.")
            continue
        if table.left_out and id_of(record.get("image_id")) in table.left_out:
            continue
        category = whole_number(record.get("category_id", one_category))
        if category is None or category not in chosen.all_ids:
            known = sorted(chosen.all_ids)[:20]
            report(number, f"'category_id' must be one of {known}, got {shortened(record.get('category_id'))}.")
            continue
        if category not in chosen.places:
            continue
        key = number + 1 if no_ids else id_of(record.get("id"))
        row = table.row_of.get(id_of(record.get("image_id")))  # type: ignore[arg-type]
        if key is None:
            report(number, f"'id' must be a whole number or a text, got {shortened(record.get('id'))}.", row)
        elif key in seen:
            report(number, "its id is used twice; annotation ids must be unique.", row)
        elif row is None:
            report(number, f"'image_id' {shortened(record.get('image_id'))} is not in the table 'images'.")
        else:
            seen.add(key)
            kept.append(record)
            ids.append(key)
            rows.append(row)
            categories.append(category)
    image_of = np.array(rows, dtype=np.int64)
    category_of = np.array(categories, dtype=np.int64)
    raw, readable, good = _keypoints(kept, ids, category_of, image_of, chosen, faults)
    unlabelled = (raw[..., 2] == 0).all(1) & good & (not boxes_only)
    boxes, has_box, fine, unusable = _boxes(kept, ids, image_of, unlabelled, table, faults, corners)
    good &= fine
    if boxes_only:
        good &= has_box
        for i in np.flatnonzero(~has_box):
            text = "'bbox' is missing: where only boxes are read, every annotation needs x, y, width, height."
            faults.add("bad-record", f"annotation {ids[i]}", text, image=rows[i], annotation=ids[i])
    areas, fine = _areas(kept, ids, image_of, unlabelled, faults)
    good &= fine
    lengths: dict[str, np.ndarray] = {}
    for field in ("head_px", "torso_px"):
        numbers = [finite_number(r.get(field)) for r in kept]
        if kept and all(n is not None and 0 < n < 1e9 for n in numbers):
            lengths[field] = np.array(numbers, dtype=np.float32)
    declared = [n if (n := whole_number(r.get("num_keypoints"))) is not None else -1 for r in kept]
    use = readable & ~unusable
    return Records(
        raw[use], boxes[use], has_box[use], areas[use],
        np.array([_is_true(r.get("iscrowd", r.get("crowd", 0))) for r in kept], dtype=bool)[use],
        np.array(declared, dtype=np.int64)[use], image_of[use], category_of[use],
        [one for one, used in zip(ids, use, strict=True) if used], good[use], no_ids,
        {field: numbers[use] for field, numbers in lengths.items()},
    )  # fmt: skip


def people_of(
    records: Records, chosen: Categories, table: ImageTable, notes: list[str], *, box_areas: bool = False,
    judge_areas: bool = True,
) -> tuple[Instances, np.ndarray]:  # fmt: skip
    """Return the valid records as instances and the image row of each, ``(N,)`` int64; assumptions are noted.

    Args:
        records: As ``read_records`` returns them.
        chosen: The categories.
        table: The images.
        notes: A sentence is appended for each assumption.
        box_areas: Use the area of the box instead of "area".
        judge_areas: Note areas that are implausible for their boxes.
    """
    good, v = records.good, records.raw[..., 2]
    points, labelled = records.xy, v > 0
    _note_visibility(records, notes)
    if records.numbered and len(records.ids):
        notes.append("Annotations have no 'id'; they are numbered from 1 in the file's order.")
    if any(isinstance(one, str) for one in records.ids):
        notes.append("Annotation ids are strings; the annotations are numbered from 1 in the file's order instead.")
        numbers = np.arange(1, len(records.ids) + 1)
    else:
        numbers = np.array(records.ids, dtype=np.int64)
    boxes = xywh_to_xyxy(records.box_xywh)
    if not records.has_box.all() and points.shape[1]:
        boxes = np.where(records.has_box[:, None], boxes, around(points))
        count = int((~records.has_box & good & labelled.any(1)).sum())
        if count:
            notes.append(
                f"{counted(count, 'annotation')} without 'bbox': the tight box around the labelled keypoints is used."
            )
    areas = records.area_px2
    missing = ~np.isfinite(areas) & good
    if missing.any() and not box_areas:
        notes.append(f"{counted(int(missing.sum()), 'annotation')} without 'area': the area of the box is used.")
    sizes = table.sizes_wh[records.image_of].astype(np.float64).reshape(-1, 2)
    sizes[sizes == 0] = np.nan
    if judge_areas and not box_areas:
        wrong = implausible_areas(areas, boxes, sizes, good & labelled.any(1) & ~records.crowd)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            notes.append(
                f"'area' of {int(wrong.sum()):,} of {int((good & labelled.any(1)).sum()):,} annotations cannot be "
                f"right (annotation {records.ids[first]}: area {areas[first]:g}, box "
                f"{box_area(boxes[first]):.0f} square pixels). OKS-AP depends on it. The data set's option "
                'area = "box" uses the area of the boxes.'
            )
    areas = np.where(missing | box_areas, np.nan_to_num(box_area(boxes)), areas)
    hidden = (v == 1) & bool((v == 2).any())
    class_of = {category: i for i, category in enumerate(chosen.class_ids)}
    people = Instances(
        chosen.skeleton,
        points.astype(np.float32),
        labelled.astype(np.float32),
        boxes.astype(np.float32),
        np.ones(len(points), np.float32),
        np.array([class_of[int(category)] for category in records.category], dtype=np.int64),
        extra={
            "area": areas.astype(np.float32),
            "crowd": records.crowd,
            "annotation_id": numbers.astype(np.int64),
            "category_id": records.category,
        }
        | records.lengths,
        keypoint_extra={"occluded": hidden},
    )
    return (people, records.image_of) if good.all() else (people[good], records.image_of[good])


def check_together(path: Path, records: Records, table: ImageTable, *, guess_format: bool) -> None:
    """Raise if the labels as a whole are inconsistent: fractions for pixels, or corners for width and height.

    Args:
        path: Path of the file.
        records: As ``read_records`` returns them.
        table: The images.
        guess_format: The format of the boxes was not specified: check for corners.

    Raises:
        ValueError: They are.
    """
    sizes = table.sizes_wh[records.image_of].astype(np.float64).reshape(-1, 2)
    sizes[sizes == 0] = np.nan
    boxes = xywh_to_xyxy(records.box_xywh)
    if records.raw.shape[1] == 0:
        _check_boxes_together(path, records, boxes, sizes, guess_format=guess_format)
        return
    hint = "`poseglass check` shows the effect on each record."
    if fractions(records.xy, boxes, sizes):
        raise ValueError(
            f"{path}: all coordinates of keypoints lie between 0 and {np.nanmax(records.xy):.2f}: fractions of the "
            f"image's size, not pixels. Multiply x by the width and y by the height of each image. {hint}"
        )
    if box_fractions(records.xy, boxes):
        raise ValueError(
            f"{path}: all values of 'bbox' lie between 0 and {np.nanmax(records.box_xywh):.2f}: fractions of the "
            f"image's size, while the keypoints are in pixels. Multiply x and width by the image's width, y and "
            f"height by its height. {hint}"
        )
    likely = boxes_as_corners(records.box_xywh, records.xy, sizes) if guess_format else np.zeros(0, bool)
    if likely.any():
        first = int(np.flatnonzero(likely)[0])
        box = [float(f"{v:g}") for v in records.box_xywh[first]]
        raise ValueError(
            f"{path}: 'bbox' should be x, y, width, height, but {int(likely.sum()):,} of {len(likely):,} look like "
            f"corners x0, y0, x1, y1 (annotation {records.ids[first]}: {box}). If they are, read them with the data "
            f'set\'s option box_format = "xyxy" or fix the file; if not, set box_format = "xywh". {hint}'
        )


def _check_boxes_together(
    path: Path, records: Records, box_xyxy: np.ndarray, sizes_wh: np.ndarray, *, guess_format: bool
) -> None:
    """Raise if boxes without keypoints are fractions, or if nearly all fit their images as corners and many only so.

    Raises:
        ValueError: They are.
    """
    boxes = records.box_xywh[records.good]
    if len(boxes) >= 4 and boxes.max() <= 1.5 and not np.allclose(boxes, np.round(boxes)):
        raise ValueError(
            f"{path}: all values of 'bbox' lie between 0 and {boxes.max():.2f}: fractions of the image's size, not "
            "pixels. Multiply x and width by the width, y and height by the height of each image."
        )
    if not guess_format or len(boxes) < 4:
        return
    limit = 1.02 * sizes_wh[records.good]
    rising = (boxes[:, 2:] > boxes[:, :2]).all(1)
    with np.errstate(invalid="ignore"):
        out = (box_xyxy[records.good][:, 2:] > limit).any(1) & (boxes[:, 2:] <= limit).all(1)
    if rising.mean() > 0.98 and out.mean() > 0.1:
        first = int(np.flatnonzero(out)[0])
        number = np.array(records.ids, dtype=object)[records.good][first]
        raise ValueError(
            f"{path}: 'bbox' should be x, y, width, height, but as such {int(out.sum()):,} of {len(boxes):,} leave "
            f"their image, and as corners x0, y0, x1, y1 they do not (annotation {number}: "
            f"{[float(f'{v:g}') for v in boxes[first]]}). If they are corners, read them with the data set's option "
            'box_format = "xyxy" or fix the file; if not, set box_format = "xywh".'
        )


def _keypoints(
    records: list[dict[str, Any]], ids: list[int | str], category_of: np.ndarray, image_of: np.ndarray,
    chosen: Categories, faults: Faults,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Read the lists of keypoints.

    Returns:
        raw: ``(N, K, 3)`` float64 in the union skeleton.
        readable: ``(N,)`` bool: the list could be read.
        good: ``(N,)`` bool: its visibilities are also COCO's.
    """
    n, k = len(records), len(chosen.skeleton)
    raw = np.zeros((n, k, 3))
    readable, good = np.ones((2, n), dtype=bool)
    if k == 0:  # keypoints that the annotations have all the same are not asked for
        return raw, readable, good
    for category, places in chosen.places.items():
        width = 3 * len(places)
        mine = np.flatnonzero(category_of == category)
        lists = [records[i].get("keypoints") for i in mine]
        lists = [[0] * width if one is None or one == [] else one for one in lists]  # a box alone
        block = np.zeros((len(mine), width))
        for start in range(0, len(lists), 1024):
            part = _as_block(lists[start : start + 1024], width)
            if part is not None:
                block[start : start + 1024] = part
                continue
            for j in range(start, min(start + 1024, len(lists))):  # some list is invalid: check each
                i, listed = mine[j], lists[j]
                cleaned = _without_unlabelled(listed, width)
                text = _wrong_list(cleaned, width)
                if text is None:
                    block[j] = cleaned
                elif is_unlabelled(records[i]):
                    readable[i] = False
                    faults.skip(f"annotation {ids[i]}", text)
                else:
                    readable[i] = good[i] = False
                    kind = "bad-record" if isinstance(listed, list) and len(listed) == width else "wrong-k"
                    faults.add(kind, f"annotation {ids[i]}", text, image=int(image_of[i]), annotation=ids[i])
        flat = block.reshape(len(mine), len(places), 3)
        odd = ~np.isin(flat[..., 2], (0, 1, 2))
        for j in np.flatnonzero(odd.any(1)):
            i, first = mine[j], int(np.flatnonzero(odd[j])[0])
            good[i] = False
            faults.add(
                "visibility-value", f"annotation {ids[i]}",
                f"'keypoints': v of {chosen.skeleton.keypoints[places[first]]!r} must be 0 (unlabelled), 1 (hidden) or "
                f"2 (visible), got {flat[j, first, 2]:g}. Scores of a prediction are not visibilities.",
                image=int(image_of[i]), annotation=ids[i],
            )  # fmt: skip
        raw[np.ix_(mine, places)] = flat
    return raw, readable, good


def _without_unlabelled(listed: Any, width: int) -> Any:
    """Return a list of keypoints with 0 for invalid coordinates (NaN, null, a string) where v = 0."""
    if not isinstance(listed, list) or len(listed) != width:
        return listed
    return [
        0 if place % 3 < 2 and finite_number(listed[place - place % 3 + 2]) == 0 and not _is_place(value) else value
        for place, value in enumerate(listed)
    ]


def _is_place(value: Any) -> bool:
    number = finite_number(value)
    return number is not None and abs(number) < 1e9


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
        return "; these look like one list per point: flatten them"
    return "; they may belong to another skeleton" if length % 3 == 0 else ""


def _boxes(
    records: list[dict[str, Any]], ids: list[int | str], image_of: np.ndarray, unlabelled: np.ndarray,
    table: ImageTable, faults: Faults, corners: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Read the boxes, written as x, y, width, height or as two corners.

    Returns:
        xywh: ``(N, 4)`` float64, NaN where there is none or it cannot be read.
        has: ``(N,)`` bool: there is one.
        good: ``(N,)`` bool: there is none, or it can be used.
        unusable: ``(N,)`` bool: no keypoint is labelled, and the box cannot be used either.
    """
    lists = [r.get("bbox") for r in records]
    has = np.array([b is not None and b != [] for b in lists], dtype=bool)
    good, unusable = np.ones(len(records), dtype=bool), np.zeros(len(records), dtype=bool)
    xywh = np.full((len(records), 4), np.nan)

    def report(i: int, kind: Kind, text: str) -> None:
        name = f"annotation {ids[i]}"
        if unlabelled[i]:
            unusable[i] = True
            faults.skip(name, text)
        else:
            good[i] = False
            faults.add(kind, name, text, image=int(image_of[i]), annotation=ids[i])

    block = _as_block([lists[i] for i in np.flatnonzero(has)], 4)
    if block is not None:
        xywh[has] = block
    else:
        for i in np.flatnonzero(has):
            one = lists[i]
            numbers = [finite_number(v) for v in one] if isinstance(one, list) else []
            if len(numbers) != 4 or any(v is None or abs(v) >= 1e9 for v in numbers):
                report(int(i), "bad-record", f"'bbox' must be 4 numbers x, y, width, height, got {shortened(one)}.")
            else:
                xywh[i] = [v for v in numbers if v is not None]
    written = "x0, y0, x1, y1" if corners else "x, y, width, height"
    if corners:
        xywh = xyxy_to_xywh(xywh)
    readable = np.isfinite(xywh).all(1)
    empty = has & readable & ~((xywh[:, 2] > 0) & (xywh[:, 3] > 0))
    size = table.sizes_wh[image_of].astype(np.float64).reshape(-1, 2)
    size[size == 0] = np.inf
    boxes = xywh_to_xyxy(xywh)
    outside = has & readable & ~empty & (((boxes[:, :2] >= size).any(1)) | ((boxes[:, 2:] <= 0).any(1)))
    for i in np.flatnonzero(empty | outside):
        listed = [float(f"{v:g}") for v in (boxes if corners else xywh)[i]]
        if empty[i]:
            report(int(i), "box-empty", f"'bbox' {listed} ({written}) has no area.")
        else:
            w, h = (int(s) if np.isfinite(s) else "?" for s in size[i])
            text = f"'bbox' {listed} ({written}) lies outside image {table.ids[image_of[i]]} of {w} x {h} pixels."
            report(int(i), "box-outside-image", text)
    return xywh, has, good, unusable


def _areas(
    records: list[dict[str, Any]], ids: list[int | str], image_of: np.ndarray, unlabelled: np.ndarray, faults: Faults
) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas ``(N,)`` as written, NaN where there is none, and whether each is missing or can be read."""
    areas = np.full(len(records), np.nan)
    good = np.ones(len(records), dtype=bool)
    for i, record in enumerate(records):
        value = record.get("area")
        if value is None:
            continue
        number = finite_number(value)
        if number is not None and 0 <= number < 1e18:
            areas[i] = number
        elif not unlabelled[i]:  # without keypoints the area of the box is used
            good[i] = False
            text = f"'area' must be a number of square pixels, got {shortened(value)}."
            faults.add("bad-record", f"annotation {ids[i]}", text, image=int(image_of[i]), annotation=ids[i])
    return areas, good


def _is_true(value: Any) -> bool:
    return value in (1, True, "1")


def _note_visibility(records: Records, notes: list[str]) -> None:
    v = records.raw[..., 2]
    if (v == 1).any() and not (v == 2).any():
        notes.append("No keypoint has v = 2: v = 1 is taken as labelled, and none is hidden.")
    elsewhere = (records.raw[..., :2] != 0).any(-1)
    ghosts = int(((v == 0) & elsewhere).sum())
    if ghosts:
        notes.append(f"{counted(ghosts, 'keypoint')} with coordinates and v = 0: unlabelled, as COCO defines.")
    corner = int(((v > 0) & ~elsewhere).sum())
    if corner:
        notes.append(f"{counted(corner, 'keypoint')} with v > 0 at (0, 0); often this means unlabelled.")
