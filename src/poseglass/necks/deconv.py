"""Transposed convolutions from the coarsest level up: the neck of SimpleBaseline.

Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, https://arxiv.org/abs/1804.06208.
Facts of layers: microsoft/human-pose-estimation.pytorch (MIT). It does not differ from the paper.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


class Deconv(nn.Module):
    """Transposed convolutions, each 4x4 with stride 2, BatchNorm and ReLU.

    They start from N(0, 0.001), as the paper trains them from nothing.

    Args:
        channels: Of the backbone's levels; only the last is used.
        strides: Of the backbone's levels.
        num_layers: Each doubles the resolution.
        width: Channels of every layer.

    Attributes:
        out_channels, out_stride: As every neck has them.

    Raises:
        ValueError: Fewer than one layer or channel, or more layers than halve the stride to 1.

    Source:
        Xiao et al. 2018, section 2 and figure 1(c).
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, num_layers: int = 3, width: int = 256
    ) -> None:
        super().__init__()
        if num_layers < 1 or width < 1:
            raise ValueError(f"Deconv: num_layers and width must be at least 1, got {num_layers} and {width}.")
        if strides[-1] % 2**num_layers:
            raise ValueError(
                f"Deconv: {num_layers} layers double the resolution {num_layers} times, but the coarsest level has "
                f"stride {strides[-1]}. Fewer layers would do."
            )
        self.layers = nn.Sequential(*(_layer(width if i else channels[-1], width) for i in range(num_layers)))
        self.out_channels = width
        self.out_stride = strides[-1] // 2**num_layers

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map levels, finest first, to ``(B, width, h * 2**num_layers, w * 2**num_layers)`` of the last one's size."""
        return self.layers(levels[-1])


def _layer(in_channels: int, width: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(in_channels, width, 4, stride=2, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=0.001)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True)))
