"""What every backbone, neck and head promises; any of one kind fits any of the others."""

from typing import cast

import pytest
import torch

from poseglass.backbones import BACKBONES, Backbone
from poseglass.heads import HEADS
from poseglass.necks import NECKS
from poseglass.networks.compose import ComposedNetwork


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_gives_the_levels_it_states_finest_first(name: str) -> None:
    with torch.device("meta"):
        backbone = cast(Backbone, BACKBONES[name]().eval())
        side = backbone.divisor
        levels = backbone(torch.zeros(1, 3, side, 2 * side))
    stated = zip(backbone.channels, backbone.strides, strict=True)
    assert [tuple(x.shape) for x in levels] == [(1, c, side // s, 2 * side // s) for c, s in stated]
    assert list(backbone.strides) == sorted(backbone.strides)


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_neck_fits_any_backbone(backbone: str, neck: str) -> None:
    for head in HEADS:
        with torch.device("meta"):
            network = ComposedNetwork(5, backbone={"name": backbone}, neck={"name": neck}, head={"name": head}).eval()
            height, width = network.divisor, 2 * network.divisor
            features = network.neck(network.backbone(torch.zeros(1, 3, height, width)))
        assert features.shape[2:] == (height // network.stride, width // network.stride)


def test_a_part_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"neck needs a name, e\.g\. \{ name = .* \}, got \{'width': 8\}"):
        ComposedNetwork(5, backbone={"name": "resnet18", "width": 8}, neck={"width": 8})


def test_an_argument_that_a_part_does_not_take_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        ComposedNetwork(5, backbone={"name": "resnet18", "widht": 8}, neck={"name": "level"})
