"""Weights that start another network: with other keypoints, or of the backbone alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from poseglass.core.card import WeightCard
from poseglass.core.table import listed
from poseglass.estimators.fit import (
    axis_that_differs,
    card_network,
    check_fit,
    counts_that_differ,
    keypoints_of,
    named_code,
    names_that_differ,
    types_that_differ,
)
from poseglass.estimators.weights_file import CheckpointError


@dataclass(frozen=True, slots=True)
class KeypointChannels:
    """Which channels of a network's tensors belong to which keypoint.

    Args:
        num_keypoints: K.
        axes: Name of a tensor to the axis along which the channels of the keypoints lie, those of keypoint 0 first.
            What comes behind the channels of all keypoints belongs to none.
        per_keypoint: Name of a tensor to the number of channels a keypoint has, which lie together.
    """

    num_keypoints: int
    axes: Mapping[str, int]
    per_keypoint: Mapping[str, int]


def keypoint_channels(card: WeightCard) -> KeypointChannels | None:
    """Return which channels belong to which keypoint, by building the network with one keypoint more (no memory taken).

    None where that cannot be known: a network outside poseglass, which would run its code, or one that is not built by
    its number of keypoints.

    Example:
        >>> from poseglass.core.input_spec import InputSpec
        >>> from poseglass.core.skeletons import LSP14
        >>> card = WeightCard("x", {"name": "hg1", "num_keypoints": 14}, {"name": "heatmap"}, LSP14, InputSpec())
        >>> keypoint_channels(card).axes
        {'outputs.0.heatmap.weight': 0, 'outputs.0.heatmap.bias': 0}
    """
    count = card.network.get("num_keypoints")
    if named_code(card.network, "network") or not isinstance(count, int):
        return None
    tables = ({**card.network, "num_keypoints": count + more} for more in (0, 1))
    with torch.device("meta"):
        here, more = (card_network(replace(card, network=table, widths={})).state_dict() for table in tables)
    axes = {name: axis_that_differs(here[name], more[name]) for name in here if here[name].shape != more[name].shape}
    if here.keys() != more.keys() or any(axis < 0 for axis in axes.values()):
        return None
    return KeypointChannels(count, axes, {n: more[n].shape[axis] - here[n].shape[axis] for n, axis in axes.items()})


def load_matching(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    from_keypoints: Sequence[str] = (),
    to_keypoints: Sequence[str] = (),
    channels: KeypointChannels | None = None,
    source: str = "weights",
) -> list[str]:
    """Copy a state into a network that predicts other keypoints: what depends on their number starts anew.

    Everything else must agree by name and shape. Where the keypoints of both sides are named, those that both have
    keep their weights (in the last layer, and wherever heatmaps are fed back), so that going from MPII's 16 to LSP's
    14 loses nothing. Channels go by the names of keypoints and never by their place: other names start anew though
    there are as many, and the same names in another order are copied to their new places.

    Args:
        network: Keeps its initial values wherever nothing is copied.
        state: Of a network that differs in its keypoints only.
        from_keypoints: Names that the state predicts, in order; may be left out.
        to_keypoints: Names that the network predicts, in order; may be left out.
        channels: Of the state's network, as ``keypoint_channels`` gives them. They are needed where the keypoints are
            as many and other ones, or in another order, which no shape shows.
        source: Name of the weights, for messages.

    Returns:
        The names of the tensors that kept initial values, wholly or in part.

    Raises:
        CheckpointError: A tensor is missing, unexpected, or differs by more than the number of keypoints, or keypoints
            differ and ``channels`` are not given to match them. The network is untouched.
    """
    own = network.state_dict()
    findings = names_that_differ(own, state) + types_that_differ(own, state)
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    counts = counts_that_differ(own, state, wrong, keypoints_of(network))
    if wrong and channels is not None and (counts is None or counts[0] != channels.num_keypoints):
        counts = _counts(own, state, wrong, channels)
    other_widths = bool(wrong) and counts is None and not findings
    if wrong and counts is None:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in wrong]
        findings.append(f"of another shape, in more than the number of keypoints: {listed(shapes)}")
    if findings:
        raise CheckpointError(
            f"Weights {source!r} cannot start this network: {'; '.join(findings)}.{_only_the_backbone(own, state)}"
            f"{_OTHER_WIDTHS if other_widths else ''}"
        )
    named = bool(from_keypoints) and bool(to_keypoints)
    if counts is not None and named:
        given = (len(from_keypoints), len(to_keypoints))
        if given != counts:
            raise CheckpointError(
                f"Weights {source!r} predict {counts[0]} keypoints and the network {counts[1]}, "
                f"but {given[0]} and {given[1]} names were given."
            )
    axes = {name: axis_that_differs(own[name], state[name]) for name in wrong}
    per_keypoint: Mapping[str, int] = {}
    if counts is None and named and tuple(from_keypoints) != tuple(to_keypoints):
        if channels is None:
            differing = [n for n, before in zip(to_keypoints, from_keypoints, strict=False) if n != before]
            raise CheckpointError(
                f"Weights {source!r} predict as many keypoints as the network, but other ones or in another order "
                f"({listed(differing)}), and which of their channels belong to which keypoint is not known. Give the "
                f"recipe a skeleton in the order of the weights: {', '.join(from_keypoints)}."
            )
        axes = dict(channels.axes)
    if channels is not None:
        per_keypoint = channels.per_keypoint
    elif counts is not None:
        per_keypoint = {name: max(1, state[name].shape[axis] // counts[0]) for name, axis in axes.items()}
    merged = {name: state[name] for name in own if name not in axes}
    begun: list[str] = []
    shared = [name for name in to_keypoints if name in from_keypoints]
    for name, axis in axes.items():
        per = per_keypoint.get(name, 1)
        value = own[name].clone()
        places = [
            (to_keypoints.index(k) * per + i, from_keypoints.index(k) * per + i) for k in shared for i in range(per)
        ]
        if counts is None or named:  # what belongs to no keypoint lies behind the channels of all
            ours, theirs = len(to_keypoints) * per, len(from_keypoints) * per
            places += [(ours + i, theirs + i) for i in range(value.shape[axis] - ours)]
        if places:
            here, there = torch.tensor(places, dtype=torch.long).unbind(-1)
            value.index_copy_(axis, here.to(value.device), state[name].index_select(axis, there).to(value))
        if len(places) < value.shape[axis]:
            begun.append(name)
        merged[name] = value
    network.load_state_dict(merged, strict=True)
    return begun


def _counts(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], wrong: Sequence[str], channels: KeypointChannels
) -> tuple[int, int] | None:
    """Return (the state's, the network's) number of keypoints when that alone explains all misshapen tensors."""
    found: set[float] = set()
    for name in wrong:
        axis = axis_that_differs(own[name], state[name])
        if name not in channels.axes or axis != channels.axes[name]:
            return None
        found.add((own[name].shape[axis] - state[name].shape[axis]) / channels.per_keypoint[name])
    more = found.pop() if len(found) == 1 else 0.5
    return (channels.num_keypoints, channels.num_keypoints + int(more)) if more.is_integer() else None


_OTHER_WIDTHS = (
    " The modules are the same and their widths are not. Build the network with the numbers that the weights' card "
    "states, and where channels were pruned with its widths: poseglass.networks.widths.apply_widths(network, "
    'card.widths), or widths = "init_from" in a recipe.'
)


def load_backbone(network: nn.Module, state: Mapping[str, Tensor], *, source: str = "weights") -> list[str]:
    """Copy the state of a backbone into the one of a network; what is above it keeps its initial values.

    A network may use less of a backbone than was trained: HRNet for pose has no way to its coarser outputs, a light
    neck leaves out the last convolution of MobileNetV3.

    Args:
        network: Has a ``backbone``.
        state: Holds every tensor of that backbone, in its shape.
        source: Name of the weights, for messages.

    Returns:
        The names in ``state`` that the network's backbone has no place for.

    Raises:
        CheckpointError: The network has no backbone, or another one. The network is untouched.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise CheckpointError(
            f"Weights {source!r} are a backbone, and {type(network).__name__} has none to start. Take a network with a "
            'backbone, or compose one: network = {name = "composed", backbone = {name = ...}, neck = {name = ...}}.'
        )
    own = backbone.state_dict()
    unused = [name for name in state if name not in own]
    used = {name: tensor for name, tensor in state.items() if name in own}
    try:
        check_fit(backbone, used, source=source)
    except CheckpointError as error:
        raise CheckpointError(f"The network's backbone is another one. {error}") from None
    backbone.load_state_dict(used, strict=True)
    return unused


def _only_the_backbone(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return a sentence for weights of a network that has the same backbone under another neck or head, or nothing."""
    ours, theirs = ({k: v.shape for k, v in s.items() if k.startswith("backbone.")} for s in (own, state))
    if not ours or ours != theirs:
        return ""
    return (
        " The backbones are the same and what is above them is not: a network's weights start a network of the same "
        "neck and head, with other keypoints at most. Take that neck and head, or start from weights of the backbone "
        "alone."
    )
