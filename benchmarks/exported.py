"""Exported files: size, speed, and how far keypoints move, for every runtime and precision.

The baseline is the same network in PyTorch's eager mode in float32, in contiguous (NCHW) memory, with normalisation and
decoding, as in the exported files. All run interleaved in one process, with two threads; the result is a ratio of
medians.

Trained weights are quantised on people of lspet/train and evaluated on lspet/val (PCK@0.2, torso, boxes of the labels,
no flip test). A name of a network (hg2, hrnet_w32, ...) is built with random weights and only timed: of random weights,
no keypoint says anything.

The limit is the time that the network's multiply-adds take at the rate of this machine's fastest convolution (3x3, 128
channels, 64 x 64 pixels, batch 8), measured in the same run in float32 and bfloat16.

    python benchmarks/exported.py people-pose hg2-light-lspet hg2 hrnet_w32 simple_baseline_r50 [--data data]
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, interleave, write_rows

from poseglass.cli.export import samples_of
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import COCO17
from poseglass.core.table import build
from poseglass.estimators.load import load, load_top_down
from poseglass.estimators.weights_file import save_weights
from poseglass.evaluation.evaluate import evaluate
from poseglass.export.export import TARGETS, export_file, photograph_samples
from poseglass.export.exportable import exportable
from poseglass.export.int8 import Rounding, Sensitivity
from poseglass.export.parity import MAX_DRIFT
from poseglass.metrics import Pck
from poseglass.networks import NETWORKS
from poseglass.networks.cost import multiply_adds
from poseglass.programs.torch_program import TorchProgram
from poseglass.readers import coco

BATCHES = (1, 8)
SENSITIVITY = Rounding.sensitivity
FILES = (
    ("onnx", "float32"), ("onnx", "int8"), ("openvino", "float32"), ("openvino", "bfloat16"), ("openvino", "int8"),
)  # fmt: skip
SIZES_WH = {"hrnet_w32": (192, 256), "simple_baseline_r50": (192, 256)}

AIMS = {
    ("hg2", "float32"): (2.4, 4.5), ("hg2", "bfloat16"): (4.4, 8.5), ("hg2", "int8"): (7.5, 16.0),
    ("hrnet_w32", "float32"): (2.6, 2.3), ("hrnet_w32", "bfloat16"): (4.8, 4.5), ("hrnet_w32", "int8"): (7.5, 8.5),
    ("simple_baseline_r50", "float32"): (2.2, 1.7), ("simple_baseline_r50", "bfloat16"): (4.1, 3.6),
    ("simple_baseline_r50", "int8"): (6.9, 7.0),
}  # fmt: skip
"""Ratios to reach at batch 1 and 8, on an AMD EPYC with AVX-512, bfloat16 and VNNI."""


def best_rate(dtype: torch.dtype, repeats: int) -> float:
    """Return the multiply-adds per second of a large convolution."""
    conv: Any = torch.nn.Conv2d(128, 128, 3, padding=1).to(dtype)
    conv = conv.to(memory_format=torch.channels_last)
    images = torch.randn(8, 128, 64, 64).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = interleave({"convolution": lambda: conv(images)}, repeats)
    return 8 * 64 * 64 * 128**2 * 9 / seconds["convolution"]


def random_weights(name: str, folder: Path) -> Path:
    """Write weights of a network as it is built, and return their path."""
    torch.manual_seed(0)
    network = build(NETWORKS, name, num_keypoints=17)
    spec = InputSpec(SIZES_WH.get(name, (256, 256)))
    card = WeightCard(name, {"name": name, "num_keypoints": 17}, {"name": "heatmap"}, COCO17, spec)
    save_weights(folder / f"{name}.safetensors", network.state_dict(), card)
    return folder / f"{name}.safetensors"


def unmeasured(rounding: Rounding, on_call: Any = None) -> Sensitivity:
    """Return that no convolution moves a keypoint, for random weights, of which all are rounded then."""
    return Sensitivity(rounding.calls, (0.0,) * len(rounding.calls))


def plain_run(program: TorchProgram, views: torch.Tensor) -> None:
    """Run a program in eager mode, in contiguous memory."""
    program(views)


def measure(name: str, folder: Path, arguments: argparse.Namespace, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Export a network in every way, time all, and return a row per file and batch size."""
    trained = name not in NETWORKS
    Rounding.sensitivity = SENSITIVITY if trained else unmeasured  # type: ignore[method-assign]
    weights: str | Path = name if trained else random_weights(name, folder)
    program = load_top_down(weights).torch_program
    network = program.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(images: torch.Tensor) -> Any:
        with torch.inference_mode():
            return network(images.contiguous())[-1]

    plain = TorchProgram(network, program.codec, program.network_skeleton, program.input, forward=forward)
    val = coco(arguments.data / "lspet" / "val.json")
    samples = photograph_samples()
    calibration = [(np.roll(image, 7 * i, 1), boxes[:1]) for i in range(4) for image, boxes in samples]
    if trained:
        train = coco(arguments.data / "lspet" / "train.json")
        samples, calibration = samples_of(train, half=0), samples_of(train, 200, half=1)

    def pck(estimator: Any) -> dict[str, float]:
        return {"pck@0.2": evaluate(estimator, val, [Pck(normaliser="torso", thresholds=(0.2,))]).results["pck@0.2"]}

    opened, about = {}, {}
    for to, precision in FILES:
        if precision not in arguments.precisions or to not in arguments.runtimes:
            continue
        target = TARGETS[to]
        work = exportable(weights, precision=precision, lowers=target.lowers)  # type: ignore[arg-type]
        out = folder / f"{name}-{precision}{target.suffix}"
        started = time.perf_counter()
        card, drift, files = export_file(
            work, target, out, samples, "images of lspet/train", calibration=calibration,
            max_drift_px=None if trained else 1e9, measure=pck if trained else None,
        )  # fmt: skip
        program_of_file = load(out)
        opened[to, precision] = program_of_file.program  # type: ignore[union-attr]
        which = MAX_DRIFT[card.precision][0]
        about[to, precision] = {
            "MB": f"{sum(file.stat().st_size for file in files) / 1e6:.1f}",
            "export s": f"{time.perf_counter() - started:.0f}",
            "limited": which,
            "median px": f"{drift.median_px:.3f}" if trained else "",
            "p99 px": f"{drift.p99_px:.3f}" if trained else "",
            "PCK@0.2": f"{drift.results['pck@0.2'][1]:.4f}" if trained else "",
            "PCK@0.2 of PyTorch": f"{drift.results['pck@0.2'][0]:.4f}" if trained else "",
            "int8 share": card.quantised.get("int8_share", ""),
            "in float": " ".join(card.quantised.get("in_float", ())),
        }
        print(name, to, precision, about[to, precision], flush=True)
    rows = []
    macs = multiply_adds(network, program.input.size_wh)
    width, height = program.input.size_wh
    for number, batch in enumerate(BATCHES):
        views = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)
        runs = {("torch", "plain"): partial(plain_run, plain, views)}
        runs |= {key: partial(one, views) for key, one in opened.items()}
        named = {" ".join(key): run for key, run in runs.items()}
        seconds = interleave(named, arguments.repeats)
        for key in runs:
            to, precision = key
            took, rate = seconds[" ".join(key)], rates["bfloat16" if precision in ("bfloat16", "int8") else "float32"]
            aims = AIMS.get((name, precision))
            rows.append(
                {
                    "network": name, "input": f"{width}x{height}", "batch": batch, "runtime": to,
                    "precision": precision,
                    "ms": f"{took * 1e3:.2f}", "times as fast": f"{seconds['torch plain'] / took:.2f}",
                    "aim": "" if aims is None else aims[number],
                    "times the limit": f"{took / (batch * macs / rate):.2f}",
                    **about.get(key, dict.fromkeys(next(iter(about.values())), "")),
                }
            )  # fmt: skip
            print("  ".join(f"{key} {value}" for key, value in list(rows[-1].items())[:9]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtimes", nargs="*", default=["onnx", "openvino"])
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--output", type=Path, default=RESULTS / "exported.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rates = {
        "float32": best_rate(torch.float32, arguments.repeats),
        "bfloat16": best_rate(torch.bfloat16, arguments.repeats),
    }  # fmt: skip
    print({name: f"{rate / 1e9:.0f} G multiply-adds/s" for name, rate in rates.items()}, flush=True)
    rows: list[dict[str, Any]] = []
    for name in arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, Path(folder), arguments, rates)
        write_rows(arguments.output, rows, "export", "programs", "codecs")


if __name__ == "__main__":
    main()
