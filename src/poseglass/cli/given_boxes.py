"""Assigns the boxes of a file to images, and an id to each image."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from poseglass.core.table import listed
from poseglass.readers.coco_results import ImageBoxes, read_boxes


@dataclass(frozen=True, slots=True, eq=False)
class GivenImage:
    """An image before it is read.

    Args:
        path: Path of the file.
        image_id: Id for the results: from the file of boxes, else from the image's name, else a running number.
        boxes: ``(N, 4)`` x0 y0 x1 y1, or None: one person fills the image.
        category_id: Category of its boxes.
        projection: Calibration of its camera, ``(3, 4)``, camera frame in millimetres to pixels; None if not known.
    """

    path: Path
    image_id: int | str
    boxes: np.ndarray | None
    category_id: int = 1
    projection: np.ndarray | None = None


def images_without_boxes(paths: Sequence[Path], boxes: np.ndarray | None) -> tuple[list[GivenImage], list[str]]:
    """Return the images with the same boxes, or None, and ids from their names; and notes on what was guessed."""
    ids, notes = image_ids(paths, [None] * len(paths))
    return [GivenImage(path, i, boxes) for path, i in zip(paths, ids, strict=True)], notes


def boxes_of_images(detections: Path, paths: Sequence[Path], min_score: float) -> tuple[list[GivenImage], list[str]]:
    """Read the boxes of people in images, from a detector's results or from labels, with the images' ids.

    A record belongs to the image with its ``file_name``: by the last part of the path, and also by the folders before
    it if several images share that. Without a ``file_name``, it belongs to the image named by its ``image_id``, as in
    COCO: 785 is 000000000785.jpg. This is a guess, and is reported.

    Args:
        detections: COCO results, or an object with ``images`` and ``annotations``.
        paths: Paths of the images.
        min_score: Boxes with a lower score are excluded.

    Returns:
        One entry per image, and notes on what was guessed or excluded, one sentence each.

    Raises:
        ValueError: The file has another format, has no boxes for these images, matches two of them equally, or gives
            one image two ids or two images the same id.
    """
    found = read_boxes(detections)
    rows: dict[str, list[int]] = {}
    unnamed: dict[str, list[int]] = {}
    for row, name in enumerate(found.file_name):
        if name:
            rows.setdefault(_posix(name), []).append(row)
        else:
            unnamed.setdefault(_key(found.image_id[row]), []).append(row)
    ids = _ids_by_name(found)
    names_by_last: dict[str, list[str]] = {}
    for name in ids:
        names_by_last.setdefault(PurePosixPath(name).name, []).append(name)

    notes = list(found.notes)
    owners: dict[str, Path] = {}
    guessed: list[str] = []
    given: list[tuple[Path, int | str | None, list[int]]] = []
    for path in paths:
        name = _name_of(path, names_by_last.get(path.name, []), detections)
        mine = list(rows.get(name, [])) if name is not None else []
        image_id = ids[name] if name is not None else None
        key = name
        if name is None:
            key = next((k for k in (path.stem, str(number_of(path))) if k in unnamed), None)
            if key is not None:
                mine = unnamed[key]
                image_id = found.image_id[mine[0]]
                guessed.append(f"{path.name} is {image_id}")
        if key is not None and owners.setdefault(key, path) != path:
            raise ValueError(
                f"{detections}: the boxes of {key} match both {owners[key]} and {path}. Process images with the same "
                "name separately, or rename one of them."
            )
        given.append((path, image_id, mine))
    taken = {row for _, _, mine in given for row in mine}
    if not taken and not any(image_id is not None for _, image_id, _ in given):
        raise ValueError(
            f"{detections}: none of the {len(found):,} boxes belongs to the given images. A record needs 'image_id', "
            "'category_id', 'bbox' (x, y, width, height) and 'score', and tells its image by 'file_name', or by an "
            "'image_id' that is the image's name, such as 785 for 000000000785.jpg."
        )
    if guessed:
        notes.append(
            f"{detections} has no file names for {len(guessed)} of the images: the number in the image's name was "
            f"used as its image_id ({listed(guessed)})."
        )
    if len(taken) < len(found):
        others = len(found) - len(taken)
        notes.append(f"{detections}: {others:,} of {len(found):,} boxes belong to other images and are ignored.")
    low = sum(bool(found.score[row] < min_score) for row in taken)
    if low:
        notes.append(
            f"{detections}: {low:,} of {len(taken):,} boxes of the given images have a score below {min_score:g} and "
            "are excluded."
        )
    all_ids, more = image_ids(
        paths, [image_id for _, image_id, _ in given], taken=[*ids.values(), *found.image_id], quiet=True
    )
    images = []
    for (path, _, mine), image_id in zip(given, all_ids, strict=True):
        chosen = np.array([row for row in mine if found.score[row] >= min_score], np.int64)
        category = int(found.category_id[mine[0]]) if mine else 1
        images.append(GivenImage(path, image_id, found.box_xyxy[chosen].astype(np.float32), category))
    return images, notes + more


def _ids_by_name(found: ImageBoxes) -> dict[str, int | str]:
    """Return the id of each image that the file names.

    Raises:
        ValueError: One image has two ids, or two images have the same id.
    """
    ids: dict[str, int | str] = {}
    names: dict[int | str, str] = {}
    for name, image_id in itertools.chain(found.images, zip(found.file_name, found.image_id, strict=True)):
        if not name:
            continue
        name = _posix(name)
        if ids.setdefault(name, image_id) != image_id:
            raise ValueError(
                f"{found.path} gives {name!r} two image ids, {ids[name]!r} and {image_id!r}; correct one of them."
            )
        if names.setdefault(image_id, name) != name:
            raise ValueError(
                f"{found.path} gives the image_id {image_id!r} to both {names[image_id]!r} and {name!r}; each image "
                "needs a unique id."
            )
    return ids


def _name_of(path: Path, names: list[str], detections: Path) -> str | None:
    """Return the name that matches this image, of those with the same last part."""
    if len(names) < 2:
        return names[0] if names else None
    parts = path.resolve().parts
    fits = [name for name in names if parts[-len(PurePosixPath(name).parts) :] == PurePosixPath(name).parts]
    longest = max((len(PurePosixPath(name).parts) for name in fits), default=0)
    best = [name for name in fits if len(PurePosixPath(name).parts) == longest]
    if len(best) != 1:
        raise ValueError(
            f"{detections} has boxes for {listed(names)}, and {path} may be any of them. Give a path of the image that "
            "ends like one of them."
        )
    return best[0]


def image_ids(
    paths: Sequence[Path],
    known: Sequence[int | str | None],
    *,
    taken: Sequence[int | str] = (),
    quiet: bool = False,
) -> tuple[list[int | str], list[str]]:
    """Return an id for each image, and notes on what was guessed, one sentence each.

    The id is the known one; else the number in the image's name, as in COCO; else the first unused one of 0, 1, 2, ...
    All ids are unique, except known ones.

    Args:
        paths: Paths of the images.
        known: The known id of each image, or None.
        taken: Ids of other images.
        quiet: Report only conflicts between ids, not ids that are numbers in names.
    """
    used = {_key(value) for value in (*known, *taken) if value is not None}
    named = [number_of(path) for path in paths]
    numbers = set(named)
    free = (number for number in itertools.count() if number not in numbers and _key(number) not in used)
    ids: list[int | str] = []
    guessed: list[str] = []
    clashes: list[str] = []
    for path, number, value in zip(paths, named, known, strict=True):
        if value is not None:
            ids.append(value)
        elif number >= 0 and _key(number) not in used:
            used.add(_key(number))
            ids.append(number)
            guessed.append(f"{path.name} is {number}")
        else:
            ids.append(next(free))
            if number >= 0:
                clashes.append(f"{path} is {ids[-1]}, because another image has {number}")
    notes = []
    if guessed and not quiet:
        notes.append(f"image_id in poses.json is the number in the image's name: {listed(guessed)}.")
    if clashes:
        notes.append(f"Two images would have the same image_id: {listed(clashes)}.")
    return ids, notes


def number_of(path: Path) -> int:
    """Return the number that is an image's name: 785 for 000000000785.jpg; -1 if it is not a number."""
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 19 else -1


def _key(image_id: int | str) -> str:
    return str(image_id)


def _posix(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()
