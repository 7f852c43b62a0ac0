"""Importer: describes how one public checkpoint layout becomes a weights file of ours: source, names, card."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.estimators.weights_file import CheckpointError


@dataclass(frozen=True, slots=True)
class Source:
    """The public code that writes a layout.

    Args:
        repository: "owner/name".
        url: URL of the repository.
        commit: Commit whose layout was read.
        license: Licence of the code. The terms of trained weights are their publisher's.
    """

    repository: str
    url: str
    commit: str
    license: str


def _nothing(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """One layout, described in one file of this package.

    A "network" is a card's description of one: ``{"name": "hg8", "num_keypoints": 16, ...}``.

    Args:
        name: Name of the layout, "hourglass_princeton".
        source: Repository that it comes from.
        layout: Description for messages: "a stacked hourglass of owner/name".
        recognises: Whether these keys (prefixes stripped) have this layout.
        network: Function that reads the network's description from the names and shapes of the original state.
        names: Function of a network: our name to the public name of every tensor. Raises ``CheckpointError`` for a
            network that the layout does not support.
        input: Size, crop and normalisation of the original code; or a function of the network that returns them.
        skeletons: Default skeleton of the layout by number of keypoints, used if the user gives none.
        codec: ``{"name": "heatmap", ...}``, or a function of the network that returns it.
        notes: What a user of these weights should know.
        part: Whether the layout contains a whole network or only a backbone, whose "network" is a table of
            ``BACKBONES`` and which has neither skeletons nor a codec.
        never_run: Function of a network: public name to shape of tensors that the original stores but never runs. They
            may be missing; when the layout is written, they are zero.
        excluded: Prefixes of public names that may be present but are not needed, such as a classifier's.
        older: Prefixes of public names in earlier files, to their current form.
        flat: Function of a network: our names of 1x1 kernels that the original stores as linear layers, ``(out, in)``.
        pointwise: Function of a network: our names of linear layers, ``(out, in)``, that the original stores as 1x1
            kernels.
        doubt: What the names do not show (publisher, input size, codec): what is assumed, and what to do if that is
            wrong.
        reference: Original state and normalised images ``(B, 3, H, W)`` to the last heatmaps ``(B, K, h, w)``, computed
            from the original names without any code from ``networks``; for a backbone, to its levels, finest first.
            None if no certificate can be made.
        compares: What a certificate compares: the heatmaps and the keypoints decoded from them; or every output of the
            last stage, which the reference then returns by name.
    """

    name: str
    source: Source
    layout: str
    recognises: Callable[[Collection[str]], bool]
    network: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    names: Callable[[Mapping[str, Any]], dict[str, str]]
    input: InputSpec | Callable[[Mapping[str, Any]], InputSpec]
    skeletons: Mapping[int, Skeleton] = field(default_factory=dict)
    codec: Mapping[str, Any] | Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(default_factory=dict)
    notes: str = ""
    part: Literal["network", "backbone"] = "network"
    never_run: Callable[[Mapping[str, Any]], Mapping[str, tuple[int, ...]]] = _nothing
    excluded: tuple[str, ...] = ()
    older: Mapping[str, str] = field(default_factory=dict)
    flat: Callable[[Mapping[str, Any]], Collection[str]] = _nothing
    pointwise: Callable[[Mapping[str, Any]], Collection[str]] = _nothing
    doubt: str = ""
    reference: Callable[[Mapping[str, Tensor], Tensor], Tensor | list[Tensor] | Prediction] | None = None
    compares: Literal["heatmaps", "outputs"] = "heatmaps"

    def current(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state with the current public names; nothing is copied."""
        return {_renewed(name, self.older): tensor for name, tensor in state.items()}

    def rename(self, state: Mapping[str, Tensor], network: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return a state with ``current`` names under our names. Pure and strict; float32 tensors are not copied.

        Raises:
            CheckpointError: A tensor is missing or unexpected.
        """
        unused = [*self.never_run(network), *(name for name in state if name.startswith(self.excluded))]
        renamed = take(state, self.names(network), unused=unused, layout=self.layout)
        for name in self.flat(network):
            if renamed[name].ndim == 2:
                renamed[name] = renamed[name][:, :, None, None]
        for name in self.pointwise(network):
            if renamed[name].shape[2:] == (1, 1):
                renamed[name] = renamed[name][:, :, 0, 0]
        return renamed

    def publish(self, state: Mapping[str, Tensor], network: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return one of our states with the public names and shapes: the inverse of ``rename``, unused tensors zero."""
        flat, pointwise = set(self.flat(network)), set(self.pointwise(network))
        public: dict[str, Tensor] = {}
        for new, old in self.names(network).items():
            public[old] = state[new].flatten(1) if new in flat else state[new]
            if new in pointwise:
                public[old] = state[new][:, :, None, None]
        for name, shape in self.never_run(network).items():
            counts = name.endswith("num_batches_tracked")
            public[name] = torch.zeros(shape, dtype=torch.int64 if counts else torch.float32)
        return public

    def input_of(self, network: Mapping[str, Any]) -> InputSpec:
        """Return size, crop and normalisation for a network."""
        return self.input if isinstance(self.input, InputSpec) else self.input(network)

    def codec_of(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """Return the codec's table for a network."""
        return dict(self.codec(network) if callable(self.codec) else self.codec)


def _renewed(name: str, older: Mapping[str, str]) -> str:
    for start, now in older.items():
        if name.startswith(start):
            return now + name.removeprefix(start)
    return name


def take(
    state: Mapping[str, Tensor], sources: Mapping[str, str], *, unused: Collection[str] = (), layout: str
) -> dict[str, Tensor]:
    """Return the tensors of ``state`` under new names, floating point as float32, and nothing else.

    The counters ``num_batches_tracked`` may be missing, as before PyTorch 0.4.1; they are set to zero.

    Args:
        state: Old name to tensor. Tensors that are float32 already are not copied.
        sources: New name to old name.
        unused: Old names that may be present but are not needed.
        layout: Description of the layout, for the message.

    Raises:
        CheckpointError: A tensor is missing or unexpected.
    """
    missing = [old for old in sources.values() if old not in state and not old.endswith("num_batches_tracked")]
    known = {*sources.values(), *unused}
    left = [old for old in state if old not in known]
    if missing or left:
        found = [f"missing: {listed(missing)}"] if missing else []
        found += [f"unexpected: {listed(left)}"] if left else []
        raise CheckpointError(
            f"The checkpoint looks like {layout} but does not match it exactly: {'; '.join(found)}. "
            "Only the layout as published by its authors is supported."
        )
    renamed: dict[str, Tensor] = {}
    for new, old in sources.items():
        tensor = state[old].detach() if old in state else torch.zeros((), dtype=torch.int64)
        renamed[new] = tensor.float() if tensor.is_floating_point() else tensor
    return renamed


def normalisation(new: str, old: str) -> dict[str, str]:
    """Return new name to old name for the five tensors of a batch norm."""
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{new}.{leaf}": f"{old}.{leaf}" for leaf in leaves}


def convolution(new: str, old: str) -> dict[str, str]:
    """Return new name to old name for a convolution with a bias."""
    return {f"{new}.weight": f"{old}.weight", f"{new}.bias": f"{old}.bias"}


def shape_of(state: Mapping[str, Tensor], name: str, ndim: int, layout: str) -> tuple[int, ...]:
    """Return the shape of a required tensor of a layout.

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
    """Return a card's description of a stacked hourglass: by its short name if it has one of the paper's sizes."""
    table: dict[str, Any] = {"name": f"hg{num_stacks}", "num_keypoints": num_keypoints}
    if num_stacks not in (1, 2, 4, 8) or (width, depth, num_blocks) != (256, 4, 1):
        table |= {"name": "stacked_hourglass", "num_stacks": num_stacks, "width": width, "depth": depth}
        table |= {"num_blocks": num_blocks}
    return table if stem == "newell" else table | {"stem": stem}


def hourglass_numbers(network: Mapping[str, Any], *, stem: str, layout: str) -> tuple[int, int, int, int]:
    """Return stacks, width, depth and residuals per position of a stacked hourglass: the inverse of ``hourglass``.

    Raises:
        CheckpointError: Another network, or an hourglass with another stem.
    """
    name = str(network["name"])
    short = name.removeprefix("hg")
    if network.get("stem", "newell") != stem or (name != "stacked_hourglass" and short not in ("1", "2", "4", "8")):
        raise CheckpointError(f"The network {dict(network)} is not {layout}; expected an hourglass with stem {stem!r}.")
    stacks = int(network.get("num_stacks", 8)) if name == "stacked_hourglass" else int(short)
    return stacks, int(network.get("width", 256)), int(network.get("depth", 4)), int(network.get("num_blocks", 1))
