"""The losses of CenterNet: a focal loss on heatmaps, L1, bins of orientation and, for our visibility, cross-entropy.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, section 3.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def penalty_reduced_focal(
    maps: Tensor, target: Tensor, weight: Tensor, *, alpha: float = 2.0, beta: float = 4.0
) -> Tensor:
    """Return the focal loss with fewer penalties near centres, divided by the number of centres.

    Args:
        maps: ``(B, C, h, w)``, logits; probabilities are clipped to 1e-4 and 1 - 1e-4.
        target: ``(B, C, h, w)`` in [0, 1], exactly 1 at centres.
        weight: Of every pixel, broadcast to the maps; 0 leaves it out.
        alpha: Exponent of the error.
        beta: Exponent that reduces the penalty near a centre.

    Returns:
        The sum over all pixels, divided by the number of centres that count; without one, it is not divided. Several
        processes each divide by their own number, as in the public code.

    Source:
        Zhou et al. 2019, equation 1.
    """
    probability = maps.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    center = (target == 1) & (weight > 0)
    right = torch.where(center, (1 - probability) ** alpha * probability.log(), 0.0)
    wrong = torch.where(target == 1, 0.0, (1 - target) ** beta * probability**alpha * (1 - probability).log())
    return -((right + wrong) * weight).sum() / center.sum().clamp_min(1)


def l1_at_pixels(maps: Tensor, target: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return the mean L1 distance at the pixels of instances, over instances and channels.

    The paper's formula sums over channels; the public code divides by their number too, and published weights of the
    terms belong to that. For two channels this is half of the paper's.

    Args:
        maps: ``(B, D, h, w)``.
        target: ``(B, D, h, w)``, read at the same pixels.
        index: ``(B, N)``, pixels in row-major order.
        weight: ``(B, N)``, or ``(B, N, D)`` for a weight of each channel; 0 leaves out.

    Source:
        Zhou et al. 2019, equations 2 and 3, and xingyizhou/CenterNet.
    """
    at = index[:, None].expand(-1, maps.shape[1], -1)
    found, wanted = (values.flatten(2).gather(2, at).transpose(1, 2).float() for values in (maps, target))
    weight = weight if weight.ndim == 3 else weight[..., None].expand_as(found)
    distance = functional.l1_loss(found * weight, wanted * weight, reduction="sum")
    return distance / (weight.sum() + 1e-4)


def cross_entropy_at_pixels(maps: Tensor, target: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return the mean cross-entropy of states at the pixels of instances, over all keypoints that count.

    Args:
        maps: ``(B, K, S, h, w)``, logits of S states per keypoint.
        target: ``(B, K, S, h, w)``, at those pixels 1 for the true state, all 0 where it is unknown.
        index: ``(B, N)``, pixels in row-major order.
        weight: ``(B, N, K)``; 0 leaves out.

    Returns:
        0 if nothing counts.
    """
    states = maps.shape[2]
    at = index[:, None].expand(-1, maps.shape[1] * states, -1)
    found, wanted = (
        values.flatten(1, 2).flatten(2).gather(2, at).transpose(1, 2).float().unflatten(-1, (-1, states))
        for values in (maps, target)
    )
    # of several instances at one pixel the last is the target, which may not know what another one does
    weight = weight * wanted.sum(-1)
    each = -(wanted * found.log_softmax(-1)).sum(-1)
    # not a product alone, because 0 times the infinite loss of a pixel that does not count is NaN
    return torch.where(weight > 0, each * weight, 0.0).sum() / weight.sum().clamp_min(1.0)


def orientation_at_pixels(maps: Tensor, target: Tensor, index: Tensor, weight: Tensor, *, rows: int = 50) -> Tensor:
    """Return the loss of orientations in bins at the pixels of instances.

    It is the mean cross-entropy of each bin's two logits, and for each bin the mean smooth L1 distance of sine and of
    cosine over the instances whose angle is in it, summed over the bins.

    Args:
        maps: ``(B, 4 * bins, h, w)``: per bin two logits, sine and cosine.
        target: ``(B, 4 * bins, h, w)``, read at the same pixels: 1 in the place of the logit that is true, sine and
            cosine.
        index: ``(B, N)``, pixels in row-major order.
        weight: ``(B, N)``; 0 leaves out.
        rows: The public code pads every image to 50 rows, and the mean of the cross-entropy is over all of them; padded
            rows have both logits at 0, so that each adds ln 2, a constant. It is over at least this many an image; 0
            takes the mean over the instances that count, which weighs the bins as much in images of few.

    Source:
        Mousavian et al. 2017, section 4; Zhou et al. 2019, section 4.1, and xingyizhou/CenterNet.
    """
    at = index[:, None].expand(-1, maps.shape[1], -1)
    found, wanted = (values.flatten(2).gather(2, at).transpose(1, 2).float() for values in (maps, target))
    counts = weight > 0
    found, wanted = found[counts], wanted[counts]
    there = found.new_tensor(float(len(found)))
    total = found.sum() * 0.0  # so that there is a gradient without instances too
    padded = max(rows, index.shape[1]) * len(index) - there if rows else there * 0.0
    for first in range(0, maps.shape[1], 4):
        inside = wanted[:, first + 1]
        each = functional.cross_entropy(found[:, first : first + 2], (inside > 0.5).long(), reduction="sum")
        total = total + (each + padded * math.log(2)) / (there + padded).clamp_min(1.0)
        away = functional.smooth_l1_loss(
            found[:, first + 2 : first + 4], wanted[:, first + 2 : first + 4], reduction="none"
        )
        total = total + (away.sum(-1) * inside).sum() / inside.sum().clamp_min(1.0)
    return total
