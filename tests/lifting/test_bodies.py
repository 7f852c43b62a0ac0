"""What training does to bodies: sizes, mirror images, other legs and limbs, views, each with what must not change."""

import numpy as np
import pytest
import torch

from poseglass.core.lifting_pairs import view_poses
from poseglass.core.skeletons import H36M17
from poseglass.lifting.bodies import (
    PARENTS,
    Views,
    aligned,
    flipped,
    limb_length,
    other_legs,
    other_limbs,
    seen_by_cameras,
)
from poseglass.lifting.normalise import by_axis, normalise


def standing() -> np.ndarray:
    """A person who stands and faces +z, millimetres, y up, relative to the pelvis."""
    at = {
        "pelvis": (0, 0, 0),
        "right_hip": (-100, -60, 0), "right_knee": (-105, -480, 20), "right_ankle": (-110, -900, 0),
        "left_hip": (100, -60, 0), "left_knee": (105, -480, 20), "left_ankle": (110, -900, 0), "spine": (0, 120, 0),
        "thorax": (0, 360, 0), "neck": (0, 450, 10), "head_top": (0, 640, 20), "left_shoulder": (180, 340, 0),
        "left_elbow": (240, 70, 0), "left_wrist": (250, -150, 60), "right_shoulder": (-180, 340, 0),
        "right_elbow": (-240, 70, 0), "right_wrist": (-250, -150, 60),
    }  # fmt: skip
    return np.array([at[name] for name in H36M17.keypoints], np.float64)


def people(count: int, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(0, 40, (count, 17, 3))
    poses = standing() + noise
    return torch.from_numpy(((poses - poses[:, :1]) / 1000).astype(np.float32))


def bone(poses: torch.Tensor, child: str) -> torch.Tensor:
    return poses[:, H36M17.index(child)] - poses[:, H36M17.index(PARENTS[child])]


def test_every_keypoint_hangs_on_one_before_it():
    seen = {"pelvis"}
    for child, parent in PARENTS.items():
        assert parent in seen
        seen.add(child)
    assert seen == set(H36M17.keypoints)


def test_limb_length():
    pose = standing()[None]
    assert limb_length(pose * 2, H36M17)[0] == pytest.approx(2 * limb_length(pose, H36M17)[0])
    legs = np.linalg.norm(pose[0, 5] - pose[0, 4])
    assert 200 < limb_length(pose, H36M17)[0] < legs


def test_other_limbs_keep_directions_and_symmetry():
    poses = people(20)
    out = other_limbs(poses, H36M17, 0.2, torch.Generator().manual_seed(1))
    factor = {}
    for child in PARENTS:
        before, after = bone(poses, child), bone(out, child)
        ratio = after.norm(dim=1) / before.norm(dim=1)
        assert ((ratio > 0.79) & (ratio < 1.21)).all()
        cosine = torch.nn.functional.cosine_similarity(before, after, dim=1)
        assert float(cosine.min()) > 1 - 1e-4
        factor[child] = ratio
    assert torch.allclose(factor["left_knee"], factor["right_knee"], atol=1e-3)
    assert float((factor["left_knee"] - factor["left_elbow"]).abs().max()) > 0.05


def test_other_legs_are_turned_with_the_pelvis():
    poses, of = people(6, 2), people(6, 3)
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]).float()
    turn = turn * torch.linalg.det(turn)
    out = other_legs(poses, of, H36M17)
    trunk = [k for k, n in enumerate(H36M17.keypoints) if "knee" not in n and "ankle" not in n and "hip" not in n]
    assert torch.equal(out[:, trunk], poses[:, trunk])
    for child in ("left_knee", "right_ankle"):
        assert torch.allclose(bone(out, child).norm(dim=1), bone(of, child).norm(dim=1), atol=1e-5)
    # the pose that gives its legs may face anywhere
    assert torch.allclose(other_legs(poses, of @ turn.mT, H36M17), out, atol=1e-4)
    assert torch.allclose(other_legs(poses, poses, H36M17), poses, atol=1e-5)


def test_flipped_twice_is_the_same():
    poses = people(5)
    once = flipped(poses, H36M17)
    assert torch.equal(flipped(once, H36M17), poses)
    assert torch.equal(once[:, H36M17.index("left_wrist"), 0], -poses[:, H36M17.index("right_wrist"), 0])
    assert torch.equal(once[:, H36M17.index("left_wrist"), 1:], poses[:, H36M17.index("right_wrist"), 1:])


def test_cameras_see_what_the_eight_sides_see():
    """The same frame as ``view_poses``: mirrored depth or sides would not be found by any training."""
    poses = people(200, 5)
    level = Views((0.0, 1e-6), 0.0, (4.999, 5.001))
    points, truth = seen_by_cameras(poses, level, torch.Generator().manual_seed(2))
    yaw = torch.rand(200, generator=torch.Generator().manual_seed(2)) * 2 * np.pi
    for row in range(0, 200, 40):
        around = view_poses(1000 * poses[row : row + 1].numpy(), H36M17, np.arange(0, 360, 1.0), distance_mm=5000)
        apart = np.abs(around.xyz_mm - 1000 * truth[row].numpy()).max((1, 2))
        best = int(apart.argmin())
        assert apart[best] < 12, (row, float(yaw[row]))
        pixels = (around.xy[best] - np.array(around.center_xy)) / around.focal_px
        assert np.abs(pixels - points[row].numpy()).max() < 0.004


def test_elevated_cameras_look_down():
    poses = people(50, 6)
    above = Views((59.0, 60.0), 0.0, (5.0, 5.1))
    _, truth = seen_by_cameras(poses, above, torch.Generator().manual_seed(3))
    # the head is nearer to a camera that is above, and the feet are farther away
    assert (truth[:, H36M17.index("head_top"), 2] < truth[:, H36M17.index("left_ankle"), 2]).all()
    shape = torch.cdist(truth, truth) - torch.cdist(poses, poses)
    assert float(shape.abs().max()) < 1e-3


def test_aligned_poses_have_lost_their_rotation_alone():
    rng = np.random.default_rng(7)
    ahead = np.zeros((17, 3))  # a body that is flat is nearly its own mirror image, turned by half a circle
    ahead[[H36M17.index("left_wrist"), H36M17.index("right_wrist"), H36M17.index("head_top")], 2] = 500
    poses = standing() + ahead + rng.normal(0, 10, (40, 17, 3))
    angle = rng.uniform(0, 2 * np.pi, 40)
    turn = np.zeros((40, 3, 3))
    turn[:, 1, 1] = 1
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 2, 0], turn[:, 2, 2] = (
        np.cos(angle),
        np.sin(angle),
        -np.sin(angle),
        np.cos(angle),
    )
    out = aligned(poses @ turn)
    assert np.abs(out.mean(1)).max() < 1e-9
    assert out.std(0).max() < 16
    distances = np.linalg.norm(out[:, :, None] - out[:, None], axis=-1)
    assert np.abs(distances - np.linalg.norm(poses[:, :, None] - poses[:, None], axis=-1)).max() < 1e-6
    mirrored = poses * [-1.0, 1.0, 1.0]
    across = out[:, H36M17.index("left_hip")] - out[:, H36M17.index("right_hip")]
    assert (across @ across[0] > 0).all()
    assert aligned(np.concatenate([poses, mirrored[:1]])).std(0).max() > 20  # a mirror image is not rotated away


def test_normalised_points():
    points = torch.randn(4, 17, 2, generator=torch.Generator().manual_seed(8)) * 30 + 500
    known = torch.rand(4, 17, generator=torch.Generator().manual_seed(9)) > 0.3
    normal, center, scale = normalise(points, known)
    assert (normal[~known] == 0).all()
    for row in range(4):
        seen = normal[row][known[row]]
        assert float(seen.mean(0).abs().max()) < 1e-5
        assert float(seen.square().mean().sqrt()) == pytest.approx(1.0, abs=1e-5)
    back = normal * scale[:, None, None] + center[:, None]
    assert torch.allclose(back[known], points[known], atol=1e-3)
    assert torch.isfinite(normalise(torch.zeros(1, 17, 2), torch.zeros(1, 17, dtype=torch.bool))[0]).all()


def test_axes_before_keypoints():
    points = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])
    assert by_axis(points).tolist() == [[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]]
