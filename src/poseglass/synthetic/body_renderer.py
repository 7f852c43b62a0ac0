"""Body renderer: exact ray casting of quadrics into a depth buffer, then shading of the visible surfaces.

A ray of the pinhole camera is ``p = t d`` with ``d = (x, y, 1)``, so ``t`` is the depth. A quadric
``p' M p + 2 m' p + c = 0`` is hit where ``t^2 d'Md + 2 t d'm + c = 0``; the discriminant is itself a quadratic form
``d' N d`` with ``N = m m' - c M``, whose zero set is the quadric's outline in the image. Only the window around that
outline is touched, and only the nearest surface of every pixel is shaded.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from poseglass.core.camera import Camera
from poseglass.synthetic.body_figure import FACE, HAIR, MATERIALS, SHOE, SKIN
from poseglass.synthetic.body_model import SEGMENTS, Body

NOTHING = -1
"""Part index where no body and no occluder is visible. Occluder ``k`` is ``-2 - k``."""


@dataclass(frozen=True, slots=True, eq=False)
class Occluder:
    """A flat object that faces the camera at one depth.

    Args:
        polygon_xy: ``(V, 2)`` image pixels.
        depth_mm: Camera depth.
        color: ``(3,)`` RGB in [0, 1].
        grain: Strength of its texture, 0 plain.
    """

    polygon_xy: np.ndarray
    depth_mm: float
    color: np.ndarray
    grain: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """A distant lamp and a sky.

    Args:
        direction: ``(3,)`` unit vector towards the lamp, world.
        key: ``(3,)`` RGB strength of the lamp.
        ambient: ``(3,)`` RGB strength of the ambient light.
        gloss: Strength of highlights.
    """

    direction: np.ndarray
    key: np.ndarray
    ambient: np.ndarray
    gloss: float


@dataclass(frozen=True, slots=True, eq=False)
class Surfaces:
    """What is visible in every pixel.

    Args:
        depth_mm: ``(H, W)`` float32, inf where there is no surface.
        part: ``(H, W)`` int32: quadric over all bodies, ``NOTHING``, or an occluder.
        first_part: ``(N + 1,)`` index of each body's first quadric in that count.
        quadrics: Quadrics of each body, in the camera's frame.
    """

    depth_mm: np.ndarray
    part: np.ndarray
    first_part: np.ndarray
    quadrics: tuple["Quadrics", ...]

    def visible(self) -> np.ndarray:
        """Return ``(N,)`` int64: the number of pixels in which each body is visible."""
        count = np.bincount(self.part[self.part >= 0], minlength=int(self.first_part[-1]))
        return np.array([count[a:b].sum() for a, b in itertools.pairwise(self.first_part)], np.int64)

    def person(self) -> np.ndarray:
        """Return ``(H, W)`` int64: which body is visible, -1 none."""
        return np.where(self.part >= 0, np.searchsorted(self.first_part, self.part, side="right") - 1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Quadrics:
    """All quadrics of a body in the camera's frame, and their windows in ray coordinates."""

    form: np.ndarray  # (P, 3, 3) M
    linear: np.ndarray  # (P, 3) m
    constant: np.ndarray  # (P,) c
    along: np.ndarray  # (P, 4) q_y = along[:3] . p + along[3], of cones
    taper: np.ndarray  # (P,) NaN for an ellipsoid
    window: np.ndarray  # (P, 4) x0 y0 x1 y1, rays


def _windows(center: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the boxes ``(Q, 4)`` around ellipsoids and discs, ray coordinates; NaN where the camera is inside one.

    The dual of the outline of ``c + E q``, ``|q| <= 1``, is ``E E' - c c'``: a line ``l`` touches it where
    ``l' (E E' - c c') l = 0`` (Hartley and Zisserman, Multiple View Geometry, 8.3). Upright lines give the box.

    Args:
        center: ``(Q, 3)`` camera frame.
        axes: ``(Q, 3, 3)`` columns, camera frame.
    """
    dual = axes @ axes.transpose(0, 2, 1) - center[:, :, None] * center[:, None, :]
    box = np.empty((len(center), 4))
    with np.errstate(invalid="ignore", divide="ignore"):
        for axis in (0, 1):
            root = np.sqrt(dual[:, axis, 2] ** 2 - dual[:, axis, axis] * dual[:, 2, 2])
            a, b = ((dual[:, axis, 2] + s * root) / dual[:, 2, 2] for s in (-1, 1))
            box[:, axis], box[:, 2 + axis] = np.minimum(a, b), np.maximum(a, b)
    return box


def seen_by(camera: Camera, body: Body) -> Quadrics:
    """Return a body's quadrics in the camera's frame, independent of the focal length and the image's size."""
    rotation, translation = np.asarray(camera.rotation, np.float64), np.asarray(camera.translation_mm, np.float64)
    to_local = body.to_local @ rotation.T
    offset = body.offset - to_local @ translation
    cone = ~np.isnan(body.taper)
    taper = np.where(cone, body.taper, 0.0)
    weight = np.ones((len(to_local), 3))
    weight[cone, 1] = -(taper[cone] ** 2)
    weighted = to_local * weight[:, :, None]
    form = to_local.transpose(0, 2, 1) @ weighted
    shifted = offset * weight
    shifted[cone, 1] -= taper[cone]
    linear = (to_local.transpose(0, 2, 1) @ shifted[:, :, None])[:, :, 0]
    constant = (offset**2 * weight).sum(-1) - 1.0
    constant[cone] -= 2.0 * taper[cone] * offset[cone, 1]
    along = np.concatenate([to_local[:, 1], offset[:, 1:2]], 1)
    center, axes = body.rims()
    boxes = _windows(center @ rotation.T + translation, rotation @ axes)
    window, cones = boxes[: len(to_local)], np.flatnonzero(cone)
    near, far = boxes[len(to_local) : len(to_local) + len(cones)], boxes[len(to_local) + len(cones) :]
    window[cones, :2], window[cones, 2:] = np.minimum(near, far)[:, :2], np.maximum(near, far)[:, 2:]
    return Quadrics(form, linear, constant, along, np.where(cone, body.taper, np.nan), window)


def body_window(quadrics: Quadrics, camera: Camera) -> np.ndarray:
    """Return the tight box ``(4,)`` around a whole body, hidden parts included: image pixels, not clipped."""
    low = np.nanmin(quadrics.window[:, :2], axis=0) * camera.focal_px + np.asarray(camera.center_xy)
    high = np.nanmax(quadrics.window[:, 2:], axis=0) * camera.focal_px + np.asarray(camera.center_xy)
    return np.concatenate([low, high])


def finer(camera: Camera, factor: float) -> Camera:
    """Return the camera of an image with ``factor`` times the pixels per side; pixel centres are on integers."""
    cx, cy = camera.center_xy
    center = ((cx + 0.5) * factor - 0.5, (cy + 0.5) * factor - 0.5)
    return Camera(camera.focal_px * factor, center, camera.rotation, camera.translation_mm)


def cast(
    bodies: Sequence[Body],
    camera: Camera,
    size_wh: tuple[int, int],
    occluders: Sequence[Occluder] = (),
    *,
    factor: float = 1.0,
) -> Surfaces:
    """Cast a ray through the centre of every pixel.

    Args:
        bodies: Bodies of the scene.
        camera: Camera of an image of ``size_wh / factor``.
        size_wh: Size of the buffers.
        occluders: In pixels of that image.
        factor: Buffer pixels per image pixel.
    """
    width, height = size_wh
    camera = finer(camera, factor)
    cx, cy = camera.center_xy
    rays_x, rays_y = (np.arange(width) - cx) / camera.focal_px, (np.arange(height) - cy) / camera.focal_px
    depth = np.full((height, width), np.inf)
    part = np.full((height, width), NOTHING, np.int32)
    first, every = [0], []
    for body in bodies:
        quadrics = seen_by(camera, body)
        every.append(quadrics)
        low = np.ceil(quadrics.window[:, :2] * camera.focal_px + (cx, cy))
        high = np.floor(quadrics.window[:, 2:] * camera.focal_px + (cx, cy)) + 1
        low, high = np.maximum(low, 0), np.minimum(high, (width, height))
        seen = np.flatnonzero((low < high).all(-1) & np.isfinite(quadrics.window).all(-1))
        for i, (x0, y0), (x1, y1) in zip(seen.tolist(), low[seen].astype(int), high[seen].astype(int), strict=True):
            _cast_one(
                quadrics, i, rays_x[x0:x1], rays_y[y0:y1], depth[y0:y1, x0:x1], part[y0:y1, x0:x1], int(first[-1]) + i
            )
        first.append(first[-1] + len(quadrics.form))
    for k, occluder in enumerate(occluders):
        polygon = np.rint(((occluder.polygon_xy + 0.5) * factor - 0.5) * 16).astype(np.int32)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [polygon], 1, lineType=cv2.LINE_8, shift=4)
        front = (mask > 0) & (depth > occluder.depth_mm)
        depth[front], part[front] = occluder.depth_mm, -2 - k
    return Surfaces(depth.astype(np.float32), part, np.array(first), tuple(every))


def _cast_one(
    q: Quadrics, i: int, x: np.ndarray, y: np.ndarray, depth: np.ndarray, part: np.ndarray, label: int
) -> None:
    """Cast one quadric into its window of the buffers, in place."""
    form, m, c = q.form[i], q.linear[i], q.constant[i]
    n = m[:, None] * m[None] - c * form
    y = y[:, None]
    under = (n[0, 0] * x + 2.0 * n[0, 2]) * x + (y * (n[1, 1] * y + 2.0 * n[1, 2]) + n[2, 2]) + (2.0 * n[0, 1] * y) * x
    hit = under > 0
    np.sqrt(np.maximum(under, 0.0, out=under), out=under)
    toward = -(m[0] * x + (m[1] * y + m[2]))
    if np.isnan(q.taper[i]):
        t = c / (toward + under)
        hit &= t < depth
    else:
        a = q.along[i]
        slope = a[0] * x + (a[1] * y + a[2])
        t = c / (toward + under)
        along = t * slope + a[3]
        hit &= (along >= 0.0) & (along <= 1.0) & (t > 0) & (t < depth)
        if c < 0:  # the camera looks along the cone from inside its extension: the other root can be the near one
            square = (form[0, 0] * x + 2 * form[0, 2]) * x + (form[1, 1] * y + 2 * form[1, 2]) * y + form[2, 2]
            other = (toward + under) / (square + 2 * form[0, 1] * x * y)
            reach = other * slope + a[3]
            good = (under > 0) & (reach >= 0.0) & (reach <= 1.0) & (other > 0) & (other < depth) & (~hit | (other < t))
            t, hit = np.where(good, other, t), hit | good
    depth[hit] = t[hit]
    part[hit] = label


def occlusion(body: Body, camera: Camera, surfaces: Surfaces, index: int, *, factor: float = 1.0) -> np.ndarray:
    """Return ``(K,)`` bool: which of a body's points are hidden, by itself, by others, by objects, or by the frame.

    A joint lies under its own flesh. It is hidden if the surface in front of it is nearer to the camera than that flesh
    is thick, or if it is nearer than the joint and belongs to anything but the segments that meet there.

    Args:
        body: One of the bodies that were cast.
        camera: Camera of the image.
        surfaces: As returned by ``cast``.
        index: Index of the body among those cast.
        factor: Buffer pixels per image pixel.
    """
    height, width = surfaces.part.shape
    inside_camera = camera.to_camera(body.points_mm)
    xy = finer(camera, factor).project(body.points_mm)
    columns, rows = np.rint(np.nan_to_num(xy, nan=-9.0)).T
    framed = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    columns, rows = (np.where(framed, v, 0).astype(int) for v in (columns, rows))
    part, front = surfaces.part[rows, columns], surfaces.depth_mm[rows, columns]
    own = (part >= surfaces.first_part[index]) & (part < surfaces.first_part[index + 1])
    segment = body.segment[np.where(own, part - surfaces.first_part[index], 0)]
    meets = own & body.points_near[np.arange(len(part)), segment]
    deeper = inside_camera[:, 2] - front
    hidden = np.where(meets, deeper > body.points_radius_mm + 15.0, deeper > np.minimum(body.points_radius_mm, 12.0))
    return hidden | ~framed


def shade(
    bodies: Sequence[Body],
    camera: Camera,
    surfaces: Surfaces,
    textures: Sequence[np.ndarray],
    light: Light,
    *,
    factor: float = 1.0,
) -> np.ndarray:
    """Return ``(H, W, 3)`` float32 RGB of the bodies, black elsewhere.

    Args:
        bodies: Bodies of the scene.
        camera: Camera of the image.
        surfaces: As returned by ``cast``.
        textures: For each body ``(materials, T, T, 3)`` float32 in [0, 1].
        light: Light of the scene.
        factor: Buffer pixels per image pixel.
    """
    camera = finer(camera, factor)
    image = np.zeros((*surfaces.part.shape, 3), np.float32)
    rotation = np.asarray(camera.rotation, np.float64)
    toward = (rotation @ light.direction).astype(np.float32)
    up = rotation[:, 1].astype(np.float32)
    dark = _crevices(surfaces.depth_mm)
    for index, body in enumerate(bodies):
        a, b = surfaces.first_part[index], surfaces.first_part[index + 1]
        rows, columns = np.nonzero((surfaces.part >= a) & (surfaces.part < b))
        if not len(rows):
            continue
        part = surfaces.part[rows, columns] - a
        depth = surfaces.depth_mm[rows, columns]
        x = ((columns - camera.center_xy[0]) / camera.focal_px).astype(np.float32) * depth
        y = ((rows - camera.center_xy[1]) / camera.focal_px).astype(np.float32) * depth
        quadrics = surfaces.quadrics[index]
        normal = _linear(quadrics.form, quadrics.linear, part, x, y, depth)
        normal *= 1.0 / np.sqrt((normal**2).sum(0))
        normal = _softened(normal, rows, columns)
        # Into the segment's frame, for textures and clothing edges.
        to_segment = body.segment_rotation.transpose(0, 2, 1) @ rotation.T
        origin = body.segment_origin_mm @ rotation.T + np.asarray(camera.translation_mm)
        shift = -(to_segment @ origin[:, :, None])[:, :, 0]
        segment = body.segment[part]
        local = _linear(to_segment, shift, segment, x, y, depth)
        material = np.where(local[1] >= body.cut_mm.astype(np.float32)[part], body.above[part], body.below[part])
        texture = textures[index]
        size = texture.shape[1]
        span, start = _texture_span(body)
        u = np.arctan2(local[0], local[2]) * np.float32(size / (2 * np.pi)) + np.float32(size / 2)
        v = (start[segment] - local[1]) * (size / span[segment])
        albedo = texture[material, v.astype(np.int64) % size, u.astype(np.int64) % size]
        facing = normal[0] * toward[0] + normal[1] * toward[1] + normal[2] * toward[2]
        sky = 0.72 + 0.28 * (normal[0] * up[0] + normal[1] * up[1] + normal[2] * up[2])
        glossy = np.zeros(len(MATERIALS), np.float32)
        glossy[[SKIN, FACE, HAIR, SHOE]] = light.gloss
        # Blinn's highlight; the eye is at the origin of the rays.
        half = toward - np.array([0.0, 0.0, 1.0], np.float32)
        half /= np.sqrt((half**2).sum())
        spark = np.maximum(normal[0] * half[0] + normal[1] * half[1] + normal[2] * half[2], 0.0)
        spark = spark**20 * glossy[material]
        occluded = dark[rows, columns]
        lamp = np.clip((facing + 0.15) / 1.15, 0.0, 1.0) * (0.35 + 0.65 * occluded)
        strength = lamp[:, None] * light.key.astype(np.float32) + (sky * occluded)[:, None] * light.ambient.astype(
            np.float32
        )
        image[rows, columns] = albedo * strength + spark[:, None] * light.key.astype(np.float32)
    return image


def _softened(normal: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Average normals ``(3, n)`` over their neighbourhood in the image, so that quadrics blend into each other."""
    top, left = rows.min(), columns.min()
    field = np.zeros((rows.max() - top + 1, columns.max() - left + 1, 3), np.float32)
    field[rows - top, columns - left] = normal.T
    size = max(3, int(0.035 * np.sqrt(field.shape[0] * field.shape[1])) | 1)
    field = cv2.blur(field, (size, size), borderType=cv2.BORDER_CONSTANT)
    mean = normal * 0.25 + field[rows - top, columns - left].T
    return mean * (1.0 / np.sqrt((mean**2).sum(0) + 1e-12))


def _linear(
    matrix: np.ndarray, offset: np.ndarray, index: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """Return ``matrix[index] @ (x, y, z) + offset[index]``: ``(3, n)`` float32."""
    rows = np.concatenate([matrix, offset[:, :, None]], 2).reshape(len(matrix), 12).T.astype(np.float32)
    a = rows.take(index, axis=1)
    return np.stack([a[k] * x + a[k + 1] * y + a[k + 2] * z + a[k + 3] for k in (0, 4, 8)])


def _texture_span(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Return the length that a texture covers and where it starts, per segment: ``(S,)``, ``(S,)`` float32 mm."""
    h, s = body.figure.stature_mm, body.figure.stature_mm * body.figure.head
    span, start = np.full(len(SEGMENTS), 0.46 * h, np.float32), np.zeros(len(SEGMENTS), np.float32)
    # The torso's textures continue from chest to pelvis; the face has its own scale.
    start[:3] = (0.36 * h, 0.305 * h, 0.205 * h)
    span[4], start[4] = 0.14 * s, 0.12 * s
    return span, start


def _crevices(depth_mm: np.ndarray) -> np.ndarray:
    """Return ``(H, W)`` float32 in [0, 1]: 1 open, lower where nearer surfaces are close by (contact shadow)."""
    seen = np.isfinite(depth_mm)
    if not seen.any():
        return np.ones_like(depth_mm)
    filled = np.where(seen, depth_mm, depth_mm[seen].max())
    size = max(3, int(0.05 * min(depth_mm.shape)) | 1)
    behind = filled - cv2.blur(filled, (size, size))
    return 1.0 - 0.55 * np.clip(behind / 130.0, 0.0, 1.0)
