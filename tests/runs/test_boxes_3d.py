"""Runs that learn boxes in space: the terms fall, and what cannot be learnt is refused before training."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poseglass.core.box_3d import lift
from poseglass.core.view import View
from poseglass.estimators.load import load_detector
from poseglass.readers import write_coco
from poseglass.runs.negatives import check_negatives, find_negatives, proposing_recipe
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import streets

pytestmark = pytest.mark.usefixtures("plain_reports")


def tiny(*overrides: str, **changes: Any) -> Recipe:
    network = {
        "name": "composed", "backbone": {"name": "mobilenet_v3_small"}, "neck": {"name": "unet", "width": 8},
        "head": {"name": "centernet", "width": 8, "boxes_3d": True, "middles_3d": True},
    }  # fmt: skip
    table = {
        "name": "tiny", "network": network,
        "codec": {"name": "centernet", "poses": False, "boxes_3d": True, "middles_3d": True, "focal_px": 130.0},
        "criterion": {"name": "centernet"}, "input": {"size_wh": [192, 64]},
        "augment": [{"name": "random_affine", "degrees": 0.0, "scale": [0.9, 1.1]}],
        "data": {"train": {"name": "streets", "count": 8}, "val": {"name": "streets", "count": 2, "seed": 1}},
        "train": {"epochs": 2, "batch_size": 4, "workers": 0, "optimizer": {"name": "adamw", "lr": 0.003}},
        "evaluate": {
            "metrics": [{"name": "kitti_ap", "least_height_px": [16, 10, 10]}, {"name": "box_ap"}],
            "monitor": "AP40_3d_moderate", "flip_test": False,
        },
    }  # fmt: skip
    return Recipe.from_dict(table | changes, overrides=overrides)


@pytest.mark.slow
def test_a_run_learns_and_its_weights_find_boxes_in_space(tmp_path: Path) -> None:
    run = prepare(tiny("train.epochs=12", "train.batch_size=2"), tmp_path / "run", device="cpu")
    run.train()
    rows = list(csv.DictReader((tmp_path / "run" / "curve.csv").read_text().splitlines()))
    assert {"depth", "dimensions", "rotation", "middle_3d", "val/yaw_15"} <= set(rows[0])
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    data = streets(1)
    finder = load_detector(str(tmp_path / "run"), min_box_score=0.0)
    image = data.image(0)
    view = View.letterbox((image.shape[1], image.shape[0]), finder.input.size_wh)
    observed = finder.program(torch.from_numpy(view.read(image)[None])).observed_3d
    assert observed is not None
    assert observed.shape == (1, 100, 8)
    assert np.isfinite(lift(observed[0].numpy(), data.projection(0))).all()


def test_a_run_starts_from_weights_with_other_bins_of_headings(tmp_path: Path) -> None:
    prepare(tiny("train.epochs=1"), tmp_path / "old", device="cpu").train()
    start = f"train.init_from={tmp_path / 'old' / 'last.safetensors'}"
    bins = ("codec.heading_bins=6", "network.head.heading_bins=6")
    run = prepare(tiny(start, "train.epochs=1", *bins), tmp_path / "new", device="cpu")
    assert "all of its other weights. The weights predict headings in 2 bins, the network in 6: the last" in run.note
    old = load_detector(str(tmp_path / "old" / "last.safetensors")).network.state_dict()
    new = run.loop.network.state_dict()
    differing = {key for key in old if old[key].shape != new[key].shape or not torch.equal(old[key], new[key])}
    assert differing == {"head.outputs.rotation.last.weight", "head.outputs.rotation.last.bias"}
    run.train()
    assert load_detector(str(tmp_path / "new")).program.codec.heading_bins == 6


def test_negative_chips_are_found_with_the_calibration_of_each_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips = {"scales": [{"scale": 1.0}], "stride": 32, "negatives": {"epochs": 1, "at_least": 1, "min_score": 1e-4}}
    data = {"train": {"name": "streets", "count": 4}, "chips": chips}
    recipe = tiny("train.batch_size=2", data=data, evaluate={})
    first = prepare(proposing_recipe(recipe), tmp_path / "first", device="cpu")
    check_negatives(first)
    dict(first.loop.network.named_parameters())["head.outputs.size.last.bias"].data += 6.0  # boxes that are not tiny
    said = find_negatives(recipe, first, tmp_path / "pool.json")
    assert "proposals, are kept in" in said
    monkeypatch.setattr(type(first.examples.dataset), "projection", lambda _dataset, _index: None)
    with pytest.raises(RecipeError, match=r"the camera is calibrated: .* false, or they have no calibration\)"):
        check_negatives(first)


def test_labels_must_have_boxes_in_space(tmp_path: Path) -> None:
    plain = streets(4)
    write_coco(plain, tmp_path / "plain.json", write_images=True)
    table = {"name": "coco", "annotations": str(tmp_path / "plain.json"), "boxes_only": True}
    with pytest.raises(
        RecipeError, match=r"the training data have no boxes in space with the calibration of each image"
    ):
        prepare(tiny(data={"train": table}, evaluate={}), tmp_path / "run", device="cpu")


def test_validation_data_must_have_calibrations(tmp_path: Path) -> None:
    write_coco(streets(2), tmp_path / "plain.json", write_images=True)
    table = {"name": "coco", "annotations": str(tmp_path / "plain.json"), "boxes_only": True}
    data = {"train": {"name": "streets", "count": 4}, "val": table}
    metrics = {"metrics": [{"name": "box_ap"}], "flip_test": False}
    with pytest.raises(ValueError, match=r"these data have none for .*Evaluate on data that have them, such as kitti"):
        prepare(tiny(data=data, evaluate=metrics), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(("override", "says"), [
    ("augment.0.degrees=5.0", r"augment\[0\] turns views by up to 5 degrees"),
    ("network.head.boxes_3d=false", r"middles_3d=True, which is of boxes in space, but boxes_3d=False"),
    ("network.head.middles_3d=false", r"Set network.head.middles_3d = true"),
    ("codec.heading_bins=12", r"predicts headings in 2 bins, but the codec reads 12. Set codec.heading_bins and"),
])  # fmt: skip
def test_what_cannot_be_learnt_is_refused(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prepare(tiny(override), tmp_path / "run", device="cpu")


def test_views_of_several_sizes_need_one_focal_length(tmp_path: Path) -> None:
    sizes = "train.sizes=[{ epoch = 1, size_wh = [256, 96] }]"
    with pytest.raises(RecipeError, match=r"2 sizes \(192 x 64, 256 x 96 pixels\).*Set codec.focal_px to about that"):
        prepare(tiny(sizes, "codec.focal_px=0.0"), tmp_path / "run", device="cpu")
    prepare(tiny(sizes), tmp_path / "at_one", device="cpu")
    prepare(tiny(sizes.replace("256, 96", "192, 64"), "codec.focal_px=0.0"), tmp_path / "same", device="cpu")
