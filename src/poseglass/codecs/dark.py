"""DARK: distribution-aware decoding, a Newton step on the logarithm of the smoothed map.

Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020,
https://arxiv.org/abs/1910.06278, section 3.2. Written from the paper. How this differs: maps are smoothed only around
the peak, where the step reads them, which gives the same values for a fraction of the cost; and a step is taken only
where the fit has a maximum, and is clipped, whereas the public implementations diverge on noisy maps.
"""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import torch
from torch import Tensor

from poseglass.codecs.heatmap import (
    Alignment,
    Placement,
    SoftmaxScale,
    argmax_2d,
    check_heatmap_fields,
    encode_heatmaps,
    flip_heatmaps,
    inner_window,
    peak_score,
    probabilities,
    softmax_scale,
    to_input,
    window,
)
from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets


@dataclass(frozen=True, slots=True)
class DarkCodec:
    """Gaussian maps, decoded by arg-max and one Newton step on the log of the smoothed map.

    Args:
        stride: Input pixels per heatmap pixel.
        sigma: Standard deviation of the Gaussian, heatmap pixels.
        alignment: As in ``HeatmapCodec``.
        activation: As in ``HeatmapCodec``.
        unlabelled: As in ``HeatmapCodec``.
        blur_kernel: Odd side of the smoothing kernel, heatmap pixels. The kernel is OpenCV's Gaussian of that size, as
            in the public implementations: its sigma is ``0.3 * ((k - 1) / 2 - 1) + 0.8`` from 11 on. 1 disables
            smoothing.
        placement: As in ``HeatmapCodec``; "whole" draws the paper's targets.

    Raises:
        ValueError: A number out of range, or an unknown option.
    """

    stride: int = 4
    sigma: float = 2.0
    alignment: Alignment = "center"
    activation: Literal["none", "softmax"] = "none"
    unlabelled: Literal["ignore", "background"] = "ignore"
    blur_kernel: int = 11
    placement: Placement = "exact"

    def __post_init__(self) -> None:
        check_heatmap_fields(self.stride, self.sigma, self.alignment, self.activation, self.unlabelled, self.placement)
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise ValueError(f"DarkCodec.blur_kernel must be odd and at least 1, got {self.blur_kernel}.")

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        return CodecSpec({"heatmap": Output(("K", "h", "w"), self.activation)}, self.stride, self.alignment, self.sigma)

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Draw the maps for a view of ``size_wh``; see ``HeatmapCodec.encode``."""
        return encode_heatmaps(
            targets, size_wh, stride=self.stride, sigma=self.sigma, alignment=self.alignment,
            unlabelled=self.unlabelled, placement=self.placement, activation=self.activation,
        )  # fmt: skip

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode ``"heatmap"`` ``(B, K, h, w)``: points in network-input pixels ``(B, 1, K, 2)``, scores in [0, 1]."""
        maps = prediction["heatmap"].float().contiguous()
        xy, peak = argmax_2d(maps)
        scale = softmax_scale(maps, peak, self.activation)
        score = peak_score(maps, xy, peak, self.sigma, scale)
        around = smoothed_window(maps, xy, self.blur_kernel, scale)
        xy = xy + newton_step(around, xy, (maps.shape[-1], maps.shape[-2]))
        return Decoded.one_instance(to_input(xy, self.stride, self.alignment), score)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image."""
        return {"heatmap": flip_heatmaps(prediction["heatmap"], skeleton, self.alignment)}


def smoothed_window(maps: Tensor, xy: Tensor, blur_kernel: int, scale: SoftmaxScale | None = None) -> Tensor:
    """Return the 5 x 5 window around each peak of the Gaussian-smoothed maps, ``(B, K, 5, 5)``; maps are zero-padded.

    With a ``scale`` (see ``softmax_scale``), maps are logits, and their probabilities are smoothed. The zero padding
    pulls points near the border; docs/explanation/codecs.md says by how much.
    """
    if blur_kernel == 1:
        return probabilities(window(maps, xy, 2, outside=0.0 if scale is None else -math.inf), scale)
    values, peak_xy = inner_window(maps, xy, 2 + blur_kernel // 2)
    values = probabilities(values, scale)
    # the blur is separable: five rows and five columns, each a product with the band matrix for the peak's position
    down, across = (_blur_bands(blur_kernel, side, maps.device) for side in values.shape[-2:])
    return down[peak_xy[..., 1]] @ values @ across[peak_xy[..., 0]].mT


def _blur_bands(blur_kernel: int, side: int, device: torch.device) -> Tensor:
    """Return the blur weights at each peak position in a line of ``side`` pixels and two pixels to each side.

    Returns:
        ``(side, 5, side)``: peak position, output pixel, input pixel that is weighted.
    """
    half = blur_kernel // 2
    taps = torch.from_numpy(cv2.getGaussianKernel(blur_kernel, 0, cv2.CV_32F)).flatten().to(device)
    place = torch.arange(side, device=device)
    tap = place - (place[:, None, None] + torch.arange(-2, 3, device=device)[:, None]) + half
    return taps[tap.clamp(0, blur_kernel - 1)] * ((tap >= 0) & (tap < blur_kernel))


def newton_step(around: Tensor, xy: Tensor, size_wh: tuple[int, int]) -> Tensor:
    """Return the step from each peak to the maximum of the Gaussian fitted to the logarithm there.

    Args:
        around: ``(B, K, 5, 5)``, values around the peak.
        xy: ``(B, K, 2)``, the peaks, heatmap pixels.
        size_wh: Size of the maps; peaks within one pixel of the border are not moved.

    Returns:
        ``(B, K, 2)``, heatmap pixels; zero where the fit has no maximum. Clipped to one and a half pixels.

    Source:
        Zhang et al. 2020, equations 3 to 9.
    """
    log = torch.log(around.clamp_min(1e-10))
    dx = 0.5 * (log[..., 2, 3] - log[..., 2, 1])
    dy = 0.5 * (log[..., 3, 2] - log[..., 1, 2])
    dxx = 0.25 * (log[..., 2, 4] - 2 * log[..., 2, 2] + log[..., 2, 0])
    dyy = 0.25 * (log[..., 4, 2] - 2 * log[..., 2, 2] + log[..., 0, 2])
    dxy = 0.25 * (log[..., 3, 3] - log[..., 1, 3] - log[..., 3, 1] + log[..., 1, 1])
    determinant = dxx * dyy - dxy**2
    usable = (determinant > 1e-12) & (dxx < 0)
    safe = torch.where(usable, determinant, 1.0)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / safe[..., None]
    limit = torch.tensor(size_wh, device=xy.device) - 2
    usable &= ((xy > 1) & (xy < limit)).all(-1)
    return torch.where(usable[..., None], step, 0.0).clamp(-1.5, 1.5)
