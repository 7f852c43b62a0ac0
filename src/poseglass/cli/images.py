"""Shared by ``predict`` and ``demo``: lists and reads images with their boxes, and finds what looks wrong with them."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poseglass.cli.given_boxes import GivenImage
from poseglass.core.boxes import share_inside
from poseglass.core.image import TooLargeError, count_frames, read_with_levels
from poseglass.core.image_folder import list_folder
from poseglass.core.instances import Instances
from poseglass.core.large_image import LargeImage
from poseglass.core.levels import Levels, WhiteLevels
from poseglass.core.table import listed
from poseglass.drawing.pose import resized


@dataclass(frozen=True, slots=True, eq=False)
class NamedImage:
    """An image to find poses in.

    Args:
        name: Name for files and tables, without a suffix.
        file_name: Path of the original file, "" for a synthetic image.
        image: ``(H, W, 3)`` uint8 RGB, or a large image, of which parts are read.
        boxes: ``(N, 4)`` x0 y0 x1 y1, or None: the estimator finds them, or one instance fills the image.
        image_id: Image id for the results file.
        category_id: Category id for the results file.
        levels: How values of more than 8 bits were scaled; None for an 8-bit image.
        frames: Number of frames or pages in the file, of which the first is read.
        projection: Calibration of its camera, ``(3, 4)``, camera frame in millimetres to pixels; None if not known.
    """

    name: str
    file_name: str
    image: np.ndarray | LargeImage
    boxes: np.ndarray | None
    image_id: int | str
    category_id: int = 1
    levels: Levels | None = None
    frames: int = 1
    projection: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class ImagePaths:
    """The images given to a command.

    Args:
        paths: Paths in the order given, sorted within each folder.
        from_folders: Those that were found in a folder instead of named.
        notes: What was found but skipped, one sentence each.
    """

    paths: tuple[Path, ...]
    from_folders: frozenset[Path]
    notes: tuple[str, ...]


def read_list(file: Path) -> list[Path]:
    """Return the paths in a text file, one on a line, relative to the file's folder; empty lines are skipped.

    Raises:
        FileNotFoundError: The file, or a path in it, does not exist; the message has the line.
        ValueError: It is not text in UTF-8, or has no paths.
    """
    if not file.is_file():
        raise FileNotFoundError(f"No such list of images: {file}. --list takes a text file with one path on each line.")
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(
            f"{file} is not text in UTF-8. --list takes a text file with one path on each line; give images themselves "
            "without --list."
        ) from None
    found = [(number, file.parent / line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ValueError(f"{file} has no paths; --list takes a text file with one path on each line.")
    missing = [f"{path} (line {number})" for number, path in found if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{file}: {len(missing):,} of {len(found):,} paths do not exist: {listed(missing)}. Paths are relative to "
            f"the list's folder, {file.parent.absolute()}."
        )
    return [path for _, path in found]


def list_images(paths: Iterable[Path]) -> ImagePaths:
    """Return the images among files and folders; in folders, images are recognised by their content.

    Raises:
        FileNotFoundError: A path does not exist, or a folder holds no image that can be read.
    """
    found: dict[Path, Path] = {}
    inside: set[Path] = set()
    notes: list[str] = []
    twice: list[str] = []
    for path in paths:
        if path.is_dir():
            listing = list_folder(path)
            notes += listing.notes()
            if not listing.images:
                raise FileNotFoundError(f"The folder {path} holds no image that can be read. {' '.join(notes)}".strip())
            files: tuple[Path, ...] = listing.images
        elif path.exists():
            files = (path,)
        else:
            raise FileNotFoundError(f"No such image: {path}. Check the path; it is relative to {Path.cwd()}.")
        for file in files:
            if found.setdefault(file.absolute(), file) is not file:
                twice.append(str(file))
            elif path.is_dir():
                inside.add(file)
            if not path.is_dir():
                inside.discard(found[file.absolute()])
    if twice:
        notes.append(f"Given twice, processed once: {listed(twice)}.")
    return ImagePaths(tuple(found.values()), frozenset(inside), tuple(notes))


def parse_box(text: str) -> list[float]:
    """Read ``x0,y0,x1,y1``.

    Raises:
        ValueError: Not four numbers.
    """
    try:
        numbers = [float(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise ValueError(f"--box must be x0,y0,x1,y1 in image pixels, e.g. --box 40,10,220,400; got {text!r}.")
    return numbers


def parse_scales(text: str, option: str = "--scales") -> tuple[float, ...]:
    """Read ``0.5,1,1.5``, the value of an option.

    Raises:
        ValueError: Not positive numbers.
    """
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"{option} must be positive numbers with commas, e.g. {option} 0.5,1,1.5; got {text!r}.")
    return scales


def unique_names(paths: Iterable[Path]) -> list[str]:
    """Return the file stems; a number is added to duplicates, so that no output overwrites another."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, count = path.stem, 1
        while {name, f"{name}-heatmaps"} & taken:
            count += 1
            name = f"{path.stem}-{count}"
        taken |= {name, f"{name}-heatmaps"}
        names.append(name)
    return names


def read_images(
    given: Sequence[GivenImage],
    white: float | WhiteLevels | None = None,
    *,
    from_folders: Collection[Path] = (),
    passed: list[str] | None = None,
    done: Collection[Path] = (),
) -> Iterator[NamedImage | str]:
    """Read images one at a time, with their boxes; for an image that cannot be read, yield the error message.

    Args:
        given: Paths, ids and boxes.
        white: White level of images with more than 8 bits; see ``read_image``.
        from_folders: Images from folders, whose error messages are added to ``passed`` instead.
        passed: Receives these messages.
        done: Images that are not read, because their poses are known.
    """
    names = unique_names([one.path for one in given])
    image: np.ndarray | LargeImage
    for one, name in zip(given, names, strict=True):
        if one.path in done:
            continue
        try:
            try:
                image, levels = read_with_levels(one.path, white=white)
                frames = count_frames(one.path)
            except TooLargeError:
                image, levels, frames = LargeImage(one.path), None, 1
        except (ValueError, OSError) as error:
            if passed is not None and one.path in from_folders:
                passed.append(str(error))
            else:
                yield str(error)
            continue
        yield NamedImage(
            name, str(one.path), image, one.boxes, one.image_id, one.category_id, levels, frames, one.projection
        )


def enlarged(image: np.ndarray, people: Instances, min_score: float = 0.0) -> tuple[np.ndarray, Instances]:
    """Return the image and its people, enlarged so that names are readable: the smallest person has 300 px.

    The font size scales with the person, 17 px at that size. The size of a person is that of its drawn keypoints, since
    a box may be much larger, such as a whole image. An image is enlarged to 4,000 px at most.
    """
    if not len(people):
        return image, people
    longest = max(image.shape[:2])
    sides = (people.box_xyxy[:, 2:] - people.box_xyxy[:, :2]).max(axis=1).astype(np.float64)
    for row in range(len(people)):
        points = people.xy[row][people.known[row] & (people.score[row] >= min_score)]
        if len(points) > 1:
            sides[row] = min(sides[row], max(1.2 * float(np.ptp(points, axis=0).max()), 0.2 * sides[row]))
    factor = min(300 / float(sides.min()), 4000 / longest)
    if factor <= 1:
        return image, people
    image, to_larger = resized(image, round(factor * longest))
    return image, people.moved(to_larger)


def mostly_outside(item: NamedImage) -> list[str]:
    """Return a sentence for each box of which a large part lies outside the image."""
    assert item.boxes is not None
    height, width = item.image.shape[:2]
    shares = share_inside(item.boxes, (width, height))
    return [
        f"Only {share:.0%} of box {row + 1} {box_xyxy.round(1).tolist()} lies in {item.name} ({width} x {height} px). "
        "Check that it is x0,y0,x1,y1 in this image, not x,y,width,height."
        for row, (box_xyxy, share) in enumerate(zip(item.boxes.astype(np.float64), shares, strict=True))
        if share < MOSTLY
    ]


MOSTLY = 0.75
"""Share of a box that should lie in the image; boxes of detectors may extend slightly beyond its border."""


def level_notes(items: Iterable[tuple[str, Levels]]) -> list[str]:
    """Return notes on images of more than 8 bits with clipped or suspicious values, one sentence per kind."""
    above: list[str] = []
    below: list[str] = []
    nans: list[str] = []
    dark: list[str] = []
    for name, levels in items:
        if levels.above:
            above.append(f"{name} ({levels.above:,}, up to {levels.highest:,.6g}; white is {levels.white:,.6g})")
        if levels.below:
            below.append(f"{name} ({levels.below:,})")
        if levels.not_finite:
            nans.append(f"{name} ({levels.not_finite:,})")
        if not levels.declared and 0 < levels.likely <= levels.white / 4:
            dark.append(f"{name} (up to {levels.highest:,.6g} of {levels.white:,.6g})")
    return [
        f"{what}: {listed(names)}.{then}"
        for what, names, then in (
            ("Values above white were clipped to white", above, " Set a higher white level with --white."),
            ("Values below 0 were clipped to black", below, ""),
            ("NaN values were set to black, infinite ones to white", nans, ""),
            (
                "Much darker than white",
                dark,
                " If they have fewer bits than the others, process them separately, or set --white.",
            ),
        )
        if names
    ]


def make_folder(out: Path) -> None:
    """Make the output folder.

    Raises:
        OSError: It cannot be made; the message names --out.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(f"--out must be a folder, but {out} is a file. Give another folder.") from None
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"The folder of --out cannot be made, {out}: {why}. Give another folder.") from error
