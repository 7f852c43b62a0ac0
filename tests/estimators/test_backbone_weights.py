"""Weights of a backbone alone: what they start, and what they cannot do."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import poseglass
from poseglass.backbones import BACKBONES
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14
from poseglass.estimators.fit import card_network
from poseglass.estimators.transfer import load_backbone, load_matching, load_trunk
from poseglass.estimators.weights_file import CheckpointError, read_weights, save_weights
from poseglass.networks import StackedHourglass


class Plain(nn.Module):
    """One convolution of stride 4."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 4, 4)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.conv(images)]


class WithBackbone(nn.Module):
    def __init__(self, head: str = "head", width: int = 8) -> None:
        super().__init__()
        self.backbone = Plain(width)
        self.add_module(head, nn.Conv2d(width, 14, 1))


CARD = WeightCard("plain-imagenet", {"name": "plain"}, {}, None, InputSpec(), part="backbone")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(BACKBONES, "plain", Plain)
    torch.manual_seed(1)
    path = tmp_path / "plain.safetensors"
    save_weights(path, Plain().state_dict(), CARD)
    return path


def test_a_card_of_a_backbone_travels_and_builds_it(written: Path) -> None:
    state, card = read_weights(written)
    assert card == CARD
    assert isinstance(card_network(card, state), Plain)


def test_a_backbone_finds_no_keypoints(written: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"only the backbone 'plain', which predicts no keypoints\. .*train\.init_from ="
    ):
        poseglass.load(written)


def test_it_starts_the_backbone_and_nothing_else(written: Path) -> None:
    state, _ = read_weights(written)
    torch.manual_seed(2)
    network = WithBackbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_backbone(network, state)
    for name, value in network.state_dict().items():
        expected = state[name.removeprefix("backbone.")] if name.startswith("backbone.") else before[name]
        assert torch.equal(value, expected), name


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            lambda: StackedHourglass(3, num_stacks=1, width=8, depth=1),
            r"'w' are a backbone, but StackedHourglass has none",
        ),
        (lambda: WithBackbone(width=4), r"has a different backbone\. .*of another shape: conv\.weight"),
    ],
)
def test_another_network_is_left_as_it_is(written: Path, network, says: str) -> None:
    state, _ = read_weights(written)
    built = network()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    with pytest.raises(CheckpointError, match=says):
        load_backbone(built, state, source="w")
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


def test_a_network_starts_from_one_of_another_head() -> None:
    other, built = WithBackbone("other"), WithBackbone()
    torch.nn.init.constant_(other.backbone.conv.weight, 0.5)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing: head\."):
        load_matching(built, other.state_dict())
    assert load_trunk(built, other.state_dict()) == ("backbone",)
    for name, value in built.state_dict().items():
        assert torch.equal(value, other.state_dict()[name] if name.startswith("backbone.") else before[name])
    assert load_trunk(built, WithBackbone(width=4).state_dict()) == ()
    assert load_trunk(built, WithBackbone().state_dict()) == ()  # nothing else differs: load_matching is for that


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"part": "backbone", "codec": {"name": "heatmap"}}, "no skeleton and no codec"),
        ({"part": "backbone", "skeleton": LSP14}, "no skeleton and no codec"),
        ({"part": "network", "codec": {"name": "heatmap"}}, "needs a skeleton and a codec"),
        ({"part": "network", "skeleton": LSP14}, "needs a skeleton and a codec"),
        ({"part": "neck"}, "part must be 'network' or 'backbone', got 'neck'"),
    ],
)
def test_a_card_is_whole(numbers: dict, says: str) -> None:
    fields = {"codec": {}, "skeleton": None} | numbers
    with pytest.raises(ValueError, match=says):
        WeightCard("a", {"name": "plain"}, input=InputSpec(), **fields)
