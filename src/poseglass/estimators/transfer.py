"""Initialises a network from weights with other keypoints, or from weights of the backbone only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from poseglass.core.card import WeightCard
from poseglass.core.shapes_only import shapes_only
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
        num_keypoints: Number of keypoints, K.
        axes: Name of a tensor to the axis of its keypoint channels, those of keypoint 0 first. Channels after those of
            all keypoints belong to none.
        per_keypoint: Name of a tensor to the number of channels per keypoint, which are adjacent.
    """

    num_keypoints: int
    axes: Mapping[str, int]
    per_keypoint: Mapping[str, int]


def keypoint_channels(card: WeightCard) -> KeypointChannels | None:
    """Return which channels belong to which keypoint, by building the network with one more keypoint (uses no memory).

    None if that cannot be determined: a network outside poseglass, which would run its code, or one that is not built
    from its number of keypoints.

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
    with shapes_only():
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
    """Copy a state into a network that predicts other keypoints; what depends on their number is reinitialised.

    Everything else must agree by name and shape. If the keypoints of both sides have names, those that both have keep
    their weights (in the last layer, and wherever heatmaps are fed back), so that going from MPII's 16 to LSP's 14
    loses nothing. Channels are matched by the names of keypoints and never by position: other names are reinitialised
    even if the number is the same, and the same names in another order are copied to their new positions.

    Args:
        network: Keeps its initial values wherever nothing is copied.
        state: State of a network that differs only in its keypoints.
        from_keypoints: Names that the state predicts, in order; optional.
        to_keypoints: Names that the network predicts, in order; optional.
        channels: Channels of the state's network, from ``keypoint_channels``. They are needed if the number of
            keypoints is the same but their names or order differ, which does not show in any shape.
        source: Name of the weights, for messages.

    Returns:
        The names of the tensors that kept initial values, wholly or in part.

    Raises:
        CheckpointError: A tensor is missing, unexpected, or differs by more than the number of keypoints, or keypoints
            differ and ``channels`` are not given to match them. The network is not changed.
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
            f"Weights {source!r} cannot start this network: {'; '.join(findings)}."
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
                f"Weights {source!r} predict as many keypoints as the network, but different ones or in another order "
                f"({listed(differing)}), and it is not known which of their channels belong to which keypoint. Give "
                f"the recipe a skeleton in the order of the weights: {', '.join(from_keypoints)}."
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
        if counts is None or named:  # channels of no keypoint come after those of all keypoints
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


def to_other_classes(
    network: nn.Module, state: Mapping[str, Tensor], card: WeightCard, classes: Sequence[str]
) -> tuple[dict[str, Tensor], str]:
    """Return a state for a network that tells other classes: those of the same name keep their weights.

    Args:
        network: Its values are those of new classes.
        state: State of the card's network.
        card: Names the classes of the state.
        classes: Names of the network's classes.

    Returns:
        The state, and a sentence about the classes that begins with a space. The state as it is, and "", if both have
        the same classes, or one each, or if it differs in more than the number of classes. If the card does not name
        its classes, as that of a public classifier, and their number is another, all are new.
    """
    theirs, ours = tuple(card.classes), tuple(classes)
    if not theirs and ours:
        return _all_new(network, state, card)
    if not theirs or not ours or theirs == ours or len(theirs) == len(ours) == 1:
        return dict(state), ""
    own = network.state_dict()
    if len(theirs) == len(ours):
        axes = _class_axes(card)
    else:
        wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
        axes = {name: axis_that_differs(own[name], state[name]) for name in wrong}
    counts = (len(ours), len(theirs))
    if any(axis < 0 or (own[n].shape[axis], state[n].shape[axis]) != counts for n, axis in axes.items()):
        return dict(state), ""
    shared = [name for name in ours if name in theirs]
    found = dict(state)
    for name, axis in axes.items():
        here, there = (torch.tensor([c.index(one) for one in shared], dtype=torch.long) for c in (ours, theirs))
        value = own[name].clone()
        if shared:
            value.index_copy_(axis, here.to(value.device), state[name].index_select(axis, there).to(value))
        found[name] = value
    new = [name for name in ours if name not in theirs]
    said = f" {len(shared):,} of {len(ours):,} classes are in both and keep their weights, matched by name"
    return found, f"{said}; new, from initial values: {listed(new)}." if new else f"{said}."


def _all_new(network: nn.Module, state: Mapping[str, Tensor], card: WeightCard) -> tuple[dict[str, Tensor], str]:
    """Return the state with the network's own values where only the number of classes differs, and a sentence."""
    own = network.state_dict()
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    axes = _class_axes(card) if wrong else {}
    if not wrong or any(axis_that_differs(own[name], state[name]) != axes.get(name, -2) for name in wrong):
        return dict(state), ""
    count = state[wrong[0]].shape[axes[wrong[0]]]
    return dict(state) | {name: own[name] for name in wrong}, (
        f" The weights do not name their {count:,} classes, so that the layer that tells them has initial values: "
        f"{listed(wrong)}."
    )


def _class_axes(card: WeightCard) -> dict[str, int]:
    """Return the axis of the classes of each tensor that has one, by building the network with one more class."""
    table = {key: value for key, value in card.network.items()}
    inner = table["head"] if isinstance(table.get("head"), dict) else {}
    holder = table if "num_classes" in table else inner
    if named_code(card.network, "network") or not isinstance(holder.get("num_classes"), int):
        return {}
    more = {"num_classes": holder["num_classes"] + 1}
    larger = {**table, **more} if holder is table else {**table, "head": {**inner, **more}}
    with shapes_only():
        here, there = (card_network(replace(card, network=t, widths={})).state_dict() for t in (table, larger))
    return {n: axis_that_differs(here[n], there[n]) for n in here if here[n].shape != there[n].shape}


def _counts(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], wrong: Sequence[str], channels: KeypointChannels
) -> tuple[int, int] | None:
    """Return (the state's, the network's) number of keypoints if that alone explains all mismatched tensors."""
    found: set[float] = set()
    for name in wrong:
        axis = axis_that_differs(own[name], state[name])
        if name not in channels.axes or axis != channels.axes[name]:
            return None
        found.add((own[name].shape[axis] - state[name].shape[axis]) / channels.per_keypoint[name])
    more = found.pop() if len(found) == 1 else 0.5
    return (channels.num_keypoints, channels.num_keypoints + int(more)) if more.is_integer() else None


_OTHER_WIDTHS = (
    " The modules are the same but their widths differ. Build the network with the arguments that the weights' card "
    "states, and if channels were pruned, with its widths: poseglass.networks.widths.apply_widths(network, "
    'card.widths), or widths = "init_from" in a recipe.'
)


def load_backbone(network: nn.Module, state: Mapping[str, Tensor], *, source: str = "weights") -> list[str]:
    """Copy the state of a backbone into that of a network; the neck and head keep their initial values.

    A network may use less of a backbone than was trained: HRNet for pose does not use its coarser outputs, and a light
    neck omits the last convolution of MobileNetV3.

    Args:
        network: Has a ``backbone``.
        state: Contains every tensor of that backbone, with matching shapes.
        source: Name of the weights, for messages.

    Returns:
        The names in ``state`` that the network's backbone does not have.

    Raises:
        CheckpointError: The network has no backbone, or a different one. The network is not changed.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise CheckpointError(
            f"Weights {source!r} are a backbone, but {type(network).__name__} has none. Use a network with a "
            'backbone, or compose one: network = {name = "composed", backbone = {name = ...}, neck = {name = ...}}.'
        )
    own = backbone.state_dict()
    unused = [name for name in state if name not in own]
    used = {name: tensor for name, tensor in state.items() if name in own}
    try:
        check_fit(backbone, used, source=source)
    except CheckpointError as error:
        raise CheckpointError(f"The network has a different backbone. {error}") from None
    backbone.load_state_dict(used, strict=True)
    return unused


def load_trunk(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy the backbone of a network with another head into a network, and the neck if that is the same too.

    Args:
        network: The rest of it keeps its initial values. It is not changed if nothing is copied.
        state: State of a network, such as a pose network that a detector is to start from.

    Returns:
        What was copied, ("backbone", "neck") or ("backbone",); empty if the backbones differ, or nothing else does.
    """
    own = network.state_dict()
    if not names_that_differ(own, state):
        return ()
    parts: list[str] = []
    for part in ("backbone", "neck"):
        ours, theirs = ({k: v.shape for k, v in s.items() if k.startswith(f"{part}.")} for s in (own, state))
        if ours and ours == theirs:
            parts.append(part)
        elif part == "backbone":
            return ()
    for part in parts:
        inside = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        network.get_submodule(part).load_state_dict(inside, strict=True)
    return tuple(parts)
