"""Checkpoints: everything a run needs to resume bit for bit, in one file that is written atomically.

The file holds only tensors and plain numbers and is read without running code. It does not depend on the number of
processes: a run with two processes can be resumed with one, and vice versa.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from poseglass.core.files import write_bytes

FORMAT = 2


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain numbers to a temporary file, sync it, and replace the old file with it.

    Raises:
        OSError: The disk is full or not writable; the previous checkpoint is untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, without running code.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is not a checkpoint of this toolkit, or it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"No checkpoint {path}: the run ended before it wrote its first one, so it starts from the beginning."
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a complete training checkpoint: it is truncated, or another kind of file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} is not a complete training checkpoint ({reason}).") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a training checkpoint of this version of poseglass (format {FORMAT}).")
    return state
