"""Estimator: images, optionally with boxes, to instances in image pixels."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from poseglass.core.box_3d import check_projection
from poseglass.core.instances import Instances
from poseglass.core.large_image import ReadableImage
from poseglass.core.skeleton import Skeleton

Boxes = np.ndarray | list | None
"""``(N, 4)`` x0 y0 x1 y1 in image pixels, or None if not given."""

Frame = ReadableImage | tuple[ReadableImage, Boxes] | tuple[ReadableImage, Boxes, np.ndarray | None]
"""An image ``(H, W, 3)`` uint8 RGB, or a large one, alone or with its boxes; and for boxes in space with the
calibration of its camera, ``(3, 4)``, camera frame in millimetres to pixels."""


class Estimator(Protocol):
    """Finds instances in images, in one or two stages. Evaluation and the command line use only this interface."""

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints; it has none if only boxes are detected."""
        ...

    def __call__(self, image: ReadableImage, boxes: Boxes = None) -> Instances:
        """Find the instances of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB, or a ``LargeImage``.
            boxes: Boxes of the instances; None lets the estimator decide.

        Returns:
            In image pixels; if boxes are given, one instance per box, in the same order.
        """
        ...

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find the instances of many images; yields one ``Instances`` each, in order.

        Args:
            frames: Images, optionally with boxes. They are consumed one at a time.
            causal: Yield the result of each frame before the next one is requested, as needed for a video whose boxes
                come from the previous result. Otherwise several images share a batch, which is faster.
        """
        ...


def image_and_boxes(frame: Frame) -> tuple[ReadableImage, Boxes]:
    """Return a frame's image and its boxes."""
    return (frame[0], frame[1]) if isinstance(frame, tuple) else (frame, None)


def projection_given(frame: Frame) -> np.ndarray | None:
    """Return the calibration of a frame's camera, ``(3, 4)``, or None if none is given.

    Raises:
        ValueError: It is no calibration; see ``core.box_3d.check_projection``.
    """
    given = frame[2] if isinstance(frame, tuple) and len(frame) == 3 else None
    return None if given is None else check_projection(given)
