"""Cascaded pyramids: the fact sheet's counts, any backbone, and what feeds what."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poseglass.networks.cost import multiply_adds, parameters
from poseglass.networks.cpn import CascadedPyramidNetwork, cpn_r50, cpn_r101


class ThreeLevels(nn.Module):
    """A stand-in for a backbone: strides 2, 4 and 12."""

    channels, strides, divisor = (3, 5, 7), (2, 4, 12), 12

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 3, 2, 2), nn.Conv2d(3, 5, 2, 2), nn.Conv2d(5, 7, 3, 3)])

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = [images]
        for conv in self.convs:
            levels.append(conv(levels[-1]))
        return levels[1:]


def small() -> CascadedPyramidNetwork:
    torch.manual_seed(0)
    return CascadedPyramidNetwork(2, backbone={"name": f"{__name__}:ThreeLevels"}, width=6).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "count", "entries", "buffers", "arithmetic"),
    [(cpn_r50, 27_406_826, 582, 69_674, 7_315_550_208), (cpn_r101, 46_398_954, 888, 121_898, 10_952_011_776)],
)
def test_counts_at_17_keypoints_and_192_by_256(
    make: Any, count: int, entries: int, buffers: int, arithmetic: int
) -> None:
    with torch.device("meta"):
        network = make(17)
    assert (parameters(network), len(network.state_dict())) == (count, entries)
    assert sum(b.numel() for name, b in network.named_buffers() if "tracked" not in name) == buffers
    assert multiply_adds(network, (192, 256)) == arithmetic


def test_any_backbone_gives_a_stage_per_level_and_one_more() -> None:
    network = small()
    assert (network.stride, network.divisor) == (2, 12)
    stages = network(torch.rand(2, 3, 24, 36))
    assert [tuple(stage["heatmap"].shape) for stage in stages] == [(2, 2, 12, 18)] * 4
    assert [len(level) for level in network.refine_net.levels] == [0, 1, 2]  # type: ignore[arg-type]


def test_information_flows_from_coarse_to_fine_and_into_the_last_stage() -> None:
    network, images = small(), torch.rand(1, 3, 24, 24)

    def moved(weight: Tensor) -> list[bool]:
        """Which stages change with a weight."""
        before = network(images)
        with torch.no_grad():
            weight.mul_(-1.0)
        after = network(images)
        with torch.no_grad():
            weight.mul_(-1.0)
        return [not torch.equal(a["heatmap"], b["heatmap"]) for a, b in zip(before, after, strict=True)]

    laterals, predict = network.global_net.laterals, network.global_net.predict
    assert moved(laterals[2].conv.weight) == [True, True, True, True]  # type: ignore[union-attr]
    assert moved(laterals[1].conv.weight) == [False, True, True, True]  # type: ignore[union-attr]
    assert moved(laterals[0].conv.weight) == [False, False, True, True]  # type: ignore[union-attr]
    assert moved(predict[2][1].weight) == [True, False, False, False]  # type: ignore[index]
    mix: Any = network.refine_net.mix.shortcut
    assert moved(mix.conv.weight) == [False, False, False, True]


@pytest.mark.parametrize(
    ("numbers", "error", "says"),
    [
        ({"width": 7}, ValueError, r"width must be even \(bottlenecks halve it\), got 7"),
        ({"backbone": {"depth": 50}}, ValueError, r"backbone needs a name, e\.g\. .*got \{'depth': 50\}"),
        ({"backbone": {"name": "resnet5"}}, LookupError, "Unknown name 'resnet5'. Did you mean 'resnet"),
    ],
)
def test_what_makes_no_network_is_refused(numbers: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        CascadedPyramidNetwork(2, **numbers)
