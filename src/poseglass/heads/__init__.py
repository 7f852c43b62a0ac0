"""Layer 2: features to what a codec reads."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from poseglass.core.prediction import Prediction
from poseglass.heads.heatmap import HeatmapHead
from poseglass.heads.offset import OffsetHead
from poseglass.heads.simcc import SimccHead


class Head(Protocol):
    """What every head has. Its constructor takes the channels of the features, then the number of keypoints."""

    def __call__(self, features: Tensor) -> Prediction:
        """Map ``(B, C, h, w)`` to a prediction: ``"heatmap"`` ``(B, K, h, w)``, or what its codec reads."""
        ...


HEADS: dict[str, Callable[..., nn.Module]] = {
    "heatmap": HeatmapHead,
    "offset": OffsetHead,
    "simcc": SimccHead,
}
