"""Imports DLA-34 trained on ImageNet, as stored by ucbdrive/dla: a backbone, without "fc".

The published code also creates a 1x1 convolution with batch norm ("project") for each tree of depth 2, but the smaller
trees inside have their own, so it is never run. Images are RGB, normalised by the mean and standard deviation of
ImageNet.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_backbones
from poseglass.checkpoints.importer import Importer, Source, shape_of
from poseglass.checkpoints.resnet_lineage import conv_then_norm, residual_block
from poseglass.checkpoints.top_down import CLASSIFIER_INPUT
from poseglass.estimators.weights_file import CheckpointError

SOURCE = Source(
    repository="ucbdrive/dla",
    url="https://github.com/ucbdrive/dla",
    commit="d477ceb8036ae402f3c7b59ead54963cf864903b",
    license="BSD-3-Clause",
)

LAYOUT = f"a DLA-34 of {SOURCE.repository}"

DEPTHS = {"level2": 1, "level3": 2, "level4": 2, "level5": 1}
"""Depth of each tree, by its public name."""


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names are those of any DLA and, but for a classifier, of nothing else."""
    tops = {key.partition(".")[0] for key in keys}
    return {"base_layer", *DEPTHS} <= tops <= {"base_layer", "level0", "level1", *DEPTHS, "fc"}


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the width from the shape of the stem: ``{"name": "dla34"}``, of ``BACKBONES``.

    Raises:
        CheckpointError: It is another DLA, or the stem is missing.
    """
    roots = sum(key.endswith(".root.conv.weight") for key in state)
    bottlenecks = any(key.endswith(".conv3.weight") for key in state)
    if roots != sum(2 ** (depth - 1) for depth in DEPTHS.values()) or bottlenecks:
        raise CheckpointError(
            f"The checkpoint is a DLA of {SOURCE.repository}, but not DLA-34, the only one here: it has {roots} roots "
            f"{'and bottlenecks' if bottlenecks else 'and basic blocks'}; expected 6 and basic blocks. Import a file "
            "of dla34."
        )
    width = shape_of(state, "base_layer.0.weight", 4, LAYOUT)[0]
    return {"name": "dla34"} | ({} if width == 16 else {"width": width})


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name -> the public one for every tensor of a backbone's table; all have the same."""
    names: dict[str, str] = {}
    for i, old in enumerate(("base_layer", "level0", "level1")):
        names |= conv_then_norm(f"stem.{i}", f"{old}.0", f"{old}.1")
    for i, (old, depth) in enumerate(DEPTHS.items()):
        names |= _tree(f"trees.{i}", old, depth, widens=True)
    return names


def _tree(new: str, old: str, depth: int, *, widens: bool) -> dict[str, str]:
    if depth > 1:
        first = _tree(f"{new}.first", f"{old}.tree1", depth - 1, widens=widens)
        return first | _tree(f"{new}.second", f"{old}.tree2", depth - 1, widens=False)
    names = residual_block(f"{new}.first", f"{old}.tree1", 2, shortcut=False)
    if widens:
        names |= conv_then_norm(f"{new}.first.shortcut", f"{old}.project.0", f"{old}.project.1")
    names |= residual_block(f"{new}.second", f"{old}.tree2", 2, shortcut=False)
    return names | conv_then_norm(f"{new}.root", f"{old}.root.conv", f"{old}.root.bn")


def never_run(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the "project" of every tree of depth 2: name to shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (old, depth) in enumerate(DEPTHS.items()):
        given = network.get("width", 16) * 2 ** (i + 1)
        for name in conv_then_norm("", f"{old}.project.0", f"{old}.project.1").values() if depth > 1 else ():
            counter, kernel = name.endswith("num_batches_tracked"), name.endswith(".0.weight")
            shapes[name] = () if counter else (2 * given, given, 1, 1) if kernel else (2 * given,)
    return shapes


IMPORTER = Importer(
    name="dla_imagenet",
    source=SOURCE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    input=CLASSIFIER_INPUT,
    part="backbone",
    never_run=never_run,
    excluded=("fc.",),
    doubt="Read as trained on ImageNet. A DLA-34 taken out of a detector may need other images: CenterNet's were BGR, "
    'with a mean and standard deviation of their own (--set input.color="bgr" and so on).',
    reference=reference_backbones.dla,
    notes="A backbone trained for classification; it predicts no keypoints by itself.",
)
