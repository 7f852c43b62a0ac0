"""Draws things of a street: shaded polygons and strokes, the farthest first, and the street that they stand on.

Points are in the camera's own frame, metres, x right, y down, z away, so a pixel is ``focal * x / z + center``.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from poseglass.core.box_3d import turn_of
from poseglass.synthetic.street_things import Face, Piece, Solid, Stroke, Thing
from poseglass.synthetic.texture import noise

NEAREST_M = 0.4
"""What is nearer is not drawn."""

_SHIFT = 4
"""Bits after the binary point of the coordinates that OpenCV draws."""

_SMALLEST_TEXTURED_PX = 5
"""Faces that are smaller are drawn in one colour."""


@dataclass(frozen=True, slots=True, eq=False)
class Eye:
    """A camera at the origin, and what it is drawn with.

    Args:
        focal_px: Focal length, pixels of the picture.
        center_xy: Principal point.
        size_wh: Size of the picture.
    """

    focal_px: float
    center_xy: tuple[float, float]
    size_wh: tuple[int, int]

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """Map points ``(..., 3)`` to pixels ``(..., 2)``."""
        return xyz[..., :2] / np.maximum(xyz[..., 2:], NEAREST_M / 2) * self.focal_px + np.asarray(self.center_xy)

    def larger(self, times: int) -> "Eye":
        """Return the eye of a picture that is larger, edge to edge."""
        x, y = ((value + 0.5) * times - 0.5 for value in self.center_xy)
        return Eye(self.focal_px * times, (x, y), (self.size_wh[0] * times, self.size_wh[1] * times))


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Sun and air.

    Args:
        to_sun: ``(3,)``, direction to the sun, of length 1.
        ambient: Share of the light that comes from everywhere, 0 to 1.
        haze: ``(3,)``, colour of the air.
        clear_m: Distance over which most of a colour becomes that of the air.
    """

    to_sun: np.ndarray
    ambient: float
    haze: np.ndarray
    clear_m: float

    def shaded(self, color: np.ndarray, normal: np.ndarray, away: float) -> np.ndarray:
        """Return a colour in the light, seen from a distance."""
        lit = self.ambient + (1 - self.ambient) * max(float(normal @ self.to_sun), 0.0) + 0.12 * max(-normal[1], 0.0)
        return self.hazed(color * lit, away)

    def hazed(self, color: np.ndarray, away: float) -> np.ndarray:
        """Return a colour seen from a distance."""
        keep = np.exp(-away / self.clear_m)
        return color * keep + self.haze * (1 - keep)


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """Where a thing stands.

    Args:
        thing: What stands there.
        middle: ``(3,)``, the middle of its box.
        yaw: As in ``core.box_3d``.
    """

    thing: Thing
    middle: np.ndarray
    yaw: float

    def placed(self, points: np.ndarray) -> np.ndarray:
        """Map the thing's points ``(M, 3)`` to the camera's frame."""
        return points @ turn_of(self.yaw) + self.middle

    def pieces(self) -> list[Piece]:
        """Return the pieces in the order of drawing."""
        found = list(self.thing.pieces)
        if not self.thing.ordered:
            away = [np.square(self.placed(_middle(piece)[None])).sum() for piece in found]
            found = [found[n] for n in np.argsort(away, kind="stable")[::-1]]
        return found


def _middle(piece: Piece) -> np.ndarray:
    return piece.middle if isinstance(piece, Solid) else piece.points.mean(0)


def draw_thing(canvas: np.ndarray, stand: Stand, eye: Eye, light: Light | None) -> list[np.ndarray]:
    """Draw a thing, and return the pixels of its outline.

    Args:
        canvas: ``(H, W, 3)`` uint8; or ``(H, W)`` uint8, in which it becomes 255.
        stand: The thing.
        eye: Of the canvas.
        light: None for a mask.

    Returns:
        Arrays ``(M, 2)`` of pixels whose extremes are those of what was drawn.
    """
    extent: list[np.ndarray] = []
    for piece in stand.pieces():
        if isinstance(piece, Stroke):
            extent += _draw_stroke(canvas, piece, stand.placed(piece.points), eye, light)
            continue
        middle = stand.placed(piece.middle[None])[0]
        for face in piece.faces:
            points = stand.placed(face.points)
            if points[:, 2].min() < NEAREST_M:
                continue
            normal = _normal(points)
            center = points.mean(0)
            if normal @ (center - middle) < 0:
                normal = -normal
            if normal @ center >= 0:  # turned away
                continue
            extent.append(_draw_face(canvas, face, points, normal, eye, light))
            for decal in face.decals:
                extent.append(_draw_face(canvas, decal, stand.placed(decal.points), normal, eye, light))
    return extent


def _normal(points: np.ndarray) -> np.ndarray:
    """Return the direction across a polygon, of length 1; ``np.cross`` takes ten times as long for one of them."""
    (ax, ay, az), (bx, by, bz) = (points[1] - points[0]).tolist(), (points[2] - points[0]).tolist()
    normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
    return normal / max(float(np.sqrt(normal @ normal)), 1e-12)


def _draw_face(
    canvas: np.ndarray, face: Face, points: np.ndarray, normal: np.ndarray, eye: Eye, light: Light | None
) -> np.ndarray:
    pixels = eye.project(points)
    if light is None:
        _fill(canvas, pixels, np.full(3, 1.0))
        return pixels
    away = float(np.linalg.norm(points.mean(0)))
    color = light.hazed(face.color, away) if face.glow else light.shaded(face.color, normal, away)
    if face.texture is None or len(pixels) != 4 or np.ptp(pixels, axis=0).min() < _SMALLEST_TEXTURED_PX:
        _fill(canvas, pixels, color)
    else:
        stretch(canvas, face.texture * (color * 255).astype(np.float32), pixels)
    return pixels


def _draw_stroke(
    canvas: np.ndarray, stroke: Stroke, points: np.ndarray, eye: Eye, light: Light | None
) -> list[np.ndarray]:
    near = float(points[:, 2].min())
    if near < NEAREST_M:
        return []
    pixels = eye.project(points)
    radii = stroke.radius * eye.focal_px / points[:, 2]
    extent = [pixels - radii[:, None], pixels + radii[:, None]]
    if light is None:
        layers = [(np.full(3, 1.0), 0.0, 1.0)]
    else:
        away = float(np.linalg.norm(points.mean(0)))
        dark = light.hazed(stroke.color * (light.ambient * 0.9), away)
        lit = light.hazed(stroke.color * min(light.ambient + 0.75 * (1 - light.ambient) + 0.05, 1.1), away)
        layers = [(dark, 0.0, 1.0), (lit, 0.3, 0.68)]
    toward = np.zeros(2) if light is None else light.to_sun[:2]
    for color, shift, share in layers:
        at = pixels + toward * (radii * shift)[:, None]
        bgr = _ink(canvas, color)
        if len(at) == 1:
            cv2.circle(canvas, _fixed(at)[0].tolist(), max(int(radii[0] * share * 2**_SHIFT), 1), bgr, -1, 0, _SHIFT)
            continue
        thick = max(round(float(radii.mean()) * share * 2), 1)
        cv2.polylines(canvas, [_fixed(at)], False, bgr, thick, cv2.LINE_8, _SHIFT)
    return extent


def _fixed(pixels: np.ndarray) -> np.ndarray:
    return np.round(np.clip(pixels, -20000, 20000) * 2**_SHIFT).astype(np.int32)


def _ink(canvas: np.ndarray, color: np.ndarray) -> tuple[float, ...]:
    if canvas.ndim == 2:
        return (255.0,)
    values = np.clip(color * 255, 0, 255).tolist()
    return float(values[0]), float(values[1]), float(values[2])


def _fill(canvas: np.ndarray, pixels: np.ndarray, color: np.ndarray) -> None:
    cv2.fillConvexPoly(canvas, _fixed(pixels), _ink(canvas, color), cv2.LINE_8, _SHIFT)


def stretch(canvas: np.ndarray, texture: np.ndarray, pixels: np.ndarray) -> None:
    """Draw a texture ``(h, w, 3)`` float32, 0 to 255, over a quadrangle ``(4, 2)``, from its upper left corner on."""
    height, width = canvas.shape[:2]
    low = np.maximum(np.floor(pixels.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(pixels.max(0)).astype(int) + 1, [width, height])
    if (high <= low).any():
        return
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    sides = np.array([(0, 0), (texture.shape[1], 0), (texture.shape[1], texture.shape[0]), (0, texture.shape[0])])
    corners = (pixels - low).astype(np.float32)
    to_part = cv2.getPerspectiveTransform(sides.astype(np.float32) - 0.5, corners)
    drawn = cv2.warpPerspective(texture, to_part, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillConvexPoly(mask, _fixed(corners), (255,), cv2.LINE_8, _SHIFT)
    part = canvas[low[1] : high[1], low[0] : high[0]]
    part[mask > 0] = np.clip(drawn, 0, 255).astype(np.uint8)[mask > 0]


def draw_shadow(canvas: np.ndarray, stand: Stand, eye: Eye, light: Light, ground_y: float) -> None:
    """Darken ``canvas`` ``(H, W)`` uint8, a map of how much light the ground gets, where a thing's shadow falls."""
    points = [
        stand.placed(piece.points if isinstance(piece, Stroke) else np.concatenate([f.points for f in piece.faces]))
        for piece in stand.thing.pieces
    ]
    everything = np.concatenate(points)
    sun = light.to_sun
    steep = min(sun[1], -0.35)
    fallen = everything - sun * ((everything[:, 1] - ground_y) / steep)[:, None]
    fallen[:, 1] = ground_y
    dark = round(255 * (0.45 + 0.4 * light.ambient))
    below = everything.copy()
    below[:, 1] = ground_y
    for outline in (fallen, below):
        if outline[:, 2].min() < NEAREST_M:
            continue
        hull = cv2.convexHull(eye.project(outline).astype(np.float32))[:, 0]
        cv2.fillConvexPoly(canvas, _fixed(hull), (dark,), cv2.LINE_8, _SHIFT)


@dataclass(frozen=True, slots=True, eq=False)
class Street:
    """What things stand on and before.

    Args:
        turn: Direction of the street against the camera's axis, radians.
        aside: How far the middle of the road is to the right of the camera, metres.
        half_width: Half of the road's width.
        walk: Width of the pavements.
        seed: Of its surfaces.
    """

    turn: float
    aside: float
    half_width: float
    walk: float
    seed: tuple[int, ...]

    def across_along(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far points are to the right of the middle of the road, and how far along it."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        x = x - self.aside
        return cos * x - sin * z, sin * x + cos * z

    def at(self, across: float, along: float) -> tuple[float, float]:
        """Return x and z of a place; the inverse of ``across_along``."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return float(cos * across + sin * along + self.aside), float(cos * along - sin * across)


def draw_street(street: Street, eye: Eye, light: Light, ground_y: float, shadows: np.ndarray, times: int) -> np.ndarray:
    """Return sky, ground and houses, ``(H, W, 3)`` uint8 ``times`` as large as the picture.

    Args:
        street: The street.
        eye: Of the picture.
        light: Sun and air.
        ground_y: Height of the ground below the camera, metres.
        shadows: ``(H, W)`` uint8, how much light the ground gets.
        times: Houses are drawn so much larger; sky and ground, which are smooth, are enlarged.
    """
    rng = np.random.default_rng(street.seed)
    width, height = eye.size_wh
    blue = np.array([0.35, 0.55, 0.85]) * rng.uniform(0.7, 1.1)
    rows = np.clip((eye.center_xy[1] - np.arange(height)) / (0.8 * height), 0, 1)[:, None, None]
    clouds = np.clip(noise(rng, (width, height), (3, 9, 27), (0.5, 0.35, 0.2)) + rng.uniform(-0.3, 0.5), 0, 1)[
        ..., None
    ]
    sky = light.haze * (1 - rows) + blue * rows
    picture = sky * (1 - 0.7 * clouds) + (0.75 * light.haze + 0.25) * 0.7 * clouds
    picture = picture.astype(np.float32)
    horizon = int(np.clip(np.ceil(eye.center_xy[1] + 0.5), 0, height))
    if horizon < height:
        picture[horizon:] = _ground(rng, street, eye, light, ground_y, horizon)
        picture[horizon:] *= shadows[horizon:, :, None].astype(np.float32) / 255
    plain = np.clip(picture * 255, 0, 255).astype(np.uint8)
    larger = eye.larger(times)
    canvas = cv2.resize(plain, larger.size_wh, interpolation=cv2.INTER_LINEAR)
    _draw_houses(canvas, rng, street, larger, light, ground_y)
    return canvas


def _ground(
    rng: np.random.Generator, street: Street, eye: Eye, light: Light, ground_y: float, horizon: int
) -> np.ndarray:
    width, height = eye.size_wh
    v, u = np.mgrid[horizon:height, 0:width].astype(np.float32)
    z = eye.focal_px * ground_y / np.maximum(v - eye.center_xy[1], 0.3)
    x = (u - eye.center_xy[0]) * z / eye.focal_px
    across, along = (values.astype(np.float32) for values in street.across_along(x, z))
    far = np.exp(-z / 14.0)  # details too fine for a pixel fade
    tile = noise(rng, (256, 256), (8, 32, 128), (0.12, 0.14, 0.2), periodic=True)
    rough = cv2.remap(tile, np.mod(across * 24, 255), np.mod(along * 24, 255), cv2.INTER_LINEAR) * far
    patches = cv2.remap(tile, np.mod(across * 2, 255), np.mod(along * 1.1, 255), cv2.INTER_LINEAR)
    beside = np.abs(across)
    road = np.array([1.0, 1.0, 1.02]) * rng.uniform(0.22, 0.48)
    stone = np.array([1.0, 0.98, 0.94]) * rng.uniform(0.4, 0.7)
    grass = np.array([0.3, 0.4, 0.16]) * rng.uniform(0.6, 1.3) if rng.random() < 0.6 else stone * rng.uniform(0.7, 1.1)
    on_road, on_walk = beside < street.half_width, beside < street.half_width + street.walk
    surface = np.where(on_road[..., None], road, np.where(on_walk[..., None], stone, grass)).astype(np.float32)
    slabs = (np.mod(across, 0.8) < 0.05) | (np.mod(along, 0.8) < 0.05)
    surface *= np.where(on_walk & ~on_road & slabs, 1 - 0.3 * far, 1.0)[..., None]
    surface *= (1 + 0.7 * rough + 0.5 * patches)[..., None]
    kerb = (beside > street.half_width) & (beside < street.half_width + 0.16)
    surface[kerb] = stone * 1.25
    wear = np.clip(0.75 + 2.0 * patches, 0.3, 1.0)[..., None]
    dashed = (beside < 0.07) & (np.mod(along, 6.0) < rng.uniform(2.0, 4.0))
    edges = np.abs(beside - street.half_width + 0.3) < 0.06
    lines = dashed | (edges if rng.random() < 0.5 else False)
    if rng.random() < 0.3:  # a crossing
        start = rng.uniform(6, 25)
        lines |= (along > start) & (along < start + 3) & (np.mod(across, 1.0) < 0.5) & on_road
    surface = np.where(lines[..., None], surface * (1 - wear) + 0.85 * wear, surface)
    lit = light.ambient + (1 - light.ambient) * max(-light.to_sun[1], 0.0) + 0.12
    keep = np.exp(-z / light.clear_m)[..., None]
    return (surface * lit * keep + light.haze * (1 - keep)).astype(np.float32)


def _draw_houses(
    canvas: np.ndarray, rng: np.random.Generator, street: Street, eye: Eye, light: Light, ground_y: float
) -> None:
    """Draw rows of houses on both sides, the farthest first."""
    rows = []
    for side in (-1, 1):
        if rng.random() < 0.12:
            continue
        line = street.half_width + street.walk + rng.uniform(0.5, 5.0)
        along = rng.uniform(-10, 0)
        while along < 130:
            end = along + rng.uniform(7, 22)
            if rng.random() < 0.85:
                rows.append((side * line, along, end, rng.uniform(3.5, 14.0), side * rng.uniform(6, 12)))
            along = end + (rng.uniform(1, 10) if rng.random() < 0.3 else 0.0)
    for across, start, end, tall, deep in sorted(rows, key=lambda row: -row[1]):
        wall = np.clip(np.array([0.8, 0.72, 0.62]) * rng.uniform(0.35, 1.2) + rng.uniform(-0.12, 0.12, 3), 0.05, 1)
        facade = _facade(rng, wall)
        front = (street.at(across, start), street.at(across, end))
        gable = (street.at(across + deep, start), street.at(across, start))
        for (from_x, from_z), (to_x, to_z) in (gable, front):
            ends = np.array([(from_x, from_z), (to_x, to_z)])
            cut = _beyond(ends, NEAREST_M * 2)
            if cut is None:
                continue
            ends, shares = cut
            top, bottom = ground_y - tall, ground_y
            corners = np.array([(*ends[0], top), (*ends[1], top), (*ends[1], bottom), (*ends[0], bottom)])[:, [0, 2, 1]]
            away = float(np.linalg.norm(corners.mean(0)))
            normal = np.array([ends[1][1] - ends[0][1], 0.0, ends[0][0] - ends[1][0]])
            normal /= max(float(np.linalg.norm(normal)), 1e-9)
            if normal @ corners.mean(0) > 0:
                normal = -normal
            lit = light.shaded(np.ones(3), normal, 0.0)
            keep = np.exp(-away / light.clear_m)
            first, last = (np.array(shares) * facade.shape[1]).astype(int)
            part = facade[:, first : max(last, first + 2)]
            stretch(
                canvas, ((part * lit * keep + light.haze * (1 - keep)) * 255).astype(np.float32), eye.project(corners)
            )


def _beyond(ends: np.ndarray, near: float) -> tuple[np.ndarray, tuple[float, float]] | None:
    """Return the part of a line on the ground ``(2, 2)`` of x and z that is beyond a z, and its share of the line."""
    z = ends[:, 1]
    if z.max() <= near:
        return None
    if z.min() >= near:
        return ends, (0.0, 1.0)
    share = float((near - z[0]) / (z[1] - z[0]))
    cut = ends[0] + (ends[1] - ends[0]) * share
    return (np.stack([cut, ends[1]]), (share, 1.0)) if z[0] < near else (np.stack([ends[0], cut]), (0.0, share))


def _facade(rng: np.random.Generator, wall: np.ndarray) -> np.ndarray:
    """Return a wall with windows ``(H, W, 3)`` float32."""
    height, width = 96, 160
    image = np.tile(wall.astype(np.float32), (height, width, 1))
    image *= 1 + noise(rng, (width, height), (4, 20, 80), (0.08, 0.1, 0.12))[..., None]
    if rng.random() < 0.3:
        image[:: int(rng.integers(2, 5))] *= np.float32(0.88)
    floors, across = int(rng.integers(2, 6)), int(rng.integers(4, 11))
    glass = np.array([0.16, 0.2, 0.26]) * rng.uniform(0.6, 2.2)
    frame = np.clip(wall * rng.uniform(0.6, 1.5), 0, 1)
    high, wide = height / floors, width / across
    tall, broad = rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.7)
    for i in range(floors):
        for j in range(across):
            x, y = (j + 0.5 - broad / 2) * wide, (i + 0.5 - tall / 2) * high
            box = (round(x), round(y)), (round(x + broad * wide), round(y + tall * high))
            tone = glass * rng.uniform(0.5, 1.5)
            cv2.rectangle(image, *box, tuple(float(c) for c in tone), -1)
            cv2.rectangle(image, *box, tuple(float(c) for c in frame), 1)
    return np.clip(image, 0, 1)
