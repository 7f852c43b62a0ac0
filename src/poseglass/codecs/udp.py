"""UDP: heatmaps whose corner pixels coincide with the corner pixels of the input, so that flipping is exact.

Huang et al., "The Devil is in the Details: Delving into Unbiased Data Processing for Human Pose Estimation", CVPR 2020,
https://arxiv.org/abs/1911.07524, section 4 (and Zhang et al. 2020 for the fit). Written from the paper. How this
differs: a step is clipped, and inside the map is taken only where the fit has a maximum; and points are mapped to input
pixels by the inverse of the encoding, ``(W - 1) / (w - 1)``, where mmpose 1.3 uses ``W / (w - 1)``: its points lie up
to a pixel further right and down.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from poseglass.codecs.dark import smoothed_window
from poseglass.codecs.heatmap import (
    argmax_2d,
    check_heatmap_fields,
    draw_gaussians,
    flip_heatmaps,
    nearest_pixel,
    peak_score,
    share_inside,
    softmax_scale,
    within,
)
from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, one_instance


@dataclass(frozen=True, slots=True)
class UdpCodec:
    """Gaussian maps on UDP's grid, decoded by arg-max and one Newton step on the log of the smoothed map.

    Args:
        stride: Ratio of the numbers of input and heatmap pixels; the ratio of distances is ``(W - 1) / (w - 1)``.
        sigma: Standard deviation of the Gaussian, heatmap pixels.
        activation: As in ``HeatmapCodec``.
        unlabelled: As in ``HeatmapCodec``.
        blur_kernel: As in ``DarkCodec``.

    Raises:
        ValueError: A number out of range, or an unknown option.
    """

    stride: int = 4
    sigma: float = 2.0
    activation: Literal["none", "softmax"] = "none"
    unlabelled: Literal["ignore", "background"] = "ignore"
    blur_kernel: int = 11

    def __post_init__(self) -> None:
        check_heatmap_fields(self.stride, self.sigma, "center", self.activation, self.unlabelled)
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise ValueError(f"UdpCodec.blur_kernel must be odd and at least 1, got {self.blur_kernel}.")

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        return CodecSpec({"heatmap": Output(("K", "h", "w"), self.activation)}, self.stride, "udp", self.sigma)

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Draw the maps on the targets' device, including keypoints up to three sigma outside.

        Returns:
            ``"heatmap"`` ``(B, K, H/stride, W/stride)``, Gaussians at exact positions, clipped to squares of three
            sigma around the nearest pixel; and ``"weight"`` ``(B, K)``, for logits multiplied by the share of the
            Gaussian inside.
        """
        xy, weight = one_instance(targets)
        map_wh = (size_wh[0] // self.stride, size_wh[1] // self.stride)
        xy = to_heatmap_udp(xy, self.stride, map_wh)
        weight = weight * within(xy, map_wh, 3 * self.sigma)
        xy = torch.where((weight > 0)[..., None], xy, torch.full_like(xy, -1e4))
        if self.activation == "softmax":
            weight = weight * share_inside(xy, map_wh, self.sigma)
        maps = draw_gaussians(xy, map_wh, self.sigma, about=nearest_pixel(xy))
        if self.unlabelled == "background":
            weight = torch.ones_like(weight)
        return {"heatmap": maps, "weight": weight}

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode ``"heatmap"`` ``(B, K, h, w)``: points in network-input pixels ``(B, 1, K, 2)``, scores in [0, 1]."""
        maps = prediction["heatmap"].float().contiguous()
        size_wh = (maps.shape[-1], maps.shape[-2])
        xy, peak = argmax_2d(maps)
        scale = softmax_scale(maps, peak, self.activation)
        score = peak_score(maps, xy, peak, self.sigma, scale)
        xy = xy + near_step(smoothed_window(maps, xy, self.blur_kernel, scale), xy, size_wh)
        return Decoded.one_instance(to_input_udp(xy, self.stride, size_wh), score)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image; exact on this grid."""
        return {"heatmap": flip_heatmaps(prediction["heatmap"], skeleton, "center")}


def _scale(stride: int, size_wh: tuple[int, int], device: torch.device) -> Tensor:
    """Return input pixels per heatmap pixel along x and y; for a map of one pixel, the stride."""
    return torch.tensor([(n * stride - 1) / (n - 1) if n > 1 else float(stride) for n in size_wh], device=device)


def to_heatmap_udp(xy: Tensor, stride: int, size_wh: tuple[int, int]) -> Tensor:
    """Map network-input pixels ``(..., 2)`` to pixels of maps of ``size_wh``: ``x * (w - 1) / (W - 1)``."""
    return xy / _scale(stride, size_wh, xy.device)


def to_input_udp(xy: Tensor, stride: int, size_wh: tuple[int, int]) -> Tensor:
    """Map pixels of maps of ``size_wh`` to network-input pixels: ``x * (W - 1) / (w - 1)``."""
    return xy * _scale(stride, size_wh, xy.device)


def near_step(around: Tensor, xy: Tensor, size_wh: tuple[int, int]) -> Tensor:
    """Return the Newton step on the logarithm from the peak's direct neighbours; the border is padded by replication.

    Args:
        around: ``(B, K, 5, 5)``, values around the peak.
        xy: ``(B, K, 2)``, the peaks, heatmap pixels.
        size_wh: Size of the maps.

    Returns:
        ``(B, K, 2)``, heatmap pixels, clipped to one and a half. Inside the map it is zero where the fit has no
        maximum. A peak on the border has no neighbour on one side; as in public code, its step is taken whether or not
        the fit has a maximum, and leads about half a pixel outwards.

    Source:
        Huang et al. 2020, with differences of direct neighbours where DARK uses every second pixel.
    """
    limit = torch.tensor(size_wh, device=xy.device) - 1
    steps = torch.arange(-1, 2, device=xy.device)
    at = torch.minimum((xy.long()[..., None] + steps).clamp_min(0), limit[:, None]) - xy.long()[..., None] + 2
    index = at[..., 1, :, None] * 5 + at[..., 0, None, :]
    log = torch.log(around.clamp_min(1e-10)).flatten(2).gather(-1, index.flatten(2)).view(index.shape)
    dx, dy = 0.5 * (log[..., 1, 2] - log[..., 1, 0]), 0.5 * (log[..., 2, 1] - log[..., 0, 1])
    dxx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    dyy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    # the mixed derivative from the two corners along one diagonal
    dxy = 0.5 * (
        log[..., 2, 2] - log[..., 1, 2] - log[..., 2, 1] + 2 * log[..., 1, 1]
        - log[..., 1, 0] - log[..., 0, 1] + log[..., 0, 0]
    )  # fmt: skip
    determinant = dxx * dyy - dxy**2
    on_border = ((xy <= 0) | (xy >= limit)).any(-1)
    usable = ((determinant > 1e-12) & (dxx < 0)) | (on_border & (determinant.abs() > 1e-12))
    safe = torch.where(usable, determinant, torch.ones_like(determinant))
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / safe[..., None]
    return torch.where(usable[..., None], step, torch.zeros_like(step)).nan_to_num(0.0).clamp(-1.5, 1.5)
