"""List the images of a folder by their content; everything else in it is reported, with what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poseglass.core.file_kinds import HEAD_BYTES, FileKind, file_kind
from poseglass.core.image import SUFFIXES
from poseglass.core.table import listed


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The contents of a folder.

    Args:
        folder: Path of the folder.
        images: Files that start like a supported image, sorted.
        unread: Files with images that are not supported, or named like images, each with its kind.
        other: Files that are not images, nor named like one.
        folders: Subfolders that were not searched.
        hidden: Files and folders whose names start with a dot.
    """

    folder: Path
    images: tuple[Path, ...]
    unread: tuple[tuple[Path, FileKind], ...] = ()
    other: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()

    def notes(self) -> list[str]:
        """Return what was skipped, a sentence for each kind of file, with names and counts."""
        said: list[str] = []
        by_kind: dict[FileKind, list[str]] = {}
        for path, kind in self.unread:
            by_kind.setdefault(kind, []).append(self._name(path))
        for kind, names in by_kind.items():
            what = f"{names[0]} is {kind.name}" if len(names) == 1 else f"{len(names)} files are each {kind.name}"
            which = "" if len(names) == 1 else f": {listed(names)}"
            said.append(f"Not read from {self.folder}: {what}{which}.{' ' * bool(kind.remedy)}{kind.remedy}")
        for paths, one, many, then in (
            (self.other, "file is not an image", "files are not images", ""),
            (
                self.folders,
                "subfolder was not searched",
                "subfolders were not searched",
                " Name them to search them.",
            ),
            (self.hidden, "hidden file or folder was skipped", "hidden files and folders were skipped", ""),
        ):
            if paths:
                names = listed([self._name(path) for path in paths])
                said.append(f"In {self.folder} {len(paths):,} {one if len(paths) == 1 else many}: {names}.{then}")
        return said

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.folder))


def list_folder(folder: Path, *, recursive: bool = False) -> FolderListing:
    """List a folder by the kinds of its files; the first bytes of each are read.

    Args:
        folder: Path of the folder.
        recursive: Also list its subfolders, in order of their paths.

    Raises:
        NotADirectoryError, PermissionError: The folder cannot be listed.
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
            unread.append((path, FileKind(f"not an image, though named like one: it is {kind.name}", "convert")))
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
        return FileKind(f"a link to {path.readlink()}, which does not exist", "convert")
    if not path.is_file():
        return FileKind("not a regular file", "other")
    try:
        with path.open("rb") as file:
            return file_kind(file.read(HEAD_BYTES))
    except OSError as error:
        return FileKind(f"unreadable ({error.strerror})", "convert")
