"""The post-activation residual blocks of ResNet, as ResNet and HRNet stack them, and the convolution around them.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385,
figure 5. How this differs: the stride of a bottleneck is in its 3x3 convolution, as in fb.resnet.torch and every port
to PyTorch; the paper has it in the first 1x1.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional


def conv_norm(
    in_channels: int, out_channels: int, size: int, *, stride: int = 1, dilation: int = 1, relu: bool = False
) -> nn.Sequential:
    """Return a convolution without bias that keeps its input's size but for the stride, BatchNorm, and maybe ReLU."""
    padding = dilation * (size // 2)
    conv = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=padding, dilation=dilation, bias=False)
    parts: dict[str, nn.Module] = {"conv": conv, "norm": nn.BatchNorm2d(out_channels)}
    if relu:
        parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(OrderedDict(parts))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions added to their input; ReLU follows the addition.

    Args:
        in_channels: Of the input.
        width: Channels inside and of the output.
        stride: Of the first convolution and of the shortcut.
        dilations: Of what sees the features before the stride (the first convolution) and after it (the second).

    Attributes:
        expansion: Output channels per ``width``.

    Source:
        He et al. 2016, figure 5 left.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.inside1 = conv_norm(in_channels, width, 3, stride=stride, dilation=dilations[0], relu=True)
        self.inside2 = conv_norm(width, width, 3, dilation=dilations[1])
        self.shortcut = _shortcut(in_channels, width, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, width, h / stride, w / stride)``."""
        inside = self.inside2(self.inside1(features))
        return functional.relu(inside + (features if self.shortcut is None else self.shortcut(features)), inplace=True)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 added to their input; ReLU follows the addition.

    Args:
        in_channels: Of the input.
        width: Channels of the first two convolutions; the output has four times as many.
        stride: Of the 3x3 convolution and of the shortcut.
        dilations: Of what sees the features before the stride (the 3x3 convolution) and after it (1x1 convolutions,
            to which it makes no difference).

    Attributes:
        expansion: Output channels per ``width``.

    Source:
        He et al. 2016, figure 5 right.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.inside1 = conv_norm(in_channels, width, 1, relu=True)
        self.inside2 = conv_norm(width, width, 3, stride=stride, dilation=dilations[0], relu=True)
        self.inside3 = conv_norm(width, self.expansion * width, 1)
        self.shortcut = _shortcut(in_channels, self.expansion * width, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, 4 * width, h / stride, w / stride)``."""
        inside = self.inside3(self.inside2(self.inside1(features)))
        return functional.relu(inside + (features if self.shortcut is None else self.shortcut(features)), inplace=True)


def he_initialise(network: nn.Module) -> None:
    """Draw every convolution of a network from N(0, 2 / (k * k * out_channels)).

    Source:
        He et al. 2015, "Delving Deep into Rectifiers", https://arxiv.org/abs/1502.01852, section 2.2, backward case.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    return conv_norm(in_channels, out_channels, 1, stride=stride) if stride > 1 or in_channels != out_channels else None
