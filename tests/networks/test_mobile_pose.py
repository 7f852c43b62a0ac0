"""MobileNetV3 for pose: what it is made of, and that it is small."""

import pytest
import torch

from poseglass.heads.box_class import BoxClassHead
from poseglass.networks import NETWORKS
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


@pytest.mark.slow
def test_no_network_for_keypoints_that_is_asked_for_by_size_takes_fewer_multiply_adds() -> None:
    counts = {}
    for name, make in NETWORKS.items():
        with torch.device("meta"):
            network = None if isinstance(make, type) or name == "classifier" else make(16)
        if isinstance(getattr(network, "head", None), BoxClassHead):
            continue
        if network is not None and 128 % network.divisor == 0:  # type: ignore[operator]
            counts[name] = multiply_adds(network, (128, 128))
    assert min(counts, key=lambda name: counts[name]) == "mobile_pose_small"


@pytest.mark.parametrize("make", [mobile_pose_small, mobile_pose_large])
def test_another_head(make) -> None:
    with torch.device("meta"):
        network = make(14, head={"name": "offset"}).eval()
        assert set(network(torch.zeros(1, 3, 64, 64))[-1]) == {"heatmap", "offset"}
