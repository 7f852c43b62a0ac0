"""Transposed convolutions on top of the coarsest level: the neck of SimpleBaseline.

Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, https://arxiv.org/abs/1804.06208.
Layer details from microsoft/human-pose-estimation.pytorch (MIT). It does not differ from the paper.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


class Deconv(nn.Module):
    """Transposed convolutions, each 4x4 with stride 2, batch norm and ReLU.

    They are initialised from N(0, 0.001), as in the paper.

    Args:
        channels: Channels of the backbone's levels; only the last is used.
        strides: Strides of the backbone's levels.
        num_layers: Number of layers; each doubles the resolution.
        width: Channels of every layer.

    Attributes:
        out_channels, out_stride: As in every neck.

    Raises:
        ValueError: Fewer than one layer or channel, or more doublings than the coarsest stride allows.

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
                f"stride {strides[-1]}. Use fewer layers."
            )
        self.layers = nn.Sequential(*(_layer(width if i else channels[-1], width) for i in range(num_layers)))
        self.out_channels = width
        self.out_stride = strides[-1] // 2**num_layers

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map levels, finest first, to ``(B, width, h * 2**num_layers, w * 2**num_layers)``; h, w: the last level's."""
        return self.layers(levels[-1])


def _layer(in_channels: int, width: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(in_channels, width, 4, stride=2, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=0.001)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True)))
