import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from poseglass.core.image import read_image, write_image
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.data.composed_scenes import composed
from poseglass.data.cutouts import cut_out
from poseglass.data.masks import Cutouts
from poseglass.readers import coco

JOINTS = {
    "nose": (60, 24), "left_eye": (63, 21), "right_eye": (57, 21), "left_ear": (67, 22), "right_ear": (53, 22),
    "left_shoulder": (75, 48), "right_shoulder": (45, 48), "left_elbow": (86, 72), "right_elbow": (30, 66),
    "left_wrist": (90, 94), "right_wrist": (16, 50), "left_hip": (70, 96), "right_hip": (50, 96),
    "left_knee": (76, 130), "right_knee": (46, 130), "left_ankle": (78, 160), "right_ankle": (40, 160),
}  # fmt: skip


def photograph(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a red person on green noise: the image, the mask and the keypoints ``(17, 2)``."""
    rng = np.random.default_rng(seed)
    xy = np.array([JOINTS[name] for name in COCO17.keypoints], dtype=np.float64)
    mask = np.zeros((176, 112), np.uint8)
    for a, b in COCO17.bone_indices:
        if a > 4 or b > 4:
            cv2.line(mask, tuple(int(v) for v in xy[a]), tuple(int(v) for v in xy[b]), 1, 13)
    cv2.fillPoly(mask, [np.array([JOINTS[f"{side}_{part}"] for side, part in (
        ("left", "shoulder"), ("right", "shoulder"), ("right", "hip"), ("left", "hip"))])], 1)  # fmt: skip
    cv2.circle(mask, (60, 26), 13, 1, -1)
    cv2.line(mask, (60, 26), (60, 50), 1, 13)
    noise = rng.integers(0, 60, (176, 112, 3))
    image = np.where(mask[:, :, None], (170, 50, 40), (50, 120, 50)) + noise
    return image.astype(np.uint8), np.asarray(mask > 0), xy


def person(xy: np.ndarray) -> Instances:
    return Instances.from_keypoints(COCO17, xy[None], score=np.isfinite(xy).all(-1)[None].astype(np.float32))


def file_of_photographs(folder, count: int = 3):
    """Write a COCO keypoint file of as many photographs of one person."""
    images, annotations = [], []
    for number in range(1, count + 1):
        image, _, xy = photograph(number)
        write_image(folder / f"{number}.png", image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 112, "height": 176})
        points = np.concatenate([xy, np.full((17, 1), 2)], axis=1).ravel().tolist()
        box = [10, 8, 88, 160]
        annotations.append({"id": 10 * number, "image_id": number, "category_id": 1, "keypoints": points,
                            "bbox": box, "area": 5000})  # fmt: skip
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}]
    path = folder / "people.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_a_mask_is_the_person():
    image, truth, xy = photograph()
    mask = cut_out(image, person(xy))
    assert not isinstance(mask, str)
    truth = cv2.resize(truth.astype(np.uint8), mask.shape[::-1], interpolation=cv2.INTER_AREA) > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85


def test_the_same_mask_every_time():
    image, _, xy = photograph()
    first, second = (cut_out(image, person(xy)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("lacking", "says"), [(("left_hip",), None), (("left_hip", "right_hip"), "trunk not labelled")]
)
def test_one_corner_of_the_trunk_may_lack(lacking, says):
    image, _, xy = photograph()
    for name in lacking:
        xy[COCO17.index(name)] = np.nan
    found = cut_out(image, person(xy))
    assert (found == says) if says else not isinstance(found, str)


def test_a_person_before_something_of_the_same_colour_is_refused():
    image, truth, xy = photograph()
    around = cv2.dilate(truth.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    image[around] = (200, 60, 60)
    found = cut_out(image, person(xy))
    assert isinstance(found, str)
    assert found == "mask has no shape"


def test_a_skeleton_without_trunk():
    other = Skeleton("dots", ("a", "b"))
    one = Instances.from_keypoints(other, np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match=r"Cutouts need shoulders and hips .*the skeleton 'dots' has a, b"):
        cut_out(np.zeros((20, 20, 3), np.uint8), one)


def test_the_command_writes_masks_and_scenes_use_them(tmp_path):
    labels = file_of_photographs(tmp_path)
    out = tmp_path / "cutouts.npz"
    ran = subprocess.run(
        [sys.executable, "-m", "poseglass.data.cutouts", str(labels), "--out", str(out)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == f"{out}: 3 masks; 0 instances without."
    cutouts = Cutouts.read(out)
    assert [one in cutouts for one in (20, 5)] == [True, False]
    scenes = composed(labels, scenes=6, size_wh=(300, 240), most=3, cutouts=out, enlarge=1.0)
    for index in range(6):
        image, people = scenes.image(index), scenes.instances(index)
        red = image[..., 0].astype(int) - image[..., 1] > 40
        columns, rows = np.flatnonzero(red.any(0)), np.flatnonzero(red.any(1))
        box = people.box_xyxy
        # Only people are red: all red lies within the boxes, and reaches their edges.
        bounds = [columns[0], rows[0], columns[-1], rows[-1]]
        np.testing.assert_allclose(bounds, [*box[:, :2].min(0), *box[:, 2:].max(0)], atol=4)


def test_a_fault_of_the_command_is_one_line(tmp_path):
    command = [sys.executable, "-m", "poseglass.data.cutouts", str(tmp_path / "none.json"), "--out", "a.npz"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"poseglass: No such label file: {tmp_path / 'none.json'}")
    assert ran.stderr.count("\n") == 1


def test_people_are_pasted_into_photographs_among_their_people(tmp_path):
    labels = file_of_photographs(tmp_path)
    out = tmp_path / "cutouts.npz"
    Cutouts({10: np.packbits(np.ones((160, 102), bool))}, {10: (102, 160)}).write(out)
    scenes = composed(labels, scenes=30, most=2, cutouts=out, onto=labels, onto_where={"id": 2})
    assert scenes.notes[-1] == "Scenes are composed of 1 of the file's 3 instances."
    assert "2 instances not pasted: without a cutout." in scenes.notes
    behind = coco(labels, where={"id": 2})
    more = 0
    for index in range(30):
        people = scenes.instances(index)
        assert scenes.size_wh(index) == (112, 176)
        np.testing.assert_array_equal(people.box_xyxy[0], behind.instances(0).box_xyxy[0])
        covered = behind.instances(0).known[0] & ~people.known[0]
        assert covered.sum() <= 0.4 * 17
        changed = (scenes.image(index) != behind.image(0)).any(-1)
        assert changed.any() == (len(people) > 1)
        more += len(people) > 1
    assert more  # small ones find a place


def test_only_upright_people(tmp_path):
    labels = file_of_photographs(tmp_path, 2)
    document = json.loads(labels.read_text())
    points = np.reshape(document["annotations"][0]["keypoints"], (17, 3))
    points[:, 1] = 175 - points[:, 1]  # upside down
    document["annotations"][0]["keypoints"] = points.ravel().tolist()
    labels.write_text(json.dumps(document))
    scenes = composed(labels, scenes=2, size_wh=(200, 160), upright=True)
    assert "1 instance not pasted: not upright, as far as labelled." in scenes.notes


def test_files_that_do_not_fit(tmp_path):
    labels = file_of_photographs(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match=r"none.npz: no such file. Write it with `python -m poseglass.data"):
        composed(labels, cutouts=tmp_path / "none.npz")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"not a zip")
    with pytest.raises(
        ValueError, match=r"bad.npz: expected cutouts as `python -m poseglass.data.cutouts` writes them"
    ):
        composed(labels, cutouts=bad)
    np.savez(bad, annotation_ids=np.array([1]), sizes_wh=np.array([[8, 8]]), bits=np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="its arrays contradict each other"):
        Cutouts.read(bad)
    Cutouts({10: np.packbits(np.ones((16, 10), bool))}, {10: (10, 16)}).write(bad)
    with pytest.raises(
        ValueError, match=r"the mask of annotation 10 has 10 x 16 pixels, but its photograph needs 102 x"
    ):
        composed(labels, cutouts=bad)
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"bad.npz: expected cutouts as"):
        Cutouts.read(bad)
    other = tmp_path / "other.json"
    document = json.loads(labels.read_text())
    document["categories"][0]["keypoints"] = [f"p{i}" for i in range(17)]
    other.write_text(json.dumps(document))
    with pytest.raises(
        ValueError, match=re.compile(r"people can only be pasted among\s+people with the same keypoints")
    ):
        composed(labels, onto=other)
    with pytest.raises(
        ValueError,
        match=r"other.json: upright = true, which can be left out, needs shoulders and hips .*, but the skeleton",
    ):
        composed(other, upright=True)


def test_an_image_that_is_read_is_not_changed(tmp_path):
    labels = file_of_photographs(tmp_path, 1)
    before = read_image(tmp_path / "1.png").copy()
    scenes = composed(labels, scenes=2, onto=labels)
    scenes.image(0)
    np.testing.assert_array_equal(read_image(tmp_path / "1.png"), before)
