"""DLA-34: residual blocks whose outputs are aggregated by a tree in every stage; features at strides 4, 8, 16 and 32.

Yu, Wang, Shelhamer, Darrell, "Deep Layer Aggregation", CVPR 2018, https://arxiv.org/abs/1707.06484. Layer details from
ucbdrive/dla (BSD-3-Clause) and xingyizhou/CenterNet (MIT). Written from the paper and tables of layers.

How this differs from the published code: there is no classifier, and the 1x1 convolutions that its trees of depth 2
create but never use do not exist. Features are the same. Of the paper's networks, only DLA-34 is built.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm


class PooledBlock(nn.Module):
    """Two 3x3 convolutions added to their input, which is max-pooled where the first convolution has a stride.

    ResNet's basic block (``layers/resnet_blocks.py``) has a strided 1x1 convolution on its shortcut instead.

    Args:
        in_channels: Channels of the input.
        width: Channels inside and of the output.
        stride: Stride of the first convolution and of the pooling.

    Source:
        He et al. 2016, figure 5 left, for the block; the pooling is from the published code.
    """

    def __init__(self, in_channels: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.inside1 = ConvNorm(in_channels, width, 3, stride=stride)
        self.inside2 = ConvNorm(width, width, 3, activation="none")
        self.shortcut = None if in_channels == width else ConvNorm(in_channels, width, 1, activation="none")

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, width, h / stride, w / stride)``."""
        inside = self.inside2(self.inside1(features))
        beside = functional.max_pool2d(features, self.stride) if self.stride > 1 else features
        return functional.relu(inside + (beside if self.shortcut is None else self.shortcut(beside)), inplace=True)


class Tree(nn.Module):
    """Hierarchical deep aggregation: ``2**depth`` blocks in sequence, and ``2**(depth - 1)`` roots that join them.

    A root is a 1x1 convolution over the outputs of two blocks and of all completed trees to their left. A root's output
    is the input of the next block, so there is one path through all blocks.

    Args:
        depth: Depth of the tree.
        in_channels: Channels of the input.
        width: Channels of every block and of the output.
        stride: Stride of the first block.
        carried: Channels of the other features that the last root reads.

    Source:
        Yu et al. 2018, section 3.2 and figure 2(f).
    """

    def __init__(self, depth: int, in_channels: int, width: int, *, stride: int = 1, carried: int = 0) -> None:
        super().__init__()
        self.root: ConvNorm | None = None
        if depth == 1:
            self.first: nn.Module = PooledBlock(in_channels, width, stride=stride)
            self.second: nn.Module = PooledBlock(width, width)
            self.root = ConvNorm(2 * width + carried, width, 1)
        else:
            self.first = Tree(depth - 1, in_channels, width, stride=stride)
            self.second = Tree(depth - 1, width, width, carried=carried + width)

    def forward(self, features: Tensor, carried: Sequence[Tensor] = ()) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, width, h / stride, w / stride)``, the size of all ``carried`` features."""
        first = self.first(features)
        if self.root is None:
            return self.second(first, [*carried, first])
        return self.root(torch.cat([self.second(first), first, *carried], dim=1))


class DLA(nn.Module):
    """Images to the outputs of four trees. Kaiming initialisation, as in ``resnet.py``.

    Args:
        depths: Depths of the four trees.
        width: Channels of the stem, at the input's resolution. The convolutions to stride 2 and each of the trees
            double it: the finest level has four times as many.

    Attributes:
        channels, strides, divisor: As in every backbone.

    Raises:
        ValueError: Not four depths, or a depth or width below 1.

    Source:
        Yu et al. 2018, section 4.1 and table 1.
    """

    def __init__(self, depths: Sequence[int] = (1, 2, 2, 1), *, width: int = 16) -> None:
        super().__init__()
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(
                f"DLA: depths must be four numbers of at least 1, for strides 4, 8, 16 and 32, got {list(depths)}."
            )
        if width < 1:
            raise ValueError(f"DLA: width must be at least 1, got {width!r}.")
        self.stem = nn.Sequential(
            ConvNorm(3, width, 7), ConvNorm(width, width, 3), ConvNorm(width, 2 * width, 3, stride=2)
        )
        self.trees = nn.ModuleList()
        channels: list[int] = []
        in_channels = 2 * width
        for i, depth in enumerate(depths):
            # The last root also reads the stage's input, which aggregates the stages; the first has no stage before it.
            carried = in_channels if i else 0
            self.trees.append(Tree(depth, in_channels, 2 * in_channels, stride=2, carried=carried))
            in_channels *= 2
            channels.append(in_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.channels: tuple[int, ...] = tuple(channels)
        self.strides: tuple[int, ...] = (4, 8, 16, 32)
        self.divisor = 32

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to ``(B, channels[i], H / strides[i], W / strides[i])`` per level, finest first."""
        features = self.stem(images)
        levels: list[Tensor] = []
        for tree in self.trees:
            features = tree(features, [functional.max_pool2d(features, 2)] if levels else [])
            levels.append(features)
        return levels


def dla34(*, width: int = 16) -> DLA:
    """DLA-34: 15,229,104 parameters; a classifier of 1000 classes would add 513,000."""
    return DLA((1, 2, 2, 1), width=width)
