"""``poseglass import``: what it writes, what it says, and what it refuses."""

import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from poseglass.cli.import_weights import import_weights
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError, read_weights, sha256_of

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "checkpoints" / "layouts.py")))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": {f"model.module.{k}": v for k, v in layouts.princeton().items()}, "epoch": 9}, path)
    return path


def test_the_written_file_loads_and_the_output_says_what_it_is(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "ours.safetensors"
    import_weights(checkpoint, to)
    state, card = read_weights(to)
    card_network(card, state)
    assert card.sha256 == sha256_of(checkpoint)
    output = capsys.readouterr().out
    for text in (
        "princeton-vl/pytorch_stacked_hourglass",
        "mpii16: right_ankle",
        "mean (0.0, 0.0, 0.0)",
        '"num_stacks": 2',
    ):
        assert text in output
    assert f"wrote       {to}" in output


def test_as_a_command(checkpoint: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("import")(import_weights)
    to = tmp_path / "half.safetensors"
    result = CliRunner().invoke(app, [str(checkpoint), "--out", str(to), "--name", "mine", "--half"])
    assert result.exit_code == 0, result.output
    state, card = read_weights(to)
    assert card.name == "mine"
    assert torch.equal(state["outputs.0.heatmap.weight"], state["outputs.0.heatmap.weight"].half().float())
    result = CliRunner().invoke(app, [str(checkpoint)])
    assert result.exit_code == 2
    assert "--out" in result.output


def test_an_existing_file_stays_without_force(checkpoint: Path, tmp_path: Path) -> None:
    to = tmp_path / "ours.safetensors"
    to.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"ours\.safetensors exists\. .*--force"):
        import_weights(checkpoint, to)
    assert to.read_bytes() == b"precious"
    import_weights(checkpoint, to, force=True)
    read_weights(to)


def test_where_it_cannot_write(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--out must name a \.safetensors file, got 'ours\.pth'"):
        import_weights(checkpoint, tmp_path / "ours.pth")
    with pytest.raises(FileNotFoundError, match="no folder"):
        import_weights(checkpoint, tmp_path / "missing" / "ours.safetensors")
    same = checkpoint.rename(tmp_path / "same.safetensors")
    with pytest.raises(ValueError, match="--out is the checkpoint itself"):
        import_weights(same, same, force=True)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("it_ran",)


def test_bad_input_leaves_no_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    to, bad = tmp_path / "ours.safetensors", tmp_path / "bad.pth"
    whole = checkpoint.read_bytes()
    torch.save({"state_dict": layouts.princeton() | {"left.weight": torch.zeros(1)}}, bad)
    left_over = bad.read_bytes()
    torch.save({"state_dict": layouts.princeton(), "hook": Evil()}, bad)
    evil = bad.read_bytes()
    torch.save({"other.weight": torch.zeros(1)}, bad)
    unknown = bad.read_bytes()
    for content, says in (
        (b"some text in a file", r"bad\.pth is not a checkpoint but text"),
        (whole[: len(whole) // 2], r"bad\.pth is a truncated or damaged checkpoint"),
        (evil, r"bad\.pth is a pickle that contains code \(\w+\.mkdir\)"),
        (unknown, r"bad\.pth: No importer recognises a checkpoint with names such as other\.weight"),
        (left_over, r"bad\.pth: The checkpoint looks like a stacked hourglass .* unexpected: left\.weight\."),
    ):
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match=says):
            import_weights(bad, to)
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.pt: The checkpoint predicts 16 keypoints; skeleton 'coco17' has 17"
    ):
        import_weights(checkpoint, to, skeleton="coco17")
    with pytest.raises(FileNotFoundError, match="No such checkpoint"):
        import_weights(tmp_path / "none.pth", to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth", "checkpoint.pt"]


def test_skeletons_by_name_and_by_file(tmp_path: Path) -> None:
    checkpoint, to = tmp_path / "three.pth", tmp_path / "ours.safetensors"
    torch.save(layouts.bearpaw(num_keypoints=3), checkpoint)
    with pytest.raises(CheckpointError, match=r"three\.pth: .*predicts 3 keypoints and does not say which.*--skeleton"):
        import_weights(checkpoint, to)
    with pytest.raises(LookupError, match=r"Unknown skeleton 'coco71'\. Did you mean 'coco17'\?.*\.json file"):
        import_weights(checkpoint, to, skeleton="coco71")
    with pytest.raises(FileNotFoundError, match=r"No such skeleton file: .*paw\.json"):
        import_weights(checkpoint, to, skeleton=str(tmp_path / "paw.json"))
    (tmp_path / "paw.json").write_text("[3]")
    with pytest.raises(ValueError, match=r"paw\.json is not a skeleton .* Expected JSON with 'name' and 'keypoints'"):
        import_weights(checkpoint, to, skeleton=str(tmp_path / "paw.json"))
    (tmp_path / "paw.json").write_text(json.dumps({"name": "paw3", "keypoints": ["left", "middle", "right"]}))
    import_weights(checkpoint, to, skeleton=str(tmp_path / "paw.json"))
    assert read_weights(to)[1].skeleton.name == "paw3"


def test_what_the_file_does_not_say_can_be_stated(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "ours.safetensors"
    import_weights(checkpoint, to, overrides=["input.size_wh=[192, 256]", "codec.sigma=3.0"], check=True)
    _, card = read_weights(to)
    assert card.input.size_wh == (192, 256)
    assert card.codec["sigma"] == 3.0
    assert card.certificate["checked"]
    assert "Stated at import: input.size_wh=[192, 256], codec.sigma=3.0." in card.notes
    assert "192 x 256 px" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.width=3", r"only input.KEY=VALUE and codec.KEY=VALUE can be set here"),
        ("codec.name=simcc", "the layout determines the codec"),
        ("input.gamma=3", "known keys of input are size_wh, padding"),
        ("input.size_wh=[100, 100]", r"must be divisible by \d+"),
        ("input.size_wh=3", "--set input: "),
        ("input.color=gbr", "InputSpec.color must be 'rgb' or 'bgr'"),
        ("codec.sigma=-1", "sigma"),
        ("codec.sigmaa=1", "sigmaa"),
        ("input.padding", "--set must be KEY=VALUE"),
    ],
)
def test_what_cannot_be_stated(checkpoint: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_weights(checkpoint, tmp_path / "ours.safetensors", overrides=[override])
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.slow
def test_a_stated_size_leaves_no_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "checkpoints" / "layouts_resnet.py")))
    torch.save(toys.hrnet(), tmp_path / "theirs.pth")
    to = tmp_path / "ours.safetensors"
    import_weights(tmp_path / "theirs.pth", to)
    assert "read as     Assumed to be trained at 256 x 192" in capsys.readouterr().out
    assert "Assumed to be trained at 256 x 192" in read_weights(to)[1].notes
    import_weights(tmp_path / "theirs.pth", to, force=True, overrides=["input.size_wh=[288, 384]"])
    assert "codec.sigma=3" in capsys.readouterr().out  # half of it is still in doubt
    import_weights(tmp_path / "theirs.pth", to, force=True, overrides=["input.size_wh=[288, 384]", "codec.sigma=3"])
    assert "read as" not in capsys.readouterr().out
    assert "Read as" not in read_weights(to)[1].notes


def test_a_wrong_layout_names_the_right_one(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"is not an HRNet .*: its names are those of the layout 'hourglass_princeton'"
    ):
        import_weights(checkpoint, tmp_path / "ours.safetensors", layout="hrnet_msra")


def test_another_network_in_the_file_is_taken_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, to = layouts.princeton(), tmp_path / "ours.safetensors"
    averaged = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    content = {
        "model": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        "model_ema": averaged,
        "criterion": {"log_vars": torch.ones(2)},
        "args": SimpleNamespace(lr=0.1),
    }
    torch.save(content, tmp_path / "theirs.pth")
    import_weights(tmp_path / "theirs.pth", to, check=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "taken model._orig_mod.module (trained weights are preferred over averages of them), one of 2 networks"
        in printed
    )
    assert "--take PATH" in printed
    assert "excluded 1 tensor beside the network, under criterion (1)." in printed
    assert "ignored 1 object of classes that are not loaded here, types.SimpleNamespace (1)." in printed
    assert "read under model._orig_mod.module" in printed
    plain, card = read_weights(to)
    for text in ("Taken: model._orig_mod.module", "Excluded: 1 tensor beside", "Ignored: 1 object"):
        assert text in card.notes
    assert card.certificate["taken"] == "model._orig_mod.module"
    assert any("Excluded: 1 tensor" in note for note in card.certificate["notes"])

    import_weights(tmp_path / "theirs.pth", to, force=True, take="model_ema")
    other, card = read_weights(to)
    assert "Taken: model_ema (as requested)" in card.notes
    bias = "outputs.0.heatmap.bias"
    torch.testing.assert_close(other[bias], plain[bias] + 1)
    with pytest.raises(CheckpointError, match=r"theirs\.pth: --take 'ema': there is no network of a known layout"):
        import_weights(tmp_path / "theirs.pth", to, force=True, take="ema")


def test_a_plain_checkpoint_gets_no_notes(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_weights(checkpoint, tmp_path / "ours.safetensors")
    printed = capsys.readouterr().out
    assert not {line.split()[0] for line in printed.splitlines()} & {"taken", "ignored", "note"}
    assert "beside the network" not in printed


def test_whole_numbers_are_not_imported_as_weights(tmp_path: Path) -> None:
    state = layouts.princeton() | {"pre.0.conv.weight": torch.ones(2, 3, 7, 7, dtype=torch.int8)}
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"of another type: stem\.conv\.weight int8 for float32"):
        import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
