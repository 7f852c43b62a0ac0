"""Any backbone under any neck under any head."""

import pytest
import torch

from poseglass.backbones import BACKBONES
from poseglass.core.table import build
from poseglass.necks import NECKS
from poseglass.networks.compose import ComposedNetwork


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_gives_the_levels_it_states(backbone: str) -> None:
    with torch.device("meta"):
        made = build(BACKBONES, backbone).eval()
        height, width = made.divisor, 2 * made.divisor
        levels = made(torch.zeros(1, 3, height, width))
    assert [tuple(level.shape) for level in levels] == [
        (1, count, height // stride, width // stride) for count, stride in zip(made.channels, made.strides, strict=True)
    ]
    assert sorted(made.strides) == list(made.strides)


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_goes_under_every_neck(backbone: str, neck: str) -> None:
    with torch.device("meta"):
        network = ComposedNetwork(5, backbone={"name": backbone}, neck={"name": neck}).eval()
        height, width = network.divisor, 2 * network.divisor
        (stage,) = network(torch.zeros(1, 3, height, width))
    assert stage["heatmap"].shape == (1, 5, height // network.stride, width // network.stride)


@pytest.mark.parametrize("neck", NECKS)
def test_the_same_backbone_under_another_neck_has_the_same_tensors(neck: str) -> None:
    backbone = {"name": "mobilenet_v3_small", "width": 0.5}
    torch.manual_seed(0)
    alone = build(BACKBONES, "mobilenet_v3_small", width=0.5).state_dict()
    torch.manual_seed(0)
    network = ComposedNetwork(5, backbone=backbone, neck={"name": neck})
    assert alone.keys() == network.backbone.state_dict().keys()
    assert all(torch.equal(alone[name], tensor) for name, tensor in network.backbone.state_dict().items())


def test_parts_are_asked_for_by_name() -> None:
    backbone = {"name": "mobilenet_v3_small"}
    with pytest.raises(ValueError, match=r'neck needs a name, e\.g\. \{ name = "upsample" \}, got \{\'width\': 8\}'):
        ComposedNetwork(5, backbone=backbone, neck={"width": 8})
    with pytest.raises(LookupError, match=r"Unknown name 'mobilenet'\. Did you mean 'mobilenet_v3_"):
        ComposedNetwork(5, backbone={"name": "mobilenet"}, neck={"name": "fpn"})
    with pytest.raises(TypeError, match="wide"):
        ComposedNetwork(5, backbone=backbone, neck={"name": "fpn", "wide": 8})
