"""COCO keypoint JSON with any skeleton.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312; the format:
https://cocodataset.org/#format-data. Annotations of COCO itself are CC BY 4.0, its pictures have licences of their own.

On disk::

    annotations.json     {"images": [...], "annotations": [...], "categories": [...]}, may be gzipped
    images/              or the pictures beside the JSON, or wherever images= says

Coordinates are taken as they are: COCO's keypoints are 0-based pixel indices, which is the frame used here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poseglass.core.boxes import area as box_area
from poseglass.core.boxes import around, xywh_to_xyxy
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton, mirrored_name
from poseglass.core.skeletons import COCO17
from poseglass.core.table import nearest
from poseglass.datasets.json_file import read_json
from poseglass.datasets.labelled import LabelledImages, PackedLabels

Handling = Literal["keep", "drop"]


def coco(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    category: str | int | Sequence[str | int] | None = None,
    skeleton: Skeleton | dict[str, Any] | None = None,
    flip_pairs: Iterable[tuple[str, str]] | None = None,
    sigmas: Sequence[float] | Mapping[str, float] | None = None,
    crowd: Handling = "keep",
    unlabelled: Handling = "keep",
    bad: Literal["raise", "drop"] = "raise",
    name: str | None = None,
) -> LabelledImages:
    """Read COCO keypoint JSON, with whatever keypoints its categories have.

    Visibility: ``v = 0`` is unlabelled (NaN, score 0, coordinates ignored), ``v = 1`` labelled but hidden
    (``extra["occluded"]``), ``v = 2`` labelled and visible. A file without any 2 uses 1 for "labelled"; then nothing
    counts as hidden, and a note says so.

    ``extra`` holds "area", "crowd", "occluded", "annotation_id" and "category_id". Images without annotations stay:
    a detector must find nobody there.

    Args:
        annotations: The JSON file, plain or gzipped.
        images: Folder that ``file_name`` starts from; None takes the folder "images" beside the JSON if there is
            one, else the JSON's own.
        category: Name or id of the categories to read, one or several; None reads every one that has keypoints.
            Categories with different keypoints get one skeleton, matched by name.
        skeleton: Names the keypoints in the file's order, for a file that does not name them or names them badly.
        flip_pairs: Pairs of names that change places in a mirror. None takes the file's "flip_pairs", else left and
            right in the names.
        sigmas: OKS constants, in order or by name. None takes the file's "sigmas", else COCO's own for the names it
            has and an estimate (see ``estimate_sigmas``) for the others, with a note.
        crowd: What becomes of boxes around crowds: "keep" marks them in ``extra["crowd"]``.
        unlabelled: What becomes of people without any labelled keypoint. OKS-AP needs them as regions to ignore.
        bad: "raise" refuses a file with a faulty record; "drop" leaves the record out and notes why.
        name: Of the dataset; None takes the file's.

    Raises:
        FileNotFoundError: No such JSON file.
        ValueError: Not JSON, not COCO, or a faulty record; the message names file, record and field.
    """
    path = Path(annotations)
    _check_choice("crowd", crowd, ("keep", "drop"))
    _check_choice("unlabelled", unlabelled, ("keep", "drop"))
    _check_choice("bad", bad, ("raise", "drop"))
    data = read_json(path, drop=("segmentation",))
    notes: list[str] = []
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        raise ValueError(f"{path} is not COCO keypoint JSON: {_what_instead(data)}")
    faults = _Faults(path, bad == "drop", notes)
    chosen = _categories(path, data, category, skeleton, notes)
    table = _image_table(path, data["images"], faults)
    folder = Path(images) if images is not None else _default_folder(path)
    people, image_of = _people(path, data["annotations"], chosen, table, faults, notes)

    keep = np.ones(len(people), dtype=bool)
    if crowd == "drop":
        keep &= ~people.extra["crowd"]
    if unlabelled == "drop":
        keep &= people.known.any(1)
    if not keep.all():
        people, image_of = people[keep], image_of[keep]
    final = _finish(path, chosen, people, flip_pairs, sigmas, notes)
    labels = PackedLabels.by_image(replace(people, skeleton=final), image_of, len(table.ids))
    return LabelledImages(
        name=name or path.name.removesuffix(".gz").removesuffix(".json"),
        skeleton=final,
        paths=tuple(folder / f for f in table.file_names),
        labels=labels,
        image_ids=tuple(table.ids),
        sizes_wh=table.sizes_wh,
        notes=tuple(notes),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The tables of the file.


@dataclass(frozen=True, slots=True)
class _Categories:
    """The chosen categories: names of each, the union skeleton, and where each category's keypoints go in it."""

    skeleton: Skeleton
    places: dict[int, np.ndarray]
    flip_pairs: tuple[tuple[str, str], ...] | None
    sigmas: dict[str, float]
    all_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class _ImageTable:
    ids: list[int]
    row_of: dict[int, int]
    file_names: list[str]
    sizes_wh: np.ndarray


class _Faults:
    """Where a faulty record goes: raised, or counted and noted."""

    def __init__(self, path: Path, drop: bool, notes: list[str]) -> None:
        self.path, self.drop, self.notes = path, drop, notes

    def add(self, record: str, text: str) -> None:
        if not self.drop:
            raise ValueError(f"{self.path}: {record}: {text} Mend the file, or pass bad='drop' to leave it out.")
        self.notes.append(f"Left out {record}: {text}")


def _what_instead(data: Any) -> str:
    expected = "expected an object with 'images', 'annotations' and 'categories'"
    if isinstance(data, list):
        if data and isinstance(data[0], dict) and "image_id" in data[0]:
            return f"{expected}, got a list of results. Results are scored against annotations; pass those here."
        if data and isinstance(data[0], dict) and ("joints" in data[0] or "joint_self" in data[0]):
            return f"{expected}, got a list of MPII records. Use poseglass.datasets.mpii for it."
        return f"{expected}, got a list of {len(data)}."
    if isinstance(data, dict):
        keys = ", ".join(repr(k) for k in list(data)[:6]) or "nothing"
        return f"{expected} (lists), got an object with {keys}."
    return f"{expected}, got {type(data).__name__}."


def _default_folder(path: Path) -> Path:
    beside = path.parent / "images"
    return beside if beside.is_dir() else path.parent


def _check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"{field} must be {' or '.join(repr(k) for k in known)}, got {value!r}.{nearest(value, known)}"
        )


def _whole(value: Any) -> int | None:
    """Return a whole number as int (also 3.0 and "3"), None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**62 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 19:
        return int(value)
    return None


def _number(value: Any) -> float | None:
    """Return a finite number as float, None for anything else (also for strings, null and true)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None


def _categories(
    path: Path,
    data: dict[str, Any],
    category: str | int | Sequence[str | int] | None,
    skeleton: Skeleton | dict[str, Any] | None,
    notes: list[str],
) -> _Categories:
    given = Skeleton.from_dict(skeleton) if isinstance(skeleton, dict) else skeleton
    table = data.get("categories")
    if table is None and given is not None:
        table = [{"id": 1, "name": given.name}]
    if not isinstance(table, list) or not table:
        raise ValueError(
            f"{path} is not COCO keypoint JSON: expected a list 'categories' with the names of the keypoints, "
            f"got {type(table).__name__}. Pass skeleton= if the file has none."
        )
    by_id: dict[int, dict[str, Any]] = {}
    for number, record in enumerate(table):
        where = f"{path}: category number {number}"
        if not isinstance(record, dict) or _whole(record.get("id")) is None:
            raise ValueError(f"{where}: expected an object with a whole number 'id', got {_short(record)}.")
        key = _whole(record["id"])
        assert key is not None
        if key in by_id:
            raise ValueError(f"{where}: id {key} is there twice; ids of categories must be unique.")
        by_id[key] = record
    wanted = _choose(path, by_id, category, given)
    skeletons = {key: _category_skeleton(path, key, by_id[key], given, notes) for key in wanted}
    names: list[str] = []
    bones: list[tuple[str, str]] = []
    sigma: dict[str, float] = {}
    pairs: list[tuple[str, str]] | None = None
    for one in skeletons.values():
        names += [n for n in one.keypoints if n not in names]
        bones += [b for b in one.bones if b not in bones and b[::-1] not in bones]
        sigma.update(zip(one.keypoints, one.sigmas, strict=False))
        if one.mirrored is not None:
            pairs = (pairs or []) + [p for p in one.mirrored if p not in (pairs or [])]
    first = next(iter(skeletons.values()))
    same = all(s.keypoints == first.keypoints for s in skeletons.values())
    if not same:
        notes.append(
            f"{len(skeletons)} categories with different keypoints share one skeleton of {len(names)} names; "
            "keypoints a category lacks are unknown."
        )
    known = COCO17 if tuple(names) == COCO17.keypoints else None
    if known is not None and not bones:
        bones = list(known.bones)
    label = first.name if same else "+".join(s.name for s in skeletons.values())
    union = Skeleton("coco17" if known is not None and given is None else label, tuple(names), tuple(bones))
    places = {key: union.indices_of(s.keypoints) for key, s in skeletons.items()}
    return _Categories(union, places, None if pairs is None else tuple(pairs), sigma, frozenset(by_id))


def _choose(
    path: Path,
    by_id: dict[int, dict[str, Any]],
    category: str | int | Sequence[str | int] | None,
    given: Skeleton | None,
) -> list[int]:
    if category is None:
        wanted = [key for key, record in by_id.items() if record.get("keypoints")]
        if not wanted and given is not None and len(by_id) == 1:
            wanted = list(by_id)
        if not wanted:
            raise ValueError(
                f"{path}: none of its {len(by_id)} categories has 'keypoints' (their names); these are annotations "
                "of boxes, or the names are missing: then pass skeleton= and category=."
            )
        return wanted
    names = {str(record.get("name")): key for key, record in by_id.items()}
    wanted = []
    for one in [category] if isinstance(category, str | int) else list(category):
        key = names.get(one) if isinstance(one, str) else (one if one in by_id else None)
        if key is None:
            known = ", ".join(f"{k} {n!r}" for n, k in names.items())
            raise ValueError(f"{path} has no category {one!r}.{nearest(str(one), names)} It has: {known}.")
        if key not in wanted:
            wanted.append(key)
    if not wanted:
        raise ValueError("category must name at least one category; None reads all that have keypoints.")
    return wanted


def _category_skeleton(
    path: Path, key: int, record: dict[str, Any], given: Skeleton | None, notes: list[str]
) -> Skeleton:
    """Return the category's own skeleton: bones, sigmas and flip pairs as far as the file states them."""
    label = str(record.get("name", key))
    where = f"{path}: category {key} ({label!r})"
    names = record.get("keypoints")
    if names is None and given is not None:
        return given
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise ValueError(f"{where}: 'keypoints' must be a list of names, got {_short(names)}. Or pass skeleton=.")
    if given is not None:
        if len(given) != len(names):
            raise ValueError(
                f"{where} has {len(names)} keypoints, skeleton {given.name!r} has {len(given)}; "
                "it must name the file's keypoints in the file's order."
            )
        moved = [n for i, n in enumerate(names) if n in given.keypoints and given.index(n) != i]
        if moved:
            raise ValueError(
                f"{where}: keypoint {moved[0]!r} is number {names.index(moved[0])} in the file and number "
                f"{given.index(moved[0])} in skeleton {given.name!r}; it must name the file's keypoints in the "
                "file's order. To reorder, read first and use Instances.in_skeleton."
            )
        return given
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise ValueError(f"{where}: 'keypoints' must be unique, repeated: {', '.join(twice)}.")
    bones = _bones(where, names, record.get("skeleton"), notes)
    sigmas = _listed_sigmas(where, names, record.get("sigmas"))
    pairs = record.get("flip_pairs")
    mirrored = None if pairs is None else _named_pairs(where, names, pairs)
    return Skeleton(label, tuple(names), tuple(bones), sigmas, mirrored)


def _bones(where: str, names: list[str], listed: Any, notes: list[str]) -> list[tuple[str, str]]:
    """Read "skeleton": pairs of numbers from 1 (some files: from 0), or of names."""
    if listed is None or listed == []:
        return []
    fault = f"{where}: 'skeleton' must be a list of pairs of keypoint numbers from 1 to {len(names)}"
    if not isinstance(listed, list):
        raise ValueError(f"{fault}, got {_short(listed)}.")
    ends: list[tuple[int, int]] = []
    for pair in listed:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{fault}, got {_short(pair)}.")
        if all(isinstance(p, str) for p in pair):
            for p in pair:
                if p not in names:
                    raise ValueError(f"{where}: bone {pair} names unknown keypoint {p!r}.{nearest(p, names)}")
            ends.append((names.index(pair[0]) + 1, names.index(pair[1]) + 1))
            continue
        a, b = _whole(pair[0]), _whole(pair[1])
        if a is None or b is None:
            raise ValueError(f"{fault}, got {_short(pair)}.")
        ends.append((a, b))
    numbers = [n for pair in ends for n in pair]
    base = 1
    if min(numbers) == 0 and max(numbers) < len(names):
        base = 0
        notes.append(f"Category {where.rsplit('category ', 1)[-1]}: bones are numbered from 0, not from 1 as in COCO.")
    elif min(numbers) < 1 or max(numbers) > len(names):
        outside = [list(p) for p in ends if min(p) < 1 or max(p) > len(names)]
        notes.append(
            f"Category {where.rsplit('category ', 1)[-1]}: {len(outside)} of {len(ends)} bones name no keypoint and "
            f"are left out, the first is {outside[0]} of {len(names)}."
        )
        ends = [p for p in ends if list(p) not in outside]
    found: list[tuple[str, str]] = []
    for a, b in ends:
        bone = (names[a - base], names[b - base])
        if a != b and bone not in found:
            found.append(bone)
    return found


def _listed_sigmas(where: str, names: list[str], listed: Any) -> tuple[float, ...]:
    if listed is None or listed == []:
        return ()
    numbers = [_number(s) for s in listed] if isinstance(listed, list) else [None]
    if len(numbers) != len(names) or any(s is None or s <= 0 for s in numbers):
        raise ValueError(f"{where}: 'sigmas' must be {len(names)} positive numbers, got {_short(listed)}.")
    return tuple(s for s in numbers if s is not None)


def _named_pairs(where: str, names: Sequence[str], pairs: Any) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise ValueError(f"{where}: flip pairs must be pairs of keypoint names, got {_short(pairs)}.")
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"{where}: a flip pair must be two keypoint names, got {_short(pair)}.")
        for end in pair:
            if not isinstance(end, str) or end not in names:
                hint = nearest(end, names) if isinstance(end, str) else " Give names, not numbers."
                raise ValueError(
                    f"{where}: flip pair {list(pair)} names unknown keypoint {end!r}.{hint} Known: {', '.join(names)}."
                )
        found.append((pair[0], pair[1]))
    ends = [n for pair in found for n in pair]
    if len(set(ends)) != len(ends):
        twice = next(n for n in ends if ends.count(n) > 1)
        raise ValueError(f"{where}: keypoint {twice!r} stands twice in the flip pairs; it can change places with one.")
    return tuple(found)


def _image_table(path: Path, records: list[Any], faults: _Faults) -> _ImageTable:
    ids: list[int] = []
    row_of: dict[int, int] = {}
    files: list[str] = []
    sizes: list[tuple[int, int]] = []
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            faults.add(f"image number {number}", f"expected an object with 'id' and 'file_name', got {_short(record)}.")
            continue
        key, file = _whole(record.get("id")), record.get("file_name")
        where = f"image {record.get('id', f'number {number}')!r}"
        if key is None:
            faults.add(f"image number {number}", f"'id' must be a whole number, got {_short(record.get('id'))}.")
            continue
        if key in row_of:
            faults.add(where, "its id is there twice; ids of images must be unique.")
            continue
        if not isinstance(file, str) or not file.strip() or "\0" in file:
            faults.add(where, f"'file_name' must be the name of a picture, got {_short(file)}.")
            continue
        size = []
        for field in ("width", "height"):
            value = record.get(field)
            whole = 0 if value is None else _whole(value)
            if whole is None or whole < 0 or (whole == 0 and value is not None):
                faults.add(where, f"{field!r} must be a whole number of pixels above 0, got {_short(value)}.")
                break
            size.append(min(whole, 2**31))
        if len(size) < 2:
            continue
        row_of[key] = len(ids)
        ids.append(key)
        files.append(file)
        sizes.append((size[0], size[1]))
    return _ImageTable(ids, row_of, files, np.array(sizes, dtype=np.int64).reshape(-1, 2))


# ---------------------------------------------------------------------------------------------------------------------
# The annotations.


def _people(
    path: Path,
    records: list[Any],
    chosen: _Categories,
    table: _ImageTable,
    faults: _Faults,
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
            faults.add(f"annotation number {number}", f"expected an object, got {_short(record)}.")
            continue
        category = _whole(record.get("category_id", one_category))
        if category is None or category not in chosen.all_ids:
            faults.add(
                f"annotation {record.get('id', f'number {number}')!r}",
                f"'category_id' must be one of {sorted(chosen.all_ids)[:20]}, got {_short(record.get('category_id'))}.",
            )
            continue
        if category not in chosen.places:
            continue
        key = number + 1 if no_ids else _whole(record.get("id"))
        if key is None:
            faults.add(f"annotation number {number}", f"'id' must be a whole number, got {_short(record.get('id'))}.")
            continue
        if key in seen:
            faults.add(f"annotation {key}", "its id is there twice; ids of annotations must be unique.")
            continue
        row = table.row_of.get(_whole(record.get("image_id")))  # type: ignore[arg-type]
        if row is None:
            faults.add(
                f"annotation {key}", f"'image_id' {_short(record.get('image_id'))} is not in the table 'images'."
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
    hidden = (xyv[..., 2] == 1) & bool((xyv[..., 2] == 2).any())
    crowd = np.array([_is_true(r.get("iscrowd", r.get("crowd", 0))) for r in kept], dtype=bool)
    people = Instances(
        chosen.skeleton,
        points.astype(np.float32),
        labelled.astype(np.float32),
        boxes.astype(np.float32),
        np.ones(len(kept), np.float32),
        extra={
            "area": areas.astype(np.float32),
            "crowd": crowd,
            "occluded": hidden,
            "annotation_id": np.array(keys, dtype=np.int64),
            "category_id": np.array(categories, dtype=np.int64),
        },
    )
    image_of = np.array(rows, dtype=np.int64)
    return (people, image_of) if good.all() else (people[good], image_of[good])


def _keypoints(
    records: list[dict[str, Any]],
    keys: list[int],
    categories: list[int],
    chosen: _Categories,
    faults: _Faults,
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(N, K, 3)`` float64 x, y, v in the union skeleton, and ``(N,)`` bool: the record is good."""
    xyv = np.zeros((len(records), len(chosen.skeleton), 3))
    good = np.ones(len(records), dtype=bool)
    category_of = np.array(categories, dtype=np.int64)
    for category, places in chosen.places.items():
        width = 3 * len(places)
        mine = np.flatnonzero(category_of == category)
        lists = [records[i].get("keypoints") or [0] * width for i in mine]
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
        flat = block.reshape(len(mine), -1, 3)
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
        return f"'keypoints' must be a flat list of {width} numbers, got {_short(listed)}."
    if len(listed) != width:
        return (
            f"'keypoints' must have {width} numbers (x, y, v of {width // 3} keypoints), got {len(listed)}"
            f"{_guess_length(len(listed), width // 3)}."
        )
    for place, value in enumerate(listed):
        number = _number(value)
        if number is None or abs(number) >= 1e9:
            what = f"{'xyv'[place % 3]} of number {place // 3}"
            return f"'keypoints'[{place}] ({what}) must be a number, got {_short(value)}."
    return None


def _guess_length(length: int, k: int) -> str:
    if length == 2 * k:
        return "; these look like x, y without v"
    if length == k:
        return "; these look like points in lists of their own: flatten them"
    return "; is it another skeleton's?" if length % 3 == 0 else ""


def _boxes(
    records: list[dict[str, Any]], keys: list[int], rows: list[int], table: _ImageTable, faults: _Faults
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
            numbers = [_number(v) for v in one] if isinstance(one, list) else []
            if len(numbers) != 4 or any(v is None or abs(v) >= 1e9 for v in numbers):
                good[i] = False
                faults.add(f"annotation {keys[i]}", f"'bbox' must be 4 numbers x, y, width, height, got {_short(one)}.")
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
    records: list[dict[str, Any]], keys: list[int], boxes: np.ndarray, faults: _Faults, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    areas = np.nan_to_num(box_area(boxes))
    good = np.ones(len(records), dtype=bool)
    missing = 0
    for i, record in enumerate(records):
        value = record.get("area")
        if value is None:
            missing += 1
            continue
        number = _number(value)
        if number is None or number < 0:
            good[i] = False
            faults.add(f"annotation {keys[i]}", f"'area' must be a number of square pixels, got {_short(value)}.")
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---------------------------------------------------------------------------------------------------------------------
# Symmetry and OKS constants.


def _finish(
    path: Path,
    chosen: _Categories,
    people: Instances,
    flip_pairs: Iterable[tuple[str, str]] | None,
    sigmas: Sequence[float] | Mapping[str, float] | None,
    notes: list[str],
) -> Skeleton:
    """Return the skeleton with its flip pairs and sigmas, and note where they come from if it is not plain."""
    skeleton = chosen.skeleton
    names = skeleton.keypoints
    mirrored = chosen.flip_pairs
    if flip_pairs is not None:
        mirrored = _named_pairs(str(path), names, flip_pairs)
    if mirrored is None:
        if (skeleton.flip == np.arange(len(skeleton))).all():
            notes.append(
                "No flip pairs: no two names differ by left and right, so nothing changes places in a mirror. "
                "Pass flip_pairs= if something should."
            )
        alone = [n for n in names if mirrored_name(n) != n and mirrored_name(n) not in names]
        if alone:
            notes.append(f"Left or right without the other side: {', '.join(alone)}; they stay in place in a mirror.")
    skeleton = replace(skeleton, mirrored=mirrored)
    if sigmas is not None:
        if isinstance(sigmas, Mapping):
            lacking = [n for n in names if n not in sigmas]
            if lacking:
                raise ValueError(f"{path}: sigmas must have every keypoint, missing: {', '.join(lacking)}.")
            sigmas = [sigmas[n] for n in names]
        return replace(skeleton, sigmas=tuple(float(s) for s in sigmas))
    known = dict(zip(COCO17.keypoints, COCO17.sigmas, strict=True)) | chosen.sigmas
    if all(n in known for n in names):
        return replace(skeleton, sigmas=tuple(known[n] for n in names))
    return skeleton
