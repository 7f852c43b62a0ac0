"""Layer 1: loss functions of prediction and target, and the outputs each applies to."""

from poseglass.losses.box_class import class_cross_entropy
from poseglass.losses.heatmap import hard_keypoint_squared_error, mean_squared_error, softmax_cross_entropy
from poseglass.losses.integral import integral_l1, jensen_shannon
from poseglass.losses.loss import Loss
from poseglass.losses.offset import smooth_l1_in_disc

LOSSES: dict[str, Loss] = {
    "mse": Loss(mean_squared_error, activation="none"),
    "mse_hard_keypoints": Loss(hard_keypoint_squared_error, activation="none"),
    "softmax_cross_entropy": Loss(softmax_cross_entropy, ("heatmap", "x", "y"), activation="softmax"),
    "offset": Loss(smooth_l1_in_disc, ("offset",), activation="none"),
    "integral_l1": Loss(integral_l1, target="xy", activation="softmax"),
    "jensen_shannon": Loss(jensen_shannon, activation="softmax"),
    "class_cross_entropy": Loss(class_cross_entropy, ("class",), activation="softmax"),
}
"""Names that an entry of a recipe's ``loss`` may use: ``{ name = "mse" }``."""
