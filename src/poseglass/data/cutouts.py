"""Cutouts: masks of labelled people, found from their keypoints, for pasting the people into other images.

    python -m poseglass.data.cutouts data/lspet/train.json --out data/lspet/cutouts.npz

A mask is found by GrabCut (Rother, Kolmogorov and Blake, "GrabCut: interactive foreground extraction using iterated
graph cuts", SIGGRAPH 2004, sections 3 and 4; OpenCV's implementation). In place of a user's strokes, the skeleton says
what belongs to the person: thin strips along the bones and the area between shoulders and hips are foreground, wide
strips around them are unknown, and everything else is background. A person whose mask misses much of the skeleton, or
fills what was unknown, is refused: a bad cutout teaches a detector the cut.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.table import counted
from poseglass.data.masks import TRUNK, Cutouts, check_trunk, mask_size_wh
from poseglass.readers.coco import coco
from poseglass.readers.labelled import LabelledImages

_HEAD = ("neck", "head_top")
_LEAST_ON_BONES = 0.9
_MOST_OF_UNKNOWN = 0.85
_LEAST_OF_UNKNOWN = 0.2


def cut_out(image: np.ndarray, person: Instances) -> np.ndarray | str:
    """Return the mask of a person in an image, or why there is none.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        person: One instance, in the image's pixels.

    Returns:
        ``(h, w)`` bool of the image reduced to ``LONGEST_PX``, or a reason: "trunk not labelled", "mask misses bones",
        "mask has no shape".

    Raises:
        ValueError: The skeleton has no trunk.
    """
    check_trunk(person.skeleton, "Cutouts need")
    names = person.skeleton.keypoints
    at = {name: point for name, point, known in zip(names, person.xy[0], person.known[0], strict=True) if known}
    trunk = _trunk(at)
    if trunk is None:
        return "trunk not labelled"
    size_wh = mask_size_wh((image.shape[1], image.shape[0]))
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    scale = np.array(size_wh) / np.array([image.shape[1], image.shape[0]])
    bones = np.array([(at[a], at[b]) for a, b in person.skeleton.bones if a in at and b in at]).reshape(-1, 2, 2)
    head = np.array([at[name] for name in _HEAD if name in at]).reshape(-1, 2)
    bones, trunk, head = ((points + 0.5) * scale - 0.5 for points in (bones, trunk, head))
    sure, possible = _seeds(bones, trunk, head, size_wh)
    labels = np.full(sure.shape, cv2.GC_BGD, np.uint8)
    labels[possible > 0] = cv2.GC_PR_FGD
    labels[sure > 0] = cv2.GC_FGD
    if (labels == cv2.GC_BGD).sum() < 10:
        return "mask has no shape"
    cv2.setRNGSeed(0)  # GrabCut clusters colours from random centres
    found, *_ = cv2.grabCut(
        small, labels.copy(), (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK
    )
    mask = _touching((found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD), sure > 0)
    unknown = (possible > 0) & (sure == 0)
    share = (mask & unknown).sum() / max(unknown.sum(), 1)
    if not _LEAST_OF_UNKNOWN <= share <= _MOST_OF_UNKNOWN:
        return "mask has no shape"
    thick = cv2.dilate(sure, np.ones((3, 3), np.uint8))
    if (mask & (thick > 0)).sum() < _LEAST_ON_BONES * thick.sum():
        return "mask misses bones"
    return mask


def _trunk(at: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the corners of the trunk ``(4, 2)``, one of them at most completed from the others; None: more lack."""
    lacking = [number for number, name in enumerate(TRUNK) if name not in at]
    if len(lacking) > 1:
        return None
    trunk = np.array([at.get(name, (0.0, 0.0)) for name in TRUNK], dtype=np.float64)
    for number in lacking:  # neighbours and the opposite corner make a parallelogram
        trunk[number] = trunk[number - 1] + trunk[(number + 1) % 4] - trunk[number - 2]
    return trunk


def _seeds(
    bones: np.ndarray, trunk: np.ndarray, head: np.ndarray, size_wh: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is the person for sure, and what may be, ``(h, w)`` uint8 0 or 1 each.

    Args:
        bones: ``(B, 2, 2)``, both ends of each bone, pixels.
        trunk: ``(4, 2)``, its corners.
        head: ``(2, 2)``, neck and top of the head; fewer points are not used.
        size_wh: Size of the masks.
    """
    long = float(np.linalg.norm(trunk[:2].mean(0) - trunk[2:].mean(0)))
    wide = max(float(np.linalg.norm(trunk[0] - trunk[1])), float(np.linalg.norm(trunk[3] - trunk[2])))
    unit = max(long, 0.8 * wide, 6.0)
    sure, possible = (np.zeros(size_wh[::-1], np.uint8) for _ in range(2))
    for a, b in bones:
        cv2.line(possible, _pixel(a), _pixel(b), 1, max(round(0.5 * unit), 3))
        cv2.line(sure, _pixel(a), _pixel(b), 1, max(round(0.09 * unit), 1))
        for end in (a, b):  # hands and feet reach beyond wrists and ankles
            cv2.circle(possible, _pixel(end), max(round(0.38 * unit), 2), 1, -1)
    hull = cv2.convexHull(np.round(trunk).astype(np.int32))
    for mask in (possible, sure):
        cv2.fillPoly(mask, [hull], 1)
    if len(head) == 2:
        middle, radius = head.mean(0), float(np.linalg.norm(head[0] - head[1]))
        cv2.circle(possible, _pixel(middle), max(round(0.75 * radius), 2), 1, -1)
        cv2.circle(sure, _pixel(middle), max(round(0.25 * radius), 1), 1, -1)
    return sure, possible


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _touching(mask: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Return the connected parts of a mask that hold something of what is sure, with small holes closed."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    _, parts = cv2.connectedComponents(closed, connectivity=8)
    kept = np.unique(parts[sure & (closed > 0)])
    return np.isin(parts, kept[kept > 0])


def cut_all_out(photos: LabelledImages, *, every: int = 500) -> tuple[Cutouts, Counter[str]]:
    """Cut all labelled people out of their photographs.

    Args:
        photos: The photographs; instances need ``extra["annotation_id"]``.
        every: Print a line after so many photographs; 0 prints nothing.

    Returns:
        The cutouts, and how many people have none, by reason.

    Raises:
        FileNotFoundError, ValueError: A photograph is missing or cannot be read, or the skeleton has no trunk.
    """
    check_trunk(photos.skeleton, "Cutouts need")
    packed: dict[int, np.ndarray] = {}
    sizes: dict[int, tuple[int, int]] = {}
    refused: Counter[str] = Counter()
    for number in range(len(photos)):
        people = photos.instances(number)
        image = photos.image(number) if len(people) else None
        for row in range(len(people)):
            assert image is not None
            found = cut_out(image, people[row])
            if isinstance(found, str):
                refused[found] += 1
                continue
            one = int(people.extra["annotation_id"][row])
            packed[one], sizes[one] = np.packbits(found), (found.shape[1], found.shape[0])
        if every and (number + 1) % every == 0:
            print(f"{number + 1:,} of {len(photos):,} photographs", flush=True)
    return Cutouts(packed, sizes), refused


def main() -> None:
    """Cut the people of a COCO keypoint file out and write their masks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("annotations", type=Path, help="a COCO keypoint file")
    parser.add_argument("--images", type=Path, default=None, help="folder of its images")
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    given = parser.parse_args()
    try:
        cutouts, refused = cut_all_out(coco(given.annotations, images=given.images))
        cutouts.write(given.out)
    except (ValueError, OSError) as error:
        print(f"poseglass: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    reasons = "".join(f" {count:,}: {why}." for why, count in refused.most_common())
    print(f"{given.out}: {counted(len(cutouts), 'mask')}; {counted(refused.total(), 'instance')} without.{reasons}")


if __name__ == "__main__":
    main()
