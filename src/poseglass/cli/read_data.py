"""What ``look``, ``evaluate`` and ``check`` share: a path and the name of a format become a dataset."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from poseglass.cli.screen import in_commands
from poseglass.core.sample import Dataset
from poseglass.core.table import lookup
from poseglass.readers import READERS
from poseglass.readers.notes import notes_of
from poseglass.runs.build import make
from poseglass.runs.recipe import apply_override

FORMATS = READERS
"""Readers of files; synthetic people have no path."""

OVERRIDES = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help='An option of the data set: --set data.box_format=xyxy, --set \'data.flip_pairs=[["a", "b"]]\'. May be '
        "repeated.",
    ),
]
"""The option --set of commands that take options of the data set alone."""


def data_options(overrides: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of a data set from what --set gives.

    Raises:
        ValueError: It is no ``data.KEY=VALUE``, or names the format.
    """
    options: dict[str, Any] = {}
    for override in overrides or ():
        if not override.startswith("data."):
            raise ValueError(f"--set takes data.KEY=VALUE; got {override!r}.")
        key = override.removeprefix("data.")
        if key.partition("=")[0].strip() == "name":
            raise ValueError(f"--set {override!r}: which one it is says --format.")
        apply_override(options, key)
    return options


def say_notes(dataset: Dataset, console: Console, *, mirroring: bool = True) -> None:
    """Print what is to be known of a data set, a line each; see ``readers.notes_of``."""
    for note in notes_of(dataset, mirroring=mirroring):
        console.print(f"note: {in_commands(note)}", soft_wrap=True, highlight=False, markup=False)


def read_data(path: Path, format: str, images: Path | None = None, options: dict[str, Any] | None = None) -> Dataset:
    """Read a dataset.

    Args:
        path: Of the labels.
        format: A name of ``FORMATS``.
        images: Folder of the images, if not beside the labels.
        options: More arguments of the reader, by name.

    Raises:
        LookupError: No such format; the nearest is named.
        FileNotFoundError: No such path.
        RecipeError: An option that the reader does not take; the nearest is named.
        ValueError: ``images`` for a format that takes none, or the reader's own words.
    """
    reader = lookup(FORMATS, format, kind="format")
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}. It is relative to {Path.cwd()}.")
    parameters = inspect.signature(reader).parameters
    labels = next(iter(parameters))
    if labels in (options or {}):
        raise ValueError(f"{labels!r} is the path itself, {path}; it cannot be set besides.")
    numbers: dict[str, Any] = {labels: path, **(options or {})}
    if images is not None:
        if "images" not in parameters:
            raise ValueError(f"--images does not go with --format {format}: its images are at the path itself.")
        numbers["images"] = images
    return make(FORMATS, {"name": format, **numbers}, "dataset")
