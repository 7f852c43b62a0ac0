"""Small backbones under the same neck and head, trained for the same time: PCK@0.2 against what one crop costs.

Every backbone goes under the same U-Net neck and heatmap head and is trained from random weights on Leeds Sports Pose
Extended for the same minutes of one core (src/poseglass/recipes/lspet/family.toml): a short trial measures the seconds
of a step in float32 and in bfloat16, and the faster of the two decides the precision and the number of steps. Stacked
hourglasses with the same three kinds of residuals are measured beside them; they have their own head. Results are those
of the moving average at the end, with flip test, on lspet/val. Latency is that of one crop of 128 px on one thread in
float32, all networks interleaved, medians. Intervals are 95 % of 2,000 draws of people.

    python benchmarks/backbones_pose.py --data data --minutes 6 --seeds 0 1     # trains; resumes where it was stopped
    python benchmarks/backbones_pose.py --summary                               # table and plot of what there is
    python benchmarks/backbones_pose.py --smoke --data data                     # a few steps of each, to see it work

A run's result is a JSON file in --runs; one that is there is not trained again.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from compare import RECIPE, interval
from machine import RESULTS, commit, interleave, machine, write_rows

THRESHOLD = 0.2
NECK = '{ name = "unet", width = 64 }'
PRECISIONS = ("float32", "bfloat16")
SIZE_WH = (128, 128)


def under_the_neck(backbone: str) -> str:
    return f'{{ name = "composed", backbone = {{ {backbone} }}, neck = {NECK} }}'


VARIANTS: dict[str, str] = {
    "clcNet-A": under_the_neck('name = "clcnet_a"'),
    "clcNet-A, cheapest groups": under_the_neck('name = "clcnet_a", groups = "cheapest"'),
    "clcNet-A, not interlaced": under_the_neck('name = "clcnet_a", interlaced = false'),
    "MobileNetV3-Small": under_the_neck('name = "mobilenet_v3_small", last = false'),
    "MobileNetV3-Large": under_the_neck('name = "mobilenet_v3_large", last = false'),
    "EfficientNet-Lite0": under_the_neck('name = "efficientnet_lite0"'),
    "bottleneck residuals": under_the_neck('name = "residual_path", width = 128'),
    "depthwise residuals": under_the_neck('name = "residual_path", width = 128, block = "depthwise"'),
    "dense residuals": under_the_neck('name = "residual_path", width = 128, block = "dense"'),
    "hourglass": '{ name = "hg2_light", width = 96 }',
    "hourglass, depthwise": '{ name = "hg2_light", width = 96, block = "depthwise" }',
    "hourglass, dense": '{ name = "hg2_light", width = 96, block = "dense" }',
}
"""What is compared: the recipe's network table, by the name in the results."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet/train.json and val.json.")
    parser.add_argument("--minutes", type=float, default=6.0, help="Minutes of training for each, on one core.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="Only these.")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=Path, default=RESULTS / "backbones-pose", help="Folder of the results.")
    parser.add_argument("--summary", action="store_true", help="Do not train, only summarise.")
    parser.add_argument(
        "--smoke", action="store_true", help="Train each for a few steps on a few people; keep nothing."
    )
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        train_one(given.one[0], int(given.one[1]), given.minutes, given.runs, given.data)
        return
    if given.smoke:
        smoke(given.only, given.data)
        return
    failed = 0
    if not given.summary:
        failed = train_all([(name, seed) for seed in given.seeds for name in given.only], given)
    summarise(given.minutes, given.runs)
    if failed:
        sys.exit(f"{failed} training runs failed; their output is above. Run the same command again to resume.")


def result_file(runs: Path, minutes: float, name: str, seed: int) -> Path:
    """Return the file with the results of a training run."""
    return runs / f"{minutes:g}min" / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}-{seed}.json"


def train_all(jobs: list[tuple[str, int]], given: argparse.Namespace) -> int:
    """Run every job without a result in a process of its own, one per core at a time; return how many failed."""
    free: SimpleQueue[int] = SimpleQueue()
    for core in given.cores:
        free.put(core)

    def run(job: tuple[str, int]) -> bool:
        name, seed = job
        if result_file(given.runs, given.minutes, name, seed).is_file():
            return True
        core = free.get()
        try:
            command = [sys.executable, __file__, "--minutes", str(given.minutes), "--runs", str(given.runs)]
            command += ["--data", str(given.data), "--one", name, str(seed)]
            started = time.monotonic()
            done = subprocess.run(
                ["taskset", "-c", str(core), *command], env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1:]
            print(f"{name}, seed {seed}: {' '.join(last)} ({time.monotonic() - started:.0f} s)", flush=True)
            return done.returncode == 0
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(given.cores)) as pool:
        return sum(not done for done in pool.map(run, jobs))


def step_seconds(overrides: list[str], data: Path, folder: Path, share: float) -> float:
    """Return the median seconds of a training step, data included, of a short trial."""
    from poseglass.runs.prepare import prepare
    from poseglass.runs.recipe import Recipe
    from poseglass.training.monitor import Monitor

    short = ["train.epochs=1", f"data.train.0.repeat={share}"]
    trial = prepare(Recipe.read(RECIPE, [*overrides, *short], data_folder=data), folder)
    seconds: list[float] = []
    trial.on_step = lambda progress, _terms, _lr: seconds.append(progress.seconds)
    trial.val, trial.monitor = None, Monitor()  # nothing is measured, so the loss is monitored
    trial.train()
    steps = np.diff(seconds)
    if not len(steps):
        raise ValueError(f"The trial has {len(seconds)} step; at least 2 are needed to measure one. Use more people.")
    return float(np.median(steps[min(3, len(steps) - 1) :]))  # a pause makes one step long, not the median


def trained(
    name: str, seed: int, minutes: float, data: Path, *, share: float = 0.1, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Measure the speed of a step, train for the budget, and return the results with each person's errors."""
    import torch

    from poseglass.metrics.pck import normalised_distance, torso_px
    from poseglass.runs.build import training_data
    from poseglass.runs.prepare import prepare
    from poseglass.runs.recipe import Recipe

    overrides = [f"network={VARIANTS[name]}", f"seed={seed}", "train.checkpoint_seconds=1000", *more]
    with tempfile.TemporaryDirectory() as folder:
        speeds = {
            precision: step_seconds([*overrides, f"train.precision={precision}"], data, Path(folder) / precision, share)
            for precision in PRECISIONS
        }
        precision = min(speeds, key=lambda key: speeds[key])
        overrides.append(f"train.precision={precision}")
        steps = max(60.0 * minutes / speeds[precision], 3.0)
        recipe = Recipe.read(RECIPE, overrides, data_folder=data)
        whole = len(training_data(recipe)) // recipe.train.batch_size
        epochs = max(int(steps // whole), 1)
        recipe = Recipe.read(
            RECIPE,
            [*overrides, f"train.epochs={epochs}", f"data.train.0.repeat={steps / (whole * epochs):.4f}",
             f"evaluate.every_epochs={epochs + 1}"],
            data_folder=data,
        )  # fmt: skip
        run = prepare(recipe, Path(folder) / "run")
        begun = time.monotonic()
        run.train()
        seconds = time.monotonic() - begun
        assert run.val is not None
        found = run.measure(run.val)
        distances = np.concatenate(
            [normalised_distance(p.xy, t.xy, torso_px(t)) for p, t in zip(found.predicted, found.truth, strict=True)]
        )
        labelled = np.isfinite(distances)
        people = np.stack([((distances <= THRESHOLD) & labelled).sum(-1), labelled.sum(-1)], -1)
    return {
        "name": name,
        "seed": seed,
        "minutes": minutes,
        "steps": run.total_steps,
        "train_seconds": round(seconds, 1),
        "step_ms": {key: round(1000 * value, 1) for key, value in speeds.items()},
        "precision": precision,
        "results": {key: value for key, value in found.results.items() if "/" not in key},
        "network": run.network_table,
        "people": people.tolist(),
        "machine": machine(),
        "torch": torch.__version__.split("+")[0],
        "commit": commit(),
    }


def train_one(name: str, seed: int, minutes: float, runs: Path, data: Path) -> None:
    """Train one network and store its result."""
    result = trained(name, seed, minutes, data)
    file = result_file(runs, minutes, name, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result))
    part.rename(file)
    print(f"PCK@0.2 {result['results']['pck@0.2']:.4f} after {result['steps']} steps in {result['precision']}")


def smoke(names: list[str], data: Path) -> None:
    """Train every network for three steps on 24 people and test it on 16, to see that all of it works."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "lspet"
        few.mkdir()
        (few / "images").symlink_to((data / "lspet" / "images").resolve())
        for split, count in (("train", 24), ("val", 16)):
            labels = json.loads((data / "lspet" / f"{split}.json").read_text())
            labels["images"] = labels["images"][:count]
            kept = {image["id"] for image in labels["images"]}
            labels["annotations"] = [one for one in labels["annotations"] if one["image_id"] in kept]
            (few / f"{split}.json").write_text(json.dumps(labels))
        small = ("train.batch_size=8", "evaluate.batch_size=8", "train.workers=0")
        for name in names:
            result = trained(name, 0, 0.0, Path(folder), share=1.0, more=small)
            words = ", ".join(f"{value:.0f} ms in {key}" for key, value in result["step_ms"].items())
            pck = result["results"]["pck@0.2"]
            print(f"{name}: a step takes {words}; PCK@0.2 {pck:.3f} after {result['steps']} steps", flush=True)


def summarise(minutes: float, runs: Path) -> None:
    """Write one row for each network that has results, best first, and the plot."""
    results: dict[str, list[dict[str, Any]]] = {}
    for name in VARIANTS:
        files = sorted((runs / f"{minutes:g}min").glob("*.json"))
        found = [one for one in (json.loads(file.read_text()) for file in files) if one["name"] == name]
        if found:
            results[name] = found
    if not results:
        print(f"No results of {minutes:g} minutes in {runs} yet.")
        return
    costs = costs_of({name: found[0]["network"] for name, found in results.items()})
    rows = []
    for name, found in results.items():
        each = [one["results"]["pck@0.2"] for one in found]
        low, high = interval([np.asarray(one["people"]) for one in found])
        rows.append(
            {
                "network": name, "PCK@0.2": f"{statistics.mean(each):.4f}", "from": f"{low:.4f}", "to": f"{high:.4f}",
                "each seed": " ".join(f"{value:.4f}" for value in each), **costs[name],
                "steps": round(statistics.mean(one["steps"] for one in found)),
                "ms a step": f"{statistics.mean(one['step_ms'][one['precision']] for one in found):.0f}",
                "precision": " ".join(sorted({one["precision"] for one in found})), "minutes": minutes,
                "trained at commit": " ".join(sorted({one["commit"] for one in found})),
            }
        )  # fmt: skip
    rows.sort(key=lambda row: -float(row["PCK@0.2"]))
    for row in rows:
        print(*list(row.values())[:9], sep="  ")
    write_rows(RESULTS / f"backbones-pose-{machine()}.csv", rows)
    plot(rows)


def costs_of(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return parameters, multiply-adds and the latency of one crop; all networks run in turns on one thread."""
    import torch

    from poseglass.core.table import build
    from poseglass.networks import NETWORKS
    from poseglass.networks.cost import multiply_adds, parameters

    torch.set_num_threads(1)
    image = torch.rand(1, 3, SIZE_WH[1], SIZE_WH[0]).contiguous(memory_format=torch.channels_last)
    networks, rows = {}, {}
    for name, table in tables.items():
        numbers = dict(table)
        network = build(NETWORKS, numbers.pop("name"), **numbers).eval()
        networks[name] = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rows[name] = {"parameters": parameters(network), "multiply-adds": multiply_adds(network, SIZE_WH)}
    with torch.inference_mode():
        seconds = interleave({name: (lambda n=network: n(image)) for name, network in networks.items()}, 41)
    return {name: rows[name] | {"latency ms": f"{1000 * seconds[name]:.2f}"} for name in tables}


def plot(rows: list[dict[str, Any]]) -> None:
    """Draw PCK@0.2 against latency and against multiply-adds, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, 2, figsize=(11.0, 4.4), dpi=110, sharey=True, layout="constrained")
    labels = {
        "latency ms": "latency of one crop, ms (one thread, float32)", "multiply-adds": "multiply-adds of one crop, M"
    }  # fmt: skip
    colours = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for axes, (key, label) in zip(places, labels.items(), strict=True):
        for number, row in enumerate(rows, 1):
            x = float(row[key]) / (1e6 if key == "multiply-adds" else 1)
            y = float(row["PCK@0.2"])
            axes.errorbar(
                x, y, [[y - float(row["from"])], [float(row["to"]) - y]], fmt="o", capsize=2, markersize=4,
                color=colours[number - 1], label=f"{number}  {row['network']}",
            )  # fmt: skip
            side = -9 if number % 2 else 5
            axes.annotate(str(number), (x, y), textcoords="offset points", xytext=(side, 4), fontsize=8)
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    handles, names = places[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    places[0].set_ylabel(f"PCK@0.2 on lspet/val after {rows[0]['minutes']:g} minutes")
    path = Path(__file__).parents[1] / "docs/images/backbones-pose.png"
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
