"""Body pose: joint angles of a person within anatomical bounds, sampled from activities of people in photographs.

Angles follow the clinical names (flexion, abduction, plane of elevation) and signs, in degrees. The bounds are the
usual ranges of motion of a flexible adult, wider at hip and shoulder than in textbooks, to include gymnasts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from poseglass.core.table import nearest

BOUNDS: dict[str, tuple[float, float]] = {
    "spine_flex": (-60.0, 85.0),
    "spine_side": (-40.0, 40.0),
    "spine_twist": (-50.0, 50.0),
    "neck_flex": (-50.0, 50.0),
    "neck_side": (-30.0, 30.0),
    "neck_twist": (-65.0, 65.0),
    "shoulder_elevation": (0.0, 180.0),
    "shoulder_plane": (-95.0, 130.0),
    "shoulder_twist": (-80.0, 90.0),
    "elbow_flex": (0.0, 145.0),
    "forearm_twist": (-80.0, 80.0),
    "wrist_flex": (-70.0, 75.0),
    "hip_flex": (-35.0, 135.0),
    "hip_abduct": (-25.0, 85.0),
    "hip_twist": (-40.0, 50.0),
    "knee_flex": (0.0, 150.0),
    "ankle_plantar": (-20.0, 55.0),
}
"""Range of every angle, degrees. Limb angles are the same for left and right: signs are flipped with the side."""

SIDED = tuple(name for name in BOUNDS if not name.startswith(("spine", "neck")))
"""The angles that exist once for the left and once for the right."""


@dataclass(frozen=True, slots=True, eq=False)
class BodyPose:
    """Joint angles of one person, and the rotation of the pelvis in the world.

    Args:
        activity: The activity for which the pose was sampled, "run".
        trunk: Degrees of ``spine_*`` and ``neck_*`` by name.
        left: Degrees of the left limbs by name.
        right: Degrees of the right limbs by name.
        root: ``(3, 3)`` rotation of the pelvis: body (x its left, y up, z forward) to world (y up).
        height_mm: Height of the body's lowest point above the ground.
    """

    activity: str
    trunk: dict[str, float]
    left: dict[str, float]
    right: dict[str, float]
    root: np.ndarray
    height_mm: float


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Return the right-handed ``(3, 3)`` rotation about "x", "y" or "z".

    Example:
        >>> rotation("z", 90.0).round(6).tolist()
        [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    if axis == "x":
        return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    if axis == "y":
        return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


# An activity is written as means and spreads. A limb set is (flexions of left, of right); where left and right differ
# they are swapped at random afterwards, so that neither side is preferred.
Draw = np.random.Generator


def _around(rng: Draw, mean: float, spread: float) -> float:
    return float(mean + spread * rng.standard_normal())


def _legs(rng: Draw, hip: tuple, abduct: tuple, knee: tuple, twist: float = 8.0, ankle: tuple = (5.0, 12.0)) -> dict:
    return {
        "hip_flex": _around(rng, *hip),
        "hip_abduct": _around(rng, *abduct),
        "hip_twist": _around(rng, 8.0, twist),
        "knee_flex": abs(_around(rng, *knee)),
        "ankle_plantar": _around(rng, *ankle),
    }


def _arm(rng: Draw, elevation: tuple, plane: tuple, elbow: tuple, twist: tuple = (10.0, 25.0)) -> dict:
    return {
        "shoulder_elevation": abs(_around(rng, *elevation)),
        "shoulder_plane": _around(rng, *plane),
        "shoulder_twist": _around(rng, *twist),
        "elbow_flex": abs(_around(rng, *elbow)),
        "forearm_twist": _around(rng, 0.0, 35.0),
        "wrist_flex": _around(rng, 5.0, 20.0),
    }


def _arm_anywhere(rng: Draw) -> dict:
    """Any reachable direction: uniform on the sphere, not in the angles; the elbow is often bent."""
    elevation = float(np.rad2deg(np.arccos(rng.uniform(-1.0, 1.0))))
    return _arm(rng, (elevation, 1.0), (rng.uniform(-40.0, 120.0), 1.0), (rng.choice([10.0, 50.0, 95.0]), 25.0))


def _arms_down(rng: Draw) -> tuple[dict, dict]:
    kind = rng.integers(5)
    if kind == 0:  # hands on the hips
        return tuple(_arm(rng, (45.0, 8.0), (-5.0, 10.0), (95.0, 10.0), (55.0, 10.0)) for _ in range(2))  # type: ignore[return-value]
    if kind == 1:  # folded or holding something in front
        return tuple(_arm(rng, (30.0, 12.0), (75.0, 20.0), (95.0, 20.0), (40.0, 20.0)) for _ in range(2))  # type: ignore[return-value]
    return tuple(_arm(rng, (12.0, 10.0), (20.0, 40.0), (15.0, 20.0)) for _ in range(2))  # type: ignore[return-value]


def _arms_free(rng: Draw) -> tuple[dict, dict]:
    """Balance, wave, reach: both out, both up, or each in its own direction."""
    kind = rng.integers(6)
    if kind == 0:
        return tuple(_arm(rng, (90.0, 18.0), (15.0, 25.0), (18.0, 18.0)) for _ in range(2))  # type: ignore[return-value]
    if kind == 1:
        return tuple(_arm(rng, (155.0, 18.0), (50.0, 35.0), (20.0, 20.0)) for _ in range(2))  # type: ignore[return-value]
    if kind == 2:
        return tuple(_arm(rng, (85.0, 20.0), (88.0, 15.0), (20.0, 20.0)) for _ in range(2))  # type: ignore[return-value]
    if kind == 3:
        return _arm_anywhere(rng), _arms_down(rng)[1]
    return _arm_anywhere(rng), _arm_anywhere(rng)


def _trunk(rng: Draw, flex: tuple, side: float = 7.0, twist: float = 10.0, neck: tuple = (0.0, 15.0)) -> dict:
    return {
        "spine_flex": _around(rng, *flex),
        "spine_side": _around(rng, 0.0, side),
        "spine_twist": _around(rng, 0.0, twist),
        "neck_flex": _around(rng, *neck),
        "neck_side": _around(rng, 0.0, 8.0),
        "neck_twist": _around(rng, 0.0, 22.0),
    }


# Each returns trunk, left, right, (pitch forward, roll) of the pelvis in degrees, height above the ground in mm.
Sampled = tuple[dict, dict, dict, tuple[float, float], float]


def _stand(rng: Draw) -> Sampled:
    arms = _arms_down(rng) if rng.random() < 0.55 else _arms_free(rng)
    legs = [_legs(rng, (3.0, 9.0), (6.0, 7.0), (5.0, 9.0)) for _ in range(2)]
    return _trunk(rng, (4.0, 9.0)), arms[0] | legs[0], arms[1] | legs[1], (_around(rng, 0, 5), _around(rng, 0, 3)), 0.0


def _walk(rng: Draw) -> Sampled:
    stride = rng.uniform(0.5, 1.2)
    left = _legs(rng, (26.0 * stride, 6.0), (2.0, 4.0), (14.0, 9.0)) | _arm(
        rng, (24.0 * stride, 8.0), (-75.0, 15.0), (18, 12)
    )
    right = _legs(rng, (-17.0 * stride, 6.0), (2.0, 4.0), (28.0, 16.0)) | _arm(
        rng, (26.0 * stride, 8.0), (85.0, 15.0), (30, 15)
    )
    if rng.random() < 0.4:
        arms = _arms_free(rng) if rng.random() < 0.5 else _arms_down(rng)
        left, right = left | arms[0], right | arms[1]
    return _trunk(rng, (6.0, 6.0)), left, right, (_around(rng, 4, 4), _around(rng, 0, 3)), 0.0


def _run(rng: Draw) -> Sampled:
    phase = rng.uniform(0.0, 1.0)
    left = _legs(rng, (40.0 + 45.0 * phase, 14.0), (3.0, 7.0), (75.0 - 25.0 * phase, 24.0))
    right = _legs(rng, (-14.0 + 10.0 * phase, 12.0), (4.0, 7.0), (25.0 + 65.0 * phase, 22.0), ankle=(22.0, 14.0))
    left |= _arm(rng, (48.0, 16.0), (-60.0, 20.0), (85.0, 22.0))
    right |= _arm(rng, (52.0, 18.0), (85.0, 18.0), (88.0, 22.0))
    if rng.random() < 0.3:
        arms = _arms_free(rng)
        left, right = left | arms[0], right | arms[1]
    return (
        _trunk(rng, (14.0, 10.0), twist=14.0, neck=(-8.0, 12.0)),
        left,
        right,
        (_around(rng, 12, 9), _around(rng, 0, 6)),
        20.0,
    )


def _jump(rng: Draw) -> Sampled:
    kind = rng.integers(5)
    if kind == 0:  # tucked
        legs = [_legs(rng, (95.0, 22.0), (14.0, 12.0), (105.0, 22.0)) for _ in range(2)]
    elif kind == 1:  # straddled
        legs = [_legs(rng, (60.0, 28.0), (55.0, 16.0), (12.0, 14.0), ankle=(30.0, 12.0)) for _ in range(2)]
    elif kind == 2:  # split leap
        legs = [
            _legs(rng, (80.0, 22.0), (8.0, 12.0), (15.0, 18.0)),
            _legs(rng, (-30.0, 12.0), (8.0, 12.0), (25.0, 25.0)),
        ]
    elif kind == 3:  # hurdled
        legs = [
            _legs(rng, (85.0, 20.0), (10.0, 14.0), (50.0, 32.0)),
            _legs(rng, (20.0, 30.0), (25.0, 22.0), (75.0, 30.0)),
        ]
    else:  # stretched, or arched
        legs = [_legs(rng, (-5.0, 18.0), (10.0, 12.0), (28.0, 28.0), ankle=(30.0, 12.0)) for _ in range(2)]
    arms = _arms_free(rng)
    tilt = (_around(rng, 15, 28), _around(rng, 0, 18))
    return _trunk(rng, (12.0, 22.0), 12.0, 14.0), arms[0] | legs[0], arms[1] | legs[1], tilt, rng.uniform(100.0, 1500.0)


def _crouch(rng: Draw) -> Sampled:
    depth = rng.uniform(0.5, 1.0)
    legs = [
        _legs(rng, (118.0 * depth, 12.0), (16.0, 12.0), (128.0 * depth, 14.0), ankle=(-8.0, 10.0)) for _ in range(2)
    ]
    if rng.random() < 0.35:  # lunge
        legs[1] = _legs(rng, (-5.0, 14.0), (12.0, 12.0), (45.0, 28.0), ankle=(15.0, 14.0))
    arms = (
        _arms_free(rng)
        if rng.random() < 0.45
        else tuple(_arm(rng, (75.0, 22.0), (80.0, 18.0), (35.0, 28.0)) for _ in range(2))
    )
    tilt = (_around(rng, 28, 16), _around(rng, 0, 8))
    return _trunk(rng, (30.0, 16.0), neck=(-15.0, 18.0)), arms[0] | legs[0], arms[1] | legs[1], tilt, 0.0


def _sit(rng: Draw) -> Sampled:
    floor = rng.random() < 0.5
    knee = (60.0, 45.0) if floor else (85.0, 15.0)
    legs = [_legs(rng, (92.0, 14.0), (18.0, 15.0), knee) for _ in range(2)]
    arms = _arms_down(rng) if rng.random() < 0.6 else _arms_free(rng)
    tilt = (_around(rng, -8, 12), _around(rng, 0, 4))
    return _trunk(rng, (18.0, 16.0)), arms[0] | legs[0], arms[1] | legs[1], tilt, 0.0


def _vault(rng: Draw) -> Sampled:
    """On hands and feet: crawling, climbing, vaulting, planks."""
    kind = rng.integers(3)
    hip, knee = (((105.0, 20.0), (105.0, 28.0)), ((70.0, 28.0), (50.0, 35.0)), ((10.0, 18.0), (15.0, 15.0)))[kind]
    legs = [_legs(rng, hip, (14.0, 16.0), knee, ankle=(12.0, 18.0)) for _ in range(2)]
    arms = [_arm(rng, (78.0, 24.0), (75.0, 22.0), (22.0, 22.0), (0.0, 20.0)) for _ in range(2)]
    if rng.random() < 0.3:
        arms[1] = _arm_anywhere(rng)
    tilt = (_around(rng, 66, 20), _around(rng, 0, 16))
    height = 0.0 if rng.random() < 0.5 else rng.uniform(0.0, 800.0)
    return _trunk(rng, (14.0, 18.0), 10.0, 14.0, (-25.0, 20.0)), arms[0] | legs[0], arms[1] | legs[1], tilt, height


def _handstand(rng: Draw) -> Sampled:
    arms = [_arm(rng, (165.0, 16.0), (50.0, 35.0), (12.0, 16.0)) for _ in range(2)]
    kind = rng.integers(4)
    if kind == 0:
        legs = [_legs(rng, (0.0, 12.0), (4.0, 6.0), (8.0, 12.0), ankle=(30.0, 12.0)) for _ in range(2)]
    elif kind == 1:
        legs = [_legs(rng, (20.0, 28.0), (45.0, 20.0), (15.0, 20.0), ankle=(30.0, 12.0)) for _ in range(2)]
    elif kind == 2:
        legs = [
            _legs(rng, (60.0, 28.0), (10.0, 12.0), (30.0, 28.0)),
            _legs(rng, (-15.0, 16.0), (10.0, 12.0), (35.0, 32.0)),
        ]
    else:
        legs = [_legs(rng, (80.0, 30.0), (18.0, 16.0), (80.0, 36.0)) for _ in range(2)]
    tilt = (_around(rng, 180, 22), _around(rng, 0, 28 if rng.random() < 0.4 else 8))
    return _trunk(rng, (-5.0, 18.0), 10.0, 12.0, (-20.0, 16.0)), arms[0] | legs[0], arms[1] | legs[1], tilt, 0.0


def _flip(rng: Draw) -> Sampled:
    """Rotating in the air, at any angle."""
    trunk, left, right, _, _ = _jump(rng) if rng.random() < 0.6 else _crouch(rng)
    arms = _arms_free(rng)
    left, right = left | arms[0], right | arms[1]
    return trunk, left, right, (rng.uniform(30.0, 330.0), _around(rng, 0, 30)), rng.uniform(200.0, 1500.0)


def _hang(rng: Draw) -> Sampled:
    arms = [_arm(rng, (158.0, 16.0), (40.0, 35.0), (25.0, 30.0)) for _ in range(2)]
    hip = rng.choice([5.0, 50.0, 95.0])
    legs = [_legs(rng, (hip, 18.0), (12.0, 14.0), (35.0, 35.0), ankle=(28.0, 12.0)) for _ in range(2)]
    return (
        _trunk(rng, (5.0, 18.0)),
        arms[0] | legs[0],
        arms[1] | legs[1],
        (_around(rng, 0, 25), _around(rng, 0, 10)),
        900.0,
    )


def _lie(rng: Draw) -> Sampled:
    arms = _arms_free(rng)
    legs = [_legs(rng, (15.0, 25.0), (10.0, 10.0), (20.0, 30.0)) for _ in range(2)]
    tilt = (rng.choice([-90.0, 90.0]) + 8.0 * rng.standard_normal(), 10.0 * rng.standard_normal())
    return _trunk(rng, (5.0, 16.0)), arms[0] | legs[0], arms[1] | legs[1], tilt, 0.0


def _anything(rng: Draw) -> Sampled:
    limbs = []
    for _ in range(2):
        legs = {n: rng.uniform(*BOUNDS[n]) for n in ("hip_flex", "hip_twist", "knee_flex", "ankle_plantar")}
        limbs.append(_arm_anywhere(rng) | legs | {"hip_abduct": rng.uniform(-10.0, 60.0)})
    trunk = {n: 0.6 * rng.uniform(*BOUNDS[n]) for n in BOUNDS if n.startswith(("spine", "neck"))}
    return trunk, limbs[0], limbs[1], (_around(rng, 10, 45), _around(rng, 0, 25)), rng.uniform(0.0, 1000.0)


ACTIVITIES: dict[str, Callable[[Draw], Sampled]] = {
    "stand": _stand,
    "walk": _walk,
    "run": _run,
    "jump": _jump,
    "crouch": _crouch,
    "sit": _sit,
    "vault": _vault,
    "handstand": _handstand,
    "flip": _flip,
    "hang": _hang,
    "lie": _lie,
    "anything": _anything,
}
"""Activities of a person, by name."""

ATHLETES: dict[str, float] = {
    "stand": 0.06, "walk": 0.03, "run": 0.09, "jump": 0.17, "crouch": 0.13, "sit": 0.05, "vault": 0.13,
    "handstand": 0.15, "flip": 0.10, "hang": 0.04, "lie": 0.02, "anything": 0.03,
}  # fmt: skip
"""Weights of activities that resemble sports photographs: gymnastics, parkour, athletics."""

EVERYDAY: dict[str, float] = {"stand": 0.45, "walk": 0.25, "sit": 0.15, "run": 0.06, "crouch": 0.06, "jump": 0.03}
"""Weights of activities that resemble photographs of streets and interiors."""


def check_activities(activities: Mapping[str, float]) -> None:
    """Raise unless the table names known activities with valid weights.

    Raises:
        ValueError: A name is unknown, a weight negative, or all are zero.
    """
    for name, weight in activities.items():
        if name not in ACTIVITIES:
            raise ValueError(
                f"activities names an unknown activity {name!r}.{nearest(name, ACTIVITIES)} "
                f"Known: {', '.join(sorted(ACTIVITIES))}."
            )
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"activities[{name!r}] must be a weight of 0 or more, got {weight}.")
    if sum(activities.values()) <= 0:
        raise ValueError("activities must give at least one activity a weight above 0, got none.")


def sample_pose(rng: np.random.Generator, activities: Mapping[str, float]) -> BodyPose:
    """Sample a pose: an activity by weight, angles about its means, clipped to ``BOUNDS``; facing any direction.

    Args:
        rng: Source of randomness.
        activities: Weights by name, as accepted by ``check_activities``.
    """
    names = sorted(activities)
    weights = np.array([activities[n] for n in names], np.float64)
    activity = names[int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))]
    trunk, left, right, (pitch, roll), height_mm = ACTIVITIES[activity](rng)
    if rng.random() < 0.5:
        left, right = right, left
    # Heading: any direction, towards the camera (0) more often than not.
    yaw = float(rng.uniform(-180.0, 180.0)) if rng.random() < 0.33 else _around(rng, 0.0, 50.0)
    root = rotation("y", yaw) @ rotation("z", roll) @ rotation("x", pitch)
    return BodyPose(activity, bounded(trunk), bounded(left), bounded(right), root, float(height_mm))


def bounded(angles: Mapping[str, float]) -> dict[str, float]:
    """Return the angles clipped to ``BOUNDS``, degrees; an arm behind the body rises 55 degrees at most.

    Example:
        >>> bounded({"knee_flex": -20.0, "shoulder_plane": -90.0, "shoulder_elevation": 170.0})
        {'knee_flex': 0.0, 'shoulder_plane': -90.0, 'shoulder_elevation': 55.0}
    """
    kept = {n: min(max(float(a), BOUNDS[n][0]), BOUNDS[n][1]) for n, a in angles.items()}
    if "shoulder_elevation" in kept and kept.get("shoulder_plane", 0.0) < -30.0:
        behind = min(1.0, (-30.0 - kept["shoulder_plane"]) / 60.0)
        kept["shoulder_elevation"] = min(kept["shoulder_elevation"], 180.0 - 125.0 * behind)
    return kept
