"""Inference: folded, compiled and bfloat16 networks compared with eager mode, and the effect of bfloat16 on keypoints.

The baseline is PyTorch's eager mode in float32, with images and weights in contiguous (NCHW) memory and batch norm
not folded. The others are ``programs.fast.fast_forward``: batch norm folded and channels-last memory, in float32 or
bfloat16, compiled or not. Same weights, same images; heatmaps are compared before anything is timed. All run
interleaved in one process; the result is a ratio of medians. Weights are random, which does not affect the time.

The limit is the best possible time on this machine: the network's multiply-adds at the rate of a large matrix product
or a large convolution in the same dtype, whichever is faster, measured in the same run.

With --data, keypoints that a trained network predicts in bfloat16 are compared with those in float32, in pixels of
its input, and PCK@0.2 is measured for both.

    python benchmarks/inference.py [--repeats 21] [--threads 2] [--data data/lspet/val.json]
    python benchmarks/inference.py --networks hg1_light --width 64 --height 64 --repeats 1 --no-compile   # does it run?
"""

import argparse
import copy
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1"
)  # otherwise a second run would only load from the cache

import numpy as np
import torch
from machine import RESULTS, interleave, machine, write_rows

import poseglass as pg
from poseglass.core.affine import Affine
from poseglass.core.allocator import keep_freed_memory
from poseglass.core.boxes import fit_aspect
from poseglass.core.precision import has_bfloat16
from poseglass.core.table import build
from poseglass.estimators.load import DEFAULT
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.evaluate import Evaluation, evaluate
from poseglass.metrics import Pck
from poseglass.networks import NETWORKS
from poseglass.networks.cost import multiply_adds
from poseglass.programs.fast import Precision, difference, fast_forward
from poseglass.programs.torch_program import torch_forward
from poseglass.readers import coco

KEYPOINTS = 17
BATCHES = (1, 8)
VARIANTS: dict[str, tuple[Precision, bool]] = {
    "folded, channels-last": ("float32", False),
    "compiled": ("float32", True),
    "bfloat16": ("bfloat16", False),
    "bfloat16, compiled": ("bfloat16", True),
}
AIMS: dict[tuple[str, str, int], float] = {
    ("hrnet_w32", "compiled", 1): 1.7,
    ("hrnet_w32", "compiled", 8): 1.8,
    ("simple_baseline_r50", "compiled", 1): 1.7,
    ("simple_baseline_r50", "compiled", 8): 1.4,
    ("hrnet_w32", "bfloat16, compiled", 1): 2.6,
    ("hrnet_w32", "bfloat16, compiled", 8): 3.6,
    ("simple_baseline_r50", "bfloat16, compiled", 1): 3.0,
    ("simple_baseline_r50", "bfloat16, compiled", 8): 2.9,
}
"""At 192 x 256 (w x h)."""


def stop(sentence: str) -> None:
    """End the run, because a variant that fell back to another one would be timed under the wrong name."""
    raise SystemExit(sentence)


def best_rate(dtype: torch.dtype, repeats: int, side: int) -> float:
    """Return the multiply-adds per second of a square matrix product, or of a large convolution if that is faster."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    channels, batch = side // 8, 8
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, channels, 64, 48).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = interleave({"product": lambda: a @ b, "convolution": lambda: conv(images)}, repeats)
    return max(side**3 / seconds["product"], batch * 64 * 48 * channels**2 * 9 / seconds["convolution"])


def speed(name: str, size_wh: tuple[int, int], variants: Sequence[str], arguments: argparse.Namespace) -> list[dict]:
    """Compare the heatmaps of a network's variants, then time them; return a row per batch size and variant."""
    torch.manual_seed(0)
    network = build(NETWORKS, name, num_keypoints=KEYPOINTS).eval()
    plain = torch_forward(copy.deepcopy(network))
    runners = {
        variant: fast_forward(
            network, size_wh, precision=VARIANTS[variant][0], compiled=VARIANTS[variant][1], on_warning=stop
        )
        for variant in variants
    }
    work = multiply_adds(network, size_wh)
    rates = {"float32": best_rate(torch.float32, arguments.repeats, arguments.product_side)}
    if any(VARIANTS[variant][0] == "bfloat16" for variant in variants):
        rates["bfloat16"] = best_rate(torch.bfloat16, arguments.repeats, arguments.product_side)
    rows = []
    for batch in BATCHES:
        images = torch.randn(batch, 3, size_wh[1], size_wh[0])
        expected = plain(images)
        first = {"plain": 0.0}
        for variant, runner in runners.items():  # compiles
            started = time.perf_counter()
            runner(images)
            first[variant] = time.perf_counter() - started
        apart = {variant: difference(expected, runner(images)) for variant, runner in runners.items()}
        for variant, value in apart.items():
            if not value < {"float32": 1e-4, "bfloat16": 0.1}[VARIANTS[variant][0]]:
                raise SystemExit(
                    f"{name}, {variant}: maps differ from the plain ones by {value:.2g} of the largest value."
                )
        medians = interleave(
            {variant: partial(runner, images) for variant, runner in {"plain": plain, **runners}.items()},
            arguments.repeats,
        )
        for variant, seconds in medians.items():
            precision = VARIANTS[variant][0] if variant in VARIANTS else "float32"
            limit = batch * work / rates[precision]
            rows.append(
                {
                    "network": name,
                    "input": f"{size_wh[0]}x{size_wh[1]}",
                    "batch": batch,
                    "runner": variant,
                    "ms": f"{seconds * 1e3:.2f}",
                    "times as fast as plain": f"{medians['plain'] / seconds:.2f}",
                    "aim": aim(name, size_wh, variant, batch),
                    "first call s": f"{first[variant]:.1f}" if VARIANTS.get(variant, ("", False))[1] else "",
                    "largest difference of maps": f"{apart[variant]:.1e}" if variant in apart else "",
                    "G multiply-adds": f"{batch * work / 1e9:.3f}",
                    "best G multiply-adds/s": f"{rates[precision] / 1e9:.0f}",
                    "limit ms": f"{limit * 1e3:.2f}",
                    "times the limit": f"{seconds / limit:.2f}",
                    "repeats": arguments.repeats,
                    "threads": arguments.threads,
                    "freed memory kept": arguments.keep_memory,
                }
            )
            print("  ".join(f"{key} {value}" for key, value in list(rows[-1].items())[:8]), flush=True)
    return rows


def aim(name: str, size_wh: tuple[int, int], variant: str, batch: int) -> float | str:
    """Return the target ratio, or nothing."""
    return AIMS.get((name, variant, batch), "") if size_wh == (192, 256) else ""


def keypoints(arguments: argparse.Namespace) -> list[dict]:
    """Return how far bfloat16 moves keypoints: a row for all and one for those with a score of 0.3 and above."""
    dataset = coco(arguments.data)
    if arguments.images:
        dataset = First(dataset, arguments.images)
    results: dict[str, Evaluation] = {}
    estimator: TopDownEstimator | None = None
    for precision in ("float32", "bfloat16"):
        estimator = pg.load_top_down(
            arguments.weights, precision=precision, compiled=arguments.compile, flip_test=arguments.flip_test
        )
        results[precision] = evaluate(estimator, dataset, [Pck()])
    assert estimator is not None
    moved, score = [], []
    for plain, lower in zip(results["float32"].predicted, results["bfloat16"].predicted, strict=True):
        boxes = fit_aspect(plain.box_xyxy.astype(np.float64), estimator.input.aspect, padding=estimator.input.padding)
        for row, box in enumerate(boxes):
            to_crop = Affine.crop(box, estimator.input.size_wh, estimator.input.crop)
            moved.append(np.linalg.norm(to_crop(plain.xy[row]) - to_crop(lower.xy[row]), axis=-1))
            score.append(plain.score[row])
    distance, score = np.concatenate(moved), np.concatenate(score)
    found = np.isfinite(distance)  # a joint that the weights do not predict is NaN in both
    rows = []
    for least in (0.0, 0.3):
        px = distance[found & (score >= least)]
        rows.append(
            {
                "weights": arguments.weights,
                "data": f"{arguments.data.parent.name}/{arguments.data.stem}",
                "images": len(results["float32"].predicted),
                "score from": least,
                "keypoints": len(px),
                "mean px": f"{px.mean():.4f}",
                "99 % px": f"{np.quantile(px, 0.99):.4f}",
                "largest px": f"{px.max():.4f}",
                "within 0.5 px": f"{(px <= 0.5).mean():.5f}",
                "input": "x".join(map(str, estimator.input.size_wh)),
                "flip test": arguments.flip_test,
                "compiled": arguments.compile,
                **{
                    f"{name} {precision}": f"{value:.4f}"
                    for precision, result in results.items()
                    for name, value in result.results.items()
                },
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    return rows


class First:
    """The first images of a dataset."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.skeleton = dataset.skeleton
        self.name = dataset.name
        self.instances, self.image, self.source = dataset.instances, dataset.image, dataset.source
        self._count = min(count, len(dataset))

    def __len__(self) -> int:
        return self._count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["hrnet_w32", "simple_baseline_r50"])
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--product-side",
        type=int,
        default=2048,
        help="side of the matrices for the limit; 8 times the channels of the convolution",
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="skip compiled variants")
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory, as every command does")
    parser.add_argument("--data", type=Path, help="COCO JSON: compare keypoints in bfloat16 on it")
    parser.add_argument("--weights", default=DEFAULT)
    parser.add_argument("--images", type=int, default=0, help="use only the first so many images of --data; 0 uses all")
    parser.add_argument("--flip-test", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.keep_memory and not keep_freed_memory():
        raise SystemExit("The C library's allocator does not support these settings: run without --keep-memory.")
    torch.set_num_threads(arguments.threads)
    lower = has_bfloat16(torch.device("cpu"))
    if not lower:
        print("bfloat16 is skipped: this processor has no native bfloat16 multiplication.")
    variants = [
        name
        for name, (precision, compiled) in VARIANTS.items()
        if (lower or precision == "float32") and (arguments.compile or not compiled)
    ]
    packages = ("core", "estimators", "networks", "backbones", "necks", "heads", "layers")
    rows = []
    for name in arguments.networks:
        rows += speed(name, (arguments.width, arguments.height), variants, arguments)
    if rows:
        kept = "-kept-memory" if arguments.keep_memory else ""
        write_rows(arguments.output / f"inference-{machine()}{kept}.csv", rows, *packages)
        for row in rows:
            if row["aim"]:
                reached = float(row["times as fast as plain"]) >= row["aim"]
                print(
                    f"{row['network']}, batch {row['batch']}, {row['runner']}: {row['times as fast as plain']} times "
                    f"as fast as plain; target {row['aim']:g} {'met' if reached else 'NOT met'}"
                )
    if arguments.data and lower:
        path = arguments.output / f"bfloat16-{Path(arguments.weights).stem}-{machine()}.csv"
        write_rows(path, keypoints(arguments), *packages, "codecs")


if __name__ == "__main__":
    main()
