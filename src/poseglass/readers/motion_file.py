"""Text files of motion capture: limited in size, with numbers that are numbers, and errors that name the line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

MAX_BYTES = 512 * 1024**2
"""Size of a text file of motion capture. Ten minutes of a whole hand and body at 120 a second have about 200 MB."""

MAX_JOINTS = 2000
MAX_ABS = 1e7
"""Larger numbers are damage: ten kilometres in millimetres."""


def read_lines(path: str | Path, kind: str) -> list[str]:
    """Return the lines of a text file, without a byte order mark.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A folder, too large, or not text.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No such {kind} file: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise ValueError(f"Expected a {kind} file, got a folder: {path}.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read. Cut the recording into parts.")
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is not a {kind} file, which is text: it contains zero bytes.")
    return data.decode("utf-8-sig", "replace").splitlines()


def number(word: str) -> float | None:
    """Return a finite number below ten million, None if the word is no such number.

    Example:
        >>> number("-1.5e1"), number("nan"), number("1,5"), number("1_0")
        (-15.0, None, None, None)
    """
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < MAX_ABS and "_" not in word else None


def numbers(words: Sequence[str], where: str) -> list[float]:
    """Return words as numbers.

    Raises:
        ValueError: One is not a finite number below ten million.
    """
    found = []
    for word in words:
        value = number(word)
        if value is None:
            comma = " Write decimals with a point." if number(word.replace(",", ".")) is not None else ""
            raise ValueError(f"{where}: expected a number (finite, below {MAX_ABS:,.0f}), got {word[:40]!r}.{comma}")
        found.append(value)
    return found


def as_array(rows: Sequence[str], lines: Sequence[int], columns: int, where: str) -> np.ndarray:
    """Return rows of numbers as ``(T, columns)`` float64.

    Args:
        rows: The lines, each of which has ``columns`` words.
        lines: Number of each row in the file.
        columns: Words of a row.
        where: The file, for messages.

    Raises:
        ValueError: A word is not a finite number below ten million.
    """
    if not rows:
        return np.zeros((0, columns))
    try:
        table = np.loadtxt(rows, np.float64, comments=None, ndmin=2)
    except ValueError:
        table = None
    if table is None or not (np.abs(table) < MAX_ABS).all():
        for row, line in zip(rows, lines, strict=True):
            numbers(row.split(), f"{where}, line {line}")
    if table is None or table.shape != (len(rows), columns):
        raise ValueError(f"{where}, line {lines[0]}: expected {columns} numbers in each of {len(rows)} lines.")
    return table
