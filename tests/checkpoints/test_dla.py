"""DLA-34's classifier becomes a backbone; what it never runs does not matter, and other DLAs are named."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from poseglass.checkpoints import IMPORTERS, dla_imagenet, import_state, recognise
from poseglass.checkpoints.reference_backbones import dla
from poseglass.cli.import_weights import import_weights
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError, read_weights

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts_resnet.py"))))


def test_the_levels_are_those_of_the_original() -> None:
    original = layouts.dla()
    importer = recognise(original)
    state, card = import_state(original, importer)
    assert (importer.name, card.part, card.network) == ("dla_imagenet", "backbone", {"name": "dla34", "width": 4})
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = card_network(card, state)(images), dla(original, images)
    assert [level.shape[1] for level in ours] == [16, 32, 64, 128]
    for made, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_names_follow_from_the_card_and_account_for_every_tensor() -> None:
    original = layouts.dla()
    table = json.loads(json.dumps(dla_imagenet.network(original)))
    names, unused = dla_imagenet.names(table), dla_imagenet.never_run(table)
    assert {*names.values(), *unused, "fc.weight", "fc.bias"} == set(original)
    assert len({*names.values(), *unused}) == len(names) + len(unused)
    assert {name: tuple(original[name].shape) for name in unused} == unused
    assert {name.rpartition(".project.")[0] for name in unused} == {"level3", "level4"}


def test_what_is_never_run_may_be_missing_or_anything() -> None:
    original = layouts.dla()
    unused = dla_imagenet.never_run(dla_imagenet.network(original))
    expected, _ = import_state(original, dla_imagenet.IMPORTER)
    less = {name: tensor for name, tensor in original.items() if name not in unused}
    other = {name: tensor + (name in unused) for name, tensor in original.items()}
    for state in (less, other):
        found, _ = import_state(state, recognise(state))
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_another_dla_is_named() -> None:
    original = layouts.dla()
    bottlenecks = original | {"level2.tree1.conv3.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"not DLA-34.* 6 roots and bottlenecks; expected 6 and basic blocks"):
        import_state(bottlenecks, recognise(bottlenecks))
    shallow = {name: tensor for name, tensor in original.items() if not name.startswith("level4.tree2.")}
    with pytest.raises(CheckpointError, match=r"not DLA-34.* 5 roots and basic blocks.*Import a file of dla34"):
        import_state(shallow, recognise(shallow))
    with pytest.raises(CheckpointError, match=r"unexpected: level2\.more"):
        import_state(original | {"level2.more": torch.zeros(1)}, dla_imagenet.IMPORTER)


def test_a_detector_is_not_taken_for_its_backbone_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CenterNet's DLA-34 is under "base.", beside a way up and outputs that have no place here."""
    original = layouts.dla()
    detector = {f"base.{name}": tensor for name, tensor in original.items()}
    detector |= {"dla_up.ida_0.node_1.conv.weight": torch.zeros(2, 2, 3, 3), "hm.0.weight": torch.zeros(2, 2, 3, 3)}
    assert not any(importer.recognises(detector) for importer in IMPORTERS.values())
    torch.save(detector, tmp_path / "theirs.pth")
    import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    output = " ".join(capsys.readouterr().out.split())
    assert "CenterNet's were BGR" in output
    assert "dla_up" in output
    assert "hm" in output
    _, card = read_weights(tmp_path / "ours.safetensors")
    assert (card.part, card.network["name"]) == ("backbone", "dla34")
