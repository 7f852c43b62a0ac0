import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from poseglass.cli.check import check
from poseglass.core.image import write_image

app = typer.Typer()
app.command()(check)


@pytest.fixture
def labels(tmp_path):
    rng = np.random.default_rng(0)
    write_image(tmp_path / "a.png", rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    write_image(tmp_path / "b.png", rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    data = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 80, "height": 60} for i, n in enumerate("ab")],
        "annotations": [
            {
                "id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": 3, "bbox": [5, 5, 50, 50],
                "area": 2500, "keypoints": [30, 10, 2, 40, 20 + i, 2, 20, 20, 2],
            }
            for i in range(2)
        ],
        "categories": [{"id": 1, "name": "bird", "keypoints": ["beak", "left_wing", "right_wing"]}],
    }  # fmt: skip
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data))
    return path


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_nothing_found_is_status_0_or_3_where_sides_could_not_be_judged(labels):
    result = run(labels)
    assert result.exit_code == 3, result.output
    assert "2 annotations in 2 images, 0 findings" in result.output
    assert "too few annotations to judge left and right with any certainty: exit" in result.output
    assert run(labels, "--ignore", "swapped-sides").exit_code == 0
    data = json.loads(labels.read_text())
    data["categories"][0]["keypoints"] = ["beak", "tail", "crest"]
    labels.write_text(json.dumps(data))
    result = run(labels)  # no sides, nothing to judge
    assert result.exit_code == 0, result.output
    assert "Neither training nor the flip test flips images" in result.output


def test_findings_are_status_1_with_page_and_csv(labels, tmp_path):
    data = json.loads(labels.read_text())
    data["annotations"][1]["keypoints"] = [1, 2, 2]
    data["annotations"][0]["num_keypoints"] = 9
    labels.write_text(json.dumps(data))
    (tmp_path / "b.png").unlink()
    result = run(labels, "--report", tmp_path / "r.html", "--csv", tmp_path / "r.csv")
    assert result.exit_code == 1
    for kind in ("wrong-k", "num-keypoints", "image-missing"):
        assert kind in result.output
        assert kind in (tmp_path / "r.csv").read_text()
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()
    ignored = run(
        labels, "--ignore", "wrong-k", "--ignore", "num-keypoints", "--ignore", "swapped-sides", "--skip-images"
    )
    assert ignored.exit_code == 0, ignored.output


def test_another_format_goes_through_its_reader(labels):
    assert run(labels, "--format", "coco", "--images", labels.parent).exit_code == 3


BAD = [
    (("none.json",), "No such label file"),
    (("labels.json", "--report", "r.txt"), r"--report must end in .html"),
    (("labels.json", "--csv", "no/where.csv"), "no folder"),
    (("labels.json", "--format", "cocoo"), "Did you mean 'coco'"),
    (("labels.json", "--flip-idx", "0,x"), "must be integers separated by commas"),
    (("labels.json", "--flip-idx", "0,2,2"), "must name each of the 3 keypoints"),
    (("labels.json", "--ignore", "wrongk"), "Unknown kind of finding"),
    (("labels.json", "--against", "labels.json", "--skip-images"), "--against compares images"),
    (("a.png",), "is a PNG image, not a JSON file of labels"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_what_cannot_be_read_is_one_sentence_and_status_2(labels, monkeypatch, words, message):
    monkeypatch.chdir(labels.parent)
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_leakage_is_found_against_another_set(labels):
    result = run(labels, "--against", labels)
    assert result.exit_code == 1
    assert "leakage" in result.output
