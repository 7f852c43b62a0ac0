import numpy as np
import pytest

from poseglass.synthetic.body_pose import (
    ACTIVITIES,
    ATHLETES,
    BOUNDS,
    EVERYDAY,
    SIDED,
    check_activities,
    rotation,
    sample_pose,
)


@pytest.mark.parametrize("activity", sorted(ACTIVITIES))
def test_every_activity_stays_within_the_bounds(activity):
    for seed in range(20):
        pose = sample_pose(np.random.default_rng(seed), {activity: 1.0})
        assert set(pose.left) == set(pose.right) == set(SIDED)
        assert set(pose.trunk) | set(SIDED) == set(BOUNDS)
        for angles in (pose.trunk, pose.left, pose.right):
            for name, angle in angles.items():
                assert BOUNDS[name][0] <= angle <= BOUNDS[name][1], name
        np.testing.assert_allclose(pose.root @ pose.root.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose.root) > 0


def test_poses_prefer_neither_side():
    poses = [sample_pose(np.random.default_rng(s), {"run": 1.0}) for s in range(300)]
    ahead = np.mean([p.left["hip_flex"] > p.right["hip_flex"] for p in poses])
    assert 0.4 < ahead < 0.6


def test_mixes_name_known_activities():
    check_activities(ATHLETES)
    check_activities(EVERYDAY)


def test_rotation_is_right_handed():
    np.testing.assert_allclose(rotation("x", 90) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation("y", 90) @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rotation("z", 90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
