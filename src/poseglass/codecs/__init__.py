"""Layer 1: keypoints to what a head predicts, and back."""

from typing import Protocol

from poseglass.codecs.box_class import BoxClassCodec
from poseglass.codecs.centernet import CenterNetCodec
from poseglass.codecs.centernet_levels import CenterNetLevelsCodec
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
    """Encodes keypoints, decodes predictions, and defines what flipping means for this representation."""

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes; states it, so that nothing has to infer it from the fields."""
        ...

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Make the training targets for views of ``size_wh``, on the device of ``targets``.

        Returns:
            The keys of ``spec.outputs`` and ``spec.loss_keys``, and ``"weight"``: ``(B, K)``, or ``(B, N)`` for a codec
            of several instances.

        Raises:
            TypeError: A whole batch was passed instead of its targets.
        """
        ...

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode instances from a prediction: view pixels, scores in [0, 1]."""
        ...

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image.

        Outputs that are left out are not averaged by a flip test: it takes those of the image that was not flipped.
        """
        ...


CODECS: dict[str, type[Codec]] = {
    "heatmap": HeatmapCodec,
    "dark": DarkCodec,
    "udp": UdpCodec,
    "udp_combined": UdpCombinedCodec,
    "soft_argmax": SoftArgmaxCodec,
    "simcc": SimccCodec,
    "centernet": CenterNetCodec,
    "centernet_levels": CenterNetLevelsCodec,
    "box_class": BoxClassCodec,
}
