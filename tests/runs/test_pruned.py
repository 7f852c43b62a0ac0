"""Training a network of other widths than its table states: from a table of them, or from pruned weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import poseglass as pg
from poseglass.backbones import BACKBONES
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import build
from poseglass.estimators.weights_file import CheckpointError, read_weights, save_weights
from poseglass.networks import StackedHourglass
from poseglass.networks.widths import Widths, apply_widths, card_widths, widths_of
from poseglass.readers import write_coco
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError, differences
from poseglass.synthetic import synthetic_people

pytestmark = pytest.mark.usefixtures("plain_reports")

NUMBERS = {"num_stacks": 1, "width": 16, "depth": 2}
AT = "hourglasses.0.down.0"
WIDTHS: Widths = {
    f"{AT}.conv1": {"out_channels": 5},
    f"{AT}.norm2": {"num_features": 5},
    f"{AT}.conv2": {"in_channels": 5},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(8, seed=1, size_wh=(48, 48)), folder / "train.json", write_images=True)
    return folder / "train.json"


def tiny(data: Path, *overrides: str, **more: Any) -> Recipe:
    table = {"name": "coco", "annotations": str(data)}
    whole = {
        "name": "tiny",
        "network": {"name": "stacked_hourglass", **NUMBERS},
        "codec": {"name": "heatmap"},
        "input": {"size_wh": [32, 32]},
        "data": {"train": table, "val": table},
        "train": {"epochs": 1, "batch_size": 4, "workers": 0},
        "evaluate": {"metrics": [{"name": "pck", "thresholds": [1.0]}], "flip_test": False},
    }
    return Recipe.from_dict(whole | more, overrides=overrides)


@pytest.fixture
def pruned(data: Path, tmp_path: Path) -> Path:
    """Weights of the recipe's network and keypoints, whose first residual down is narrower inside."""
    skeleton = synthetic_people(1, seed=1, size_wh=(48, 48)).skeleton
    network = StackedHourglass(len(skeleton), **NUMBERS)
    apply_widths(network, WIDTHS)
    table = {"name": "stacked_hourglass", "num_keypoints": len(skeleton), **NUMBERS}
    widths = card_widths(network, table)
    card = WeightCard("cut", table, {"name": "heatmap"}, skeleton, InputSpec((32, 32)), widths=widths)
    path = tmp_path / "cut.safetensors"
    save_weights(path, network.state_dict(), card)
    return path


def test_a_table_alone_cannot_take_pruned_weights_and_says_what_can(data: Path, pruned: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=rf"weights 'cut' have widths that the recipe's network table does not state: {AT}\.conv1 "
        rf"\(out_channels=5\), {AT}\.norm2 \(num_features=5\), .*Set widths = \"init_from\" in the recipe",
    ):
        prepare(tiny(data, f"train.init_from={pruned}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_pruned_weights_are_trained_on_with_their_widths(data: Path, pruned: Path, tmp_path: Path) -> None:
    recipe = tiny(data, f"train.init_from={pruned}", "widths=init_from", "train.ema_decay=0.5")
    run = prepare(recipe, tmp_path / "run")
    assert run.note == f"Started from cut ({pruned}): all of its weights."
    state, card = read_weights(pruned)
    for name, value in state.items():
        assert torch.equal(run.loop.network.state_dict()[name], value), name
    run.train()
    pruned.unlink()  # a run that goes on does not need them
    again = prepare(recipe, tmp_path / "run", resume=True)
    assert again.complete
    assert widths_of(again.loop.network) == widths_of(run.loop.network)
    for name, value in run.trained.state_dict().items():
        assert torch.equal(again.trained.state_dict()[name], value), name
    assert again.card({}).widths == card.widths == WIDTHS
    for file in (run.folder.best, run.folder.last):
        network = pg.load(file).program.network  # type: ignore[attr-defined]
        assert widths_of(network) == widths_of(run.trained)
    assert run.folder.stored_recipe().widths == "init_from"


def test_a_run_that_ended_before_its_first_checkpoint_reads_them_again(
    data: Path, pruned: Path, tmp_path: Path
) -> None:
    recipe = tiny(data, f"train.init_from={pruned}", "widths=init_from")
    prepare(recipe, tmp_path / "run")
    again = prepare(recipe, tmp_path / "run", resume=True)
    assert again.widths == WIDTHS


def test_pruned_weights_of_more_keypoints_start_a_smaller_last_layer(data: Path, pruned: Path, tmp_path: Path) -> None:
    _, card = read_weights(pruned)
    network = StackedHourglass(16, **NUMBERS)
    apply_widths(network, WIDTHS)
    table = card.network | {"num_keypoints": 16}
    save_weights(pruned, network.state_dict(), replace(card, network=table, skeleton=SKELETONS["mpii16"]))
    run = prepare(tiny(data, f"train.init_from={pruned}", "widths=init_from"), tmp_path / "run")
    assert run.widths == WIDTHS
    assert widths_of(run.loop.network)["outputs.0.heatmap"] == {"in_channels": 16, "out_channels": 14, "groups": 1}
    name = f"{AT}.conv1.weight"
    assert torch.equal(run.loop.network.state_dict()[name], network.state_dict()[name])


def test_weights_as_they_were_built_have_no_widths_to_take(data: Path, pruned: Path, tmp_path: Path) -> None:
    _, card = read_weights(pruned)
    network = StackedHourglass(int(card.network["num_keypoints"]), **NUMBERS)
    save_weights(pruned, network.state_dict(), replace(card, widths={}))
    run = prepare(tiny(data, f"train.init_from={pruned}", "widths=init_from"), tmp_path / "run")
    assert run.card({}).widths == {}


def test_another_network_cannot_have_their_widths(data: Path, pruned: Path, tmp_path: Path) -> None:
    recipe = tiny(data, 'network={name="unet", width=8, depth=2}', f"train.init_from={pruned}", "widths=init_from")
    with pytest.raises(
        RecipeError,
        match=rf"widths = \"init_from\" \(weights 'cut'\): widths name the module '{AT}\.conv1', which the network "
        r"does not have\. .*The recipe's network is .*'unet'",
    ):
        prepare(recipe, tmp_path / "run")


def test_the_same_modules_with_another_width_are_told_by_their_tensors(
    data: Path, pruned: Path, tmp_path: Path
) -> None:
    recipe = tiny(data, "network.width=32", f"train.init_from={pruned}", "widths=init_from")
    with pytest.raises(
        CheckpointError, match=r"stem\.conv\.weight \(4, 3, 7, 7\) for \(8, 3, 7, 7\).*same but their widths differ"
    ):
        prepare(recipe, tmp_path / "run")


@pytest.mark.slow
def test_a_searched_network_is_trained_from_a_table(data: Path, tmp_path: Path) -> None:
    recipe = tiny(data, widths=WIDTHS)
    again = tmp_path / "recipe.toml"
    again.write_text(recipe.to_toml())
    assert differences(Recipe.read(again), recipe) == {}
    run = prepare(recipe, tmp_path / "run")
    assert widths_of(run.loop.network)[f"{AT}.conv2"] == {"in_channels": 5, "out_channels": 8, "groups": 1}
    run.train()
    _, card = read_weights(run.folder.best)
    assert card.widths == WIDTHS
    assert prepare(recipe, tmp_path / "run", resume=True).complete
    with pytest.raises(RecipeError, match=rf"was started with widths\.{AT}\.conv1\.out_channels = 5, not 4"):
        prepare(tiny(data, widths=WIDTHS | {f"{AT}.conv1": {"out_channels": 4}}), tmp_path / "run", resume=True)


def test_a_pruned_backbone_starts_a_network(data: Path, tmp_path: Path) -> None:
    numbers = {"name": "resnet18", "width": 8}
    backbone = build(BACKBONES, "resnet18", width=8)
    at = "stages.1.0"
    widths: Widths = {
        f"{at}.inside1.conv": {"out_channels": 9},
        f"{at}.inside1.norm": {"num_features": 9},
        f"{at}.inside2.conv": {"in_channels": 9},
    }
    apply_widths(backbone, widths)
    path = tmp_path / "backbone.safetensors"
    save_weights(
        path,
        backbone.state_dict(),
        WeightCard("r18", numbers, {}, None, InputSpec((32, 32)), part="backbone", widths=widths),
    )
    network = {"name": "composed", "backbone": numbers, "neck": {"name": "fpn", "width": 8}}
    with pytest.raises(RecipeError, match=rf"'r18' have widths that .*backbone\.{at}\.inside1\.conv"):
        prepare(tiny(data, f"train.init_from={path}", network=network), tmp_path / "run")
    run = prepare(tiny(data, f"train.init_from={path}", "widths=init_from", network=network), tmp_path / "run")
    assert run.note.startswith("Started from r18")
    assert run.card({}).widths == {f"backbone.{name}": numbers for name, numbers in widths.items()}
    for name, value in backbone.state_dict().items():
        assert torch.equal(run.loop.network.state_dict()[f"backbone.{name}"], value), name


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ("start", r"widths: what is not 'init_from' must be whole numbers above 0 by module, .*; got 'start'"),
        ({"stem.conv": 3}, r"widths: what is not 'init_from' .*; got 3 for 'stem\.conv'"),
        ({"stem.conv": {"out_channels": 2.5}}, r"got 'out_channels' = 2\.5 for 'stem\.conv'"),
        ({"stem.conv": {"out_channels": True}}, r"got 'out_channels' = True for 'stem\.conv'"),
        ("init_from", r"widths = 'init_from' uses the widths of the initial weights: set train\.init_from"),
    ],
)
def test_what_is_no_table_of_widths(data: Path, widths: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        tiny(data, widths=widths)


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ({"stem.cnov": {"out_channels": 2}}, r"widths: widths name the module 'stem\.cnov'.*Did you mean 'stem\.conv'"),
        (
            {"stem.conv": {"out_channels": 2}},
            r"The network fails on images of .*running_mean should contain 2 elements",
        ),
    ],
)
def test_widths_that_the_network_cannot_have(data: Path, tmp_path: Path, widths: Widths, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        prepare(tiny(data, widths=widths), tmp_path / "run")
    assert not (tmp_path / "run").exists()
