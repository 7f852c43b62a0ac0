"""Imports checkpoints of bearpaw/pytorch-pose and of anibali/pytorch-stacked-hourglass, which keeps its layout.

That code is under the GPL; this file was written only from a table of tensor names and shapes. The layout differs from
the paper's in the stem (64-128-256-256) and may repeat every residual. The mean of the training set is subtracted from
RGB in [0, 1], without dividing by the standard deviation that is stored beside it.
"""

import itertools
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from poseglass.checkpoints.importer import (
    Importer,
    Source,
    convolution,
    hourglass,
    hourglass_numbers,
    normalisation,
    shape_of,
)
from poseglass.checkpoints.reference import conv, doubled, norm_relu
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import MPII16

SOURCE = Source(
    repository="bearpaw/pytorch-pose",
    url="https://github.com/bearpaw/pytorch-pose",
    commit="edc7aec; as kept in anibali/pytorch-stacked-hourglass d43449d",
    license="GPL-3.0",
)

LAYOUT = f"a stacked hourglass of {SOURCE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "conv1.weight" in keys and "score.0.weight" in keys and "hg.0.hg.0.0.0.conv1.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read stacks, keypoints, width, depth and residuals per position from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    num_keypoints, width, _, _ = shape_of(state, "score.0.weight", 4, LAYOUT)
    return hourglass(_num_stacks(state), num_keypoints, width, _depth(state), _num_blocks(state), "bearpaw")


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to theirs for every tensor of a stacked hourglass.

    Raises:
        CheckpointError: Another network, or another stem.
    """
    num_stacks, _, depth, num_blocks = hourglass_numbers(network, stem="bearpaw", layout=LAYOUT)
    residuals = {"stem.residual1": "layer1.0", "stem.residual2": "layer2.0", "stem.residual3": "layer3.0"}
    sources = convolution("stem.conv", "conv1") | normalisation("stem.norm", "bn1")
    for i in range(num_stacks):
        for j in range(num_blocks):
            new = f"hourglasses.{i}"
            for level in reversed(range(depth)):  # the highest level is the outermost
                old = f"hg.{i}.hg.{level}"
                residuals |= {f"{new}.skip.{j}": f"{old}.0.{j}", f"{new}.down.{j}": f"{old}.1.{j}"}
                residuals |= {f"{new}.up.{j}": f"{old}.2.{j}"}
                new = f"{new}.inner"
            residuals[f"{new}.{j}"] = f"hg.{i}.hg.0.3.{j}"
            residuals[f"outputs.{i}.residual.{j}"] = f"res.{i}.{j}"
        sources |= convolution(f"outputs.{i}.conv", f"fc.{i}.0") | normalisation(f"outputs.{i}.norm", f"fc.{i}.1")
        sources |= convolution(f"outputs.{i}.heatmap", f"score.{i}")
    for i in range(num_stacks - 1):
        sources |= convolution(f"feature_feedback.{i}", f"fc_.{i}")
        sources |= convolution(f"heatmap_feedback.{i}", f"score_.{i}")
    for new, old in residuals.items():
        for k in (1, 2, 3):
            sources |= normalisation(f"{new}.norm{k}", f"{old}.bn{k}") | convolution(f"{new}.conv{k}", f"{old}.conv{k}")
    for new in ("stem.residual1", "stem.residual2"):  # those that widen
        sources |= convolution(f"{new}.adapt", f"{residuals[new]}.downsample.0")
    return sources


def reference(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the last stack's maps, computed from the original names only."""

    def residuals(name: str, x: Tensor) -> Tensor:
        for j in itertools.count():
            at = f"{name}.{j}"
            if f"{at}.conv1.weight" not in state:
                return x
            inside = x
            for k in (1, 2, 3):
                inside = conv(state, f"{at}.conv{k}", norm_relu(state, f"{at}.bn{k}", inside))
            x = inside + (conv(state, f"{at}.downsample.0", x) if f"{at}.downsample.0.weight" in state else x)
        raise AssertionError

    def hourglass(name: str, level: int, x: Tensor) -> Tensor:
        low = residuals(f"{name}.{level}.1", functional.max_pool2d(x, 2))
        low = hourglass(name, level - 1, low) if level else residuals(f"{name}.0.3", low)
        return residuals(f"{name}.{level}.0", x) + doubled(residuals(f"{name}.{level}.2", low))

    outermost = max(int(name.split(".")[3]) for name in state if name.startswith("hg.0."))
    x = residuals("layer1", norm_relu(state, "bn1", conv(state, "conv1", images, stride=2)))
    x = residuals("layer3", residuals("layer2", functional.max_pool2d(x, 2)))
    maps = x
    for i in range(_num_stacks(state)):
        features = conv(state, f"fc.{i}.0", residuals(f"res.{i}", hourglass(f"hg.{i}.hg", outermost, x)))
        features = norm_relu(state, f"fc.{i}.1", features)
        maps = conv(state, f"score.{i}", features)
        if f"fc_.{i}.weight" in state:
            x = x + conv(state, f"fc_.{i}", features) + conv(state, f"score_.{i}", maps)
    return maps


def _num_stacks(state: Mapping[str, Tensor]) -> int:
    return sum(key.startswith("score.") and key.endswith(".weight") for key in state)


def _depth(state: Mapping[str, Tensor]) -> int:
    return sum(key.startswith("hg.0.hg.") and key.endswith(".0.0.conv1.weight") for key in state)


def _num_blocks(state: Mapping[str, Tensor]) -> int:
    return sum(key.startswith("hg.0.hg.0.0.") and key.endswith(".conv1.weight") for key in state)


IMPORTER = Importer(
    name="hourglass_bearpaw",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    network=network,
    names=names,
    reference=reference,
    skeletons={16: MPII16},
    input=InputSpec(size_wh=(256, 256), padding=1.25, mean=(0.4404, 0.4440, 0.4327)),
    codec={"name": "heatmap", "alignment": "center", "stride": 4, "sigma": 1.0},
    notes="The mean subtracted is that of MPII; for weights trained on another set, put that set's mean in their card.",
)
