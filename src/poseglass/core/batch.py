"""PoseBatch: what the loader hands over; Prediction, Stages and Decoded: what networks and codecs give."""

from dataclasses import dataclass

import torch
from torch import Tensor

Prediction = dict[str, Tensor]
"""Named outputs of one supervised stage: ``"heatmap"`` ``(B, K, h, w)``, and more as papers need."""

Stages = list[Prediction]
"""What a network returns: one dict per supervised stage, the last one is the answer."""


@dataclass(slots=True)
class PoseBatch:
    """Tensors of B crops or images, people padded to N.

    Args:
        images: ``(B, 3, H, W)`` float32, normalised; or uint8 as read, to be normalised on the device.
        xy: ``(B, N, K, 2)`` float32, network-input pixels; N = 1 for crops. Unknown is 0, with weight 0.
        weight: ``(B, N, K)`` float32, 0 where unknown or padding.
        box_xyxy: ``(B, N, 4)`` float32, network-input pixels.
        to_source: ``(B, 2, 3)`` float64, network-input pixels to the file's pixels.
        sources: B paths or ids.
        occluded: ``(B, N, K)`` bool, labelled but hidden; None where nobody says.
    """

    images: Tensor
    xy: Tensor
    weight: Tensor
    box_xyxy: Tensor
    to_source: Tensor
    sources: list[str]
    occluded: Tensor | None = None

    def to(self, device: torch.device | str) -> "PoseBatch":
        """Return the batch on a device."""
        return PoseBatch(
            self.images.to(device, non_blocking=True),
            self.xy.to(device, non_blocking=True),
            self.weight.to(device, non_blocking=True),
            self.box_xyxy.to(device, non_blocking=True),
            self.to_source,
            self.sources,
            None if self.occluded is None else self.occluded.to(device, non_blocking=True),
        )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(slots=True)
class Decoded:
    """What a codec reads out of a prediction; padded to N per image, network-input pixels.

    Args:
        xy: ``(B, N, K, 2)``.
        score: ``(B, N, K)`` in [0, 1].
        box_xyxy: ``(B, N, 4)``, or None where the codec finds no boxes.
        box_score: ``(B, N)`` in [0, 1], or None.
    """

    xy: Tensor
    score: Tensor
    box_xyxy: Tensor | None = None
    box_score: Tensor | None = None
