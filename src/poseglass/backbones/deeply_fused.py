"""Deeply-Fused Nets: several networks side by side, whose features are summed after every block.

Wang, Wei, Zhang, Zeng, "Deeply-Fused Nets", https://arxiv.org/abs/1605.07716, section 3.1. Written from the paper.

How this differs from the paper: the networks share a stem, and there is no classifier. The base networks are plain
(3x3 convolutions with batch norm and ReLU), as in its section 4.2; depths are arguments.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from poseglass.layers.conv_norm import ConvNorm


class DeeplyFused(nn.Module):
    """Images to four levels at the strides 4, 8, 16 and 32, each the sum of what all base networks make of the last.

    Args:
        depths: 3x3 convolutions of each base network in each of the four blocks; a shallow and a deep one by default.
        width: Channels of the first block; each later one doubles them.
        fusion: Weight of each base network in the sums; the paper's sum has 1 everywhere. With 0 everywhere but at one,
            the result is that network's.

    Attributes:
        channels, strides, divisor: As in every backbone.

    Raises:
        ValueError: No base network, blocks that are not four whole numbers above 0, a width below 1, or fusion weights
            that are not one finite number for each base network.
    """

    def __init__(
        self,
        *,
        depths: Sequence[Sequence[int]] = ((1, 1, 1, 1), (3, 3, 3, 3)),
        width: int = 32,
        fusion: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not depths or any(len(one) != 4 or any(int(n) != n or n < 1 for n in one) for one in depths):
            raise ValueError(
                "DeeplyFused takes depths as four whole numbers above 0 for each base network, such as [[1, 1, 1, 1], "
                f"[3, 3, 3, 3]]; got {[list(one) for one in depths]}."
            )
        if int(width) != width or width < 1:
            raise ValueError(f"DeeplyFused takes a width of at least 1, got {width!r}.")
        self.fusion = tuple(float(w) for w in fusion) if fusion is not None else (1.0,) * len(depths)
        if len(self.fusion) != len(depths) or not all(map(math.isfinite, self.fusion)):
            raise ValueError(
                f"DeeplyFused takes one finite fusion weight for each of its {len(depths)} base networks, got "
                f"{list(self.fusion)}."
            )
        self.stem = ConvNorm(3, width, 3, stride=2)
        self.channels: tuple[int, ...] = tuple(width * 2**i for i in range(4))
        self.strides: tuple[int, ...] = (4, 8, 16, 32)
        self.divisor = 32
        self.blocks = nn.ModuleList()
        before = width
        for level, channels in enumerate(self.channels):
            self.blocks.append(nn.ModuleList(_block(before, channels, one[level]) for one in depths))
            before = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to ``(B, channels[i], H / strides[i], W / strides[i])``, finest first."""
        features = self.stem(images)
        levels: list[Tensor] = []
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            parts = [weight * base(features) for weight, base in zip(self.fusion, block, strict=True)]
            features = parts[0]
            for part in parts[1:]:
                features = features + part
            levels.append(features)
        return levels


def _block(in_channels: int, channels: int, depth: int) -> nn.Sequential:
    first = ConvNorm(in_channels, channels, 3, stride=2)
    return nn.Sequential(first, *(ConvNorm(channels, channels, 3) for _ in range(depth - 1)))


def deeply_fused(
    *,
    depths: Sequence[Sequence[int]] = ((1, 1, 1, 1), (3, 3, 3, 3)),
    width: int = 32,
    fusion: Sequence[float] | None = None,
) -> DeeplyFused:
    """A shallow and a deep plain network, fused: 2,364,064 parameters."""
    return DeeplyFused(depths=depths, width=width, fusion=fusion)
