"""CenterNet's two layouts: the imported networks compute what the originals do, and are written back unchanged."""

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from poseglass.checkpoints import IMPORTERS, centernet_hourglass, centernet_resnet, import_state, recognise
from poseglass.checkpoints.certificate import certify
from poseglass.checkpoints.export import export_state
from poseglass.cli.import_weights import certificate_line
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.core.table import build
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError, save_weights
from poseglass.networks import NETWORKS

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_centernet.py"))))
State = dict[str, Tensor]
HOURGLASS, RESNET = "centernet_hourglass", "centernet_resnet"
PUBLIC = {
    "center": "hm", "size": "wh", "center_offset": "reg", "keypoints": "hps", "heatmap": "hm_hp",
    "heatmap_offset": "hp_offset",
}  # fmt: skip
MAKE: list[tuple[str, State, dict[str, Any]]] = [
    (HOURGLASS, layouts.hourglass(), {"num_keypoints": 17, "num_stacks": 2, "widths": [8, 8, 12], "head_width": 6}),
    (HOURGLASS, layouts.hourglass(0, 80, 1, (6, 8), (1, 1)), {"num_keypoints": 0, "num_classes": 80, "blocks": [1, 1]}),
    (RESNET, layouts.resnet(), {"num_keypoints": 0, "num_classes": 5, "depth": 18, "width": 4, "deconv_width": 8}),
    (RESNET, layouts.resnet(17, 1, head_width=10), {"num_keypoints": 17, "num_classes": 1, "head_width": 10}),
]


@pytest.mark.parametrize(("layout", "original", "network"), MAKE)
def test_every_output_is_the_references(layout: str, original: State, network: dict[str, Any]) -> None:
    assert recognise(original) is IMPORTERS[layout]
    state, card = import_state(original, IMPORTERS[layout])
    assert {key: card.network[key] for key in network} == network
    reference = IMPORTERS[layout].reference
    assert reference is not None
    images = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made, expected = card_network(card, state)(images)[-1], reference(original, images)
    assert isinstance(expected, dict)
    assert made.keys() == expected.keys()
    assert len(made) == (6 if network["num_keypoints"] else 3)
    for name, maps in expected.items():
        torch.testing.assert_close(made[name], maps, rtol=1e-4, atol=1e-4 * float(maps.abs().max()))


@pytest.mark.parametrize(("layout", "original", "network"), MAKE)
def test_writing_back_changes_no_bit(layout: str, original: State, network: dict[str, Any]) -> None:
    state, card = import_state(original, IMPORTERS[layout])
    public = export_state(state, card, layout, IMPORTERS)
    assert public.keys() == original.keys()
    assert all(torch.equal(public[name], tensor) for name, tensor in original.items())


@pytest.mark.parametrize(("layout", "original", "network"), MAKE)
def test_the_card_says_what_the_original_needs(layout: str, original: State, network: dict[str, Any]) -> None:
    _, card = import_state(original, IMPORTERS[layout])
    assert card.skeleton == (COCO17 if network["num_keypoints"] else Skeleton("objects", ()))
    poses = card.network["num_keypoints"] > 0
    assert card.codec == {"name": "centernet", "stride": 4, "alignment": "corner", "poses": poses}
    assert (card.input.size_wh, card.input.padding, card.input.color) == ((512, 512), 1.0, "bgr")
    assert card.input.mean == (0.40789654, 0.44719302, 0.47026115)
    assert card.input.std == (0.28863828, 0.27408164, 0.27809835)


@pytest.mark.parametrize(("layout", "original", "network"), MAKE)
def test_nothing_is_left_over_or_missing_unnoticed(layout: str, original: State, network: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"does not match it exactly: unexpected: extra\."):
        import_state(original | {"extra": torch.zeros(1)}, IMPORTERS[layout])
    used = [name for name in original if "num_batches" not in name]
    for name in used[:: len(used) // 20]:
        with pytest.raises(CheckpointError):
            import_state({k: v for k, v in original.items() if k != name}, IMPORTERS[layout])
    with pytest.raises(CheckpointError, match=r"missing: reg\.(0\.1|2)\.bias"):
        import_state({k: v for k, v in original.items() if k not in ("reg.0.1.bias", "reg.2.bias")}, IMPORTERS[layout])


def test_deformable_convolutions_and_unknown_blocks_are_refused() -> None:
    original = layouts.resnet()
    with pytest.raises(CheckpointError, match=r"has deformable convolutions \(resdcn\).*Import a file of a res_18"):
        import_state(original | {"deconv_layers.0.conv_offset_mask.weight": torch.zeros(1)}, IMPORTERS[RESNET])
    with pytest.raises(CheckpointError, match="its blocks match no ResNet 18 to 152"):
        import_state({k: v for k, v in original.items() if not k.startswith("layer2.1.")}, IMPORTERS[RESNET])


@pytest.mark.parametrize(
    ("names", "network", "says"),
    [
        (
            centernet_hourglass.names,
            "hourglass_104",
            "'hourglass_104' is not a CenterNet hourglass of.*expected centern",
        ),
        (centernet_resnet.names, "simple_baseline", "'simple_baseline' is not a CenterNet ResNet of.*expected centern"),
    ],
)
def test_other_networks_have_no_names_in_the_layout(names: Any, network: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        names({"name": network, "num_keypoints": 17})


@pytest.mark.parametrize("name", [*centernet_hourglass.PUBLISHED, *centernet_resnet.PUBLISHED])
@pytest.mark.parametrize("num_keypoints", [0, 17])
def test_names_are_those_of_the_whole_network_and_it_is_read_back(name: str, num_keypoints: int) -> None:
    importer = IMPORTERS[HOURGLASS if "hourglass" in name else RESNET]
    table = {"name": name, "num_keypoints": num_keypoints, "num_classes": 3}
    with torch.device("meta"):
        state = build(NETWORKS, name, num_keypoints=num_keypoints, num_classes=3).state_dict()
    names = importer.names(table)
    assert names.keys() == state.keys()
    assert len(set(names.values())) == len(names)
    assert importer.network(importer.publish(state, table)) == table


def test_a_certificate_compares_every_output(tmp_path: Path) -> None:
    original = layouts.resnet(17, 1)
    importer, path = IMPORTERS[RESNET], tmp_path / "ours.safetensors"
    state, card = import_state(original, importer)
    save_weights(path, state, replace(card, input=replace(card.input, size_wh=(64, 64))))
    certificate = certify(path, original, importer)
    assert certificate["maps_relative"] < 1e-5
    assert certificate["compared"].startswith("outputs of this file")
    assert certificate_line(certificate).startswith("outputs differ by")
    reading: Callable[..., Any] = importer.reference  # type: ignore[assignment]
    swapped = replace(importer, reference=lambda s, i: (m := reading(s, i)) | {"size": m["size"].flip(1)})
    with pytest.raises(CheckpointError, match=r"do not compute what the original does: outputs differ by"):
        certify(path, original, swapped)
    fewer = replace(importer, reference=lambda s, i: {"size": reading(s, i)["size"]})
    with pytest.raises(CheckpointError, match="The file outputs 6 outputs, the original 1"):
        certify(path, original, fewer)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("public", "layout", "network", "sampled"),
    [
        (
            "centernet_hg104_multipose",
            HOURGLASS,
            {"name": "centernet_hourglass_104", "num_keypoints": 17, "num_classes": 1},
            2,
        ),
        (
            "centernet_resdeconv18_ctdet",
            RESNET,
            {"name": "centernet_resnet18", "num_keypoints": 0, "num_classes": 80},
            1,
        ),
    ],
)
def test_parity_with_the_public_code(
    public: str, layout: str, network: dict[str, Any], sampled: int, shared: Path
) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(shared / "checkpoints" / "fill.py")))
    original = tools.fill(tools.load_keys(shared / "checkpoints" / f"{public}.json"))
    expected = np.load(shared / "checkpoints" / f"{public}.npz")
    state, card = import_state(original, recognise(original))
    assert card.network == network
    reference = IMPORTERS[layout].reference
    assert reference is not None
    images = tools.image(256, 256)[:1]  # one of the two images: evaluation treats them apart
    with torch.no_grad():
        made, read = card_network(card, state)(images)[-1], reference(original, images)
    assert isinstance(read, dict)
    assert {PUBLIC[name] for name in made} == set(expected)
    for outputs in (made, read):
        for name, maps in outputs.items():
            theirs = expected[PUBLIC[name]][:1]
            ours = maps[..., ::sampled, ::sampled].numpy().reshape(theirs.shape)
            difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
            print(f"{public} {name}: {difference:.2e}")
            assert difference < 1e-4, name
