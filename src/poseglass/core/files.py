"""Write a file whole or not at all: aside, synced, then renamed."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that a crash or a full disk leaves the old one or the new one, never half: aside, fsync, rename.

    Raises:
        OSError: The folder is missing, full or not writable; an existing file is untouched.
    """
    write_chunks(path, (data,))


def write_chunks(path: str | Path, chunks: Iterable[bytes | memoryview]) -> None:
    """As ``write_bytes``, of pieces that are made one at a time: a large file need not lie in memory twice.

    Raises:
        OSError: The folder is missing, full or not writable; an existing file is untouched.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: no folder {path.parent}. Make it first.")
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        mode = os.umask(0)
        os.umask(mode)
        Path(aside).chmod(0o666 & ~mode)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
