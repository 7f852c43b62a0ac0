"""One convolution from features to heatmaps."""

from torch import Tensor, nn

from poseglass.core.prediction import Prediction


def start_empty(conv: nn.Conv2d) -> nn.Conv2d:
    """Initialise and return a convolution, weights N(0, 0.001) and bias 0, so that its first maps are nearly empty."""
    nn.init.normal_(conv.weight, std=0.001)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class HeatmapHead(nn.Module):
    """A 1x1 convolution with bias, one map per keypoint, no activation.

    It is initialised from N(0, 0.001) with zero bias, as in the code of the last two papers, so that the first maps are
    nearly empty, like the targets.

    Args:
        in_channels: Channels of the features.
        num_keypoints: Number of keypoints, K.

    Source:
        Newell et al. 2016, section 3.1; Xiao et al. 2018, section 2; Sun et al. 2019, section 3.
    """

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.conv = start_empty(nn.Conv2d(in_channels, num_keypoints, 1))

    def forward(self, features: Tensor) -> Prediction:
        """Map ``(B, in_channels, h, w)`` to ``"heatmap"`` ``(B, K, h, w)``."""
        return {"heatmap": self.conv(features)}
