"""Motion capture seen by cameras: sides, frames and pixels."""

import numpy as np
import pytest

from poseglass.core.lifting_pairs import EIGHT_SIDES, facing_degrees, view_poses
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import H36M17

BODY = Skeleton("body", ("pelvis", "left_hip", "right_hip", "head", "nose"))
PERSON = np.array([[0.0, 900, 0], [100, 900, 0], [-100, 900, 0], [0, 1600, 0], [0, 1550, 120]])
"""Faces +z, with the left hip at +x."""


def seen(degrees, poses=PERSON[None], **numbers):
    return view_poses(poses, BODY, degrees, **numbers)


def test_a_person_from_the_front_the_left_the_back_and_the_right():
    pairs = seen((0, 90, 180, 270))
    assert pairs.degrees.tolist() == [0, 90, 180, 270]
    assert pairs.pose.tolist() == [0, 0, 0, 0]
    left = pairs.xy[:, 1, 0] - pairs.xy[:, 0, 0]
    assert left[0] > 20  # from the front, a person's left is on the right of the image
    assert left[2] < -20
    assert abs(left[1]) < 1e-3
    nose = pairs.xyz_mm[:, 4]
    np.testing.assert_allclose(nose, [[0, -650, -120], [-120, -650, 0], [0, -650, 120], [120, -650, 0]], atol=1e-3)
    left_depth = pairs.xyz_mm[:, 1, 2]
    np.testing.assert_allclose(left_depth, [0, -100, 0, 100], atol=1e-3)  # seen from the left, the left is near
    assert (pairs.xy[:, 3, 1] < pairs.xy[:, 0, 1]).all()  # heads are above: y down


def test_pixels_by_hand():
    pairs = seen((0,), distance_mm=2000.0, focal_px=1000.0, size_wh=(641, 481))
    assert pairs.center_xy == (320, 240)
    np.testing.assert_allclose(pairs.xy[0, 0], [320, 240])
    np.testing.assert_allclose(pairs.xy[0, 4], [320, 240 - 650 * 1000 / (2000 - 120)], rtol=1e-6)
    weak = seen((0,), distance_mm=2000.0, focal_px=1000.0, size_wh=(641, 481), projection="weak")
    np.testing.assert_allclose(weak.xy[0, 4], [320, 240 - 650 / 2], rtol=1e-6)
    assert weak.xyz_mm.tolist() == pairs.xyz_mm.tolist()
    assert pairs.root_mm.tolist() == [[0, 0, 2000]]


def test_turning_the_person_is_turning_the_camera_the_other_way():
    poses = np.random.default_rng(0).normal(0, 300, (3, 5, 3))
    for turn in EIGHT_SIDES:
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        turned = poses @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T  # counter-clockwise from above
        np.testing.assert_allclose(seen((turn,), turned).xy, seen((0,), poses).xy, atol=1e-3)
        np.testing.assert_allclose(seen((turn,), turned).xyz_mm, seen((0,), poses).xyz_mm, atol=1e-3)
        moved = turned + np.array([4000, 0, -900])
        np.testing.assert_allclose(seen((turn,), moved).xy, seen((0,), poses).xy, atol=1e-3)


def test_nothing_is_mirrored():
    """Views are rotations: the handedness of three directions stays, with y and z turned together."""
    pairs = seen(EIGHT_SIDES)
    left, up, ahead = pairs.xyz_mm[:, 1], pairs.xyz_mm[:, 3], pairs.xyz_mm[:, 4] - [0, -650, 0]
    volume = np.einsum("ni,ni->n", np.cross(left, up), ahead)
    world = np.dot(np.cross([100, 0, 0], [0, 700, 0]), [0, 0, 120])
    np.testing.assert_allclose(volume, world, rtol=1e-5)


def test_elevation_looks_down():
    level, above = seen((0,)), seen((0,), elevation_degrees=30.0)
    assert above.xyz_mm[0, 3, 2] == pytest.approx(-700 * np.sin(np.radians(30)), abs=1e-3)  # the head is nearer
    assert above.xyz_mm[0, 3, 1] == pytest.approx(-700 * np.cos(np.radians(30)), abs=1e-3)
    assert np.linalg.norm(above.xyz_mm, axis=-1) == pytest.approx(np.linalg.norm(level.xyz_mm, axis=-1), rel=1e-5)


def test_relative_to_the_person():
    turned = PERSON @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]).T  # faces +x
    assert facing_degrees(np.stack([PERSON, turned]), BODY).tolist() == [0, 90]
    pairs = seen((0, 45), np.stack([PERSON, turned]), relative_to="person")
    np.testing.assert_allclose(pairs.xyz_mm[0], pairs.xyz_mm[1], atol=1e-3)
    np.testing.assert_allclose(pairs.xyz_mm[2], pairs.xyz_mm[3], atol=1e-3)


def test_rows_are_poses_within_sides():
    poses = np.stack([PERSON, PERSON * 1.1])
    pairs = seen(EIGHT_SIDES, poses)
    assert len(pairs) == 16
    assert pairs.pose.tolist() == [0, 1] * 8
    assert pairs.degrees.tolist() == [float(side) for side in EIGHT_SIDES for _ in range(2)]


def test_unknown_keypoints_and_roots_stay_unknown():
    poses = np.stack([PERSON, PERSON])
    poses[0, 3] = np.nan
    poses[1, 0] = np.nan
    pairs = seen((0,), poses)
    assert np.isnan(pairs.xy[0, 3]).all()
    assert np.isfinite(pairs.xy[0, [0, 1, 2, 4]]).all()
    assert np.isnan(pairs.xy[1]).all()
    assert np.isnan(seen((0,), distance_mm=100.0).xy[0, 4]).all()  # behind the camera


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"distance_mm": 0.0}, r"Distance, focal length and size must be positive"),
        ({"elevation_degrees": 90.0}, r"the elevation below 90 degrees, got 5000.0, 1150.0, \(1000, 1000\) and 90.0"),
        ({"projection": "strong"}, r"projection must be 'perspective' or 'weak' .* got 'strong' and 'world'"),
        ({"degrees": ()}, r"Give at least one side in degrees, got \[\]"),
        ({"degrees": (float("nan"),)}, r"Give at least one side in degrees, got \[nan\]"),
        ({"xyz_mm": np.zeros((2, 4, 3))}, r"Poses in skeleton 'body' must have shape \(N, 5, 3\), got \(2, 4, 3\)"),
    ],
)
def test_faults(numbers, message):
    with pytest.raises(ValueError, match=message):
        view_poses(**({"xyz_mm": PERSON[None], "skeleton": BODY} | numbers))


def test_no_root():
    with pytest.raises(LookupError, match=r"has no keypoint 'hip'"):
        seen((0,), root="hip")


@pytest.mark.shared
def test_people_walk_towards_where_they_face(shared):
    """The side a person is seen from the front is where they are going, for most of a walk."""
    poses = np.load(shared / "data/mocap/poses.npz", allow_pickle=False)
    walk = poses["xyz_mm"][poses["clip"] == poses["clip_names"].tolist().index("08_01")]
    going = np.diff(walk[:, 0], axis=0)
    degrees = np.degrees(np.arctan2(going[:, 0], going[:, 2]))
    apart = (facing_degrees(walk[:-1], H36M17) - degrees + 180) % 360 - 180
    assert np.abs(apart).max() < 30
