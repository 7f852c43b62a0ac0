"""Weights files: one ``.safetensors`` with the tensors of a network and, in its header, its card.

Such a file contains no code, and reading one runs none: a card that names a network outside poseglass is rejected
unless the caller trusts its code. The format is https://github.com/huggingface/safetensors: eight bytes with the length
of the header, the header as JSON, then the tensors.
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from poseglass.core.card import WeightCard
from poseglass.core.files import write_chunks
from poseglass.core.table import listed
from poseglass.estimators.file_kind import folder_kind, what_it_is

CARD_KEY = "poseglass_card"
"""Key of the card in the header's metadata, as JSON."""

LIFTER_KEY = "poseglass_lifter"
"""Key of the card of a lifter (``poseglass.lifting``), which takes keypoints and not images."""

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""A header longer than this is not read: the header of the largest network here has half a megabyte."""


_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


_READ = frozenset(
    {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
)
"""Types of the format that are supported: single numbers that fit into float32 or int64."""


class CheckpointError(ValueError):
    """Raised for a weights file or checkpoint that cannot be used; the message names file, problem and what to do."""


def save_weights(
    path: str | Path, network_state: Mapping[str, Tensor], card: WeightCard, *, half: bool = False
) -> None:
    """Write the tensors of a network and its card, atomically: a crash leaves either the old file or the new one.

    Floating-point tensors are stored as float32. Tensors are copied one at a time, however large the file.

    Args:
        path: Path of the ``.safetensors`` to write.
        network_state: ``network.state_dict()``, on any device.
        card: Stored in the header.
        half: Store kernels (tensors with two or more axes) as float16, half the size. Biases and the statistics of
            normalisation stay float32: they are small, and their range matters.

    Raises:
        CheckpointError: A weight is NaN or infinite (or would be as float16) or complex, or there is nothing to save.
        OSError: The folder is missing, full or not writable; an existing file is not changed.
    """
    write_safetensors(path, network_state, {CARD_KEY: card.to_json()}, card.name, half=half)


def write_safetensors(
    path: str | Path, network_state: Mapping[str, Tensor], metadata: Mapping[str, str], name: str, *, half: bool = False
) -> None:
    """Write tensors with any metadata in the header, as ``save_weights`` does with a card.

    Args:
        path: Path of the ``.safetensors`` to write.
        network_state: ``network.state_dict()``, on any device.
        metadata: Texts by key.
        name: What is saved, for messages.
        half: Store kernels (tensors with two or more axes) as float16.

    Raises:
        CheckpointError: As ``save_weights``.
        OSError: As ``save_weights``.
    """
    path = Path(path)
    if not network_state:
        raise CheckpointError(f"{path}: nothing to save, the state of {name!r} holds no tensors.")
    odd = [f"{key} {tensor.dtype}" for key, tensor in network_state.items() if not _storable(tensor)]
    if odd:
        raise CheckpointError(
            f"{path}: not saved, {name!r} has tensors of unsupported types: {listed(odd)}. Convert them to "
            "float32 first."
        )
    stored = {key: _stored_dtype(tensor, half) for key, tensor in network_state.items()}
    order = sorted(stored, key=lambda key: (-stored[key].itemsize, key))  # so that each tensor is aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for key in order:
        start, end = end, end + network_state[key].numel() * stored[key].itemsize
        shape = list(network_state[key].shape)
        header[key] = {"dtype": _DTYPES[stored[key]], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[bytes | memoryview]:
        yield struct.pack("<Q", len(text)) + text
        for key in order:
            tensor = network_state[key].detach().to("cpu", stored[key]).contiguous()
            if not bool(tensor.isfinite().all()):
                how = " as float16; save it without half precision" if network_state[key].isfinite().all() else ""
                raise CheckpointError(f"{path}: not saved, weight {key!r} of {name!r} is NaN or infinite{how}.")
            yield tensor.reshape(-1).view(torch.uint8).numpy().data

    write_chunks(path, chunks())


def _stored_dtype(tensor: Tensor, half: bool) -> torch.dtype:
    if tensor.is_floating_point():
        return torch.float16 if half and tensor.ndim >= 2 else torch.float32
    return tensor.dtype if tensor.dtype in _DTYPES else torch.int64


def _storable(tensor: Tensor) -> bool:
    whole = (torch.uint16, torch.uint32, *(dtype for dtype in _DTYPES if not dtype.is_floating_point))
    return tensor.is_floating_point() or tensor.dtype in whole


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], WeightCard]:
    """Read what ``save_weights`` wrote: the tensors (floating point as float32) and the card.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a safetensors file, truncated, without a card or with an unreadable one, or with weights
            that are NaN or infinite.
    """
    card = read_card(path)
    state, _ = read_safetensors(path)
    return state, card


def has_card(path: Path) -> bool:
    """Return whether a file is weights of ours, and not those of another project; a broken file counts as ours.

    Checkpoints of other projects are pickles, archives, or safetensors without our card.
    """
    if path.suffix != ".safetensors":
        return False
    try:
        return CARD_KEY in _read_header(path)[0]
    except CheckpointError:
        return True


def read_card(path: str | Path) -> WeightCard:
    """Read only the card; only the header of the file is read.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a safetensors file, truncated, or without a readable card.
    """
    path = Path(path)
    metadata = _read_header(path)[0]
    if LIFTER_KEY in metadata:
        raise CheckpointError(
            f"{path} holds a lifter, which turns keypoints into 3D poses and finds none in images. Give weights that "
            f"find keypoints, and the lifter to poseglass predict --lifter {path}, or open it with "
            "poseglass.lifting.load_lifter."
        )
    if CARD_KEY not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file without poseglass's card, so its skeleton and input are unknown. "
            f"If it comes from another project: poseglass import {path} --out FILE.safetensors."
        )
    try:
        return WeightCard.from_json(metadata[CARD_KEY])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error} Fetch the file again, or ask its author.") from error
    except (OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path}: The card of these weights cannot be read: {error}.") from error


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read any safetensors file: tensors (floating point as float32, unsigned as int64) and the header's metadata.

    float32 tensors are memory-mapped rather than copied.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a safetensors file, truncated, with tensors of an unsupported type, or with weights that
            are NaN or infinite.
    """
    path = Path(path)
    metadata, header = _read_header(path)
    types = {name: str(entry.get("dtype")) for name, entry in header.items()}
    odd = [f"{name} ({kind})" for name, kind in types.items() if kind not in _READ]
    if odd:
        raise CheckpointError(
            f"{path} has tensors of unsupported types: {listed(odd)}. Supported are {', '.join(sorted(_READ))}. "
            "Save the weights as float32 or float16 where they were made."
        )
    state: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                tensor = file.get_tensor(name)
                unsigned = tensor.dtype in (torch.uint16, torch.uint32, torch.uint64)
                state[name] = tensor.float() if tensor.is_floating_point() else tensor.long() if unsigned else tensor
                if unsigned and bool((state[name] < 0).any()):
                    raise ValueError(f"{name!r} has values of 2**63 and more")
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is a damaged safetensors file ({error}). Fetch or export it again.") from error
    check_finite(state, str(path))
    return state, metadata


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise if a tensor contains NaN or infinity; ``source`` is used in the message.

    Raises:
        CheckpointError: Lists the names.
    """
    bad = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{source} has weights that are NaN or infinite, so training had diverged when it was written: "
            f"{listed(bad)}. Use an earlier checkpoint."
        )


def _read_header(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the metadata and the table of tensors, checked against the size of the file."""
    if not path.exists():
        raise FileNotFoundError(f"No such weights file: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise CheckpointError(f"Expected a weights file, got a folder: {path}{folder_kind(path)}.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        length = int.from_bytes(start[:8], "little")
        # eight printable letters would be a header of 2**61 bytes: this is text, such as JSON with a nested object
        if len(start) < 10 or start[8:9] != b"{" or (start[:8].isascii() and start[:8].decode().isprintable()):
            raise CheckpointError(
                f"{path} is not a safetensors file{_kind(start, path)}. Weights are a .safetensors written by "
                "poseglass; `poseglass models` lists those that ship."
            )
        if length > MAX_HEADER_BYTES or length > size - 8:
            raise CheckpointError(
                f"{path} is truncated or not a safetensors file: its header claims {length:,} bytes, "
                f"the file has {size:,}. Fetch it again."
            )
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if not all(isinstance(value, str) for value in metadata.values()) or not isinstance(end, int):
            raise ValueError("an entry has the wrong type")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: its header is damaged ({error}).") from error
    if 8 + length + end > size:
        raise CheckpointError(
            f"{path} is truncated: it should have {8 + length + end:,} bytes and has {size:,}. Fetch it again."
        )
    return metadata, header


def _kind(start: bytes, path: Path) -> str:
    if path.name == "checkpoint.pt" and (path.parent / "recipe.toml").is_file():
        return f" but the training state of a run: its weights are {path.parent / 'best.safetensors'}"
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                other = what_it_is(start, path, entries=archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            other = ""
        return other or what_it_is(start)
    return what_it_is(start, path)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, as stated in cards and on release pages."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
