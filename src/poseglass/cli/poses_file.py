"""``poses.json`` and ``poses_coco.json``: the predicted poses, for evaluation and for other programs.

``poses.json`` is a list in COCO's result format, which ``loadRes`` of ``pycocotools`` and ``poseglass evaluate
--detections`` read. A record has ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score`` (the mean
of its keypoint scores, times the score of its box if that was found), and

- ``keypoints``: x, y, v of each keypoint in image pixels. v is COCO's visibility flag, not a score: 2 for a keypoint
  with coordinates, 0 without. If the network predicts visibility, 1 is occluded and 0 is not in the image.
- ``keypoint_scores``: in [0, 1], in the same order.
- ``visibility``: if the network predicts it, "visible", "occluded" or "absent" (not in the image) for each keypoint, in
  the same order; null for a keypoint without coordinates. An absent keypoint keeps its coordinates and its score.
- ``keypoint_probabilities``: if the weights are calibrated, how often such a keypoint is right, in the same order.
- ``keypoint_radii_px``: if the weights are calibrated, the radius in image pixels that covers 90 % of such keypoints,
  or the share that was asked for when they were calibrated; in the same order.
- ``number``: of the person in its image, from 1, as drawn in the annotated image.
- ``file_name``: path of the image.
- ``box_score``: in [0, 1], if the box was found by a detector or one-stage weights.
- ``box_probability``: if the detector is calibrated, how often such a box is a person's.
- ``whole_image``: true if no box was given, so that the image was treated as one instance filling it.
- ``box_3d``: if the weights find boxes in space, ``center_mm`` (x right, y down, z away), ``length_mm``, ``height_mm``,
  ``width_mm`` and ``yaw`` (radians about the y axis; 0 looks along x) in the frame of the camera.
- ``keypoints_3d``: with ``predict --lift``, x, y and z of each keypoint of the lifter by name, in millimetres relative
  to the pelvis: x right, y down, z away from the camera. null if too few keypoints were found to lift the person.
- ``spread_3d_mm``: how far the lifter expects each of them to be from the truth, by name.
- ``lift_residual``: how far the found keypoints are from the 3D pose as a weak perspective camera sees it, as a share
  of the person's size in the image. null if all found keypoints coincide, which fits any pose: do not trust it.
- ``lift_critic``: what RepNet's critic says of the pose, lower for poses like real ones; only with such a lifter.
- ``doubtful``: true if such a pose has a low score: the instance may be small in the image, cut off, or absent.

``poses_coco.json`` holds the same poses as an object with ``images``, ``annotations`` and ``categories``, like COCO
labels: the category contains the keypoint names and the skeleton, and labelling programs and ``poseglass look`` can
open it. File names are relative to its folder.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.boxes import area
from poseglass.core.instances import VISIBILITY_WORDS, Instances
from poseglass.core.skeleton import Skeleton

_PERSON = {"left_wrist", "right_wrist", "left_ankle", "right_ankle", "left_hip", "right_hip"}


@dataclass(frozen=True, slots=True)
class Least:
    """Which keypoints are drawn and counted as found.

    Args:
        score: Lowest score.
        probability: Lowest calibrated probability; None asks for none.
    """

    score: float = 0.3
    probability: float | None = None

    def __str__(self) -> str:
        if self.probability is None:
            return f"a score of at least {self.score:g}"
        return f"a probability of at least {self.probability:g}"

    def of(self, people: Instances) -> Instances:
        """Return the people without keypoints of a lower probability."""
        return people if self.probability is None else people.likely(self.probability)


DRAWN = Least()
"""Which keypoints are drawn by default."""


def noun_of(skeleton: Skeleton) -> str:
    """Return the noun for an instance: "person" if it has wrists, hips and ankles, else "instance"."""
    return "person" if set(skeleton.keypoints) >= _PERSON else "instance"


def result_records(
    people: Instances,
    image_id: int | str,
    category_id: int,
    file_name: str,
    *,
    whole_image: bool = False,
    doubtful: bool = False,
    found_boxes: bool = False,
) -> list[dict[str, Any]]:
    """Return the records of one image for ``poses.json``."""
    more: dict[str, Any] = {"file_name": file_name}
    if whole_image:
        more["whole_image"] = True
    if doubtful:
        more["doubtful"] = True
    records = [
        record | {"number": row + 1} | more
        for row, record in enumerate(people.to_coco(image_id=image_id, category_id=category_id))
    ]
    if people.visibility is not None:
        for record, words in zip(records, people.visibility_words, strict=True):
            record["visibility"] = words
    if people.box_3d is not None:
        for row, record in enumerate(records):
            if np.isfinite(people.box_3d[row]).all():
                record["box_3d"] = people.named_box_3d(row)
    more_of: dict[str, tuple[np.ndarray | None, int]] = {
        "keypoint_probabilities": (people.probability, 4),
        "keypoint_radii_px": (people.keypoint_extra.get("radius_px"), 2),
        "box_probability": (people.extra.get("box_probability") if found_boxes else None, 4),
    }
    for key, (values, digits) in more_of.items():
        for record, row in zip(records, () if values is None else values.astype(float), strict=values is not None):
            record[key] = np.round(row, digits).tolist()
    if found_boxes:
        for record, score in zip(records, people.box_score.tolist(), strict=True):
            record["box_score"] = round(score, 4)
    return records


Entry = tuple[dict[str, Any], list[dict[str, Any]]]
"""An image, with ``id``, ``file_name``, ``width`` and ``height``, and its records."""


def results_chunks(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield ``poses.json`` in pieces, a record on each line."""
    before = b"["
    for _, records in entries:
        for record in records:
            yield before + b"\n" + json.dumps(record).encode()
            before = b","
    yield b"[]\n" if before == b"[" else b"\n]\n"


def coco_chunks(skeleton: Skeleton, entries: Callable[[], Iterable[Entry]], out: Path) -> Iterator[bytes]:
    """Yield ``poses_coco.json`` in pieces, an image or annotation on each line.

    Args:
        skeleton: Skeleton of every pose.
        entries: Returns the images with their records; called twice, so that they need not be in memory.
        out: The folder that file names are relative to.
    """
    out = out.resolve()
    before = b'{"images": ['
    for image, _ in entries():
        seen = image | {"file_name": _seen_from(out, image["file_name"])}
        yield before + b"\n" + json.dumps(seen).encode()
        before = b","
    yield (before if before != b"," else b"") + b'],\n"annotations": ['
    number = 0
    used: dict[int, str] = {}
    for _, records in entries():
        for record in records:
            number += 1
            used[record["category_id"]] = record.get("category", noun_of(skeleton))
            yield (b",\n" if number > 1 else b"\n") + json.dumps(_annotation(record, number)).encode()
    bones = [[int(a) + 1, int(b) + 1] for a, b in skeleton.bone_indices]
    category: dict[str, Any] = {
        "keypoints": list(skeleton.keypoints), "skeleton": bones,
    }  # fmt: skip
    if skeleton.flip_pairs is not None:
        category["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
    named = used or {1: noun_of(skeleton)}
    categories = [{"id": key, "name": named[key]} | category for key in sorted(named)]
    yield b'],\n"categories": ' + json.dumps(categories).encode() + b"}\n"


def _annotation(record: dict[str, Any], number: int) -> dict[str, Any]:
    x, y, width, height = record["bbox"]
    flags = record["keypoints"][2::3]
    box_area = float(area([x, y, x + width, y + height]))  # type: ignore[arg-type]
    return {key: value for key, value in record.items() if key != "file_name"} | {
        "id": number, "iscrowd": 0, "num_keypoints": sum(v > 0 for v in flags), "area": round(box_area, 2),
    }  # fmt: skip


def _seen_from(out: Path, file_name: str) -> str:
    """Return a path relative to the resolved folder ``out``."""
    path = Path(file_name)
    if not path.exists():
        return file_name
    try:
        return Path(os.path.relpath(path.resolve(), out)).as_posix()
    except ValueError:  # another drive on Windows
        return path.resolve().as_posix()


def people_of(skeleton: Skeleton, records: list[dict[str, Any]], *, projection: np.ndarray | None = None) -> Instances:
    """Return the instances of one image from its records; boxes of whole images are not drawn, so they have none.

    Args:
        skeleton: Of the records.
        records: As ``result_records`` returns them.
        projection: The calibration of the image, ``(3, 4)``, with which boxes in space are returned.
    """
    if not records:
        return Instances.empty(skeleton)
    flat = np.array([record["keypoints"] for record in records], np.float32).reshape(len(records), len(skeleton), 3)
    score = np.array([record["keypoint_scores"] for record in records], np.float32).reshape(flat.shape[:2])
    box_xywh = np.array([record["bbox"] for record in records], np.float32)
    box_xyxy = np.concatenate([box_xywh[:, :2], box_xywh[:, :2] + box_xywh[:, 2:]], 1)
    box_xyxy[[bool(record.get("whole_image")) for record in records]] = np.nan
    xy = np.where((score > 0)[..., None], flat[..., :2], np.nan)
    box_score = np.array([record.get("box_score", 1.0) for record in records], np.float32)
    words = [record.get("visibility") for record in records]
    visibility = None
    if all(row is not None for row in words):
        numbers: dict[str | None, int] = {word: number for number, word in enumerate(VISIBILITY_WORDS)}
        visibility = np.array([[numbers.get(word, 0) for word in row or ()] for row in words], np.int64)
    chances = [record.get("keypoint_probabilities") for record in records]
    probability = None if any(row is None for row in chances) else np.array(chances, np.float32)
    label = np.array([record["category_id"] - 1 if "category" in record else 0 for record in records], np.int64)
    people = Instances(
        skeleton, xy, score, box_xyxy, box_score, label, visibility=visibility, probability=probability
    )  # fmt: skip
    if projection is None or not any("box_3d" in record for record in records):
        return people
    box_3d = np.array([_box_3d(record.get("box_3d")) for record in records], np.float32)
    return replace(people, box_3d=box_3d, projection=np.broadcast_to(projection, (len(records), 3, 4)))


def _box_3d(named: dict[str, Any] | None) -> list[float]:
    """Return the numbers of a box in space, as ``Instances.box_3d`` has them, from their names; NaN without one."""
    if named is None:
        return [float("nan")] * 7
    return [*named["center_mm"], named["length_mm"], named["height_mm"], named["width_mm"], named["yaw"]]
