"""Recordings and poses: what does not fit is refused, and no subject is on both sides of a split."""

import numpy as np
import pytest

from poseglass.core.kinematics import forward_kinematics, rotation_matrices
from poseglass.core.motion import Motion, PoseClips
from poseglass.core.skeletons import H36M17, MPI3DHP17

SUBJECTS = ("ann", "bob", "bob", "ic_1", "ic_2")


def clips(n=20):
    xyz = np.random.default_rng(0).normal(0, 300, (n, 17, 3))
    return PoseClips(H36M17, xyz, np.arange(n) % 5, tuple("abcde"), SUBJECTS, 15.0)


def test_no_subject_is_on_both_sides():
    rest, held_out = clips().split_by_subject(["bob"])
    assert set(rest.subject_of_pose) == {"ann", "ic_1", "ic_2"}
    assert set(held_out.subject_of_pose) == {"bob"}
    assert len(rest) + len(held_out) == 20
    assert rest.notes == held_out.notes == ()
    assert held_out.xyz_mm.tolist() == clips().xyz_mm[np.isin(clips().clip, (1, 2))].tolist()


def test_retargeted_subjects_on_both_sides_are_said():
    rest, held_out = clips().split_by_subject(["ic_2", "ann"])
    assert rest.notes == held_out.notes
    assert rest.notes[0].startswith(
        "2 retargeted subjects (ic_1, ic_2) are on both sides: their movements are different"
    )
    assert clips().split_by_subject(["ic_1", "ic_2"])[0].notes == ()


def test_faults_of_splits():
    with pytest.raises(ValueError, match=r"No poses of subject 'bop'. Did you mean 'bob'\? There are: \['ann'"):
        clips().split_by_subject(["bop"])
    with pytest.raises(ValueError, match=r"subjects on both sides, got 20 poses held out and 0 poses left"):
        clips().split_by_subject(sorted(set(SUBJECTS)))
    with pytest.raises(ValueError, match=r"subjects on both sides, got 0 poses held out"):
        clips().split_by_subject([])
    with pytest.raises(ValueError, match=r"held_out is a list of subjects, got the text 'bob'; use \['bob'\]"):
        clips().split_by_subject("bob")


def test_faults_of_poses():
    with pytest.raises(ValueError, match=r"need xyz_mm of shape \(N, 17, 3\) .* got \(2, 16, 3\) and \(2,\)"):
        PoseClips(H36M17, np.zeros((2, 16, 3)), np.zeros(2), ("a",), ("x",), 15)
    with pytest.raises(ValueError, match=r"Every clip needs a subject, got 1 clip and 2 subjects"):
        PoseClips(H36M17, np.zeros((2, 17, 3)), np.zeros(2), ("a",), ("x", "y"), 15)
    with pytest.raises(ValueError, match=r"clip must number the 1 clip from 0, got numbers from 0 to 1"):
        PoseClips(H36M17, np.zeros((2, 17, 3)), np.arange(2), ("a",), ("x",), 15)
    for rate in (0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"Frames per second must be positive, got {rate}"):
            PoseClips(H36M17, np.zeros((2, 17, 3)), np.zeros(2), ("a",), ("x",), rate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "a")}, r"Joint names must be unique, repeated: a"),
        ({"names": ("a",)}, r"A motion of 1 joint needs parents of shape \(1,\) and positions of shape \(T, 1, 3\)"),
        ({"parents": [1, -1]}, r"Joint 'a' must come after its parent; sort joints from the root on"),
        ({"parents": [-1, 1]}, r"Joint 'b' must come after its parent"),
        ({"positions_mm": np.full((1, 2, 3), np.nan)}, r"Positions must be finite"),
        ({"frames_per_second": 0.0}, r"Frames per second must be positive, got 0.0"),
    ],
)
def test_faults_of_motions(change, message):
    given = {"names": ("a", "b"), "parents": [-1, 0], "positions_mm": np.zeros((1, 2, 3)), "frames_per_second": 1.0}
    Motion(**given)
    with pytest.raises(ValueError, match=message):
        Motion(**(given | change))


def test_long_recordings_are_worked_in_parts():
    """Frames beyond the first part give the same as alone."""
    rng = np.random.default_rng(0)
    turns = [rng.uniform(-1, 1, (5000, 3)), rng.uniform(-1, 1, (5000, 1)), np.zeros((5000, 0))]
    moves = [rng.normal(size=(5000, 3)), np.array([1.0, 2, 3]), np.array([0.0, 0, 1])]
    whole = forward_kinematics(np.array([-1, 0, 1]), moves, turns, ["ZYX", "X", ""])
    alone = forward_kinematics(np.array([-1, 0, 1]), [moves[0][4500:], *moves[1:]], [t[4500:] for t in turns],
                               ["ZYX", "X", ""])  # fmt: skip
    np.testing.assert_allclose(whole[4500:], alone)
    with pytest.raises(ValueError, match=r"Axes 'ZY' need angles of shape \(T, 2\), got \(1, 3\)"):
        rotation_matrices(np.zeros((1, 3)), "ZY")


def test_skeletons_of_three_dimensions():
    for skeleton in (H36M17, MPI3DHP17):
        assert len(skeleton) == 17
        assert len(skeleton.bones) == 16
        assert skeleton.mirrors
        assert sorted(skeleton.flip.tolist()) == list(range(17))
        middle = {n for k, n in enumerate(skeleton.keypoints) if skeleton.flip[k] == k}
        assert middle == {n for n in skeleton.keypoints if not n.startswith(("left", "right"))}
