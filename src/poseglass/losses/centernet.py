"""The losses of CenterNet: a focal loss on heatmaps, and L1 at the pixels of instances.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, section 3.
"""

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
