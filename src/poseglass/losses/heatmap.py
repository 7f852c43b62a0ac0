"""Losses on heatmaps. Each takes all joints of a batch and returns a scalar; masked joints count as zero.

The mean is always over all ``B * K`` maps, including masked ones, so that the gradients of parts of a batch add up to
the gradient of the whole (two processes train like one).
"""

from torch import Tensor
from torch.nn import functional


def mean_squared_error(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over batch, joints and pixels of the squared difference.

    Args:
        maps: ``(B, K, h, w)``, predicted.
        target: ``(B, K, h, w)``.
        weight: ``(B, K)``.

    Source:
        Newell et al. 2016, section 3.1; their code sums this over stacks with equal weight.
    """
    return ((maps.float() - target).square().mean((-1, -2)) * weight).mean()


def hard_keypoint_squared_error(maps: Tensor, target: Tensor, weight: Tensor, *, hardest: int = 8) -> Tensor:
    """Return the squared error of each person's hardest joints only (online hard keypoint mining).

    A joint's loss is the mean over its pixels, times its weight. For each person, only the ``hardest`` largest losses
    count; the others give no gradient. The mean is over ``B * min(hardest, K)``, however many joints are labelled. If
    ``hardest`` is at least K, this is ``mean_squared_error``.

    Args:
        maps: ``(B, K, h, w)``, predicted.
        target: ``(B, K, h, w)``.
        weight: ``(B, K)``.
        hardest: Number of joints per person that count, or all if there are fewer.

    Raises:
        ValueError: ``hardest`` is not a whole number above 0.

    Source:
        Chen et al. 2018, "Cascaded Pyramid Network", section 3.2.2, https://arxiv.org/abs/1711.07319; 8 of 17 joints is
        their best choice.
    """
    if not isinstance(hardest, int) or hardest < 1:
        raise ValueError(f"mse_hard_keypoints: hardest must be a whole number above 0, got {hardest!r}.")
    per_joint = (maps.float() - target).square().mean((-1, -2)) * weight
    return per_joint.topk(min(hardest, per_joint.shape[1]), dim=1).values.mean()


def softmax_cross_entropy(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the cross-entropy between the target, normalised to a distribution over pixels, and the maps' softmax.

    Args:
        maps: ``(B, K, h, w)`` or ``(B, K, n)`` (SimCC's bins), logits.
        target: Same shape, not negative.
        weight: ``(B, K)``; a map whose target is empty must have weight 0. Codecs reduce the weight if part of the
            target is outside the map, since the rest is normalised to 1 regardless.

    Source:
        The spatial softmax as a classifier over pixels, e.g. He et al. 2017 (Mask R-CNN, section 5), with a Gaussian
        in place of their one-hot target.
    """
    share = target.flatten(2)
    share = share / share.sum(-1, keepdim=True).clamp_min(1e-6)
    per_joint = -(share * functional.log_softmax(maps.flatten(2).float(), dim=-1)).sum(-1)
    return (per_joint * weight).mean()
