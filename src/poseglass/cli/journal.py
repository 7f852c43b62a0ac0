"""``poses_journal.jsonl``: a line for each image that ``predict`` has done, so that an interrupted run can go on.

The first line holds the settings of the run. Each further line is an image with its poses, written as soon as they are
known; only its place in the file is kept in memory. The last line of a run that came to its end is ``{"finished": n}``.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from poseglass.cli.images import make_folder

FILE_NAME = "poses_journal.jsonl"
"""Name of the file in the output folder."""


@dataclass(slots=True, eq=False)
class Journal:
    """The images done in an output folder. The file is created with the first image that is added.

    Args:
        path: Path of the file.
        settings: What the results depend on, by option; values as JSON.
    """

    path: Path
    settings: dict[str, Any]
    finished: bool = True
    _end: int = 0  # offset after the last whole line
    _places: dict[str, tuple[int, str]] = field(default_factory=dict)  # by key: offset, and what identifies the image
    _file: BinaryIO | None = None
    _lock: FileLock | None = None  # held while the file is open

    @classmethod
    def start(cls, out: Path, settings: dict[str, Any]) -> "Journal":
        """Return an empty journal, which replaces that of a finished run.

        Raises:
            ValueError: The folder holds the journal of an interrupted run, whose results would be lost.
        """
        path = out / FILE_NAME
        if path.is_file():
            old = cls._read(path)
            if old._places and not old.finished:
                raise ValueError(
                    f"{out} holds an interrupted run with {len(old._places):,} images done. Continue it with --resume, "
                    f"give another --out, or delete {path} to start again."
                )
        return cls(path, settings)

    @classmethod
    def resume(cls, out: Path, settings: dict[str, Any]) -> "Journal":
        """Return the journal of an earlier run with the same settings; an empty one if there is none.

        Raises:
            ValueError: It was made with other settings, which are named, or is not a journal.
        """
        path = out / FILE_NAME
        if not path.is_file():
            return cls(path, settings)
        old = cls._read(path)
        now = json.loads(json.dumps(settings))
        names = [*now, *(name for name in old.settings if name not in now)]
        other = [
            f"{name} was {_said(old.settings.get(name))} and is {_said(now.get(name))}"
            for name in names
            if old.settings.get(name) != now.get(name)
        ]
        if other and old._places:
            raise ValueError(
                f"--resume: the results in {out} were made with other settings, and would be mixed: "
                f"{'; '.join(other)}. Use the same settings, or give another --out."
            )
        return old if not other else cls(path, settings)

    @classmethod
    def _read(cls, path: Path) -> "Journal":
        """Read a journal up to the first damaged line: a run that was killed may have left half of one."""
        with path.open("rb") as file:
            try:
                head = json.loads(file.readline())
                if not isinstance(head["settings"], dict):
                    raise TypeError
                journal = cls(path, head["settings"], finished=False)
            except (ValueError, LookupError, TypeError):
                raise ValueError(
                    f"{path} is not a journal of poseglass predict, or its first line is damaged. Delete it, or give "
                    "another --out."
                ) from None
            place = file.tell()
            for line in file:
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if not isinstance(entry, dict) or not (
                    "finished" in entry or (isinstance(entry.get("key"), str) and isinstance(entry.get("version"), str))
                ):
                    break
                journal.finished = "finished" in entry
                if not journal.finished:
                    journal._places[entry["key"]] = (place, entry["version"])
                place += len(line)
            journal._end = place
        return journal

    def __len__(self) -> int:
        return len(self._places)

    def has(self, file: Path, name: str) -> bool:
        """Tell whether an image is done: the same file, unchanged since, with the same name of its outputs."""
        place = self._places.get(_key(file))
        return place is not None and place[1] == _version(file, name)

    def has_other(self, file: Path, name: str) -> bool:
        """Tell whether an image was done before the file was changed, or with another name of its outputs."""
        place = self._places.get(_key(file))
        return place is not None and place[1] != _version(file, name)

    def add(self, file: Path, name: str, image: dict[str, Any], records: list[dict[str, Any]]) -> None:
        """Add an image: its entry and its records in ``cli.poses_file``'s terms. The line reaches the system at once.

        Raises:
            BlockingIOError: Another program writes to this journal.
            OSError: The folder cannot be made, or the file not be written.
        """
        if self._file is None:
            make_folder(self.path.parent)
            self._locked()
            self._file = self._opened()
        place, version = self._file.tell(), _version(file, name)
        entry = {"key": _key(file), "version": version, "image": image, "records": records}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        self._end = self._file.tell()
        self._places[_key(file)] = (place, version)

    def _locked(self) -> None:
        """Keep other programs from writing to the journal, until it is closed."""
        if self._lock is not None:
            return
        lock = FileLock(self.path.with_suffix(".lock"), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                f"Another program is writing poses to {self.path.parent}, and both would mix their results. Wait until "
                "it ends, or give another folder with --out."
            ) from None
        self._lock = lock

    def _opened(self) -> BinaryIO:
        if not self._places:
            file = self.path.open("w+b")
            file.write(json.dumps({"settings": self.settings}).encode() + b"\n")
            return file
        file = self.path.open("r+b")
        file.truncate(self._end)
        file.seek(0, 2)
        return file

    def entries(self, files: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any], list[dict[str, Any]]]]:
        """Yield those of the files that are done, in this order: the file, its image and its records."""
        if not self._places:
            return
        if self._file is not None:
            self._file.flush()
        with self.path.open("rb") as reader:
            for file in files:
                if place := self._places.get(_key(file)):
                    reader.seek(place[0])
                    entry = json.loads(reader.readline())
                    yield file, entry["image"], entry["records"]

    def close(self, *, finished: bool, keep: bool = True) -> None:
        """Close the file; ``finished`` marks a run that came to its end. Unless it is kept, it is removed then."""
        if self._file is None and finished and self._places and not self.finished:
            self._locked()
            self._file = self._opened()
        if self._file is not None:
            if finished:
                self._file.write(json.dumps({"finished": len(self._places)}).encode() + b"\n")
            self._file.close()
            self._file = None
        if self._lock is not None:
            with suppress(OSError):  # Windows removes no open file
                self.path.with_suffix(".lock").unlink()
            self._lock.release()
            self._lock = None
        self.finished = finished
        if finished and not keep:
            self.path.unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """Return a file's name and the start of its SHA-256."""
    with path.open("rb") as file:
        return f"{path.name} ({hashlib.file_digest(file, 'sha256').hexdigest()[:16]})"


def _said(value: Any) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value)


def _key(file: Path) -> str:
    return str(file.absolute())


def _version(file: Path, name: str) -> str:
    try:
        status = file.stat()
    except OSError:  # a synthetic image has no file
        return name
    return f"{name} {status.st_size} {status.st_mtime_ns}"
