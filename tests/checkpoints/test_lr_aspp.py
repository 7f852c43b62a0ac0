"""torchvision's LR-ASPP: read and written from Python, and computes what the public code does."""

import runpy
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from poseglass.backbones.mobilenet_v3 import MobileNetV3
from poseglass.checkpoints import read_network
from poseglass.checkpoints.lr_aspp_torchvision import IMPORTER, publish_lr_aspp, read_lr_aspp
from poseglass.estimators.weights_file import CheckpointError
from poseglass.networks.cost import parameters
from poseglass.networks.segmentation import SegmentationNetwork, lr_aspp_mobilenet_v3_large

PARITY = Path(__file__).parents[1] / "parity"
NAME = "torchvision_lr_aspp"
formula = SimpleNamespace(**runpy.run_path(str(PARITY / "fill.py")))
ABOUT = tomllib.loads((PARITY / "networks.toml").read_text())[NAME]


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return formula.fill(formula.names_and_shapes(NAME), ABOUT["gain"])


def difference(found: Tensor) -> float:
    """Return how far a mask is from the recorded one, relative to the largest value."""
    every, expected = ABOUT["every"], formula.output(NAME)
    return float(np.abs(found[..., ::every, ::every].numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.slow
def test_it_is_read_and_computes_what_torchvision_does(original: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(original, tmp_path / "theirs.pth")
    network = read_lr_aspp(tmp_path / "theirs.pth")
    assert (parameters(network), len(network.state_dict())) == (3_221_538, 319)
    images = formula.image(*ABOUT["input_hw"])
    with torch.inference_mode():
        assert difference(network(images)[0]["mask"]) < 1e-5
        assert IMPORTER.reference is not None
        assert difference(IMPORTER.reference(original, images)["mask"]) < 1e-5  # type: ignore[call-overload]
    back = publish_lr_aspp(network)
    assert list(back) == list(original)
    assert all(torch.equal(back[name], tensor) for name, tensor in original.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"dilates_first": False}, {"taps": "last"}, {"eps": 1e-5}, {"output_stride": 32, "dilates_first": False}],
)
def test_each_of_torchvisions_choices_is_seen(original: dict[str, Tensor], changes: dict[str, object]) -> None:
    state = IMPORTER.rename(original, {"name": "lr_aspp_mobilenet_v3_large"})
    backbone = {"name": "mobilenet_v3_large", "eps": 1e-3, "dilates_first": True, "taps": "first"} | changes
    stride = int(str(backbone.pop("output_stride", 16)))
    network = SegmentationNetwork(21, backbone=backbone, head={"name": "lr_aspp"}, output_stride=stride).eval()
    if changes.get("taps") == "last":  # as many fine channels there
        assert isinstance(network.backbone, MobileNetV3)
        assert network.backbone.channels[2] == 40
    network.load_state_dict(state)
    with torch.inference_mode():
        assert difference(network(formula.image(*ABOUT["input_hw"]))[0]["mask"]) > 1e-3


def test_what_is_no_such_checkpoint_is_refused(original: dict[str, Tensor], tmp_path: Path) -> None:
    missing = {name: tensor for name, tensor in original.items() if name != "classifier.scale.1.weight"}
    torch.save(missing, tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match=r"missing\.pth: .* LR-ASPP .* missing: classifier\.scale\.1\.weight"):
        read_lr_aspp(tmp_path / "missing.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="lr_aspp_torchvision"):
        read_lr_aspp(tmp_path / "other.pth")


def test_the_command_says_what_reads_it(original: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(original, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"network for segmentation, .*lr_aspp_torchvision\.read_lr_aspp reads"):
        read_network(tmp_path / "theirs.pth")


def test_another_number_of_classes() -> None:
    with torch.device("meta"):
        network = lr_aspp_mobilenet_v3_large(5)
    assert network.head.fine_classes.out_channels == 5  # type: ignore[union-attr]
