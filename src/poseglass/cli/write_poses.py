"""Shared by ``predict`` and ``demo``: finds the poses in images, writes the files and prints a table."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from poseglass.cli.calibrations import uncalibrated
from poseglass.cli.images import NamedImage, enlarged, level_notes, make_folder, mostly_outside
from poseglass.cli.journal import FILE_NAME, Journal
from poseglass.cli.lift_poses import Lifting
from poseglass.cli.poses_file import DRAWN, Least, coco_chunks, noun_of, people_of, result_records, results_chunks
from poseglass.core.affine import Affine
from poseglass.core.ahead import ahead
from poseglass.core.card import WeightCard
from poseglass.core.files import write_chunks
from poseglass.core.fonts import font_with
from poseglass.core.image import TooLargeError, read_with_levels, write_image
from poseglass.core.instances import Instances
from poseglass.core.large_image import KEPT_BYTES, LargeImage
from poseglass.core.levels import Levels, WhiteLevels
from poseglass.core.reading_order import reading_order
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import BOXES
from poseglass.core.table import listed
from poseglass.drawing.boxes_3d import draw_boxes_3d
from poseglass.drawing.characters import draw_characters
from poseglass.drawing.heatmap import heatmap_grid
from poseglass.drawing.pose import draw
from poseglass.drawing.sheet import contact_sheet
from poseglass.estimators.estimator import Frame
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator, check_boxes
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.estimators.whole_image import WholeImageEstimator
from poseglass.lifting.people import LiftedPeople
from poseglass.readers.kuzushiji import CODE_POINT, MOST_PER_PAGE, write_submission

PoseEstimator = TopDownEstimator | OneStageEstimator | TwoStageEstimator | WholeImageEstimator
"""What ``load`` returns."""

UNSURE = 0.3
"""Mean score below which a hint is printed for an image treated as one person."""

MOST_ROWS = 60
"""Largest number of poses in the table; ``poses.json`` has all."""

MOST_SENTENCES = 5
"""Largest number of boxes outside their images that get a sentence each."""

SHEET_IMAGES = 24
"""Number of images on the contact sheet."""

MOST_IMAGES = 32
"""Largest number of images in memory whose poses are not known yet."""

MOST_PIXELS = 64_000_000
"""No image is added to as many pixels (200 MB as RGB) as these."""

MOST_AHEAD = 16
"""Largest number of images that are read while the network runs on those before; an image counts once per megapixel."""

LARGEST_DRAWN_PX = 4096
"""Longest side of the annotated image of a large one, of which parts are read."""

WRITERS = 4
"""Number of threads that compress and write annotated images, which takes longer than a small network."""

TELL_SECONDS = 30.0
"""Where there is no terminal for a bar, a line tells of the progress this often."""

MANY_VIEWS = 64
"""An image that is looked at in this many views tells how many are done."""


def write_poses(
    estimator: PoseEstimator,
    items: Iterable[NamedImage | str],
    out: Path,
    console: Console,
    *,
    journal: Journal | None = None,
    total: int | None = None,
    already: int = 0,
    least: Least = DRAWN,
    names: bool = False,
    heatmaps: bool = False,
    images: bool = True,
    reading: bool = False,
    lift: Lifting | None = None,
) -> list[str]:
    """Find poses; write annotated images and, on request, heatmaps; print a row for each of the first poses.

    The poses of each image are added to the journal as soon as they are known. Without a journal of the caller, both
    pose files are written at the end; see ``write_files``. An image that fails is skipped. If there is no image,
    nothing is written.

    Args:
        estimator: Finds the poses.
        items: Images, or error messages of those that could not be read.
        out: Output folder.
        console: Prints the table and the notes.
        journal: Receives the poses, and may hold those of images done before.
        total: Number of all images for the progress bar; None shows no bar.
        already: Number of images done before, which are not among the items.
        least: Which keypoints are drawn.
        names: Draw the names of the keypoints.
        heatmaps: Also write the heatmaps of the first person in each image.
        images: Write annotated images.
        reading: Sort the instances of each page as they are read, in columns from right to left.
        lift: Also lifts the poses to 3D, and draws them beside the annotated images.

    Returns:
        An error message for each image that failed.

    Raises:
        ValueError: An annotated image would overwrite an input image.
    """
    alone = journal is None
    journal = Journal(out / FILE_NAME, {}) if journal is None else journal
    failed: list[str] = []
    work = _Work(estimator, out, console, least)
    order: list[tuple[Path, int | str, str]] = []
    writing: deque[tuple[NamedImage, Instances, LiftedPeople | None, Future[None] | None]] = deque()

    def finish() -> None:
        """Add the first image whose files are being written to the journal, once they are."""
        item, people, lifted, written = writing.popleft()
        if written is not None:
            written.result()
        file = Path(item.file_name or f"{item.name}.png")
        height, width = item.image.shape[:2]
        entry = {"id": item.image_id, "file_name": str(file), "width": width, "height": height}
        records = work.records(item, people)
        if lift is not None and lifted is not None:
            lift.add(file.name, records, lifted)
        journal.add(file, item.name, entry, records)
        order.append((file, item.image_id, str(file)))
        work.row(item, people)
        bar.done()

    with _Bar(console, total, already) as bar, ThreadPoolExecutor(WRITERS) as pool:
        for item, people in _found(_telling(estimator, bar), items, out, failed, bar, images=images):
            if reading:
                people = people[reading_order(people.box_xyxy)]
            if images or heatmaps:
                make_folder(out)
            lifted = None if lift is None else lift.of(people)
            written = None
            if images:
                try:
                    drawn = work.draw(item, people, names=names)
                except ValueError as error:  # a damaged part of a large image
                    failed.append(str(error))
                    bar.done()
                    continue
                files = {out / f"{item.name}.png": drawn}
                if lift is not None and lifted is not None and len(lifted):
                    files[out / f"{item.name}-3d.png"] = lift.beside(drawn, lifted)
                written = pool.submit(_write_images, files)
            if heatmaps and len(people):
                work.heatmaps(item, people)
            writing.append((item, people, lifted, written))
            if len(writing) > WRITERS:
                finish()
        while writing:
            finish()
    if work.images:
        work.say(heatmaps=heatmaps, images=images)
    if work.images and lift is not None:
        for line in lift.lines():
            console.print(line, markup=False, highlight=False)
    if alone and order:
        write_files(estimator.skeleton, journal, order, out)
        journal.close(finished=True, keep=False)
        said = ["annotated images"] * images + ["poses.json (COCO results)", "poses_coco.json (with keypoint names)"]
        console.print(f"written to {out}: {', '.join(said + ['heatmaps'] * heatmaps)}", markup=False)
    return failed


def _write_images(files: dict[Path, np.ndarray]) -> None:
    for path, image in files.items():
        write_image(path, image)


def write_files(
    skeleton: Skeleton, journal: Journal, order: list[tuple[Path, int | str, str]], out: Path
) -> tuple[list[str], int]:
    """Write ``poses.json`` and ``poses_coco.json`` from a journal, one image in memory at a time.

    ``cli.poses_file`` documents the files.

    Args:
        skeleton: Skeleton of the poses.
        journal: Holds the poses.
        order: The images in the order of the results: path, id and file name, which replace those in the journal.
        out: Output folder.

    Returns:
        Names of the images without poses, and the number of poses.
    """
    now = {str(file.absolute()): (image_id, file_name) for file, image_id, file_name in order}
    empty: list[str] = []
    people = 0

    def entries() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        for file, image, records in journal.entries([file for file, _, _ in order]):
            image_id, file_name = now[str(file.absolute())]
            fresh = {"image_id": image_id, "file_name": file_name}
            yield image | {"id": image_id, "file_name": file_name}, [record | fresh for record in records]

    def counted() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        nonlocal people
        for image, records in entries():
            people += len(records)
            if not records:
                empty.append(Path(image["file_name"]).name)
            yield image, records

    make_folder(out)
    write_chunks(out / "poses.json", results_chunks(counted()))
    write_chunks(out / "poses_coco.json", coco_chunks(skeleton, entries, out))
    return empty, people


def write_sheet(
    skeleton: Skeleton,
    journal: Journal,
    files: Iterable[Path],
    out: Path,
    *,
    white: float | WhiteLevels | None,
    least: Least,
    projections: Mapping[Path, np.ndarray] | None = None,
) -> int:
    """Write ``sheet.jpg``, the first images that are done with their poses, and return their number.

    The images are read again, one at a time, so that a run that was resumed shows those done before too.

    Args:
        skeleton: Of the poses.
        journal: Holds the poses.
        files: The images.
        out: Output folder.
        white: White level of the images.
        least: Which keypoints are drawn.
        projections: Calibrations of images, with which boxes in space are drawn.
    """
    shown: list[str] = []

    def samples() -> Iterator[PoseSample]:
        for file, _, records in journal.entries(files):
            if len(shown) == SHEET_IMAGES:
                return
            people = least.of(people_of(skeleton, records, projection=(projections or {}).get(file)))
            try:
                try:
                    image, _ = read_with_levels(file, white=white)
                except TooLargeError:
                    image, people, _ = _drawable(LargeImage(file), people)
            except (ValueError, OSError):  # removed since
                continue
            shown.append(file.name)
            yield PoseSample(image, people, Affine.identity(), str(file))

    try:
        sheet = contact_sheet(samples(), tile_px=320, columns=4, boxes=True, numbers=True, min_score=least.score)
    except ValueError:
        if shown:
            raise
        return 0
    write_image(out / "sheet.jpg", sheet)
    return len(shown)


def _telling(estimator: PoseEstimator, bar: "_Bar") -> PoseEstimator:
    """Return the estimator, telling the bar of the views of an image that it looks at in chips."""
    if isinstance(estimator, TwoStageEstimator) and isinstance(estimator.detector, OneStageEstimator):
        return replace(estimator, detector=replace(estimator.detector, on_views=bar.views))
    return replace(estimator, on_views=bar.views) if isinstance(estimator, OneStageEstimator) else estimator


def _watched(items: Iterable[NamedImage | str], bar: "_Bar") -> Iterator[NamedImage | str]:
    for item in items:
        if isinstance(item, str):
            bar.done()
        yield item


def _found(
    estimator: PoseEstimator, items: Iterable[NamedImage | str], out: Path, failed: list[str], bar: "_Bar", *,
    images: bool,
) -> Iterator[tuple[NamedImage, Instances]]:  # fmt: skip
    """Yield each image with its poses, with several images in a batch; errors are added to ``failed``.

    The next images are read while the network runs. The stream of an estimator ends, and another begins, when the
    images whose poses are not known yet are as many, or as large, as may be in memory.

    Raises:
        ValueError: The annotated image would overwrite an input image.
    """
    spatial = finds_boxes_3d(estimator)
    with closing(ahead(items, most=MOST_AHEAD, weigh=lambda item: 1 + _pixels(item) // 1_000_000)) as ready:
        source = iter(_watched(ready, bar))
        held: deque[NamedImage] = deque()
        more = True
        while more:
            pending: deque[NamedImage] = deque()

            def frames(pending: deque[NamedImage] = pending) -> Iterator[Frame]:
                nonlocal more
                while len(pending) < MOST_IMAGES and sum(map(_pixels, pending)) < MOST_PIXELS:
                    item = held.popleft() if held else next(source, None)
                    if item is None:
                        more = False
                        return
                    if isinstance(item, str):
                        failed.append(item)
                        continue
                    if images:
                        check_not_overwritten(out / f"{item.name}.png", item.file_name)
                    try:
                        check_boxes(item.image, item.boxes)
                    except ValueError as error:
                        failed.append(f"{item.file_name or item.name}: {error}")
                        continue
                    if spatial and item.projection is None:
                        failed.append(uncalibrated(item.file_name or item.name))
                        bar.done()
                        continue
                    large = isinstance(item.image, LargeImage)
                    if large and pending:  # it comes alone, as reading its parts may fail
                        held.append(item)
                        return
                    pending.append(item)
                    yield (item.image, item.boxes, item.projection) if spatial else (item.image, item.boxes)
                    if large:
                        return

            try:
                for people in estimator.stream(frames()):
                    yield pending.popleft(), people
            except ValueError as error:
                if not pending or not isinstance(pending[0].image, LargeImage):
                    raise
                failed.append(str(error))


def _pixels(item: NamedImage | str) -> int:
    """Return the number of pixels of an image that are in memory, 0 of an error message."""
    if isinstance(item, str):
        return 0
    return KEPT_BYTES // 3 if isinstance(item.image, LargeImage) else item.image.shape[0] * item.image.shape[1]


def _drawable(image: np.ndarray | LargeImage, people: Instances) -> tuple[np.ndarray, Instances, int]:
    """Return an image and its people as they can be drawn, and the factor by which a large image is reduced."""
    if not isinstance(image, LargeImage):
        return image, people, 1
    small, reduce = image.reduced(LARGEST_DRAWN_PX)
    return small, people.moved(Affine.about((-0.5, -0.5), scale=1.0 / reduce)), reduce


def check_not_overwritten(target: Path, file_name: str) -> None:
    """Raise if an output is an input image.

    Raises:
        ValueError: It is.
    """
    # a file that does not exist yet overwrites nothing, and this is quick for many images
    if file_name and target.exists() and Path(file_name).exists() and target.samefile(file_name):
        raise ValueError(f"An output would overwrite the input image {target}. Choose another --out.")


def characters_of(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the characters of classes that are all code points, such as "U+306F"; else nothing."""
    if not classes or not all(CODE_POINT.fullmatch(name) for name in classes):
        return ()
    return tuple(chr(int(name[2:], 16)) for name in classes)


def write_characters(
    classes: Sequence[str], journal: Journal, order: list[tuple[Path, int | str, str]], out: Path
) -> list[str]:
    """Write ``submission.csv``, what was read on each page, and return what is to be said about it, a sentence each.

    A row has the name of its page, without folder and suffix. Where several images have it, which of them is the page
    cannot be known: each row then has the path of its image.

    Raises:
        OSError: It cannot be written.
    """
    index = {name: number for number, name in enumerate(classes)}
    images = Counter(file.stem for file, _, _ in order)
    # with a slash, which no name of a page has
    paths = {file: f"{file.parent}/{file.name}" for file, _, _ in order if images[file.stem] > 1}

    def pages() -> Iterator[tuple[str, Instances]]:
        for file, _, records in journal.entries([file for file, _, _ in order]):
            box = np.array([record["bbox"] for record in records], np.float32).reshape(-1, 4)
            count = len(box)
            yield paths.get(file, file.stem), Instances(
                BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)),
                np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1),
                np.array([record.get("box_score", 1.0) for record in records], np.float32),
                np.array([index[record["category"]] for record in records], np.int64),
            )  # fmt: skip

    left = write_submission(out / "submission.csv", pages(), classes)
    notes = []
    if left:
        notes.append(f"submission.csv: the {left:,} lowest scores were left out, beyond {MOST_PER_PAGE:,} on a page.")
    if paths:
        notes.append(
            f"submission.csv: {len(paths):,} images share their name with another image, but a page has one row: "
            f"{listed(list(paths.values()))}. Their rows have these paths instead; rename those to be submitted."
        )
    return notes


def classes_found(estimator: PoseEstimator) -> tuple[str, ...]:
    """Return the names of the classes that an estimator tells apart, if its card states them."""
    teller: Any = estimator
    if isinstance(estimator, TwoStageEstimator):
        teller = estimator.poses if estimator.tells_classes else estimator.detector
    card = getattr(teller, "card", None)
    return card.classes if card is not None and (teller.finds_boxes or not len(teller.skeleton)) else ()


def reads_boxes(estimator: PoseEstimator) -> bool:
    """Return whether an estimator tells the class of what a given box shows, instead of keypoints."""
    return not len(estimator.skeleton) and not isinstance(estimator, OneStageEstimator)


def finds_boxes_3d(estimator: PoseEstimator) -> bool:
    """Return whether an estimator finds boxes in space, for which the calibration of each image is needed."""
    return isinstance(estimator, OneStageEstimator) and estimator.finds_boxes_3d


def card_of(estimator: PoseEstimator) -> WeightCard | None:
    """Return the card of the weights that find the keypoints."""
    return estimator.poses.card if isinstance(estimator, TwoStageEstimator) else estimator.card


class _Bar:
    """A progress bar with the time left on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console, total: int | None, before: int) -> None:
        self.console, self.total, self.count, self.before = console, total, before, before
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal or (total or 0) < 2,
            transient=True,
        )  # fmt: skip

    def __enter__(self) -> "_Bar":
        self.progress.start()
        self.task = self.progress.add_task("images", total=self.total, completed=self.before, rate="")
        self.started = self.told_at = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def views(self, done: int, total: int) -> None:
        """Tell how many views of a large image are done."""
        if total < MANY_VIEWS:
            return
        words = f"{done:,} of {total:,} views" if done < total else ""
        self.progress.update(self.task, description=f"images ({words})" if words else "images")
        now = time.monotonic()
        if words and self.progress.disable and now - self.told_at > TELL_SECONDS:
            self.told_at = now
            self.console.print(f"{words} of an image", highlight=False)
            self.console.file.flush()

    def done(self) -> None:
        """Count an image, whether it failed or not."""
        self.count += 1
        now = time.monotonic()
        rate = f"{(self.count - self.before) / max(now - self.started, 1e-9):.3g} images/s"
        self.progress.update(self.task, completed=self.count, rate=rate)
        if self.total is not None and not self.console.is_terminal and now - self.told_at > TELL_SECONDS:
            self.told_at = now
            self.console.print(f"{self.count:,} of {self.total:,} images, {rate}", highlight=False)
            self.console.file.flush()


class _Work:
    """Draws and tells of the poses of one image after the other."""

    def __init__(self, estimator: PoseEstimator, out: Path, console: Console, least: Least) -> None:
        self.estimator, self.out, self.console, self.least = estimator, out, console, least
        self.noun = noun_of(estimator.skeleton)
        self.classes = classes_found(estimator)
        self.characters = characters_of(self.classes)
        self.font = font_with(self.characters) if self.characters else None
        card = card_of(estimator)
        by = f"poses by {card.name if card else 'the network'}"
        if isinstance(estimator, TwoStageEstimator):
            finds = getattr(estimator.detector, "card", None)
            by += f", boxes by {finds.name if finds else 'the detector'}"
        # all keypoint names fit in 80 columns; only a long image name is folded
        self.table = Table(header_style="bold", title=escape(by), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        told = "score" if least.probability is None else "probability"
        for column in ("image", self.noun, "found", told, "surest", "least sure"):
            self.table.add_column(column, no_wrap=column != "image", overflow="fold")
        self.images = self.poses = self.without = 0
        self.levels: list[tuple[str, Levels]] = []
        self.whole: list[str] = []
        self.unsure: list[str] = []
        self.larger: list[str] = []
        self.smaller: list[str] = []
        self.outside: list[str] = []
        self.several: list[str] = []

    def is_whole(self, item: NamedImage) -> bool:
        """Tell whether the image was treated as one instance filling it."""
        return item.boxes is None and not self.estimator.finds_boxes

    def is_doubtful(self, item: NamedImage, people: Instances) -> bool:
        """Tell whether the pose of a whole image has a low score."""
        return self.is_whole(item) and bool(people.score.mean() < UNSURE)

    def draw(self, item: NamedImage, people: Instances, *, names: bool) -> np.ndarray:
        """Return the annotated image."""
        image, people, reduce = _drawable(item.image, self.least.of(people))
        if reduce > 1:
            self.smaller.append(f"{item.name} at 1/{reduce}")
        if people.box_3d is not None:
            drawn = draw_boxes_3d(image, people, names=self.classes)
            if drawn.shape[1] != image.shape[1]:
                self.larger.append(f"{item.name} {drawn.shape[1] / image.shape[1]:.1f} times")
            return drawn
        if self.characters:
            return draw_characters(image, people, [self.characters[label] for label in people.label], self.font)
        before = image.shape[1]
        image, shown = enlarged(image, people, self.least.score) if names else (image, people)
        if image.shape[1] != before:
            self.larger.append(f"{item.name} {image.shape[1] / before:.1f} times")
        marked = not self.is_whole(item)
        return draw(image, shown, min_score=self.least.score, boxes=marked, numbers=marked, names=names)

    def heatmaps(self, item: NamedImage, people: Instances) -> None:
        """Write the heatmaps of the first person.

        Raises:
            ValueError: The network sees whole images.
        """
        poses = self.estimator.poses if isinstance(self.estimator, TwoStageEstimator) else self.estimator
        if isinstance(poses, WholeImageEstimator):
            raise ValueError("An exported file of whole images returns no heatmaps. Use the weights themselves.")
        if isinstance(poses, OneStageEstimator):
            raise ValueError("Heatmaps are of one person in a box, but these weights find everybody in an image.")
        crop, maps = poses.heatmaps(item.image, people.box_xyxy[0])
        grid = heatmap_grid(crop, maps, poses.skeleton, scores=people.score[0])
        write_image(self.out / f"{item.name}-heatmaps.png", grid)

    def records(self, item: NamedImage, people: Instances) -> list[dict[str, Any]]:
        """Return the records of an image for ``poses.json``."""
        records = result_records(
            people, item.image_id, item.category_id, item.file_name or f"{item.name}.png",
            whole_image=self.is_whole(item), doubtful=self.is_doubtful(item, people),
            found_boxes=item.boxes is None and not self.is_whole(item),
        )  # fmt: skip
        if len(self.classes) > 1 and (item.boxes is None or reads_boxes(self.estimator)):
            for record, label in zip(records, people.label.tolist(), strict=True):
                record["category_id"] = label + 1
                record["category"] = self.classes[label] if label < len(self.classes) else str(label)
        return records

    def row(self, item: NamedImage, people: Instances) -> None:
        """Add the poses of an image to the table, and what is to be said about it to the notes."""
        self.images += 1
        if item.levels is not None:
            self.levels.append((item.name, item.levels))
        if item.frames > 1:
            self.several.append(f"{item.name} ({item.frames})")
        doubtful = self.is_doubtful(item, people)
        if self.is_whole(item):
            self.whole.append(item.name)
        elif item.boxes is not None and item.file_name:
            self.outside += mostly_outside(item)
        if doubtful:
            self.unsure.append(item.name)
        keypoints = self.estimator.skeleton.keypoints
        if item.boxes is not None and isinstance(self.estimator, OneStageEstimator):
            self.without += int((people.box_score == 0).sum())
        drawn = self.least.of(people)
        for row in range(len(people)):
            self.poses += 1
            if self.poses > MOST_ROWS:
                continue
            score = self._told(people)[row]
            person = str(row + 1) if not self.is_whole(item) else "whole?" if doubtful else "whole"
            if not keypoints:
                self.table.add_row(escape(item.name), person, "box", f"{people.box_score[row]:.2f}", "", "")
                continue
            best, worst = int(score.argmax()), int(score.argmin())
            self.table.add_row(
                escape(item.name),
                person,
                f"{int((drawn.known[row] & (drawn.score[row] >= self.least.score)).sum())} of {len(keypoints)}",
                f"{score.mean():.2f}",
                f"{keypoints[best]} {score[best]:.2f}",
                f"{keypoints[worst]} {score[worst]:.2f}",
            )

    def _told(self, people: Instances) -> np.ndarray:
        """Return what the table tells of each keypoint: its probability where these are asked for, else its score."""
        if self.least.probability is None or people.probability is None:
            return people.score
        return people.probability

    def say(self, *, heatmaps: bool, images: bool) -> None:
        """Print the table and the notes."""
        console, noun = self.console, self.noun
        keypoints = self.estimator.skeleton.keypoints
        if self.poses:
            console.print(self.table)
        if self.poses > MOST_ROWS:
            console.print(
                f"The table has the first {MOST_ROWS} of {self.poses:,} poses; poses.json has all.", highlight=False
            )
        if self.poses and keypoints:
            sides = " Orange is the left side, blue the right." if noun != "person" else (
                " Orange is the person's own left, blue the right."
            )  # fmt: skip
            console.print(
                f"found: keypoints with {self.least}, which are drawn. "
                f"{'score' if self.least.probability is None else 'probability'}: mean of all, 0 to 1."
                + (sides if any(name.startswith("left_") for name in keypoints) else "")
            )
        elif self.poses and reads_boxes(self.estimator):
            console.print("These weights tell the class of what a box shows. score: that of the class, 0 to 1.")
        elif self.poses and finds_boxes_3d(self.estimator):
            console.print(
                "These weights find boxes in space: box_3d in poses.json, millimetres and radians in the frame of the "
                "camera. The crossed face is the front. score: that of the box, 0 to 1."
            )
        elif self.poses:
            console.print("These weights find boxes without keypoints. score: that of the box, 0 to 1.")
        card = card_of(self.estimator)
        if card is not None and card.certificate and self.poses:
            console.print("These weights are imported: their scores are peak heights, not probabilities.")
        lines: list[str] = []
        if self.whole:
            lines.append(
                f"No boxes were given for {listed(self.whole)}: each such image was treated as one {noun} filling it. "
                "Give boxes with --box x0,y0,x1,y1, or weights that find boxes with --detector."
                + (
                    f" Poses marked 'whole?' have a low score ({listed(self.unsure)}): the {noun} may be small, cut "
                    "off or absent."
                    if self.unsure
                    else ""
                )
            )
        if self.without:
            lines.append(
                f"In {self.without:,} of the given boxes these weights found nobody; all their keypoints have score 0."
            )
        lines += self.outside[:MOST_SENTENCES]
        if len(self.outside) > MOST_SENTENCES:
            lines.append(f"{len(self.outside) - MOST_SENTENCES:,} more boxes lie mostly outside their images.")
        if self.several:
            lines.append(f"Only the first frame or page was read of images that have several: {listed(self.several)}.")
        lines += level_notes(self.levels)
        if self.characters and self.font is None:
            lines.append(
                "No installed font has the characters, so only boxes are drawn. In Debian, fonts-klee has them."
            )
        if self.larger:
            lines.append(
                f"enlarged so that the names are readable: {listed(self.larger)}. poses.json is in original pixels."
            )
        if self.smaller:
            lines.append(f"too large to draw at full size: {listed(self.smaller)}. poses.json is in original pixels.")
        for line in lines:
            console.print(line, markup=False)
