"""Pairs of 2D and 3D poses: what a camera sees of motion capture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from poseglass.core.camera import Camera
from poseglass.core.skeleton import Skeleton

EIGHT_SIDES = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
"""Degrees round the vertical, from which poses are seen where nothing else is asked."""


@dataclass(frozen=True, slots=True, eq=False)
class LiftingPairs:
    """What cameras see of N poses: keypoints in pixels, and the same in three dimensions.

    Args:
        skeleton: Its K keypoints.
        xy: ``(N, K, 2)`` float32, pixels; NaN where a keypoint is unknown or behind the camera.
        xyz_mm: ``(N, K, 3)`` float32, millimetres, relative to the root, in the camera frame: x right, y down, z away.
        root_mm: ``(N, 3)`` float32, the root in the camera frame.
        degrees: ``(N,)`` float32, the side that each is seen from; NaN where a real camera saw them.
        pose: ``(N,)`` int64, the row of each among the poses that were seen.
        focal_px: Focal length; None where a reader does not know the camera.
        center_xy: Principal point, pixels, or None.
        size_wh: Size of the image, or None; keypoints may lie outside of it.
    """

    skeleton: Skeleton
    xy: np.ndarray
    xyz_mm: np.ndarray
    root_mm: np.ndarray
    degrees: np.ndarray
    pose: np.ndarray
    focal_px: float | None = None
    center_xy: tuple[float, float] | None = None
    size_wh: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.xy)


def view_poses(
    xyz_mm: np.ndarray,
    skeleton: Skeleton,
    degrees: Sequence[float] = EIGHT_SIDES,
    *,
    root: str = "pelvis",
    projection: Literal["perspective", "weak"] = "perspective",
    distance_mm: float = 5000.0,
    focal_px: float = 1150.0,
    size_wh: tuple[int, int] = (1000, 1000),
    elevation_degrees: float = 0.0,
    relative_to: Literal["world", "person"] = "world",
) -> LiftingPairs:
    """Return poses as cameras see them that stand round each person and look at its root.

    Rows are all poses from the first side, then all from the second, and so on. Poses whose root is unknown cannot be
    looked at and have NaN.

    Args:
        xyz_mm: ``(N, K, 3)``, millimetres, world frame with y up.
        skeleton: Its K keypoints.
        degrees: Sides, counter-clockwise seen from above. At 0 the camera stands at +z (before a person who faces +z)
            and sees the world's x as right; at 90 it stands at +x.
        root: The keypoint that the camera looks at and that 3D is relative to.
        projection: "perspective", or "weak": all keypoints at the depth of the root.
        distance_mm: From the camera to the root.
        focal_px: Focal length. The default at the default distance gives a person of about 400 px, as in Human3.6M.
        size_wh: Size of the image; the root is at its middle.
        elevation_degrees: How far the camera looks down on the root.
        relative_to: Whether 0 is the world's z, or the direction a person faces (from left hip to right hip, turned by
            90 degrees in the horizontal plane).

    Raises:
        ValueError: Shapes do not fit, or a number is out of range.
        LookupError: No such root.

    Example:
        >>> from poseglass.core.skeleton import Skeleton
        >>> two = Skeleton("two", ("pelvis", "hand"))
        >>> pairs = view_poses(np.array([[[0, 1000, 0], [500, 1200, 0]]]), two, (0, 90), focal_px=1000.0)
        >>> pairs.xyz_mm[:, 1].round(3).tolist()
        [[500.0, -200.0, 0.0], [0.0, -200.0, -500.0]]
        >>> pairs.xy[0].tolist()
        [[499.5, 499.5], [599.5, 459.5]]
    """
    xyz_mm = np.asarray(xyz_mm, np.float64)
    if xyz_mm.ndim != 3 or xyz_mm.shape[1:] != (len(skeleton), 3):
        raise ValueError(
            f"Poses in skeleton {skeleton.name!r} must have shape (N, {len(skeleton)}, 3), got {xyz_mm.shape}."
        )
    if not (distance_mm > 0 and focal_px > 0 and min(size_wh) > 0 and abs(elevation_degrees) < 90):
        raise ValueError(
            "Distance, focal length and size must be positive and the elevation below 90 degrees, got "
            f"{distance_mm}, {focal_px}, {size_wh} and {elevation_degrees}."
        )
    if projection not in ("perspective", "weak") or relative_to not in ("world", "person"):
        raise ValueError(
            "projection must be 'perspective' or 'weak' and relative_to 'world' or 'person', got "
            f"{projection!r} and {relative_to!r}."
        )
    if not len(degrees) or not np.isfinite(degrees).all():
        raise ValueError(f"Give at least one side in degrees, got {list(degrees)}.")
    relative = xyz_mm - xyz_mm[:, skeleton.index(root)][:, None]
    facing = np.zeros(len(xyz_mm)) if relative_to == "world" else facing_degrees(xyz_mm, skeleton)
    camera = Camera(
        focal_px, ((size_wh[0] - 1) / 2, (size_wh[1] - 1) / 2), np.eye(3), np.array([0.0, 0.0, distance_mm])
    )
    seen, pixels = [], []
    for side in degrees:
        turned = np.einsum("nij,nkj->nki", _looking(facing + side, elevation_degrees), relative)
        flat = turned * [1.0, 1.0, 0.0] if projection == "weak" else turned
        seen.append(turned)
        pixels.append(camera.project(flat))
    count = len(xyz_mm)
    root_mm = np.tile(camera.translation_mm, (count * len(degrees), 1))
    return LiftingPairs(
        skeleton, np.concatenate(pixels).astype(np.float32), np.concatenate(seen).astype(np.float32),
        root_mm.astype(np.float32), np.repeat(np.asarray(degrees, np.float32), count),
        np.tile(np.arange(count), len(degrees)), focal_px, camera.center_xy, size_wh,
    )  # fmt: skip


def facing_degrees(xyz_mm: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return the side from which each person is seen from the front: ``(N,)`` degrees, NaN where hips are unknown.

    Args:
        xyz_mm: ``(N, K, 3)``, world frame with y up.
        skeleton: With "left_hip" and "right_hip".

    Raises:
        LookupError: The skeleton has no hips.
    """
    across = xyz_mm[:, skeleton.index("left_hip")] - xyz_mm[:, skeleton.index("right_hip")]
    return np.degrees(np.arctan2(-across[:, 2], across[:, 0]))  # across x up: facing +z has left hips at +x


def _looking(degrees: np.ndarray, elevation_degrees: float) -> np.ndarray:
    """Return the rotations from the world (y up) to cameras on these sides: ``(N, 3, 3)``."""
    angle, tilt = np.radians(degrees), np.radians(elevation_degrees)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    level = np.stack([cos, zero, -sin, zero, -one, zero, -sin, zero, -cos], -1).reshape(-1, 3, 3)
    down = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return down @ level
