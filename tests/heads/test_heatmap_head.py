"""Heads of one convolution, and the last convolutions of networks without a head, start nearly empty."""

import pytest
import torch

from poseglass.core.table import build
from poseglass.heads import HEADS
from poseglass.heads.heatmap import HeatmapHead
from poseglass.networks import NETWORKS


def test_the_first_maps_are_nearly_empty() -> None:
    torch.manual_seed(0)
    maps = HeatmapHead(64, 5)(torch.rand(2, 64, 8, 6))["heatmap"]
    assert maps.shape == (2, 5, 8, 6)
    assert 0 < float(maps.detach().abs().max()) < 0.05


def test_so_are_the_first_discs_and_offsets() -> None:
    torch.manual_seed(0)
    for maps in build(HEADS, "offset", 64, 5)(torch.rand(2, 64, 8, 6)).values():
        assert 0 < float(maps.detach().abs().max()) < 0.05


@pytest.mark.parametrize("name", ["unet_light", "cpm_light", "hourglass_52_light", "hrnet_w16_light"])
def test_so_are_those_of_networks(name: str) -> None:
    torch.manual_seed(0)
    stages = build(NETWORKS, name, num_keypoints=5)(torch.rand(2, 3, 64, 64))
    for stage in stages:
        assert 0 < float(stage["heatmap"].detach().abs().max()) < 0.1
