"""Read, write and score the files of Kaggle's Kuzushiji recognition: cursive Japanese, a box around each character.

``train.csv`` has a row per page: its image's name without suffix, and its characters in fives, code point, x, y, width
and height, ``U+306F 1231 3465 133 53 U+304C 275 1652 84 69 ...`` in pixels, x and y being the upper left corner.
``unicode_translation.csv`` lists the code points with their characters. A submission has a row per page with threes:
code point, and x and y of a point in the character's box.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poseglass.core.files import write_bytes
from poseglass.core.instances import Instances
from poseglass.core.skeletons import ANY_CHARACTER, BOXES
from poseglass.core.table import counted
from poseglass.metrics.center_f1 import CenterF1
from poseglass.readers.labelled import LabelledImages

MOST_PER_PAGE = 1200
"""Largest number of predictions for a page in a submission."""

MAX_FILE_BYTES = 1024**3
_SUFFIXES = (".jpg", ".jpeg", ".png")
CODE_POINT = re.compile(r"U\+(?:[0-9A-CE-F][0-9A-F]{3}|D[0-7][0-9A-F]{2}|[1-9A-F][0-9A-F]{4}|10[0-9A-F]{4})")
"""A class that is a character, as Unicode writes it: at least four digits, up to U+10FFFF, and no half of a pair."""


def kuzushiji(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    translation: str | Path | None = None,
    one_class: bool = False,
    name: str | None = None,
) -> LabelledImages:
    """Read pages of characters.

    Classes are code points, ``"U+306F"``. ``label`` of an instance counts through them.

    Args:
        annotations: The CSV file with ``image_id`` and ``labels``.
        images: Folder of the pages; None is a folder beside the file, of its name with ``_images``, or ``images``.
        translation: The CSV file with ``Unicode`` and ``char``, whose order is that of the classes; the same for
            training and validation. None takes those of ``annotations``, sorted.
        one_class: Give all characters one class, to train a network that only finds them.
        name: Name of the dataset; None is that of the file.

    Raises:
        FileNotFoundError: The file, or the folder of its pages, or a page, does not exist.
        ValueError: It is not such a file, and the message names the page and the entry; or a page has several images.
    """
    path = Path(annotations)
    rows = _rows(path, ("image_id", "labels"))
    folder = _folder(path, images)
    known = None if translation is None else list(read_translation(translation))
    pages = [(page, _entries(path, page, text)) for page, text in rows]
    used = sorted({code for _, entries in pages for code, _ in entries})
    classes = used if known is None else known
    index = {code: number for number, code in enumerate(classes)}
    for page, entries in pages:
        for number, (code, _) in enumerate(entries, 1):
            if code not in index:
                raise ValueError(
                    f"{path}: page {page}: entry {number} is {code}, which {translation} does not list. Add it there, "
                    "or omit translation to take the classes from the labels."
                )
    here: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in _SUFFIXES:
            here.setdefault(file.stem, []).append(file)
    missing = [page for page, _ in pages if page not in here]
    if missing:
        raise FileNotFoundError(
            f"{path}: {counted(len(missing), 'page')} of {len(pages):,} have no image in {folder}, such as "
            f"{missing[0]} (expected {missing[0]}.jpg or .png). Set images to the folder with the pages."
        )
    several = [page for page, _ in pages if len(here[page]) > 1]
    if several:
        files = " and ".join(file.name for file in here[several[0]])
        raise ValueError(
            f"{path}: {counted(len(several), 'page')} of {len(pages):,} with several images in {folder}, such as "
            f"{several[0]}: {files}. Keep the one that the boxes belong to, and move the others away."
        )
    if one_class:
        classes, index = [ANY_CHARACTER], dict.fromkeys(index, 0)
    empty = sum(not entries for _, entries in pages)
    notes = [f"{counted(empty, 'page')} without characters."] if empty else []
    return LabelledImages(
        name or path.stem, BOXES, tuple(here[page][0] for page, _ in pages),
        tuple(_instances(entries, index) for _, entries in pages), tuple(page for page, _ in pages),
        notes=tuple(notes), classes=tuple(classes),
    )  # fmt: skip


def read_translation(path: str | Path) -> dict[str, str]:
    """Read ``unicode_translation.csv``: code points with their characters, in the order of the file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not such a file, or lists a code point twice.
    """
    path = Path(path)
    found: dict[str, str] = {}
    for number, (code, char) in enumerate(_rows(path, ("Unicode", "char")), 1):
        if not CODE_POINT.fullmatch(code):
            raise ValueError(
                f"{path}: row {number}: expected a code point from U+0000 to U+10FFFF, such as U+306F, got "
                f"{code[:20]!r}."
            )
        if code in found:
            raise ValueError(f"{path}: row {number}: {code} is listed twice.")
        found[code] = char or chr(int(code[2:], 16))
    return found


def write_submission(path: str | Path, pages: Iterable[tuple[str, Instances]], classes: Sequence[str]) -> int:
    """Write predictions as a submission: per page the middles of the boxes, at most 1,200, those of the best score.

    Args:
        path: The CSV file.
        pages: Names of pages without suffix, with what was found.
        classes: Code points that labels count through.

    Returns:
        The number of predictions that were left out, being more than 1,200 on a page.

    Raises:
        ValueError: A label beyond the classes, a class that is no code point, or two pages of one name. Nothing is
            written then.
    """
    wrong = next((code for code in classes if not CODE_POINT.fullmatch(code)), None)
    if wrong is not None:
        raise ValueError(f"A submission needs code points such as U+306F as classes, got {wrong[:20]!r}.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image_id", "labels"))
    dropped, written = 0, set[str]()
    for page, found in pages:
        if page in written:
            raise ValueError(f"A submission has one row for a page, but two are named {page}. Rename one of them.")
        written.add(page)
        if len(found) and not 0 <= found.label.min() <= found.label.max() < len(classes):
            raise ValueError(f"Page {page} has a label that is none of the {len(classes)} classes.")
        order = np.argsort(-found.box_score, kind="stable")
        dropped += max(len(order) - MOST_PER_PAGE, 0)
        middle = (found.box_xyxy[:, :2] + found.box_xyxy[:, 2:]) / 2
        words = [
            f"{classes[int(found.label[row])]} {round(float(middle[row, 0]))} {round(float(middle[row, 1]))}"
            for row in order[:MOST_PER_PAGE]
        ]
        writer.writerow((page, " ".join(words)))
    write_bytes(path, text.getvalue().encode())
    return dropped


def read_submission(path: str | Path, classes: Sequence[str]) -> dict[str, Instances]:
    """Read a submission; boxes are of no size, at the points.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not a submission, an entry is wrong, or a page has more than 1,200.
    """
    path = Path(path)
    index = {code: number for number, code in enumerate(classes)}
    found: dict[str, Instances] = {}
    for page, entries in _submitted(path):
        for number, (code, _) in enumerate(entries, 1):
            if code not in index:
                raise ValueError(
                    f"{path}: page {page}: entry {number}: {code[:20]!r} is none of the {len(classes)} classes."
                )
        found[page] = _points(entries, index)
    return found


@dataclass(frozen=True, slots=True)
class SubmissionScore:
    """How well a submission reads the labelled pages.

    Args:
        results: "f1", "precision", "recall" and "place_f1" of all labelled pages together, as ``CenterF1`` has them.
        missing: Labelled pages that the submission lacks, in the order of the labels; they count as pages on which
            nothing was read.
        notes: What is to be said about it, a sentence each.
    """

    results: dict[str, float]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def score_submission(path: str | Path, dataset: LabelledImages) -> SubmissionScore:
    """Score a submission by the labels of its pages, as the competition does; see ``CenterF1``.

    A labelled page that the submission lacks counts as one on which nothing was read, and the result names it. A
    character that is no class of the labels is wrong.

    Args:
        path: The submission.
        dataset: Labelled pages, as ``kuzushiji`` reads them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not a submission, an entry is wrong, a page has more than 1,200, or a page is not among the
            labelled ones; or the classes of the labels are no code points.
    """
    path = Path(path)
    if not all(CODE_POINT.fullmatch(code) for code in dataset.classes):
        raise ValueError(
            f"A submission is scored by labels whose classes are code points such as U+306F, got "
            f"{dataset.classes[0][:20]!r}. Read them without one_class."
        )
    pages = [str(page) for page in dataset.image_ids]
    known = set(pages)
    found = dict(_submitted(path))
    unknown = [page for page in found if page not in known]
    if unknown:
        raise ValueError(
            f"{path}: {counted(len(unknown), 'page')} of {len(found):,} not labelled in {dataset.name}, such as "
            f"{unknown[0][:60]}. Give the labels of all its pages, or remove these rows."
        )
    read = {code for entries in found.values() for code, _ in entries}
    classes = [*dataset.classes, *sorted(read.difference(dataset.classes))]
    index = {code: number for number, code in enumerate(classes)}
    metric = CenterF1(most=MOST_PER_PAGE)
    for number, page in enumerate(pages):
        metric.update(_points(found.get(page, []), index), dataset.instances(number))
    missing = tuple(page for page in pages if page not in found)
    notes = []
    if missing:
        notes.append(
            f"{counted(len(missing), 'labelled page')} of {len(pages):,} missing in {path}, such as {missing[0]}: "
            "nothing was read there."
        )
    return SubmissionScore(metric.compute(), missing, tuple(notes))


def _submitted(path: Path) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """Return the pages of a submission, each with code points and points ``(2,)``.

    Raises:
        FileNotFoundError, ValueError: As ``read_submission``, but for the classes.
    """
    pages = []
    for page, text in _rows(path, ("image_id", "labels")):
        groups = _groups(path, page, text, ("code point", "x", "y"))
        if len(groups) > MOST_PER_PAGE:
            raise ValueError(
                f"{path}: page {page}: {len(groups):,} predictions; at most {MOST_PER_PAGE:,} are allowed."
            )
        entries = []
        for number, (code, *xy) in enumerate(groups, 1):
            where = f"{path}: page {page}: entry {number}"
            _check_code(where, code)
            entries.append((code, _numbers(where, xy)))
        pages.append((page, entries))
    return pages


def _points(entries: list[tuple[str, np.ndarray]], index: dict[str, int]) -> Instances:
    """Return what was submitted for a page: boxes of no size, at the points."""
    at = np.array([point for _, point in entries], np.float32).reshape(-1, 2)
    score = np.linspace(1, 0.5, len(at), dtype=np.float32)  # best first, as it was written
    return Instances(
        BOXES, np.zeros((len(at), 0, 2)), np.zeros((len(at), 0)), np.concatenate([at, at], 1), score,
        np.array([index[code] for code, _ in entries], np.int64),
    )  # fmt: skip


def _rows(path: Path, columns: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the rows of a CSV file with two columns.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It has other columns, is not CSV in UTF-8, is too large, or has a row of another length or a name
            twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}. Expected a CSV file with {' and '.join(columns)}.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES:,} bytes.")
    before = csv.field_size_limit(64 * 1024 * 1024)
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not CSV in UTF-8: {error}.") from error
    finally:
        csv.field_size_limit(before)
    if not rows or tuple(rows[0]) != columns:
        got = ", ".join(rows[0])[:80] if rows else "nothing"
        raise ValueError(f"{path}: expected the columns {', '.join(columns)}, got {got}.")
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2:
            raise ValueError(
                f"{path}: line {number}: expected {' and '.join(columns)}, got {counted(len(row), 'column')}."
            )
        if row[0] in found:
            raise ValueError(f"{path}: line {number}: {row[0][:60]!r} is there twice.")
        found[row[0]] = row[1]
    return list(found.items())


def _folder(path: Path, images: str | Path | None) -> Path:
    tried = [Path(images)] if images is not None else [path.with_name(f"{path.stem}_images"), path.with_name("images")]
    for folder in tried:
        if folder.is_dir():
            return folder
    words = " and ".join(map(str, tried))
    raise FileNotFoundError(f"{path}: there is no folder with pages: tried {words}. Set images to the folder.")


def _entries(path: Path, page: str, text: str) -> list[tuple[str, np.ndarray]]:
    """Return code points and boxes ``(4,)`` x y width height of a page."""
    entries = []
    for number, (code, *rest) in enumerate(_groups(path, page, text, ("code point", "x", "y", "width", "height")), 1):
        where = f"{path}: page {page}: entry {number}"
        _check_code(where, code)
        box = _numbers(where, rest)
        if box[2] <= 0 or box[3] <= 0:
            raise ValueError(f"{where}: the box of {code} has a width of {box[2]:g} and a height of {box[3]:g}.")
        entries.append((code, box))
    return entries


def _check_code(where: str, code: str) -> None:
    if not CODE_POINT.fullmatch(code):
        raise ValueError(f"{where}: expected a code point such as U+306F, got {code[:20]!r}.")


def _groups(path: Path, page: str, text: str, columns: Sequence[str]) -> list[list[str]]:
    """Return the words of a page's entries; an entry begins at each code point, so that a short one is found itself.

    Raises:
        ValueError: An entry has more or fewer words than there are columns.
    """
    groups: list[list[str]] = []
    for word in text.split():
        if not groups or word[:2].upper() == "U+":
            groups.append([])
        groups[-1].append(word)
    for number, words in enumerate(groups, 1):
        if len(words) != len(columns):
            raise ValueError(
                f"{path}: page {page}: entry {number}, {' '.join(words)[:60]!r}, has {counted(len(words), 'word')}; "
                f"expected {len(columns)}: {', '.join(columns[:-1])} and {columns[-1]}."
            )
    return groups


def _numbers(where: str, words: list[str]) -> np.ndarray:
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        raise ValueError(f"{where}: expected numbers of pixels, got {' '.join(words)[:60]!r}.") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where}: {' '.join(words)[:60]!r} are not all finite.")
    return numbers


def _instances(entries: list[tuple[str, np.ndarray]], index: dict[str, int]) -> Instances:
    """Return the characters of a page; a box from x of width w covers the pixels x to x + w - 1."""
    box = np.array([box for _, box in entries], np.float64).reshape(-1, 4)
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1) - 0.5
    count = len(box)
    return Instances(
        BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), corners.astype(np.float32), np.ones(count),
        np.array([index[code] for code, _ in entries], np.int64),
        extra={"area": np.prod(box[:, 2:], axis=1).astype(np.float32), "crowd": np.zeros(count, bool)},
    )  # fmt: skip
