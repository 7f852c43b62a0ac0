"""The way down of an hourglass as a backbone."""

import pytest
import torch

from poseglass.backbones.residual_path import ResidualPath
from poseglass.layers.light_residual import RESIDUALS
from poseglass.networks.compose import ComposedNetwork
from poseglass.networks.cost import parameters


@pytest.mark.parametrize("block", RESIDUALS)
def test_levels_and_counts(block: str) -> None:
    with torch.device("meta"):
        backbone = ResidualPath(width=32, block=block, num_blocks=2, levels=3)  # type: ignore[arg-type]
        levels = backbone(torch.zeros(1, 3, 32, 64))
        alone = [parameters(RESIDUALS[block](a, b)) for a, b in ((8, 16), (16, 32), (32, 32))]
    assert (backbone.channels, backbone.strides, backbone.divisor) == ((32, 32, 32), (4, 8, 16), 16)
    assert [tuple(level.shape) for level in levels] == [(1, 32, 8, 16), (1, 32, 4, 8), (1, 32, 2, 4)]
    assert parameters(backbone) == 147 * 8 + 2 * 8 + alone[0] + alone[1] + 5 * alone[2] + 3 * 2 * 32


def test_a_pose_network_of_it_trains() -> None:
    torch.manual_seed(0)
    network = ComposedNetwork(
        5, backbone={"name": "residual_path", "width": 16, "block": "dense"}, neck={"name": "unet", "width": 8}
    )
    (stage,) = network(torch.rand(2, 3, 64, 64))
    assert stage["heatmap"].shape == (2, 5, 16, 16)
    stage["heatmap"].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"width": 0}, r"ResidualPath: width must be a multiple of 4 \(the stem starts at width/4\), got 0\."),
        ({"width": 40, "block": "dense"}, r"ResidualPath: width must be a multiple of 16 \(dense .* got 40\."),
        ({"block": "none"}, r"ResidualPath: block must be 'bottleneck', 'depthwise' or 'dense', got 'none'\."),
        ({"num_blocks": 0}, r"ResidualPath: num_blocks must be a whole number above 0, got 0\."),
        ({"levels": 0}, r"ResidualPath: levels must be a whole number above 0, got 0\."),
    ],
)
def test_what_makes_no_backbone_is_refused(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualPath(**numbers)
