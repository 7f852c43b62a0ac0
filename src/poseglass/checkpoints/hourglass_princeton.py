"""Imports checkpoints of princeton-vl/pytorch_stacked_hourglass, the authors' own port to PyTorch.

Its residuals store a 1x1 skip convolution even if the widths are equal and it is never run: those are skipped. Images
are RGB in [0, 1] without mean subtraction.
"""

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
from poseglass.estimators.weights_file import CheckpointError

SOURCE = Source(
    repository="princeton-vl/pytorch_stacked_hourglass",
    url="https://github.com/princeton-vl/pytorch_stacked_hourglass",
    commit="ceedc14",
    license="BSD-3-Clause",
)

LAYOUT = f"a stacked hourglass of {SOURCE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "pre.0.conv.weight" in keys and "outs.0.conv.weight" in keys and "hgs.0.0.up1.conv1.conv.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read stacks, keypoints, width and depth from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    num_keypoints, width, _, _ = shape_of(state, "outs.0.conv.weight", 4, LAYOUT)
    return hourglass(_num_stacks(state), num_keypoints, width, _depth(state), 1, "newell")


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to theirs for every tensor of a stacked hourglass.

    Raises:
        CheckpointError: Another network, another stem, or more than one residual at a position.
    """
    num_stacks, _, _ = _numbers(network)
    sources = convolution("stem.conv", "pre.0.conv") | normalisation("stem.norm", "pre.0.bn")
    for i in range(num_stacks):
        sources |= convolution(f"outputs.{i}.conv", f"features.{i}.1.conv")
        sources |= normalisation(f"outputs.{i}.norm", f"features.{i}.1.bn")
        sources |= convolution(f"outputs.{i}.heatmap", f"outs.{i}.conv")
    for i in range(num_stacks - 1):
        sources |= convolution(f"feature_feedback.{i}", f"merge_features.{i}.conv.conv")
        sources |= convolution(f"heatmap_feedback.{i}", f"merge_preds.{i}.conv.conv")
    for new, old in _residuals(network).items():
        for k in (1, 2, 3):
            sources |= normalisation(f"{new}.norm{k}", f"{old}.bn{k}")
            sources |= convolution(f"{new}.conv{k}", f"{old}.conv{k}.conv")
        if new in WIDENING:
            sources |= convolution(f"{new}.adapt", f"{old}.skip_layer.conv")
    return sources


def never_run(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the skip convolutions of residuals whose input and output have the same width."""
    _, width, _ = _numbers(network)
    shapes: dict[str, tuple[int, ...]] = {}
    for new, old in _residuals(network).items():
        wide = width // 2 if new == "stem.residual2" else width
        if new not in WIDENING:
            shapes |= {f"{old}.skip_layer.conv.weight": (wide, wide, 1, 1), f"{old}.skip_layer.conv.bias": (wide,)}
    return shapes


WIDENING = ("stem.residual1", "stem.residual3")
"""Residuals whose output is wider than their input, so that their skip convolution runs."""


def _numbers(network: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return stacks, width and depth."""
    num_stacks, width, depth, num_blocks = hourglass_numbers(network, stem="newell", layout=LAYOUT)
    if num_blocks != 1:
        raise CheckpointError(f"The network has {num_blocks} residuals at every position; {LAYOUT} has one.")
    return num_stacks, width, depth


def _residuals(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to theirs for every residual."""
    num_stacks, _, depth = _numbers(network)
    residuals = {"stem.residual1": "pre.1", "stem.residual2": "pre.3", "stem.residual3": "pre.4"}
    for i in range(num_stacks):
        new, old = f"hourglasses.{i}", f"hgs.{i}.0"
        for _ in range(depth):
            residuals |= {f"{new}.skip.0": f"{old}.up1", f"{new}.down.0": f"{old}.low1", f"{new}.up.0": f"{old}.low3"}
            new, old = f"{new}.inner", f"{old}.low2"
        residuals |= {f"{new}.0": old, f"outputs.{i}.residual.0": f"features.{i}.0"}
    return residuals


def reference(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the last stack's maps, computed from the original names only."""

    def residual(name: str, x: Tensor) -> Tensor:
        inside = x
        for k in (1, 2, 3):
            inside = conv(state, f"{name}.conv{k}.conv", norm_relu(state, f"{name}.bn{k}", inside))
        return inside + (x if inside.shape[1] == x.shape[1] else conv(state, f"{name}.skip_layer.conv", x))

    def hourglass(name: str, x: Tensor) -> Tensor:
        if f"{name}.up1.bn1.weight" not in state:  # the innermost is a residual
            return residual(name, x)
        low = hourglass(f"{name}.low2", residual(f"{name}.low1", functional.max_pool2d(x, 2)))
        return residual(f"{name}.up1", x) + doubled(residual(f"{name}.low3", low))

    x = residual("pre.1", norm_relu(state, "pre.0.bn", conv(state, "pre.0.conv", images, stride=2)))
    x = residual("pre.4", residual("pre.3", functional.max_pool2d(x, 2)))
    maps = x
    for i in range(_num_stacks(state)):
        features = conv(state, f"features.{i}.1.conv", residual(f"features.{i}.0", hourglass(f"hgs.{i}.0", x)))
        features = norm_relu(state, f"features.{i}.1.bn", features)
        maps = conv(state, f"outs.{i}.conv", features)
        if f"merge_preds.{i}.conv.conv.weight" in state:
            x = x + conv(state, f"merge_preds.{i}.conv.conv", maps)
            x = x + conv(state, f"merge_features.{i}.conv.conv", features)
    return maps


def _num_stacks(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in state if key.startswith("hgs.")})


def _depth(state: Mapping[str, Tensor]) -> int:
    return sum(key.startswith("hgs.0.0.") and key.endswith(".up1.conv1.conv.weight") for key in state)


IMPORTER = Importer(
    name="hourglass_princeton",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    network=network,
    names=names,
    never_run=never_run,
    reference=reference,
    skeletons={16: MPII16},
    input=InputSpec(size_wh=(256, 256), padding=1.25),
    codec={"name": "heatmap", "alignment": "center", "stride": 4, "sigma": 1.0},
    notes="RGB in [0, 1], without mean subtraction. The original decodes with a quarter offset and flip test.",
)
