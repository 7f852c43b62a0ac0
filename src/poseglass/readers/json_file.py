"""Read JSON label files: plain or gzipped, limited in size, with errors that name the file."""

import gzip
import json
import math
import reprlib
import zlib
from pathlib import Path
from typing import Any

from poseglass.core.file_kinds import HEAD_BYTES, file_kind

MAX_JSON_BYTES = 2 * 1024**3
"""Unpacked. COCO's largest keypoint file has 238 MB."""


def read_json(path: str | Path, *, drop: tuple[str, ...] = (), max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read JSON from a file, which may be gzipped (its content, not its name, decides).

    Args:
        path: Path of the file.
        drop: Keys of objects that are dropped while reading, such as "segmentation", to save memory.
        max_bytes: Larger files (unpacked) are rejected.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not JSON, damaged, or larger than ``max_bytes``.
    """
    path = Path(path)
    text = read_bytes(path, max_bytes=max_bytes)

    if not text.strip():
        raise ValueError(f"{path} is empty ({len(text)} bytes).")

    def keep(found: dict[str, Any]) -> dict[str, Any]:
        for key in drop:
            found.pop(key, None)
        return found

    try:
        return json.loads(text, object_hook=keep if drop else None)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply for a label file; is it the right file?") from None
    except ValueError as error:  # includes UnicodeDecodeError and JSONDecodeError
        kind = file_kind(text[:HEAD_BYTES])
        if kind.group != "other":  # an image where its labels were expected
            raise ValueError(
                f"{path} is {kind.name}, not a JSON file of labels. Give the file of its labels."
            ) from None
        start = text[:40].decode("utf-8", "replace")
        raise ValueError(f"{path} is not valid JSON ({error}); it starts with {start!r}.") from error


def read_bytes(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Read a whole file, unpacking gzip, up to a maximum size: a small file may unpack to any size.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A folder, damaged gzip, or larger than ``max_bytes``.
    """
    if not path.exists():
        raise FileNotFoundError(f"No such label file: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise ValueError(f"Expected a label file, got a folder: {path}.")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {max_bytes:,} are read.")
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed:
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            data = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged or truncated gzip file ({error}). Fetch it again.") from error
    if len(data) > max_bytes:
        raise ValueError(f"{path} unpacks to more than {max_bytes:,} bytes, too many for a label file; not read.")
    return data


def whole_number(value: Any) -> int | None:
    """Return a whole number as int (also for 3.0 and "3"), None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**62 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 19:
        return int(value)
    return None


def finite_number(value: Any) -> float | None:
    """Return a finite number as float, None for anything else (also for strings, null and true)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def shortened(value: Any) -> str:
    """Return a value as Python writes it, shortened if it is long or deep."""
    form = reprlib.Repr()
    form.maxstring = form.maxother = 60
    form.maxlist = form.maxdict = 5
    form.maxlevel = 2
    text = form.repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
