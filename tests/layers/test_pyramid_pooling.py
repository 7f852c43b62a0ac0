"""Pyramid pooling: means over grids as adaptive pooling gives them, in operations that every runtime has."""

import pytest
import torch

from poseglass.layers.pyramid_pooling import PyramidPooling, grid_means
from poseglass.necks.unet import UNetNeck


@pytest.mark.parametrize("bins", [1, 2, 3, 6, 8])
def test_means_are_those_of_adaptive_pooling(bins):
    features = torch.randn(2, 5, 7, 9, dtype=torch.float64)
    expected = torch.nn.functional.adaptive_avg_pool2d(features, bins)
    assert torch.allclose(grid_means(features, bins), expected, atol=1e-6)


def test_every_cell_sees_the_whole_map():
    layer = PyramidPooling(8, 4, (1, 2)).eval()
    for parameter in layer.parameters():
        parameter.data.abs_()  # so that no ReLU is at 0
    features = torch.rand(1, 8, 12, 12, requires_grad=True)
    layer(features)[0, :, 0, 0].sum().backward()
    assert features.grad is not None
    assert (features.grad[0].abs().sum(0) > 0).all()


@pytest.mark.parametrize(
    ("bins", "message"),
    [((), "whole numbers above 0"), ((0,), "whole numbers above 0"), ((2, 2), "each number of bins once"),
     ((1, 2, 3), "divides its 2 channels among 3 grids")],
)  # fmt: skip
def test_bins_that_are_not_valid_are_refused(bins, message):
    with pytest.raises(ValueError, match=message):
        PyramidPooling(2, 4, bins)


def test_a_neck_without_bins_has_no_pyramid_pooling():
    plain, pooled = (UNetNeck((8, 16), (4, 8), width=8, bins=bins).eval() for bins in ((), (1, 2)))
    assert sum(p.numel() for p in pooled.coarsest.parameters()) > sum(p.numel() for p in plain.coarsest.parameters())
    levels = [torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)]
    assert pooled(levels).shape == plain(levels).shape
