"""Contact sheets: many samples with their keypoints on one image, to look at data with."""

from collections.abc import Iterable, Sequence
from pathlib import PurePath

import numpy as np

from poseglass.core.sample import PoseSample
from poseglass.drawing.heatmap import tiled
from poseglass.drawing.pose import draw, resized

MAX_PIXELS = 100_000_000
"""A sheet with more pixels is refused before anything is drawn."""


def contact_sheet(
    samples: Iterable[PoseSample],
    *,
    columns: int = 6,
    tile_px: int = 224,
    captions: Sequence[str] | None = None,
    boxes: bool = False,
    names: bool = False,
) -> np.ndarray:
    """Return samples side by side with their keypoints, occluded ones as rings, and a caption under each.

    Args:
        samples: Any number above 0; each is drawn and let go before the next is taken.
        columns: Tiles in a row.
        tile_px: Room for each image, pixels square; it is scaled to fit.
        captions: A text for each sample; none takes the file's name and the number of people where it is not one.
        boxes: Draw the boxes too.
        names: Write the keypoints' names too.

    Raises:
        ValueError: No samples, another number of captions, a number below 1, or a sheet too large to be useful.
    """
    if columns < 1 or tile_px < 16:
        raise ValueError(f"Expected columns of at least 1 and tile_px of at least 16, got {columns} and {tile_px}.")
    tiles: list[np.ndarray] = []
    texts: list[tuple[str, str]] = []
    for sample in samples:
        if (len(tiles) + 1) * tile_px**2 > MAX_PIXELS:
            raise ValueError(
                f"A contact sheet of more than {len(tiles)} tiles of {tile_px} px is too large to be drawn "
                f"({MAX_PIXELS:,} pixels at most); take fewer samples or a smaller tile_px."
            )
        image, to_tile = resized(sample.image, tile_px)
        people = sample.instances.moved(to_tile)
        tiles.append(draw(image, people, min_score=0.0, occluded=True, boxes=boxes, names=names))
        count = "" if len(people) == 1 else f"{len(people)} people" if len(people) else "nobody"
        texts.append((PurePath(sample.source).name or sample.source, count))
    if not tiles:
        raise ValueError("A contact sheet needs at least one sample, got none; is the data set empty?")
    if captions is not None:
        if len(captions) != len(tiles):
            raise ValueError(f"Expected a caption for each of {len(tiles)} samples, got {len(captions)}.")
        texts = [(caption, "") for caption in captions]
    return tiled(tiles, texts, columns=columns, tile_wh=(tile_px, tile_px))
