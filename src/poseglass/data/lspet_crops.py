"""People cropped from the Leeds Sports Pose Extended set: ``lspet/train`` and ``lspet/val`` of ``recipes/lspet``.

    python -m poseglass.data.lspet_crops FOLDER [--out data/lspet]

FOLDER is the unpacked archive of the original set (Johnson and Everingham, CVPR 2011): ``joints.mat`` (14 x 3 x 10000)
and ``images/im00001.jpg`` to ``im10000.jpg``, people of about 150 pixels. HR-LSPET, the same people in larger images,
is another set. It writes ``train.json``, ``val.json`` (COCO keypoint format) and ``images/``.

The crops that the shipped weights were trained on are known from those crops themselves: the people
(``recipes/lspet/people.txt``), the size of the crops and the positions of the joints in them (``crop_corners``,
``annotation``; the tests compare these with all of them), and the quality of their JPEG. The original archive was not
available when this was written, so it is not known how the few crops above 256 pixels were scaled (at most 19 of
8,017), whether a pixel was subtracted from coordinates that count from 1 (as here), and whether a rebuilt image is
equal to the last bit.
"""

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from poseglass.core.files import write_bytes
from poseglass.core.image import read_image
from poseglass.core.skeletons import LSP14
from poseglass.readers.lsp import lsp

PEOPLE = Path(__file__).parents[1] / "recipes" / "lspet" / "people.txt"

CROP_OVER_EXTENT = 1.5
"""Side of a crop over the larger side of the joints' extent."""

LARGEST_PX = 256
BOX_MARGIN = 0.1
"""Margin added to a box on every side, relative to the larger side of the joints' extent."""

AREA_OVER_BOX = 0.53
"""Mean area of the segments of COCO's people over that of their boxes; there are no segments here."""

EXTENT_PX = 119
"""Median of the larger side of the joints' extent, pixels, in the original set."""

JPEG_QUALITY = 85
EXPECTED = {"train": (165.836, 168.150, 94916), "val": (165.05, 166.628, 6333)}
"""Mean width and height of the crops that the shipped weights were trained on, pixels, and labelled joints."""


def people(path: Path = PEOPLE) -> dict[str, list[int]]:
    """Return the image numbers, from 1, of the two sets ``{"train": [...], "val": [...]}``, ascending.

    Raises:
        ValueError: The file has something other than ``[name]``, numbers, ranges and comments.
    """
    sets: dict[str, list[int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        heading = re.fullmatch(r"\[(\w+)\]", line)
        if heading:
            sets[heading[1]] = []
        elif line and not line.startswith("#"):
            for word in line.split():
                ends = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
                if ends is None or not sets:
                    raise ValueError(f"{path}, line {number}: expected numbers and ranges after [name], got {word!r}.")
                list(sets.values())[-1].extend(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return sets


def crop_corners(xy: np.ndarray, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return ``(left, top, right, bottom)`` of a person's crop: a square about the middle of the joints' extent.

    Its side is 1.5 times the larger side of the extent, its corners are rounded outwards, and it is clipped to the
    image.

    Args:
        xy: Labelled joints ``(K, 2)``, pixels from 0.
        size_wh: Size of the image, pixels.
    """
    low, high = xy.min(0), xy.max(0)
    middle, half = (low + high) / 2, CROP_OVER_EXTENT * (high - low).max() / 2
    left, top = np.maximum(np.floor(middle - half), 0).astype(int)
    right, bottom = np.minimum(np.ceil(middle + half), size_wh).astype(int)
    return int(left), int(top), int(right), int(bottom)


def annotation(xy: np.ndarray, size_wh: tuple[int, int], number: int) -> dict[str, Any]:
    """Return a person's record in COCO's format.

    Args:
        xy: Joints ``(14, 2)`` in pixels of the crop; NaN where there is no label.
        size_wh: Size of the crop, pixels.
        number: Number of the image, and of the record.
    """
    known = np.isfinite(xy).all(-1)
    low, high = xy[known].min(0), xy[known].max(0)
    margin = BOX_MARGIN * (high - low).max()
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, size_wh)
    width, height = high - low
    keypoints: list[float] = []
    for x, y in xy.tolist():
        keypoints += [0, 0, 0] if math.isnan(x + y) else [round(x, 2), round(y, 2), 2]
    return {
        "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "num_keypoints": int(known.sum()),
        "keypoints": keypoints, "bbox": [round(float(v), 2) for v in (*low, width, height)],
        "area": round(AREA_OVER_BOX * float(width * height), 1),
    }  # fmt: skip


def write_crops(folder: Path, out: Path, sets: Mapping[str, Sequence[int]]) -> dict[str, dict[str, Any]]:
    """Crop people of the extended set, and write each set's labels and all images.

    Args:
        folder: With ``joints.mat`` and ``images``.
        out: New folder.
        sets: Image numbers, from 1, by the name of a set.

    Returns:
        The document of each set, as written.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: ``joints.mat`` or images are missing; the message gives their number.
        ValueError: Not the original extended set.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already. Choose a new folder: --out FOLDER.")
    dataset = lsp(folder / "joints.mat")
    largest = max(max(numbers) for numbers in sets.values())
    if not dataset.name.startswith("lspet") or len(dataset) < largest:
        raise ValueError(
            f"{folder / 'joints.mat'} has {len(dataset):,} people ({dataset.name}); expected those of the Leeds Sports "
            f"Pose Extended set, 14 x 3 x 10000 (at least {largest:,} people)."
        )
    chosen = sorted({number for numbers in sets.values() for number in numbers})
    missing = [dataset.paths[n - 1].name for n in chosen if not dataset.paths[n - 1].is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of {len(chosen):,} images are not in {dataset.paths[0].parent}, first {missing[0]}. "
            "Unpack the whole archive."
        )
    xy = dataset.everyone.xy.astype(np.float64)
    extent = np.array([np.ptp(one[np.isfinite(one).all(-1)], axis=0).max() for one in (xy[n - 1] for n in chosen)])
    if np.median(extent) > 1.5 * EXTENT_PX:
        raise ValueError(
            f"People in {folder} have a size of {np.median(extent):.0f} pixels; expected about {EXTENT_PX}, as in the "
            "original set. HR-LSPET, the same people in larger images, does not give these crops."
        )
    (out / "images").mkdir(parents=True)
    documents: dict[str, dict[str, Any]] = {}
    for name, numbers in sets.items():
        images, annotations = [], []
        for number in sorted(numbers):
            path, joints = dataset.paths[number - 1], xy[number - 1]
            pixels = read_image(path)
            left, top, right, bottom = crop_corners(joints[np.isfinite(joints).all(-1)], pixels.shape[1::-1])
            crop, joints = pixels[top:bottom, left:right], joints - [left, top]
            longest = max(crop.shape[:2])
            if longest > LARGEST_PX:
                factor = LARGEST_PX / longest
                size_wh = [max(round(side * factor), 1) for side in crop.shape[1::-1]]
                crop, joints = cv2.resize(crop, size_wh, interpolation=cv2.INTER_AREA), joints * factor
            size_wh = (crop.shape[1], crop.shape[0])
            ok, data = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            assert ok
            write_bytes(out / "images" / path.name, data.tobytes())
            images.append({"id": number, "file_name": path.name, "width": size_wh[0], "height": size_wh[1]})
            annotations.append(annotation(joints, size_wh, number))
        documents[name] = {
            "info": {"description": "Leeds Sports Pose Extended (Johnson and Everingham 2011), one person per crop"},
            "images": images,
            "annotations": annotations,
            "categories": [_category()],
        }
        write_bytes(out / f"{name}.json", json.dumps(documents[name]).encode())
    return documents


def _category() -> dict[str, Any]:
    bones = [[int(a) + 1, int(b) + 1] for a, b in LSP14.bone_indices]
    return {"id": 1, "name": "person", "keypoints": list(LSP14.keypoints), "skeleton": bones}


def compared(name: str, document: Mapping[str, Any]) -> str:
    """Return a line that reports whether a rebuilt set has the sizes and labels of the one used for training."""
    width, height = (float(np.mean([image[side] for image in document["images"]])) for side in ("width", "height"))
    joints = sum(one["num_keypoints"] for one in document["annotations"])
    then_width, then_height, then_joints = EXPECTED[name]
    people = f"{name}: {len(document['images']):,} people, {joints:,} joints"
    words = f"{people}, crops of {width:.2f} x {height:.2f} px on average"
    same = joints == then_joints and abs(width - then_width) < 0.1 and abs(height - then_height) < 0.1
    then = f"{then_joints:,} joints, {then_width:.2f} x {then_height:.2f} px"
    return f"{words}: {'as' if same else 'NOT as'} in the set used for training{'' if same else f' ({then})'}"


def main() -> None:
    """Write the crops that the recipes in ``recipes/lspet`` train on."""
    parser = argparse.ArgumentParser(prog="python -m poseglass.data.lspet_crops", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="The unpacked archive: joints.mat and images/.")
    parser.add_argument("--out", type=Path, default=Path("data/lspet"), help="New folder; default data/lspet.")
    arguments = parser.parse_args()
    try:
        documents = write_crops(arguments.folder, arguments.out, people())
    except (OSError, ValueError) as error:
        parser.exit(2, f"poseglass: {error}\n")
    for name, document in documents.items():
        print(compared(name, document))


if __name__ == "__main__":
    main()
