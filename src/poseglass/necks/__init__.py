"""Layer 2: features at several resolutions to one map of features."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from poseglass.necks.deconv import Deconv
from poseglass.necks.fpn import FPN
from poseglass.necks.level import Level
from poseglass.necks.unet import UNetNeck
from poseglass.necks.upsample import Upsample


class Neck(Protocol):
    """What every neck has. Its constructor takes a backbone's ``channels`` and ``strides`` first.

    Attributes:
        out_channels: Of the features it gives.
        out_stride: Input pixels per feature pixel.
    """

    out_channels: int
    out_stride: int

    def __call__(self, levels: list[Tensor]) -> Tensor:
        """Map a backbone's levels, finest first, to ``(B, out_channels, H / out_stride, W / out_stride)``."""
        ...


NECKS: dict[str, Callable[..., nn.Module]] = {
    "upsample": Upsample,
    "fpn": FPN,
    "unet": UNetNeck,
    "deconv": Deconv,
    "level": Level,
}
