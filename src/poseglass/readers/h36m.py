"""Human3.6M: 3D poses of seven subjects.

Ionescu et al., "Human3.6M: Large Scale Datasets and Predictive Methods for 3D Human Sensing in Natural Environments",
PAMI 2014. Research use, on application. Read is what the field passes on, ``data_3d_h36m.npz``: "positions_3d", a
pickled dict of subject ("S1") to action ("Walking 1") to an array ``(T, 32, 3)``, metres, in a world with z up, 50
frames a second. The pickle is read as data; nothing in it is run. The owners' own files (``Poses_D3_Positions``, CDF)
are not read: the package cdflib reads them.

Of 32 joints, some of which are doubled, the usual 17 are kept, as ``H36M17``. Arrays ``(T, 17, 3)``, from which the
others were left out before, are read too; their joints must be in the order that the 17 have among the 32, which is
that of ``H36M17``: pelvis, right leg, left leg, spine, thorax, neck, head, left arm, right arm.

Subjects S1, S5, S6, S7 and S8 are for training, S9 and S11 for testing.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.motion import PoseClips
from poseglass.core.pickled import Foreign, PickleReader, Stored
from poseglass.core.skeletons import H36M17
from poseglass.core.table import counted, listed
from poseglass.readers.joint_names import check_leg, leg_of_poses
from poseglass.readers.mat_file import MAX_UNPACKED_BYTES, check_file
from poseglass.readers.poses_npz import ZIP_ERRORS, read_header, said

TEST_SUBJECTS = ("S9", "S11")

OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Where the 17 joints of ``H36M17`` are among the 32."""

_FROM_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
_CDF = (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02", b"\x00\x00\xff\xff")


def read_h36m(path: str | Path, *, every: int = 1) -> PoseClips:
    """Read ``data_3d_h36m.npz``, in the world frame: millimetres, y up.

    Args:
        path: The file.
        every: Take every n-th frame.

    Returns:
        One clip in ``H36M17`` for each subject and action, called "S1 Walking 1".

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another file, damaged, not in metres, or with arrays of another shape.
    """
    path = Path(path)
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}.")
    actions = _actions(path)
    parts, clip, names, subjects = [], [], [], []
    for (subject, action), value in actions.items():
        array = value.storage if isinstance(value, Stored) else value
        if not isinstance(array, np.ndarray) or array.ndim != 3 or array.shape[1:] not in ((32, 3), (17, 3)):
            got = array.shape if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{path}: {subject} {action} must be an array (T, 32, 3) or (T, 17, 3), got {got}.")
        found = array[::every, OF_32] if array.shape[1] == 32 else array[::every]
        if not np.isfinite(found).all() or (np.abs(found) > 1e6).any():
            raise ValueError(f"{path}: {subject} {action} has positions that are not finite numbers below a million.")
        xyz_mm = (found @ _FROM_Z_UP.T * 1000.0).astype(np.float32)
        check_leg(leg_of_poses(H36M17, xyz_mm), f"{path}: {subject} {action}:", "Positions must be metres in the file.")
        parts.append(xyz_mm)
        clip.append(np.full(len(found), len(names)))
        names.append(f"{subject} {action}")
        subjects.append(subject)
    return PoseClips(
        H36M17, np.concatenate(parts), np.concatenate(clip), tuple(names), tuple(subjects), 50.0 / every,
        (f"Subjects {listed(TEST_SUBJECTS)} are the test set.",) if set(subjects) & set(TEST_SUBJECTS) else (),
    )  # fmt: skip


def _actions(path: Path) -> dict[tuple[str, str], Any]:
    """Return the arrays of a file by subject and action."""
    check_file(path)
    with path.open("rb") as file:
        start = file.read(8)
    if start[:4] in _CDF[:2] or path.suffix.lower() == ".cdf":
        raise ValueError(
            f"{path} is a CDF file, which is not read. With the package cdflib: positions = "
            "cdflib.CDF(path)['Pose'].reshape(-1, 32, 3) / 1000, and np.savez_compressed('data_3d_h36m.npz', "
            "positions_3d={'S1': {'Walking 1': positions, ...}, ...})."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "positions_3d.npy" not in names:
                raise ValueError(
                    f"{path} has no 'positions_3d'. It has: {listed([n[:40] for n in names]) or 'nothing'}."
                )
            size = archive.getinfo("positions_3d.npy").file_size
            if size > MAX_UNPACKED_BYTES:
                raise ValueError(f"{path}: it unpacks to {size:,} bytes; at most {MAX_UNPACKED_BYTES:,} are read.")
            data = archive.read("positions_3d.npy")
    except ZIP_ERRORS as error:
        raise ValueError(f"{path} is not an .npz file of NumPy, or damaged or truncated ({said(error)}).") from error
    try:
        file = io.BytesIO(data)
        shape, _, dtype = read_header(file)
        whole = PickleReader(memoryview(data), file.tell()).load() if dtype.hasobject else None
    except ValueError as error:
        raise ValueError(f"{path}: 'positions_3d' is damaged, or holds more than arrays ({error}).") from error
    inner = whole.state if isinstance(whole, Foreign) and whole.name == "numpy.ndarray" else None
    table = inner[0] if isinstance(inner, list) and len(inner) == 1 and shape == () else None
    if not isinstance(table, dict) or not table or not all(isinstance(part, dict) for part in table.values()):
        raise ValueError(f"{path}: 'positions_3d' must be a dict of subjects, each a dict of actions.")
    found = {(str(subject), str(action)): value for subject, part in table.items() for action, value in part.items()}
    if not found:
        raise ValueError(f"{path}: {counted(len(table), 'subject')} without any action.")
    return found
