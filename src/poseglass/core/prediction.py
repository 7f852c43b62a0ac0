"""What networks and codecs return: Prediction, Stages and Decoded."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

Prediction = dict[str, Tensor]
"""Named outputs of one supervised stage: ``"heatmap"`` ``(B, K, h, w)``, and others that a paper needs."""

Stages = list[Prediction]
"""What a network returns: one dict per supervised stage; the last one is the final prediction."""


@dataclass(slots=True, repr=False)
class Decoded:
    """What a codec decodes from a prediction: N instances per view, padded, in view pixels.

    Top-down codecs give N = 1, one-stage codecs the best N of a view; all code after them is the same. It is a pytree,
    so ``torch.export`` accepts a program that returns one.

    Args:
        xy: ``(B, N, K, 2)`` float32.
        score: ``(B, N, K)`` float32 in [0, 1].
        valid: ``(B, N)`` bool, False for padding.
        label: ``(B, N)`` int64, the class; 0 where there is one class.
        box_score: ``(B, N)`` float32 in [0, 1]; 1 where the box was given.
        box_xyxy: ``(B, N, 4)`` float32, or None where the codec finds no boxes.
        visibility: ``(B, N, K)`` int64: 0 not in the view, 1 hidden, 2 visible; or None.
        probability: ``(B, N, K)`` float32, calibrated: how often such a keypoint is right; or None.
        mask: ``(B, N, H, W)`` float32 in [0, 1], at the view's size; or None.
        track_id: ``(B, N)`` int64, or None.
        observed_3d: ``(B, N, 8)`` float32, what a view shows of a box in space, columns as ``core.box_3d.OBSERVED``:
            x and y in view pixels. The focal length is that for which the depth is stated, 0 if it is the depth itself;
            see ``core.box_3d.lift``. Or None.
        xyz_mm: ``(B, N, K, 3)`` float32, camera frame; or None.
        visibility_probability: ``(B, N, K, 3)`` float32 in [0, 1], of visible, occluded and absent (not in the view),
            in this order; they sum to 1. Or None.
        radius_px: ``(B, N, K)`` float32, view pixels: the keypoint lies within it as often as the calibration says; or
            None.
        box_probability: ``(B, N)`` float32, calibrated: how often such a box is a person's; or None.
    """

    xy: Tensor
    score: Tensor
    valid: Tensor
    label: Tensor
    box_score: Tensor
    box_xyxy: Tensor | None = None
    visibility: Tensor | None = None
    probability: Tensor | None = None
    mask: Tensor | None = None
    track_id: Tensor | None = None
    observed_3d: Tensor | None = None
    xyz_mm: Tensor | None = None
    visibility_probability: Tensor | None = None
    radius_px: Tensor | None = None
    box_probability: Tensor | None = None

    def __repr__(self) -> str:
        return shapes_of(self)

    @classmethod
    def one_instance(cls, xy: Tensor, score: Tensor) -> "Decoded":
        """Return the result of a codec that finds one instance per view: ``(B, K, 2)`` and ``(B, K)``."""
        count = score.shape[0]
        return cls(
            xy[:, None], score[:, None], score.new_ones(count, 1, dtype=torch.bool),
            score.new_zeros(count, 1, dtype=torch.int64), score.new_ones(count, 1),
        )  # fmt: skip

    def cpu(self) -> "Decoded":
        """Return it on the CPU."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value.cpu() for name, value in values.items() if value is not None})


def shapes_of(batch: Any) -> str:
    """Return a dataclass of tensors as text: shapes instead of contents, without fields that are None.

    Example:
        >>> Decoded.one_instance(torch.zeros(2, 17, 2), torch.zeros(2, 17))
        Decoded(xy=(2, 1, 17, 2), score=(2, 1, 17), valid=(2, 1), label=(2, 1), box_score=(2, 1))
    """
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    words = [
        f"{name}={tuple(value.shape) if isinstance(value, Tensor) else value!r}"
        for name, value in values.items()
        if value is not None and not (isinstance(value, list) and len(value) > 4)
    ]
    return f"{type(batch).__name__}({', '.join(words)})"


BY_KEYPOINT = ("xy", "score", "visibility", "probability", "xyz_mm", "visibility_probability", "radius_px")
"""Fields of ``Decoded`` with an axis K, the third."""

torch.export.register_dataclass(Decoded, serialized_type_name="poseglass.Decoded")
