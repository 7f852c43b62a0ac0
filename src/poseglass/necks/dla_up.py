"""Iterative deep aggregation of a backbone's levels, as CenterNet upsamples DLA-34.

Yu, Wang, Shelhamer, Darrell, "Deep Layer Aggregation", CVPR 2018, https://arxiv.org/abs/1707.06484, sections 3.1 and
4.2. Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, section 5 and figure 6(d),
with connections from lower levels and sums in place of concatenation. Layer details from xingyizhou/CenterNet (MIT).
Written from the papers and tables of layers.

How this differs from CenterNet: its 3x3 convolutions are deformable; these are plain, so published weights do not fit.
With plain convolutions put into the published code, both compute the same.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.pyramid import levels_from


class Merge(nn.Module):
    """A coarser map is convolved and upsampled, added to a finer one, and the sum is convolved.

    Args:
        in_channels: Channels of the coarser map.
        width: Channels of the finer map and of the output.
        factor: Ratio of their resolutions.

    Source:
        Zhou et al. 2019, figure 6(d).
    """

    def __init__(self, in_channels: int, width: int, factor: int) -> None:
        super().__init__()
        self.project = ConvNorm(in_channels, width, 3)
        self.up = _bilinear(width, factor) if factor > 1 else None
        self.node = ConvNorm(width, width, 3)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Map ``(B, width, h, w)`` and ``(B, in_channels, h / factor, w / factor)`` to ``(B, width, h, w)``."""
        made = self.project(coarse)
        return self.node(fine + (made if self.up is None else self.up(made)))


class DLAUp(nn.Module):
    """One step per level, from the second coarsest to the finest; then the results of all steps are merged.

    A step has the maps of the coarser levels: the next level itself, and all that the previous step made. Each is
    brought to the resolution and the channels of the step's level and merged with the one before it, beginning with the
    level itself. The last map made is the step's result.

    Args:
        channels: Channels of the backbone's levels, finest first.
        strides: Strides of those levels.
        out_stride: Stride of the output, and of the finest level that is used; finer levels are ignored.

    Attributes:
        out_channels: Channels of the level of stride ``out_stride``.
        out_stride: As given.

    Raises:
        ValueError: No level has stride ``out_stride``, or none is coarser.

    Source:
        Yu et al. 2018, sections 3.1 and 4.2; Zhou et al. 2019, figure 6(d).
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, out_stride: int = 4) -> None:
        super().__init__()
        first, factors = levels_from(tuple(strides), out_stride, "DLAUp")
        if not factors:
            raise ValueError(
                f"DLAUp merges the level of stride {out_stride} with coarser ones, but the backbone has none. Use a "
                'backbone with more levels, or the neck "level".'
            )
        self._first = first
        widths = list(channels[first:])
        self.out_channels, self.out_stride = widths[0], out_stride
        self.steps = nn.ModuleList()
        for i in reversed(range(len(factors))):
            # All maps of a step have the resolution and the channels of the next coarser level; each step has one more.
            merges = (Merge(widths[i + 1], widths[i], factors[i]) for _ in range(len(factors) - i))
            self.steps.append(nn.ModuleList(merges))
        factor, self.last = 1, nn.ModuleList()
        for i in range(1, len(factors)):
            factor *= factors[i - 1]
            self.last.append(Merge(widths[i], widths[0], factor))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map a backbone's levels, finest first, to ``(B, out_channels, H / out_stride, W / out_stride)``."""
        used = levels[self._first :]
        maps, results = [used[-1]], list[Tensor]()
        for step, level in zip(self.steps, reversed(used[:-1]), strict=True):
            assert isinstance(step, nn.ModuleList)
            maps = _merged(step, level, maps)
            results.insert(0, maps[-1])
            maps = [level, *maps]
        return _merged(self.last, results[0], results[1:])[-1] if results[1:] else results[0]


def _merged(merges: nn.ModuleList, fine: Tensor, coarser: Sequence[Tensor]) -> list[Tensor]:
    """Return the result after each merge; each adds the result of the one before it, beginning with ``fine``."""
    made: list[Tensor] = []
    for merge, coarse in zip(merges, coarser, strict=True):
        made.append(merge(made[-1] if made else fine, coarse))
    return made


def _bilinear(width: int, factor: int) -> nn.ConvTranspose2d:
    """Return a learned upsampling of every channel by itself, which starts as bilinear interpolation.

    Long, Shelhamer, Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.3. The kernel has no bias.
    """
    size = 2 * factor - factor % 2
    padding = math.ceil((factor - 1) / 2)
    up = nn.ConvTranspose2d(width, width, size, stride=factor, padding=padding, groups=width, bias=False)
    falling = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    with torch.no_grad():
        up.weight.copy_(torch.outer(falling, falling).expand_as(up.weight))
    return up
