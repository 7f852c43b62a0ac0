"""Labels that contradict each other are seen, and sound ones are left alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poseglass.core.boxes import around, xywh_to_xyxy, xyxy_to_xywh
from poseglass.core.plausible import box_fractions, boxes_as_corners, fractions, implausible_areas

NONE = np.full((1, 2), np.nan)


def people(count: int, seed: int, size_wh: tuple[int, int], *, k: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints and loose boxes xyxy of people anywhere in images of a size."""
    rng = np.random.default_rng(seed)
    size = np.array(size_wh, np.float64)
    extent = rng.uniform(0.15, 0.6, (count, 1, 1)) * size
    corner = rng.uniform(0, 1, (count, 1, 2)) * (size - extent)
    xy = corner + rng.uniform(0, 1, (count, k, 2)) * extent
    box = around(xy).astype(np.float64)
    pad = rng.uniform(0.0, 0.25, (count, 1)) * (box[:, 2:] - box[:, :2])
    low, high = np.maximum(box[:, :2] - pad, 0), np.minimum(box[:, 2:] + pad, size)
    return xy, np.concatenate([low, high], 1)


@given(st.integers(1, 30), st.integers(0, 10**6), st.sampled_from([(160, 200), (640, 480), (64, 64), (4000, 3000)]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_right_boxes_do_not_look_like_corners(count, seed, size_wh):
    xy, box = people(count, seed, size_wh)
    for sizes in (np.tile(np.array(size_wh, np.float64), (count, 1)), np.full((count, 2), np.nan)):
        assert not boxes_as_corners(xyxy_to_xywh(box), xy, sizes).any()
        assert not fractions(xy, box, sizes)
        assert not box_fractions(xy, box)


@given(st.integers(4, 30), st.integers(0, 10**6), st.sampled_from([(160, 200), (640, 480), (4000, 3000)]))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_corners_are_recognised_where_most_people_are_away_from_the_first_pixel(count, seed, size_wh):
    xy, box = people(count, seed, size_wh)
    away = (box[:, :2] > 0.25 * np.array(size_wh)).any(1)
    xy, box = xy[away], box[away]
    if len(xy) < 4:
        return
    sizes = np.tile(np.array(size_wh, np.float64), (len(xy), 1))
    assert boxes_as_corners(box, xy, sizes).mean() >= 0.7


def test_corners_of_single_keypoints_show_in_boxes_that_leave_the_image():
    xy = np.array([[[300.0, 200.0]], [[350.0, 260.0]], [[400.0, 300.0]]])
    corners = np.array([[250.0, 150.0, 380.0, 300.0], [300.0, 200.0, 420.0, 330.0], [350.0, 240.0, 460.0, 400.0]])
    assert boxes_as_corners(corners, xy, np.full((3, 2), 480.0)).all()
    assert not boxes_as_corners(corners, xy, np.full((3, 2), np.nan)).any()  # nothing tells


def test_one_box_alone_must_leave_its_image_to_look_like_corners():
    xy, _ = people(1, 3, (640, 480))
    shifted = xy + np.array([300.0, 0.0])
    assert not boxes_as_corners(around(shifted).astype(float), shifted, NONE).any()


@pytest.mark.parametrize("scale", [1.0, 1 / 3])
def test_fractions_are_seen_with_and_without_sizes(scale):
    rng = np.random.default_rng(1)
    xy = rng.uniform(0.1, 0.9, (3, 5, 2)) * scale
    box = np.array([[10.0, 20.0, 300.0, 400.0]] * 3)
    assert fractions(xy, box, np.full((3, 2), 640.0))
    assert fractions(xy, np.full((3, 4), np.nan), np.full((3, 2), np.nan))
    assert not fractions(xy, np.full((3, 4), np.nan), np.full((3, 2), 2.0))  # images of two pixels
    assert not fractions(xy[:1, :2], box[:1], np.full((1, 2), 640.0))  # too few to tell
    assert not fractions(np.zeros((3, 5, 2)), box, np.full((3, 2), 640.0))  # all at the origin is another fault
    assert box_fractions(xy * 400, box / 640)
    assert not box_fractions(xy * 400, box)


def test_areas_that_are_those_of_masks_pass():
    box = xywh_to_xyxy(np.array([[0.0, 0.0, 100.0, 200.0]] * 7))
    area = np.array([20_000.0, 6_000.0, 1_000.0, np.nan, 0.0, 1.0, 90_000.0])
    sizes = np.full((7, 2), 500.0)
    wrong = implausible_areas(area, box, sizes, np.ones(7, bool))
    assert wrong.tolist() == [False, False, False, False, True, True, True]
    assert not implausible_areas(area, box, sizes, np.zeros(7, bool)).any()  # nobody is labelled
    assert implausible_areas(np.array([20_000.0]), box[:1], np.full((1, 2), 50.0), np.ones(1, bool)).all()


def test_heads_at_the_upper_left_of_whole_bodies_are_not_corners():
    rng = np.random.default_rng(0)
    xy = rng.uniform([120, 80], [180, 140], (50, 5, 2))
    box = np.tile([100.0, 60.0, 300.0, 400.0], (50, 1))
    assert not boxes_as_corners(box, xy, np.tile([1920.0, 1080.0], (50, 1))).any()
    assert not boxes_as_corners(box[:2], xy[:2], np.full((2, 2), np.nan)).any()


def test_boxes_that_stand_for_none_are_no_fractions():
    xy = np.random.default_rng(0).uniform(10, 300, (6, 5, 2))
    assert not box_fractions(xy, np.tile([0.0, 0.0, 1.0, 1.0], (6, 1)))
