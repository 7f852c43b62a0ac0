"""Compare CenterNet on one map of stride 4 with CenterNet on P3 to P5, at equal multiply-adds, after the same training.

Both have the same ResNet-18 and a head of the same width. One has three transposed convolutions up to stride 4, the
other a pyramid; the width of the pyramid is the one whose network comes closest in multiply-adds, at most 3 % away.
Both see the same scenes in the same order: coloured discs, squares and triangles (three classes) on noise, of three
groups of sizes from 8 to 200 px in images of 256 px. Scenes are drawn from a seed and nothing is downloaded. Box AP and
recall are COCO's, over scenes that were not trained on; small, medium and large are COCO's areas.

A training from scratch of some minutes shows which of the two learns faster, not which is better after convergence.

    python benchmarks/centernet_levels.py                # about 15 minutes on two cores; writes benchmarks/results
    python benchmarks/centernet_levels.py --quick        # a few steps, to see that it works; writes nothing
"""

import argparse
import math
import time
from bisect import bisect_left
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import RESULTS, machine, write_rows
from torch import nn

from poseglass.codecs import Codec
from poseglass.codecs.centernet import CenterNetCodec
from poseglass.codecs.centernet_levels import CenterNetLevelsCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import RawBatch, Targets
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.metrics.box_ap import BoxAp
from poseglass.networks.centernet import centernet_resnet
from poseglass.networks.centernet_fpn import CenterNetFPN
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.programs.normalise import model_input
from poseglass.programs.torch_program import TorchProgram
from poseglass.training.centernet import CenterNetCriterion
from poseglass.training.centernet_levels import CenterNetLevelsCriterion
from poseglass.training.criterion import Criterion, supervised

SIDE, CLASSES, MOST = 256, 3, 12
GROUPS_PX = ((8, 30), (34, 94), (100, 200))
SPEC = InputSpec((SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SHAPES = Skeleton("shapes", ())
WIDTH, HEAD_WIDTH, DECONV_WIDTH = 16, 32, 32
TOLERANCE = 0.03
REACH = 4.0
"""Pixels of a level from a centre to a side: P3 up to 64 px, P4 up to 128 px. FCOS's 8 would leave P5 without objects
in images of 256 px."""


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image ``(256, 256, 3)`` uint8, boxes ``(N, 4)`` edge to edge in pixels, and classes ``(N,)``."""
    rng = np.random.default_rng(seed)
    image = rng.normal(rng.uniform(60, 190), 25, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    sizes = sorted((int(rng.integers(*GROUPS_PX[rng.integers(3)])) for _ in range(rng.integers(3, 9))), reverse=True)
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    for size in sizes:
        width, height = size, max(8, int(size * rng.uniform(0.6, 1.0)))
        for _ in range(20):
            x, y = (int(rng.integers(0, SIDE - side + 1)) for side in (width, height))
            middle = np.array([x + width / 2, y + height / 2])
            far = [np.abs(middle - np.array([x0 + x1, y0 + y1]) / 2).max() for x0, y0, x1, y1 in boxes]
            if min(far, default=SIDE) >= 24:  # a shape on the middle of another would hide what it is
                break
        else:
            continue
        label = int(rng.integers(CLASSES))
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        last = (x + width - 1, y + height - 1)
        if label == 0:
            points = cv2.ellipse2Poly((int(middle[0]), int(middle[1])), (width // 2, height // 2), 0, 0, 360, 5)
        elif label == 1:
            points = np.array([(x, y), (last[0], y), last, (x, last[1])])
        else:
            points = np.array([(x + width // 2, y), last, (x, last[1])])
        cv2.fillPoly(image, [points.astype(np.int32)], color)
        boxes.append((x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5))
        labels.append(label)
    return image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def batch_of(seeds: range) -> RawBatch:
    """Return scenes as a batch."""
    scenes = [scene(seed) for seed in seeds]
    box, label = torch.zeros(len(scenes), MOST, 4), torch.zeros(len(scenes), MOST, dtype=torch.int64)
    valid = torch.zeros(len(scenes), MOST, dtype=torch.bool)
    for i, (_, boxes, labels) in enumerate(scenes):
        box[i, : len(boxes)], label[i, : len(boxes)] = torch.from_numpy(boxes), torch.from_numpy(labels)
        valid[i, : len(boxes)] = True
    nothing = torch.zeros(len(scenes), MOST, 0)
    targets = Targets(nothing[..., None].expand(-1, -1, -1, 2), nothing, valid, label, box, torch.zeros_like(valid))
    images = torch.from_numpy(np.stack([image for image, _, _ in scenes]))
    return RawBatch(images, targets, torch.eye(2, 3).double().expand(len(scenes), -1, -1), [str(s) for s in seeds])


def single() -> nn.Module:
    """Return the network of one map of stride 4."""
    return centernet_resnet(0, num_classes=CLASSES, width=WIDTH, deconv_width=DECONV_WIDTH, head_width=HEAD_WIDTH)


def pyramid(fpn_width: int) -> nn.Module:
    """Return the network of P3 to P5."""
    return CenterNetFPN(0, num_classes=CLASSES, width=WIDTH, fpn_width=fpn_width, head_width=HEAD_WIDTH)


def equal_width() -> int:
    """Return the pyramid's width at which both networks take the same multiply-adds, within the tolerance.

    Raises:
        SystemExit: There is none.
    """
    with torch.device("meta"):
        wanted = multiply_adds(single(), SPEC.size_wh)
        widths = range(16, 257, 2)
        above = bisect_left(widths, wanted, key=lambda width: multiply_adds(pyramid(width), SPEC.size_wh))
        near = widths[max(above - 1, 0) : above + 1]  # the widest that takes less, and the narrowest that does not
        away = {width: multiply_adds(pyramid(width), SPEC.size_wh) / wanted - 1 for width in near}
    width = min(away, key=lambda width: abs(away[width]))
    if abs(away[width]) > TOLERANCE:
        raise SystemExit(
            f"The nearest pyramid is {away[width]:+.1%} in multiply-adds; at most {TOLERANCE:.0%} is fair."
        )
    return width


def trained(network: nn.Module, codec: Codec, criterion: Criterion, *, seed: int, steps: int, batch: int) -> float:
    """Train on scenes of the seed; returns the seconds of a step, drawing included."""
    step = supervised(codec, criterion)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 + 0.5 * math.cos(math.pi * t / steps))
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    start = time.perf_counter()
    for t in range(steps):
        first = 1_000_000 * (seed + 1) + t * batch
        terms = step(network, model_input(batch_of(range(first, first + batch)), SPEC))
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if (t + 1) % 100 == 0:
            print(f"  step {t + 1} of {steps}, loss {total.item():.3f}", flush=True)
    return (time.perf_counter() - start) / steps


def evaluated(network: nn.Module, codec: Codec, scenes: int) -> dict[str, float]:
    """Return COCO's results of boxes on scenes 0 and on, which no seed trains on."""
    estimator = OneStageEstimator(TorchProgram(network.eval(), codec, SHAPES, SPEC), min_box_score=0.01)
    metric, truth = BoxAp(), [scene(seed) for seed in range(scenes)]
    for found, (_, boxes, labels) in zip(estimator.stream(image for image, _, _ in truth), truth, strict=True):
        n = len(boxes)
        metric.update(found, Instances(SHAPES, np.zeros((n, 0, 2)), np.zeros((n, 0)), boxes, np.ones(n), labels))
    return metric.compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--scenes", type=int, default=400, help="scenes to evaluate on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="4 small steps, one seed, 8 scenes; nothing is written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.batch, arguments.seeds, arguments.scenes = 4, 4, [0], 8
    torch.set_num_threads(arguments.threads)
    fpn_width = equal_width()
    rows = []
    for seed in arguments.seeds:
        ways: dict[str, tuple[nn.Module, Codec, Criterion]] = {}
        torch.manual_seed(seed)
        ways["one map, stride 4"] = (single(), CenterNetCodec(poses=False), CenterNetCriterion())
        torch.manual_seed(seed)
        levels = CenterNetLevelsCodec(poses=False, reach=REACH)
        ways[f"P3 to P5, width {fpn_width}"] = (pyramid(fpn_width), levels, CenterNetLevelsCriterion())
        for name, (network, codec, criterion) in ways.items():
            print(f"{name}, seed {seed}", flush=True)
            seconds = trained(network, codec, criterion, seed=seed, steps=arguments.steps, batch=arguments.batch)
            result = evaluated(network, codec, arguments.scenes)
            cost = multiply_adds(network, SPEC.size_wh) / 1e6
            rows.append(
                {"what": name, "seed": seed, "multiply-adds M": f"{cost:.1f}", "parameters": parameters(network)}
                | {key: f"{value:.3f}" for key, value in result.items()}
                | {"steps": arguments.steps, "batch": arguments.batch, "scenes": arguments.scenes}
                | {"s per step": f"{seconds:.3f}", "threads": arguments.threads}
            )
            shown = ("box_AP", "box_AP_small", "box_AP_medium", "box_AP_large", "box_AR100")
            print(f"  {cost:.1f} M, {seconds:.2f} s a step, " + ", ".join(f"{key} {result[key]:.3f}" for key in shown))
    if not arguments.quick:
        write_rows(arguments.output / f"centernet-levels-{machine()}.csv", rows)


if __name__ == "__main__":
    main()
