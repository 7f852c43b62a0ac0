"""Fonts that are installed, and what they can write."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts",
           Path.home() / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts"),
           Path("C:/Windows/Fonts"))  # fmt: skip
"""Where fonts are looked for."""

SUFFIXES = (".ttf", ".otf", ".ttc")

EVERYDAY = ("KleeOne-Regular.ttf", "NotoSansCJK-Regular.ttc", "ipag.ttf", "HanaMinA.ttf", "DejaVuSans.ttf")
"""Fonts that are tried first, because they are easy to read and have many characters."""


def find_font(name: str | Path) -> Path | None:
    """Return the file of a font: a path as it is, or an installed file of that name; None without one."""
    if Path(name).is_file():
        return Path(name)
    return next((file for file in installed() if file.name == Path(name).name), None)


@lru_cache(maxsize=1)
def installed() -> tuple[Path, ...]:
    """Return the files of all installed fonts, sorted."""
    found = {file for folder in FOLDERS if folder.is_dir() for file in folder.rglob("*")}
    return tuple(sorted(file for file in found if file.suffix.lower() in SUFFIXES))


@lru_cache(maxsize=32)
def code_points(font: Path) -> frozenset[int]:
    """Return the code points that a font has.

    Raises:
        ValueError: It is no font.
    """
    from fontTools.ttLib import TTFont  # comes with matplotlib

    try:
        with font.open("rb") as file, TTFont(file, fontNumber=0, lazy=True) as opened:
            return frozenset(opened.getBestCmap() or ())
    except Exception as error:  # a damaged font may raise anything
        raise ValueError(f"{font} cannot be read as a font: {error}.") from error


def font_with(characters: Iterable[str]) -> Path | None:
    """Return an installed font that has all of these characters, or that with most of them; None: none has any."""
    wanted = {ord(character) for character in characters}
    tried = [file for file in map(find_font, EVERYDAY) if file is not None]
    tried += [file for file in installed() if file not in tried]
    best, most = None, 0
    for file in tried:
        try:
            has = len(wanted & code_points(file))
        except ValueError:
            continue
        if has > most:
            best, most = file, has
        if most == len(wanted):
            break
    return best
