"""Tensor names of CornerNet's hourglass in repositories derived from its code: our name -> theirs."""

import itertools
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from poseglass.checkpoints.importer import shape_of


def hourglass_sizes(state: Mapping[str, Tensor], level: str, layout: str) -> tuple[list[int], list[int]]:
    """Return the widths and the numbers of residuals of an hourglass, from the names and shapes.

    Args:
        state: The original's tensors.
        level: Name of the hourglass, "kps.0".
        layout: Description of the layout, for the message.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    widths, blocks = [shape_of(state, f"{level}.up1.0.conv1.weight", 4, layout)[0]], []
    while f"{level}.up1.0.conv1.weight" in state:
        widths.append(shape_of(state, f"{level}.low1.0.conv1.weight", 4, layout)[0])
        blocks.append(_count(state, f"{level}.up1"))
        level = f"{level}.low2"
    blocks.append(_count(state, level))
    return widths, blocks


def hourglass_names(
    new: str,
    old: str,
    widths: Sequence[int],
    blocks: Sequence[int],
    residual: Callable[[str, str, bool], dict[str, str]],
) -> dict[str, str]:
    """Return the names of one hourglass.

    Args:
        new: Our name of it, "trunk.hourglasses.0".
        old: The original's name of it.
        widths: As in ``CornerHourglass``.
        blocks: As in ``CornerHourglass``.
        residual: Our name and theirs of a residual, and whether it has a shortcut, to the names of its tensors.
    """
    sources: dict[str, str] = {}
    for (here, below), count in zip(itertools.pairwise(widths), blocks[:-1], strict=True):
        for j in range(count):
            narrows = j == count - 1 and here != below
            sources |= residual(f"{new}.skip.{j}", f"{old}.up1.{j}", False)
            sources |= residual(f"{new}.down.{j}", f"{old}.low1.{j}", j == 0)
            sources |= residual(f"{new}.up.{j}", f"{old}.low3.{j}", narrows)
        new, old = f"{new}.inner", f"{old}.low2"
    for j in range(blocks[-1]):
        sources |= residual(f"{new}.{j}", f"{old}.{j}", False)
    return sources


def _count(state: Mapping[str, Tensor], position: str) -> int:
    start = f"{position}."
    return sum(key.startswith(start) and key.removeprefix(start).partition(".")[2] == "conv1.weight" for key in state)
