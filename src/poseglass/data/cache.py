"""CropCache: the part of each image that augmentation can reach, decoded, in one size-limited file on disk.

Decoding a JPEG takes most of a loader's time, and the same pixels are decoded every epoch. The cache stores them as
plain bytes, at the size at which they were decoded: nothing is resampled or compressed, so a crop made from the cache
is bit for bit the same as one made from the file, whether or not all people fit, and whenever the cache is deleted.

There is one folder per plan (dataset, boxes, crop sizes, augmentation ranges), with one file that has a slot for every
cell: a 64-byte header and the pixels. A cell stores the identity of its image (path, modification time, size), of its
crop and of the decoders, and a checksum; a cell that does not match exactly is not used, and is made again. Two
processes that write a cell at once write the same bytes, so no lock is needed while training.
"""

import json
import os
import shutil
import struct
import time
import warnings
import zlib
from hashlib import blake2b
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import cv2
import numpy as np
import torch
from filelock import FileLock, Timeout

from poseglass.core.folders import cache_folder
from poseglass.core.image import DECODING

_HEAD = struct.Struct("<8s16sQ5i")
_HEAD_BYTES = 64
_MAGIC = b"pgcrop1\0"
_IN_USE = ".in_use"  # ends the name of a lock file; each process has its own for each plan it uses
_DECODERS = f"opencv {cv2.__version__}, pillow {version('pillow')}, poseglass {DECODING}"


class Part(NamedTuple):
    """Part of a decoded image.

    Args:
        pixels: ``(h, w, 3)`` uint8 RGB.
        x0: First column in the decoded image.
        y0: First row.
        reduce: The image was decoded at ``1/reduce`` of its size.
    """

    pixels: np.ndarray
    x0: int
    y0: int
    reduce: int


class Regions(NamedTuple):
    """What to store of P people at L decode sizes.

    Args:
        source: P image files.
        box: ``(P, L, 4)`` int, the part of the decoded image.
        num_bytes: ``(P, L)`` int64, the size of its pixels, 0 for a decode size that no draw uses.
        benefit: ``(P,)``, work that a hit saves; those that save most per byte come first.
        levels: White levels of images of more than 8 bits.
    """

    source: list[str]
    box: np.ndarray
    num_bytes: np.ndarray
    benefit: np.ndarray
    levels: str = ""


class CropCache:
    """Decoded parts of images on disk for one plan; created by ``CropCache.open``.

    May be used by any number of processes at once. What ``read`` returns is valid until its next call.

    Attributes:
        num_people: Number of people in the plan.
        num_fitting: Number of people that fit within the limit.
        planned_bytes: Size of these once all are stored.
    """

    def __init__(
        self, folder: Path, regions: Regions, offset: np.ndarray, planned_bytes: int, lock: FileLock | None
    ) -> None:
        self.folder, self.planned_bytes = folder, planned_bytes
        self.num_people, self.num_fitting = len(offset), int((offset >= 0).sum())
        self._source = [Path(s).absolute() for s in regions.source]
        self._box, self._num_bytes, self._offset = regions.box, regions.num_bytes, offset
        largest = int(regions.num_bytes.max(initial=0))
        self._buffer_bytes = _HEAD_BYTES + largest
        self._lock: FileLock | None = lock
        self._file: FileIO | None = None
        self._pid, self._buffer = -1, np.empty(0, np.uint8)
        self._off = torch.zeros(1, dtype=torch.uint8).share_memory_()  # one flag for all loader processes

    @classmethod
    def open(cls, regions: Regions, *, limit_bytes: int, cache_dir: str | Path | None = None) -> "CropCache | None":
        """Open the cache of a plan, new or from an earlier run; make room by deleting plans that are not in use.

        Args:
            regions: What to store.
            limit_bytes: Limit of the whole cache folder, for all plans together.
            cache_dir: The folder; None takes ``cache_folder("crops")``.

        Returns:
            The cache; or None, with a warning, if the folder cannot be used.
        """
        where = "its folder"
        try:
            root = Path(cache_dir) if cache_dir is not None else cache_folder("crops")
            where = str(root)
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / "lock"):  # one process at a time opens a cache and makes room
                return cls._open(root, regions, limit_bytes)
        except OSError as error:
            warnings.warn(
                f"The crop cache is off: {where} cannot be used ({error}). Crops are read from the image files. Set "
                "POSEGLASS_CACHE to a writable folder, or data.cache_gb=0.",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    @classmethod
    def _open(cls, root: Path, regions: Regions, limit_bytes: int) -> "CropCache":
        offset, end = _lay_out(regions)
        folder = root / _plan_key(regions)
        folder.mkdir(exist_ok=True)
        _in_use(folder)  # deletes what killed processes left
        lock = FileLock(folder / f"{uuid4().hex}{_IN_USE}", thread_local=False)
        lock.acquire()  # only this process has it: a process that deletes plans sees that it is held
        try:
            file = folder / "crops.bin"
            file.touch()
            wanted = min(int(end.max(initial=0)), limit_bytes)
            others = _make_room(root, folder, limit_bytes - wanted)
            free = _bytes_on_disk(file) + int(0.9 * shutil.disk_usage(folder).free)
            fits = (offset >= 0) & (end <= min(limit_bytes - others, free))
            planned = int(end[fits].max(initial=0))
            plan = {"people": len(offset), "fitting": int(fits.sum()), "bytes": planned, "used": time.time()}
            (folder / "plan.json").write_text(json.dumps(plan, indent=1))
        except BaseException:
            _give_back(lock)
            raise
        return cls(folder, regions, np.where(fits, offset, -1), planned, lock)

    @property
    def summary(self) -> str:
        """One printed line: how many people fit."""
        everybody = "all" if self.num_fitting == self.num_people else f"{self.num_fitting:,} of"
        more = "" if self.num_fitting == self.num_people else "; raise data.cache_gb for more"
        return (
            f"crop cache: {everybody} {self.num_people:,} people fit, {self.planned_bytes / 1e9:.2f} GB "
            f"in {self.folder}{more}"
        )

    def fits(self, person: int) -> bool:
        """Whether this person's parts are stored here."""
        return bool(self._offset[person] >= 0)

    def read(self, person: int, level: int) -> Part | None:
        """Return a stored part, or None if it is missing, damaged, or of an image that has changed."""
        at = self._at(person, level)
        identity = self._identity(person, level)
        if at is None or identity is None:
            return None
        size = _HEAD_BYTES + int(self._num_bytes[person, level])
        try:
            file = self._handle()
            file.seek(at)
            cell = self._buffer[:size]
            got = file.readinto(cell.data) or 0
        except OSError:
            return None
        if got < _HEAD_BYTES:
            return None
        magic, stored, checksum, x0, y0, width, height, reduce = _HEAD.unpack(cell[: _HEAD.size].tobytes())
        end = _HEAD_BYTES + width * height * 3
        if magic != _MAGIC or stored != identity or width < 1 or height < 1 or end > got:
            return None
        pixels = cell[_HEAD_BYTES:end]
        if _checksum(pixels, (x0, y0, width, height, reduce)) != checksum:
            return None
        return Part(pixels.reshape(height, width, 3), x0, y0, reduce)

    def write(self, person: int, level: int, part: Part) -> bool:
        """Store a part if there is a slot for it; return whether it is stored.

        A disk error disables storing in all loader processes, with one warning.
        """
        at = self._at(person, level)
        identity = self._identity(person, level)
        if at is None or identity is None or part.pixels.size > self._num_bytes[person, level] or self._off[0]:
            return False
        pixels = np.ascontiguousarray(part.pixels).reshape(-1)
        height, width = part.pixels.shape[:2]
        shape = (part.x0, part.y0, width, height, part.reduce)
        head = _HEAD.pack(_MAGIC, identity, _checksum(pixels, shape), *shape)
        try:
            # The header is written last: until then the cell does not exist.
            self._put(at, b"\0" * _HEAD_BYTES)
            self._put(at + _HEAD_BYTES, pixels.data)
            self._put(at, head)
        except OSError as error:
            if not self._off[0]:
                self._off[0] = 1
                warnings.warn(
                    f"The crop cache stores nothing further: {self.folder} cannot be written ({error}). Training "
                    "continues; stored crops are used, the others are read from the image files.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return False
        return True

    def close(self) -> None:
        """Close the file and release the lock in this process."""
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            _give_back(self._lock)
        self._file = self._lock = None
        self._pid = -1

    def __del__(self) -> None:
        if hasattr(self, "_lock"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        """For newly started loader processes: files are opened again there."""
        return self.__dict__ | {"_file": None, "_lock": None, "_pid": -1, "_buffer": np.empty(0, np.uint8)}

    def _put(self, at: int, data: bytes | memoryview) -> None:
        file = self._handle()
        file.seek(at)
        written = file.write(data) or 0
        if written < len(data):
            raise OSError(28, "No space left on device")

    def _handle(self) -> FileIO:
        # A file position is shared with a parent process: every process opens its own.
        if self._file is None or self._pid != os.getpid():
            if self._file is not None:
                self._file.close()
            self._file = FileIO(self.folder / "crops.bin", "r+")
            self._pid = os.getpid()
            self._buffer = np.empty(self._buffer_bytes, np.uint8)
        return self._file

    def _at(self, person: int, level: int) -> int | None:
        start = int(self._offset[person])
        sizes = self._num_bytes[person]
        if start < 0 or sizes[level] == 0:
            return None
        return start + sum(_cell_bytes(int(n)) for n in sizes[:level])

    def _identity(self, person: int, level: int) -> bytes | None:
        source = self._source[person]
        try:
            status = source.stat()
        except OSError:
            return None
        region = ",".join(str(v) for v in self._box[person, level].tolist())
        text = f"{source}|{status.st_mtime_ns}|{status.st_size}|{level}|{region}|{_DECODERS}"
        return blake2b(text.encode(), digest_size=16).digest()


def _cell_bytes(num_bytes: int) -> int:
    """Return the size of header and pixels, in whole 64 bytes; 0 for a cell that is never used."""
    return 0 if num_bytes == 0 else _HEAD_BYTES + -(-num_bytes // 64) * 64


def _checksum(pixels: np.ndarray, shape: tuple[int, ...]) -> int:
    """Add up the bytes as 64-bit words: 10 GB/s or more, where a CRC takes as long as the warp."""
    whole = pixels.size // 8 * 8
    total = int(pixels[:whole].view(np.uint64).sum(dtype=np.uint64)) + int.from_bytes(
        pixels[whole:].tobytes(), "little"
    )
    return (total + (zlib.crc32(struct.pack("<5i", *shape)) << 17)) % 2**64


def _lay_out(regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """Assign every person a slot: ``(P,)`` start and end in the file; -1 and 0 where the image is not a file.

    A person that occurs twice (a dataset repeated in a mixture) has one slot.
    """
    size = np.array([sum(_cell_bytes(int(n)) for n in row) for row in regions.num_bytes], dtype=np.int64)
    offset, end = np.full(len(size), -1, np.int64), np.zeros(len(size), np.int64)
    is_file = {source: Path(source).is_file() for source in set(regions.source)}
    place: dict[tuple[str, bytes], tuple[int, int]] = {}
    at = 0
    for person in map(int, np.argsort(-(regions.benefit / np.maximum(size, 1)), kind="stable")):
        source = regions.source[person]
        if size[person] == 0 or not is_file[source]:
            continue
        key = (source, regions.box[person].tobytes() + regions.num_bytes[person].tobytes())
        if key not in place:
            place[key] = (at, at + int(size[person]))
            at += int(size[person])
        offset[person], end[person] = place[key]
    return offset, end


def _plan_key(regions: Regions) -> str:
    """Return a name for the plan: another dataset, box, crop size or augmentation range has another name."""
    digest = blake2b(_MAGIC, digest_size=12)
    digest.update(regions.levels.encode() + b"\0")
    for source in regions.source:
        digest.update(str(Path(source).absolute()).encode() + b"\0")
    for array in (regions.box, regions.num_bytes, regions.benefit):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _bytes_on_disk(file: Path) -> int:
    status = file.stat()
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512


def _make_room(root: Path, keep: Path, limit_bytes: int) -> int:
    """Delete unused plans, the longest unused first, until the others are within the limit; return their bytes."""
    plans: list[tuple[float, Path, int]] = []
    taken = 0
    for folder in root.iterdir():
        file = folder / "crops.bin"
        if folder == keep or not file.is_file():
            continue
        try:
            plan = json.loads((folder / "plan.json").read_text())
            used, planned = float(plan["used"]), int(plan["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            used, planned = 0.0, 0
        if _in_use(folder):
            taken += max(planned, _bytes_on_disk(file))
        else:
            plans.append((used, folder, _bytes_on_disk(file)))
            taken += _bytes_on_disk(file)
    for _, folder, size in sorted(plans):
        if taken <= max(limit_bytes, 0):
            break
        for name in ("crops.bin", "plan.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        taken -= size
    return taken


def _in_use(folder: Path) -> bool:
    """Return whether a process holds one of the locks in a folder; locks that are no longer held are deleted."""
    for path in folder.glob(f"*{_IN_USE}"):
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        _give_back(lock)
    return False


def _give_back(lock: FileLock) -> None:
    """Release a lock that this process holds, and delete its file; not in a process that only inherited the lock."""
    if lock.is_locked:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
