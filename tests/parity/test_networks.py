"""Every imported layout computes what the public code did: recorded outputs of random weights, no weights stored.

A small image goes through a network of the published size whose weights are those of ``fill.py``; what the public code
gave for them, in full, is in ``networks/``, and where it came from in ``networks.toml``.
"""

import runpy
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poseglass.checkpoints import IMPORTERS, import_state, recognise
from poseglass.core.card import WeightCard
from poseglass.estimators.fit import card_network

HERE = Path(__file__).parent
formula = SimpleNamespace(**runpy.run_path(str(HERE / "fill.py")))
ALL: dict[str, dict[str, Any]] = tomllib.loads((HERE / "networks.toml").read_text())
APART = {"torchvision_lr_aspp"}
"""Of a layout that is read from Python alone; see tests/checkpoints/test_lr_aspp.py."""
RECORDED = {name: about for name, about in ALL.items() if name not in APART}
SAME_KEYS = {"simple_baseline_microsoft": "simple_baseline_msra"}
"""A layout that another's recording is of too: its files differ in the order of colours alone."""

AGREEMENT = 1e-5
"""Largest difference over the largest value."""

CENTERNET = ("center", "size", "center_offset", "keypoints", "heatmap", "heatmap_offset")
"""The outputs of CenterNet in the order in which their channels were recorded."""


@dataclass
class Imported:
    """A recorded network, imported: ours with its card, and the original state."""

    name: str
    original: dict[str, Tensor]
    state: dict[str, Tensor]
    card: WeightCard
    network: nn.Module
    expected: np.ndarray

    def difference(self, network: Callable[[Tensor], Any]) -> float:
        """Return how far what a network computes is from what the public code did, relative to the largest value."""
        with torch.no_grad():
            found = as_recorded(network(formula.image(*RECORDED[self.name]["input_hw"])), self.name)
        assert found.shape == self.expected.shape
        return float(np.abs(found - self.expected).max() / np.abs(self.expected).max())


def as_recorded(out: Any, name: str) -> np.ndarray:
    """Return the last heatmaps or logits, or the last level of a backbone; of HRNet and CenterNet all, joined."""
    if isinstance(out, Tensor):
        return out.numpy()
    if name.endswith("classifier"):
        return (out if isinstance(out, dict) else out[-1])["class"].numpy()
    if name == "timm_hrnet_w18":
        return torch.cat([level.flatten(1) for level in out], 1).numpy()
    if name.startswith("centernet"):
        maps, every = out if isinstance(out, dict) else out[-1], RECORDED[name]["every"]
        together = [maps[key].flatten(1, -3) for key in CENTERNET if key in maps]
        return torch.cat(together, 1)[..., ::every, ::every].numpy()
    return (out[-1]["heatmap"] if isinstance(out[-1], dict) else out[-1]).numpy()


@pytest.fixture(scope="module", params=RECORDED)
def imported(request: pytest.FixtureRequest) -> Imported:
    name = request.param
    original = formula.fill(formula.names_and_shapes(name), RECORDED[name]["gain"])
    state, card = import_state(original, IMPORTERS[RECORDED[name]["layout"]])
    return Imported(name, original, state, card, card_network(card, state), formula.output(name))


@pytest.mark.slow
def test_an_imported_network_computes_what_the_public_code_does(imported: Imported) -> None:
    about = RECORDED[imported.name]
    # a MobileNetV3 classifier is taken as a backbone, unless its layout is asked for by name
    assert recognise(imported.original).name == about["layout"].removesuffix("_classifier")
    assert about["network"].items() <= imported.card.network.items()
    assert imported.difference(imported.network) < AGREEMENT


def test_the_independent_reading_computes_it_too(imported: Imported) -> None:
    """What certificates of imported files compare with."""
    reference = IMPORTERS[RECORDED[imported.name]["layout"]].reference
    assert reference is not None
    assert imported.difference(lambda images: reference(imported.original, images)) < AGREEMENT


@pytest.mark.slow
def test_another_epsilon_of_one_norm_is_seen(imported: Imported) -> None:
    norms = [m for m in imported.network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in (norms[0], norms[-1]):
        before, norm.eps = norm.eps, 1e-3 if norm.eps < 5e-4 else 1e-5
        found, norm.eps = imported.difference(imported.network), before
        assert found > AGREEMENT


def test_another_padding_of_one_convolution_is_seen(imported: Imported) -> None:
    convolutions = [m for m in imported.network.modules() if isinstance(m, nn.Conv2d)]
    first = next(m for m in convolutions if m.padding != (0, 0))  # some are padded before, on two sides only
    first.padding_mode = "replicate"
    found, first.padding_mode = imported.difference(imported.network), "zeros"
    assert found > 100 * AGREEMENT


def test_two_tensors_that_take_each_others_place_are_seen(imported: Imported) -> None:
    """As a mapping of names would that mixes up two layers; shapes do not tell."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, value in imported.state.items():
        if value.ndim == 4:
            by_shape.setdefault(tuple(value.shape), []).append(name)
    pairs = [(names[i], names[i + 1]) for names in by_shape.values() for i in range(len(names) - 1)]
    own = imported.network.state_dict()
    one, other = pairs[len(pairs) // 2]
    own[one].copy_(imported.state[other])
    own[other].copy_(imported.state[one])
    found = imported.difference(imported.network)
    own[one].copy_(imported.state[one])
    own[other].copy_(imported.state[other])
    assert found > 100 * AGREEMENT, (one, other)


def test_every_layout_and_no_other_is_recorded() -> None:
    assert {about["layout"] for about in RECORDED.values()} | SAME_KEYS.keys() == IMPORTERS.keys()
    assert {path.stem for path in (HERE / "networks").iterdir()} == ALL.keys()
