"""Poses of motion capture in one NumPy file, without pickles.

On disk, a ``.npz`` of plain arrays::

    xyz_mm              (N, K, 3) float32, millimetres, world frame with y up; NaN where unknown
    clip                (N,) int, the recording of each pose
    clip_names          (C,) text
    subjects            (C,) text, who was recorded
    keypoints           (K,) text
    frames_per_second   one number
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poseglass.core.motion import RETARGETED, Motion, PoseClips
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import H36M17, SKELETONS_3D
from poseglass.core.table import counted, listed
from poseglass.readers.joint_names import to_h36m17
from poseglass.readers.mat_file import check_file

MAX_BYTES = 4 * 1024**3
"""Size of an array, unpacked: 20 million poses of 17 keypoints."""

_ARRAYS = {
    "xyz_mm": ("fiu", 3), "clip": ("iu", 1), "clip_names": ("U", 1), "subjects": ("U", 1), "keypoints": ("U", 1),
    "frames_per_second": ("fiu", 0),
}  # fmt: skip
_KINDS = {"f": "numbers", "i": "whole numbers", "U": "text"}

MAX_MM = 1e6
"""Positions beyond a kilometre are not of people in a studio, or not in millimetres."""


def read_poses(path: str | Path) -> PoseClips:
    """Read poses of motion capture; the layout is stated above.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another file, damaged, with pickled objects, or arrays that do not fit each other.
    """
    path = Path(path)
    arrays = read_npz(path, tuple(_ARRAYS))
    for name, (kinds, axes) in _ARRAYS.items():
        if name not in arrays:
            raise ValueError(f"{path} has no array {name!r}. A file of poses has {', '.join(_ARRAYS)}.")
        array = arrays[name]
        if array.dtype.kind not in kinds or array.ndim != axes:
            raise ValueError(
                f"{path}: {name!r} must be an array of {_KINDS[kinds[0]]} with {axes} dimensions, got {array.dtype} of "
                f"shape {array.shape}."
            )
    keypoints = tuple(arrays["keypoints"].tolist())
    known = next((s for s in SKELETONS_3D.values() if s.keypoints == keypoints), None)
    xyz_mm = arrays["xyz_mm"].astype(np.float32)
    if np.isinf(xyz_mm).any() or (np.nanmax(np.abs(xyz_mm), initial=0.0) > MAX_MM if xyz_mm.size else False):
        raise ValueError(f"{path}: positions must be within {MAX_MM:,.0f} mm, or NaN where unknown.")
    _check_millimetres(known or Skeleton(path.stem, keypoints), xyz_mm, path)
    subjects = tuple(arrays["subjects"].tolist())
    alike = sorted({s for s in subjects if s.startswith(RETARGETED)})
    notes: tuple[str, ...] = ()
    if alike:
        notes = (
            f"{counted(len(alike), 'subject')} ({listed(alike)}) are retargeted: the movements of different people "
            "with the bones, neck and head of one character.",
        )
    try:
        return PoseClips(
            known or Skeleton(path.stem, keypoints), xyz_mm, arrays["clip"].astype(np.int64),
            tuple(arrays["clip_names"].tolist()), subjects, float(arrays["frames_per_second"]), notes,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_poses(path: str | Path, clips: PoseClips) -> None:
    """Write poses as one file that ``read_poses`` reads."""
    np.savez_compressed(
        Path(path),
        xyz_mm=clips.xyz_mm,
        clip=clips.clip.astype(np.int32),
        clip_names=np.array(clips.clip_names, np.str_),
        subjects=np.array(clips.subjects, np.str_),
        keypoints=np.array(clips.skeleton.keypoints, np.str_),
        frames_per_second=np.array(clips.frames_per_second),
    )


def gather(motions: Sequence[Motion], subjects: Sequence[str], *, frames_per_second: float = 15.0) -> PoseClips:
    """Return the 17 keypoints of recordings, at a common number of frames per second.

    Every n-th frame is taken, with n the nearest whole number, and at least 1.

    Args:
        motions: Recordings of known hierarchies.
        subjects: Who was recorded, for each of them.
        frames_per_second: Wanted.

    Raises:
        ValueError: A hierarchy is not known, or the numbers of recordings and subjects differ.
    """
    if len(motions) != len(subjects) or not motions:
        raise ValueError(f"Every motion needs a subject, got {len(motions)} motions and {len(subjects)} subjects.")
    parts, clip, notes = [], [], []
    for number, motion in enumerate(motions):
        xyz_mm, about = to_h36m17(motion)
        step = max(1, round(motion.frames_per_second / frames_per_second))
        parts.append(xyz_mm[::step])
        clip.append(np.full(len(parts[-1]), number))
        notes += about
        rate = motion.frames_per_second / step
        if abs(rate - frames_per_second) > 0.05 * frames_per_second:
            notes.append(f"{motion.name} has {rate:.3g} frames per second instead of {frames_per_second:g}.")
    names = tuple(motion.name for motion in motions)
    return PoseClips(
        H36M17, np.concatenate(parts), np.concatenate(clip), names, tuple(subjects), frames_per_second,
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read some arrays of an ``.npz`` file, without unpickling; missing names are skipped.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another file, damaged, too large, or an array of pickled objects.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.removesuffix(".npy") in names and member.file_size > MAX_BYTES:
                    raise ValueError(f"{member.filename} unpacks to {member.file_size:,} bytes, at most {MAX_BYTES:,}")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} has arrays of pickled Python objects, which can run code when they are read. Where you trust "
                "the file, save each as plain numbers: np.savez(out, xyz_mm=...)."
            ) from error
        raise ValueError(f"{path} is a damaged .npz file ({error}). Fetch it again.") from error
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ValueError(f"{path} is not an .npz file of NumPy, or damaged or truncated ({first}).") from error


def _check_millimetres(skeleton: Skeleton, xyz_mm: np.ndarray, path: Path) -> None:
    """Raise if thighs and shins are those of metres, or of another unit."""
    chain = skeleton.indices_of(("left_hip", "left_knee", "left_ankle"))
    if (chain < 0).any() or not len(xyz_mm):
        return
    leg = np.linalg.norm(np.diff(xyz_mm[:, chain].astype(np.float64), axis=1), axis=-1).sum(1)
    leg = float(np.median(leg[np.isfinite(leg)])) if np.isfinite(leg).any() else float("nan")
    if leg < 100 or leg > 3000:
        likely = " They look like metres: multiply by 1,000." if 0.3 < leg < 1.5 else ""
        raise ValueError(
            f"{path}: legs (hip to ankle) are {leg:.4g} long, and positions must be millimetres, in which a person's "
            f"are 600 to 1,100.{likely}"
        )
