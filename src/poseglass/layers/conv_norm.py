"""A convolution with batch norm and an activation, a separable version of it, and TensorFlow's rule of padding."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.depthwise import DepthwiseConv2d

Activation = Literal["relu", "relu6", "hardswish", "none"]


def activate(features: Tensor, activation: Activation) -> Tensor:
    """Apply ReLU or ReLU6 ``min(max(x, 0), 6)`` (both in place), h-swish ``x * relu6(x + 3) / 6``, or no activation."""
    if activation == "relu":
        return functional.relu(features, inplace=True)
    if activation == "relu6":
        return functional.relu6(features, inplace=True)
    return functional.hardswish(features) if activation == "hardswish" else features


def pad_same(features: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Pad with zeros as TensorFlow's "SAME" does, so that a convolution without padding gives ``ceil(size / stride)``.

    As little as possible is added, and the odd pixel goes below and to the right: with stride 2 and an even size, a 3x3
    kernel gets (0, 1) where PyTorch's usual padding is (1, 1), and its grid lies one pixel further.

    Args:
        features: ``(B, C, h, w)``.
        kernel_size: Side of the kernel.
        stride: Stride of the convolution.

    Example:
        >>> import torch
        >>> [tuple(pad_same(torch.zeros(1, 1, side, side), 5, 2).shape[2:]) for side in (8, 7)]
        [(11, 11), (11, 11)]
    """
    before_after: list[int] = []
    for side in (features.shape[3], features.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
        before_after += [total // 2, total - total // 2]
    return functional.pad(features, before_after)


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
        same: Whether to pad as TensorFlow does, see ``pad_same``; this differs from the usual padding at stride 2 only.

    Raises:
        ValueError: ``same`` with a dilation.
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
        same: bool = False,
    ) -> None:
        super().__init__()
        if same and dilation != 1:
            raise ValueError(f"ConvNorm: same=True is for convolutions without dilation, got dilation {dilation}.")
        self.pads_first = same and stride > 1
        padding = 0 if self.pads_first else dilation * (kernel_size // 2)
        self.conv = (
            DepthwiseConv2d(in_channels, kernel_size, stride=stride, padding=padding, dilation=dilation)
            if groups == in_channels == out_channels > 1
            else nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=False
            )
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=eps)
        self.activation: Activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h / stride, w / stride)``."""
        if self.pads_first:
            features = pad_same(features, self.conv.kernel_size[0], self.conv.stride[0])
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
