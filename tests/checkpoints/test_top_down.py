"""HRNet, SimpleBaseline and their backbones: what is imported computes what the original does."""

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from poseglass.backbones import BACKBONES
from poseglass.checkpoints import (
    IMPORTERS,
    hrnet_imagenet,
    hrnet_mmpose,
    hrnet_msra,
    import_state,
    recognise,
    resnet_torchvision,
    simple_baseline_mmpose,
    simple_baseline_msra,
)
from poseglass.checkpoints.importer import Importer
from poseglass.codecs import CODECS
from poseglass.core.skeletons import COCO17, MPII16
from poseglass.core.table import build
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError
from poseglass.networks import NETWORKS

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_resnet.py"))))
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "checkpoints"

HRNET = {"name": "hrnet", "num_keypoints": 17, "width": 4, "stem_width": 8, "num_blocks": 2, "num_bottlenecks": 2}
POSE: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("hrnet", layouts.hrnet(), layouts.run_hrnet, HRNET | {"num_modules": [1, 2, 2]}),
    ("hrnet", layouts.hrnet(num_modules=(2, 1, 1)), layouts.run_hrnet, HRNET | {"num_modules": [2, 1, 1]}),
    (
        "simple_baseline",
        layouts.simple_baseline(),
        layouts.run_simple_baseline,
        {"name": "simple_baseline", "num_keypoints": 17, "depth": 50, "width": 4, "num_deconvs": 3, "deconv_width": 8},
    ),
    (
        "simple_baseline",
        layouts.simple_baseline(16, bottleneck=False, num_deconvs=2),
        layouts.run_simple_baseline,
        {"name": "simple_baseline", "num_keypoints": 16, "depth": 18, "width": 4, "num_deconvs": 2, "deconv_width": 8},
    ),
]
"""Network, tensors in the names of the paper's code, what they compute, and what a card says of them."""

FILES = {
    "hrnet": (hrnet_msra, hrnet_mmpose),
    "simple_baseline": (simple_baseline_msra, simple_baseline_mmpose),
}


def renamed(importer: Importer, stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    current = importer.current(stored)
    return importer.rename(current, importer.network(current))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def backbone(table: dict[str, Any]) -> torch.nn.Module:
    numbers = dict(table)
    return build(BACKBONES, numbers.pop("name"), **numbers).eval()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["", "head", "keypoint_head"])
@pytest.mark.parametrize(("kind", "original", "run", "table"), POSE)
def test_the_maps_are_those_of_the_original(
    kind: str, original: dict[str, torch.Tensor], run: Any, table: dict[str, Any], head: str
) -> None:
    stored = layouts.mmpose(original, head) if head else original
    importer = recognise(stored)
    assert importer.name == (f"{kind}_mmpose" if head else f"{kind}_msra")
    state, card = import_state(stored, importer)
    assert card.network == table
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        close(card_network(card, state)(images)[-1]["heatmap"], run(original, images))


@pytest.mark.parametrize(("kind", "original", "run", "table"), POSE)
def test_names_follow_from_the_card_alone_and_can_be_turned_round(
    kind: str, original: dict[str, torch.Tensor], run: Any, table: dict[str, Any]
) -> None:
    table = json.loads(json.dumps(table))
    for module, stored in zip(FILES[kind], (original, layouts.mmpose(original, "head")), strict=True):
        names = module.names(table)
        assert set(names.values()) == set(stored)
        assert len(set(names.values())) == len(names)
        ours = renamed(module.IMPORTER, stored)
        assert all(torch.equal(ours[new], stored[old]) for new, old in names.items())


@pytest.mark.parametrize(("num_keypoints", "skeleton", "size_wh"), [(17, COCO17, (192, 256)), (16, MPII16, (256, 256))])
@pytest.mark.parametrize("make", [layouts.hrnet, layouts.simple_baseline])
def test_the_card_says_what_the_original_needs(make: Any, num_keypoints: int, skeleton: Any, size_wh: Any) -> None:
    original = make(num_keypoints)
    for stored in (original, layouts.mmpose(original, "head")):
        importer = recognise(stored)
        _, card = import_state(stored, importer)
        assert card.skeleton == skeleton
        assert card.input.size_wh == size_wh
        assert (card.input.mean, card.input.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert (card.input.padding, card.input.crop) == (1.25, "msra")
        assert card.codec == {"name": "heatmap", "alignment": "corner", "stride": 4, "sigma": 2.0}
        assert build(CODECS, "heatmap", **{k: v for k, v in card.codec.items() if k != "name"})
        assert card.source_url == importer.source.url


def test_microsofts_order_of_colours_has_to_be_asked_for() -> None:
    original = layouts.simple_baseline()
    _, card = import_state(original, recognise(original))
    assert "need BGR: import those with --layout simple_baseline_microsoft" in card.notes
    assert card.input.color == "rgb"
    _, card = import_state(original, recognise(original, "simple_baseline_microsoft"))
    assert "These weights need BGR" in card.notes
    assert (card.input.color, card.input.mean) == ("bgr", (0.485, 0.456, 0.406))
    assert card.source_url == "https://github.com/microsoft/human-pose-estimation.pytorch"


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("hrnet_msra", "384 x 288"),
        ("simple_baseline_msra", "384 x 288"),
        ("simple_baseline_microsoft", "384 x 288"),
        ("hrnet_mmpose", "384 x 288.*DARK and UDP"),
        ("simple_baseline_mmpose", "384 x 288.*DARK and UDP"),
        ("hourglass_mmpose", "384 x 384"),
        ("mobilenet_v3_timm", "tf_mobilenetv3"),
    ],
)
def test_what_the_names_do_not_tell_is_a_doubt(layout: str, says: str) -> None:
    assert re.search(says, IMPORTERS[layout].doubt)


@pytest.mark.parametrize(("kind", "original", "run", "table"), POSE[::2])
def test_nothing_is_left_over_or_missing_unnoticed(
    kind: str, original: dict[str, torch.Tensor], run: Any, table: dict[str, Any]
) -> None:
    for module, stored in zip(FILES[kind], (original, layouts.mmpose(original, "head")), strict=True):
        with pytest.raises(CheckpointError, match=r"does not match it exactly: unexpected: extra\.weight\."):
            renamed(module.IMPORTER, stored | {"extra.weight": torch.zeros(1)})
        for name in list(stored)[:: len(stored) // 12]:
            without = {k: v for k, v in stored.items() if k != name}
            if not name.endswith("num_batches_tracked"):
                with pytest.raises(CheckpointError):
                    import_state(without, module.IMPORTER)


@pytest.mark.parametrize("head", ["", "head"])
def test_blocks_of_no_known_depth_are_refused(head: str) -> None:
    original = {k: v for k, v in layouts.simple_baseline().items() if not k.startswith("layer3.5.")}
    stored = layouts.mmpose(original, head) if head else original
    with pytest.raises(CheckpointError, match=r"looks like a SimpleBaseline of .* but its blocks match no ResNet"):
        import_state(stored, recognise(stored))


@pytest.mark.parametrize(("bottleneck", "depth"), [(True, 50), (False, 18)])
def test_a_resnet_backbone_gives_the_same_levels(bottleneck: bool, depth: int) -> None:
    original = layouts.torchvision(bottleneck=bottleneck)
    assert resnet_torchvision.recognises(original)
    table = resnet_torchvision.network(original)
    assert table == {"name": f"resnet{depth}", "width": 4}
    network = backbone(table)
    network.load_state_dict(renamed(resnet_torchvision.IMPORTER, original))
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for ours, theirs in zip(network(images), layouts.run_resnet(original, images), strict=True):
            close(ours, theirs)
    left = {"fc.weight", "fc.bias"}
    assert set(resnet_torchvision.names(table).values()) == original.keys() - left
    with pytest.raises(CheckpointError, match=r"unexpected: head\.weight"):
        renamed(resnet_torchvision.IMPORTER, original | {"head.weight": torch.zeros(1)})


def test_a_classifier_keeps_only_its_hrnet() -> None:
    original = layouts.hrnet(classifier=True)
    assert hrnet_imagenet.recognises(original)
    table = hrnet_imagenet.network(original)
    small = {"num_modules": [1, 2, 2], "num_blocks": 2, "num_bottlenecks": 2, "stem_width": 8}
    assert table == {"name": "hrnet", "width": 4} | small
    network = backbone(table)
    network.load_state_dict(renamed(hrnet_imagenet.IMPORTER, original))
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for ours, theirs in zip(network(images), layouts.run_hrnet_levels(original, images), strict=True):
            close(ours, theirs)
    with pytest.raises(CheckpointError, match=r"unexpected: head\.weight"):
        renamed(hrnet_imagenet.IMPORTER, original | {"head.weight": torch.zeros(1)})


def test_a_backbone_is_not_taken_for_a_pose_network_nor_the_reverse() -> None:
    pose = [layouts.hrnet(), layouts.simple_baseline(), layouts.mmpose(layouts.hrnet(), "head")]
    backbones = [layouts.torchvision(), layouts.hrnet(classifier=True)]
    for state in pose:
        assert not resnet_torchvision.recognises(state)
        assert not hrnet_imagenet.recognises(state)
        assert sum(importer.recognises(state) for importer in IMPORTERS.values()) == 1
    for state, own in zip(backbones, (resnet_torchvision, hrnet_imagenet), strict=True):
        assert [m for m in (resnet_torchvision, hrnet_imagenet) if m.recognises(state)] == [own]
        assert not any(i.recognises(state) for i in IMPORTERS.values() if i.codec)


@pytest.mark.parametrize("name", ["hrnet_w32", "hrnet_w48", "simple_baseline_r18", "simple_baseline_r101"])
def test_sizes_of_the_papers_go_by_their_names(name: str) -> None:
    table = {"name": name, "num_keypoints": 5}
    with torch.device("meta"):
        ours = build(NETWORKS, name, num_keypoints=5).state_dict()
    for module in FILES[name.rpartition("_")[0]]:
        names = module.names(table)
        assert set(names) == set(ours)
        assert module.network({names[key]: value for key, value in ours.items()}) == table


@pytest.mark.parametrize("table", [{"name": "resnet34"}, {"name": "resnet152"}, {"name": "hrnet", "width": 48}])
def test_backbones_of_the_papers_go_by_their_names(table: dict[str, Any]) -> None:
    module = hrnet_imagenet if table["name"] == "hrnet" else resnet_torchvision
    with torch.device("meta"):
        ours = backbone(table).state_dict()
    names = module.names(table)
    assert set(names) == set(ours)
    assert module.network({names[key]: value for key, value in ours.items()}) == table


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("hrnet_w32_coco", "hrnet_w32"),
        ("hrnet_w48_mpii", "hrnet_w48"),
        ("simplebaseline_r50_coco", "simple_baseline_r50"),
        ("simplebaseline_r152_coco", "simple_baseline_r152"),
        ("mmpose_hrnet_w32_coco", "hrnet_w32"),
        ("mmpose_simplebaseline_r50_coco", "simple_baseline_r50"),
    ],
)
def test_parity_with_the_public_code(name: str, network: str) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(SHARED / "fill.py")))
    original = tools.fill(tools.load_keys(SHARED / f"{name}.json"))
    state, card = import_state(original, recognise(original))
    expected = np.load(SHARED / f"{name}.npz")["heatmaps"][:1]
    assert card.network == {"name": network, "num_keypoints": expected.shape[1]}
    height, width = json.loads((SHARED / f"{name}.json").read_text())["input"][2:]
    assert card.input.size_wh == (width, height)
    with torch.no_grad():  # one of the two images: evaluation treats them apart
        maps = card_network(card, state)(tools.image(height, width)[:1])[-1]["heatmap"].numpy()
    assert np.abs(maps - expected).max() / np.abs(expected).max() < 1e-4
