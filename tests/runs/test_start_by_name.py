"""What a run says of the weights that start it: keypoints go by name, and others are named."""

from dataclasses import replace

import pytest
import torch

from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import BOXES
from poseglass.estimators.fit import card_network
from poseglass.runs.prepare import _start
from poseglass.runs.recipe import RecipeError

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


def classifier_card(**numbers: object) -> WeightCard:
    table = {"name": "mobilenet_v3_small_classifier", "num_keypoints": 0, "num_classes": 1000}
    table |= {"width": 0.25, "hidden_width": 16} | numbers
    return WeightCard("public", table, {"name": "box_class"}, BOXES, InputSpec(size_wh=(64, 64)))


def test_a_classifier_starts_from_a_public_one_of_other_classes() -> None:
    theirs, ours = classifier_card(), classifier_card(num_classes=3)
    old, network = card_network(theirs), card_network(ours)
    said = _start(network, old.state_dict(), theirs, BOXES, "x", ("a", "b", "c"))
    assert said.startswith(
        "Started from x: all of its other weights. The weights do not name their 1,000 classes, so that"
    )
    kept = old.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items() if "classes" not in name)


@pytest.mark.parametrize(("key", "value"), [("order", "excite_activate"), ("eps", 1e-3)])
@pytest.mark.parametrize("nested", [False, True])
def test_a_network_of_another_variant_does_not_start_from_weights(key: str, value: object, nested: bool) -> None:
    """Their shapes are the same, and they would compute something else."""
    theirs = classifier_card(**{key: value})
    if nested:
        backbone = {"name": "mobilenet_v3_small", "width": 0.25, key: value}
        table = {"name": "classifier", "backbone": backbone, "num_classes": 1000, "hidden_width": 16}
        theirs = replace(theirs, network=table)
    network = card_network(classifier_card())
    with pytest.raises(RecipeError, match=rf"for a backbone with {key} = .* Set {key} of the network"):
        _start(network, card_network(theirs).state_dict(), theirs, BOXES, "x", ("a",))
