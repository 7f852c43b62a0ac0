"""An importer of a backbone: linear kernels, a classifier left out, earlier names; import, use and export."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from poseglass.backbones import BACKBONES
from poseglass.checkpoints import IMPORTERS, import_state
from poseglass.checkpoints.checkpoint import open_checkpoint
from poseglass.checkpoints.importer import Importer, Source
from poseglass.cli.export import export
from poseglass.cli.import_weights import import_weights
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14
from poseglass.estimators.weights_file import CheckpointError, read_weights


class Squeeze(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.reduce = nn.Conv2d(width, 2, 1)


TOY = Importer(
    name="toy_layout",
    source=Source("some/body", "https://example.org", "abc", "MIT"),
    layout="a toy of some/body",
    part="backbone",
    recognises=lambda keys: "toy.conv.weight" in keys or "old_toy.conv.weight" in keys,
    network=lambda state: {"name": "squeeze", "width": len(state["toy.conv.bias"])},
    names=lambda network: {
        f"{ours}.{leaf}": f"toy.{theirs}.{leaf}"
        for ours, theirs in (("conv", "conv"), ("reduce", "fc"))
        for leaf in ("weight", "bias")
    },
    input=lambda network: InputSpec((network["width"], 32), color="bgr"),
    excluded=("classifier.",),
    older={"old_toy.": "toy."},
    flat=lambda network: ["reduce.weight"],
    doubt="Read as somebody's; --layout toy_else if it is somebody else's.",
)


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    monkeypatch.setitem(BACKBONES, "squeeze", Squeeze)
    monkeypatch.setitem(IMPORTERS, "toy_layout", TOY)
    random = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "fc.weight": (2, 4), "fc.bias": (2,)}
    state = {f"toy.{name}": torch.randn(shape, generator=random) for name, shape in shapes.items()}
    return state | {"classifier.weight": torch.ones(5, 4)}


def test_there_and_back(original: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, to, public = (tmp_path / name for name in ("theirs.pth", "ours.safetensors", "back.pth"))
    torch.save({name.replace("toy.", "old_toy."): tensor for name, tensor in original.items()}, checkpoint)
    import_weights(checkpoint, to)
    output = capsys.readouterr().out
    assert "read as     Read as somebody's; --layout toy_else" in output
    assert "train.init_from = " in output
    state, card = read_weights(to)
    assert (card.part, card.skeleton, card.codec, card.name) == ("backbone", None, {}, "squeeze-toy_layout")
    assert card.input == InputSpec((4, 32), color="bgr")
    assert "Excluded: 1 tensors of the original that are not needed here." in card.notes
    Squeeze(4).load_state_dict(state, strict=True)
    export(str(to), "toy_layout", public)
    assert "not written names starting with classifier." in capsys.readouterr().out
    back = open_checkpoint(public).all()
    assert back.keys() == original.keys() - {"classifier.weight"}
    assert all(torch.equal(tensor, original[name]) for name, tensor in back.items())
    import_weights(checkpoint, to, force=True, layout="toy_layout")  # other doubts stay where that is said
    assert "read as     Read as somebody's" in capsys.readouterr().out


def test_a_backbone_has_no_skeleton_and_no_heatmaps_to_check(original: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a toy of some/body, only a backbone, which has no skeleton"):
        import_state(original, TOY, skeleton=LSP14)
    torch.save(original, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"There is no check for a toy of some/body"):
        import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]


def test_what_else_is_left_over_is_an_error(original: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"unexpected: toy\.more"):
        import_state(original | {"toy.more": torch.zeros(1)}, TOY)
