import copy
import json
import tomllib
from typing import Any

import pytest

from poseglass.runs.build import training_data, validation_data
from poseglass.runs.recipe import Recipe, RecipeError, apply_override, differences

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies

PLAIN: dict[str, Any] = {
    "name": "r",
    "network": {"name": "hg1"},
    "codec": {"name": "heatmap"},
    "data": {"train": {"name": "coco", "annotations": "a.json"}},
    "train": {"epochs": 2, "batch_size": 4},
}


def changed(**more: Any) -> dict[str, Any]:
    return copy.deepcopy(PLAIN) | more


def test_defaults_fill_what_is_left_out():
    recipe = Recipe.from_dict(PLAIN)
    assert recipe.data.train == [{"name": "coco", "annotations": "a.json"}]
    assert recipe.train.optimizer.name == "adamw"
    assert recipe.input.spec().size_wh == (256, 256)
    assert recipe.input.spec((64, 32)).aspect == 2.0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(nmae="x"), r"unknown key 'nmae'\. Did you mean 'name'\?"),
        (
            changed(train={"epochs": 2, "batch_size": 4, "epoch": 3}),
            r"unknown key 'train\.epoch'\. Did you mean 'epochs'",
        ),
        (
            changed(train={"epochs": 2, "batch_size": 4, "optimizer": {"learning_rate": 1}}),
            r"unknown key 'train\.optimizer\.learning_rate'.*Known here: .*lr",
        ),
        (
            changed(train={"epochs": 2, "batch_size": 4, "sizes": [{"epoch": 0, "size": [1, 1]}]}),
            r"unknown key 'train\.sizes\.0\.size'\. Did you mean 'size_wh'",
        ),
        (changed(train={"epochs": 2}), r"the key 'train\.batch_size' is missing"),
        (changed(train={"epochs": 0, "batch_size": 4}), r"train\.epochs: .*greater than or equal to 1, got 0"),
        (changed(train={"epochs": "many", "batch_size": 4}), r"train\.epochs: .*integer.*got 'many'"),
        (
            changed(loss=3),
            r"loss must be a list of tables, got 3; write loss = \[\{ name = \"mse\" \}, \{ name = \"offset\", we",
        ),
        (changed(loss="mse"), r"loss must be a list of tables, got 'mse'; write loss = \[\{ name = \"mse\" \}\]\.$"),
        (changed(loss=["mse"]), r"loss\.0 must be a table, got 'mse'; write \{ name = \"mse\" \}"),
        (changed(loss=[]), r"loss is an empty list; write loss = \[\{ name = \"mse\" \}\], or omit it"),
        (changed(loss=[{"weight": 2}]), r"the key 'loss\.0\.name' is missing"),
        (changed(loss=[{"name": "mse", "weight": 0}]), r"loss\.0\.weight: .*greater than 0, got 0"),
        (
            changed(loss=[{"name": "mse", "stages": [1, 1]}]),
            r"loss\.0\.stages: must be different stages, counted from 0",
        ),
        (changed(loss=[{"name": "mse", "stages": []}]), r"loss\.0\.stages: must be different stages"),
        (
            changed(loss=[{"name": "mse"}], criterion={"name": "a:b"}),
            r"a criterion replaces the loss; omit loss",
        ),
        (changed(stage_sigmas=[2.0], criterion={"name": "a:b"}), r"omit stage_sigmas, or criterion"),
        (changed(criterion={"teacher": "a"}), r"criterion needs a name"),
        (changed(network={"stacks": 2}), r"network needs a name, e\.g\. \{ name = "),
        (changed(augment=[{"scale": 2}]), r"augment\.0 needs a name"),
        (changed(data={"train": {"annotations": "a"}}), r"data\.train\.0 needs a name"),
        (
            changed(train={"epochs": 2, "batch_size": 4, "schedule": {"name": "cosin"}}),
            r"train\.schedule\.name: .*'cosine'.*got 'cosin'",
        ),
    ],
)
def test_what_will_not_do_is_named(data, words):
    with pytest.raises(RecipeError, match=words):
        Recipe.from_dict(data)


def test_every_fault_is_told_at_once():
    with pytest.raises(RecipeError, match=r"'train\.batch_size' is missing; unknown key 'nmae'.*\.$"):
        Recipe.from_dict(changed(nmae="x", train={"epochs": 1}))


def test_a_file_that_is_not_there_or_no_toml(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such recipe: .*built-in ones are in .*recipes"):
        Recipe.read(tmp_path / "none.toml")
    for content in (b"name = ", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(RecipeError, match=r"bad\.toml is not TOML"):
            Recipe.read(tmp_path / "bad.toml")


@pytest.mark.parametrize("train", ['{ name = "coco", annotations = "data/a/train.json", images = "elsewhere/data" }',
    '[{ name = "coco", annotations = "data/a/train.json", images = "elsewhere/data" }]'])  # fmt: skip
def test_the_folder_of_data_is_given_apart(tmp_path, train):
    path = tmp_path / "mine.toml"
    text = Recipe.from_dict(PLAIN).to_toml().partition("[data]")[0]
    path.write_text(
        f'{text}[data]\ntrain = {train}\nval = {{ name = "coco", annotations = "data/a/val.json" }}\n'
        "[train]\nepochs = 1\nbatch_size = 4\n"
    )
    here = Recipe.read(path)
    assert here.data.train[0]["annotations"] == "data/a/train.json"
    there = Recipe.read(path, ["data.val.annotations=data/b.json"], data_folder=tmp_path / "sets")
    assert there.data.train[0]["annotations"] == str(tmp_path / "sets" / "a" / "train.json")
    assert there.data.train[0]["images"] == "elsewhere/data"
    assert there.data.val == {"name": "coco", "annotations": "data/b.json"}  # what is set is taken as it stands
    assert Recipe.read(path, ["data.train.0.annotations=c.json"]).data.train[0]["annotations"] == "c.json"


def test_a_start_is_taken_away_by_a_random_one():
    given = {"train": PLAIN["train"] | {"init_from": "people"}}
    assert Recipe.from_dict(PLAIN | given).train.init_from == "people"
    assert Recipe.from_dict(PLAIN | given, overrides=["train.init_from=random"]).train.init_from is None
    frozen = {"train": given["train"] | {"freeze_norms": True}}
    with pytest.raises(RecipeError, match="freeze_norms keeps statistics, which come with initial weights"):
        Recipe.from_dict(PLAIN | frozen, overrides=["train.init_from=random"])


def test_a_folder_of_data_that_no_recipe_wants_is_refused():
    with pytest.raises(RecipeError, match=r"no dataset of this recipe has a path that begins with data/\. Omit --data"):
        Recipe.read("synthetic/one_minute.toml", data_folder="sets")


def test_data_that_are_not_there_are_named_by_their_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.read("lspet/family.toml")
    with pytest.raises(FileNotFoundError, match=(
        r"^data\.train\.0 of the recipe: No such label file: data/lspet/train\.json\..* --data FOLDER sets "
        r"the folder that the recipe calls data/; --set data\.train\.0\.annotations=PATH sets only this path\.$"
    )):  # fmt: skip
        training_data(recipe)
    with pytest.raises(FileNotFoundError, match=r"^data\.val of the recipe: .*--set data\.val\.annotations=PATH"):
        validation_data(recipe)
    elsewhere = Recipe.read("lspet/family.toml", data_folder=tmp_path / "sets")
    with pytest.raises(FileNotFoundError, match=r"sets/lspet/train\.json") as caught:
        training_data(elsewhere)
    assert "--data" not in str(caught.value)


def test_overrides():
    recipe = Recipe.from_dict(
        PLAIN,
        overrides=[
            "train.epochs=7", "train.optimizer.lr=5e-4", "name=other", "data.train.annotations=b.json",
            "input.size_wh=[64, 32]", "network.stem=bearpaw", 'evaluate.metrics=[{name="pck"}]',
        ],
    )  # fmt: skip
    assert recipe.train.epochs == 7
    assert recipe.train.optimizer.lr == 5e-4
    assert recipe.name == "other"
    assert recipe.data.train[0]["annotations"] == "b.json"
    assert recipe.input.size_wh == (64, 32)
    assert recipe.network["stem"] == "bearpaw"
    assert recipe.evaluate.metrics == [{"name": "pck"}]
    assert PLAIN["name"] == "r"  # the tables given stay as they are
    assert PLAIN["network"] == {"name": "hg1"}


def test_overrides_reach_into_lists():
    data = changed(augment=[{"name": "random_affine"}, {"name": "occlusion"}])
    recipe = Recipe.from_dict(data, overrides=["augment.1.probability=1.0", "augment.0.degrees=5"])
    assert recipe.augment == [{"name": "random_affine", "degrees": 5}, {"name": "occlusion", "probability": 1.0}]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", r"--set must be KEY=VALUE, e\.g\. train\.epochs=3; got 'train\.epochs'"),
        ("=3", r"--set must be KEY=VALUE"),
        ("name.first=3", r"name is not a table"),
        ("name.first.second=3", r"there is no table at 'first'"),
        ("data.train.7.name=x", None),
    ],
)
def test_overrides_that_will_not_do(override, words):
    data = copy.deepcopy(PLAIN)
    if words is None:
        data["data"]["train"] = [data["data"]["train"]]
        words = r"there is no table at '7'"
    with pytest.raises(RecipeError, match=words):
        apply_override(data, override)


def test_an_unknown_key_of_an_override_is_named_with_the_nearest():
    with pytest.raises(RecipeError, match=r"unknown key 'train\.batchsize'\. Did you mean 'batch_size'"):
        Recipe.from_dict(PLAIN, overrides=["train.batchsize=3"])


def test_toml_round_trip():
    data = changed(
        notes='a "quoted"\nnote \x7f \\ ü',
        augment=[{"name": "random_affine", "scale": [0.7, 1.4]}, {"name": "occlusion"}],
        loss=[
            {"name": "mse_hard_keypoints", "hardest": 3, "stages": [0, 1]},
            {"name": "mse", "weight": 0.5, "of": "heatmap"},
        ],
        data={"train": [{"name": "my.data:read", "annotations": "a.json", "odd key": {"x.y": 1e-9}}], "val": None},
        train={"epochs": 2, "batch_size": 4, "sizes": [{"epoch": 0, "size_wh": [96, 96]}]},
        evaluate={"metrics": [{"name": "pck", "thresholds": [0.2]}], "monitor": "pck@0.2"},
    )
    recipe = Recipe.from_dict(data)
    text = recipe.to_toml()
    assert Recipe.from_dict(tomllib.loads(text)) == recipe
    assert "\n[train]\nepochs = 2\n" in text
    assert "flat_after_steps = 500" in text


words = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.slow
@given(values)
def test_any_value_survives_toml(value):
    recipe = Recipe.from_dict(changed(network={"name": "my.code:Network", "value": value}))
    back = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
    assert json.dumps(back.network) == json.dumps(recipe.network)


def test_differences_are_named_by_their_keys():
    one = Recipe.from_dict(changed(augment=[{"name": "occlusion", "probability": 0.5}]))
    other = Recipe.from_dict(changed(augment=[{"name": "occlusion"}]), overrides=["train.epochs=3"])
    assert differences(one, one) == {}
    assert differences(one, other) == {"augment.0.probability": (0.5, None), "train.epochs": (2, 3)}


def test_a_recipe_that_ships_is_found_by_its_name_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Recipe.read("lspet/family.toml").name == "family"
    (tmp_path / "lspet").mkdir()
    (tmp_path / "lspet" / "family.toml").write_text(Recipe.read("mpii/hg2.toml").to_toml())
    assert Recipe.read("lspet/family.toml").name == "hg2-mpii"  # one's own comes first
