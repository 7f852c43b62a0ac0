"""What ``look``, ``evaluate`` and ``check`` share: a path and the name of a format become a dataset."""

import inspect
from pathlib import Path
from typing import Any

from poseglass.core.sample import Dataset
from poseglass.core.table import lookup
from poseglass.readers import READERS
from poseglass.runs.build import make

FORMATS = READERS
"""Readers of files; synthetic people have no path."""


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
