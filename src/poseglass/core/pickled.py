"""Reads a pickle as data: no class or function in it is looked up, and nothing in it is called.

A pickle is a program for a small stack machine. This module implements that machine with the instructions of protocols
0 to 5, except that where Python would import a name and call it, the name is kept instead. The result of a call is one
of a few things that are understood here as data (tensors and where their values are stored, NumPy arrays and numbers,
plain containers), or else a ``Foreign``: the name, and whatever was to be put into the object. So weights stored beside
an ``argparse.Namespace``, or inside a network whose class is not installed, can be read, and no file can run anything.

Format: https://github.com/python/cpython/blob/3.11/Lib/pickletools.py.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch


class PickleError(ValueError):
    """Not a readable pickle; the message says what was found."""


class Truncated(PickleError):
    """The pickle ends before its last instruction."""


class CodeFound(PickleError):
    """The pickle names a function that has side effects when it is called; the message is its name."""


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """A class or function that a pickle names, such as ``"collections.OrderedDict"``. It was not looked up."""

    name: str


@dataclass(slots=True, eq=False)
class Foreign:
    """An object that only its own class could create.

    Attributes:
        name: Name of its class, or of the function that would have created it.
        args: Arguments of that call.
        state: What would have become its attributes, most often a dict.
        entries: Its items, if it is a kind of dict.
        elements: Its elements, if it is a kind of list.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Storage:
    """The values of one or more tensors, which are stored elsewhere in the file.

    Attributes:
        dtype: None if the tensors specify it.
        key: Key of the storage in the file.
        numel: Number of elements (of bytes, if ``dtype`` is None).
        start: First element, if it is a part of the storage with that key.
    """

    dtype: torch.dtype | None
    key: str
    numel: int
    start: int = 0


@dataclass(slots=True, eq=False)
class Stored:
    """A tensor that has not been read: where its values are, and their layout."""

    storage: Storage | np.ndarray
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = 0
    stride: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of its elements in bytes if each is stored once."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(slots=True, eq=False)
class _NumpyType:
    code: str
    order: str = "="

    def dtype(self) -> np.dtype[Any] | None:
        if self.code.lstrip("<>=|") not in _NUMBERS:
            return None
        found = np.dtype(self.code)
        return found.newbyteorder(self.order) if self.order in ("<", ">") else found


@dataclass(slots=True, eq=False)
class _EmptyArray:
    """An array between the call that creates it and the instruction that fills it."""


_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "UntypedStorage": None,
}
"""Names of PyTorch's storages, under ``torch`` or ``torch.cuda``, and the types of their elements."""

_ACTING = {
    "_ctypes", "_io.FileIO", "_io.open", "_io.open_code", "_pickle", "_posixsubprocess", "_socket", "_winapi",
    "antigravity", "asyncio", "atexit", "bdb", "bz2", "cPickle", "cProfile", "code", "codecs.open", "codeop",
    "commands", "ctypes", "dbm", "distutils", "dl", "doctest", "ensurepip", "faulthandler", "fcntl", "fileinput",
    "ftplib", "gc", "gzip", "http", "httplib", "idlelib", "imaplib", "imp", "importlib", "inspect", "io.FileIO",
    "io.open", "io.open_code", "lib2to3", "lzma", "marshal", "mmap", "msvcrt", "multiprocessing", "nntplib", "nt", "os",
    "pdb", "pickle", "pip", "pkgutil", "popen2", "poplib", "posix", "profile", "pty", "pydoc", "resource", "runpy",
    "shelve", "shutil", "signal", "site", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys",
    "tarfile", "telnetlib", "tempfile", "timeit", "tkinter", "trace", "urllib", "urllib2", "venv", "webbrowser",
    "winreg", "xmlrpc", "zipfile", "zipimport",
}  # fmt: skip
"""Modules of the standard library, and functions of others, that run code or reach files, processes and networks."""

_ACTING_BUILTINS = {
    "__build_class__", "__import__", "__loader__", "apply", "breakpoint", "compile", "delattr", "eval", "exec",
    "execfile", "exit", "file", "globals", "help", "input", "locals", "open", "print", "quit", "raw_input", "reload",
    "setattr", "vars",
}  # fmt: skip

_LEADING = {"__builtins__", "__code__", "__globals__", "__import__", "__subclasses__"}
"""Attributes that lead from any object to functions that act."""

MAX_NAME = 1_000
"""Characters of a name in a checkpoint; a longer one is refused, since a few bytes can repeat it over and over."""


def check_name(module: str, name: str) -> None:
    """Raise for a function of the standard library that acts on the machine.

    Nothing would be run here either way. But whoever puts ``os.system`` into a checkpoint intends harm to those who
    load it with PyTorch, and this should not go unnoticed.

    Raises:
        CodeFound: With the name.
    """
    root, parts = module.partition(".")[0], name.split(".")
    builtin = root in ("builtins", "__builtin__") and parts[0] in _ACTING_BUILTINS
    leads = any(part in _ACTING for part in parts[:-1])  # "torch.serialization", "os.system" leads to os
    if builtin or leads or root in _ACTING or f"{module}.{parts[0]}" in _ACTING:
        raise CodeFound(f"{module}.{name}")


def _check_attribute(holder: Any, name: Any) -> None:
    """Raise where ``getattr`` would lead to what acts; methods of a network, ``net.eval``, are found by it as well."""
    parts = name.split(".") if isinstance(name, str) else []
    acts = isinstance(holder, Named) and any(part in _ACTING or part in ("system", "popen") for part in parts)
    if acts or any(part in _LEADING for part in parts):
        raise CodeFound(f"builtins.getattr, {name[:MAX_NAME]}")


_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections", "UserList": "collections"}
"""Modules by their names in Python 2, and in Python 3."""

_MARK = object()

_SIMPLE: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False}


class PickleReader:
    """Reads consecutive pickles from a buffer.

    Attributes:
        at: Where the next pickle begins.
    """

    def __init__(self, data: Any, at: int = 0, *, persistent: Callable[[Any], Any] | None = None) -> None:
        """Read from ``data`` (bytes, or a mapped file); ``persistent`` resolves ids of objects outside the pickle."""
        self.data = data
        self.at = at
        self.persistent = persistent
        # Elements that may be copied: a few bytes must not ask for hours. An honest file copies the bytes of an array
        # up to twice, once when text becomes bytes and once when these become numbers.
        self.budget = 4 * len(data) + 1024

    def load(self) -> Any:
        """Return the value of the next pickle.

        Raises:
            Truncated: It ends early.
            CodeFound: It names a function that has side effects.
            PickleError: It is damaged, or needs something that is not data.
        """
        try:
            return self._run()
        except PickleError:
            raise
        except (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError) as error:
            raise PickleError(f"{type(error).__name__}: {str(error)[:200]}") from error
        except (AttributeError, TypeError, struct.error) as error:
            raise PickleError(f"{type(error).__name__}: {str(error)[:200]}") from error

    def _take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise Truncated(f"it ends at byte {len(self.data):,}, in the middle of its description")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Truncated(f"it ends at byte {len(self.data):,}, in the middle of its description")
        line = bytes(self.data[self.at : end])
        self.at = end + 1
        return line

    def _run(self) -> Any:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        while True:
            code = self._take(1)
            key = code[0]
            if key == 0x80:
                self._take(1)
            elif code == b".":
                return stack.pop()
            elif key == 0x95:  # a frame's length
                self._take(8)
            elif key in _SIMPLE:
                stack.append(_SIMPLE[key])
            elif code == b"(":
                stack.append(_MARK)
            elif code == b"0":
                stack.pop()
            elif code == b"1":
                _to_mark(stack)
            elif code == b"2":
                stack.append(stack[-1])
            elif code in b"qrp" or key == 0x94:
                which = {b"q": "<B", b"r": "<I"}.get(code)
                at = len(memo) if key == 0x94 else self._number(which) if which else int(self._line())
                memo[at] = stack[-1]
            elif code in b"hjg":
                which = {b"h": "<B", b"j": "<I"}.get(code)
                stack.append(memo[self._number(which) if which else int(self._line())])
            elif code in b"c" or key == 0x93:
                self._name(code, stack)
            elif code in b"RbiosuaeQP" or key in (0x81, 0x82, 0x83, 0x84, 0x90, 0x91, 0x92):
                self._build(code, stack)
            elif code in b"])}tldl" or key in (0x85, 0x86, 0x87, 0x8F):
                _container(code, stack)
            else:
                stack.append(self._literal(code))

    def _literal(self, code: bytes) -> Any:
        """Return the number or text that an instruction contains."""
        key = code[0]
        if code in b"JKMG":
            return self._number({b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}[code])
        if code in b"XUTBC" or key in (0x8C, 0x8D, 0x8E, 0x96):
            wide = {b"X": "<I", b"U": "<B", b"T": "<i", b"B": "<I", b"C": "<B"}.get(code)
            text = self._take(self._number(wide or ("<B" if key == 0x8C else "<Q")))
            if code == b"X" or key in (0x8C, 0x8D):
                return text.decode("utf-8", "surrogatepass")
            # Python 2 text is either words or bytes, and Latin-1 preserves both
            return text.decode("latin1") if code in b"UT" else text
        if key in (0x8A, 0x8B):
            return int.from_bytes(self._take(self._number("<B" if key == 0x8A else "<i")), "little", signed=True)
        if code in b"IL":
            text = self._line()
            if code == b"I" and text in (b"00", b"01"):
                return text == b"01"
            return int(text.rstrip(b"L"))
        if code == b"F":
            return float(self._line())
        if code == b"S":
            return self._line().strip().strip(b"'\"").decode("latin1")
        if code == b"V":
            return self._line().decode("raw-unicode-escape")
        raise PickleError(f"it has an unknown instruction {key:#04x} at byte {self.at - 1:,}")

    def _name(self, code: bytes, stack: list[Any]) -> None:
        if code == b"c":
            module, name = self._line().decode(), self._line().decode()
        else:
            name, module = stack.pop(), stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("it names a class by something else than words")
        if len(module) + len(name) > MAX_NAME:
            raise PickleError(f"it names a class by {len(module) + len(name):,} characters")
        check_name(module, name)
        stack.append(Named(f"{_RENAMED.get(module, module)}.{name}"))

    def _build(self, code: bytes, stack: list[Any]) -> None:
        """Create or fill an object, as data."""
        key = code[0]
        if code == b"R" or key == 0x81:
            args, what = stack.pop(), stack.pop()
            stack.append(self._made(what, args))
        elif key == 0x92:
            words, args, what = stack.pop(), stack.pop(), stack.pop()
            self._spend(args)
            stack.append(Foreign(_name_of(what), (*args, words)))
        elif code == b"o":
            what, *args = _to_mark(stack)
            stack.append(self._made(what, tuple(args)))
        elif code == b"i":
            args = _to_mark(stack)
            self._name(b"c", stack)
            stack.append(self._made(stack.pop(), tuple(args)))
        elif code == b"b":
            state = stack.pop()
            if isinstance(stack[-1], _EmptyArray) and isinstance(state, list | tuple):
                self._spend(state)
                self._spend(*state)
            elif isinstance(stack[-1], Foreign) and stack[-1].name in _OLD_PARAMETERS:
                self._spend(state)
            stack[-1] = _filled(stack[-1], state)
        elif code == b"s":
            value, name = stack.pop(), stack.pop()
            _entries(stack[-1])[_key(name)] = value
        elif code == b"u":
            items = _to_mark(stack)
            _entries(stack[-1]).update(zip(map(_key, items[::2]), items[1::2], strict=True))
        elif code == b"a":
            value = stack.pop()
            _elements(stack[-1]).append(value)
        elif code == b"e" or key == 0x90:
            items = _to_mark(stack)
            _elements(stack[-1]).extend(items)
        elif key == 0x91:
            stack.append(_to_mark(stack))  # a frozenset
        elif code in b"PQ":
            what = stack.pop() if code == b"Q" else self._line().decode()
            if self.persistent is None:
                raise PickleError("it refers to something outside the file")
            stack.append(self.persistent(what))
        else:
            raise PickleError(f"it refers to a table of extensions (instruction {key:#04x})")

    def _made(self, what: Any, args: Any) -> Any:
        """Return the result of calling ``what``, as data."""
        if not isinstance(args, tuple):
            raise PickleError(f"a call has a {type(args).__name__} as its arguments")
        name = _name_of(what)
        if name == "builtins.getattr" and len(args) > 1:
            _check_attribute(*args[:2])
        make = _MAKE.get(name) if isinstance(what, Named) else None
        if make is None:
            return Foreign(name, args)
        self._spend(args)
        self._spend(*args)
        if make is _from_type and len(args) > 2 and isinstance(args[0], Named) and args[0].name in _MAKE:
            return self._made(args[0], args[2])  # and not from there, where what it copies would not be counted
        return make(*args)

    def _spend(self, *copied: Any) -> None:
        """Count what is about to be copied, or gone through."""
        self.budget -= sum(len(part) for part in copied if isinstance(part, list | tuple | dict | str | bytes))
        if self.budget < 0:
            raise PickleError("it copies more than it holds")


def _to_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while at >= 0 and stack[at] is not _MARK:
        at -= 1
    if at < 0:
        raise PickleError("it closes what it never opened")
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _container(code: bytes, stack: list[Any]) -> None:
    key = code[0]
    if code in b"]}" or key == 0x8F:  # sets are kept as lists: nothing needs to look up an element
        stack.append({} if code == b"}" else [])
    elif code == b")":
        stack.append(())
    elif key in (0x85, 0x86, 0x87):
        count = key - 0x84
        stack[-count:] = [tuple(stack[-count:])]
    else:
        items = _to_mark(stack)
        if code == b"d":
            stack.append(dict(zip(map(_key, items[::2]), items[1::2], strict=True)))
        else:
            stack.append(tuple(items) if code == b"t" else items)


def _key(key: Any) -> Any:
    """Return a key of a dict; what is no plain value stands for itself, since hashing it could go arbitrarily deep."""
    plain = isinstance(key, str | float | bytes | None) or (isinstance(key, int) and key.bit_length() <= 64)
    return key if plain else Foreign("key", (key,))


def _entries(holder: Any) -> dict[Any, Any]:
    if isinstance(holder, dict):
        return holder
    if isinstance(holder, Foreign):
        return holder.entries
    raise PickleError(f"it puts an item into a {type(holder).__name__}")


def _elements(holder: Any) -> list[Any]:
    if isinstance(holder, list):
        return holder
    if isinstance(holder, Foreign):
        return holder.elements
    raise PickleError(f"it puts an element into a {type(holder).__name__}")


def _name_of(what: Any) -> str:
    if isinstance(what, Named | Foreign):
        return what.name
    raise PickleError(f"it calls a {type(what).__name__}")


_OLD_PARAMETERS = ("torch.nn.parameter.Parameter", "torch.autograd.variable.Variable")  # before PyTorch 0.4


def _filled(thing: Any, state: Any) -> Any:
    """Return an object after its attributes have been set."""
    if isinstance(thing, Foreign):
        thing.state = state
        if thing.name in _OLD_PARAMETERS:
            return next((part for part in state if isinstance(part, Stored)), thing)
    elif isinstance(thing, _NumpyType):
        thing.order = state[1] if isinstance(state[1], str) else "="
    elif isinstance(thing, _EmptyArray):
        _, shape, kind, fortran, raw = state
        return _array(raw, kind, shape, "F" if fortran else "C")
    elif not isinstance(thing, dict | Stored):  # an OrderedDict's metadata, a parameter's hooks
        raise PickleError(f"it gives attributes to a {type(thing).__name__}")
    return thing


def _array(raw: Any, kind: Any, shape: Any, order: Any = "C") -> Any:
    dtype = kind.dtype() if isinstance(kind, _NumpyType) else None
    if dtype is None:
        return Foreign("numpy.ndarray", (shape, kind), raw)
    data = np.frombuffer(_bytes(raw), dtype).reshape(tuple(shape), order="F" if order == "F" else "C")
    plain = np.array(data, dtype.newbyteorder("="), order="C")
    return Stored(plain, torch.from_numpy(plain).dtype, plain.shape)


def _bytes(raw: Any) -> bytes:
    if not isinstance(raw, str | bytes | list):  # bytes(n) would be n zeros
        raise PickleError(f"it makes bytes of a {type(raw).__name__}")
    return raw.encode("latin1") if isinstance(raw, str) else bytes(raw)


def _scalar(kind: Any, raw: Any = b"") -> Any:
    dtype = kind.dtype() if isinstance(kind, _NumpyType) else None
    return Foreign("numpy.generic", (raw,)) if dtype is None else np.frombuffer(_bytes(raw), dtype)[0].item()


def _numpy_type(code: Any, *rest: Any) -> Any:
    return _NumpyType(code) if isinstance(code, str) and len(code) < 100 else Foreign("numpy.dtype", (code,))


def _tensor(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *rest: Any) -> Any:
    if not isinstance(storage, Storage) or storage.dtype is None:
        return Foreign("torch.Tensor", (storage,))
    return _placed(storage, storage.dtype, offset, size, stride)


def _tensor_v3(storage: Any, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any) -> Any:
    found = getattr(torch, dtype.name.removeprefix("torch."), None) if isinstance(dtype, Named) else None
    if not isinstance(storage, Storage) or not isinstance(found, torch.dtype):
        return Foreign("torch.Tensor", (storage,))
    return _placed(storage, found, offset, size, stride)


MAX_AXES = 64
"""Axes of a tensor; NumPy has no more either."""


def _placed(storage: Storage, dtype: torch.dtype, offset: Any, size: Any, stride: Any) -> Stored:
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and 0 <= n < 2**62 for n in numbers):
        raise PickleError("a tensor has a shape that is none")
    if len(size) > MAX_AXES or prod(max(n, 1) for n in size) * dtype.itemsize >= 2**62:
        raise PickleError(f"a tensor claims a shape that no file can hold, {str(tuple(size))[:200]}")
    return Stored(storage, dtype, tuple(size), offset, tuple(stride))


def _first(*args: Any) -> Any:
    return args[0] if args and isinstance(args[0], Stored) else Foreign("torch.nn.parameter.Parameter", args)


def _reconstructed(what: Any, *rest: Any) -> Any:
    return Foreign(_name_of(what), rest)


def _from_type(make: Any, kind: Any, args: Any, state: Any = None) -> Any:
    """Return a tensor that has attributes of its own and is of no kind that is understood here."""
    return Foreign(_name_of(kind), args if isinstance(args, tuple) else (args,), state)


def _dict(*args: Any) -> Any:
    """Return a dict made from a dict or from pairs; a ``defaultdict`` has its factory before them."""
    content = next((arg for arg in args if isinstance(arg, Mapping | list | tuple)), ())
    pairs = content.items() if isinstance(content, Mapping) else content
    return {_key(key): value for key, value in pairs}


def _encoded(text: Any = "", *rest: Any) -> bytes:
    return _bytes(text)


def _list(content: Any = ()) -> Any:
    return list(content) if isinstance(content, list | tuple) else Foreign("builtins.list", (content,))


_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core._multiarray_umath")

_MAKE: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "collections.Counter": _dict,
    "builtins.dict": _dict,
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "builtins.list": _list,
    "builtins.bytearray": lambda raw=b"", *rest: _bytes(raw),
    "builtins.bytes": lambda raw=b"", *rest: _bytes(raw),
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": _reconstructed,
    "torch.Size": lambda size=(): tuple(size),
    "torch.device": lambda *words: "device",
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.autograd.variable.Variable": _first,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "numpy.dtype": _numpy_type,
    **{f"{module}.scalar": _scalar for module in _MULTIARRAYS},
    **{f"{module}._reconstruct": lambda *rest: _EmptyArray() for module in _MULTIARRAYS},
    "numpy.core.numeric._frombuffer": _array,
    "numpy._core.numeric._frombuffer": _array,
}
"""Calls that are understood as data, by the name of the function. Each only rearranges its arguments."""
