"""Left and right in a set too small to train a critic: each pose, as it is and swapped, compared with the others.

A pose with swapped sides is less like the poses of others than the same pose swapped back. For people in any pose this
finds little (see the power that is measured on each set); for objects that look alike it finds nearly all.
"""

import numpy as np

from poseglass.audit.critic import Fault, Verdict, faults_of
from poseglass.audit.labels import known_keypoints
from poseglass.audit.pose import center_and_size, mean_square
from poseglass.core.skeleton import Skeleton

MIN_FEW = 20
"""With fewer poses there are too few others to compare with."""

MOST_COMPARED = 1000
"""Each pose is compared with at most this many others, drawn at random."""

CLEARLY = 0.7
"""How much nearer to others a swapped pose must be. In sets of 20 to 140 people of COCO and LSP Extended, 2 to 4 % of
those that are right are that much nearer when swapped (``benchmarks/audit_sides.py``)."""


def judge_few(skeleton: Skeleton, xy: np.ndarray, *, mirror: bool = True) -> Verdict | None:
    """Judge the sides of N poses by their distance to each other.

    Args:
        skeleton: Names and flip pairs; it is assumed that it can be flipped.
        xy: ``(N, K, 2)`` pixels, NaN = unknown.

        mirror: Compare with flipped poses too; not for an object that is not symmetric.

    Returns:
        The verdict, or None if there are fewer than ``MIN_FEW`` poses with 3 known keypoints or no pair.
    """
    faults = tuple(fault for fault in faults_of(skeleton) if fault.moved < 0)
    _, size = center_and_size(xy)
    rows = np.flatnonzero((known_keypoints(xy).sum(1) >= 3) & (size > 0))
    if len(rows) < MIN_FEW or not faults:
        return None
    center, size = center_and_size(xy[rows])
    poses = (xy[rows] - center) / size[:, None, None]
    drawn = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST_COMPARED])
    bank, owner = poses[drawn], drawn
    if mirror:
        bank = np.concatenate([bank, bank[:, skeleton.flip] * np.array([-1.0, 1.0])])
        owner = np.concatenate([drawn, drawn])
    as_is = _to_others(poses, bank, owner)
    exchanged = np.stack([_to_others(poses[:, list(fault.order)], bank, owner) for fault in faults], 1)
    able = np.stack([_changes(fault, poses) for fault in faults], 1)
    ratio = np.where(able, exchanged / np.maximum(as_is, 1e-6)[:, None], 1.0)
    # What is planted is the swapped pose; swapped back it is the pose itself.
    back = np.where(able, as_is[:, None] / np.maximum(exchanged, 1e-6), 1.0)
    power = {}
    for kind in dict.fromkeys(fault.kind for fault in faults):
        mine = [j for j, fault in enumerate(faults) if fault.kind == kind]
        planted = able[:, mine]
        if planted.any():
            power[kind] = float((back[:, mine][planted] < CLEARLY).mean())
    probability = np.zeros((len(rows), 1 + len(faults)))
    best = ratio.argmin(1)
    lowest = ratio.min(1)
    wrong = np.where(lowest < CLEARLY, 1 - 0.5 * lowest, 0.0)
    probability[:, 0] = 1 - wrong
    probability[np.arange(len(rows)), 1 + best] = wrong
    return Verdict(faults, rows, probability, power)


def _changes(fault: Fault, poses: np.ndarray) -> np.ndarray:
    """Return the poses in which an error changes a known keypoint: ``(N,)`` bool."""
    known = known_keypoints(poses)
    order = np.array(fault.order)
    changed = order != np.arange(len(order))
    return (changed & (known | known[:, order])).any(1)


def _to_others(poses: np.ndarray, bank: np.ndarray, owner: np.ndarray, count: int = 3) -> np.ndarray:
    """Return the distance of each pose to the nearest of others, ``(N,)``; ``owner`` ``(B,)`` is whose a pose is."""
    out = np.zeros(len(poses))
    for start in range(0, len(poses), 512):
        part = np.arange(start, min(start + 512, len(poses)))
        mean = mean_square(poses[part], bank)
        mean[part[:, None] == owner[None]] = np.inf
        nearest = np.sort(mean, axis=1)[:, :count]
        finite = np.isfinite(nearest)
        total = np.where(finite, nearest, 0.0).sum(1)
        out[part] = np.sqrt(np.where(finite.any(1), total / np.maximum(finite.sum(1), 1), 9.0))
    return out
