"""Chips (SNIPER): how fast they are chosen, and how many pixels are processed.

1,000 images with 20 boxes each, whose sizes are drawn from those of people in COCO (coco/train.json and
coco_more/train.json, relative to the image), are given chips of 512 px at the paper's three scales, on one core. Pixels
are counted for images of 800 x 1333 px, the size to which the article compares: those of all chips, those of the whole
image pyramid (scales 3, 1.667 and 512 / longest side), and those of the image itself. The same for the images of COCO
as they are, with their own boxes; sizes and ranges are scaled by the ratio of the images' longest sides.

    python benchmarks/chips.py [--data data] [--images 1000]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, write_rows

from poseglass.readers import coco
from poseglass.transforms.chips import ARTICLE, ChipRule

IMAGE_WH = (1333, 800)
BOXES = 20


def people(data: Path) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Return size and boxes of every image with people."""
    found = []
    for name in ("coco", "coco_more"):
        images = coco(data / name / "train.json")
        for index in range(len(images)):
            box = images.instances(index).box_xyxy
            box = box[np.isfinite(box).all(1)]
            if len(box):
                found.append((images.size_wh(index), box.astype(np.float64)))
    return found


def drawn(found: list[tuple[tuple[int, int], np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """Return boxes with sizes of people in COCO, at random places of an image of ``IMAGE_WH``."""
    boxes = []
    while len(boxes) < BOXES:
        size_wh, of_image = found[int(rng.integers(len(found)))]
        box = of_image[int(rng.integers(len(of_image)))]
        sides = (box[2:] - box[:2]) * min(full / side for full, side in zip(IMAGE_WH, size_wh, strict=True))
        low = rng.random(2) * (np.array(IMAGE_WH) - sides) - 0.5
        boxes.append(np.concatenate([low, low + sides]))
    return np.array(boxes)


def pixels_of_pyramid(rule: ChipRule, image_wh: tuple[int, int]) -> float:
    """Return the pixels of the whole image at every scale."""
    return sum(image_wh[0] * image_wh[1] * rule.factor(level, image_wh) ** 2 for level in range(len(rule.scales)))


def counted(rule: ChipRule, images: list[tuple[tuple[int, int], np.ndarray]], what: str) -> dict[str, Any]:
    """Choose the chips of images, and return a row."""
    rng = np.random.default_rng(1)
    started = time.process_time()
    chips = [rule.positive(boxes, size_wh, rng) for size_wh, boxes in images]
    seconds = time.process_time() - started
    area = rule.size_wh[0] * rule.size_wh[1]
    number = sum(len(one) for one in chips)
    levels = [sum(chip.level == level for one in chips for chip in one) for level in range(len(rule.scales))]
    pyramid = sum(pixels_of_pyramid(rule, size_wh) for size_wh, _ in images)
    image = sum(size_wh[0] * size_wh[1] for size_wh, _ in images)
    # At the coarsest scale, what lies beyond the image is padding, and costs nothing but zeros.
    return {
        "images": what, "number": len(images), "boxes": sum(len(boxes) for _, boxes in images),
        "seconds on one core": f"{seconds:.2f}", "seconds per 1000 images": f"{1000 * seconds / len(images):.2f}",
        "chips per image": f"{number / len(images):.2f}",
        "at each scale": " ".join(f"{count / len(images):.2f}" for count in levels),
        "pixels of chips / of the pyramid": f"{number * area / pyramid:.3f}",
        "pixels of chips / of the image": f"{number * area / image:.2f}",
        "too large for a chip": sum(int(rule.too_large(boxes, size_wh).sum()) for size_wh, boxes in images),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=RESULTS / "chips.csv")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    found = people(arguments.data)
    crowded = [(IMAGE_WH, drawn(found, rng)) for _ in range(arguments.images)]
    rule = ChipRule(ARTICLE)
    # COCO's images have 640 px; the article shows them at 1333 px: so do the boxes, at 800 x 1333.
    as_shown = []
    for size_wh, boxes in found:
        factor = max(IMAGE_WH) / max(size_wh)
        as_shown.append(((round(size_wh[0] * factor), round(size_wh[1] * factor)), (boxes + 0.5) * factor - 0.5))
    rows = [
        counted(rule, crowded, "20 boxes of COCO's sizes, 1333 x 800"),
        counted(rule, found, "COCO as it is, its own boxes"),
        counted(rule, as_shown, "COCO enlarged to 1333 px, its own boxes"),
    ]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    write_rows(arguments.output, rows, "transforms")


if __name__ == "__main__":
    main()
