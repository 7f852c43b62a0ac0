"""Channel local convolutions: the interlace, the block as one dense convolution, and what groups cost."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from poseglass.layers.channel_local import (
    ChannelInterlace,
    ChannelLocalBlock,
    block_cost,
    cheapest_groups,
    cost_table,
    groups_of,
    least_cost,
    sees_all_channels,
)
from poseglass.layers.depthwise import DepthwiseConv2d


def published_order(channels: int, groups: int) -> list[int]:
    """The loop of the public code's ``ChannelInterlace.lua``, counted from 0."""
    order, n = [-1] * channels, 0
    for first in range(groups):
        for place in range(first, channels, groups):
            order[place] = n
            n += 1
    return order


@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (6, 3), (8, 1), (8, 8), (12, 4), (64, 32), (30, 6)])
def test_the_interlace_is_the_published_permutation_and_its_inverse_restores_the_input(channels, groups) -> None:
    layer = ChannelInterlace(channels, groups)
    assert layer.order() == published_order(channels, groups)
    assert sorted(layer.order()) == list(range(channels))
    features = torch.randn(2, channels, 3, 5)
    assert torch.equal(layer(features), features[:, layer.order()])
    assert torch.equal(layer.inverse()(layer(features)), features)
    assert torch.equal(layer(layer.inverse()(features)), features)


def test_the_interlace_keeps_the_memory_format() -> None:
    layer, features = ChannelInterlace(12, 4), torch.randn(2, 12, 3, 5)
    for memory_format in (torch.channels_last, torch.contiguous_format):
        made = layer(features.contiguous(memory_format=memory_format))
        assert made.is_contiguous(memory_format=memory_format)
        assert torch.equal(made, features[:, layer.order()])


def dense(conv: nn.Conv2d) -> torch.Tensor:
    """Return the weights of the plain convolution that computes what a grouped one does."""
    outputs, inputs = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    weight = torch.zeros(conv.out_channels, conv.in_channels, *conv.kernel_size, dtype=conv.weight.dtype)
    for i in range(conv.groups):
        rows = slice(i * outputs, (i + 1) * outputs)
        weight[rows, i * inputs : (i + 1) * inputs] = conv.weight.detach()[rows]
    return weight


def folded(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift of a batch norm in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias.detach() - norm.running_mean * scale


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", ["published", "cheapest", (1, 1), (24, 1), (6, 4), (24, 8)])
def test_a_block_is_one_dense_convolution_of_the_expanded_weights(groups, stride) -> None:
    torch.manual_seed(0)
    block = ChannelLocalBlock(24, 48, stride=stride, groups=groups).eval()
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -1, 1)
    (scale1, shift1), (scale2, shift2) = (folded(part.norm) for part in (block.spatial, block.pointwise))
    spatial = dense(block.spatial.conv) * scale1[:, None, None, None]
    order = block.interlace.order()  # type: ignore[operator, union-attr]
    mix = dense(block.pointwise.conv)[:, :, 0, 0] * scale2[:, None]
    weight = torch.einsum("om,mihw->oihw", mix, spatial[order])
    bias = mix @ shift1[order] + shift2
    features = torch.randn(2, 24, 9, 7)
    expected = functional.relu(functional.conv2d(features, weight, bias, stride, 1))
    found = block(features)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    sees_all = bool((weight.abs().amax((2, 3)) > 0).all())
    assert sees_all == sees_all_channels(*block.groups, 24)


def test_the_block_is_built_as_published() -> None:
    block = ChannelLocalBlock(64, 128, stride=2)
    first, second = block.spatial.conv, block.pointwise.conv
    assert (first.groups, first.stride, first.kernel_size, first.bias) == (32, (2, 2), (3, 3), None)
    assert (second.groups, second.kernel_size, second.bias) == (2, (1, 1), None)
    assert (block.spatial.activation, block.pointwise.activation) == ("none", "relu")
    assert (block.interlace.groups, block.groups) == (32, (32, 2))
    assert isinstance(ChannelLocalBlock(8, 8, groups=(8, 1)).spatial.conv, DepthwiseConv2d)
    assert isinstance(ChannelLocalBlock(8, 8, interlaced=False).interlace, nn.Identity)


def test_the_rule_of_the_full_field_by_brute_force_over_sizes_and_divisors() -> None:
    """Every divisor of 58 sizes: what an output sees, from the definition alone, against g1 g2 <= L."""
    tried = 0
    for channels in (*range(1, 50), 60, 64, 72, 96, 100, 120, 128, 210, 256):
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        for g1, g2 in itertools.product(divisors, divisors):
            group_of = [published // (channels // g1) for published in ChannelInterlace(channels, g1).order()]
            size = channels // g2
            seen = [set(group_of[i * size : (i + 1) * size]) for i in range(g2)]
            full = all(len(groups) == g1 for groups in seen)
            assert full == sees_all_channels(g1, g2, channels) == (g1 * g2 <= channels), (channels, g1, g2)
            # and if not full, every output sees as much as its group holds, each from another group before it
            assert all(len(groups) == min(g1, size) for groups in seen)
            tried += 1
    assert tried > 2000


SHEET = [
    (32, (16, 2), 1_088, 1_086, 1_088, 1_312, 9_216),
    (64, (32, 2), 3_200, 3_072, 3_200, 4_672, 36_864),
    (128, (32, 4), 8_704, 8_689, 10_496, 17_536, 147_456),
    (256, (64, 4), 25_600, 24_576, 37_376, 67_840, 589_824),
    (512, (64, 8), 69_632, 69_511, 140_288, 266_752, 2_359_296),
    (1024, (128, 8), 204_800, 196_608, 542_720, 1_057_792, 9_437_184),
]
"""Multiply-adds per pixel, calculated apart from this code."""


def test_the_search_gives_the_table() -> None:
    assert [(*row[:3], round(row.bound), *row[4:]) for row in cost_table()] == SHEET


@pytest.mark.parametrize("sizes", [(24, 24, 48), (96, 96, 40), (30, 30, 30), (7, 7, 7), (64, 32, 128)])
@pytest.mark.parametrize("area", [1, 9, 25])
def test_no_other_groups_are_cheaper_and_none_is_below_the_bound(sizes: tuple[int, int, int], area: int) -> None:
    before, between, behind = sizes
    best = cheapest_groups(*sizes, kernel_area=area)
    assert sees_all_channels(*best, between)
    cost = block_cost(*best, *sizes, kernel_area=area)
    for g1 in range(1, between + 1):
        for g2 in range(1, between // g1 + 1):
            if not (before % g1 or between % g1 or between % g2 or behind % g2):
                other = area * before * between / g1 + between * behind / g2
                assert cost <= other
                assert other >= least_cost(*sizes, kernel_area=area) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChannelInterlace(0, 1), r"ChannelInterlace: channels must be a whole number above 0, got 0\."),
        (lambda: ChannelInterlace(8, 0), r"ChannelInterlace: groups must be a whole number above 0, got 0\."),
        (lambda: ChannelInterlace(12, 5), r"ChannelInterlace: groups = 5 must divide the 12 channels; 4 would\."),
        (lambda: ChannelLocalBlock(0, 8), r"in_channels must be a whole number above 0, got 0\."),
        (lambda: ChannelLocalBlock(8, 0), r"out_channels must be a whole number above 0, got 0\."),
        (lambda: ChannelLocalBlock(8, 8, groups=(0, 2)), r"g1 must be a whole number above 0, got 0\."),
        (lambda: ChannelLocalBlock(8, 8, groups=(4, True)), r"g2 must be a whole number above 0, got True\."),
        (lambda: ChannelLocalBlock(12, 8, groups=(5, 2)), r"g1 = 5 must divide the 12 channels; 4 would\."),
        (lambda: ChannelLocalBlock(12, 8, groups=(6, 3)), r"g2 = 3 must divide the 8 channels; 2 would\."),
        (lambda: ChannelLocalBlock(7, 8), r"published groups are half the channels and 2, got 7 channels, an odd"),
        (lambda: ChannelLocalBlock(8, 8, groups="best"), r'groups must be "published", "cheapest" or two numbers'),
        (lambda: ChannelLocalBlock(8, 8, groups=(2,)), r"or two numbers such as \[64, 4\], got \(2,\)\."),
        (lambda: cheapest_groups(8, 0, 8), r"cheapest_groups: between must be a whole number above 0, got 0\."),
        (lambda: cost_table((33,)), r"published groups are half the channels and 2, got 33"),
    ],
)
def test_groups_that_cannot_be_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_list_of_groups_from_a_recipe_is_taken() -> None:
    assert groups_of([4, 2], 8, 8, 8) == (4, 2)  # type: ignore[arg-type]
