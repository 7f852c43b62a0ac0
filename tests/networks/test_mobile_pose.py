"""The smallest networks: what they are made of, and that they are small."""

import pytest
import torch

from poseglass.networks.cost import multiply_adds
from poseglass.networks.mobile_pose import mobile_pose_large, mobile_pose_small


@pytest.mark.parametrize(
    ("make", "numbers", "coarsest", "width", "limit"),
    [
        (mobile_pose_small, {}, 96, 48, 30e6),
        (mobile_pose_small, {"width": 24}, 96, 24, 23e6),
        (mobile_pose_large, {}, 160, 96, 110e6),
    ],
)
def test_parts_and_costs_at_128_px(make, numbers: dict[str, int], coarsest: int, width: int, limit: float) -> None:
    with torch.device("meta"):
        network = make(14, **numbers)
    assert network.backbone.channels[-1] == coarsest  # the classifier's last convolution is left out
    assert network.backbone.last is None
    assert network.neck.out_channels == width
    assert multiply_adds(network, (128, 128)) < limit
