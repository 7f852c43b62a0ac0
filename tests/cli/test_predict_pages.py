"""`predict` on pages: characters beside their boxes, the file of a submission, and the order of reading."""

import importlib
import json
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import poseglass as pg
from poseglass import cli
from poseglass.cli.write_poses import characters_of
from poseglass.core.fonts import code_points, find_font, font_with
from poseglass.core.image import write_image
from poseglass.core.instances import Instances
from poseglass.core.reading_order import reading_order
from poseglass.core.skeletons import BOXES
from poseglass.drawing.characters import BOX_RGB, INK_RGB, draw_characters
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import NETWORKS
from poseglass.readers.kuzushiji import read_submission
from poseglass.synthetic.pages import pages

LATIN = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
CLASSES = ("U+0041", "U+0042", "U+0043")


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def weights(path: Path) -> Path:
    """Write weights of a small network that finds characters everywhere."""
    torch.manual_seed(0)
    table = {
        "name": "composed", "num_keypoints": 0, "backbone": {"name": "mobilenet_v3_small"},
        "neck": {"name": "unet", "width": 8},
        "head": {"name": "centernet", "num_classes": 3, "features": 4, "width": 8},
    }  # fmt: skip
    network = pg.build(NETWORKS, table["name"], **{key: value for key, value in table.items() if key != "name"})
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["head.outputs.center.last.bias"] += 4.0
    state["head.outputs.size.last.bias"] += 4.0
    codec = {"name": "centernet", "poses": False, "features": 4, "most": 40}
    save_weights(path, state, pg.WeightCard("letters", table, codec, BOXES, pg.InputSpec((128, 128)), classes=CLASSES))
    return path


def test_pages_are_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    data = pages(2, fonts=[str(LATIN)], characters="ABC", size_wh=(128, 128), size_px=(16, 20))
    for number in range(2):
        write_image(tmp_path / "in" / f"page{number}.png", data.image(number))
    words = ("predict", tmp_path / "in", "--weights", weights(tmp_path / "w.safetensors"), "--detector-score", "0.1")
    assert run(monkeypatch, *words, "--out", tmp_path / "out", "--reading-order") == 0
    assert "submission.csv, code points with the middles of their boxes" in capsys.readouterr().out
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    found = read_submission(tmp_path / "out" / "submission.csv", CLASSES)
    assert list(found) == ["page0", "page1"]
    assert sum(map(len, found.values())) == len(poses) > 20
    assert {pose["category"] for pose in poses} <= set(CLASSES)
    first = np.array([pose["bbox"] for pose in poses if pose["file_name"].endswith("page0.png")])
    box = np.concatenate([first[:, :2], first[:, :2] + first[:, 2:]], 1)
    follows = np.diff(reading_order(box)) == 1  # nearly all: the file rounds boxes, and so equal ones may change places
    assert follows.mean() > 0.7
    drawn = np.asarray(Image.open(tmp_path / "out" / "page0.png"))
    assert (drawn == BOX_RGB).all(-1).any()


def test_pages_of_one_name_keep_their_characters(tmp_path, monkeypatch, capsys):
    data = pages(3, fonts=[str(LATIN)], characters="ABC", size_wh=(128, 128), size_px=(16, 20))
    files = [tmp_path / "in" / name for name in ("a/p.png", "b/p.png", "b/q.png")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_image(file, data.image(number))
    words = ("predict", *files, "--weights", weights(tmp_path / "w.safetensors"), "--detector-score", "0.1")
    assert run(monkeypatch, *words, "--out", tmp_path / "out", "--no-images") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "submission.csv: 2 images share their name with another image, but a page has one row: " in said
    assert f"{files[0]}, {files[1]}. Their rows have these paths instead" in said
    found = read_submission(tmp_path / "out" / "submission.csv", CLASSES)
    assert list(found) == [str(files[0]), str(files[1]), "q"]
    assert sum(map(len, found.values())) == len(json.loads((tmp_path / "out" / "poses.json").read_text()))


def reader(path: Path) -> Path:
    """Write weights that tell the class of a box."""
    torch.manual_seed(0)
    table = {
        "name": "composed", "num_keypoints": 0, "backbone": {"name": "mobilenet_v3_small"},
        "neck": {"name": "level", "level": -1}, "head": {"name": "box_class", "num_classes": 3},
    }  # fmt: skip
    network = pg.build(NETWORKS, table["name"], **{key: value for key, value in table.items() if key != "name"})
    card = pg.WeightCard("reader", table, {"name": "box_class"}, BOXES, pg.InputSpec((32, 32)), classes=CLASSES)
    save_weights(path, network.state_dict(), card)
    return path


def test_found_characters_are_read_by_a_second_network(tmp_path, monkeypatch, capsys):
    page = pages(1, fonts=[str(LATIN)], characters="ABC", size_wh=(128, 128), size_px=(16, 20))
    write_image(tmp_path / "page.png", page.image(0))
    first, second = weights(tmp_path / "first.safetensors"), reader(tmp_path / "second.safetensors")
    words = ("predict", tmp_path / "page.png", "--weights", second)
    assert run(monkeypatch, *words, "--detector", first, "--detector-score", "0.1", "--out", tmp_path / "out") == 0
    assert "These weights tell the class of what a box shows" in capsys.readouterr().out
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert len(poses) > 10
    estimator = pg.load(str(second))
    image = pg.read_image(tmp_path / "page.png")
    box = np.array([pose["bbox"] for pose in poses])
    box[:, 2:] += box[:, :2]
    told = estimator(image, box).label
    assert np.mean([CLASSES[label] == pose["category"] for label, pose in zip(told, poses, strict=True)]) > 0.9
    assert len(read_submission(tmp_path / "out" / "submission.csv", CLASSES)["page"]) == len(poses)
    assert run(monkeypatch, *words, "--box", "20,20,40,40", "--out", tmp_path / "given") == 0
    [only] = json.loads((tmp_path / "given" / "poses.json").read_text())
    assert only["category"] in CLASSES


def test_people_are_not_read(tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    assert run(monkeypatch, "predict", tmp_path / "a.png", "--out", tmp_path / "out", "--reading-order") == 2
    assert "--reading-order sorts what is read on a page, but hg2-light-lspet has keypoints" in capsys.readouterr().err


def test_only_code_points_are_characters():
    assert characters_of(("U+306F", "U+20B9F")) == ("は", "𠮟")
    assert characters_of(("person", "U+306F")) == characters_of(()) == ()


def test_characters_stand_beside_their_boxes():
    image = np.full((60, 80, 3), 255, np.uint8)
    one = Instances(BOXES, np.zeros((1, 0, 2)), np.zeros((1, 0)), np.array([[10, 10, 30, 40]]), np.ones(1))
    drawn = draw_characters(image, one, ["A"], LATIN)
    red = (np.abs(drawn.astype(int) - INK_RGB).sum(-1) < 60).any(0).nonzero()[0]
    assert red.min() >= 30
    assert red.max() < 60
    assert (image == 255).all()
    without = draw_characters(image, one, ["A"], None)
    assert (without == BOX_RGB).all(-1).any()
    assert not (np.abs(without.astype(int) - INK_RGB).sum(-1) < 60).any()
    with pytest.raises(ValueError, match="There are 1 instances and 2 characters"):
        draw_characters(image, one, ["A", "B"], LATIN)


def test_fonts(tmp_path):
    assert find_font(LATIN) == LATIN
    assert find_font("no such font.ttf") is None
    assert {ord("A"), ord("é")} <= code_points(LATIN)
    (tmp_path / "bad.ttf").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad.ttf cannot be read as a font"):
        code_points(tmp_path / "bad.ttf")
    best = font_with("ABC")
    assert best is None or {65, 66, 67} <= code_points(best)


def test_views_of_a_large_image_are_counted(tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "large.png", np.zeros((300, 400, 3), np.uint8))
    first, second = weights(tmp_path / "first.safetensors"), reader(tmp_path / "second.safetensors")
    module = importlib.import_module("poseglass.cli.write_poses")
    monkeypatch.setattr(module, "TELL_SECONDS", 0.0)
    alone, both = ("--weights", first), ("--weights", second, "--detector", first)
    for many, words in ((2, alone), (2, both), (1000, alone)):
        monkeypatch.setattr(module, "MANY_VIEWS", many)
        folder = tmp_path / f"{many}-{len(words)}"
        assert run(monkeypatch, "predict", tmp_path / "large.png", *words, "--chips", "--out", folder) == 0
        told = re.findall(r"(\d+) of (\d+) views of an image", capsys.readouterr().out)
        assert bool(told) == (many == 2)
        assert all(int(done) < int(total) for done, total in told)
