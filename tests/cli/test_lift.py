"""``poseglass predict --lift`` and ``train-lifter``: files in, 3D poses out, and what is said of what cannot be."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.lifting.toy_motion import toy_clips

from poseglass import cli
from poseglass.cli.journal import Journal
from poseglass.cli.lift_poses import Lifting, _on_page, write_page
from poseglass.cli.poses_file import Least, result_records
from poseglass.core.card import WeightCard
from poseglass.core.image import read_image, read_with_levels, write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.page import render_page
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import H36M17, LSP14
from poseglass.estimators.weights_file import save_weights
from poseglass.lifting import Lifter, LifterCard, lift_people, load_lifter, save_lifter
from poseglass.lifting.lifter import build_critic, build_lifter_network
from poseglass.lifting.recipe import NetworkPart
from poseglass.lifting.repnet import REPNET16
from poseglass.networks import StackedHourglass
from poseglass.readers.poses_npz import write_poses

pytestmark = pytest.mark.usefixtures("no_detector")


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "400")
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def weights(path: Path, skeleton: Skeleton) -> Path:
    """Weights with random numbers that predict a skeleton."""
    numbers = {"num_keypoints": len(skeleton), "num_stacks": 1, "width": 16, "depth": 2}
    torch.manual_seed(0)
    network = StackedHourglass(**numbers)  # type: ignore[arg-type]
    card = WeightCard(
        path.stem, {"name": "stacked_hourglass", **numbers}, {"name": "heatmap"}, skeleton,
        InputSpec((64, 64)),
    )  # fmt: skip
    save_weights(path, network.state_dict(), card)
    return path


@pytest.fixture
def files(tmp_path):
    """Two images, weights of people and of hands, and a lifter."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        write_image(tmp_path / f"{name}.png", rng.integers(0, 255, (80, 60, 3)).astype(np.uint8))
    weights(tmp_path / "people.safetensors", LSP14)
    weights(tmp_path / "hands.safetensors", Skeleton("hand", ("wrist", "thumb", "index")))
    part = NetworkPart(method="masked", width=16)
    torch.manual_seed(1)
    lifter = Lifter(LifterCard("toy", part.model_dump(), H36M17, 330.0), build_lifter_network(part, 17))
    save_lifter(tmp_path / "lifter.safetensors", lifter)
    return tmp_path


def test_lifted_poses_are_in_the_files(files, monkeypatch, capsys):
    out = files / "out"
    words = ["predict", files / "one.png", files / "two.png", "--weights", files / "people.safetensors", "--lift"]
    assert run(monkeypatch, *words, "--lifter", files / "lifter.safetensors", "--out", out, "--min-score", 0) == 0
    said = capsys.readouterr().out
    assert "lifted 2 poses to 3D with 'toy'" in said
    assert "mean size of the training people" in said
    assert "poses_3d.html" in said
    records = json.loads((out / "poses.json").read_text())
    assert len(records) == 2
    for record in records:
        assert tuple(record["keypoints_3d"]) == H36M17.keypoints
        assert record["keypoints_3d"]["pelvis"] == [0.0, 0.0, 0.0]
        assert all(value > 0 for value in record["spread_3d_mm"].values())
        assert record["lift_residual"] >= 0
    plain, beside = read_image(out / "one.png"), read_image(out / "one-3d.png")
    assert beside.shape[1] > plain.shape[1]
    assert np.array_equal(beside[: plain.shape[0], : plain.shape[1]], plain)
    page = (out / "poses_3d.html").read_text()
    assert not re.search(r"(?:src|href)=|https?://", page.split("<script>")[0])  # nothing is fetched
    data = json.loads(re.search(r"const data = (.*);\n", page).group(1))  # type: ignore[union-attr]
    assert [image["name"] for image in data["images"]] == ["one.png", "two.png"]
    assert len(data["images"][0]["people"][0]["xyz_mm"]) == 17
    assert data["images"][0]["photo"].startswith("data:image/jpeg;base64,")
    assert "Expected error" in data["images"][0]["people"][0]["trust"]
    # resumed with another lifter, the results would be of two
    assert run(monkeypatch, *words, "--lifter", files / "lifter.safetensors", "--out", out, "--resume") == 2
    assert "min-score" in capsys.readouterr().err


def test_people_with_few_keypoints_are_said(files, monkeypatch, capsys):
    words = ["predict", files / "one.png", "--weights", files / "people.safetensors", "--lift", "--min-score", "0.99"]
    assert run(monkeypatch, *words, "--lifter", files / "lifter.safetensors", "--out", files / "out") == 0
    said = capsys.readouterr().out
    assert "Not lifted: 1 with fewer than 5 keypoints of a score of at least 0.99 that 'toy' knows" in said
    (record,) = json.loads((files / "out" / "poses.json").read_text())
    assert record["keypoints_3d"] is None
    assert not (files / "out" / "one-3d.png").exists()
    assert not (files / "out" / "poses_3d.html").exists()


def people_with(probability: np.ndarray) -> Instances:
    xy = np.random.default_rng(0).uniform(0, 60, (*probability.shape, 2))
    return replace(Instances.from_keypoints(LSP14, xy), probability=probability.astype(np.float32))


def test_keypoints_of_a_low_probability_are_unknown(files):
    """With --min-probability the least score is 0, so the probability alone must tell."""
    probability = np.full((2, 14), 0.9)
    probability[0, :3], probability[1, 2:] = 0.2, 0.2
    lifting = Lifting(load_lifter(files / "lifter.safetensors"), Least(0.0, 0.5))
    people = people_with(probability)
    found = lifting.of(people)
    assert found.row.tolist() == [0]
    assert found.few == 1
    without = replace(people[[0]], xy=np.where((probability[:1] > 0.5)[..., None], people.xy[:1], np.nan))
    assert np.allclose(found.lifted.xyz_mm, lift_people(lifting.lifter, without).lifted.xyz_mm, atol=1e-3)
    assert not np.allclose(found.lifted.xyz_mm, lift_people(lifting.lifter, people).lifted.xyz_mm[:1], atol=1.0)
    lifting.add("a", [{"number": 1}, {"number": 2}], found)
    assert any("5 keypoints of a probability of at least 0.5 that 'toy' knows" in line for line in lifting.lines())


def test_the_page_draws_what_is_likely(files, monkeypatch):
    probability = np.full((1, 14), 0.9)
    probability[0, :4] = 0.2
    lifting, people = Lifting(load_lifter(files / "lifter.safetensors"), Least(0.0, 0.5)), people_with(probability)
    records = result_records(people, 1, 1, "one.png")
    lifting.add("one.png", records, lifting.of(people))
    journal = Journal(files / "journal.jsonl", {})
    entry = {"id": 1, "file_name": "one.png", "width": 60, "height": 80}
    journal.add(files / "one.png", "one", entry, records)
    drawn: list[Instances] = []

    def draw(image, people, **_):
        drawn.append(people)
        return image

    monkeypatch.setattr("poseglass.cli.lift_poses.draw", draw)
    page = {"white": None, "least": lifting.least}
    assert write_page(LSP14, lifting.lifter, journal, [files / "one.png"], files, **page).shown == 1
    journal.close(finished=False)
    assert np.isnan(drawn[0].xy[0]).any(-1).tolist() == [True] * 4 + [False] * 10


def test_people_who_are_not_drawn_beside_an_image_are_told(files):
    lifting = Lifting(load_lifter(files / "lifter.safetensors"), Least())
    xy = np.random.default_rng(0).uniform(0, 60, (10, 14, 2))
    people = Instances.from_keypoints(LSP14, xy)
    records: list[dict] = [{"number": i + 1} for i in range(10)]
    lifted = lifting.of(people)
    lifting.add("a", records, lifted)
    lifting.beside(np.zeros((80, 60, 3), np.uint8), lifted)
    said = lifting.lines()
    assert said[0].startswith("lifted 10 poses to 3D")
    assert (
        "Beside 1 image, only the first 8 people are drawn in 3D; poses.json has all, and poses_3d.html all of"
        in (said[2])
    )


def test_what_the_critic_says_is_told():
    part = NetworkPart(method="repnet", width=16, critic_width=10)
    torch.manual_seed(1)
    card = LifterCard("toy", part.model_dump(), REPNET16, 330.0)
    lifting = Lifting(Lifter(card, build_lifter_network(part, 16), build_critic(part, REPNET16)), Least())
    xy = np.random.default_rng(0).uniform(0, 60, (1, 16, 2))
    records: list[dict] = [{"number": 1}]
    lifting.add("a", records, lifting.of(Instances.from_keypoints(REPNET16, xy)))
    critic = f"{records[0]['lift_critic']:.3g}"
    assert _on_page(records[0], lifting.lifter)["trust"].endswith(
        f"from the keypoints found. The critic gives it {critic}, lower for poses like real ones."
    )
    assert any(f"The critic of 'toy' gives the poses {critic} (median over people)" in line for line in lifting.lines())


def test_the_page_tells_which_images_it_shows(files, monkeypatch, capsys):
    shutil.copy(files / "one.png", files / "three.png")
    paths = [files / f"{name}.png" for name in ("one", "two", "three")]
    words = ["predict", *paths, "--weights", files / "people.safetensors", "--lift", "--no-images", "--min-score", 0]
    words += ["--lifter", files / "lifter.safetensors"]
    assert run(monkeypatch, *words, "--out", files / "a") == 0
    assert "poses_3d.html (3D poses to turn, of 3 images)" in capsys.readouterr().out
    real = read_with_levels

    def read(file, **options):
        if file.name == "one.png":
            raise OSError("gone")
        return real(file, **options)

    monkeypatch.setattr("poseglass.cli.lift_poses.read_with_levels", read)
    assert run(monkeypatch, *words, "--out", files / "b") == 0
    said = capsys.readouterr().out
    assert "poses_3d.html (3D poses to turn, of 2 of 3 images)" in said
    assert "Not in poses_3d.html, because they are too large for it or cannot be read again: one.png." in said
    monkeypatch.setattr("poseglass.cli.lift_poses.PAGE_IMAGES", 1)
    assert run(monkeypatch, *words, "--out", files / "c") == 0
    said = capsys.readouterr().out
    assert "poses_3d.html (3D poses to turn, of the first 1 of 3 images)" in said


def test_poses_of_points_that_coincide_are_not_trusted(files):
    lifting = Lifting(load_lifter(files / "lifter.safetensors"), Least())
    records: list[dict] = [{"number": 1}]
    lifting.add("a", records, lifting.of(Instances.from_keypoints(LSP14, np.full((1, 14, 2), 7.0))))
    assert records[0]["lift_residual"] is None
    json.dumps(records, allow_nan=False)
    assert any(line.startswith("Do not trust the 3D poses of a: 1") for line in lifting.lines())
    assert "Do not trust it: all keypoints found are at one place" in _on_page(records[0], lifting.lifter)["trust"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--lifter", "lifter.safetensors"], "requires --lift. Add it, or omit --lifter"),
        (["--lift", "--lifter", "nothing"], "No lifter 'nothing'"),
        (["--lift", "--lifter", "people.safetensors"], "holds no lifter"),
        (["--lift", "--lifter", "lifter.safetensors", "--weights", "hands.safetensors"], "predicts none of them"),
        (["--weights", "lifter.safetensors"], "holds a lifter, which turns keypoints into 3D poses"),
    ],
)
def test_what_cannot_be_lifted(files, monkeypatch, capsys, words: list[str], match: str):
    monkeypatch.chdir(files)
    given = [] if "--weights" in words else ["--weights", "people.safetensors"]
    assert run(monkeypatch, "predict", "one.png", *given, *words, "--out", files / "out") == 2
    assert match in capsys.readouterr().err
    assert not (files / "out").exists()


def test_films_are_refused(files, monkeypatch, capsys):
    film = files / "film.mp4"
    film.write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(200))
    words = ["predict", film, "--weights", files / "people.safetensors", "--lift", "--out", files / "out"]
    assert run(monkeypatch, *words, "--lifter", files / "lifter.safetensors") == 2
    said = capsys.readouterr().err
    assert "film.mp4 is not an image" in said
    assert "Extract its frames as images first" in said


def test_train_lifter(files, monkeypatch, capsys):
    write_poses(files / "poses.npz", toy_clips(8))
    recipe = files / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\n[network]\nmethod = "repnet"\nwidth = 16\ncritic_width = 10\n[train]\nsteps = 4\nbatch = 8\n'
        '[split]\ntest = ["dan"]\n'
    )
    words = ["train-lifter", recipe, "--poses", files / "poses.npz", "--run", files / "run"]
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "test subjects, 64 views: pa_mpjpe" in said
    assert (files / "run" / "lifter.safetensors").is_file()
    assert run(monkeypatch, *words) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert run(monkeypatch, "train-lifter", "repne", *words[2:]) == 2
    assert "Did you mean 'repnet'?" in capsys.readouterr().err


def test_train_lifter_with_labels(files, monkeypatch, capsys):
    write_poses(files / "poses.npz", toy_clips(8))
    (files / "tiny.toml").write_text(
        'name = "tiny"\n[network]\nmethod = "repnet"\nwidth = 16\ncritic_width = 10\n[train]\nsteps = 2\nbatch = 8\n'
        '[split]\ntest = ["dan"]\n'
    )
    flat = [float(v) for k in range(14) for v in (3 * k, 40 - k, 2)]
    some = flat.copy()
    some[2] = 0.0
    people = [
        {"id": i, "image_id": 1, "category_id": 1, "keypoints": points, "bbox": [0, 0, 50, 50], "num_keypoints": 14}
        for i, points in enumerate((flat, some), 1)
    ]
    category = {"id": 1, "name": "person", "keypoints": list(LSP14.keypoints), "skeleton": []}
    images = [{"id": 1, "file_name": "one.png", "width": 60, "height": 80}]
    (files / "labels.json").write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    labels = files / "labels.json"
    words = ["train-lifter", files / "tiny.toml", "--poses", files / "poses.npz", "--labels", labels]
    assert run(monkeypatch, *words, "--run", files / "run") == 0
    assert "1 of 2 labelled people have all keypoints" in capsys.readouterr().out
    # a recipe that holds nobody out
    (files / "tiny.toml").write_text((files / "tiny.toml").read_text().partition("[split]")[0])
    assert run(monkeypatch, *words, "--run", files / "all") == 0
    assert "1 of 2 labelled people have all keypoints" in capsys.readouterr().out
    # nobody has all keypoints
    people[0]["keypoints"] = some
    labels.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    assert run(monkeypatch, *words, "--run", files / "none") == 2
    assert "Nobody in the labels has all keypoints that RepNet needs" in capsys.readouterr().err


def test_an_interrupted_training_exits_as_others_do(files, monkeypatch):
    write_poses(files / "poses.npz", toy_clips(8))
    monkeypatch.setattr("poseglass.cli.train_lifter.train_lifter", lambda *_args, **_options: None)
    assert run(monkeypatch, "train-lifter", "repnet", "--poses", files / "poses.npz", "--run", files / "run") == 130


HARNESS = """
const strokes = [], listeners = {}, elements = {};
const element = (id) => ({
  id, style: {}, dataset: {}, children: [], clientWidth: 400, width: 0, height: 0,
  add(option) { this.children.push(option); },
  replaceChildren(...all) { this.children = all; },
  setAttribute(name, value) { this[name] = value; },
  setPointerCapture() {},
  getContext: () => ({
    clearRect() { strokes.length = 0; }, beginPath() { this.path = []; },
    moveTo(x, y) { this.path.push([x, y]); }, lineTo(x, y) { this.path.push([x, y]); },
    stroke() { strokes.push([this.strokeStyle, this.path]); },
  }),
});
const views = [[0, 0], [90, 0]].map(([side, above]) => Object.assign(element("v"), { dataset: { side, above } }));
globalThis.document = {
  getElementById: (id) => (elements[id] ??= element(id)),
  createElement: element, querySelectorAll: () => views,
};
globalThis.window = globalThis;
globalThis.Option = function (text, value) { return { text, value }; };
globalThis.getComputedStyle = () => ({ getPropertyValue: () => "line" });
"""

REPORT = """
const joints = () =>
  strokes.filter(([color, path]) => color === "#123456").map(([color, path]) => path[0].map(Math.round));
const lines = [];
views[0].onclick(); lines.push(joints());
views[1].onclick(); lines.push(joints());
elements.pose.onkeydown({ key: "ArrowLeft", preventDefault() {} }); lines.push(joints());
console.log(JSON.stringify({ lines, options: elements.image.children.length, people: elements.people.children.length,
  trust: elements.trust.textContent, photo: elements.photo.src }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_draws_what_it_is_given(tmp_path):
    """The script of the page, with a canvas that notes what is drawn: a joint 400 mm to the right, 300 up, 200 away."""
    values = {
        "title": "t </script> t",
        "about": "a",
        "data": {
            "images": [
                {
                    "name": "</script><b>", "photo": "data:,",
                    "people": [
                        {"number": 3, "xyz_mm": [[400, -300, 200], [0, 0, 0]], "middle": [0, 0, 0], "trust": "so far"}
                    ],
                }
            ],
            "joints": ["#123456", "#654321"],
            "bones": [[0, 1, "#abcdef"]],
        },
    }  # fmt: skip
    page = render_page("poses_3d.html", values)
    assert page.count("<script>") == page.count("</script>") == 1
    script = page.split("<script>")[1].split("</script>")[0]
    (tmp_path / "page.js").write_text(HARNESS + script + REPORT)
    done = subprocess.run(["node", str(tmp_path / "page.js")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["options"], found["people"], found["trust"], found["photo"]) == (1, 1, "so far", "data:,")
    scale = 400 / (2 * 1.15 * 1050)
    front, side, turned = (line[0] for line in found["lines"])
    assert front == [round(200 + 400 * scale), round(200 - 300 * scale)]
    assert side == [round(200 + 200 * scale), round(200 - 300 * scale)]  # what was away is to the right
    assert turned[1] == side[1]
    assert turned[0] != side[0]
