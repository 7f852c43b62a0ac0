"""Checkpoints: everything a run needs to go on bit for bit, in one file that is whole or absent.

The file holds tensors and plain numbers only and is read without running code. It knows nothing of processes: one that
two processes wrote goes on in one, and the other way round.
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
    """Write tensors and plain numbers aside, sync, and put them in place of the old file.

    Raises:
        OSError: No disk or no permission; the previous checkpoint is untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, without running code.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a checkpoint of this toolkit, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"No checkpoint {path}: the run ended before it wrote its first, and starts at its beginning."
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a whole training checkpoint: it is cut short, or something else.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} is not a whole training checkpoint ({reason}).") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a training checkpoint of this version of poseglass (format {FORMAT}).")
    return state
