"""The three kinds of augmentation. A kind is identified by the one method that it has, so none is taken for another."""

from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.view import View


@runtime_checkable
class ViewTransform(Protocol):
    """Chooses what is read of an image before any pixel is read: another box, or a map after the present one.

    Image and labels both follow the view, so a ViewTransform cannot separate them, and the image is warped once.
    """

    def choose_view(self, view: View, person: Instances, spec: InputSpec, rng: np.random.Generator, /) -> View:
        """Return the view to read, of the same size.

        Args:
            view: The view chosen so far.
            person: The one instance that the view shows, in the image's pixels; it belongs to the data set and must not
                be modified. For networks that find everybody, all instances of the image, of which there may be none.
            spec: Gives aspect ratio, padding and crop rule.
            rng: The only source of randomness. Return the same view, not a copy, to change nothing.
        """
        ...


@runtime_checkable
class Transform(Protocol):
    """Maps a sample to a sample of the same size; for anything that moves pixels that have been read.

    It moves image, instances and ``to_source`` together: ``sample.warped(to_target)`` and ``sample.flipped()`` do.
    """

    def __call__(self, sample: PoseSample, rng: np.random.Generator, /) -> PoseSample:
        """Return the changed sample; ``rng`` is the only source of randomness."""
        ...


@runtime_checkable
class Photometric(Protocol):
    """Changes colours and moves nothing, so the labels are unchanged."""

    def repaint(self, image: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        """Return the changed ``(H, W, 3)`` uint8 RGB image at the same size; ``rng`` is the only randomness."""
        ...


Augmentation = ViewTransform | Transform | Photometric
Kind = Literal["view", "sample", "photometric"]


class TransformError(ValueError):
    """An augmentation that is invalid, or that would separate image and labels."""


def kind_of(augmentation: Any, name: str) -> Kind:
    """Return whether an augmentation is a ViewTransform ("view"), a Transform ("sample") or a Photometric.

    Args:
        augmentation: An entry of the list of augmentations.
        name: Its name in messages.

    Raises:
        TransformError: It is none of them, several at once, or a class instead of an instance.
    """
    if isinstance(augmentation, type):
        raise TransformError(f"{name} is a class; list an instance of it: {augmentation.__name__}(...).")
    kinds: list[Kind] = []
    if isinstance(augmentation, ViewTransform):
        kinds.append("view")
    if isinstance(augmentation, Photometric):
        kinds.append("photometric")
    if callable(augmentation):
        kinds.append("sample")
    if len(kinds) != 1:
        raise TransformError(
            f"{name} must have one of three methods: __call__(sample, rng) of a Transform, repaint(image, rng) of a "
            f"Photometric, choose_view(view, person, spec, rng) of a ViewTransform. Its {type(augmentation).__name__} "
            f"has {'several of them' if kinds else 'none of them'}."
        )
    return kinds[0]


def on_samples(photometric: Photometric) -> Transform:
    """Return the Transform that repaints a sample's image and leaves the rest unchanged."""
    return partial(_repainted, photometric)


def _repainted(photometric: Photometric, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
    image = photometric.repaint(sample.image, rng)
    return PoseSample(image, sample.instances, sample.to_source, sample.source)  # takes half the time of replace()
