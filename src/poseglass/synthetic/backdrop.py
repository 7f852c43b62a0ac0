"""Backdrop: procedural places behind people: ground and walls in perspective, sky, trees, clutter, crowds.

The ground (y = 0) and the walls are planes of the world in the scene's own camera, so people stand on the ground;
everything else is painted in the image. Colours are linear RGB-like floats in [0, 1]; the caller adds camera effects.
"""

import cv2
import numpy as np

from poseglass.core.camera import Camera
from poseglass.synthetic.texture import noise

_TILE = 128
"""Side of the tile that a ground or wall repeats, texels."""


def _muted(rng: np.random.Generator) -> np.ndarray:
    """Return a colour as places have them: mostly greyish, of any lightness."""
    value, gray = rng.uniform(0.12, 0.95), 1.0 - 0.75 * rng.random() ** 3.5
    hue = rng.uniform(0, 6)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (value * (gray + (1 - gray) * wheel)).astype(np.float32)


def _ink(color: np.ndarray) -> tuple[float, float, float]:
    return float(color[0]), float(color[1]), float(color[2])


def _tile(rng: np.random.Generator, kinds: tuple[str, ...]) -> np.ndarray:
    """Return ``(_TILE, _TILE, 3)`` float32 of a surface."""
    kind = str(rng.choice(kinds))
    color = _muted(rng)
    if kind == "grass":
        color = np.array([0.32, 0.42, 0.18], np.float32) * np.float32(rng.uniform(0.5, 1.5))
    tile = np.tile(color, (_TILE, _TILE, 1))
    rough = float(rng.uniform(0.03, 0.35))
    tile *= 1.0 + noise(rng, (_TILE, _TILE), (4, 16, 64), (rough, rough * 0.8, rough * 0.8), periodic=True)[..., None]
    other = np.clip(color + rng.choice([-1, 1]) * rng.uniform(0.08, 0.45), 0, 1) * rng.uniform(0.85, 1.0, 3)
    if kind == "bricks":
        rows = int(rng.choice([4, 8, 16]))
        step = _TILE // rows
        for r in range(rows):
            cv2.line(tile, (0, r * step), (_TILE, r * step), _ink(other), 1)
            for x in range((r % 2) * step, _TILE, 2 * step):
                cv2.line(tile, (x, r * step), (x, (r + 1) * step), _ink(other), 1)
    elif kind == "planks":
        step = int(rng.choice([8, 16, 32]))
        for x in range(0, _TILE, step):
            tile[:, x : x + step] *= np.float32(rng.uniform(0.85, 1.15))
            tile[:, x : x + 1] = other
    elif kind == "tiles":
        step = int(rng.choice([16, 32, 64]))
        tile[::step] = other
        tile[:, ::step] = other
    elif kind == "checker":
        step = int(rng.choice([16, 32, 64]))
        line = np.arange(_TILE) // step % 2
        tile[(line[:, None] ^ line[None]).astype(bool)] *= np.float32(rng.uniform(0.4, 0.9))
    elif kind == "windows":
        step = int(rng.choice([16, 32, 64]))
        wide, tall = int(step * rng.uniform(0.3, 0.8)), int(step * rng.uniform(0.4, 0.85))
        for y in range(4, _TILE, step):
            for x in range(4, _TILE, step):
                tile[y : y + tall, x : x + wide] = np.clip(other * rng.uniform(0.5, 1.3), 0, 1)
    elif kind == "mats":
        for _ in range(int(rng.integers(2, 7))):
            a, b = rng.integers(0, _TILE, 2), rng.integers(0, _TILE, 2)
            low, high = np.minimum(a, b), np.maximum(a, b)
            tile[low[1] : high[1], low[0] : high[0]] = _muted(rng)
    elif kind == "crowd":
        tile *= 0.4
        for _ in range(70):
            center = (int(rng.integers(_TILE)), int(rng.integers(_TILE)))
            cv2.ellipse(tile, center, (4, 6), 0, 0, 360, _ink(_muted(rng)), -1)
            cv2.circle(
                tile, (center[0], center[1] - 8), 3, _ink(np.array([0.75, 0.55, 0.42]) * rng.uniform(0.4, 1.2)), -1
            )
    elif kind == "banner":
        for _ in range(int(rng.integers(1, 4))):
            y = int(rng.integers(0, _TILE - 30))
            tall = int(rng.integers(12, 40))
            tile[y : y + tall] = _muted(rng)
            text = "".join(rng.choice(list("AEGHKLMNORSTX"), 7))
            letters = np.zeros((_TILE, _TILE), np.uint8)  # text is drawn on bytes only
            cv2.putText(letters, text, (4, y + tall - 3), cv2.FONT_HERSHEY_DUPLEX, tall / 26, 255, max(1, tall // 10))
            tile[letters > 0] = _muted(rng)
    return tile


class _Eye:
    """The rays of a camera through all pixels, as ``columns * R[0] + rows * R[1] + R[2]``; never all in memory."""

    def __init__(self, camera: Camera, size_wh: tuple[int, int]) -> None:
        self.columns = ((np.arange(size_wh[0]) - camera.center_xy[0]) / camera.focal_px).astype(np.float32)[None]
        self.rows = ((np.arange(size_wh[1]) - camera.center_xy[1]) / camera.focal_px).astype(np.float32)[:, None]
        self.rotation = np.asarray(camera.rotation, np.float32)
        self.position = -np.asarray(camera.rotation).T @ np.asarray(camera.translation_mm)

    def along(self, direction: np.ndarray) -> np.ndarray:
        """Return the rays' component along a direction, ``(H, W)`` float32."""
        a, b, c = self.rotation @ direction.astype(np.float32)
        return self.columns * a + (self.rows * b + c)

    def plane(self, normal: np.ndarray, level: float) -> np.ndarray:
        """Return the distance to a plane in ray lengths, ``(H, W)`` float32, inf where it is not ahead."""
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.float32(level - self.position @ normal) / self.along(normal)
            return np.where((distance > 0) & (distance < 1e9), distance, np.float32(np.inf))

    def where(self, distance: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return a coordinate of the points at a distance, ``(H, W)`` float32 mm; 0 where that is infinite."""
        return np.where(distance < 1e9, self.along(direction) * np.minimum(distance, 1e9), 0.0) + np.float32(
            self.position @ direction
        )


def _surface(tile: np.ndarray, a_mm: np.ndarray, b_mm: np.ndarray, span_mm: float) -> np.ndarray:
    """Look a tile up at plane coordinates, repeated every ``span_mm``."""
    scale = np.float32(_TILE / span_mm)
    u, v = (np.clip(x * scale, -30000.0, 30000.0).astype(np.float32, copy=False) for x in (a_mm, b_mm))
    # Bytes are looked up several times as fast as floats.
    coarse = np.clip(tile * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return cv2.remap(coarse, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP) * np.float32(1 / 255)


def paint_backdrop(rng: np.random.Generator, size_wh: tuple[int, int], camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Paint a place.

    Args:
        rng: Source of randomness.
        size_wh: Size of the image, pixels.
        camera: Camera of the scene; the ground is the world's y = 0.

    Returns:
        ``(H, W, 3)`` float32 RGB in about [0, 1], and ``(H, W)`` bool: where the ground is visible.
    """
    width, height = size_wh
    kind = rng.random()
    if kind < 0.16:
        return _abstract(rng, size_wh), np.zeros((height, width), bool)
    eye = _Eye(camera, size_wh)
    sky = _sky(rng, eye) if kind < 0.75 else np.broadcast_to(_muted(rng), (height, width, 3))
    if kind < 0.26:  # against the sky, no ground
        image = sky * (1.0 + noise(rng, size_wh, (3, 9), (0.06, 0.04))[..., None])
        return _clutter(rng, image, int(rng.integers(0, 3))), np.zeros((height, width), bool)
    x, y, z = np.eye(3)
    ground = eye.plane(y, 0.0)
    outdoors = kind < 0.6
    floor = _tile(
        rng,
        ("grass", "plain", "tiles", "bricks", "plain")
        if outdoors
        else ("planks", "plain", "tiles", "checker", "mats", "mats"),
    )
    floor = _surface(floor, eye.where(ground, x), eye.where(ground, z), float(rng.choice([1500.0, 3000.0, 6000.0])))
    haze = np.exp(-ground / 40000.0)[..., None]
    image = np.where(np.isfinite(ground)[..., None], floor * haze + _muted(rng) * (1.0 - haze), sky)
    ground_seen = np.isfinite(ground)
    nearest = ground
    forward = eye.rotation[2].astype(np.float64)  # viewing direction, projected to the ground
    heading = np.arctan2(forward[0], forward[2])
    for _ in range(int(rng.integers(0, 3)) if outdoors else int(rng.integers(1, 3))):
        turn = heading + rng.normal(0.0, 0.35)
        normal = np.array([np.sin(turn), 0.0, np.cos(turn)])
        level = rng.uniform(1500.0, 7000.0 if not outdoors else 25000.0)
        across = np.array([-normal[2], 0.0, normal[0]])
        wall = eye.plane(normal, level)
        a, b = eye.where(wall, across), eye.where(wall, y)
        top = np.inf if not outdoors and rng.random() < 0.6 else rng.uniform(600.0, 9000.0)
        front = (wall < nearest) & (b < top) & (b > 0)
        if rng.random() < 0.4:  # it ends somewhere
            front &= a * rng.choice([-1, 1]) < rng.uniform(-1500.0, 2500.0)
        kinds = (
            ("bricks", "windows", "plain", "planks", "tiles", "banner")
            if outdoors
            else ("bricks", "plain", "planks", "banner", "crowd", "mats", "tiles")
        )
        pattern = _surface(_tile(rng, kinds), a, -b, float(rng.choice([2000.0, 4000.0, 8000.0])))
        image = np.where(front[..., None], pattern, image)
        nearest = np.where(front, wall, nearest)
        ground_seen &= ~front
    image = np.ascontiguousarray(image, np.float32)
    if outdoors and rng.random() < 0.6:
        _trees(rng, image, ~ground_seen)
    if rng.random() < 0.3:
        _bystanders(rng, image)
    if rng.random() < 0.6:
        image = _clutter(rng, image, int(rng.integers(1, 6)))
    return image, ground_seen


def _sky(rng: np.random.Generator, eye: _Eye) -> np.ndarray:
    """Return a gradient from the horizon up, with clouds."""
    height, width = eye.rows.size, eye.columns.size
    low = np.array([0.85, 0.88, 0.92], np.float32) * np.float32(rng.uniform(0.6, 1.1))
    high = np.array([0.35, 0.55, 0.85], np.float32) * np.float32(rng.uniform(0.4, 1.1))
    if rng.random() < 0.3:
        high = low * np.float32(rng.uniform(0.8, 1.1))
    lift = np.clip(eye.along(np.array([0.0, 1.6, 0.0])), 0.0, 1.0)[..., None]
    clouds = np.clip(noise(rng, (width, height), (2, 5, 11), (0.5, 0.3, 0.2)), 0, 0.5)[..., None] * np.float32(
        rng.uniform(0, 0.9)
    )
    return np.minimum(low + (high - low) * lift + clouds, 1.05)


def _abstract(rng: np.random.Generator, size_wh: tuple[int, int]) -> np.ndarray:
    """Return an abstract backdrop: noise at several scales over a gradient, with shapes."""
    width, height = size_wh
    a, b = _muted(rng), _muted(rng)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (
        np.cos(angle) * np.linspace(-0.5, 0.5, width)[None]
        + np.sin(angle) * np.linspace(-0.5, 0.5, height)[:, None]
        + 0.5
    )
    image = (a + (b - a) * np.clip(ramp, 0, 1)[..., None]).astype(np.float32)
    for channel in range(3):
        gain = float(0.2 * rng.random() ** 2)
        image[..., channel] += noise(rng, size_wh, (3, 8, 20), (gain, gain, gain))
    image += noise(rng, size_wh, (5, 24, 64), (0.1, 0.08, 0.05))[..., None]
    return _clutter(rng, image, int(rng.integers(2, 14)))


def _clutter(rng: np.random.Generator, image: np.ndarray, count: int) -> np.ndarray:
    """Draw poles, bars, boxes and blobs behind the people, in place; some look like limbs, like branches and pipes."""
    height, width = image.shape[:2]
    size = max(height, width)
    for _ in range(count):
        kind, color = rng.integers(4), _muted(rng)
        p = (rng.uniform(-0.1, 1.1, 2) * (width, height)).astype(int)
        if kind == 0:
            along = rng.normal(0, 0.35, 2) * size
            cv2.line(
                image, _at(p), _at(p + along), _ink(color), max(1, int(size * rng.uniform(0.005, 0.06))), cv2.LINE_AA
            )
        elif kind == 1:  # a pole or a bar across the image
            lean = rng.normal(0, 0.08) * size
            way = np.array([lean, 2 * size]) if rng.random() < 0.6 else np.array([2 * size, lean])
            cv2.line(
                image,
                _at(p - way),
                _at(p + way),
                _ink(color),
                max(1, int(size * rng.uniform(0.006, 0.04))),
                cv2.LINE_AA,
            )
        elif kind == 2:
            box = (_at(p), _at(np.abs(rng.normal(0, 0.25, 2)) * size + 2), float(rng.normal(0, 8)))
            corners = cv2.boxPoints(box).astype(np.int32)
            cv2.fillConvexPoly(image, corners, _ink(color), cv2.LINE_AA)
            if rng.random() < 0.5:
                cv2.polylines(image, [corners], True, _ink(color * rng.uniform(0.4, 1.3)), 1, cv2.LINE_AA)
        else:
            axes = np.abs(rng.normal(0, 0.1, 2)) * size + 1
            cv2.ellipse(image, _at(p), _at(axes), float(rng.uniform(0, 180)), 0, 360, _ink(color), -1, cv2.LINE_AA)
    return image


def _at(p: np.ndarray) -> tuple[int, int]:
    return int(p[0]), int(p[1])


def _trees(rng: np.random.Generator, image: np.ndarray, above: np.ndarray) -> None:
    """Draw bushes and trees over everything but the ground, in place."""
    height, width = image.shape[:2]
    if not above.any():
        return
    line = int(np.nonzero(above)[0].max())
    mask = noise(rng, (width, height), (5, 16, 48), (0.45, 0.35, 0.3))
    mask += (np.arange(height, dtype=np.float32)[:, None] - line) / (height * rng.uniform(0.2, 0.9)) + rng.uniform(
        0.2, 0.6
    )
    green = np.array([0.22, 0.30, 0.12], np.float32) * np.float32(rng.uniform(0.5, 1.6))
    leaves = green * (1.0 + noise(rng, (width, height), (20, 60), (0.6, 0.6))[..., None])
    grown = (mask > 0) & above
    image[grown] = leaves[grown]


def _bystanders(rng: np.random.Generator, image: np.ndarray) -> None:
    """Paint small blurred people far behind, in place; they carry no labels, like the crowd at a contest."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 6))):
        tall = height * rng.uniform(0.08, 0.25)
        x, y = rng.uniform(0, width), height * rng.uniform(0.3, 0.9)
        top, bottom = _muted(rng), _muted(rng)
        w = max(1, int(tall * 0.09))
        for sign in (-1, 1):
            hip = np.array([x + sign * tall * 0.05, y - tall * 0.5])
            cv2.line(image, _at(hip), _at(np.array([x + sign * tall * rng.uniform(0.02, 0.15), y])), _ink(bottom), w)
            shoulder = np.array([x + sign * tall * 0.1, y - tall * 0.8])
            reach = np.array([sign * tall * rng.uniform(0.0, 0.2), tall * rng.uniform(-0.3, 0.35)])
            cv2.line(image, _at(shoulder), _at(shoulder + reach), _ink(top), max(1, w - 1))
        cv2.ellipse(
            image,
            (int(x), int(y - tall * 0.66)),
            (int(tall * 0.11) + 1, int(tall * 0.18) + 1),
            0,
            0,
            360,
            _ink(top),
            -1,
        )
        cv2.circle(
            image,
            (int(x), int(y - tall * 0.92)),
            int(tall * 0.07) + 1,
            _ink(np.array([0.7, 0.52, 0.4]) * rng.uniform(0.4, 1.2)),
            -1,
        )
