"""Widths of a network, module by module: what pruning and architecture search change and no builder argument states.

A builder such as ``hg2_light`` has one argument for the width of many convolutions. If channels were removed from some
of them, the network is "what the builder makes, except for these modules". A card states exactly that: the builder's
table and, beside it, a table of widths by module name. Kernels, strides, the modules and their order stay as they were
built.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import nn

from poseglass.backbones import BACKBONES
from poseglass.core.shapes_only import shapes_only
from poseglass.core.table import build_part, listed, nearest
from poseglass.layers.synchronised_norm import BATCH_NORMS
from poseglass.networks import NETWORKS

Widths = dict[str, dict[str, int]]
"""``{"stem.conv": {"out_channels": 24}, ...}``: module name, as in ``named_modules``, to its width attributes."""

KEYS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.ConvTranspose2d: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    **dict.fromkeys(BATCH_NORMS, ("num_features",)),
    nn.GroupNorm: ("num_channels", "num_groups"),
    nn.PReLU: ("num_parameters",),
}
"""Module types that have widths, including subclasses (every batch norm, synchronised or not), and the names of
their width attributes."""

_FREE = {"momentum", "inplace", "channels"}.union(*KEYS.values())
"""Attributes that do not change what a network with given weights and widths computes."""


def widths_of(network: nn.Module) -> Widths:
    """Return all widths of a network, for every module that has any.

    Example:
        >>> widths_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)))
        {'0': {'in_channels': 3, 'out_channels': 8, 'groups': 1}, '2': {'num_features': 8}}
    """
    return {
        name: {key: int(getattr(module, key)) for key in keys}
        for name, module in network.named_modules()
        if (keys := keys_of(module))
    }


def keys_of(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's width attributes; empty if it has none.

    Example:
        >>> keys_of(nn.Linear(2, 3)), keys_of(nn.ReLU())
        (('in_features', 'out_features'), ())
    """
    return next((keys for kind, keys in KEYS.items() if isinstance(module, kind)), ())


def widths_that_differ(network: nn.Module, built: nn.Module) -> Widths:
    """Return the widths of a network that differ from those of another one, such as the network its builder makes.

    Modules that only one of them has are skipped.

    Example:
        >>> widths_that_differ(nn.Sequential(nn.Conv2d(3, 6, 3)), nn.Sequential(nn.Conv2d(3, 8, 3)))
        {'0': {'out_channels': 6}}
    """
    usual = widths_of(built)
    differing: Widths = {}
    for name, own in widths_of(network).items():
        changed = {key: value for key, value in own.items() if value != usual.get(name, {}).get(key, value)}
        if changed:
            differing[name] = changed
    return differing


def apply_widths(network: nn.Module, widths: Mapping[str, Mapping[str, int]]) -> None:
    """Set other widths on modules of a network, in place.

    Modules stay the same objects. Tensors whose shape changes are reinitialised by the module's own
    ``reset_parameters``, on the device and in the dtype of the old ones, including the meta device. Whether consecutive
    modules fit each other is not checked until the network runs. Attributes that only builders read (a backbone's
    ``channels``, a neck's ``out_channels``) are not updated.

    Args:
        network: As a builder made it.
        widths: The modules that differ, and for each the widths that differ.

    Raises:
        ValueError: An unknown module or one without widths, a key that is not one of its widths, a value that is not a
            whole number above 0, or groups that do not divide the channels. The network is not changed.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> apply_widths(network, {"0": {"out_channels": 6}, "1": {"num_features": 6}})
        >>> network[0]
        Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1))
    """
    modules = dict(network.named_modules())  # names may come from a file, so they are looked up here and nowhere else
    for name, numbers in widths.items():
        _check(name, numbers, modules)
    for name, numbers in widths.items():
        for key, value in numbers.items():
            setattr(modules[name], key, value)
        _resize(modules[name])


def card_widths(
    network: nn.Module, table: Mapping[str, Any], *, part: Literal["network", "backbone"] = "network"
) -> Widths:
    """Return the value for ``WeightCard.widths``, so that a pruned network can be rebuilt from its card.

    Args:
        network: The pruned network: its tensors are cut, and ``in_channels``, ``out_channels``, ``groups``,
            ``num_features`` and the like of its modules are set to the remaining sizes.
        table: ``{"name": ..., ...}`` of the card: what the network was built from before it was pruned.
        part: Whether the name is in ``NETWORKS`` or in ``BACKBONES``.

    Raises:
        ValueError: The network differs in more than widths from what the table builds, or a module's width attributes
            do not match the shapes of its tensors.
        LookupError, TypeError: The table cannot be built.

    Example:
        >>> table = {"name": "hg1_light", "num_keypoints": 14}
        >>> network = NETWORKS["hg1_light"](14)
        >>> residual = network.outputs[0].residual[0]
        >>> apply_widths(residual, {"conv1": {"out_channels": 20}, "norm2": {"num_features": 20}})
        >>> apply_widths(residual, {"conv2": {"in_channels": 20}})
        >>> sorted(card_widths(network, table))
        ['outputs.0.residual.0.conv1', 'outputs.0.residual.0.conv2', 'outputs.0.residual.0.norm2']
    """
    with shapes_only():
        built = build_part(BACKBONES if part == "backbone" else NETWORKS, table, part)
    widths = widths_that_differ(network, built)
    apply_widths(built, widths)
    findings = [*_other_tensors(network, built), *_other_attributes(network, built)]
    if findings:
        raise ValueError(
            f"The network is not what {dict(table)} makes with other widths: {listed(findings)}. A card's widths can "
            "only change numbers of channels. Give the table that the network was built from; if tensors were cut, set "
            "in_channels, out_channels, groups, num_features and the like of their modules to the remaining sizes."
        )
    return widths


def described(widths: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a short description of each module, for messages.

    Example:
        >>> described({"stem.conv": {"out_channels": 6}})
        ['stem.conv (out_channels=6)']
    """
    return [f"{name} ({', '.join(f'{k}={v}' for k, v in numbers.items())})" for name, numbers in widths.items()]


def _check(name: str, numbers: Mapping[str, int], modules: Mapping[str, nn.Module]) -> None:
    """Raise if these cannot be the widths of a module.

    Raises:
        ValueError: The message says what the module accepts.
    """
    if name not in modules:
        raise ValueError(
            f"widths name the module {name!r}, which the network does not have.{nearest(name, modules)} Use a name "
            "from named_modules()."
        )
    module = modules[name]
    kind, keys = type(module).__name__, keys_of(module)
    if not keys:
        raise ValueError(
            f"widths name the module {name!r}, a {kind}, which has none. Only convolutions, linear layers, batch norm, "
            "group norm and PReLU have widths."
        )
    for key, value in numbers.items():
        if key not in keys:
            raise ValueError(f"widths of {name!r} have {key!r}, but a {kind} takes {', '.join(keys)}. Remove it.")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"widths of {name!r}: {key} must be a whole number above 0, got {value!r:.60}.")
    now = {key: int(getattr(module, key)) for key in keys} | dict(numbers)
    for groups, channels in (("groups", ("in_channels", "out_channels")), ("num_groups", ("num_channels",))):
        for of in channels:
            if groups in now and now[of] % now[groups]:
                raise ValueError(
                    f"widths of {name!r}: {groups}={now[groups]} must divide {of}={now[of]}. A depthwise convolution "
                    "takes the same number for groups, in_channels and out_channels."
                )


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's tensors according to its widths."""
    if isinstance(module, nn.Conv2d):
        weight = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
        return {"weight": weight, "bias": (module.out_channels,)}
    if isinstance(module, nn.ConvTranspose2d):
        weight = (module.in_channels, module.out_channels // module.groups, *module.kernel_size)
        return {"weight": weight, "bias": (module.out_channels,)}
    if isinstance(module, nn.Linear):
        return {"weight": (module.out_features, module.in_features), "bias": (module.out_features,)}
    if isinstance(module, BATCH_NORMS):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (module.num_features,))
    if isinstance(module, nn.GroupNorm):
        return dict.fromkeys(("weight", "bias"), (module.num_channels,))
    assert isinstance(module, nn.PReLU)
    return {"weight": (module.num_parameters,)}


def _resize(module: nn.Module) -> None:
    """Replace the tensors whose shape does not match the module's widths."""
    changed = False
    for name, shape in _shapes(module).items():
        old = getattr(module, name)
        if old is None or old.shape == shape:
            continue
        new = old.detach().new_empty(shape)
        setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
        changed = True
    if changed:
        reset: Any = module.reset_parameters
        reset()


def _other_tensors(network: nn.Module, built: nn.Module) -> Iterator[str]:
    """Yield the tensors whose name or shape differs between two networks."""
    own, made = ({k: tuple(v.shape) for k, v in n.state_dict().items()} for n in (network, built))
    for name in own | made:
        if name not in own:
            yield f"{name} is missing"
        elif name not in made:
            yield f"{name} is unexpected"
        elif own[name] != made[name]:
            yield f"{name} is {own[name]}, but the widths of its module make it {made[name]}"


def _other_attributes(network: nn.Module, built: nn.Module) -> Iterator[str]:
    """Yield the module attributes that differ and do not show in any shape, such as a stride or an epsilon."""
    plain = vars(nn.Module()).keys()  # attributes that every module has
    modules = dict(network.named_modules())
    for name, other in built.named_modules():
        own, made = vars(modules.get(name, other)), vars(other)
        for key in sorted((own.keys() & made.keys()) - plain - _FREE):
            if isinstance(made[key], str | int | float | tuple) and own[key] != made[key]:
                yield f"{name}.{key} is {own[key]!r}, but the table makes it {made[key]!r}".removeprefix(".")
