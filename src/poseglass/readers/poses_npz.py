"""Poses of motion capture in one NumPy file, without pickles.

On disk, a ``.npz`` of plain arrays::

    xyz_mm              (N, K, 3) float32, millimetres, world frame with y up; NaN where unknown
    clip                (N,) int, the recording of each pose
    clip_names          (C,) text
    subjects            (C,) text, who was recorded
    keypoints           (K,) text
    frames_per_second   one number
"""

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from poseglass.core.files import write_bytes
from poseglass.core.motion import RETARGETED, Motion, PoseClips
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import H36M17, SKELETONS_3D
from poseglass.core.table import counted, listed
from poseglass.readers.joint_names import check_leg, leg_of_poses, to_h36m17
from poseglass.readers.mat_file import check_file

MAX_BYTES = 4 * 1024**3
"""Size of an array, unpacked: 20 million poses of 17 keypoints."""

_ARRAYS = {
    "xyz_mm": ("fiu", 3), "clip": ("iu", 1), "clip_names": ("U", 1), "subjects": ("U", 1), "keypoints": ("U", 1),
    "frames_per_second": ("fiu", 0),
}  # fmt: skip
_KINDS = {"f": "numbers", "i": "whole numbers", "U": "text"}

ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, KeyError, NotImplementedError,
    RuntimeError,
)  # fmt: skip
"""What ``zipfile`` raises when it reads a damaged file."""

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
    if (np.abs(arrays["xyz_mm"]) > MAX_MM).any():
        raise ValueError(f"{path}: positions must be within {MAX_MM:,.0f} mm, or NaN where unknown.")
    xyz_mm = arrays["xyz_mm"].astype(np.float32)
    try:
        keypoints, subjects, clip_names = (tuple(arrays[n].tolist()) for n in ("keypoints", "subjects", "clip_names"))
        known = next((s for s in SKELETONS_3D.values() if s.keypoints == keypoints), None)
        clips = PoseClips(
            known or Skeleton(path.stem, keypoints), xyz_mm, arrays["clip"].astype(np.int64), clip_names, subjects,
            float(arrays["frames_per_second"]),
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    leg = leg_of_poses(clips.skeleton, xyz_mm)
    likely = " They look like metres: multiply by 1,000." if leg is not None and 0.3 < leg < 1.65 else ""
    check_leg(leg, f"{path}:", f"Positions must be millimetres.{likely}")
    alike = sorted({s for s in subjects if s.startswith(RETARGETED)})
    if not alike:
        return clips
    note = (
        f"{counted(len(alike), 'subject')} ({listed(alike)}) are retargeted: the movements of different people with "
        "the bones, neck and head of one character."
    )
    return replace(clips, notes=(note,))


def write_poses(path: str | Path, clips: PoseClips) -> None:
    """Write poses as one file that ``read_poses`` reads, atomically, and under just this name.

    Raises:
        OSError: The folder is missing, full or not writable; an existing file is untouched.
    """
    file = io.BytesIO()
    np.savez_compressed(
        file,
        xyz_mm=clips.xyz_mm,
        clip=clips.clip.astype(np.int32),
        clip_names=np.array(clips.clip_names, np.str_),
        subjects=np.array(clips.subjects, np.str_),
        keypoints=np.array(clips.skeleton.keypoints, np.str_),
        frames_per_second=np.array(clips.frames_per_second),
    )
    write_bytes(path, file.getvalue())


def gather(motions: Sequence[Motion], subjects: Sequence[str], *, frames_per_second: float = 15.0) -> PoseClips:
    """Return the 17 keypoints of recordings, at a common number of frames per second.

    Every n-th frame is taken, with n the nearest whole number, and at least 1.

    Args:
        motions: Recordings of known hierarchies.
        subjects: Who was recorded, for each of them.
        frames_per_second: Wanted.

    Raises:
        ValueError: A hierarchy is not known, the numbers of recordings and subjects differ, or the frames per second
            wanted are not positive.
    """
    if not (np.isfinite(frames_per_second) and frames_per_second > 0):
        raise ValueError(f"Frames per second must be positive, got {frames_per_second}.")
    if len(motions) != len(subjects) or not motions:
        raise ValueError(f"Every motion needs a subject, got {len(motions)} motions and {len(subjects)} subjects.")
    parts, clip, notes = [], [], []
    said_of: dict[str, list[str]] = {}
    for number, motion in enumerate(motions):
        xyz_mm, about = to_h36m17(motion)
        step = max(1, round(motion.frames_per_second / frames_per_second))
        parts.append(xyz_mm[::step])
        clip.append(np.full(len(parts[-1]), number))
        for note in about:
            said_of.setdefault(note, []).append(motion.name)
        rate = motion.frames_per_second / step
        if abs(rate - frames_per_second) > 0.05 * frames_per_second:
            notes.append(f"{motion.name} has {rate:.3g} frames per second instead of {frames_per_second:g}.")
    names = tuple(motion.name for motion in motions)
    notes = [f"{listed(of)}: {note}" for note, of in said_of.items()] + notes
    return PoseClips(
        H36M17, np.concatenate(parts), np.concatenate(clip), names, tuple(subjects), frames_per_second,
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read some arrays of an ``.npz`` file, without unpickling; missing names are skipped.

    An array is made only after its header was compared with what is behind it, so that memory follows the file.

    Returns:
        Arrays, not writeable.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another file, damaged, too large, or an array of pickled objects.
    """
    check_file(path)
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            there = {member.filename: member for member in archive.infolist()}
            for name in names:
                member = there.get(f"{name}.npy")
                if member is not None:
                    with archive.open(member) as file:
                        arrays[name] = _read_array(file, member, path)
    except ZIP_ERRORS as error:
        raise ValueError(f"{path} is not an .npz file of NumPy, or damaged or truncated ({said(error)}).") from error
    return arrays


def _read_array(file: IO[bytes], member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    where = f"{path}: {member.filename[:80]}"
    if member.file_size > MAX_BYTES:
        raise ValueError(f"{where} unpacks to {member.file_size:,} bytes; at most {MAX_BYTES:,} are read.")
    try:
        shape, fortran, dtype = read_header(file)
        if not dtype.hasobject:
            stated, there = prod(shape) * dtype.itemsize, member.file_size - file.tell()
            if stated != there or (prod(shape) and not dtype.itemsize):
                raise ValueError(f"{str(dtype)[:80]} of shape {shape} has {stated:,} bytes, but {there:,} are there")
            data = file.read()  # to the end, where the checksum is compared
            return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:
        raise ValueError(f"{where} is damaged ({said(error)}). Fetch the file again.") from error
    raise ValueError(
        f"{path} has arrays of pickled Python objects, which can run code when they are read. Where you trust "
        "the file, save each as plain numbers: np.savez(out, xyz_mm=...)."
    )


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read magic and header of an array in NumPy's format: shape, whether it is in Fortran's order, and type.

    Raises:
        ValueError: It is no such header, or no array can have that shape.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (tokenize.TokenError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"the header of the array cannot be read: {said(error)}") from error
    if any(length < 0 for length in shape) or prod(max(length, 1) for length in shape) * max(dtype.itemsize, 1) > 2**62:
        raise ValueError(f"an array cannot have the shape {str(shape)[:80]}")
    return shape, fortran, dtype


def said(error: Exception) -> str:
    """Return the first line of an error, or its type if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
