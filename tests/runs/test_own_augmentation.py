"""Augmentations of one's own, from a recipe to a step; wrong ones are refused before anything is written."""

import sys
from pathlib import Path
from typing import Any

import pytest

from poseglass.cli import main
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError

pytestmark = pytest.mark.usefixtures("plain_reports")

MINE = '''
from dataclasses import dataclass, replace

import numpy as np

from poseglass.core.affine import Affine


@dataclass
class Tilt:
    degrees: float = 10.0

    def __call__(self, sample, rng):
        return sample.warped(Affine.about((15.5, 15.5), degrees=rng.uniform(-self.degrees, self.degrees)))


class Flip:
    """In the old style."""

    def __call__(self, image, rng):
        return image[:, ::-1]


class FlipPixels:
    def __call__(self, sample, rng):
        return replace(sample, image=sample.image[:, ::-1]) if rng.random() < 0.1 else sample


class FlipPlaces:
    def __call__(self, sample, rng):
        return replace(sample, instances=sample.instances.moved(Affine.flip(sample.size_wh[0])))


class FlipWithoutSides:
    def __call__(self, sample, rng):
        width, xy = sample.size_wh[0], sample.instances.xy.copy()
        xy[..., 0] = width - 1 - xy[..., 0]
        return replace(sample, image=sample.image[:, ::-1], instances=replace(sample.instances, xy=xy))


class Alone:
    def __call__(self, sample, rng):
        return replace(sample, instances=sample.instances[:0])


class Smaller:
    def __call__(self, sample, rng):
        return sample.warped(Affine.about((-0.5, -0.5), scale=0.5), (16, 16))


class FlipColours:
    def repaint(self, image, rng):
        return np.ascontiguousarray(image[:, ::-1])


class Nothing:
    pass


def flip(sample, rng):
    return sample.flipped()
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of one's own that can be imported."""
    (tmp_path / "my_augmentation.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_augmentation", raising=False)
    return "my_augmentation"


def recipe(*augment: dict[str, Any]) -> Recipe:
    return Recipe.from_dict(
        {
            "name": "tiny",
            "network": {"name": "stacked_hourglass", "num_stacks": 1, "width": 16, "depth": 2},
            "codec": {"name": "heatmap"},
            "input": {"size_wh": [32, 32]},
            "augment": list(augment),
            "data": {"train": {"name": "synthetic", "count": 4, "size_wh": [48, 48]}},
            "train": {"epochs": 1, "batch_size": 4, "workers": 0},
        }
    )


@pytest.mark.slow
def test_one_s_own_transform_trains(module: str, tmp_path: Path) -> None:
    run = prepare(
        recipe({"name": f"{module}:Tilt", "degrees": 25.0}, {"name": "random_affine"}, {"name": "color_jitter"}),
        tmp_path / "run",
        device="cpu",
    )
    run.train()
    assert run.loop.progress.step == 1
    tilt = next(a for a in run.examples.augment if type(a).__name__ == "Tilt")
    assert tilt.degrees == 25.0  # type: ignore[attr-defined]


REFUSED = [
    ("Flip", r"fails on a sample of 32 x 32 pixels \(TypeError: .*is called with a PoseSample and a NumPy Generator"),
    ("FlipPixels", "moves the image and leaves the keypoints where they were: the pixels of"),
    ("FlipPlaces", "moves the keypoints and leaves the image as it was: the pixels of"),
    ("FlipWithoutSides", "flips the image and does not swap left and right: the pixels of"),
    ("Alone", "must keep the number of instances, 1, got 0"),
    (
        "Smaller",
        "must keep the size of the image, 32 x 32 pixels, because a batch holds views of one size; got 16 x 16",
    ),
    ("FlipColours", "is a Photometric and moves pixels: a spot at"),
    ("Nothing", "must have one of three methods: .*Its Nothing has none of them"),
    ("flip", r"is a function of a sample or an image; .*Write a class with the method __call__\(self, sample, rng\)"),
]


@pytest.mark.parametrize(("name", "message"), REFUSED)
def test_wrong_ones_are_refused_before_anything_is_written(
    module: str, tmp_path: Path, name: str, message: str
) -> None:
    wrong = recipe({"name": "color_jitter"}, {"name": f"{module}:{name}"})
    with pytest.raises(RecipeError, match=rf"^augment\[1\] '{module}:{name}' {message}"):
        prepare(wrong, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["look", "train --check"])
def test_look_and_check_refuse_them_too(
    module: str, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(recipe({"name": f"{module}:FlipPixels"}).to_toml())
    monkeypatch.chdir(tmp_path)
    verb, *options = command.split()
    monkeypatch.setattr(sys, "argv", ["poseglass", verb, str(file), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code
    said = " ".join(capsys.readouterr().err.split())
    assert f"augment[0] '{module}:FlipPixels' moves the image and leaves the keypoints where they were" in said
    assert {p.name for p in tmp_path.iterdir()} <= {"my_augmentation.py", "tiny.toml", "__pycache__"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"name": "random_afine"},
            r"augment\.0\.name: Unknown transform 'random_afine'\. Did you mean 'random_affine'\?",
        ),
        ({"name": "nowhere:Flip"}, r"augment\[0\]: transform 'nowhere:Flip' cannot be imported"),
        (
            {"name": "occlusion", "probabilities": 1},
            r"augment\.0\.probabilities: transform 'occlusion' takes no 'probabilities'\. Did you mean 'pro",
        ),
    ],
)
def test_entries_that_name_nothing(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        prepare(recipe(entry), tmp_path / "run", device="cpu")


def test_two_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match="augment takes one RandomAffine: scale, rotation, shift and flip are one map"
    ):
        prepare(recipe({"name": "random_affine"}, {"name": "random_affine"}), tmp_path / "run", device="cpu")
