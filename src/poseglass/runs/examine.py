"""Checks of the data by ``train --check``, in addition to those that every run makes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from poseglass.audit.labels import labels_of
from poseglass.audit.pose import check_flip
from poseglass.core.image import spread
from poseglass.core.sample import Dataset
from poseglass.core.table import counted, listed
from poseglass.readers.labelled import LabelledImages
from poseglass.readers.mixed import files_of

MOST_HEADERS = 2000
"""Largest number of images of a set, evenly spread, that are opened to compare their size with the declared one."""

MOST_COMPARED = 20_000
"""Largest number of files that are compared by content, to find an image that is in both sets under two names."""


def examine(train: Dataset, val: Dataset | None, *, flips: bool = True) -> list[str]:
    """Return possible problems in the data of a run, one sentence each.

    These are images in both the training and the validation set, and flip pairs that the labels contradict.

    Args:
        train: The training set.
        val: The validation set, if any.
        flips: Whether anything is flipped in training or evaluation, so that flip pairs matter.

    Raises:
        FileNotFoundError, ValueError: An image is missing, cannot be read, or has another size than declared.
    """
    doubts: list[str] = []
    for part in files_of(train) + ([] if val is None else files_of(val)):
        seen = part.check_images(most=MOST_HEADERS)
        doubts += _outside(part)
        if seen < len(part):
            doubts.append(f"{part.name}: {seen:,} of {len(part):,} images were opened and compared with their labels.")
    if val is not None:
        doubts += _in_both(train, val)
    for part in files_of(train) if flips else []:  # each once, however often it is repeated
        labels = labels_of(part, part.name)
        found = [finding for group in range(len(labels.groups)) for finding in check_flip(labels, group)]
        doubts += [f"{part.name}: {finding.text}" for finding in found[:3]]
        if len(found) > 3:
            more = counted(len(found) - 3, "more flip pair")
            doubts.append(f"{part.name}: {more} like that; `poseglass check` lists them.")
    return doubts


def _outside(part: LabelledImages) -> list[str]:
    """Return that many keypoints lie outside their images, where no size is declared and the files have to tell."""
    outside = total = 0
    example = ""
    for i in spread(range(len(part)), MOST_HEADERS):
        if part.sizes_wh is not None and (part.sizes_wh[i] > 0).all():
            continue
        people = part.instances(i)
        if not people.known.any():
            continue
        width, height = part.size_wh(i)
        points = people.xy[people.known]
        beyond = ((points < -0.02 * max(width, height)) | (points > np.array([width, height]) * 1.02)).any(1)
        outside, total = outside + int(beyond.sum()), total + len(points)
        if beyond.any() and not example:
            place = points[beyond][0].round(1).tolist()
            example = f"{part.paths[i].name} of {width} x {height} pixels has one at {place}"
    if outside <= 0.05 * total:
        return []
    return [
        f"{part.name}: {outside:,} of {total:,} keypoints lie outside their images ({example}). Were the images scaled "
        "after they were labelled?"
    ]


def _in_both(train: Dataset, val: Dataset) -> Iterator[str]:
    """Yield a sentence on images that are in both sets: the same file, or files with the same content."""
    known = {path.resolve() for part in files_of(train) for path in part.paths}
    measured = [path for part in files_of(val) for path in part.paths]
    same = [path for path in measured if path.resolve() in known]
    which = "are the same files"
    if not same and len(known) + len(measured) <= MOST_COMPARED:
        train_sizes, val_sizes = ({path: path.stat().st_size for path in paths if path.is_file()} for paths in
                                  (known, measured))  # fmt: skip
        both = set(train_sizes.values()) & set(val_sizes.values())
        contents = {_digest(path) for path, size in train_sizes.items() if size in both}
        same = [path for path, size in val_sizes.items() if size in both and _digest(path) in contents]
        which = "have the same content under another name"
    if same:
        yield (
            f"{len(same):,} of {len(measured):,} images of data.val {which} as images of data.train, such as "
            f"{listed([path.name for path in same])}: results on them say little about new images."
        )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
