"""CenterNet's counts, its stages, and what is passed between them."""

import pytest
import torch

from poseglass.core.table import build
from poseglass.networks import NETWORKS
from poseglass.networks.centernet import CenterNetHourglass
from poseglass.networks.cost import parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_keypoints", "num_classes", "count"),
    [
        ("centernet_hourglass_104", 0, 80, 191_284_008),
        ("centernet_hourglass_104", 17, 1, 194_811_124),
        ("centernet_hourglass_52", 0, 80, 95_454_676),
        ("centernet_resnet18", 0, 80, 15_820_372),
    ],
)
def test_counts_are_those_of_the_public_code(name: str, num_keypoints: int, num_classes: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(NETWORKS, name, num_keypoints=num_keypoints, num_classes=num_classes)) == count


@pytest.mark.parametrize("name", ["centernet_light", "centernet_resnet18"])
def test_boxes_need_no_keypoints(name: str) -> None:
    with torch.device("meta"):
        network = build(NETWORKS, name, num_keypoints=0, num_classes=3).eval()
        stages = network(torch.zeros(1, 3, 64, 96))
    for stage in stages:
        assert set(stage) == {"center", "size", "center_offset"}
        assert stage["center"].shape == (1, 3, 16, 24)


def test_features_are_passed_on_and_predictions_are_not() -> None:
    torch.manual_seed(0)
    network = CenterNetHourglass(2, widths=(8, 8, 12), blocks=(1, 1, 1), head_width=4).eval()
    images = torch.rand(1, 3, 16, 16)
    before = network(images)
    with torch.no_grad():
        for parameter in network.heads[0].parameters():
            parameter.add_(1.0)
    after = network(images)
    assert len(after) == 2
    assert all(torch.equal(before[1][name], maps) for name, maps in after[1].items())
    assert not any(torch.equal(before[0][name], maps) for name, maps in after[0].items())
