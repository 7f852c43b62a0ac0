"""Losses for integral regression: on the expected position under a map's softmax, and on the softmax's shape."""

import torch
from torch import Tensor
from torch.nn import functional


def integral_l1(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the L1 distance between the expected position under each map's softmax and the keypoint.

    Args:
        maps: ``(B, K, h, w)``, logits.
        target: ``(B, K, 2)``, keypoints, heatmap pixels.
        weight: ``(B, K)``.

    Returns:
        The mean over all ``B * K``, including masked ones, of ``(|dx| + |dy|) / 2`` in heatmap pixels.

    Source:
        Sun et al. 2018, section 2, equation 3.
    """
    belief = torch.softmax(maps.float().flatten(2), -1).view(maps.shape)
    x = (belief.sum(-2) * torch.arange(maps.shape[-1], device=maps.device)).sum(-1)
    y = (belief.sum(-1) * torch.arange(maps.shape[-2], device=maps.device)).sum(-1)
    return ((torch.stack([x, y], -1) - target).abs().mean(-1) * weight).mean()


def jensen_shannon(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence between each map's softmax and the normalised target, in nats.

    Args:
        maps: ``(B, K, h, w)``, logits.
        target: ``(B, K, h, w)``, not negative.
        weight: ``(B, K)``; a map whose target is empty must have weight 0.

    Returns:
        The mean over all ``B * K``, including masked ones; each in [0, log 2].

    Source:
        Nibali et al. 2018 (arXiv 1801.07372), section 3.4: the regulariser that works best with integral regression.
    """
    share = target.flatten(2)
    share = share / share.sum(-1, keepdim=True).clamp_min(1e-6)
    log = functional.log_softmax(maps.float().flatten(2), -1)
    belief = log.exp()
    middle = ((belief + share) / 2).clamp_min(1e-30).log()
    of_share = torch.xlogy(share, share) - share * middle
    per_joint = (belief * (log - middle) + of_share).sum(-1) / 2
    return (per_joint * weight).mean()
