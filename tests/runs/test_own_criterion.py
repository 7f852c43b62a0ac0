"""A recipe may name a criterion of one's own in the place of its losses."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from poseglass.codecs import CodecSpec, HeatmapCodec, Output
from poseglass.core.prediction import Decoded, Prediction, Stages
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import ModelInput, Targets
from poseglass.estimators.weights_file import read_weights
from poseglass.losses.heatmap import mean_squared_error
from poseglass.networks import StackedHourglass
from poseglass.readers import write_coco
from poseglass.runs.build import make_criterion
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import synthetic_people

pytestmark = pytest.mark.usefixtures("plain_reports")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(8, seed=1, size_wh=(48, 48)), folder / "train.json", write_images=True)
    return folder / "train.json"


class Distillation(nn.Module):
    """The labels, and what a teacher makes of the same images."""

    def __init__(self, *, width: int, weight: float = 1.0) -> None:
        super().__init__()
        self.teacher = StackedHourglass(14, num_stacks=1, width=width, depth=2).eval().requires_grad_(False)
        self.weight = weight

    def forward(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        told = self.teacher(batch.images)[-1]["heatmap"]
        maps = stages[-1]["heatmap"]
        return {
            "heatmap/0": mean_squared_error(maps, targets["heatmap"], targets["weight"]),
            "teacher/0": self.weight * (maps - told).square().mean(),
        }


def number(value: float = 3.0) -> float:
    return value


def recipe(data: Path, *overrides: str) -> Recipe:
    table = {"name": "coco", "annotations": str(data)}
    return Recipe.from_dict(
        {
            "name": "tiny",
            "network": {"name": "stacked_hourglass", "num_stacks": 1, "width": 16, "depth": 2},
            "codec": {"name": "heatmap"},
            "criterion": {"name": f"{__name__}:Distillation", "width": 8, "weight": 0.5},
            "input": {"size_wh": [32, 32]},
            "data": {"train": table},
            "train": {"epochs": 2, "batch_size": 4, "workers": 0},
        },
        overrides=overrides,
        trust_code=True,
    )


def test_a_run_by_a_criterion_of_ones_own(data, tmp_path):
    run = prepare(recipe(data, "train.precision=float32"), tmp_path / "run", device="cpu")
    run.train()
    row = run.loop.progress.rows[-1]
    assert row["loss"] == pytest.approx(row["heatmap/0"] + row["teacher/0"])
    assert row["teacher/0"] > 0
    assert not any("teacher" in name for name in run.loop.network.state_dict())
    stored = run.folder.stored_recipe()
    assert stored == run.recipe
    assert (stored.loss, stored.criterion) == (None, recipe(data).criterion)
    assert (
        f'criterion = {{ name = "{__name__}:Distillation", width = 8, weight = 0.5 }}'
        in read_weights(run.folder.last)[1].recipe
    )
    with pytest.raises(RecipeError, match=r"was started with criterion\.weight = 0\.5, not 2\.0"):
        prepare(recipe(data, "criterion.weight=2.0"), tmp_path / "run", resume=True)


def test_a_criterion_that_will_not_do(data):
    with pytest.raises(
        RecipeError, match=r"criterion\.widht: criterion '.*:Distillation' takes no 'widht'\. Did you mean 'w"
    ):
        recipe(data, "criterion.widht=3")
    with pytest.raises(
        RecipeError,
        match=r"criterion\.width is missing: .* A recipe names a class or function that makes the criterion",
    ):
        recipe(data, f'criterion={{ name = "{__name__}:Distillation" }}')
    with pytest.raises(RecipeError, match=r"a criterion replaces the loss; omit loss"):
        recipe(data, 'loss=[{ name = "mse" }]')
    made = recipe(data, f'criterion={{ name = "{__name__}:number" }}')
    with pytest.raises(RecipeError, match=r"criterion '.*:number' makes a float; expected a callable that takes"):
        make_criterion(made, HeatmapCodec(), torch.device("cpu"))


class Centers:
    """A map of centres, in a family of several classes, and at each pixel the way to the keypoints."""

    spec = CodecSpec({"center": Output(("C", "h", "w"), "sigmoid"), "joints": Output(("K", 2, "h", "w"))}, stride=4)

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        center = (targets.box_xyxy[..., :2] + targets.box_xyxy[..., 2:]) / 8
        side = torch.tensor([size_wh[0] // 4, size_wh[1] // 4])
        return {"center": center.long().clamp_min(0).minimum(side - 1), "joints": targets.xy / 4}

    def decode(self, prediction: Prediction) -> Decoded:
        way = prediction["joints"].mean((-1, -2))
        return Decoded.one_instance(way, torch.ones(way.shape[:2]))

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        return prediction


class CenterNet(nn.Module):
    """A toy that gives three classes of centres."""

    def __init__(self, num_keypoints: int, classes: int = 3) -> None:
        super().__init__()
        self.center, self.joints = (nn.Conv2d(3, n, 4, stride=4) for n in (classes, 2 * num_keypoints))

    def forward(self, images: Tensor) -> Stages:
        return [{"center": self.center(images), "joints": self.joints(images).unflatten(1, (-1, 2))}]


def centers(stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
    rows = torch.arange(len(batch.images))[:, None]
    x, y = targets["center"].unbind(-1)
    ways = stages[0]["joints"].permute(0, 3, 4, 1, 2)[rows, y, x]
    return {
        "center/0": -stages[0]["center"][rows, batch.targets.label, y, x].sigmoid().log().mean(),
        "joints/0": 0.01 * ((ways - targets["joints"]).abs().sum(-1) * batch.targets.known).mean(),
    }


def make_centers():
    return centers


def test_network_codec_and_criterion_of_ones_own_go_together(data, tmp_path):
    """What is checked before training asks the codec how its outputs look: the first one is not of keypoints."""
    own = [f'{part}={{ name = "{__name__}:{name}" }}' for part, name in
           (("network", "CenterNet"), ("codec", "Centers"), ("criterion", "make_centers"))]  # fmt: skip
    run = prepare(recipe(data, *own, "train.optimizer.lr=0.01", "train.epochs=4"), tmp_path / "run", device="cpu")
    run.train()
    first, last = run.loop.progress.rows[0], run.loop.progress.rows[-1]
    assert last["center/0"] < first["center/0"]
    assert last["joints/0"] < first["joints/0"]
    with pytest.raises(
        RecipeError, match=r"maps are \(8, 8\) .*, but the codec's are \(4, 4\)\. Set codec\.stride to 4"
    ):
        prepare(recipe(data, *own, f'codec={{ name = "{__name__}:Coarse" }}'), tmp_path / "other")


class Coarse(Centers):
    spec = CodecSpec(Centers.spec.outputs, stride=8)
