"""clcNet: the published counts, levels, groups by argument, and what makes no network."""

import pytest
import torch

from poseglass.backbones.clcnet import ClcNet, clcnet_a, clcnet_b
from poseglass.layers.channel_local import ChannelLocalBlock
from poseglass.networks import NETWORKS
from poseglass.networks.channel_dependency import block_graphs
from poseglass.networks.cost import multiply_adds, parameters

CLASSIFIERS = [
    ("clcnet_a_classifier", 3_253_640, 342_973_440, 31_968),
    ("clcnet_b_classifier", 4_085_128, 424_559_616, 42_208),
]


@pytest.mark.parametrize(("name", "count", "adds", "buffers"), CLASSIFIERS)
def test_counts_are_those_of_the_public_definition(name: str, count: int, adds: int, buffers: int) -> None:
    with torch.device("meta"):
        network = NETWORKS[name](0)
    assert parameters(network) == count
    assert multiply_adds(network, (224, 224)) == adds
    running = sum(v.numel() for key, v in network.state_dict().items() if "running" in key)
    # the public code stores the order of every interlace; here it follows from the numbers of groups
    orders = sum(m.spatial.conv.in_channels for m in network.modules() if isinstance(m, ChannelLocalBlock))
    assert running + orders == buffers
    assert f"{count:,} parameters at 1000 classes" in (NETWORKS[name].__doc__ or "")


@pytest.mark.parametrize(("make", "stated"), [(clcnet_a, 2_228_640), (clcnet_b, 3_060_128)])
def test_levels(make, stated: int) -> None:
    with torch.device("meta"):
        backbone = make()
        levels = backbone(torch.zeros(1, 3, 64, 96))
    assert (backbone.channels, backbone.strides, backbone.divisor) == ((64, 128, 256, 512, 1024), (2, 4, 8, 16, 32), 32)
    assert [tuple(level.shape) for level in levels] == [
        (1, count, 64 // stride, 96 // stride)
        for count, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert parameters(backbone) == stated
    assert f"{stated:,} parameters" in (make.__doc__ or "")


def test_published_groups_fill_the_rule_exactly_and_the_cheapest_cost_less() -> None:
    with torch.device("meta"):
        published, cheapest = clcnet_a(), clcnet_a(groups="cheapest")
    for block in published.modules():
        if isinstance(block, ChannelLocalBlock):
            width = block.spatial.conv.in_channels
            assert block.groups == (width // 2, 2)
    costs = [multiply_adds(network, (224, 224)) for network in (published, cheapest)]
    assert costs == [341_949_440, 202_108_928]


def test_every_block_sees_all_channels_and_none_does_without_the_interlace() -> None:
    for interlaced in (True, False):
        backbone = ClcNet((0, 1, 0, 0), width=0.25, interlaced=interlaced)
        found = block_graphs(backbone, (32, 32))
        assert len(found.graphs) == 6
        assert not found.skipped
        assert {graph.full for graph in found.graphs.values()} == {interlaced}


def test_it_trains() -> None:
    torch.manual_seed(0)
    backbone = ClcNet((0, 0, 0, 0), width=0.25)
    sum(level.square().mean() for level in backbone(torch.randn(2, 3, 64, 64))).backward()  # type: ignore[union-attr]
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        # in training, the norm after the 1x1 convolution takes away what the bias of the norm before it adds
        assert parameter.grad.abs().max() > 0 or name.endswith("spatial.norm.bias"), name


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"width": 0}, r"ClcNet: width must be a number above 0, such as 0\.5 or 1\.0, got 0\."),
        ({"width": float("nan")}, r"width must be a number above 0"),
        ({"repeats": (1, 1, 5)}, r"repeats must be four whole numbers of 0 or more, such as \[1, 1, 5, 2\], got \(1,"),
        ({"repeats": (1, 1, -5, 2)}, r"repeats must be four whole numbers of 0 or more"),
        ({"groups": (48, 2)}, r"g1 = 48 must divide the 32 channels; 32 would\."),
        ({"groups": (16, 3)}, r"g2 = 3 must divide the 32 channels"),
    ],
)
def test_what_makes_no_network_is_refused(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClcNet(**numbers)
