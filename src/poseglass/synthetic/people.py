"""Synthetic people: rendered scenes of articulated, dressed bodies with exact keypoints.

A scene depends only on ``(seed, index)``, so an index gives the same pixels in any order and in any worker. Nothing is
read from disk. ``body_pose`` samples angles, ``body_model`` builds the body, ``body_renderer`` casts rays, ``texture``
and ``backdrop`` paint; this module arranges people, camera, light and occluders.

Labels: every keypoint of the skeleton that a body has, hidden or not, at its exact projection. The score is 1 inside
the image, 0 outside it (the coordinates are kept). ``keypoint_extra["occluded"]`` is the result of a depth test,
``extra["area"]`` the person's visible pixels; boxes are tight around the whole synthetic person, hidden parts included,
and clipped to the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.camera import Camera
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import LSP14
from poseglass.core.table import nearest
from poseglass.synthetic.backdrop import paint_backdrop
from poseglass.synthetic.body_figure import sample_figure, sample_outfit
from poseglass.synthetic.body_model import KEYPOINTS, Body, build_body
from poseglass.synthetic.body_pose import ATHLETES, check_activities, rotation, sample_pose
from poseglass.synthetic.body_renderer import Light, Occluder, Surfaces, body_window, cast, occlusion, seen_by, shade
from poseglass.synthetic.texture import noise, paint

MAX_PEOPLE = 20
"""Scenes of more people are rejected: they would hide each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The contents of a scene, before rendering.

    Args:
        bodies: The people, in the world.
        camera: Camera of the image.
        occluders: Flat objects at their depth; some stand in front of people.
        light: Lamp and sky.
    """

    bodies: tuple[Body, ...]
    camera: Camera
    occluders: tuple[Occluder, ...]
    light: Light


@dataclass(frozen=True, eq=False)
class SyntheticPeople:
    """Synthetic scenes of people, a ``Dataset``. Create it with ``synthetic_people``, for defaults and checks.

    Args:
        count: Number of scenes.
        seed: Scenes of another seed have nothing in common with these.
        image_wh: Width and height of the images, pixels.
        people: Fewest and most people in a scene, both included.
        skeleton: Any keypoints out of ``body_model.KEYPOINTS``.
        occluders: Fraction of scenes with objects in front of people.
        fill: Smallest and largest fraction of the image that the people's box takes along the side where it is tighter.
        activities: Weights of activities.
        effects: Whether to add camera effects: blur, noise, colour cast, JPEG.
    """

    count: int
    seed: int
    image_wh: tuple[int, int]
    people: tuple[int, int]
    skeleton: Skeleton
    occluders: float
    fill: tuple[float, float]
    activities: Mapping[str, float]
    effects: bool
    _recent: dict[int, tuple[Scene, Surfaces]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PoseSample:
        """Render a scene.

        Raises:
            IndexError: No such scene.
        """
        index = self._checked(index)
        return PoseSample(self.image(index), self.instances(index), Affine.identity(), self.source(index))

    def source(self, index: int) -> str:
        """Return a name that tells how to render the scene again."""
        return f"synthetic-{self.seed}-{self._checked(index)}"

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of a scene's image, pixels: the same for all."""
        self._checked(index)
        return self.image_wh

    def scene(self, index: int) -> Scene:
        """Return the contents of a scene: bodies, camera, light, occluders."""
        rng = np.random.default_rng((self.seed, self._checked(index), 0))
        return _sample_scene(rng, self.image_wh, self.people, self.occluders, self.fill, self.activities)

    def instances(self, index: int) -> Instances:
        """Return the labels of a scene. Rays are cast for the hidden keypoints, but nothing is painted."""
        scene, surfaces = self._cast(self._checked(index))
        factor = surfaces.part.shape[1] / self.image_wh[0]
        order = np.array([KEYPOINTS.index(name) for name in self.skeleton.keypoints])
        width, height = self.image_wh
        xy, score, boxes, xyz, hidden = [], [], [], [], []
        for i, body in enumerate(scene.bodies):
            points = body.points_mm[order]
            at = scene.camera.project(points)
            xy.append(at)
            score.append(((at >= -0.5) & (at <= np.array([width, height]) - 0.5)).all(-1))
            boxes.append(
                np.clip(body_window(surfaces.quadrics[i], scene.camera), -0.5, np.array([width, height] * 2) - 0.5)
            )
            xyz.append(scene.camera.to_camera(points))
            hidden.append(occlusion(body, scene.camera, surfaces, i, factor=factor)[order])
        n, k = len(scene.bodies), len(order)
        return Instances(
            self.skeleton,
            np.stack(xy) if n else np.zeros((0, k, 2)),
            np.stack(score) if n else np.zeros((0, k)),
            np.stack(boxes) if n else np.zeros((0, 4)),
            np.ones(n, np.float32),
            xyz_mm=np.stack(xyz) if n else np.zeros((0, k, 3)),
            extra={
                "area": (np.maximum(surfaces.visible(), 1) / factor**2).astype(np.float32),
            },
            keypoint_extra={"occluded": np.stack(hidden) if n else np.zeros((0, k), bool)},
        )

    def person_mask(self, index: int) -> np.ndarray:
        """Return ``(H, W)`` int32: which person is visible at the centre of each pixel, -1 none."""
        scene = self.scene(index)
        return cast(scene.bodies, scene.camera, self.image_wh, scene.occluders).person().astype(np.int32)

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Render the image ``(H, W, 3)`` uint8 RGB, always at full size: there is no decoding to save.

        Raises:
            IndexError: No such scene.
            ValueError: ``reduce`` is not 1, 2, 4 or 8.
        """
        if reduce not in (1, 2, 4, 8):
            raise ValueError(f"reduce must be 1, 2, 4 or 8, got {reduce}.")
        index = self._checked(index)
        scene, surfaces = self._cast(index)
        rng = np.random.default_rng((self.seed, index, 1))
        return _draw(rng, scene, surfaces, self.image_wh, self.effects)

    def _checked(self, index: int) -> int:
        if not -self.count <= index < self.count:
            raise IndexError(f"SyntheticPeople has {self.count} scenes, 0 to {self.count - 1}; got index {index}.")
        return int(index) % self.count

    def _cast(self, index: int) -> tuple[Scene, Surfaces]:
        """Return the scene and its surfaces; the last one is kept, as labels and image are usually read in turn."""
        kept = self._recent.get(index)
        if kept is None:
            scene = self.scene(index)
            factor = _fineness(self.image_wh)
            size = (round(self.image_wh[0] * factor), round(self.image_wh[1] * factor))
            kept = scene, cast(scene.bodies, scene.camera, size, scene.occluders, factor=factor)
            self._recent.clear()
            self._recent[index] = kept
        return kept

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_recent": {}}


def synthetic_people(
    count: int,
    *,
    seed: int = 0,
    size_wh: tuple[int, int] = (256, 256),
    people: tuple[int, int] | int = (1, 1),
    skeleton: Skeleton = LSP14,
    occluders: float = 0.25,
    fill: tuple[float, float] = (0.6, 0.97),
    activities: Mapping[str, float] | None = None,
    effects: bool = True,
) -> SyntheticPeople:
    """Create a dataset of synthetic people.

    Args:
        count: Number of scenes.
        seed: 0 or more.
        size_wh: Width and height of the images, pixels, 32 to 4096.
        people: Fewest and most people in a scene, or the number.
        skeleton: Any keypoints out of ``body_model.KEYPOINTS``: those of COCO, MPII, LSP and FLIC, in any order.
        occluders: Fraction of scenes with objects in front of people, 0 to 1.
        fill: Smallest and largest fraction of the image that the people take along the side where they fit tighter.
            Above 1 some extend beyond the image.
        activities: Weights by name, ``body_pose.ACTIVITIES``. None takes ``body_pose.ATHLETES``; see ``EVERYDAY``.
        effects: Add camera effects: blur, noise, colour casts, JPEG.

    Raises:
        ValueError: A number is out of range, the skeleton has a keypoint that a body lacks, or an activity is unknown.

    Example:
        >>> data = synthetic_people(100, seed=1, size_wh=(64, 64), people=(1, 3))
        >>> sample = data[7]
        >>> sample.image.shape, sample.instances.xy.shape[1:], bool((sample.image == data[7].image).all())
        ((64, 64, 3), (14, 2), True)
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    if len(size_wh) != 2 or not all(32 <= int(v) <= 4096 for v in size_wh):
        raise ValueError(f"size_wh must be (width, height) with 32 to 4096 pixels each, got {size_wh}.")
    low, high = (people, people) if isinstance(people, int) else people
    if not 0 <= low <= high <= MAX_PEOPLE:
        raise ValueError(f"people must be (fewest, most) with 0 <= fewest <= most <= {MAX_PEOPLE}, got {people}.")
    for name in skeleton.keypoints:
        if name not in KEYPOINTS:
            raise ValueError(
                f"Skeleton {skeleton.name!r} has keypoint {name!r}, which a synthetic body lacks."
                f"{nearest(name, KEYPOINTS)} Known: {', '.join(KEYPOINTS)}."
            )
    if not 0.0 <= occluders <= 1.0:
        raise ValueError(f"occluders must be a fraction of scenes from 0 to 1, got {occluders}.")
    if not 0.05 <= fill[0] <= fill[1] <= 4.0:
        raise ValueError(f"fill must be (least, most) with 0.05 <= least <= most <= 4, got {fill}.")
    chosen = dict(ATHLETES if activities is None else activities)
    check_activities(chosen)
    size = (int(size_wh[0]), int(size_wh[1]))
    return SyntheticPeople(
        int(count), int(seed), size, (int(low), int(high)), skeleton, float(occluders),
        (float(fill[0]), float(fill[1])), chosen, bool(effects),
    )  # fmt: skip


def _fineness(size_wh: tuple[int, int]) -> float:
    """Return the rays per pixel and side: small images need smooth outlines most and can afford them."""
    return 1.5 if max(size_wh) <= 1024 and size_wh[0] % 2 == 0 and size_wh[1] % 2 == 0 else 1.0


def _sample_scene(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    people: tuple[int, int],
    occluders: float,
    fill: tuple[float, float],
    activities: Mapping[str, float],
) -> Scene:
    count = int(rng.integers(people[0], people[1] + 1))
    bodies = []
    for _ in range(count):
        figure = sample_figure(rng)
        bodies.append(build_body(figure, sample_outfit(rng, figure), sample_pose(rng, activities)))
    bodies = _spread(rng, bodies)
    camera = _sample_camera(rng, bodies, size_wh, fill)
    things: list[Occluder] = []
    for body in bodies:
        if body.pose.activity == "hang" and rng.random() < 0.8:
            things += _bar(rng, body, camera, size_wh)
    if rng.random() < occluders:
        things += [_sample_occluder(rng, bodies, camera, size_wh) for _ in range(int(rng.integers(1, 4)))]
    return Scene(tuple(bodies), camera, tuple(things), _sample_light(rng))


def _spread(rng: np.random.Generator, bodies: list[Body]) -> list[Body]:
    """Place people side by side with room for each, some nearer, some farther; a single one stays where it is."""
    if len(bodies) < 2:
        return bodies
    placed, edge = [], 0.0
    for body in bodies:
        low, high = body.balls[:, 0].min() - 60.0, body.balls[:, 0].max() + 60.0
        placed.append(body.moved(np.array([edge - low, 0.0, rng.uniform(-900.0, 900.0)])))
        edge += (high - low) * rng.uniform(0.72, 1.15)
    order = rng.permutation(len(placed))
    return [placed[i].moved(np.array([-edge / 2, 0.0, 0.0])) for i in order]


def _sample_camera(
    rng: np.random.Generator, bodies: list[Body], size_wh: tuple[int, int], fill: tuple[float, float]
) -> Camera:
    """Look at the people from some distance, height and with some roll; the focal length makes them fill the image."""
    width, height = size_wh
    elevation = float(np.clip(rng.normal(8.0, 17.0), -40.0, 70.0))
    roll = float(rng.normal(0.0, 9.0))
    view = rotation("z", roll) @ rotation("x", elevation) @ np.diag([1.0, -1.0, -1.0])
    if not bodies:
        middle, extent = np.array([0.0, 900.0, 0.0]), 1800.0
    else:
        balls = np.concatenate([b.balls[:, :3] for b in bodies])
        middle = 0.5 * (balls.min(0) + balls.max(0))
        extent = float(np.sqrt(((balls - middle) ** 2).sum(-1).max())) * 2
    distance = extent * float(np.exp(rng.uniform(np.log(1.0), np.log(6.0)))) + 800.0
    translation = np.array([0.0, 0.0, distance]) - view @ middle
    if not bodies:
        return Camera(0.5 * distance * min(size_wh) / 1000.0, ((width - 1) / 2, (height - 1) / 2), view, translation)
    unit = Camera(1.0, (0.0, 0.0), view, translation)
    boxes = np.stack([body_window(seen_by(unit, b), unit) for b in bodies])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    share = float(rng.uniform(*fill))
    focal = share * min(width / (high[0] - low[0]), height / (high[1] - low[1]))
    free = np.maximum(np.array([width, height]) - (high - low) * focal, 0.02 * min(width, height))
    at = rng.uniform(-0.45, 0.45, 2) * free + (np.array([width, height]) - 1.0) / 2
    center = at - focal * 0.5 * (low + high)
    return Camera(focal, (float(center[0]), float(center[1])), view, translation)


def _sample_light(rng: np.random.Generator) -> Light:
    lift, turn = np.deg2rad(rng.uniform(15.0, 80.0)), rng.uniform(0.0, 2 * np.pi)
    direction = np.array([np.cos(lift) * np.sin(turn), np.sin(lift), np.cos(lift) * np.cos(turn)])
    warm = rng.normal(0.0, 0.05)
    key = rng.uniform(0.35, 1.05) * np.array([1.0 + warm, 1.0, 1.0 - warm])
    ambient = rng.uniform(0.35, 0.8) * np.array([1.0 - warm, 1.0, 1.0 + warm])
    return Light(direction, key, ambient, float(rng.uniform(0.0, 0.35)))


def _bar(rng: np.random.Generator, body: Body, camera: Camera, size_wh: tuple[int, int]) -> list[Occluder]:
    """Return a bar through both fists of a hanging person, just in front of the wrists' depth or behind it."""
    names = ("left_wrist", "right_wrist")
    points = camera.to_camera(np.stack([body.points_mm[KEYPOINTS.index(n)] for n in names]))
    a, b = camera.project(np.stack([body.points_mm[KEYPOINTS.index(n)] for n in names]))
    along = b - a
    length = float(np.sqrt(along @ along))
    if length < 4.0:
        return []
    along = along / length
    half = max(0.6, 20.0 * camera.focal_px / points[:, 2].mean())
    side = np.array([-along[1], along[0]]) * half
    reach = along * 3 * max(size_wh)
    polygon = np.stack([a - reach - side, b + reach - side, b + reach + side, a - reach + side])
    depth = float(points[:, 2].mean() + rng.choice([-45.0, 30.0]))
    return [Occluder(polygon, depth, np.full(3, rng.uniform(0.15, 0.8)), 0.05)]


def _sample_occluder(
    rng: np.random.Generator, bodies: list[Body], camera: Camera, size_wh: tuple[int, int]
) -> Occluder:
    """A pole, a rail, a box or a bush, in front of the people or between them."""
    size = np.array(size_wh, np.float64)
    kind, p = rng.integers(4), rng.uniform(0.1, 0.9, 2) * size
    depth = camera.to_camera(np.concatenate([b.points_mm for b in bodies]))[:, 2] if bodies else np.array([2000.0])
    at = float(rng.uniform(depth.min() - 400.0, np.median(depth)))
    if kind <= 1:
        lean = rng.normal(0.0, 0.08)
        along = np.array([lean, 1.0]) if kind == 0 else np.array([1.0, lean])
        side = np.array([-along[1], along[0]]) * rng.uniform(0.006, 0.045) * size.max()
        along = along * 2 * size.max()
        polygon = np.stack([p - along - side, p + along - side, p + along + side, p - along + side])
    elif kind == 2:
        box = (tuple(p), tuple(rng.uniform(0.08, 0.35, 2) * size.min()), float(rng.normal(0.0, 15.0)))
        polygon = cv2.boxPoints(box).astype(np.float64)
        if rng.random() < 0.5:  # a wall or a block from below
            polygon[:, 1] += size[1] * 0.9 - polygon[:, 1].min()
            polygon[polygon[:, 1] > size[1] * 0.95, 1] = 2 * size[1]
    else:
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        wave = sum(0.35 / k * np.sin(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5, 9))
        radius = rng.uniform(0.06, 0.16) * size.min() * (1.0 + wave)
        polygon = p + np.stack([np.cos(angle), np.sin(angle)], -1) * radius[:, None]
    value, hue = rng.uniform(0.1, 0.95), rng.uniform(0.7, 1.1, 3)
    return Occluder(polygon, at, np.clip(value * hue, 0, 1), float(rng.uniform(0.05, 0.4)))


def _draw(
    rng: np.random.Generator, scene: Scene, surfaces: Surfaces, size_wh: tuple[int, int], effects: bool
) -> np.ndarray:
    """Paint backdrop, shadows, people and occluders, then add camera effects."""
    factor = surfaces.part.shape[1] / size_wh[0]
    textures = [paint(rng, body.outfit) for body in scene.bodies]
    front = shade(scene.bodies, scene.camera, surfaces, textures, scene.light, factor=factor)
    for k, occluder in enumerate(scene.occluders):
        mask = surfaces.part == -2 - k
        if mask.any():
            grain = 1.0 + noise(rng, (mask.shape[1], mask.shape[0]), (6, 24, 64), (occluder.grain,) * 3)
            tone = occluder.color * (scene.light.ambient + 0.5 * scene.light.key)
            front[mask] = grain[mask][:, None] * tone.astype(np.float32)
    cover = (surfaces.part != -1).astype(np.float32)
    if factor != 1.0:
        front = cv2.resize(front, size_wh, interpolation=cv2.INTER_AREA)
        cover = cv2.resize(cover, size_wh, interpolation=cv2.INTER_AREA)
    back, ground = paint_backdrop(rng, size_wh, scene.camera)
    if ground.any() and scene.bodies:
        back = back * (1.0 - _ground_shadow(scene, size_wh) * ground)[..., None]
    if effects and rng.random() < 0.5:
        back = cv2.GaussianBlur(back, (0, 0), float(rng.uniform(0.005, 0.015)) * max(size_wh))
    image = front + back * (1.0 - cover)[..., None]
    if effects:
        return _camera_effects(rng, image)
    return np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _ground_shadow(scene: Scene, size_wh: tuple[int, int]) -> np.ndarray:
    """Return ``(H, W)`` float32, how dark the ground is: the limbs' shadows along the light, and a soft one below."""
    shadow = np.zeros((size_wh[1], size_wh[0]), np.float32)
    light = scene.light.direction
    strength = 0.55 * float(scene.light.key.mean() / (scene.light.key.mean() + scene.light.ambient.mean()))
    for body in scene.bodies:
        centers, radius = body.balls[:, :3], body.balls[:, 3]
        floor = centers - light * (centers[:, 1:2] / light[1])
        xy, depth = scene.camera.project(floor), scene.camera.to_camera(floor)[:, 2]
        if not np.isfinite(xy).all():
            continue
        thick = np.maximum(1, 2 * radius * scene.camera.focal_px / depth).astype(int)
        ends = np.clip(xy, -4 * max(size_wh), 5 * max(size_wh)).astype(int)
        for a, b in body.hull_from[body.hull_from[:, 0] >= 0]:
            cv2.line(shadow, tuple(map(int, ends[a])), tuple(map(int, ends[b])), strength, int(min(thick[a], 255)))
        hull = cv2.convexHull(ends[_near_trunk(body)].astype(np.int32))
        cv2.fillConvexPoly(shadow, hull, strength)
    return cv2.GaussianBlur(shadow, (0, 0), 0.008 * max(size_wh) + 0.3)


def _near_trunk(body: Body) -> np.ndarray:
    """Return the indices of the balls nearest to hips and shoulders: the corners of the trunk's shadow."""
    corners = body.points_mm[[KEYPOINTS.index(f"{s}_{j}") for s in ("left", "right") for j in ("hip", "shoulder")]]
    return np.array([int(((body.balls[:, :3] - c) ** 2).sum(-1).argmin()) for c in corners])


def _camera_effects(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Exposure, colour cast, haze, vignette, defocus or motion, sensor noise, JPEG: ``(H, W, 3)`` uint8."""
    height, width = image.shape[:2]
    image = image * (rng.uniform(0.75, 1.25) * (1.0 + rng.normal(0.0, 0.05, 3))).astype(np.float32)
    if rng.random() < 0.15:
        image = image + np.float32(rng.uniform(0.02, 0.18))
    if rng.random() < 0.06:
        image = np.repeat(image @ np.array([[0.3], [0.59], [0.11]], np.float32), 3, axis=2)
    blur = rng.random()
    if blur < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.0)) * min(1.4, max(height, width) / 200.0))
    elif blur < 0.6:
        length = int(max(3, 0.03 * min(320, max(height, width)) * rng.uniform(0.3, 1.0)))
        kernel = np.zeros((2 * length + 1,) * 2, np.float32)
        turn, middle = rng.uniform(0, np.pi), length
        reach = np.array([np.cos(turn), np.sin(turn)]) * length / 2
        cv2.line(
            kernel,
            (round(middle - reach[0]), round(middle - reach[1])),
            (round(middle + reach[0]), round(middle + reach[1])),
            1.0,
        )
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    gamma = float(np.exp(rng.normal(0.0, 0.12)))
    image = np.clip(image, 0.0, 1.0)
    image = cv2.pow(image, gamma) * 255.0
    image += rng.standard_normal(image.shape[:2], np.float32)[..., None] * np.float32(rng.uniform(0.0, 7.0)) + 0.5
    out = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        code = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])[1]
        return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return out
