"""Where h-swish starts in MobileNetV3-Large: accuracy after the same short training, and latency.

Howard et al. 2019 compare "h-swish @N": the first block with N output channels and all after it have h-swish, earlier
ones ReLU. Here the same backbone is under a thin U-Net and finds 14 keypoints of people in crops of 128 px, trained by
recipes/lspet/family.toml. The convolutions before and after the blocks are as in the paper for all. Accuracy is PCK@0.2
on the validation people, latency that of a forward pass in float32, the median of interleaved repeats, as a ratio to
the paper's @80.

    python benchmarks/hswish_start.py --data data                # trains; resumes where it was stopped
    python benchmarks/hswish_start.py --summary                  # latency and table of stored results
    python benchmarks/hswish_start.py --quick --data data        # a few steps of two variants; writes nothing
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, commit, interleave, machine, write_rows
from torch import Tensor, nn
from torch.nn import functional

from poseglass.core.table import build
from poseglass.networks import NETWORKS
from poseglass.networks.cost import multiply_adds

RECIPE = Path(__file__).parents[1] / "recipes/lspet/family.toml"
STORED = RESULTS / "hswish-start"
VARIANTS = {"@16": 16, "@24": 24, "@40": 40, "@80 (paper)": 80, "@112": 112, "@160": 160}
PAPER = "@80 (paper)"
SIZE_WH = (128, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet/train.json and val.json.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), help="Only these variants.")
    parser.add_argument("--start", help="Weights of a backbone to start from, as train.init_from takes them.")
    parser.add_argument("--runs", type=Path, default=Path("runs/hswish-start"), help="Folder for the training runs.")
    parser.add_argument("--repeats", type=int, default=60, help="Repeats of the latency.")
    parser.add_argument("--summary", action="store_true", help="Do not train, only summarise.")
    parser.add_argument("--quick", action="store_true", help="A few steps of @16 and @112; nothing is stored.")
    arguments = parser.parse_args()
    if arguments.quick:
        quick(arguments)
        return
    if not arguments.summary:
        for seed in arguments.seeds:
            for variant in arguments.only:
                run(variant, seed, arguments)
    summarise(arguments.repeats)


def network(variant: str) -> str:
    """Return the network's table, as a recipe has it."""
    backbone = f'{{ name = "mobilenet_v3_large", last = false, hardswish_from = {VARIANTS[variant]} }}'
    neck = '{ name = "unet", width = 96, separable = true }'
    return f'{{ name = "composed", backbone = {backbone}, neck = {neck} }}'


def train(variant: str, seed: int, folder: Path, arguments: argparse.Namespace, *more: str) -> dict[str, str]:
    """Train a variant, or resume it; return the last row of its curve."""
    overrides = [f"seed={seed}", f"network={network(variant)}", f"train.epochs={arguments.epochs}", *more]
    if arguments.start:
        overrides.append(f"train.init_from={json.dumps(arguments.start)}")
    command = [sys.executable, "-m", "poseglass", "train"]
    if (folder / "recipe.toml").is_file():
        command += ["--resume", "--run", str(folder)]
    else:
        sets = [part for override in overrides for part in ("--set", override)]
        command += [str(RECIPE), "--data", str(arguments.data.resolve()), "--run", str(folder), *sets]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    print(variant, seed, done.stdout.strip().splitlines()[-1:], f"{time.monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    with (folder / "curve.csv").open() as file:
        return list(csv.DictReader(file))[-1]


def run(variant: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one network and store what it reaches."""
    name = f"{variant.split()[0].removeprefix('@')}-{seed}"
    file = STORED / f"{name}.json"
    if file.is_file():
        return
    last = train(variant, seed, arguments.runs / name, arguments)
    result: dict[str, Any] = {
        "variant": variant, "seed": seed, "start": arguments.start or "", "pck@0.2": float(last["val/pck@0.2"]),
        "pck@0.1": float(last["val/pck@0.1"]), "steps": int(last["step"]),
        "train_seconds": round(float(last["train_seconds"])), "machine": machine(), "commit": commit(),
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps(result, indent=1))
    file.with_suffix(".part").replace(file)


def quick(arguments: argparse.Namespace) -> None:
    """Train two variants for a few steps on 64 people, and time all."""
    arguments.epochs = 1
    with tempfile.TemporaryDirectory() as folder:
        parts: list[str] = []
        for part, count in (("train", 64), ("val", 32)):
            few = first_people(arguments.data / f"lspet/{part}.json", count)
            path = Path(folder) / f"{part}.json"
            path.write_text(json.dumps(few))
            table = (
                f'{{ name = "coco", annotations = "{path}", images = "{(arguments.data / "lspet/images").resolve()}" }}'
            )
            parts.append(f"data.{part}={f'[{table}]' if part == 'train' else table}")
        for variant in ("@16", "@112"):
            last = train(variant, 0, Path(folder) / variant, arguments, *parts, "evaluate.every_epochs=1")
            print(variant, "loss", last["loss"], "steps", last["step"], "pck@0.2", last["val/pck@0.2"], flush=True)
    for row in (*latencies(5), *activations(5)):
        print(*row.values(), sep="  ")


def first_people(path: Path, count: int) -> dict[str, Any]:
    """Return a COCO file's first images with their annotations."""
    data = json.loads(path.read_text())
    images = data["images"][:count]
    kept = {image["id"] for image in images}
    return data | {"images": images, "annotations": [a for a in data["annotations"] if a["image_id"] in kept]}


def latencies(repeats: int) -> list[dict[str, object]]:
    """Return the latency of each variant for one crop, as it is and as a ratio to the paper's."""
    images = torch.rand(1, 3, SIZE_WH[1], SIZE_WH[0])
    networks: dict[str, nn.Module] = {}
    for variant, start in VARIANTS.items():
        backbone = {"name": "mobilenet_v3_large", "last": False, "hardswish_from": start}
        neck = {"name": "unet", "width": 96, "separable": True}
        networks[variant] = build(NETWORKS, "composed", num_keypoints=14, backbone=backbone, neck=neck).eval()
    with torch.inference_mode():
        found = interleave({name: partial(one, images) for name, one in networks.items()}, repeats)
    return [
        {
            "variant": name, "ms": f"{1000 * seconds:.2f}", "ratio to @80": f"{seconds / found[PAPER]:.3f}",
            "multiply-adds": multiply_adds(networks[name], SIZE_WH),
        }
        for name, seconds in found.items()
    ]  # fmt: skip


def activations(repeats: int) -> list[dict[str, object]]:
    """Return the time of each activation on the features of the first block of stride 4, as a ratio to ReLU."""
    features = torch.randn(1, 64, 64, 64)

    def composed(x: Tensor) -> Tensor:
        return x * functional.relu6(x + 3) / 6

    ways = {"relu": torch.relu, "h-swish, one kernel": functional.hardswish, "h-swish, composed": composed}
    ways["swish"] = functional.silu
    with torch.inference_mode():
        found = interleave({name: partial(way, features) for name, way in ways.items()}, 10 * repeats)
    return [
        {"activation": name, "us": f"{1e6 * seconds:.1f}", "ratio to relu": f"{seconds / found['relu']:.2f}"}
        for name, seconds in found.items()
    ]


def summarise(repeats: int) -> None:
    """Write a row for each variant, and one for each activation."""
    results = [json.loads(file.read_text()) for file in sorted(STORED.glob("*.json"))]
    rows: list[dict[str, object]] = []
    for row in latencies(repeats):
        mine = [one for one in results if one["variant"] == row["variant"]]
        for name in ("pck@0.2", "pck@0.1"):
            row[name] = f"{statistics.mean(one[name] for one in mine):.4f}" if mine else ""
            row[f"{name} seeds"] = " ".join(f"{one[name]:.4f}" for one in mine)
        row["steps"] = " ".join(str(one["steps"]) for one in mine)
        row["start"] = " ".join(sorted({one["start"] for one in mine}))
        rows.append(row)
        print(*row.values(), sep="  ", flush=True)
    write_rows(RESULTS / f"hswish-start-{machine()}.csv", rows, "backbones", "layers")
    of_activations = activations(repeats)
    for row in of_activations:
        print(*row.values(), sep="  ", flush=True)
    write_rows(RESULTS / f"activations-{machine()}.csv", of_activations, "layers")


if __name__ == "__main__":
    main()
