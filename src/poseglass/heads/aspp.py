"""ASPP, and R-ASPP, which is ASPP without the dilated convolutions.

ASPP: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (DeepLabv3), 2017,
https://arxiv.org/abs/1706.05587, section 3.3. R-ASPP: Sandler et al., "MobileNetV2", CVPR 2018,
https://arxiv.org/abs/1801.04381, section 6.3. Reference code: torchvision (BSD).

How this differs from the paper: as in torchvision, ASPP has a 3x3 convolution between the projection and the classes,
and half of the projection is left out in training.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poseglass.layers.conv_norm import ConvNorm


class AsppHead(nn.Module):
    """The last level through parallel branches of different reach, joined by 1x1, then a logit per class.

    The branches are a 1x1 convolution, a dilated 3x3 convolution per rate, and the mean of the whole map.

    Args:
        channels: Channels of the backbone's levels.
        strides: Strides of the backbone's levels.
        num_classes: Number of classes, C.
        width: Channels of each branch and of the projection.
        rates: Dilations of the 3x3 convolutions; those for an output stride of 8 in the paper and at any in
            torchvision, half as large for 16 in the paper.
        refine: Whether a 3x3 convolution precedes the classes.
        dropout: Share of the projection that is left out in training.

    Attributes:
        out_stride: Input pixels per pixel of the logits, that of the last level.

    Raises:
        ValueError: Fewer than one class, a width or rate below 1, or a share outside [0, 1).
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        *,
        width: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        refine: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if num_classes < 1 or width < 1 or min(rates, default=1) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                "AsppHead takes at least 1 class, a width and rates of at least 1 and a dropout in [0, 1), got "
                f"num_classes={num_classes}, width={width}, rates={tuple(rates)}, dropout={dropout}."
            )
        self.out_stride = strides[-1]
        self.point = ConvNorm(channels[-1], width, 1)
        self.dilated = nn.ModuleList(ConvNorm(channels[-1], width, 3, dilation=rate) for rate in rates)
        self.mean = ConvNorm(channels[-1], width, 1)
        self.project = ConvNorm((2 + len(rates)) * width, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.refine = ConvNorm(width, width, 3) if refine else None
        self.classes = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map a backbone's levels, finest first, to logits ``(B, C, H / out_stride, W / out_stride)``."""
        features = levels[-1]
        mean = self.mean(features.mean((-2, -1), keepdim=True)).expand(-1, -1, *features.shape[-2:])
        branches = [self.point(features), *(branch(features) for branch in self.dilated), mean]
        joined = self.dropout(self.project(torch.cat(branches, 1)))
        return self.classes(joined if self.refine is None else self.refine(joined))


def r_aspp(
    channels: Sequence[int], strides: Sequence[int], num_classes: int, *, width: int = 256, dropout: float = 0.0
) -> AsppHead:
    """R-ASPP: the 1x1 convolution and the mean alone, without a further 3x3 convolution."""
    return AsppHead(channels, strides, num_classes, width=width, rates=(), refine=False, dropout=dropout)
