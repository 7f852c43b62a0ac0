"""PoseSample: one image, its instances, and the map back to the file; and the protocol of a dataset."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.warp import warp_image


@dataclass(frozen=True, slots=True, eq=False)
class PoseSample:
    """One image with its instances.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        instances: In this image's pixels.
        to_source: This image's pixels to the original file's pixels.
        source: Path or id of the original.

    Raises:
        ValueError: The image is not uint8 RGB.
    """

    image: np.ndarray
    instances: Instances
    to_source: Affine
    source: str

    def __post_init__(self) -> None:
        check_image(self.image, "PoseSample.image")

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the image, pixels."""
        return self.image.shape[1], self.image.shape[0]

    def warped(self, to_target: Affine, size_wh: tuple[int, int] | None = None) -> "PoseSample":
        """Warp the image and its instances, and update the map to the source.

        A map that flips also exchanges left and right keypoints.

        Args:
            to_target: This image's pixels to the new image's pixels.
            size_wh: Size of the new image, pixels; None keeps this one's. Outside this image it is black.

        Raises:
            ValueError: The map cannot be inverted, or the instances cannot follow it; see ``Instances.moved``.

        Example:
            >>> from poseglass.core.skeletons import COCO17
            >>> sample = PoseSample(np.zeros((4, 6, 3), np.uint8), Instances.empty(COCO17), Affine.identity(), "a.jpg")
            >>> half = sample.warped(Affine.about((-0.5, -0.5), scale=0.5), (3, 2))
            >>> half.size_wh, half.to_source(np.array([[0.0, 0.0]])).tolist()
            ((3, 2), [[0.5, 0.5]])
        """
        return PoseSample(
            warp_image(self.image, to_target, size_wh or self.size_wh),
            self.instances.moved(to_target),
            to_target.inverse().then(self.to_source),
            self.source,
        )

    def flipped(self) -> "PoseSample":
        """Return the sample flipped left to right, with left and right keypoints exchanged."""
        return self.warped(Affine.flip(self.size_wh[0]))


def check_image(image: np.ndarray, name: str = "image") -> None:
    """Raise unless the array is ``(H, W, 3)`` uint8 with at least one pixel.

    Raises:
        ValueError: It is not; the message says what to do.
    """
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or dtype != np.uint8:
        raise ValueError(
            f"{name} must be (H, W, 3) uint8 RGB, got {shape} {dtype}. "
            "Use poseglass.read_image(path), or image[..., ::-1] for OpenCV's BGR."
        )
    if 0 in image.shape:
        raise ValueError(f"{name} must have at least one pixel, got {image.shape}.")


class Dataset(Protocol):
    """Images with instances. Labels are known without decoding an image; an image may be decoded reduced.

    A dataset may also have an attribute ``classes`` and a method ``boxes_complete(index)``, for training detectors, and
    a method ``projection(index)``, the calibration of an image's camera, for boxes in space; ``classes_of``,
    ``boxes_complete`` and ``projection_of`` ask for them.
    """

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints of every instance; a plain attribute is enough."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> PoseSample:
        """Return the image at full size with its instances."""
        ...

    def instances(self, index: int) -> Instances:
        """Return the labels of an image in the file's full pixels, without decoding it."""
        ...

    def source(self, index: int) -> str:
        """Return the path or id of an image."""
        ...

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of an image at full size."""
        ...

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Return the image ``(H, W, 3)`` uint8 RGB, at ``1/reduce`` of its size (1, 2, 4 or 8) where that is cheap.

        A dataset may return a larger image than requested; the caller compares shapes.
        """
        ...


def classes_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of the classes that ``Instances.label`` counts through, ("person",); empty if not stated."""
    return tuple(getattr(dataset, "classes", ()))


def boxes_complete(dataset: Dataset, index: int) -> bool:
    """Return whether everybody (everything of the classes) in an image has a box; True if the dataset is silent.

    Where it is False, a detector must not learn that there is nobody outside the boxes.
    """
    stated = getattr(dataset, "boxes_complete", None)
    return True if stated is None else bool(stated(index))


def projection_of(dataset: Dataset, index: int) -> np.ndarray | None:
    """Return the calibration of an image, ``(3, 4)``, camera frame in millimetres to its pixels; None if not stated."""
    stated = getattr(dataset, "projection", None)
    return None if stated is None else stated(index)
