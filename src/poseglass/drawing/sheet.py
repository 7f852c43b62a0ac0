"""Contact sheets: many samples with their keypoints on one image, to inspect data."""

from collections.abc import Iterable, Sequence
from pathlib import PurePath

import cv2
import numpy as np

from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.drawing.boxes_3d import draw_boxes_3d
from poseglass.drawing.heatmap import tiled
from poseglass.drawing.palette import OUTLINE_RGB, SIDE_RGB, sides
from poseglass.drawing.pose import draw, resized
from poseglass.drawing.text import text_size, write_text

MAX_PIXELS = 100_000_000
"""A sheet with more pixels is rejected before anything is drawn."""


def contact_sheet(
    samples: Iterable[PoseSample],
    *,
    columns: int = 6,
    tile_px: int = 224,
    captions: Sequence[str] | None = None,
    boxes: bool = False,
    names: bool = False,
    legend: bool = False,
    numbers: bool = False,
    min_score: float = 0.0,
) -> np.ndarray:
    """Return samples side by side with their keypoints, occluded ones as rings, and a caption under each.

    Args:
        samples: Any number above 0; each is drawn and released before the next is read.
        columns: Tiles in a row.
        tile_px: Space for each image, pixels square; it is scaled to fit.
        captions: A text for each sample; None takes the file's name and the number of people where it is not one.
        boxes: Also draw the boxes, in space where the instances have such boxes and the projection.
        names: Also write the keypoints' names.
        legend: Explain the marks under the tiles: sides, hidden keypoints, boxes.
        numbers: Also write the number of each instance, from 1.
        min_score: Keypoints below it are not drawn.

    Raises:
        ValueError: No samples, another number of captions, a number below 1, or a sheet too large to be useful.
    """
    if columns < 1 or tile_px < 16:
        raise ValueError(f"Expected columns of at least 1 and tile_px of at least 16, got {columns} and {tile_px}.")
    tiles: list[np.ndarray] = []
    skeletons: list[Skeleton] = []
    texts: list[tuple[str, str]] = []
    for sample in samples:
        if (len(tiles) + 1) * tile_px**2 > MAX_PIXELS:
            raise ValueError(
                f"A contact sheet of more than {len(tiles)} tiles of {tile_px} px is too large to draw "
                f"({MAX_PIXELS:,} pixels at most); use fewer samples or a smaller tile_px."
            )
        image, to_tile = resized(sample.image, tile_px)
        people = sample.instances.moved(to_tile)
        skeletons.append(people.skeleton)
        if boxes and people.box_3d is not None and people.projection is not None:
            tile = draw_boxes_3d(image, people, numbers=numbers, enlarge=False)
        else:
            tile = draw(image, people, min_score=min_score, occluded=True, boxes=boxes, names=names, numbers=numbers)
        tiles.append(tile)
        kind = "people" if "left_shoulder" in people.skeleton.keypoints else "objects"
        count = "" if len(people) == 1 else f"{len(people)} {kind}" if len(people) else "nobody"
        texts.append((PurePath(sample.source).name or sample.source, count))
    if not tiles:
        raise ValueError("A contact sheet needs at least one sample, got none; is the data set empty?")
    if captions is not None:
        if len(captions) != len(tiles):
            raise ValueError(f"Expected a caption for each of {len(tiles)} samples, got {len(captions)}.")
        texts = [(caption, "") for caption in captions]
    sheet = tiled(tiles, texts, columns=columns, tile_wh=(tile_px, tile_px))
    return _with_legend(sheet, skeletons[0], boxes=boxes) if legend else sheet


def _with_legend(sheet: np.ndarray, skeleton: Skeleton, *, boxes: bool) -> np.ndarray:
    """Return the sheet with a legend strip under it, in as many lines as its width needs."""
    of = sides(skeleton)
    entries: list[tuple[tuple[int, int, int], str, str]] = []
    if {"left", "right"} & set(of):
        entries += [(SIDE_RGB["left"], "dot", "left (its own)"), (SIDE_RGB["right"], "dot", "right")]
        entries += [(SIDE_RGB["middle"], "dot", "middle")] if "middle" in of else []
    else:
        entries.append((SIDE_RGB["middle"], "", "a colour for each keypoint"))
    entries.append((SIDE_RGB["middle"], "ring", "labelled, but hidden"))
    if boxes:
        entries.append((SIDE_RGB["middle"], "box", "box"))
    entries.append((SIDE_RGB["middle"], "", "no dot: not labelled, or outside"))
    size_px = 13
    high = text_size("A", size_px)[1] + 6
    places: list[tuple[int, int]] = []
    x = y = 8
    for _, mark, text in entries:
        wide = text_size(text, size_px)[0] + (high if mark else 0) + 18
        if x > 8 and x + wide > sheet.shape[1]:
            x, y = 8, y + high
        places.append((x, y))
        x += wide
    strip = np.full((y + high + 4, sheet.shape[1], 3), sheet[0, 0], np.uint8)
    for (x, y), (color, mark, text) in zip(places, entries, strict=True):
        if mark:
            center, radius = (x + high // 2 - 2, y + high // 2 - 1), high // 2 - 5
            if mark == "box":
                corner = (center[0] - radius, center[1] - radius), (center[0] + radius, center[1] + radius)
                cv2.rectangle(strip, *corner, color, 1, cv2.LINE_AA)
            else:
                cv2.circle(strip, center, radius, color, -1, cv2.LINE_AA)
            if mark == "ring":
                cv2.circle(strip, center, max(1, round(0.6 * radius)), OUTLINE_RGB, -1, cv2.LINE_AA)
        write_text(strip, text, (x + (high if mark else 0), y), size_px=size_px, color=(235, 235, 235))
    return np.concatenate([sheet, strip])
