"""``evaluate --protocol`` and ``predict --boxes`` as they are typed."""

import json
import sys

import numpy as np
import pytest
import torch
from scipy.io import savemat

from poseglass import cli
from poseglass.core.card import WeightCard
from poseglass.core.image import write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeletons import COCO17
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import StackedHourglass
from poseglass.readers.coco_write import write_coco
from poseglass.readers.labelled import LabelledImages


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def street(tmp_path):
    """Weights of COCO's keypoints, two images with a labelled person each, and four boxes that were found there."""
    torch.manual_seed(0)
    network = StackedHourglass(17, num_stacks=1, width=16, depth=2)
    table = {"name": "stacked_hourglass", "num_keypoints": 17, "num_stacks": 1, "width": 16, "depth": 2}
    card = WeightCard("tiny", table, {"name": "heatmap", "alignment": "corner"}, COCO17, InputSpec((64, 64), 1.25))
    save_weights(tmp_path / "tiny.safetensors", network.state_dict(), card)
    rng = np.random.default_rng(0)
    paths = (tmp_path / "000000000007.png", tmp_path / "000000000012.png")
    for path in paths:
        write_image(path, rng.integers(0, 255, (80, 100, 3), np.uint8))
    people = Instances.from_keypoints(COCO17, rng.uniform(10, 70, (1, 17, 2)), extra={"area": np.array([2000.0])})
    data = LabelledImages("street", COCO17, paths, (people, people), (7, 12), np.array([[100, 80]] * 2))
    write_coco(data, tmp_path / "street.json")
    record = {"category_id": 1, "bbox": [10, 10, 50, 60]}
    found = [record | {"image_id": i, "score": s} for i, s in ((7, 0.9), (7, 0.8), (12, 0.7), (12, 0.2))]
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path


def test_evaluate_states_the_convention(monkeypatch, street, capsys):
    words = ("evaluate", street / "street.json", "--weights", street / "tiny.safetensors", "--protocol", "coco")
    assert run(monkeypatch, *words, "--json", street / "true.json") == 0
    assert (
        "protocol coco: ground-truth boxes, clipped to the image and a pixel smaller, x1.25, edges"
        in capsys.readouterr().out
    )
    more = ("--detections", street / "found.json", "--no-flip-test", "--set", "protocol.nms=none")
    assert run(monkeypatch, *words, *more, "--json", street / "results.json") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("protocol"))
    assert "boxes from found.json (score >= 0), as given" in line
    assert "no flip test; score: box score x mean of joints above 0.2; no NMS" in line
    kept = json.loads((street / "results.json").read_text())
    assert kept["protocol"] == line
    assert list(kept["results"])[:3] == ["AP", "AP50", "AP75"]


RECIPE = """
name = "street"
loss = [{ name = "mse" }]
network = { name = "stacked_hourglass", num_stacks = 1, width = 16, depth = 2 }
codec = { name = "heatmap", alignment = "corner" }
input = { size_wh = [64, 64] }
data = { train = { name = "coco", annotations = "street.json" }, val = { name = "coco", annotations = "street.json" } }
train = { epochs = 1, batch_size = 2, workers = 0, precision = "float32" }
evaluate = { protocol = { name = "coco", nms = "none" }, monitor = "AP" }
"""


@pytest.mark.slow
def test_a_recipe_names_the_protocol(monkeypatch, street, capsys):
    monkeypatch.chdir(street)
    (street / "street.toml").write_text(RECIPE)
    assert run(monkeypatch, "train", "street.toml", "--set", "evaluate.protocol.detections=found.json") == 0
    assert "best weights on the validation set: AP" in capsys.readouterr().out
    page = (street / "runs/street/report.html").read_text()
    assert "boxes from found.json" in page
    assert "images and curves from the boxes of the annotations" in page
    # evaluated as monitored, from the truth of whatever data are given
    weights = ("--weights", "runs/street/best.safetensors")
    assert run(monkeypatch, "evaluate", "street.json", *weights, "--report", "report.html") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("protocol"))
    assert "ground-truth boxes" in line
    assert "no NMS" in line
    assert line in (street / "report.html").read_text()
    assert run(monkeypatch, "evaluate", "street.json", *weights, "--metric", "oks_ap") == 0
    assert "protocol" not in capsys.readouterr().out


@pytest.mark.slow
def test_weights_selected_by_a_protocol_on_other_labels(monkeypatch, street, capsys):
    monkeypatch.chdir(street)
    (street / "street.toml").write_text(RECIPE)
    assert run(monkeypatch, "train", "street.toml") == 0
    other = json.loads((street / "street.json").read_text())
    other["categories"][0]["keypoints"][0] = "beard"
    (street / "other.json").write_text(json.dumps(other))
    assert run(monkeypatch, "evaluate", "other.json", "--weights", "runs/street/best.safetensors") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "do not predict beard" in said
    assert "selected by protocol coco; for another metric, use --metric pck" in said


@pytest.mark.slow
def test_the_recipes_flip_test_is_kept(monkeypatch, street, capsys):
    monkeypatch.chdir(street)
    (street / "street.toml").write_text(RECIPE)
    assert run(monkeypatch, "train", "street.toml", "--set", "evaluate.flip_test=false") == 0
    assert "no flip test; score" in (street / "runs/street/report.html").read_text()
    words = ("evaluate", "street.json", "--weights", "runs/street")
    for more, expected in (((), "no flip test"), (("--flip-test",), "flip test, flipped maps moved right")):
        capsys.readouterr()
        assert run(monkeypatch, *words, *more) == 0
        assert f"; {expected}" in capsys.readouterr().out
    assert run(monkeypatch, *words, "--metric", "pck") == 0  # asked for by hand: as ever


@pytest.mark.slow
def test_a_recipe_follows_mpiis_protocol(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    records = []
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(2):
        write_image(tmp_path / f"images/{i}.png", rng.integers(0, 255, (200, 200, 3), np.uint8))
        joints = rng.uniform(40, 160, (16, 2)).tolist()
        records.append(
            {"image": f"{i}.png", "center": [100, 100], "scale": 0.8, "joints": joints, "joints_vis": [1] * 16}
        )
    (tmp_path / "valid.json").write_text(json.dumps(records))
    heads = np.array([[[60.0, 40.0], [100.0, 80.0]]] * 2).transpose(1, 2, 0)
    truth = np.array([record["joints"] for record in records]).transpose(1, 2, 0) + 1  # MATLAB counts from 1
    savemat(tmp_path / "heads.mat", {"headboxes_src": heads, "pos_gt_src": truth})
    data = '{ name = "mpii", annotations = "valid.json", images = "images", head_boxes = "heads.mat" }'
    changes = (f"data.train={data}", f"data.val={data}", 'evaluate={ protocol = { name = "mpii", add_one = false } }')
    (tmp_path / "mpii.toml").write_text(RECIPE)
    assert run(monkeypatch, "train", "mpii.toml", *(w for change in changes for w in ("--set", change))) == 0
    assert "best weights on the validation set: pckh@0.5" in capsys.readouterr().out
    page = (tmp_path / "runs/street/report.html").read_text()
    assert "nothing added to predictions" in page
    words = ("--format", "mpii", "--set", "data.images=images", "--set", "data.head_boxes=heads.mat")
    assert run(monkeypatch, "evaluate", "valid.json", "--weights", "runs/street", *words) == 0
    assert "protocol mpii: boxes from centre and scale" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate.protocol.nms=sotf",), "takes 'hard' or 'soft' or 'none', got 'sotf'. Did you mean 'soft'?"),
        (("evaluate.protocol.name=cooc",), "Unknown protocol 'cooc'. Did you mean 'coco'?"),
        (("evaluate.protocol={}",), "evaluate.protocol needs a name"),
        (('evaluate.metrics=[{ name = "pck" }]',), "give protocol or metrics, not both"),
        (("evaluate.protocol.detections=gone.json",), "No such label file"),
        (("evaluate.protocol.min_box_score=0.95", "evaluate.protocol.detections=found.json"), "has an input box"),
        (("evaluate.monitor=AR50", "evaluate.protocol.name=mpii", "evaluate.protocol.nms=1"), "takes no 'nms'"),
        (("evaluate.monitor=pck",), "evaluate.monitor is 'pck', but no metric computes it"),
        (
            ("stage_occluded=[true, true]",),
            "stage_occluded must have one entry or one per stage of the network (1), got 2",
        ),
        (("stage_occluded=[false]",), "no keypoint is marked as occluded"),
    ],
)
def test_a_protocol_is_checked_before_training(monkeypatch, street, capsys, words, message):
    monkeypatch.chdir(street)
    (street / "street.toml").write_text(RECIPE)
    assert run(monkeypatch, "train", "street.toml", *(w for word in words for w in ("--set", word))) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (street / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--detections", "found.json"), "--detections is only for --protocol coco"),
        (("--protocol", "coco", "--metric", "pck"), "--protocol defines its own metric"),
        (("--protocol", "cooc"), "Unknown protocol 'cooc'. Did you mean 'coco'?"),
        (("--protocol", "coco", "--set", "protocol.mns=soft"), "takes no 'mns'. Did you mean 'nms'?"),
        (("--protocol", "coco", "--set", "protocol.name=mpii"), "the name is set by --protocol"),
        (("--protocol", "coco", "--set", "protocol.nms=sotf"), "nms must be 'hard' or 'soft' or 'none'"),
        (("--protocol", "coco", "--detections", "gone.json"), "No such label file"),
        (("--protocol", "mpii"), "is not MPII JSON"),
    ],
)
def test_evaluate_says_what_does_not_go_together(monkeypatch, street, capsys, words, message):
    monkeypatch.chdir(street)
    assert run(monkeypatch, "evaluate", "street.json", "--weights", "tiny.safetensors", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_predict_takes_a_detectors_boxes(monkeypatch, street):
    words = ("--weights", street / "tiny.safetensors", "--boxes", street / "found.json", "--out", street / "out")
    images = (street / "000000000007.png", street / "000000000012.png")
    assert run(monkeypatch, "predict", *images, *words) == 0
    poses = json.loads((street / "out/poses.json").read_text())
    assert [pose["image_id"] for pose in poses] == [7, 7, 12]  # as their names say; 0.2 is below --min-box-score
    assert poses[0]["bbox"] == [10, 10, 50, 60]
    # what predict writes can be read again: its records name their images
    again = (*words[:2], "--boxes", street / "out/poses.json", "--min-box-score", "0", "--out", street / "more")
    assert run(monkeypatch, "predict", images[1], *again) == 0
    assert [pose["image_id"] for pose in json.loads((street / "more/poses.json").read_text())] == [12]


def test_predict_says_where_no_box_was_left(monkeypatch, street, capsys):
    words = ("--weights", street / "tiny.safetensors", "--boxes", street / "found.json", "--out", street / "out")
    images = (street / "000000000007.png", street / "000000000012.png")
    assert run(monkeypatch, "predict", *images, *words, "--min-box-score", "0.85") == 0
    said = capsys.readouterr().out
    assert "no box with a score of at least 0.85 for 1 of 2 images" in said
    assert "3 of 4 boxes of the given images have a score below 0.85" in said
    assert run(monkeypatch, "predict", *images, *words, "--min-box-score", "0.1") == 0
    assert "no box with a score" not in capsys.readouterr().out


def test_predict_gives_no_boxes_to_two_images(monkeypatch, street, capsys):
    words = ("--weights", street / "tiny.safetensors", "--boxes", street / "found.json", "--out", street / "out")
    (street / "more").mkdir()
    copy = street / "more" / "7.png"
    copy.write_bytes((street / "000000000007.png").read_bytes())
    assert run(monkeypatch, "predict", street / "000000000007.png", copy, *words) == 2
    assert "the boxes of 7 match both" in " ".join(capsys.readouterr().err.split())


def test_a_least_score_of_boxes_wants_boxes(monkeypatch, street, capsys):
    words = ("--weights", street / "tiny.safetensors", "--min-box-score", "0.3", "--out", street / "out")
    assert run(monkeypatch, "predict", street / "000000000007.png", *words) == 2
    assert "--min-box-score requires --boxes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "none of the 4 boxes belongs to the given images"),
        (("--box", "0,0,9,9"), "--box and --boxes both give boxes"),
    ],
)
def test_predict_boxes_of_other_images(monkeypatch, street, synthetic_person, capsys, more, message):
    words = ("--weights", street / "tiny.safetensors", "--boxes", street / "found.json", "--out", street / "out", *more)
    assert run(monkeypatch, "predict", synthetic_person, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
