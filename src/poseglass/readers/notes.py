"""Notes of a data set for its user, given once: assumptions, excluded records, keypoints that are never labelled."""

from collections.abc import Iterator

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.readers.labelled import LabelledImages
from poseglass.readers.mixed import MixedDatasets


def notes_of(dataset: Dataset, *, mirroring: bool = True) -> tuple[str, ...]:
    """Return the notes of a data set, a sentence each, without repeats.

    These are the notes of its reader and, for several joined data sets, how their keypoints were matched and which are
    dropped; which keypoints are labelled nowhere; and why neither training nor the flip test flips images.

    Args:
        dataset: Read from files, or synthetic, which only has the last note.
        mirroring: Include the note on why images are not flipped, if they are not.
    """
    found = [*_of_readers(dataset), *_unlabelled(dataset)]
    if mirroring:
        found += mirroring_note(dataset.skeleton)
    return tuple(dict.fromkeys(found))


def mirroring_note(skeleton: Skeleton) -> list[str]:
    """Return why images of these keypoints are not flipped, and how to change that; nothing if they are."""
    unknown = skeleton.mirroring_unknown
    if not unknown:
        return []
    return [
        f"Neither training nor the flip test flips images: {unknown}. The data set's option flip_pairs (or "
        "'flip_pairs' of the category in the file) names the pairs that are swapped in a flipped image; an empty "
        "list means that none is."
    ]


def _of_readers(dataset: Dataset) -> Iterator[str]:
    if isinstance(dataset, MixedDatasets):
        yield from dataset.notes
        for part in dataset.parts:
            name = getattr(part, "name", type(part).__name__)
            yield from (f"{name}: {note}" for note in _of_readers(part))
    else:
        yield from (str(note) for note in getattr(dataset, "notes", ()))
        if isinstance(dataset, LabelledImages):
            yield from dataset.white_notes()


def _unlabelled(dataset: Dataset) -> Iterator[str]:
    """Report keypoints that are labelled nowhere; synthetic images have all."""
    parts = dataset.parts if isinstance(dataset, MixedDatasets) else (dataset,)
    if not all(isinstance(part, LabelledImages) for part in parts):
        return
    known: set[str] = set()
    total = 0
    spelt = dataset.spelt if isinstance(dataset, MixedDatasets) else (dataset.skeleton,)
    for part, skeleton in zip(parts, spelt, strict=True):
        assert isinstance(part, LabelledImages)
        everyone = part.everyone
        total += len(everyone)
        known |= labelled_names(everyone, skeleton)
    if total:
        yield from unlabelled_note(dataset.skeleton, known)


def labelled_names(people: Instances, skeleton: Skeleton) -> set[str]:
    """Return the names of the keypoints that are labelled at least once."""
    counts = people.known.sum(0, dtype=np.int64)
    return {name for k, name in enumerate(skeleton.keypoints) if counts[k]}


def unlabelled_note(skeleton: Skeleton, known: set[str]) -> list[str]:
    """Return a sentence that lists the keypoints that are labelled nowhere; nothing if there are none."""
    never = [name for name in skeleton.keypoints if name not in known]
    if not never:
        return []
    return [
        f"{len(never)} of {len(skeleton)} keypoints are labelled in no image, so they are neither trained nor "
        f"evaluated: {', '.join(never)}."
    ]
