"""``poseglass models``: lists every network with its cost, and the built-in weights."""

import inspect
import json as json_format
import sys
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from poseglass.backbones import BACKBONES
from poseglass.core.card import WeightCard
from poseglass.core.shapes_only import shapes_only
from poseglass.core.table import lookup
from poseglass.estimators.fit import card_network
from poseglass.estimators.load import shipped
from poseglass.estimators.manifest import read_manifest
from poseglass.estimators.weights_file import read_card
from poseglass.heads import HEADS
from poseglass.necks import NECKS
from poseglass.networks import FAMILIES, NETWORKS
from poseglass.networks.cost import latency_ms, multiply_adds, parameters

UNSTATED_SIZE_WH = (256, 256)
"""Input size for the counts if a custom network does not state its usual one."""

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Kinds of arguments that are never required."""

PARTS: dict[str, dict[str, Any]] = {"backbone": BACKBONES, "neck": NECKS, "head": HEADS}


@dataclass(frozen=True, slots=True)
class WeightsRow:
    """Built-in weights.

    Args:
        name: Name for ``poseglass.load``.
        network: Network table of the card, ``{"name": ..., "num_keypoints": ...}``.
        skeleton: Name of the skeleton.
        num_keypoints: Number of keypoints K.
        size_wh: Crop size in pixels.
        parameters: Number of learnable parameters.
        multiply_adds: Multiply-adds for one crop.
        bytes: Size of the file.
        data: Training data.
        license: Terms of use.
        results: Results as stated in the card.
    """

    name: str
    network: dict[str, Any]
    skeleton: str
    num_keypoints: int
    size_wh: tuple[int, int]
    parameters: int
    multiply_adds: int
    bytes: int
    data: str
    license: str
    results: dict[str, float]


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """A network of ``NETWORKS``.

    Args:
        name: Name in ``NETWORKS``.
        family: Name of its file, such as "stacked_hourglass": one paper, one file.
        options: Arguments other than ``num_keypoints``, such as ``"width=160"``.
        generic: Whether it is the constructor of a family, whose cost depends on the arguments and is not given here.
        size_wh: Input size for the cost, in pixels.
        size_assumed: Whether this size is the default because neither the network nor the user states one.
        parameters: Number of learnable parameters.
        multiply_adds: Multiply-adds for one image of that size.
        stride: Input pixels per heatmap pixel, if it is a single number.
        divisor: Number by which both sides of the input must be divisible.
        latency_ms: Median time for one image on this machine, if measured.
        weights: Names of built-in weights for this network.
        public: Names of public weights for it; ``poseglass weights list`` shows their terms.
    """

    name: str
    family: str
    options: list[str]
    generic: bool
    size_wh: tuple[int, int] | None = None
    size_assumed: bool = False
    parameters: int | None = None
    multiply_adds: int | None = None
    stride: int | None = None
    divisor: int | None = None
    latency_ms: float | None = None
    weights: list[str] = field(default_factory=list)
    public: list[str] = field(default_factory=list)


def models(
    names: Annotated[list[str] | None, typer.Argument(help="Networks to list. Default: all.")] = None,
    keypoints: Annotated[int, typer.Option(min=1, help="Number of keypoints for the counts.")] = 16,
    size: Annotated[
        int, typer.Option(min=0, help="Side of the square input in pixels; 0 uses each network's usual size.")
    ] = 0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also measure the time of a forward pass of one image on this machine.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List the networks with parameters, multiply-adds and stride, and the built-in weights with their terms.

    Multiply-adds are those of convolutions and linear layers; transposed ones count per input position; 1 G is 10^9.
    """
    weights = [weights_row(name, read_card(path), path.stat().st_size) for name, path in shipped().items()]
    rows = [
        network_row(name, keypoints, (size, size) if size else None, weights, measure=measure)
        for name in (names or NETWORKS)
    ]
    if json:
        document = {
            "keypoints": keypoints,
            "networks": [asdict(row) for row in rows],
            "parts": {name: list(table) for name, table in PARTS.items()},
            "weights": [asdict(row) for row in weights if not names or row.network.get("name") in names],
        }
        if measure:
            document["measured"] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "dtype": "float32"}
        json_format.dump(document, sys.stdout, indent=1)
        print()
        return
    print_networks(rows, keypoints, Console())
    if not names:
        print_parts(Console())
        print_weights(weights, Console())
        public: dict[str, list[str]] = {}
        for entry in read_manifest().values():
            public.setdefault(entry.network, []).append(entry.name)
        _print_lists(public, ("network or backbone", "public weights"), Console())
        Console().print(
            "[dim]Download with `poseglass weights fetch NAME`; terms: `poseglass weights list`.[/dim]", highlight=False
        )


def network_row(
    name: str,
    num_keypoints: int,
    size_wh: tuple[int, int] | None,
    weights: list[WeightsRow],
    *,
    measure: bool = False,
) -> NetworkRow:
    """Return the row of a network; it is built without memory for its weights unless it is to be timed.

    Raises:
        LookupError: No network has that name; the nearest name is suggested.
        ValueError: The network does not support the size; the message names sizes that it supports.
    """
    maker = lookup(NETWORKS, name, kind="network")
    if not callable(maker):
        raise ValueError(f"network {name!r} is a {type(maker).__name__}; a class or function is needed.")
    arguments = [value for key, value in inspect.signature(maker).parameters.items() if key != "num_keypoints"]
    needed = any(value.default is value.empty and value.kind not in VARIADIC for value in arguments)
    options = [value.name if value.default is value.empty else f"{value.name}={value.default}" for value in arguments]
    own = [row.name for row in weights if row.network.get("name") == name]
    public = [entry.name for entry in read_manifest().values() if entry.network == name]
    family = maker.__module__.rpartition(".")[2]
    if name in FAMILIES or needed:
        stride = _whole(maker, "stride")
        return NetworkRow(name, family, options, generic=True, stride=stride, weights=own, public=public)
    with torch.device("cpu" if measure else "meta"):
        network = maker(num_keypoints)
    if not isinstance(network, nn.Module):
        raise ValueError(f"network {name!r} made a {type(network).__name__}; a torch.nn.Module is needed.")
    usual_wh = usual_size_wh(network, name)
    at_wh = size_wh or usual_wh or UNSTATED_SIZE_WH
    return NetworkRow(
        name,
        family,
        options,
        generic=False,
        size_wh=at_wh,
        size_assumed=size_wh is None and usual_wh is None,
        parameters=parameters(network),
        multiply_adds=multiply_adds(network, at_wh),
        stride=_whole(network, "stride"),
        divisor=_whole(network, "divisor"),
        latency_ms=latency_ms(network, at_wh, repeats=9) if measure else None,
        weights=own,
        public=public,
    )


def usual_size_wh(network: nn.Module, name: str) -> tuple[int, int] | None:
    """Return the usual input size that a network states; None if it does not.

    Raises:
        ValueError: The value is not two integers above 0.
    """
    stated: Any = getattr(network, "usual_size_wh", None)
    if stated is None:
        return None
    sides = tuple(stated) if isinstance(stated, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(
            f"usual_size_wh of network {name!r} must be the width and height of its input in pixels, two integers such "
            f"as (192, 256); got {stated!r}."
        )
    return sides


def weights_row(name: str, card: WeightCard, size_bytes: int) -> WeightsRow:
    """Return the content of a card, with the cost of its network at its input size.

    Raises:
        CheckpointError: The card's network cannot be built.
    """
    with shapes_only():
        network = card_network(card)
    keypoints = () if card.skeleton is None else card.skeleton.keypoints
    return WeightsRow(
        name=name,
        network=card.network,
        skeleton="backbone" if card.skeleton is None else card.skeleton.name,
        num_keypoints=len(keypoints),
        size_wh=card.input.size_wh,
        parameters=parameters(network),
        multiply_adds=multiply_adds(network, card.input.size_wh),
        bytes=size_bytes,
        data=card.data,
        license=card.license,
        results=card.results,
    )


def print_networks(rows: list[NetworkRow], num_keypoints: int, console: Console) -> None:
    """Print the networks by family, each from small to large; then the constructors of families with their options."""
    timed = any(row.latency_ms is not None for row in rows)
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("network", overflow="fold")
    # the header of two lines leaves room for the longest names in 80 columns
    for column in ("parameters", "multiply-\nadds", "input", "stride,\ndivisor", *(["ms here"] if timed else [])):
        table.add_column(column, justify="right", no_wrap=True)
    families: dict[str, list[NetworkRow]] = {}
    for row in rows:
        if not row.generic:
            families.setdefault(row.family, []).append(row)
    for family, members in families.items():
        table.add_row(f"[bold]{escape(family.replace('_', ' '))}[/bold]")
        for row in sorted(members, key=lambda row: row.parameters or 0):
            results = [
                f"{row.parameters:,}",
                _giga(row.multiply_adds or 0),
                "" if row.size_wh is None else f"{row.size_wh[0]} x {row.size_wh[1]}",
                ", ".join(str(number or "") for number in (row.stride, row.divisor)),
            ]
            if timed:
                results.append("" if row.latency_ms is None else f"{row.latency_ms:.1f}")
            table.add_row(escape(row.name), *results)
    if families:
        console.print(table)
    generic = [row for row in rows if row.generic]
    if generic:
        _print_lists({row.name: row.options for row in generic}, ("family", "options"), console)
    note = f"For {num_keypoints} keypoints and batch size 1. Inputs are width x height, both divisible by the divisor."
    if timed:
        note += f" Measured: float32, PyTorch {torch.__version__}, {torch.get_num_threads()} threads."
    assumed = [row.name for row in rows if row.size_assumed]
    if assumed:
        width, height = UNSTATED_SIZE_WH
        note += f" {', '.join(assumed)} without usual_size_wh: {width} x {height} was used; --size sets another."
    console.print(f"[dim]{escape(note)}[/dim]", highlight=False)


def print_parts(console: Console) -> None:
    """Print the names of the parts of a composed network."""
    _print_lists({name: list(table) for name, table in PARTS.items()}, ("part", "of a composed network"), console)


def print_weights(rows: list[WeightsRow], console: Console) -> None:
    """Print the table of built-in weights with their terms, or a line that there are none."""
    if not rows:
        console.print("This installation has no built-in weights. Make some with poseglass import or poseglass train.")
        return
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("weights", no_wrap=True)
    table.add_column("skeleton", no_wrap=True)
    for column in ("input", "parameters", "multiply-adds", "file"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row.name),
            f"{escape(row.skeleton)} ({row.num_keypoints})",
            f"{row.size_wh[0]} x {row.size_wh[1]}",
            f"{row.parameters:,}",
            _giga(row.multiply_adds),
            f"{row.bytes / 1e6:.1f} MB",
        )
    console.print(table)
    # Below the table and in full, so that a narrow window does not truncate the terms.
    for row in rows:
        results = ", ".join(f"{name} {value:.4g}" for name, value in row.results.items())
        said = [
            f"network {row.network.get('name')}",
            f"trained on {row.data}" if row.data else "data not stated",
            results,
            f"terms: {row.license or 'not stated'}",
        ]
        console.print(f"{row.name}: {'; '.join(part for part in said if part)}", markup=False, highlight=False)


def _print_lists(lists: dict[str, list[str]], header: tuple[str, str], console: Console) -> None:
    """Print a table of names, each with a list that may take several lines."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in header:
        table.add_column(column, overflow="fold")
    for name, entries in lists.items():
        table.add_row(escape(name), escape(", ".join(entries)))
    console.print(table)


def _whole(thing: Any, attribute: str) -> int | None:
    """Return an integer attribute of a network; None if it has none, or not a single integer."""
    value = getattr(thing, attribute, None)
    return value if isinstance(value, int) else None


def _giga(count: int) -> str:
    return f"{count / 1e9:.3f} G" if count >= 1e8 else f"{count / 1e6:.1f} M"
