"""The head of one convolution."""

import torch

from poseglass.heads.heatmap import HeatmapHead


def test_the_first_maps_are_nearly_empty() -> None:
    torch.manual_seed(0)
    maps = HeatmapHead(64, 5)(torch.rand(2, 64, 8, 6))["heatmap"]
    assert maps.shape == (2, 5, 8, 6)
    assert 0 < float(maps.detach().abs().max()) < 0.05
