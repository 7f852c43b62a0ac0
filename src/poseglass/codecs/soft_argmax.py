"""Integral regression: a keypoint is the expected position under the softmax of its map.

Sun et al., "Integral Human Pose Regression", ECCV 2018, https://arxiv.org/abs/1711.08229, section 2. How this differs:
when decoding, the expectation may be taken over a window around the peak, which avoids the bias that distant pixels
cause (towards the middle of the map).
"""

import math
from dataclasses import dataclass

import torch

from poseglass.codecs.heatmap import (
    Alignment,
    argmax_2d,
    check_heatmap_fields,
    encode_heatmaps,
    flip_heatmaps,
    peak_score,
    probabilities,
    softmax_scale,
    to_heatmap,
    to_input,
    window,
)
from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets


@dataclass(frozen=True, slots=True)
class SoftArgmaxCodec:
    """Maps of logits, decoded by the expectation of their softmax.

    Args:
        stride: Input pixels per heatmap pixel.
        sigma: Standard deviation of the Gaussian target of a regulariser, heatmap pixels; the score covers two sigma.
        alignment: As in ``HeatmapCodec``.
        reach_px: Half side of the window around the peak for the expectation, heatmap pixels; 0 means the whole map, as
            in the paper.

    Raises:
        ValueError: A number out of range, or an unknown option.
    """

    stride: int = 4
    sigma: float = 2.0
    alignment: Alignment = "center"
    reach_px: int = 0

    def __post_init__(self) -> None:
        check_heatmap_fields(self.stride, self.sigma, self.alignment, "softmax", "ignore")
        if self.reach_px < 0:
            raise ValueError(f"SoftArgmaxCodec.reach_px must be 0 (the whole map) or more, got {self.reach_px}.")

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        outputs = {"heatmap": Output(("K", "h", "w"), "softmax")}
        return CodecSpec(outputs, self.stride, self.alignment, self.sigma, loss_keys=("xy",))

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Return the training targets.

        Returns:
            ``"xy"`` ``(B, K, 2)``, heatmap pixels, for the integral loss; ``"heatmap"`` ``(B, K, h, w)``, Gaussians as
            in ``HeatmapCodec``, for a loss on the map; ``"weight"`` ``(B, K)``. Where the weight is 0, all are 0.
        """
        drawn = encode_heatmaps(
            targets,
            size_wh,
            stride=self.stride,
            sigma=self.sigma,
            alignment=self.alignment,
            unlabelled="ignore",
            activation="softmax",
        )
        xy = to_heatmap(targets.xy[:, 0], self.stride, self.alignment).float()
        return drawn | {"xy": torch.where((drawn["weight"] > 0)[..., None], xy, 0.0)}

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode ``"heatmap"`` ``(B, K, h, w)``: points in network-input pixels ``(B, 1, K, 2)``.

        Scores are the probability mass within two sigma of the map's peak, in [0, 1].
        """
        maps = prediction["heatmap"].float().contiguous()
        height, width = maps.shape[-2:]
        peak_xy, peak = argmax_2d(maps)
        scale = softmax_scale(maps, peak, "softmax")
        score = peak_score(maps, peak_xy, peak, self.sigma, scale)
        if self.reach_px:
            belief = probabilities(window(maps, peak_xy, self.reach_px, outside=-math.inf), scale)
            first, (rows, columns) = peak_xy - self.reach_px, belief.shape[-2:]
        else:
            belief = probabilities(maps, scale)
            first, (rows, columns) = torch.zeros_like(peak_xy), (height, width)
        total = belief.sum((-1, -2))
        x = (belief.sum(-2) * torch.arange(columns, device=maps.device)).sum(-1) / total
        y = (belief.sum(-1) * torch.arange(rows, device=maps.device)).sum(-1) / total
        xy = torch.stack([x, y], -1) + first
        xy = torch.where(xy.isfinite(), xy, peak_xy)  # a map that contains a NaN or an infinity has no expectation
        return Decoded.one_instance(to_input(xy, self.stride, self.alignment), score)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image."""
        return {"heatmap": flip_heatmaps(prediction["heatmap"], skeleton, self.alignment)}
