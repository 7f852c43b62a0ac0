"""The console that commands print to, and the wording of the library's messages there."""

import os
import re
import sys

from rich.console import Console


def wide_console() -> Console:
    """Return the console of stdout: as wide as the terminal or COLUMNS, and unlimited in a pipe or a file.

    A wrapped line could not be searched for, and a file name in it could not be copied.
    """
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console()
    return Console(width=10_000)


_REMEDY = re.compile(r"\b([Pp])ass (\w+)=('[^']*'|\w*)(?: and (\w+)=)?")
"""How the library's messages refer to arguments: "Pass sigmas=", "pass bad='drop'"."""


def in_commands(text: str) -> str:
    """Return a message of the library with Python arguments replaced by the corresponding options of commands.

    Messages name arguments of readers, which are set in a recipe's table of the dataset or with ``--set``; code in
    weights can be trusted only in Python.

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
