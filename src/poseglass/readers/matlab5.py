"""Read MATLAB 5 to 7.2 files safely: no file can crash the process.

The format: MathWorks, "MAT-File Format", level 5 chapters. A variable is a tree of tagged blocks; every length in it is
checked against the available bytes before it is used, so a damaged or hostile file only raises a ``ValueError``.
(SciPy's compiled reader crashes with a segmentation fault on some single changed bytes, which ends a whole training
run, and it is no faster with trees of structs.) Supported are numbers, text, cells and structs.
"""

import struct
import zlib
from typing import Any

import numpy as np

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_MATRIX, _COMPRESSED = 14, 15
_DEEPEST = 32


def variables(data: bytes, wanted: str, *, max_bytes: int) -> tuple[Any, list[str]]:
    """Return the value of one variable of a file, None if it is missing, and the names of all variables.

    Struct arrays are lists of dicts and single structs dicts, cells are lists, text is ``str``, numbers are arrays
    without axes of length 1, in Fortran order as in MATLAB, and single numbers are Python's.

    Args:
        data: The bytes of the file.
        wanted: Name of the variable.
        max_bytes: Maximum size of the variable, unpacked.

    Raises:
        ValueError: The bytes are not such a file, or it is truncated or damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("no MATLAB 5 header")
    names: list[str] = []
    found: Any = None
    place = 128
    while place < len(data):
        kind, start, length, place = _Tree(data, order).block(place, padded=False)
        if kind == _COMPRESSED:
            name = _name(_unpacked(data[start : start + length], 4096, whole=False), order)
        elif kind == _MATRIX:
            name = _name(data[start - 8 : start + min(length, 4096)], order)
        else:
            raise ValueError(f"a block of kind {kind} where a variable should be")
        names.append(name)
        if name != wanted:
            continue
        packed = data[start : start + length]
        tree = _Tree(_unpacked(packed, max_bytes, whole=True) if kind == _COMPRESSED else data, order)
        found = tree.matrix(0 if kind == _COMPRESSED else start - 8)[0]
        break
    return found, names


def _unpacked(packed: bytes, most: int, *, whole: bool) -> bytes:
    unpack = zlib.decompressobj()
    try:
        out = unpack.decompress(packed, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if whole and not unpack.eof:
        if len(out) >= most:
            raise ValueError(f"it unpacks to more than {most:,} bytes")
        raise ValueError("a compressed variable is truncated")
    return out


def _name(start: bytes, order: str) -> str:
    """Return the name of the variable from its first bytes."""
    tree = _Tree(start, order)
    _, place, _, _ = tree.block(0, inside=False)
    return tree.header(place)[3]


class _Tree:
    """The blocks of one variable (or of a whole file), with the state common to reading them."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order = data, order
        self.two, self.one = struct.Struct(order + "II"), struct.Struct(order + "I")
        self.headers: dict[bytes, tuple[int, int, tuple[int, ...]]] = {}

    def block(self, place: int, *, padded: bool = True, inside: bool = True) -> tuple[int, int, int, int]:
        """Return kind, start and length of the block at a position, and the position after it."""
        if place + 8 > len(self.data):
            raise ValueError("it is truncated")
        kind, length = self.two.unpack_from(self.data, place)
        if kind >> 16:  # a small block: kind and length share four bytes, up to four bytes of data follow
            kind, length = kind & 0xFFFF, kind >> 16
            if length > 4:
                raise ValueError(f"a small block of {length} bytes")
            return kind, place + 4, length, place + 8
        start, end = place + 8, place + 8 + length
        if inside and end > len(self.data):
            raise ValueError("it is truncated")
        return kind, start, length, end + (-length % 8 if padded else 0)

    def header(self, place: int) -> tuple[int, int, tuple[int, ...], str, int]:
        """Return class, flags, shape and name of the matrix whose contents start here, and the position after them."""
        key = self.data[place : place + 40]
        known = self.headers.get(key)
        if known is not None:
            return *known, "", place + 40
        kind, start, length, after = self.block(place)
        if kind != 6 or length != 8:
            raise ValueError("a matrix without flags")
        (flags,) = self.one.unpack_from(self.data, start)
        kind, start, length, after = self.block(after)
        if kind != 5 or length % 4 or not 8 <= length <= 128:
            raise ValueError("a matrix without dimensions")
        shape = struct.unpack_from(f"{self.order}{length // 4}i", self.data, start)
        if min(shape) < 0:
            raise ValueError(f"a matrix of shape {shape}")
        kind, start, length, after = self.block(after)
        if kind != 1 or length > 255:
            raise ValueError("a matrix without a name")
        name = self.data[start : start + length].decode("latin-1")
        if not name and after == place + 40:
            self.headers[key] = (flags & 0xFF, flags, shape)
        return flags & 0xFF, flags, shape, name, after

    def matrix(self, place: int, depth: int = 0) -> tuple[Any, int]:
        """Return the value of the matrix at a position, and the position after it."""
        kind, start, length, end = self.block(place)
        if kind != _MATRIX:
            raise ValueError(f"a block of kind {kind} where a matrix should be")
        if length == 0:
            return np.zeros(0), end
        if depth > _DEEPEST:
            raise ValueError(f"structs nested deeper than {_DEEPEST}")
        form, flags, shape, _, inside = self.header(start)
        count = 1
        for side in shape:
            count *= side
        if form in _CLASSES:
            return self.numbers(inside, form, flags, shape, count), end
        if form == _CHAR:
            return self.text(inside, shape, count), end
        if form == _CELL:
            cells = self.children(inside, start + length, count, depth)
            return cells, end
        if form == _STRUCT:
            fields, inside = self.fields(inside)
            if not fields:
                return {} if count == 1 else [], end
            values = self.children(inside, start + length, count * len(fields), depth)
            wide = len(fields)
            rows = [dict(zip(fields, values[i : i + wide], strict=True)) for i in range(0, len(values), wide)]
            return (rows[0] if count == 1 else rows), end
        raise ValueError(f"a matrix of class {form}, which is neither numbers, text, cell nor struct")

    def children(self, place: int, end: int, count: int, depth: int) -> list[Any]:
        """Return ``count`` consecutive matrices that lie before ``end``."""
        if count * 8 > end - place:
            raise ValueError(f"{count} elements declared, {end - place} bytes left")
        found = []
        for _ in range(count):
            value, place = self.matrix(place, depth + 1)
            found.append(value)
        if place > end:
            raise ValueError("a matrix that is larger than its parent")
        return found

    def fields(self, place: int) -> tuple[list[str], int]:
        """Return the names of a struct's fields, and the position after them."""
        kind, start, length, after = self.block(place)
        if kind != 5 or length != 4:
            raise ValueError("a struct without names")
        (width,) = self.one.unpack_from(self.data, start)
        kind, start, length, after = self.block(after)
        if kind != 1 or (length and (not 0 < width <= 256 or length % width)):
            raise ValueError("a struct without names")
        names = self.data[start : start + length]
        cut = [names[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, length, width or 1)]
        if len(set(cut)) != len(cut):
            raise ValueError("a struct with a name twice")
        return cut, after

    def numbers(self, place: int, form: int, flags: int, shape: tuple[int, ...], count: int) -> Any:
        """Return the numbers that start at a position: an array, or one number."""
        kind, start, length, _ = self.block(place)
        stored = _NUMBERS.get(kind)
        if stored is None or length != count * int(stored[1]):
            raise ValueError(f"{length} bytes of kind {kind} for {count} numbers")
        if flags & 0x800:
            raise ValueError("complex numbers")
        if count == 0:
            return np.zeros(shape, _CLASSES[form]).squeeze()
        values = np.frombuffer(self.data, self.order + stored, count, start)
        if count == 1:
            return float(values[0]) if form in (6, 7) else int(values[0])
        with np.errstate(all="ignore"):
            values = values.astype(_CLASSES[form])
        return values.reshape(shape, order="F").squeeze()

    def text(self, place: int, shape: tuple[int, ...], count: int) -> Any:
        """Return the text that starts at a position: a string, or one for each row."""
        if count == 0:
            return ""
        kind, start, length, _ = self.block(place)
        encoding = _TEXTS.get(kind)
        if encoding is None or len(shape) != 2:
            raise ValueError(f"text of kind {kind} and shape {shape}")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self.order == "<" else "-be"
        letters = self.data[start : start + length].decode(encoding, "replace")
        rows = shape[0]
        if rows == 1:
            return letters
        return ["".join(letters[i::rows]) for i in range(min(rows, len(letters)))]
