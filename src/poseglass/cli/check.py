"""``poseglass check DATA``: audits labels, with a table, an HTML page of the worst findings, and an exit status."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from poseglass.audit.audit import DEFAULT_SURE, Audit, audit
from poseglass.audit.labels import Labels, labels_of, read_coco_leniently
from poseglass.audit.page import write_csv, write_page
from poseglass.cli.read_data import FORMATS, OVERRIDES, data_options, read_data
from poseglass.cli.screen import in_commands
from poseglass.core.files import write_bytes
from poseglass.core.table import counted, nearest

FOUND, UNREADABLE, UNJUDGED = 1, 2, 3
"""Exit status if something was found, if the labels could not be read, and if nothing was found but there were too few
people to judge left and right; 0 if nothing was found."""


SIDES = "swapped-sides"
"""Value of --ignore that also ignores that left and right could not be judged."""


def check(
    data: Annotated[Path, typer.Argument(help="A COCO keypoint JSON file, or the path of a dataset in --format.")],
    format: Annotated[
        str, typer.Option("--format", help=f"Format of DATA: {', '.join(sorted({'coco', *FORMATS}))}.")
    ] = "coco",
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images. Default: next to the labels.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Another dataset in the same format: report images that are in both."),
    ] = None,
    against_images: Annotated[
        Path | None, typer.Option("--against-images", help="Folder of the images of --against.")
    ] = None,
    flip_idx: Annotated[
        str,
        typer.Option("--flip-idx", help="Test this flip order of the keypoints, as in YOLO, such as 0,2,1,4,3."),
    ] = "",
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write an .html page with images of the worst findings, for offline use."),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write all findings to a .csv file.")] = None,
    worst: Annotated[int, typer.Option("--worst", min=0, help="Largest number of images on the page.")] = 120,
    sure: Annotated[
        float, typer.Option("--sure", min=0.01, max=1.0, help="Lowest probability of a statistical finding to report.")
    ] = DEFAULT_SURE,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="A kind of finding not to report. May be repeated.")
    ] = None,
    skip_images: Annotated[
        bool, typer.Option("--skip-images", help="Check only the labels, without reading the images.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the critic that learns from the labels.")] = 0,
    overrides: OVERRIDES = None,
) -> None:
    """Audit labels: swapped sides, wrong flip pairs, visibility, positions, boxes, bones, duplicates, images.

    Exit status: 0 if nothing was found, 1 if something was found, 2 if the labels could not be read.

    It is 3 if nothing was found but there are too few people to judge left and right (0 with --ignore swapped-sides).
    """
    console, aside = Console(), Console(stderr=True)
    try:
        for path, suffix in ((report, ".html"), (csv, ".csv")):
            if path is not None and not path.parent.is_dir():
                raise FileNotFoundError(f"Cannot write {path}: no folder {path.parent}. Create it first.")
            if path is not None and path.suffix.lower() != suffix:
                raise ValueError(
                    f"--{'report' if suffix == '.html' else 'csv'} must end in {suffix}, got {path.name!r}."
                )
        if against is not None and skip_images:
            raise ValueError("--against compares images, so it cannot be used with --skip-images. Omit one of them.")
        options = data_options(overrides)
        labels = _read(data, format, images, _order(flip_idx), options)
        other = _read(against, format, against_images, None, options) if against is not None else None
        with aside.status("") as status:
            result = audit(
                labels, sure=sure, read_images=not skip_images, against=other, seed=seed,
                ignore=tuple(kind for kind in ignore or () if kind != SIDES),
                progress=lambda text: status.update(escape(text)),
            )  # fmt: skip
            if report is not None:
                status.update("drawing the worst findings")
                write_bytes(report, write_page(result, worst=worst).encode())
            if csv is not None:
                write_bytes(csv, write_csv(result).encode())
    except (OSError, ValueError, LookupError) as error:
        text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
        print(f"poseglass check: {text}", file=sys.stderr)
        raise typer.Exit(UNREADABLE) from None
    print_audit(result, console)
    for path in (report, csv):
        if path is not None:
            console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    if result.findings:
        raise typer.Exit(FOUND)
    if result.unjudged and SIDES not in (ignore or ()):
        raise typer.Exit(UNJUDGED)


def print_audit(result: Audit, console: Console) -> None:
    """Print the table of kinds, the notes and a summary line."""
    summary = result.summary()
    if summary:
        table = Table(header_style="bold")
        table.add_column("kind", no_wrap=True)
        table.add_column("count", justify="right")
        table.add_column("share", justify="right")
        table.add_column("finds", justify="right")
        table.add_column("worst example", overflow="fold", ratio=1)
        for line in summary:
            power = "" if line.power is None else f"{line.power:.0%}"
            example = ""
            if line.worst is not None:
                annotation = f" #{line.worst.annotation}" if line.worst.annotation is not None else ""
                place = f"{line.worst.image}{annotation}: " if line.worst.image else ""
                example = f"[dim]{escape(place)}[/dim]{escape(line.worst.text)}"
            color = "" if line.worst is None else ("red" if line.worst.severity == "error" else "yellow")
            name = f"[{color}]{line.kind}[/{color}]" if color else line.kind
            table.add_row(name, f"{line.count:,}", f"{line.share:.1%}" if line.count else "", power, example)
        console.print(table)
        if result.power:
            console.print(
                "[dim]finds: share of errors of this kind that were found after planting them in these labels[/dim]"
            )
    for note in result.notes:
        console.print(f"note: {escape(in_commands(note))}", soft_wrap=True, highlight=False)
    total = sum(f.count for f in result.findings)
    people, images = result.labels.num_people, len(result.labels.image_files)
    if result.unjudged and not result.findings:
        console.print(
            "Nothing was found, but there are too few annotations to judge left and right with any certainty: exit "
            "status 3 (--ignore swapped-sides makes it 0).",
            soft_wrap=True, highlight=False,
        )  # fmt: skip
    console.print(
        f"{escape(result.labels.name)}: {counted(people, 'annotation')} in {counted(images, 'image')}, "
        f"{counted(total, 'finding')}.",
        highlight=False,
    )


def _order(flip_idx: str) -> tuple[int, ...] | None:
    if not flip_idx.strip():
        return None
    try:
        return tuple(int(part) for part in flip_idx.strip(" []()").split(","))
    except ValueError:
        raise ValueError(f"--flip-idx must be integers separated by commas, such as 0,2,1; got {flip_idx!r}.") from None


def _read(
    path: Path, format: str, images: Path | None, flip: tuple[int, ...] | None, options: dict[str, Any]
) -> Labels:
    if format == "coco":
        known = set(inspect.signature(read_coco_leniently).parameters) - {"path", "images", "flip"}
        for name in options:
            if name not in known:
                raise ValueError(
                    f"--set data.{name}: check has no option {name!r}.{nearest(name, known)} Known: "
                    f"{', '.join(sorted(known))}."
                )
        return read_coco_leniently(path, images=images, flip=flip, **options)
    if flip is not None:
        raise ValueError("--flip-idx is only for COCO files; other formats define their keypoints.")
    return labels_of(read_data(path, format, images, options), path.name)
