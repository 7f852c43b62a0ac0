"""Shared by ``predict`` and ``evaluate``: the options that make a network faster."""

from typing import Annotated

import torch
import typer
from rich.console import Console

from poseglass.estimators.choice import Choice, read_choices
from poseglass.estimators.whole_image import is_graph_file

BFLOAT16 = Annotated[
    bool,
    typer.Option(
        "--bfloat16",
        help="Compute in bfloat16 if the processor supports it (see poseglass doctor): faster, but keypoints change by "
        "fractions of a pixel.",
    ),
]

CROP_SCALES = Annotated[
    str | None,
    typer.Option(
        "--crop-scales",
        help="Show each crop at several scales, such as 0.75,1,1.25, and average the heatmaps. Default: 1.",
    ),
]

EARLY_EXIT = Annotated[
    float | None,
    typer.Option(
        "--early-exit",
        min=0,
        metavar="PX",
        help="For networks of three or more stacks: each crop stops at the stack whose keypoints are within this "
        "mean distance of those of the stack before, pixels of the crop. Default: all stacks run.",
    ),
]

COMPILED = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network first. This takes 3 to 90 s for single crops and again for batches, less if it was "
        "compiled before, so it pays off for many images. Without a C++ compiler, the network is not compiled.",
    ),
]


def benched(
    weights: str, *, flip_test: bool, device: torch.device, faster: bool, console: Console, size: int = 0
) -> Choice | None:
    """Return what ``poseglass bench`` chose for weights, and print it; None if it does not apply.

    Args:
        weights: The weights.
        flip_test: Whether the flip test is used: it was measured by itself.
        device: The device; a choice is of the CPU.
        faster: Whether the options say how to run the weights.
        console: Where to print.
        size: Another size than the card's, of which nothing was measured; 0 is the card's.
    """
    if faster or size or device.type != "cpu" or is_graph_file(weights):
        return None
    choice = next((one for one in read_choices(weights) if one.flip_test == flip_test), None)
    if choice is None or (choice.runtime, choice.precision, choice.compiled) == ("torch", "float32", False):
        return None
    console.print(choice.in_words(), soft_wrap=True, highlight=False, markup=False)
    return choice


def say_compiling(compiled: bool) -> None:
    """Print a note on stderr that compiling takes a while."""
    if compiled:
        Console(stderr=True).print(
            "The network is compiled at the first crops: 3 to 90 s, less if it was compiled before.", soft_wrap=True
        )
