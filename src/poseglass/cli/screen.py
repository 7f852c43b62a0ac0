"""Where commands print to, and how the library's remedies read there."""

import os
import re
import sys

from rich.console import Console


def wide_console() -> Console:
    """Return the console of stdout: as wide as the terminal, or as COLUMNS says, and unlimited in a pipe or a file.

    A line that is cut in two cannot be searched for, nor can the name of a file in it be copied.
    """
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console()
    return Console(width=10_000)


_REMEDY = re.compile(r"\b([Pp])ass (\w+)=('[^']*'|\w*)(?: and (\w+)=)?")
"""What the library says of its arguments: "Pass sigmas=", "pass bad='drop'"."""


def in_commands(text: str) -> str:
    """Return a message of the library with its arguments called as they are given in a command.

    The arguments that messages name are those of readers, which a recipe's table of data sets, or ``--set``; code in
    weights is trusted in Python alone.

    Example:
        >>> in_commands("The file has none. Pass sigmas= to set them.")
        'The file has none. Set sigmas (in the data table of a recipe, or --set data.sigmas=...) to set them.'
        >>> in_commands("pass trust_code=True.")
        'load it in Python with trust_code=True.'
    """

    def put(match: re.Match[str]) -> str:
        letter, name, value, other = match.groups()
        if name == "trust_code":
            said = f"load it in Python with {name}={value}"
        else:
            names = [n for n in (name, other) if n]
            ways = " ".join(f"--set data.{n}={value.strip(chr(39)) if value else '...'}" for n in names)
            said = f"set {' and '.join(names)} (in the data table of a recipe, or {ways})"
        return said[0].upper() + said[1:] if letter == "P" else said

    return _REMEDY.sub(put, text)
