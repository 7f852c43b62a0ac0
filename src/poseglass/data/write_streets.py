"""Write rendered streets to a folder in KITTI's layout: to train on them many times, or to try what reads KITTI.

    python -m poseglass.data.write_streets data/streets --count 2000
    python -m poseglass.data.write_streets data/streets-val --count 100 --seed 1
    python -m poseglass.data.write_streets data/large-streets --count 2000 --width 576

Rendering a street takes several times as long as reading it. Boxes in the image are rounded to 0.01 px, lengths to
0.1 mm. What is hidden or too small becomes a region without a class or a box in space. Streets of another seed have
nothing in common with these. Wider images show the same scenes; the limit of what is too small is the same number of
pixels.
"""

import argparse
from pathlib import Path

import cv2

from poseglass.core.files import write_bytes
from poseglass.readers.kitti import write_calibration, write_labels
from poseglass.synthetic.streets import CLASSES, SIZE_WH, Streets, streets_of_width


def write_streets(data: Streets, folder: Path) -> None:
    """Write the pictures, labels and calibrations of streets as ``image_2``, ``label_2`` and ``calib``.

    Args:
        data: The streets.
        folder: Created if it is not there.

    Raises:
        FileExistsError: The folder has pictures, labels or calibrations already.
        OSError: The folder is not writable, or the disk is full.
    """
    parts = [folder / name for name in ("image_2", "label_2", "calib")]
    for part in parts:
        if part.is_dir() and any(part.iterdir()):
            raise FileExistsError(f"{part} has files already. Give another folder, or remove this one.")
    for part in parts:
        part.mkdir(parents=True, exist_ok=True)
    for index in range(len(data)):
        _, png = cv2.imencode(".png", data.image(index)[..., ::-1])
        write_bytes(folder / "image_2" / f"{index:06d}.png", png.tobytes())
        write_calibration(folder / "calib" / f"{index:06d}.txt", data.projection(index))
        write_labels(folder / "label_2" / f"{index:06d}.txt", data.instances(index), classes=CLASSES)


def main() -> None:
    """Write streets from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m poseglass.data.write_streets", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=2000, help="number of streets (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--width", type=int, default=SIZE_WH[0],
        help=f"width of the pictures, which are a third as high and show the same scenes (default: {SIZE_WH[0]})",
    )  # fmt: skip
    given = parser.parse_args()
    try:
        data = streets_of_width(given.count, given.seed, given.width)
        write_streets(data, given.folder)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f'{given.count:,} streets written to {given.folder}; read them with name = "kitti".')


if __name__ == "__main__":
    main()
