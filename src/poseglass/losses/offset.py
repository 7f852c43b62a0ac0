"""The loss on offset maps."""

from torch import Tensor
from torch.nn import functional


def smooth_l1_in_disc(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the smooth L1 loss of offsets over the pixels of each disc, where the target is at most one radius.

    Args:
        maps: ``(B, K, 2, h, w)``, predicted, in radii.
        target: ``(B, K, 2, h, w)``, in radii.
        weight: ``(B, K)``.

    Returns:
        The mean over all ``B * K``, including masked ones, of the mean over a disc's pixels and both axes.

    Source:
        Papandreou et al. 2017, section 3.2, equation 3; Huang et al. 2020, section 4.
    """
    inside = (target.square().sum(2, keepdim=True) <= 1).float()
    per_pixel = functional.smooth_l1_loss(maps.float(), target, reduction="none") * inside
    per_joint = per_pixel.sum((2, 3, 4)) / (2 * inside.sum((2, 3, 4))).clamp_min(1.0)
    return (per_joint * weight).mean()
