"""Parameters, tensors and multiply-adds of the networks whose public code was counted."""

import pytest
import torch

from poseglass.core.table import build
from poseglass.networks import NETWORKS
from poseglass.networks.cost import multiply_adds, parameters

COUNTED = [
    ("hrnet_w32", 17, (192, 256), 28_536_113, 1754, 7_645_003_776),
    ("hrnet_w32", 17, (288, 384), 28_536_113, 1754, 17_201_258_496),
    ("hrnet_w32", 16, (256, 256), 28_536_080, 1754, 10_193_207_296),
    ("hrnet_w48", 17, (192, 256), 63_595_745, 1754, 15_691_825_152),
    ("hrnet_w48", 16, (256, 256), 63_595_696, 1754, 20_922_236_928),
    ("simple_baseline_r50", 17, (192, 256), 33_999_697, 338, 5_426_380_800),
    ("simple_baseline_r50", 17, (288, 384), 33_999_697, 338, 12_209_356_800),
    ("simple_baseline_r50", 16, (256, 256), 33_999_440, 338, 7_234_125_824),
    ("simple_baseline_r101", 17, (192, 256), 52_991_825, 644, 9_062_842_368),
    ("simple_baseline_r101", 16, (256, 256), 52_991_568, 644, 12_082_741_248),
    ("simple_baseline_r152", 17, (192, 256), 68_635_473, 950, 12_699_303_936),
    ("simple_baseline_r152", 16, (256, 256), 68_635_216, 950, 16_931_356_672),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_keypoints", "size_wh", "learnable", "tensors", "operations"), COUNTED)
def test_counts_are_those_of_the_public_code(
    name: str, num_keypoints: int, size_wh: tuple[int, int], learnable: int, tensors: int, operations: int
) -> None:
    with torch.device("meta"):
        network = build(NETWORKS, name, num_keypoints=num_keypoints)
    assert parameters(network) == learnable
    assert len(network.state_dict()) == tensors
    assert multiply_adds(network, size_wh) == operations


@pytest.mark.parametrize("name", ["hrnet_w16_light", "simple_baseline_light", "dilated_light"])
def test_light_networks_are_for_a_laptop(name: str) -> None:
    with torch.device("meta"):
        network = build(NETWORKS, name, num_keypoints=17)
    assert 0.3e9 < multiply_adds(network, (128, 128)) < 0.6e9


def test_another_head_can_be_asked_for() -> None:
    with torch.device("meta"):
        network = build(NETWORKS, "hrnet_w16_light", num_keypoints=2, head={"name": "heatmap"})
    assert network.state_dict().keys() == build(NETWORKS, "hrnet_w16_light", num_keypoints=2).state_dict().keys()
    for name in ("hrnet_w16_light", "simple_baseline_light", "dilated_light"):
        with pytest.raises(LookupError, match=r"Unknown name 'heatmapp'.*Did you mean 'heatmap'"):
            build(NETWORKS, name, num_keypoints=2, head={"name": "heatmapp"})
