"""A convolution, batch norm and an activation."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm, an activation; odd kernels are padded to keep the size.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Side of the kernel, odd.
        stride: Of the convolution.
        activation: What follows the norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        activation: Literal["relu", "none"] = "relu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h / stride, w / stride)``."""
        features = self.norm(self.conv(features))
        return functional.relu(features, inplace=True) if self.activation == "relu" else features
