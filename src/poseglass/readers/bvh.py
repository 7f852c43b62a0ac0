"""BVH (Biovision hierarchy): a skeleton of joints, and their rotations in each frame.

There is no specification of its owner; the format is described in Meredith and Maddock, "Motion Capture File Formats
Explained", University of Sheffield, 2001. On disk::

    HIERARCHY
    ROOT Hips
    {
        OFFSET 0 0 0
        CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
        JOINT LeftUpLeg { ... }
    }
    MOTION
    Frames: 2
    Frame Time: 0.0083333
    (a line of numbers for each frame: all channels in the order of the file)

Rotations are in degrees and multiply in the order of the channels: Zrotation Yrotation Xrotation is R_Z R_Y R_X.
Channels of position replace the joint's offset, at the root and wherever else they are. The file states neither its
unit nor which axis points up.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from poseglass.core.kinematics import forward_kinematics
from poseglass.core.motion import Motion
from poseglass.core.table import counted, listed
from poseglass.readers.motion_file import MAX_JOINTS, as_array, number, numbers, read_lines
from poseglass.readers.world_frame import to_world

_CHANNELS = {f"{axis}{kind}".lower(): (axis, kind) for axis in "XYZ" for kind in ("position", "rotation")}


@dataclass(slots=True)
class _Joint:
    name: str
    parent: int
    line: int
    offset: list[float] | None = None
    channels: list[tuple[str, str]] = field(default_factory=list)
    end: bool = False
    first_column: int = 0


def read_bvh(
    path: str | Path, *, root: str | int | None = None, unit: str | float | None = None, up: str | None = None
) -> Motion:
    """Read one person of a BVH file, in the world frame: millimetres, y up.

    Args:
        path: The file. Channels may be in any order, and any joint may have channels of position.
        root: Name or number of the root, if the file has several hierarchies.
        unit: "mm", "cm", "m", "inch", "inch*0.45" (the CMU database), or millimetres per unit. None takes the unit in
            which the legs are as long as a person's, which needs a known hierarchy; ``notes`` says which.
        up: The axis that points up, "+y", "+z" ...; None takes +y, or +z if heads are above pelves along it.

    Returns:
        All joints; the end of a chain is called as its joint with "_end", "Head_end".

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not BVH, damaged or truncated, the unit cannot be told, or several roots and none is chosen.
            Messages name the line.
    """
    path = Path(path)
    lines = read_lines(path, "BVH")
    joints, after = _hierarchy(lines, path)
    table, seconds = _frames(lines, after, sum(len(j.channels) for j in joints), path)
    joints, roots = _chosen(joints, root, path)
    index = {old: new for new, old in enumerate(roots)}
    names = tuple(j.name for j in joints)
    parents = np.array([index.get(j.parent, -1) for j in joints])
    translations, angles, axes = [], [], []
    for joint in joints:
        moved = np.tile(np.asarray(joint.offset, np.float64), (len(table), 1))
        rotated = []
        for column, (axis, kind) in enumerate(joint.channels, joint.first_column):
            if kind == "position":
                moved[:, "XYZ".index(axis)] = table[:, column]
            else:
                rotated.append((axis, table[:, column]))
        translations.append(moved)
        axes.append("".join(axis for axis, _ in rotated))
        angles.append(np.radians(np.stack([a for _, a in rotated], 1) if rotated else np.zeros((len(table), 0))))
    positions = forward_kinematics(parents, translations, angles, axes)
    positions_mm, notes = to_world(names, positions, unit, up, str(path))
    return Motion(names, parents, positions_mm, 1.0 / seconds, path.stem, notes, str(path))


def _hierarchy(lines: list[str], path: Path) -> tuple[list[_Joint], int]:
    """Return the joints of a file, and the number of the line (from 0) after "MOTION"."""
    joints: list[_Joint] = []
    open_joints: list[int] = []
    words = ((number, word) for number, line in enumerate(lines, 1) for word in line.split())
    at, word = next(words, (1, ""))
    if word.upper() != "HIERARCHY":
        raise ValueError(f"{path}, line {at}: a BVH file starts with HIERARCHY, got {word[:40]!r}.")
    taken: set[tuple[int, str]] = set()  # names may repeat in another hierarchy
    waiting = False  # for the brace of the joint that was named last
    tree = -1
    for at, word in words:
        kind = word.upper()
        place = f"{path}, line {at}"
        if waiting != (kind == "{"):
            raise ValueError(f"{place}: expected {'{' if waiting else 'a joint, OFFSET, CHANNELS or }'}, got {word!r}.")
        if kind == "{":
            waiting = False
        elif kind == "}":
            if not open_joints:
                raise ValueError(f"{place}: a brace closes that was not opened.")
            joint = joints[open_joints.pop()]
            if joint.offset is None:
                raise ValueError(f"{place}: joint {joint.name!r} of line {joint.line} has no OFFSET.")
        elif kind == "MOTION":
            if open_joints:
                joint = joints[open_joints[-1]]
                raise ValueError(f"{place}: joint {joint.name!r} of line {joint.line} is not closed before MOTION.")
            if not joints:
                raise ValueError(f"{place}: MOTION comes without a ROOT before it.")
            return joints, at
        elif kind in ("ROOT", "JOINT", "END"):
            if (kind == "ROOT") == bool(open_joints):
                raise ValueError(f"{place}: {word} must stand {'outside' if kind == 'ROOT' else 'inside'} of a joint.")
            parent = open_joints[-1] if open_joints else -1
            if parent >= 0 and joints[parent].end:
                raise ValueError(f"{place}: an End Site has no joints below it.")
            _, name = next(words, (at, ""))
            if name in ("", "{", "}"):
                raise ValueError(f"{place}: {word} has no name.")
            if kind == "END":
                ends = sum(j.end and j.parent == parent for j in joints)
                name = f"{joints[parent].name}_end{ends + 1 if ends else ''}"
            tree += kind == "ROOT"
            if (tree, name) in taken:
                raise ValueError(f"{place}: a second joint named {name!r}. Names of one hierarchy must be unique.")
            taken.add((tree, name))
            if len(joints) == MAX_JOINTS:
                raise ValueError(f"{place}: more than {MAX_JOINTS:,} joints, which no recording of a person has.")
            joints.append(_Joint(name, parent, at, end=kind == "END"))
            open_joints.append(len(joints) - 1)
            waiting = True
        elif kind in ("OFFSET", "CHANNELS"):
            if not open_joints:
                raise ValueError(f"{place}: {word} must stand inside of a joint.")
            joint = joints[open_joints[-1]]
            if kind == "OFFSET":
                joint.offset = numbers([next(words, (at, "nothing"))[1] for _ in range(3)], f"{place}, OFFSET")
            else:
                _channels(joint, joints, words, place)
        else:
            raise ValueError(f"{place}: expected ROOT, JOINT, End Site, OFFSET, CHANNELS or MOTION, got {word[:40]!r}.")
    raise ValueError(
        f"{path}, line {len(lines)}: it ends within the hierarchy, before MOTION. It is truncated; fetch it again."
    )


def _channels(joint: _Joint, joints: list[_Joint], words: Iterator[tuple[int, str]], place: str) -> None:
    """Read the channels of a joint."""
    _, word = next(words, (0, ""))
    count = int(word) if word.isdecimal() and len(word) < 3 else -1
    if not 0 <= count <= 6:
        raise ValueError(f"{place}: a joint has 0 to 6 CHANNELS, got {word[:40]!r}.")
    if joint.channels or joint.end:
        raise ValueError(f"{place}: joint {joint.name!r} cannot have {'a second list of ' * (not joint.end)}CHANNELS.")
    joint.first_column = sum(len(j.channels) for j in joints)
    for _ in range(count):
        _, word = next(words, (0, ""))
        channel = _CHANNELS.get(word.lower())
        if channel is None or channel in joint.channels:
            raise ValueError(
                f"{place}: expected {counted(count, 'channel')} such as Xrotation or Yposition, each once, got "
                f"{word[:40]!r}."
            )
        joint.channels.append(channel)


def _frames(lines: list[str], after: int, columns: int, path: Path) -> tuple[np.ndarray, float]:
    """Return the numbers of all frames, ``(T, columns)``, and the seconds between two."""
    rest = [(at, line) for at, line in enumerate(lines[after:], after + 1) if line.strip()]
    values = []
    for label, (at, line) in zip(("Frames:", "Frame Time:"), [*rest[:2], (0, ""), (0, "")][:2], strict=True):
        if not line.strip().lower().startswith(label.lower()):
            raise ValueError(
                f"{path}, line {at or len(lines)}: expected {label!r} after MOTION, "
                f"got {line.strip()[:40]!r}{'' if line else '; the file is truncated'}."
            )
        values.append(line.strip()[len(label) :].strip())
    (frames_at, _), (time_at, _) = rest[:2]
    declared, seconds = values[0], number(values[1])
    if not declared.isdecimal():
        raise ValueError(
            f"{path}, line {frames_at}: the number of frames must be a whole number, got {declared[:40]!r}."
        )
    if seconds is None or seconds <= 0:
        raise ValueError(f"{path}, line {time_at}: the frame time must be a positive number, got {values[1][:40]!r}.")
    rows = rest[2:]
    for at, line in rows:
        found = len(line.split())
        if found != columns:
            last = "; the file is truncated" if found < columns and at == rows[-1][0] else ""
            raise ValueError(
                f"{path}, line {at}: a frame has {counted(columns, 'number')}, one for each channel, got {found}{last}."
            )
    if len(declared) > 12 or int(declared) != len(rows):
        why = (
            "the file is truncated, or the number is wrong"
            if len(declared) > 12 or int(declared) > len(rows)
            else ("the number is wrong")
        )
        raise ValueError(
            f"{path}, line {frames_at}: it declares {declared[:20]} frames, and {counted(len(rows), 'line')} of "
            f"numbers follow; {why}. Fetch it again, or write 'Frames: {len(rows)}' to read those that are there."
        )
    return as_array([line for _, line in rows], [at for at, _ in rows], columns, str(path)), seconds


def _chosen(joints: list[_Joint], root: str | int | None, path: Path) -> tuple[list[_Joint], list[int]]:
    """Return the joints below one root, and their numbers in the file."""
    roots = [i for i, joint in enumerate(joints) if joint.parent < 0]
    names = [joints[i].name for i in roots]
    if root is None and len(roots) > 1:
        raise ValueError(
            f"{path} has {len(roots)} hierarchies, of the roots {listed(names)}. Choose one: root={names[0]!r}, or "
            "root=0."
        )
    if isinstance(root, str):
        if names.count(root) > 1:
            raise ValueError(f"{path} has {names.count(root)} roots named {root!r}. Choose one by number: root=0.")
        if root not in names:
            raise ValueError(f"{path} has no root {root!r}. It has: {listed(names)}.")
        root = names.index(root)
    if root is not None and not 0 <= root < len(roots):
        raise ValueError(f"{path} has {counted(len(roots), 'hierarchy')}; root must be below it, got {root}.")
    first = roots[root or 0]
    after = next((r for r in roots if r > first), len(joints))
    return joints[first:after], list(range(first, after))
