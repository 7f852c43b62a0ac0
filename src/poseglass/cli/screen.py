"""Where commands print to."""

import os
import sys

from rich.console import Console


def wide_console() -> Console:
    """Return the console of stdout: as wide as the terminal, or as COLUMNS says, and unlimited in a pipe or a file.

    A line that is cut in two cannot be searched for, nor can the name of a file in it be copied.
    """
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console()
    return Console(width=10_000)
