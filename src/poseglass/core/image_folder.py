"""The images of a folder, told by their content; whatever else lies there is named, with what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poseglass.core.file_kinds import HEAD_BYTES, FileKind, file_kind
from poseglass.core.image import SUFFIXES
from poseglass.core.table import listed


@dataclass(frozen=True, slots=True)
class FolderListing:
    """What a folder holds.

    Args:
        folder: Its path.
        images: Files that start as an image that is read, sorted.
        unread: Files that hold an image or images that are not read, or ought to by their names, each with what it is.
        other: Files that are no images, nor named like any.
        folders: Folders inside that were not searched.
        hidden: Files and folders whose names start with a dot.
    """

    folder: Path
    images: tuple[Path, ...]
    unread: tuple[tuple[Path, FileKind], ...] = ()
    other: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()

    def notes(self) -> list[str]:
        """Return what was not taken, a sentence for each kind of file, with names and counts."""
        said: list[str] = []
        by_kind: dict[FileKind, list[str]] = {}
        for path, kind in self.unread:
            by_kind.setdefault(kind, []).append(self._name(path))
        for kind, names in by_kind.items():
            what = f"{names[0]} is {kind.name}" if len(names) == 1 else f"{len(names)} files are each {kind.name}"
            which = "" if len(names) == 1 else f": {listed(names)}"
            said.append(f"Not read from {self.folder}: {what}{which}.{' ' * bool(kind.remedy)}{kind.remedy}")
        for paths, one, many, then in (
            (self.other, "file is no image", "files are no images", ""),
            (
                self.folders,
                "folder inside was not searched",
                "folders inside were not searched",
                " Name them to do so.",
            ),
            (self.hidden, "hidden file or folder was passed over", "hidden files and folders were passed over", ""),
        ):
            if paths:
                names = listed([self._name(path) for path in paths])
                said.append(f"In {self.folder} {len(paths):,} {one if len(paths) == 1 else many}: {names}.{then}")
        return said

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.folder))


def list_folder(folder: Path, *, recursive: bool = False) -> FolderListing:
    """List a folder by what its files are; of each the first bytes are read.

    Args:
        folder: Its path.
        recursive: Also take what lies in the folders inside, in order of their paths.

    Raises:
        NotADirectoryError, PermissionError: It cannot be listed.
    """
    images: list[Path] = []
    unread: list[tuple[Path, FileKind]] = []
    other: list[Path] = []
    folders: list[Path] = []
    hidden: list[Path] = []
    for path in sorted(_walk(folder, recursive, folders, hidden)):
        kind = _kind(path)
        if kind.group == "image":
            images.append(path)
        elif kind.group == "convert":
            unread.append((path, kind))
        elif path.suffix.lower() in SUFFIXES:
            unread.append((path, FileKind(f"no image, though named like one: it is {kind.name}", "convert")))
        else:
            other.append(path)
    return FolderListing(
        folder, tuple(images), tuple(unread), tuple(other), tuple(sorted(folders)), tuple(sorted(hidden))
    )


def _walk(folder: Path, recursive: bool, folders: list[Path], hidden: list[Path]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            hidden.append(path)
        elif not path.is_dir():
            yield path
        elif recursive and not path.is_symlink():  # a link may lead back here
            yield from _walk(path, recursive, folders, hidden)
        else:
            folders.append(path)


def _kind(path: Path) -> FileKind:
    if path.is_symlink() and not path.exists():
        return FileKind(f"a link to {path.readlink()}, which is not there", "convert")
    if not path.is_file():
        return FileKind("no regular file", "other")
    try:
        with path.open("rb") as file:
            return file_kind(file.read(HEAD_BYTES))
    except OSError as error:
        return FileKind(f"not to be opened ({error.strerror})", "convert")
