"""Examples and the Python of README and docs run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import poseglass as pg
from poseglass.core.image import read_image
from poseglass.estimators.load import shipped
from poseglass.readers import coco

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def run(*words: object) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_find_poses(tmp_path, synthetic_person):
    printed = run(ROOT / "examples" / "find_poses.py", synthetic_person, tmp_path / "out.png", 5, 5, 90, 110)
    assert len(printed.splitlines()) == 14
    assert read_image(tmp_path / "out.png").shape == read_image(synthetic_person).shape


@pytest.mark.slow
def test_run_onnx(tmp_path, tiny_weights, synthetic_person, monkeypatch):
    """It needs neither poseglass nor PyTorch, and prints the estimator's points."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    out = tmp_path / "tiny.onnx"
    run("-m", "poseglass", "export", tiny_weights, "--to", "onnx", "--whole-image", "--out", out)
    example = ROOT / "examples" / "run_onnx.py"
    imported = {line.split()[1] for line in example.read_text().splitlines() if line.startswith(("import", "from"))}
    assert imported == {"json", "sys", "numpy", "onnxruntime", "PIL"}
    printed = run(example, out, synthetic_person).splitlines()
    points = np.array([[float(word) for word in line.split()[1:3]] for line in printed[1:]])
    away = np.abs(points - pg.load(tiny_weights)(read_image(synthetic_person)).xy[0])
    assert np.median(away) < 0.1  # crops differ by rounding, which moves a few keypoints of an untrained network


@pytest.mark.slow
def test_measure_on_synthetic_people():
    printed = run(ROOT / "examples" / "measure_on_synthetic_people.py", 8)
    assert 0.2 < float(printed.rsplit(" ", 1)[1]) <= 1.0  # well above chance, on people it never saw


@pytest.mark.slow
def test_train_in_python(tmp_path):
    printed = run(ROOT / "examples" / "train_in_python.py", tmp_path / "run", 2)
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", printed)]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_labelme_to_coco(tmp_path, synthetic_person):
    (tmp_path / "a.jpg").write_bytes(synthetic_person.read_bytes())
    height, width = read_image(synthetic_person).shape[:2]
    shapes = [
        {"label": "nose", "shape_type": "point", "points": [[20.5, 10]], "group_id": 1},
        {"label": "left_eye-occluded", "shape_type": "point", "points": [[24, 8]], "group_id": 1},
        {"label": "person", "shape_type": "rectangle", "points": [[40, 60], [5, 4]], "group_id": 1},
        {"label": "nose", "shape_type": "point", "points": [[60, 30]], "group_id": 2},
        {"label": "right_eye", "shape_type": "point", "points": [[58, 28]], "group_id": 2},
        {"label": "hat", "shape_type": "point", "points": [[1, 1]], "group_id": 2},
    ]
    page = {"imagePath": "a.jpg", "imageWidth": width, "imageHeight": height, "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(page))
    names = ("nose", "left_eye", "right_eye")
    (tmp_path / "out").mkdir()
    printed = run(ROOT / "examples" / "labelme_to_coco.py", tmp_path, tmp_path / "out" / "mine.json", *names)
    assert printed == "1 images, 2 people; ignored: point 'hat'\n"
    dataset = coco(tmp_path / "out" / "mine.json", images=tmp_path)
    people = dataset.instances(0)
    assert people.skeleton.keypoints == names
    np.testing.assert_allclose(people.xy[0], [[20.5, 10], [24, 8], [np.nan, np.nan]])
    np.testing.assert_allclose(people.xy[1], [[60, 30], [np.nan, np.nan], [58, 28]])
    assert people.keypoint_extra["occluded"][0].tolist() == [False, True, False]
    np.testing.assert_allclose(people.box_xyxy[0, 2:] - people.box_xyxy[0, :2], [35, 56])
    assert dataset.image(0).shape == (height, width, 3)


def blocks() -> list:
    found = []
    for page in PAGES:
        text = page.read_text() if page.exists() else ""
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)):
            found.append(pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks())
def test_python_in_the_documents_runs(code, tmp_path, monkeypatch, synthetic_person):
    if '"people"' in code and "people" not in shipped():
        pytest.skip("needs the detector that ships")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "street.jpg").write_bytes(synthetic_person.read_bytes())
    Image.open(synthetic_person).save(tmp_path / "scan.tif")
    (tmp_path / "train_images").mkdir()
    Image.open(synthetic_person).save(tmp_path / "train_images" / "page.jpg")
    (tmp_path / "train.csv").write_text("image_id,labels\npage,U+306F 1 2 30 40\n")
    (tmp_path / "submission.csv").write_text("image_id,labels\npage,U+306F 16 22\n")
    code = code.replace("[40, 10, 220, 400]", "[4, 4, 90, 110]")
    exec(compile(code, "document", "exec"), {"__name__": "document"})


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text() if page.exists() else ""):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_toml_in_the_documents_is_a_recipe():
    import tomllib

    from poseglass.runs.recipe import Recipe

    rest = {
        "name": "document",
        "network": {"name": "hg2_light"},
        "codec": {"name": "heatmap"},
        "data": {"train": {"name": "synthetic", "count": 1}},
        "train": {"epochs": 1, "batch_size": 1},
    }
    whole = 0
    for page in PAGES:
        for code in re.findall(r"^```toml\n(.*?)^```", page.read_text() if page.exists() else "", re.M | re.S):
            data = tomllib.loads(code)
            Recipe.from_dict(rest | data)
            whole += rest.keys() <= data.keys()
    assert whole


def test_augmentations_in_the_documents_go_into_a_recipe(tmp_path, monkeypatch):
    import tomllib

    from poseglass.codecs import CODECS
    from poseglass.runs.build import make, make_examples, training_data
    from poseglass.runs.recipe import Recipe

    page = (ROOT / "docs" / "how-to" / "write_your_own_augmentation.md").read_text()
    (tmp_path / "mine.py").write_text(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    recipe = Recipe.from_dict(
        {
            "name": "document",
            "network": {"name": "hg2_light"},
            "codec": {"name": "heatmap"},
            "input": {"size_wh": [64, 64]},
            "data": {"train": {"name": "synthetic", "count": 2}},
            "train": {"epochs": 1, "batch_size": 2},
            **tomllib.loads(re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)[0]),
        }
    )
    codec = make(CODECS, recipe.codec, "codec")
    crops = make_examples(recipe, training_data(recipe), codec)  # the probe has tried them
    assert [type(a).__name__ for a in crops.augment] == ["RandomAffine", "LooseBox", "UpsideDown", "Fog"]
    assert crops[(0, 0, 64, 64)].size_wh == (64, 64)


def test_nothing_is_left_to_be_filled_in():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        assert "@" + "@" not in page.read_text(), page.name
