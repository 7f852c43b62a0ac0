"""Any backbone under any neck under any head: how most single-stage networks here are put together."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from poseglass.backbones import BACKBONES
from poseglass.core.batch import Stages
from poseglass.core.table import build
from poseglass.heads import HEADS
from poseglass.layers.input_size import check_input
from poseglass.necks import NECKS


class ComposedNetwork(nn.Module):
    """Backbone, neck and head in a row; one stage.

    Args:
        num_keypoints: K.
        backbone: ``{"name": ..., ...}``, built from ``BACKBONES``.
        neck: ``{"name": ..., ...}``, built from ``NECKS`` with the backbone's ``channels`` and ``strides``.
        head: ``{"name": ..., ...}``, built from ``HEADS`` with the neck's ``out_channels`` and K. None is one 1x1
            convolution to heatmaps.

    Attributes:
        stride: Input pixels per pixel of the head's input.
        divisor: Both sides of an input must divide by it.

    Raises:
        LookupError: An unknown name; the nearest is given.
        TypeError, ValueError: Arguments that a part does not take.
    """

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
        below = _part(BACKBONES, backbone, "backbone")
        middle = _part(NECKS, neck, "neck", below.channels, below.strides)
        self.backbone, self.neck = below, middle
        self.head = _part(HEADS, head or {"name": "heatmap"}, "head", middle.out_channels, num_keypoints)
        self.stride: int = middle.out_stride
        self.divisor: int = below.divisor

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to one stage, the head's prediction.

        Raises:
            ValueError: H or W does not divide by ``divisor``; the message names sizes that would do.
        """
        check_input(images, self.divisor)
        return [self.head(self.neck(self.backbone(images)))]


def _part(table: Mapping[str, Any], part: Mapping[str, Any], kind: str, *first: Any) -> Any:
    """Build ``table[part["name"]]`` with ``first`` as its leading arguments."""
    numbers = dict(part)
    name = numbers.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f'{kind} needs a name, e.g. {{ name = "{next(iter(table), "...")}" }}, got {dict(part)}.')
    return build(table, name, *first, **numbers)
