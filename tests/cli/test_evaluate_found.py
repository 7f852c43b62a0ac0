"""``poseglass evaluate --found`` and the training of detectors of any classes."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import poseglass as pg
from poseglass import cli
from poseglass.core.image import write_image
from poseglass.core.sample import classes_of
from poseglass.estimators import load as loading
from poseglass.estimators.weights_file import read_weights
from poseglass.readers import coco, write_coco
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic.people import synthetic_people

pytestmark = pytest.mark.usefixtures("plain_reports")


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder of a few people, and of weights that find everybody, trained for two steps."""
    path = tmp_path_factory.mktemp("found")
    write_coco(synthetic_people(8, seed=1, size_wh=(64, 64)), path / "train.json", write_images=True)
    torch.set_num_threads(1)
    prepare(one_stage(path / "train.json"), path / "run").train()
    return path


def one_stage(data: Path, *overrides: str, **of_data) -> Recipe:
    table = {"name": "coco", "annotations": str(data), **of_data}
    return Recipe.from_dict(
        {
            "name": "finder",
            "network": {"name": "centernet_light"},
            "codec": {"name": "centernet"},
            "criterion": {"name": "centernet"},
            "input": {"size_wh": [64, 64]},
            "data": {"train": table, "val": table},
            "train": {"epochs": 1, "batch_size": 4, "workers": 0},
            "evaluate": {"metrics": [{"name": "box_ap"}], "flip_test": False},
        },
        overrides=overrides,
    )


def test_given_and_found_boxes_stand_side_by_side(folder, monkeypatch, capsys):
    out = folder / "results.json"
    assert not run(
        monkeypatch, "evaluate", folder / "train.json", "--weights", "hg2-light-lspet", "--found",
        "--detector", folder / "run", "--metric", "pck", "--normaliser", "box_diagonal", "--json", out,
        "--report", folder / "page.html",
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "found by" in printed
    assert "box_ap" in printed
    assert re.search(r"given boxes.+found", printed)
    assert re.search(r"8 people in 8 images; \d found \(\d\.\d{3}\)", printed)
    results = json.loads(out.read_text())
    assert results["given"]["pck@0.2"] > 0
    assert {"pck@0.2", "box_AP", "AP"} <= set(results["found"])
    assert results["people"] == 8
    assert "found" in (folder / "page.html").read_text()


def test_weights_that_find_everybody_need_no_detector(folder, monkeypatch, capsys):
    assert not run(monkeypatch, "evaluate", folder / "train.json", "--weights", folder / "run", "--found")
    printed = capsys.readouterr().out
    assert "given boxes" not in printed
    assert "box_AP50" in printed
    assert "scales" not in printed


@pytest.mark.parametrize("words", [["--weights", "RUN"], ["--detector", "RUN"]])
def test_what_finds_people_may_look_at_several_scales(folder, monkeypatch, capsys, words):
    words = [folder / "run" if word == "RUN" else word for word in words]
    made, asked = pg.OneStageEstimator.__post_init__, []

    def noted(self) -> None:
        made(self)
        asked.append(self.scales)

    monkeypatch.setattr(pg.OneStageEstimator, "__post_init__", noted)
    assert not run(monkeypatch, "evaluate", folder / "train.json", *words, "--found", "--scales", "0.5,1")
    assert ", at the scales 0.5, 1;" in " ".join(capsys.readouterr().out.split())
    assert asked[-1] == (0.5, 1.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--weights", "RUN", "--found", "--detector", "RUN"], "find everybody themselves, so no --detector comes"),
        (["--weights", "RUN"], "find any number of instances in a whole image"),
        (["--detector", "RUN"], "--detector finds the boxes for --found. Add --found"),
        (["--scales", "0.5,1"], "--scales says how people are looked for, which only --found does. Add --found"),
        (["--found", "--protocol", "coco"], "--protocol coco prescribes the boxes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, monkeypatch, capsys, words, told):
    words = [folder / "run" if word == "RUN" else word for word in words]
    assert run(monkeypatch, "evaluate", folder / "train.json", *words) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_found_boxes_need_a_detector(folder, monkeypatch, capsys):
    monkeypatch.setattr(loading, "DEFAULT_DETECTOR", None)
    assert run(monkeypatch, "evaluate", folder / "train.json", "--found") == 2
    assert "add --detector NAME_OR_FILE" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Return labels of bright squares and dark discs, boxes alone."""
    path, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    images, annotations = [], []
    for i in range(8):
        image = rng.integers(90, 120, (64, 64, 3)).astype(np.uint8)
        for kind in (3, 7):
            x, y, side = (int(v) for v in (*rng.integers(2, 40, 2), rng.integers(10, 20)))
            image[y : y + side, x : x + side] = 220 if kind == 3 else 20
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": kind, "bbox": [x, y, side, side]}
            )
        write_image(path / f"{i}.png", image)
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
    table = {
        "images": images, "annotations": annotations,
        "categories": [{"id": 3, "name": "square"}, {"id": 7, "name": "disc"}],
    }  # fmt: skip
    (path / "shapes.json").write_text(json.dumps(table))
    return path / "shapes.json"


def test_a_detector_of_several_classes_is_trained_from_boxes_alone(shapes, tmp_path, monkeypatch, capsys):
    recipe = one_stage(shapes, 'codec={name="centernet", poses=false}', boxes_only=True)
    prepared = prepare(recipe, tmp_path / "run")
    assert prepared.network_table["num_classes"] == 2
    prepared.train()
    card = read_weights(tmp_path / "run" / "last.safetensors")[1]
    assert card.classes == ("square", "disc")
    assert not card.skeleton.keypoints
    found = pg.load_detector(tmp_path / "run" / "last.safetensors", min_box_score=0.0)(
        coco(shapes, boxes_only=True)[0].image
    )
    assert set(found.label.tolist()) <= {0, 1}
    words = ("--weights", tmp_path / "run" / "last.safetensors", "--found", "--set", "data.boxes_only=true")
    assert not run(monkeypatch, "evaluate", shapes, *words)
    assert "box_AP" in capsys.readouterr().out
    with pytest.raises(RecipeError, match=r"num_classes of the network is 1, but the data have 2 classes: square"):
        prepare(
            one_stage(shapes, 'codec={name="centernet", poses=false}', "network.num_classes=1", boxes_only=True),
            tmp_path / "other",
        )


def test_classes_are_matched_by_name(shapes):
    from poseglass.evaluation.found import evaluate_found
    from poseglass.metrics import BoxAp

    data = coco(shapes, boxes_only=True)
    assert classes_of(data) == ("square", "disc")

    class Knows:
        skeleton = data.skeleton

        def stream(self, frames, *, causal=False):
            for i, _ in enumerate(frames):
                truth = data.instances(i)
                yield dataclasses.replace(truth, label=2 - truth.label, box_score=np.ones(len(truth), np.float32))

    assert evaluate_found(Knows(), data, [BoxAp()], classes=("cat", "disc", "square")).results[
        "box_AP"
    ] == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"The weights find cat, but the labels are of square, disc: no class"):
        evaluate_found(Knows(), data, [BoxAp()], classes=("cat",))
