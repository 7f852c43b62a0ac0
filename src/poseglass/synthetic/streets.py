"""Rendered streets: cars, pedestrians and cyclists with exact boxes in space, seen by many cameras.

Cars drive, park and turn; people walk anywhere; poles, trees and bins stand between them. Focal lengths, heights and
principal points of the cameras differ, as do light, air and streets. A street depends only on ``(seed, index)``.

Solids are simple (see ``street_things``), so what is learnt here is a test of codec, network and metric, not a detector
for photographs.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.box_3d import wrapped
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import BOXES
from poseglass.synthetic.street_renderer import Eye, Light, Stand, Street, draw_shadow, draw_street, draw_thing
from poseglass.synthetic.street_things import Thing, block, car, cyclist, pedestrian, pole, tree

CLASSES = ("pedestrian", "car", "cyclist")
"""Classes of the boxes, in CenterNet's order."""

MAKERS = (pedestrian, car, cyclist)

SIZE_WH = (384, 128)
"""Usual size of the pictures, pixels."""

FOCAL_PX = (180.0, 360.0)
"""Usual range of focal lengths, pixels."""

LARGER = 2
"""Pictures are drawn this many times as large, and reduced."""

NEAREST_M, FARTHEST_M = 3.5, 40.0
"""Range of the depth of things."""

HIDDEN = 0.85
"""Things of which a larger share is hidden are regions to ignore."""

SMALLEST_PX = 6.0
"""Things whose box is lower are regions to ignore."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What is on a picture.

    Args:
        projection: ``(3, 4)``, camera frame in millimetres to pixels.
        camera_mm: ``(3,)``, where the eye is in the camera frame.
        eye: The eye.
        light: Sun and air.
        street: The street.
        ground_y: Height of the ground below the eye, metres.
        stands: Things, the farthest first.
        labels: Their classes, -1 for none.
    """

    projection: np.ndarray
    camera_mm: np.ndarray
    eye: Eye
    light: Light
    street: Street
    ground_y: float
    stands: list[Stand]
    labels: list[int]


@dataclass(frozen=True, eq=False)
class Streets:
    """Rendered streets, a ``Dataset``. Create it with ``streets``, for defaults and checks.

    Args:
        count: Number of pictures.
        seed: Pictures of another seed have nothing in common with these.
        image_wh: Width and height of the pictures, pixels.
        focal_px: Smallest and largest focal length, pixels.
        height_m: Smallest and largest height of the camera above the ground, metres.
        most: Largest number of cars, pedestrians and cyclists together.
    """

    count: int
    seed: int
    image_wh: tuple[int, int]
    focal_px: tuple[float, float]
    height_m: tuple[float, float]
    most: int
    _recent: dict[int, _Scene] = field(default_factory=dict, init=False, repr=False)

    @property
    def skeleton(self) -> Skeleton:
        """A skeleton without keypoints."""
        return BOXES

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return CLASSES

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PoseSample:
        """Render a picture.

        Raises:
            IndexError: No such picture.
        """
        index = self._checked(index)
        return PoseSample(self.image(index), self.instances(index), Affine.identity(), self.source(index))

    def source(self, index: int) -> str:
        """Return a name that tells how to render the picture again."""
        return f"streets-{self.seed}-{self._checked(index)}"

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of a picture, pixels: the same for all."""
        self._checked(index)
        return self.image_wh

    def boxes_complete(self, index: int) -> bool:
        """Return True: everything has a box."""
        self._checked(index)
        return True

    def projection(self, index: int) -> np.ndarray:
        """Return the calibration of a picture's camera, ``(3, 4)``, camera frame in millimetres to pixels."""
        return self._scene(self._checked(index)).projection

    def instances(self, index: int) -> Instances:
        """Return the labels of a picture, nearest first.

        Boxes in the image are tight around what is drawn. ``extra["truncation"]`` is the share of such a box that is
        outside the picture, ``extra["occlusion"]`` counts as KITTI does: 0 nothing hidden by other things, to 15 %; 1
        up to half; 2 more; 3 so much, or so small, that the thing is a region to ignore.
        """
        scene = self._scene(self._checked(index))
        width, height = self.image_wh
        taken = np.zeros((height, width), bool)
        rows: list[tuple[int, np.ndarray, np.ndarray, float, int]] = []
        for stand, label in zip(reversed(scene.stands), reversed(scene.labels), strict=True):  # nearest first
            mask = np.zeros((height, width), np.uint8)
            outline = draw_thing(mask, stand, scene.eye, None)
            own = mask > 0
            shown = own & ~taken
            taken |= own
            if label < 0 or not outline or not own.any():
                continue
            extent = np.concatenate(outline)
            whole = np.concatenate([extent.min(0), extent.max(0)])
            limit = np.array([width, height, width, height]) - 0.5
            box = np.clip(whole, -0.5, limit)
            sides, all_sides = box[2:] - box[:2], whole[2:] - whole[:2]
            if sides.min() <= 1:
                continue
            truncation = 1 - float(sides.prod() / all_sides.prod())
            hidden = 1 - float(shown.sum() / own.sum())
            level = 0 if hidden < 0.15 else 1 if hidden < 0.5 else 2
            if hidden > HIDDEN or sides[1] < SMALLEST_PX:
                level = 3
            size = np.array(stand.thing.size) * 1000
            middle = stand.middle * 1000 + scene.camera_mm
            rows.append((label, box, np.array([*middle, *size, stand.yaw]), truncation, level))
        count = len(rows)
        boxes = np.array([row[1] for row in rows], np.float32).reshape(-1, 4)
        level = np.array([row[4] for row in rows], np.int64)
        return Instances(
            BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), boxes, np.ones(count),
            np.array([row[0] for row in rows], np.int64),
            box_3d=np.array([row[2] for row in rows], np.float32).reshape(-1, 7),
            projection=np.broadcast_to(scene.projection, (count, 3, 4)),
            extra={
                "area": np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), "crowd": level == 3,
                "truncation": np.array([row[3] for row in rows], np.float32), "occlusion": level,
            },
        )  # fmt: skip

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Render the image ``(H, W, 3)`` uint8 RGB, always at full size.

        Raises:
            IndexError: No such picture.
            ValueError: ``reduce`` is not 1, 2, 4 or 8.
        """
        if reduce not in (1, 2, 4, 8):
            raise ValueError(f"reduce must be 1, 2, 4 or 8, got {reduce}.")
        index = self._checked(index)
        scene = self._scene(index)
        eye = scene.eye.larger(LARGER)
        shadows = np.full((self.image_wh[1], self.image_wh[0]), 255, np.uint8)
        for stand in scene.stands:
            draw_shadow(shadows, stand, scene.eye, scene.light, scene.ground_y)
        shadows = cv2.blur(shadows, (3, 3))
        canvas = draw_street(scene.street, scene.eye, scene.light, scene.ground_y, shadows, LARGER)
        for stand in scene.stands:
            draw_thing(canvas, stand, eye, scene.light)
        image = cv2.resize(canvas, self.image_wh, interpolation=cv2.INTER_AREA).astype(np.float32)
        rng = np.random.default_rng((self.seed, index, 1))
        image *= np.float32(rng.uniform(0.8, 1.15))
        image *= rng.uniform(0.95, 1.05, 3).astype(np.float32)
        if rng.random() < 0.3:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7))
        image += rng.normal(0, rng.uniform(1, 5), image.shape).astype(np.float32)
        return np.clip(image, 0, 255).astype(np.uint8)

    def _scene(self, index: int) -> _Scene:
        if index not in self._recent:
            found = self._planned(np.random.default_rng((self.seed, index, 0)), index)
            self._recent.clear()
            self._recent[index] = found
        return self._recent[index]

    def _planned(self, rng: np.random.Generator, index: int) -> _Scene:
        width, height = self.image_wh
        focal = float(np.exp(rng.uniform(*np.log(self.focal_px))))
        center = (width / 2 + rng.uniform(-0.03, 0.03) * width, height * rng.uniform(0.4, 0.54))
        camera_mm = rng.uniform(-60, 60, 3) * [1.0, 0.1, 0.1]
        inner = np.array([[focal, 0.0, center[0]], [0.0, focal, center[1]], [0.0, 0.0, 1.0]])
        projection = inner @ np.concatenate([np.eye(3), -camera_mm[:, None]], 1)
        eye = Eye(focal, center, self.image_wh)
        ground_y = float(rng.uniform(*self.height_m))
        around, up = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.1)
        to_sun = np.array([np.cos(up) * np.cos(around), -np.sin(up), np.cos(up) * np.sin(around)])
        haze = np.array([0.75, 0.8, 0.86]) * rng.uniform(0.65, 1.15)
        light = Light(to_sun, float(rng.uniform(0.45, 0.85)), np.clip(haze, 0, 1), float(np.exp(rng.uniform(4.4, 6.5))))
        street = Street(
            float(rng.normal(0, 0.1)), float(rng.uniform(-3.5, 3.5)), float(rng.uniform(3.2, 6.5)),
            float(rng.uniform(1.5, 4.0)), (self.seed, index, 2),
        )  # fmt: skip
        stands, labels = self._placed(rng, eye, street, ground_y)
        order = np.argsort([-float(np.hypot(stand.middle[0], stand.middle[2])) for stand in stands], kind="stable")
        return _Scene(
            projection, camera_mm, eye, light, street, ground_y, [stands[n] for n in order], [labels[n] for n in order]
        )  # fmt: skip

    def _placed(
        self, rng: np.random.Generator, eye: Eye, street: Street, ground_y: float
    ) -> tuple[list[Stand], list[int]]:
        """Place things on the ground, none in another."""
        wanted = int(rng.integers(1, self.most + 1))
        kinds = [int(n) for n in rng.choice(3, wanted, p=[0.35, 0.42, 0.23])]
        kinds += [-1] * int(rng.integers(0, 7))
        stands: list[Stand] = []
        labels: list[int] = []
        rings: list[tuple[float, float, float]] = []
        for kind in kinds:
            if kind < 0:
                maker = (pole, tree, block)[int(rng.choice(3, p=[0.35, 0.35, 0.3]))]
                thing: Thing = maker(rng)
            else:
                thing = MAKERS[kind](rng)
            length, tall, broad = thing.size
            reach = float(np.hypot(min(length, 6.0), min(broad, 6.0))) / 2
            for _ in range(12):
                z = float(np.exp(rng.uniform(*np.log((NEAREST_M + reach, FARTHEST_M)))))
                beyond = 0.5 * eye.size_wh[0] / eye.focal_px * z + 0.4 * reach
                x = float(rng.uniform(-beyond, beyond))
                side = street.across_along(np.array(x), np.array(z))[0]
                edge = street.half_width + street.walk
                if abs(side) > edge + 0.3 - (min(reach, 1.0) if kind != 1 else 1.0):
                    continue  # in a house
                if kind < 0 and abs(side) < street.half_width + 0.2:
                    continue  # on the road
                if kind == 1 and abs(side) > street.half_width:
                    continue
                if any(np.hypot(x - a, z - b) < reach + c + 0.15 for a, b, c in rings):
                    continue
                rings.append((x, z, reach))
                stands.append(
                    Stand(thing, np.array([x, ground_y - tall / 2, z]), self._yaw(rng, kind, street, float(side)))
                )
                labels.append(kind)
                break
        return stands, labels

    def _yaw(self, rng: np.random.Generator, kind: int, street: Street, side: float) -> float:
        """Draw a direction: cars and cyclists mostly follow the road, on the right or on the left."""
        ahead = street.turn - np.pi / 2
        share = {0: 0.35, 1: 0.6, 2: 0.6}.get(kind, 0.0)
        if rng.random() < share:
            turned = np.pi if rng.random() < 0.5 else 0.0
            yaw = ahead + turned + rng.normal(0, 0.1)
        else:
            yaw = rng.uniform(-np.pi, np.pi)
        return float(wrapped(np.asarray(yaw)))

    def _checked(self, index: int) -> int:
        """Return a number that is not negative.

        Raises:
            IndexError: No such picture.
        """
        if not -self.count <= index < self.count:
            raise IndexError(f"picture {index} of {self.count}: expected {-self.count} to {self.count - 1}.")
        return index % self.count


def streets(
    count: int,
    *,
    seed: int = 0,
    size_wh: tuple[int, int] = SIZE_WH,
    focal_px: tuple[float, float] = FOCAL_PX,
    height_m: tuple[float, float] = (1.3, 2.2),
    most: int = 10,
) -> Streets:
    """Create rendered streets.

    Args:
        count: Number of pictures.
        seed: 0 or more.
        size_wh: Width and height of the pictures, pixels, 64 to 2048.
        focal_px: Smallest and largest focal length, pixels.
        height_m: Smallest and largest height of the camera above the ground, metres.
        most: Largest number of cars, pedestrians and cyclists together.

    Raises:
        ValueError: A number is out of range.
    """
    if count < 1 or seed < 0 or most < 1:
        raise ValueError(
            f"streets needs count and most of 1 or more and seed of 0 or more, got {count}, {most} and {seed}."
        )
    if len(size_wh) != 2 or not all(64 <= int(v) <= 2048 for v in size_wh):
        raise ValueError(f"size_wh must be (width, height) with 64 to 2048 pixels each, got {size_wh}.")
    if not 20 <= focal_px[0] <= focal_px[1] <= 20000:
        raise ValueError(f"focal_px must go from at least 20 to at most 20,000 pixels, got {focal_px}.")
    if not 0.5 <= height_m[0] <= height_m[1] <= 20:
        raise ValueError(f"height_m must go from at least 0.5 to at most 20 metres, got {height_m}.")
    return Streets(
        int(count), int(seed), (int(size_wh[0]), int(size_wh[1])), (float(focal_px[0]), float(focal_px[1])),
        (float(height_m[0]), float(height_m[1])), int(most),
    )  # fmt: skip


def streets_of_width(count: int, seed: int, width_px: int) -> Streets:
    """Create rendered streets with images of a given width, a third of that in height, which show the same scenes.

    Focal lengths grow with the width. Things of ``SMALLEST_PX`` and more are labelled in any width, so wider images
    have a few more labels.

    Raises:
        ValueError: A number is out of range, or the width is not divisible by 3.
    """
    if width_px % 3:
        raise ValueError(
            f"The width of the pictures must be divisible by 3, as they are a third as high, got {width_px}."
        )
    scale = width_px / SIZE_WH[0]
    focal_px = (FOCAL_PX[0] * scale, FOCAL_PX[1] * scale)
    return streets(count, seed=seed, size_wh=(width_px, width_px // 3), focal_px=focal_px)
