"""Floor 1: plain functions from prediction and target to one number."""

from collections.abc import Callable

from torch import Tensor

from poseglass.losses.heatmap import hard_keypoint_squared_error, mean_squared_error, softmax_cross_entropy
from poseglass.losses.integral import integral_l1, jensen_shannon
from poseglass.losses.offset import smooth_l1_in_disc

LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": mean_squared_error,
    "mse_hard_keypoints": hard_keypoint_squared_error,
    "softmax_cross_entropy": softmax_cross_entropy,
    "offset": smooth_l1_in_disc,
    "integral_l1": integral_l1,
    "jensen_shannon": jensen_shannon,
}

MAPS_OF_LOSS = {
    "mse": "none",
    "mse_hard_keypoints": "none",
    "softmax_cross_entropy": "softmax",
    "integral_l1": "softmax",
    "jensen_shannon": "softmax",
}
"""What each loss takes maps for, in the words of a heatmap codec's ``activation``."""
