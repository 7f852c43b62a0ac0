"""``poses.json`` and ``poses_coco.json``: the predicted poses, for evaluation and for other programs.

``poses.json`` is a list in COCO's result format, which ``loadRes`` of ``pycocotools`` and ``poseglass evaluate
--detections`` read. A record has ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score`` (the mean
of its keypoint scores), and

- ``keypoints``: x, y, v of each keypoint in image pixels. v is COCO's visibility flag, not a score: 2 for a keypoint
  with coordinates, 0 without. If the network predicts visibility, 1 is occluded and 0 is not in the image.
- ``keypoint_scores``: in [0, 1], in the same order.
- ``file_name``: path of the image.
- ``whole_image``: true if no box was given, so that the image was treated as one instance filling it.
- ``doubtful``: true if such a pose has a low score: the instance may be small in the image, cut off, or absent.

``poses_coco.json`` holds the same poses as an object with ``images``, ``annotations`` and ``categories``, like COCO
labels: the category contains the keypoint names and the skeleton, and labelling programs and ``poseglass look`` can
open it. File names are relative to its folder.
"""

import os
from pathlib import Path
from typing import Any

from poseglass.core.boxes import area
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton

_PERSON = {"left_wrist", "right_wrist", "left_ankle", "right_ankle", "left_hip", "right_hip"}


def noun_of(skeleton: Skeleton) -> str:
    """Return the noun for an instance: "person" if it has wrists, hips and ankles, else "instance"."""
    return "person" if set(skeleton.keypoints) >= _PERSON else "instance"


def result_records(
    people: Instances, image_id: int | str, category_id: int, file_name: str, *, whole_image: bool, doubtful: bool
) -> list[dict[str, Any]]:
    """Return the records of one image for ``poses.json``."""
    more: dict[str, Any] = {"file_name": file_name}
    if whole_image:
        more["whole_image"] = True
    if doubtful:
        more["doubtful"] = True
    return [record | more for record in people.to_coco(image_id=image_id, category_id=category_id)]


def coco_document(
    skeleton: Skeleton, images: list[dict[str, Any]], records: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Return all poses as an object with images, annotations and categories.

    Args:
        skeleton: Skeleton of every pose.
        images: ``id``, ``file_name``, ``width`` and ``height`` of each image.
        records: Records of ``poses.json``.
        out: The folder that file names are relative to.
    """
    annotations = []
    for number, record in enumerate(records):
        x, y, width, height = record["bbox"]
        annotation = {key: value for key, value in record.items() if key != "file_name"}
        flags = record["keypoints"][2::3]
        box_area = float(area([x, y, x + width, y + height]))  # type: ignore[arg-type]
        annotation |= {
            "id": number + 1, "iscrowd": 0, "num_keypoints": sum(v > 0 for v in flags), "area": round(box_area, 2),
        }  # fmt: skip
        annotations.append(annotation)
    bones = [[int(a) + 1, int(b) + 1] for a, b in skeleton.bone_indices]
    category: dict[str, Any] = {
        "name": noun_of(skeleton), "keypoints": list(skeleton.keypoints), "skeleton": bones,
    }  # fmt: skip
    if skeleton.flip_pairs is not None:
        category["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
    categories = [{"id": key} | category for key in sorted({record["category_id"] for record in records} or {1})]
    seen_from = [image | {"file_name": _seen_from(out, image["file_name"])} for image in images]
    return {"images": seen_from, "annotations": annotations, "categories": categories}


def _seen_from(out: Path, file_name: str) -> str:
    path = Path(file_name)
    if not path.exists():
        return file_name
    try:
        return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return path.resolve().as_posix()
