"""Body model: a dressed person of about seventy quadrics (ellipsoids and cones) on a posed skeleton.

Segment lengths follow the body-segment proportions of Drillis and Contini as fractions of stature (Winter,
Biomechanics and Motor Control of Human Movement, ch. 4); children have larger heads and shorter legs. All frames are
right-handed: a segment's x points to the person's left, y up (towards the head in a standing body), z forward; the
world has y up and the ground at y = 0.
"""

from dataclasses import dataclass

import numpy as np

from poseglass.synthetic.body_figure import ACCENT, FACE, HAIR, LOWER, SHOE, SKIN, SOCK, SOLE, UPPER, Figure, Outfit
from poseglass.synthetic.body_pose import BodyPose, rotation

SEGMENTS = (
    "pelvis", "abdomen", "chest", "neck", "head",
    "left_upper_arm", "left_forearm", "left_hand", "left_thigh", "left_shank", "left_foot",
    "right_upper_arm", "right_forearm", "right_hand", "right_thigh", "right_shank", "right_foot",
)  # fmt: skip
_SEGMENT = {name: i for i, name in enumerate(SEGMENTS)}

_NEAR: dict[str, tuple[str, ...]] = {
    "shoulder": ("chest", "upper_arm", "neck"), "elbow": ("upper_arm", "forearm"), "wrist": ("forearm", "hand"),
    "hip": ("pelvis", "thigh", "abdomen"), "knee": ("thigh", "shank"), "ankle": ("shank", "foot"),
}  # fmt: skip
_HEAD_POINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "head_top")

KEYPOINTS = (
    *_HEAD_POINTS, "neck", "thorax", "pelvis",
    *(f"{side}_{joint}" for joint in _NEAR for side in ("left", "right")),
)  # fmt: skip
"""Names of a body's keypoints: those of COCO, MPII, LSP and FLIC together."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A posed, dressed person: P quadrics in the world, and K named points.

    A point ``p`` maps to a quadric's own frame by ``q = to_local @ p + offset``. An ellipsoid is ``|q| = 1``; a cone is
    ``q_x^2 + q_z^2 = (1 + taper q_y)^2`` for ``0 <= q_y <= 1``, without lids.

    Args:
        figure: The build.
        outfit: The clothes.
        pose: The angles.
        to_local: ``(P, 3, 3)``.
        offset: ``(P, 3)``.
        taper: ``(P,)``, NaN for an ellipsoid.
        segment: ``(P,)`` index into ``SEGMENTS``.
        cut_mm: ``(P,)`` height in the segment's frame where the material changes.
        above: ``(P,)`` material above the cut.
        below: ``(P,)`` material below it.
        hull_from: ``(P, 2)`` for a cone the centres' indices ``(a, b)`` into ``balls``; -1 for an ellipsoid.
        balls: ``(Q, 4)`` centre and radius of the cones' ends, world, millimetres.
        segment_rotation: ``(S, 3, 3)`` segment to world.
        segment_origin_mm: ``(S, 3)``.
        points_mm: ``(len(KEYPOINTS), 3)`` world.
        points_radius_mm: ``(len(KEYPOINTS),)`` depth of flesh and cloth over the point.
        points_near: ``(len(KEYPOINTS), S)`` bool: the segments that meet at the point.
    """

    figure: Figure
    outfit: Outfit
    pose: BodyPose
    to_local: np.ndarray
    offset: np.ndarray
    taper: np.ndarray
    segment: np.ndarray
    cut_mm: np.ndarray
    above: np.ndarray
    below: np.ndarray
    hull_from: np.ndarray
    balls: np.ndarray
    segment_rotation: np.ndarray
    segment_origin_mm: np.ndarray
    points_mm: np.ndarray
    points_radius_mm: np.ndarray
    points_near: np.ndarray

    def rims(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of the quadrics: their centres, and their axes as columns, both in the world, mm.

        An ellipsoid counts once, ``(c, E)`` with ``c + E q`` for ``|q| <= 1``. A cone is the hull of the discs at its
        ends, two more such pairs whose middle axis is zero; they come after all the quadrics' own rows.

        Returns:
            ``(P + 2C, 3)`` and ``(P + 2C, 3, 3)`` for C cones; a cone's own row is its first disc again.
        """
        axes = np.linalg.inv(self.to_local)
        center = -(axes @ self.offset[:, :, None])[:, :, 0]
        cone = np.flatnonzero(~np.isnan(self.taper))
        discs = axes[cone] * np.array([1.0, 0.0, 1.0])
        far = discs * (1.0 + self.taper[cone])[:, None, None]
        axes[cone] = discs
        ends = self.balls[self.hull_from[cone].T.ravel(), :3]
        return np.concatenate([center, ends]), np.concatenate([axes, discs, far])

    def lowest_mm(self) -> float:
        """Return the height of the lowest point of the surface."""
        center, axes = self.rims()
        return float((center[:, 1] - np.sqrt((axes[:, 1] ** 2).sum(-1))).min())

    def moved(self, offset_mm: np.ndarray) -> "Body":
        """Return the same body elsewhere in the world."""
        by = np.asarray(offset_mm, np.float64)
        balls = self.balls.copy()
        balls[:, :3] += by
        return Body(
            self.figure, self.outfit, self.pose, self.to_local, self.offset - self.to_local @ by, self.taper,
            self.segment, self.cut_mm, self.above, self.below, self.hull_from, balls, self.segment_rotation,
            self.segment_origin_mm + by, self.points_mm + by, self.points_radius_mm, self.points_near,
        )  # fmt: skip


class _Parts:
    """Collects quadrics in segment frames while a body is built."""

    def __init__(self, rotations: np.ndarray, origins: np.ndarray) -> None:
        self.rotations, self.origins = rotations, origins
        self.frames: list[np.ndarray] = []  # local axes as rows, already divided by the radii, segment frame
        self.centers: list[np.ndarray] = []
        self.tapers: list[float] = []
        self.info: list[tuple[int, float, int, int]] = []
        self.hull: list[tuple[int, int]] = []
        self.balls: list[tuple[int, np.ndarray, float]] = []

    def ellipsoid(self, segment: str, center, radii, materials=(SKIN, SKIN), cut=-1e9, tilt=0.0) -> None:
        """Add an ellipsoid, its z axis tilted down by degrees; ``materials`` are (above, below) the cut, mm."""
        frame = (rotation("x", tilt).T if tilt else np.eye(3)) / np.asarray(radii, np.float64)[:, None]
        self.frames.append(frame)
        self.centers.append(np.asarray(center, np.float64))
        self.tapers.append(np.nan)
        self.info.append((_SEGMENT[segment], cut, *materials))
        self.hull.append((-1, -1))

    def cone(self, segment: str, a, b, ra: float, rb: float, materials=(SKIN, SKIN), cut=-1e9, flat=1.0) -> None:
        """Add a cone from ``a`` to ``b``; ``flat`` is its depth (z) over its width (x)."""
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        axis = b - a
        length = float(np.sqrt(axis @ axis))
        y = axis / length
        x = np.array([1.0, 0.0, 0.0]) - y[0] * y
        x /= np.sqrt(x @ x)
        z = np.array([x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]])
        self.frames.append(np.stack([x / ra, y / length, z / (ra * flat)]))
        self.centers.append(a)
        self.tapers.append((rb - ra) / ra)
        index = _SEGMENT[segment]
        self.info.append((index, cut, *materials))
        self.hull.append((len(self.balls), len(self.balls) + 1))
        widest = max(1.0, flat)
        self.balls += [(index, a, ra * widest), (index, b, rb * widest)]


def build_body(figure: Figure, outfit: Outfit, pose: BodyPose) -> Body:
    """Pose the skeleton, add flesh and clothes, and place it on the ground (or above, as the pose specifies)."""
    h = figure.stature_mm
    rotations, origins, arm_mm, leg_mm = _skeleton(figure, pose)
    parts = _Parts(rotations, origins)
    _torso(parts, figure, outfit, h)
    _head(parts, figure, outfit, h * figure.head)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        _arm_parts(parts, side, sign, figure, outfit, h, arm_mm)
        _leg_parts(parts, side, sign, figure, outfit, h, leg_mm)

    info = np.array(parts.info)
    segment = info[:, 0].astype(np.int64)
    frames, centers = np.stack(parts.frames), np.stack(parts.centers)
    turned = frames @ rotations[segment].transpose(0, 2, 1)
    world = (rotations[segment] @ centers[:, :, None])[:, :, 0] + origins[segment]
    ball_segment = np.array([b[0] for b in parts.balls])
    ball_center = np.stack([b[1] for b in parts.balls])
    ball_world = (rotations[ball_segment] @ ball_center[:, :, None])[:, :, 0] + origins[ball_segment]
    balls = np.concatenate([ball_world, np.array([[b[2]] for b in parts.balls])], 1)
    points, radius, near = _points(figure, h, rotations, origins)

    taper = np.array(parts.tapers)
    body = Body(
        figure, outfit, pose, turned, -(turned @ world[:, :, None])[:, :, 0], taper, segment, info[:, 1],
        info[:, 2].astype(np.int64), info[:, 3].astype(np.int64), np.array(parts.hull), balls, rotations, origins,
        points, radius, near,
    )  # fmt: skip
    lowest = body.lowest_mm()
    center = origins[0]
    return body.moved(np.array([-center[0], pose.height_mm - lowest, -center[2]]))


def _skeleton(figure: Figure, pose: BodyPose) -> tuple[np.ndarray, np.ndarray, tuple, tuple]:
    """Return rotations ``(S, 3, 3)``, origins ``(S, 3)``, and lengths of (upper arm, forearm), (thigh, shank), mm."""
    h, t = figure.stature_mm, pose.trunk
    rotations, origins = np.zeros((len(SEGMENTS), 3, 3)), np.zeros((len(SEGMENTS), 3))

    def put(name: str, parent: str, at: tuple[float, float, float], turn: np.ndarray) -> None:
        p = _SEGMENT[parent]
        rotations[_SEGMENT[name]] = rotations[p] @ turn
        origins[_SEGMENT[name]] = rotations[p] @ np.array(at) + origins[p]

    def bend(share: float) -> np.ndarray:
        return (
            rotation("y", share * t["spine_twist"])
            @ rotation("z", share * t["spine_side"])
            @ rotation("x", share * t["spine_flex"])
        )

    rotations[0] = pose.root
    put("abdomen", "pelvis", (0.0, 0.055 * h, -0.008 * h), bend(0.45))
    put("chest", "abdomen", (0.0, 0.10 * h, 0.0), bend(0.55))
    half = (
        rotation("y", 0.5 * t["neck_twist"]) @ rotation("z", 0.5 * t["neck_side"]) @ rotation("x", 0.5 * t["neck_flex"])
    )
    put("neck", "chest", (0.0, 0.145 * h, -0.012 * h), rotation("x", 14.0) @ half)
    put("head", "neck", (0.0, 0.05 * h * (0.7 + 0.3 * figure.head), 0.0), rotation("x", -14.0) @ half)
    arm_mm = (0.173 * h * figure.arm, 0.153 * h * figure.arm)
    leg_mm = (0.236 * h * figure.leg, 0.241 * h * figure.leg)
    flip = np.diag([-1.0, 1.0, 1.0])
    for side, sign, a in (("left", 1.0, pose.left), ("right", -1.0, pose.right)):
        sided = (lambda m: m) if sign > 0 else (lambda m: flip @ m @ flip)
        plane, lift = a["shoulder_plane"], a["shoulder_elevation"]
        arm = rotation("y", -plane) @ rotation("z", lift) @ rotation("y", plane) @ rotation("y", -a["shoulder_twist"])
        shrug = min(max((lift - 60.0) / 120.0, 0.0), 1.0)  # the shoulder blade rotates up with the arm
        shoulder = (sign * (0.103 - 0.014 * shrug) * h * figure.shoulder, (0.125 + 0.030 * shrug) * h, -0.006 * h)
        put(f"{side}_upper_arm", "chest", shoulder, sided(arm))
        put(f"{side}_forearm", f"{side}_upper_arm", (0.0, -arm_mm[0], 0.0),
            sided(rotation("x", -a["elbow_flex"]) @ rotation("y", -a["forearm_twist"])))  # fmt: skip
        put(f"{side}_hand", f"{side}_forearm", (0.0, -arm_mm[1], 0.0), sided(rotation("z", -a["wrist_flex"])))
        thigh = rotation("x", -a["hip_flex"]) @ rotation("z", a["hip_abduct"]) @ rotation("y", a["hip_twist"])
        put(f"{side}_thigh", "pelvis", (sign * 0.058 * h * figure.hip, 0.0, 0.0), sided(thigh))
        put(f"{side}_shank", f"{side}_thigh", (0.0, -leg_mm[0], 0.0), sided(rotation("x", a["knee_flex"])))
        put(f"{side}_foot", f"{side}_shank", (0.0, -leg_mm[1], 0.0), sided(rotation("x", a["ankle_plantar"])))
    return rotations, origins, arm_mm, leg_mm


def _torso(parts: _Parts, figure: Figure, outfit: Outfit, h: float) -> None:
    upper = UPPER if outfit.top else SKIN
    lower = UPPER if outfit.one_piece else LOWER
    cloth = (upper, lower)
    g, wide, waist = figure.girth, figure.shoulder, figure.waist
    loose = 1.0 + (0.18 * outfit.sleeve_loose if outfit.top else 0.0)
    hem = outfit.hem * h if not outfit.one_piece else -1e9
    hip = 0.5 * (g + figure.hip)
    parts.ellipsoid("pelvis", (0, 0.022 * h, -0.004 * h), np.array([0.096 * hip, 0.068, 0.068 * hip]) * h, cloth, hem)
    parts.ellipsoid("pelvis", (0, -0.03 * h, 0.004 * h), np.array([0.075 * hip, 0.042, 0.055 * hip]) * h, cloth, hem)
    for sign in (1, -1):
        parts.ellipsoid("pelvis", (sign * 0.042 * h, -0.012 * h, -0.03 * h * hip),
                        np.array([0.052 * hip, 0.058, 0.055 * hip]) * h, cloth, hem)  # fmt: skip
    drop = 0.055 * h
    parts.ellipsoid("abdomen", (0, 0.025 * h, 0.002 * h), np.array([0.081 * waist, 0.095, 0.060 * waist]) * h * loose,
                    cloth, hem - drop)  # fmt: skip
    parts.ellipsoid("abdomen", (0, 0.09 * h, 0.004 * h), np.array([0.086 * waist, 0.085, 0.061 * waist]) * h * loose,
                    cloth, hem - drop)  # fmt: skip
    if waist > 1.15:  # belly
        parts.ellipsoid("abdomen", (0, 0.03 * h, 0.03 * h * waist), np.array([0.07, 0.07, 0.05]) * h * waist,
                        cloth, hem - drop)  # fmt: skip
    # Skin shows above the neckline, which the cut of the chest's parts draws.
    line = (0.150 - outfit.neckline) * h
    shirt = (SKIN if outfit.top else upper, upper)
    parts.ellipsoid(
        "chest", (0, 0.055 * h, 0.004 * h), np.array([0.096 * wide, 0.095, 0.068 * g]) * h * loose, shirt, line
    )
    parts.ellipsoid(
        "chest", (0, 0.105 * h, -0.004 * h), np.array([0.112 * wide, 0.045, 0.052 * g]) * h * loose, shirt, line
    )
    parts.ellipsoid("chest", (0, 0.132 * h, -0.014 * h), np.array([0.068 * wide, 0.034, 0.036 * g]) * h, shirt, line)
    if figure.bust > 0:
        r = (0.030 + 0.016 * figure.bust) * h
        for sign in (1, -1):
            parts.ellipsoid("chest", (sign * 0.042 * h, 0.055 * h, 0.048 * h * g), (r, r, r), (upper, upper))
    else:
        for sign in (1, -1):
            parts.ellipsoid("chest", (sign * 0.043 * h * wide, 0.078 * h, 0.036 * h * g),
                            np.array([0.05, 0.042, 0.034]) * h, (upper, upper))  # fmt: skip
    if outfit.top and not outfit.one_piece and outfit.sleeve_loose > 0.12:  # the shirt's tail hangs loose
        end = min(outfit.hem, 0.03) * h
        parts.cone("abdomen", (0, 0.07 * h, 0), (0, end - drop, 0), 0.088 * h * waist * loose,
                   (0.092 + 0.03 * outfit.sleeve_loose) * h * max(waist, hip), (UPPER, UPPER), flat=0.74)  # fmt: skip
    if outfit.skirt > 0:
        parts.cone("pelvis", (0, 0.045 * h, 0), (0, -0.243 * outfit.skirt * h, 0), 0.088 * h * waist,
                   (0.12 + 0.07 * outfit.skirt) * h, (LOWER, LOWER), flat=0.85)  # fmt: skip
    parts.cone("neck", (0, -0.03 * h, -0.004 * h), (0, 0.055 * h, 0.002 * h), 0.037 * h * g, 0.031 * h * g)


def _head(parts: _Parts, figure: Figure, outfit: Outfit, s: float) -> None:
    """Add the head; ``s`` is the stature times the head's relative size, mm."""
    parts.ellipsoid("head", (0, 0.066 * s, -0.004 * s), np.array([0.043, 0.053, 0.053]) * s, (FACE, FACE))
    parts.ellipsoid("head", (0, 0.030 * s, 0.014 * s), np.array([0.035, 0.045, 0.040]) * s, (FACE, FACE))
    parts.ellipsoid("head", (0, 0.039 * s, 0.053 * s), np.array([0.0075, 0.012, 0.010]) * s, tilt=20.0)
    for sign in (1, -1):
        parts.ellipsoid("head", (sign * 0.044 * s, 0.046 * s, -0.004 * s), np.array([0.006, 0.017, 0.011]) * s)
    hair, hat = outfit.hair, outfit.hat
    if hat == "cap":
        parts.ellipsoid(
            "head", (0, 0.076 * s, -0.006 * s), np.array([0.048, 0.050, 0.058]) * s, (ACCENT, HAIR), 0.07 * s
        )
        parts.ellipsoid(
            "head", (0, 0.084 * s, 0.062 * s), np.array([0.036, 0.006, 0.036]) * s, (ACCENT, ACCENT), tilt=12.0
        )
    elif hat == "helmet":
        parts.ellipsoid(
            "head", (0, 0.086 * s, -0.012 * s), np.array([0.055, 0.052, 0.064]) * s, (ACCENT, ACCENT), tilt=-12.0
        )
    if hair == "none" or hat in ("cap", "helmet"):
        return
    puff = {"short": 1.0, "long": 1.04, "tail": 1.0, "bun": 1.0, "wild": 1.22}[hair]
    high, back = (0.012, -0.012) if hair == "wild" else (0.0, 0.0)
    parts.ellipsoid(
        "head",
        (0, (0.077 + high) * s, (back - 0.013) * s),
        np.array([0.0465, 0.049, 0.053]) * s * puff,
        (HAIR, HAIR),
        tilt=-15.0,
    )
    parts.ellipsoid("head", (0, 0.05 * s, -0.028 * s), np.array([0.042, 0.045, 0.036]) * s * puff, (HAIR, HAIR))
    if hair == "long":
        parts.ellipsoid("head", (0, 0.0, -0.032 * s), np.array([0.046, 0.085, 0.026]) * s, (HAIR, HAIR), tilt=8.0)
    elif hair == "tail":
        parts.ellipsoid("head", (0, 0.036 * s, -0.068 * s), np.array([0.018, 0.055, 0.02]) * s, (HAIR, HAIR), tilt=14.0)
    elif hair == "bun":
        parts.ellipsoid("head", (0, 0.098 * s, -0.060 * s), np.array([0.024, 0.022, 0.022]) * s, (HAIR, HAIR))
    if hat == "band":
        parts.ellipsoid(
            "head", (0, 0.088 * s, -0.008 * s), np.array([0.0475, 0.010, 0.0555]) * s, (ACCENT, ACCENT), tilt=-8.0
        )


def _arm_parts(
    parts: _Parts, side: str, sign: float, figure: Figure, outfit: Outfit, h: float, lengths: tuple[float, float]
) -> None:
    g, m, sleeve = 0.5 + 0.5 * figure.girth, figure.muscle, outfit.sleeve
    upper, fore = lengths
    top = UPPER if outfit.top else SKIN
    cut = -min(sleeve, 1.0) * upper if sleeve > 0 else (0.01 * h if outfit.top else 1e9)
    cloth = (top, SKIN)
    name = f"{side}_upper_arm"
    parts.ellipsoid(
        name,
        (-sign * 0.006 * h, -0.004 * h, 0),
        np.array([0.034, 0.038, 0.033]) * h * (0.55 * g + 0.45 * (0.6 + 0.4 * m)),
        cloth,
        cut,
    )
    parts.cone(name, (0, 0, 0), (0, -upper, 0), 0.0285 * h * g, 0.0215 * h * g, cloth, cut)
    parts.ellipsoid(
        name, (0, -0.5 * upper, 0.004 * h), np.array([0.025, 0.065, 0.027]) * h * g * (0.85 + 0.15 * m), cloth, cut
    )
    name = f"{side}_forearm"
    cut = -max(sleeve - 1.0, 0.0) * fore if sleeve > 1 else 1e9
    cloth = (UPPER, SKIN)
    parts.ellipsoid(name, (0, 0, 0), np.full(3, 0.0225 * h * g), cloth if sleeve >= 1 else (SKIN, SKIN), cut)
    parts.cone(name, (0, 0, 0), (0, -fore, 0), 0.0225 * h * g, 0.0150 * h * g, cloth, cut)
    parts.ellipsoid(name, (0, -0.28 * fore, 0.002 * h), np.array([0.0255, 0.055, 0.0235]) * h * g, cloth, cut)
    name, glove = f"{side}_hand", (ACCENT, ACCENT) if outfit.gloves else (SKIN, SKIN)
    parts.ellipsoid(name, (0, 0, 0), np.full(3, 0.0160 * h), glove)
    parts.ellipsoid(name, (0, -0.030 * h, 0.0), np.array([0.012, 0.034, 0.024]) * h, glove)
    parts.ellipsoid(name, (-sign * 0.006 * h, -0.074 * h, 0.001 * h), np.array([0.009, 0.032, 0.020]) * h, glove)
    parts.ellipsoid(
        name, (-sign * 0.008 * h, -0.040 * h, 0.024 * h), np.array([0.008, 0.024, 0.009]) * h, glove, tilt=-25.0
    )
    if sleeve > 0.05 and outfit.sleeve_loose > 0.03:
        k = 1.0 + 0.7 * outfit.sleeve_loose
        end = min(sleeve, 1.0)
        flare = k * (1.12 if sleeve < 1 else 1.0)
        r1 = (0.0300 + end * (0.0225 - 0.0300)) * h * g
        parts.cone(
            f"{side}_upper_arm", (0, 0.012 * h, 0), (0, -end * upper, 0), 0.0300 * h * g * k, r1 * flare, (UPPER, UPPER)
        )
        if sleeve > 1:
            end = sleeve - 1.0
            parts.ellipsoid(f"{side}_forearm", (0, 0, 0), np.full(3, 0.0230 * h * g * k), (UPPER, UPPER))
            r1 = (0.0230 + end * (0.0170 - 0.0230)) * h * g
            parts.cone(f"{side}_forearm", (0, 0, 0), (0, -end * fore, 0), 0.0230 * h * g * k, r1 * k, (UPPER, UPPER))


def _leg_parts(
    parts: _Parts, side: str, sign: float, figure: Figure, outfit: Outfit, h: float, lengths: tuple[float, float]
) -> None:
    g, m, leg = 0.4 + 0.6 * figure.girth, figure.muscle, outfit.leg
    thigh, shank = lengths
    bottom = UPPER if outfit.one_piece else LOWER
    name = f"{side}_thigh"
    cut = -min(leg, 1.0) * thigh if leg > 0.1 else -0.012 * h
    cloth = (bottom, SKIN)
    parts.ellipsoid(name, (0, -0.004 * h, -0.004 * h), np.array([0.050, 0.054, 0.053]) * h * g, cloth, cut)
    parts.cone(name, (0, 0, -0.002 * h), (0, -thigh, 0), 0.0490 * h * g, 0.0315 * h * g, cloth, cut)
    parts.ellipsoid(
        name, (sign * 0.004 * h, -0.42 * thigh, 0.006 * h), np.array([0.042, 0.10, 0.044]) * h * g, cloth, cut
    )
    name = f"{side}_shank"
    cut = -max(leg - 1.0, 0.0) * shank if leg > 1 else 1e9
    sock = -(1.0 - outfit.sock) * shank
    below = (SKIN, SOCK) if outfit.sock > 0 else (SKIN, SKIN)
    at = sock if outfit.sock > 0 else -1e9
    # Trousers and sock are two edges on one part: the lower edge applies to lower parts, the upper to upper ones.
    covered = leg > 1.0
    upper = ((LOWER if not outfit.one_piece else UPPER), SKIN) if covered else below
    parts.ellipsoid(name, (0, 0, 0.003 * h), np.array([0.0315, 0.036, 0.0325]) * h * g,
                    (bottom, bottom) if leg >= 1 else (SKIN, SKIN))  # fmt: skip
    parts.cone(name, (0, 0, 0), (0, -shank, 0), 0.0310 * h * g, 0.0195 * h * g, upper, cut if covered else at)
    parts.ellipsoid(name, (0, -0.30 * shank, -0.010 * h), np.array([0.0315, 0.078, 0.033]) * h * g * (0.9 + 0.1 * m),
                    upper, cut if covered else at)  # fmt: skip
    name = f"{side}_foot"
    shoe = (SHOE, SOLE) if outfit.shoes else ((SOCK, SOCK) if outfit.sock > 0 else (SKIN, SKIN))
    big, sole = (1.14, -0.031 * h) if outfit.shoes else (1.0, -1e9)
    parts.ellipsoid(name, (0, -0.004 * h, 0), np.full(3, 0.0215 * h * big), (shoe[0], shoe[0]))
    parts.ellipsoid(name, (0, -0.020 * h, -0.014 * h), np.array([0.021, 0.021, 0.024]) * h * big, shoe, sole)
    parts.ellipsoid(name, (0, -0.021 * h, 0.034 * h), np.array([0.025, 0.020, 0.054]) * h * big, shoe, sole, tilt=8.0)
    parts.ellipsoid(name, (0, -0.028 * h, 0.074 * h), np.array([0.026, 0.013, 0.032]) * h * big, shoe, sole, tilt=3.0)
    if leg > 0.1 and outfit.leg_loose > 0.03:
        k = 1.0 + 0.6 * outfit.leg_loose
        end = min(leg, 1.0)
        flare = k * (1.15 if leg < 1 else 1.05)
        r1 = (0.0500 + end * (0.0345 - 0.0500)) * h * g
        parts.cone(
            f"{side}_thigh",
            (0, 0.008 * h, 0),
            (0, -end * thigh, 0),
            0.0510 * h * g * (0.7 + 0.3 * k),
            r1 * flare,
            (bottom, bottom),
        )
        if leg > 1:
            end = leg - 1.0
            r0 = 0.0345 * h * g * flare
            parts.ellipsoid(f"{side}_shank", (0, 0, 0), np.full(3, r0), (bottom, bottom))
            parts.cone(
                f"{side}_shank",
                (0, 0, 0),
                (0, -end * shank, 0),
                r0,
                (0.0345 - 0.006 * end) * h * g * k,
                (bottom, bottom),
            )


def _points(
    figure: Figure, h: float, rotations: np.ndarray, origins: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the keypoints: world ``(K, 3)``, depth of flesh over them ``(K,)``, segments meeting there ``(K, S)``."""
    s, g = h * figure.head, figure.girth
    where: dict[str, tuple[str, tuple[float, float, float], float, tuple[str, ...]]] = {
        "nose": ("head", (0, 0.038 * s, 0.062 * s), 0.012 * s, ("head",)),
        "left_eye": ("head", (0.017 * s, 0.055 * s, 0.043 * s), 0.010 * s, ("head",)),
        "right_eye": ("head", (-0.017 * s, 0.055 * s, 0.043 * s), 0.010 * s, ("head",)),
        "left_ear": ("head", (0.047 * s, 0.046 * s, -0.004 * s), 0.015 * s, ("head",)),
        "right_ear": ("head", (-0.047 * s, 0.046 * s, -0.004 * s), 0.015 * s, ("head",)),
        "head_top": ("head", (0, 0.117 * s, -0.006 * s), 0.060 * s, ("head",)),
        "neck": ("neck", (0, 0.020 * h, 0), 0.055 * h * g, ("neck", "chest", "head")),
        "thorax": ("chest", (0, 0.122 * h, -0.004 * h), 0.075 * h * g, ("chest", "neck")),
        "pelvis": ("pelvis", (0, 0, 0), 0.100 * h * g, ("pelvis", "abdomen")),
    }
    depth = {"shoulder": 0.050, "elbow": 0.035, "wrist": 0.028, "hip": 0.085, "knee": 0.050, "ankle": 0.035}
    ends = {
        "shoulder": "upper_arm",
        "elbow": "forearm",
        "wrist": "hand",
        "hip": "thigh",
        "knee": "shank",
        "ankle": "foot",
    }
    for joint, segments in _NEAR.items():
        for side in ("left", "right"):
            near = tuple(n if n in _SEGMENT else f"{side}_{n}" for n in segments)
            where[f"{side}_{joint}"] = (f"{side}_{ends[joint]}", (0, 0, 0), depth[joint] * h * g, near)
    # Annotators place the hip by the outline, slightly outside the joint's centre.
    for side, sign in (("left", 1.0), ("right", -1.0)):
        _, _, flesh, near = where[f"{side}_hip"]
        where[f"{side}_hip"] = ("pelvis", (sign * 0.071 * h * figure.hip, -0.003 * h, 0.0), flesh, near)
    points, radius = np.zeros((len(KEYPOINTS), 3)), np.zeros(len(KEYPOINTS))
    meet = np.zeros((len(KEYPOINTS), len(SEGMENTS)), bool)
    for i, name in enumerate(KEYPOINTS):
        segment, at, radius[i], near = where[name]
        index = _SEGMENT[segment]
        points[i] = rotations[index] @ np.array(at, np.float64) + origins[index]
        meet[i, [_SEGMENT[n] for n in near]] = True
    return points, radius, meet
