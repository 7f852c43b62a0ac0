"""Several datasets as one, matched by the names of their keypoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, PoseSample
from poseglass.core.skeleton import Skeleton


@dataclass(frozen=True, slots=True, eq=False)
class MixedDatasets:
    """Datasets one after another under one skeleton: a dataset itself (see ``core.sample.Dataset``).

    Args:
        name: Of the whole.
        skeleton: Of every instance; keypoints that a part lacks are unknown there, which losses mask.
        parts: The datasets.
        part_of: ``(M,)`` int64: which part image i comes from.
        index_of: ``(M,)`` int64: and its number there.
    """

    name: str
    skeleton: Skeleton
    parts: tuple[Dataset, ...]
    part_of: np.ndarray
    index_of: np.ndarray

    def __len__(self) -> int:
        return len(self.part_of)

    def __getitem__(self, index: int) -> PoseSample:
        """Return the image at full size with its instances.

        Raises:
            IndexError: No image of that number.
        """
        part, i = self.origin(index)
        sample = part[i]
        return PoseSample(
            sample.image, sample.instances.in_skeleton(self.skeleton), sample.to_source, sample.source
        )  # fmt: skip

    def origin(self, index: int) -> tuple[Dataset, int]:
        """Return the dataset an image comes from and its number there."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}: expected {-len(self)} to {len(self) - 1}.")
        return self.parts[int(self.part_of[index])], int(self.index_of[index])

    def instances(self, index: int) -> Instances:
        """Return the labels of an image in the file's full pixels, without decoding it."""
        part, i = self.origin(index)
        return part.instances(i).in_skeleton(self.skeleton)

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


def mixed(
    datasets: Sequence[Dataset],
    *,
    skeleton: Skeleton | None = None,
    repeats: Sequence[float] | None = None,
    name: str | None = None,
) -> MixedDatasets:
    """Join datasets by the names of their keypoints, so that they train together.

    Args:
        datasets: At least one. Keypoints of the same name are the same keypoint; to make two names meet, rename them
            in one of the skeletons.
        skeleton: Of the result; None makes the union of all names (see ``union``). With one of the parts' skeletons
            the others only add to its keypoints.
        repeats: How often each dataset is in the result: 2 doubles its weight, 0.5 takes every second image, spread
            evenly.
        name: Of the result; None joins the parts' with "+".

    Raises:
        ValueError: No datasets, a part that shares no name with the skeleton, or repeats that do not fit.

    Example:
        >>> from poseglass.core.skeletons import COCO17, LSP14
        >>> len(union([LSP14, COCO17])), len(set(LSP14.keypoints) & set(COCO17.keypoints))
        (19, 12)
    """
    parts = tuple(datasets)
    if not parts:
        raise ValueError("mixed needs at least one dataset.")
    target = skeleton if skeleton is not None else union([part.skeleton for part in parts])
    for number, part in enumerate(parts):
        if (part.skeleton.indices_of(target.keypoints) < 0).all():
            raise ValueError(
                f"Dataset {number} ({_name(part)}) has no keypoint of skeleton {target.name!r}: it has "
                f"{', '.join(part.skeleton.keypoints)}; expected some of {', '.join(target.keypoints)}."
            )
    times = [1.0] * len(parts) if repeats is None else [float(r) for r in repeats]
    if len(times) != len(parts) or not all(np.isfinite(t) and 0 < t <= 10_000 for t in times):
        raise ValueError(
            f"repeats must be {len(parts)} numbers above 0 and up to 10,000 (one per dataset), got {repeats}."
        )
    indices = [_repeated(len(part), t) for part, t in zip(parts, times, strict=True)]
    return MixedDatasets(
        name=name or "+".join(_name(part) for part in parts),
        skeleton=target,
        parts=parts,
        part_of=np.repeat(np.arange(len(parts)), [len(i) for i in indices]),
        index_of=np.concatenate(indices),
    )


def union(skeletons: Sequence[Skeleton]) -> Skeleton:
    """Return the skeleton of all names, in the order they first appear, with all bones.

    Sigmas come from the first skeleton that has one for the name, and are left out if any name has none. Flip pairs
    follow from the names unless a skeleton gives its own.

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
    """Return indices 0 ... length - 1 as often as asked; a fraction takes them evenly spread."""
    whole = int(times)
    part = round((times - whole) * length)
    some = (np.arange(part) * length) // max(part, 1)
    return np.concatenate([np.tile(np.arange(length), whole), some]).astype(np.int64)


def _name(dataset: Dataset) -> str:
    return str(getattr(dataset, "name", type(dataset).__name__))
