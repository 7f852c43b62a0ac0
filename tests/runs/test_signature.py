"""Every table of a recipe is checked when it is read; what is not trusted is not imported."""

import copy
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poseglass.cli.evaluate import recipe_evaluation
from poseglass.codecs import HeatmapCodec
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14
from poseglass.heads import HeatmapHead
from poseglass.losses.loss import Loss
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.runs.signature import PLACES, recipe_faults, signature_faults

FULL = """
name = "full"
skeleton = "lsp14"
codec = { name = "simcc", split = 2 }
loss = [{ name = "softmax_cross_entropy", of = "x" }, { name = "softmax_cross_entropy", weight = 2.0, of = "y" }]
input = { size_wh = [64, 64], padding = 1.25 }
augment = [
  { name = "random_affine", degrees = 30.0 },
  { name = "half_body", probability = 0.3 },
  { name = "color_jitter", channel = 0.2 },
  { name = "occlusion", probability = 0.2 },
]

[network]
name = "composed"
backbone = { name = "resnet18", width = 8 }
neck = { name = "fpn", width = 8 }
head = { name = "simcc", split = 2 }

[data]
train = [
  { name = "coco", annotations = "a.json", crowd = "drop", repeat = 2 },
  { name = "synthetic", count = 8, skeleton = "lsp14" },
]
val = { name = "mpii", annotations = "b.h5", split = "val" }

[train]
epochs = 2
batch_size = 4
optimizer = { name = "adamw", weight_decay = 0.1 }
schedule = { name = "cosine", warmup_steps = 3 }
sizes = [{ epoch = 1, size_wh = [64, 64] }]

[evaluate]
metrics = [{ name = "pck", normaliser = "torso" }, { name = "oks_ap", max_detections = 20 }]
"""


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "full.toml").write_text(FULL)
    return tmp_path / "full.toml"


def test_a_full_recipe_is_read(file):
    recipe = Recipe.read(file)
    assert [part.of for part in recipe.loss or ()] == ["x", "y"]
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("network.bckbone", "backbone"),
        ("network.backbone.widht", "width"),
        ("network.neck.out_strid", "out_stride"),
        ("network.head.splitt", "split"),
        ("codec.scor", "score"),
        ("loss.0.weigt", "weight"),
        ("loss.1.off", "of"),
        ("augment.0.scal", "scale"),
        ("augment.1.more_then", "more_than"),
        ("augment.2.contrats", "contrast"),
        ("augment.3.sizee", "size"),
        ("data.train.0.annotation", "annotations"),
        ("data.train.0.repeatt", "repeat"),
        ("data.train.1.cuont", "count"),
        ("data.val.head_boxs", "head_boxes"),
        ("evaluate.metrics.0.normalizer", "normaliser"),
        ("evaluate.metrics.1.sigma", "sigmas"),
        ("input.paddingg", "padding"),
        ("train.optimizer.weight_decy", "weight_decay"),
        ("train.schedule.warmup_step", "warmup_steps"),
        ("train.sizes.0.size", "size_wh"),
        ("data.cach_gb", "cache_gb"),
        ("train.epoch", "epochs"),
        ("evaluate.monitr", "monitor"),
        ("codecs", "codec"),
    ],
)
def test_a_misspelt_key_is_named_with_file_place_and_the_nearest(file, key, nearest):
    with pytest.raises(RecipeError) as caught:
        Recipe.read(file, [f"{key}=1"])
    words = str(caught.value)
    assert words.startswith(f"{file}: ")
    assert f"{key}'" in words or f" {key}: " in words
    assert f"Did you mean '{nearest}'?" in words
    assert "\n" not in words


@pytest.mark.parametrize("place", ["network", "network.backbone", "network.neck", "network.head", "codec", "loss.0",
                                   "augment.0", "data.train.1", "data.val", "evaluate.metrics.0"])  # fmt: skip
def test_an_unknown_name_is_told_at_its_place(file, place):
    name = {"network": "composd", "network.backbone": "resnet81", "network.neck": "fnp", "network.head": "simc",
            "codec": "simc", "loss.0": "softmax_crossentropy", "augment.0": "random_afine", "data.train.1": "synthetc",
            "data.val": "mpi", "evaluate.metrics.0": "pkc"}[place]  # fmt: skip
    with pytest.raises(RecipeError, match=rf"{place}\.name: Unknown \w+ '{name}'\. Did you mean '"):
        Recipe.read(file, [f"{place}.name={name}"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('network={name="composed", backbone={name="resnet18"}}', r"network\.neck is missing: network 'composed' nee"),
        ('network={name="hg1", num_keypoints=14, stem=3}', r"network\.stem: network 'hg1' takes 'newell' or 'bearp"),
        ('network.neck="fpn"', r'neck must be a table with a name, got \'fpn\'; write neck = \{ name = "fpn" \}'),
        ("network.head={split=2}", r'head must be a table with a name, got .*; write head = \{ name = "heatmap"'),
        ("network.neck.channels=[3]", r"network\.neck\.channels: neck 'fpn' gets 'channels' from the backbone: om"),
        ("network.head.num_keypoints=3", r"head 'simcc' gets 'num_keypoints' from the data: omit it"),
        ("network.backbone.width=8.5", r"network\.backbone\.width: backbone 'resnet18' takes int, got 8\.5"),
        ("codec.split=0", r"codec: SimccCodec needs split >= 1 and sigma > 0, got split=0"),
        ("codec.score=most", r"codec\.score: codec 'simcc' takes 'min' or 'mean', got 'most'"),
        ("loss.0.target=3", r"loss 'softmax_cross_entropy' gets 'target' from the codec: omit it"),
        ("augment.0.scale=2", r"augment\.0\.scale: transform 'random_affine' takes tuple\[float, float\], got 2"),
        ("augment.1.probability=3", r"augment\.1: .*probability"),
        ('data.val={name="coco"}', r"data\.val\.annotations is missing: dataset 'coco' needs it"),
        ("data.val.split=vall", r"data\.val\.split: dataset 'mpii' takes .*'val'.*, got 'vall'\. Did you mean 'val'"),
        ("data.train.0.repeat=0", r"data\.train\.0\.repeat must be a number above 0, got 0"),
        ("data.train.1.skeleton=lsp41", r"data\.train\.1\.skeleton: Unknown skeleton 'lsp41'\. Did you mean 'lsp14'"),
        ("skeleton=lsp41", r"skeleton: Unknown skeleton 'lsp41'\. Did you mean 'lsp14'"),
        ("evaluate.metrics.0.excluded=neck", r"metric 'pck' takes tuple\[str, \.\.\.\], got 'neck'"),
        ("evaluate.metrics.0.thresholds=[-1.0]", r"evaluate\.metrics\.0: .*-1\.0"),
        ('evaluate={protocol={name="coco", nms="sort"}}', r"protocol\.nms: .* got 'sort'\. Did you mean 'soft'"),
        ('evaluate={protocol={name="coco", max_boxes=0}}', r"evaluate\.protocol: A COCO protocol's max_boxes must be"),
        ("codec.name=heatmap", r"codec 'heatmap' takes no 'split'.* --set codec\.name keeps the table's other keys; t"),
    ],
)  # fmt: skip
def test_what_will_not_do_is_told_when_it_is_read(file, override, words):
    with pytest.raises(RecipeError, match=words):
        Recipe.read(file, [override])


def test_what_comes_from_elsewhere_may_be_missing(file):
    """The number of keypoints comes from the data, a simcc head's size from the input; stating them is no fault."""
    for network in ('{ name = "hg1" }', '{ name = "hg1", num_keypoints = 14 }',
                    '{ name = "simple_baseline_r18", head = { name = "simcc" } }',
                    '{ name = "simple_baseline_r18", head = { name = "simcc", size_wh = [64, 64] } }'):  # fmt: skip
        assert Recipe.read(file, [f"network={network}"]).network["name"] in ("hg1", "simple_baseline_r18")


def test_all_faults_are_told_at_once(file):
    with pytest.raises(RecipeError) as caught:
        Recipe.read(file, ["train.epoch=1", "codec.scor=1", "augment.0.scal=1", "network.neck.wdth=1"])
    for key in ("train.epoch", "codec.scor", "augment.0.scal", "network.neck.wdth"):
        assert key in str(caught.value)


class OwnHead(HeatmapHead):
    """A head of one's own; its first two arguments have names of its own."""

    def __init__(self, width: int, points: int, *, bias: bool = True) -> None:
        super().__init__(width, points)


def own_loss(one, other, weight, beta=1.0, *, gamma: float = 2.0):
    return one.sum()


def of_one(prediction):
    return prediction


OWN_LOSS = Loss(own_loss, ("x", "y"))


class Own:
    def __init__(self, annotations: str, *, width: int = 3) -> None: ...


def anything(**words: Any) -> None: ...


@pytest.mark.parametrize("place", ["codec", "augment.0", "data.val", "evaluate.metrics.0", "network"])
def test_code_of_ones_own_is_checked_too(file, place):
    own = f'{{ name = "{__name__}:Own", annotations = "a" }}'
    Recipe.read(file, [f"{place}={own}", f"{place}.width=4"])
    with pytest.raises(RecipeError, match=rf"{place}\.widht: \w+ '.*:Own' takes no 'widht'\. Did you mean 'width'"):
        Recipe.read(file, [f"{place}={own}", f"{place}.widht=4"])
    with pytest.raises(
        RecipeError,
        match=rf"{place}\.annotations is missing: .* A recipe names a class or function that makes the \w+, w",
    ):
        Recipe.read(file, [f'{place}={{ name = "{__name__}:Own" }}'])
    Recipe.read(file, [f'{place}={{ name = "{__name__}:anything", x = 1 }}'])
    with pytest.raises(
        RecipeError, match=rf"{place}\.name: \w+ '.*:OWN_LOSS' is a Loss; a class or function is needed"
    ):
        Recipe.read(file, [f'{place}={{ name = "{__name__}:OWN_LOSS" }}'])
    with pytest.raises(RecipeError, match=rf"{place}\.name: \w+ 'no\.such:Thing' cannot be imported"):
        Recipe.read(file, [f'{place}={{ name = "no.such:Thing" }}'])


def test_a_head_or_a_loss_of_ones_own_is_called_with_what_comes_first(file):
    head = f'{{ name = "{__name__}:OwnHead" }}'
    Recipe.read(file, [f"network.head={head}", "network.head.bias=false"])
    for more, words in (
        ("biass=1", r"network\.head\.biass: head '.*' takes no 'biass'\. Did you mean 'bias'"),
        ("points=1", r"network\.head\.points: head '.*' gets 'points' from the data: omit it"),
    ):
        with pytest.raises(RecipeError, match=words):
            Recipe.read(file, [f"network.head={head}", f"network.head.{more}"])
    for name in ("own_loss", "OWN_LOSS"):
        loss = f'{{ name = "{__name__}:{name}", of = "x", weight = 2.0, beta = 0.5 }}'
        Recipe.read(file, [f"loss=[{loss}]", "loss.0.gamma=1.0"])
        with pytest.raises(
            RecipeError, match=r"loss\.0\.gama: loss .* takes no 'gama'\. Did you mean 'gamma'.* Known: weight, "
        ):
            Recipe.read(file, [f"loss=[{loss}]", "loss.0.gama=1.0"])
    with pytest.raises(
        RecipeError,
        match=r"loss\.0\.name: loss '.*of_one' has the arguments \(prediction\), expected \(prediction, target,",
    ):
        Recipe.read(file, [f'loss=[{{ name = "{__name__}:of_one" }}]'])


def test_faults_without_a_place():
    assert signature_faults(HeatmapCodec, {"sigm": 1}, "codec 'heatmap'") == [
        "codec 'heatmap' takes no 'sigm'. Did you mean 'sigma'? "
        "Known: stride, sigma, alignment, activation, unlabelled, placement"
    ]
    assert signature_faults(Own, {}, "thing 'own'") == ["thing 'own' needs 'annotations', which is missing"]
    assert signature_faults(int, {"x": 1}, "int") == []  # Python cannot look into it, or it takes anything


# What is not trusted.


@pytest.fixture
def trap(tmp_path, monkeypatch) -> str:
    """A module that must not be imported."""
    (tmp_path / "trap_for_recipes.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "trap_for_recipes:thing"


def with_own_code(trap: str) -> dict[str, dict[str, Any]]:
    """Return recipes that name the trap, by the place."""
    plain = tomllib.loads(FULL)
    found: dict[str, dict[str, Any]] = {}
    for place in [
        *PLACES,
        "network.backbone",
        "network.neck",
        "network.head",
        "loss",
        "skeleton",
        "data.train.skeleton",
    ]:
        data = copy.deepcopy(plain)
        here, keys = data, place.split(".")
        for key in keys[:-1]:
            here = here[key][1] if key == "train" and keys[-1] == "skeleton" else here[key]
        one = trap if keys[-1] == "skeleton" else {"name": trap, "x": 1}
        here[keys[-1]] = [one] if place in ("loss", "augment", "data.train", "evaluate.metrics") else one
        if place == "criterion":
            del data["loss"]
        if place == "evaluate.protocol":
            del data["evaluate"]["metrics"]
        found[place] = data
    return found


def test_reading_what_is_not_trusted_imports_nothing(trap):
    recipes = with_own_code(trap)
    assert len(recipes) == len(PLACES) + 6
    for place, data in recipes.items():
        assert recipe_faults(data, trust_code=False) == [], place
        recipe = Recipe.from_dict(data)
        assert Recipe.from_dict(data, trust_code=False) == recipe
        assert trap in recipe.to_toml()
        with pytest.raises(SystemExit, match="imported"):  # the trap works
            Recipe.from_dict(data, trust_code=True)
        sys.modules.pop("trap_for_recipes", None)


def test_the_recipe_of_a_card_is_not_trusted(trap):
    card = WeightCard("theirs", {"name": "hg1"}, {"name": "heatmap"}, LSP14, InputSpec())
    for place, data in with_own_code(trap).items():
        theirs = replace(card, recipe=Recipe.from_dict(data).to_toml())
        if place in ("evaluate.metrics", "evaluate.protocol"):
            with pytest.raises(
                ValueError, match=r"'theirs' were selected by 'trap_for_recipes:thing', .* --metric or --pr"
            ):
                recipe_evaluation(theirs)
        else:
            assert recipe_evaluation(theirs).metrics == data["evaluate"]["metrics"]
    for text in ("not = 'ours'", "= 3", "x = " + "[" * 5000):
        assert not recipe_evaluation(replace(card, recipe=text)).measures
    assert "trap_for_recipes" not in sys.modules
