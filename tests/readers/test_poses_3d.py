"""Files of 3D poses: our own, Human3.6M's and MPI-INF-3DHP's, in the layouts that the field passes on."""

import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io

from poseglass.core.motion import Motion, PoseClips
from poseglass.core.skeletons import H36M17, MPI3DHP17
from poseglass.readers.h36m import OF_32, read_h36m
from poseglass.readers.mpi_inf_3dhp import H36M_NAMES, OF_28, as_h36m17, read_mpi_inf_3dhp
from poseglass.readers.poses_npz import gather, read_poses, write_poses

STANDING = dict(
    pelvis=(0, 900, 0), right_hip=(-100, 880, 0), right_knee=(-100, 450, 5), right_ankle=(-100, 50, 0),
    left_hip=(100, 880, 0), left_knee=(100, 450, 5), left_ankle=(100, 50, 0), spine=(0, 1100, 0), thorax=(0, 1350, 0),
    neck=(0, 1430, 10), head_top=(0, 1600, 0), left_shoulder=(180, 1350, 0), left_elbow=(480, 1350, 0),
    left_wrist=(730, 1350, 0), right_shoulder=(-180, 1350, 0), right_elbow=(-480, 1350, 0), right_wrist=(-730, 1350, 0),
)  # fmt: skip
PERSON = np.array([STANDING[name] for name in H36M17.keypoints], np.float32)
LOOK = np.array([1.0, -1, -1])  # a camera that stands before them


def clips():
    xyz = PERSON + np.arange(6, dtype=np.float32)[:, None, None]
    xyz[2, 3] = np.nan
    return PoseClips(H36M17, xyz, [0, 0, 1, 1, 1, 2], ("a", "b", "c"), ("ann", "bob", "ic_1"), 15.0)


def test_poses_are_what_was_written(tmp_path):
    path = tmp_path / "poses.npz"
    write_poses(path, clips())
    found = read_poses(path)
    np.testing.assert_array_equal(found.xyz_mm, clips().xyz_mm)
    assert found.skeleton is H36M17
    assert (found.clip.tolist(), found.clip_names, found.subjects) == (
        [0, 0, 1, 1, 1, 2],
        ("a", "b", "c"),
        clips().subjects,
    )
    assert found.frames_per_second == 15
    assert found.notes[0].startswith("1 subject (ic_1) are retargeted")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": None}, r"poses.npz has no array 'clip'. A file of poses has xyz_mm, clip, clip_names"),
        (
            {"xyz_mm": np.array(["a"])},
            r"'xyz_mm' must be an array of numbers with 3 dimensions, got <U1 of shape \(1,\)",
        ),
        (
            {"xyz_mm": np.full((6, 16, 3), np.nan)},
            r"poses.npz: Poses in skeleton 'h36m17' need xyz_mm of shape \(N, 17, 3\)",
        ),
        ({"clip": np.zeros(6)}, r"'clip' must be an array of whole numbers with 1 dimensions, got float64"),
        ({"clip": np.arange(6)}, r"clip must number the 3 clips from 0, got numbers from 0 to 5"),
        ({"subjects": np.array(["x"])}, r"Every clip needs a subject, got 3 clips and 1 subject"),
        (
            {"xyz_mm": np.repeat(PERSON[None], 6, 0) / 1000},
            r"legs .* are 0.8301 mm long, .* Positions must be millimetres. They look like metres: multiply",
        ),
        (
            {"xyz_mm": np.where(np.array(H36M17.keypoints)[:, None] == "left_knee", np.nan, [PERSON / 1000] * 6)},
            r"legs .* are 0.8301 mm long, .* They look like metres: multiply",
        ),
        ({"xyz_mm": PERSON[None] * 1000}, r"positions must be within 1,000,000 mm"),
        ({"xyz_mm": np.full((6, 17, 3), np.inf)}, r"positions must be within 1,000,000 mm, or NaN where unknown"),
        ({"xyz_mm": np.array([{"a": 1}])}, r"poses.npz has arrays of pickled Python objects, which can run code"),
    ],
)
def test_faults_of_poses(tmp_path, change, message):
    path = tmp_path / "poses.npz"
    write_poses(path, clips())
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | change
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        read_poses(path)


def test_poses_are_written_whole_and_under_the_name_given(tmp_path, monkeypatch):
    path = tmp_path / "poses"
    write_poses(path, clips())
    assert [file.name for file in tmp_path.iterdir()] == ["poses"]
    assert len(read_poses(path)) == 6
    before = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_poses(path, clips().select(np.arange(2)))
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_poses(tmp_path / "none" / "poses.npz", clips())


@pytest.mark.parametrize("read", [read_poses, read_h36m, read_mpi_inf_3dhp])
def test_other_files_are_refused(tmp_path, read):
    path = tmp_path / "poses.npz"
    write_poses(path, clips())
    whole = path.read_bytes()
    for end in (0, 1, 4, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"poses\.npz"):
            read(path)
    path.write_text("not a file of poses")
    with pytest.raises(ValueError, match=r"poses.npz is not an .npz file of NumPy, or damaged or truncated"):
        read(path)
    with pytest.raises(FileNotFoundError, match=r"No such label file: .*nothing.npz"):
        read(tmp_path / "nothing.npz")


def test_recordings_are_gathered():
    names = ("Hips", "Spine1", "Neck", "Head", "Head_end", *(f"{side}{part}" for side in ("Left", "Right")
             for part in ("UpLeg", "Leg", "Foot", "Arm", "ForeArm", "Hand")))  # fmt: skip
    positions = np.random.default_rng(0).normal(size=(40, len(names), 3))
    parents = np.array([-1] + [0] * (len(names) - 1))
    fast, slow = (Motion(names, parents, positions, rate, name) for rate, name in ((120.0, "run"), (24.0, "walk")))
    found = gather([fast, slow], ["ann", "bob"])
    assert np.bincount(found.clip).tolist() == [5, 20]
    np.testing.assert_allclose(found.xyz_mm[:5, 0], positions[::8, 0], rtol=1e-6)
    assert found.notes == ("walk has 12 frames per second instead of 15.",)
    misspelt = replace(fast, names=tuple(name.replace("LeftForeArm", "LeftForArm") for name in names), name="wave")
    found = gather([fast, misspelt], ["ann", "bob"], frames_per_second=120)
    assert found.notes == (
        "wave: 1 of 17 keypoints have no joint in this hierarchy and are unknown: left_elbow (no joint 'LeftForeArm', "
        "only a similar 'LeftForArm').",
    )
    for rate in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"Frames per second must be positive, got"):
            gather([fast], ["ann"], frames_per_second=rate)
    with pytest.raises(ValueError, match=r"Every motion needs a subject, got 1 motions and 2 subjects"):
        gather([fast], ["ann", "bob"])


def h36m_of(frames=3, joints=32):
    """Return poses as in the file: metres, z up."""
    mm = PERSON + np.arange(frames)[:, None, None]
    z_up = np.stack([mm[..., 0], -mm[..., 2], mm[..., 1]], -1) / 1000
    if joints == 17:
        return z_up.astype(np.float32)
    whole = np.full((frames, 32, 3), 9.0, np.float32)
    whole[:, OF_32] = z_up
    return whole


@pytest.mark.parametrize("joints", [17, 32])
@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_human36m(tmp_path, joints, pack):
    path = tmp_path / "data_3d_h36m.npz"
    poses = {
        "S1": {"Walking": h36m_of(3, joints), "Eating 1": h36m_of(2, joints)},
        "S9": {"Walking": h36m_of(4, joints)},
    }
    pack(path, positions_3d=poses)
    found = read_h36m(path)
    assert found.clip_names == ("S1 Walking", "S1 Eating 1", "S9 Walking")
    assert found.subjects == ("S1", "S1", "S9")
    assert np.bincount(found.clip).tolist() == [3, 2, 4]
    np.testing.assert_allclose(found.xyz_mm[:3], PERSON + np.arange(3)[:, None, None], atol=1e-3)
    assert found.frames_per_second == 50
    assert found.notes == ("Subjects S9, S11 are the test set.",)
    assert len(read_h36m(path, every=2)) == 2 + 1 + 2
    assert read_h36m(path, every=2).frames_per_second == 25


class Shell:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        ({"S1": {"Walking": Shell()}}, r"'positions_3d' is damaged, or holds more than arrays \(.*system"),
        (
            {"S1": {"Walking": h36m_of()[:, :20]}},
            r"S1 Walking must be an array \(T, 32, 3\) or \(T, 17, 3\), got \(3, 20, 3",
        ),
        ({"S1": {"Walking": "far"}}, r"S1 Walking must be an array .*, got str"),
        ({"S1": {"Walking": h36m_of() * 1000}}, r"S1 Walking: legs .* are 8.301e\+05 mm .* Positions must be metres"),
        ({"S1": {"Walking": h36m_of() * np.nan}}, r"S1 Walking has positions that are not finite numbers"),
        ({"S1": {}}, r"1 subject without any action"),
        ({"S1": [1]}, r"'positions_3d' must be a dict of subjects, each a dict of actions"),
        (np.zeros(3), r"'positions_3d' must be a dict of subjects"),
    ],
)
def test_faults_of_human36m(tmp_path, monkeypatch, poses, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data_3d_h36m.npz"
    np.savez(path, positions_3d=np.array(poses, dtype=None if isinstance(poses, np.ndarray) else object))
    with pytest.raises(ValueError, match=message):
        read_h36m(path)
    assert not (tmp_path / "ran").exists()


def test_other_files_of_human36m(tmp_path):
    path = tmp_path / "Walking 1.cdf"
    path.write_bytes(b"\xcd\xf3\x00\x01\x00\x00\xff\xff")
    with pytest.raises(ValueError, match=r"Walking 1.cdf is a CDF file, which is not read. With the package cdflib"):
        read_h36m(path)
    path = tmp_path / "data_2d_h36m.npz"
    np.savez(path, positions_2d=1)
    with pytest.raises(ValueError, match=r"has no 'positions_3d'. It has: positions_2d.npy"):
        read_h36m(path)
    with pytest.raises(ValueError, match=r"every must be at least 1, got 0"):
        read_h36m(path, every=0)


def dhp_person(frames=3, joints=28):
    """Return 2D and 3D of the 17 joints as a camera at 4 m sees them, and in the layout of 28 joints."""
    names = {mine: H36M_NAMES.get(mine, mine) for mine in MPI3DHP17.keypoints}
    xyz = np.array([STANDING[name] for name in names.values()]) * LOOK + [0, 900, 4000]
    xyz = xyz + np.arange(frames)[:, None, None]
    xy = xyz[..., :2] / xyz[..., 2:] * 1500 + 1024
    if joints == 17:
        return xy, xyz
    whole_xy, whole = np.full((frames, 28, 2), 7.0), np.full((frames, 28, 3), 7.0)
    whole_xy[:, OF_28], whole[:, OF_28] = xy, xyz
    return whole_xy, whole


def write_train(path, cameras=2, frames=3, scale=1.0, change=None):
    cells = {"annot2": [], "annot3": [], "univ_annot3": []}
    for camera in range(cameras):
        xy, xyz = dhp_person(frames)
        cells["annot2"].append((xy + camera).reshape(frames, -1))
        cells["annot3"].append(xyz.reshape(frames, -1) * scale)
        cells["univ_annot3"].append(xyz.reshape(frames, -1) * scale * 0.9)
    cells |= change or {}
    packed = {}
    for name, arrays in cells.items():
        packed[name] = np.empty((len(arrays), 1), object)
        for camera, array in enumerate(arrays):
            packed[name][camera, 0] = array
    scipy.io.savemat(path, {**packed, "frames": np.array([[frames]])})


@pytest.mark.parametrize("frames", [1, 3])
def test_training_set_of_mpi_inf_3dhp(tmp_path, frames):
    path = tmp_path / "annot.mat"
    write_train(path, frames=frames)
    pairs = read_mpi_inf_3dhp(path)
    xy, xyz = dhp_person(frames, 17)
    assert len(pairs) == 2 * frames
    assert pairs.skeleton is MPI3DHP17
    np.testing.assert_allclose(pairs.xy[:frames], xy, rtol=1e-5)
    np.testing.assert_allclose(pairs.xy[frames:], xy + 1, rtol=1e-5)
    root = MPI3DHP17.index("pelvis")
    np.testing.assert_allclose(pairs.root_mm[:frames], xyz[:, root], rtol=1e-5)
    np.testing.assert_allclose(pairs.xyz_mm[:frames], xyz - xyz[:, root : root + 1], atol=1e-3)
    assert pairs.pose.tolist() == [*range(frames)] * 2
    assert np.isnan(pairs.degrees).all()
    assert (pairs.xyz_mm[:, MPI3DHP17.index("head_top"), 1] < 0).all()  # y down
    one = read_mpi_inf_3dhp(path, cameras=(1,))
    np.testing.assert_array_equal(one.xy, pairs.xy[frames:])
    scaled = read_mpi_inf_3dhp(path, universal=True)
    np.testing.assert_allclose(scaled.xyz_mm, pairs.xyz_mm * 0.9, atol=1e-3)


def write_test(path, change=None):
    xy, xyz = dhp_person(4, 17)
    arrays = {"annot2": xy[:, None], "annot3": xyz[:, None], "univ_annot3": xyz[:, None] * 0.9,
              "valid_frame": np.array([[1], [0], [1], [1]])}  # fmt: skip
    with h5py.File(path, "w", userblock_size=0) as file:
        for name, array in (arrays | (change or {})).items():
            if array is not None:
                file[name] = array


def test_test_set_of_mpi_inf_3dhp(tmp_path):
    path = tmp_path / "annot_data.mat"
    write_test(path)
    pairs = read_mpi_inf_3dhp(path)
    xy, xyz = dhp_person(4, 17)
    assert pairs.pose.tolist() == [0, 2, 3]
    np.testing.assert_allclose(pairs.xy, xy[[0, 2, 3]], rtol=1e-5)
    np.testing.assert_allclose(pairs.xyz_mm + pairs.root_mm[:, None], xyz[[0, 2, 3]], atol=1e-2)
    universal = read_mpi_inf_3dhp(path, universal=True)
    np.testing.assert_allclose(universal.xyz_mm, pairs.xyz_mm * 0.9, atol=1e-2)


def test_mpi_inf_3dhp_in_the_keypoints_of_human36m(tmp_path):
    path = tmp_path / "annot_data.mat"
    write_test(path)
    pairs = as_h36m17(read_mpi_inf_3dhp(path))
    assert pairs.skeleton is H36M17
    np.testing.assert_allclose(pairs.xyz_mm[0], (PERSON - PERSON[0]) * LOOK, atol=1e-3)
    with pytest.raises(ValueError, match=r"Expected pairs in skeleton 'mpi3dhp17', got 'h36m17'"):
        as_h36m17(pairs)


def test_faults_of_mpi_inf_3dhp(tmp_path):
    train, test, packed = tmp_path / "annot.mat", tmp_path / "annot_data.mat", tmp_path / "a.npz"
    write_train(train)
    with pytest.raises(ValueError, match=r"annot.mat has 2 cameras, numbered from 0; got 2"):
        read_mpi_inf_3dhp(train, cameras=(0, 2))
    with pytest.raises(ValueError, match=r"give at least one camera, or None for all"):
        read_mpi_inf_3dhp(train, cameras=())
    write_train(train, scale=0.001)
    with pytest.raises(
        ValueError, match=r"legs .* are 0.83.* mm long, .* Expected are millimetres in .mat and metres in"
    ):
        read_mpi_inf_3dhp(train)
    write_train(train, change={"annot3": [np.zeros((3, 84))]})
    with pytest.raises(ValueError, match=r"'annot2' has 2 cameras, 'annot3' 1"):
        read_mpi_inf_3dhp(train)
    write_train(train, change={"annot3": [np.zeros((3, 51))] * 2})
    with pytest.raises(ValueError, match=r"camera 0 must have T x 56 and T x 84 numbers, got \[\(3, 56\), \(3, 51\)\]"):
        read_mpi_inf_3dhp(train)
    write_train(train, change={"annot3": [np.full((2, 84), 5.0)] * 2})
    with pytest.raises(ValueError, match=r"camera 0 has 3 frames in 2D and 2 in 3D"):
        read_mpi_inf_3dhp(train)
    write_train(train, change={"annot3": [np.full((3, 84), np.inf)] * 2})
    with pytest.raises(ValueError, match=r"row 1 has positions that are not numbers below a kilometre"):
        read_mpi_inf_3dhp(train)
    scipy.io.savemat(train, {"joints": np.zeros(3)})
    with pytest.raises(ValueError, match=r"annot.mat has no variable 'annot2'"):
        read_mpi_inf_3dhp(train)
    write_test(test)
    with pytest.raises(ValueError, match=r"annot_data.mat is of the test set, which has one camera; leave cameras out"):
        read_mpi_inf_3dhp(test, cameras=(0,))
    write_test(test, {"valid_frame": None})
    with pytest.raises(ValueError, match=r"has no 'valid_frame', which the test set of MPI-INF-3DHP has"):
        read_mpi_inf_3dhp(test)
    write_test(test, {"annot3": np.zeros((4, 1, 16, 3))})
    with pytest.raises(
        ValueError, match=r"must be \(T, 1, 17, 2\) and 'annot3' .* got \(4, 1, 17, 2\) and \(4, 1, 16, 3\)"
    ):
        read_mpi_inf_3dhp(test)
    np.savez(packed, part=np.zeros((2, 17, 3)))
    with pytest.raises(ValueError, match=r"a.npz has no 'part' and 'S' of numbers"):
        read_mpi_inf_3dhp(packed)
    np.savez(packed, part=np.zeros((2, 17, 3)), S=np.zeros((2, 17, 3)))
    with pytest.raises(ValueError, match=r"'S' \(N, 17, 4\), got \(2, 17, 3\) and \(2, 17, 3\)"):
        read_mpi_inf_3dhp(packed)
    with pytest.raises(ValueError, match=r"which has neither cameras nor universal poses; leave both out"):
        read_mpi_inf_3dhp(packed, universal=True)


@pytest.mark.shared
@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_of_mpi_inf_3dhp(shared, split):
    """Real records: 2D is a projection of 3D by one focal length, whose principal point is the image's middle."""
    pairs = read_mpi_inf_3dhp(shared / f"data/samples/mpi_inf_3dhp/test_3dhp_{split}.npz")
    assert len(pairs) == 2
    xyz = pairs.xyz_mm + pairs.root_mm[:, None]
    for n in range(2):
        rays = xyz[n, :, :2] / xyz[n, :, 2:]
        unknown = np.concatenate([np.stack([rays[:, 0], np.ones(17), np.zeros(17)], 1),
                                  np.stack([rays[:, 1], np.zeros(17), np.ones(17)], 1)])  # fmt: skip
        wanted = pairs.xy[n].T.ravel()
        there = np.isfinite(unknown).all(1) & np.isfinite(wanted)
        answer, *_ = np.linalg.lstsq(unknown[there], wanted[there], rcond=None)
        away = np.abs(unknown @ answer - wanted)[there]
        assert away.max() < 15
        assert 1000 < answer[0] < 2200
    assert (pairs.xyz_mm[:, MPI3DHP17.index("pelvis")] == 0).all()
    left, right = (np.linalg.norm(xyz[:, MPI3DHP17.index(f"{s}_ankle")] - xyz[:, MPI3DHP17.index(f"{s}_knee")], axis=-1)
                   for s in ("left", "right"))  # fmt: skip
    assert np.abs(left - right).max() < 1


@pytest.mark.shared
def test_poses_of_motion_capture(shared):
    clips = read_poses(shared / "data/mocap/poses.npz")
    assert len(clips) == 10458
    assert clips.skeleton is H36M17
    assert np.isfinite(clips.xyz_mm).all()
    assert "5 subjects (ic_001, ic_002, ic_003, ic_006 and 1 more) are retargeted" in clips.notes[0]
    rest, held_out = clips.split_by_subject(["cmu_08"])
    assert not set(rest.subject_of_pose) & set(held_out.subject_of_pose)
    assert len(held_out) == 264
