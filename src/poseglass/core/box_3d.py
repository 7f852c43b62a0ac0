"""Boxes in space: their corners, what one image shows of them, and the way back through the calibration of its camera.

A box in space is ``(7,)``: the x, y and z of its middle, its length, height and width in millimetres, and its yaw in
radians, in the camera frame (x right, y down, z away). Yaw turns about the y axis: at 0 the front looks along x, at
-pi / 2 along z, away from the camera. A calibration is a projection ``(3, 4)``, camera frame in millimetres to pixels.

What one image shows of a box is ``(8,)``, see ``observe``. It says nothing of where the object is beside the optical
axis except by a pixel, so a network can tell it from the pixels alone.

Geometry of Geiger, Lenz, Urtasun, "Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite", CVPR 2012,
and its development kit; KITTI's own boxes are in metres and stand on the middle of their bottom (``readers.kitti``).
"""

import numpy as np

NEAREST_MM = 10.0
"""Points nearer than this have no pixel."""

_SIGNS = np.array(
    [(1, 1, 1), (1, 1, -1), (1, -1, -1), (1, -1, 1), (-1, 1, 1), (-1, 1, -1), (-1, -1, -1), (-1, -1, 1)], np.float64
)
"""Of length, height and width at each corner: the front face, then the back face; y is down, so 1 is the bottom."""

EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Pairs of corners that an edge joins; the first four are the front face's."""

OBSERVED = ("x_px", "y_px", "depth_mm", "focal_px", "length_mm", "height_mm", "width_mm", "alpha")
"""What the columns of ``observe`` are."""


def wrapped(angle: np.ndarray) -> np.ndarray:
    """Return angles in (-pi, pi].

    Example:
        >>> wrapped(np.array([-np.pi, 2.0 * np.pi])).tolist()
        [3.141592653589793, 0.0]
    """
    return np.pi - np.mod(np.pi - np.asarray(angle), 2 * np.pi)


def check_projection(projection: np.ndarray, where: str = "projection") -> np.ndarray:
    """Return a calibration as ``(3, 4)`` float64.

    Args:
        projection: Camera frame in millimetres to pixels.
        where: What the message calls it.

    Raises:
        ValueError: Another shape; not finite; singular, so that a pixel and a depth give no point; or of a camera that
            is turned against its frame or has skewed pixels, which no rectified image has.
    """
    matrix = np.asarray(projection, np.float64)
    if matrix.shape != (3, 4):
        raise ValueError(f"{where} must be a projection of 3 rows and 4 columns, got shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{where} has a value that is not finite: {matrix.tolist()}.")
    left = matrix[:, :3]
    if abs(np.linalg.det(left)) <= 1e-9 * max(np.abs(left).max(), 1e-9) ** 2:
        raise ValueError(
            f"{where} is singular: its first three columns {left.round(6).tolist()} have the determinant "
            f"{np.linalg.det(left):.3g}, so no point follows from a pixel and a depth. A calibration has focal lengths "
            "above 0 on the diagonal and 1 in the last row, as KITTI's P2."
        )
    skew = np.abs([left[0, 1], left[1, 0]]).max() > 1e-6 * np.abs(left).max()
    if skew or np.abs(left[2] - [0.0, 0.0, 1.0]).max() > 1e-6 or left[0, 0] <= 0 or left[1, 1] <= 0:
        raise ValueError(
            f"{where} must be that of a rectified camera, with rows (fx, 0, cx, .), (0, fy, cy, .) and (0, 0, 1, .) "
            f"and focal lengths above 0, got {matrix.round(6).tolist()}. Rectify the image first."
        )
    return matrix


def project(xyz_mm: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Map points ``(..., 3)`` to pixels ``(..., 2)``; NaN where a point is behind the camera or at it.

    Args:
        xyz_mm: In the camera frame.
        projection: ``(..., 3, 4)``, with the leading axes of the points or none.
    """
    points, matrix = np.asarray(xyz_mm, np.float64), np.asarray(projection, np.float64)
    seen = (matrix[..., :3] @ points[..., None])[..., 0] + matrix[..., 3]
    return seen[..., :2] / np.where(seen[..., 2:] >= NEAREST_MM, seen[..., 2:], np.nan)


def turn_of(yaw: np.ndarray | float) -> np.ndarray:
    """Return the rotations ``(..., 3, 3)`` of yaws ``(...)``: points ``(M, 3)`` of a box, times it, are turned.

    Example:
        At -pi / 2 the front, which is along x in the box, looks along z.

        >>> ([[1.0, 0.0, 0.0]] @ turn_of(-np.pi / 2)).round(6).tolist()
        [[0.0, 0.0, 1.0]]
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    return np.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], -1).reshape(*np.shape(yaw), 3, 3)


def corners_of(box_3d: np.ndarray) -> np.ndarray:
    """Return the corners ``(..., 8, 3)`` of boxes ``(..., 7)``, millimetres: the front face's four, then the back's.

    Each face begins at the bottom.

    Example:
        The front of a box with yaw 0 looks along x.

        >>> corners_of(np.array([0.0, 0.0, 9.0, 4.0, 2.0, 2.0, 0.0]))[:4, 0].tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    box = np.asarray(box_3d, np.float64)
    own = _SIGNS * box[..., None, 3:6] / 2
    return own @ turn_of(box[..., 6]) + box[..., None, :3]


def observe(box_3d: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Return what an image shows of boxes ``(N, 7)``: ``(N, 8)`` float64, columns as ``OBSERVED``.

    These are the pixel of the middle of the box, the depth that the projection divides by (for a camera at the origin,
    z), the focal length of the image, the length, height and width, and alpha, the yaw against the ray through the
    middle. An object that moves along a circle about the camera and turns with it keeps its alpha, and looks the same.

    Args:
        box_3d: Boxes; rows of NaN stay NaN.
        projection: ``(N, 3, 4)`` or ``(3, 4)``.

    Returns:
        NaN in all columns where the middle is behind the camera.
    """
    box, matrix = np.asarray(box_3d, np.float64), np.asarray(projection, np.float64)
    matrix = np.broadcast_to(matrix, (len(box), 3, 4))
    xy = project(box[:, :3], matrix)
    depth = (matrix[:, 2, :3] * box[:, :3]).sum(-1) + matrix[:, 2, 3]
    focal = matrix[:, 0, 0]
    alpha = wrapped(box[:, 6] - np.arctan2(xy[:, 0] - matrix[:, 0, 2], focal))
    seen = np.stack([xy[:, 0], xy[:, 1], depth, focal, box[:, 3], box[:, 4], box[:, 5], alpha], -1)
    return np.where(np.isfinite(seen).all(-1, keepdims=True), seen, np.nan)


def lift(observed: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Return the boxes ``(N, 7)`` float64 that an image shows as ``observed``; the inverse of ``observe``.

    Args:
        observed: ``(N, 8)``, columns as ``OBSERVED``. A focal length other than that of the projection is the one for
            which the depth is stated: a depth at another focal length is larger by their ratio. 0 takes the depth as
            it is.
        projection: ``(N, 3, 4)`` or ``(3, 4)``, of the image that the pixels are of.

    Source:
        The development kit of KITTI; the depths at one focal length are ours.

    Example:
        >>> P = np.array([[700.0, 0, 300, 0], [0, 700, 100, 0], [0, 0, 1, 0]])
        >>> box = np.array([[2000.0, 500.0, 20000.0, 4000.0, 1500.0, 1700.0, 0.5]])
        >>> bool(np.allclose(lift(observe(box, P), P), box))
        True
    """
    seen, matrix = np.asarray(observed, np.float64), np.asarray(projection, np.float64)
    matrix = np.broadcast_to(matrix, (len(seen), 3, 4))
    focal = matrix[:, 0, 0]
    stated = seen[:, 3]
    depth = seen[:, 2] * np.where(stated > 0, focal / np.where(stated > 0, stated, 1.0), 1.0)
    z = depth - matrix[:, 2, 3]
    x = (seen[:, 0] * depth - matrix[:, 0, 3] - matrix[:, 0, 2] * z) / focal
    y = (seen[:, 1] * depth - matrix[:, 1, 3] - matrix[:, 1, 2] * z) / matrix[:, 1, 1]
    yaw = wrapped(seen[:, 7] + np.arctan2(seen[:, 0] - matrix[:, 0, 2], focal))
    return np.stack([x, y, z, seen[:, 4], seen[:, 5], seen[:, 6], yaw], -1)


def moved_projection(projection: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the calibrations of an image after a map of its pixels; a flip gives those of the mirrored scene.

    Args:
        projection: ``(N, 3, 4)``.
        matrix: ``(2, 3)``, old pixels to new ones; it may scale, shift and flip left to right.

    Raises:
        ValueError: The map turns the image, or flips it upside down, after which the camera's y axis no longer points
            down in it.
    """
    linear = np.asarray(matrix, np.float64)[:, :2]
    turned = np.abs([linear[0, 1], linear[1, 0]]).max() > 1e-6 * np.abs(linear).max()
    if turned or linear[1, 1] <= 0:
        raise ValueError(
            "Instances with box_3d can be scaled, shifted and flipped left to right, but not turned: "
            f"{linear.tolist()}. Set the degrees of augmentation to 0 (random_affine: degrees = 0.0), or drop them "
            "first: dataclasses.replace(instances, box_3d=None, projection=None)."
        )
    whole = np.concatenate([np.asarray(matrix, np.float64), [[0.0, 0.0, 1.0]]])
    after = whole @ np.asarray(projection, np.float64)
    if linear[0, 0] < 0:
        after = after * np.array([-1.0, 1.0, 1.0, 1.0])
    return after


def mirrored(box_3d: np.ndarray) -> np.ndarray:
    """Return boxes ``(N, 7)`` mirrored left to right: x and the direction along x change their sign."""
    box = np.asarray(box_3d).copy()
    box[:, 0] = -box[:, 0]
    box[:, 6] = wrapped(np.pi - box[:, 6])
    return box
