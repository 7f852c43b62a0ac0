"""Layer 2: features at several resolutions to a single feature map."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from poseglass.necks.deconv import Deconv
from poseglass.necks.dla_up import DLAUp
from poseglass.necks.fpn import FPN
from poseglass.necks.level import Level
from poseglass.necks.unet import UNetNeck
from poseglass.necks.upsample import Upsample


class Neck(Protocol):
    """The interface of every neck. The constructor takes a backbone's ``channels`` and ``strides`` first.

    Attributes:
        out_channels: Channels of the output features.
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
    "dla_up": DLAUp,
}
