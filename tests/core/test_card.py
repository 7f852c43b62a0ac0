"""The card and the input it describes."""

import json
from typing import Any

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


def test_widths_of_modules_travel_with_the_card() -> None:
    widths = {"stem.conv": {"out_channels": 24}, "stem.norm": {"num_features": 24}}
    card = WeightCard("a", {"name": "hg1"}, {"name": "heatmap"}, LSP14, InputSpec(), widths=widths)
    assert WeightCard.from_json(card.to_json()) == card
    assert repr(card).startswith("WeightCard('a': hg1 with other widths in 2 modules, 14 keypoints")
    old = json.loads(card.to_json())
    del old["widths"]
    assert WeightCard.from_json(json.dumps(old)).widths == {}  # as cards were before


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        (None, "got None"),
        ([["stem.conv", 24]], r"got \[\['stem\.conv', 24\]\]"),
        ({3: {"out_channels": 24}}, r"got \{'out_channels': 24\} for 3"),
        ({"stem.conv": 24}, r"got 24 for 'stem\.conv'"),
        ({"stem.conv": {"out_channels": 0}}, r"got 'out_channels' = 0 for 'stem\.conv'"),
        ({"stem.conv": {"out_channels": True}}, r"got 'out_channels' = True for 'stem\.conv'"),
        ({"stem.conv": {"out_channels": 24.0}}, r"got 'out_channels' = 24\.0 for 'stem\.conv'"),
        ({"stem.conv": {"out_channels": "x" * 99}}, r"got 'out_channels' = 'x{59} for 'stem\.conv'"),
    ],
)
def test_what_is_no_table_of_widths(widths: Any, says: str) -> None:
    with pytest.raises(
        ValueError, match=rf"WeightCard\.widths must be whole numbers above 0 by module, such as .*; {says}\."
    ):
        WeightCard("a", {"name": "hg1"}, {"name": "heatmap"}, LSP14, InputSpec(), widths=widths)


def test_classes_of_a_detector_travel_with_the_card() -> None:
    card = WeightCard("a", {"name": "hg1"}, {"name": "heatmap"}, LSP14, InputSpec(), classes=("person", "dog"))
    assert WeightCard.from_json(card.to_json()).classes == ("person", "dog")
    old = json.loads(card.to_json())
    del old["classes"]
    assert WeightCard.from_json(json.dumps(old)).classes == ()  # as cards were before


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ("person", r"must be names, such as \('person', 'dog'\); got 'person'"),
        ([1], r"must be names, such as .*; got \[1\]"),
        (("dog", "dog"), "must be different names, 'dog' is there twice"),
    ],
)
def test_what_is_no_list_of_classes(classes: Any, says: str) -> None:
    with pytest.raises(ValueError, match=rf"WeightCard\.classes {says}"):
        WeightCard("a", {"name": "hg1"}, {"name": "heatmap"}, LSP14, InputSpec(), classes=classes)
