"""3D poses from any side: what is right, up and far there."""

import numpy as np
import pytest

from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import H36M17
from poseglass.drawing.scene3d import GROUND_RGB, MOST_BESIDE, draw_3d, draw_beside, turned

ONE = Skeleton("one", ("left_hand", "right_hand"), (("left_hand", "right_hand"),))


def where(image: np.ndarray, side: str) -> np.ndarray:
    """Return the middle of the pixels that are orange (left) or blue (right), x and y; faint ones too."""
    redder = image[..., 0].astype(int) - image[..., 2]
    rows, columns = np.nonzero(redder > 50 if side == "left" else redder < -50)
    assert len(rows)
    return np.array([columns.mean(), rows.mean()])


def test_turned_keeps_shape_and_frame():
    points = np.random.default_rng(0).normal(size=(5, 17, 3))
    out = turned(points, side_degrees=37, above_degrees=-12)
    assert np.allclose(np.linalg.norm(out, axis=-1), np.linalg.norm(points, axis=-1))
    a, b = turned(np.eye(3), side_degrees=37, above_degrees=20)[:2]
    assert np.allclose(np.cross(a, b), turned(np.eye(3), side_degrees=37, above_degrees=20)[2])
    assert np.allclose(turned(turned(points, side_degrees=90), side_degrees=-90), points)


def test_what_each_side_shows():
    """The left hand is right, up and near in the camera frame, the right hand the opposite."""
    pose = np.array([[400.0, -300.0, -500.0], [-400.0, 300.0, 500.0]])
    front = draw_3d(pose, ONE, size_px=200)
    left, right = where(front, "left"), where(front, "right")
    assert left[0] > right[0]
    assert left[1] < right[1]
    side = draw_3d(pose, ONE, side_degrees=90, size_px=200)
    left, right = where(side, "left"), where(side, "right")
    assert left[0] < right[0]  # far away is to the right now
    assert left[1] < right[1]
    above = draw_3d(pose, ONE, above_degrees=89, size_px=200)
    left, right = where(above, "left"), where(above, "right")
    assert left[0] > right[0]
    assert left[1] > right[1]  # what is near is below


def test_unknown_keypoints_and_large_poses():
    nobody = draw_3d(np.full((2, 3), np.nan), ONE, size_px=64)
    assert (nobody == GROUND_RGB).all()
    half = np.array([[np.nan] * 3, [0.0, 0.0, 0.0]])
    assert len(np.unique(draw_3d(half, ONE, size_px=64).reshape(-1, 3), axis=0)) > 1
    huge = draw_3d(np.array([[9e4, 0, 0], [-9e4, 0, 0]]), ONE, size_px=64)
    assert where(huge, "left")[0] < 64


def test_guessed_keypoints_are_hollow():
    pose = np.zeros((17, 3))
    pose[:, 0], pose[:, 1] = 100 * np.arange(17) - 800, 50 * np.arange(17)
    guessed = np.zeros(17, bool)
    guessed[H36M17.index("left_wrist")] = True
    plain, hollow = draw_3d(pose, H36M17), draw_3d(pose, H36M17, guessed=guessed)
    changed = np.argwhere((plain != hollow).any(2))
    assert len(changed) > 0
    drawn, drawn_hollow = ((view != GROUND_RGB).any(2).sum() for view in (plain, hollow))
    assert abs(int(drawn) - int(drawn_hollow)) < 8  # it is still there, with its bone
    assert np.ptp(changed, axis=0).max() < 80  # it, and the bone that ends there
    image = np.zeros((200, 300, 3), np.uint8)
    beside = draw_beside(image, pose[None], [1], H36M17, guessed=guessed[None])
    assert (beside != draw_beside(image, pose[None], [1], H36M17)).any()


def test_beside():
    image = np.full((300, 200, 3), 90, np.uint8)
    poses = np.random.default_rng(1).normal(0, 300, (MOST_BESIDE + 3, 2, 3))
    out = draw_beside(image, poses, list(range(1, len(poses) + 1)), ONE)
    assert out.shape == (300, 200 + MOST_BESIDE * (2 * 300 + 8), 3)  # one row has space in 300 px
    tall = draw_beside(np.full((900, 200, 3), 90, np.uint8), poses[:3], [1, 2, 3], ONE)
    assert tall.shape == (900, 200 + 2 * 300 + 8, 3)
    assert (out[:300, :200] == 90).all()
    assert draw_beside(image, poses[:0], [], ONE) is image
    said = draw_beside(image, poses[:1], [1], ONE, doubtful=[1])
    assert (said != draw_beside(image, poses[:1], [1], ONE, doubtful=[2])).any()


def test_poses_of_another_shape():
    with pytest.raises(ValueError, match=r"'one' must have shape \(2, 3\), got \(3, 3\)"):
        draw_3d(np.zeros((3, 3)), ONE)
    with pytest.raises(ValueError, match="size_px must be at least 16"):
        draw_3d(np.zeros((2, 3)), ONE, size_px=4)


def test_the_title_is_above_the_pose():
    tall = np.array([[0.0, -2000.0, 0.0], [0.0, 2000.0, 0.0]])
    plain, titled = (draw_3d(tall, ONE, size_px=240, title=title) for title in ("", "as in the image"))
    orange = [np.flatnonzero((image[..., 0].astype(int) - image[..., 2] > 50).any(1)) for image in (plain, titled)]
    words = np.flatnonzero((titled[:120, :20] != GROUND_RGB).any((1, 2)))  # the line of the ground is lower
    assert orange[0].min() < words.max() < orange[1].min()  # without a title, the pose may reach as high
