"""The commands as a user types them: files in, files, a sentence and an exit status out."""

import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.models import OptionInfo
from typer.testing import CliRunner

import poseglass as pg
from poseglass import cli
from poseglass.cli import images as images_module
from poseglass.cli import write_poses as writing
from poseglass.cli.given_boxes import image_ids
from poseglass.cli.images import unique_names
from poseglass.core.image import read_image
from poseglass.core.skeletons import COCO17
from poseglass.estimators.weights_file import read_weights, save_weights
from poseglass.evaluation.evaluate import evaluate
from poseglass.metrics import Pck
from poseglass.readers.coco_write import write_coco
from poseglass.runs.recipe import Recipe
from poseglass.synthetic.people import synthetic_people

pytestmark = pytest.mark.usefixtures("no_detector")


def run(monkeypatch, *words: str) -> int:
    """Run ``poseglass WORDS`` in this process; return the exit status."""
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def labelled(tmp_path):
    """A COCO file of four synthetic people."""
    data = synthetic_people(4, seed=1, size_wh=(96, 96))
    (tmp_path / "set" / "images").mkdir(parents=True)
    path = tmp_path / "set" / "people.json"
    from poseglass.core.image import write_image
    from poseglass.readers.labelled import LabelledImages

    files = []
    for i in range(len(data)):
        files.append(tmp_path / "set" / "images" / f"{i}.png")
        write_image(files[-1], data.image(i))
    labels = LabelledImages(
        "four", data.skeleton, tuple(files), tuple(data.instances(i) for i in range(4)), tuple(range(4)),
        np.full((4, 2), 96),
    )  # fmt: skip
    write_coco(labels, path)
    return path


def test_predict_writes_images_and_coco_results(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys):
    out = tmp_path / "out"
    words = ("predict", synthetic_person, "--weights", tiny_weights, "--out", out, "--box", "4,4,90,110", "--heatmaps")
    assert run(monkeypatch, *words) == 0
    assert read_image(out / "person.png").shape == (120, 96, 3)
    assert read_image(out / "person-heatmaps.png").size
    (record,) = json.loads((out / "poses.json").read_text())
    assert len(record["keypoints"]) == 14 * 3
    assert record["bbox"] == [4.0, 4.0, 86.0, 106.0]
    assert record["file_name"].endswith("person.png")


def test_predict_says_that_an_image_without_boxes_is_one_person(
    monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys
):
    assert run(monkeypatch, "predict", synthetic_person, "--weights", tiny_weights, "--out", tmp_path / "out") == 0
    assert "treated as one person filling it" in " ".join(capsys.readouterr().out.split())


def test_predict_says_what_looks_wrong(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys):
    other = tmp_path / "other.png"
    other.write_bytes(synthetic_person.read_bytes())
    words = ("--weights", tiny_weights, "--out", tmp_path / "out")
    assert run(monkeypatch, "predict", synthetic_person, other, *words, "--box", "48,60,1000,1000") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--box is for a single image, but 2 were given. Give one image, or boxes for each image" in said
    assert run(monkeypatch, "predict", synthetic_person, *words, "--box", "48,60,1000,1000") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Only 0% of box 1 [48.0, 60.0, 1000.0, 1000.0] lies in person (96 x 120 px)" in said
    assert run(monkeypatch, "predict", synthetic_person, *words, "--box", "0,0,96,120", "--box", "30,40,86,200") == 0
    assert "Only 50% of box 2 [30.0, 40.0, 86.0, 200.0]" in " ".join(capsys.readouterr().out.split())
    assert run(monkeypatch, "predict", synthetic_person, *words, "--box", "0,0,96,120") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lies in" not in said
    assert "imported" not in said
    # an untrained network is sure of nothing; its weights have a card like imported ones
    state, card = read_weights(tiny_weights)
    save_weights(tmp_path / "imported.safetensors", state, replace(card, certificate={"checked": False}))
    words = ("--weights", tmp_path / "imported.safetensors", "--out", tmp_path / "out")
    assert run(monkeypatch, "predict", synthetic_person, *words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "their scores are peak heights, not probabilities" in said


def test_a_refused_image_leaves_no_folder(monkeypatch, tmp_path, tiny_weights, synthetic_person):
    words = ("--weights", tiny_weights, "--out", tmp_path / "out")
    assert run(monkeypatch, "predict", synthetic_person, *words, "--box", "5,5,5,5") == 2
    assert not (tmp_path / "out").exists()


def test_what_is_printed_is_short(tiny_weights, synthetic_person):
    estimate = pg.load(tiny_weights)
    found = estimate(read_image(synthetic_person))
    for thing, words in ((estimate, "14 keypoints of"), (estimate.card, "14 keypoints of"), (found, "1 of 'lsp14'")):
        assert words in repr(thing)
        assert len(repr(thing)) < 160
    assert repr(found[:0]) == "Instances(0 of 'lsp14' (14 keypoints))"


def test_predict_a_folder_with_equal_names(monkeypatch, tmp_path, tiny_weights, synthetic_person):
    for name in ("a.png", "a.jpg"):
        Image.open(synthetic_person).convert("RGB").save(tmp_path / name)
    out = tmp_path / "out"
    assert run(monkeypatch, "predict", tmp_path, "--weights", tiny_weights, "--out", out) == 0
    assert {p.name for p in out.glob("*.png")} == {"a.png", "a-2.png"}
    assert [r["image_id"] for r in json.loads((out / "poses.json").read_text())] == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jpg", None, "No such image"),
        ("text.jpg", b"this is a text file", "not an image that can be read"),
        ("empty.png", b"", "not an image that can be read"),
    ],
    ids=["missing", "text named jpg", "empty"],
)
def test_predict_bad_images(monkeypatch, tmp_path, tiny_weights, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(monkeypatch, "predict", tmp_path / name, "--weights", tiny_weights, "--out", tmp_path / "o") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert name in error
    assert "Traceback" not in error


def test_predict_does_the_others_when_one_image_fails(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys):
    (tmp_path / "bad.png").write_bytes(synthetic_person.read_bytes()[:300])
    out = tmp_path / "out"
    words = ("predict", tmp_path / "bad.png", synthetic_person, "--weights", tiny_weights, "--out", out)
    assert run(monkeypatch, *words) == 1
    assert "bad.png is a damaged or truncated image" in " ".join(capsys.readouterr().err.split())
    assert len(json.loads((out / "poses.json").read_text())) == 1


def test_predict_never_overwrites_what_it_was_given(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys):
    mine = tmp_path / "mine.png"
    mine.write_bytes(synthetic_person.read_bytes())
    assert run(monkeypatch, "predict", mine, "--weights", tiny_weights, "--out", tmp_path) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert mine.read_bytes() == synthetic_person.read_bytes()


def test_images_named_by_numbers_keep_them():
    def ids(*names: str):
        return image_ids([Path(name) for name in names], [None] * len(names))

    numbers, notes = ids("000000000785.jpg", "a/12.png")
    assert numbers == [785, 12]
    said = "image_id in poses.json is the number in the image's name: 000000000785.jpg is 785, 12.png is 12."
    assert notes == [said]
    numbers, notes = ids("785.jpg", "a/785.png")
    assert numbers == [785, 0]  # no id twice
    assert notes[1] == "Two images would have the same image_id: a/785.png is 0, because another image has 785."
    assert ids("me.png", "0.jpg", "785.jpg", "you.png")[0] == [1, 0, 785, 2]
    assert ids("me.png", "you.png") == ([0, 1], [])


def test_ids_of_many_images_do_not_take_time_squared():
    """Names that are no numbers: each was searched for in a list of all, 900 million comparisons here."""
    paths = [Path(f"IMG_{i}.jpg") for i in range(30_000)]
    begun = time.process_time()
    numbers, _ = image_ids(paths, [None] * len(paths))
    assert time.process_time() - begun < 3  # takes 0.1 s
    assert numbers == list(range(30_000))


def test_evaluate_says_what_was_measured(monkeypatch, tmp_path, labelled, tiny_weights, capsys):
    words = ("evaluate", labelled, "--weights", tiny_weights, "--json", tmp_path / "f.json")
    assert run(monkeypatch, *words, "--threshold", "0.3", "--strict") == 0
    line = "measured: pck, normaliser torso, thresholds 0.3, comparator <; boxes from the annotations; flip test"
    assert line in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["measured"] == line


def test_names_of_outputs_are_never_shared():
    names = unique_names([Path(p) for p in ("a-2.jpg", "a.jpg", "a.png", "x-heatmaps.png", "x.png")])
    written = [f for n in names for f in (n, f"{n}-heatmaps")]
    assert len(set(written)) == 10


def test_images_where_none_are_taken(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys):
    words = ("look", synthetic_person.parent, "--format", "folder", "--images", tmp_path, "--out", tmp_path / "o.png")
    assert run(monkeypatch, *words) == 2
    assert "--images is not available for --format folder" in " ".join(capsys.readouterr().err.split())


def test_look_at_a_folder_without_labels(monkeypatch, tmp_path, synthetic_person):
    words = ("look", synthetic_person.parent, "--format", "folder", "--plain", "--out", tmp_path / "o.png")
    assert run(monkeypatch, *words) == 0


def test_joints_that_the_weights_do_not_know_do_not_count(tmp_path, tiny_weights, capsys):
    data = synthetic_people(3, seed=2, size_wh=(64, 64), skeleton=COCO17)
    result = evaluate(pg.load(tiny_weights), data, [Pck(normaliser="box_diagonal", thresholds=(2.0,))])
    assert result.table["nose"]["count"] == 0
    assert result.table["left_wrist"]["count"] > 0
    assert result.results["pck@2"] == 1.0


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1,2,3", "--box must be x0,y0,x1,y1"),
        ("9,9,2,2", "has no area"),
        ("500,500,600,600", "box 1 of 1 [500, 500, 600, 600] lies outside the image"),
        ("0.1,0.1,0.8,0.9", "fractions of the image. Boxes are in pixels; multiply x by 96 and y by 120"),
    ],
)
def test_predict_bad_boxes(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys, box, message):
    words = ("predict", synthetic_person, "--weights", tiny_weights, "--box", box, "--out", tmp_path / "o")
    assert run(monkeypatch, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_look_draws_a_sheet(monkeypatch, tmp_path, labelled, capsys):
    out = tmp_path / "sheet.png"
    assert run(monkeypatch, "look", labelled, "--out", out, "--count", 4) == 0
    assert read_image(out).shape[1] > 200
    said = " ".join(capsys.readouterr().out.split())
    assert "4 people with a label" in said
    assert "replaces" not in said
    assert run(monkeypatch, "look", "synthetic", "--out", out, "--count", 3, "--plain") == 0
    assert "which replaces the image that was there" in " ".join(capsys.readouterr().out.split())


def test_evaluate_prints_and_writes_figures(monkeypatch, tmp_path, labelled, tiny_weights, capsys):
    results = tmp_path / "results.json"
    words = ("evaluate", labelled, "--weights", tiny_weights, "--json", results)
    assert run(monkeypatch, *words) == 0
    got = json.loads(results.read_text())["results"]
    assert 0 <= got["pck@0.2"] <= 1
    assert "4 people in 4 images" in capsys.readouterr().out


def test_evaluate_sets_what_a_reader_and_a_metric_take(monkeypatch, tmp_path, labelled, tiny_weights, capsys):
    results = tmp_path / "results.json"
    words = ("evaluate", labelled, "--weights", tiny_weights, "--json", results, "--set", "pck.thresholds=[0.3]",
             "--set", "pck.mean=macro", "--set", "data.bad=drop")  # fmt: skip
    assert run(monkeypatch, *words) == 0
    got = json.loads(results.read_text())["results"]
    assert got["pck@0.3"] == got["pck@0.3/macro"]
    for override, message in (
        ("pck.treshold=[1]", r"metric 'pck' takes no 'treshold'. Did you mean 'thresholds'"),
        ("data.splitt=val", "dataset 'coco' takes no 'splitt'. Known:"),
        ("metric.thresholds=[1]", "--set must be data.KEY=VALUE or pck.KEY=VALUE; got 'metric.thresholds=[1]'"),
        ("data.annotations=b.json", "'annotations' is the given path"),
        ("data.name=mpii", "--set 'data.name=mpii': the name is set by --format."),
        ("pck.name=pckh", "the name is set by --metric."),
    ):
        assert run(monkeypatch, "evaluate", labelled, "--weights", tiny_weights, "--set", override) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_weights_are_measured_as_they_were_trained(monkeypatch, tmp_path, labelled, tiny_weights, capsys):
    """Unless something else is asked for. A skeleton without hips has no torso."""
    recipe = Recipe.from_dict(
        {
            "name": "x", "network": {"name": "hg1"}, "codec": {"name": "heatmap"},
            "data": {"train": {"name": "coco", "annotations": "a"}},
            "train": {"epochs": 1, "batch_size": 1},
            "evaluate": {"metrics": [{"name": "pck", "normaliser": "box_diagonal", "thresholds": [0.07]}]},
        }
    )  # fmt: skip
    state, card = read_weights(tiny_weights)
    theirs = tmp_path / "theirs.safetensors"
    save_weights(theirs, state, replace(card, recipe=recipe.to_toml()))
    results = tmp_path / "results.json"
    for words, name in (
        ((), "pck@0.07"),
        (("--threshold", 0.3), "pck@0.3"),
        (("--set", "pck.thresholds=[0.4]"), "pck@0.4"),
    ):
        assert run(monkeypatch, "evaluate", labelled, "--weights", theirs, "--json", results, *words) == 0
        assert name in json.loads(results.read_text())["results"]
    save_weights(theirs, state, replace(card, recipe="not = 'one of ours'"))
    assert run(monkeypatch, "evaluate", labelled, "--weights", theirs) == 0


def test_the_recipe_in_a_card_runs_no_code(monkeypatch, tmp_path, labelled, tiny_weights, capsys):
    """Neither while it is read nor as a metric."""
    (tmp_path / "trap_in_a_card.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    table = '{ name = "trap_in_a_card:thing" }'
    state, card = read_weights(tiny_weights)
    theirs = tmp_path / "theirs.safetensors"
    plain = {
        "name": "x", "network": {"name": "hg1"}, "codec": {"name": "heatmap"},
        "data": {"train": {"name": "coco", "annotations": "a"}}, "train": {"epochs": 1, "batch_size": 1},
        "evaluate": {"metrics": [{"name": "pck", "normaliser": "box_diagonal", "thresholds": [0.07]}]},
    }  # fmt: skip
    own = [f"{place}={table}" for place in ("network", "codec", "data.train", "data.val", "criterion")]
    recipe = Recipe.from_dict(plain, overrides=[*own, f"augment=[{table}]"])
    save_weights(theirs, state, replace(card, recipe=recipe.to_toml()))
    assert run(monkeypatch, "evaluate", labelled, "--weights", theirs) == 0
    assert "pck@0.07" in capsys.readouterr().out
    for measured in (f"metrics = [{table}]", f"protocol = {table}"):
        recipe = Recipe.from_dict(plain, overrides=[f"evaluate={{ {measured} }}"])
        save_weights(theirs, state, replace(card, recipe=recipe.to_toml()))
        assert run(monkeypatch, "evaluate", labelled, "--weights", theirs) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert (
            "were selected by 'trap_in_a_card:thing', which is code outside poseglass that a card may not run." in said
        )
        assert run(monkeypatch, "evaluate", labelled, "--weights", theirs, "--metric", "pck") == 0
    assert "trap_in_a_card" not in sys.modules


def test_keypoints_that_share_no_name(monkeypatch, tmp_path, labelled, tiny_weights, capsys):
    data = json.loads(labelled.read_text())
    names = data["categories"][0]["keypoints"]
    data["categories"][0]["keypoints"] = [f"p{i}" for i in range(len(names))]
    data["categories"][0]["skeleton"] = []
    labelled.write_text(json.dumps(data))
    assert run(monkeypatch, "evaluate", labelled, "--weights", tiny_weights) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "The weights predict 'lsp14' (right_ankle, right_knee" in error
    assert "no keypoint has the same name. Use weights that predict these" in error


def test_images_that_lie_elsewhere(monkeypatch, tmp_path, labelled, tiny_weights, capsys):
    (labelled.parent / "images").rename(tmp_path / "elsewhere")
    for command in (("look", labelled, "--out", tmp_path / "o.png"), ("evaluate", labelled, "--weights", tiny_weights)):
        assert run(monkeypatch, *command) == 2
        assert "set their folder: --images FOLDER, or images =" in " ".join(capsys.readouterr().err.split())


def test_where_no_image_could_be_done_there_is_the_error_alone(monkeypatch, tmp_path, tiny_weights, capsys):
    (tmp_path / "text.jpg").write_text("text")
    words = ("predict", tmp_path / "text.jpg", "--weights", tiny_weights, "--out", tmp_path / "o")
    assert run(monkeypatch, *words) == 2
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "o" / "poses.json").exists()


def test_evaluate_an_unknown_metric(monkeypatch, labelled, tiny_weights, capsys):
    assert run(monkeypatch, "evaluate", labelled, "--weights", tiny_weights, "--metric", "pkc") == 2
    assert "Did you mean 'pck'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_faster_ways_are_options_and_say_what_they_cost(
    monkeypatch, tmp_path, labelled, tiny_weights, synthetic_person, capsys, command
):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiled.append(module) or module)
    words = [command, synthetic_person if command == "predict" else labelled, "--weights", tiny_weights]
    words += ["--out", tmp_path / "out"] if command == "predict" else []
    assert run(monkeypatch, *words) == 0
    assert not compiled
    assert "Compiling" not in capsys.readouterr().err
    assert run(monkeypatch, *words, "--compile", "--bfloat16") == 0
    assert len(compiled) == 1
    assert "The network is compiled at the first crops: 3 to 90 s" in capsys.readouterr().err
    assert run(monkeypatch, command, "--help") == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "3 to 90 s" in said


def test_demo_without_training(monkeypatch, tmp_path, tiny_weights, capsys):
    words = ("demo", "--weights", tiny_weights, "--out", tmp_path / "demo", "--no-train")
    assert run(monkeypatch, *words) == 0
    written = {p.name for p in (tmp_path / "demo").iterdir()}
    assert {"poses.json", "grace_hopper.png", "surfers.png", "surfers-heatmaps.png"} <= written
    assert run(monkeypatch, *words) == 0  # again at once


def test_pack_halves_the_file_and_writes_the_card(monkeypatch, tmp_path, tiny_weights, capsys):
    out = tmp_path / "packed.safetensors"
    words = ("pack", tiny_weights, "--out", out, "--name", "packed", "--data", "synthetic people", "--terms", "any use",
             "--set", "codec.name=dark", "--set", "input.padding=1.0")  # fmt: skip
    assert run(monkeypatch, *words) == 0
    state, card = read_weights(out)
    before, _ = read_weights(tiny_weights)
    assert (card.name, card.data, card.license) == ("packed", "synthetic people", "any use")
    assert (card.codec["name"], card.codec["activation"], card.input.padding) == ("dark", "softmax", 1.0)
    assert out.stat().st_size < 0.75 * tiny_weights.stat().st_size
    assert all(torch.allclose(state[k], before[k], rtol=1e-3, atol=1e-4) for k in before)
    assert run(monkeypatch, *words) == 2
    assert "exists" in capsys.readouterr().err
    assert run(monkeypatch, "pack", tiny_weights, "--out", tmp_path / "packed.pth") == 2
    assert "--out must name a .safetensors file, got 'packed.pth'." in capsys.readouterr().err


def test_pack_takes_a_run_and_says_what_a_file_is(monkeypatch, tmp_path, tiny_weights, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "best.safetensors").write_bytes(tiny_weights.read_bytes())
    assert run(monkeypatch, "pack", folder, "--out", tmp_path / "packed.safetensors") == 0
    before, after = (read_weights(path)[0].keys() for path in (tiny_weights, tmp_path / "packed.safetensors"))
    assert before == after
    capsys.readouterr()
    best = folder / "best.safetensors"
    assert run(monkeypatch, "pack", folder, "--out", best, "--force") == 2
    assert "--out is the weights file itself" in capsys.readouterr().err
    (tmp_path / "labels.json").write_text('{"info":{"year": 2024}}')
    assert run(monkeypatch, "pack", tmp_path / "labels.json", "--out", tmp_path / "x.safetensors") == 2
    error = capsys.readouterr().err
    assert "not a safetensors file but JSON text" in error
    assert "truncated" not in error


def test_to_names_a_format_and_out_a_destination_everywhere():
    found = {"--to": set(), "--out": set()}
    functions = {
        **{name: command.load() for name, command in cli.COMMANDS.items()},
        **{c.name: c.callback for group in cli.GROUPS.values() for c in group.load().registered_commands},
    }
    for command, function in functions.items():
        for name, (kind, option) in options_of(function).items():
            for written in found.keys() & {f"--{name}", *(option.param_decls or ())}:
                found[written].add(command)
                assert (kind is Path) == (written == "--out"), f"{command} {written}"
    assert "export" in found["--to"]
    assert {"demo", "predict", "look", "import", "export", "pack"} <= found["--out"]


def options_of(function):
    """Return the type and the ``typer.Option`` of every option of a command, by the name of its parameter."""
    hints = get_type_hints(function, include_extras=True).items()
    pairs = {name: get_args(hint) for name, hint in hints if len(get_args(hint)) == 2}
    return {name: pair for name, pair in pairs.items() if isinstance(pair[1], OptionInfo)}


def test_doctor_names_versions_and_extras(monkeypatch, capsys):
    assert run(monkeypatch, "doctor", "--plain") == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"].startswith(torch.__version__)
    assert {"commit", "cpu", "trains on", "extra tensorboard", "weights"} <= set(lines)
    monkeypatch.setattr(
        importlib.import_module("poseglass.cli.doctor"), "narrow_convolution_fault", lambda device: True
    )
    assert run(monkeypatch, "doctor", "--plain") == 0
    assert "bfloat16: this processor has AMX" in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for words in ((), ("--plain",)):
        assert run(monkeypatch, "doctor", *words) == 0
        assert "pip install 'poseglass[tensorboard]'" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.slow
def test_module_and_help():
    done = subprocess.run([sys.executable, "-m", "poseglass", "--help"], capture_output=True, text=True, check=True)
    for command in cli.COMMANDS:
        assert command in done.stdout


def test_ctrl_c_while_torch_is_imported_is_quiet(tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    paths = [str(tmp_path), str(Path(pg.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths}; from poseglass_command import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "poseglass: stopped.\n")


def test_names_are_written_large_enough_to_read(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys):
    out = tmp_path / "out"
    words = (
        "predict",
        synthetic_person,
        "--weights",
        tiny_weights,
        "--box",
        "4,4,34,64",
        "--min-score",
        "0",
        "--out",
        out,
    )
    assert run(monkeypatch, *words) == 0
    assert read_image(out / "person.png").shape == (120, 96, 3)
    (small,) = json.loads((out / "poses.json").read_text())
    capsys.readouterr()
    assert run(monkeypatch, *words, "--names") == 0
    assert read_image(out / "person.png").shape == (600, 480, 3)  # the box of 60 px becomes one of 300
    assert json.loads((out / "poses.json").read_text()) == [small]  # in the image's own pixels
    assert "enlarged so that the names are readable: person 5.0 times" in " ".join(capsys.readouterr().out.split())
    far = ("predict", synthetic_person, "--weights", tiny_weights, "--box", "4,4,5,6", "--out", out, "--names")
    assert run(monkeypatch, *far) == 0
    assert max(read_image(out / "person.png").shape) <= 4000


@pytest.mark.parametrize("name", ["grace_hopper", "a_picture_whose_name_is_so_long_that_it_alone_would_fill_the_line"])
def test_the_table_of_poses_fits_80_columns(monkeypatch, tmp_path, tiny_weights, synthetic_person, capsys, name):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / f"{name}.png").write_bytes(synthetic_person.read_bytes())
    words = ("predict", tmp_path / f"{name}.png", "--weights", tiny_weights, "--out", tmp_path / "out")
    assert run(monkeypatch, *words) == 0
    table = capsys.readouterr().out.partition("found:")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table
    (row,) = [line for line in table.splitlines() if " of 14" in line]
    assert len(row.split()) == 10  # image, whole, 3 words, score, twice a keypoint with its score
    assert "_" in row.split()[0]


def test_a_folder_shares_batches_within_bounds(monkeypatch, tmp_path, tiny_weights):
    """Crops of several images go through the network together, and no more images are held than fit."""
    estimator, sizes = pg.load(tiny_weights), []

    def watched(views):
        sizes.append(len(views))
        return estimator.torch_program(views)

    shared = dataclasses.replace(estimator, program=Watched(estimator.skeleton, estimator.input, watched))
    rng = np.random.default_rng(0)
    items = [
        images_module.NamedImage(f"{i}", "", rng.integers(0, 256, (40, 50, 3), np.uint8), None, i) for i in range(5)
    ]
    assert writing.write_poses(shared, iter(items), tmp_path / "out", Console(quiet=True)) == []
    assert sizes == [5]
    together = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert [record["image_id"] for record in together] == [0, 1, 2, 3, 4]

    sizes.clear()
    monkeypatch.setattr(writing, "MOST_PIXELS", 2 * 40 * 50)
    failed = writing.write_poses(
        shared, [items[0], "b.png is no image.", *items[1:]], tmp_path / "again", Console(quiet=True)
    )
    assert failed == ["b.png is no image."]
    assert sizes == [2, 2, 1]
    assert json.loads((tmp_path / "again" / "poses.json").read_text()) == together


@dataclasses.dataclass(frozen=True)
class Watched:
    """A program that tells of each batch."""

    skeleton: pg.Skeleton
    input: pg.InputSpec
    run: Callable

    def __call__(self, views):
        return self.run(views)


def test_people_whom_a_pck_does_not_count_are_said(monkeypatch, tmp_path, tiny_weights, capsys):
    """The torso divides the error; of whom a hip is not labelled, it is not known."""
    write_coco(synthetic_people(3, seed=1, size_wh=(96, 120)), tmp_path / "people.json", write_images=True)
    document = json.loads((tmp_path / "people.json").read_text())
    names = document["categories"][0]["keypoints"]
    hip = names.index("left_hip")
    document["annotations"][0]["keypoints"][3 * hip : 3 * hip + 3] = [0, 0, 0]
    (tmp_path / "people.json").write_text(json.dumps(document))
    words = ("evaluate", tmp_path / "people.json", "--weights", tiny_weights)
    assert run(monkeypatch, *words) == 0
    out = " ".join(capsys.readouterr().out.split())
    people = len(document["annotations"])
    assert f"pck includes {people - 1} of {people} people: for the others, the length that it divides by (torso)" in out
    assert run(monkeypatch, *words, "--normaliser", "box_diagonal") == 0
    assert "pck counts" not in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "command", [(), *((name,) for name in cli.COMMANDS), ("weights",), ("weights", "list"), ("weights", "fetch")]
)
def test_help_shows_flags_without_a_value(monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(cli.whole_app(), [*command, "--help"])
    assert result.exit_code == 0, result.output
    assert "bool" not in result.output
    assert "--help" in result.output
    assert max(map(len, result.output.splitlines())) <= columns


@pytest.mark.parametrize("name", [*cli.COMMANDS, *cli.GROUPS])
def test_the_table_of_commands_says_what_their_help_says(name):
    command = (cli.COMMANDS | cli.GROUPS)[name]
    loaded = command.load()
    text = loaded.info.help if name in cli.GROUPS else inspect.getdoc(loaded)
    assert command.about == " ".join(text.split("\n\n")[0].split())


@pytest.mark.parametrize("words", [["--help"], ["no-such-command"], []])
def test_help_imports_no_pytorch(words):
    code = "import sys; from poseglass.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert ("predict" in done.stdout) == (words != ["no-such-command"])
