"""InputSpec: the input that a network expects: its size, how a box is cropped, and how pixels are normalised."""

from dataclasses import dataclass
from typing import Literal, get_args

from poseglass.core.affine import CropRule


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a box in an image becomes the network's input.

    Args:
        size_wh: Size of the crop, pixels.
        padding: The box is enlarged to the crop's aspect ratio, then by this factor.
        mean: Subtracted from the channels in [0, 1], in the order of ``color``.
        std: The channels in [0, 1] are divided by it, in the order of ``color``.
        color: The channel order that the network expects.
        crop: How the enlarged box maps to the crop, a rule of ``Affine.crop``.

    Raises:
        ValueError: A size below 1, a padding or std that is not positive, an unknown channel order or crop rule.
    """

    size_wh: tuple[int, int] = (256, 256)
    padding: float = 1.25
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    color: Literal["rgb", "bgr"] = "rgb"
    crop: CropRule = "edges"

    def __post_init__(self) -> None:
        for name in ("size_wh", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size_wh) != 2 or any(int(s) != s or s < 1 for s in self.size_wh):
            raise ValueError(f"InputSpec.size_wh must be two whole numbers above 0, got {self.size_wh}.")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(
                f"InputSpec.mean and std must have 3 numbers (one per channel), got {self.mean} and {self.std}."
            )
        if self.color not in ("rgb", "bgr"):
            raise ValueError(f"InputSpec.color must be 'rgb' or 'bgr', got {self.color!r}.")
        if self.crop not in get_args(CropRule):
            raise ValueError(f"InputSpec.crop must be one of {', '.join(get_args(CropRule))}, got {self.crop!r}.")
        if self.crop == "udp" and min(self.size_wh) < 2:
            raise ValueError(f"InputSpec.crop 'udp' needs sides of at least 2 pixels, got {self.size_wh}.")
        if not self.padding > 0 or any(not s > 0 for s in self.std):
            raise ValueError(f"InputSpec.padding and std must be positive, got {self.padding} and {self.std}.")

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size_wh[0] / self.size_wh[1]
