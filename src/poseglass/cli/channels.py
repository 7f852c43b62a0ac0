"""``poseglass channels``: which channels the blocks of a network depend on."""

import inspect
import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from poseglass.backbones import BACKBONES
from poseglass.core.files import write_bytes
from poseglass.core.table import counted, listed, lookup
from poseglass.layers.channel_local import CostRow, cost_table
from poseglass.networks import NETWORKS
from poseglass.networks.channel_dependency import (
    BlockGraphs,
    ChannelGraph,
    ChannelTraceError,
    block_graphs,
    step_graphs,
)

KEYPOINTS = 16
"""Number of keypoints with which a network is built: no block depends on it."""


def channels(
    name: Annotated[
        str | None, typer.Argument(help="Network or backbone, by its name, or package.module:name of your own.")
    ] = None,
    block: Annotated[
        str | None, typer.Option(help="Module to analyse instead of every block, such as stages.1.0.")
    ] = None,
    size: Annotated[
        int, typer.Option(min=1, help="Side of the square input in pixels, a multiple of the divisor.")
    ] = 64,
    draw: Annotated[
        Path | None, typer.Option(help="Draw the graph of --block to this PNG file.", dir_okay=False)
    ] = None,
    output: Annotated[int, typer.Option(min=0, help="Output channel that is highlighted in the drawing.")] = 0,
    costs: Annotated[
        bool, typer.Option("--costs", help="Print what channel local blocks cost with the cheapest groups, by width.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show which input channels the outputs of each block depend on, and whether that is all of them.

    Depthwise and grouped convolutions see a part of the channels; a block should see all of them together. The analysis
    follows every operation, see poseglass.networks.channel_dependency; the weights do not count.
    """
    if costs:
        if name is not None or block is not None or draw is not None:
            raise ValueError("--costs is a table of block widths, not of a network: leave out NAME, --block, --draw.")
        print_costs(cost_table(), Console(), json=json)
        return
    if name is None:
        raise ValueError("Give the NAME of a network or backbone such as clcnet_a, or --costs for a table of widths.")
    if draw is not None and block is None:
        raise ValueError("--draw needs --block: the graph of one block is drawn. Run without both to list the blocks.")
    if draw is not None and draw.suffix.lower() != ".png":
        raise ValueError(f"--draw writes a PNG file, got {str(draw)!r}. Give a name that ends in .png.")
    network = built(name)
    found = block_graphs(network, (size, size), names=None if block is None else [block])
    if json:
        json_format.dump(document(found, network), sys.stdout, indent=1)
        print()
    else:
        print_blocks(found, network, Console())
    if draw is not None:
        assert block is not None
        draw_block(name, block, network.get_submodule(block), found.graphs[block], output, draw)


def built(name: str) -> nn.Module:
    """Build a network or a backbone by its name, on the CPU.

    Raises:
        LookupError: Neither has that name; the nearest name is suggested.
        ValueError: It cannot be built without arguments, or is no module.
    """
    maker: Any = lookup({**BACKBONES, **NETWORKS}, name, kind="network or backbone")
    if not callable(maker):
        raise ValueError(f"{name} is a {type(maker).__name__}; expected a class or function that returns a network.")
    given = {"num_keypoints": KEYPOINTS} if "num_keypoints" in inspect.signature(maker).parameters else {}
    needed = [
        key
        for key, value in inspect.signature(maker).parameters.items()
        if value.default is value.empty and value.kind not in (value.VAR_POSITIONAL, value.VAR_KEYWORD)
    ]
    missing = [key for key in needed if key not in given]
    if missing:
        raise ValueError(
            f"{name} cannot be built without {', '.join(missing)}. Name a network without required arguments, or your "
            "own function that builds it: package.module:name."
        )
    network = maker(**given)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} made a {type(network).__name__}; a torch.nn.Module is needed.")
    return network


def document(found: BlockGraphs, network: nn.Module) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "blocks": [
            {
                "name": name, "kind": type(network.get_submodule(name)).__name__, "in_channels": graph.depends.shape[1],
                "out_channels": graph.depends.shape[0], "smallest_field": int(graph.sizes.min()),
                "largest_field": int(graph.sizes.max()), "full": graph.full,
            }
            for name, graph in found.graphs.items()
        ],
        "skipped": found.skipped,
        "torch": torch.__version__,
    }  # fmt: skip


def print_blocks(found: BlockGraphs, network: nn.Module, console: Console) -> None:
    """Print a row for each block, and how many do not see all channels."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("block", overflow="fold")
    table.add_column("kind", overflow="fold")
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("an output\nsees", justify="right", no_wrap=True)
    table.add_column("all", no_wrap=True)
    for name, graph in found.graphs.items():
        outputs, inputs = graph.depends.shape
        low, high = int(graph.sizes.min()), int(graph.sizes.max())
        table.add_row(
            escape(name or "(whole)"), type(network.get_submodule(name)).__name__, f"{inputs} to {outputs}",
            f"{low}" if low == high else f"{low} to {high}", "yes" if graph.full else "[bold]no[/bold]",
        )  # fmt: skip
    if found.graphs:
        console.print(table)
        partial = [name for name, graph in found.graphs.items() if not graph.full]
        of = counted(len(found.graphs), "block")
        words = (
            f"In {len(partial)} of {of}, outputs do not see all channels of the block's input: {listed(partial)}."
            if partial
            else f"Every output of {of} sees all channels of the block's input."
        )
        console.print(escape(words), highlight=False, soft_wrap=True)
    elif not found.skipped:
        console.print("No blocks: nothing with two convolutions or more is repeated. Choose a module with --block.")
    for name, why in found.skipped.items():
        console.print(escape(f"Not analysed: {name}. {why}"), highlight=False, soft_wrap=True)


def print_costs(rows: list[CostRow], console: Console, *, json: bool) -> None:
    """Print multiply-adds per output pixel of blocks, by width, as a table or as JSON."""
    if json:
        json_format.dump([row._asdict() for row in rows], sys.stdout, indent=1)
        print()
        return
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    groups, others = ("channels", "cheapest\n(g1, g2)"), ("published\n(half, 2)", "depthwise\nand 1x1", "dense\n3x3")
    for head in (*groups, "cost", "bound", *others):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        numbers = (row.cheapest, row.bound, row.published, row.separable, row.dense)
        table.add_row(str(row.width), f"({row.groups[0]}, {row.groups[1]})", *(f"{number:,.0f}" for number in numbers))
    console.print(table)


def draw_block(name: str, block: str, module: nn.Module, graph: ChannelGraph, output: int, path: Path) -> None:
    """Draw a block's graph, step by step where its children are applied one after the other."""
    from poseglass.drawing.plots import channel_dependency, to_png

    if output >= len(graph.depends):
        raise ValueError(f"--output {output}: {block} has output channels 0 to {len(graph.depends) - 1}.")
    try:
        steps = {key: step.depends for key, step in step_graphs(module, graph.depends.shape[1]).items()}
    except (ChannelTraceError, RuntimeError):  # it has a branch, or needs another size
        steps = {}
    figure = channel_dependency(steps or {type(module).__name__: graph.depends}, output=output, title=f"{name} {block}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, to_png(figure))
    print(path)
