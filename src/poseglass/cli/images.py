"""What ``predict`` and ``demo`` share: images and boxes in, files and a table out."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from poseglass.core.boxes import share_inside
from poseglass.core.files import write_bytes
from poseglass.core.image import SUFFIXES, read_image, write_image
from poseglass.core.instances import Instances
from poseglass.drawing.heatmap import heatmap_grid
from poseglass.drawing.pose import draw, resized
from poseglass.estimators.topdown import TopDownEstimator, check_boxes
from poseglass.readers.coco_results import read_coco_results


@dataclass(frozen=True, slots=True, eq=False)
class NamedImage:
    """One image to find poses in.

    Args:
        name: For files and tables, without a suffix.
        file_name: Of the original, "" for a synthetic one.
        image: ``(H, W, 3)`` uint8 RGB.
        boxes: ``(N, 4)`` x0 y0 x1 y1, or None: one person fills the image.
        image_id: For the results file.
    """

    name: str
    file_name: str
    image: np.ndarray
    boxes: np.ndarray | None
    image_id: int


UNSURE = 0.3
"""Mean score below which an image taken as one person gets a hint."""


def list_images(paths: Iterable[Path]) -> list[Path]:
    """Return the image files among files and folders, sorted within each folder.

    Raises:
        FileNotFoundError: A path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise FileNotFoundError(f"The folder {path} holds no image ({', '.join(SUFFIXES)}).")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"No such image: {path}. Check the path; it is relative to {Path.cwd()}.")
    return found


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
        raise ValueError(f"--box takes x0,y0,x1,y1 in image pixels, e.g. --box 40,10,220,400; got {text!r}.")
    return numbers


def boxes_of_images(detections: Path, paths: Iterable[Path], min_score: float) -> list[np.ndarray]:
    """Read the boxes of people (category 1) that a detector found in images.

    A record belongs to the image that its ``file_name`` names, or whose own name is the ``image_id`` as COCO writes
    it: 785 is 000000000785.jpg.

    Args:
        detections: COCO results.
        paths: Of the images.
        min_score: Boxes below it are excluded.

    Returns:
        ``(N, 4)`` x0 y0 x1 y1 for each image.

    Raises:
        ValueError: Not such a file, none of it is of these images, or some of it is of two of them.
    """
    found = read_coco_results(detections).of_categories({1}, where="people")
    rows: dict[str | int, list[int]] = {}
    for row, name in enumerate(found.file_name):
        rows.setdefault(Path(name).name or int(found.image_id[row]), []).append(row)
    boxes: list[np.ndarray] = []
    owners: dict[str | int, Path] = {}
    for path in paths:
        keys = [key for key in (path.name, number_of(path)) if key in rows]
        for key in keys:
            if owners.setdefault(key, path) != path:
                raise ValueError(
                    f"{detections}: the boxes of {key!r} would be those of both {owners[key]} and {path}. Give "
                    "images of one name one after the other, or rename one of them."
                )
        mine = np.array(sorted(row for key in keys for row in rows[key]), np.int64)
        boxes.append(found.box_xyxy[mine[found.score[mine] >= min_score]].astype(np.float32))
    if not owners:
        raise ValueError(
            f"{detections}: none of {len(found):,} boxes is of the images given. A record needs the image's "
            "'file_name', or an 'image_id' that the image is named by, as 000000000785.jpg is by 785."
        )
    return boxes


def unique_names(paths: Iterable[Path]) -> list[str]:
    """Return file stems; where two agree, a number is added, so that no output overwrites another."""
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


def image_ids(paths: Sequence[Path]) -> list[int]:
    """Return an id for each image: the one its name is, as COCO's are, or else the first of 0, 1, 2, ... left."""
    named = [number_of(path) for path in paths]
    ids: list[int] = []
    free = (number for number in itertools.count() if number not in named)
    for number in named:
        ids.append(number if number >= 0 and number not in ids else next(free))
    return ids


def number_of(path: Path) -> int:
    """Return the id that an image's name is: 785 of 000000000785.jpg; -1 if it is none."""
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 19 else -1


def read_images(paths: list[Path], boxes: Sequence[np.ndarray | None]) -> Iterator[NamedImage | str]:
    """Read images one at a time, with the boxes of each; what cannot be read comes as the sentence that says why."""
    for i, path, name, mine in zip(image_ids(paths), paths, unique_names(paths), boxes, strict=True):
        try:
            yield NamedImage(name, str(path), read_image(path), mine, i)
        except (ValueError, OSError) as error:
            yield str(error)


def enlarged(image: np.ndarray, people: Instances) -> tuple[np.ndarray, Instances]:
    """Return the image and its people so large that names can be read: the smallest person's box at 300 px.

    Letters have a size that goes with the person's, 17 px there. An image grows to 4,000 px at most.
    """
    if not len(people):
        return image, people
    longest = max(image.shape[:2])
    sides = people.box_xyxy[:, 2:] - people.box_xyxy[:, :2]
    smallest = float(sides.max(axis=1).min())
    factor = min(300 / smallest, 4000 / longest)
    if factor <= 1:
        return image, people
    image, to_larger = resized(image, round(factor * longest))
    return image, people.moved(to_larger)


def mostly_outside(item: NamedImage) -> list[str]:
    """Return a sentence for each box of which less than half lies in the image."""
    assert item.boxes is not None
    height, width = item.image.shape[:2]
    shares = share_inside(item.boxes, (width, height))
    return [
        f"Only {share:.0%} of the box {box_xyxy.round(1).tolist()} lies in {item.name} ({width} x {height} px); is "
        "it x0,y0,x1,y1 of this image?"
        for box_xyxy, share in zip(item.boxes.astype(np.float64), shares, strict=True)
        if share < 0.5
    ]


MOST_IMAGES = 32
"""How many images share batches of crops: all of them are held until their poses are known."""

MOST_PIXELS = 64_000_000
"""Of the images that share batches; one larger image goes alone (200 MB as RGB)."""


def groups_of(items: Iterable[NamedImage | str], failed: list[str]) -> Iterator[list[NamedImage]]:
    """Yield images in groups that fit in memory; a sentence instead of an image goes to ``failed``."""
    group: list[NamedImage] = []
    pixels = 0
    for item in items:
        if isinstance(item, str):
            failed.append(item)
            continue
        more = item.image.shape[0] * item.image.shape[1]
        if group and (len(group) == MOST_IMAGES or pixels + more > MOST_PIXELS):
            yield group
            group, pixels = [], 0
        group.append(item)
        pixels += more
    if group:
        yield group


def _found(
    estimator: TopDownEstimator, items: Iterable[NamedImage | str], out: Path, failed: list[str]
) -> Iterator[tuple[NamedImage, Instances]]:
    """Yield each image with its poses, crops of several images in one batch; what fails goes to ``failed``.

    Raises:
        ValueError: The annotated image would overwrite an image that was given.
    """
    for group in groups_of(items, failed):
        usable: list[NamedImage] = []
        for item in group:
            target = out / f"{item.name}.png"
            if item.file_name and target.resolve() == Path(item.file_name).resolve():
                raise ValueError(
                    f"The annotated image would overwrite {target}, which was given. Choose another --out."
                )
            try:
                check_boxes(item.image, item.boxes)
                usable.append(item)
            except ValueError as error:
                failed.append(f"{item.file_name or item.name}: {error}")
        yield from zip(usable, estimator.stream((item.image, item.boxes) for item in usable), strict=True)


def write_poses(
    estimator: TopDownEstimator,
    items: Iterable[NamedImage | str],
    out: Path,
    console: Console,
    *,
    min_score: float = 0.3,
    names: bool = False,
    heatmaps: bool = False,
) -> list[str]:
    """Find the poses, write annotated images, ``poses.json`` and (if asked) heatmaps; print a row a person.

    ``poses.json`` is in COCO's result format, with the file's name in each record. An image that fails is left
    out, and the others are done.

    Returns:
        A sentence for each image that failed.

    Raises:
        ValueError: The folder's annotated image would overwrite an image that was given.
    """
    failed: list[str] = []
    # 80 columns hold every name of a keypoint; only an image's long name is folded
    table = Table(
        header_style="bold", title=f"poses by {estimator.card.name if estimator.card else 'the network'}",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in ("image", "person", "found", "score", "surest", "least sure"):
        table.add_column(column, no_wrap=column != "image", overflow="fold")
    records: list[dict[str, Any]] = []
    whole: list[str] = []
    larger: list[str] = []
    outside: list[str] = []
    unsure: list[str] = []
    for item, people in _found(estimator, items, out, failed):
        target = out / f"{item.name}.png"
        if item.boxes is None:
            whole.append(item.name)
        elif item.file_name:
            outside += mostly_outside(item)
        if item.boxes is None and people.score.mean() < UNSURE:
            unsure.append(item.name)
        out.mkdir(parents=True, exist_ok=True)
        image, shown = enlarged(item.image, people) if names else (item.image, people)
        if image is not item.image:
            larger.append(f"{item.name} {image.shape[1] / item.image.shape[1]:.1f} times")
        write_image(target, draw(image, shown, min_score=min_score, boxes=item.boxes is not None, names=names))
        for record in people.to_coco(image_id=item.image_id):
            records.append(record | {"file_name": item.file_name or f"{item.name}.png"})
        if heatmaps and len(people):
            crop, maps = estimator.heatmaps(item.image, None if item.boxes is None else item.boxes[0])
            write_image(
                out / f"{item.name}-heatmaps.png",
                heatmap_grid(crop, maps, estimator.skeleton, scores=people.score[0]),
            )
        for row in range(len(people)):
            score = people.score[row]
            best, worst = int(score.argmax()), int(score.argmin())
            keypoints = estimator.skeleton.keypoints
            table.add_row(
                item.name,
                "whole" if item.boxes is None else str(row + 1),
                f"{int((score >= min_score).sum())} of {len(keypoints)}",
                f"{score.mean():.2f}",
                f"{keypoints[best]} {score[best]:.2f}",
                f"{keypoints[worst]} {score[worst]:.2f}",
            )
    if not table.row_count and failed:
        return failed
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "poses.json", json.dumps(records, indent=1).encode())
    console.print(table)
    console.print(
        f"found: keypoints whose score is at least {min_score:g}; those are drawn. score: the mean of all, 0 to 1. "
        "Orange is the person's own left, blue the right."
    )
    if estimator.card is not None and estimator.card.certificate:
        console.print("These weights are imported: their scores are heights of peaks, no chances of being right.")
    if whole:
        console.print(
            f"No boxes were given for {', '.join(whole)}: each such image was taken as one person filling it. "
            "Give boxes with --box x0,y0,x1,y1."
            + (f" A low score, as of {', '.join(unsure)}: small in it, cut off, or not there." if unsure else "")
        )
    for line in outside:
        console.print(line)
    if larger:
        console.print(
            f"enlarged so that the names can be read: {', '.join(larger)}. poses.json is in their own pixels."
        )
    console.print(f"written to {out}: annotated images, poses.json" + (", heatmaps" if heatmaps else ""))
    return failed
