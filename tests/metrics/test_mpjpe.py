"""Errors of 3D poses: exact for poses that were moved on purpose, and honest about what is unknown."""

import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import H36M17, MPI3DHP17
from poseglass.metrics.mpjpe import (
    AUC_MM,
    Pose3dErrors,
    align_procrustes,
    align_scale,
    distances_mm,
    relative_to,
    symmetry_error_mm,
)

LINE = Skeleton("line", ("root", "left_a", "right_a"), (("root", "left_a"), ("root", "right_a")))
MIRROR = np.array([-1.0, 1.0, 1.0])


def poses(count=5, seed=0):
    return np.random.default_rng(seed).normal(0, 300, (count, 17, 3)) + 5000


def measured(predicted, truth, skeleton=H36M17, **numbers):
    metric = Pose3dErrors(skeleton, **numbers)
    metric.update(predicted, truth)
    return metric.compute()


def test_a_rotated_scaled_and_shifted_copy_has_no_error_after_procrustes():
    truth = poses()
    turned = np.einsum("nij,nkj->nki", Rotation.random(5, random_state=1).as_matrix(), truth)
    found = measured(turned * 0.3 + [7, 8, 9], truth)
    assert found["pa_mpjpe"] == pytest.approx(0, abs=1e-8)
    assert found["pa_mpjpe_reflected"] == pytest.approx(0, abs=1e-8)
    assert found["mpjpe"] > 100
    assert found["n_mpjpe"] > 100


def test_a_mirrored_pose_has_an_error_unless_reflections_are_allowed():
    truth = poses()
    found = measured(truth * MIRROR, truth)
    assert found["pa_mpjpe_reflected"] == pytest.approx(0, abs=1e-8)
    assert found["pa_mpjpe"] > 50
    flat = truth * [1, 1, 0]  # a plane can be turned into its mirror image
    assert measured(flat * MIRROR, flat)["pa_mpjpe"] == pytest.approx(0, abs=1e-8)


def test_procrustes_equals_a_search():
    """Nothing near the answer is better, and neither is what SciPy finds for the rotation."""
    truth, other = poses(4, 1), poses(4, 2)
    for reflection in (False, True):
        aligned = align_procrustes(other, truth, reflection=reflection)
        best = np.square(aligned - truth).sum((1, 2))
        rng = np.random.default_rng(3)
        for _ in range(200):
            nudge = Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
            centre = aligned.mean(1, keepdims=True)
            moved = (aligned - centre) @ nudge.T * (1 + rng.normal(0, 0.02)) + centre + rng.normal(0, 5, 3)
            assert (np.square(moved - truth).sum((1, 2)) >= best - 1e-6).all()
    for n in range(4):
        target, source = (x[n] - x[n].mean(0) for x in (truth, other))
        turn, _ = Rotation.align_vectors(target, source)
        turned = turn.apply(source)
        expected = turned * (turned * target).sum() / np.square(turned).sum() + truth[n].mean(0)
        aligned = align_procrustes(other[n : n + 1], truth[n : n + 1], reflection=False)[0]
        np.testing.assert_allclose(aligned, expected, atol=1e-6)


def test_reflections_only_lower_the_error():
    truth, other = poses(50, 1), poses(50, 2)
    without, allowed = (
        np.square(align_procrustes(other, truth, reflection=r) - truth).sum((1, 2)) for r in (False, True)
    )
    assert (allowed <= without + 1e-6).all()
    assert (allowed < without - 1).any()


def test_by_hand():
    truth = np.array([[[0.0, 0, 0], [100, 0, 0], [0, 0, 0]]])
    predicted = np.array([[[50.0, 0, 0], [350, 0, 0], [50, 40, 0]]])  # relative: 0, (300, 0, 0), (0, 40, 0)
    found = measured(predicted, truth, LINE, root="root")
    assert found["mpjpe"] == pytest.approx((0 + 200 + 40) / 3)
    scale = 300 * 100 / (300**2 + 40**2)
    assert found["n_mpjpe"] == pytest.approx((0 + abs(300 * scale - 100) + 40 * scale) / 3)
    assert found["pck3d@150"] == pytest.approx(2 / 3)
    # of 31 thresholds the root is right at all, the second at none, the third from 40 mm on
    assert found["auc3d"] == pytest.approx((31 + 0 + sum(mm >= 40 for mm in AUC_MM)) / (3 * 31))
    assert found["symmetry_error"] == pytest.approx(300 - 40)
    assert found["poses"] == 1
    assert measured(predicted, truth, LINE, root=None)["mpjpe"] == pytest.approx((50 + 250 + np.hypot(50, 40)) / 3)


def test_thresholds_include_their_distance():
    truth = np.zeros((1, 3, 3))
    truth[0, 1, 0], truth[0, 2, 1] = 1000, 1000
    predicted = truth.copy()
    predicted[0, 1, 0] += 150
    predicted[0, 2, 1] += 150.001
    found = measured(predicted, truth, LINE, root="root")
    assert found["pck3d@150"] == pytest.approx(2 / 3)
    assert found["auc3d"] == pytest.approx((31 + 1) / 93)
    assert measured(truth, truth, LINE, root="root")["auc3d"] == 1
    assert measured(predicted, truth, LINE, root="root", threshold_mm=151.0)["pck3d@151"] == 1


def test_unknown_keypoints_are_not_measured_and_are_counted():
    truth, predicted = poses(4), poses(4) + 3 * poses(4, 5) / 5000
    whole = distances_mm(relative_to(predicted, 0), relative_to(truth, 0))
    gaps = truth.copy()
    gaps[1, 3] = np.nan
    gaps[2, 5, 1] = np.nan
    found = measured(predicted, gaps)
    keep = np.ones((4, 17), bool)
    keep[1, 3] = keep[2, 5] = False
    assert found["mpjpe"] == pytest.approx(whole[keep].mean())
    assert (found["unknown"], found["missing"], found["poses"]) == (2, 0, 4)
    aligned = align_procrustes(predicted, gaps, reflection=False)
    rest = [k for k in range(17) if k != 3]
    alone = align_procrustes(predicted[1:2, rest], truth[1:2, rest], reflection=False)
    np.testing.assert_allclose(aligned[1, rest], alone[0], atol=1e-8)


def test_missing_predictions_are_wrong_and_are_counted():
    truth = poses(2)
    predicted = truth.copy()
    predicted[0, 4] = np.nan
    found = measured(predicted, truth)
    assert found["mpjpe"] == 0
    assert found["missing"] == 1
    assert found["pck3d@150"] == pytest.approx(33 / 34)
    assert found["auc3d"] == pytest.approx(33 / 34)
    predicted[1, 0] = np.nan  # the root: nothing can be placed
    found = measured(predicted, truth)
    assert found["pck3d@150"] == pytest.approx(16 / 34)
    assert (found["missing"], found["without_predicted_root"], found["without_root"]) == (1 + 17, 1, 0)
    assert measured(predicted, truth, root=None)["missing"] == 2
    assert found["pa_mpjpe"] == pytest.approx(0, abs=1e-8)


def test_poses_without_a_root_count_for_procrustes_alone():
    truth = poses(2)
    truth[0, 0] = np.nan
    found = measured(poses(2), truth)
    assert found["without_root"] == 1
    assert found["pck3d@150"] == 1
    assert found["pa_mpjpe"] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_points_that_coincide_are_said(size):
    truth = poses(3) * size
    same = np.broadcast_to(truth[:, :1], truth.shape)
    found = measured(same, truth)  # a prediction without a shape: the best that can be done is the middle
    spread = np.linalg.norm(truth - truth.mean(1, keepdims=True), axis=-1).mean()
    assert found["pa_mpjpe"] == pytest.approx(spread)
    assert found["degenerate"] == 0
    found = measured(truth, same)  # a truth without a shape says nothing
    assert np.isnan(found["pa_mpjpe"])
    assert found["degenerate"] == 3
    assert np.isfinite(found["mpjpe"])
    found = measured(np.concatenate([truth, truth]), np.concatenate([same, truth]))
    assert found["pa_mpjpe"] == pytest.approx(0, abs=1e-7 * size)
    assert found["degenerate"] == 3


def test_two_keypoints_can_always_be_aligned_and_are_left_out():
    truth = np.full((1, 17, 3), np.nan)
    truth[0, :2] = [[0, 0, 0], [100, 0, 0]]
    found = measured(poses(1), truth)
    assert found["degenerate"] == 1
    assert np.isnan(found["pa_mpjpe"])
    assert found["unknown"] == 15
    assert np.isfinite(found["mpjpe"])


def test_nothing_and_nobody():
    empty = Pose3dErrors(H36M17)
    assert np.isnan(empty.compute()["mpjpe"])
    assert np.isnan(empty.compute()["auc3d"])
    assert empty.compute()["poses"] == 0
    assert empty.table() == {}
    empty.update(np.zeros((0, 17, 3)), np.zeros((0, 17, 3)))
    assert np.isnan(empty.compute()["pa_mpjpe"])
    nothing = measured(poses(2), np.full((2, 17, 3), np.nan))
    assert np.isnan(nothing["pck3d@150"])
    assert nothing["unknown"] == 34


def test_scale_alone():
    truth = poses() - 5000
    assert measured((truth - truth[:, :1]) * 0.2, truth)["n_mpjpe"] == pytest.approx(0, abs=1e-8)
    assert np.isfinite(align_scale(np.zeros((2, 17, 3)), truth[:2])).all()


def test_symmetry():
    assert symmetry_error_mm(poses(2) * 0, H36M17).tolist() == [0, 0]
    xyz = np.zeros((1, 17, 3))
    at = {name: k for k, name in enumerate(H36M17.keypoints)}
    xyz[0, at["left_wrist"], 0] = 60  # one of six pairs: hips, thighs, shins, shoulders, upper arms, forearms
    assert symmetry_error_mm(xyz, H36M17)[0] == pytest.approx(60 / 6)
    xyz[0, at["left_hip"]] = np.nan  # hips and thighs are unknown
    assert symmetry_error_mm(xyz, H36M17)[0] == pytest.approx(60 / 4)
    assert np.isnan(symmetry_error_mm(np.full((1, 17, 3), np.nan), H36M17)[0])
    assert np.isfinite(symmetry_error_mm(poses(2), MPI3DHP17)).all()
    with pytest.raises(ValueError, match=r"Skeleton 'one' has no bone with a counterpart on the other side"):
        symmetry_error_mm(np.zeros((1, 2, 3)), Skeleton("one", ("a", "b"), (("a", "b"),)))


def test_results_per_keypoint_and_which_is_better():
    truth = poses()
    predicted = truth.copy()
    predicted[:, 2, 0] += 200
    metric = Pose3dErrors(H36M17)
    metric.update(predicted, truth)
    table = metric.table()
    assert set(table) == set(H36M17.keypoints)
    assert table["right_knee"]["mpjpe"] == pytest.approx(200)
    assert table["right_knee"]["pck3d@150"] == 0
    assert (table["left_knee"]["mpjpe"], table["left_knee"]["pck3d@150"]) == (0, 1)
    better = {name: metric.better(name) for name in metric.compute()}
    assert {name for name, which in better.items() if which == "higher"} == {"pck3d@150", "auc3d", "poses"}


def test_parts_merge_into_the_whole():
    truth, other = poses(9, 1), poses(9, 2)
    truth[2, 4] = np.nan
    parts = []
    for rows in (slice(0, 4), slice(4, 4), slice(4, 9)):
        metric = Pose3dErrors(H36M17)
        metric.update(other[rows], truth[rows])
        parts.append(pickle.loads(pickle.dumps(metric)))
    whole = Pose3dErrors(H36M17)
    for rows in (slice(0, 4), slice(4, 4), slice(4, 9)):
        whole.update(other[rows], truth[rows])
    for part in parts[1:]:
        parts[0].merge(part)
    np.testing.assert_equal(parts[0].compute(), whole.compute())
    np.testing.assert_equal(parts[0].table(), whole.table())
    once = measured(other, truth)
    assert parts[0].compute() == pytest.approx(once)
    with pytest.raises(ValueError, match=r"Only metrics with the same fields can be merged"):
        whole.merge(Pose3dErrors(H36M17, threshold_mm=100.0))


def test_faults():
    with pytest.raises(ValueError, match=r"must have the same shape \(N, K, 3\), got \(2, 17, 3\) and \(3, 17, 3\)"):
        measured(poses(2), poses(3))
    with pytest.raises(ValueError, match=r"Poses in skeleton 'line' must have shape \(N, 3, 3\), got \(2, 17, 3\)"):
        measured(poses(2), poses(2), LINE, root="root")
    with pytest.raises(ValueError, match=r"Positions must be finite, or NaN where unknown; got infinity"):
        measured(poses(1) * np.inf, poses(1))
    with pytest.raises(LookupError, match=r"has no keypoint 'pelvis'"):
        Pose3dErrors(LINE)
    with pytest.raises(ValueError, match=r"threshold of 3DPCK must be positive, got 0 mm"):
        Pose3dErrors(H36M17, threshold_mm=0)
    with pytest.raises(ValueError, match=r"Poses must have shape \(N, K, 3\), got \(17, 3\)"):
        align_procrustes(poses(1)[0], poses(1)[0], reflection=False)
