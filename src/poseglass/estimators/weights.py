"""Weights files: one ``.safetensors`` that holds the tensors of a network and, in its header, its card.

Nothing in such a file is code, and reading one runs none: a card that names a network outside poseglass is refused
unless the caller says that its code is trusted. The format is https://github.com/huggingface/safetensors: eight bytes
with the length of the header, the header as JSON, the tensors one after the other.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from poseglass.backbones import BACKBONES
from poseglass.core.card import WeightCard
from poseglass.core.image import write_chunks
from poseglass.core.table import build
from poseglass.networks import NETWORKS

CARD_KEY = "poseglass_card"
"""Where in the header's metadata the card stands, as JSON."""

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""A header longer than this is not read: that of the largest network here has half a megabyte."""

_SHOWN = 4  # names listed in a message before "and 12 more"

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


class CheckpointError(ValueError):
    """A weights file or checkpoint that cannot be used; the message names the file, the finding and the way out."""


def save_weights(
    path: str | Path, network_state: Mapping[str, Tensor], card: WeightCard, *, half: bool = False
) -> None:
    """Write the tensors of a network and its card; aside first, so a crash leaves the old file or the new one.

    Floating-point tensors are stored as float32. One tensor at a time is copied, however large the file.

    Args:
        path: Of the ``.safetensors`` to write.
        network_state: ``network.state_dict()``, on any device.
        card: Goes into the header.
        half: Store kernels (tensors of two axes and more) as float16, half the size. Biases and the statistics of
            normalisation stay float32: they are small, and their range matters.

    Raises:
        CheckpointError: A weight is NaN or infinite (or would be as float16), or there is nothing to save.
        OSError: The folder is missing, full or not writable; an existing file is untouched.
    """
    path = Path(path)
    if not network_state:
        raise CheckpointError(f"{path}: nothing to save, the state of {card.name!r} holds no tensors.")
    stored = {name: _stored_dtype(tensor, half) for name, tensor in network_state.items()}
    order = sorted(stored, key=lambda name: (-stored[name].itemsize, name))  # so that each tensor lies aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt", CARD_KEY: card.to_json()}}
    end = 0
    for name in order:
        start, end = end, end + network_state[name].numel() * stored[name].itemsize
        shape = list(network_state[name].shape)
        header[name] = {"dtype": _DTYPES[stored[name]], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[bytes | memoryview]:
        yield struct.pack("<Q", len(text)) + text
        for name in order:
            tensor = network_state[name].detach().to("cpu", stored[name]).contiguous()
            if not bool(tensor.isfinite().all()):
                how = " as float16; save with half=False" if network_state[name].isfinite().all() else ""
                raise CheckpointError(f"{path}: not saved, weight {name!r} of {card.name!r} is NaN or infinite{how}.")
            yield tensor.reshape(-1).view(torch.uint8).numpy().data

    write_chunks(path, chunks())


def _stored_dtype(tensor: Tensor, half: bool) -> torch.dtype:
    if tensor.is_floating_point():
        return torch.float16 if half and tensor.ndim >= 2 else torch.float32
    return tensor.dtype if tensor.dtype in _DTYPES else torch.int64


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


def read_card(path: str | Path) -> WeightCard:
    """Read the card alone; of the file only its header is read.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a safetensors file, truncated, or without a readable card.
    """
    path = Path(path)
    metadata = _read_header(path)[0]
    if CARD_KEY not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file without poseglass's card, so its skeleton and input are unknown. "
            f"If it comes from another project: poseglass import {path} --to FILE.safetensors."
        )
    try:
        return WeightCard.from_json(metadata[CARD_KEY])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error} Fetch the file again, or ask whoever wrote it.") from error
    except (OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path}: The card of these weights cannot be read: {error}.") from error


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read any safetensors file: its tensors (floating point as float32) and the metadata of its header.

    float32 tensors are mapped from the file rather than copied.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a safetensors file, truncated, or with weights that are NaN or infinite.
    """
    path = Path(path)
    metadata, _ = _read_header(path)
    state: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                tensor = file.get_tensor(name)
                state[name] = tensor.float() if tensor.is_floating_point() else tensor
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is a damaged safetensors file ({error}). Fetch or export it again.") from error
    check_finite(state, str(path))
    return state, metadata


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise if a tensor holds NaN or infinity; ``source`` stands in the message.

    Raises:
        CheckpointError: With the names.
    """
    bad = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{source} holds weights that are NaN or infinite, so training had gone wrong when it was written: "
            f"{listed(bad)}. Use an earlier checkpoint."
        )


def _read_header(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the metadata and the table of tensors, checked against the size of the file."""
    if not path.exists():
        raise FileNotFoundError(f"No such weights file: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise CheckpointError(f"Expected a weights file, got a folder: {path}.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 10 or start[8:9] != b"{":
            raise CheckpointError(
                f"{path} is not a safetensors file{what_it_is(start)}. Weights are a .safetensors that "
                "poseglass wrote; `poseglass models` lists those that ship."
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
            raise ValueError("an entry is of the wrong kind")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: its header is damaged ({error}).") from error
    if 8 + length + end > size:
        raise CheckpointError(
            f"{path} is truncated: it should have {8 + length + end:,} bytes and has {size:,}. Fetch it again."
        )
    return metadata, header


def what_it_is(start: bytes) -> str:
    """Say what a file seems to be, by its first bytes: ``" but ..."``, or an empty string."""
    text = start.lstrip().lower()
    if not start:
        return " but an empty one"
    if start.startswith(b"PK\x03\x04") or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return " but a PyTorch checkpoint: poseglass import CHECKPOINT --to FILE.safetensors converts known ones"
    if start.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer: fetch the file itself with git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return " but a web page: the download went wrong"
    if start[:8] in (b"\x04\0\0\0\x01\0\0\0", b"\x03\0\0\0\x01\0\0\0"):
        return " but a Torch7 one: convert it where Lua Torch runs"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        return " but a compressed archive: unpack it first"
    if start[:100].isascii() and b"\0" not in start:
        return " but text"
    return ""


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, as cards and release pages give it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed([str(i) for i in range(9)])
        ('a, b', '0, 1, 2, 3 and 5 more')
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def card_network(card: WeightCard, state: Mapping[str, Tensor] | None = None, *, trust_code: bool = False) -> nn.Module:
    """Build the network (or backbone) that a card describes, with its weights if given, in evaluation mode.

    Args:
        card: Says which network.
        state: Its tensors; every one must fit. None leaves the network as initialised.
        trust_code: Allow a card to name a network of one's own, ``"package.module:name"``. That imports and calls
            code that the *file* chooses, so it is off unless asked for.

    Raises:
        CheckpointError: The network is unknown, outside poseglass, cannot be built, or the weights do not fit.
    """
    outside = named_code(card.network, "network")
    if outside and not trust_code:
        raise CheckpointError(
            f"Weights {card.name!r} ask for code outside poseglass: {outside}. Loading them would run that "
            "code. If it is yours, or you trust it: pass trust_code=True."
        )
    numbers = dict(card.network)
    name = str(numbers.pop("name", ""))
    table = BACKBONES if card.part == "backbone" else NETWORKS
    try:
        if state is not None and not outside:
            # First without memory, so that a card which lies about its file costs nothing.
            _check_numbers(card, state)
            with torch.device("meta"):
                hollow = build(table, name, **numbers)
            check_fit(hollow, state, source=card.name)
        network = build(table, name, **numbers)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"Weights {card.name!r}: their network cannot be built. {error}") from error
    if not isinstance(network, nn.Module):
        raise CheckpointError(f"Weights {card.name!r}: {name!r} made a {type(network).__name__}, not a network.")
    if state is not None:
        load_strictly(network, state, source=card.name)
    return network.eval()


def named_code(table: Mapping[str, Any], kind: str) -> str:
    """Return where a card's table names code outside poseglass, at any depth, and what; else an empty string.

    Example:
        >>> named_code({"name": "cpn", "backbone": {"name": "my.code:Thing"}}, "network")
        "network.backbone 'my.code:Thing'"
    """
    for where, value in _leaves(table, kind):
        if isinstance(value, str) and ":" in value:
            return f"{where.removesuffix('.name')} {value!r}"
    return ""


def _leaves(table: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield place and value of whatever stands in a card's table, through the tables and lists inside."""
    waiting = [(where, table)]  # no recursion: a card may be nested as deeply as its author likes
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{where}.{key}", inner) for key, inner in reversed([*value.items()])]
        elif isinstance(value, list | tuple):
            waiting += [(where, inner) for inner in reversed(value)]
        else:
            yield where, value


def _check_numbers(card: WeightCard, state: Mapping[str, Tensor]) -> None:
    """Raise if a card asks for a network larger than its file can fill, before one is built.

    No count of stacks, levels or blocks is above the number of tensors, and no width above their longest side. What
    holds for a network holds for the parts that its table names.
    """
    longest = max((max(value.shape, default=1) for value in state.values() if value.numel()), default=1)
    for where, value in _leaves(card.network, "network"):
        key = where.rpartition(".")[2]
        most = longest if "width" in key or key in ("num_keypoints", "size_wh") else len(state)
        if isinstance(value, int | float) and value > most:
            raise CheckpointError(
                f"Weights {card.name!r}: their card says {where} = {value}, but the file has {len(state)} "
                f"tensors with sides of at most {longest}. The card belongs to other weights; fetch the file again."
            )


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, source: str = "weights") -> None:
    """Copy a state into a network; every name and every shape must agree.

    Raises:
        CheckpointError: They do not, as ``check_fit`` says; the network is untouched.
    """
    check_fit(network, state, source=source)
    network.load_state_dict(dict(state), strict=True)


def check_fit(network: nn.Module, state: Mapping[str, Tensor], *, source: str = "weights") -> None:
    """Raise unless a state has the names and shapes of a network, which may lie on the meta device.

    Raises:
        CheckpointError: With what is missing, unexpected or of another shape. Where only the number of keypoints
            differs, the message says that.
    """
    own = network.state_dict()
    findings = _names_that_differ(own, state)
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if wrong and not findings:
        counts = _counts_that_differ(own, state, wrong)
        if counts is not None:
            raise CheckpointError(
                f"Weights {source!r} predict {counts[0]} keypoints; asked for {counts[1]}: pass "
                f"num_keypoints={counts[1]} to start a new last layer, or use a skeleton of {counts[0]}."
            )
    if wrong:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in wrong]
        findings.append(f"of another shape: {listed(shapes)}")
    if findings:
        raise CheckpointError(
            f"Weights {source!r} do not fit the network ({len(own)} tensors expected, {len(state)} came): "
            f"{'; '.join(findings)}. Build the network that their card names."
        )


def load_matching(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    from_keypoints: Sequence[str] = (),
    to_keypoints: Sequence[str] = (),
    source: str = "weights",
) -> list[str]:
    """Copy a state into a network that predicts other keypoints: what depends on their number starts anew.

    Everything else must agree by name and shape. Where the keypoints of both sides are named, those that both have
    keep their weights (in the last layer, and wherever heatmaps are fed back), so that going from MPII's 16 to LSP's
    14 loses nothing. As many keypoints of other names cannot be told from the same ones by shape: those weights are
    kept in their order, and training has to turn them; the same names in another order are refused.

    Args:
        network: Keeps its initial values wherever nothing is copied.
        state: Of a network that differs in ``num_keypoints`` only.
        from_keypoints: Names that the state predicts, in order; may be left out.
        to_keypoints: Names that the network predicts, in order; may be left out.
        source: Name of the weights, for messages.

    Returns:
        The names of the tensors that kept initial values, wholly or in part.

    Raises:
        CheckpointError: A tensor is missing, unexpected, or differs by more than the number of keypoints, or the same
            keypoints stand in another order. The network is untouched.
    """
    own = network.state_dict()
    findings = _names_that_differ(own, state)
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    counts = _counts_that_differ(own, state, wrong)
    if wrong and counts is None:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in wrong]
        findings.append(f"of another shape, in more than the number of keypoints: {listed(shapes)}")
    if findings:
        raise CheckpointError(
            f"Weights {source!r} cannot start this network: {'; '.join(findings)}.{_only_the_backbone(own, state)}"
        )
    if counts is not None and from_keypoints and to_keypoints:
        given = (len(from_keypoints), len(to_keypoints))
        if given != counts:
            raise CheckpointError(
                f"Weights {source!r} predict {counts[0]} keypoints and the network {counts[1]}, "
                f"but {given[0]} and {given[1]} names were given."
            )
    moved = [n for n in to_keypoints if n in from_keypoints and from_keypoints.index(n) != to_keypoints.index(n)]
    if counts is None and moved:
        raise CheckpointError(
            f"Weights {source!r} predict as many keypoints as the network, with the same names in another order "
            f"({listed(moved)}). Give the recipe a skeleton in the order of the weights: {', '.join(from_keypoints)}."
        )
    merged = {name: state[name] for name in own if name not in wrong}
    begun: list[str] = []
    shared = [name for name in to_keypoints if name in from_keypoints]
    here = torch.tensor([to_keypoints.index(name) for name in shared], dtype=torch.long)
    there = torch.tensor([from_keypoints.index(name) for name in shared], dtype=torch.long)
    for name in wrong:
        axis = _axis_that_differs(own[name], state[name])
        value = own[name].clone()
        if shared:
            value.index_copy_(axis, here.to(value.device), state[name].index_select(axis, there).to(value))
        if len(shared) < value.shape[axis]:
            begun.append(name)
        merged[name] = value
    network.load_state_dict(merged, strict=True)
    return begun


def load_backbone(network: nn.Module, state: Mapping[str, Tensor], *, source: str = "weights") -> list[str]:
    """Copy the state of a backbone into the one of a network; what is above it keeps its initial values.

    A network may use less of a backbone than was trained: HRNet for pose has no way to its coarser outputs, a light
    neck leaves out the last convolution of MobileNetV3.

    Args:
        network: Has a ``backbone``.
        state: Holds every tensor of that backbone, in its shape.
        source: Name of the weights, for messages.

    Returns:
        The names in ``state`` that the network's backbone has no place for.

    Raises:
        CheckpointError: The network has no backbone, or another one. The network is untouched.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise CheckpointError(
            f"Weights {source!r} are a backbone, and {type(network).__name__} has none to start. Take a network with a "
            'backbone, or compose one: network = {name = "composed", backbone = {name = ...}, neck = {name = ...}}.'
        )
    own = backbone.state_dict()
    unused = [name for name in state if name not in own]
    used = {name: tensor for name, tensor in state.items() if name in own}
    try:
        check_fit(backbone, used, source=source)
    except CheckpointError as error:
        raise CheckpointError(f"The network's backbone is another one. {error}") from None
    backbone.load_state_dict(used, strict=True)
    return unused


def _only_the_backbone(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return a sentence for weights of a network that has the same backbone under another neck or head, or nothing."""
    ours, theirs = ({k: v.shape for k, v in s.items() if k.startswith("backbone.")} for s in (own, state))
    if not ours or ours != theirs:
        return ""
    return (
        " The backbones are the same and what is above them is not: a network's weights start a network of the same "
        "neck and head, with other keypoints at most. Take that neck and head, or start from weights of the backbone "
        "alone."
    )


def _names_that_differ(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} {tuple(own[name].shape)}" for name in own if name not in state]
    unexpected = [f"{name} {tuple(state[name].shape)}" for name in state if name not in own]
    findings = [f"missing: {listed(missing)}"] if missing else []
    return [*findings, f"unexpected: {listed(unexpected)}"] if unexpected else findings


def _axis_that_differs(own: Tensor, other: Tensor) -> int:
    """Return the one axis in which two shapes differ, or -1."""
    if own.ndim != other.ndim:
        return -1
    axes = [i for i, (a, b) in enumerate(zip(own.shape, other.shape, strict=True)) if a != b]
    return axes[0] if len(axes) == 1 else -1


def _counts_that_differ(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], names: Sequence[str]
) -> tuple[int, int] | None:
    """Return (the state's, the network's) number of keypoints when that alone explains all misshapen tensors."""
    found: set[tuple[int, int]] = set()
    for name in names:
        axis = _axis_that_differs(own[name], state[name])
        if axis < 0:
            return None
        found.add((state[name].shape[axis], own[name].shape[axis]))
    # A narrower or deeper network also differs in single axes (every bias), but never in the same two numbers
    # throughout while most tensors agree.
    return found.pop() if len(found) == 1 and 2 * len(names) < len(own) else None
