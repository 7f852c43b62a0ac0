"""MobileNetV3 in three public layouts: each is told by its keys, and the backbone computes what the original does."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from poseglass.backbones import BACKBONES
from poseglass.checkpoints import IMPORTERS as ALL
from poseglass.checkpoints import import_checkpoint, import_state
from poseglass.checkpoints.export import export_state, fits
from poseglass.checkpoints.importer import Importer
from poseglass.checkpoints.mobilenet_v3 import names
from poseglass.checkpoints.top_down import CLASSIFIER_INPUT
from poseglass.core.card import WeightCard
from poseglass.core.skeletons import BOXES
from poseglass.core.table import build
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError, read_weights, save_weights

SHARED = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_mobilenet.py"))))
ENDS, block_names, rows, small = layouts.ENDS, layouts.block_names, layouts.rows, layouts.small
State = dict[str, Tensor]

IMPORTERS = {name: ALL[f"mobilenet_v3_{name}"] for name in ("dli14", "torchvision", "timm")}
CLASSIFIERS = {name: ALL[f"mobilenet_v3_{name}_classifier"] for name in IMPORTERS}


def renamed(importer: Importer, stored: State) -> State:
    return importer.rename(stored, importer.network(stored))


def run(state: State, publisher: str, images: Tensor) -> Tensor:
    """Return the map before the mean, computed from the publisher's names by its rules."""
    eps = 1e-3 if publisher == "torchvision" else 1e-5

    def norm(name: str, x: Tensor) -> Tensor:
        leaves = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *leaves, eps=eps)  # type: ignore[arg-type]

    def swish(x: Tensor) -> Tensor:
        return x * functional.relu6(x + 3) / 6

    def excited(at: dict[str, str], x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        hidden = functional.linear(means, state[f"{at['fc1']}.weight"].flatten(1), state[f"{at['fc1']}.bias"])
        weights = functional.linear(
            functional.relu(hidden), state[f"{at['fc2']}.weight"].flatten(1), state[f"{at['fc2']}.bias"]
        )
        return x * (functional.relu6(weights + 3) / 6)[:, :, None, None]

    stem, stem_norm, last, last_norm, _, _ = ENDS[publisher]
    x = swish(norm(stem_norm, functional.conv2d(images, state[f"{stem}.weight"], stride=2, padding=1)))
    for i, (kernel, inside, _, squeeze, swishes, stride) in enumerate(rows()):
        at, act = block_names(publisher, i, squeeze), swish if swishes else functional.relu
        y = x
        if i:
            y = act(norm(at["pw_bn"], functional.conv2d(y, state[f"{at['pw']}.weight"])))
        dw = state[f"{at['dw']}.weight"]
        y = norm(at["dw_bn"], functional.conv2d(y, dw, stride=stride, padding=kernel // 2, groups=inside))
        if not squeeze:
            y = act(y)
        elif publisher == "dli14" and i:
            y = act(excited(at, y))
        else:
            y = excited(at, act(y))
        y = norm(at["out_bn"], functional.conv2d(y, state[f"{at['out']}.weight"]))
        x = x + y if x.shape == y.shape else y
    return swish(norm(last_norm, functional.conv2d(x, state[f"{last}.weight"])))


@pytest.mark.parametrize("publisher", IMPORTERS)
def test_the_backbone_computes_what_the_original_does(publisher: str) -> None:
    original = small(publisher)
    assert len(original) == 244
    assert [name for name, importer in IMPORTERS.items() if importer.recognises(original.keys())] == [publisher]
    importer = IMPORTERS[publisher]
    table = importer.network(original)
    assert table == {
        "name": "mobilenet_v3_small",
        "width": 1.0,
        "order": "excite_activate" if publisher == "dli14" else "activate_excite",
        "eps": 1e-3 if publisher == "torchvision" else 1e-5,
    }
    backbone = build(BACKBONES, table.pop("name"), **table).eval()
    backbone.load_state_dict(renamed(importer, original))
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = backbone(images)[-1], run(original, publisher, images)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("publisher", IMPORTERS)
def test_importing_can_be_undone_to_the_bit(publisher: str) -> None:
    original = small(publisher)
    importer = IMPORTERS[publisher]
    table = importer.network(original)
    again = importer.publish(renamed(importer, original), table)  # type: ignore[arg-type]
    tail = tuple(f"{layer}." for layer in ENDS[publisher][4:])
    expected = {name: tensor for name, tensor in original.items() if not name.startswith(tail)}
    assert list(again) == list(expected)  # in the same order too
    for name, tensor in expected.items():
        assert torch.equal(again[name], tensor)


@pytest.mark.parametrize("publisher", CLASSIFIERS)
def test_the_whole_classifier_is_imported_if_its_layout_is_asked_for(publisher: str, tmp_path: Path) -> None:
    original = small(publisher)
    torch.save(original, tmp_path / "theirs.pth")
    importer = CLASSIFIERS[publisher]
    assert import_checkpoint(tmp_path / "theirs.pth")[1].part == "backbone"
    state, card = import_checkpoint(tmp_path / "theirs.pth", layout=importer.name)
    assert (card.part, card.codec, card.skeleton, card.classes) == ("network", {"name": "box_class"}, BOXES, ())
    assert card.network == {
        "name": "mobilenet_v3_small_classifier",
        "width": 1.0,
        "order": "excite_activate" if publisher == "dli14" else "activate_excite",
        "eps": 1e-3 if publisher == "torchvision" else 1e-5,
        "num_keypoints": 0,
        "num_classes": 1000,
        "hidden_width": 1024,
    }
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    hidden, classes = ENDS[publisher][4:]
    with torch.no_grad():
        [stage] = card_network(card, state)(images)
        means = run(original, publisher, images).mean((2, 3))
        inside = functional.linear(means, original[f"{hidden}.weight"].flatten(1), original[f"{hidden}.bias"])
        inside = inside * functional.relu6(inside + 3) / 6
        theirs = functional.linear(inside, original[f"{classes}.weight"], original[f"{classes}.bias"])
    assert (stage["class"] - theirs).abs().max() < 1e-4 * theirs.abs().max()
    save_weights(tmp_path / "ours.safetensors", state, card)
    back = export_state(*read_weights(tmp_path / "ours.safetensors"), importer.name, ALL)
    assert list(back) == list(original)
    for name, tensor in original.items():
        assert torch.equal(back[name], tensor)
    assert [name for name, other in ALL.items() if fits(state, card, other)] == [importer.name]


def test_a_trained_classifier_is_exported_whatever_its_dropout_and_its_classes() -> None:
    table = {"name": "mobilenet_v3_large_classifier", "num_keypoints": 0, "num_classes": 3, "dropout": 0.5}
    card = WeightCard("mine", table, {"name": "box_class"}, BOXES, CLASSIFIER_INPUT)
    state = card_network(card).state_dict()
    public = export_state(state, card, "mobilenet_v3_timm_classifier", ALL)
    assert (public["classifier.weight"].shape, public["conv_head.weight"].shape) == ((3, 1280), (1280, 960, 1, 1))
    with pytest.raises(CheckpointError, match=r"which these weights are not\. They fit mobilenet_v3_timm_classifier\."):
        export_state(state, card, "mobilenet_v3_torchvision_classifier", ALL)  # another epsilon
    other = replace(card, network=table | {"name": "classifier", "backbone": {"name": "resnet18"}})
    assert not fits(state, other, ALL["mobilenet_v3_timm_classifier"])


@pytest.mark.parametrize("publisher", IMPORTERS)
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v3_large"])
def test_names_cover_the_backbone_in_its_order_at_any_width(publisher: str, name: str) -> None:
    for width in (0.35, 1.0, 1.25):
        with torch.device("meta"):
            state = build(BACKBONES, name, width=width).state_dict()
        table = names({"name": name}, publisher)  # type: ignore[arg-type]
        assert list(table) == list(state)
        assert len(set(table.values())) == len(table)
        public = IMPORTERS[publisher].publish(state, {"name": name})  # type: ignore[arg-type]
        tail = {f"{layer}.{leaf}": torch.zeros(1) for layer in ENDS[publisher][4:] for leaf in ("weight", "bias")}
        read = IMPORTERS[publisher].network(public | tail)
        assert read["name"] == name
        with torch.device("meta"):
            again = build(BACKBONES, name, width=read["width"])
        assert [t.shape for t in again.state_dict().values()] == [t.shape for t in state.values()]


@pytest.mark.parametrize("publisher", IMPORTERS)
def test_nothing_is_left_over_or_missing_unnoticed(publisher: str) -> None:
    original, importer = small(publisher), IMPORTERS[publisher]
    with pytest.raises(
        CheckpointError, match=r"looks like a MobileNetV3 of .* does not match it exactly: unexpected: extra\.weight"
    ):
        renamed(importer, original | {"extra.weight": torch.zeros(1)})
    missing = block_names(publisher, 4, True)["fc1"] + ".bias"
    with pytest.raises(CheckpointError, match="missing: " + missing.replace(".", r"\.")):
        renamed(importer, {name: tensor for name, tensor in original.items() if name != missing})
    last = ENDS[publisher][2] + ".weight"
    with pytest.raises(CheckpointError, match=f"'{last}' is missing; expected 4 axes".replace(".", r"\.")):
        importer.network({name: tensor for name, tensor in original.items() if name != last})


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="wants ../shared/checkpoints")
@pytest.mark.parametrize("size", ["small", "large"])
def test_parity_with_the_public_code(size: str) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(SHARED / "fill.py")))
    original = tools.fill(tools.load_keys(SHARED / f"mobilenetv3_{size}_dli14.json"))
    importer = IMPORTERS["dli14"]
    assert importer.recognises(original.keys())
    table = importer.network(original)
    assert (table["name"], table["width"]) == (f"mobilenet_v3_{size}", 1.0)
    assert list(names(table, "dli14").values()) == list(original)[:-4]
    expected = np.load(SHARED / f"mobilenetv3_{size}_dli14.npz")["logits"]

    def difference(order: str) -> float:
        state, card = import_state(original, CLASSIFIERS["dli14"])
        network = card_network(replace(card, network=card.network | {"order": order}), state)
        with torch.no_grad():
            logits = network(tools.image(224, 224))[-1]["class"]
        return float(np.abs(logits.numpy() - expected).max() / np.abs(expected).max())

    assert difference(table["order"]) < 1e-4
    assert difference("activate_excite") > 1e-3  # the check sees what it is for
