"""Combines any backbone, neck and head; most single-stage networks here are built this way."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from poseglass.backbones import BACKBONES
from poseglass.core.prediction import Stages
from poseglass.core.table import build_part
from poseglass.heads import HEADS
from poseglass.layers.input_size import check_input
from poseglass.necks import NECKS


class ComposedNetwork(nn.Module):
    """A backbone, a neck and a head in sequence; one stage, unless the head has several.

    Args:
        num_keypoints: Number of keypoints, K.
        backbone: ``{"name": ..., ...}``, built from ``BACKBONES``.
        neck: ``{"name": ..., ...}``, built from ``NECKS`` with the backbone's ``channels`` and ``strides``.
        head: ``{"name": ..., ...}``, built from ``HEADS`` with the neck's ``out_channels`` and K. None means a single
            1x1 convolution that outputs heatmaps.

    Attributes:
        stride: Input pixels per pixel of the head's input.
        divisor: Both sides of an input must be divisible by it.
        usual_size_wh: Usual training input size, pixels. A network composed for another size overrides it.

    Raises:
        LookupError: An unknown name; the message suggests the nearest one.
        TypeError, ValueError: Arguments that a part does not accept.
    """

    usual_size_wh: tuple[int, int] = (256, 256)

    def __init__(
        self,
        num_keypoints: int,
        *,
        backbone: Mapping[str, Any],
        neck: Mapping[str, Any],
        head: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        below: Any = build_part(BACKBONES, backbone, "backbone")
        middle: Any = build_part(NECKS, neck, "neck", below.channels, below.strides)
        self.backbone, self.neck = below, middle
        head = {"name": "heatmap"} if head is None else head
        self.head = build_part(HEADS, head, "head", middle.out_channels, num_keypoints)
        self.stride: int = middle.out_stride
        self.divisor: int = below.divisor

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to the head's prediction, or predictions: one per stage.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        check_input(images, self.divisor)
        found = self.head(self.neck(self.backbone(images)))
        return found if isinstance(found, list) else [found]
