"""Every recipe that ships loads as it stands and trains two steps on tiny data."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

import poseglass
from poseglass.codecs import CODECS
from poseglass.core.skeletons import SKELETONS
from poseglass.core.targets import ModelInput, Targets
from poseglass.estimators.load import shipped
from poseglass.estimators.weights_file import read_card
from poseglass.metrics import METRICS
from poseglass.networks import NETWORKS
from poseglass.readers import write_coco
from poseglass.runs.build import make, make_criterion, protocol_of
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import synthetic_people

FOLDER = Path(poseglass.__file__).parent / "recipes"
RECIPES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.toml"))


WITHOUT_FILES = {
    "synthetic/one_minute.toml", "pages/characters.toml", "pages/places.toml", "pages/classifier.toml"
}  # fmt: skip
"""Recipes whose data are rendered."""

pytestmark = pytest.mark.usefixtures("plain_reports")


def keypoints_of(recipe: Recipe) -> int:
    return len(SKELETONS[recipe.skeleton]) if recipe.skeleton else 0


def test_the_recipes_are_found():
    assert {"mpii/hg8.toml", "mpii/hg2.toml", "mpii/hg2_adam.toml", "flic/hg8.toml", "lspet/hg2_light.toml",
            "synthetic/one_minute.toml"} <= set(RECIPES)  # fmt: skip


@pytest.mark.slow_when_large
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_complete(name):
    """It opens with a comment that says what it is; its parts exist; its figure is one its metrics give."""
    text = (FOLDER / name).read_text()
    assert text.startswith("# ")
    recipe = Recipe.read(FOLDER / name)
    assert recipe.name
    make(NETWORKS, {"num_keypoints": keypoints_of(recipe)} | recipe.network, "network")
    results: set[str] = set()
    for part in recipe.evaluate.metrics:  # AP of nothing is no number, PCK of nothing is
        names = {"oks_ap": {"AP"}, "box_ap": {"box_AP", "box_AP50"}}.get(part["name"])
        results |= set(make(METRICS, part, "metric").compute()) if names is None else names
    protocol = protocol_of(recipe.evaluate)
    if protocol is not None:
        results |= {"AP"} if recipe.evaluate.protocol == {"name": "coco"} else set(protocol.metric().compute())
    if recipe.data.val is None:  # the last weights are taken, and the recipe says so
        assert "the last weights are taken" in text
    else:
        assert recipe.evaluate.monitor in results


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_data_that_a_user_may_put_anywhere(name):
    """Every path begins with data/, which --data places; no folder of ours is named."""
    assert "shared" not in (FOLDER / name).read_text()
    recipe = Recipe.read(FOLDER / name)
    sets = [*recipe.data.train, *([recipe.data.val] if recipe.data.val else [])]
    of_paths = ("annotations", "images", "head_boxes", "cutouts", "onto", "folder")
    paths = [v for table in sets for k, v in table.items() if k in of_paths]
    assert all(path.startswith("data/") for path in paths)
    assert bool(paths) == (name not in WITHOUT_FILES)


def tables(value: Any, place: str = "") -> Iterator[str]:
    """Yield the dotted key of every table inside a recipe."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        here = f"{place}.{key}" if place else str(key)
        if isinstance(one, dict):
            yield here
        yield from tables(one, here)


@pytest.mark.parametrize("name", RECIPES)
def test_a_misspelt_key_in_any_table_is_told_when_a_recipe_is_read(name):
    places = list(tables(tomllib.loads((FOLDER / name).read_text())))
    recipe = Recipe.read(FOLDER / name)
    measured = set() if recipe.data.val is None else {"data.val", "evaluate"}
    assert measured | {"network", "codec", "criterion" if recipe.criterion else "loss.0", "input", "augment.0", "data",
                       "train", "train.optimizer", "train.schedule"} <= set(places)  # fmt: skip
    for place in places:
        # keys are the fields of other people's files; or outputs, which the criterion checks when it is built
        if place.endswith("where") or place == "criterion.weights":
            continue
        with pytest.raises(RecipeError) as caught:
            Recipe.read(FOLDER / name, [f"{place}.misspelt=1"])
        assert re.match(rf"{re.escape(str(FOLDER / name))}: .*{re.escape(place)}\.misspelt\b", str(caught.value)), place


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_needs_no_code_of_anybody(name):
    recipe = Recipe.read(FOLDER / name)
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml()), trust_code=False) == recipe
    assert '":' not in recipe.to_toml()


@pytest.mark.parametrize("path", shipped().values(), ids=shipped())
def test_the_recipe_in_the_card_of_what_ships_is_one(path):
    recipe = Recipe.from_dict(tomllib.loads(read_card(path).recipe), trust_code=False)
    finds = recipe.criterion == {"name": "centernet"}
    assert finds or [part.name for part in recipe.loss or ()] == ["softmax_cross_entropy"]


def stages_of(recipe: Recipe) -> int:
    """Return how many stages a recipe's network has."""
    kind = recipe.network["name"]
    if kind == "stacked_hourglass":
        return int(recipe.network["num_stacks"])
    return int(kind[2]) if kind.startswith("hg") else {"cpm": 6, "cpn_r50": 5}.get(kind, 1)


def of_maps(recipe: Recipe) -> bool:
    """Return whether a recipe trains maps of keypoints, one by one."""
    return recipe.criterion is None and bool(recipe.skeleton)


@pytest.mark.parametrize("name", [name for name in RECIPES if of_maps(Recipe.read(FOLDER / name))])
def test_what_a_recipe_minimises_is_the_formula_to_the_bit(name):
    """Written out: mean squared error or cross-entropy over all maps; of CPN's last stage the hardest 8 joints."""
    recipe, generator = Recipe.read(FOLDER / name), torch.Generator().manual_seed(0)
    codec, keypoints = make(CODECS, recipe.codec, "codec"), len(SKELETONS[recipe.skeleton or ""])
    xy = torch.rand(3, keypoints, 2, generator=generator) * 80 - 8
    targets = Targets.of_keypoints(xy, (torch.rand(3, keypoints, generator=generator) > 0.2).float())
    targets.occluded = torch.rand(3, 1, keypoints, generator=generator) > 0.6
    batch = ModelInput(torch.zeros(3, 3, 64, 64), targets)
    count = stages_of(recipe)
    shape = codec.spec.shapes(keypoints, (64, 64))["heatmap"]
    stages = [{"heatmap": torch.randn(3, *shape, generator=generator)} for _ in range(count)]
    terms = make_criterion(recipe, codec, torch.device("cpu"))(stages, codec.encode(targets, (64, 64)), batch)
    assert list(terms) == [f"heatmap/{i}" for i in range(count)]
    for i, stage in enumerate(stages):
        drawn = replace(codec, sigma=recipe.stage_sigmas[i] if recipe.stage_sigmas else codec.sigma).encode(
            targets, (64, 64)
        )
        maps, target, weight = stage["heatmap"], drawn["heatmap"], drawn["weight"]
        if recipe.stage_occluded and not recipe.stage_occluded[i]:
            weight = weight * ~targets.occluded[:, 0]
        if codec.activation == "softmax":
            share = target.flatten(2) / target.flatten(2).sum(-1, keepdim=True).clamp_min(1e-6)
            each = -(share * maps.flatten(2).log_softmax(-1)).sum(-1) * weight
        else:
            each = (maps - target).square().mean((-1, -2)) * weight
        if name == "coco/cpn_r50.toml" and i == 4:
            each = each.topk(8, dim=1).values
        assert torch.equal(terms[f"heatmap/{i}"], each.mean()), i


@pytest.mark.slow
@pytest.mark.slow_when_large
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_two_steps(name, tmp_path):
    as_it_is = Recipe.read(FOLDER / name)
    if as_it_is.skeleton:
        drawn = synthetic_people(4, seed=1, size_wh=(48, 48), skeleton=SKELETONS[as_it_is.skeleton])
        write_coco(drawn, tmp_path / "tiny.json", write_images=True)
    # MPII's figure wants head boxes, which synthetic people do not have; COCO's is taken as the recipe states it
    figure = (
        ["evaluate.flip_test=false"]
        if name.startswith("coco/")
        else ['evaluate={ metrics=[{ name = "pck" }], monitor = "pck@0.2", flip_test = false }']
    )
    data = f'{{ name = "coco", annotations = "{tmp_path / "tiny.json"}" }}'
    if not as_it_is.skeleton:  # pages, in letters that every installation has
        font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        letters = 'characters = "ABC", size_wh = [64, 64], size_px = [12, 16]'
        data = f'{{ name = "pages", count = 4, fonts = ["{font}"], {letters} }}'
        figure = ["evaluate.flip_test=false"]
    if name.startswith("streets/"):
        data = '{ name = "streets", count = 4, size_wh = [64, 64] }'
    recipe = Recipe.read(
        FOLDER / name,
        [
            f"data.train={data}", f"data.val={data}", "train.epochs=1", "train.batch_size=2", "train.workers=0",
            "train.sizes=[]", "data.cache_gb=0", "input.size_wh=[64, 64]", *figure,
        ],
    )  # fmt: skip
    if (recipe.train.init_from or "").startswith("package:"):  # a download
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"init_from": None})})
    run = prepare(recipe, tmp_path / "run")
    run.train()
    assert run.loop.progress.step == len(run.examples) // 2
    assert run.loop.progress.rows[0]["loss"] > 0
    assert run.folder.report.is_file()
    columns = run.loop.progress.rows[0]
    if not as_it_is.skeleton and as_it_is.criterion is None:
        assert "class/0" in columns
    elif as_it_is.criterion is None:
        assert len([k for k in columns if k.startswith("heatmap/")]) == stages_of(as_it_is)
    else:
        told = {"class"} if "features" in as_it_is.codec else set()
        told |= {"depth", "dimensions", "rotation"} if "boxes_3d" in as_it_is.codec else set()
        assert {"center", "size"} | ({"keypoints", "heatmap"} if as_it_is.skeleton else told) <= set(columns)


@pytest.mark.parametrize("name", ["coco/hrnet_w32", "coco/hrnet_w48_384", "coco/simple_baseline_r50", "mpii/hrnet_w32"])
def test_the_msra_family_trains_towards_whole_pixels(name):
    assert Recipe.read(FOLDER / f"{name}.toml").codec["placement"] == "rounded"


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("coco/")])
def test_a_figure_of_coco_is_the_protocols_and_says_how_to_get_one_that_compares(name):
    assert "--set evaluate.protocol.detections=FILE" in (FOLDER / name).read_text()
    assert Recipe.read(FOLDER / name).evaluate.protocol == {"name": "coco"}


def test_cpn_trains_its_pyramid_on_visible_keypoints():
    """Of the public code: GlobalNet takes fully visible keypoints (v = 2), RefineNet all that are labelled."""
    assert Recipe.read(FOLDER / "coco/cpn_r50.toml").stage_occluded == (False, False, False, False, True)


def test_another_network_for_the_family_as_its_header_says():
    path = FOLDER / "lspet" / "family.toml"
    change = re.search(r"--set '(network=.*)'", path.read_text())
    assert change is not None
    recipe = Recipe.read(path, [change[1]])
    assert make(NETWORKS, {"num_keypoints": 14} | recipe.network, "network").num_keypoints == 14
