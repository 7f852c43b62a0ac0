"""What training does to poses of motion capture: bodies of one size, other bodies, other views, unknown keypoints.

Everything here is on tensors, in metres, with a generator of random numbers, so that a run gives the same again. World
frames have y up, camera frames x right, y down, z away.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from poseglass.core.skeleton import Skeleton

LIMBS = (
    ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
)  # fmt: skip
"""Bones whose lengths tell the size of a body; those of the trunk end where a system of motion capture says."""

PARENTS = {
    "right_hip": "pelvis", "right_knee": "right_hip", "right_ankle": "right_knee", "left_hip": "pelvis",
    "left_knee": "left_hip", "left_ankle": "left_knee", "spine": "pelvis", "thorax": "spine", "neck": "thorax",
    "head_top": "neck", "left_shoulder": "thorax", "left_elbow": "left_shoulder", "left_wrist": "left_elbow",
    "right_shoulder": "thorax", "right_elbow": "right_shoulder", "right_wrist": "right_elbow",
}  # fmt: skip
"""The keypoint that each one hangs on, in an order in which parents come first."""


CONVERT = "Convert pairs of MPI-INF-3DHP with as_h36m17, and recordings with to_h36m17, both in poseglass.readers."
"""What to do where a skeleton lacks keypoints."""


def root_of(skeleton: Skeleton) -> list[int]:
    """Return the keypoints in whose middle the origin of a pose is: the pelvis, or both hips where there is none.

    Raises:
        LookupError: Neither is there.
    """
    if "pelvis" in skeleton.keypoints:
        return [skeleton.index("pelvis")]
    return [skeleton.index("left_hip"), skeleton.index("right_hip")]


def limb_length(xyz: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return the mean length of arms and legs, upper and lower, of each pose ``(N, K, 3)``: ``(N,)``, in its unit."""
    ends = np.array([[skeleton.index(a), skeleton.index(b)] for a, b in LIMBS])
    return np.linalg.norm(xyz[:, ends[:, 0]] - xyz[:, ends[:, 1]], axis=-1).mean(1)


def upright_to_camera(xyz: Tensor) -> Tensor:
    """Turn a world frame with y up into a camera frame that looks along its -z: y down, z away."""
    return xyz * torch.tensor([1.0, -1.0, -1.0], dtype=xyz.dtype)


@dataclass(frozen=True, slots=True)
class Views:
    """Where cameras are that look at a pose. The side is any, with equal probability.

    Args:
        elevation_degrees: Of the camera above the person's horizon, drawn uniformly from this range.
        roll_degrees: Of the camera about its axis, drawn uniformly up to this to either side.
        distance_m: From the pelvis, drawn from this range with a uniform logarithm, so more often near.
        tilted: Share of the poses that are turned by any rotation, as in jumps, on floors and on hands.
    """

    elevation_degrees: tuple[float, float] = (-10.0, 30.0)
    roll_degrees: float = 10.0
    distance_m: tuple[float, float] = (2.5, 12.0)
    tilted: float = 0.0


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _about(axis: int, radians: Tensor) -> Tensor:
    """Return rotations about x, y or z (0, 1, 2): ``(B, 3, 3)``."""
    c, s = radians.cos(), radians.sin()
    rotation = torch.eye(3).repeat(len(radians), 1, 1)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    rotation[:, i, i], rotation[:, i, j], rotation[:, j, i], rotation[:, j, j] = c, -s, s, c
    return rotation


def _any_rotation(count: int, generator: torch.Generator) -> Tensor:
    """Return rotations, uniformly from all: ``(B, 3, 3)``, from random quaternions."""
    w, x, y, z = functional.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, 1).view(-1, 3, 3)


def seen_by_cameras(world: Tensor, views: Views, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Look at poses from random cameras.

    Args:
        world: ``(B, K, 3)`` metres, y up, relative to the pelvis.
        views: Where the cameras are.
        generator: Of random numbers.

    Returns:
        Points ``(B, K, 2)`` of a camera of focal length 1, and the poses ``(B, K, 3)`` in the camera's frame, metres,
        relative to the pelvis.
    """
    count = len(world)
    yaw = _uniform(count, 0.0, 2 * torch.pi, generator)
    elevation = torch.deg2rad(_uniform(count, *views.elevation_degrees, generator))
    roll = torch.deg2rad(_uniform(count, -views.roll_degrees, views.roll_degrees, generator))
    rotation = _about(2, roll) @ _about(0, elevation) @ _about(1, yaw)
    if views.tilted > 0:
        tilted = torch.rand(count, generator=generator) < views.tilted
        rotation = torch.where(tilted[:, None, None], _any_rotation(count, generator), rotation)
    camera = upright_to_camera(world @ rotation.mT)
    near, far = np.log(views.distance_m)
    distance = _uniform(count, float(near), float(far), generator).exp()
    away = (camera[..., 2] + distance[:, None]).clamp_min(0.3)
    return camera[..., :2] / away[..., None], camera


def other_limbs(xyz: Tensor, skeleton: Skeleton, spread: float, generator: torch.Generator) -> Tensor:
    """Return the poses ``(B, K, 3)`` with bones of other lengths, left and right alike, and the same directions.

    Args:
        xyz: Poses relative to the pelvis.
        skeleton: Has ``PARENTS``.
        spread: Each length is multiplied by a factor from 1 - spread to 1 + spread.
        generator: Of random numbers.
    """
    factors: dict[str, Tensor] = {}
    placed = {"pelvis": xyz[:, skeleton.index("pelvis")]}
    for child, parent in PARENTS.items():
        kind = child.removeprefix("left_").removeprefix("right_")
        if kind not in factors:
            factors[kind] = _uniform(len(xyz), 1 - spread, 1 + spread, generator)[:, None]
        bone = xyz[:, skeleton.index(child)] - xyz[:, skeleton.index(parent)]
        placed[child] = placed[parent] + factors[kind] * bone
    return torch.stack([placed[name] for name in skeleton.keypoints], 1)


def _pelvis_frame(xyz: Tensor, skeleton: Skeleton) -> Tensor:
    """Return the axes of the pelvis, to the left, up and ahead, as columns: ``(B, 3, 3)``."""
    left = xyz[:, skeleton.index("left_hip")] - xyz[:, skeleton.index("right_hip")]
    up = xyz[:, skeleton.index("thorax")] - xyz[:, skeleton.index("pelvis")]
    left = functional.normalize(left, dim=1)
    up = functional.normalize(up - (up * left).sum(1, keepdim=True) * left, dim=1)
    return torch.stack([left, up, torch.linalg.cross(left, up)], 2)


def other_legs(xyz: Tensor, of: Tensor, skeleton: Skeleton) -> Tensor:
    """Return the poses with the legs of others, turned as their own pelvis is.

    Args:
        xyz: ``(B, K, 3)`` relative to the pelvis.
        of: ``(B, K, 3)``, whose legs they get.
        skeleton: Of both.
    """
    legs = [skeleton.index(f"{side}_{part}") for side in ("left", "right") for part in ("hip", "knee", "ankle")]
    turn = _pelvis_frame(xyz, skeleton) @ _pelvis_frame(of, skeleton).mT
    out = xyz.clone()
    out[:, legs] = of[:, legs] @ turn.mT
    return out


def flipped(xyz: Tensor, skeleton: Skeleton) -> Tensor:
    """Return the mirror images of poses, left and right exchanged: ``(B, K, 3)``."""
    return xyz[:, torch.from_numpy(skeleton.flip)] * torch.tensor([-1.0, 1.0, 1.0], dtype=xyz.dtype)


def aligned(xyz: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Return poses ``(N, K, 3)``, centred and rotated to be as near to their mean as they can: RepNet's real poses.

    Rotations only: neither scaled nor mirrored. The mean is that of the poses after each round.
    """
    poses = xyz - xyz.mean(1, keepdims=True)
    # not the mean of all sides, in which arms and legs cancel out: the first template is one pose that stands
    extent = poses[..., 1].max(1) - poses[..., 1].min(1)
    template = poses[int(np.argsort(extent)[len(poses) // 2])]
    for _ in range(rounds):
        u, _, vt = np.linalg.svd(np.einsum("nki,kj->nij", poses, template))
        turn = u @ (vt * np.stack([np.ones(len(u)), np.ones(len(u)), np.linalg.det(u @ vt)], 1)[:, :, None])
        poses = poses @ turn
        template = poses.mean(0)
    return poses
