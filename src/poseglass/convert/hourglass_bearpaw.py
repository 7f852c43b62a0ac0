"""Checkpoints of bearpaw/pytorch-pose and of anibali/pytorch-stacked-hourglass, which keeps its layout.

That code is under the GPL; this file was written from a table of tensor names and shapes alone. The layout differs
from the paper's in the stem (64-128-256-256) and may repeat every residual. The mean of the training set is
subtracted from RGB in [0, 1], and nothing divides by the standard deviation that is stored beside it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.convert.importer import Importer, Source, convolution, hourglass, normalisation, shape_of, take
from poseglass.core.card import InputSpec
from poseglass.core.skeletons import MPII16

SOURCE = Source(
    repository="bearpaw/pytorch-pose",
    url="https://github.com/bearpaw/pytorch-pose",
    commit="edc7aec; as kept in anibali/pytorch-stacked-hourglass d43449d",
    license="GPL-3.0",
)

LAYOUT = f"a stacked hourglass of {SOURCE.repository}"


def recognises(keys: Collection[str]) -> bool:
    """Return whether these are this layout's names."""
    return "conv1.weight" in keys and "score.0.weight" in keys and "hg.0.hg.0.0.0.conv1.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read stacks, keypoints, width, depth and residuals per position from the names and shapes.

    Raises:
        CheckpointError: A tensor that tells them is missing.
    """
    num_keypoints, width, _, _ = shape_of(state, "score.0.weight", 4, LAYOUT)
    return hourglass(_num_stacks(state), num_keypoints, width, _depth(state), _num_blocks(state), "bearpaw")


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state in the names of ``StackedHourglass``.

    Raises:
        CheckpointError: A tensor is missing or left over.
    """
    num_stacks, depth, num_blocks = _num_stacks(state), _depth(state), _num_blocks(state)
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
        if f"{old}.downsample.0.weight" in state:
            sources |= convolution(f"{new}.adapt", f"{old}.downsample.0")
    return take(state, sources, layout=LAYOUT)


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
    rename=rename,
    network=network,
    skeletons={16: MPII16},
    input=InputSpec(size_wh=(256, 256), padding=1.25, mean=(0.4404, 0.4440, 0.4327)),
    codec={"name": "heatmap", "alignment": "center", "stride": 4, "sigma": 1.0},
    notes="The mean subtracted is that of MPII; weights trained on another set want that set's mean in their card.",
)
