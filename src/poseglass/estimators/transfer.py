"""Weights that start another network: with other keypoints, or of the backbone alone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from poseglass.core.table import listed
from poseglass.estimators.fit import (
    axis_that_differs,
    check_fit,
    counts_that_differ,
    keypoints_of,
    names_that_differ,
)
from poseglass.estimators.weights_file import CheckpointError


def load_matching(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    from_keypoints: Sequence[str] = (),
    to_keypoints: Sequence[str] = (),
    source: str = "weights",
) -> list[str]:
    """Copy a state into a network that predicts other keypoints: what depends on their number starts anew.

    Everything else must agree by name and shape. Where the keypoints of both sides are named, those that both have
    keep their weights (in the last layer, and wherever heatmaps are fed back), so that going from MPII's 16 to LSP's
    14 loses nothing. As many keypoints of other names cannot be told from the same ones by shape: those weights are
    kept in their order, and training has to turn them; the same names in another order are refused.

    Args:
        network: Keeps its initial values wherever nothing is copied.
        state: Of a network that differs in ``num_keypoints`` only.
        from_keypoints: Names that the state predicts, in order; may be left out.
        to_keypoints: Names that the network predicts, in order; may be left out.
        source: Name of the weights, for messages.

    Returns:
        The names of the tensors that kept initial values, wholly or in part.

    Raises:
        CheckpointError: A tensor is missing, unexpected, or differs by more than the number of keypoints, or the same
            keypoints stand in another order. The network is untouched.
    """
    own = network.state_dict()
    findings = names_that_differ(own, state)
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    counts = counts_that_differ(own, state, wrong, keypoints_of(network))
    other_widths = bool(wrong) and counts is None and not findings
    if wrong and counts is None:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in wrong]
        findings.append(f"of another shape, in more than the number of keypoints: {listed(shapes)}")
    if findings:
        raise CheckpointError(
            f"Weights {source!r} cannot start this network: {'; '.join(findings)}.{_only_the_backbone(own, state)}"
            f"{_OTHER_WIDTHS if other_widths else ''}"
        )
    if counts is not None and from_keypoints and to_keypoints:
        given = (len(from_keypoints), len(to_keypoints))
        if given != counts:
            raise CheckpointError(
                f"Weights {source!r} predict {counts[0]} keypoints and the network {counts[1]}, "
                f"but {given[0]} and {given[1]} names were given."
            )
    moved = [n for n in to_keypoints if n in from_keypoints and from_keypoints.index(n) != to_keypoints.index(n)]
    if counts is None and moved:
        raise CheckpointError(
            f"Weights {source!r} predict as many keypoints as the network, with the same names in another order "
            f"({listed(moved)}). Give the recipe a skeleton in the order of the weights: {', '.join(from_keypoints)}."
        )
    merged = {name: state[name] for name in own if name not in wrong}
    begun: list[str] = []
    shared = [name for name in to_keypoints if name in from_keypoints]
    here = torch.tensor([to_keypoints.index(name) for name in shared], dtype=torch.long)
    there = torch.tensor([from_keypoints.index(name) for name in shared], dtype=torch.long)
    for name in wrong:
        axis = axis_that_differs(own[name], state[name])
        value = own[name].clone()
        if shared:
            value.index_copy_(axis, here.to(value.device), state[name].index_select(axis, there).to(value))
        if len(shared) < value.shape[axis]:
            begun.append(name)
        merged[name] = value
    network.load_state_dict(merged, strict=True)
    return begun


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
