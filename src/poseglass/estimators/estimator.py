"""Estimator: images, with boxes where there are any, to instances in image pixels."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton

Boxes = np.ndarray | list | None
"""``(N, 4)`` x0 y0 x1 y1 in image pixels, or None where none are given."""

Frame = np.ndarray | tuple[np.ndarray, Boxes]
"""An image ``(H, W, 3)`` uint8 RGB, alone or with its boxes."""


class Estimator(Protocol):
    """What finds instances in images, in one stage or in two. Evaluation and the command line use nothing else."""

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints; it has none where boxes alone are found."""
        ...

    def __call__(self, image: np.ndarray, boxes: Boxes = None) -> Instances:
        """Find the instances of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes: Where to look; None leaves that to the estimator.

        Returns:
            In image pixels; with boxes one instance each, in their order.
        """
        ...

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find the instances of many images; yields one ``Instances`` each, in order.

        Args:
            frames: Images, with their boxes where they have some. They are asked for one at a time.
            causal: Answer for each frame before the next one is asked for, as a film needs whose boxes come from the
                answer before. Otherwise several images share a batch, which is faster.
        """
        ...


def image_and_boxes(frame: Frame) -> tuple[np.ndarray, Boxes]:
    """Return a frame's image and its boxes."""
    return frame if isinstance(frame, tuple) else (frame, None)
