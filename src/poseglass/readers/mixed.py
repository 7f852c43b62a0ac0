"""Join several datasets by the names of their keypoints."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, PoseSample, boxes_complete, classes_of, projection_of
from poseglass.core.sides import canonical_name
from poseglass.core.skeleton import Skeleton
from poseglass.readers.labelled import LabelledImages

HARDLY = 0.3
"""Rejected is a part that shares less than this of its keypoints, or of the skeleton's if these are fewer."""


@dataclass(frozen=True, slots=True, eq=False)
class MixedDatasets:
    """Concatenated datasets with one skeleton: a dataset itself (see ``core.sample.Dataset``).

    Args:
        name: Name of the joined dataset.
        skeleton: Skeleton of every instance; keypoints that a part lacks are unknown there, and losses mask them.
        parts: The datasets.
        spelt: The skeleton of each part, with keypoint names spelt as in ``skeleton``.
        part_of: ``(M,)`` int64: which part image i comes from.
        index_of: ``(M,)`` int64: the index of image i in that part.
        notes: How the keypoints of the parts were matched, and which are dropped, a sentence each.
        classes: Names of the classes of all parts, that labels count through; empty if a part does not name its own.
    """

    name: str
    skeleton: Skeleton
    parts: tuple[Dataset, ...]
    spelt: tuple[Skeleton, ...]
    part_of: np.ndarray
    index_of: np.ndarray
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.part_of)

    def __getitem__(self, index: int) -> PoseSample:
        """Return the image at full size with its instances.

        Raises:
            IndexError: No image of that number.
        """
        part, i = self.origin(index)
        sample = part[i]
        return PoseSample(sample.image, self._in_skeleton(index, sample.instances), sample.to_source, sample.source)

    def _in_skeleton(self, index: int, instances: Instances) -> Instances:
        part = int(self.part_of[index])
        label = instances.label
        own = classes_of(self.parts[part])
        if self.classes and own != self.classes[: len(own)]:
            label = np.array([self.classes.index(name) for name in own], dtype=np.int64)[label]
        return replace(instances, skeleton=self.spelt[part], label=label).in_skeleton(self.skeleton)

    def origin(self, index: int) -> tuple[Dataset, int]:
        """Return the dataset that an image comes from and its index there."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}: expected {-len(self)} to {len(self) - 1}.")
        return self.parts[int(self.part_of[index])], int(self.index_of[index])

    def instances(self, index: int) -> Instances:
        """Return the labels of an image in the file's full pixels, without decoding it."""
        part, i = self.origin(index)
        return self._in_skeleton(index, part.instances(i))

    def source(self, index: int) -> str:
        """Return the path or id of an image."""
        part, i = self.origin(index)
        return part.source(i)

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Return the image ``(H, W, 3)`` uint8 RGB, at about ``1/reduce`` of its size where that is cheap."""
        part, i = self.origin(index)
        return part.image(i, reduce=reduce)

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of an image at full size."""
        part, i = self.origin(index)
        return part.size_wh(i)

    def projection(self, index: int) -> np.ndarray | None:
        """Return the calibration of an image, if its part states one; see ``core.sample.projection_of``."""
        part, i = self.origin(index)
        return projection_of(part, i)

    def boxes_complete(self, index: int) -> bool:
        """Return whether everything of all classes in an image has a box; see ``core.sample.boxes_complete``.

        An image of a part that does not label all classes may show unlabelled objects of the others.
        """
        part, i = self.origin(index)
        return boxes_complete(part, i) and (not self.classes or set(classes_of(part)) >= set(self.classes))


def files_of(dataset: Dataset) -> list[LabelledImages]:
    """Return the sets of image files that a dataset is made of, each once; synthetic images have none."""
    parts = dataset.parts if isinstance(dataset, MixedDatasets) else (dataset,)
    return [part for part in parts if isinstance(part, LabelledImages)]


def mixed(
    datasets: Sequence[Dataset],
    *,
    skeleton: Skeleton | None = None,
    repeats: Sequence[float] | None = None,
    name: str | None = None,
) -> MixedDatasets:
    """Join datasets by the names of their keypoints, so that they train together.

    Args:
        datasets: At least one. Keypoints of the same name are the same keypoint; names that differ only in case,
            separators and the position of the side ("Left Wrist", "wrist_l") are the same name, and a note reports it.
        skeleton: Skeleton of the result; None makes the union of all names (see ``union``). With the skeleton of one of
            the parts, the others only add to its keypoints.
        repeats: How often each dataset is in the result: 2 doubles its weight, 0.5 takes every second image, spread
            evenly.
        name: Name of the result; None joins the parts' with "+".

    Raises:
        ValueError: No datasets, a part that shares almost no name with the skeleton, or invalid repeats.

    Example:
        >>> from poseglass.core.skeletons import COCO17, LSP14
        >>> len(union([LSP14, COCO17])), len(set(LSP14.keypoints) & set(COCO17.keypoints))
        (19, 12)
    """
    parts = tuple(datasets)
    if not parts:
        raise ValueError("mixed needs at least one dataset.")
    notes: list[str] = []
    if skeleton is None:
        known: list[str] = []
        for part in parts:
            known += [n for n in respelt(part.skeleton, known).keypoints if n not in known]
        spelling: Sequence[str] = known
    else:
        spelling = skeleton.keypoints
    spelt = tuple(respelt(part.skeleton, spelling) for part in parts)
    target = skeleton if skeleton is not None else union(spelt)
    for number, (part, own) in enumerate(zip(parts, spelt, strict=True)):
        changed = [
            f"{old!r} as {new!r}" for old, new in zip(part.skeleton.keypoints, own.keypoints, strict=True) if old != new
        ]
        if changed:
            notes.append(f"{len(changed)} keypoints of {_name(part)} are spelt differently: {', '.join(changed)}.")
        lost = [name for name in own.keypoints if name not in target.keypoints]
        shared = len(own) - len(lost)
        smaller = min(len(own), len(target))
        if smaller and shared < HARDLY * smaller:
            raise ValueError(
                f"Dataset {number} ({_name(part)}) shares {shared} of {len(target)} keypoints with skeleton "
                f"{target.name!r}, and {len(lost)} of its own would be dropped: {', '.join(lost)}; expected names such "
                f"as {', '.join(n for n in target.keypoints if n not in own.keypoints)}. Rename the "
                "keypoints of one of the datasets, or exclude one."
            )
        if lost:
            notes.append(
                f"{len(lost)} of {len(own)} keypoints of {_name(part)} are dropped, as skeleton {target.name!r} "
                f"has no such names: {', '.join(lost)}."
            )
        lacking = [name for name in target.keypoints if name not in own.keypoints]
        if lacking and len(parts) > 1:
            notes.append(
                f"{len(lacking)} of {len(target)} keypoints are not labelled in {_name(part)}, so they are not trained "
                f"there: {', '.join(lacking)}."
            )
    times = [1.0] * len(parts) if repeats is None else [float(r) for r in repeats]
    if len(times) != len(parts) or not all(np.isfinite(t) and 0 < t <= 10_000 for t in times):
        raise ValueError(
            f"repeats must be {len(parts)} numbers above 0 and up to 10,000 (one per dataset), got {repeats}."
        )
    named = [classes_of(part) for part in parts]
    classes = tuple(dict.fromkeys(name for own in named for name in own)) if all(named) else ()
    if any(own != classes for own in named) and classes:
        notes.append(
            f"The parts have different classes; labels count through all: {', '.join(classes)}. "
            "Nothing is learnt outside the labelled boxes in images of parts that do not label every class."
        )
    indices = [_repeated(len(part), t) for part, t in zip(parts, times, strict=True)]
    return MixedDatasets(
        name=name or "+".join(_name(part) for part in parts),
        skeleton=target,
        parts=parts,
        spelt=spelt,
        part_of=np.repeat(np.arange(len(parts)), [len(i) for i in indices]),
        index_of=np.concatenate(indices),
        notes=tuple(dict.fromkeys(notes)),
        classes=classes,
    )


def respelt(skeleton: Skeleton, names: Sequence[str]) -> Skeleton:
    """Return a skeleton whose keypoints are spelt as in ``names`` where only the spelling differs.

    A name changes if exactly one of ``names`` differs from it only in case, separators and the position of the side,
    and no other keypoint does; a skeleton without such a name is returned unchanged.
    """
    wanted = Counter(canonical_name(name) for name in names)
    own = Counter(canonical_name(name) for name in skeleton.keypoints)
    spelt = {canonical_name(name): name for name in names}
    renamed = {
        name: spelt[key]
        for name in skeleton.keypoints
        if name not in names and wanted[key := canonical_name(name)] == own[key] == 1 and key
    }
    if not renamed:
        return skeleton

    def new(pair: tuple[str, str]) -> tuple[str, str]:
        return renamed.get(pair[0], pair[0]), renamed.get(pair[1], pair[1])

    return replace(
        skeleton,
        keypoints=tuple(renamed.get(name, name) for name in skeleton.keypoints),
        bones=tuple(map(new, skeleton.bones)),
        flip_pairs=None if skeleton.flip_pairs is None else tuple(map(new, skeleton.flip_pairs)),
    )


def union(skeletons: Sequence[Skeleton]) -> Skeleton:
    """Return the skeleton of all names, in the order they first appear, with all bones.

    Sigmas come from the first skeleton that has one for the name, and are omitted if any name has none. Flip pairs
    follow from the names unless a skeleton has its own.

    Raises:
        ValueError: No skeletons, or flip pairs that contradict each other.
    """
    if not skeletons:
        raise ValueError("union needs at least one skeleton.")
    first = skeletons[0]
    if all(s == first for s in skeletons):
        return first
    names = list(dict.fromkeys(n for s in skeletons for n in s.keypoints))
    bones: list[tuple[str, str]] = []
    partner: dict[str, str] = {}
    sigma: dict[str, float] = {}
    for one in skeletons:
        bones += [b for b in one.bones if b not in bones and b[::-1] not in bones]
        for name, value in zip(one.keypoints, one.sigmas, strict=False):
            sigma.setdefault(name, value)
        for name, other in zip(one.keypoints, one.flip, strict=True):
            if one.flip_pairs is None and one.keypoints[other] == name:
                continue  # in the middle, or the other side is not among the names
            known = partner.setdefault(name, one.keypoints[other])
            if known != one.keypoints[other]:
                raise ValueError(
                    f"Skeleton {one.name!r} flips {name!r} to {one.keypoints[other]!r}, another one to {known!r}; "
                    "they cannot train together. Give both the same flip pairs."
                )
    own = any(s.flip_pairs is not None for s in skeletons)
    pairs = [(a, b) for a, b in partner.items() if b in names and names.index(a) < names.index(b)]
    return Skeleton(
        "+".join(dict.fromkeys(s.name for s in skeletons)),
        tuple(names),
        tuple(bones),
        tuple(sigma[n] for n in names) if all(n in sigma for n in names) else (),
        tuple(pairs) if own else None,
    )


def _repeated(length: int, times: float) -> np.ndarray:
    """Return indices 0 ... length - 1 repeated ``times`` times; a fraction takes them evenly spread."""
    whole = int(times)
    part = round((times - whole) * length)
    some = (np.arange(part) * length) // max(part, 1)
    return np.concatenate([np.tile(np.arange(length), whole), some]).astype(np.int64)


def _name(dataset: Dataset) -> str:
    return str(getattr(dataset, "name", type(dataset).__name__))
