"""Overlap of boxes in space: of their outlines on the ground (bird's-eye view), and of their volumes.

Rectangles on the ground are turned by yaw alone, so what two of them share is a convex polygon of up to eight corners.
"""

import numpy as np

from poseglass.core.box_3d import corners_of

_NEAR = 1e-9


def outlines_of(box_3d: np.ndarray) -> np.ndarray:
    """Return the outlines ``(N, 4, 2)`` of boxes ``(N, 7)`` on the ground: x and z of the corners, in order around."""
    return corners_of(box_3d)[:, [0, 1, 5, 4]][..., [0, 2]]


def shared_area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the area that pairs of convex quadrangles ``(P, 4, 2)`` share, ``(P,)``, in squares of their unit."""
    a, b = _counter_clockwise(np.asarray(a, np.float64)), _counter_clockwise(np.asarray(b, np.float64))
    if not len(a):
        return np.zeros(0)
    near = _NEAR * np.maximum(np.abs(a - a.mean(1, keepdims=True)).max((1, 2)), 1e-12) ** 2
    crossing, met = _crossings(a, b)
    points = np.concatenate([a, b, crossing], 1)
    there = np.concatenate([_within(a, b, near), _within(b, a, near), met], 1)
    count = there.sum(1, keepdims=True)
    middle = np.where(there[..., None], points, 0.0).sum(1) / np.maximum(count, 1)
    away = points - middle[:, None]
    angle = np.where(there, np.arctan2(away[..., 1], away[..., 0]), np.inf)
    order = angle.argsort(1)
    around = np.take_along_axis(away, order[..., None], 1)
    last = np.arange(points.shape[1]) >= count  # those that are not corners, at the end: the first corner again
    around = np.where(last[..., None], around[:, :1], around)
    after = np.roll(around, -1, 1)
    area = (around[..., 0] * after[..., 1] - around[..., 1] * after[..., 0]).sum(1) / 2
    return np.where(count[:, 0] >= 3, np.maximum(area, 0.0), 0.0)


def overlaps_3d(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the intersection over union of all pairs of boxes ``(N, 7)`` and ``(M, 7)``, ``(N, M)`` in [0, 1].

    Returns:
        bev: Of the outlines on the ground.
        solid: Of the volumes.
    """
    a, b = np.asarray(a, np.float64).reshape(-1, 7), np.asarray(b, np.float64).reshape(-1, 7)
    bev, solid = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    reach = [np.hypot(box[:, 3], box[:, 5]) / 2 for box in (a, b)]
    apart = np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 2] - b[None, :, 2])
    i, j = np.nonzero(apart < reach[0][:, None] + reach[1][None])
    if not len(i):
        return bev, solid
    shared = shared_area(outlines_of(a)[i], outlines_of(b)[j])
    floor_a, floor_b = a[i, 3] * a[i, 5], b[j, 3] * b[j, 5]
    low = np.maximum(a[i, 1] - a[i, 4] / 2, b[j, 1] - b[j, 4] / 2)
    high = np.minimum(a[i, 1] + a[i, 4] / 2, b[j, 1] + b[j, 4] / 2)
    volume = shared * np.maximum(high - low, 0.0)
    bev[i, j] = shared / np.maximum(floor_a + floor_b - shared, 1e-12)
    solid[i, j] = volume / np.maximum(floor_a * a[i, 4] + floor_b * b[j, 4] - volume, 1e-12)
    return bev, solid


def _counter_clockwise(corners: np.ndarray) -> np.ndarray:
    after = np.roll(corners, -1, 1)
    area = (corners[..., 0] * after[..., 1] - corners[..., 1] * after[..., 0]).sum(1)
    return np.where((area < 0)[:, None, None], corners[:, ::-1], corners)


def _within(points: np.ndarray, corners: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return which points ``(P, M, 2)`` are in convex polygons ``(P, 4, 2)``, edges included: ``(P, M)`` bool."""
    edge = np.roll(corners, -1, 1) - corners
    to_point = points[:, :, None] - corners[:, None]
    side = edge[:, None, :, 0] * to_point[..., 1] - edge[:, None, :, 1] * to_point[..., 0]
    return np.asarray((side >= -near[:, None, None]).all(-1))


def _crossings(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the edges of polygons ``(P, 4, 2)`` cross, ``(P, 16, 2)``, and whether they do, ``(P, 16)`` bool."""
    along_a, along_b = np.roll(a, -1, 1) - a, np.roll(b, -1, 1) - b
    start = b[:, None] - a[:, :, None]
    u, v = along_a[:, :, None], along_b[:, None]
    turn = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    lengths = np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1)
    parallel = np.abs(turn) <= _NEAR * lengths
    safe = np.where(parallel, 1.0, turn)
    s = (start[..., 0] * v[..., 1] - start[..., 1] * v[..., 0]) / safe
    t = (start[..., 0] * u[..., 1] - start[..., 1] * u[..., 0]) / safe
    met = ~parallel & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    at = a[:, :, None] + s[..., None] * u
    return np.where(met[..., None], at, 0.0).reshape(len(a), 16, 2), met.reshape(len(a), 16)
