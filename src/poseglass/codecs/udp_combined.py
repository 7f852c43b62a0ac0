"""UDP combined: a disc map locates a keypoint roughly; two offset maps give its exact distance from each pixel.

Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild", CVPR 2017,
https://arxiv.org/abs/1701.01779, section 3.2; on UDP's grid by Huang et al. 2020 (arXiv 1911.07524), section 4.
How this differs: offsets are read at one pixel instead of being aggregated by voting; points are mapped to input pixels
by the inverse of the encoding (see ``codecs/udp.py``); the smoothing scales with the disc, where public code uses 23
pixels at any size; and a score is relative to the peak that a whole disc would give.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from poseglass.codecs.heatmap import argmax_2d, flip_heatmaps
from poseglass.codecs.spec import CodecSpec, Output
from poseglass.codecs.udp import to_heatmap_udp, to_input_udp
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, one_instance


@dataclass(frozen=True, slots=True)
class UdpCombinedCodec:
    """UDP combined: a disc around each keypoint and offset maps to it, on UDP's grid.

    Args:
        stride: Ratio of the numbers of input and heatmap pixels; the ratio of distances is ``(W - 1) / (w - 1)``.
        radius_factor: Radius of the disc, as a fraction of the map's height.
        blur_kernel: Odd side of the kernel that smooths the disc map before the peak is located, heatmap pixels;
            OpenCV's Gaussian of that size. All pixels of a disc have the same value, so the kernel must be wide enough
            to distinguish the middle from the rim: None uses 11 pixels to each side for a radius of 3.5 (the public
            codecs' 23 at a map height of 64), and scales with the radius.

    Raises:
        ValueError: A number out of range.
    """

    stride: int = 4
    radius_factor: float = 0.0546875
    blur_kernel: int | None = None

    def __post_init__(self) -> None:
        if self.stride < 1 or not self.radius_factor > 0:
            raise ValueError(
                "UdpCombinedCodec needs stride >= 1 and radius_factor > 0, "
                f"got stride={self.stride}, radius_factor={self.radius_factor}."
            )
        if self.blur_kernel is not None and (self.blur_kernel < 1 or self.blur_kernel % 2 == 0):
            raise ValueError(f"UdpCombinedCodec.blur_kernel must be odd and at least 1, got {self.blur_kernel}.")

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        outputs = {"heatmap": Output(("K", "h", "w")), "offset": Output(("K", 2, "h", "w"))}
        return CodecSpec(outputs, self.stride, "udp")

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Draw the maps on the targets' device, including keypoints outside, whose disc may reach into the map.

        Returns:
            ``"heatmap"`` ``(B, K, h, w)``, 1 in the disc; ``"offset"`` ``(B, K, 2, h, w)``, from each pixel to the
            keypoint along x and y in radii, so at most 1 in the disc; and ``"weight"`` ``(B, K)``. Unknown keypoints
            have empty maps.
        """
        xy, weight = one_instance(targets)
        map_wh = (size_wh[0] // self.stride, size_wh[1] // self.stride)
        xy = to_heatmap_udp(xy, self.stride, map_wh).float()
        known = (weight > 0)[..., None, None]
        radius = self.radius_factor * map_wh[1]
        across = (xy[..., 0, None] - torch.arange(map_wh[0], device=xy.device)) / radius
        down = (xy[..., 1, None] - torch.arange(map_wh[1], device=xy.device)) / radius
        across, down = torch.broadcast_tensors(across[..., None, :], down[..., :, None])
        disc = (across.square() + down.square() <= 1) & known
        offset = torch.where(known[..., None, :, :], torch.stack([across, down], 2), 0.0)
        return {"heatmap": disc.float(), "offset": offset, "weight": weight}

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode ``"heatmap"`` ``(B, K, h, w)`` and ``"offset"`` ``(B, K, 2, h, w)``.

        Returns:
            Points in network-input pixels ``(B, 1, K, 2)``; scores are the smoothed map's peak divided by that of a
            whole disc centred on a pixel, clipped to [0, 1]. A disc centred between pixels covers slightly more or
            fewer of them: it scores 0.85 to 1 for map heights of 32 pixels and above.
        """
        height, width = prediction["heatmap"].shape[-2:]
        radius = self.radius_factor * height
        kernel = 2 * round(11 / 3.5 * radius) + 1 if self.blur_kernel is None else self.blur_kernel
        maps = smoothed(prediction["heatmap"].float(), kernel)
        xy, peak = argmax_2d(maps)
        index = (xy[..., 1] * width + xy[..., 0]).long()[..., None, None].expand(-1, -1, 2, 1)
        offset = prediction["offset"].float().flatten(3).gather(-1, index).squeeze(-1)
        # trained offsets are at most one radius; the clamp limits noise
        xy = xy + offset.nan_to_num(0.0).clamp(-1.5, 1.5) * radius
        score = (peak / whole_disc_peak(radius, kernel)).nan_to_num(0.0).clamp(0.0, 1.0)
        return Decoded.one_instance(to_input_udp(xy, self.stride, (width, height)), score)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image; offsets along x change sign."""
        offset = flip_heatmaps(prediction["offset"], skeleton, "center")
        sign = torch.tensor([-1.0, 1.0], device=offset.device, dtype=offset.dtype)[:, None, None]
        return {"heatmap": flip_heatmaps(prediction["heatmap"], skeleton, "center"), "offset": offset * sign}


def whole_disc_peak(radius: float, blur_kernel: int) -> float:
    """Return the value of ``smoothed`` at the centre of a disc of that radius (heatmap pixels) centred on a pixel."""
    taps = cv2.getGaussianKernel(blur_kernel, 0).flatten()
    squared = np.square(np.arange(blur_kernel) - blur_kernel // 2)
    return float(taps @ (squared[:, None] + squared <= radius**2) @ taps)


def smoothed(maps: Tensor, blur_kernel: int) -> Tensor:
    """Return maps ``(B, K, h, w)`` smoothed by OpenCV's Gaussian kernel of that side; borders are reflected."""
    if blur_kernel == 1:
        return maps.contiguous()
    # blurring an identity matrix gives the weight of each pixel: two products instead of a padded convolution
    down, across = (
        torch.from_numpy(cv2.GaussianBlur(np.eye(n, dtype=np.float32), (1, blur_kernel), 0)).to(maps.device)
        for n in maps.shape[-2:]
    )
    return (down @ maps @ across.mT).contiguous()
