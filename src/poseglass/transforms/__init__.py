"""Floor 1: changes of a sample. Geometry draws maps, colour changes pixels; the generator is passed in."""

from collections.abc import Callable

import numpy as np

from poseglass.transforms.color import ColorJitter, Occlusion
from poseglass.transforms.geometry import RandomAffine, warp
from poseglass.transforms.half_body import HalfBody

Photometric = Callable[[np.ndarray, np.random.Generator], np.ndarray]

TRANSFORMS: dict[str, type] = {
    "random_affine": RandomAffine,
    "half_body": HalfBody,
    "color_jitter": ColorJitter,
    "occlusion": Occlusion,
}

__all__ = ["TRANSFORMS", "ColorJitter", "HalfBody", "Occlusion", "Photometric", "RandomAffine", "warp"]
