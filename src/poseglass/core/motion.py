"""Motion capture: the joints of one recording, and the poses of many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted, listed, nearest

RETARGETED = "ic_"
"""Subjects whose name starts so were recorded as people and stored as one character, which gives all the same head."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """The positions of all joints of one recording.

    The world frame is right-handed with y up, millimetres; readers convert other units and axes. A camera has y down:
    see ``poseglass.core.lifting_pairs.view_poses``.

    Args:
        names: K unique names of joints, as the file has them. The ends of chains, which have no name in BVH, are called
            "Head_end".
        parents: ``(K,)`` int64, index of each joint's parent, which comes before it; -1 for a root.
        positions_mm: ``(T, K, 3)`` float64, finite.
        frames_per_second: Positive.
        name: Name of the recording.
        notes: What the reader assumed, a sentence each.
        file: What it was read from, for messages; empty for none.

    Raises:
        ValueError: Shapes do not fit each other, a name repeats, a parent comes after its child, or a position is not
            finite.
    """

    names: tuple[str, ...]
    parents: np.ndarray
    positions_mm: np.ndarray
    frames_per_second: float
    name: str = ""
    notes: tuple[str, ...] = ()
    file: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "parents", np.asarray(self.parents, np.int64))
        object.__setattr__(self, "positions_mm", np.asarray(self.positions_mm, np.float64))
        k, shape = len(self.names), self.positions_mm.shape
        if self.parents.shape != (k,) or len(shape) != 3 or shape[1:] != (k, 3):
            raise ValueError(
                f"A motion of {counted(k, 'joint')} needs parents of shape ({k},) and positions of shape (T, {k}, 3), "
                f"got {self.parents.shape} and {shape}."
            )
        if len(set(self.names)) != k:
            repeated = sorted({n for n in self.names if self.names.count(n) > 1})
            raise ValueError(f"Joint names must be unique, repeated: {listed(repeated)}.")
        late = np.flatnonzero((self.parents >= np.arange(k)) | (self.parents < -1))
        if len(late):
            raise ValueError(f"Joint {self.names[late[0]]!r} must come after its parent; sort joints from the root on.")
        if not np.isfinite(self.positions_mm).all():
            raise ValueError("Positions must be finite; every joint of a motion is known in every frame.")
        if not (np.isfinite(self.frames_per_second) and self.frames_per_second > 0):
            raise ValueError(f"Frames per second must be positive, got {self.frames_per_second}.")

    def __len__(self) -> int:
        return len(self.positions_mm)

    def index(self, joint: str) -> int:
        """Return the position of a joint.

        Raises:
            LookupError: No joint of that name.
        """
        if joint not in self.names:
            where = f"{self.file}: " if self.file else ""
            raise LookupError(f"{where}No joint {joint!r}.{nearest(joint, self.names)} Known: {', '.join(self.names)}.")
        return self.names.index(joint)


@dataclass(frozen=True, slots=True, eq=False)
class PoseClips:
    """Poses of one skeleton from many recordings ("clips"), and whose they are.

    Args:
        skeleton: Its K keypoints.
        xyz_mm: ``(N, K, 3)`` float32, world frame with y up, millimetres; NaN where a keypoint is unknown.
        clip: ``(N,)`` int64, the recording of each pose.
        clip_names: Name of each recording.
        subjects: Who was recorded, for each recording.
        frames_per_second: Poses per second of each recording.
        notes: What was assumed or left out, a sentence each.

    Raises:
        ValueError: Shapes do not fit each other, or frames per second that are not positive.
    """

    skeleton: Skeleton
    xyz_mm: np.ndarray
    clip: np.ndarray
    clip_names: tuple[str, ...]
    subjects: tuple[str, ...]
    frames_per_second: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "xyz_mm", np.asarray(self.xyz_mm, np.float32))
        object.__setattr__(self, "clip", np.asarray(self.clip, np.int64))
        object.__setattr__(self, "clip_names", tuple(str(n) for n in self.clip_names))
        object.__setattr__(self, "subjects", tuple(str(s) for s in self.subjects))
        n, k = len(self.clip), len(self.skeleton)
        if self.xyz_mm.shape != (n, k, 3) or self.clip.shape != (n,):
            raise ValueError(
                f"Poses in skeleton {self.skeleton.name!r} need xyz_mm of shape (N, {k}, 3) and clip of shape (N,), "
                f"got {self.xyz_mm.shape} and {self.clip.shape}."
            )
        if not (np.isfinite(self.frames_per_second) and self.frames_per_second > 0):
            raise ValueError(f"Frames per second must be positive, got {self.frames_per_second}.")
        if len(self.subjects) != len(self.clip_names):
            raise ValueError(
                f"Every clip needs a subject, got {counted(len(self.clip_names), 'clip')} and "
                f"{counted(len(self.subjects), 'subject')}."
            )
        if n and not 0 <= self.clip.min() <= self.clip.max() < len(self.clip_names):
            raise ValueError(
                f"clip must number the {counted(len(self.clip_names), 'clip')} from 0, got numbers from "
                f"{self.clip.min()} to {self.clip.max()}."
            )

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def subject_of_pose(self) -> np.ndarray:
        """``(N,)`` array of names: whose pose it is."""
        return np.array(self.subjects, dtype=np.str_)[self.clip] if len(self) else np.zeros(0, np.str_)

    def select(self, rows: np.ndarray) -> Self:
        """Return some poses, by a mask or by row; the list of clips stays whole."""
        return replace(self, xyz_mm=self.xyz_mm[rows], clip=self.clip[rows])

    def split_by_subject(self, held_out: Sequence[str]) -> tuple[Self, Self]:
        """Return the poses of all other subjects, and those of the subjects that are held out.

        Splitting by pose or by clip would leak: poses of one recording are nearly equal, and bone lengths are a
        person's own. Retargeted subjects (``ic_...``) are different people with the bones, neck and head of one
        character; holding out one of several says so in the notes of both parts.

        Args:
            held_out: Names of subjects.

        Raises:
            ValueError: A name that is no subject, or nobody is left on one side.

        Example:
            >>> from poseglass.core.skeleton import Skeleton
            >>> point = Skeleton("point", ("p",))
            >>> clips = PoseClips(point, np.zeros((3, 1, 3)), np.array([0, 0, 1]), ("walk", "run"), ("ann", "bob"), 15)
            >>> rest, held_out = clips.split_by_subject(["bob"])
            >>> len(rest), len(held_out)
            (2, 1)
        """
        if isinstance(held_out, str):
            raise ValueError(f"held_out is a list of subjects, got the text {held_out!r}; use [{held_out!r}].")
        everybody = sorted(set(self.subject_of_pose.tolist()))
        for name in held_out:
            if name not in everybody:
                raise ValueError(f"No poses of subject {name!r}.{nearest(name, everybody)} There are: {everybody}.")
        out = np.isin(self.subject_of_pose, list(held_out))
        if out.all() or not out.any():
            raise ValueError(
                f"A split needs subjects on both sides, got {counted(int(out.sum()), 'pose')} held out and "
                f"{counted(int((~out).sum()), 'pose')} left. Subjects: {everybody}."
            )
        alike = [name for name in everybody if name.startswith(RETARGETED)]
        across = {name in set(held_out) for name in alike} == {True, False}
        notes = self.notes
        if across:
            notes += (
                f"{len(alike)} retargeted subjects ({listed(alike)}) are on both sides: their movements are different "
                "people's, but bone lengths, neck and head are one character's. Hold out all of them, or none, for "
                "figures on unknown bodies.",
            )
        return replace(self.select(~out), notes=notes), replace(self.select(out), notes=notes)
