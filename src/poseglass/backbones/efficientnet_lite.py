"""EfficientNet-Lite: inverted residuals scaled in depth and width together, without what small processors do badly.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946, for the network and its scaling; Liu, "Higher accuracy on vision models with
EfficientNet-Lite", TensorFlow blog, March 2020, for the Lite variants. Reference code:
ml-illustrated/EfficientNet-Lite-PyTorch (Apache-2.0), a conversion of tensorflow/tpu (Apache-2.0); written from the
paper and tables of their layers and counts.

How Lite differs from the paper: ReLU6 in place of swish, no squeeze-and-excitation, the stem has 32 channels at every
scale, and the first and last stages are not repeated more often. How this differs from the public code: the
classification tail (the 1x1 convolution to 1280 channels, pooling, 1000 classes) is omitted, since pose networks need
maps, and blocks are never dropped in training. Convolutions with stride 2 pad as TensorFlow does, with the odd pixel
below and to the right: weights trained that way compute something else with PyTorch's usual padding.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.inverted_residual import InvertedResidual
from poseglass.layers.round_channels import round_channels


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the paper's table 1, at width and depth 1.

    Args:
        repeats: Number of blocks.
        kernel_size: Kernel size of the depthwise convolutions.
        stride: Stride of the first block's depthwise convolution.
        expansion: Channels inside a block per input channel.
        out_channels: Output channels of each block.
    """

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    out_channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

STEM_CHANNELS = 32

EPS = 1e-3
"""Epsilon of batch norm in the public code."""


def stages_at(width: float, depth: float) -> tuple[Stage, ...]:
    """Return the stages of a scaled network: channels rounded to multiples of 8, repeats up to whole numbers.

    Args:
        width: Multiplier of every number of output channels.
        depth: Multiplier of the repeats of all stages but the first and the last.

    Source:
        Tan and Le 2019, section 3.3; the fixed first and last stages are those of the Lite variants.

    Example:
        >>> [(stage.repeats, stage.out_channels) for stage in stages_at(1.1, 1.2)]
        [(1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)]
    """
    ends = (0, len(STAGES) - 1)
    return tuple(
        Stage(
            stage.repeats if i in ends else math.ceil(depth * stage.repeats),
            stage.kernel_size,
            stage.stride,
            stage.expansion,
            round_channels(stage.out_channels * width),
        )
        for i, stage in enumerate(STAGES)
    )


class EfficientNetLite(nn.Module):
    """Images to up to five levels, one at each of the strides 2, 4, 8, 16 and 32.

    Args:
        width: Multiplier of the channels of every stage.
        depth: Multiplier of the number of blocks of every stage but the first and the last.
        coarsest: Stride of the last level, 4 to 32. With 16, the last two stages are left out, three quarters of the
            parameters, and a light network still starts from ImageNet.

    Attributes:
        channels: Channels of the levels, finest first; (16, 24, 40, 112, 320) at width 1.
        strides: Strides of the levels, (2, 4, 8, 16, 32).
        divisor: Both sides of an input must be divisible by it: the last stride.

    Raises:
        ValueError: A width or depth that is not positive, or a stride that is not one of a level.

    Source:
        Tan and Le 2019, table 1 and section 3.3.
    """

    def __init__(self, *, width: float = 1.0, depth: float = 1.0, coarsest: int = 32) -> None:
        super().__init__()
        if coarsest not in (4, 8, 16, 32):
            raise ValueError(f"EfficientNetLite: coarsest must be a level's stride (4, 8, 16 or 32), got {coarsest!r}.")
        for name, value in (("width", width), ("depth", depth)):
            if not value > 0:
                raise ValueError(
                    f"EfficientNetLite: {name} must be a number above 0, such as 1.0 or 1.2, got {value!r}."
                )
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2, activation="relu6", eps=EPS, same=True)
        self.blocks = nn.ModuleList()
        channels: list[int] = []
        self._shrinks: list[bool] = []
        now = STEM_CHANNELS
        for stage in stages_at(width, depth):
            if stage.stride == 2 and 2 ** (len(channels) + 1) == coarsest:
                break
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                if stride == 2:  # the features before a strided block are the last of their level
                    channels.append(now)
                self._shrinks.append(stride == 2)
                self.blocks.append(
                    InvertedResidual(
                        now,
                        now * stage.expansion,
                        stage.out_channels,
                        kernel_size=stage.kernel_size,
                        stride=stride,
                        activation="relu6",
                        eps=EPS,
                        same=True,
                    )
                )
                now = stage.out_channels
        self.channels = (*channels, now)
        self.strides = tuple(2 ** (i + 1) for i in range(len(self.channels)))
        self.divisor = self.strides[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to the levels ``(B, channels[i], H / strides[i], W / strides[i])``, finest first."""
        features, levels = self.stem(images), []
        for block, shrinks in zip(self.blocks, self._shrinks, strict=True):
            if shrinks:
                levels.append(features)
            features = block(features)
        return [*levels, features]


SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
"""Width and depth of Lite0 to Lite4."""


def efficientnet_lite0(*, coarsest: int = 32) -> EfficientNetLite:
    """EfficientNet-Lite0, published for 224 px: 2,958,848 parameters without the classification tail."""
    return EfficientNetLite(width=1.0, depth=1.0, coarsest=coarsest)


def efficientnet_lite1(*, coarsest: int = 32) -> EfficientNetLite:
    """EfficientNet-Lite1, published for 240 px: 3,723,520 parameters without the classification tail."""
    return EfficientNetLite(width=1.0, depth=1.1, coarsest=coarsest)


def efficientnet_lite2(*, coarsest: int = 32) -> EfficientNetLite:
    """EfficientNet-Lite2, published for 260 px: 4,357,952 parameters without the classification tail."""
    return EfficientNetLite(width=1.1, depth=1.2, coarsest=coarsest)


def efficientnet_lite3(*, coarsest: int = 32) -> EfficientNetLite:
    """EfficientNet-Lite3, published for 280 px: 6,422,016 parameters without the classification tail."""
    return EfficientNetLite(width=1.2, depth=1.4, coarsest=coarsest)


def efficientnet_lite4(*, coarsest: int = 32) -> EfficientNetLite:
    """EfficientNet-Lite4, published for 300 px: 11,149,568 parameters without the classification tail."""
    return EfficientNetLite(width=1.4, depth=1.8, coarsest=coarsest)
