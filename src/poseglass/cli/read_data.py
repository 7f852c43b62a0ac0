"""What ``look``, ``evaluate`` and ``check`` share: a path and the name of a format become a dataset."""

import inspect
from pathlib import Path

from poseglass.core.sample import Dataset
from poseglass.core.table import lookup
from poseglass.datasets import DATASETS

FORMATS = {name: reader for name, reader in DATASETS.items() if name != "synthetic"}
"""Readers of files; drawn people have no path."""


def read_data(path: Path, format: str, images: Path | None = None) -> Dataset:
    """Read a dataset.

    Raises:
        LookupError: No such format; the nearest is named.
        FileNotFoundError: No such path.
        ValueError: ``images`` for a format that takes none, or the reader's own words.
    """
    reader = lookup(FORMATS, format, kind="format")
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}. It is relative to {Path.cwd()}.")
    if images is None:
        return reader(path)
    if "images" not in inspect.signature(reader).parameters:
        raise ValueError(f"--images does not go with --format {format}: its pictures are at the path itself.")
    return reader(path, images=images)
