"""Opens untrusted checkpoints without running any code in them: lists the tensors and their names.

A ``.pth`` is a pickle, and a pickle may contain code. It is read as data (``pickled``): tensors, numbers, strings and
containers; objects of other classes are kept as names only, and are counted. What a file claims is checked against its
size before memory is allocated, and the tensors of a zipped checkpoint are memory-mapped, not copied.
"""

import mmap
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poseglass.core.pickled import (
    MAX_NAME,
    STORAGES,
    CodeFound,
    Foreign,
    Named,
    PickleError,
    PickleReader,
    Storage,
    Stored,
    Truncated,
)
from poseglass.core.table import listed
from poseglass.estimators.file_kind import by_suffix, folder_kind, is_pickle, what_it_is
from poseglass.estimators.weights_file import CARD_KEY, CheckpointError, read_safetensors

MAX_CHECKPOINT_BYTES = 8 * 1024**3
"""Size limit of a checkpoint: the largest public keypoint network has 0.8 GB, 2.3 GB with optimiser state."""

MAX_PICKLE_BYTES = 256 * 1024**2
"""Size limit of the pickle in a zipped checkpoint, which describes the tensors but does not contain them."""

MAX_VALUES = 2_000_000
"""Limit of values in a checkpoint, tensors and containers together; one that contains itself repeatedly has more."""

MAX_DEPTH = 100
"""Limit of nested containers. The modules of a network that was pickled whole take three per level."""

MAX_PREFIXES = 200_000_000
"""Characters of all names together, each counted as often as it has parts, since each is looked for under all of them.
A hundred thousand tensors of ten parts and a hundred characters have half of it."""

TOP = "."
"""What represents the top level of a checkpoint where a path is expected."""

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""What ``torch.save`` wrote first before PyTorch 1.6."""

PADDLE_KEY = "StructuredToParameterName@@"
"""Keys that PaddlePaddle stores next to its arrays."""

RUN_KEYS = {"format", "network", "optimizer", "progress"}
"""Keys that the training state of one of our runs has, among others."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of a checkpoint file.

    Every tensor is named by its path: keys of dicts, indices in lists and names of modules joined by dots,
    "state_dict.module.conv1.weight". A tensor that a wrapper renamed thus looks the same as one inside a dict.

    Attributes:
        path: The file.
        tensors: Tensors by name. Those that are ``Stored`` have not been read.
        modules: Path and class of each network that was pickled whole; paths without the last dot, "" for the top
            level.
        foreign: Number of ignored objects of each other class.
        strange: Name and class of each of those objects.
        where: Key of a storage to its first byte in the file and its size in bytes.
        mapped: The file's bytes, if tensors are memory-mapped from it.
    """

    path: Path
    tensors: Mapping[str, Stored | Tensor]
    modules: Mapping[str, str] = field(default_factory=dict)
    foreign: Mapping[str, int] = field(default_factory=dict)
    strange: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mapped: torch.UntypedStorage | None = None

    def shapes(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return tensors without numbers (on the meta device) of these shapes and types.

        Raises:
            CheckpointError: One claims a shape that no memory could hold.
        """
        found: dict[str, Tensor] = {}
        for name in names:
            tensor = self.tensors[name]
            try:
                found[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            except RuntimeError:
                if isinstance(tensor, Tensor):
                    raise
                raise self._too_large(name, tensor) from None
        return found

    def read(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return tensors on the CPU, in their own type; those of a zipped checkpoint are memory-mapped from the file.

        Raises:
            CheckpointError: A tensor, or all of them together, claims to be larger than what the file stores.
        """
        found: dict[str, Tensor] = {}
        storages: dict[str, torch.UntypedStorage] = {}
        total, size = 0, self.path.stat().st_size
        for name in names:
            tensor = self.tensors[name]
            if isinstance(tensor, Tensor):
                found[name] = tensor
                continue
            total += tensor.nbytes
            if total > 2 * size + 4096:
                raise self._too_large(name, tensor)
            found[name] = self._read(name, tensor, storages)
        return found

    def all(self) -> dict[str, Tensor]:
        """Return every tensor; see ``read``."""
        return self.read(self.tensors.keys())

    def _read(self, name: str, stored: Stored, storages: dict[str, torch.UntypedStorage]) -> Tensor:
        if isinstance(stored.storage, np.ndarray):
            return torch.from_numpy(stored.storage).reshape(stored.shape)
        storage, width = stored.storage, stored.dtype.itemsize
        start, held = self.where.get(storage.key, (0, -1))
        first = storage.start * (storage.dtype or torch.uint8).itemsize
        # A tensor may claim a shape that its few stored values fill by repetition; ours would have to hold it in full.
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
        if 0 not in stored.shape and (stored.nbytes > held - first or first + (last + 1) * width > held):
            raise self._too_large(name, stored)
        if 0 in stored.shape:
            return torch.zeros(stored.shape, dtype=stored.dtype)
        if storage.key not in storages:
            storages[storage.key] = self._storage(start, held)
        part = storages[storage.key][first:]
        return torch.empty(0, dtype=stored.dtype).set_(part, stored.offset, stored.shape, stored.stride)  # type: ignore[call-overload]

    def _storage(self, start: int, held: int) -> torch.UntypedStorage:
        if self.mapped is not None and start % 8 == 0:
            return self.mapped[start : start + held]
        with self.path.open("rb") as file:
            file.seek(start)
            return torch.frombuffer(bytearray(file.read(held)), dtype=torch.uint8).untyped_storage()

    def _too_large(self, name: str, stored: Stored) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: tensor {name!r} {stored.shape} is larger than what the file stores. Fetch the file again."
        )


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a ``.pth``, ``.pt``, ``.pth.tar``, ``.pkl`` or ``.safetensors`` checkpoint.

    The file must not be removed while tensors read from it are in use.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a checkpoint, truncated, contains code, without tensors, too large, or one of ours.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No such checkpoint: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise CheckpointError(f"Expected a checkpoint file, got a folder: {path}{folder_kind(path)}.")
    size = path.stat().st_size
    if size > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"{path} has {size:,} bytes; files over {MAX_CHECKPOINT_BYTES:,} bytes are not read.")
    with path.open("rb") as file:
        start = file.read(512)
    if path.suffix.lower() == ".safetensors" or (start[8:9] == b"{" and not start.startswith((b"{", b"[", b" "))):
        state, metadata = read_safetensors(path)
        if CARD_KEY in metadata:
            raise CheckpointError(f"{path} is already a poseglass weights file; use it as it is.")
        return Checkpoint(path, state)
    try:
        if start.startswith(b"PK\x03\x04"):
            return _open_zip(path, size)
        if is_pickle(start, path):
            return _open_pickles(path, size)
    except CodeFound as found:
        raise CheckpointError(
            f"{path} is a pickle that contains code ({found}): reading it with PyTorch could run anything, so it "
            "was not read. Ask for the weights alone, or, if you trust its author, load it once in an isolated "
            "environment and keep only the tensors: torch.save(torch.load(path, weights_only=False)['state_dict'], "
            "'weights.pth')."
        ) from None
    except Truncated as error:
        raise CheckpointError(f"{path} is a truncated checkpoint: {error}. Fetch it again.") from None
    except PickleError as error:
        raise CheckpointError(f"{path} is a truncated or damaged checkpoint ({error}). Fetch it again.") from error
    raise CheckpointError(f"{path} is not a checkpoint{what_it_is(start, path)}. Expected .pth, .pt or .safetensors.")


def _open_zip(path: Path, size: int) -> Checkpoint:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            named = {entry.filename: entry for entry in entries}
            pickles = [name for name in named if name == "data.pkl" or name.endswith("/data.pkl")]
            other = what_it_is(b"PK\x03\x04", path, entries=list(named))
            if other or not pickles:
                raise CheckpointError(
                    f"{path} is not a checkpoint{other or ' but a zip archive, not one that torch.save wrote'}. "
                    "Expected .pth, .pt or .safetensors."
                )
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise CheckpointError(f"{path} has compressed entries, which torch.save never writes; it is not read.")
            claimed = sum(entry.file_size for entry in entries)
            if claimed > size or named[pickles[0]].file_size > MAX_PICKLE_BYTES:
                raise CheckpointError(
                    f"{path} claims to contain {claimed:,} bytes but has {size:,}; it is damaged or forged."
                )
            root = pickles[0].removesuffix("data.pkl")
            order = archive.read(f"{root}byteorder") if f"{root}byteorder" in named else b"little"
            text = archive.read(pickles[0])
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is a truncated or damaged checkpoint: its table of contents, at the end of the file, cannot be "
            f"read ({error}). Fetch it again."
        ) from error
    _check_order(order == b"little", path)
    content = PickleReader(text, persistent=_storage_of).load()
    where: dict[str, tuple[int, int]] = {}
    with path.open("rb") as file:
        for name, entry in named.items():
            if name.startswith(f"{root}data/"):
                file.seek(entry.header_offset + 26)
                lengths = file.read(4)
                if len(lengths) < 4:
                    raise Truncated("it ends before its tensors do")
                begin = entry.header_offset + 30 + int.from_bytes(lengths[:2], "little")
                begin += int.from_bytes(lengths[2:], "little")
                if begin + entry.file_size > size:
                    raise Truncated("it ends before its tensors do")
                where[name.removeprefix(f"{root}data/")] = (begin, entry.file_size)
    mapped = torch.UntypedStorage.from_file(str(path), False, size)
    assert isinstance(mapped, torch.UntypedStorage)
    return _checkpoint(path, content, where, mapped)


def _open_pickles(path: Path, size: int) -> Checkpoint:
    """Open a file that ``torch.save`` wrote before PyTorch 1.6, or a plain pickle."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = PickleReader(data)
        first = reader.load()
        if first != MAGIC:
            return _checkpoint(path, first, {}, None)
        if reader.load() != PROTOCOL:
            raise PickleError("it was written by an unknown version of torch.save")
        system = reader.load()
        _check_order(not isinstance(system, dict) or system.get("little_endian", True) is True, path)
        views: dict[str, Storage] = {}

        def storage_of(known: Any) -> Any:
            found = _storage_of(known)
            if isinstance(found, Storage):
                views[found.key] = found
            return found

        reader.persistent = storage_of
        content = reader.load()
        keys = reader.load()
        widths = {view.key: (view.dtype or torch.uint8).itemsize for view in views.values()}
        where, at = {}, reader.at
        if not isinstance(keys, list):
            raise PickleError("it does not list its tensors")
        for key in map(_word, keys):
            if at + 8 > size:
                raise Truncated(f"it has {len(where)} of its {len(keys)} tensors")
            held = int.from_bytes(data[at : at + 8], "little") * widths.get(key, 1)
            if held > size - at - 8:
                raise Truncated(f"it has {len(where)} of its {len(keys)} tensors")
            where[key] = (at + 8, held)
            at += 8 + held
    return _checkpoint(path, content, where, None)


def _check_order(little: bool, path: Path) -> None:
    if not little:
        raise CheckpointError(f"{path} was written on a big-endian machine, which is not supported.")


def _storage_of(known: Any) -> Any:
    """Return what a pickle of ``torch.save`` refers to: where a tensor's values are, or the class of a module."""
    if not isinstance(known, tuple) or len(known) < 2:
        raise PickleError("it refers to something outside the file")
    if _word(known[0]) == "module":
        return known[1]
    if _word(known[0]) != "storage" or len(known) < 5 or not isinstance(known[1], Named):
        raise PickleError("it refers to something outside the file")
    kind, key, _, numel = known[1:5]
    name = kind.name.rpartition(".")[2]
    if name not in STORAGES or not isinstance(numel, int):
        return Foreign(kind.name)
    start = 0
    if len(known) > 5 and known[5] is not None:
        start = known[5][1]
    if not isinstance(start, int) or start < 0:
        raise PickleError("a tensor starts before its storage does")
    return Storage(STORAGES[name], _word(key), numel, start)


def _word(text: Any) -> str:
    if isinstance(text, str | bytes) and len(text) > MAX_NAME + 1:
        raise PickleError(f"a name in it has {len(text):,} characters")
    if isinstance(text, bytes):
        return text.decode("latin1")
    if not isinstance(text, str | int):
        raise PickleError("a name is no word")
    if isinstance(text, int) and text.bit_length() > 64:
        raise PickleError("a name is a number of more than 64 bits")
    return str(text)


def _checkpoint(
    path: Path, content: Any, where: Mapping[str, tuple[int, int]], mapped: torch.UntypedStorage | None
) -> Checkpoint:
    """Return the tensors of unpickled content by their names.

    Raises:
        CheckpointError: There are none, or the content is the training state of one of our runs.
    """
    if isinstance(content, dict) and PADDLE_KEY in content:
        raise CheckpointError(
            f"{path} is not a checkpoint{by_suffix('.pdparams')}. Expected .pth, .pt or .safetensors."
        )
    if isinstance(content, dict) and content.keys() >= RUN_KEYS:
        run = path.parent
        raise CheckpointError(
            f"{path} is the training state of a poseglass run, not a checkpoint of another project. The weights of the "
            f"run are {run / 'best.safetensors'} and, once it is finished, {run / 'last.safetensors'}: use them as "
            f"they are. Resume the run with: poseglass train --resume --run {run}."
        )
    tensors: dict[str, Stored] = {}
    modules: dict[str, str] = {}
    strange: dict[str, str] = {}
    for name, value, in_module in _walk(content):
        if isinstance(value, Stored):
            tensors[name] = value
        elif isinstance(value, Foreign) and _is_module(value):
            if not in_module:
                modules[name] = _class_of(value)
        elif isinstance(value, Foreign | Named):
            strange[name] = value.name
    if not tensors:
        what = "nothing"
        if isinstance(content, dict) and content:
            what = listed([_cut(str(key)) for key in content if isinstance(key, str | int)]) or "nothing with a name"
        elif isinstance(content, Foreign | Named):
            what = f"an object of class {content.name}"
        elif not isinstance(content, dict):
            what = "one tensor" if isinstance(content, Stored) else f"a {type(content).__name__}"
        raise CheckpointError(
            f"{path} has no state dict: it contains {what}, and no named tensor. Save network.state_dict() instead."
        )
    return Checkpoint(path, tensors, modules, Counter(strange.values()), strange, where, mapped)


_PLAIN = re.compile(r"torch\.\w+$|torch\.nn\.parameter\.Parameter$|numpy\.(dtype|ndarray|generic)$|key$|builtins\.\w+$")
"""Classes of plain values: types and layouts of tensors, and values without a class name of their own."""


def _walk(content: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yield name and value of every tensor and every object of a non-plain class, in the order of the file.

    The third value is whether it is in a network that was pickled whole.

    Raises:
        PickleError: Containers hold each other without end, or names are too long.
    """
    # a name is only joined when its turn comes: what waits shares those above it
    waiting: list[tuple[str, str, Any, bool, tuple[int, ...]]] = [("", "", content, False, ())]
    parts = _Parts()
    spelled = 0
    while waiting:  # no recursion: a file may be nested as deeply as its author likes
        outer, key, value, in_module, above = waiting.pop()
        name = f"{outer}.{key}" if outer and key else outer or key
        if len(above) > MAX_DEPTH:
            raise PickleError("its containers contain each other endlessly")
        named = isinstance(value, Stored) or (isinstance(value, Foreign | Named) and not _PLAIN.match(value.name))
        if named and (name or not isinstance(value, Stored)):
            spelled += len(name) * (1 + name.count("."))
            if len(name) > MAX_NAME:
                raise PickleError(f"a name in it has more than {MAX_NAME:,} characters: {_cut(name)}")
            if spelled > MAX_PREFIXES:
                raise PickleError(f"its names are longer than those of any network, such as {_cut(name)}")
            yield name, value, in_module
        if isinstance(value, Stored) or id(value) in above:
            continue
        within = (*above, id(value))
        in_module = in_module or (isinstance(value, Foreign) and _is_module(value))
        start = len(waiting)
        outer = name[: MAX_NAME + 1]  # longer is too long already, which matters only if something named lies below
        waiting += [(outer, key, part, in_module, within) for key, part in parts.of(value)]
        waiting[start:] = reversed(waiting[start:])


class _Parts:
    """Finds what lies in containers, and goes through each container once, however often it is held."""

    def __init__(self) -> None:
        # none is freed while the content is there, so an id stays its own
        self._known: dict[int, list[tuple[str, Any]]] = {}
        self._unsaved: dict[int, frozenset[str]] = {}
        self._seen = 0

    def of(self, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield name and value of whatever lies directly in a container, a network or another object.

        Only of tensors, objects and containers: nothing lies in other values.

        Raises:
            PickleError: They are too many together.
        """
        if isinstance(value, dict | list | tuple):
            yield from self._held(value)
        elif isinstance(value, Foreign) and _is_module(value):
            unsaved = self._words(value.state.get("_non_persistent_buffers_set"))
            for kind in ("_parameters", "_buffers", "_modules"):
                for key, part in self._held(value.state.get(kind)):
                    if kind != "_buffers" or key not in unsaved:
                        yield key, part
        elif isinstance(value, Foreign):
            yield from self._held(value.entries)
            yield from self._held(value.elements)
            states = [part for _, part in self._held(value.state)] if isinstance(value.state, tuple) else [value.state]
            for part in states:
                yield from self._held(part if isinstance(part, dict) else None)

    def _held(self, container: Any) -> list[tuple[str, Any]]:
        if not isinstance(container, dict | list | tuple) or not container:
            return []
        if id(container) not in self._known:
            pairs = container.items() if isinstance(container, dict) else enumerate(container)
            self._known[id(container)] = [
                (_word(key[: MAX_NAME + 1] if isinstance(key, str | bytes) else key), part)
                for key, part in pairs
                if (isinstance(part, Stored | Foreign | Named) or (part and isinstance(part, dict | list | tuple)))
                and isinstance(key, str | int | bytes)
            ]
        self._seen += len(self._known[id(container)])
        if self._seen > MAX_VALUES:
            raise PickleError("its containers contain each other endlessly")
        return self._known[id(container)]

    def _words(self, listed_ones: Any) -> frozenset[str]:
        if not isinstance(listed_ones, list | tuple):
            return frozenset()
        if id(listed_ones) not in self._unsaved:
            self._unsaved[id(listed_ones)] = frozenset(word for word in listed_ones if isinstance(word, str))
        return self._unsaved[id(listed_ones)]


def _cut(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:80]}..."


def _is_module(value: Foreign) -> bool:
    """Return whether this is a network or a layer: it has the attributes of a ``torch.nn.Module``."""
    kept = value.state if isinstance(value.state, dict) else {}
    return isinstance(kept.get("_modules"), dict) and isinstance(kept.get("_parameters"), dict)


def _class_of(module: Foreign) -> str:
    """Return the class of a network; of a wrapper around one (``DataParallel``) the inner one's too."""
    parts = islice(module.state["_modules"].values(), 10)  # a wrapper has one
    inside = [part for part in parts if isinstance(part, Foreign) and _is_module(part)]
    if len(inside) == 1 and not module.state["_parameters"] and "arallel" in module.name:
        return f"{inside[0].name} in a {module.name}"
    return module.name
