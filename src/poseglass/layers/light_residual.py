"""Residuals that can take the place of the hourglass's bottleneck and cost less: depthwise separable, and dense.

With f channels in and out, the bottleneck has 3.25 f^2 + 6 f parameters, the depthwise one 1.25 f^2 + 10.5 f, the dense
one 137/64 f^2 + 57/8 f. All three have the same input and output, and all begin with a norm.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.depthwise import DepthwiseConv2d
from poseglass.layers.residual import PreActivationResidual, check_widths


class DepthwiseResidual(nn.Module):
    """The bottleneck with its 3x3 convolution split into a depthwise and a 1x1 convolution.

    Nothing is between the two, as in Xception: batch norm and ReLU come before the depthwise one.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, even.

    Raises:
        ValueError: Fewer than one channel, or ``out_channels`` is odd.

    Source:
        The split: Howard et al. 2017, section 3.1, https://arxiv.org/abs/1704.04861; without an activation in between:
        Chollet 2017 (Xception), https://arxiv.org/abs/1610.02357. Its use here is our own.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_widths("depthwise", in_channels, out_channels, multiple=2)
        middle = out_channels // 2
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, middle, 1)
        self.norm2 = nn.BatchNorm2d(middle)
        self.depthwise = DepthwiseConv2d(middle, 3, padding=1)
        self.pointwise = nn.Conv2d(middle, middle, 1)
        self.norm3 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out_channels, 1)
        self.adapt = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``."""
        inside = self.conv1(functional.relu(self.norm1(features), inplace=True))
        inside = self.pointwise(self.depthwise(functional.relu(self.norm2(inside), inplace=True)))
        inside = self.conv3(functional.relu(self.norm3(inside), inplace=True))
        return inside + (features if self.adapt is None else self.adapt(features))


class DenseResidual(nn.Module):
    """Three narrow 3x3 convolutions, each of which sees everything before it, fused by 1x1 and added to the input.

    1x1 to a quarter of the output's width; three 3x3 convolutions that add an eighth each; 1x1 of all of them to the
    output's width. Batch norm and ReLU come before every convolution. The view of one block is 7 pixels wide, where
    that of a bottleneck is 3.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of 8.

    Raises:
        ValueError: Fewer than one channel, or ``out_channels`` is no multiple of 8.

    Source:
        Dense connections: Huang et al. 2017, https://arxiv.org/abs/1608.06993; fused by 1x1 and added to the input:
        Zhang et al. 2018 (residual dense networks), https://arxiv.org/abs/1802.08797. The widths are our own.
    """

    LAYERS = 3

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_widths("dense", in_channels, out_channels, multiple=8)
        narrow, growth = out_channels // 4, out_channels // 8
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, narrow, 1)
        widths = [narrow + i * growth for i in range(self.LAYERS + 1)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1) for width in widths[:-1])
        self.norm3 = nn.BatchNorm2d(widths[-1])
        self.conv3 = nn.Conv2d(widths[-1], out_channels, 1)
        self.adapt = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``."""
        inside = self.conv1(functional.relu(self.norm1(features), inplace=True))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            inside = torch.cat([inside, conv(functional.relu(norm(inside), inplace=True))], 1)
        inside = self.conv3(functional.relu(self.norm3(inside), inplace=True))
        return inside + (features if self.adapt is None else self.adapt(features))


RESIDUALS: dict[str, type[PreActivationResidual] | type[DepthwiseResidual] | type[DenseResidual]] = {
    "bottleneck": PreActivationResidual,
    "depthwise": DepthwiseResidual,
    "dense": DenseResidual,
}
"""The residuals by the names that hourglasses and the backbone ``residual_path`` take."""

WIDTH_MULTIPLE = {"bottleneck": 4, "depthwise": 4, "dense": 16}
"""What the width of a network must be a multiple of, whose stem goes from a quarter over a half to it."""


def check_block(who: str, block: str, width: int) -> None:
    """Raise unless ``RESIDUALS`` has such a block and a stem of it can lead to such a width.

    Raises:
        ValueError: An unknown block, a width below one, or one that is not a multiple of ``WIDTH_MULTIPLE``.
    """
    if block not in RESIDUALS:
        raise ValueError(f"{who}: block must be 'bottleneck', 'depthwise' or 'dense', got {block!r}.")
    multiple = WIDTH_MULTIPLE[block]
    if width < 1 or width % multiple:
        why = "the stem starts at width/4" if multiple == 4 else "dense residuals add an eighth of width/2 at a time"
        raise ValueError(f"{who}: width must be a multiple of {multiple} ({why}), got {width}.")
