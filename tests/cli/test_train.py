import importlib
import io
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from poseglass.cli import main
from poseglass.cli.train import train_with_bar
from poseglass.estimators.load import load
from poseglass.estimators.weights_file import read_weights
from poseglass.readers import write_coco
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe
from poseglass.synthetic import synthetic_people


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(8, seed=1, size_wh=(48, 48)), folder / "train.json", write_images=True)
    path = folder / "tiny.toml"
    path.write_text(f"""
name = "tiny"
network = {{ name = "stacked_hourglass", num_stacks = 1, width = 16, depth = 2 }}
codec = {{ name = "heatmap" }}
input = {{ size_wh = [32, 32] }}
[data]
train = {{ name = "coco", annotations = "{folder / "train.json"}" }}
val = {{ name = "coco", annotations = "{folder / "train.json"}" }}
[train]
epochs = 2
batch_size = 4
workers = 0
[evaluate]
metrics = [{{ name = "pck" }}]
flip_test = false
""")
    return path


@pytest.fixture
def poseglass(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.mark.slow
def test_a_run_from_start_to_report(poseglass, recipe, tmp_path):
    pytest.importorskip("tensorboard")
    status, out, err = poseglass("train", recipe, "--tensorboard", "--device", "cpu")
    assert (status, err) == (0, "")
    folder = tmp_path / "runs" / "tiny"
    assert {p.name for p in folder.iterdir()} == {
        "recipe.toml", "environment.json", "curve.csv", "checkpoint.pt", "best.safetensors", "last.safetensors",
        "report.html", "run.lock", "tensorboard",
    }  # fmt: skip
    assert "tiny: 8 people" in out
    assert re.search(r"epoch 2/2  loss \S+  lr \S+ .* pck@0\.2 \d", out)
    assert re.search(r"best weights on the validation set: pck@0\.2 \d\.\d{4}", out)
    assert "done: report, curve, weights and checkpoint are in runs/tiny" in out
    page = (folder / "report.html").read_text()
    for words in (
        "Results per joint",
        "Kinds of error",
        "Best and worst",
        "epochs = 2",
        "The best weights were also selected on",
    ):
        assert words in page
    assert sum(p.stat().st_size for p in (folder / "tensorboard").iterdir()) > 500

    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    status, out, err = poseglass("train", "--resume", "--run", folder)
    assert status == 0
    assert "is finished: 4 of 4 steps. Its report is" in out
    after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert {n for n in before if before[n] != after[n]} <= {"run.lock", "curve.csv"}

    status, out, err = poseglass("train", recipe)
    assert status == 2
    assert "The run folder runs/tiny is not empty. Resume its run with --resume, or name another with --run." in err

    status, out, err = poseglass("train", recipe, "--resume", "--set", "train.epochs=5")
    assert status == 2
    assert "was started with train.epochs = 2, not 5. Its end can be changed until step 0, where the" in err
    assert "and 4 steps are done. Resume without that change, or start a new run with --set train.init_from=" in err

    (folder / "report.html").unlink()
    status, out, err = poseglass("train", recipe, "--resume", "--set", "train.workers=1")
    assert status == 0
    assert (folder / "report.html").read_text() == page.replace("workers = 0", "workers = 1")


@pytest.mark.slow
def test_on_a_terminal_a_bar_is_drawn(recipe, tmp_path):
    words = io.StringIO()
    train_with_bar(
        prepare(Recipe.read(recipe), tmp_path / "run", device="cpu"),
        Console(file=words, force_terminal=True, width=200),
    )
    bar = next(line for line in words.getvalue().splitlines() if "4/4" in line and "training" in line)
    assert re.search(r"loss \S+ +lr ", re.sub(r"\x1b\[[\d;?]*\w", "", bar))


@pytest.mark.slow
def test_a_run_that_stops_early_says_so(poseglass, recipe, tmp_path):
    """Nothing comes within a billionth of a torso: every epoch is as good as the first."""
    more = ["--set", "train.stop_after=2", "--set", "train.epochs=9"]
    more += ["--set", 'evaluate.metrics=[{name="pck", thresholds=[1e-9]}]']
    status, out, err = poseglass("train", recipe, *more, "--device", "cpu")
    assert (status, err) == (0, "")
    words = (
        "Training stopped early, after epoch 3 of 9: no new best pck@1e-09 in 2 evaluations (train.stop_after); the "
    )
    assert words in out
    assert words in (tmp_path / "runs" / "tiny" / "report.html").read_text()
    status, out, err = poseglass("train", "--resume", "--run", tmp_path / "runs" / "tiny")
    assert (status, err) == (0, "")
    assert "is finished: 6 of 18 steps. Training stopped early, after epoch 3 of 9" in out
    assert "the best was in epoch 1. Its report is" in out


def test_print_shows_every_value_as_a_recipe(poseglass, recipe, tmp_path):
    status, out, _ = poseglass("train", recipe, "--print", "--set", "train.optimizer.lr=0.5")
    assert status == 0
    shown = tomllib.loads(out)
    assert shown["train"]["optimizer"]["lr"] == 0.5
    assert shown["train"]["checkpoint_seconds"] == 120.0
    assert not (tmp_path / "runs").exists()
    (tmp_path / "again.toml").write_text(out)
    assert poseglass("train", tmp_path / "again.toml", "--print")[1] == out


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--set", "train.batch_size=8"), ("--set", "data.cache_gb=1")])
def test_check_makes_steps_and_keeps_nothing(poseglass, recipe, tmp_path, monkeypatch, more):
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path / "cache"))
    status, out, err = poseglass("train", recipe, "--check", *more)
    assert (status, err) == (0, "")
    assert re.search(
        r"checked: a step takes \d+\.\d\d s at 32 x 32 px, an epoch \d+ s, the run \d+ s, without evaluation", out
    )
    assert list(tmp_path.iterdir()) == []
    assert poseglass("train", recipe)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    status, out, err = poseglass("train", recipe, "--check")
    assert (status, err) == (0, "")
    assert "note: runs/tiny already holds a run" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before


def test_check_looks_at_the_data(poseglass, recipe, tmp_path):
    _, out, _ = poseglass("train", recipe, "--check")
    assert "warning: 8 of 8 images of data.val are the same files as images of data.train" in out
    labels = json.loads((recipe.parent / "train.json").read_text())
    write_coco(synthetic_people(8, seed=1, size_wh=(48, 48)), tmp_path / "copy.json", write_images=True)
    for image in labels["images"]:
        image["width"] = 96
    (tmp_path / "wide.json").write_text(json.dumps(labels))
    _, out, _ = poseglass("train", recipe, "--check", "--set", f"data.val.annotations={tmp_path / 'copy.json'}")
    assert "8 of 8 images of data.val have the same content under another name" in out
    wide = ("--set", f"data.train.annotations={tmp_path / 'wide.json'}", "--set", f"data.train.images={recipe.parent}")
    status, _, err = poseglass("train", recipe, "--check", *wide)
    assert status == 2
    assert "is 48 x 48 pixels, the labels 'wide' declare 96 x 48" in err
    status, _, err = poseglass("train", recipe, "--check", "--set", f"data.train.images={tmp_path / 'none'}")
    assert status == 2
    assert "No such image" in err


@pytest.mark.slow
def test_a_run_says_what_is_to_be_known_of_its_data(poseglass, recipe, tmp_path):
    labels = json.loads((recipe.parent / "train.json").read_text())
    names = labels["categories"][0]["keypoints"]
    labels["categories"][0]["keypoints"] = [f"p{i}" for i in range(len(names))]
    labels["categories"][0].pop("flip_pairs", None)
    for annotation in labels["annotations"]:
        annotation["keypoints"][:3] = [0, 0, 0]
    (tmp_path / "plain.json").write_text(json.dumps(labels))
    data = [f"data.{part}.{key}" for part in ("train", "val") for key in ("annotations", "images")]
    values = [tmp_path / "plain.json", recipe.parent] * 2
    options = [word for key, value in zip(data, values, strict=True) for word in ("--set", f"{key}={value}")]
    measured = 'evaluate.metrics=[{ name = "pck", normaliser = "box_diagonal" }]'
    status, out, err = poseglass("train", recipe, *options, "--set", "evaluate.flip_test=true", "--set", measured)
    assert (status, err) == (0, "")
    assert out.count("Neither training nor the flip test flips images: no two of the names differ") == 1
    assert out.count("are labelled in no image, so they are neither trained nor evaluated: p0.") == 1
    status, out, _ = poseglass("evaluate", tmp_path / "plain.json", "--images", recipe.parent, "--weights", "runs/tiny")
    assert status == 0
    assert "no flip test, as no two of the names differ by left and right" in out
    assert "labelled in no image" in out


@pytest.mark.slow
def test_resuming_without_a_checkpoint_is_said(poseglass, recipe, tmp_path):
    assert poseglass("train", recipe)[0] == 0
    (tmp_path / "runs/tiny/checkpoint.pt").unlink()
    for file in ("last.safetensors", "best.safetensors", "report.html"):
        (tmp_path / "runs/tiny" / file).unlink()
    status, out, _ = poseglass("train", recipe, "--resume")
    assert status == 0
    assert "There is no checkpoint in runs/tiny: the run starts from the beginning." in out


def test_check_tells_of_a_warm_up_that_is_most_of_the_run(poseglass, recipe):
    _, out, _ = poseglass("train", recipe, "--check", "--set", "train.schedule.warmup_steps=3")
    assert "note: train.schedule.warmup_steps is 3 of the run's 4 steps." in out
    assert "note" not in poseglass("train", recipe, "--check", "--set", "train.schedule.warmup_steps=1")[1]


def test_check_tries_every_size_of_crops(poseglass, recipe):
    words = ("train", recipe, "--check", "--set", "train.sizes=[{ epoch = 1, size_wh = [64, 48] }]")
    status, out, _ = poseglass(*words)
    assert status == 0
    assert re.search(r"a step takes [\d.]+ s at 32 x 32 px and [\d.]+ s at 64 x 48 px, an epoch \d+ s to \d+ s", out)


@pytest.mark.slow
def test_a_simcc_head_has_the_size_of_the_input(poseglass, recipe, tmp_path):
    network = '{ name = "simple_baseline_light", head = { name = "simcc" } }'
    changes = (
        f"network={network}",
        'codec={ name = "simcc" }',
        'loss=[{ name = "softmax_cross_entropy" }]',
        "input.size_wh=[32, 64]",
    )
    words = ("train", recipe, "--set", "train.epochs=1", *(w for change in changes for w in ("--set", change)))
    status, _, err = poseglass(*words)
    assert (status, err) == (0, "")
    _, card = read_weights(tmp_path / "runs/tiny/last.safetensors")
    assert card.network["head"] == {"name": "simcc", "size_wh": [32, 64]}
    # a run's folder stands for its best weights
    assert load(tmp_path / "runs/tiny").input.size_wh == (32, 64)
    (tmp_path / "runs/tiny/best.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"without best\.safetensors.* Use one of its files: last\.safetensors"):
        load(tmp_path / "runs/tiny")
    with pytest.raises(FileNotFoundError, match=r"It contains no \.safetensors"):
        load(tmp_path / "runs")


def test_a_shape_that_bfloat16_gets_wrong_is_trained_in_float32_and_said(poseglass, recipe, monkeypatch):
    monkeypatch.setattr("poseglass.core.precision.narrow_convolution_fault", lambda device: True)
    words = ("train", recipe, "--check", "--set", "train.precision=bfloat16")
    status, out, _ = poseglass(*words, "--set", 'network={ name = "simple_baseline_light" }')
    assert status == 0
    assert "float32 instead of bfloat16: at 32 x 32 px" in out
    assert "instead of" not in poseglass(*words)[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "train needs a recipe file, or --resume --run FOLDER"),
        (["none.toml"], "No such recipe: none.toml"),
        (["RECIPE", "--set", "train.epoch=3"], "unknown key 'train.epoch'. Did you mean 'epochs'?"),
        (["RECIPE", "--set", "train.epochs"], "--set must be KEY=VALUE"),
        (["RECIPE", "--set", "network.widht=8"], "network 'stacked_hourglass' takes no 'widht'. Did you mean 'width'?"),
        (["RECIPE", "--set", "network.name=stacked_hourglas"], "Did you mean 'stacked_hourglass'?"),
        (["RECIPE", "--set", "network.num_keypoints=3"], "network.num_keypoints is 3, but the data's skeleton"),
        (["RECIPE", "--set", "data.train.annotations=none.json"], "none.json"),
        (["RECIPE", "--set", "codec.stride=8"], "Set codec.stride to 4."),
        (["RECIPE", "--set", "input.size_wh=[40, 40]"], "input.size_wh or train.sizes: Input of 40 x 40 pixels"),
        (["RECIPE", "--check", "--set", "train.batch_size=9"], "there are only 8 people. Set it to at most 8."),
        (["RECIPE", "--check", "--resume"], "--check is only for a new run; omit --resume"),
        (["RECIPE", "--set", 'augment=["flip"]'], "augment.0 must be a table, got 'flip'; write { name = \"flip\" }"),
        (["RECIPE", "--set", "network=hg2"], 'network must be a table, got \'hg2\'; write network = { name = "hg2" }'),
        (["RECIPE", "--set", "train.batch_size=9"], "there are only 8 people. Set it to at most 8."),
        (
            ["RECIPE", "--set", "loss=mse"],
            'loss must be a list of tables, got \'mse\'; write loss = [{ name = "mse" }].',
        ),
        (["RECIPE", "--set", "loss=[{ name = 'mes' }]"], "loss.0.name: Unknown loss 'mes'. Did you mean 'mse'?"),
        (["RECIPE", "--set", "evaluate.monitor=pck@0.1"], "evaluate.monitor is 'pck@0.1', but no metric computes"),
        (["RECIPE", "--set", 'evaluate.metrics=[{name="pckh", excluded=[]}]'], "have no extra['head_px']"),
        (["RECIPE", "--device", "gpu"], "device must be auto, cpu, cuda, cuda:0, ..., got 'gpu'"),
        (["RECIPE", "--device", "cuda:77"], "is not available"),
        (["--resume", "--run", "nowhere"], "nowhere holds no run to resume"),
        (["RECIPE", "--run", "RECIPE/run"], "cannot be created: Not a directory"),
    ],
)  # fmt: skip
def test_each_mistake_gets_one_sentence_and_leaves_nothing(poseglass, recipe, tmp_path, words, sentence):
    status, _, err = poseglass("train", *(w.replace("RECIPE", str(recipe)) for w in words))
    assert status == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert err.startswith("poseglass: ")
    assert list(tmp_path.iterdir()) == []


def test_stopped_before_anything_was_kept(poseglass, recipe, monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("poseglass.cli.train"), "prepare", stopped)
    status, _, err = poseglass("train", recipe)
    assert status == 130
    assert err == "poseglass: stopped before the first step was complete; nothing is kept.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_terminal_a_line_tells_that_it_goes_on(poseglass, recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.import_module("poseglass.cli.train"), "TELL_SECONDS", 0.0)
    status, out, _ = poseglass("train", recipe)
    assert status == 0
    assert "step 1 of 4  loss" in out


def test_a_missing_extra_is_named_with_its_command(poseglass, recipe, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    status, _, err = poseglass("train", recipe, "--tensorboard")
    assert status == 2
    assert "pip install 'poseglass[tensorboard]'" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(poseglass, recipe, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    status, _, err = poseglass("train", recipe, "--run", "closed/run")
    assert status == 2
    assert "The run folder closed/run cannot be made: Permission denied. Name another with --run." in err


def test_train_and_look_take_the_folder_of_data(poseglass, recipe, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(recipe.read_text().replace(f"{recipe.parent}/", "data/"))
    status, _, err = poseglass("train", mine, "--check")
    assert status == 2
    assert "data.train.0 of the recipe: No such label file: data/train.json" in err
    assert "--data FOLDER sets the folder that the recipe calls data/" in err
    assert poseglass("train", mine, "--data", recipe.parent, "--check", "--device", "cpu")[0] == 0
    assert poseglass("look", mine, "--data", recipe.parent)[0] == 0
    status, out, _ = poseglass("train", mine, "--data", recipe.parent, "--print")
    assert f'"{recipe.parent}/train.json"' in out
    status, _, err = poseglass("look", recipe.parent / "train.json", "--data", recipe.parent)
    assert status == 2
    assert "--data is only for a recipe" in err
    status, _, err = poseglass("train", "--resume", "--run", "runs/tiny", "--data", recipe.parent)
    assert status == 2
    assert "keeps the paths of its recipe; omit --data" in err
