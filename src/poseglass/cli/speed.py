"""What ``predict`` and ``evaluate`` share: the options that make a network faster."""

from typing import Annotated

import typer
from rich.console import Console

BFLOAT16 = Annotated[
    bool,
    typer.Option(
        "--bfloat16",
        help="Compute in bfloat16, if the processor multiplies it itself (poseglass doctor says): "
        "faster, and keypoints move by parts of a pixel.",
    ),
]

COMPILED = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network first: 3 to 90 s for single crops and again for batches, less when it was compiled "
        "before; pays for many images. Needs a C++ compiler, and runs uncompiled without one.",
    ),
]


def say_compiling(compiled: bool) -> None:
    """Say on stderr why nothing happens for a while."""
    if compiled:
        Console(stderr=True).print(
            "Compiling when the first crops come: 3 to 90 s, less when it has been compiled before.", soft_wrap=True
        )
