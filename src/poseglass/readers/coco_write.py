"""Write COCO keypoint JSON, so that any data set that can be read can be converted."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.boxes import area as box_area
from poseglass.core.boxes import xyxy_to_xywh
from poseglass.core.files import write_bytes
from poseglass.core.image import write_image
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton


def write_coco(
    dataset: Dataset,
    path: str | Path,
    *,
    category: str = "person",
    write_images: bool = False,
) -> None:
    """Write a dataset as COCO keypoint JSON that ``coco(path)`` and other programs can read.

    Sigmas go into the category as "sigmas", and flip pairs that do not follow from left and right in the names as
    "flip_pairs"; other programs ignore both. "head_px" and "torso_px" go into the annotations. Categories (all
    instances become one), tracks, millimetres and scores between 0 and 1 (a keypoint is labelled or not) are lost.
    Image names are relative to the folder where ``coco`` looks: ``images`` beside the JSON if there is one, else the
    JSON's own.
    own.

    Args:
        dataset: Any dataset; image sizes that it does not state are read from the files, if they exist.
        path: Path of the JSON file to write.
        category: Name of the category.
        write_images: Also write each image as PNG into ``images`` beside the JSON, for synthetic datasets or to get a
            self-contained copy.

    Raises:
        OSError: The folder is missing, full or not writable.
    """
    path = Path(path)
    if write_images:
        (path.parent / "images").mkdir(exist_ok=True)
    folder = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    image_ids = getattr(dataset, "image_ids", None) or tuple(range(1, len(dataset) + 1))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(len(dataset)):
        record: dict[str, Any] = {"id": int(image_ids[i])}
        if write_images:
            image = dataset.image(i)
            record["file_name"] = f"{image_ids[i]:012d}.png"
            record["height"], record["width"] = image.shape[:2]
            write_image(folder / record["file_name"], image)
        else:
            record["file_name"] = Path(os.path.relpath(dataset.source(i), folder)).as_posix()
            size = _size_wh(dataset, i)
            if size is not None:
                record["width"], record["height"] = size
        images.append(record)
        annotations += _annotations(dataset.instances(i), int(image_ids[i]))
    ids = [a.get("id") for a in annotations]
    if None in ids or len(set(ids)) != len(ids):
        for number, annotation in enumerate(annotations):
            annotation["id"] = number + 1
    document = {
        "info": {"description": f"{getattr(dataset, 'name', 'dataset')}, written by poseglass"},
        "images": images,
        "annotations": annotations,
        "categories": [_category(dataset.skeleton, category)],
    }
    write_bytes(path, json.dumps(document, allow_nan=False, separators=(",", ":")).encode())


def _size_wh(dataset: Dataset, index: int) -> tuple[int, int] | None:
    size_wh = getattr(dataset, "size_wh", None)
    if size_wh is None:
        height, width = dataset.image(index).shape[:2]
        return width, height
    try:
        return size_wh(index)
    except (FileNotFoundError, ValueError):
        return None


def _category(skeleton: Skeleton, name: str) -> dict[str, Any]:
    record: dict[str, Any] = {"id": 1, "name": name, "keypoints": list(skeleton.keypoints)}
    record["skeleton"] = [[int(a) + 1, int(b) + 1] for a, b in skeleton.bone_indices]
    if skeleton.flip_pairs is not None:
        record["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
    if skeleton.sigmas:
        record["sigmas"] = list(skeleton.sigmas)
    return record


def _annotations(people: Instances, image_id: int) -> list[dict[str, Any]]:
    known = people.known
    hidden = np.asarray(people.keypoint_extra.get("occluded", np.zeros(known.shape, bool)), dtype=bool)
    v = np.where(known, np.where(hidden, 1, 2), 0)
    crowd = people.extra.get("crowd", np.zeros(len(people), bool))
    areas = people.extra.get("area", box_area(people.box_xyxy))
    records = []
    for n in range(len(people)):
        flat: list[float] = []
        for (x, y), seen in zip(people.xy[n], v[n], strict=True):
            flat += [_plain(x), _plain(y), int(seen)] if seen else [0, 0, 0]
        record: dict[str, Any] = {
            "image_id": image_id,
            "category_id": 1,
            "iscrowd": int(crowd[n]),
            "num_keypoints": int(known[n].sum()),
            "keypoints": flat,
        }
        if np.isfinite(people.box_xyxy[n]).all():
            record["bbox"] = [_plain(value) for value in xyxy_to_xywh(people.box_xyxy[n].astype(np.float64))]
        if np.isfinite(areas[n]):
            record["area"] = _plain(areas[n])
        for field in ("head_px", "torso_px"):
            if field in people.extra and np.isfinite(people.extra[field][n]):
                record[field] = _plain(people.extra[field][n])
        if "annotation_id" in people.extra:
            record["id"] = int(people.extra["annotation_id"][n])
        records.append(record)
    return records


def _plain(value: np.floating) -> float:
    """Return the shortest decimal that converts back to the same float32."""
    return float(str(np.float32(value)))
