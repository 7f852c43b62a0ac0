"""The network in a checkpoint: found under any wrappers, and what lies beside it is said."""

import argparse
import collections
import random
import runpy
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from poseglass.checkpoints import import_checkpoint, read_network
from poseglass.checkpoints.choose import Choice
from poseglass.estimators.weights_file import CheckpointError

HERE = Path(__file__).parent
layouts = SimpleNamespace(**runpy.run_path(str(HERE / "layouts.py")))
mmpose = SimpleNamespace(**runpy.run_path(str(HERE / "layouts_mmpose.py")))
resnets = SimpleNamespace(**runpy.run_path(str(HERE / "layouts_resnet.py")))

STATE = layouts.bearpaw(num_stacks=1, depth=1)
LAYOUTS = {
    "hourglass_bearpaw": STATE,
    "hourglass_princeton": layouts.princeton(num_stacks=1, depth=1),
    "hrnet_msra": resnets.hrnet(),
    "simple_baseline_msra": resnets.simple_baseline(),
    "hrnet_mmpose": {
        f"{'head' if name.startswith('final_layer') else 'backbone'}.{name}": t for name, t in resnets.hrnet().items()
    },
}
WRAPPERS = [
    "_orig_mod.",
    "module.",
    "net.",
    "model.",
    "student.",
    "backbone.",
    "pose_net.0.",
    "a.b.c.",
    "_fsdp_wrapped_module.",
]
BESIDE = {
    "criterion.weight": torch.ones(3),
    "loss_fn.sigma": torch.ones(()),
    "teacher.conv1.weight": torch.ones(2, 2),
    "decoder_head.weight": torch.ones(4),
}


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in state.items()}


def chosen(tmp_path: Path, content: Any, *, take: str = "", legacy: bool = False) -> Choice:
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return read_network(path, take=take)


def exact(found: Choice, state: dict[str, Tensor] = STATE) -> bool:
    return found.state.keys() == state.keys() and all(torch.equal(found.state[name], state[name]) for name in state)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), legacy=st.booleans())
def test_any_wrappers_in_any_order_beside_anything(
    tmp_path: Path, data: st.DataObject, layout: str, legacy: bool
) -> None:
    state = LAYOUTS[layout]
    prefix = "".join(data.draw(st.lists(st.sampled_from(WRAPPERS), max_size=4)))
    names = wrapped(state, prefix)
    if prefix:
        beside = data.draw(st.sets(st.sampled_from(sorted(BESIDE))))
        names |= {name: BESIDE[name] for name in beside if not name.startswith(prefix)}
    order = list(names)
    random.Random(data.draw(st.integers(0, 9))).shuffle(order)
    content: Any = {name: names[name] for name in order}
    for key in data.draw(st.lists(st.sampled_from(["state_dict", "model", "state", "net", 0, [], ()]), max_size=3)):
        content = [{"lr": 0.1}, content] if key == [] else (content, 3) if key == () else {key: content, "epoch": 3}
    if data.draw(st.booleans()) and isinstance(content, dict) and content.keys() != names.keys():
        content["optimizer"] = {"state": {i: {"exp_avg": tensor} for i, tensor in enumerate(state.values())}}
    found = chosen(tmp_path, content, legacy=legacy)
    assert found.importer.name == layout
    assert exact(found, state)


def test_wrappers_of_a_part_inside_the_network(tmp_path: Path) -> None:
    state = LAYOUTS["hrnet_mmpose"]
    inner = {
        name.replace("backbone.", "backbone._orig_mod.").replace("head.", "head.module."): t
        for name, t in state.items()
    }
    found = chosen(tmp_path, {"state_dict": wrapped(inner, "module.")})
    assert found.importer.name == "hrnet_mmpose"
    assert exact(found, state)


def test_what_is_not_taken_is_counted_and_named(tmp_path: Path) -> None:
    content = {
        "state_dict": wrapped(STATE, "net.") | {"criterion.weight": torch.ones(3), "criterion.bias": torch.ones(3)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}, 1: {"exp_avg": torch.ones(3)}}},
        "hparams": argparse.Namespace(lr=0.1),
        "epoch": 3,
    }
    found = chosen(tmp_path, content)
    assert exact(found)
    assert found.path == "state_dict.net"
    assert found.notes == (
        "Excluded: 4 tensors beside the network, under state_dict.criterion (2), optimizer (2).",
        "Ignored: 1 object of classes that are not loaded here, argparse.Namespace (1).",
    )
    assert chosen(tmp_path, STATE).notes == ()
    assert chosen(tmp_path, {"state_dict": wrapped(STATE, "module."), "epoch": 3}).notes == ()


def test_losses_and_averages_at_the_same_level_are_excluded_and_strangers_refused(tmp_path: Path) -> None:
    beside = {"criterion.w": torch.ones(2), "ema_conv1_weight": STATE["conv1.weight"], "n_averaged": torch.tensor(3)}
    found = chosen(tmp_path, STATE | beside)
    assert exact(found)
    assert found.notes[0].startswith(
        "Excluded: 3 tensors beside the network, under criterion (1), ema_conv1_weight (1)"
    )
    path = tmp_path / "x.pth"
    for stranger in ("attention.weight", "conv1.scale", "hg.0.hg.0.0.0.conv4.weight"):
        torch.save(STATE | {stranger: torch.ones(2)}, path)
        with pytest.raises(CheckpointError, match=f"unexpected: {stranger.replace('.', '[.]')}"):
            import_checkpoint(path)


AVERAGES = ["state_dict_ema", "ema", "model_ema", "ema_state_dict", "swa.module", "averaged_model", "ema_model.module"]


@pytest.mark.slow
@pytest.mark.parametrize("where", AVERAGES)
@pytest.mark.parametrize("first", [True, False])
def test_averages_are_told_and_can_be_taken(tmp_path: Path, where: str, first: bool) -> None:
    key, _, inner = where.partition(".")
    average = {key: wrapped(averaged(STATE), f"{inner}." if inner else "") | {"steps": torch.tensor(3)}}
    plain = {"weights": wrapped(STATE, "module.")}
    content = average | plain if first else plain | average
    found = chosen(tmp_path, content)
    assert exact(found)
    assert found.notes[0] == (
        f"Taken: weights.module (trained weights are preferred over averages of them), one of 2 networks in the file. "
        f"Not taken: {where} ({len(STATE)} tensors, an average by its name). Take another with --take PATH."
    )
    other = chosen(tmp_path, content, take=where)
    assert exact(other, averaged(STATE))
    assert other.path == where
    assert "(as requested)" in other.notes[0]
    assert exact(chosen(tmp_path, content, take=key), averaged(STATE))  # the key alone is enough


def test_averages_within_one_state_dict(tmp_path: Path) -> None:
    names = wrapped(STATE, "model.") | wrapped(averaged(STATE), "model_ema.module.") | wrapped(STATE, "teacher.")
    found = chosen(tmp_path, {"state_dict": names})
    assert exact(found)
    assert "state_dict.model_ema.module (" in found.notes[0]
    assert f"state_dict.teacher ({len(STATE)} tensors, the same values)" in found.notes[0]
    assert exact(chosen(tmp_path, {"state_dict": names}, take="state_dict.model_ema"), averaged(STATE))


def test_mmengine_keeps_its_average_under_state_dict(tmp_path: Path) -> None:
    content = {"state_dict": averaged(STATE), "ema_state_dict": wrapped(STATE, "module.") | {"steps": torch.tensor(9)}}
    found = chosen(tmp_path, content)
    assert exact(found, averaged(STATE))
    assert found.notes[1].startswith("mmengine stores the averaged weights under state_dict")


def test_several_of_a_kind_and_what_decides(tmp_path: Path) -> None:
    two = {"net_a": STATE, "net_b": averaged(STATE)}
    found = chosen(tmp_path, two)
    assert exact(found)
    assert "Taken: net_a (it comes first in the file), one of 2 networks" in found.notes[0]
    usual = {"first": averaged(STATE), "state_dict": STATE}
    assert "Taken: state_dict (it is the usual place)" in chosen(tmp_path, usual).notes[0]
    student = wrapped(averaged(STATE), "teacher.") | wrapped(STATE, "student.")
    assert "Taken: student (trained weights are preferred over a teacher)" in chosen(tmp_path, student).notes[0]
    with pytest.raises(
        CheckpointError, match=r"--take 'net_c': there is no network of a known layout\. Did you mean 'net_\w'\? "
        r"Available: net_a \(hourglass_bearpaw\), net_b"
    ):  # fmt: skip
        chosen(tmp_path, two, take="net_c")
    assert exact(chosen(tmp_path, STATE, take="."))


def test_a_backbone_inside_a_network_is_not_a_second_one(tmp_path: Path) -> None:
    state = {
        f"{'head' if n.startswith(('final', 'deconv')) else 'backbone'}.{n}": t
        for n, t in resnets.simple_baseline().items()
    }
    found = chosen(tmp_path, state)
    assert found.importer.name == "simple_baseline_mmpose"
    assert found.notes == ()


def test_safetensors_are_searched_too(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(wrapped(STATE, "net.module.") | {"loss.w": torch.ones(1)}, path)
    found = read_network(path)
    assert exact(found)
    assert found.notes == ("Excluded: 1 tensor beside the network, under loss (1).",)


class CfgNode(dict):
    """As yacs: a dict with attributes."""


class HistoryBuffer:
    """As mmengine: an object with arrays."""

    def __init__(self) -> None:
        self.log = np.arange(3.0)
        self.method = HistoryBuffer.mean

    @staticmethod
    def mean() -> float:
        return 0.0


class EasyDict(collections.OrderedDict):
    """As easydict."""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch):
    """A module that is there when a file is written and gone when it is read."""
    module = types.ModuleType("their_code")
    for kind in (CfgNode, HistoryBuffer, EasyDict):
        made = type(
            kind.__name__, kind.__bases__, {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
        )
        made.__module__ = "their_code"
        setattr(module, kind.__name__, made)
    module.HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module.HistoryBuffer.mean.__module__ = "their_code"
    monkeypatch.setitem(sys.modules, "their_code", module)
    return module


@pytest.mark.parametrize("legacy", [False, True])
def test_training_dumps_with_objects_of_other_classes(tmp_path: Path, elsewhere: Any, legacy: bool) -> None:
    node = elsewhere.CfgNode(lr=0.1, inner=elsewhere.CfgNode(a=[1]))
    node.frozen = True
    content = {
        "state_dict": STATE,
        "cfg": node,
        "easy": elsewhere.EasyDict(b=2),
        "hyper_parameters": argparse.Namespace(batch=3, node=node),
        "message_hub": {"loss": elsewhere.HistoryBuffer()},
        "numpy_rng": np.random.RandomState(3),
        "numpy_state": np.random.default_rng(3).bit_generator.state,
        "path": Path("/tmp/run"),
        "best": np.float32(0.5),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "size": torch.Size([3]),
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    sys.modules.pop("their_code")
    found = read_network(tmp_path / "x.pth")
    assert exact(found)
    note = found.notes[-1]
    assert note.startswith("Ignored: ")
    for name in ("their_code.CfgNode (", "their_code.EasyDict (1)", "argparse.Namespace (1)"):
        assert name in note
    assert "their_code" not in sys.modules
    _, card = import_checkpoint(tmp_path / "x.pth")
    assert note in card.notes


class Hourglass(torch.nn.Module):
    """Any network with these tensors."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            *path, leaf = name.split(".")
            module: torch.nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            if leaf in ("weight", "bias"):
                module.register_parameter(leaf, torch.nn.Parameter(tensor.clone()))
            else:
                module.register_buffer(leaf, tensor.clone())
        self.register_buffer("grid", torch.ones(3), persistent=False)


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["", "model"])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_network_is_named_with_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, key: str, parallel: bool
) -> None:
    module = types.ModuleType("models")
    their = type("HourglassNet", (Hourglass,), {"__module__": "models"})
    module.HourglassNet = their
    monkeypatch.setitem(sys.modules, "models", module)
    network: torch.nn.Module = their(STATE)
    assert network.state_dict().keys() == STATE.keys()
    if parallel:
        network = torch.nn.DataParallel(network)
    path = tmp_path / "whole.pth"
    torch.save({key: network, "epoch": 3} if key else network, path, _use_new_zipfile_serialization=not legacy)
    loaded = torch.load(path, weights_only=False)
    remedy = (loaded[key] if key else loaded).state_dict()  # so that the remedy is one that works
    sys.modules.pop("models")
    take = ".".join(part for part in (key, "module" if parallel else "") if part) or "."
    access = r"\['model'\]" if key else ""
    with pytest.raises(
        CheckpointError,
        match=r"whole network, an object of class models\.HourglassNet.*rather than its weights.*"
        rf"torch\.load\('whole\.pth', weights_only=False\){access}\.state_dict\(\).*--take {take.replace('.', '[.]')} ",
    ):
        read_network(path)
    found = read_network(path, take=take)
    assert exact(found)
    torch.save(remedy, path)
    assert exact(read_network(path))


def test_weights_come_before_a_whole_network(tmp_path: Path) -> None:
    content = {"model": Hourglass(averaged(STATE)), "weights": STATE}
    found = chosen(tmp_path, content)
    assert exact(found)
    assert "weights are preferred over networks that were pickled whole" in found.notes[0]


def test_a_whole_network_of_no_known_layout(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"class torch\.nn\.modules\.linear\.Linear, .* its 2 tensors \(weight, bias\) match no known layout",
    ):
        chosen(tmp_path, torch.nn.Linear(2, 2))


def test_the_state_of_a_run_of_ours_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"x\.pth is the training state of a poseglass run.*best\.safetensors.*poseglass train --resume --run ",
    ):
        chosen(tmp_path, {"format": 2, "network": STATE, "optimizer": {}, "progress": {}, "rng": torch.ones(1)})


class Quantised:
    """Pickles as a quantised tensor."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_qtensor, (torch.ones(2).untyped_storage(), 0, (2,), (1,), (), False, {})


def test_quantised_tensors_are_named(tmp_path: Path) -> None:
    state = STATE | {"conv1.weight": Quantised()}
    with pytest.raises(
        CheckpointError, match=r"Not read: 1 tensor of another kind \(torch\._utils\._rebuild_qtensor\)"
    ):
        chosen(tmp_path, state)


@pytest.mark.slow
def test_a_file_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": STATE}
    content["self"] = content
    laughs: list[Any] = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    assert exact(chosen(tmp_path, content))
    with pytest.raises(CheckpointError, match="contain each other endlessly"):
        chosen(tmp_path, {"state_dict": STATE, "laughs": laughs})
