"""One convolution from features to UDP combined maps: a heatmap and two offset maps per keypoint."""

from torch import Tensor, nn

from poseglass.core.prediction import Prediction
from poseglass.heads.heatmap import start_empty


class OffsetHead(nn.Module):
    """A 1x1 convolution with bias to three maps per keypoint, no activation. Initialised like ``HeatmapHead``.

    Args:
        in_channels: Channels of the features.
        num_keypoints: Number of keypoints, K.

    Source:
        Papandreou et al. 2017, section 3.2; Huang et al. 2020, section 4.
    """

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.conv = start_empty(nn.Conv2d(in_channels, 3 * num_keypoints, 1))

    def forward(self, features: Tensor) -> Prediction:
        """Map ``(B, in_channels, h, w)`` to ``"heatmap"`` ``(B, K, h, w)`` and ``"offset"`` ``(B, K, 2, h, w)``."""
        maps = self.conv(features).unflatten(1, (-1, 3))
        return {"heatmap": maps[:, :, 0], "offset": maps[:, :, 1:]}
