"""clcNet: blocks of two grouped convolutions which together see every channel.

Zhang, "clcNet: Improving the Efficiency of Convolutional Neural Network using Channel Local Convolutions", CVPR 2018,
https://arxiv.org/abs/1712.06145. Reference code: dqzhang17/clcnet.torch (BSD); written from its layer table.

How this differs from the public code: global pooling and the linear layer are not part of the backbone, see
``networks/clcnet.py``; width and groups are arguments. The published weights are files of Torch7 (``.t7``), which
poseglass does not read: there are no weights for this network.
"""

import itertools

from torch import Tensor, nn

from poseglass.layers.channel_local import ChannelLocalBlock, Groups
from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.round_channels import round_channels

STEM_CHANNELS = 32

STAGE_CHANNELS = (64, 128, 256, 512, 1024)
"""Output channels of the stages of strides 2 to 32, at width 1."""


class ClcNet(nn.Module):
    """Images to five levels, one at each of the strides 2, 4, 8, 16 and 32.

    A stage is a block that widens (with stride 2 in all but the first), and ``repeats`` more of the same width.

    Args:
        repeats: Number of further blocks in the stages of strides 4, 8, 16 and 32: a, b, c and d of the paper.
        width: Multiplier of every number of channels.
        groups: Of every block, see ``ChannelLocalBlock``: "published", "cheapest", or ``(g1, g2)`` for all alike.
        interlaced: False leaves the interlaces out; with the same groups, no output then sees every channel.

    Attributes:
        channels: Channels of the levels, finest first; (64, 128, 256, 512, 1024) at width 1.
        strides: Strides of the levels, (2, 4, 8, 16, 32).
        divisor: Both sides of an input must be divisible by it, 32.

    Raises:
        ValueError: A width that is not positive, a negative number of blocks or not four of them, or groups that do not
            divide the channels.

    Source:
        Zhang 2018; ``models/clcnet.lua`` of the public code, also for the initialisation.
    """

    def __init__(
        self,
        repeats: tuple[int, int, int, int] = (1, 1, 5, 2),
        *,
        width: float = 1.0,
        groups: Groups = "published",
        interlaced: bool = True,
    ) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"ClcNet: width must be a number above 0, such as 0.5 or 1.0, got {width!r}.")
        if len(repeats) != 4 or any(int(count) != count or count < 0 for count in repeats):
            raise ValueError(
                f"ClcNet: repeats must be four whole numbers of 0 or more, such as [1, 1, 5, 2], got {repeats!r}."
            )
        stem, *stages = (round_channels(count * width) for count in (STEM_CHANNELS, *STAGE_CHANNELS))
        self.stem = ConvNorm(3, stem, 3, stride=2)
        self.stages = nn.ModuleList()
        for i, (before, made) in enumerate(itertools.pairwise((stem, *stages))):
            blocks = [(before, 1 if i == 0 else 2), *[(made, 1)] * (repeats[i - 1] if i else 0)]
            self.stages.append(
                nn.Sequential(
                    *(
                        ChannelLocalBlock(taken, made, stride=stride, groups=groups, interlaced=interlaced)
                        for taken, stride in blocks
                    )
                )
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.channels = tuple(stages)
        self.strides = tuple(2 ** (i + 1) for i in range(len(stages)))
        self.divisor = self.strides[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to the levels ``(B, channels[i], H / strides[i], W / strides[i])``, finest first."""
        features = self.stem(images)
        levels: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            levels.append(features)
        return levels


def clcnet_a(*, width: float = 1.0, groups: Groups = "published", interlaced: bool = True) -> ClcNet:
    """clcNet-A, repeats (1, 1, 5, 2): 2,228,640 parameters at width 1, without the linear layer."""
    return ClcNet((1, 1, 5, 2), width=width, groups=groups, interlaced=interlaced)


def clcnet_b(*, width: float = 1.0, groups: Groups = "published", interlaced: bool = True) -> ClcNet:
    """clcNet-B, repeats (1, 1, 7, 3): 3,060,128 parameters at width 1, without the linear layer."""
    return ClcNet((1, 1, 7, 3), width=width, groups=groups, interlaced=interlaced)
