"""Finds the calibration of the camera of each image, for weights that find boxes in space."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from poseglass.cli.given_boxes import GivenImage
from poseglass.readers.kitti import read_calibration

FORMAT = "a text file with a line 'P2: ' and 12 numbers, as KITTI's, or with the 12 numbers alone"
"""What a calibration is."""


def with_calibrations(given: Sequence[GivenImage], calibration: Path | None) -> tuple[list[GivenImage], list[str]]:
    """Return images with the calibrations of their cameras, those without stay without; and what is to be said.

    Args:
        given: The images.
        calibration: A file for all images, or a folder with a file for each, named as the image; None looks beside each
            image for a text file of its name, and then in a folder ``calib`` beside the image's folder, as KITTI's is.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: A calibration is invalid. A text file beside an image that was not asked for may be something else,
            such as labels: then it is named in what is to be said, and not used.
    """
    if calibration is not None and not calibration.exists():
        raise FileNotFoundError(
            f"No such calibration: {calibration}. --calibration takes {FORMAT}, or a folder of them."
        )
    if calibration is not None and not calibration.is_dir():
        projection = read_calibration(calibration)
        return [replace(one, projection=projection) for one in given], []
    found, others = [], []
    for one in given:
        projection = None
        for file in places(one.path, calibration):
            if projection is None and file.is_file():
                try:
                    projection = read_calibration(file)
                except ValueError as error:
                    if calibration is not None:
                        raise
                    others.append(str(error))
        found.append(one if projection is None else replace(one, projection=projection))
    if not others:
        return found, []
    many = f"{len(others):,} text files beside images are" if len(others) > 1 else "A text file beside an image is"
    return found, [f"{many} no calibration and not used. {others[0]}"]


def places(image: Path, folder: Path | None) -> list[Path]:
    """Return where the calibration of an image may be."""
    name = f"{image.stem}.txt"
    return [image.with_name(name), image.parent.parent / "calib" / name] if folder is None else [folder / name]


def uncalibrated(image: str) -> str:
    """Return what is said of an image without a calibration."""
    return (
        f"{image}: there is no calibration of its camera, which boxes in space need. Give --calibration FILE, "
        f"{FORMAT}; or put {Path(image).stem}.txt beside the image."
    )
