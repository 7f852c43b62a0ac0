"""The two hourglass layouts: the imported network computes what the original does."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from poseglass.checkpoints import IMPORTERS, import_checkpoint, import_state, recognise
from poseglass.codecs import CODECS
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, MPII16
from poseglass.core.table import build
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import CheckpointError, read_weights, save_weights

layouts = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layouts.py"))))
SHARED = Path(__file__).parents[2] / ".." / "shared" / "checkpoints"
PRINCETON, BEARPAW = "hourglass_princeton", "hourglass_bearpaw"
MAKE = {PRINCETON: layouts.princeton, BEARPAW: layouts.bearpaw}
RUN = {PRINCETON: layouts.run_princeton, BEARPAW: layouts.run_bearpaw}


def renamed(layout: str, original: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    importer = IMPORTERS[layout]
    return importer.rename(original, importer.network(original))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "numbers"),
    [
        (PRINCETON, {}),
        (PRINCETON, {"num_stacks": 1, "depth": 1}),
        (PRINCETON, {"num_stacks": 3, "depth": 4, "width": 4}),
        (BEARPAW, {}),
        (BEARPAW, {"num_stacks": 1, "depth": 1, "num_blocks": 3}),
        (BEARPAW, {"num_stacks": 3, "depth": 4, "width": 4, "num_blocks": 2}),
    ],
)
def test_every_stack_computes_what_the_original_does(layout: str, numbers: dict[str, Any]) -> None:
    original = MAKE[layout](**numbers)
    importer = recognise(original)
    assert importer is IMPORTERS[layout]
    state, card = import_state(original, importer)
    for key, value in numbers.items():
        assert card.network[key] == value
    network = card_network(card, state)
    images = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stages, expected = network(images), RUN[layout](original, images)
    assert len(stages) == len(expected)
    for stage, maps in zip(stages, expected, strict=True):
        torch.testing.assert_close(stage["heatmap"], maps, rtol=1e-4, atol=1e-4 * float(maps.abs().max()))


@pytest.mark.parametrize("layout", MAKE)
def test_the_card_says_what_the_original_needs(layout: str) -> None:
    _, card = import_state(MAKE[layout](), IMPORTERS[layout], sha256="ab12")
    assert card.skeleton == MPII16
    assert card.codec == {"name": "heatmap", "alignment": "center", "stride": 4, "sigma": 1.0}
    assert build(CODECS, "heatmap", **{k: v for k, v in card.codec.items() if k != "name"})
    assert card.input.size_wh == (256, 256)
    assert card.input.mean == ((0.0, 0.0, 0.0) if layout == PRINCETON else (0.4404, 0.4440, 0.4327))
    assert card.input.std == (1.0, 1.0, 1.0)
    assert card.network.get("stem", "newell") == ("newell" if layout == PRINCETON else "bearpaw")
    assert card.source_url == IMPORTERS[layout].source.url
    assert card.sha256 == "ab12"
    # Two stacks of eight equal-width residuals and one in the stem, a weight and a bias each.
    assert ("Excluded: 34 tensors" in card.notes) == (layout == PRINCETON)


@pytest.mark.parametrize("layout", MAKE)
def test_nothing_is_left_over_or_missing_unnoticed(layout: str) -> None:
    original = MAKE[layout]()
    with pytest.raises(CheckpointError, match=r"does not match it exactly: unexpected: fc_extra\.weight\."):
        renamed(layout, original | {"fc_extra.weight": torch.zeros(1)})
    used = [name for name in original if "skip_layer" not in name and "num_batches" not in name]
    assert len(used) > 100
    for name in used[:: len(used) // 40]:
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            import_state({k: v for k, v in original.items() if k != name}, IMPORTERS[layout])


def test_only_skips_that_are_never_run_are_left_out() -> None:
    original = layouts.princeton()
    used = {k: v for k, v in original.items() if "skip_layer" not in k or k.startswith(("pre.1.", "pre.4."))}
    kept = renamed(PRINCETON, used)
    assert kept.keys() == renamed(PRINCETON, original).keys()
    with pytest.raises(
        CheckpointError, match=r"missing: pre\.4\.skip_layer\.conv\.weight, pre\.4\.skip_layer\.conv\.bias"
    ):
        renamed(PRINCETON, {k: v for k, v in original.items() if not k.startswith("pre.4.skip_layer")})


@pytest.mark.parametrize("layout", MAKE)
def test_renaming_copies_nothing_and_changes_nothing(layout: str) -> None:
    original = MAKE[layout]()
    before = {name: tensor.clone() for name, tensor in original.items()}
    ours = renamed(layout, original)
    assert {t.data_ptr() for t in ours.values()} <= {t.data_ptr() for t in original.values()}
    assert original.keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in original.items())


@pytest.mark.parametrize("layout", MAKE)
def test_old_files_without_counters_and_half_files_are_read(layout: str) -> None:
    original = MAKE[layout]()
    old = {k: v.half() for k, v in original.items() if not k.endswith("num_batches_tracked")}
    state, card = import_state(old, IMPORTERS[layout])
    assert all(tensor.dtype == (torch.int64 if "tracked" in name else torch.float32) for name, tensor in state.items())
    card_network(card, state)


def test_the_skeleton_is_asked_for_where_the_number_does_not_tell() -> None:
    with pytest.raises(
        CheckpointError, match=r"predicts 17 keypoints and does not say which.*--skeleton.*Known with 17: coco17"
    ):
        import_state(layouts.princeton(num_keypoints=17), IMPORTERS[PRINCETON])
    with pytest.raises(CheckpointError, match="predicts 16 keypoints; skeleton 'coco17' has 17"):
        import_state(layouts.princeton(), IMPORTERS[PRINCETON], skeleton=COCO17)
    paw = Skeleton("paw3", ("left", "middle", "right"))
    _, card = import_state(layouts.bearpaw(num_keypoints=3), IMPORTERS[BEARPAW], skeleton=paw, name="paws")
    assert card.skeleton == paw
    assert card.name == "paws"
    assert card.network["num_keypoints"] == 3


def test_an_unknown_layout_names_the_known_ones() -> None:
    with pytest.raises(
        CheckpointError,
        match=r"names such as fc\.weight, fc\.bias \(2 tensors\)\. Known: hourglass_princeton \(princeton-vl",
    ):
        recognise(torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 2)}).state_dict())
    with pytest.raises(LookupError, match=r"Unknown layout 'princeton'.*hourglass_princeton"):
        recognise({}, "princeton")


def test_the_wrong_layout_by_name_is_refused() -> None:
    with pytest.raises(
        CheckpointError,
        match=r"is not a stacked hourglass of bearpaw.*its names are those of the layout 'hourglass_prin",
    ):
        import_state(layouts.princeton(), recognise({}, BEARPAW))


def test_shapes_that_make_no_network_are_refused() -> None:
    state = layouts.princeton()
    for name, tensor, says in (
        ("outs.0.conv.weight", torch.zeros(16), r"'outs\.0\.conv\.weight' has shape \(16,\); expected 4 axes"),
        (
            "hgs.1.0.low2.up1.conv2.conv.weight",
            torch.zeros(3, 3, 3, 3),
            r"of another shape: hourglasses\.1\.inner\.skip\.0",
        ),
        ("outs.1.conv.bias", torch.full((16,), torch.nan), r"NaN or infinite.*outputs\.1\.heatmap\.bias"),
    ):
        with pytest.raises(CheckpointError, match=says):
            import_state(state | {name: tensor}, IMPORTERS[PRINCETON])


def test_sizes_of_the_paper_go_by_their_names() -> None:
    for layout, make in MAKE.items():
        for num_stacks in (1, 2):
            with torch.device("meta"):
                state = make(num_stacks, width=256, depth=4)
            expected = {"name": f"hg{num_stacks}", "num_keypoints": 16}
            assert IMPORTERS[layout].network(state) == expected | ({"stem": "bearpaw"} if layout == BEARPAW else {})


@pytest.mark.parametrize(
    ("network", "layout", "says"),
    [
        ({"name": "hg1_light", "num_keypoints": 14}, PRINCETON, "is not a stacked hourglass of princeton-vl"),
        (
            {"name": "hg2", "num_keypoints": 16, "stem": "bearpaw"},
            PRINCETON,
            "expected an hourglass with stem 'newell'",
        ),
        ({"name": "hg2", "num_keypoints": 16}, BEARPAW, "expected an hourglass with stem 'bearpaw'"),
        ({"name": "stacked_hourglass", "num_blocks": 2}, PRINCETON, "has 2 residuals at every position"),
    ],
)
def test_a_network_that_the_layout_cannot_hold_has_no_names(network: dict[str, Any], layout: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        IMPORTERS[layout].names(network)


@pytest.mark.parametrize("layout", MAKE)
def test_the_reference_reads_the_layout_as_the_tests_do(layout: str) -> None:
    original = MAKE[layout](num_stacks=3, depth=2)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    reference = IMPORTERS[layout].reference
    assert reference is not None
    torch.testing.assert_close(reference(original, images), RUN[layout](original, images)[-1])


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="wants ../shared/checkpoints")
@pytest.mark.parametrize("name", ["princeton_hg2", "bearpaw_hg2", "princeton_hg8", "bearpaw_hg8"])
def test_parity_with_the_public_code(name: str, tmp_path: Path) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(SHARED / "fill.py")))
    prefix = "model.module." if name.startswith("princeton") else "module."
    original = {prefix + key: value for key, value in tools.fill(tools.load_keys(SHARED / f"{name}.json")).items()}
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 100, "state_dict": original, "best_acc": np.float64(0.88), "optimizer": {"state": {}}}, path)
    last = np.load(SHARED / f"{name}.npz")["last"][:1]
    importer = IMPORTERS["hourglass_" + name.partition("_")[0]]
    assert importer.reference is not None
    with torch.no_grad():
        read = importer.reference(tools.fill(tools.load_keys(SHARED / f"{name}.json")), tools.image(256, 256)[:1])
    assert np.abs(read.numpy() - last).max() / np.abs(last).max() < 1e-4
    del original
    save_weights(tmp_path / "ours.safetensors", *import_checkpoint(path))
    state, card = read_weights(tmp_path / "ours.safetensors")
    assert card.network["name"] == name.rpartition("_")[2]
    network = card_network(card, state)
    expected = np.load(SHARED / f"{name}.npz")
    with torch.no_grad():  # one of the two images: evaluation treats them apart
        stages = network(tools.image(256, 256)[:1])
    for maps, reference in (
        (stages[-1]["heatmap"].numpy(), expected["last"][:1]),
        (stages[0]["heatmap"].numpy()[:, :, ::4, ::4], expected["first_sub"][:1]),
    ):
        assert np.abs(maps - reference).max() / np.abs(reference).max() < 1e-4
