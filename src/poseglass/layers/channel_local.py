"""Interlaced grouped convolution, the block made of it, and what the numbers of its groups cost.

Zhang, "clcNet: Improving the Efficiency of Convolutional Neural Network using Channel Local Convolutions", CVPR 2018,
https://arxiv.org/abs/1712.06145. Reference code: dqzhang17/clcnet.torch (BSD).

A channel local convolution is one whose output channels depend on a part of the input channels. The block stacks two of
them: a 3x3 convolution in ``g1`` groups whose output is interlaced, and a 1x1 convolution in ``g2`` groups. With M, L
and N channels before, between and behind them, an output sees every input, as that of a plain convolution does, if and
only if ``g1 * g2 <= L``: a group of the 1x1 convolution holds L / g2 successive channels, which interlacing took from
the g1 groups in turns. ``networks/channel_dependency.py`` finds what a block sees by itself.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from poseglass.layers.conv_norm import ConvNorm

Groups = Literal["published", "cheapest"] | tuple[int, int]
"""``(g1, g2)``; "published" is (half the channels, 2), "cheapest" what ``cheapest_groups`` finds."""


class ChannelInterlace(nn.Module):
    """Reorder channels so that successive ones come from the groups in turns; a shuffle of ``groups`` groups.

    Output channel p is input channel ``order()[p]``: the first of every group, then the second of every group, and so
    on. It has no weights.

    Args:
        channels: Number of channels.
        groups: Number of groups of the convolution before it; divides the channels.

    Raises:
        ValueError: Fewer than one channel or group, or groups that do not divide the channels.

    Source:
        Zhang 2018, figure 5, and ``models/ChannelInterlace.lua`` of the public code.

    Example:
        >>> ChannelInterlace(6, 2).order(), ChannelInterlace(6, 2).inverse().order()
        ([0, 3, 1, 4, 2, 5], [0, 2, 4, 1, 3, 5])
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        _check_whole("ChannelInterlace", channels=channels, groups=groups)
        _check_divides("ChannelInterlace", "groups", groups, "channels", channels)
        self.num_channels, self.groups = channels, groups

    def order(self) -> list[int]:
        """Return the input channel of each output channel."""
        size = self.num_channels // self.groups
        return [group * size + place for place in range(size) for group in range(self.groups)]

    def inverse(self) -> "ChannelInterlace":
        """Return the interlace that restores the order."""
        return ChannelInterlace(self.num_channels, self.num_channels // self.groups)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, channels, h, w)`` to the same shape, in the same memory format."""
        if features.is_contiguous(memory_format=torch.channels_last):
            # Otherwise the result would be contiguous, and the next convolution would have to convert it back.
            last = features.permute(0, 2, 3, 1).unflatten(3, (self.groups, -1))
            return last.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
        return features.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class ChannelLocalBlock(nn.Module):
    """3x3 convolution in g1 groups, batch norm, interlace; 1x1 convolution in g2 groups, batch norm, ReLU.

    No activation follows the first norm, so up to the last ReLU the block is linear: in evaluation it is one dense 3x3
    convolution whose weights are products. Between the two convolutions there are as many channels as in the input.

    Args:
        in_channels: Channels of the input, M; also those in the middle, L.
        out_channels: Channels of the output, N.
        stride: Stride of the 3x3 convolution.
        groups: ``(g1, g2)``, or a rule that chooses them, see ``groups_of``. Groups with ``g1 * g2 > M`` are
            built as well: then an output does not see every input, which ``poseglass channels`` shows.
        interlaced: False leaves the interlace out, to compare.

    Attributes:
        groups: ``(g1, g2)``.

    Raises:
        ValueError: A number below one, or groups that do not divide the channels.

    Source:
        Zhang 2018, figure 6.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        groups: Groups = "published",
        interlaced: bool = True,
    ) -> None:
        super().__init__()
        g1, g2 = self.groups = groups_of(groups, in_channels, in_channels, out_channels)
        self.spatial = ConvNorm(in_channels, in_channels, 3, stride=stride, groups=g1, activation="none")
        self.interlace = ChannelInterlace(in_channels, g1) if interlaced else nn.Identity()
        self.pointwise = ConvNorm(in_channels, out_channels, 1, groups=g2)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h / stride, w / stride)``."""
        return self.pointwise(self.interlace(self.spatial(features)))


def groups_of(groups: Groups, before: int, between: int, behind: int, kernel_area: int = 9) -> tuple[int, int]:
    """Return ``(g1, g2)`` of a block.

    Args:
        groups: The numbers themselves, which are only checked; "published", g1 = L / 2 and g2 = 2, as in clcNet-A and
            B; or "cheapest", those of ``cheapest_groups``.
        before: Channels of the input, M.
        between: Channels between the convolutions, L.
        behind: Channels of the output, N.
        kernel_area: Positions of the first convolution's kernel.

    Raises:
        ValueError: A number below one, groups that do not divide the channels, or something else than two numbers or
            the name of a rule.

    Example:
        >>> groups_of("published", 512, 512, 512), groups_of("cheapest", 512, 512, 512)
        ((256, 2), (64, 8))
    """
    _check_whole("ChannelLocalBlock", in_channels=before, channels_between=between, out_channels=behind)
    if groups == "cheapest":
        return cheapest_groups(before, between, behind, kernel_area)
    if groups == "published":
        if between % 2:
            raise ValueError(
                f"ChannelLocalBlock: the published groups are half the channels and 2, got {between} channels, an odd "
                'number. Use an even width, or groups = "cheapest".'
            )
        groups = (between // 2, 2)
    if isinstance(groups, str) or len(groups) != 2:
        raise ValueError(
            f'ChannelLocalBlock: groups must be "published", "cheapest" or two numbers such as [64, 4], got {groups!r}.'
        )
    g1, g2 = groups
    _check_whole("ChannelLocalBlock", g1=g1, g2=g2)
    for name, number, count in (("g1", g1, before), ("g1", g1, between), ("g2", g2, between), ("g2", g2, behind)):
        _check_divides("ChannelLocalBlock", name, number, "channels", count)
    return g1, g2


def sees_all_channels(g1: int, g2: int, between: int) -> bool:
    """Return whether every output of a block sees every input: ``g1 * g2 <= L``.

    Args:
        g1: Groups of the interlaced convolution; divides the channels before and behind it.
        g2: Groups of the 1x1 convolution; divides the channels before and behind it.
        between: Channels between the convolutions, L.

    Source:
        Zhang 2018, the rule of the full channel receptive field and the minimised cost.

    Example:
        >>> sees_all_channels(256, 2, 512), sees_all_channels(512, 2, 512)
        (True, False)
    """
    return g1 * g2 <= between


def block_cost(g1: int, g2: int, before: int, between: int, behind: int, kernel_area: int = 9) -> int:
    """Return the multiply-adds of a block for one output pixel, ``A M L / g1 + L N / g2``.

    Source:
        Zhang 2018, the rule of the full channel receptive field and the minimised cost.

    Example:
        >>> block_cost(64, 8, 512, 512, 512), block_cost(1, 1, 512, 512, 512, kernel_area=1)
        (69632, 524288)
    """
    return kernel_area * before * between // g1 + between * behind // g2


def cheapest_groups(before: int, between: int, behind: int, kernel_area: int = 9) -> tuple[int, int]:
    """Return the ``(g1, g2)`` with the fewest multiply-adds among all whose block sees every channel.

    All divisors are tried. Without the need for whole numbers the optimum would be ``g1 = sqrt(A M L / N)`` and
    ``g2 = sqrt(N L / (A M))``, see ``least_cost``. Of equally cheap ones, that with the smaller g2 is returned.

    Args:
        before: Channels of the input, M.
        between: Channels between the convolutions, L.
        behind: Channels of the output, N.
        kernel_area: Positions of the first convolution's kernel, A: 9 for 3x3.

    Raises:
        ValueError: A number below one.

    Example:
        >>> [cheapest_groups(width, width, width) for width in (32, 128, 1024)]
        [(16, 2), (32, 4), (128, 8)]
    """
    _check_whole("cheapest_groups", before=before, between=between, behind=behind, kernel_area=kernel_area)
    first, second = _divisors(math.gcd(before, between)), _divisors(math.gcd(between, behind))
    tried = ((g1, g2) for g2 in second for g1 in first if sees_all_channels(g1, g2, between))
    return min(tried, key=lambda pair: block_cost(*pair, before, between, behind, kernel_area))


def least_cost(before: int, between: int, behind: int, kernel_area: int = 9) -> float:
    """Return the lower bound of a block's cost, ``2 sqrt(A M N L)``: the optimum over real numbers of groups.

    It follows from minimising ``A M g2 + N g1`` where ``g1 g2 = L``.

    Example:
        >>> round(least_cost(512, 512, 512))
        69511
    """
    return 2 * math.sqrt(kernel_area * before * behind * between)


class CostRow(NamedTuple):
    """Multiply-adds per output pixel of a block with ``width`` channels before, between and behind.

    Args:
        width: M = L = N.
        groups: The cheapest ``(g1, g2)``.
        cheapest: Cost with those.
        bound: Lower bound over real numbers.
        published: Cost with ``(width / 2, 2)``.
        separable: Cost of a depthwise and a dense 1x1 convolution.
        dense: Cost of a dense 3x3 convolution.
    """

    width: int
    groups: tuple[int, int]
    cheapest: int
    bound: float
    published: int
    separable: int
    dense: int


def cost_table(widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)) -> list[CostRow]:
    """Return what blocks of several widths cost with the cheapest groups, the published ones, and as other kinds.

    ``poseglass channels --costs`` prints it.

    Raises:
        ValueError: A width below one, or an odd one, for which there are no published groups.
    """
    rows: list[CostRow] = []
    for width in widths:
        best, published = (groups_of(rule, width, width, width) for rule in ("cheapest", "published"))
        cost, usual = (block_cost(*pair, width, width, width) for pair in (best, published))
        separable = block_cost(width, 1, width, width, width)
        rows.append(CostRow(width, best, cost, least_cost(width, width, width), usual, separable, 9 * width * width))
    return rows


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _check_whole(who: str, **numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{who}: {name} must be a whole number above 0, got {number!r}.")


def _check_divides(who: str, name: str, number: int, what: str, count: int) -> None:
    if count % number:
        near = min(_divisors(count), key=lambda divisor: abs(divisor - number))
        raise ValueError(f"{who}: {name} = {number} must divide the {count} {what}; {near} would.")
