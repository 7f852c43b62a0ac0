"""How 2D points become the input of a lifter: centred and scaled, with unknown ones as 0."""

import torch
from torch import Tensor

LEAST_KNOWN = 5
"""A person with fewer known keypoints is not lifted."""


def normalise(points: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre points on the mean of the known ones, and divide them by their root mean square over both axes.

    So neither the place of a person in the image nor the size there matters.

    Args:
        points: ``(B, K, 2)`` image pixels; what unknown ones hold does not matter.
        known: ``(B, K)`` bool.

    Returns:
        Points ``(B, K, 2)``, 0 where unknown, their centres ``(B, 2)`` and scales ``(B,)`` in pixels, at least 1e-6.
    """
    there = known[..., None]
    count = known.sum(1).clamp_min(1)[:, None]
    seen = torch.where(there, points, 0.0)
    center = seen.sum(1) / count
    moved = torch.where(there, points - center[:, None], 0.0)
    scale = (moved.square().sum((1, 2)) / (2 * count[:, 0])).sqrt().clamp_min(1e-6)
    return moved / scale[:, None, None], center, scale


def by_axis(values: Tensor) -> Tensor:
    """Return ``(B, K, A)`` as ``(B, A K)`` with all x first, then all y, ..., as the networks of the papers have it."""
    return values.mT.flatten(1)
