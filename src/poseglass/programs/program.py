"""Program: what an estimator runs, on any runtime."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from poseglass.codecs import Codec, CodecSpec
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton

Forward = Callable[[Tensor], Prediction]
"""Normalised images ``(B, 3, H, W)`` to the last stage's prediction: a network in evaluation mode, or a faster copy."""


class Program(Protocol):
    """uint8 views in, decoded instances out, including normalisation, flip test and decoding.

    The result is in view pixels. Only an estimator, which knows where a view was cropped, maps it to image pixels.
    """

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints."""
        ...

    @property
    def input(self) -> InputSpec:
        """Defines how a box or an image becomes a view."""
        ...

    @property
    def spec(self) -> CodecSpec:
        """What its codec decodes; its alignment determines whether the flip test shifts maps by a pixel."""
        ...

    @property
    def flip_test(self) -> bool:
        """Whether each view's prediction is averaged with that of its flipped image."""
        ...

    @property
    def calibrated(self) -> bool:
        """Whether results have probabilities and radii, as weights with a calibration give."""
        ...

    def __call__(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB."""
        ...


def with_flip_test(forward: Forward, codec: Codec, skeleton: Skeleton) -> Forward:
    """Return a forward whose prediction is averaged with the flipped image's, flipped back (flip test)."""

    def run(images: Tensor) -> Prediction:
        straight = forward(images)
        flipped = codec.flip(forward(images.flip(-1)), skeleton)
        # what the codec cannot flip (offsets of a pixel) stays that of the image as it is
        return straight | {name: (straight[name] + flipped[name]) / 2 for name in flipped}

    return run
