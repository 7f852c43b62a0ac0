"""The criterion that CenterNet is trained with.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, sections 3, 4.1 and 4.2; weights
of the terms for poses and the mean over stacks from xingyizhou/CenterNet. The terms "visibility" and "class" are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional

from poseglass.codecs.centernet import classified
from poseglass.codecs.centernet_3d import metres_of
from poseglass.core.prediction import Prediction, Stages
from poseglass.core.table import nearest
from poseglass.core.targets import ModelInput
from poseglass.losses.centernet import (
    cross_entropy_at_pixels,
    l1_at_pixels,
    orientation_at_pixels,
    penalty_reduced_focal,
)

WEIGHTS: dict[str, float] = {
    "center": 1.0, "size": 0.1, "center_offset": 1.0, "keypoints": 1.0, "heatmap": 1.0, "heatmap_offset": 1.0,
    "visibility": 1.0, "class": 1.0, "depth": 1.0, "dimensions": 1.0, "rotation": 1.0, "middle_3d": 1.0,
}  # fmt: skip
"""Published weight of each term; those of "visibility", "class" and "middle_3d" are ours. The term of visibility is
ln 3 for a network that knows nothing, that of the class ln C."""


@dataclass(frozen=True)
class CenterNetCriterion:
    """Compares every stage with the targets of ``CenterNetCodec``; terms are averaged over stages.

    Args:
        weights: Weight of terms that differs from ``WEIGHTS``, by output.
        rotation_rows: Rows of an image over which the bins of orientations are averaged at least; 50 in the public
            code, 0 for those with an object. See ``losses.centernet.orientation_at_pixels``.

    Raises:
        ValueError: A weight for an unknown output, or below 0; or a number of rows below 0.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    rotation_rows: int = 50

    def __post_init__(self) -> None:
        for name, value in self.weights.items():
            if name not in WEIGHTS or value < 0:
                raise ValueError(
                    f"CenterNetCriterion.weights must be numbers of at least 0 for {', '.join(WEIGHTS)}, got "
                    f"{name!r}: {value!r}.{nearest(name, WEIGHTS)}"
                )

        if self.rotation_rows < 0:
            raise ValueError(f"CenterNetCriterion.rotation_rows must be 0 or more, got {self.rotation_rows}.")

    def __call__(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        """Return one term per output, averaged over stages.

        Raises:
            ValueError: The targets have more classes than the network, or visibility, which the network lacks.
        """
        weights = WEIGHTS | dict(self.weights)
        terms: dict[str, Tensor] = {}
        for stage in stages:
            for name, value in _terms(stage, targets, self.rotation_rows).items():
                part = value * (weights[name] / len(stages))
                terms[name] = terms[name] + part if name in terms else part
        return terms


def _terms(stage: Prediction, targets: Prediction, rotation_rows: int) -> dict[str, Tensor]:
    if "label" in targets and "classifier" not in stage:
        raise ValueError(
            f"The codec has features for the class of an instance, but the network returns only {', '.join(stage)}. "
            "Build its head with the same number of features (a recipe: network.head.features), or set codec.features "
            "to 0."
        )
    more = stage["center"].shape[1] - targets["center"].shape[1]
    if more < 0:
        raise ValueError(
            f"The data have {targets['center'].shape[1]} classes, but the network predicts "
            f"{stage['center'].shape[1]}. Set the head's num_classes to the number of classes."
        )
    center = functional.pad(targets["center"], (0, 0, 0, 0, 0, more))  # classes that no image of the batch shows
    index, weight = targets["index"], targets["weight"]
    terms = {"center": penalty_reduced_focal(stage["center"], center, targets["center_weight"])}
    if "label" in targets:
        terms["class"] = _class_term(stage, targets)
    for name in ("size", "center_offset"):
        terms[name] = l1_at_pixels(stage[name], targets[name], index, weight)
    if "keypoints" in targets:
        known = targets["keypoint_weight"]
        vectors = (stage["keypoints"].flatten(1, 2), targets["keypoints"].flatten(1, 2))
        terms["keypoints"] = l1_at_pixels(*vectors, index, known.repeat_interleave(2, -1))
        terms["heatmap"] = penalty_reduced_focal(stage["heatmap"], targets["heatmap"], targets["heatmap_weight"])
        terms["heatmap_offset"] = l1_at_pixels(
            stage["heatmap_offset"], targets["heatmap_offset"], targets["keypoint_index"].flatten(1), known.flatten(1)
        )
    if "visibility" in targets:
        if "visibility" not in stage:
            raise ValueError(
                f"The codec encodes visibility, but the network returns only {', '.join(stage)}. Build its head with "
                "visibility=True (a recipe: network.head.visibility = true), or set codec.visibility to false."
            )
        terms["visibility"] = cross_entropy_at_pixels(
            stage["visibility"], targets["visibility"], index, targets["visibility_weight"]
        )
    if "rotation" in targets:
        terms |= _terms_3d(stage, targets, rotation_rows)
    return terms


def _terms_3d(stage: Prediction, targets: Prediction, rotation_rows: int) -> dict[str, Tensor]:
    """Return the terms of boxes in space; depths are compared in metres.

    Raises:
        ValueError: The network has no such outputs, or another number of bins of headings.
    """
    wanted = [name for name in ("depth", "dimensions", "rotation", "middle_3d") if name in targets]
    lacking = [name for name in wanted if name not in stage]
    if lacking:
        option = "middles_3d" if lacking == ["middle_3d"] else "boxes_3d"
        raise ValueError(
            f"The codec encodes {', '.join(lacking)}, but the network returns only {', '.join(stage)}. Build its head "
            f"with {option}=True (a recipe: network.head.{option} = true), or set codec.{option} to false."
        )
    found, encoded = (values["rotation"].shape[1] // 4 for values in (stage, targets))
    if found != encoded:
        raise ValueError(
            f"The codec encodes headings in {encoded} bins, but the network returns {found}. Give codec and head the "
            "same heading_bins."
        )
    index, known, measured = targets["index"], targets["rotation_weight"], targets["depth_weight"]
    terms = {
        "depth": l1_at_pixels(metres_of(stage["depth"]), metres_of(targets["depth"]), index, measured),
        "dimensions": l1_at_pixels(stage["dimensions"], targets["dimensions"], index, measured),
        "rotation": orientation_at_pixels(
            stage["rotation"], targets["rotation"], index, known, rows=rotation_rows
        ),
    }  # fmt: skip
    if "middle_3d" in wanted:
        terms["middle_3d"] = l1_at_pixels(stage["middle_3d"], targets["middle_3d"], index, known)
    return terms


def _class_term(stage: Prediction, targets: Prediction) -> Tensor:
    """Return the mean cross-entropy of the classes of all instances that count; 0 if none does.

    Instances are taken out first, so that logits are made for as many as there are, not for every pixel.

    Raises:
        ValueError: A label is beyond the network's classes.
    """
    label, weight = targets["label"], targets["weight"]
    classes = stage["classifier"].shape[1]
    if int(label.max() if label.numel() else 0) >= classes:
        raise ValueError(
            f"A target has label {int(label.max())}, but the network tells {classes} classes apart, numbered from 0. "
            "Set the head's num_classes to the number of classes."
        )
    logits = classified(stage, targets["index"])[weight > 0]
    if not len(logits):
        return stage["features"].float().sum() * 0.0
    return functional.cross_entropy(logits, label[weight > 0])
