"""The crops of lspet: by the rule on synthetic images, and against the labels of the crops that were trained on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from poseglass.core.image import read_image, write_image
from poseglass.core.skeletons import LSP14
from poseglass.data import lspet_crops
from poseglass.data.lspet_crops import annotation, compared, crop_corners, people, write_crops
from poseglass.readers import coco


def archive(folder: Path, sizes_wh: list[tuple[int, int]], joints: np.ndarray) -> Path:
    """Write a folder as the original archive has it: joints.mat, 14 x 3 x N counting from 1, and images."""
    (folder / "images").mkdir(parents=True)
    flags = np.isfinite(joints).all(-1, keepdims=True)
    array = np.concatenate([np.nan_to_num(joints) + 1, flags], -1).astype(np.float64)
    scipy.io.savemat(folder / "joints.mat", {"joints": array.transpose(1, 2, 0)})
    for i, (width, height) in enumerate(sizes_wh):
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        image = np.stack([x % 256, y % 256, np.full_like(x, 128)], -1).astype(np.uint8)
        write_image(folder / "images" / f"im{i + 1:05d}.jpg", image)
    return folder


def body(low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    """Return 14 joints that fill a box from corner to corner."""
    return np.linspace(low, high, 14)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    joints = np.stack([
        body((100.25, 60.5), (180.75, 160.5)),  # 100 high: a square of 150 inside the image
        body((20.0, 30.0), (60.0, 130.0)),  # beside the left border
        body((50.0, 40.0), (90.0, 260.0)),  # 330 px: scaled
    ])  # fmt: skip
    joints[0, 3] = np.nan
    return archive(tmp_path / "lspet", [(300, 240), (200, 220), (500, 400)], joints)


def test_crops_follow_the_rule(three: Path, tmp_path: Path) -> None:
    documents = write_crops(three, tmp_path / "out", {"train": [1, 3], "val": [2]})
    assert [(i["id"], i["width"], i["height"]) for i in documents["train"]["images"]] == [(1, 151, 151), (3, 191, 256)]
    assert [(i["file_name"], i["width"], i["height"]) for i in documents["val"]["images"]] == [
        ("im00002.jpg", 115, 150)
    ]
    first = documents["train"]["annotations"][0]
    # the middle of the joints is 140.5, 110.5 and the crop begins at 65, 35
    assert first["keypoints"][:3] == [35.25, 25.5, 2]
    assert first["keypoints"][9:12] == [0, 0, 0]
    assert first["num_keypoints"] == 13
    assert first["bbox"] == [25.25, 15.5, 100.5, 120.0]
    assert first["area"] == pytest.approx(0.53 * 100.5 * 120, abs=0.06)
    # the image shows what the labels say: red is x and green is y of the original
    data = coco(tmp_path / "out" / "train.json")
    assert data.skeleton.keypoints == LSP14.keypoints
    np.testing.assert_allclose(data.image(0)[80, 80], [65 + 80, 35 + 80, 128], atol=6)
    assert read_image(tmp_path / "out" / "images" / "im00002.jpg").shape == (150, 115, 3)
    scaled = documents["train"]["annotations"][1]["keypoints"]
    assert np.ptp(scaled[1::3]) == pytest.approx(220 * 256 / 315, abs=0.02)


def test_what_is_no_original_set_is_refused(three: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match=r"there exists already\. Choose a new folder"):
        write_crops(three, tmp_path / "there", {"train": [1]})
    with pytest.raises(ValueError, match=r"joints.mat has 3 people \(lspet\); expected .* \(at least 9 people\)"):
        write_crops(three, tmp_path / "out", {"train": [1, 9]})
    with pytest.raises(ValueError, match=r"have a size of 220 pixels; expected about 119.* HR-LSPET"):
        write_crops(three, tmp_path / "out", {"train": [3]})
    (three / "images" / "im00002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images are not in .*images, first im00002\.jpg"):
        write_crops(three, tmp_path / "out", {"train": [1, 2]})
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(sys, "argv", ["lspet_crops", str(three), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        lspet_crops.main()
    assert ended.value.code == 2
    assert "expected those of the Leeds Sports Pose Extended set, 14 x 3 x 10000" in capsys.readouterr().err


def test_the_command_says_what_it_made(three: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(lspet_crops, "people", lambda: {"train": [1, 2], "val": [2]})
    monkeypatch.setattr(sys, "argv", ["lspet_crops", str(three), "--out", str(tmp_path / "out")])
    lspet_crops.main()
    train, val = capsys.readouterr().out.splitlines()
    assert train.startswith("train: 2 people, 27 joints, crops of 133.00 x 150.50 px on average: NOT as in the set")
    assert val.startswith("val: 1 people")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "train.json", "val.json"]


def test_who_is_in_which_set() -> None:
    sets = people()
    assert {name: len(numbers) for name, numbers in sets.items()} == {"train": 7517, "val": 500}
    assert not set(sets["train"]) & set(sets["val"])
    assert all(
        numbers == sorted(set(numbers)) and numbers[0] >= 1 and numbers[-1] <= 10000 for numbers in sets.values()
    )


def test_a_list_of_people_that_cannot_be_read(tmp_path: Path) -> None:
    for text, words in (("1 2\n", "line 1: .* after .name., got '1'"), ("[a]\n1 b\n", "line 2: .*got 'b'")):
        (tmp_path / "people.txt").write_text(text)
        with pytest.raises(ValueError, match=words):
            people(tmp_path / "people.txt")
    (tmp_path / "people.txt").write_text("# who\n[a]\n1-3 7\n[b]\n9\n")
    assert people(tmp_path / "people.txt") == {"a": [1, 2, 3, 7], "b": [9]}


def test_a_rebuilt_set_is_held_against_the_first() -> None:
    alike = {
        "images": [{"width": 165, "height": 166.6}, {"width": 165.1, "height": 166.6}],
        "annotations": [{"num_keypoints": 6333}],
    }
    assert "as in the set used for training" in compared("val", alike)
    assert "NOT" not in compared("val", alike)
    other = alike | {"annotations": [{"num_keypoints": 6332}]}
    assert "NOT as in the set used for training (6,333 joints, 165.05 x 166.63 px)" in compared("val", other)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["train", "val"])
def test_the_rule_gives_the_crops_that_were_trained_on(name: str, shared: Path) -> None:
    """Each crop is put into an original it may be from, and cut again: size, labels, box and area are those there are.

    A side that is nearer to the middle than the rule has it was left off at the border, so the original ends there.
    """
    document = json.loads((shared / "data" / "lspet" / f"{name}.json").read_text())
    assert [image["id"] for image in document["images"]] == people()[name]
    width, height = (np.mean([image[side] for image in document["images"]]) for side in ("width", "height"))
    assert (width, height) == pytest.approx(lspet_crops.EXPECTED[name][:2], abs=1e-3)
    assert "NOT" not in compared(name, document)
    certain = 0
    for image, then in zip(document["images"], document["annotations"], strict=True):
        size = np.array([image["width"], image["height"]])
        flat = np.array(then["keypoints"], dtype=float).reshape(14, 3)
        xy = np.where(flat[:, 2:] > 0, flat[:, :2], np.nan)
        known = xy[flat[:, 2] > 0]
        low, high = known.min(0), known.max(0)
        middle, half = (low + high) / 2, 0.75 * (high - low).max()
        begin, end = middle - half, middle + half
        corner = np.where(begin < -0.02, 0, 1000)  # of the crop in the original
        original = np.where(end > size + 0.02, corner + size, 3000)
        # labels have two decimals, so a corner that near to a whole pixel may be on either side of it
        if min(np.abs(begin - np.round(begin)).min(), np.abs(end - np.round(end)).min()) > 0.02:
            certain += 1
            left, top, right, bottom = crop_corners(known + corner, (int(original[0]), int(original[1])))
            assert (left, top) == tuple(corner), image
            assert (right - left, bottom - top) == tuple(size), image
        ours = annotation(xy, (image["width"], image["height"]), image["id"])
        np.testing.assert_allclose(ours.pop("bbox"), then["bbox"], atol=0.0151)
        assert ours.pop("area") == pytest.approx(then["area"], abs=0.8)
        assert ours == {key: value for key, value in then.items() if key not in ("bbox", "area")}
    assert certain > 0.8 * len(document["images"])


@pytest.mark.shared
def test_a_crop_is_written_as_those_were(three: Path, tmp_path: Path, shared: Path) -> None:
    write_crops(three, tmp_path / "out", {"val": [1]})
    with (
        Image.open(tmp_path / "out/images/im00001.jpg") as ours,
        Image.open(shared / "data/lspet/images/im00001.jpg") as theirs,
    ):
        assert ours.quantization == theirs.quantization
        assert ours.layer == theirs.layer  # the chroma's sampling
