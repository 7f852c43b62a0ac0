"""``poseglass models``: every network with its figures, shipped weights with their terms, JSON that says the same."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from poseglass.cli.models import models
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14
from poseglass.estimators.load import SHIPPED_FOLDER
from poseglass.estimators.weights_file import CheckpointError, save_weights
from poseglass.necks import NECKS
from poseglass.networks import NETWORKS
from poseglass.networks.stacked_hourglass import hg1_light

models_module = importlib.import_module("poseglass.cli.models")  # the package's attribute is the function

FEW = ("stacked_hourglass", "hg1_light", "hg1", "hg2", "mobile_pose_small", "unet", "unet_light")


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture(autouse=True)
def _few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few networks stand for all, which takes many seconds; the first test lists all."""
    monkeypatch.setattr(models_module, "NETWORKS", {name: NETWORKS[name] for name in FEW})


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped weights with one file in it."""
    card = WeightCard(
        name="hg1-light-test",
        network={"name": "hg1_light", "num_keypoints": 14},
        codec={"name": "heatmap"},
        skeleton=LSP14,
        input=InputSpec(size_wh=(64, 96)),
        results={"toy/val PCK@0.2": 0.51234},
        data="a few people",
        license="terms [of] ours",
    )
    path = tmp_path / "hg1-light-test.safetensors"
    save_weights(path, hg1_light(14).state_dict(), card, half=True)
    monkeypatch.setattr(models_module, "shipped", lambda: {path.stem: path})
    return path


def run_json(capsys: pytest.CaptureFixture[str], **options: object) -> dict:
    models(json=True, **options)  # type: ignore[arg-type]
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_every_network_is_listed_with_its_figures_and_nothing_is_cut_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "NETWORKS", NETWORKS)
    monkeypatch.setenv("COLUMNS", "80")
    models()
    output = capsys.readouterr().out
    assert "…" not in output
    for name in NETWORKS:
        assert f"\n {name} " in output
    for text in ("6,570,400", "8.335 G", "256 x 256", "27.440 G", "128 x 128", "num_stacks=8, width=256"):
        assert text in output
    assert "terms: terms [of] ours" in " ".join(output.split())
    for text in ("hrnet-w32-coco-mmpose", "resnet50-imagenet-torchvision", "poseglass weights list"):
        assert text in output


@pytest.mark.slow
def test_json_holds_the_numbers(capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    document = run_json(capsys)
    rows = {row["name"]: row for row in document["networks"]}
    assert list(rows) == list(FEW)
    assert rows["hg2"] == {
        "name": "hg2",
        "family": "stacked_hourglass",
        "options": ["stem=newell"],
        "generic": False,
        "size_wh": [256, 256],
        "size_assumed": False,
        "parameters": 6_570_400,
        "multiply_adds": 8_334_606_336,
        "stride": 4,
        "divisor": 64,
        "latency_ms": None,
        "weights": [],
        "public": ["hg2-mpii-bearpaw"],
    }
    assert rows["stacked_hourglass"]["generic"] is True
    assert rows["stacked_hourglass"]["parameters"] is None
    assert rows["hg1_light"]["weights"] == ["hg1-light-test"]
    (shipped,) = document["weights"]
    assert shipped["license"] == "terms [of] ours"
    assert shipped["bytes"] == weights.stat().st_size
    assert (shipped["num_keypoints"], shipped["size_wh"]) == (14, [64, 96])
    assert shipped["multiply_adds"] < rows["hg1_light"]["multiply_adds"] * 1.5


@pytest.mark.slow
def test_weights_stand_in_a_table_with_data_figures_and_terms(
    capsys: pytest.CaptureFixture[str], weights: Path
) -> None:
    models()
    output = capsys.readouterr().out
    for text in ("hg1-light-test", "lsp14 (14)", "64 x 96", "a few people", "PCK@0.2 0.5123", "terms: terms [of] ours"):
        assert text in output


def test_names_choose_and_keypoints_and_size_change_the_figures(
    capsys: pytest.CaptureFixture[str], weights: Path
) -> None:
    document = run_json(capsys, names=["hg2"], keypoints=17, size=512)
    (row,) = document["networks"]
    assert (row["parameters"], row["multiply_adds"]) == (6_571_170, 4 * 8_337_752_064)
    assert document["weights"] == []


def test_measuring_adds_the_time_here(capsys: pytest.CaptureFixture[str]) -> None:
    document = run_json(capsys, names=["hg1_light", "stacked_hourglass"], size=32, measure=True)
    timed, generic = document["networks"]
    assert timed["latency_ms"] > 0
    assert generic["latency_ms"] is None
    assert document["measured"]["threads"] == torch.get_num_threads()
    models(names=["hg1_light"], size=32, measure=True)
    assert "ms here" in capsys.readouterr().out


def test_an_unknown_name_and_a_size_that_will_not_do() -> None:
    with pytest.raises(LookupError, match=r"Unknown network 'hg3'\. Did you mean"):
        models(names=["hg3"])
    with pytest.raises(ValueError, match="Nearest valid sizes"):
        models(names=["hg2"], size=100)


def test_damaged_weights_are_said(weights: Path) -> None:
    weights.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        models()


def test_no_weights_are_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "shipped", dict)
    models()
    assert "This installation has no built-in weights" in capsys.readouterr().out


@pytest.mark.slow
def test_families_stand_together_from_small_to_large(capsys: pytest.CaptureFixture[str]) -> None:
    models(names=["hg2", "unet_light", "hg1_light", "mobile_pose_small", "hg1", "unet"])
    output = capsys.readouterr().out
    first = [line.split()[0] for line in output.splitlines() if line.strip()]
    built = ["hg1_light", "hg1", "hg2", "unet_light", "mobile_pose_small"]
    assert [word for word in first if word in built] == built
    assert output.index("hg2") < output.index("\n unet ") < output.index("unet_light")  # heading, then member


def test_a_long_name_and_a_network_without_a_stride_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    sized = {"size_wh": (192, 256), "parameters": 194_811_124, "multiply_adds": 350_478_663_680}
    rows = [
        models_module.NetworkRow("a_network_of_a_very_long_name_384x288", "paper", [], generic=False, **sized),
        models_module.NetworkRow("a_family", "paper", [f"argument_{i}=8" for i in range(12)], generic=True),
    ]
    models_module.print_networks(rows, 17, Console(width=80))
    output = capsys.readouterr().out
    assert "…" not in output
    assert max(map(len, output.splitlines())) <= 80
    for text in ("194,811,124", "350.479 G", "192 x 256", "argument_0=8", "argument_11=8"):
        assert text in output


def test_a_stride_that_is_not_one_number_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Several(torch.nn.Conv2d):
        """A network whose maps are of two strides."""

        stride: tuple[int, int]  # type: ignore[assignment]

    def several(num_keypoints: int) -> torch.nn.Module:
        return Several(3, num_keypoints, 1, stride=(2, 4))

    monkeypatch.setattr(models_module, "NETWORKS", {"several": several})
    row = models_module.network_row("several", 2, (64, 64), [])
    assert (row.stride, row.divisor, row.multiply_adds) == (None, None, 3 * 2 * 32 * 16)
    monkeypatch.setattr(models_module, "FAMILIES", {"several": Several})
    monkeypatch.setattr(models_module, "NETWORKS", {"several": Several})
    assert models_module.network_row("several", 2, None, []).stride is None


@pytest.mark.slow
def test_parts_of_a_composed_network_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    models()
    output = capsys.readouterr().out
    for text in ("mobilenet_v3_small, mobilenet_v3_large", "fpn, unet", "heatmap"):
        assert text in output
    assert run_json(capsys, names=["hg1_light"])["parts"]["neck"] == list(NECKS)


MINE = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, num_keypoints, *, width=8):
        super().__init__()
        self.inside, self.out = nn.Conv2d(3, width, 1), nn.Conv2d(width, num_keypoints, 1)

    def forward(self, images):
        return [{"heatmap": self.out(self.inside(images))}]


def sized(num_keypoints):
    network = Mine(num_keypoints)
    network.usual_size_wh = (96, 128)
    return network


def missized(num_keypoints):
    network = Mine(num_keypoints)
    network.usual_size_wh = 96
    return network


def anything(num_keypoints, *, width, **more):
    return Mine(num_keypoints, width=width)


def nothing(num_keypoints):
    return None


NUMBER = 3
"""


@pytest.fixture
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mine", None)  # another test may have imported a file of this name
    yield
    del sys.modules["mine"]


@pytest.mark.slow
@pytest.mark.usefixtures("_mine")
def test_a_network_of_ones_own_is_counted_at_its_usual_size_or_at_one_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unsized, sized, generic = run_json(capsys, names=["mine:Mine", "mine:sized", "mine:anything"])["networks"]
    assert (unsized["size_wh"], unsized["size_assumed"]) == ([256, 256], True)
    assert (sized["size_wh"], sized["size_assumed"]) == ([96, 128], False)
    assert (unsized["multiply_adds"], sized["multiply_adds"]) == (256 * 256 * 8 * 19, 96 * 128 * 8 * 19)
    assert (generic["generic"], generic["options"]) == (True, ["width", "more"])
    models(names=["mine:Mine", "mine:sized"])
    said = "mine:Mine without usual_size_wh: 256 x 256 was used; --size sets another."
    assert said in " ".join(capsys.readouterr().out.split())
    models(names=["mine:Mine"], size=64)
    assert "usual_size_wh" not in capsys.readouterr().out


@pytest.mark.usefixtures("_mine")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missized", r"usual_size_wh of network 'mine:missized' must be .* such as \(192, 256\); got 96\."),
        ("nothing", r"network 'mine:nothing' made a NoneType; a torch\.nn\.Module is needed\."),
        ("NUMBER", r"network 'mine:NUMBER' is a int; a class or function is needed\."),
    ],
)
def test_what_is_no_network_or_states_no_size_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        models(names=[f"mine:{name}"])


@pytest.mark.slow
def test_what_ships_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    document = run_json(capsys, names=["hg1_light"])
    assert document["networks"]
    for path in SHIPPED_FOLDER.glob("*.safetensors"):
        assert path.stem in {row["name"] for row in run_json(capsys)["weights"]}
