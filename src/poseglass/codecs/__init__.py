"""Floor 1: keypoints to what a head predicts, and back."""

from typing import Protocol

from poseglass.codecs.dark import DarkCodec
from poseglass.codecs.heatmap import HeatmapCodec
from poseglass.codecs.simcc import SimccCodec
from poseglass.codecs.soft_argmax import SoftArgmaxCodec
from poseglass.codecs.udp import UdpCodec
from poseglass.codecs.udp_combined import UdpCombinedCodec
from poseglass.core.batch import Decoded, PoseBatch, Prediction
from poseglass.core.skeleton import Skeleton


class Codec(Protocol):
    """Both directions, and what mirroring means to this representation."""

    def encode(self, batch: PoseBatch) -> Prediction:
        """Make training targets on the batch's device, with a ``"weight"`` ``(B, K)``."""
        ...

    def decode(self, prediction: Prediction) -> Decoded:
        """Read keypoints out of a prediction, network-input pixels, scores in [0, 1]."""
        ...

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Turn the prediction for a mirrored image into one for the image itself."""
        ...


NOT_PREDICTED = ("weight", "xy")
"""Keys of what codecs encode for losses alone; a network gives all the others."""

CODECS: dict[str, type[Codec]] = {
    "heatmap": HeatmapCodec,
    "dark": DarkCodec,
    "udp": UdpCodec,
    "udp_combined": UdpCombinedCodec,
    "soft_argmax": SoftArgmaxCodec,
    "simcc": SimccCodec,
}
