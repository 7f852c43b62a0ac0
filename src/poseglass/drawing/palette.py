"""Colours that distinguish left, right and middle, also for colour-blind readers and in grey."""

import colorsys
from typing import Literal

import numpy as np

from poseglass.core.skeleton import Skeleton

Side = Literal["left", "right", "middle"]

SIDE_RGB: dict[Side, tuple[int, int, int]] = {
    "left": (255, 159, 28),
    "right": (40, 116, 255),
    "middle": (245, 245, 245),
}
"""Orange, blue and white: distinct for the common kinds of colour blindness, and in lightness for a grey print."""

OUTLINE_RGB = (16, 18, 24)
"""Around every line, so that it is visible on light and on dark backgrounds."""


def sides(skeleton: Skeleton) -> tuple[Side, ...]:
    """Return the side of each of K keypoints, the person's own.

    The word in the name decides; without one, the first of a flip pair is left.

    Example:
        >>> sides(Skeleton("toy", ("nose", "left_eye", "right_eye", "a", "b"), flip_pairs=(("a", "b"),)))
        ('middle', 'left', 'right', 'left', 'right')
    """
    named: dict[str | None, Side] = {"left": "left", "right": "right", None: "middle"}
    return tuple(named[side] for side in skeleton.sides)


def joint_colors(skeleton: Skeleton) -> np.ndarray:
    """Return a separate colour for each keypoint: ``(K, 3)`` uint8 RGB.

    Left runs from yellow to red, right from green-blue to violet, the middle through greens; a skeleton without
    sides (a hand) runs once around the colour circle.

    Example:
        >>> joint_colors(Skeleton("toy", ("nose", "left_eye", "right_eye"))).tolist()
        [[81, 242, 41], [242, 210, 41], [41, 242, 230]]
    """
    of = sides(skeleton)
    arcs = {"left": (0.14, -0.04), "right": (0.49, 0.78), "middle": (0.30, 0.42)}
    if set(of) == {"middle"}:
        arcs["middle"] = (0.0, 0.85)
    colors = np.zeros((len(of), 3), np.uint8)
    for side, (start, stop) in arcs.items():
        rows = [i for i, s in enumerate(of) if s == side]
        for step, i in enumerate(rows):
            hue = start + (stop - start) * step / max(len(rows) - 1, 1)
            rgb = colorsys.hsv_to_rgb(hue % 1.0, 0.83, 0.95)
            colors[i] = [round(255 * c) for c in rgb]
    return colors


def pose_colors(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours in which a pose is drawn: joints ``(K, 3)`` and bones ``(M, 3)``, uint8 RGB.

    A bone has the side of its ends; between two sides it is in the middle. A skeleton without sides uses
    ``joint_colors``, with the colour of the second end for a bone.
    """
    of = sides(skeleton)
    bones = skeleton.bone_indices
    if set(of) == {"middle"}:
        joints = joint_colors(skeleton)
        return joints, joints[bones[:, 1]]
    joints = np.array([SIDE_RGB[s] for s in of], np.uint8)
    colors = np.zeros((len(bones), 3), np.uint8)
    for row, (a, b) in enumerate(bones):
        ends = {of[a], of[b]} - {"middle"}
        colors[row] = SIDE_RGB[ends.pop()] if len(ends) == 1 else SIDE_RGB["middle"]
    return joints, colors
