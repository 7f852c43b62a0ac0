"""Training on chips: two steps by one command, resumed bit for bit, and weights that look in chips by themselves."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import poseglass as pg
from poseglass import cli
from poseglass.estimators.chips import Chips, pyramid
from poseglass.estimators.weights_file import read_weights
from poseglass.readers import write_coco
from poseglass.runs.negatives import find_negatives, needs_negatives, proposing_recipe, with_negatives
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import synthetic_people
from poseglass.training.checkpoint import load_checkpoint
from poseglass.transforms.chips import ChipRule, ChipScale

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plain_reports")]

RECIPE = """
name = "chips"
seed = 1
skeleton = "people19"
network.name = "composed"
network.backbone = { name = "efficientnet_lite2" }
network.neck = { name = "unet", width = 64 }
network.head = { name = "centernet", width = 64 }
codec = { name = "centernet" }
criterion = { name = "centernet" }
input = { size_wh = [96, 96], mean = [0.498, 0.498, 0.498], std = [0.502, 0.502, 0.502] }

[data]
train = { name = "coco", annotations = "FOLDER/train.json" }

[data.chips]
scales = [{ scale = 2.0, up_to_px = 60 }, { scale = "whole", from_px = 40 }]
stride = 16
negatives = { epochs = 1, at_least = 1, min_score = 0.01, share = 0.5 }

[train]
epochs = 2
batch_size = 4
optimizer = { name = "adamw", lr = 1e-5 }
workers = 0
init_from = "people"
checkpoint_seconds = 1e-9
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chips")
    write_coco(synthetic_people(8, seed=2, size_wh=(160, 120)), folder / "train.json", write_images=True)
    file = folder / "recipe.toml"
    file.write_text(RECIPE.replace("FOLDER", str(folder)))
    return file


def run(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_one_command_finds_negative_chips_and_trains_on_them(recipe_file, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    assert run(monkeypatch, "train", recipe_file, "--run", folder) == 0
    said = capsys.readouterr().out
    assert f"first, a brief training that proposes negative chips, in {folder}-proposals" in said
    assert "negative chips in" in said
    pool = json.loads((tmp_path / "run-proposals" / "negative_chips.json").read_text())["chips"]
    assert pool
    assert "positive chips of" in said
    # A run that was interrupted ends as one that was not, with the same negative chips.
    recipe = with_negatives(Recipe.read(recipe_file), tmp_path / "run-proposals" / "negative_chips.json")
    work = prepare(recipe, tmp_path / "again", device="cpu")

    class Killed(BaseException):
        pass

    def kill(progress, terms, lr):
        if progress.step == work.steps_per_epoch + 1:
            raise Killed

    work.on_step = kill
    with pytest.raises(Killed):
        work.train()
    assert run(monkeypatch, "train", "--resume", "--run", tmp_path / "again") == 0
    one, two = (load_checkpoint(where / "checkpoint.pt")["network"] for where in (folder, tmp_path / "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    # The weights look in chips by themselves, as they were trained.
    card = read_weights(folder / "last.safetensors")[1]
    assert card.chips == (
        {"scale": 2.0, "from_px": 0.0, "up_to_px": 60.0},
        {"scale": "whole", "from_px": 40.0, "up_to_px": None},
    )
    rule = ChipRule((ChipScale(2.0, 0, 60), ChipScale("whole", 40)), (96, 96))
    loaded = pg.load_detector(folder / "last.safetensors")
    assert loaded.chips == Chips(rule)
    assert pg.load_detector(folder / "last.safetensors", chips=False).chips is None
    image = np.random.default_rng(0).integers(0, 256, (150, 260, 3)).astype(np.uint8)
    assert loaded(image).skeleton == card.skeleton
    # A second command does not repeat the first training, and a taken folder is said at once.
    capsys.readouterr()
    assert run(monkeypatch, "train", recipe_file, "--run", folder) == 2
    assert "run is not empty. Resume its run" in capsys.readouterr().err


def test_a_first_training_is_used_again_only_for_the_same_recipe(recipe_file, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def interrupted(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("poseglass.cli.train.find_negatives", interrupted)
        assert run(monkeypatch, "train", recipe_file, "--run", folder) == 130
    assert "stopped in the first training; the same command, without --resume, continues it" in capsys.readouterr().err
    assert not folder.exists()
    assert run(monkeypatch, "train", recipe_file, "--run", folder, "--set", "train.optimizer.lr=1e-6") == 2
    error = capsys.readouterr().err
    assert "run-proposals holds a first training with other settings: train.optimizer.lr = 1e-05, now 1e-06." in error
    # Another number of proposals needs no other first training, but other chips.
    assert run(monkeypatch, "train", recipe_file, "--run", folder, "--set", "data.chips.negatives.at_least=2") == 0
    said = capsys.readouterr().out
    assert "resuming a brief training" in said
    assert "step 1" not in said
    pool = json.loads((tmp_path / "run-proposals" / "negative_chips.json").read_text())
    assert pool["settings"] == {"format": 2, "seed": 1, "at_least": [2, 2], "min_score": 0.01}
    same = ("--set", "data.chips.negatives.at_least=2", "--run", tmp_path / "run")
    shutil.rmtree(folder)
    assert run(monkeypatch, "train", recipe_file, *same) == 0
    assert "negative chips of an earlier first training are used" in capsys.readouterr().out


def test_what_is_wrong_with_the_run_is_told_before_the_first_training(recipe_file, tmp_path, monkeypatch, capsys):
    wrong = ("--set", 'data.val={ name = "coco", annotations = "nowhere.json" }')
    assert run(monkeypatch, "train", recipe_file, "--run", tmp_path / "run", *wrong) == 2
    assert "nowhere.json" in capsys.readouterr().err
    assert run(monkeypatch, "train", recipe_file, "--run", tmp_path / "run", "--check", *wrong) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_completely_labelled_images_the_first_training_does_not_begin(
    recipe_file, tmp_path, monkeypatch, capsys
):
    data = f'data.train={{ name = "coco", annotations = "{recipe_file.parent}/train.json", boxes_complete = false }}'
    for more in ((), ("--check",)):
        assert run(monkeypatch, "train", recipe_file, "--run", tmp_path / "run", "--set", data, *more) == 2
        error = capsys.readouterr().err
        assert "data.chips.negatives needs images in which everything is labelled" in error
        assert "None of the 8 training images is one (boxes_complete is false). Train without negative chips" in error
    assert list(tmp_path.iterdir()) == []


def test_images_without_people_give_negative_chips_which_a_resumed_run_keeps(recipe_file, tmp_path):
    document = json.loads((recipe_file.parent / "train.json").read_text())
    document["images"] = document["images"][:2]
    left = {one["id"] for one in document["images"][1:]}
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] in left]
    file = recipe_file.parent / "some.json"
    file.write_text(json.dumps(document))
    negatives = "data.chips.negatives={ epochs = 1, at_least = 1, min_score = 0.1, share = 3 }"
    changes = [negatives, "train.batch_size=1", "train.epochs=1", f"data.train.annotations={file}"]
    recipe = Recipe.read(recipe_file, changes)
    first = prepare(proposing_recipe(recipe), tmp_path / "first", device="cpu")
    find_negatives(recipe, first, tmp_path / "pool.json")
    chips = json.loads((tmp_path / "pool.json").read_text())["chips"]
    assert 0 in {chip["image"] for chip in chips}
    run = prepare(with_negatives(recipe, tmp_path / "pool.json"), tmp_path / "run", device="cpu")
    assert any("negative chips of images without a labelled instance" in note for note in run.notes)
    assert len(run.examples) == 4 * len(first.examples)
    run.train()
    assert run.complete
    prepare(run.recipe, tmp_path / "run", resume=True, device="cpu")
    (tmp_path / "pool.json").write_text(json.dumps({"chips": chips[1:]}))
    with pytest.raises(RecipeError, match=r"pool.json holds other negative chips than when the run in .* was started"):
        prepare(run.recipe, tmp_path / "run", resume=True, device="cpu")


def test_negative_chips_are_found_by_the_command_alone(recipe_file, tmp_path):
    with pytest.raises(RecipeError, match=r"data.chips.negatives has no file .* `poseglass train` finds them"):
        prepare(Recipe.read(recipe_file), tmp_path / "run", device="cpu")


def test_no_negative_chip_is_told_with_what_to_change(recipe_file, tmp_path, monkeypatch, capsys):
    change = "data.chips.negatives={ epochs = 1, at_least = 5000 }"
    assert run(monkeypatch, "train", recipe_file, "--run", tmp_path / "run", "--set", change) == 2
    error = capsys.readouterr().err
    assert "No negative chip: the first training made" in error
    assert "Lower data.chips.negatives.at_least or min_score" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("change", "says"), [
    ("data.chips.scales=[{ scale = 2.0, from_px = 80, up_to_px = 20 }]", "no box can be in it"),
    ("data.chips.scales=[{ scale = 'half' }]", "scale"),
    ("data.chips.stride=97", "The stride of chips must be 1 to 96"),
    ("data.chips.negatives.at_least=0", "negatives.at_least must be 1 or more"),
    ("data.chips.negatives.at_least=[3]", "negatives.at_least has 1 numbers for 2 scales"),
    ("data.chips.negatives.share=0", "share"),
])  # fmt: skip
def test_invalid_chips_are_told_when_a_recipe_is_read(recipe_file, change, says):
    with pytest.raises(RecipeError, match=says):
        Recipe.read(recipe_file, [change])


def test_chips_need_whole_images_of_one_size(recipe_file, tmp_path):
    sizes = Recipe.read(recipe_file, ["train.sizes=[{ epoch = 1, size_wh = [128, 128] }]"])
    with pytest.raises(RecipeError, match=r"data.chips trains on chips of the input's size, so train.sizes must be"):
        prepare(proposing_recipe(sizes), tmp_path / "run", device="cpu")
    changes = [
        "codec={ name = 'heatmap' }", "network={ name = 'stacked_hourglass', num_stacks = 1, width = 16, depth = 1 }",
        "loss=[{ name = 'mse' }]",
    ]  # fmt: skip
    text = recipe_file.read_text().replace('criterion = { name = "centernet" }\n', "")
    (tmp_path / "person.toml").write_text(text)
    one = Recipe.read(tmp_path / "person.toml", changes)
    with pytest.raises(RecipeError, match=r"data.chips is for networks that find everybody in an image"):
        prepare(proposing_recipe(one), tmp_path / "run", device="cpu")


def test_a_recipe_without_negatives_needs_none(recipe_file):
    recipe = Recipe.read(recipe_file)
    assert needs_negatives(recipe)
    assert not needs_negatives(proposing_recipe(recipe))
    with pytest.raises(RecipeError, match=r"has no data.chips.negatives"):
        proposing_recipe(proposing_recipe(recipe))


@pytest.mark.parametrize("image_wh", [(3000, 2000), (640, 480), (100, 4000), (90, 90)])
def test_a_pyramid_has_a_scale_for_every_size_up_to_the_image(image_wh):
    rule = pyramid(image_wh, (384, 384))
    sizes = np.arange(1.0, min(image_wh))
    boxes = np.stack([0 * sizes, 0 * sizes, sizes, sizes], axis=1)
    assert np.any([scale.holds(boxes) for scale in rule.scales], axis=0).all()
    for level, scale in enumerate(rule.scales[:-1]):
        assert scale.up_to_px * rule.factor(level, image_wh) <= 0.25 * 384 + 1e-9


@pytest.mark.parametrize(("chips", "image_wh", "narrowest"), [
    (Chips(), (2000, 2000), 0.5), (Chips(), (901, 640), 0.5), (Chips(overlap=0.5), (1500, 700), 0.2),
    (Chips(ChipRule(size_wh=(384, 384))), (800, 600), 0.5), (Chips(ChipRule(size_wh=(384, 384))), (1333, 800), 0.25),
    (Chips(ChipRule(size_wh=(256, 256))), (1333, 800), 0.3), (Chips(ChipRule(size_wh=(256, 256))), (600, 1500), 0.2),
])  # fmt: skip
def test_somebody_of_any_size_is_whole_in_a_chip_and_counts_only_there(chips, image_wh, narrowest):
    rng = np.random.default_rng(0)
    rule = chips.rule_for(image_wh, chips.rule.size_wh if chips.rule is not None else (384, 384))
    places = chips.of_image(image_wh, rule)
    for _ in range(300):
        height = float(np.exp(rng.uniform(np.log(8), np.log(0.9 * min(image_wh)))))
        size = np.array([height * rng.uniform(narrowest, 1.0), height])
        low = rng.uniform(3, np.array(image_wh) - size - 3)
        box = np.concatenate([low, low + size])
        seen = 0
        for chip in places:
            part = np.concatenate([np.maximum(box[:2], chip.box_xyxy[:2]), np.minimum(box[2:], chip.box_xyxy[2:])])
            if (part[2:] <= part[:2]).any():
                continue
            if chips.counts(part[None], chip, rule, image_wh)[0]:
                assert np.abs(part - box).max() < 1e-6, "a part of somebody counts"
                seen += 1
        assert seen >= 1, (box, size)


UNIT = st.floats(0, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    boxes=st.lists(st.tuples(UNIT, UNIT, UNIT, UNIT), min_size=1, max_size=6),
    image_wh=st.tuples(st.integers(40, 1200), st.integers(40, 1200)),
    side=st.integers(64, 300),
    factors=st.tuples(st.floats(1.5, 3.0), st.floats(0.6, 1.4)),
    ends=st.tuples(st.floats(20, 100), st.floats(100, 300)),
)
def test_trained_chips_lose_nobody_of_any_shape_and_keep_to_their_ranges(boxes, image_wh, side, factors, ends):
    scales = (
        ChipScale(factors[0], 0, ends[0]), ChipScale(factors[1], 0.5 * ends[0], ends[1]),
        ChipScale("whole", 0.7 * ends[1]),
    )  # fmt: skip
    chips = Chips(ChipRule(scales, (side, side)))
    rule = chips.rule_for(image_wh, (side, side))
    places = chips.of_image(image_wh, rule)
    for x, y, w, h in boxes:
        size = np.array([1 + w**2 * (image_wh[0] - 1), 1 + h**2 * (image_wh[1] - 1)])
        low = np.array([x, y]) * (np.array(image_wh) - size) - 0.5
        box = np.concatenate([low, low + size])
        showing = [chip for chip in places if chip.covers(box[None])[0]]
        levels = {chip.level for chip in showing if chips.counts(box[None], chip, rule, image_wh)[0]}
        assert levels, box
        valid = {level for level, scale in enumerate(scales) if scale.holds(box[None])[0]}
        if size.max() * rule.factor(min(valid), image_wh) < 0.25 * side - 5:  # surely whole at its finest scale
            assert levels <= valid


def test_a_long_box_counts_down_to_the_first_scale_that_shows_it_whole():
    scales = (ChipScale(2.0, 0, 60), ChipScale(1.0, 50, 150), ChipScale("whole", 120))
    chips, image_wh = Chips(ChipRule(scales, (256, 256))), (1333, 800)
    rule = chips.rule_for(image_wh, (256, 256))
    for box, expected in (
        ([300.0, 300, 315, 450], {1}),  # 47 px by its area, but 300 px long at scale 2, whose chips share 172
        ([300.0, 300, 310, 600], {2}),  # too long for the chips of both finer scales
        ([300.0, 300, 330, 340], {0}),
        ([300.0, 300, 355, 355], {0, 1}),
    ):
        counting = {
            chip.level
            for chip in chips.of_image(image_wh, rule)
            if chip.covers(np.array([box]))[0] and chips.counts(np.array([box]), chip, rule, image_wh)[0]
        }
        assert expected <= counting <= expected | {0}, box  # by chance, a fine chip may show a long one whole
