"""LargeImage: a TIFF that is too large to decode at once, of which parts are read."""

import io
import struct
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from poseglass.core.affine import Affine
from poseglass.core.image import MAX_FILE_BYTES, MAX_PIXELS, tiff_tags, to_rgb

LARGEST_SIDE_PX = 200_000
"""Longest side of an image of which parts are read."""

LARGEST_PART_PX = 64_000_000
"""Pixels of a strip or a tile, and of a part that is returned: 200 MB as RGB."""

KEPT_BYTES = 128 * 1024 * 1024
"""Decoded strips and tiles that are kept, since neighbouring parts share them."""

_BAND_PX = 8_000_000


class LargeImage:
    """A TIFF of 8 bits, grey or RGB, in strips or tiles of any compression that Pillow decodes.

    Estimators take it in the place of an array: they read the views they need. A strip or tile is decoded as a TIFF of
    its own, so that memory depends on the strips and on the views, not on the image.

    Args:
        path: The file. It must not change while the image is in use.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not such a TIFF; the message says what to do.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"No such image: {self.path}.")
        try:
            with self.path.open("rb") as file:
                tags = dict(tiff_tags(file))
            self._layout = _Layout(tags, self.path)
        except UnidentifiedImageError:
            raise ValueError(
                f"{self.path} is too large to decode at once, and no TIFF, of which parts could be read: other images "
                f"are read up to {MAX_PIXELS:,} pixels and {MAX_FILE_BYTES:,} bytes. Scale it down, or store it as a "
                "TIFF with tiles."
            ) from None
        except _Unreadable as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # damaged tags may raise anything
            raise ValueError(f"{self.path} is a damaged TIFF: {error}. Fetch or export it again.") from error
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LargeImage({str(self.path)!r}: {self.size_wh[0]} x {self.size_wh[1]} px)"

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self._layout.size_wh

    @property
    def shape(self) -> tuple[int, int, int]:
        """As the array of the whole image would have it: ``(H, W, 3)``."""
        return self.size_wh[1], self.size_wh[0], 3

    def read(self, x0: int, y0: int, x1: int, y1: int, *, reduce: int = 1) -> np.ndarray:
        """Return a part of the image, ``(h, w, 3)`` uint8 RGB.

        Args:
            x0: First column, and the others likewise: ``x1`` and ``y1`` are behind the last.
            y0: First row.
            x1: Behind the last column.
            y1: Behind the last row.
            reduce: Each pixel is the mean of ``reduce ** 2``. Where the part ends before a multiple, its last row or
                column is repeated.

        Raises:
            ValueError: The part is not inside the image, is too large, or cannot be decoded.
        """
        width, height = self.size_wh
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height) or reduce < 1:
            raise ValueError(f"The part {x0}, {y0}, {x1}, {y1} is not inside the image of {width} x {height} pixels.")
        out_wh = -(-(x1 - x0) // reduce), -(-(y1 - y0) // reduce)
        if out_wh[0] * out_wh[1] > LARGEST_PART_PX:
            raise ValueError(
                f"A part of {out_wh[0]} x {out_wh[1]} pixels is more than the maximum of {LARGEST_PART_PX:,}."
            )
        if reduce == 1:
            return self._part(x0, y0, x1, y1)
        out = np.empty((out_wh[1], out_wh[0], 3), np.uint8)
        rows = max(_BAND_PX // (x1 - x0) // reduce, 1)  # of the result in each band
        for first in range(0, out_wh[1], rows):
            last = min(first + rows, out_wh[1])
            band = self._part(x0, y0 + first * reduce, x1, min(y0 + last * reduce, y1))
            more = (last - first) * reduce - band.shape[0], out_wh[0] * reduce - band.shape[1]
            if any(more):
                band = cv2.copyMakeBorder(band, 0, more[0], 0, more[1], cv2.BORDER_REPLICATE)
            out[first:last] = cv2.resize(band, (out_wh[0], last - first), interpolation=cv2.INTER_AREA)
        return out

    def reduced(self, longest_px: int) -> tuple[np.ndarray, int]:
        """Return the whole image reduced by the least whole factor that makes it small enough, and that factor."""
        reduce = max(-(-max(self.size_wh) // longest_px), 1)
        return self.read(0, 0, *self.size_wh, reduce=reduce), reduce

    def region(self, to_view: Affine, view_wh: tuple[int, int]) -> tuple[np.ndarray, int, tuple[int, int]]:
        """Return what a view shows: the part of the image, the factor it is reduced by, and its first pixel.

        The part is one black pixel if the view shows nothing of the image. The first pixel is given in pixels of the
        reduced image, as ``View.of_reduced`` takes it.
        """
        scale = to_view.scale
        reduce = 1
        while scale * reduce * 2 <= 1.0:
            reduce *= 2
        width, height = self.size_wh
        seen = to_view.inverse().box(np.array([-0.5, -0.5, view_wh[0] - 0.5, view_wh[1] - 0.5]))
        x0, y0 = (int(np.floor(v / reduce) - 2) * reduce for v in seen[:2])
        x1, y1 = (int(np.ceil(v / reduce) + 3) * reduce for v in seen[2:])
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x0 >= x1 or y0 >= y1:
            return np.zeros((1, 1, 3), np.uint8), 1, (-1_000_000, -1_000_000)
        return self.read(x0, y0, x1, y1, reduce=reduce), reduce, (x0 // reduce, y0 // reduce)

    def _part(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        layout = self._layout
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for row in range(y0 // layout.part_wh[1], (y1 - 1) // layout.part_wh[1] + 1):
            for column in range(x0 // layout.part_wh[0], (x1 - 1) // layout.part_wh[0] + 1):
                left, top = column * layout.part_wh[0], row * layout.part_wh[1]
                piece = self._piece(row * layout.across + column)
                a0, b0 = max(x0, left), max(y0, top)
                a1, b1 = min(x1, left + piece.shape[1]), min(y1, top + piece.shape[0])
                out[b0 - y0 : b1 - y0, a0 - x0 : a1 - x0] = piece[b0 - top : b1 - top, a0 - left : a1 - left]
        return out

    def _piece(self, number: int) -> np.ndarray:
        """Return a decoded strip or tile ``(h, w, 3)``."""
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        try:
            with self.path.open("rb") as file:
                file.seek(self._layout.offsets[number])
                data = file.read(self._layout.lengths[number])
            with Image.open(io.BytesIO(self._layout.alone(number, data)), formats=["TIFF"]) as image:
                piece = to_rgb(image)
        except Exception as error:  # a damaged file may raise anything in the decoders
            raise ValueError(
                f"{self.path}: part {number + 1} of {len(self._layout.offsets)} cannot be decoded ({error}). Fetch or "
                "export the image again."
            ) from error
        with self._lock:
            if number not in self._kept:
                self._kept[number] = piece
                self._bytes += piece.nbytes
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return piece


class _Unreadable(Exception):
    """A TIFF of which no parts can be read; the message says why."""


class _Layout:
    """Where the strips or tiles of a TIFF are, and how each is encoded."""

    def __init__(self, tags: Any, path: Path) -> None:
        self.size_wh = int(tags[256]), int(tags[257])
        width, height = self.size_wh
        if not (0 < width <= LARGEST_SIDE_PX and 0 < height <= LARGEST_SIDE_PX):
            raise _Unreadable(
                f"{path} is {width} x {height} pixels; parts are read of images of up to {LARGEST_SIDE_PX:,} a side."
            )
        samples, bits, kinds = _one(tags.get(277, 1)), _all(tags.get(258, 1)), _all(tags.get(339, 1))
        upright = _one(tags.get(274, 1)) == 1
        together = _one(tags.get(284, 1)) == 1
        if set(bits) != {8} or set(kinds) != {1} or samples not in (1, 3, 4) or not together or not upright:
            raise _Unreadable(
                f"{path} is too large to decode at once, and parts are only read of an upright TIFF of 8 bits with 1, "
                f"3 or 4 interleaved channels; this one has {samples} of {'/'.join(map(str, bits))} bits"
                f"{'' if upright else ', rotated'}{'' if together else ', one after the other'}. Convert it, or scale "
                "it down."
            )
        tiled = 322 in tags
        self.part_wh = (int(_one(tags[322])), int(_one(tags[323]))) if tiled else (
            width, min(int(_one(tags.get(278, height))), height))  # fmt: skip
        if min(self.part_wh) < 1 or self.part_wh[0] * self.part_wh[1] > LARGEST_PART_PX:
            raise _Unreadable(
                f"{path} is stored in parts of {self.part_wh[0]} x {self.part_wh[1]} pixels, too large to decode one "
                "at a time. Store it with tiles, of 512 x 512 pixels for example."
            )
        self.tiled = tiled
        self.across = -(-width // self.part_wh[0])
        self.offsets = [int(v) for v in _all(tags[324 if tiled else 273])]
        self.lengths = [int(v) for v in _all(tags[325 if tiled else 279])]
        parts = self.across * -(-height // self.part_wh[1])
        if len(self.offsets) < parts or len(self.lengths) < parts:
            raise _Unreadable(
                f"{path} is a damaged TIFF: it lists {len(self.offsets)} of {parts} parts. Export it again."
            )
        self.offsets, self.lengths = self.offsets[:parts], self.lengths[:parts]
        if any(not 0 <= length <= 8 * LARGEST_PART_PX for length in self.lengths):
            raise _Unreadable(f"{path} is a damaged TIFF: a part has an impossible length. Export it again.")
        # bits, compression, colours, order of bits, channels, predictor, palette, alpha, subsampling
        kept = (258, 259, 262, 266, 277, 317, 320, 338, 530)
        shorts = {number: [int(v) for v in _all(tags[number])] for number in kept if number in tags}
        if any(len(values) > 768 or not all(0 <= v < 65536 for v in values) for values in shorts.values()):
            raise _Unreadable(f"{path} is a damaged TIFF: a tag has impossible numbers. Export it again.")
        self.shorts = {259: [1], 262: [1 if samples == 1 else 2]} | shorts
        tables = tags.get(347, b"")
        if not isinstance(tables, bytes) or len(tables) > 65536:
            raise _Unreadable(f"{path} is a damaged TIFF: its JPEG tables are none. Export it again.")
        self.tables = tables

    def alone(self, number: int, data: bytes) -> bytes:
        """Return a strip or tile as a TIFF of its own."""
        width, height = self.part_wh
        if not self.tiled:  # the last strip may be shorter
            height = min(height, self.size_wh[1] - number * height)
        fields: list[tuple[int, int, bytes, int]] = []
        for tag, values in self.shorts.items():
            fields.append((tag, 3, struct.pack(f"<{len(values)}H", *values), len(values)))
        for tag, value in ((256, width), (257, height), (278, height), (279, len(data))):
            fields.append((tag, 4, struct.pack("<I", value), 1))
        fields.append((284, 3, struct.pack("<H", 1), 1))
        if self.tables:
            fields.append((347, 7, self.tables, len(self.tables)))
        fields.append((273, 4, b"\0\0\0\0", 1))
        fields.sort()
        start = 8 + 2 + 12 * len(fields) + 4
        more = b"".join(content + b"\0" * (len(content) % 2) for _, _, content, _ in fields if len(content) > 4)
        at, entries = start, []
        for tag, kind, content, count in fields:
            if tag == 273:
                place = struct.pack("<I", start + len(more))
            elif len(content) > 4:
                place = struct.pack("<I", at)
                at += len(content) + len(content) % 2
            else:
                place = content.ljust(4, b"\0")
            entries.append(struct.pack("<HHI", tag, kind, count) + place)
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + b"".join(entries) + b"\0\0\0\0" + more + data


def _all(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _one(value: Any) -> Any:
    return _all(value)[0]


ReadableImage = np.ndarray | LargeImage
"""What a view can be read from: an array ``(H, W, 3)`` uint8 RGB, or a large image."""
