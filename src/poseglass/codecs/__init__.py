"""Layer 1: keypoints to what a head predicts, and back."""

from typing import Protocol

from poseglass.codecs.dark import DarkCodec
from poseglass.codecs.heatmap import HeatmapCodec
from poseglass.codecs.simcc import SimccCodec
from poseglass.codecs.soft_argmax import SoftArgmaxCodec
from poseglass.codecs.spec import CodecSpec as CodecSpec
from poseglass.codecs.spec import Output as Output
from poseglass.codecs.udp import UdpCodec
from poseglass.codecs.udp_combined import UdpCombinedCodec
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets


class Codec(Protocol):
    """Both directions, and what flipping means to this representation."""

    @property
    def spec(self) -> CodecSpec:
        """What it reads and draws; asked instead of guessed from its fields."""
        ...

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Make what a network is trained towards, for views of ``size_wh``, on the targets' device.

        Returns:
            The keys of ``spec.outputs`` and ``spec.loss_keys``, and ``"weight"`` ``(B, K)``.

        Raises:
            TypeError: A batch in the place of its targets.
        """
        ...

    def decode(self, prediction: Prediction) -> Decoded:
        """Read instances out of a prediction, view pixels, scores in [0, 1]."""
        ...

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Turn the prediction for a flipped image into one for the image itself."""
        ...


CODECS: dict[str, type[Codec]] = {
    "heatmap": HeatmapCodec,
    "dark": DarkCodec,
    "udp": UdpCodec,
    "udp_combined": UdpCombinedCodec,
    "soft_argmax": SoftArgmaxCodec,
    "simcc": SimccCodec,
}
