"""What every backbone and neck promises, by name of its table: any backbone goes under any neck under any head."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poseglass.backbones import BACKBONES
from poseglass.core.table import build
from poseglass.heads import HEADS
from poseglass.necks import NECKS
from poseglass.networks.compose import ComposedNetwork

HEIGHT, WIDTH = 1, 2  # of the divisor


@pytest.fixture(scope="module", params=BACKBONES)
def below(request: pytest.FixtureRequest) -> tuple[Any, list[Tensor]]:
    """A backbone, and its levels of an image wider than high; shapes alone."""
    with torch.device("meta"):
        made = build(BACKBONES, request.param).eval()
        return made, made(torch.zeros(1, 3, HEIGHT * made.divisor, WIDTH * made.divisor))


@pytest.mark.slow
def test_a_backbone_gives_the_levels_it_states_finest_first(below: tuple[Any, list[Tensor]]) -> None:
    made, levels = below
    assert [tuple(level.shape) for level in levels] == [
        (1, count, HEIGHT * made.divisor // stride, WIDTH * made.divisor // stride)
        for count, stride in zip(made.channels, made.strides, strict=True)
    ]
    assert list(made.strides) == sorted(made.strides)


@pytest.mark.parametrize("neck", NECKS)
def test_every_neck_takes_every_backbone(below: tuple[Any, list[Tensor]], neck: str) -> None:
    made, levels = below
    with torch.device("meta"):
        over = build(NECKS, neck, made.channels, made.strides).eval()
        features = over(levels)
    sides = (HEIGHT * made.divisor // over.out_stride, WIDTH * made.divisor // over.out_stride)
    assert features.shape == (1, over.out_channels, *sides)


@pytest.mark.parametrize("neck", sorted(set(NECKS) - {"level"}))  # which has none
def test_every_parameter_of_a_neck_is_used(neck: str) -> None:
    torch.manual_seed(0)
    made = build(NECKS, neck, (8, 8, 8, 8), (4, 8, 16, 32))
    features = made([torch.randn(2, 8, 64 // stride, 128 // stride) for stride in (4, 8, 16, 32)])
    features.square().mean().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        assert parameter.grad.abs().max() > 0, f"gradient of {name} is zero"


@pytest.mark.parametrize("neck", NECKS)
def test_the_same_backbone_under_another_neck_starts_with_the_same_tensors(neck: str) -> None:
    torch.manual_seed(0)
    alone: nn.Module = build(BACKBONES, "mobilenet_v3_small", width=0.5)
    torch.manual_seed(0)
    network = ComposedNetwork(5, backbone={"name": "mobilenet_v3_small", "width": 0.5}, neck={"name": neck}).eval()
    own, expected = network.backbone.state_dict(), alone.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())
    (stage,) = network(torch.rand(1, 3, 32, 64))
    assert stage["heatmap"].shape == (1, 5, 32 // network.stride, 64 // network.stride)


def test_parts_are_asked_for_by_name() -> None:
    backbone = {"name": "mobilenet_v3_small"}
    with pytest.raises(ValueError, match=r'neck needs a name, e\.g\. \{ name = "\w+" \}, got \{\'width\': 8\}'):
        ComposedNetwork(5, backbone=backbone, neck={"width": 8})
    with pytest.raises(ValueError, match=r"head needs a name, e\.g\. .* got \{\}"):
        ComposedNetwork(5, backbone=backbone, neck={"name": "fpn"}, head={})
    with pytest.raises(LookupError, match=r"Unknown name 'mobilenet'\. Did you mean 'mobilenet_v3_"):
        ComposedNetwork(5, backbone={"name": "mobilenet"}, neck={"name": "fpn"})
    with pytest.raises(TypeError, match="wide"):
        ComposedNetwork(5, backbone=backbone, neck={"name": "fpn", "wide": 8})


@pytest.mark.parametrize("head", HEADS)
def test_every_head_goes_over_a_network(head: str) -> None:
    needed = {"simcc": {"size_wh": (64, 64), "stride": 4}}.get(head, {})
    with torch.device("meta"):
        backbone, neck = {"name": "resnet18", "width": 8}, {"name": "deconv", "width": 8}
        network = ComposedNetwork(5, backbone=backbone, neck=neck, head={"name": head, **needed}).eval()
        assert set(network(torch.zeros(1, 3, 64, 64))[-1])
