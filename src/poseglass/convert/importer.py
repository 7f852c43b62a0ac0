"""What one public checkpoint layout needs to become a weights file of ours: where it is from, its names, its card."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from poseglass.core.card import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.weights import CheckpointError, listed


@dataclass(frozen=True, slots=True)
class Source:
    """The public code that writes a layout.

    Args:
        repository: "owner/name".
        url: Of the repository.
        commit: Whose layout was read.
        license: Of the code, in words. The terms of trained weights are their publisher's.
    """

    repository: str
    url: str
    commit: str
    license: str


@dataclass(frozen=True, slots=True)
class Importer:
    """One layout, described in one file of this package.

    Args:
        name: Of the layout, "hourglass_princeton".
        source: Whose it is.
        recognises: Whether these keys (prefixes stripped) are this layout's.
        rename: The state in our names. Pure and strict: a tensor that is missing or left over is an error.
        network: ``{"name": "hg8", "num_keypoints": 16, ...}``, read from the shapes of the original state.
        skeletons: By number of keypoints, what the layout means where the user does not say.
        input: Size and normalisation of the original code.
        codec: ``{"name": "heatmap", ...}``.
        notes: What a user of these weights should know.
        input_by_keypoints: By number of keypoints, the input where it is not ``input``.
    """

    name: str
    source: Source
    recognises: Callable[[Collection[str]], bool]
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    network: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    skeletons: Mapping[int, Skeleton]
    input: InputSpec
    codec: Mapping[str, Any]
    notes: str
    input_by_keypoints: Mapping[int, InputSpec] = field(default_factory=dict)


def take(
    state: Mapping[str, Tensor], sources: Mapping[str, str], *, unused: Collection[str] = (), layout: str
) -> dict[str, Tensor]:
    """Return the tensors of ``state`` under new names, floating point as float32, and nothing else.

    The counters ``num_batches_tracked`` may be missing, as before PyTorch 0.4.1; they become zero.

    Args:
        state: Old name to tensor. Tensors that are float32 already are not copied.
        sources: New name to old name.
        unused: Old names that may be there and are of no use.
        layout: For the message.

    Raises:
        CheckpointError: A tensor is missing, or one is left over.
    """
    missing = [old for old in sources.values() if old not in state and not old.endswith("num_batches_tracked")]
    known = {*sources.values(), *unused}
    left = [old for old in state if old not in known]
    if missing or left:
        found = [f"missing: {listed(missing)}"] if missing else []
        found += [f"left over: {listed(left)}"] if left else []
        raise CheckpointError(
            f"The checkpoint looks like {layout} but is not quite: {'; '.join(found)}. "
            "Only the layout as its authors publish it is read."
        )
    renamed: dict[str, Tensor] = {}
    for new, old in sources.items():
        tensor = state[old].detach() if old in state else torch.zeros((), dtype=torch.int64)
        renamed[new] = tensor.float() if tensor.is_floating_point() else tensor
    return renamed


def normalisation(new: str, old: str) -> dict[str, str]:
    """Return new name to old name of the five tensors of a BatchNorm."""
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{new}.{leaf}": f"{old}.{leaf}" for leaf in leaves}


def convolution(new: str, old: str) -> dict[str, str]:
    """Return new name to old name of a convolution with a bias."""
    return {f"{new}.weight": f"{old}.weight", f"{new}.bias": f"{old}.bias"}


def shape_of(state: Mapping[str, Tensor], name: str, ndim: int, layout: str) -> tuple[int, ...]:
    """Return the shape of a tensor that a layout must have.

    Raises:
        CheckpointError: It is missing, or has another number of axes.
    """
    if name not in state or state[name].ndim != ndim:
        found = "is missing" if name not in state else f"has shape {tuple(state[name].shape)}"
        raise CheckpointError(f"The checkpoint looks like {layout}, but {name!r} {found}; expected {ndim} axes.")
    return tuple(state[name].shape)


def hourglass(
    num_stacks: int, num_keypoints: int, width: int, depth: int, num_blocks: int, stem: str
) -> dict[str, Any]:
    """Return what a card says of a stacked hourglass: by its short name where one of the paper's sizes is meant."""
    table: dict[str, Any] = {"name": f"hg{num_stacks}", "num_keypoints": num_keypoints}
    if num_stacks not in (1, 2, 4, 8) or (width, depth, num_blocks) != (256, 4, 1):
        table |= {"name": "stacked_hourglass", "num_stacks": num_stacks, "width": width, "depth": depth}
        table |= {"num_blocks": num_blocks}
    return table if stem == "newell" else table | {"stem": stem}
