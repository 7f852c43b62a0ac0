"""Calibration: curves are read as numpy reads them, and survive being written into a card."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from poseglass.core.calibration import Calibration, read_curves
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import COCO17, LSP14


def curves(rows: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).random((rows, 9)), axis=1).astype(np.float32)


def test_curves_are_read_between_their_values(rng) -> None:
    table, score = curves(14), rng.random((3, 2, 14)).astype(np.float32)
    got = read_curves(table, torch.from_numpy(score)).numpy()
    for k in range(14):
        np.testing.assert_allclose(got[..., k], np.interp(score[..., k], np.linspace(0, 1, 9), table[k]), atol=1e-6)
    one = read_curves(table[0], torch.from_numpy(score)).numpy()
    np.testing.assert_allclose(one, np.interp(score, np.linspace(0, 1, 9), table[0]), atol=1e-6)


def test_scores_outside_and_nan_are_read_at_the_ends() -> None:
    got = read_curves(np.array([0.25, 0.75]), torch.tensor([-1.0, 2.0, float("nan")]))
    assert got.tolist() == [0.25, 0.75, 0.25]


def test_card_keeps_it() -> None:
    one = Calibration(
        curves(14), curves(14, 1)[:, ::-1] * 3, flip_test=True, people=7, data="seven", measured={"ece": 0.1}
    )
    two = Calibration(curves(14, 2), box_probability=curves(1)[0])
    card = WeightCard(
        "tiny", {"name": "x"}, {"name": "heatmap"}, LSP14, InputSpec((64, 64)), calibrations=(one, two)
    )  # fmt: skip
    again = WeightCard.from_json(card.to_json()).calibrations
    for before, after in zip((one, two), again, strict=True):
        for field in dataclasses.fields(Calibration):
            mine, its = getattr(before, field.name), getattr(after, field.name)
            if isinstance(mine, np.ndarray):
                np.testing.assert_allclose(its, mine, atol=6e-5)
            else:
                assert its == mine


def test_card_of_before_has_none() -> None:
    card = WeightCard("tiny", {"name": "x"}, {"name": "heatmap"}, LSP14, InputSpec((64, 64)))
    text = json.loads(card.to_json())
    del text["calibrations"]
    assert WeightCard.from_json(json.dumps(text)).calibrations == ()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"probability": np.zeros(3)}, r"probability must have 2 axes"),
        ({"probability": np.full((2, 3), 1.5)}, r"must be finite, from 0 to 1, got 1.5"),
        ({"probability": np.full((2, 3), np.nan)}, r"finite"),
        ({"probability": np.zeros((2, 3)), "radius_share": np.zeros((2, 4))}, r"must have the shape of probability"),
        ({"probability": np.zeros((2, 3)), "box_probability": np.zeros(1)}, r"box_probability must have 1 axis"),
    ],
)
def test_wrong_curves_are_refused(bad, told) -> None:
    with pytest.raises(ValueError, match=told):
        Calibration(**bad)


def test_card_refuses_what_does_not_fit() -> None:
    made = {"name": "t", "network": {"name": "x"}, "codec": {"name": "heatmap"}, "input": InputSpec((64, 64))}
    with pytest.raises(ValueError, match="must have 17 keypoints"):
        WeightCard(**made, skeleton=COCO17, calibrations=(Calibration(curves(14)),))
    with pytest.raises(ValueError, match="may hold one with flip test and one without"):
        WeightCard(**made, skeleton=LSP14, calibrations=(Calibration(curves(14)), Calibration(curves(14))))
