"""MPI-INF-3DHP: 2D and 3D poses of people in and out of a studio.

Mehta et al., "Monocular 3D Human Pose Estimation in the Wild Using Improved CNN Supervision", 3DV 2017. Research use.
Three layouts are read:

- ``annot.mat`` of the training set (MATLAB 5), one for each subject and sequence: cells "annot2" (T x 56 pixels),
  "annot3" and "univ_annot3" (T x 84 mm) of 14 cameras, with 28 joints;
- ``annot_data.mat`` of the test set (HDF5), one for each of TS1 to TS6: "annot2" (T, 1, 17, 2), "annot3" and
  "univ_annot3" (T, 1, 17, 3), "valid_frame";
- ``.npz`` of numbers as MMPose has them: "part" (N, 17, 3) pixels and a flag, "S" (N, 17, 4) metres and a flag.

All give the 17 joints of the test set, ``MPI3DHP17``, in the camera frame (x right, y down, z away).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from poseglass.core.lifting_pairs import LiftingPairs
from poseglass.core.skeletons import H36M17, MPI3DHP17
from poseglass.core.table import counted
from poseglass.readers.joint_names import check_leg, leg_of_poses
from poseglass.readers.mat_file import as_numbers, check_file, is_hdf5, listed, read_hdf5, read_mat
from poseglass.readers.poses_npz import read_npz

OF_28 = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
"""Where the 17 joints of the test set are among the 28 of the training set."""

H36M_NAMES = {"neck": "thorax", "head": "neck"}
"""Joints of ``MPI3DHP17`` that lie where ``H36M17`` has others; all further names mean the same in both."""


def read_mpi_inf_3dhp(
    path: str | Path, *, cameras: tuple[int, ...] | None = None, universal: bool = False
) -> LiftingPairs:
    """Read one file of MPI-INF-3DHP.

    Args:
        path: ``annot.mat``, ``annot_data.mat`` or ``.npz``; the contents decide.
        cameras: Of ``annot.mat``, by number from 0; None takes all. Rows are those of the first camera, then those of
            the second. 0, 1, 2, 4, 5, 6, 7 and 8 are at chest height, and are what most train on.
        universal: Take "univ_annot3", in which all people are scaled to one height; scores are often computed on it.
            Not in ``.npz``.

    Returns:
        Pairs, in millimetres relative to the pelvis; ``pose`` is the frame (or row), ``degrees`` is NaN. Frames of the
        test set that are not valid are left out.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another file, damaged, arrays of another shape, not in millimetres (``.npz``: metres), or a camera
            that it does not have.
    """
    path = Path(path)
    check_file(path)
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped or path.suffix.lower() == ".npz":
        if universal or cameras is not None:
            raise ValueError(f"{path} is an .npz, which has neither cameras nor universal poses; leave both out.")
        xy, xyz_mm, pose = _packed(path)
    elif is_hdf5(path):
        if cameras is not None:
            raise ValueError(f"{path} is of the test set, which has one camera; leave cameras out.")
        xy, xyz_mm, pose = _test(path, "univ_annot3" if universal else "annot3")
    else:
        xy, xyz_mm, pose = _train(path, cameras, "univ_annot3" if universal else "annot3")
    wrong = (np.isinf(xyz_mm) | np.isinf(xy).any(-1, keepdims=True)).any((1, 2)) | (np.abs(xyz_mm) > 1e6).any((1, 2))
    if wrong.any():
        raise ValueError(f"{path}: row {int(wrong.argmax()) + 1} has positions that are not numbers below a kilometre.")
    check_leg(leg_of_poses(MPI3DHP17, xyz_mm), f"{path}:", "Expected are millimetres in .mat and metres in .npz.")
    root_mm = xyz_mm[:, MPI3DHP17.index("pelvis")]
    return LiftingPairs(
        MPI3DHP17, xy.astype(np.float32), (xyz_mm - root_mm[:, None]).astype(np.float32), root_mm.astype(np.float32),
        np.full(len(xy), np.nan, np.float32), pose.astype(np.int64),
    )  # fmt: skip


def as_h36m17(pairs: LiftingPairs) -> LiftingPairs:
    """Return pairs of ``MPI3DHP17`` in the keypoints of ``H36M17``, to compare the two.

    All are there: its neck is the thorax there, and its head the neck. The two were placed by different motion
    capture systems, so the same person has other hips, spine and head in the two.

    Raises:
        ValueError: The pairs are in another skeleton.
    """
    if pairs.skeleton.keypoints != MPI3DHP17.keypoints:
        raise ValueError(f"Expected pairs in skeleton {MPI3DHP17.name!r}, got {pairs.skeleton.name!r}.")
    named = [H36M_NAMES.get(name, name) for name in MPI3DHP17.keypoints]
    order = [named.index(name) for name in H36M17.keypoints]
    return replace(pairs, skeleton=H36M17, xy=pairs.xy[:, order], xyz_mm=pairs.xyz_mm[:, order])


def _train(path: Path, cameras: tuple[int, ...] | None, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flat, solid = listed(read_mat(path, "annot2")), listed(read_mat(path, name))
    if len(flat) != len(solid) or not flat:
        raise ValueError(f"{path}: 'annot2' has {counted(len(flat), 'camera')}, {name!r} {len(solid)}.")
    chosen = range(len(flat)) if cameras is None else cameras
    parts = []
    for camera in chosen:
        if not 0 <= camera < len(flat):
            raise ValueError(f"{path} has {counted(len(flat), 'camera')}, numbered from 0; got {camera}.")
        pair = [as_numbers(cells[camera]) for cells in (flat, solid)]
        rows = [array.reshape(1, -1) if array is not None and array.ndim == 1 else array for array in pair]
        shapes = [None if array is None else array.shape for array in rows]
        if any(array is None or array.ndim != 2 for array in rows) or [s and s[1] for s in shapes] != [56, 84]:
            raise ValueError(f"{path}: camera {camera} must have T x 56 and T x 84 numbers, got {shapes}.")
        xy, xyz = (array.reshape(len(array), 28, -1)[:, OF_28] for array in rows if array is not None)
        if len(xy) != len(xyz):
            raise ValueError(f"{path}: camera {camera} has {len(xy)} frames in 2D and {len(xyz)} in 3D.")
        parts.append((xy, xyz, np.arange(len(xy))))
    if not parts:
        raise ValueError(f"{path}: give at least one camera, or None for all.")
    xy, xyz, pose = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return xy, xyz, pose


def _test(path: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = read_hdf5(path, ("annot2", name, "valid_frame"))
    lacking = [n for n in ("annot2", name, "valid_frame") if n not in arrays]
    if lacking:
        raise ValueError(f"{path} has no {', '.join(map(repr, lacking))}, which the test set of MPI-INF-3DHP has.")
    frames = arrays["valid_frame"].size
    if arrays["annot2"].shape != (frames, 1, 17, 2) or arrays[name].shape != (frames, 1, 17, 3):
        raise ValueError(
            f"{path}: 'annot2' must be (T, 1, 17, 2) and {name!r} (T, 1, 17, 3) for {counted(frames, 'frame')} of "
            f"'valid_frame', got {arrays['annot2'].shape} and {arrays[name].shape}."
        )
    valid = np.flatnonzero(arrays["valid_frame"].reshape(-1))
    return arrays["annot2"][valid, 0].astype(np.float64), arrays[name][valid, 0].astype(np.float64), valid


def _packed(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = read_npz(path, ("part", "S"))
    part, solid = (arrays.get(name) for name in ("part", "S"))
    if part is None or solid is None or part.dtype.kind != "f" or solid.dtype.kind != "f":
        raise ValueError(f"{path} has no 'part' and 'S' of numbers, which MMPose's files of MPI-INF-3DHP have.")
    if part.shape != (len(part), 17, 3) or solid.shape != (len(part), 17, 4):
        raise ValueError(f"{path}: 'part' must be (N, 17, 3) and 'S' (N, 17, 4), got {part.shape} and {solid.shape}.")
    xy = np.where(part[..., 2:] > 0, part[..., :2], np.nan)
    xyz_mm = np.where(solid[..., 3:] > 0, solid[..., :3] * 1000.0, np.nan)
    return xy, xyz_mm, np.arange(len(part))
