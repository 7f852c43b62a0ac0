"""What a run says of the weights that start it: keypoints go by name, and others are named."""

from dataclasses import replace

import pytest
import torch

from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.fit import card_network
from poseglass.runs.prepare import _start

CARD = WeightCard(
    "theirs",
    {"name": "stacked_hourglass", "num_keypoints": 3, "num_stacks": 1, "width": 8, "depth": 1},
    {"name": "heatmap"},
    Skeleton("theirs", ("nose", "tail", "paw")),
    InputSpec(size_wh=(64, 64)),
)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("nose", "tail", "paw"), "Started from x: all of its weights."),
        (
            ("paw", "nose", "tail"),
            "Started from x; 3 of 3 keypoints are in both and keep their weights, matched by name.",
        ),
        (
            ("tail", "ear", "nose"),
            "Started from x; 2 of 3 keypoints are in both and keep their weights, matched by name; new, from initial "
            "values: ear; in the weights only: paw.",
        ),
        (
            ("ear", "tail"),
            "Started from x; 1 of 2 keypoints are in both and keep their weights, matched by name; new, from initial "
            "values: ear; in the weights only: nose, paw.",
        ),
    ],
)
def test_channels_go_by_name(names: tuple[str, ...], says: str) -> None:
    torch.manual_seed(0)
    old = card_network(CARD)
    network = card_network(replace(CARD, network=CARD.network | {"num_keypoints": len(names)}))
    before = network.state_dict()["outputs.0.heatmap.weight"].clone()
    assert _start(network, old.state_dict(), CARD, Skeleton("ours", names), "x") == says
    after, theirs = (n.state_dict()["outputs.0.heatmap.weight"] for n in (network, old))
    for i, name in enumerate(names):
        known = name in CARD.skeleton.keypoints
        assert torch.equal(after[i], theirs[CARD.skeleton.index(name)] if known else before[i])
