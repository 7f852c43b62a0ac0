"""ResNet 18 to 152: features at strides 4, 8, 16 and 32, or with dilation none coarser than 8 or 16.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385.
Dilation in place of stride: Chen et al., "DeepLab", https://arxiv.org/abs/1606.00915, section 3.1, and Insafutdinov et
al., "DeeperCut", ECCV 2016, https://arxiv.org/abs/1605.03170, section 3.

How this differs from the paper: the stride of a bottleneck is in its 3x3 convolution, as in the PyTorch ports whose
weights are public. There is no classifier.
"""

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.resnet_blocks import BasicBlock, Bottleneck

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""Type and number of the blocks of conv2_x to conv5_x, by depth; He et al. 2016, table 1."""


class ResNet(nn.Module):
    """Images to C2, C3, C4 and C5. Kaiming initialisation (https://arxiv.org/abs/1502.01852, section 2.2).

    Args:
        depth: 18, 34, 50, 101 or 152.
        width: Channels of the stem and inside the first stage; each later stage doubles them.
        output_stride: Stride of C5: 32, 16 or 8. With 16 or 8, the last one or two stages keep their input's resolution
            and their 3x3 convolutions are dilated by 2, then 4, instead. The tensors are the same, and so are the
            features at the positions that the strided network computes.

    Attributes:
        channels, strides, divisor: As in every backbone.

    Raises:
        ValueError: An unsupported depth or output stride, or a width below 1.
    """

    def __init__(self, depth: int = 50, *, width: int = 64, output_stride: int = 32) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"ResNet: depth must be one of {', '.join(map(str, BLOCKS))}, got {depth!r}.")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"ResNet: output_stride must be 8, 16 or 32, got {output_stride!r}.")
        if width < 1:
            raise ValueError(f"ResNet: width must be at least 1, got {width!r}.")
        block, counts = BLOCKS[depth]
        self.stem = ConvNorm(3, width, 7, stride=2)
        self.stages = nn.ModuleList()
        channels: list[int] = []
        strides, in_channels, dilation = [4], width, 1
        for i, count in enumerate(counts):
            stride, before = (1 if i == 0 else 2), dilation
            if strides[-1] * stride > output_stride:
                stride, dilation = 1, 2 * dilation
            stage = nn.Sequential()
            for j in range(count):
                dilations = (before if j == 0 else dilation, dilation)
                stage.append(block(in_channels, width * 2**i, stride=stride if j == 0 else 1, dilations=dilations))
                in_channels = block.expansion * width * 2**i
            self.stages.append(stage)
            channels.append(in_channels)
            strides.append(strides[-1] * stride)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.channels: tuple[int, ...] = tuple(channels)
        self.strides: tuple[int, ...] = tuple(strides[1:])
        self.divisor = output_stride

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to ``(B, channels[i], H / strides[i], W / strides[i])`` for C2 to C5."""
        features = functional.max_pool2d(self.stem(images), 3, stride=2, padding=1)
        levels: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            levels.append(features)
        return levels


def resnet18(*, width: int = 64, output_stride: int = 32) -> ResNet:
    """ResNet-18: 11,176,512 parameters."""
    return ResNet(18, width=width, output_stride=output_stride)


def resnet34(*, width: int = 64, output_stride: int = 32) -> ResNet:
    """ResNet-34: 21,284,672 parameters."""
    return ResNet(34, width=width, output_stride=output_stride)


def resnet50(*, width: int = 64, output_stride: int = 32) -> ResNet:
    """ResNet-50: 23,508,032 parameters."""
    return ResNet(50, width=width, output_stride=output_stride)


def resnet101(*, width: int = 64, output_stride: int = 32) -> ResNet:
    """ResNet-101: 42,500,160 parameters."""
    return ResNet(101, width=width, output_stride=output_stride)


def resnet152(*, width: int = 64, output_stride: int = 32) -> ResNet:
    """ResNet-152: 58,143,808 parameters."""
    return ResNet(152, width=width, output_stride=output_stride)
