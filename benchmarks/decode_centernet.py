"""Decode 8 images of CenterNet's maps, 128 x 128 with 80 classes, top 100: one batched call compared with a loop.

The loop is plain Python: it looks at the eight neighbours of every pixel. A loop over classes that compares whole maps
with NumPy is timed as well, since that is what most people would write. All decode the same maps, interleaved in one
process, and boxes are compared before anything is timed. Plain Python takes about ten seconds a pass.

    python benchmarks/decode_centernet.py [--repeats 3] [--threads 2] [--output benchmarks/results]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, interleave, machine, write_rows

from poseglass.codecs.centernet import CenterNetCodec

IMAGES, CLASSES, SIDE, MOST, STRIDE = 8, 80, 128, 100, 4
TARGET = 10.0


def random_maps(seed: int = 0) -> dict[str, torch.Tensor]:
    """Smooth noise, logits of the heatmaps, so that a map has some thousand peaks."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(IMAGES, CLASSES, SIDE, SIDE, generator=generator)
    center = torch.nn.functional.avg_pool2d(center, 3, 1, 1)
    size = 2 + 40 * torch.rand(IMAGES, 2, SIDE, SIDE, generator=generator)
    return {"center": center, "size": size, "center_offset": torch.rand(IMAGES, 2, SIDE, SIDE, generator=generator)}


def python_loop(maps: dict[str, np.ndarray]) -> np.ndarray:
    """Return boxes ``(8, 100, 4)``: pixel by pixel, in plain Python."""
    out = np.zeros((IMAGES, MOST, 4), np.float32)
    for b in range(IMAGES):
        found = []
        for c in range(CLASSES):
            rows = maps["center"][b, c].tolist()
            for y in range(SIDE):
                for x in range(SIDE):
                    value = rows[y][x]
                    near = (
                        rows[v][u]
                        for v in range(max(y - 1, 0), min(y + 2, SIDE))
                        for u in range(max(x - 1, 0), min(x + 2, SIDE))
                    )
                    if all(value >= other for other in near):
                        found.append((value, c, y, x))
        out[b] = boxes_of(maps, b, found)
    return out


def row_loop(maps: dict[str, np.ndarray]) -> np.ndarray:
    """Return boxes ``(8, 100, 4)``: class by class, whole maps shifted against each other by NumPy."""
    out = np.zeros((IMAGES, MOST, 4), np.float32)
    for b in range(IMAGES):
        found = []
        for c in range(CLASSES):
            heat = maps["center"][b, c]
            padded = np.pad(heat, 1, constant_values=-1)
            highest = np.max([padded[v : v + SIDE, u : u + SIDE] for v in range(3) for u in range(3)], axis=0)
            for y, x in zip(*np.nonzero(heat == highest), strict=True):
                found.append((heat[y, x], c, y, x))
        out[b] = boxes_of(maps, b, found)
    return out


def boxes_of(maps: dict[str, np.ndarray], image: int, found: list) -> np.ndarray:
    """Return the boxes ``(100, 4)`` of the best peaks."""
    found.sort(key=lambda peak: -peak[0])
    boxes = np.zeros((MOST, 4), np.float32)
    for n, (_, _, y, x) in enumerate(found[:MOST]):
        middle = np.array([x, y]) + maps["center_offset"][image, :, y, x]
        half = maps["size"][image, :, y, x] / 2
        boxes[n] = [*(middle - half), *(middle + half)]
    return (boxes + 0.5) * STRIDE - 0.5


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of a coordinate; boxes of equal score may come in any order."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a[np.lexsort(a.T)] - b[np.lexsort(b.T)]).max()) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    maps = random_maps()
    arrays = {name: value.numpy() for name, value in maps.items()}
    codec = CenterNetCodec(stride=STRIDE, poses=False, most=MOST)
    ours = codec.decode(maps).box_xyxy
    assert ours is not None
    largest = max(difference(ours.numpy(), loop(arrays)) for loop in (python_loop, row_loop))
    if not largest <= 1e-3:
        raise SystemExit(f"Boxes differ by up to {largest:.3g} px; the tolerance is 0.001 px.")
    medians = interleave(
        {
            "loop: pixels, plain Python": lambda: python_loop(arrays),
            "loop: classes, NumPy": lambda: row_loop(arrays),
            "poseglass": lambda: codec.decode(maps),
            "reading once: torch amax": lambda: maps["center"].amax(),
        },
        arguments.repeats,
    )
    rows = [
        {
            "what": name,
            "ms": f"{seconds * 1e3:.2f}",
            "times as long as poseglass": f"{seconds / medians['poseglass']:.2f}",
            "target": TARGET if name.startswith("loop: pixels") else "",
            "largest difference px": f"{largest:.2g}",
            "repeats": arguments.repeats,
            "threads": arguments.threads,
            "numpy": np.__version__,
        }
        for name, seconds in medians.items()
    ]
    for row in rows:
        print(f"{row['what']:30} {row['ms']:>10} ms {row['times as long as poseglass']:>8} x")
    write_rows(arguments.output / f"decode-centernet-{machine()}.csv", rows)


if __name__ == "__main__":
    main()
