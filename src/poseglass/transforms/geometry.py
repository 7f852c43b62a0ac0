"""Geometric augmentation: it draws an Affine, and one warp applies all maps of a view.

Box, scale, rotation, shift and flip are composed into one map before a pixel is read, so an image is warped once and
every augmentation can be undone.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.view import View


@dataclass(frozen=True, slots=True)
class RandomAffine:
    """Draw a scale, a rotation and a shift about the middle of the view, and a flip with some probability.

    Args:
        scale: Smallest and largest scale of the person. For "normal", the range to which N(1, spread) is clipped, where
            spread is half of the range.
        degrees: Rotation within plus and minus this; for "normal" the standard deviation, clipped at twice that.
        rotate_probability: Share of crops that are rotated at all.
        shift: Largest shift in each direction, as a share of the crop's side.
        flip_probability: Share of crops that are flipped; left and right keypoints are swapped.
        distribution: "uniform" (the paper), or "normal" (the ports: N(1, 0.25) and N(0, 30 degrees), clipped).
        zoom: Smallest and largest additional scale of a zoomed crop; it shows a part of what it would have shown, from
            anywhere in it, as portraits and half-length shots do.
        zoom_probability: Share of crops that are zoomed.

    Raises:
        ValueError: An invalid range or probability.

    Source:
        Newell et al. 2016, section 3.2: rotation +-30 degrees, scale 0.75 to 1.25.
    """

    scale: tuple[float, float] = (0.75, 1.25)
    degrees: float = 30.0
    rotate_probability: float = 1.0
    shift: float = 0.0
    flip_probability: float = 0.5
    distribution: Literal["uniform", "normal"] = "uniform"
    zoom: tuple[float, float] = (1.5, 3.0)
    zoom_probability: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("scale", 0.0), ("zoom", 1.0)):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            low, high = getattr(self, name)
            if not (least <= low <= high and low > 0):
                above = "1 <= low" if least else "0 < low"
                raise ValueError(
                    f"RandomAffine.{name} must be (low, high) with {above} <= high, got {getattr(self, name)}."
                )
        for name in ("rotate_probability", "flip_probability", "zoom_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"RandomAffine.{name} must be within 0 and 1, got {getattr(self, name)}.")
        for name in ("degrees", "shift"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"RandomAffine.{name} must be 0 or more, got {getattr(self, name)}.")
        if self.distribution not in ("uniform", "normal"):
            raise ValueError(f"RandomAffine.distribution must be 'uniform' or 'normal', got {self.distribution!r}.")

    @property
    def largest_scale(self) -> float:
        """The largest scale that a draw can have."""
        return self.scale[1] * (self.zoom[1] if self.zoom_probability else 1.0)

    def reach(self, size_wh: tuple[int, int]) -> tuple[float, float]:
        """Return how far from the crop's middle a draw can see: half width and half height, crop pixels, at scale 1.

        A draw at scale s sees this divided by s; no draw sees more. A zoomed one sees a part of it, anywhere in it.
        """
        half_w, half_h = (side * (0.5 + self.shift) for side in size_wh)
        largest = 0.0 if self.rotate_probability == 0 else self.degrees
        largest = np.deg2rad(min(2 * largest if self.distribution == "normal" else largest, 90.0))
        x, y = (  # extent of a rotated rectangle; largest where the diagonal lies along the axis
            np.hypot(a, b) if largest >= np.arctan2(b, a) else a * np.cos(largest) + b * np.sin(largest)
            for a, b in ((half_w, half_h), (half_h, half_w))
        )
        return float(x), float(y)

    def draw(self, size_wh: tuple[int, int], rng: np.random.Generator, *, mirror: bool = True) -> Affine:
        """Draw a map from the crop's pixels to the augmented crop's pixels; it never flips without ``mirror``."""
        low, high = self.scale
        if self.distribution == "uniform":
            scale, degrees = rng.uniform(low, high), rng.uniform(-self.degrees, self.degrees)
        else:
            scale = np.clip(rng.normal(1.0, (high - low) / 2), low, high)
            degrees = np.clip(rng.normal(0.0, self.degrees), -2 * self.degrees, 2 * self.degrees)
        rotated, flipped = rng.random() < self.rotate_probability, rng.random() < self.flip_probability
        shift = rng.uniform(-self.shift, self.shift, 2) * np.asarray(size_wh)
        center = ((size_wh[0] - 1) / 2, (size_wh[1] - 1) / 2)
        drawn = Affine.about(
            center, scale=float(scale), degrees=float(degrees) if rotated else 0.0, shift_xy=(shift[0], shift[1])
        )
        if flipped and mirror:  # drawn in any case, so that later numbers do not depend on it
            drawn = Affine.flip(size_wh[0]).then(drawn)
        if self.zoom_probability and rng.random() < self.zoom_probability:
            zoom = float(rng.uniform(*self.zoom))
            # the middle of the part, as far from that of the whole as possible
            aside = rng.uniform(-0.5, 0.5, 2) * np.asarray(size_wh) * (1 - 1 / zoom)
            drawn = drawn.then(Affine.about(center, scale=zoom, shift_xy=(-zoom * aside[0], -zoom * aside[1])))
        return drawn

    def choose_view(self, view: View, person: Instances, spec: InputSpec, rng: np.random.Generator) -> View:
        """Return the view with a drawn map after it; see ``ViewTransform``."""
        return view.then(self.draw(view.size_wh, rng, mirror=person.skeleton.mirrors))
