"""Which input channels each output channel of a module depends on, whatever the module is made of.

Zhang, "clcNet", CVPR 2018, https://arxiv.org/abs/1712.06145, calls the bipartite graph of inputs and outputs the
channel dependency graph, the inputs of one output its channel receptive field, and that field full if it holds every
input. Grouped convolutions are cheap because their fields are not full; the paper's hypothesis is that a block of them
should reach the full field all the same.

Two independent ways find the graph. By graph: the module runs once on a small image, and every operation of PyTorch
passes on which inputs its outputs depend on: convolutions by their groups, normalisations, activations, pooling, sums,
products, concatenations, permutations and reshapes by their definition. The values of weights do not count. By
gradient: one backward pass for each output channel, in double precision with random weights, shows which inputs it
moves. The first is fast and names the operation that it cannot follow; the second follows everything that has a
gradient. Both must agree, and ``by="both"`` asserts it.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from poseglass.core.table import listed


class ChannelTraceError(ValueError):
    """The dependency of channels could not be followed."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGraph:
    """The channel dependency graph of a module.

    Args:
        depends: ``(outputs, inputs)`` bool: whether an output channel depends on an input channel.
    """

    depends: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Size of each output's channel receptive field, ``(outputs,)``."""
        return self.depends.sum(1)

    @property
    def full(self) -> bool:
        """Whether every output depends on every input."""
        return bool(self.depends.all())

    def field(self, output: int) -> list[int]:
        """Return the input channels that an output channel depends on, in ascending order."""
        return np.flatnonzero(self.depends[output]).tolist()

    def after(self, before: "ChannelGraph") -> "ChannelGraph":
        """Return the graph of the module whose graph is ``before``, followed by this one.

        Raises:
            ValueError: The outputs of ``before`` are not as many as the inputs of this one.
        """
        if before.depends.shape[0] != self.depends.shape[1]:
            raise ValueError(
                f"The first module has {before.depends.shape[0]} output channels, but the second takes "
                f"{self.depends.shape[1]}."
            )
        return ChannelGraph((self.depends.astype(np.float32) @ before.depends.astype(np.float32)) > 0)


def channel_receptive_field(
    module: nn.Module,
    in_channels: int,
    *,
    by: Literal["graph", "gradient", "both"] = "graph",
    side: int = 16,
    output: Callable[[Any], Tensor] | None = None,
    own_weights: bool = False,
) -> ChannelGraph:
    """Return which input channels each output channel of a module depends on, at any position.

    The module is left as it is; it runs in evaluation mode, so dropout changes nothing.

    Args:
        module: Maps features ``(B, in_channels, h, w)`` to a tensor ``(B, C, ...)``, or to whatever ``output`` picks
            such a tensor from. A module that starts with a linear layer takes ``(B, in_channels)``.
        in_channels: Number of input channels.
        by: "graph": follow the operations; "gradient": random weights and backward passes, one for each output
            channel; "both": do both, which must agree.
        side: Height and width of the features that the module runs on, in pixels; a multiple of its strides. 0 runs it
            on ``(B, in_channels)``.
        output: Picks the tensor from what the module returns, such as ``lambda levels: levels[-1]``.
        own_weights: With "gradient", keep the module's weights: then a channel whose weights are 0 is no dependency.
            Otherwise they are replaced by random ones, in a copy.

    Raises:
        ChannelTraceError: An operation that cannot be followed (its name and the module that calls it are given), an
            output that is no tensor of channels, or the two ways do not agree.
        ValueError: A number below one, or an unknown way.

    Source:
        Zhang 2018, figures 2 to 5.

    Example:
        >>> block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1, groups=2))
        >>> graph = channel_receptive_field(block, 8, by="both")
        >>> graph.full, graph.field(0)
        (False, [0, 1, 2, 3])
    """
    if in_channels < 1 or side < 0:
        raise ValueError(
            f"channel_receptive_field: in_channels must be at least 1 and side at least 0, got {in_channels} and "
            f"{side}."
        )
    if by not in ("graph", "gradient", "both"):
        raise ValueError(f"channel_receptive_field: by must be 'graph', 'gradient' or 'both', got {by!r}.")
    if own_weights and by != "gradient":
        raise ValueError("channel_receptive_field: own_weights is for by='gradient'; a graph has no weights.")
    shape = (in_channels, side, side) if side else (in_channels,)
    pick = output or _only_tensor
    if by == "graph":
        return _by_graph(module, shape, pick)
    if by == "gradient":
        return _by_gradient(module, shape, pick, own_weights=own_weights)
    found = _by_graph(module, shape, pick), _by_gradient(module, shape, pick, own_weights=False)
    differs = found[0].depends != found[1].depends
    if differs.any():
        one, of = (int(i) for i in np.argwhere(differs)[0])
        words = ("depends", "does not") if found[0].depends[one, of] else ("does not depend", "does")
        raise ChannelTraceError(
            f"By its graph, output channel {one} {words[0]} on input channel {of}, by its gradient it {words[1]}; "
            f"{int(differs.sum())} of {differs.size} pairs differ. An operation without a gradient (arg max, rounding) "
            "or one that cancels a channel explains this; please report any other."
        )
    return found[0]


@dataclass(frozen=True, slots=True, eq=False)
class BlockGraphs:
    """The graphs of the blocks of a network.

    Args:
        graphs: By module name, in the network's order.
        skipped: Blocks that have no graph, by module name, each with the reason.
    """

    graphs: dict[str, ChannelGraph]
    skipped: dict[str, str]


def block_graphs(network: nn.Module, size_wh: tuple[int, int], *, names: Sequence[str] | None = None) -> BlockGraphs:
    """Return the graph of every block of a network, by module name, each from the block's input to its output.

    Blocks are what the network repeats: elements of ``nn.Sequential`` and ``nn.ModuleList`` with two convolutions or
    more, without another such block inside.

    Args:
        network: Maps images ``(B, 3, H, W)`` to any output.
        size_wh: Size of the image that finds the shapes, pixels.
        names: Modules to analyse instead, as in ``named_modules``, even if they are no blocks. None may be skipped.

    Raises:
        ChannelTraceError: A module of ``names`` has an operation that cannot be followed, or does not map one tensor
            to one.
        LookupError: The network has no module of that name.
        ValueError: The network does not accept this size.
    """
    modules = dict(network.named_modules())
    unknown = [name for name in names or () if name not in modules]
    if unknown:
        known = listed([name for name in modules if name])
        raise LookupError(f"The network has no module {unknown[0]!r}. It has {known}; see named_modules().")
    chosen = list(names) if names is not None else _blocks(network)
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and name not in shapes:
                shapes[name] = tuple(inputs[0].shape[1:])

        return hook

    first = next(network.parameters(), torch.empty(0))
    image = torch.zeros(1, 3, size_wh[1], size_wh[0], dtype=first.dtype, device=first.device)
    with ExitStack() as stack:
        for name in chosen:
            stack.callback(modules[name].register_forward_pre_hook(note(name)).remove)
        stack.enter_context(_evaluating(network))
        with torch.no_grad():
            network(image)
    graphs: dict[str, ChannelGraph] = {}
    skipped: dict[str, str] = {}
    for name in chosen:
        try:
            if name not in shapes:
                raise ChannelTraceError("It is not called with a single tensor. Choose a module that maps one to one.")
            graphs[name] = _by_graph(modules[name], shapes[name], _only_tensor)
        except ChannelTraceError as error:
            if names is not None:
                raise ChannelTraceError(f"{name or 'The network'}: {error}") from None
            skipped[name] = str(error)
    return BlockGraphs(graphs, skipped)


def step_graphs(module: nn.Module, in_channels: int, *, side: int = 16) -> dict[str, ChannelGraph]:
    """Return the graphs of the steps of a module that applies its children one after the other, for a drawing.

    Children that pass every channel on to its own place (norms, activations) are left out.

    Args:
        module: Its children are applied in the order in which they are registered.
        in_channels: Number of input channels.
        side: As in ``channel_receptive_field``.

    Raises:
        ChannelTraceError: A child cannot be followed, or the steps together are not the whole, as in a residual block.
    """
    steps: dict[str, ChannelGraph] = {}
    channels, together = in_channels, ChannelGraph(np.eye(in_channels, dtype=bool))
    whole = channel_receptive_field(module, in_channels, side=side)
    for name, child in module.named_children():
        try:
            step = channel_receptive_field(child, channels, side=side)
            together, channels = step.after(together), step.depends.shape[0]
        except (RuntimeError, ValueError) as error:
            raise ChannelTraceError(f"{name} does not take what comes before it: {error}") from None
        if not np.array_equal(step.depends, np.eye(channels, dtype=bool)):
            steps[name] = step
    if not np.array_equal(together.depends, whole.depends):
        raise ChannelTraceError(
            "The children of this module, one after the other, are not the whole module (it has a sum or a branch). "
            "Draw it as one step with channel_receptive_field."
        )
    return steps


def _blocks(network: nn.Module) -> list[str]:
    def convolutions(module: nn.Module) -> int:
        return sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in module.modules())

    elements = {
        f"{name}.{key}" if name else key: child
        for name, module in network.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
        for key, child in module.named_children()
        if not isinstance(child, nn.ModuleList) and convolutions(child) > 1
    }
    return [name for name in elements if not any(other.startswith(f"{name}.") for other in elements)]


def _only_tensor(made: Any) -> Tensor:
    if not isinstance(made, Tensor):
        raise ChannelTraceError(
            f"The module returns a {type(made).__name__}, not a tensor. Pick one: output=lambda made: made[-1]."
        )
    return made


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


# ---------------------------------------------------------------------------------------------------- by gradient


def _by_gradient(
    module: nn.Module, shape: tuple[int, ...], pick: Callable[[Any], Tensor], *, own_weights: bool
) -> ChannelGraph:
    generator = torch.Generator().manual_seed(0)
    changed = copy.deepcopy(module).double().cpu().eval()
    found: np.ndarray | None = None
    unchanged = 0
    # An activation that is cut off hides a dependency, so draws are repeated until two in a row show nothing new.
    while unchanged < 2:
        if not own_weights:
            _randomise(changed, generator)
        drawn = _one_draw(changed, shape, pick, generator)
        unchanged = unchanged + 1 if found is not None and not (drawn & ~found).any() else 0
        found = drawn if found is None else found | drawn
    assert found is not None
    return ChannelGraph(found)


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Give a module random parameters that keep the size of what passes, so that few activations are cut off."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                values *= max(parameter[0].numel(), 1) ** -0.5
            elif name.endswith("bias"):
                values *= 0.1
            else:
                values = 1 + 0.1 * values
            parameter.copy_(values)


def _one_draw(
    module: nn.Module, shape: tuple[int, ...], pick: Callable[[Any], Tensor], generator: torch.Generator
) -> np.ndarray:
    """Return which inputs move which outputs, ``(outputs, inputs)``, for four random inputs."""
    features = torch.randn(4, *shape, generator=generator, dtype=torch.float64).requires_grad_(True)
    with torch.enable_grad():
        made = pick(module(features))
    if made.ndim < 2 or not made.is_floating_point():
        raise ChannelTraceError(f"The output must be features (B, C, ...), got {tuple(made.shape)} of {made.dtype}.")
    if not made.requires_grad:
        raise ChannelTraceError("The output has no gradient: the module detaches it, or computes it without gradients.")
    weights = torch.randn(made.shape, generator=generator, dtype=torch.float64)
    depends = np.zeros((made.shape[1], shape[0]), bool)
    for channel in range(made.shape[1]):
        chosen = made[:, channel] * weights[:, channel]
        gradient = torch.autograd.grad(chosen.sum(), features, retain_graph=True, allow_unused=True)[0]
        if gradient is not None:
            depends[channel] = gradient.abs().transpose(0, 1).flatten(1).amax(1).numpy() > 0
    return depends


# ------------------------------------------------------------------------------------------------------- by graph
#
# What is passed on for a tensor of shape (n0, n1, ...) is a bool array (m0, m1, ..., inputs), where m is either n or
# 1: 1 if all places along that axis depend on the same inputs, as all pixels of a channel do. So the axes of pixels
# cost nothing, and channels can be moved to other axes and back, as a shuffle does.

Known = np.ndarray


def _by_graph(module: nn.Module, shape: tuple[int, ...], pick: Callable[[Any], Tensor]) -> ChannelGraph:
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    features = torch.zeros(1, *shape, dtype=first.dtype, device=first.device)
    trace = _Trace()
    inputs = shape[0]
    trace.known[features] = np.eye(inputs, dtype=bool).reshape(1, inputs, *[1] * (len(shape) - 1), inputs)
    with ExitStack() as stack:
        for name, part in module.named_modules():
            words = f"{name or 'the module itself'} ({type(part).__name__})"
            stack.callback(part.register_forward_pre_hook(trace.enter(words)).remove)
            stack.callback(part.register_forward_hook(trace.leave).remove)
        stack.enter_context(_evaluating(module))
        with torch.no_grad(), trace:
            made = pick(module(features))
    if made.ndim < 2:
        raise ChannelTraceError(f"The output must be features (B, C, ...), got {tuple(made.shape)}.")
    known = trace.known.get(made)
    if known is None:
        return ChannelGraph(np.zeros((made.shape[1], inputs), bool))
    others = tuple(axis for axis in range(made.ndim) if axis != 1)
    return ChannelGraph(np.ascontiguousarray(np.broadcast_to(known.any(others), (made.shape[1], inputs))))


class _Trace(TorchDispatchMode):
    """Follows every operation; see above for what is known of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._inside: list[str] = []

    def enter(self, words: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._inside.append(words)

        return hook

    def leave(self, *_: Any) -> None:
        self._inside.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        tensors = [one for one in _flat((args, given)) if isinstance(one, Tensor)]
        followed = any(one in self.known for one in tensors)
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.startswith("_")
        rule = _RULES.get(name.rstrip("_") if in_place else name)
        if followed and rule is None:
            with self:
                made = func.decompose(*args, **given)
            if made is not NotImplemented:
                return made
            raise ChannelTraceError(self._refused(f"aten.{name}"))
        if in_place and name.rstrip("_") not in _EACH_PLACE and (followed or self._shares(args[0])):
            self._check_alone(args[0], name)
        made = func(*args, **given)
        if not followed:
            if in_place and args[0] in self.known:
                del self.known[args[0]]
            return made
        assert rule is not None
        try:
            found = rule(_Call(self.known, args, given, made))
        except _Unfollowed as error:
            raise ChannelTraceError(self._refused(f"aten.{name}: {error}")) from None
        for tensor, known in zip(_flat(made), found if isinstance(found, list) else [found], strict=False):
            if isinstance(tensor, Tensor) and known is not None:
                expected = tuple(n if m != 1 else 1 for n, m in zip(tensor.shape, known.shape[:-1], strict=True))
                assert known.shape[:-1] == expected, (name, tensor.shape, known.shape)
                self.known[tensor] = known
        return made

    def _refused(self, what: str) -> str:
        where = f" in {self._inside[-1]}" if self._inside else ""
        return (
            f"Channels cannot be followed through {what}{where}. Use by='gradient', which needs no rule for an "
            "operation, or analyse the modules around it."
        )

    def _shares(self, tensor: Tensor) -> bool:
        return any(other.untyped_storage()._cdata == tensor.untyped_storage()._cdata for other in self.known)

    def _check_alone(self, tensor: Tensor, name: str) -> None:
        """Raise if other tensors see what is written into this one: what is known of them would be wrong."""
        storage = tensor.untyped_storage()._cdata
        others = [other for other in self.known if other is not tensor and other.untyped_storage()._cdata == storage]
        if others or tensor._is_view():
            raise ChannelTraceError(self._refused(f"aten.{name}, which writes into a part of another tensor"))


class _Unfollowed(Exception):
    """A rule does not cover this call."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of an operation: its arguments, what it made, and what is known of its tensors."""

    known: WeakTensorKeyDictionary
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: Any

    def of(self, tensor: Any) -> Known:
        """Return what is known of a tensor; of a constant, that it depends on nothing."""
        found = self.known.get(tensor)
        if found is not None:
            return found
        inputs = next(iter(self.known.values())).shape[-1]
        return np.zeros((*[1] * tensor.ndim, inputs), bool)

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument that may be given by place or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for one in value:
        yield from _flat(one)


def _whole(known: Known, shape: Sequence[int], axes: Sequence[int]) -> Known:
    """Return it with every place of these axes, even where all are alike."""
    target = [shape[axis] if axis in axes else size for axis, size in enumerate(known.shape[:-1])]
    return np.broadcast_to(known, (*target, known.shape[-1]))


def _axes(value: Any, ndim: int) -> tuple[int, ...]:
    if value is None or value == []:
        return tuple(range(ndim))
    return tuple(axis % ndim for axis in (value if isinstance(value, list | tuple) else [value]))


def _each_place(call: _Call) -> Known:
    """Sums, products and everything else that is computed place by place, with broadcasting."""
    ndim = call.made.ndim if isinstance(call.made, Tensor) else call.made[0].ndim
    result: Known | None = None
    for tensor in _flat((call.args, {k: v for k, v in call.kwargs.items() if k != "out"})):
        if isinstance(tensor, Tensor):
            known = call.of(tensor)
            known = known.reshape(*[1] * (ndim - tensor.ndim), *known.shape)
            # Alike along an axis of more than one place is the same as an axis of one place: both broadcast.
            result = known if result is None else result | known
    assert result is not None
    return result


def _convolution(call: _Call) -> Known:
    features, weight = call.args[0], call.args[1]
    groups, transposed = call.argument(8, "groups", 1), call.argument(6, "transposed", False)
    if weight in call.known:
        raise _Unfollowed("the weights of a convolution depend on the input")
    bias = call.argument(2, "bias")
    if bias is not None and bias in call.known:
        raise _Unfollowed("the bias of a convolution depends on the input")
    known = call.of(features)
    if any(size > 1 for size in known.shape[2:-1]):
        raise _Unfollowed("channels were moved to an axis of pixels before a convolution")
    grouped = _whole(known, features.shape, [1])
    outputs = call.made.shape[1]
    per_group = grouped.reshape(grouped.shape[0], groups, -1, grouped.shape[-1]).any(2)
    assert outputs == (weight.shape[1] * groups if transposed else weight.shape[0])
    spread = np.repeat(per_group, outputs // groups, 1)
    return spread.reshape(*spread.shape[:2], *[1] * (call.made.ndim - 2), spread.shape[-1])


def _pixels_only(call: _Call) -> list[Known | None]:
    """Pooling and resizing: channels stay in their places."""
    known = call.of(call.args[0])
    kept = call.args[0].ndim - 2
    if any(size > 1 for size in known.shape[kept:-1]):
        raise _Unfollowed("channels were moved to an axis of pixels before it")
    return [known] * (1 if isinstance(call.made, Tensor) else len(call.made))


def _batch_norm(call: _Call) -> list[Known | None]:
    return [_each_place(_Call(call.known, call.args[:1], {}, call.made)), None, None, None]


def _group_norm(call: _Call) -> list[Known | None]:
    features, groups = call.args[0], call.args[6]
    known = _whole(call.of(features), features.shape, [1])
    within = known.reshape(known.shape[0], groups, -1, *known.shape[2:])
    mixed = within.any(tuple(range(2, within.ndim - 1)))
    spread = np.repeat(mixed, features.shape[1] // groups, 1)
    return [spread.reshape(*spread.shape[:2], *[1] * (features.ndim - 2), spread.shape[-1]), None, None]


def _layer_norm(call: _Call) -> list[Known | None]:
    axes = tuple(range(call.args[0].ndim - len(call.args[1]), call.args[0].ndim))
    return [np.asarray(call.of(call.args[0]).any(axes, keepdims=True)), None, None]


def _reduction(call: _Call) -> Known:
    features = call.args[0]
    axes = _axes(call.argument(1, "dim"), features.ndim)
    keep = bool(call.argument(2, "keepdim", False))
    return np.asarray(call.of(features).any(axes, keepdims=keep))


def _extreme(call: _Call) -> list[Known | None]:
    return [_reduction(call), None]


def _softmax(call: _Call) -> Known:
    return np.asarray(call.of(call.args[0]).any(call.args[1] % call.args[0].ndim, keepdims=True))


def _cat(call: _Call) -> Known:
    tensors = [tensor for tensor in call.args[0] if tensor.ndim == call.made.ndim]
    axis = call.argument(1, "dim", 0) % call.made.ndim
    found = [call.of(tensor) for tensor in tensors]
    if all(known.shape[axis] == 1 and np.array_equal(known, found[0]) for known in found):
        return found[0]  # alike along this axis before and after
    found = [_whole(call.of(tensor), tensor.shape, [axis]) for tensor in tensors]
    common = np.broadcast_shapes(*((*known.shape[:axis], 1, *known.shape[axis + 1 :]) for known in found))
    return np.concatenate(
        [np.broadcast_to(known, (*common[:axis], known.shape[axis], *common[axis + 1 :])) for known in found], axis
    )


def _stack(call: _Call) -> Known:
    axis = call.argument(1, "dim", 0) % call.made.ndim
    found = np.broadcast_arrays(*(call.of(tensor) for tensor in call.args[0]))
    return np.stack(found, axis)


def _taken(axis_at: int, take: Callable[[_Call, Known, int], Any]) -> Callable[[_Call], Any]:
    """Return a rule for an operation that takes places of one axis, whose number is argument ``axis_at``."""

    def rule(call: _Call) -> Any:
        features = call.args[0]
        axis = call.argument(axis_at, "dim", 0) % features.ndim
        return take(call, call.of(features), axis)

    return rule


def _slice(call: _Call, known: Known, axis: int) -> Known:
    chosen = slice(call.argument(2, "start"), call.argument(3, "end"), call.argument(4, "step", 1))
    return known if known.shape[axis] == 1 else known[(slice(None),) * axis + (chosen,)]


def _split(call: _Call, known: Known, axis: int) -> list[Known]:
    if known.shape[axis] == 1:
        return [known] * len(call.made)
    ends = np.cumsum([part.shape[axis] for part in call.made])
    return np.split(known, ends[:-1], axis)


def _index(call: _Call) -> Known:
    features, places = call.args[0], call.args[1]
    chosen = [axis for axis, place in enumerate(places) if place is not None]
    if len(chosen) != 1 or any(place is not None and place in call.known for place in places):
        raise _Unfollowed("indexing by several tensors, or by one that depends on the input")
    (axis,) = chosen
    index = places[axis]
    if index.dtype == torch.bool or index.ndim != 1:
        raise _Unfollowed("indexing by a mask, or by a tensor of several axes")
    return _at(call.of(features), axis, index)


def _index_select(call: _Call) -> Known:
    features, axis, index = call.args[0], call.args[1] % call.args[0].ndim, call.args[2]
    return _at(call.of(features), axis, index)


def _at(known: Known, axis: int, index: Tensor) -> Known:
    if known.shape[axis] == 1:  # all places alike
        return known
    if index.is_meta:
        raise _Unfollowed("the places are on the meta device, where tensors have no values")
    return np.take(known, index.cpu().numpy(), axis)


def _permuted(call: _Call) -> Known:
    known, order = call.of(call.args[0]), [axis % call.args[0].ndim for axis in call.args[1]]
    return np.transpose(known, (*order, known.ndim - 1))


def _transposed(call: _Call) -> Known:
    known = call.of(call.args[0])
    ndim = known.ndim - 1
    one, other = (call.args[1] % ndim, call.args[2] % ndim) if len(call.args) > 2 else (0, ndim - 1)
    return np.swapaxes(known, one, other)


def _reshaped(call: _Call) -> Known:
    """Axes that are split or joined, group by group; a group of which all places are alike stays so."""
    before, known = list(call.args[0].shape), call.of(call.args[0])
    result: list[int] = []
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(call.made.shape) if size != 1]
    sizes = {axis: 1 for axis in range(call.made.ndim)}
    whole: list[int] = []
    i = j = 0
    while i < len(old) or j < len(new):
        olds, news = [old[i]], [new[j]]
        i, j = i + 1, j + 1
        while (a := math.prod(before[k] for k in olds)) != (b := math.prod(call.made.shape[k] for k in news)):
            if a < b:
                olds.append(old[i])
                i += 1
            else:
                news.append(new[j])
                j += 1
        if any(known.shape[k] > 1 for k in olds):
            whole += olds
            sizes |= {k: call.made.shape[k] for k in news}
    result = [sizes[axis] for axis in range(call.made.ndim)]
    return _whole(known, before, whole).reshape(*result, known.shape[-1])


def _expanded(call: _Call) -> Known:
    known = call.of(call.args[0])
    return known.reshape(*[1] * (call.made.ndim + 1 - known.ndim), *known.shape)


def _repeated(call: _Call) -> Known:
    known, times = call.of(call.args[0]), call.args[1]
    known = known.reshape(*[1] * (call.made.ndim + 1 - known.ndim), *known.shape)
    return np.tile(known, (*(n if known.shape[axis] > 1 else 1 for axis, n in enumerate(times)), 1))


def _flipped(call: _Call) -> Known:
    return np.flip(call.of(call.args[0]), _axes(call.args[1], call.args[0].ndim))


def _rolled(call: _Call) -> Known:
    known, axes = call.of(call.args[0]), call.argument(2, "dims", [])
    if not axes:
        raise _Unfollowed("a roll over all axes at once")
    return np.roll(known, call.args[1], _axes(axes, call.args[0].ndim))


def _padded(call: _Call) -> Known:
    known, pads = call.of(call.args[0]), call.args[1]
    for k in range(len(pads) // 2):
        axis = call.made.ndim - 1 - k
        before, after = pads[2 * k], pads[2 * k + 1]
        if axis < 2 and (before or after):
            known = _whole(known, call.args[0].shape, [axis])
            known = known[(slice(None),) * axis + (slice(max(-before, 0), known.shape[axis] - max(-after, 0)),)]
            grown = [(0, 0)] * known.ndim
            grown[axis] = (max(before, 0), max(after, 0))
            known = np.pad(known, grown)
        elif known.shape[axis] > 1:
            raise _Unfollowed("channels were moved to an axis of pixels before it")
    return known


def _unsqueezed(call: _Call) -> Known:
    return np.expand_dims(call.of(call.args[0]), call.args[1] % call.made.ndim)


def _selected(call: _Call, known: Known, axis: int) -> Known:
    return np.take(known, call.args[2] if known.shape[axis] > 1 else 0, axis)


def _unbound(call: _Call, known: Known, axis: int) -> list[Known]:
    return [np.take(known, i if known.shape[axis] > 1 else 0, axis) for i in range(len(call.made))]


def _copied(call: _Call) -> Known:
    """``copy_``: what was in the target before is gone."""
    known = call.of(call.args[1])
    return known.reshape(*[1] * (call.made.ndim + 1 - known.ndim), *known.shape)


def _constant(_: _Call) -> None:
    """A tensor that takes only its shape from another."""


def _product(call: _Call) -> Known:
    """Matrix products; ``addmm`` adds its first argument to that of the other two, which must be a constant."""
    if len(call.args) > 2 and call.args[0] in call.known:
        raise _Unfollowed("what is added to a matrix product depends on the input")
    first, second = list(call.args)[-2:]
    one, other = (_whole(call.of(m), m.shape, [m.ndim - 2, m.ndim - 1]) for m in (first, second))
    rows, columns = one.any(-2), other.any(-3)
    if second not in call.known:  # a linear layer: every output of a row depends on what the row depends on
        return np.expand_dims(rows, -2)
    if first not in call.known:
        return np.expand_dims(columns, -3)
    return np.expand_dims(rows, -2) | np.expand_dims(columns, -3)


def _shuffled(call: _Call) -> Known:
    features, groups = call.args
    known = _whole(call.of(features), features.shape, [1])
    parted = known.reshape(known.shape[0], groups, -1, *known.shape[2:])
    return np.swapaxes(parted, 1, 2).reshape(known.shape)


def _pixel_shuffled(call: _Call) -> Known:
    """A block of ``r * r`` successive channels becomes the pixels of one."""
    features, factor = call.args
    known = _whole(call.of(features), features.shape, [1])
    parted = known.reshape(known.shape[0], -1, factor**2, *known.shape[2:])
    return np.asarray(parted.any(2))


def _pixel_unshuffled(call: _Call) -> Known:
    features, factor = call.args
    return np.repeat(_whole(call.of(features), features.shape, [1]), factor**2, 1)


def _named(names: str, rule: Callable[[_Call], Any]) -> dict[str, Callable[[_Call], Any]]:
    """Return the same rule under each of these names."""
    return dict.fromkeys(names.split(), rule)


_EACH_PLACE = _named(
    "relu hardtanh hardswish hardsigmoid sigmoid tanh silu mish gelu leaky_relu elu celu selu softplus "
    "logsigmoid log_sigmoid_forward threshold clamp clamp_min clamp_max neg abs exp log log1p sqrt rsqrt "
    "reciprocal pow square sin cos erf sign round floor ceil clone contiguous _to_copy detach alias lift_fresh "
    "dropout nan_to_num softshrink hardshrink isfinite",
    _each_place,
)
"""One tensor, place by place."""

_RULES: dict[str, Callable[[_Call], Any]] = {
    **_EACH_PLACE,
    **_named(
        "add sub rsub mul div maximum minimum where addcmul addcdiv lerp prelu _prelu_kernel atan2 remainder "
        "masked_fill eq ne lt le gt ge logical_and logical_or",
        _each_place,
    ),
    "convolution": _convolution,
    **_named(
        "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d "
        "upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa "
        "reflection_pad2d replication_pad2d",
        _pixels_only,
    ),
    **_named(
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
        "miopen_batch_norm",
        _batch_norm,
    ),
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    **_named("mean sum amax amin prod logsumexp", _reduction),
    **_named("max min", _extreme),
    **_named("_softmax _log_softmax _safe_softmax", _softmax),
    "cat": _cat,
    "stack": _stack,
    "slice": _taken(1, _slice),
    "select": _taken(1, _selected),
    "split": _taken(2, _split),
    "split_with_sizes": _taken(2, _split),
    "unbind": _taken(1, _unbound),
    "index": _index,
    "index_select": _index_select,
    "permute": _permuted,
    "transpose": _transposed,
    "t": _transposed,
    **_named("view _unsafe_view reshape squeeze _reshape_copy", _reshaped),
    "unsqueeze": _unsqueezed,
    "copy": _copied,
    **_named("zeros_like ones_like full_like empty_like rand_like new_zeros new_ones new_full", _constant),
    "expand": _expanded,
    "repeat": _repeated,
    "flip": _flipped,
    "roll": _rolled,
    "constant_pad_nd": _padded,
    **_named("addmm mm bmm", _product),
    "native_channel_shuffle": _shuffled,
    "channel_shuffle": _shuffled,
    "pixel_shuffle": _pixel_shuffled,
    "pixel_unshuffle": _pixel_unshuffled,
}
"""How each operation passes dependencies on, by its name in PyTorch's ATen."""

FOLLOWED = tuple(sorted(_RULES))
"""Names of the operations that can be followed; those made of them can be as well."""
