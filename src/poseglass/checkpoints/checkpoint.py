"""Read the state dict out of a checkpoint that somebody else wrote, without running any of it.

A ``.pth`` is a pickle, and a pickle may hold code. Only its plain part is read (tensors, numbers, strings, lists and
dicts, as ``torch.load(weights_only=True)`` knows them); anything else is refused. What the file claims is checked
against its size before memory is taken, and the tensors of a zipped checkpoint are mapped from the file, not copied.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poseglass.core.table import listed
from poseglass.estimators.weights_file import CARD_KEY, CheckpointError, read_safetensors, what_it_is

MAX_CHECKPOINT_BYTES = 8 * 1024**3
"""A larger file is not read as a checkpoint: the largest public keypoint network has 0.8 GB, 2.3 GB with optimiser."""

MAX_PICKLE_BYTES = 256 * 1024**2
"""The pickle of a zipped checkpoint describes the tensors without holding them; a longer one is refused."""

STATE_KEYS = ("state_dict", "model_state_dict", "model", "network")
"""Where containers keep the state dict, in the order they are looked for."""

PREFIXES = ("module.", "model.")
"""What wrappers put before every name."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict of a ``.pth``, ``.pt``, ``.pth.tar`` or ``.safetensors``, prefixes stripped.

    Tensors keep their type, on the CPU. Those of a zipped checkpoint (PyTorch 1.6 and later) and of safetensors are
    mapped from the file, so the file must stay while they are used.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a checkpoint, truncated, with code in it, without a state dict, too large, or one of ours.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No such checkpoint: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise CheckpointError(f"Expected a checkpoint file, got a folder: {path}.")
    size = path.stat().st_size
    if size > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"{path} has {size:,} bytes; more than {MAX_CHECKPOINT_BYTES:,} are not read.")
    with path.open("rb") as file:
        start = file.read(512)
    if path.suffix.lower() == ".safetensors" or (start[8:9] == b"{" and not start.startswith((b"{", b" "))):
        state, metadata = read_safetensors(path)
        if CARD_KEY in metadata:
            raise CheckpointError(f"{path} is a weights file of poseglass already; use it as it is.")
        return strip_prefixes(state)
    if start.startswith(b"PK\x03\x04"):
        content = _load_zip(path, size)
    elif start[:1] == b"\x80":
        content = _load(path, mmap=False)
    elif start[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive, not a checkpoint (those named .pth.tar are none). Unpack it; if PyTorch before "
            "0.2 wrote it, load and save it again with any later one."
        )
    else:
        raise CheckpointError(f"{path} is not a checkpoint{what_it_is(start)}. Expected .pth, .pt or .safetensors.")
    return strip_prefixes(_find_state(content, path, size))


def _load_zip(path: Path, size: int) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError) as error:
        raise CheckpointError(f"{path} is a truncated or damaged checkpoint ({error}). Fetch it again.") from error
    leaves = {entry.filename.rpartition("/")[2]: entry for entry in entries}
    if "constants.pkl" in leaves:
        raise CheckpointError(
            f"{path} is a TorchScript archive, a program rather than weights. Where its code runs, save the weights: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')."
        )
    if "data.pkl" not in leaves:
        raise CheckpointError(f"{path} is a zip archive, but not one that torch.save wrote. Unpack it if it holds one.")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path} has compressed entries, which torch.save never writes; it is not read.")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > size or leaves["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{path} claims to hold {claimed:,} bytes and has {size:,}; it is damaged or forged.")
    return _load(path, mmap=True)


def _load(path: Path, *, mmap: bool) -> Any:
    """Unpickle the plain part of a checkpoint; with ``mmap``, tensors are bounded by the file they are mapped from."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_plain_numpy()):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # torch's text is addressed to whoever may change the call; of it only what was found is of use.
        finding = str(error).rpartition("WeightsUnpickler error:")[2].strip().split("\n")[0]
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = (
            f"is a pickle with code in it ({code[1]})"
            if code
            else f"is a damaged checkpoint or may hold code ({finding})"
        )
        raise CheckpointError(
            f"{path} {what}: reading it could run whatever it says, so it was not read. Ask for the weights alone, or, "
            "if you trust its author, load it once where nothing can be lost and keep only the tensors: "
            "torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pth')."
        ) from error
    except Exception as error:  # the content is arbitrary, and so is what goes wrong inside the unpickler
        raise CheckpointError(
            f"{path} is a truncated or damaged checkpoint ({_first_line(error)}). Fetch it again."
        ) from error


def _plain_numpy() -> list[Any]:
    """Return what unpickling a numpy number needs: such a "best_acc" is data, and common in containers of the time."""
    make = np.float64(0).__reduce__()[0]  # the one function behind both names, old numpy's and new
    names = [(make, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")]
    return [np.dtype, *names, *(type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "?"))]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _find_state(content: Any, path: Path, size: int) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a state dict. Save network.state_dict() instead."
        )
    state = next((content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)), content)
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    others = [str(key) for key in state if key not in tensors]
    if not tensors or others:
        what = f"besides tensors it holds {listed(others)}" if tensors else f"it holds {listed(others) or 'nothing'}"
        raise CheckpointError(
            f"{path} has no state dict: {what}. Looked for one at the top and under {', '.join(STATE_KEYS)}."
        )
    total = 0
    for key, tensor in tensors.items():
        # A tensor may claim a shape that its few stored numbers fill by repetition; ours would have to hold it in full.
        nbytes = tensor.numel() * tensor.element_size()
        total += nbytes
        if tensor.layout != torch.strided or nbytes > tensor.untyped_storage().nbytes() or total > 2 * size + 4096:
            raise CheckpointError(f"{path}: tensor {key!r} {tuple(tensor.shape)} is larger than what the file stores.")
    return tensors


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove what wrappers put before every name: "module.", "model.", or both in a row.

    Example:
        >>> strip_prefixes({"model.module.a": torch.zeros(1), "model.module.b": torch.zeros(1)}).keys()
        dict_keys(['a', 'b'])
    """
    names = list(state)
    while names and any(all(name.startswith(prefix) for name in names) for prefix in PREFIXES):
        names = [name.partition(".")[2] for name in names]
    return dict(zip(names, state.values(), strict=True))
