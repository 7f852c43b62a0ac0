"""Poses in three dimensions, seen from any side."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.drawing.palette import OUTLINE_RGB
from poseglass.drawing.pose import draw
from poseglass.drawing.text import write_text

GROUND_RGB = (232, 234, 238)
_FLOOR_RGB = (196, 200, 208)
_FARTHEST = 0.45
"""Score of the farthest keypoint of a pose, which makes it fainter; the nearest has 1."""


def turned(xyz_mm: np.ndarray, *, side_degrees: float = 0.0, above_degrees: float = 0.0) -> np.ndarray:
    """Return poses as a camera sees them that has moved round them.

    Args:
        xyz_mm: ``(..., 3)``, camera frame: x right, y down, z away.
        side_degrees: How far the camera went to its right: at 90 it looks at what was the right side of the image, and
            what was far away is to the right now.
        above_degrees: How far it went up, after that.

    Example:
        >>> turned(np.array([10.0, 20.0, 30.0]), side_degrees=90).round(6).tolist()
        [30.0, 20.0, -10.0]
        >>> turned(np.array([10.0, 20.0, 30.0]), above_degrees=90).round(6).tolist()
        [10.0, -30.0, 20.0]
    """
    side, above = np.radians(side_degrees), np.radians(above_degrees)
    c, s = np.cos(side), np.sin(side)
    round_it = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(above), np.sin(above)
    over_it = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.asarray(xyz_mm) @ (over_it @ round_it).T


def draw_3d(
    xyz_mm: np.ndarray,
    skeleton: Skeleton,
    *,
    side_degrees: float = 0.0,
    above_degrees: float = 0.0,
    size_px: int = 240,
    span_mm: float = 1900.0,
    title: str = "",
    guessed: np.ndarray | None = None,
) -> np.ndarray:
    """Return one pose without perspective, seen from a side: ``(size_px, size_px, 3)`` uint8 RGB.

    Keypoints that are farther away are fainter. The line is the height of the lowest keypoint, where the ground is if
    the person stands and the camera is level.

    Args:
        xyz_mm: ``(K, 3)``, camera frame: x right, y down, z away. NaN is not drawn.
        skeleton: Of the pose.
        side_degrees: As for ``turned``.
        above_degrees: As for ``turned``.
        size_px: Side of the image.
        span_mm: What the side of the image shows; a larger pose is made to fit.
        title: Written in the upper left corner, above the pose.
        guessed: ``(K,)`` bool: keypoints that are drawn hollow, since the image does not show them.

    Raises:
        ValueError: The pose has another shape, or a size is not positive.
    """
    if np.shape(xyz_mm) != (len(skeleton), 3):
        raise ValueError(
            f"A pose in skeleton {skeleton.name!r} must have shape ({len(skeleton)}, 3), got {np.shape(xyz_mm)}."
        )
    if size_px < 16 or not span_mm > 0:
        raise ValueError(f"size_px must be at least 16 and span_mm above 0, got {size_px} and {span_mm}.")
    seen = turned(xyz_mm, side_degrees=side_degrees, above_degrees=above_degrees)
    canvas = np.full((size_px, size_px, 3), GROUND_RGB, np.uint8)
    known = np.isfinite(seen).all(1)
    text = max(10, size_px // 17)
    top = min(2 * text, size_px // 4) if title else 0  # the title must not hide a head
    if known.any():
        low, high = seen[known, :2].min(0), seen[known, :2].max(0)
        scale = min(size_px / span_mm, (size_px - top) / max(1.12 * float((high - low).max()), 1.0))
        flat = (seen[:, :2] - (low + high) / 2) * scale + (size_px - 1) / 2
        flat[:, 1] += top / 2
        if abs(above_degrees) < 45:  # seen from above, there is no line of the ground
            floor = round(float(flat[known, 1].max() + 0.02 * size_px))
            cv2.line(canvas, (round(0.08 * size_px), floor), (round(0.92 * size_px), floor), _FLOOR_RGB, 1, cv2.LINE_AA)
        depth = seen[:, 2]
        near, far = depth[known].min(), depth[known].max()
        score = 1 - (1 - _FARTHEST) * (depth - near) / max(float(far - near), 1.0)
        person = Instances.from_keypoints(skeleton, flat[None], score=np.where(known, score, 0.0)[None])
        if guessed is not None:
            person = replace(person, keypoint_extra={"occluded": np.asarray(guessed, bool)[None]})
        canvas = draw(canvas, person, min_score=0.01, occluded=True)
    if title:
        write_text(canvas, title, (text // 2, text // 3), size_px=text, ground=OUTLINE_RGB)
    return canvas


VIEWS = (("as in the image", 0.0), ("from the right", 90.0))
"""Title and side of what ``draw_beside`` shows of each person."""

MOST_BESIDE = 8
"""Largest number of people in ``draw_beside``."""

_LEAST_PX, _MOST_PX, _GAP_PX = 180, 360, 8


def draw_beside(
    image: np.ndarray,
    poses_mm: np.ndarray,
    numbers: list[int],
    skeleton: Skeleton,
    *,
    doubtful: Sequence[int] = (),
    guessed: np.ndarray | None = None,
) -> np.ndarray:
    """Return an image with the 3D poses of its people beside it: each seen as in the image and from the right.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, with the numbers of its people.
        poses_mm: ``(N, K, 3)``, camera frame; the first ``MOST_BESIDE`` are drawn.
        numbers: N numbers, as in the image.
        skeleton: Of the poses.
        doubtful: Numbers of people whose poses are not to be trusted, which their second view says.
        guessed: ``(N, K)`` bool, as for ``draw_3d``.
    """
    count = min(len(poses_mm), MOST_BESIDE)
    if not count:
        return image
    rows = min(count, max(1, image.shape[0] // _LEAST_PX))
    size = int(np.clip(image.shape[0] // rows, _LEAST_PX, _MOST_PX))
    people = []
    hollow = np.zeros(poses_mm.shape[:2], bool) if guessed is None else guessed
    for pose, number, unseen in zip(poses_mm[:count], numbers, hollow, strict=False):
        views = []
        for title, side in VIEWS:
            words = f"{title}, doubtful" if number in doubtful else title
            titled = words if side else f"{number}: {title}"
            views.append(draw_3d(pose, skeleton, side_degrees=side, size_px=size, title=titled, guessed=unseen))
        people.append(np.concatenate(views, 1))
    columns = -(-count // rows)
    width = people[0].shape[1]
    out = np.full(
        (max(image.shape[0], rows * size), image.shape[1] + columns * (width + _GAP_PX), 3), GROUND_RGB, np.uint8
    )
    out[: image.shape[0], : image.shape[1]] = image
    for i, person in enumerate(people):
        left = image.shape[1] + _GAP_PX + (i // rows) * (width + _GAP_PX)
        top = (i % rows) * size
        out[top : top + size, left : left + width] = person
    return out
