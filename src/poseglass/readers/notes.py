"""What a reader should tell its user about a data set, once: assumptions, what was left out, what is never labelled."""

from collections.abc import Iterator

import numpy as np

from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.readers.labelled import LabelledImages
from poseglass.readers.mixed import MixedDatasets


def notes_of(dataset: Dataset, *, mirroring: bool = True) -> tuple[str, ...]:
    """Return what is to be known of a data set, a sentence each, none twice.

    These are the notes of its reader and, of several sets joined, how their keypoints were matched and which of them
    drop out; which keypoints nobody has labelled; and why neither training nor the flip test mirrors.

    Args:
        dataset: Read from files, or synthetic, which has none but the last.
        mirroring: Say too why nothing is mirrored, where that is so.
    """
    found = [*_of_readers(dataset), *_unlabelled(dataset)]
    if mirroring:
        found += mirroring_note(dataset.skeleton)
    return tuple(dict.fromkeys(found))


def mirroring_note(skeleton: Skeleton) -> list[str]:
    """Return why images of these keypoints are not mirrored, and what changes that; nothing where they are."""
    unknown = skeleton.mirroring_unknown
    if not unknown:
        return []
    return [
        f"Neither training nor the flip test mirrors images: {unknown}. The data set's option flip_pairs (or "
        "'flip_pairs' of the category in the file) names the pairs that change places in a mirrored image; an empty "
        "list says that none does."
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
    """Say which keypoints are labelled nowhere; of synthetic images, all are."""
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
        counts = everyone.known.sum(0, dtype=np.int64)
        known |= {name for k, name in enumerate(skeleton.keypoints) if counts[k]}
    never = [name for name in dataset.skeleton.keypoints if name not in known]
    if total and never:
        yield (
            f"{len(never)} of {len(dataset.skeleton)} keypoints are labelled in no image, so nothing is learnt or "
            f"measured of them: {', '.join(never)}."
        )
