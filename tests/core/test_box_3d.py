"""Boxes in space: to what an image shows of them and back, through calibrations, warps and flips."""

from dataclasses import replace

import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.box_3d import check_projection, corners_of, lift, observe, project, wrapped
from poseglass.core.boxes import around
from poseglass.core.instances import Instances
from poseglass.core.skeletons import BOXES

P2 = np.array(
    [[721.5377, 0.0, 609.5593, 44857.28], [0.0, 721.5377, 172.854, 216.3791], [0.0, 0.0, 1.0, 2.745884]]
)  # KITTI's, in millimetres


def boxes(count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(4)
    at = rng.uniform((-15000, -1000, 4000), (15000, 2500, 60000), (count, 3))
    size = rng.uniform(400, 5000, (count, 3))
    return np.concatenate([at, size, rng.uniform(-np.pi, np.pi, (count, 1))], 1)


def instances(count: int = 6) -> Instances:
    box = boxes(count)
    flat = around(project(corners_of(box), P2))
    return Instances(
        BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), flat, np.ones(count), box_3d=box,
        projection=np.broadcast_to(P2, (count, 3, 4)),
    )  # fmt: skip


def test_location_and_yaw_come_back():
    box = boxes()
    back = lift(observe(box, P2), P2)
    np.testing.assert_allclose(back[:, :6], box[:, :6], rtol=0, atol=1e-6)
    np.testing.assert_allclose(back[:, 6], box[:, 6], rtol=0, atol=1e-6)


def test_depth_may_be_stated_at_another_focal_length():
    box = boxes()
    seen = observe(box, P2)
    at_500 = seen.copy()
    at_500[:, 2] *= 500 / seen[:, 3]
    at_500[:, 3] = 500
    np.testing.assert_allclose(lift(at_500, P2), box, rtol=0, atol=1e-6)
    seen[:, 3] = 0  # the depth as it is
    np.testing.assert_allclose(lift(seen, P2), box, rtol=0, atol=1e-6)


def test_corners_are_projected_into_the_box_of_their_extremes():
    box = boxes()
    corners = project(corners_of(box), P2)
    seen = np.isfinite(corners).all((1, 2))
    assert seen.sum() > 350
    flat = around(corners[seen])
    middle = project(box[seen, :3], P2)
    for points in (corners[seen], middle[:, None]):
        assert (points >= flat[:, None, :2] - 1e-3).all()
        assert (points <= flat[:, None, 2:] + 1e-3).all()


def test_corners_have_the_size_of_the_box_and_its_front_first():
    box = boxes()
    corners = corners_of(box)
    np.testing.assert_allclose(corners.mean(1), box[:, :3], atol=1e-9)
    ahead = np.stack([np.cos(box[:, 6]), np.zeros(len(box)), -np.sin(box[:, 6])], -1)
    np.testing.assert_allclose(corners[:, :4].mean(1) - box[:, :3], ahead * box[:, 3:4] / 2, atol=1e-9)
    np.testing.assert_allclose(np.ptp(corners[..., 1], axis=1), box[:, 4])
    np.testing.assert_allclose(np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1), box[:, 5])


def test_alpha_is_that_of_kitti():
    """A car straight ahead that looks along x has alpha 0; one beside the axis is seen from another side."""
    ahead = np.array([[0.0, 0, 20000, 4000, 1500, 1700, 0.0], [20000.0, 0, 20000, 4000, 1500, 1700, 0.0]])
    camera = np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(observe(ahead, camera)[:, 7], [0.0, -np.pi / 4], atol=1e-12)


def test_what_is_behind_the_camera_is_not_seen():
    box = boxes(2)
    box[0, 2] = -3000
    seen = observe(box, P2)
    assert np.isnan(seen[0]).all()
    assert np.isfinite(seen[1]).all()


@pytest.mark.parametrize("to_new", [
    Affine.about((100.0, 50.0), scale=0.4, shift_xy=(13.0, -7.0)),
    Affine.flip(1242),
    Affine.flip(1242).then(Affine.about((600.0, 180.0), scale=1.3, shift_xy=(-40.0, 5.0))),
])  # fmt: skip
def test_a_warped_image_shows_the_same_box(to_new):
    before = instances()
    after = before.moved(to_new)
    shown = project(corners_of(after.box_3d), after.projection[:, None])
    expected = to_new(project(corners_of(before.box_3d.astype(float)), P2))
    if to_new.flips:  # left and right corners of each face change places
        expected = expected[:, [1, 0, 3, 2, 5, 4, 7, 6]]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=2e-3)
    check_projection(after.projection[0])
    seen = observe(after.box_3d, after.projection)
    np.testing.assert_allclose(lift(seen, after.projection), after.box_3d, rtol=0, atol=1e-2)
    back = after.moved(to_new.inverse())
    np.testing.assert_allclose(back.box_3d, before.box_3d, rtol=0, atol=1e-2)
    np.testing.assert_allclose(back.projection, before.projection, rtol=0, atol=1e-6)


def test_a_turned_image_is_refused():
    with pytest.raises(ValueError, match=r"scaled, shifted and flipped left to right, but not turned"):
        instances().moved(Affine.about((0.0, 0.0), degrees=3.0))
    with pytest.raises(ValueError, match=r"A box_3d can be moved together with the projection of its camera"):
        replace(instances(), projection=None).moved(Affine.flip(100))


def test_angles_are_wrapped():
    angles = np.array([-np.pi, np.pi, 3 * np.pi, -3.5, 0.3])
    np.testing.assert_allclose(wrapped(angles), [np.pi, np.pi, np.pi, 2 * np.pi - 3.5, 0.3])


@pytest.mark.parametrize(("change", "says"), [
    (lambda p: p[:, :3], r"P2 must be a projection of 3 rows and 4 columns, got shape \(3, 3\)"),
    (lambda p: p * np.array([1.0, 0.0, 1.0, 1.0]), r"P2 is singular: .* determinant 0, so no point follows"),
    (lambda p: p * np.nan, r"P2 has a value that is not finite"),
    (lambda p: p + np.eye(3, 4)[[1, 0, 2]] * 9, r"P2 must be that of a rectified camera"),
    (lambda p: p * np.array([-1.0, 1.0, 1.0, 1.0]), r"P2 must be that of a rectified camera"),
])  # fmt: skip
def test_bad_calibrations_are_refused(change, says):
    np.testing.assert_array_equal(check_projection(P2), P2)
    with pytest.raises(ValueError, match=says):
        check_projection(change(P2), "P2")


def test_boxes_have_names_in_json():
    text = instances(1).to_json()
    assert '"box_3d"' in text
    assert '"center_mm"' in text
    with pytest.raises(ValueError, match="no box_3d"):
        replace(instances(1), box_3d=None).named_box_3d(0)
