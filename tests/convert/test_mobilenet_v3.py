"""MobileNetV3 in three public layouts: each is told by its keys, and the backbone computes what the original does."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from poseglass.backbones import BACKBONES
from poseglass.convert.mobilenet_v3 import IMPORTERS, names, publish
from poseglass.core.table import build
from poseglass.estimators.weights import CheckpointError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts.py"))))
State = dict[str, Tensor]

SMALL_ROWS = (
    "3 16 16 se re 2, 3 72 24 - re 2, 3 88 24 - re 1, 5 96 40 se hs 2, 5 240 40 se hs 1, 5 240 40 se hs 1, "
    "5 120 48 se hs 1, 5 144 48 se hs 1, 5 288 96 se hs 2, 5 576 96 se hs 1, 5 576 96 se hs 1"
)
"""Of the public network: kernel, channels inside, channels made, squeeze-and-excitation, activation, stride."""

BLOCKS = {
    "dli14": [f"features.{i}.conv" for i in range(1, 12)],
    "torchvision": [f"features.{i}.block" for i in range(1, 12)],
    "timm": [f"blocks.{stage}.{i}" for stage, count in enumerate((1, 2, 3, 2, 3)) for i in range(count)],
}


def block_names(publisher: str, i: int, squeeze: bool) -> dict[str, str]:
    """Return where block ``i`` keeps its parts: "pw", "pw_bn", "dw", "dw_bn", "fc1", "fc2", "out", "out_bn"."""
    base = BLOCKS[publisher][i]
    if publisher == "dli14":
        text = "dw=0 dw_bn=1 fc1=3.fc.0 fc2=3.fc.2 out=4 out_bn=5"
        if i:
            text = "pw=0 pw_bn=1 dw=3 dw_bn=4 fc1=5.fc.0 fc2=5.fc.2 out=7 out_bn=8"
    elif publisher == "torchvision":
        text = "dw=0.0 dw_bn=0.1 fc1=1.fc1 fc2=1.fc2 out=2.0 out_bn=2.1"
        if i:
            text = "pw=0.0 pw_bn=0.1 dw=1.0 dw_bn=1.1 fc1=2.fc1 fc2=2.fc2 out=3.0 out_bn=3.1"
            text = text if squeeze else "pw=0.0 pw_bn=0.1 dw=1.0 dw_bn=1.1 out=2.0 out_bn=2.1"
    else:
        text = "dw=conv_dw dw_bn=bn1 fc1=se.conv_reduce fc2=se.conv_expand out=conv_pw out_bn=bn2"
        if i:
            text = "pw=conv_pw pw_bn=bn1 dw=conv_dw dw_bn=bn2 fc1=se.conv_reduce fc2=se.conv_expand "
            text += "out=conv_pwl out_bn=bn3"
    return {part: f"{base}.{key}" for part, _, key in (pair.partition("=") for pair in text.split())}


ENDS = {
    "dli14": ("features.0.0", "features.0.1", "conv.0", "conv.1", "classifier.0", "classifier.3"),
    "torchvision": ("features.0.0", "features.0.1", "features.12.0", "features.12.1", "classifier.0", "classifier.3"),
    "timm": ("conv_stem", "bn1", "blocks.5.0.conv", "blocks.5.0.bn1", "conv_head", "classifier"),
}


def rows() -> list[tuple[int, int, int, bool, bool, int]]:
    read = (row.split() for row in SMALL_ROWS.split(", "))
    return [(int(k), int(e), int(o), s == "se", a == "hs", int(d)) for k, e, o, s, a, d in read]


def small(publisher: str) -> State:
    """Return a MobileNetV3-Small with random values in a publisher's names and shapes."""
    make = layouts.Maker(0)

    def conv(name: str, given: int, made: int, size: int = 1) -> None:
        make.conv(name, given, made, size)
        del make.state[f"{name}.bias"]

    stem, stem_norm, last, last_norm, hidden, classes = ENDS[publisher]
    conv(stem, 3, 16, 3)
    make.norm(stem_norm, 16)
    given = 16
    for i, (kernel, inside, made, squeeze, _, _) in enumerate(rows()):
        at = block_names(publisher, i, squeeze)
        if i:
            conv(at["pw"], given, inside)
            make.norm(at["pw_bn"], inside)
        conv(at["dw"], 1, inside, kernel)
        make.norm(at["dw_bn"], inside)
        if squeeze:
            squeezed = {16: 8, 96: 24, 120: 32, 144: 40, 240: 64, 288: 72, 576: 144}[inside]
            make.conv(at["fc1"], inside, squeezed)
            make.conv(at["fc2"], squeezed, inside)
        conv(at["out"], inside, made)
        make.norm(at["out_bn"], made)
        given = made
    conv(last, 96, 576)
    make.norm(last_norm, 576)
    make.conv(hidden, 576, 1024)
    make.conv(classes, 1024, 1000)
    for name, tensor in make.state.items():
        if (publisher == "dli14" and ".fc." in name) or (name.startswith("classifier") and name.endswith("weight")):
            make.state[name] = tensor.reshape(tensor.shape[:2])
    return make.state


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
    backbone.load_state_dict(importer.rename(original))
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = backbone(images)[-1], run(original, publisher, images)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("publisher", IMPORTERS)
def test_importing_can_be_undone_to_the_bit(publisher: str) -> None:
    original = small(publisher)
    importer = IMPORTERS[publisher]
    table = importer.network(original)
    again = publish(importer.rename(original), table, publisher)  # type: ignore[arg-type]
    tail = tuple(f"{layer}." for layer in ENDS[publisher][4:])
    expected = {name: tensor for name, tensor in original.items() if not name.startswith(tail)}
    assert list(again) == list(expected)  # in the same order too
    for name, tensor in expected.items():
        assert torch.equal(again[name], tensor)


@pytest.mark.parametrize("publisher", IMPORTERS)
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v3_large"])
def test_names_cover_the_backbone_in_its_order_at_any_width(publisher: str, name: str) -> None:
    for width in (0.35, 1.0, 1.25):
        with torch.device("meta"):
            state = build(BACKBONES, name, width=width).state_dict()
        table = names({"name": name}, publisher)  # type: ignore[arg-type]
        assert list(table) == list(state)
        assert len(set(table.values())) == len(table)
        public = publish(state, {"name": name}, publisher)  # type: ignore[arg-type]
        tail = {f"{layer}.{leaf}": torch.zeros(1) for layer in ENDS[publisher][4:] for leaf in ("weight", "bias")}
        read = IMPORTERS[publisher].network(public | tail)
        assert read["name"] == name
        with torch.device("meta"):
            again = build(BACKBONES, name, width=read["width"])
        assert [t.shape for t in again.state_dict().values()] == [t.shape for t in state.values()]


@pytest.mark.parametrize("publisher", IMPORTERS)
def test_nothing_is_left_over_or_missing_unnoticed(publisher: str) -> None:
    original, importer = small(publisher), IMPORTERS[publisher]
    with pytest.raises(CheckpointError, match=r"looks like a MobileNetV3 of .* is not quite: left over: extra\.weight"):
        importer.rename(original | {"extra.weight": torch.zeros(1)})
    missing = block_names(publisher, 4, True)["fc1"] + ".bias"
    with pytest.raises(CheckpointError, match="missing: " + missing.replace(".", r"\.")):
        importer.rename({name: tensor for name, tensor in original.items() if name != missing})
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
        backbone = build(BACKBONES, table["name"], order=order).eval()
        backbone.load_state_dict(importer.rename(original))
        with torch.no_grad():
            means = backbone(tools.image(224, 224))[-1].mean((2, 3))
            hidden = functional.linear(means, original["classifier.0.weight"], original["classifier.0.bias"])
            hidden = functional.hardswish(hidden)
            logits = functional.linear(hidden, original["classifier.3.weight"], original["classifier.3.bias"])
        return float(np.abs(logits.numpy() - expected).max() / np.abs(expected).max())

    assert difference(table["order"]) < 1e-4
    assert difference("activate_excite") > 1e-3  # the check sees what it is for
