"""Builds the network that a card describes, and checks that weights fit it by name and shape."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poseglass.backbones import BACKBONES
from poseglass.core.card import WeightCard
from poseglass.core.shapes_only import shapes_only
from poseglass.core.table import build, listed
from poseglass.estimators.weights_file import CheckpointError
from poseglass.networks import NETWORKS
from poseglass.networks.widths import apply_widths


def card_network(card: WeightCard, state: Mapping[str, Tensor] | None = None, *, trust_code: bool = False) -> nn.Module:
    """Build the network (or backbone) that a card describes, with its weights if given, in evaluation mode.

    If the card has widths, no more memory is used than the pruned network needs: the builder's network is only made on
    the meta device.

    Args:
        card: Describes the network.
        state: Its tensors; every one must fit. None leaves the network as initialised.
        trust_code: Allow a card to name a custom network, ``"package.module:name"``. This imports and calls code that
            the *file* chooses, so it is off by default.

    Raises:
        CheckpointError: The network is unknown, outside poseglass, cannot be built, does not match the card's widths or
            does not run with them, or the weights do not fit.
    """
    outside = named_code(card.network, "network")
    if outside and not trust_code:
        raise CheckpointError(
            f"Weights {card.name!r} ask for code outside poseglass: {outside}. Loading them would run that "
            "code. If it is yours, or you trust it, open them in Python with trust_code=True."
        )
    try:
        if state is None or outside:
            network = _built(card)
        else:
            # First on the meta device, so that a card that does not match its file costs no memory.
            _check_numbers(card, state)
            with shapes_only():
                hollow = _built(card)
            check_fit(hollow, state, source=card.name)
            if card.widths:
                _check_runs(hollow, card)
                network = hollow.to_empty(device=torch.get_default_device())
            else:
                network = _built(card)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"Weights {card.name!r}: their network cannot be built. {error}") from error
    if state is not None:
        load_strictly(network, state, source=card.name)
    return network.eval()


def _built(card: WeightCard) -> nn.Module:
    """Build what a card describes, with its widths, on the default device.

    Raises:
        CheckpointError: What was built is not a network.
        LookupError, TypeError, ValueError: It cannot be built, or the widths do not match it.
    """
    numbers = dict(card.network)
    name = str(numbers.pop("name", ""))
    network = build(BACKBONES if card.part == "backbone" else NETWORKS, name, **numbers)
    if not isinstance(network, nn.Module):
        raise CheckpointError(f"Weights {card.name!r}: {name!r} made a {type(network).__name__}, not a network.")
    apply_widths(network, card.widths)
    return network


def _check_runs(hollow: nn.Module, card: WeightCard) -> None:
    """Run a network on the meta device (shapes only), to check that the widths of its modules fit each other.

    Raises:
        CheckpointError: They do not.
    """
    width, height = card.input.size_wh
    try:
        with torch.no_grad():
            hollow.eval()(torch.empty(1, 3, height, width, device="meta"))
    except ValueError:
        return  # an unsupported input size is reported when the network is used
    except RuntimeError as error:
        if "meta" in str(error).lower():
            return  # it needs values, which the meta device does not have
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"Weights {card.name!r}: with the widths of their card ({len(card.widths)} modules) the network does not "
            f"run on an input of {width} x {height} pixels: {reason.rstrip('.')}. Modules that follow each other, and "
            "maps that are added, need the same number of channels. Write the card's widths with "
            "poseglass.networks.widths.card_widths, from a network that runs."
        ) from error


def named_code(table: Mapping[str, Any], kind: str) -> str:
    """Return where a card's table names code outside poseglass, at any depth, and its name; else an empty string.

    Example:
        >>> named_code({"name": "cpn", "backbone": {"name": "my.code:Thing"}}, "network")
        "network.backbone 'my.code:Thing'"
    """
    for where, value in _leaves(table, kind):
        if isinstance(value, str) and ":" in value:
            return f"{where.removesuffix('.name')} {value!r}"
    return ""


def _leaves(table: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield location and value of every entry of a card's table, including nested tables and lists."""
    waiting = [(where, table)]  # not recursive: a card may be nested arbitrarily deep
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{where}.{key}", inner) for key, inner in reversed([*value.items()])]
        elif isinstance(value, list | tuple):
            waiting += [(where, inner) for inner in reversed(value)]
        else:
            yield where, value


_CHANNELS = ("num_keypoints", "num_classes", "features", "size_wh")
"""Numbers of a network's table, besides widths, that are sides of its tensors instead of counts of parts."""


def _check_numbers(card: WeightCard, state: Mapping[str, Tensor]) -> None:
    """Raise if a card describes a network larger than its file can fill, before one is built.

    No count of stacks, levels or blocks exceeds the number of tensors, and no width exceeds their longest side. This
    also applies to the parts that the network's table names. If the card has widths, those in the table may be larger,
    since that network is only built on the meta device; but no width of a module exceeds the number of values in its
    tensors.
    """
    longest = max((max(value.shape, default=1) for value in state.values() if value.numel()), default=1)
    for where, value in _leaves(card.network, "network"):
        key = where.rpartition(".")[2]
        if card.widths and "width" in key:
            continue
        most = longest if "width" in key or key in _CHANNELS else len(state)
        if isinstance(value, int | float) and value > most:
            raise CheckpointError(
                f"Weights {card.name!r}: their card says {where} = {value}, but the file has {len(state)} "
                f"tensors with sides of at most {longest}. The card belongs to other weights; fetch the file again."
            )
    held: dict[str, int] = {}
    for name, tensor in state.items() if card.widths else ():
        module = name.rpartition(".")[0]
        held[module] = max(held.get(module, 0), tensor.numel())
    for module, numbers in card.widths.items():
        for key, value in numbers.items():
            if value > held.get(module, longest):
                raise CheckpointError(
                    f"Weights {card.name!r}: their card says widths[{module!r}][{key!r}] = {value}, but no tensor of "
                    f"{module!r} in the file has more than {held.get(module, longest)} values. The card belongs to "
                    "other weights; fetch the file again."
                )


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, source: str = "weights") -> None:
    """Copy a state into a network; every name and every shape must agree.

    Raises:
        CheckpointError: They do not, as in ``check_fit``; the network is not changed.
    """
    check_fit(network, state, source=source)
    network.load_state_dict(dict(state), strict=True)


def check_fit(network: nn.Module, state: Mapping[str, Tensor], *, source: str = "weights") -> None:
    """Raise unless a state has the names and shapes of a network, which may be on the meta device.

    Raises:
        CheckpointError: Lists what is missing, unexpected or of another shape. If only the number of keypoints differs,
            the message says so.
    """
    own = network.state_dict()
    findings = names_that_differ(own, state)
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if wrong and not findings:
        counts = counts_that_differ(own, state, wrong, keypoints_of(network))
        if counts is not None:
            raise CheckpointError(
                f"Weights {source!r} predict {counts[0]} keypoints; asked for {counts[1]}. Use a skeleton of "
                f"{counts[0]}, or train a network of {counts[1]} from them: train.init_from in a recipe."
            )
    if wrong:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in wrong]
        findings.append(f"of another shape: {listed(shapes)}")
    findings += types_that_differ(own, state)
    if findings:
        raise CheckpointError(
            f"Weights {source!r} do not fit the network ({len(own)} tensors expected, got {len(state)}): "
            f"{'; '.join(findings)}. Build the network that their card names"
            f"{', with the widths of its modules if channels were pruned (card.widths)' if wrong else ''}."
        )


def names_that_differ(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return descriptions of missing and unexpected tensors in a state, with shapes; empty if there are none."""
    missing = [f"{name} {tuple(own[name].shape)}" for name in own if name not in state]
    unexpected = [f"{name} {tuple(state[name].shape)}" for name in state if name not in own]
    findings = [f"missing: {listed(missing)}"] if missing else []
    return [*findings, f"unexpected: {listed(unexpected)}"] if unexpected else findings


def types_that_differ(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return descriptions of tensors that are integer or complex in a state but real in the network.

    PyTorch would convert them silently, and integers in place of weights (quantised ones, without their scale) would
    compute something else.
    """
    wrong = [
        f"{name} {str(state[name].dtype).removeprefix('torch.')} for {str(own[name].dtype).removeprefix('torch.')}"
        for name in own
        if name in state and own[name].is_floating_point() and not state[name].is_floating_point()
    ]
    return [f"of another type: {listed(wrong)}"] if wrong else []


def axis_that_differs(own: Tensor, other: Tensor) -> int:
    """Return the only axis in which two shapes differ, or -1."""
    if own.ndim != other.ndim:
        return -1
    axes = [i for i, (a, b) in enumerate(zip(own.shape, other.shape, strict=True)) if a != b]
    return axes[0] if len(axes) == 1 else -1


def keypoints_of(network: nn.Module) -> int | None:
    """Return how many keypoints a network states that it predicts, or None if it does not."""
    count = getattr(network, "num_keypoints", None)
    return count if isinstance(count, int) else None


def counts_that_differ(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], names: Sequence[str], num_keypoints: int | None = None
) -> tuple[int, int] | None:
    """Return (the state's, the network's) number of keypoints if that alone explains all mismatched tensors.

    Args:
        own: The network's tensors.
        state: The tensors to load.
        names: Names of the mismatched tensors.
        num_keypoints: The number that the network predicts, if it states one. If channels were removed from one block,
            shapes also differ by the same two numbers throughout, but seldom by that one.
    """
    found: set[tuple[int, int]] = set()
    for name in names:
        axis = axis_that_differs(own[name], state[name])
        if axis < 0:
            return None
        found.add((state[name].shape[axis], own[name].shape[axis]))
    # A narrower or deeper network also differs in single axes (every bias), but never by the same two numbers
    # throughout while most tensors agree.
    if len(found) != 1 or 2 * len(names) >= len(own):
        return None
    counts = found.pop()
    # the offset head has three maps per keypoint
    return counts if num_keypoints is None or counts[1] in (num_keypoints, 3 * num_keypoints) else None
