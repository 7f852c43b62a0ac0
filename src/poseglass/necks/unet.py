"""The expanding path of U-Net over any backbone: upsample, concatenate the level of that size, convolve twice.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
https://arxiv.org/abs/1505.04597. The network of the paper itself is in ``networks/unet.py``.

How this differs from the paper: the levels are a backbone's, the width is the same at every level, upsampling is
nearest-neighbour where the paper learns a transposed convolution, and convolutions are padded and have batch norm.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm, SeparableConvNorm
from poseglass.layers.pyramid import levels_from
from poseglass.layers.pyramid_pooling import PyramidPooling


class UNetNeck(nn.Module):
    """Top-down by concatenation.

    Args:
        channels: Channels of the backbone's levels, finest first.
        strides: Strides of those levels.
        width: Channels of every map inside.
        out_stride: Stride of the output, and of the finest level that is used; finer levels are ignored.
        separable: Whether the 3x3 convolutions are separable, with about an eighth of the multiply-adds.
        bins: Grids of a pyramid pooling of the coarsest level, such as [1, 2, 3, 6], see ``layers.pyramid_pooling``;
            none by default.

    Attributes:
        out_channels: ``width``.
        out_stride: As given.

    Raises:
        ValueError: No level has stride ``out_stride``, or bins that are not valid.

    Source:
        Ronneberger et al. 2015, section 2.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        width: int = 256,
        out_stride: int = 4,
        separable: bool = False,
        bins: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._first, self._factors = levels_from(strides, out_stride, "UNetNeck")
        self.out_channels, self.out_stride = width, out_stride
        used = channels[self._first :]
        conv = SeparableConvNorm if separable else ConvNorm
        self.coarsest = PyramidPooling(used[-1], width, bins) if bins else ConvNorm(used[-1], width, 1)
        self.merges = nn.ModuleList(
            nn.Sequential(conv(width + count, width), conv(width, width)) for count in used[:-1]
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map a backbone's levels, finest first, to ``(B, width, H / out_stride, W / out_stride)``."""
        used = levels[self._first :]
        features = self.coarsest(used[-1])
        for i in reversed(range(len(self._factors))):
            features = functional.interpolate(features, scale_factor=float(self._factors[i]), mode="nearest")
            features = self.merges[i](torch.cat([used[i], features], dim=1))
        return features
