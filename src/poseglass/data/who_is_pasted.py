"""Who of the labelled people of photographs can be pasted into scenes, and what is said about the others."""

import warnings

import numpy as np

from poseglass.core.table import counted
from poseglass.data.masks import Cutouts, mask_size_wh
from poseglass.readers.labelled import LabelledImages

SMALLEST_BOX_PX = 24
"""People whose box has no side of that many pixels are not pasted: enlarged, they would be smudges."""


def who_can_be_pasted(photos: LabelledImages) -> tuple[np.ndarray, list[str]]:
    """Return photograph and row of each person who can be pasted ``(P, 2)``, and notes on the others."""
    found: list[tuple[int, int]] = []
    small = beside = unlabelled = 0
    for photo in range(len(photos)):
        instances = photos.instances(photo)
        if not len(instances):
            continue
        size = photos.size_wh(photo)
        boxes = np.array([clipped(box, size) for box in instances.box_xyxy])
        sides = boxes[:, 2:] - boxes[:, :2]
        for row in range(len(instances)):
            if instances.extra["crowd"][row] or not instances.known[row].any():
                unlabelled += 1
                continue
            if not sides[row].max() >= SMALLEST_BOX_PX or not sides[row].min() >= 4:
                small += 1
                continue
            grown = boxes[row] + np.array([-0.25, -0.25, 0.25, 0.25]) * np.tile(sides[row], 2)
            others = np.delete(boxes, row, axis=0)
            shared = np.maximum(np.minimum(others[:, 2:], grown[2:]) - np.maximum(others[:, :2], grown[:2]), 0).prod(-1)
            if (shared > 0.03 * sides[row].prod()).any():
                beside += 1
                continue
            found.append((photo, row))
    texts = (
        (unlabelled, "a crowd or without a labelled keypoint"),
        (small, f"smaller than {SMALLEST_BOX_PX} pixels"),
        (beside, "close to another person"),
    )
    notes = [f"{counted(count, 'instance')} not pasted: {why}." for count, why in texts if count]
    return np.array(found, dtype=np.int64).reshape(-1, 2), notes


def who_stands(photos: LabelledImages, people: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return those of the people ``(P, 2)`` whose shoulders lie above their hips, and a note on the others.

    Above means by half of the distance between them at least, in the image.
    """
    names = photos.skeleton.keypoints
    ends = [[names.index(f"{side}_{joint}") for side in ("left", "right")] for joint in ("shoulder", "hip")]
    stand = np.zeros(len(people), dtype=bool)
    for number, (photo, row) in enumerate(people):
        xy = photos.instances(int(photo)).xy[int(row)]
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of joints of which neither side is labelled
            shoulders, hips = (np.nanmean(xy[end], axis=0) for end in ends)
            stand[number] = hips[1] - shoulders[1] > 0.5 * np.linalg.norm(hips - shoulders)
    lie = int((~stand).sum())
    return people[stand], [f"{counted(lie, 'instance')} not pasted: not upright, as far as labelled."] if lie else []


def with_cutouts(
    photos: LabelledImages, people: np.ndarray, cutouts: Cutouts, file: str
) -> tuple[np.ndarray, list[str]]:
    """Return those of the people ``(P, 2)`` who have a cutout, and a note on the others.

    Raises:
        ValueError: A mask has not the shape of its photograph: the file was made from other labels.
    """
    ids = [int(photos.instances(int(photo)).extra["annotation_id"][int(row)]) for photo, row in people]
    for one, (photo, _) in zip(ids, people, strict=True):
        expected = mask_size_wh(photos.size_wh(int(photo)))
        if one in cutouts and (cutouts.sizes_wh[one] != expected or not cutouts.packed[one].any()):
            raise ValueError(
                f"{file}: the mask of annotation {one} has {cutouts.sizes_wh[one][0]} x {cutouts.sizes_wh[one][1]} "
                f"pixels, but its photograph needs {expected[0]} x {expected[1]}, or it is empty. The masks are of "
                "other labels; make them again with `python -m poseglass.data.cutouts`."
            )
    have = np.array([one in cutouts for one in ids], dtype=bool)
    lack = int((~have).sum())
    return people[have], [f"{counted(lack, 'instance')} not pasted: without a cutout."] if lack else []


def clipped(box_xyxy: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Return boxes ``(..., 4)`` clipped to an image, float64."""
    edges = np.array([*size_wh, *size_wh]) - 0.5
    return np.clip(np.asarray(box_xyxy, dtype=np.float64), -0.5, edges)
