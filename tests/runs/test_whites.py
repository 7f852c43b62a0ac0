"""Training and validation data of more than 8 bits are refused where their white levels differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.readers import mixed, write_coco
from poseglass.readers.labelled import LabelledImages
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.runs.whites import different_whites
from poseglass.synthetic import synthetic_people

TOY = Skeleton("toy", ("a",))


def images(folder: Path, *values: np.ndarray) -> LabelledImages:
    """Return a data set of images with these values."""
    folder.mkdir()
    paths = tuple(folder / f"{i}.tiff" for i in range(len(values)))
    for path, value in zip(paths, values, strict=True):
        Image.fromarray(value).save(path)
    return LabelledImages(folder.name, TOY, paths, [Instances.empty(TOY)] * len(paths), tuple(range(len(paths))))


def grey16(top: int) -> np.ndarray:
    return np.full((4, 4), top, np.uint16)


def test_guessed_whites_must_agree(tmp_path):
    train, val = images(tmp_path / "train", grey16(900), grey16(4097)), images(tmp_path / "val", grey16(4000))
    assert different_whites(train, val) == (
        "White in images of 16-bit values is 16,383 in data.train.0 (guessed), but 4,095 in data.val (guessed), so the "
        "network would see them at different exposures. Set white = 16383, or the value that is right, in data.train.0 "
        "and data.val; if their images differ in bit depth, set the white of each."
    )
    assert different_whites(train, None) == ""
    assert different_whites(train, images(tmp_path / "alike", grey16(9000))) == ""
    eight = images(tmp_path / "eight", np.full((4, 4, 3), 200, np.uint8))
    floats = images(tmp_path / "floats", np.full((4, 4), 0.5, np.float32))
    assert different_whites(train, eight) == different_whites(train, floats) == ""


def test_a_white_that_is_set_is_compared_with_one_that_is_guessed(tmp_path):
    train, val = images(tmp_path / "train", grey16(4097)), images(tmp_path / "val", grey16(4000))
    said = different_whites(replace(train, white=65535), val)
    assert "is 65,535 in data.train.0 (set), but 4,095 in data.val (guessed)" in said
    assert "Set white = 65535, " in said
    assert different_whites(train, replace(val, white=16383)) == ""
    # two cameras: both are set, so both are meant
    assert different_whites(replace(train, white=16383), replace(val, white=4095)) == ""


def test_all_parts_of_the_training_data_are_compared(tmp_path):
    deep, dark = images(tmp_path / "deep", grey16(60000)), images(tmp_path / "dark", grey16(1000))
    said = different_whites(mixed([deep, deep, dark]), None)
    assert "is 65,535 in data.train.0 (guessed), but 1,023 in data.train.2 (guessed)" in said


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """A recipe whose training images reach 4097, and those of its validation 4000."""
    tables = {}
    for part, top in (("train", 4097), ("val", 4000)):
        folder = tmp_path / part
        folder.mkdir()
        write_coco(synthetic_people(4, seed=1, size_wh=(48, 48)), folder / "labels.json", write_images=True)
        for path in folder.rglob("*.png"):
            Image.fromarray(np.full((48, 48), top, np.uint16)).save(path)
        tables[part] = {"name": "coco", "annotations": str(folder / "labels.json")}
    return Recipe.from_dict(
        {
            "name": "tiny",
            "network": {"name": "stacked_hourglass", "num_stacks": 1, "width": 16, "depth": 2},
            "codec": {"name": "heatmap"},
            "input": {"size_wh": [32, 32]},
            "data": tables,
            "train": {"epochs": 1, "batch_size": 4, "workers": 0},
            "evaluate": {"metrics": [{"name": "pck", "thresholds": [1.0]}], "flip_test": False},
        }
    )


def test_a_run_is_refused_before_its_folder_is_made(recipe, tmp_path):
    with pytest.raises(RecipeError, match=r"16,383 in data\.train\.0 \(guessed\), but 4,095 in data\.val"):
        prepare(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    tables = {"train": [recipe.data.train[0] | {"white": 16383}], "val": recipe.data.val | {"white": 16383}}
    fixed = recipe.model_copy(update={"data": recipe.data.model_copy(update=tables)})
    prepare(fixed, tmp_path / "run", device="cpu")


def test_a_run_that_has_begun_is_told(recipe, tmp_path, monkeypatch):
    """Its data cannot be changed any more."""
    with monkeypatch.context() as patch:
        patch.setattr("poseglass.runs.prepare.different_whites", lambda train, val: "")
        prepare(recipe, tmp_path / "run", device="cpu")
    run = prepare(recipe, tmp_path / "run", device="cpu", resume=True)
    assert any("16,383 in data.train.0" in note for note in run.notes)
