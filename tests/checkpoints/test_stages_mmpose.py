"""mmpose's hourglass and pose machine: the imported networks compute what the originals do."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from poseglass.checkpoints import IMPORTERS, cpm_mmpose, hourglass_mmpose, import_checkpoint, import_state, recognise
from poseglass.codecs import CODECS
from poseglass.core.skeletons import COCO17, MPII16
from poseglass.core.table import build
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError
from poseglass.networks import NETWORKS

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_mmpose.py"))))
hourglass, pose_machine = layouts.hourglass, layouts.pose_machine
SHARED = Path(__file__).resolve().parents[3] / "shared" / "checkpoints"
State = dict[str, Tensor]
HOURGLASS, CPM = "hourglass_mmpose", "cpm_mmpose"


def run_conv(state: State, name: str, x: Tensor, stride: int = 1, conv: str = "conv", norm: str = "bn") -> Tensor:
    weight, norm = state[f"{name}.{conv}.weight"], f"{name}.{norm}"
    x = functional.conv2d(x, weight, state.get(f"{name}.{conv}.bias"), stride, weight.shape[-1] // 2)
    if f"{norm}.weight" not in state:
        return x
    mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    return functional.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"])


def run_hourglass(state: State, images: Tensor) -> list[Tensor]:
    def row(name: str, x: Tensor, first_stride: int = 1) -> Tensor:
        j = 0
        while f"{name}.{j}.conv1.weight" in state:
            x = block(f"{name}.{j}", x, 1 if j else first_stride)
            j += 1
        return x

    def block(name: str, x: Tensor, stride: int = 1) -> Tensor:
        inside = run_conv(state, name, x, stride, "conv1", "bn1").relu()
        inside = run_conv(state, name, inside, 1, "conv2", "bn2")
        projects = f"{name}.downsample.0.weight" in state
        return (inside + (run_conv(state, f"{name}.downsample", x, stride, "0", "1") if projects else x)).relu()

    def module(name: str, x: Tensor) -> Tensor:
        if f"{name}.up1.0.conv1.weight" not in state:
            return row(name, x)
        low = row(f"{name}.low3", module(f"{name}.low2", row(f"{name}.low1", x, 2)))
        return row(f"{name}.up1", x) + functional.interpolate(low, scale_factor=2, mode="nearest")

    x = block("backbone.stem.1.0", run_conv(state, "backbone.stem.0", images, 2).relu(), 2)
    maps: list[Tensor] = []
    while f"backbone.out_convs.{len(maps)}.conv.weight" in state:
        i = len(maps)
        feature = run_conv(state, f"backbone.out_convs.{i}", module(f"backbone.hourglass_modules.{i}", x)).relu()
        head = f"head.multi_final_layers.{i}"
        maps.append(functional.conv2d(feature, state[f"{head}.weight"], state[f"{head}.bias"]))
        if f"backbone.conv1x1s.{i}.conv.weight" in state:
            x = run_conv(state, f"backbone.conv1x1s.{i}", x) + run_conv(state, f"backbone.remap_convs.{i}", feature)
            x = block(f"backbone.inters.{i}", x.relu())
    return maps


def run_pose_machine(state: State, images: Tensor) -> list[Tensor]:
    def trunk(name: str) -> Tensor:
        x = images
        for i in (0, 2, 4):
            x = functional.max_pool2d(run_conv(state, f"backbone.{name}.{i}", x).relu(), 3, 2, 1)
        return x

    x = trunk("stem")
    for i in (6, 7, 8):
        x = run_conv(state, f"backbone.stem.{i}", x).relu()
    maps = [run_conv(state, "backbone.stem.9", x)]
    while f"backbone.middle_conv.{len(maps) - 1}.0.conv.weight" in state:
        i = len(maps) - 1
        x = torch.cat([maps[-1], run_conv(state, f"backbone.middle_conv.{i}.0", trunk("middle")).relu()], 1)
        for j in range(3):
            x = run_conv(state, f"backbone.cpm_stages.{i}.model.{j}", x).relu()
        x = run_conv(state, f"backbone.out_convs.{i}.0", x).relu()
        maps.append(run_conv(state, f"backbone.out_convs.{i}.1", x))
    return maps


@pytest.mark.parametrize(
    ("layout", "original", "run", "network"),
    [
        (HOURGLASS, hourglass(), run_hourglass, {"num_stacks": 2, "widths": [8, 8, 12], "blocks": [2, 1, 3]}),
        (HOURGLASS, hourglass(1, (6, 8), (1, 1)), run_hourglass, {"num_stacks": 1, "widths": [6, 8], "blocks": [1, 1]}),
        (CPM, pose_machine(), run_pose_machine, {"num_stages": 3, "width": 8, "feature_width": 4, "first_width": 12}),
        (CPM, pose_machine(2), run_pose_machine, {"num_stages": 2, "kernel_size": 3, "stage_kernel_size": 7}),
    ],
)
def test_every_stage_computes_what_the_original_does(
    layout: str, original: State, run: Callable[[State, Tensor], list[Tensor]], network: dict[str, Any]
) -> None:
    assert recognise(original) is IMPORTERS[layout]
    state, card = import_state(original, IMPORTERS[layout])
    assert {key: card.network[key] for key in network} == network
    images = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stages, expected = card_network(card, state)(images), run(original, images)
    assert len(stages) == len(expected)
    for stage, maps in zip(stages, expected, strict=True):
        torch.testing.assert_close(stage["heatmap"], maps, rtol=1e-4, atol=1e-4 * float(maps.abs().max()))


def test_files_of_mmpose_0_are_the_same() -> None:
    original = hourglass()
    old = {key.replace("head.", "keypoint_head."): value for key, value in original.items()}
    assert old.keys() != original.keys()
    (new_state, new_card), (old_state, old_card) = (import_state(s, recognise(s)) for s in (original, old))
    assert old_card.network == new_card.network
    assert old_state.keys() == new_state.keys()
    assert all(torch.equal(old_state[key], new_state[key]) for key in new_state)


def test_the_card_says_what_the_original_needs() -> None:
    for layout, original, skeleton, stride, side in (
        (HOURGLASS, hourglass(1), COCO17, 4, 256),
        (CPM, pose_machine(), MPII16, 8, 368),
    ):
        _, card = import_state(original, IMPORTERS[layout])
        assert card.skeleton == skeleton
        assert card.codec == {"name": "heatmap", "alignment": "corner", "stride": stride, "sigma": 2.0}
        assert build(CODECS, "heatmap", **{k: v for k, v in card.codec.items() if k != "name"})
        assert (card.input.size_wh, card.input.padding) == ((side, side), 1.25)
        assert card.input.mean == (0.485, 0.456, 0.406)
        assert card.input.std == (0.229, 0.224, 0.225)
        # Of a single stack, the residual after it: two convolutions and two norms of five tensors.
        assert ("Excluded: 12 tensors" in card.notes) == (layout == HOURGLASS)


@pytest.mark.parametrize(("layout", "original"), [(HOURGLASS, hourglass()), (CPM, pose_machine())])
def test_nothing_is_left_over_or_missing_unnoticed(layout: str, original: State) -> None:
    with pytest.raises(CheckpointError, match=r"does not match it exactly: unexpected: backbone\.extra\."):
        import_state(original | {"backbone.extra": torch.zeros(1)}, IMPORTERS[layout])
    used = [name for name in original if "num_batches" not in name]
    for name in used[:: len(used) // 20]:
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            import_state({k: v for k, v in original.items() if k != name}, IMPORTERS[layout])


@pytest.mark.parametrize(
    ("names", "network", "says"),
    [
        (hourglass_mmpose.names, {"name": "hg2"}, "'hg2' is not an hourglass of open-mmlab.*expected hourglass_52"),
        (cpm_mmpose.names, {"name": "cpm_light"}, "'cpm_light' is not a pose machine of open-mmlab.*expected cpm"),
        (cpm_mmpose.names, {"name": "pose_machine", "stride": 4}, "expected cpm, or pose_machine of stride 8"),
    ],
)
def test_other_networks_have_no_names_in_the_layout(names: Any, network: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        names(network)


@pytest.mark.parametrize("name", ["hourglass_52", "hourglass_104", "cpm"])
def test_names_are_those_of_the_whole_network_and_each_is_another(name: str) -> None:
    table = {"name": name, "num_keypoints": 16}
    names = (cpm_mmpose if name == "cpm" else hourglass_mmpose).names(table)
    with torch.device("meta"):
        state = build(NETWORKS, name, num_keypoints=16).state_dict()
    assert names.keys() == state.keys()
    assert len(set(names.values())) == len(names)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("public", "network", "prefix"),
    [("mmpose_hourglass52_coco", "hourglass_52", "keypoint_head."), ("mmpose_cpm_mpii", "cpm", "head.")],
)
def test_parity_with_the_public_code(public: str, network: str, prefix: str, tmp_path: Path) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(SHARED / "fill.py")))
    original = tools.fill(tools.load_keys(SHARED / f"{public}.json"))
    original = {
        prefix + key.removeprefix("head.") if key.startswith("head.") else key: t for key, t in original.items()
    }
    torch.save({"meta": {"epoch": 210}, "state_dict": original}, tmp_path / "checkpoint.pth")
    del original
    state, card = import_checkpoint(tmp_path / "checkpoint.pth")
    assert card.network["name"] == network
    expected = np.load(SHARED / f"{public}.npz")["heatmaps"][:1]
    with torch.no_grad():  # one of the two images: evaluation treats them apart
        maps = card_network(card, state)(tools.image(*card.input.size_wh[::-1])[:1])[-1]["heatmap"].numpy()
    assert np.abs(maps - expected).max() / np.abs(expected).max() < 1e-4
