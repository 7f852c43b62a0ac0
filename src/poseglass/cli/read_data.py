"""Shared by ``look``, ``evaluate`` and ``check``: reads a dataset from a path and the name of a format."""

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
"""Readers of files by format. Synthetic people are not among them, because they have no path."""

OVERRIDES = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help='Set an option of the dataset: --set data.box_format=xyxy, --set \'data.flip_pairs=[["a", "b"]]\'. May be '
        "repeated.",
    ),
]
"""The option --set of commands that only have options of the dataset."""


def data_options(overrides: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of a dataset from the values of --set.

    Raises:
        ValueError: A value is not ``data.KEY=VALUE``, or sets the name of the format.
    """
    options: dict[str, Any] = {}
    for override in overrides or ():
        if not override.startswith("data."):
            raise ValueError(f"--set must be data.KEY=VALUE; got {override!r}.")
        key = override.removeprefix("data.")
        if key.partition("=")[0].strip() == "name":
            raise ValueError(f"--set {override!r}: the name is set by --format.")
        apply_override(options, key)
    return options


def say_notes(dataset: Dataset, console: Console, *, mirroring: bool = True) -> None:
    """Print the notes on a dataset, one per line; see ``readers.notes_of``."""
    for note in notes_of(dataset, mirroring=mirroring):
        console.print(f"note: {in_commands(note)}", soft_wrap=True, highlight=False, markup=False)


def read_data(path: Path, format: str, images: Path | None = None, options: dict[str, Any] | None = None) -> Dataset:
    """Read a dataset.

    Args:
        path: Path of the labels.
        format: A name of ``FORMATS``.
        images: Folder of the images, if not next to the labels.
        options: Other arguments of the reader, by name.

    Raises:
        LookupError: No such format; the nearest name is suggested.
        FileNotFoundError: No such path.
        RecipeError: An unknown option of the reader; the nearest name is suggested.
        ValueError: ``images`` is given for a format without that option, or an error of the reader.
    """
    reader = lookup(FORMATS, format, kind="format")
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}. It is relative to {Path.cwd()}.")
    parameters = inspect.signature(reader).parameters
    labels = next(iter(parameters))
    if labels in (options or {}):
        raise ValueError(f"{labels!r} is the given path, {path}; it cannot be set again.")
    numbers: dict[str, Any] = {labels: path, **(options or {})}
    if images is not None:
        if "images" not in parameters:
            raise ValueError(f"--images is not available for --format {format}: its images are at the path itself.")
        numbers["images"] = images
    return make(FORMATS, {"name": format, **numbers}, "dataset")
