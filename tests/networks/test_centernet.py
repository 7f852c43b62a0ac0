"""CenterNet's counts, its stages, and what is passed between them."""

import pytest
import torch

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.table import build
from poseglass.core.targets import ModelInput, Targets
from poseglass.networks import NETWORKS
from poseglass.networks.centernet import CenterNetHourglass
from poseglass.networks.cost import parameters
from poseglass.training.centernet import CenterNetCriterion

COMPOSED = ["centernet_dla34", "centernet_hrnet_w32", "centernet_mobilenet_v3"]
"""Networks of parts that no importer checks."""


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


@pytest.mark.parametrize("name", ["centernet_light", "centernet_resnet18", *COMPOSED])
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


def test_dla34_for_boxes_has_the_stated_count() -> None:
    with torch.device("meta"):
        count = parameters(build(NETWORKS, "centernet_dla34", num_keypoints=0, num_classes=80))
    assert f"{count:,} parameters at 80 classes without keypoints" in (NETWORKS["centernet_dla34"].__doc__ or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPOSED)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    torch.manual_seed(0)
    network = build(NETWORKS, name, num_keypoints=3, num_classes=2).train()
    center_xy, size_wh = torch.rand(2, 2, 2) * 40 + 12, torch.rand(2, 2, 2) * 20 + 8
    box_xyxy = torch.cat([center_xy - size_wh / 2, center_xy + size_wh / 2], -1)
    xy = center_xy[:, :, None] + (torch.rand(2, 2, 3, 2) - 0.5) * size_wh[:, :, None]
    true, known = torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 2, 3)
    batch = ModelInput(torch.randn(2, 3, 64, 64), Targets(xy, known, true, torch.tensor([[0, 1]] * 2), box_xyxy, true))
    targets = CenterNetCodec(poses=True).encode(batch.targets, batch.size_wh, num_classes=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4)
    losses = []
    for _ in range(6):
        loss = sum(CenterNetCriterion()(network(batch.images), targets, batch).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
