"""A convolution with batch norm and an activation, and a separable version of it."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "hardswish", "none"]


def activate(features: Tensor, activation: Activation) -> Tensor:
    """Apply ReLU (in place), h-swish ``x * relu6(x + 3) / 6``, or no activation."""
    if activation == "relu":
        return functional.relu(features, inplace=True)
    return functional.hardswish(features) if activation == "hardswish" else features


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm, and an activation; padded so that odd kernels keep the size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel, odd.
        stride: Stride of the convolution.
        dilation: Dilation of the convolution.
        groups: Groups of the convolution; ``in_channels`` makes it depthwise.
        activation: Activation after the norm.
        eps: Epsilon of the norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation = "relu",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=eps)
        self.activation: Activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h / stride, w / stride)``."""
        return activate(self.norm(self.conv(features)), self.activation)


class SeparableConvNorm(nn.Module):
    """A 3x3 convolution split into a depthwise and a 1x1 convolution, each with batch norm and ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.

    Source:
        Howard et al. 2017 (MobileNet), section 3.1, https://arxiv.org/abs/1704.04861.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(in_channels, in_channels, 3, groups=in_channels)
        self.pointwise = ConvNorm(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``."""
        return self.pointwise(self.depthwise(features))
