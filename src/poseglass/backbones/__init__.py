"""Layer 2: images to features at several resolutions."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from poseglass.backbones.clcnet import clcnet_a, clcnet_b
from poseglass.backbones.deeply_fused import deeply_fused
from poseglass.backbones.dla import dla34
from poseglass.backbones.efficientnet_lite import (
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    efficientnet_lite3,
    efficientnet_lite4,
)
from poseglass.backbones.hrnet import HRNet
from poseglass.backbones.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from poseglass.backbones.residual_path import ResidualPath
from poseglass.backbones.resnet import resnet18, resnet34, resnet50, resnet101, resnet152


class Backbone(Protocol):
    """The interface of every backbone; through it any neck fits any backbone.

    Attributes:
        channels: Channels of each level, finest first.
        strides: Input pixels per feature pixel of each level, finest first.
        divisor: Both sides of an input must be divisible by it.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    divisor: int

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to one ``(B, channels[i], H / strides[i], W / strides[i])`` per level, finest first."""
        ...


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
    "efficientnet_lite3": efficientnet_lite3,
    "efficientnet_lite4": efficientnet_lite4,
    "clcnet_a": clcnet_a,
    "clcnet_b": clcnet_b,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "residual_path": ResidualPath,
    "hrnet": HRNet,
    "dla34": dla34,
    "deeply_fused": deeply_fused,
}
