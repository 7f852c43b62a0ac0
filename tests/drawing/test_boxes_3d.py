from dataclasses import replace

import numpy as np
import pytest

from poseglass.core.box_3d import corners_of, project
from poseglass.core.instances import Instances
from poseglass.core.skeletons import BOXES
from poseglass.drawing.boxes_3d import COLORS, draw_boxes_3d

CAMERA = np.array([[900.0, 0, 500, 0], [0, 900, 200, 0], [0, 0, 1, 0]])


def one(box: list[float], label: int = 0) -> Instances:
    return Instances(
        BOXES, np.zeros((1, 0, 2)), np.zeros((1, 0)), [[300, 100, 700, 300]], [1.0], [label],
        box_3d=np.array([box]), projection=CAMERA[None],
    )  # fmt: skip


def changed(image: np.ndarray, found: Instances, **options) -> np.ndarray:
    return (draw_boxes_3d(image, found, numbers=False, **options) != image).any(-1)


def test_edges_and_the_front_are_drawn():
    image = np.full((400, 1000, 3), 90, np.uint8)
    box = [0.0, 500, 10000, 4000, 1500, 1700, -0.9]
    drawn = changed(image, one(box))
    corners = project(corners_of(np.array([box]))[0], CAMERA)
    for x, y in np.round(corners).astype(int):
        assert drawn[y - 1 : y + 2, x - 1 : x + 2].any()
    front, back = (np.round(part.mean(0)).astype(int) for part in (corners[:4], corners[4:]))
    assert drawn[front[1], front[0]]
    turned = changed(image, one([*box[:6], box[6] + np.pi]))
    assert not np.array_equal(drawn, turned)
    assert turned[back[1], back[0]]
    assert (image == 90).all()


def test_small_images_are_enlarged_and_names_written():
    image = np.full((100, 250, 3), 90, np.uint8)
    found = replace(one([0.0, 500, 10000, 4000, 1500, 1700, 0.4], 1), projection=CAMERA[None] * [[0.25], [0.25], [1]])
    plain = draw_boxes_3d(image, found, numbers=False)
    assert plain.shape == (400, 1000, 3)
    assert not np.array_equal(plain, draw_boxes_3d(image, found, names=("a", "car"), numbers=False))
    assert (plain == np.array(COLORS[1])).all(-1).any()
    assert draw_boxes_3d(image, found[:0]).shape == (400, 1000, 3)


def test_boxes_that_reach_behind_the_camera_are_cut_off():
    image = np.full((400, 1000, 3), 90, np.uint8)
    assert changed(image, one([-1500.0, 500, 1500, 4000, 1500, 1700, -np.pi / 2])).any()
    assert not changed(image, one([-1500.0, 500, -9000, 4000, 1500, 1700, 0.0]))[:, 500:].any()


def test_unknown_boxes_are_drawn_in_the_image():
    image = np.full((400, 1000, 3), 90, np.uint8)
    drawn = changed(image, one([np.nan] * 7))
    columns = np.nonzero(drawn)[1]
    assert abs(columns.min() - 300) < 3
    assert abs(columns.max() - 700) < 3
    with pytest.raises(ValueError, match=r"draw_boxes_3d needs instances with box_3d and projection"):
        draw_boxes_3d(image, replace(one([np.nan] * 7), box_3d=None))
