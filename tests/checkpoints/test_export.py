"""Public layouts written back, and the certificate of an import."""

import errno
import itertools
import os
import runpy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from poseglass.checkpoints import IMPORTERS, import_state
from poseglass.checkpoints.certificate import certify
from poseglass.checkpoints.checkpoint import open_checkpoint
from poseglass.checkpoints.export import export_state, fits, write_checkpoint
from poseglass.checkpoints.importer import Importer
from poseglass.cli.export import export
from poseglass.cli.import_weights import import_weights
from poseglass.core.card import WeightCard
from poseglass.core.image import write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import MPII16
from poseglass.core.table import build_part
from poseglass.estimators.weights_file import CheckpointError, read_card, read_weights, save_weights
from poseglass.networks import NETWORKS

layouts, resnets, mmpose, mobile, efficient, centernet = (
    SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name(f"layouts{kind}.py"))))
    for kind in ("", "_resnet", "_mmpose", "_mobilenet", "_efficientnet", "_centernet")
)
State = dict[str, torch.Tensor]
MAKE: dict[str, Callable[[], State]] = {
    "hourglass_princeton": layouts.princeton,
    "hourglass_bearpaw": layouts.bearpaw,
    "hrnet_msra": resnets.hrnet,
    "simple_baseline_msra": resnets.simple_baseline,
    "simple_baseline_microsoft": resnets.simple_baseline,
    "hrnet_mmpose": lambda: resnets.mmpose(resnets.hrnet(), "head"),
    "simple_baseline_mmpose": lambda: resnets.mmpose(resnets.simple_baseline(), "head"),
    "hourglass_mmpose": lambda: mmpose.hourglass(1),
    "cpm_mmpose": mmpose.pose_machine,
    "centernet_hourglass": centernet.hourglass,
    "centernet_resnet": centernet.resnet,
    "hrnet_imagenet": lambda: resnets.hrnet(classifier=True),
    "resnet_torchvision": resnets.torchvision,
    "mobilenet_v3_dli14": lambda: mobile.small("dli14"),
    "mobilenet_v3_torchvision": lambda: mobile.small("torchvision"),
    "mobilenet_v3_timm": lambda: mobile.small("timm"),
    **{f"mobilenet_v3_{one}_classifier": partial(mobile.small, one) for one in ("dli14", "torchvision", "timm")},
    "efficientnet_lite": efficient.lite0,
    "dla_imagenet": resnets.dla,
}
"""A small state of every layout that is known, as its authors store it."""


def test_every_layout_is_written_back_in_a_test() -> None:
    assert MAKE.keys() == IMPORTERS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("layout", MAKE)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_import_export_import_changes_no_bit(
    layout: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, importer = MAKE[layout](), IMPORTERS[layout]
    ours, card = import_state(original, importer)
    path, public = tmp_path / "ours.safetensors", tmp_path / f"public{suffix}"
    save_weights(path, ours, card)
    export(str(path), layout, public)
    written = open_checkpoint(public).all()
    unused = importer.never_run(card.network)
    kept = {name: tensor for name, tensor in original.items() if not name.startswith(importer.excluded)}
    assert written.keys() == kept.keys()
    for name, tensor in kept.items():
        assert (written[name].shape, written[name].dtype) == (tensor.shape, tensor.dtype), name
        assert torch.equal(written[name], torch.zeros_like(tensor) if name in unused else tensor), name
    again, again_card = import_state(written, importer)
    assert again_card.network == card.network
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], ours[name]) for name in ours)
    output = capsys.readouterr().out
    assert (f"zeros       {len(unused)} tensors" in output) == bool(unused)
    assert f"{len(written)} tensors" in output
    assert "differs from that code's" not in output


@pytest.mark.parametrize("layout", ["hourglass_princeton", "hourglass_bearpaw"])
def test_another_width_both_ways(layout: str) -> None:
    make = layouts.princeton if layout == "hourglass_princeton" else layouts.bearpaw
    original, importer = make(width=12), IMPORTERS[layout]
    ours, card = import_state(original, importer)
    assert card.network["width"] == 12
    unused = importer.never_run(card.network)
    public = export_state(ours, card, layout, IMPORTERS)
    assert {name: tensor.shape for name, tensor in public.items()} == {k: v.shape for k, v in original.items()}
    assert all(torch.equal(public[name], original[name]) for name in original.keys() - unused.keys())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("resnet_torchvision", {"output_stride": 8}),
        ("mobilenet_v3_torchvision", {"eps": 1e-5}),
        ("mobilenet_v3_timm", {"eps": 1e-3}),
        ("mobilenet_v3_dli14", {"order": "activate_excite"}),
        ("simple_baseline_msra", {"head": {"name": "offset"}}),
    ],
)
def test_a_network_that_computes_something_else_is_not_written(layout: str, change: dict) -> None:
    ours, card = import_state(MAKE[layout](), IMPORTERS[layout])
    assert fits(ours, card, IMPORTERS[layout])
    card = replace(card, network=card.network | change)
    with pytest.raises(
        CheckpointError, match=f"cannot be written as '{layout}': that layout is for .*, which these weights"
    ):
        export_state(ours, card, layout, IMPORTERS)


def test_a_network_may_be_described_in_another_way() -> None:
    ours, card = import_state(MAKE["mobilenet_v3_timm"](), IMPORTERS["mobilenet_v3_timm"])
    plain = {"eps": 1e-5} | {k: v for k, v in reversed(card.network.items()) if k not in ("order", "eps")}
    assert fits(ours, replace(card, network=plain), IMPORTERS["mobilenet_v3_timm"])


@pytest.mark.slow
def test_the_usual_size_is_no_part_of_what_a_network_computes() -> None:
    table = {
        "name": "composed",
        "backbone": {"name": "hrnet", "finest_only": True},
        "neck": {"name": "level", "level": 0},
    }
    with torch.device("meta"):
        composed = build_part(NETWORKS, table, "network", 16)
    card = WeightCard(
        name="mine",
        network=table | {"num_keypoints": 16},
        codec={"name": "heatmap"},
        skeleton=MPII16,
        input=InputSpec(),
    )
    assert fits(composed.state_dict(), card, IMPORTERS["hrnet_msra"])  # which are read back as hrnet_w32


@pytest.mark.slow
def test_colours_that_the_other_code_does_not_give_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ours.safetensors"
    save_weights(path, *import_state(resnets.simple_baseline(), IMPORTERS["simple_baseline_microsoft"]))
    export(str(path), "simple_baseline_msra", tmp_path / "public.pth")
    output = capsys.readouterr().out
    assert "these weights need color bgr (there rgb). Change it there." in output
    assert "--to simple_baseline_microsoft" in output
    export(str(path), "simple_baseline_microsoft", tmp_path / "microsoft.pth")
    assert "differs from that code's" not in capsys.readouterr().out


def test_as_a_command(tmp_path: Path) -> None:
    path, public = tmp_path / "ours.safetensors", tmp_path / "public.pth"
    save_weights(path, *import_state(layouts.bearpaw(), IMPORTERS["hourglass_bearpaw"]))
    app = typer.Typer()
    app.command("export")(export)
    result = CliRunner().invoke(app, [str(path), "--to", "hourglass_bearpaw", "--out", str(public)])
    assert result.exit_code == 0, result.output
    assert open_checkpoint(public).all().keys() == layouts.bearpaw().keys()


def test_a_name_that_was_fetched_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    save_weights(
        tmp_path / "weights" / "bear.safetensors", *import_state(layouts.bearpaw(), IMPORTERS["hourglass_bearpaw"])
    )
    export("bear", "hourglass_bearpaw", tmp_path / "public.pth")
    assert (tmp_path / "public.pth").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_full_disk_leaves_the_old_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = tmp_path / f"public{suffix}"
    to.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(to, {"a": torch.zeros(3)})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(to.name, b"old")]


def test_what_cannot_be_written_names_what_can(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    save_weights(path, *import_state(layouts.bearpaw(), IMPORTERS["hourglass_bearpaw"]))
    for layout, says in (
        ("hourglass_princeton", r"'hourglass_princeton': that layout is for a stacked .* They fit hourglass_bearpaw\."),
        ("princeton", r"no layout of that name\. Did you mean 'hourglass_princeton'\? They fit hourglass_bearpaw\."),
    ):
        with pytest.raises(CheckpointError, match=says):
            export(str(path), layout, tmp_path / "public.pth")
    with pytest.raises(
        CheckpointError,
        match=r"They fit no known layout\. Layouts: hourglass_princeton \(a stacked",
    ):
        export("hg2-light-lspet", "hourglass_bearpaw", tmp_path / "public.pth")
    with pytest.raises(ValueError, match=r"--out must name a \.pth, \.pt or \.safetensors file, got 'public\.onnx'"):
        export(str(path), "hourglass_bearpaw", tmp_path / "public.onnx")
    for force in (False, True):
        with pytest.raises(ValueError, match=r"--out is the weights file itself: .*ours\.safetensors"):
            export(str(path), "hourglass_bearpaw", path, force=force)
    (tmp_path / "there.pth").touch()
    with pytest.raises(FileExistsError, match=r"there\.pth exists.*--force"):
        export(str(path), "hourglass_bearpaw", tmp_path / "there.pth")
    (tmp_path / "there.pth").unlink()
    with pytest.raises(FileNotFoundError, match="no folder"):
        export(str(path), "hourglass_bearpaw", tmp_path / "none" / "public.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["ours.safetensors"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(layouts.princeton(num_stacks=1), path)
    return path


@pytest.mark.parametrize("half", [False, True])
def test_an_import_is_checked_and_its_card_says_so(
    checkpoint: Path, tmp_path: Path, half: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "ours.safetensors"
    import_weights(checkpoint, to, half=half, check=True)
    certificate = read_card(to).certificate
    assert certificate["checked"] is True
    assert certificate["half"] is half
    assert 0 < certificate["maps_relative"] < (1e-2 if half else 1e-5)
    assert (certificate["maps_relative"] > 1e-5) == half
    assert 0 <= certificate["keypoints_mean_px"] <= certificate["keypoints_max_px"]
    assert certificate["images"] == ["synthetic person 0", "synthetic person 1"]
    assert certificate["torch"] == torch.__version__
    assert "checked     heatmaps differ by" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pth", "ours.safetensors"]


@pytest.mark.parametrize("half", [False, True])
def test_what_was_checked_is_what_is_delivered(
    checkpoint: Path, tmp_path: Path, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that changes what lies in memory behind the back of the file it looks at."""
    seen: dict[str, torch.Tensor] = {}

    def changing(path: Path, original: State, *_: object, **__: object) -> dict[str, object]:
        seen.update({name: tensor.clone() for name, tensor in read_weights(path)[0].items()})
        for tensor in original.values():
            tensor.zero_()
        return {
            "checked": True,
            "maps_relative": 0.0,
            "keypoints_max_px": 0.0,
            "keypoints_mean_px": 0.0,
            "images": [],
        }

    monkeypatch.setitem(import_weights.__globals__, "certify", changing)
    to = tmp_path / "ours.safetensors"
    import_weights(checkpoint, to, half=half, check=True)
    written, card = read_weights(to)
    assert card.certificate["checked"] is True
    assert all(torch.equal(written[name], tensor) for name, tensor in seen.items())


def test_an_import_that_was_not_checked_says_so(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "ours.safetensors"
    import_weights(checkpoint, to)
    assert read_card(to).certificate == {"checked": False}
    assert "checked     no; --check compares" in capsys.readouterr().out


def test_an_image_of_one_s_own_to_check_on(checkpoint: Path, tmp_path: Path) -> None:
    image, to = tmp_path / "mine.png", tmp_path / "ours.safetensors"
    write_image(image, np.random.default_rng(0).integers(0, 255, (60, 40, 3), np.uint8))
    import_weights(checkpoint, to, check=True, check_image=[image])
    assert read_card(to).certificate["images"] == ["mine.png"]
    with pytest.raises(ValueError, match="--check-image requires --check"):
        import_weights(checkpoint, to, force=True, check_image=[image])


def test_an_import_that_computes_something_else_leaves_no_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layout read wrongly: two residuals of the same shapes have changed places."""
    right = IMPORTERS["hourglass_princeton"]

    def wrong(network):
        names = right.names(network)
        a, b = (f"hourglasses.0.{part}.0." for part in ("down", "up"))
        return {k.replace(a, "*").replace(b, a).replace("*", b): v for k, v in names.items()}

    monkeypatch.setitem(IMPORTERS, right.name, replace(right, names=wrong))
    to = tmp_path / "ours.safetensors"
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth: .* do not compute what the original does: .* 0\.001"):
        import_weights(checkpoint, to, check=True)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, State]:
    """An imported toy and its original, whose keypoint 2 has maps of small values."""
    original = layouts.princeton(num_stacks=1)
    original["outs.0.conv.weight"][2] *= 1e-3
    original["outs.0.conv.bias"][2] = 0
    path = tmp_path / "ours.safetensors"
    save_weights(path, *import_state(original, IMPORTERS["hourglass_princeton"]))
    return path, original


def read_as(change: Callable[[torch.Tensor, int], torch.Tensor]) -> Importer:
    """Return an importer whose reading of the original is changed, given the maps and the number of the image."""
    right, count = IMPORTERS["hourglass_princeton"], itertools.count()
    reading = right.reference
    assert reading is not None
    return replace(right, reference=lambda state, images: change(reading(state, images), next(count)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("image", [0, 1])
def test_nan_is_not_agreement(toy: tuple[Path, State], value: float, image: int) -> None:
    importer = read_as(lambda maps, number: maps + value if number == image else maps)
    with pytest.raises(CheckpointError, match=f"original's tensors output NaN or infinity on synthetic person {image}"):
        certify(*toy, importer)


def test_nan_of_both_is_not_agreement(toy: tuple[Path, State]) -> None:
    _, original = toy
    original["outs.0.conv.weight"].fill_(3e38)
    save_weights(toy[0], *import_state(original, IMPORTERS["hourglass_princeton"]))
    with pytest.raises(CheckpointError, match="output NaN or infinity on synthetic person 0"):
        certify(*toy, IMPORTERS["hourglass_princeton"])


def test_a_keypoint_of_small_values_is_checked_too(toy: tuple[Path, State]) -> None:
    assert certify(*toy, IMPORTERS["hourglass_princeton"])["keypoints_max_px"] < 1
    turned = read_as(lambda maps, _: torch.cat([maps[:, :2], maps[:, 2:3].flip(-1, -2), maps[:, 3:]], 1))
    with pytest.raises(CheckpointError, match=r"a keypoint with a clear peak is off by [\d.]+ px, over 4, on"):
        certify(*toy, turned)


def test_a_layout_without_a_reference_cannot_be_checked(tmp_path: Path) -> None:
    importer = replace(IMPORTERS["hourglass_princeton"], reference=None)
    original = layouts.princeton(num_stacks=1)
    path = tmp_path / "ours.safetensors"
    save_weights(path, *import_state(original, importer))
    with pytest.raises(CheckpointError, match=r"no reference\. Import without --check"):
        certify(path, original, importer)
    assert read_weights(path)[1].certificate == {"checked": False}
