"""``poses.json`` and ``poses_coco.json``: what ``predict`` found, for evaluation and for other programs.

``poses.json`` is a list in COCO's format of results, which ``pycocotools``' ``loadRes`` and ``poseglass evaluate
--detections`` take. A record has ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score`` (the mean
of its keypoints' scores), and

- ``keypoints``: x, y, v of each keypoint in image pixels. v is COCO's flag: 2 for a keypoint with coordinates (or what
  the network says of its visibility: 1 hidden, 0 not in the image), 0 where there is none. It is no score.
- ``keypoint_scores``: in [0, 1], in the same order.
- ``file_name``: of the image.
- ``whole_image``: true where no box was given, so that the image was taken as one instance filling it;
- ``doubtful``: true where such a pose has a low score: the instance may be small in the image, cut off, or not there.

``poses_coco.json`` holds the same poses as an object with ``images``, ``annotations`` and ``categories``, as labels
have: the names of the keypoints and the skeleton stand in the category, and labelling programs (and ``poseglass look``)
open it. Names of files are as seen from the folder it lies in.
"""

import os
from pathlib import Path
from typing import Any

from poseglass.core.boxes import area
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton

_PERSON = {"left_wrist", "right_wrist", "left_ankle", "right_ankle", "left_hip", "right_hip"}


def noun_of(skeleton: Skeleton) -> str:
    """Return what an instance is called: "person" where it has wrists, hips and ankles, else "instance"."""
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
        skeleton: Of every pose.
        images: ``id``, ``file_name``, ``width`` and ``height`` of each image.
        records: As ``poses.json`` has them.
        out: The folder that names of files are seen from.
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
    categories = [
        {"id": key, "name": noun_of(skeleton), "keypoints": list(skeleton.keypoints), "skeleton": bones}
        for key in sorted({record["category_id"] for record in records} or {1})
    ]
    seen_from = [image | {"file_name": _seen_from(out, image["file_name"])} for image in images]
    return {"images": seen_from, "annotations": annotations, "categories": categories}


def _seen_from(out: Path, file_name: str) -> str:
    path = Path(file_name)
    if not path.exists():
        return file_name
    try:
        return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()
