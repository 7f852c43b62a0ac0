import numpy as np
import pytest

from poseglass.synthetic.body_figure import Figure, sample_figure, sample_outfit
from poseglass.synthetic.body_model import KEYPOINTS, SEGMENTS, Body, build_body
from poseglass.synthetic.body_pose import BOUNDS, SIDED, BodyPose, rotation, sample_pose


def neutral(**angles: float) -> BodyPose:
    trunk = {n: 0.0 for n in BOUNDS if n not in SIDED}
    left = {n: angles.get(n, 0.0) for n in SIDED}
    return BodyPose("stand", trunk, left, {n: 0.0 for n in SIDED}, np.eye(3), 0.0)


def body(pose: BodyPose, seed: int = 0, stature_mm: float = 1750.0) -> Body:
    figure = Figure(stature_mm)
    return build_body(figure, sample_outfit(np.random.default_rng(seed), figure), pose)


def at(person: Body, name: str) -> np.ndarray:
    return person.points_mm[KEYPOINTS.index(name)]


def test_standing_body_has_human_proportions_and_its_own_left():
    person = body(neutral())
    assert at(person, "head_top")[1] == pytest.approx(1750, rel=0.03)
    assert at(person, "left_ankle")[1] == pytest.approx(0.04 * 1750, rel=0.4)
    # Facing +z with y up, the left hand is at +x.
    for joint in ("shoulder", "hip", "wrist", "knee", "ear", "eye"):
        assert at(person, f"left_{joint}")[0] > 20 > -20 > at(person, f"right_{joint}")[0]
    assert at(person, "nose")[2] > at(person, "left_ear")[2] + 50
    assert person.points_mm[:, 1].min() > 0


def test_angles_move_limbs_the_anatomical_way():
    rest = body(neutral())
    assert at(body(neutral(elbow_flex=90)), "left_wrist")[2] > at(rest, "left_wrist")[2] + 150
    assert at(body(neutral(knee_flex=90)), "left_ankle")[2] < at(rest, "left_ankle")[2] - 250
    assert at(body(neutral(hip_flex=90)), "left_knee")[2] > at(rest, "left_knee")[2] + 250
    assert at(body(neutral(hip_abduct=60)), "left_knee")[0] > at(rest, "left_knee")[0] + 200
    side = body(neutral(shoulder_elevation=90))
    ahead = body(neutral(shoulder_elevation=90, shoulder_plane=90))
    assert at(side, "left_elbow")[0] > at(side, "left_shoulder")[0] + 200
    assert at(ahead, "left_elbow")[2] > at(ahead, "left_shoulder")[2] + 200
    above = body(neutral(shoulder_elevation=180))
    assert at(above, "left_wrist")[1] > at(above, "head_top")[1]


def test_limbs_keep_their_length_and_the_body_stands_on_the_ground():
    rng = np.random.default_rng(1)
    for _ in range(15):
        figure = sample_figure(rng)
        pose = sample_pose(rng, {"jump": 1, "handstand": 1, "sit": 1})
        person = build_body(figure, sample_outfit(rng, figure), pose)
        thigh = np.linalg.norm(person.segment_origin_mm[SEGMENTS.index("left_shank")]
                               - person.segment_origin_mm[SEGMENTS.index("left_thigh")])  # fmt: skip
        assert thigh == pytest.approx(0.236 * figure.stature_mm * figure.leg)
        q = rng.standard_normal((300, 3))
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        round_ = np.isnan(person.taper)
        surface = np.linalg.solve(person.to_local[round_], q.T[None] - person.offset[round_][:, :, None])
        assert surface[:, 1].min() >= pose.height_mm - 1e-6
        assert surface[:, 1].min() < pose.height_mm + 60
        assert person.lowest_mm() == pytest.approx(pose.height_mm, abs=1e-6)
        assert np.isfinite(person.to_local).all()
        assert (np.linalg.det(person.segment_rotation) > 0.99).all()


def test_moving_a_body_moves_everything():
    person, by = body(neutral()), np.array([100.0, -20.0, 5.0])
    moved = person.moved(by)
    np.testing.assert_allclose(moved.points_mm, person.points_mm + by)
    point = np.array([10.0, 900.0, 30.0])
    before = person.to_local @ point + person.offset
    np.testing.assert_allclose(moved.to_local @ (point + by) + moved.offset, before, atol=1e-9)


def test_turning_the_root_turns_the_body():
    pose = neutral()
    turned = BodyPose("stand", pose.trunk, pose.left, pose.right, rotation("y", 180), 0.0)
    assert at(body(turned), "left_shoulder")[0] < 0
    assert at(body(turned), "nose")[2] < 0
