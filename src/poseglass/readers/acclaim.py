"""Acclaim motion capture: a skeleton (ASF) and the values of its degrees of freedom in each frame (AMC).

The format of the CMU Graphics Lab Motion Capture Database; described in Lander, "Working with Motion Capture File
Formats", Game Developer, January 1998. On disk, the skeleton::

    :units
      length 0.45
      angle deg
    :root
      order TX TY TZ RX RY RZ
      axis XYZ
      position 0 0 0
      orientation 0 0 0
    :bonedata
      begin
        id 1
        name lfemur
        direction 0.34 -0.94 0
        length 7.2
        axis 0 0 20 XYZ
        dof rx ry rz
      end
    :hierarchy
      begin
        root lfemur ...
      end

and the motion, of which each frame is its number and a line for each bone that moves::

    :FULLY-SPECIFIED
    :DEGREES
    1
    root 9.3 17.8 -17.3 -2.0 -3.1 -1.6
    lfemur 0.6 -9.2 20.1

A bone is rotated about its own axes: with C the rotation of "axis" and M that of its values, its frame is that of its
parent times C M C^-1, and it extends from the end of its parent by length times direction. "XYZ" rotates about X first,
R_Z R_Y R_X, and so do "rx ry rz". Lengths are in inches times the number after "length", 0.45 in that database.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from poseglass.core.kinematics import rotation_matrices
from poseglass.core.motion import Motion
from poseglass.core.table import counted, listed, nearest
from poseglass.readers.motion_file import MAX_JOINTS, numbers, read_lines
from poseglass.readers.world_frame import to_world

_ROOT = "root"
_ORDER = ("tx", "ty", "tz", "rx", "ry", "rz")
INCH_MM = 25.4

USUAL_FRAMES_PER_SECOND = 120.0
"""Of most clips of the CMU database."""


@dataclass(slots=True)
class _Bone:
    name: str
    line: int
    direction: np.ndarray | None = None
    length: float | None = None
    angles: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    order: str = "XYZ"
    dof: tuple[str, ...] = ()


@dataclass(slots=True)
class _Skeleton:
    path: Path
    length: float | None = None
    radians: bool = False
    bones: dict[str, _Bone] = field(default_factory=dict)
    parent: dict[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = _ORDER
    root_position: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])


def read_amc(
    path: str | Path,
    asf: str | Path | None = None,
    *,
    frames_per_second: float | None = None,
    unit: str | float | None = None,
    up: str | None = None,
) -> Motion:
    """Read an Acclaim motion and its skeleton, in the world frame: millimetres, y up.

    The position of a bone is its far end: "lfemur" is the left knee, "lhipjoint" the left hip.

    Args:
        path: The motion, ``08_01.amc``.
        asf: The skeleton. None takes the only ``.asf`` file beside the motion whose name it begins with (``08.asf`` for
            ``08_01.amc``), or the only one there is.
        frames_per_second: Neither file states it. None takes 120, as in the CMU database but for some of its clips, and
            says so.
        unit: As ``read_bvh``; None takes the one that the skeleton states.
        up: As ``read_bvh``.

    Raises:
        FileNotFoundError: No such file, or no skeleton beside it.
        ValueError: Not such files, damaged or truncated, bones that do not hang together, or values that do not fit the
            skeleton. Messages name the line.
    """
    path = Path(path)
    lines = read_lines(path, "AMC")
    skeleton = _read_asf(Path(asf) if asf is not None else _beside(path))
    names = _sorted(skeleton)
    values, radians = _read_frames(lines, skeleton, path)
    factor = 1.0 if radians else np.pi / 180.0
    frames = len(values[_ROOT])
    positions = np.zeros((frames, len(names), 3))
    parents = np.array([-1, *(names.index(skeleton.parent[name]) for name in names[1:])])
    turned: list[np.ndarray] = []
    for k, name in enumerate(names):
        if name == _ROOT:
            turn = [i for i, dof in enumerate(skeleton.order) if dof[0] == "r"]
            axes = "".join(skeleton.order[i][1] for i in turn).upper()
            turned.append(_fixed_axes(values[name][:, turn] * factor, axes))
            for i, dof in enumerate(skeleton.order):
                if dof[0] == "t":
                    positions[:, 0, "xyz".index(dof[1])] = values[name][:, i]
            positions[:, 0] += skeleton.root_position
            continue
        bone = skeleton.bones[name]
        assert bone.direction is not None
        assert bone.length is not None
        tilt = np.array([bone.angles])
        own = _fixed_axes(tilt if skeleton.radians else np.radians(tilt), bone.order)[0]
        axes = "".join(dof[1] for dof in bone.dof).upper()
        moved = _fixed_axes(values[name] * factor, axes) if bone.dof else np.broadcast_to(np.eye(3), (frames, 3, 3))
        turned.append(turned[parents[k]] @ (own @ moved @ own.T))
        positions[:, k] = positions[:, parents[k]] + turned[k] @ (bone.length * bone.direction)
    positions_mm, notes = to_world(
        names, positions, unit, up, str(path), stated_mm=INCH_MM / skeleton.length if skeleton.length else None
    )
    if frames_per_second is None:
        notes += (f"{USUAL_FRAMES_PER_SECOND:g} frames per second are assumed, as neither file states it.",)
        frames_per_second = USUAL_FRAMES_PER_SECOND
    return Motion(names, parents, positions_mm, frames_per_second, path.stem, notes, str(path))


def _fixed_axes(angles_rad: np.ndarray, order: str) -> np.ndarray:
    """Return rotations about axes that stay where they are, the first letter first: ``(T, 3, 3)``."""
    return rotation_matrices(angles_rad[:, ::-1], order[::-1])


def _beside(path: Path) -> Path:
    """Return the skeleton beside a motion.

    Raises:
        FileNotFoundError: There is none, or it is not clear which.
    """
    found = sorted(p for p in path.parent.iterdir() if p.suffix.lower() == ".asf")
    own = [p for p in found if path.stem == p.stem or path.stem.startswith(f"{p.stem}_")] or found
    if len(own) != 1:
        there = f"there are {listed([p.name for p in own])}" if own else "there is no .asf file"
        raise FileNotFoundError(f"{path} needs its skeleton, and beside it {there}. Give its path: asf=...")
    return own[0]


def _read_asf(path: Path) -> _Skeleton:
    """Return the bones of a skeleton file."""
    lines = read_lines(path, "ASF")
    skeleton = _Skeleton(path)
    section, bone, inside = "", None, 0
    hierarchy_line = 0
    for at, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        place = f"{path}, line {at}"
        if words[0].startswith(":"):
            if inside:
                raise ValueError(f"{place}: {words[0]} comes before the end of the block that begins in line {inside}.")
            section = words[0].lower()
            hierarchy_line = at if section == ":hierarchy" else hierarchy_line
            continue
        key, rest = words[0].lower(), words[1:]
        if section in (":bonedata", ":hierarchy") and key in ("begin", "end"):
            if (key == "begin") == bool(inside):
                raise ValueError(f"{place}: {key!r} {'inside of a block' if inside else 'without a begin'}.")
            inside = at if key == "begin" else 0
            if section == ":bonedata":
                if key == "end" and bone is None:
                    raise ValueError(f"{place}: the bone that ends here has no name.")
                if key == "end" and bone is not None and (bone.direction is None or bone.length is None):
                    raise ValueError(f"{place}: bone {bone.name!r} of line {bone.line} lacks its direction or length.")
                bone = None
        elif section == ":units":
            _units(skeleton, key, rest, place)
        elif section == ":root":
            _root(skeleton, key, rest, place)
        elif section == ":bonedata":
            if not inside:
                raise ValueError(f"{place}: expected 'begin' of a bone, got {words[0][:40]!r}.")
            if key == "name":
                name = rest[0] if rest else ""
                if not name or name == _ROOT or name in skeleton.bones:
                    raise ValueError(f"{place}: bone names must be unique and not 'root', got {name[:40]!r}.")
                if len(skeleton.bones) == MAX_JOINTS:
                    raise ValueError(f"{place}: more than {MAX_JOINTS:,} bones, which no recording of a person has.")
                bone = skeleton.bones[name] = _Bone(name, at)
            elif key in ("direction", "length", "axis", "dof"):
                if bone is None:
                    raise ValueError(f"{place}: {key!r} comes before the name of its bone.")
                _bone(bone, key, rest, place)
        elif section == ":hierarchy":
            if not inside:
                raise ValueError(f"{place}: expected 'begin' of the hierarchy, got {words[0][:40]!r}.")
            _children(skeleton, words, place)
    if inside:
        raise ValueError(f"{path}, line {len(lines)}: the block of line {inside} has no end; the file is truncated.")
    if not skeleton.bones or not hierarchy_line:
        lacking = ":hierarchy" if skeleton.bones else ":bonedata"
        raise ValueError(f"{path}, line {len(lines)}: no {lacking}; this is no ASF file, or it is truncated.")
    return skeleton


def _units(skeleton: _Skeleton, key: str, rest: list[str], place: str) -> None:
    if key == "length":
        (skeleton.length,) = numbers(_exactly(rest, 1, place, key), place)
        if skeleton.length <= 0:
            raise ValueError(f"{place}: the unit of length must be positive, got {skeleton.length:g}.")
    elif key == "angle":
        word = (rest[0] if rest else "").lower()
        if word not in ("deg", "rad"):
            raise ValueError(f"{place}: angle must be deg or rad, got {word[:40]!r}.")
        skeleton.radians = word == "rad"


def _root(skeleton: _Skeleton, key: str, rest: list[str], place: str) -> None:
    if key == "order":
        order = tuple(word.lower() for word in rest)
        if not set(order) <= set(_ORDER) or len(set(order)) != len(order):
            raise ValueError(f"{place}: the root's order must be some of {' '.join(_ORDER).upper()}, got {rest}.")
        skeleton.order = order
    elif key == "position":
        skeleton.root_position = numbers(_exactly(rest, 3, place, key), place)
    elif key == "orientation" and any(numbers(_exactly(rest, 3, place, key), place)):
        raise ValueError(
            f"{place}: a root with an orientation of its own, {' '.join(rest)}, is not read; expected 0 0 0. Add it to "
            "the rotations of the root in the motion file."
        )


def _bone(bone: _Bone, key: str, rest: list[str], place: str) -> None:
    if key == "direction":
        bone.direction = np.array(numbers(_exactly(rest, 3, place, key), place))
        size = float(np.linalg.norm(bone.direction))
        if not 0.9 < size < 1.1:
            raise ValueError(f"{place}: the direction of {bone.name!r} must have length 1, got {size:.4g}.")
    elif key == "length":
        (bone.length,) = numbers(_exactly(rest, 1, place, key), place)
        if bone.length < 0:
            raise ValueError(f"{place}: the length of {bone.name!r} must not be negative, got {bone.length:g}.")
    elif key == "axis":
        words = _exactly([*rest, "XYZ"] if len(rest) == 3 else rest, 4, place, key)  # some writers leave it out
        bone.angles, bone.order = numbers(words[:3], place), words[3].upper()
        if sorted(bone.order) != ["X", "Y", "Z"]:
            raise ValueError(f"{place}: the order of an axis must be XYZ or another order of these, got {words[3]!r}.")
    else:
        bone.dof = tuple(word.lower() for word in rest)
        odd = [word for word in bone.dof if word not in ("rx", "ry", "rz")]
        if odd or len(set(bone.dof)) != len(bone.dof):
            raise ValueError(
                f"{place}: degrees of freedom of {bone.name!r} must be some of rx ry rz, each once, got "
                f"{' '.join(rest)[:40]!r}. Bones that move or stretch are not read."
            )


def _children(skeleton: _Skeleton, words: list[str], place: str) -> None:
    parent, *children = words
    for name in words:
        if name not in skeleton.bones and name != _ROOT:
            known = tuple(skeleton.bones)
            raise ValueError(f"{place}: no bone {name[:40]!r} in :bonedata.{nearest(name, known)}")
    for child in children:
        if child == _ROOT:
            raise ValueError(f"{place}: root is below {parent!r}; a hierarchy must not go in a circle.")
        if child in skeleton.parent:
            raise ValueError(f"{place}: bone {child!r} has two parents, {skeleton.parent[child]!r} and {parent!r}.")
        skeleton.parent[child] = parent


def _sorted(skeleton: _Skeleton) -> tuple[str, ...]:
    """Return root and bones, each after its parent.

    Raises:
        ValueError: A bone without a parent, or a circle.
    """
    lone = [name for name in skeleton.bones if name not in skeleton.parent]
    if lone:
        raise ValueError(
            f"{skeleton.path}, line {skeleton.bones[lone[0]].line}: {counted(len(lone), 'bone')} ({listed(lone)}) "
            "have no parent in :hierarchy."
        )
    order = [_ROOT]
    below: dict[str, list[str]] = {}
    for child, parent in skeleton.parent.items():
        below.setdefault(parent, []).append(child)
    for name in order:
        order += below.get(name, [])
    circle = [name for name in skeleton.bones if name not in set(order)]
    if circle:
        raise ValueError(
            f"{skeleton.path}, line {skeleton.bones[circle[0]].line}: the hierarchy goes in a circle; "
            f"{listed(circle)} do not hang on root."
        )
    return tuple(order)


def _read_frames(lines: list[str], skeleton: _Skeleton, path: Path) -> tuple[dict[str, np.ndarray], bool]:
    """Return the values of root and each bone with degrees of freedom, ``(T, dof)``, and whether angles are radians."""
    wanted = {_ROOT: len(skeleton.order)} | {b.name: len(b.dof) for b in skeleton.bones.values() if b.dof}
    rows: dict[str, list[list[float]]] = {name: [] for name in wanted}
    radians = skeleton.radians
    frame, frame_at, first, got = 0, 0, 1, set()
    for at, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        place = f"{path}, line {at}"
        if words[0].startswith(":"):
            flag = words[0].lower()
            if flag in (":degrees", ":radians"):
                radians = flag == ":radians"
            continue
        if len(words) == 1 and words[0].isdecimal():
            _check_frame(frame, frame_at, got, wanted, path)
            first = first if frame else int(words[0][:12])  # a part of a recording keeps its numbers
            if int(words[0][:12]) != first + frame:
                raise ValueError(f"{place}: expected frame {first + frame}, got {words[0][:20]}.")
            frame, frame_at, got = frame + 1, at, set()
            continue
        name = words[0]
        if not frame:
            raise ValueError(f"{place}: expected the number of the first frame, got {name[:40]!r}.")
        if name not in wanted:
            if name in skeleton.bones:
                raise ValueError(f"{place}: bone {name!r} has no dof in {skeleton.path.name}, and values here.")
            raise ValueError(f"{place}: no bone {name[:40]!r} in {skeleton.path.name}.{nearest(name, tuple(wanted))}")
        if name in got:
            raise ValueError(f"{place}: bone {name!r} has a second line in frame {frame}.")
        if len(words) - 1 != wanted[name]:
            raise ValueError(
                f"{place}: {name!r} needs {counted(wanted[name], 'number')}, one for each dof, got {len(words) - 1}."
            )
        got.add(name)
        rows[name].append(numbers(words[1:], place))
    _check_frame(frame, frame_at, got, wanted, path)
    if not frame:
        raise ValueError(f"{path}, line {len(lines)}: no frame; this is no AMC file, or it is truncated.")
    return {name: np.array(row, np.float64).reshape(frame, wanted[name]) for name, row in rows.items()}, radians


def _check_frame(frame: int, at: int, got: set[str], wanted: dict[str, int], path: Path) -> None:
    lacking = [name for name in wanted if name not in got] if frame else []
    if lacking:
        raise ValueError(
            f"{path}, line {at}: frame {frame} has no values of {listed(lacking)}; the file is truncated, or "
            "belongs to another skeleton."
        )


def _exactly(words: list[str], count: int, place: str, key: str) -> list[str]:
    if len(words) != count:
        raise ValueError(f"{place}: {key!r} needs {counted(count, 'value')}, got {len(words)}.")
    return words
