"""Examples: what a network is trained on, one at a time; crops of single people, or whole images with everybody."""

from types import FunctionType
from typing import Protocol, cast

import numpy as np

from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.transforms import (
    TRANSFORMS,
    Augmentation,
    HalfBody,
    Photometric,
    RandomAffine,
    Transform,
    TransformError,
    ViewTransform,
    check_augmentation,
    kind_of,
    on_samples,
)

Place = tuple[int, int, int, int]
"""Epoch, example, view width, view height: what one item of a batch is made from."""


class Examples(Protocol):
    """Augmented views of a dataset, each reproducible from seed, epoch and number."""

    @property
    def dataset(self) -> Dataset:
        """The dataset."""
        ...

    @property
    def augment(self) -> tuple[Augmentation, ...]:
        """The augmentations, in the order of the recipe."""
        ...

    @property
    def skeleton(self) -> Skeleton:
        """Skeleton of the dataset."""
        ...

    @property
    def labels(self) -> Instances:
        """Every instance that is learnt from, in the pixels of its file."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or excluded, a sentence each."""
        ...

    @property
    def kind(self) -> str:
        """What an example is, in the plural: "people" or "images"."""
        ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, place: Place) -> PoseSample:
        """Return one example as a view of the requested size, augmented."""
        ...


def sorted_augmentations(
    augment: tuple[Augmentation, ...], person: Instances, spec: InputSpec, sizes_wh: tuple[tuple[int, int], ...]
) -> tuple[tuple[ViewTransform, ...], tuple[Transform, ...]]:
    """Return what acts before a pixel is read, and what acts after; custom augmentations are tested first.

    Raises:
        TransformError: An augmentation is invalid, or separates image and labels; or there are two RandomAffine or
            HalfBody.
    """
    for single, why in (
        (RandomAffine, "scale, rotation, shift and flip are one map"),
        (HalfBody, "it chooses the box"),
    ):
        if sum(isinstance(a, single) for a in augment) > 1:
            raise TransformError(f"augment takes one {single.__name__}: {why}. Remove one of them.")
    views: list[ViewTransform] = []
    transforms: list[Transform] = []
    for i, augmentation in enumerate(augment):
        made_of = augmentation if isinstance(augmentation, type | FunctionType) else type(augmentation)
        name = f"augment[{i}] '{made_of.__module__}:{made_of.__qualname__}'"
        kind = kind_of(augmentation, name)
        if type(augmentation) not in TRANSFORMS.values():
            check_augmentation(augmentation, person, spec, sizes_wh, name=name)
        if kind == "view":
            views.append(cast(ViewTransform, augmentation))
        elif kind == "photometric":
            transforms.append(on_samples(cast(Photometric, augmentation)))
        else:
            transforms.append(cast(Transform, augmentation))
    views.sort(key=lambda view: not isinstance(view, HalfBody))
    return tuple(views), tuple(transforms)


def box_of_points(xy: np.ndarray) -> np.ndarray:
    """Return a box around known points ``(K, 2)``, a fifth larger than their extent and at least 8 px."""
    known = xy[np.isfinite(xy).all(-1)].astype(np.float64)
    low, high = known.min(0), known.max(0)
    half = np.maximum((high - low) * 0.6, 4.0)
    center = (low + high) / 2
    return np.concatenate([center - half, center + half])
