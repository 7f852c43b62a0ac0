"""Shared by ``predict`` and ``evaluate``: the options that make a network faster."""

from typing import Annotated

import typer
from rich.console import Console

BFLOAT16 = Annotated[
    bool,
    typer.Option(
        "--bfloat16",
        help="Compute in bfloat16 if the processor supports it (see poseglass doctor): faster, but keypoints change by "
        "fractions of a pixel.",
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


def say_compiling(compiled: bool) -> None:
    """Print a note on stderr that compiling takes a while."""
    if compiled:
        Console(stderr=True).print(
            "The network is compiled at the first crops: 3 to 90 s, less if it was compiled before.", soft_wrap=True
        )
