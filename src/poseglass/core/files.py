"""Write files atomically: to a temporary file, synced, then renamed."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically: after a crash or on a full disk there is the old file or the new one, never half of it.

    Raises:
        OSError: The folder is missing, full or not writable; an existing file is untouched.
    """
    write_chunks(path, (data,))


def write_chunks(path: str | Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write chunks that are produced one at a time as ``write_bytes`` does, without a second copy in memory.

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
