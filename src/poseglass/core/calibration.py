"""Calibration: what a score means, as measured on people that the network was not trained on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Curves from the score of a keypoint to the probability that it is right, and to the radius that it lies within.

    A curve has M values, at scores of 0, 1 / (M - 1), ... 1; between them it is linear. All curves rise or fall
    steadily, so keypoints keep the order of their scores.

    Args:
        probability: ``(K, M)`` float32 in [0, 1]: the share of labelled keypoints of that score that lie within
            ``within`` of the label.
        radius_share: ``(K, M)`` float32: the share ``coverage`` of keypoints of that score lies within this distance of
            the label, in units of the longer side of the view, or of the box where the network finds boxes; or None.
        within: Distance within which a keypoint is right, in torsos (the mean of the two hip-to-opposite-shoulder
            distances).
        coverage: What share of keypoints the radius covers.
        flip_test: Whether the scores are those of a flip test; without it they are others.
        box_probability: ``(M,)`` float32 in [0, 1]: the share of found boxes of that score that overlap a labelled
            person's by at least half (IoU); or None.
        people: Number of people that it was fitted on.
        data: What they are, in words.
        measured: What it gave on people of the same data that were left out of the fit (cross-validation).

    Raises:
        ValueError: Curves of a wrong shape, that are not finite, or out of range.
    """

    probability: np.ndarray
    radius_share: np.ndarray | None = None
    within: float = 0.2
    coverage: float = 0.9
    flip_test: bool = False
    box_probability: np.ndarray | None = None
    people: int = 0
    data: str = ""
    measured: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name, axes in (("probability", 2), ("radius_share", 2), ("box_probability", 1)):
            value = getattr(self, name)
            if value is None and name != "probability":
                continue
            curves = np.asarray(value, np.float32)
            if curves.ndim != axes or curves.shape[-1] < 2:
                raise ValueError(
                    f"Calibration.{name} must have {axes} {'axes' if axes > 1 else 'axis'}, at least 2 values long, "
                    f"got {curves.shape}."
                )
            most = np.inf if name == "radius_share" else 1.0
            if not np.isfinite(curves).all() or (curves < 0).any() or (curves > most).any():
                wrong = curves[~(np.isfinite(curves) & (curves >= 0) & (curves <= most))][0]
                raise ValueError(f"Calibration.{name} must be finite, from 0 to {most:g}, got {wrong:g}. Fit it again.")
            object.__setattr__(self, name, curves)
        if self.radius_share is not None and self.radius_share.shape != self.probability.shape:
            raise ValueError(
                f"Calibration.radius_share must have the shape of probability {self.probability.shape}, got "
                f"{self.radius_share.shape}."
            )

    def __repr__(self) -> str:
        flip = "with" if self.flip_test else "without"
        return (
            f"Calibration({len(self.probability)} keypoints within {self.within:g} of the torso, {flip} flip test, "
            f"fitted on {self.people:,} people)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain lists and numbers, four digits each."""
        data = asdict(self)
        for name in ("probability", "radius_share", "box_probability"):
            data[name] = None if data[name] is None else np.round(data[name].astype(np.float64), 4).tolist()
        return data | {"measured": None if self.measured is None else dict(self.measured)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Calibration":
        """Rebuild it.

        Raises:
            ValueError, TypeError: A field is missing or not valid.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


def read_curves(curves: np.ndarray, score: Tensor) -> Tensor:
    """Return curves read at scores.

    Args:
        curves: ``(K, M)`` for scores ``(..., K)``, or ``(M,)`` for scores of any shape.
        score: float32 in [0, 1]; NaN is read at 0.

    Returns:
        float32, the shape of ``score``.

    Example:
        >>> read_curves(np.array([[0.0, 0.5, 1.0]]), torch.tensor([[0.25], [1.0]])).tolist()
        [[0.25], [1.0]]
    """
    table = torch.as_tensor(np.ascontiguousarray(curves), dtype=torch.float32, device=score.device)
    steps = table.shape[-1] - 1
    place = score.float().nan_to_num(0.0).clamp(0.0, 1.0) * steps
    below = place.floor().clamp(max=steps - 1)
    index = below.long()
    if table.ndim == 2:
        index = index + torch.arange(len(table), device=score.device) * (steps + 1)
    flat = table.flatten()
    low, high = flat[index], flat[index + 1]
    return low + (high - low) * (place - below)
