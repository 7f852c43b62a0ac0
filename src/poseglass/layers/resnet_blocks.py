"""The post-activation residual blocks of ResNet, as used by ResNet and HRNet.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385,
figure 5. How this differs: the stride of a bottleneck is in its 3x3 convolution, as in fb.resnet.torch and every port
to PyTorch; the paper has it in the first 1x1.
"""

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions added to their input; ReLU follows the addition.

    Args:
        in_channels: Channels of the input.
        width: Channels inside and of the output.
        stride: Stride of the first convolution and of the shortcut.
        dilations: Dilations of the first convolution (before the stride) and of the second (after it).

    Attributes:
        expansion: Output channels per ``width``.

    Source:
        He et al. 2016, figure 5 left.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.inside1 = ConvNorm(in_channels, width, 3, stride=stride, dilation=dilations[0])
        self.inside2 = ConvNorm(width, width, 3, dilation=dilations[1], activation="none")
        self.shortcut = _shortcut(in_channels, width, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, width, h / stride, w / stride)``."""
        inside = self.inside2(self.inside1(features))
        return functional.relu(inside + (features if self.shortcut is None else self.shortcut(features)), inplace=True)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 added to their input; ReLU follows the addition.

    Args:
        in_channels: Channels of the input.
        width: Channels of the first two convolutions; the output has four times as many.
        stride: Stride of the 3x3 convolution and of the shortcut.
        dilations: Dilation before the stride (of the 3x3 convolution) and after it (only 1x1 convolutions, so it has no
            effect).

    Attributes:
        expansion: Output channels per ``width``.

    Source:
        He et al. 2016, figure 5 right.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.inside1 = ConvNorm(in_channels, width, 1)
        self.inside2 = ConvNorm(width, width, 3, stride=stride, dilation=dilations[0])
        self.inside3 = ConvNorm(width, self.expansion * width, 1, activation="none")
        self.shortcut = _shortcut(in_channels, self.expansion * width, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, 4 * width, h / stride, w / stride)``."""
        inside = self.inside3(self.inside2(self.inside1(features)))
        return functional.relu(inside + (features if self.shortcut is None else self.shortcut(features)), inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> ConvNorm | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride=stride, activation="none")
