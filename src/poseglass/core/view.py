"""View: a piece of an image as a network sees it. The one place where a box or an image becomes network input.

A view is a crop around one instance, a whole image in a letterbox, or a chip of a large image; it may show any number
of instances.
"""

from dataclasses import dataclass

import numpy as np

from poseglass.core.affine import Affine, CropRule
from poseglass.core.boxes import fit_aspect
from poseglass.core.input_spec import InputSpec
from poseglass.core.large_image import LargeImage, ReadableImage
from poseglass.core.warp import warp_image


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A piece of an image at the input size of a network.

    Args:
        size_wh: Size of the view, pixels.
        to_view: Map from image pixels to view pixels; ``home`` is its inverse.

    Raises:
        ValueError: A size below 1.

    Example:
        >>> view = View.letterbox((200, 100), (50, 50))
        >>> view.to_view(np.array([[99.5, 49.5]])).tolist()     # the middle of the image is the middle of the view
        [[24.5, 24.5]]
        >>> view.home(np.array([[24.5, 24.5]])).tolist()
        [[99.5, 49.5]]
    """

    size_wh: tuple[int, int]
    to_view: Affine

    def __post_init__(self) -> None:
        width, height = (int(side) for side in self.size_wh)
        if (width, height) != tuple(self.size_wh) or width < 1 or height < 1:
            raise ValueError(f"View.size_wh must be two whole numbers above 0, got {self.size_wh}.")
        object.__setattr__(self, "size_wh", (width, height))

    @property
    def home(self) -> Affine:
        """Map from view pixels to image pixels."""
        return self.to_view.inverse()

    @classmethod
    def crop(cls, box_xyxy: np.ndarray, spec: InputSpec, *, size_wh: tuple[int, int] | None = None) -> "View":
        """Return the view of a box: enlarged to the crop's aspect ratio and by the padding, then mapped by the rule.

        Args:
            box_xyxy: ``(4,)``, image pixels.
            spec: Gives size, padding and rule.
            size_wh: Another size than the spec's, of the same aspect ratio.

        Raises:
            ValueError: The box has no area.
        """
        return cls.of_region(grown(np.asarray(box_xyxy, np.float64), spec), size_wh or spec.size_wh, spec.crop)

    @classmethod
    def of_region(cls, box_xyxy: np.ndarray, size_wh: tuple[int, int], rule: CropRule = "edges") -> "View":
        """Return the view of exactly this box; a box of another aspect ratio is stretched.

        Raises:
            ValueError: The box has no area, or the rule is unknown.
        """
        return cls(size_wh, Affine.crop(box_xyxy, size_wh, rule))

    @classmethod
    def letterbox(cls, image_wh: tuple[int, int], size_wh: tuple[int, int]) -> "View":
        """Return the view of a whole image, as large as fits, in the middle; the rest of the view is black.

        Raises:
            ValueError: An image without area.
        """
        width, height = image_wh
        if width < 1 or height < 1:
            raise ValueError(f"A letterbox needs an image with area, got {width} x {height} pixels.")
        scale = min(size_wh[0] / width, size_wh[1] / height)
        shift = [(side - 1) / 2 - scale * (full - 1) / 2 for side, full in zip(size_wh, image_wh, strict=True)]
        return cls(size_wh, Affine(np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])))

    @classmethod
    def chip(cls, corner_xy: tuple[float, float], scale: float, size_wh: tuple[int, int]) -> "View":
        """Return the view of a chip: ``size_wh / scale`` pixels of the image from a corner on, scaled.

        Args:
            corner_xy: The upper left corner of the chip's first pixel, so that of a whole image is (-0.5, -0.5).
            scale: View pixels per image pixel.
            size_wh: Size of the view, pixels.

        Raises:
            ValueError: A scale that is not above 0.
        """
        if not scale > 0:
            raise ValueError(f"A chip's scale must be above 0, got {scale}.")
        x, y = corner_xy
        return cls(size_wh, Affine(np.array([[scale, 0.0, -0.5 - scale * x], [0.0, scale, -0.5 - scale * y]])))

    def then(self, after: Affine) -> "View":
        """Return the view with its pixels moved by a further map, as an augmentation does."""
        return View(self.size_wh, self.to_view.then(after))

    def of_reduced(self, reduce: int, corner_xy: tuple[int, int] = (0, 0)) -> "View":
        """Return the same view of a part of the image that was decoded at ``1/reduce`` of its size.

        Args:
            reduce: Factor by which the image was reduced: each pixel of the part is the mean of ``reduce ** 2``.
            corner_xy: The part's first pixel, in pixels of the reduced image.
        """
        linear = self.to_view.matrix[:, :2]
        first = np.array(corner_xy) * reduce + (reduce - 1) / 2  # its middle, in the file's pixels
        offset = self.to_view.matrix[:, 2] + linear @ first
        return View(self.size_wh, Affine(np.concatenate([linear * reduce, offset[:, None]], axis=1)))

    def read(self, image: ReadableImage, *, border_rgb: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
        """Return the view of an image ``(h, w, 3)``: ``(H, W, 3)`` uint8 RGB, ``border_rgb`` outside the image.

        Of a large image, only the part that the view shows is decoded, and reduced by a power of two first.
        """
        if isinstance(image, LargeImage):
            part, reduce, corner_xy = image.region(self.to_view, self.size_wh)
            return self.of_reduced(reduce, corner_xy).read(part, border_rgb=border_rgb)
        return warp_image(image, self.to_view, self.size_wh, border_rgb=border_rgb)


def grown(box_xyxy: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Return boxes ``(..., 4)`` as crops show them: enlarged about their centre to the aspect ratio, then padded."""
    return fit_aspect(np.asarray(box_xyxy, np.float64), spec.aspect, padding=spec.padding)
