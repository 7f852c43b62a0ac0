"""The class of what a given box shows: the second of two stages, where the first only finds the boxes.

Many entries of Kaggle's Kuzushiji recognition found the characters with one network and read each in a crop with
another: a crop is as large as the classifier needs, whatever the size of the page, and the classifier can be trained on
single characters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, one_instance


@dataclass(frozen=True, slots=True)
class BoxClassCodec:
    """One of C classes for each view, and no keypoints."""

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        return CodecSpec({"class": Output(("C",), "softmax")}, keypoints=False)

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Return the classes on the targets' device.

        Returns:
            ``"class"`` ``(B, 1)`` int64; ``"weight"`` ``(B, 1)``, 0 for crowds and padding.

        Raises:
            TypeError: A batch instead of its targets.
            ValueError: There are several instances in a view.
        """
        one_instance(targets)  # raises
        return {"class": targets.label, "weight": (targets.valid & ~targets.crowd).float()}

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode ``"class"`` ``(B, C)``, logits.

        Returns:
            One instance per view without keypoints: its class, and the class's probability as ``box_score``, 0 where a
            logit is not a number.
        """
        probability, label = _best(prediction["class"])
        count = label.shape[0]
        return Decoded(
            probability.new_zeros(count, 1, 0, 2), probability.new_zeros(count, 1, 0),
            probability.new_ones(count, 1, dtype=torch.bool), label[:, None], probability[:, None],
        )  # fmt: skip

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Return the prediction: a flipped object is of the same class. Without use for characters, which are not."""
        return {"class": prediction["class"]}


def _best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest probability and its class, ``(B,)`` each."""
    probability, label = torch.softmax(logits.float(), -1).max(-1)
    return probability.nan_to_num(0.0).clamp(0.0, 1.0), label
