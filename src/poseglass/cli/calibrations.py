"""Finds the calibration of the camera of each image, for weights that find boxes in space."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from poseglass.cli.given_boxes import GivenImage
from poseglass.readers.kitti import read_calibration

FORMAT = "a text file with a line 'P2: ' and 12 numbers, as KITTI's, or with the 12 numbers alone"
"""What a calibration is."""


def with_calibrations(given: Sequence[GivenImage], calibration: Path | None) -> list[GivenImage]:
    """Return images with the calibrations of their cameras; those without stay without.

    Args:
        given: The images.
        calibration: A file for all images, or a folder with a file for each, named as the image; None looks beside each
            image for a text file of its name, and then in a folder ``calib`` beside the image's folder, as KITTI's is.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: A calibration is invalid.
    """
    if calibration is not None and not calibration.exists():
        raise FileNotFoundError(
            f"No such calibration: {calibration}. --calibration takes {FORMAT}, or a folder of them."
        )
    if calibration is not None and not calibration.is_dir():
        projection = read_calibration(calibration)
        return [replace(one, projection=projection) for one in given]
    found = []
    for one in given:
        file = next((path for path in places(one.path, calibration) if path.is_file()), None)
        found.append(one if file is None else replace(one, projection=read_calibration(file)))
    return found


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
