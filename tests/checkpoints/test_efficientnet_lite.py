"""EfficientNet-Lite in its public layout: told by its keys, read whole, and computing what the original does."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from poseglass.backbones import BACKBONES
from poseglass.checkpoints import IMPORTERS, import_state, recognise
from poseglass.checkpoints.efficientnet_lite import names
from poseglass.checkpoints.reference_backbones import efficientnet_lite
from poseglass.core.table import build
from poseglass.estimators.weights_file import CheckpointError

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_efficientnet.py"))))
IMPORTER = IMPORTERS["efficientnet_lite"]


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return layouts.lite0()


def run(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Return the last map, computed from the public names and the table of the public code."""

    def norm(name: str, x: Tensor) -> Tensor:
        leaves = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *leaves, eps=1e-3)  # type: ignore[arg-type]

    def act(x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    def same(x: Tensor, kernel: Tensor, stride: int, groups: int = 1) -> Tensor:
        pads: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), kernel, None, stride, 0, 1, groups)

    x = act(norm("_bn0", same(images, state["_conv_stem.weight"], 2)))
    for i, (_, _, made, stride) in enumerate(layouts.rows()):
        base, y = f"_blocks.{i}", x
        if i:
            y = act(norm(f"{base}._bn0", functional.conv2d(y, state[f"{base}._expand_conv.weight"])))
        y = same(y, state[f"{base}._depthwise_conv.weight"], stride, y.shape[1])
        y = act(norm(f"{base}._bn1", y))
        y = norm(f"{base}._bn2", functional.conv2d(y, state[f"{base}._project_conv.weight"]))
        x = x + y if stride == 1 and x.shape[1] == made else y
    return x


@pytest.mark.parametrize(("height", "width"), [(64, 96), (60, 130)])  # the second is odd at two depths
def test_the_backbone_computes_what_the_original_does(original: dict[str, Tensor], height: int, width: int) -> None:
    assert len(original) == 296
    assert recognise(original) is IMPORTER
    state, card = import_state(original, IMPORTER)
    assert card.network == {"name": "efficientnet_lite0"}
    assert (card.input.size_wh, card.input.color) == ((224, 224), "rgb")
    assert [round(value * 255) for value in (*card.input.mean, *card.input.std)] == [127] * 3 + [128] * 3
    backbone = build(BACKBONES, "efficientnet_lite0").eval()
    backbone.load_state_dict(state)
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 4 - 2
    with torch.no_grad():
        ours, theirs, read = backbone(images), run(original, images), efficientnet_lite(original, images)
    assert (ours[-1] - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert [level.shape for level in ours] == [level.shape for level in read]
    for level, its in zip(ours, read, strict=True):
        assert (level - its).abs().max() < 1e-4 * its.abs().max()


def test_what_is_left_out_is_counted_and_named(original: dict[str, Tensor]) -> None:
    _, card = import_state(original, IMPORTER)
    assert "Excluded: 8 tensors of the original" in card.notes
    assert "The classifier's layers _conv_head, _bn1 and _fc are not part of it." in card.notes
    assert "normalised as (x - 127) / 128" in card.notes
    left = {name.split(".")[0] for name in original} - {old.split(".")[0] for old in names(card.network).values()}
    assert left == {"_conv_head", "_bn1", "_fc"}


@pytest.mark.parametrize("number", range(5))
def test_names_cover_the_backbone_in_its_order_at_every_scale(number: int) -> None:
    name = f"efficientnet_lite{number}"
    with torch.device("meta"):
        state = build(BACKBONES, name).state_dict()
    table = names({"name": name})
    assert list(table) == list(state)
    assert len(set(table.values())) == len(table)
    assert IMPORTER.network(IMPORTER.publish(state, {"name": name})) == {"name": name}


def test_what_is_no_such_network_is_refused(original: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"does not match it exactly: unexpected: extra\.weight"):
        import_state(original | {"extra.weight": torch.zeros(1)}, IMPORTER)
    missing = "_blocks.4._bn1.running_var"
    with pytest.raises(CheckpointError, match=r"missing: _blocks\.4\._bn1\.running_var"):
        import_state({name: tensor for name, tensor in original.items() if name != missing}, IMPORTER)
    shorter = {name: tensor for name, tensor in original.items() if not name.startswith("_blocks.15.")}
    with pytest.raises(
        CheckpointError, match=r"has 15 blocks, the last of 192 channels: none of Lite0 to Lite4\. Only"
    ):
        import_state(shorter, IMPORTER)
    with pytest.raises(CheckpointError, match=r"The network 'resnet18' is not an EfficientNet-Lite of .*; expected"):
        names({"name": "resnet18"})
    squeezed = original | {"_blocks.0._se_reduce.weight": torch.zeros(8, 32, 1, 1)}
    with pytest.raises(CheckpointError, match="No importer recognises"):
        recognise(squeezed)
