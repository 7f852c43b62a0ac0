"""Joint names of known motion capture hierarchies: to the 17 keypoints of ``H36M17``, and from the legs to the unit."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from poseglass.core.motion import Motion
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import H36M17
from poseglass.core.table import counted, listed

UNITS_MM: dict[str, float] = {
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "inch": 25.4,
    "inch*0.45": 25.4 / 0.45,
}
"""Millimetres of one unit. "inch*0.45" is what the CMU Graphics Lab database is stored in: inches times 0.45."""

LEG_MM = (600.0, 1100.0)
"""Thigh and shin together, from hip to ankle, of a person. The units are so far apart that at most one gives this."""

STATED_LEG_MM = (300.0, 1650.0)
"""The same with toddlers and giants, for files whose layout states the unit: any other metric unit is beyond it."""

CHARACTER_HEAD_MM = 228.8
"""From the head joint to the top of the head of the character that the retargeted clips share."""

_LEAST = 10
"""A hierarchy is known if at least this many of the 17 keypoints are found under their names."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How one kind of hierarchy names the 17 keypoints.

    Attributes:
        name: What the kind is called here.
        middle: Joint of each keypoint in the middle of the body.
        limbs: Joint of hip, knee, ankle, shoulder, elbow and wrist, with ``{}`` for the side.
        sides: What stands there on the left and on the right.
        note: Where a joint is not quite the keypoint, a sentence.
        head_mm: There is no joint at the top of the head; it is placed at this distance from the neck, in line with
            thorax and neck.
    """

    name: str
    middle: Mapping[str, str]
    limbs: tuple[str, str, str, str, str, str]
    sides: tuple[str, str] = ("Left", "Right")
    note: str = ""
    head_mm: float | None = None

    def joints(self) -> dict[str, str]:
        """Return the joint of each keypoint."""
        found = dict(self.middle)
        for side, spelt in zip(("left", "right"), self.sides, strict=True):
            for part, joint in zip(("hip", "knee", "ankle", "shoulder", "elbow", "wrist"), self.limbs, strict=True):
                found[f"{side}_{part}"] = joint.format(spelt)
        return found


def _middle(pelvis: str, spine: str, thorax: str, neck: str, head_top: str) -> dict[str, str]:
    named = {"pelvis": pelvis, "spine": spine, "thorax": thorax, "neck": neck, "head_top": head_top}
    return {keypoint: joint for keypoint, joint in named.items() if joint}


NAMINGS: tuple[Naming, ...] = (
    Naming(
        "CMU, names of 3ds Max",
        _middle("Hips", "Chest", "Chest2", "Neck", "Head_end"),
        ("{}Hip", "{}Knee", "{}Ankle", "{}Shoulder", "{}Elbow", "{}Wrist"),
    ),
    Naming(
        "CMU, names of MotionBuilder",
        _middle("Hips", "Spine", "Spine1", "Neck1", "Head_end"),
        ("{}UpLeg", "{}Leg", "{}Foot", "{}Arm", "{}ForeArm", "{}Hand"),
    ),
    Naming(
        "CMU, Acclaim",
        _middle("root", "lowerback", "thorax", "lowerneck", "head"),
        ("{}hipjoint", "{}femur", "{}tibia", "{}clavicle", "{}humerus", "{}radius"),
        ("l", "r"),
    ),
    Naming(
        "MotionBuilder",
        _middle("Hips", "Spine1", "Neck", "Head", "Head_end"),
        ("{}UpLeg", "{}Leg", "{}Foot", "{}Arm", "{}ForeArm", "{}Hand"),
    ),
    Naming(
        "Mixamo",
        _middle("Hips", "Spine1", "Neck", "Head", "HeadTop_End"),
        ("{}UpLeg", "{}Leg", "{}Foot", "{}Arm", "{}ForeArm", "{}Hand"),
    ),
    Naming(
        "Character Creator",
        _middle("CC_Base_Pelvis", "CC_Base_Spine01", "CC_Base_NeckTwist01", "CC_Base_Head", ""),
        (
            "CC_Base_{}_Thigh", "CC_Base_{}_Calf", "CC_Base_{}_Foot", "CC_Base_{}_Upperarm", "CC_Base_{}_Forearm",
            "CC_Base_{}_Hand",
        ),
        ("L", "R"),
        "The hierarchy has no top of the head",
        CHARACTER_HEAD_MM,
    ),
    Naming(
        "BioVision",
        _middle("Hips", "Chest", "Neck", "Head", "Head_end"),
        ("{}Hip", "{}Knee", "{}Ankle", "{}Shoulder", "{}Elbow", "{}Wrist"),
    ),
    Naming(
        "thigh, shin, foot",
        _middle("Hip", "MiddleSpine", "Neck", "Head", "Head_end"),
        ("{}Thigh", "{}Shin", "{}Foot", "{}Shoulder", "{}Forearm", "{}Hand"),
        ("L", "R"),
    ),
    Naming(
        "Poser",
        _middle("hip", "chest", "neck", "head", "head_end"),
        ("{}Thigh", "{}Shin", "{}Foot", "{}Shldr", "{}ForeArm", "{}Hand"),
        ("l", "r"),
    ),
    Naming(
        "upper and lower limbs",
        _middle("Hips", "Chest", "", "Head", "Head_end"),
        ("{}UpLeg", "{}LowLeg", "{}LowLeg_end", "{}UpArm", "{}LowArm", "{}LowArm_end"),
        note="Its limbs end without hands and feet: ankles and wrists are the ends of the lower legs and arms",
    ),
)  # fmt: skip
"""The hierarchies that are known. A tie goes to the first, so one that has more joints of its own stands before."""


def naming_of(names: tuple[str, ...]) -> Naming | None:
    """Return the naming that finds most keypoints among joint names; None if it finds fewer than ten.

    A namespace before a colon ("mixamorig:Hips") does not matter.
    """
    plain = {_plain(name) for name in names}
    best = max(NAMINGS, key=lambda naming: len(plain & set(naming.joints().values())))
    return best if len(plain & set(best.joints().values())) >= _LEAST else None


def to_h36m17(motion: Motion, names: Mapping[str, str] | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the 17 keypoints of ``H36M17`` in every frame, ``(T, 17, 3)`` float32, and what to know, a sentence each.

    Where a joint lies differs from one hierarchy to the next: the spine is somewhere between pelvis and thorax, and the
    neck between thorax and head. Compare such keypoints across hierarchies with care.

    Args:
        motion: Any recording.
        names: Joint of each keypoint, for a hierarchy that is not known: ``{"pelvis": "Hips", ...}``. Keypoints that
            are not named are NaN.

    Returns:
        The positions, world frame with y up, millimetres, NaN for keypoints that the hierarchy does not have; and notes
        that name these.

    Raises:
        ValueError: The hierarchy is not known and no names are given.
        LookupError: A name is not a joint or keypoint.
    """
    joints = {_plain(name): index for index, name in enumerate(motion.names)}
    notes: list[str] = []
    head_mm = None
    if names is None:
        naming = naming_of(motion.names)
        if naming is None:
            where = motion.file or motion.name or "This motion"
            raise ValueError(
                f"{where}: the hierarchy of {counted(len(motion.names), 'joint')} ({listed(motion.names)}) is none "
                f"of the known ({', '.join(n.name for n in NAMINGS)}). Give the joint of each keypoint: "
                "names={'pelvis': ..., 'left_hip': ...}."
            )
        wanted, head_mm = naming.joints(), naming.head_mm
        if naming.note and head_mm is None:
            notes.append(f"{naming.note}.")
    else:
        for keypoint, joint in names.items():
            H36M17.index(keypoint)
            if _plain(joint) not in joints:
                motion.index(joint)
        naming, wanted = None, {keypoint: _plain(joint) for keypoint, joint in names.items()}
    xyz_mm = np.full((len(motion), len(H36M17), 3), np.nan)
    for k, keypoint in enumerate(H36M17.keypoints):
        if wanted.get(keypoint) in joints:
            xyz_mm[:, k] = motion.positions_mm[:, joints[wanted[keypoint]]]
    if naming is not None and head_mm is not None:
        thorax, neck, top = H36M17.indices_of(("thorax", "neck", "head_top"))
        along = xyz_mm[:, neck] - xyz_mm[:, thorax]
        length = np.linalg.norm(along, axis=-1, keepdims=True)
        xyz_mm[:, top] = xyz_mm[:, neck] + head_mm * along / np.where(length > 0, length, np.nan)
        notes.append(f"{naming.note}: it is placed {head_mm:g} mm beyond the head joint, in line with thorax and neck.")
    lacking = [name for k, name in enumerate(H36M17.keypoints) if np.isnan(xyz_mm[:, k]).all()]
    if naming is not None:
        lacking = [f"{name} ({_no(wanted[name], naming, joints)})" if name in wanted else name for name in lacking]
    if lacking and len(motion):
        notes.append(
            f"{len(lacking)} of {len(H36M17)} keypoints have no joint in this hierarchy and are unknown: "
            f"{', '.join(lacking)}."
        )
    return xyz_mm.astype(np.float32), tuple(notes)


def leg_length(names: tuple[str, ...], positions: np.ndarray) -> float | None:
    """Return thigh and shin together, the mean of both sides and the median over frames, in the unit of the positions.

    A leg of which a joint is missing is left out.

    Args:
        names: K names of joints.
        positions: ``(T, K, 3)``.

    Returns:
        None where there is no such leg; ``why_no_leg`` says why.
    """
    naming = naming_of(names)
    if naming is None or not len(positions):
        return None
    plain = [_plain(name) for name in names]
    lengths = []
    for chain in _legs(naming):
        if all(joint in plain for joint in chain):
            for upper, lower in pairwise(plain.index(joint) for joint in chain):
                lengths.append(np.median(np.linalg.norm(positions[:, upper] - positions[:, lower], axis=-1)))
    return float(sum(lengths)) / (len(lengths) / 2) if lengths else None


def why_no_leg(names: tuple[str, ...]) -> str:
    """Return why ``leg_length`` finds no leg, as the end of a sentence that begins with "as".

    Example:
        >>> why_no_leg(("root", "arm"))
        'the hierarchy is not a known one'
    """
    naming, plain = naming_of(names), {_plain(name) for name in names}
    if naming is None:
        return "the hierarchy is not a known one"
    absent = [_no(joint, naming, plain) for chain in _legs(naming) for joint in chain if joint not in plain]
    return f"the hierarchy ({naming.name}) has {'; '.join(absent)}" if absent else "there is no frame"


def _legs(naming: Naming) -> list[list[str]]:
    """Return the joints of each leg, from the hip down."""
    wanted = naming.joints()
    return [[wanted[f"{side}_{part}"] for part in ("hip", "knee", "ankle")] for side in ("left", "right")]


def _no(joint: str, naming: Naming, plain: Collection[str]) -> str:
    """Return that a joint of a naming is not there, and what may be it.

    Such as "no joint 'LeftKnee', only a similar 'LeftKne'".
    """
    others = sorted(set(plain) - set(naming.joints().values()))
    # stricter than nearest(): nobody typed these, and most hierarchies have joints of a similar name, as LeftToe
    like = difflib.get_close_matches(joint, others, n=1, cutoff=0.75)
    return f"no joint {joint!r}{f', only a similar {like[0]!r}' if like else ''}"


def leg_of_poses(skeleton: Skeleton, xyz: np.ndarray) -> float | None:
    """Return thigh and shin together, the median over poses, in the unit of the positions.

    They are the left ones, or the right ones where no pose has all of those.

    Args:
        skeleton: Its K keypoints.
        xyz: ``(N, K, 3)``; NaN where unknown.

    Returns:
        None where the skeleton has no such keypoints, or no pose has them all.
    """
    for side in ("left", "right"):
        chain = skeleton.indices_of((f"{side}_hip", f"{side}_knee", f"{side}_ankle"))
        if (chain >= 0).all():
            legs = np.linalg.norm(np.diff(xyz[:, chain].astype(np.float64), axis=1), axis=-1).sum(1)
            legs = legs[np.isfinite(legs)]
            if len(legs):
                return float(np.median(legs))
    return None


def check_leg(leg_mm: float | None, where: str, advice: str, *, within_mm: tuple[float, float] = STATED_LEG_MM) -> None:
    """Raise unless legs are a person's; None, which is unknown, passes.

    Args:
        leg_mm: Thigh and shin together.
        where: What the message begins with: "clip.bvh:".
        advice: What to do, a sentence that ends the message.
        within_mm: Narrower where units differ by less than a factor of ten, as inches and centimetres do.

    Raises:
        ValueError: They are not.
    """
    if leg_mm is not None and not within_mm[0] <= leg_mm <= within_mm[1]:
        raise ValueError(
            f"{where} legs (hip to ankle) are {leg_mm:.4g} mm long, which is no person's; most are {LEG_MM[0]:,.0f} to "
            f"{LEG_MM[1]:,.0f} mm. {advice}"
        )


def unit_of(leg: float) -> str | None:
    """Return the unit in which a leg has a person's length; None if it is none of ``UNITS_MM``.

    Example:
        >>> unit_of(0.85), unit_of(85.0), unit_of(33.5), unit_of(4.0)
        ('m', 'cm', 'inch', None)
    """
    return next((unit for unit, mm in UNITS_MM.items() if LEG_MM[0] <= leg * mm <= LEG_MM[1]), None)


def upright_axis(names: tuple[str, ...], positions: np.ndarray) -> tuple[str, float] | None:
    """Return the axis along which heads are above pelves, "+y", and the mean share of it in that direction.

    Args:
        names: K names of joints.
        positions: ``(T, K, 3)``.

    Returns:
        None where the hierarchy is not known or has no frame.
    """
    naming = naming_of(names)
    plain = [_plain(name) for name in names]
    ends = [] if naming is None else [naming.middle["pelvis"], naming.middle["neck"]]
    if not ends or not all(joint in plain for joint in ends) or not len(positions):
        return None
    along = positions[:, plain.index(ends[1])] - positions[:, plain.index(ends[0])]
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    mean = np.divide(along, length, out=np.zeros_like(along), where=length > 0).mean(0)
    axis = int(np.abs(mean).argmax())
    return f"{'+' if mean[axis] > 0 else '-'}{'xyz'[axis]}", float(abs(mean[axis]))


def _plain(name: str) -> str:
    return name.rpartition(":")[2]
