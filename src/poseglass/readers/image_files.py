"""Where the images of labels are: one rule for readers and the audit."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from poseglass.core.image import spread
from poseglass.core.table import counted

SAMPLED = 1000
"""If so many images, evenly spread, are where their names say, all are taken to be."""

MAX_LISTED = 50_000
"""At most this many files of a folder are listed to find one by the last part of its name."""


def default_folder(labels: Path, names: Sequence[str] = ()) -> Path:
    """Return the folder that image names are relative to, if none is given.

    That is "images" beside the labels, or the labels' own folder; or, as COCO is laid out, the folder of the split
    beside theirs ("val2017" for "annotations/person_keypoints_val2017.json"). The first of these that holds one of the
    names is taken, else the first that exists.
    """
    split = labels.name.removesuffix(".gz").removesuffix(".json").removeprefix("person_keypoints_")
    beside = [labels.parent / "images", labels.parent]
    above = labels.parent.parent
    folders = [*beside, above / split, above / "images" / split, labels.parent / split, above / "images", above]
    for folder in folders:
        if any(_is_file(folder / name) for name in names[:20]):
            return folder
    return next((folder for folder in beside if folder.is_dir()), labels.parent)


def find_images(folder: str | Path, names: Sequence[str], notes: list[str]) -> tuple[Path, ...]:
    """Return the path of each named image; a name that does not exist is matched to what it could mean.

    A name is first taken as written, from ``folder``. If there is no such file, in this order: with "/" for the
    backslashes of Windows; the path of a web address or of Label Studio's "?d="; without leading parts that are not
    below the folder ("images/0001.jpg" where the folder is itself "images", or a path of another machine); by the last
    part, if the folder holds exactly one file of that name. Such matches are noted once. A name that is not found is
    kept as written; reading it raises an error.

    Args:
        folder: Folder of the images.
        names: As in the labels.
        notes: A sentence is appended for the names that were not taken as written.
    """
    root = Path(folder)
    paths = [root / name for name in names]
    # Asking for each of a hundred thousand files takes minutes on a network disk.
    sample = spread(range(len(paths)), SAMPLED)
    if all(_is_file(paths[i]) for i in sample) or not root.is_dir():
        return tuple(paths)
    lacking = [i for i, path in enumerate(paths) if not _is_file(path)]
    found: dict[int, Path] = {}
    by_last: dict[str, list[Path]] | None = None
    ambiguous: list[str] = []
    for i in lacking:
        parts = _parts(names[i])
        spelt = [tuple(unicodedata.normalize(form, part) for part in parts) for form in ("NFC", "NFD")]
        below = (root.joinpath(*each[k:]) for k in range(len(parts)) for each in dict.fromkeys([parts, *spelt]))
        path = next((p for p in below if _is_file(p)), None)
        if path is None and parts:
            if by_last is None:
                by_last = _by_last_part(root, notes)
            candidates = by_last.get(_folded(parts[-1]), [])
            if len(candidates) > 1:
                ambiguous.append(f"{names[i]} ({len(candidates)} files)")
            path = candidates[0] if len(candidates) == 1 else None
        if path is not None:
            found[i] = path
    # Two names that would mean one file mean two images, of which one is not there.
    claims: dict[Path, set[str]] = {}
    for i, path in enumerate(paths):
        claims.setdefault(found.get(i, path), set()).add(names[i])
    for i, path in list(found.items()):
        if len(claims[path]) > 1:
            ambiguous.append(f"{names[i]} (as {', '.join(sorted(claims[path] - {names[i]})[:2])})")
            del found[i]
    for i, path in found.items():
        paths[i] = path
    if found:
        first = next(iter(found))
        notes.append(
            f"{len(found):,} of {len(names):,} images were found by a part of their name, such as {names[first]!r} "
            f"as {paths[first].relative_to(root)} in {root}."
        )
    if ambiguous:
        shown = ", ".join(ambiguous[:3]) + (" ..." if len(ambiguous) > 3 else "")
        notes.append(
            f"{counted(len(ambiguous), 'image')} not where the name says, and the last part of the name does not tell "
            f"which file below {root} is meant: {shown}. Set the folder that the names are relative to."
        )
    return tuple(paths)


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a name that may be a Windows path or a web address: no drive, no root, no parent folder."""
    try:
        split = urlsplit(name)
    except ValueError:  # "//[img.jpg" is no address
        split = urlsplit("")
    if split.scheme and len(split.scheme) > 1:  # one letter is a drive
        name = unquote(split.path)
    given = parse_qs(split.query).get("d")
    if given:
        name = given[0]
    return tuple(p for p in PurePosixPath(name.replace("\\", "/")).parts if p not in ("/", "..", ".") and p[-1:] != ":")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or has an invalid character
        return False


def _folded(name: str) -> str:
    """Return a name as it is compared: macOS and other systems write accents differently, Windows ignores case."""
    return unicodedata.normalize("NFC", name).lower()


def _by_last_part(root: Path, notes: list[str]) -> dict[str, list[Path]]:
    """Return the files below a folder by their name in lower case; none if there are too many to list."""
    found: dict[str, list[Path]] = {}
    count = 0
    for folder, _, files in os.walk(root):
        for file in files:
            found.setdefault(_folded(file), []).append(Path(folder) / file)
        count += len(files)
        if count > MAX_LISTED:
            notes.append(
                f"{root} holds more than {MAX_LISTED:,} files, so images that are not where their names say were not "
                "looked for by the last part of the name."
            )
            return {}
    return found
