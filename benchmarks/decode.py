"""Decode 256 people with 17 heatmaps of 64 x 48: one batched call compared with a loop over joints.

The loops are written as in public code: NumPy for the arg-max and the quarter offset, NumPy and OpenCV for DARK
(Gaussian blur of the whole heatmap, its logarithm, a Taylor step). Both decode the same heatmaps, interleaved in one
process; keypoints are compared before anything is timed; the result is a ratio of medians. Reading the heatmaps once is
a lower bound, so it is timed too.

    python benchmarks/decode.py [--repeats 15] [--threads 2] [--clock wall] [--output benchmarks/results]

``--clock cpu`` measures processor time over all threads instead: use it on a busy machine.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import RESULTS, interleave, machine, write_rows

from poseglass.codecs import DarkCodec, HeatmapCodec
from poseglass.codecs.heatmap import draw_gaussians

PEOPLE, JOINTS, HEIGHT, WIDTH, STRIDE = 256, 17, 64, 48, 4
TARGETS = {"quarter offset": 10.0, "dark": 20.0}


def random_maps(people: int, seed: int = 0) -> torch.Tensor:
    """Gaussians with sigma 2 at random positions, a tenth of them half outside, of all heights, with noise."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(people, JOINTS, 2, generator=generator) * torch.tensor([WIDTH - 1.0, HEIGHT - 1.0])
    height = 0.3 + 0.7 * torch.rand(people, JOINTS, 1, 1, generator=generator)
    noise = 0.005 * torch.randn(people, JOINTS, HEIGHT, WIDTH, generator=generator)
    return draw_gaussians(xy, (WIDTH, HEIGHT), 2.0) * height + noise


def loop_quarter_offset(maps: np.ndarray) -> np.ndarray:
    """Arg-max and quarter offset, joint by joint; ``(B, K, 2)`` network-input pixels."""
    people, joints, height, width = maps.shape
    xy = np.zeros((people, joints, 2), np.float32)
    for b in range(people):
        for k in range(joints):
            heatmap = maps[b, k]
            y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
            xy[b, k] = x, y
            if 0 < x < width - 1:
                xy[b, k, 0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
            if 0 < y < height - 1:
                xy[b, k, 1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
    return (xy + 0.5) * STRIDE - 0.5


def loop_dark(maps: np.ndarray, kernel: int = 11) -> np.ndarray:
    """Arg-max, blur of the map, logarithm and Taylor step, joint by joint; ``(B, K, 2)`` network-input pixels."""
    people, joints, height, width = maps.shape
    border = (kernel - 1) // 2
    xy = np.zeros((people, joints, 2), np.float32)
    for b in range(people):
        for k in range(joints):
            heatmap = maps[b, k]
            y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
            xy[b, k] = x, y
            largest = heatmap.max()
            padded = np.zeros((height + 2 * border, width + 2 * border), np.float32)
            padded[border:-border, border:-border] = heatmap
            blurred = cv2.GaussianBlur(padded, (kernel, kernel), 0)[border:-border, border:-border]
            log = np.log(np.maximum(blurred * largest / blurred.max(), 1e-10))
            if 1 < x < width - 2 and 1 < y < height - 2:
                dx = 0.5 * (log[y, x + 1] - log[y, x - 1])
                dy = 0.5 * (log[y + 1, x] - log[y - 1, x])
                dxx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
                dxy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
                dyy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
                gradient = np.array([[dx], [dy]])
                hessian = np.array([[dxx, dxy], [dxy, dyy]])
                if dxx * dyy - dxy**2 != 0:
                    xy[b, k] -= (np.linalg.inv(hessian) @ gradient)[:, 0]
    return (xy + 0.5) * STRIDE - 0.5


def check_equal(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance_px: float) -> float:
    """Return the largest difference in input pixels.

    Raises:
        SystemExit: It is larger than the tolerance.
    """
    largest = float(np.abs(ours - theirs).max())
    if not largest <= tolerance_px:
        raise SystemExit(f"{name}: keypoints differ by up to {largest:.3g} px, the tolerance is {tolerance_px:g} px.")
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)

    maps = random_maps(arguments.people)
    array, prediction = maps.numpy(), {"heatmap": maps}
    quarter, dark = HeatmapCodec(stride=STRIDE, sigma=2.0), DarkCodec(stride=STRIDE, sigma=2.0)
    softmax = HeatmapCodec(stride=STRIDE, sigma=2.0, activation="softmax")
    differences = {
        "quarter offset": check_equal(
            "quarter offset", quarter.decode(prediction).xy[:, 0].numpy(), loop_quarter_offset(array), 0.0
        ),
        "dark": check_equal("dark", dark.decode(prediction).xy[:, 0].numpy(), loop_dark(array), 1e-2),
    }
    # the limit of the softmax form: as many exp as there are values, always of the same 1.5 MB
    part, buffer = torch.randn(128, HEIGHT * WIDTH), torch.empty(128, HEIGHT * WIDTH)
    cached = [part] * (PEOPLE * JOINTS // len(part))
    medians = interleave(
        {
            "loop: quarter offset": lambda: loop_quarter_offset(array),
            "poseglass: quarter offset": lambda: quarter.decode(prediction),
            "loop: dark": lambda: loop_dark(array),
            "poseglass: dark": lambda: dark.decode(prediction),
            "poseglass: quarter offset, softmax": lambda: softmax.decode(prediction),
            "reading once: torch amax": lambda: maps.amax(),
            "reading once: torch sum": lambda: maps.sum(),
            "reading once: numpy argmax": lambda: array.reshape(-1, HEIGHT * WIDTH).argmax(1),
            "reading once: torch amax of each map": lambda: maps.amax((-1, -2)),
            "one exp of each value: in the cache": lambda: [torch.exp(part, out=buffer) for part in cached],
        },
        arguments.repeats,
        time.perf_counter if arguments.clock == "wall" else time.process_time,
    )
    rows = []
    for name, seconds in medians.items():
        _, _, what = name.partition(": ")
        loop = medians.get(f"loop: {what}")
        rows.append(
            {
                "what": name,
                "ms": f"{seconds * 1e3:.3f}",
                "times as fast as the loop": "" if loop is None else f"{loop / seconds:.1f}",
                "target": TARGETS.get(what, "") if name.startswith("poseglass") else "",
                "GB/s of maps": f"{maps.numel() * 4 / seconds / 1e9:.1f}",
                "largest difference px": f"{differences[what]:.2g}" if what in differences else "",
                "people": arguments.people,
                "joints": JOINTS,
                "map": f"{WIDTH}x{HEIGHT}",
                "repeats": arguments.repeats,
                "threads": arguments.threads,
                "clock": arguments.clock,
                "opencv": cv2.__version__,
                "numpy": np.__version__,
            }
        )
    for row in rows:
        print(f"{row['what']:<36} {row['ms']:>9} ms  {row['times as fast as the loop']:>6}  {row['GB/s of maps']} GB/s")
    if arguments.people == PEOPLE:
        write_rows(arguments.output / f"decode-{machine()}.csv", rows, "codecs")
    for what, target in TARGETS.items():
        ratio = medians[f"loop: {what}"] / medians[f"poseglass: {what}"]
        print(
            f"{what}: {ratio:.1f} times as fast as the loop; target {target:g}{'' if ratio >= target else ' NOT'} met"
        )


if __name__ == "__main__":
    main()
