import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, FLIC11, LSP14, MPII16
from poseglass.synthetic.body_model import KEYPOINTS
from poseglass.synthetic.body_pose import EVERYDAY
from poseglass.synthetic.people import synthetic_people

SHARED = Path(__file__).parents[2] / ".." / "shared"


def test_same_seed_gives_the_same_pixels_in_any_order():
    data = synthetic_people(6, seed=4, size_wh=(64, 48), people=(1, 3))
    forward = [data[i].image for i in range(6)]
    again = synthetic_people(6, seed=4, size_wh=(64, 48), people=(1, 3))
    again.instances(3)
    backward = [again[i].image for i in reversed(range(6))][::-1]
    copied = pickle.loads(pickle.dumps(data))
    for i in range(6):
        assert (forward[i] == backward[i]).all()
        assert (forward[i] == copied.image(i)).all()
        np.testing.assert_array_equal(data.instances(i).xy, again.instances(i).xy)


def test_scene_depends_on_seed_and_index_only():
    few, many = (synthetic_people(n, seed=1, size_wh=(64, 64)) for n in (3, 50))
    assert (few.image(2) == many.image(2)).all()
    assert not (few.image(1) == few.image(2)).all()
    assert not (few.image(2) == synthetic_people(3, seed=2, size_wh=(64, 64)).image(2)).all()


def test_is_a_dataset_with_exact_labels_without_drawing():
    data = synthetic_people(5, seed=3, size_wh=(96, 64), skeleton=COCO17)
    sample = data[4]
    assert len(data) == 5
    assert data.skeleton is COCO17
    assert sample.image.shape == (64, 96, 3)
    assert sample.source == data.source(4) == "synthetic-3-4"
    assert (sample.to_source.matrix == np.eye(2, 3)).all()
    assert data.size_wh(4) == sample.size_wh
    labels = data.instances(4)
    for name in ("xy", "score", "box_xyxy", "xyz_mm"):
        np.testing.assert_array_equal(getattr(labels, name), getattr(sample.instances, name))
    np.testing.assert_array_equal(labels.keypoint_extra["occluded"], sample.instances.keypoint_extra["occluded"])
    assert data.image(4, reduce=4).shape == (64, 96, 3)
    assert (data.image(-1) == data.image(4)).all()


def test_keypoints_that_are_seen_lie_on_the_person():
    skeleton = Skeleton("all", KEYPOINTS)
    data = synthetic_people(25, seed=9, size_wh=(160, 160), people=(1, 3), skeleton=skeleton)
    checked = 0
    for i in range(len(data)):
        labels, mask = data.instances(i), data.person_mask(i)
        for person in range(len(labels)):
            shown = ~labels.keypoint_extra["occluded"][person] & (labels.score[person] > 0)
            for x, y in labels.xy[person][shown]:
                x0, y0 = max(int(x) - 1, 0), max(int(y) - 1, 0)
                assert (mask[y0 : y0 + 4, x0 : x0 + 4] == person).any(), (i, person, x, y)
                checked += 1
    assert checked > 400


def test_joints_project_from_their_own_3d_points():
    data = synthetic_people(3, seed=2, size_wh=(128, 128), people=2)
    for i in range(3):
        camera, labels = data.scene(i).camera, data.instances(i)
        xy = labels.xyz_mm[..., :2] / labels.xyz_mm[..., 2:] * camera.focal_px + np.array(camera.center_xy)
        np.testing.assert_allclose(xy, labels.xy, atol=1e-2)


def test_boxes_fit_the_synthetic_person():
    data = synthetic_people(20, seed=5, size_wh=(160, 160), occluders=0.0, activities={"run": 1, "handstand": 1})
    for i in range(20):
        rows, columns = np.nonzero(data.person_mask(i) == 0)
        around = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
        np.testing.assert_allclose(data.instances(i).box_xyxy[0], around, atol=2.0)


def test_boxes_contain_hidden_people_and_stay_in_the_image():
    data = synthetic_people(12, seed=6, size_wh=(160, 120), people=(3, 5), occluders=1.0, fill=(1.0, 1.6))
    for i in range(12):
        mask, boxes = data.person_mask(i), data.instances(i).box_xyxy
        assert (boxes >= -0.5).all()
        assert (boxes <= np.array([159.5, 119.5, 159.5, 119.5])).all()
        for person, (x0, y0, x1, y1) in enumerate(boxes):
            rows, columns = np.nonzero(mask == person)
            if len(rows):
                assert x0 - 0.5 <= columns.min()
                assert columns.max() <= x1 + 0.5
                assert y0 - 0.5 <= rows.min()
                assert rows.max() <= y1 + 0.5


def test_area_is_what_is_seen():
    data = synthetic_people(8, seed=7, size_wh=(160, 160), people=2)
    for i in range(8):
        seen = np.bincount(data.person_mask(i).ravel() + 1, minlength=3)[1:]
        np.testing.assert_allclose(data.instances(i).extra["area"], np.maximum(seen, 1), rtol=0.05, atol=12)


def test_points_outside_the_image_keep_coordinates_and_lose_their_score():
    data = synthetic_people(10, seed=8, size_wh=(96, 96), fill=(1.6, 2.0))
    outside = 0
    for i in range(10):
        labels = data.instances(i)
        inside = ((labels.xy >= -0.5) & (labels.xy <= 95.5)).all(-1)
        assert np.isfinite(labels.xy).all()
        assert (labels.score == inside).all()
        assert labels.keypoint_extra["occluded"][~inside].all()
        outside += (~inside).sum()
    assert outside > 10


@pytest.mark.parametrize("skeleton", [COCO17, MPII16, LSP14, FLIC11, Skeleton("two", ("right_knee", "nose"))])
def test_skeletons_match_by_name(skeleton):
    every = synthetic_people(2, seed=1, size_wh=(64, 64), skeleton=Skeleton("all", KEYPOINTS)).instances(1)
    some = synthetic_people(2, seed=1, size_wh=(64, 64), skeleton=skeleton).instances(1)
    np.testing.assert_array_equal(some.xy, every.in_skeleton(skeleton).xy)
    np.testing.assert_array_equal(
        some.keypoint_extra["occluded"], every.in_skeleton(skeleton).keypoint_extra["occluded"]
    )


def test_number_of_people_spans_its_range():
    data = synthetic_people(40, seed=0, size_wh=(64, 64), people=(1, 4), activities=EVERYDAY)
    assert {len(data.scene(i).bodies) for i in range(40)} == {1, 2, 3, 4}
    assert len(synthetic_people(1, size_wh=(64, 64), people=0)[0].instances) == 0
    assert len(synthetic_people(1, size_wh=(64, 64), people=3).instances(0)) == 3


def test_activities_are_drawn_by_weight():
    data = synthetic_people(60, size_wh=(64, 64), activities={"sit": 1.0, "run": 3.0, "lie": 0.0})
    done = [data.scene(i).bodies[0].pose.activity for i in range(60)]
    assert set(done) == {"sit", "run"}
    assert done.count("run") > done.count("sit")


def test_effects_can_be_switched_off():
    plain, full = (synthetic_people(1, seed=3, size_wh=(64, 64), effects=e) for e in (False, True))
    np.testing.assert_array_equal(plain.instances(0).xy, full.instances(0).xy)
    assert not (plain.image(0) == full.image(0)).all()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"count": 0}, r"count must be 1 or more, got 0"),
        ({"seed": -1}, r"seed must be 0 or more, got -1"),
        ({"size_wh": (16, 64)}, r"size_wh must be \(width, height\) with 32 to 4096 pixels each, got \(16, 64\)"),
        ({"people": (3, 2)}, r"people must be .*fewest <= most <= 20, got \(3, 2\)"),
        ({"people": 21}, r"people must be .* got 21"),
        (
            {"skeleton": Skeleton("x", ("nose", "left_wirst"))},
            r"'left_wirst', which a synthetic body lacks.*left_wrist",
        ),
        ({"occluders": 1.5}, r"occluders must be a fraction of scenes from 0 to 1, got 1.5"),
        ({"fill": (0.9, 0.5)}, r"fill must be \(least, most\).*got \(0.9, 0.5\)"),
        ({"activities": {"rnu": 1.0}}, r"unknown activity 'rnu'.*run"),
        ({"activities": {"run": -1.0}}, r"activities\['run'\] must be a weight of 0 or more, got -1"),
        ({"activities": {"run": 0.0}}, r"at least one activity a weight above 0"),
    ],
)
def test_errors_say_what_to_do(numbers, message):
    with pytest.raises(ValueError, match=message):
        synthetic_people(**({"count": 4} | numbers))


def test_index_and_reduce_are_checked():
    data = synthetic_people(4, size_wh=(64, 64))
    with pytest.raises(IndexError, match=r"has 4 scenes, 0 to 3; got index 4"):
        data[4]
    with pytest.raises(ValueError, match=r"reduce must be 1, 2, 4 or 8, got 3"):
        data.image(0, reduce=3)


@pytest.mark.slow
@pytest.mark.shared
def test_poses_resemble_those_of_athletes():
    path = SHARED / "data" / "lspet" / "train.json"
    if not path.exists():
        pytest.skip("../shared/data/lspet is not here")
    rows = np.array([a["keypoints"] for a in json.loads(path.read_text())["annotations"]], float).reshape(-1, 14, 3)
    real = np.where(rows[..., 2:] > 0, rows[..., :2], np.nan)
    data, order = synthetic_people(500, seed=77), [KEYPOINTS.index(n) for n in LSP14.keypoints]
    drawn = []
    for i in range(500):
        scene = data.scene(i)
        drawn.append(scene.camera.project(scene.bodies[0].points_mm[order]))

    def portrait(xy: np.ndarray) -> dict[str, np.ndarray]:
        at = {n: xy[:, i] for i, n in enumerate(LSP14.keypoints)}
        down = at["left_hip"] + at["right_hip"] - at["left_shoulder"] - at["right_shoulder"]
        tilt = np.abs(np.degrees(np.arctan2(down[:, 0], down[:, 1])))
        bend = at["left_hip"] - at["left_knee"], at["left_ankle"] - at["left_knee"]
        product = np.prod([np.sqrt((b**2).sum(-1)) for b in bend], axis=0)
        knee = (bend[0] * bend[1]).sum(-1) / np.where(product > 0, product, np.nan)
        torso = np.sqrt((down**2).sum(-1)) / 2
        torso[torso == 0] = np.nan
        lengths = [
            np.nanmedian(np.sqrt(((at[a] - at[b]) ** 2).sum(-1)) / torso)
            for a, b in (("left_hip", "left_knee"), ("left_shoulder", "left_elbow"), ("neck", "head_top"))
        ]
        return {
            "upright": np.array([np.mean(tilt[np.isfinite(tilt)] < 45), np.mean(tilt[np.isfinite(tilt)] > 135)]),
            "straight knee": np.array([np.mean(knee[np.isfinite(knee)] < -0.87)]),
            "lengths": np.array(lengths),
        }

    real_portrait = portrait(real)
    for name, results in portrait(np.stack(drawn)).items():
        np.testing.assert_allclose(results, real_portrait[name], atol=0.13, err_msg=name)
