"""The criterion of CenterNet on several levels of a pyramid: the losses of one level over the pixels of all of them.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, section 3. That all levels are
divided by the number of objects on all of them together is FCOS's rule (Tian et al., ICCV 2019, section 3.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poseglass.core.prediction import Prediction, Stages
from poseglass.core.targets import ModelInput
from poseglass.training.centernet import CenterNetCriterion

_ROWS = ("index", "weight", "keypoint_index", "keypoint_weight")
"""Targets with a row per instance; all others are maps."""


@dataclass(frozen=True)
class CenterNetLevelsCriterion:
    """Compares every stage with the targets of ``CenterNetLevelsCodec``; terms are averaged over stages.

    A term is the sum over all levels, divided by the number of objects of the batch on all levels, so an object counts
    the same wherever it is found. Sizes and offsets are compared in pixels of their level's map.

    Args:
        weights: Weight of terms that differs from that of ``CenterNetCriterion``, by output without the level.

    Raises:
        ValueError: A weight for an unknown output, or below 0.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        CenterNetCriterion(self.weights)  # checks them

    def __call__(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        """Return one term per output, over all levels, averaged over stages.

        Raises:
            ValueError: The targets are not of several levels, a stage lacks a level, or the targets have more classes
                than the network.
        """
        strides = [int(key.removeprefix("index_")) for key in targets if key.startswith("index_")]
        if not strides:
            raise ValueError(
                f"CenterNetLevelsCriterion takes targets of CenterNetLevelsCodec, got {', '.join(targets)}. Use that "
                "codec, or CenterNetCriterion for one level."
            )
        for number, stage in enumerate(stages):
            missing = [f"center_{stride}" for stride in strides if f"center_{stride}" not in stage]
            if missing:
                raise ValueError(
                    f"Stage {number} of the network returns {', '.join(stage)}, but the targets have "
                    f"{', '.join(missing)}. Give codec.strides the strides of the network's levels."
                )
        joined = [_one_map(stage, strides) for stage in stages]
        return CenterNetCriterion(self.weights)(joined, _one_map(targets, strides), batch)


def _one_map(prediction: Prediction, strides: list[int]) -> Prediction:
    """Return the maps of all levels as one map ``(..., P, 1)`` of all P pixels, and instances with indices into it."""
    found: dict[str, list[Tensor]] = {}
    start = 0
    for stride in strides:
        end = f"_{stride}"
        for key, value in prediction.items():
            name = key.removesuffix(end)
            if name == key:
                continue
            if name in _ROWS:
                found.setdefault(name, []).append(value + start if name.endswith("index") else value)
            else:
                found.setdefault(name, []).append(value.flatten(-2))
        start += prediction[f"center{end}"].shape[-2:].numel()
    return {
        name: torch.cat(values, 1) if name in _ROWS else torch.cat(values, -1)[..., None]
        for name, values in found.items()
    }
