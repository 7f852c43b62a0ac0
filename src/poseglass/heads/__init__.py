"""Layer 2: features to what a codec decodes."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from poseglass.core.prediction import Prediction, Stages
from poseglass.heads.aspp import AsppHead, r_aspp
from poseglass.heads.box_class import BoxClassHead
from poseglass.heads.centernet import CenterNetHead
from poseglass.heads.heatmap import HeatmapHead
from poseglass.heads.lr_aspp import LrAsppHead
from poseglass.heads.offset import OffsetHead
from poseglass.heads.simcc import SimccHead
from poseglass.heads.stacked_centernet import StackedCenterNetHead


class Head(Protocol):
    """The interface of every head. The constructor takes the number of feature channels, then of keypoints."""

    def __call__(self, features: Tensor) -> Prediction | Stages:
        """Map ``(B, C, h, w)`` to a prediction: ``"heatmap"`` ``(B, K, h, w)``, or whatever its codec decodes.

        A head with several stages returns a prediction per stage.
        """
        ...


HEADS: dict[str, Callable[..., nn.Module]] = {
    "heatmap": HeatmapHead,
    "offset": OffsetHead,
    "simcc": SimccHead,
    "centernet": CenterNetHead,
    "stacked_centernet": StackedCenterNetHead,
    "box_class": BoxClassHead,
}

MASK_HEADS: dict[str, Callable[..., nn.Module]] = {
    "lr_aspp": LrAsppHead,
    "r_aspp": r_aspp,
    "aspp": AsppHead,
}
"""Heads for segmentation, which no codec decodes yet. The constructor takes a backbone's ``channels`` and ``strides``
and the number of classes; the head maps all levels to logits ``(B, C, H / out_stride, W / out_stride)``."""
