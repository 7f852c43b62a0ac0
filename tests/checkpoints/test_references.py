"""The independent readings of public layouts give what the public implementations gave."""

import runpy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from poseglass.checkpoints import IMPORTERS
from poseglass.checkpoints.reference import blocks, conv, norm
from poseglass.checkpoints.reference_backbones import mobilenet_v3
from poseglass.checkpoints.reference_mmpose import corner_hourglass, pose_machine
from poseglass.checkpoints.reference_msra import hrnet, simple_baseline
from poseglass.cli.import_weights import import_weights
from poseglass.estimators.weights_file import CheckpointError, read_weights

residual = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_resnet.py"))))
efficient = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_efficientnet.py"))))
mobile = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_mobilenet.py"))))


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("simplebaseline_r50_coco", simple_baseline),
        ("hrnet_w32_coco", hrnet),
        ("mmpose_simplebaseline_r50_coco", partial(simple_baseline, body="backbone.", head="head.")),
        ("mmpose_hrnet_w32_coco", partial(hrnet, body="backbone.", head="head.")),
        ("mmpose_hourglass52_coco", corner_hourglass),
        ("mmpose_cpm_mpii", pose_machine),
    ],
)
def test_references_agree_with_the_public_code(name: str, reference: Callable[..., Tensor], shared: Path) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(shared / "checkpoints" / "fill.py")))
    keys = tools.load_keys(shared / "checkpoints" / f"{name}.json")
    expected = np.load(shared / "checkpoints" / f"{name}.npz")["heatmaps"][:1]
    stride = 8 if "cpm" in name else 4
    images = tools.image(expected.shape[2] * stride, expected.shape[3] * stride)[:1]
    with torch.no_grad():
        maps = reference(tools.fill(keys), images).numpy()
    assert np.abs(maps - expected).max() / np.abs(expected).max() < 1e-4


def test_blocks_end_where_their_names_do() -> None:
    """A basic block by hand: two convolutions, the stride in the first, and the shortcut of another shape."""
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, shape in (("conv1", (4, 2, 3, 3)), ("conv2", (4, 4, 3, 3)), ("downsample.0", (4, 2, 1, 1))):
        state[f"a.0.{name}.weight"] = torch.randn(shape, generator=random)
    for name in ("bn1", "bn2", "downsample.1"):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"a.0.{name}.{leaf}"] = torch.rand(4, generator=random) + 0.5
    x = torch.randn(1, 2, 8, 8, generator=random)
    inside = norm(state, "a.0.bn1", functional.conv2d(x, state["a.0.conv1.weight"], stride=2, padding=1)).relu()
    inside = norm(state, "a.0.bn2", conv(state, "a.0.conv2", inside))
    across = functional.conv2d(x[:, :, ::2, ::2], state["a.0.downsample.0.weight"])
    across = norm(state, "a.0.downsample.1", across)
    torch.testing.assert_close(blocks(state, "a", x, stride=2), (inside + across).relu())
    assert torch.equal(blocks(state, "b", x), x)


@pytest.mark.shared
@pytest.mark.parametrize("size", ["small", "large"])
def test_the_reference_of_mobilenet_agrees_with_the_public_code(size: str, shared: Path) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(shared / "checkpoints" / "fill.py")))
    state = tools.fill(tools.load_keys(shared / "checkpoints" / f"mobilenetv3_{size}_dli14.json"))
    expected = np.load(shared / "checkpoints" / f"mobilenetv3_{size}_dli14.npz")["logits"]
    with torch.no_grad():
        means = mobilenet_v3(state, tools.image(224, 224), publisher="dli14")[-1].mean((2, 3))
        hidden = functional.hardswish(
            functional.linear(means, state["classifier.0.weight"], state["classifier.0.bias"])
        )
        logits = functional.linear(hidden, state["classifier.3.weight"], state["classifier.3.bias"]).numpy()
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-4


BACKBONES = {
    "resnet50": residual.torchvision,
    "resnet18": partial(residual.torchvision, bottleneck=False),
    "hrnet": partial(residual.hrnet, classifier=True),
    "mobilenet dli14": partial(mobile.small, "dli14"),
    "mobilenet torchvision": partial(mobile.small, "torchvision"),
    "mobilenet timm": partial(mobile.small, "timm"),
    "efficientnet lite0": efficient.lite0,
    "dla34": residual.dla,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_gets_a_certificate(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(BACKBONES[name](), tmp_path / "theirs.pth")
    import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", check=True)
    _, card = read_weights(tmp_path / "ours.safetensors")
    assert card.certificate["checked"]
    assert card.certificate["maps_relative"] < 1e-5
    assert card.certificate["compared"].startswith("features of this file")
    assert "keypoints_max_px" not in card.certificate
    assert "checked     features differ by" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "wrong"), [("dli14", "timm"), ("timm", "torchvision")])
def test_another_publishers_rule_is_no_agreement(
    name: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tensors read with another order, or another epsilon, do not pass."""
    importer = IMPORTERS[f"mobilenet_v3_{name}"]
    rules = IMPORTERS[f"mobilenet_v3_{wrong}"].network
    settings = {key: rules(mobile.small(wrong))[key] for key in ("order", "eps")}
    misread = replace(importer, network=lambda state: importer.network(state) | settings)
    monkeypatch.setitem(IMPORTERS, importer.name, misread)
    torch.save(mobile.small(name), tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"do not compute what the original does: features differ by"):
        import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]


def test_every_importer_has_a_reference() -> None:
    assert [name for name, importer in IMPORTERS.items() if importer.reference is None] == []
