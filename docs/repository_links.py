"""A hook of mkdocs: documents link to files of the repository that lie outside docs/, and the site takes these along.

On the repository's host ``../../benchmarks/results/x.csv`` leads to the file. In the site the same file lies under
``repository/``; a folder becomes a page that lists its files. So a link is written once, relative, and works in both.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
_places: dict[str, str] = {}  # of a page of the site: where its text lies in the repository


def _text_of(path: Path) -> str:
    """Return the text of a page: a Markdown file's own, or the list of a folder's files."""
    if path.is_file():
        return path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    files = sorted(p.name + ("/" if p.is_dir() else "") for p in path.iterdir() if not p.name.startswith("."))
    lines = "\n".join(f"- [{file}]({file.rstrip('/')})" for file in files)
    return f"# {name}\n\nFiles of the repository.\n\n{lines}\n"


def _in_site(path: Path) -> str:
    """Return where a file of the repository lies in the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = "repository/" + path.resolve().relative_to(ROOT).as_posix()
    return name + "/index.md" if path.is_dir() else name


def _linked(text: str, folder: Path) -> list[Path]:
    """Return what a text links to outside docs/, as far as it exists."""
    found = [Path(os.path.normpath(folder / match.group(2))) for match in _LINK.finditer(text)]
    return [p for p in found if p.exists() and p.is_relative_to(ROOT) and not p.is_relative_to(DOCS)]


def on_files(files, config):
    """Add every file outside docs/ that a document links to, and what those link to."""
    _places.clear()
    waiting = []
    for file in files.documentation_pages():
        place = DOCS / file.src_uri
        _places[file.src_uri] = str(place)
        waiting += _linked(_text_of(place), place.parent)
    while waiting:
        path = waiting.pop()
        name = _in_site(path)
        if name in _places:
            continue
        _places[name] = str(path)
        if name.endswith(".md"):
            text = _text_of(path)
            files.append(File.generated(config, name, content=text))
            waiting += _linked(text, path if path.is_dir() else path.parent)
        else:
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point the links of a page at where the site has their targets."""
    place = Path(_places[page.file.src_uri])
    folder = place if place.is_dir() else place.parent
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / match.group(2)))
        if not path.exists() or not path.is_relative_to(ROOT):
            return match.group(0)
        target = posixpath.relpath(_in_site(path), here or ".")
        return f"{match.group(1)}{target}{match.group(3) or ''}{match.group(4)}"

    return _LINK.sub(moved, markdown)
