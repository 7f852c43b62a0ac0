"""The card and the input it describes."""

import json

import pytest

from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14


def test_the_input_names_its_channels_and_its_crop() -> None:
    spec = InputSpec((64, 96), color="bgr", crop="msra")
    card = WeightCard("a", {"name": "hg1"}, {"name": "heatmap"}, LSP14, spec)
    assert WeightCard.from_json(card.to_json()).input == spec
    old = json.loads(card.to_json())
    del old["input"]["color"], old["input"]["crop"]
    assert WeightCard.from_json(json.dumps(old)).input == InputSpec((64, 96))  # as cards were before
    for numbers, says in (
        ({"color": "rbg"}, r"InputSpec\.color must be 'rgb' or 'bgr', got 'rbg'"),
        ({"crop": "hrnet"}, r"InputSpec\.crop must be one of edges, msra, udp, got 'hrnet'"),
        ({"crop": "udp", "size_wh": (1, 4)}, r"'udp' needs sides of at least 2 pixels, got \(1, 4\)"),
    ):
        with pytest.raises(ValueError, match=says):
            InputSpec(**numbers)
