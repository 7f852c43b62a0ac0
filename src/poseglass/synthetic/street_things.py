"""Things of a street as solids: cars, pedestrians, cyclists, and what only stands about.

Things are built in a frame of their own: x to the front, y down, z to the left; the middle of the tight box is the
origin. Sizes are in metres, colours RGB in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from poseglass.synthetic.texture import noise

TEXTURE_PX = 64
"""Side of the textures of things."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A convex polygon of a solid.

    Args:
        points: ``(M, 3)``.
        color: ``(3,)``.
        texture: ``(H, W, 3)`` float32, stretched over a face of four points, whose colour it multiplies; or None.
        decals: What is painted on it.
        glow: Whether light does not change it, as a lamp.
    """

    points: np.ndarray
    color: np.ndarray
    texture: np.ndarray | None = None
    decals: tuple["Face", ...] = ()
    glow: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """A convex solid.

    Args:
        faces: Those that may be seen.
        middle: ``(3,)``, a point inside.
    """

    faces: tuple[Face, ...]
    middle: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Stroke:
    """A round limb, tube or ball: a line of points with a radius.

    Args:
        points: ``(M, 3)``; a single one is a ball.
        radius: Metres.
        color: ``(3,)``.
    """

    points: np.ndarray
    radius: float
    color: np.ndarray


Piece = Solid | Stroke


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """Something that stands on the ground.

    Args:
        pieces: What it is made of; drawn in this order if ``ordered``, else the farthest first.
        size: Length, height and width of the tight box, metres.
        ordered: Whether the order of the pieces is the one to draw them in.
    """

    pieces: tuple[Piece, ...]
    size: tuple[float, float, float]
    ordered: bool = False


def grey(value: float) -> np.ndarray:
    """Return a grey."""
    return np.full(3, value)


def any_color(rng: np.random.Generator, *, grey_share: float = 0.5) -> np.ndarray:
    """Return a colour as paint and cloth have them, ``(3,)``."""
    value = rng.uniform(0.08, 0.95)
    if rng.random() < grey_share:
        return np.clip(value + rng.uniform(-0.03, 0.03, 3), 0, 1)
    hue = rng.uniform(0, 6)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    strength = rng.uniform(0.3, 0.9)
    return value * (1 - strength + strength * wheel)


def car(rng: np.random.Generator) -> Thing:
    """Return a car: a hatchback, a saloon, an estate or a tall one."""
    kind = int(rng.integers(4))
    length = float(np.clip(rng.normal((3.9, 4.5, 4.5, 4.3)[kind], 0.22), 3.3, 5.2))
    width = float(np.clip(rng.normal(1.72, 0.08), 1.5, 1.95))
    height = float(np.clip(rng.normal((1.46, 1.43, 1.48, 1.72)[kind], 0.06), 1.3, 1.95))
    paint, dirt = any_color(rng, grey_share=0.6), _mottled(rng, 0.05)
    clear, belt = 0.2, rng.uniform(0.55, 0.63) * height
    nose, tail = length / 2, -length / 2
    hood = nose - rng.uniform(0.2, 0.27) * length
    boot = tail + (0.2 if kind == 1 else 0.03) * length
    side = np.array(
        [
            (nose, clear), (nose, belt - 0.22), (nose - 0.12, belt - 0.12), (hood, belt), (boot, belt),
            (tail + 0.02, belt - 0.06), (tail, belt - 0.3), (tail, clear),
        ]
    )  # fmt: skip
    roof_front, roof_back = hood - rng.uniform(0.13, 0.18) * length, boot + (0.12, 0.15, 0.05, 0.06)[kind] * length
    cabin = np.array([(hood + 0.05, belt), (roof_front, height), (roof_back, height), (boot - 0.01, belt)])
    glass = np.array([0.1, 0.13, 0.17]) * rng.uniform(0.6, 1.8)
    half = width / 2
    radius = rng.uniform(0.29, 0.34)
    axles = (nose - 0.18 * length - 0.05, tail + 0.2 * length)
    wheels: list[Piece] = []
    for x in axles:
        for z in (half - 0.1, -half + 0.1):
            disc = _circle(x, radius, radius, 10)
            wheels.append(_prism(disc, np.full(len(disc), 0.1), z, grey(0.06)))
    body = _prism(side, np.full(len(side), half), 0.0, paint, dirt)
    tyres = [
        [
            Face(_flat(_circle(x, radius, radius, 14), z), grey(0.05)),
            Face(_flat(_circle(x, radius, radius * 0.62, 10), z), grey(rng.uniform(0.35, 0.7))),
        ]
        for x in axles
        for z in (half, -half)
    ]
    gap = hood * 0.25 + np.array([0.0, 0.03])
    door = np.array([(gap[0], 0.4), (gap[1], 0.4), (gap[1], belt), (gap[0], belt)])
    line = [Face(_flat(door, z), paint * 0.6) for z in (half, -half)]
    lamp, rear = np.array([1.0, 0.97, 0.85]), np.array([0.75, 0.05, 0.04])
    lights = [
        _on_front(nose, (0.55 * half, 0.95 * half), (belt - 0.42, belt - 0.24), lamp, glow=True),
        _on_front(nose, (-0.95 * half, -0.55 * half), (belt - 0.42, belt - 0.24), lamp, glow=True),
        _on_front(nose, (-0.45 * half, 0.45 * half), (belt - 0.48, belt - 0.27), grey(0.08)),
        _on_front(nose, (-0.26, 0.26), (0.34, 0.45), grey(0.85)),
    ]
    backs = [
        _on_front(tail, (0.6 * half, 0.97 * half), (belt - 0.48, belt - 0.3), rear, glow=True),
        _on_front(tail, (-0.97 * half, -0.6 * half), (belt - 0.48, belt - 0.3), rear, glow=True),
        _on_front(tail, (-0.26, 0.26), (0.5, 0.61), np.array([0.9, 0.85, 0.5])),
        _on_front(tail, (-0.97 * half, 0.97 * half), (0.2, 0.33), grey(0.1)),
    ]
    faces = list(body.faces)
    faces[0] = _decalled(faces[0], (*tyres[0], *tyres[2], line[0]))
    faces[1] = _decalled(faces[1], (*tyres[1], *tyres[3], line[1]))
    faces[2] = _decalled(faces[2], tuple(lights))
    faces[-2] = _decalled(faces[-2], tuple(backs))
    halves = np.array([0.95, 0.76, 0.76, 0.95]) * half
    top = _prism(cabin, halves, 0.0, paint, dirt)
    panes = [
        _decalled(face, (Face(_inset(face.points, keep), glass),)) if keep else face
        for face, keep in zip(top.faces, (0.84, 0.84, 0.86, 0.0, 0.86, 0.0), strict=True)
    ]
    pieces = [*wheels, Solid(tuple(faces), body.middle), Solid(tuple(panes), top.middle)]
    return _centred(pieces, ordered=True)


def pedestrian(rng: np.random.Generator) -> Thing:
    """Return somebody who walks or stands."""
    return _centred(_person(rng, rng.uniform(1.5, 1.95), walking=rng.random() < 0.75))


def cyclist(rng: np.random.Generator) -> Thing:
    """Return somebody on a bicycle."""
    frame, tyre = any_color(rng, grey_share=0.3), grey(0.07)
    radius, base = rng.uniform(0.33, 0.36), rng.uniform(1.0, 1.12)
    back, front = -base / 2, base / 2
    pieces: list[Piece] = []
    for x in (back, front):
        ring = _circle(x, radius + 0.02, radius, 18)
        pieces.append(Stroke(_flat(np.concatenate([ring, ring[:1]]), 0.0), 0.025, tyre))
    crank, seat = np.array([back + 0.42, 0.3]), np.array([back + 0.22, 0.95])
    bars = np.array([front - 0.16, 1.02])
    tubes = [(crank, seat), (crank, bars - [0.0, 0.15]), (seat - [0.0, 0.12], bars - [0.0, 0.12]),
             (crank, np.array([back, radius])), (np.array([back, radius]), seat - [0.0, 0.1]),
             (np.array([front, radius]), bars)]  # fmt: skip
    pieces += [Stroke(_flat(np.array(ends), 0.0), 0.022, frame) for ends in tubes]
    pieces.append(Stroke(np.array([(bars[0], -bars[1], -0.26), (bars[0], -bars[1], 0.26)]), 0.02, grey(0.1)))
    pieces.append(Stroke(np.array([(front - 0.1, -0.85, 0.0)]), 0.06, np.array([1.0, 1.0, 0.85])))
    pieces.append(Stroke(np.array([(back - 0.05, -0.75, 0.0)]), 0.045, np.array([0.85, 0.05, 0.05])))
    skin, shirt, trousers = _skin(rng), any_color(rng, grey_share=0.25), any_color(rng, grey_share=0.6) * 0.7
    turn = rng.uniform(0, 2 * np.pi)
    hip, neck = np.array([seat[0], 1.0]), np.array([seat[0] + rng.uniform(0.28, 0.42), 1.5])
    for side in (1, -1):
        foot = crank + 0.17 * np.array([np.cos(turn), np.sin(turn)]) * side
        knee = (hip + foot) / 2 + np.array([0.22, 0.06])
        z = 0.1 * side
        pieces.append(Stroke(np.array([(hip[0], -hip[1], z), (knee[0], -knee[1], z)]), 0.08, trousers))
        pieces.append(Stroke(np.array([(knee[0], -knee[1], z), (foot[0], -foot[1], z)]), 0.06, trousers * 0.95))
        pieces.append(Stroke(np.array([(foot[0], -foot[1], z), (foot[0] + 0.14, -foot[1], z)]), 0.045, grey(0.08)))
        elbow = (neck + bars) / 2 + np.array([-0.02, -0.12])
        arm = np.array([(neck[0], -neck[1] + 0.06, 0.19 * side), (elbow[0], -elbow[1], 0.25 * side)])
        pieces.append(Stroke(arm, 0.055, shirt * 0.95))
        pieces.append(Stroke(np.array([arm[1], (bars[0], -bars[1], 0.23 * side)]), 0.045, skin))
    lean = np.array([(hip[0] - 0.1, 0.95), (hip[0] + 0.14, 0.93), (neck[0] + 0.1, 1.44), (neck[0] - 0.1, 1.56)])
    pieces.append(_prism(lean, np.array([0.16, 0.16, 0.2, 0.2]), 0.0, shirt, _cloth(rng)))
    pieces += _head(rng, neck + np.array([0.1, 0.16]), skin, helmet=rng.random() < 0.6)
    return _centred(pieces)


def pole(rng: np.random.Generator) -> Thing:
    """Return a lamp post, a road sign or a traffic light."""
    height, kind = rng.uniform(2.2, 3.4), int(rng.integers(3))
    metal = grey(rng.uniform(0.2, 0.55))
    if kind == 0:
        height = rng.uniform(4.5, 7.0)
        arm = np.array([(0.0, -height, 0.0), (1.2, -height - 0.2, 0.0)])
        post = np.array([(0.0, 0.0, 0.0), (0.0, -height, 0.0)])
        return _centred([Stroke(post, 0.07, metal), Stroke(arm, 0.06, metal)])
    pieces: list[Piece] = [Stroke(np.array([(0.0, 0.0, 0.0), (0.0, -height, 0.0)]), 0.045, metal)]
    if kind == 1:
        red, blue = (np.array([0.8, 0.05, 0.05]), grey(0.92)), (np.array([0.1, 0.25, 0.75]), grey(0.9))
        edge, middle = (red, blue)[int(rng.integers(2))]
        for radius, color, x in ((0.32, edge, 0.05), (0.22, middle, 0.06)):
            disc = _circle(0.0, height - 0.3, radius, 14)
            face = Face(np.stack([np.full(len(disc), x), -disc[:, 1], disc[:, 0]], -1), color)
            pieces.append(Solid((face,), np.array([x - 0.1, -height + 0.3, 0.0])))
        return _centred(pieces, ordered=True)
    case = _block((0.0, -height + 0.35, 0.0), (0.28, 0.8, 0.28), grey(0.1))
    lit = int(rng.integers(3))
    lamps = [np.array(c) for c in ((1.0, 0.1, 0.1), (1.0, 0.7, 0.1), (0.1, 0.9, 0.4))]
    lamps = [c * (1.0 if n == lit else 0.2) for n, c in enumerate(lamps)]
    pieces.append(case)
    pieces += [Stroke(np.array([(0.15, -height + 0.1 + 0.25 * n, 0.0)]), 0.09, c) for n, c in enumerate(lamps)]
    return _centred(pieces, ordered=True)


def tree(rng: np.random.Generator) -> Thing:
    """Return a tree or a bush."""
    bush = rng.random() < 0.35
    height = rng.uniform(0.7, 1.6) if bush else rng.uniform(4.0, 8.0)
    crown = height * (0.5 if bush else rng.uniform(0.22, 0.3))
    leaf = np.array([0.25, 0.38, 0.14]) * rng.uniform(0.5, 1.4) + rng.uniform(0, 0.08, 3)
    pieces: list[Piece] = []
    if not bush:
        trunk = np.array([(0.0, 0.0, 0.0), (rng.uniform(-0.2, 0.2), -height + crown, rng.uniform(-0.2, 0.2))])
        pieces.append(Stroke(trunk, rng.uniform(0.1, 0.2), np.array([0.25, 0.19, 0.13])))
    for _ in range(int(rng.integers(9, 16))):
        at = np.clip(rng.normal(0, 0.38, 3), -0.6, 0.6) * crown * [1.0, 0.8, 1.0] + [0.0, -height + crown, 0.0]
        pieces.append(Stroke(at[None], crown * rng.uniform(0.3, 0.6), leaf * rng.uniform(0.65, 1.25)))
    return _centred(pieces)


def block(rng: np.random.Generator) -> Thing:
    """Return a bin, a cabinet, a crate, a skip or a low wall."""
    size = (
        (rng.uniform(0.4, 0.7), rng.uniform(0.8, 1.2), rng.uniform(0.4, 0.7)),
        (rng.uniform(0.8, 1.6), rng.uniform(1.0, 1.6), rng.uniform(0.3, 0.6)),
        (rng.uniform(2.0, 4.0), rng.uniform(1.1, 1.7), rng.uniform(1.4, 1.9)),
        (rng.uniform(2.0, 6.0), rng.uniform(0.5, 1.1), rng.uniform(0.2, 0.5)),
    )[int(rng.integers(4))]
    return _centred([_block((0.0, -size[1] / 2, 0.0), size, any_color(rng, grey_share=0.4), _ribbed(rng))])


def _person(rng: np.random.Generator, height: float, *, walking: bool) -> list[Piece]:
    skin, shirt, trousers = _skin(rng), any_color(rng, grey_share=0.35), any_color(rng, grey_share=0.6) * 0.75
    shoes, scale = any_color(rng, grey_share=0.8) * 0.5, height / 1.75
    broad = rng.uniform(0.9, 1.15)
    hip, chest = 0.9 * scale, 1.42 * scale
    stride = rng.uniform(0.15, 0.42) if walking else rng.uniform(0.0, 0.06)
    forward = int(rng.choice([-1, 1]))
    skirt = rng.random() < 0.15
    pieces: list[Piece] = []
    for side in (1, -1):
        step = stride * side * forward * scale
        z = 0.1 * side * broad * scale
        foot = np.array([step, 0.06, z])
        knee = np.array([step * 0.45 + 0.06 * scale, 0.48 * scale, z])
        if step < 0:  # the foot behind has its heel up
            foot[1] += 0.12 * scale * min(1.0, stride / 0.3)
        leg = np.array([(0.0, -hip, z), (knee[0], -knee[1], z)])
        pieces.append(Stroke(leg, 0.085 * scale * broad, trousers))
        shin = skin if skirt else trousers * 0.92
        pieces.append(Stroke(np.array([leg[1], (foot[0], -foot[1], z)]), 0.06 * scale * broad, shin))
        toe = np.array([(foot[0] - 0.02, -foot[1] + 0.02, z), (foot[0] + 0.17, -0.05, z)])
        pieces.append(Stroke(toe, 0.05 * scale, shoes))
        swing = -step * 0.7
        shoulder = np.array([0.0, -chest + 0.04, 0.22 * side * broad * scale])
        elbow = np.array([swing * 0.45 - 0.03, -1.12 * scale, 0.27 * side * broad * scale])
        hand = np.array([swing + 0.06, -0.86 * scale, 0.26 * side * broad * scale])
        pieces.append(Stroke(np.stack([shoulder, elbow]), 0.055 * scale * broad, shirt * 0.93))
        pieces.append(Stroke(np.stack([elbow, hand]), 0.045 * scale, shirt * 0.9 if rng.random() < 0.5 else skin))
        pieces.append(Stroke(hand[None], 0.05 * scale, skin))
    depth = 0.11 * scale * broad
    torso = np.array([(depth, hip - 0.08), (depth * 1.05, chest), (-depth, chest), (-depth, hip - 0.08)])
    halves = np.array([0.16, 0.21, 0.21, 0.16]) * broad * scale
    pieces.append(_prism(torso, halves, 0.0, shirt, _cloth(rng)))
    if skirt:
        flare = np.array([(0.2, 0.5), (depth, hip), (-depth, hip), (-0.2, 0.5)]) * [1.0, scale]
        pieces.append(_prism(flare, np.array([0.24, 0.17, 0.17, 0.24]) * scale, 0.0, trousers, _cloth(rng)))
    if rng.random() < 0.3:
        pack = any_color(rng, grey_share=0.3)
        pieces.append(_block((-depth - 0.1, -1.2 * scale, 0.0), (0.2, 0.45 * scale, 0.3 * scale), pack))
    return pieces + _head(rng, np.array([0.0, height - 0.13 * scale]), skin, helmet=False)


def _head(rng: np.random.Generator, at_xy: np.ndarray, skin: np.ndarray, *, helmet: bool) -> list[Piece]:
    """Return a head: a neck, a face, and hair or a helmet behind and above it."""
    x, y = float(at_xy[0]), -float(at_xy[1])
    hair = any_color(rng, grey_share=0.2) if helmet else np.array([0.2, 0.13, 0.08]) * rng.uniform(0.1, 3.0)
    return [
        Stroke(np.array([(x - 0.03, y + 0.2, 0.0), (x - 0.02, y + 0.08, 0.0)]), 0.06, skin * 0.85),
        Stroke(np.array([(x - 0.035, y - 0.03, 0.0)]), 0.125 if helmet else 0.118, np.clip(hair, 0, 1)),
        Stroke(np.array([(x + 0.03, y + 0.025, 0.0)]), 0.1, skin),
        Stroke(np.array([(x + 0.12, y + 0.03, 0.0)]), 0.02, skin * 0.9),
    ]


def _skin(rng: np.random.Generator) -> np.ndarray:
    return np.array([0.9, 0.7, 0.58]) * rng.uniform(0.35, 1.05)


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """Return plain, striped or checked cloth, as what multiplies a colour."""
    cloth = np.ones((TEXTURE_PX, TEXTURE_PX, 3), np.float32)
    cloth *= 1 + noise(rng, (TEXTURE_PX, TEXTURE_PX), (6,), (0.15,))[..., None]
    kind, step, dark = int(rng.integers(4)), int(rng.integers(6, 16)), np.float32(rng.uniform(0.35, 1.4))
    place = np.arange(TEXTURE_PX) // step % 2 == 0
    if kind in (1, 3):
        cloth[place] *= dark
    if kind in (2, 3):
        cloth[:, place] *= dark
    return cloth


def _mottled(rng: np.random.Generator, strength: float) -> np.ndarray:
    plain = noise(rng, (TEXTURE_PX, TEXTURE_PX), (3, 12), (strength, strength))
    fade = np.linspace(1.06, 0.9, TEXTURE_PX, dtype=np.float32)[:, None]
    return np.repeat(((1 + plain) * fade)[..., None], 3, -1).astype(np.float32)


def _ribbed(rng: np.random.Generator) -> np.ndarray:
    sheet = _mottled(rng, 0.15)
    step = int(rng.integers(4, 20))
    sheet[:, ::step] *= np.float32(rng.uniform(0.5, 0.9))
    if rng.random() < 0.4:
        cv2.rectangle(sheet, (12, 14), (52, 34), (1.6, 1.6, 1.5), -1)
    return sheet


def _circle(x: float, y: float, radius: float, count: int) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], -1)


def _flat(points_xy: np.ndarray, z: float) -> np.ndarray:
    """Return points with a height above the ground in a plane of one z."""
    return np.stack([points_xy[:, 0], -points_xy[:, 1], np.full(len(points_xy), z)], -1)


def _on_front(
    x: float, z: tuple[float, float], y: tuple[float, float], color: np.ndarray, *, glow: bool = False
) -> Face:
    points = np.array([(x, -y[1], z[0]), (x, -y[1], z[1]), (x, -y[0], z[1]), (x, -y[0], z[0])])
    return Face(points, color, glow=glow)


def _decalled(face: Face, decals: tuple[Face, ...]) -> Face:
    return Face(face.points, face.color, face.texture, (*face.decals, *decals), face.glow)


def _inset(points: np.ndarray, keep: float) -> np.ndarray:
    middle = points.mean(0)
    return middle + (points - middle) * keep


def _prism(
    outline: np.ndarray, halves: np.ndarray, z: float, color: np.ndarray, texture: np.ndarray | None = None
) -> Solid:
    """Return an outline ``(M, 2)`` of x and height, made as wide as ``halves`` ``(M,)`` to both sides of z.

    The faces are the one to the left, the one to the right, then one for each edge of the outline.
    """
    left = np.stack([outline[:, 0], -outline[:, 1], z + halves], -1)
    right = np.stack([outline[:, 0], -outline[:, 1], z - halves], -1)
    faces = [Face(left, color, texture), Face(right, color, texture)]
    for n in range(len(outline)):
        m = (n + 1) % len(outline)
        faces.append(Face(np.array([right[n], left[n], left[m], right[m]]), color, texture))
    return Solid(tuple(faces), np.concatenate([left, right]).mean(0))


def _block(at: Sequence[float], size: Sequence[float], color: np.ndarray, texture: np.ndarray | None = None) -> Solid:
    """Return a box of length, height and width about a point."""
    x, y, z = at
    length, height, width = size
    front, back, low, high = x + length / 2, x - length / 2, -y - height / 2, -y + height / 2
    outline = np.array([(front, low), (front, high), (back, high), (back, low)])
    return _prism(outline, np.full(4, width / 2), z, color, texture)


def _centred(pieces: Sequence[Piece], *, ordered: bool = False) -> Thing:
    """Return pieces that stand on y = 0 about the middle of their tight box."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for piece in pieces:
        if isinstance(piece, Stroke):
            low = np.minimum(low, piece.points.min(0) - piece.radius)
            high = np.maximum(high, piece.points.max(0) + piece.radius)
        else:
            for face in piece.faces:
                low, high = np.minimum(low, face.points.min(0)), np.maximum(high, face.points.max(0))
    high[1] = 0.0  # soles sink into the ground by a few millimetres
    middle = (low + high) / 2
    size = high - low
    moved = tuple(_moved(piece, -middle) for piece in pieces)
    return Thing(moved, (float(size[0]), float(size[1]), float(size[2])), ordered)


def _moved(piece: Piece, by: np.ndarray) -> Piece:
    if isinstance(piece, Stroke):
        return Stroke(piece.points + by, piece.radius, piece.color)
    return Solid(tuple(_moved_face(face, by) for face in piece.faces), piece.middle + by)


def _moved_face(face: Face, by: np.ndarray) -> Face:
    decals = tuple(_moved_face(decal, by) for decal in face.decals)
    return Face(face.points + by, face.color, face.texture, decals, face.glow)
