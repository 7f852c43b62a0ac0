"""Checkpoints of princeton-vl/pytorch_stacked_hourglass, the authors' own port to PyTorch.

Its residuals store a 1x1 skip convolution even where the widths are equal and it is never run: those are left out.
Images are RGB in [0, 1] without any mean subtracted.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.convert.importer import Importer, Source, convolution, hourglass, normalisation, shape_of, take
from poseglass.core.card import InputSpec
from poseglass.core.skeletons import MPII16

SOURCE = Source(
    repository="princeton-vl/pytorch_stacked_hourglass",
    url="https://github.com/princeton-vl/pytorch_stacked_hourglass",
    commit="ceedc14",
    license="BSD-3-Clause",
)

LAYOUT = f"a stacked hourglass of {SOURCE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these are this layout's names."""
    return "pre.0.conv.weight" in keys and "outs.0.conv.weight" in keys and "hgs.0.0.up1.conv1.conv.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read stacks, keypoints, width and depth from the names and shapes.

    Raises:
        CheckpointError: A tensor that tells them is missing.
    """
    num_keypoints, width, _, _ = shape_of(state, "outs.0.conv.weight", 4, LAYOUT)
    return hourglass(_num_stacks(state), num_keypoints, width, _depth(state), 1, "newell")


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state in the names of ``StackedHourglass``.

    Raises:
        CheckpointError: A tensor is missing or left over.
    """
    num_stacks, depth = _num_stacks(state), _depth(state)
    residuals = {"stem.residual1": "pre.1", "stem.residual2": "pre.3", "stem.residual3": "pre.4"}
    sources = convolution("stem.conv", "pre.0.conv") | normalisation("stem.norm", "pre.0.bn")
    for i in range(num_stacks):
        new, old = f"hourglasses.{i}", f"hgs.{i}.0"
        for _ in range(depth):
            residuals |= {f"{new}.skip.0": f"{old}.up1", f"{new}.down.0": f"{old}.low1", f"{new}.up.0": f"{old}.low3"}
            new, old = f"{new}.inner", f"{old}.low2"
        residuals[f"{new}.0"] = old
        residuals[f"outputs.{i}.residual.0"] = f"features.{i}.0"
        sources |= convolution(f"outputs.{i}.conv", f"features.{i}.1.conv")
        sources |= normalisation(f"outputs.{i}.norm", f"features.{i}.1.bn")
        sources |= convolution(f"outputs.{i}.heatmap", f"outs.{i}.conv")
    for i in range(num_stacks - 1):
        sources |= convolution(f"feature_feedback.{i}", f"merge_features.{i}.conv.conv")
        sources |= convolution(f"heatmap_feedback.{i}", f"merge_preds.{i}.conv.conv")
    unused: list[str] = []
    for new, old in residuals.items():
        for k in (1, 2, 3):
            sources |= normalisation(f"{new}.norm{k}", f"{old}.bn{k}")
            sources |= convolution(f"{new}.conv{k}", f"{old}.conv{k}.conv")
        skip = convolution(f"{new}.adapt", f"{old}.skip_layer.conv")
        if _widens(state, old):
            sources |= skip
        else:
            unused += skip.values()
    return take(state, sources, unused=unused, layout=LAYOUT)


def _widens(state: Mapping[str, Tensor], residual: str) -> bool:
    """Return whether a residual's output is of another width than its input, so that its skip convolution runs."""
    given = shape_of(state, f"{residual}.conv1.conv.weight", 4, LAYOUT)[1]
    made = shape_of(state, f"{residual}.conv3.conv.weight", 4, LAYOUT)[0]
    return given != made


def _num_stacks(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in state if key.startswith("hgs.")})


def _depth(state: Mapping[str, Tensor]) -> int:
    return sum(key.startswith("hgs.0.0.") and key.endswith(".up1.conv1.conv.weight") for key in state)


IMPORTER = Importer(
    name="hourglass_princeton",
    source=SOURCE,
    recognises=recognises,
    rename=rename,
    network=network,
    skeletons={16: MPII16},
    input=InputSpec(size_wh=(256, 256), padding=1.25),
    codec={"name": "heatmap", "alignment": "center", "stride": 4, "sigma": 1.0},
    notes="RGB in [0, 1], no mean subtracted. The original decodes with a quarter offset and flip averaging.",
)
