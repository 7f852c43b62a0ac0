"""Loader: crops of 256 px from 1280 x 720 JPEGs with full augmentation, compared with a naive implementation.

Three ways to make the same kind of batch, interleaved in one process on one core; the result is a ratio of medians:

- naive: decodes the whole image, warps once to crop and once to rotate and scale, flips a copy, then in floating
  point: colours, an occluder, normalisation, 16 Gaussian heatmaps of 64 x 64.
- files: poseglass's loader. JPEGs are decoded at half size or less where that is enough, one warp, colours as a
  matrix on uint8; floats and heatmaps are made on the device, so loader processes spend no time on them.
- cache: the same from the second epoch on, with data.cache_gb; the crops are equal bit for bit (checked first).

The images are generated: noise with a spectrum like that of photographs. There are two kinds, because decoding the
entropy-coded bytes of a JPEG takes the same time at every size: images of about 105 kB (those of this size in MPII
have 80 to 105 kB) and of about 240 kB. Boxes have the sizes and positions of those in MPII's 12,311 images of 1280 x
720. Times are processor times (one thread), which other programs disturb less; on an idle machine they equal
wall-clock time.

    python benchmarks/loader.py [--repeats 7] [--output benchmarks/results]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import RESULTS, machine, write_rows

from poseglass.core.allocator import keep_freed_memory
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeletons import MPII16
from poseglass.data.crops import Crops
from poseglass.data.loader import collate
from poseglass.readers.labelled import LabelledImages
from poseglass.transforms import ColorJitter, Occlusion, RandomAffine

SIZE = 256
BATCH = 16
PEOPLE = 64
IMAGES = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_image(path: Path, rng: np.random.Generator, detail: float, quality: int) -> None:
    """Save a 1280 x 720 JPEG of noise at all scales, mostly grey, the coarse ones strongest."""
    image = np.full((720, 1280, 3), 128, np.float32)
    for cell, strength in ((1, 2 * detail), (2, 5 * detail), (4, 10 * detail), (8, 15), (16, 20), (64, 30), (256, 30)):
        shape = (720 // cell + 2, 1280 // cell + 2)
        noise = rng.standard_normal((*shape, 1), np.float32) + 0.25 * rng.standard_normal((*shape, 3), np.float32)
        image += strength * cv2.resize(noise, (1280, 720), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])


def make_dataset(folder: Path, detail: float, quality: int) -> LabelledImages:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.jpg" for i in range(IMAGES)]
    for path in paths:
        write_image(path, rng, detail, quality)
    labels = []
    share = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
    for i in range(PEOPLE):  # side, x and y of MPII's boxes: 200 px times its scale, and its objpos
        side = np.interp((i + 0.5) / PEOPLE, share, (150, 227, 268, 380, 553, 812, 1073, 1222, 1400))
        x = np.interp(rng.random(), (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (100, 222, 474, 636, 799, 1046, 1180))
        y = np.interp(rng.random(), (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (120, 222, 308, 365, 425, 521, 600))
        box = np.array([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]])
        xy = rng.uniform(box[:, None, :2], box[:, None, 2:], (1, 16, 2))
        labels.append(Instances.from_keypoints(MPII16, xy, box_xyxy=box))
    chosen = [(7 * i) % IMAGES for i in range(PEOPLE)]
    return LabelledImages(
        "images",
        MPII16,
        tuple(paths[i] for i in chosen),
        labels,
        tuple(range(PEOPLE)),
        np.full((PEOPLE, 2), (1280, 720)),
    )


def naive_sample(
    path: Path, box_xyxy: np.ndarray, xy: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one crop ``(3, 256, 256)`` and its heatmaps ``(16, 64, 64)``, step by step."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    # crop
    x0, y0, x1, y1 = box_xyxy
    side = max(x1 - x0, y1 - y0) * 1.25
    scale = SIZE / side
    crop = np.array(
        [[scale, 0, SIZE / 2 - scale * (x0 + x1) / 2], [0, scale, SIZE / 2 - scale * (y0 + y1) / 2]], np.float64
    )
    image = cv2.warpAffine(image, crop, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    xy = xy @ crop[:, :2].T + crop[:, 2]
    # rotate and scale
    rotation = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), rng.uniform(-30, 30), rng.uniform(0.75, 1.25))
    image = cv2.warpAffine(image, rotation, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    xy = xy @ rotation[:, :2].T + rotation[:, 2]
    # flip
    if rng.random() < 0.5:
        image = image[:, ::-1].copy()
        xy[:, 0] = SIZE - 1 - xy[:, 0]
        xy = xy[MPII16.flip]
    # colours
    pixels = image.astype(np.float32) / 255
    pixels = pixels * rng.uniform(0.6, 1.4, 3).astype(np.float32)
    pixels = (pixels - 0.5) * np.float32(rng.uniform(0.75, 1.25)) + 0.5
    pixels = pixels + np.float32(rng.uniform(-0.1, 0.1))
    pixels = np.clip(pixels, 0, 1)
    if rng.random() < 0.05:
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, 2)
    # an occluder
    if rng.random() < 0.5:
        w, h = rng.integers(SIZE // 10, SIZE // 3, 2)
        x, y = rng.integers(0, SIZE - w), rng.integers(0, SIZE - h)
        pixels[y : y + h, x : x + w] = rng.random(3) if rng.random() < 0.5 else rng.random((h, w, 3))
    # normalise
    pixels = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    # maps
    maps = np.zeros((16, 64, 64), np.float32)
    sigma, reach = 2, 6
    for k in range(16):
        across = np.arange(2 * reach + 1, dtype=np.float32)
        gauss = np.exp(-((across[None] - reach) ** 2 + (across[:, None] - reach) ** 2) / (2 * sigma**2))
        px, py = int(xy[k, 0] / 4 + 0.5), int(xy[k, 1] / 4 + 0.5)
        left, top, right, bottom = px - reach, py - reach, px + reach + 1, py + reach + 1
        if left >= 64 or top >= 64 or right < 0 or bottom < 0:
            continue
        a, b, c, d = max(left, 0), max(top, 0), min(right, 64), min(bottom, 64)
        maps[k, b:d, a:c] = gauss[b - top : d - top, a - left : c - left]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), torch.from_numpy(maps)


def naive_epoch(dataset: LabelledImages, epoch: int) -> None:
    rng = np.random.default_rng(epoch)
    for start in range(0, PEOPLE, BATCH):
        samples = []
        for i in range(start, start + BATCH):
            person = dataset.instances(i)
            samples.append(naive_sample(dataset.paths[i], person.box_xyxy[0], person.xy[0], rng))
        torch.stack([image for image, _ in samples])
        torch.stack([maps for _, maps in samples])


def epoch_of(crops: Crops, epoch: int) -> None:
    for start in range(0, PEOPLE, BATCH):
        collate([crops[(epoch, i, SIZE, SIZE)] for i in range(start, start + BATCH)])


def seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def check_equal(crops: Crops, cached: Crops) -> None:
    for epoch in range(3):
        for i in range(0, PEOPLE, 5):
            a, b = crops[(epoch, i, SIZE, SIZE)], cached[(epoch, i, SIZE, SIZE)]
            if not (np.array_equal(a.image, b.image) and np.array_equal(a.instances.xy, b.instances.xy)):
                raise SystemExit(f"The cache changes a crop: epoch {epoch}, person {i}.")


def decode_shares(crops: Crops) -> str:
    """Return how often the image is decoded at full size, at a half, at a quarter."""
    wanted: list[int] = []

    class Watched(LabelledImages):
        def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
            wanted.append(reduce)
            return np.zeros((720 // reduce, 1280 // reduce, 3), np.uint8)

    d = crops.dataset
    assert isinstance(d, LabelledImages)
    watched = Watched(d.name, d.skeleton, d.paths, d.labels, d.image_ids, d.sizes_wh)
    epoch_of(Crops(watched, crops.input, crops.augment[:1]), 1)
    return ", ".join(f"1/{r} {wanted.count(r) / len(wanted):.0%}" for r in sorted(set(wanted)))


def measure(folder: Path, detail: float, quality: int, repeats: int) -> list[dict[str, object]]:
    """Time the three loaders on one kind of image, interleaved; return a row each."""
    dataset = make_dataset(folder, detail, quality)
    file_kb = statistics.mean(p.stat().st_size for p in set(dataset.paths)) / 1e3
    augment = (RandomAffine((0.75, 1.25), 30.0), ColorJitter(0.4, 0.25, 0.1, 0.05), Occlusion(0.5, (0.1, 0.33)))
    files = Crops(dataset, InputSpec((SIZE, SIZE), 1.25, MEAN, STD), augment)
    cached = files.cached(int(1e9), folder / "cache")
    if cached.cache is None or cached.cache.num_fitting < PEOPLE:
        raise SystemExit(f"The cache cannot be made in {folder}.")
    filling = seconds(lambda: epoch_of(cached, 0))
    check_equal(files, cached)
    naive_epoch(dataset, 0)
    epoch_of(files, 0)
    loaders: dict[str, Callable[[int], None]] = {
        "naive": lambda epoch: naive_epoch(dataset, epoch),
        "files": lambda epoch: epoch_of(files, epoch),
        "cache": lambda epoch: epoch_of(cached, epoch),
    }
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for repeat in range(1, repeats + 1):
        for name, work in loaders.items():
            times[name].append(seconds(partial(work, repeat)))
    medians = {name: statistics.median(values) for name, values in times.items()} | {"cache, first epoch": filling}
    shares, planned = decode_shares(files), cached.cache.planned_bytes
    cached.cache.close()
    return [
        {
            "JPEG kB": f"{file_kb:.0f}",
            "loader": name,
            "crops per core and second": f"{PEOPLE / value:.0f}",
            "ms per crop": f"{value / PEOPLE * 1e3:.3f}",
            "times as fast": f"{medians['naive'] / value:.2f}",
            "repeats": 1 if "first" in name else repeats,
            "decoded at": shares,
            "cache MB per person": f"{planned / PEOPLE / 1e6:.2f}",
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        }
        for name, value in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    keep_freed_memory()  # for all three loaders, as in every command
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for detail, quality in ((0.3, 77), (1.0, 90)):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(Path(folder), detail, quality, arguments.repeats)
    print(f"decoded at {rows[0]['decoded at']}; {rows[0]['cache MB per person']} MB of cache per person")
    for row in rows:
        print(
            f"{row['JPEG kB']:>4} kB  {row['loader']:<19} {row['ms per crop']:>7} ms "
            f"{row['crops per core and second']:>6} /s {row['times as fast']:>6} x"
        )
    path = arguments.output / f"loader-{machine()}-torch{torch.__version__.split('+')[0]}.csv"
    write_rows(path, rows, "core", "transforms", "data")


if __name__ == "__main__":
    main()
