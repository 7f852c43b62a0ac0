"""Affine: the only place where a coordinate changes frame.

Frames follow one convention everywhere: x right, y down, float pixels, **pixel centres on integers**. A whole image
is the box ``(-0.5, -0.5, W - 0.5, H - 0.5)``.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

CropRule = Literal["edges", "msra", "udp"]
"""How a box maps to a crop; see ``Affine.crop``."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A 2D affine map ``xy -> matrix[:, :2] @ xy + matrix[:, 2]``, pixels to pixels.

    Args:
        matrix: ``(2, 3)`` float64.

    Raises:
        ValueError: The matrix has another shape or is not finite.

    Example:
        >>> to_crop = Affine.crop(np.array([-0.5, -0.5, 9.5, 19.5]), (5, 10))
        >>> to_crop(np.array([[0.5, 0.5]])).tolist()     # the centre of the first 2 x 2 block
        [[0.0, 0.0]]
        >>> to_crop.inverse()(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if matrix.shape != (2, 3):
            raise ValueError(f"Affine.matrix must be (2, 3), got {matrix.shape}.")
        if not np.isfinite(matrix).all():
            raise ValueError(f"Affine.matrix must be finite, got {matrix.tolist()}.")
        object.__setattr__(self, "matrix", matrix)

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """Map points ``(..., 2)``; NaN stays NaN. The dtype of floating input is kept."""
        points = np.asarray(xy)
        out = points.astype(np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]
        return out.astype(points.dtype) if np.issubdtype(points.dtype, np.floating) else out

    def then(self, after: "Affine") -> "Affine":
        """Return the map that does this one first and ``after`` second."""
        product = after.matrix[:, :2] @ self.matrix
        product[:, 2] += after.matrix[:, 2]
        return Affine(product)

    def inverse(self) -> "Affine":
        """Return the inverse map.

        Raises:
            ValueError: The map is singular: it collapses the plane to a line or a point.
        """
        (a, b, x), (c, d, y) = self.matrix.tolist()
        det = a * d - b * c
        if abs(det) < 1e-12:
            raise ValueError(f"Affine cannot be inverted: its matrix is singular, {self.matrix.tolist()}.")
        return Affine(np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / det)

    @property
    def scale(self) -> float:
        """Length in the target frame of one pixel of the source frame (geometric mean over directions)."""
        return math.sqrt(abs(self._det))

    @property
    def flips(self) -> bool:
        """Whether the map exchanges left and right."""
        return self._det < 0

    @property
    def _det(self) -> float:
        (a, b, _), (c, d, _) = self.matrix.tolist()  # several times faster than LAPACK
        return a * d - b * c

    def box(self, box_xyxy: np.ndarray) -> np.ndarray:
        """Map boxes ``(..., 4)`` to the upright boxes around their images, ``(..., 4)``."""
        box = np.asarray(box_xyxy)
        low, high = box[..., :2], box[..., 2:]
        center = self((low + high) / 2)
        half = (np.abs(high - low) / 2) @ np.abs(self.matrix[:, :2]).T
        out = np.concatenate([center - half, center + half], -1)
        return out.astype(box.dtype) if np.issubdtype(box.dtype, np.floating) else out

    @classmethod
    def identity(cls) -> "Affine":
        """Return the identity map."""
        return cls(np.eye(2, 3))

    @classmethod
    def crop(cls, box_xyxy: np.ndarray, size_wh: tuple[int, int], rule: CropRule = "edges") -> "Affine":
        """Return the map that takes the box to a whole image of ``size_wh``.

        Args:
            box_xyxy: ``(4,)``, pixels.
            size_wh: Width and height of the crop, pixels.
            rule: "edges" maps the box edge to edge, its centre to ((W - 1) / 2, (H - 1) / 2). "msra" has the same scale
                but maps the centre to (W / 2, H / 2), half a pixel further, as SimpleBaseline and HRNet do. "udp" maps
                the box's sides to W - 1 and H - 1, between the centres of the outermost pixels, and its centre to
                ((W - 1) / 2, (H - 1) / 2) (Huang et al., "The Devil is in the Details", CVPR 2020, section 3).

        Raises:
            ValueError: The box has no area, the rule is unknown, or with "udp" a side is below 2 pixels.
        """
        if rule not in get_args(CropRule):
            raise ValueError(f"The crop rule must be one of {', '.join(get_args(CropRule))}, got {rule!r}.")
        if rule == "udp" and min(size_wh) < 2:
            raise ValueError(f"Crop rule 'udp' needs sides of at least 2 pixels, got {size_wh}.")
        x0, y0, x1, y1 = (float(v) for v in box_xyxy)
        if not (x1 > x0 and y1 > y0):
            raise ValueError(f"A crop needs a box with area, x0 < x1 and y0 < y1; got {[x0, y0, x1, y1]}.")
        short = 1 if rule == "udp" else 0
        sx, sy = (size_wh[0] - short) / (x1 - x0), (size_wh[1] - short) / (y1 - y0)
        first = {"edges": -0.5, "msra": 0.0, "udp": 0.0}[rule]  # where the corner x0, y0 of the box lands
        return cls(np.array([[sx, 0.0, first - sx * x0], [0.0, sy, first - sy * y0]]))

    @classmethod
    def about(
        cls,
        center_xy: tuple[float, float] | np.ndarray,
        *,
        scale: float = 1.0,
        degrees: float = 0.0,
        shift_xy: tuple[float, float] = (0.0, 0.0),
    ) -> "Affine":
        """Return the map that scales and rotates about a point, then shifts.

        Args:
            center_xy: The fixed point (before the shift), pixels.
            scale: Above 1 enlarges.
            degrees: Positive rotates clockwise on the screen (y points down).
            shift_xy: Shift, pixels.
        """
        angle = np.deg2rad(degrees)
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        center = np.asarray(center_xy, dtype=np.float64)
        offset = center - linear @ center + np.asarray(shift_xy, dtype=np.float64)
        return cls(np.concatenate([linear, offset[:, None]], axis=1))

    @classmethod
    def flip(cls, width: int) -> "Affine":
        """Return the map that flips an image of that width left to right: ``x -> width - 1 - x``."""
        return cls(np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]]))
