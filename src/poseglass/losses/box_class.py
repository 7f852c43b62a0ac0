"""The loss of a classifier of crops."""

from torch import Tensor
from torch.nn import functional


def class_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of the class of each view, the mean over the views that count.

    Args:
        logits: ``(B, C)``.
        label: ``(B, 1)`` int64, the class, below C.
        weight: ``(B, 1)``.
        smoothing: Share of the target that is spread over all classes, as in Szegedy et al., "Rethinking the Inception
            Architecture", CVPR 2016, section 7.

    Raises:
        ValueError: A smoothing outside [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"class_cross_entropy takes a smoothing in [0, 1), got {smoothing}.")
    each = functional.cross_entropy(logits.float(), label[:, 0].long(), reduction="none", label_smoothing=smoothing)
    return (each * weight[:, 0]).sum() / weight.sum().clamp_min(1.0)
