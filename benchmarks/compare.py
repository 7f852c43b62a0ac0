"""Compare families and codecs after the same short training: PCK@0.2 with confidence intervals, and cost.

Every training run has the same time budget on one core: its speed is measured first and determines the number of steps.
Runs are executed in parallel, each on its own core. Results are those of the moving average at the end, with flip
test, over all people of the validation set. Intervals are 95 % of 2,000 bootstrap samples of the people, the same for
every row: they show the variation over people, not over seeds; the result of each seed is listed too.

    python benchmarks/compare.py families --minutes 6 --seeds 0 1         # trains; resumes where it was stopped
    python benchmarks/compare.py families --summary --runs benchmarks/results      # table and image of stored results
    python benchmarks/compare.py codecs --minutes 6 --seeds 0
"""

import argparse
import csv
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
from machine import RESULTS, commit, machine, write_rows

RECIPE = Path(__file__).parents[1] / "src/poseglass/recipes/lspet/family.toml"
THRESHOLD = 0.2

FLOAT32 = "train.precision=float32"  # depthwise convolutions train faster in float32 on a CPU: benchmarks/depthwise.py
RESNET = '{ name = "resnet18", width = 36 }'
BASELINE = '{ name = "simple_baseline_light" }'


def _network(text: str, *more: str) -> list[str]:
    return [f"network={text}", *more]


def _neck(text: str) -> list[str]:
    return _network(f'{{ name = "composed", backbone = {RESNET}, neck = {text} }}')


def _codec(text: str, *losses: str, head: str = "heatmap") -> list[str]:
    terms = ", ".join(f'{{ name = "{loss}" }}' for loss in losses or ("softmax_cross_entropy",))
    return [f"network={BASELINE}", f'network.head={{ name = "{head}" }}', f"codec={text}", f"loss=[{terms}]"]


VARIANTS: dict[str, dict[str, list[str]]] = {
    "families": {
        "stacked hourglass": _network('{ name = "hg2_light", width = 104 }'),
        "HRNet": _network('{ name = "hrnet_w16_light" }'),
        "SimpleBaseline": _network(BASELINE),
        "CPN": _network('{ name = "cpn_light" }'),
        "MobileNetV3-Large": _network('{ name = "mobile_pose_large" }', FLOAT32),
        "FPN on ResNet-18": _network(
            '{ name = "composed", backbone = { name = "resnet18", width = 40 }, '
            'neck = { name = "fpn", width = 96, norm = true } }'
        ),
        "U-Net": _network('{ name = "unet_light" }'),
        "dilated ResNet": _network('{ name = "dilated_light" }', "codec.stride=8"),
        "Hourglass-52": _network('{ name = "hourglass_52_light" }'),
        "CPM": _network('{ name = "cpm_light" }'),
        "MobileNetV3-Small": _network('{ name = "mobile_pose_small" }', FLOAT32),
    },
    "necks": {
        "upsampled": _neck('{ name = "upsample", width = 96, norm = true }'),
        "added (FPN)": _neck('{ name = "fpn", width = 96, norm = true }'),
        "concatenated (U-Net)": _neck('{ name = "unet", width = 48 }'),
        "deconvolved": _neck('{ name = "deconv", width = 104 }'),
    },
    "codecs": {
        "heatmap": _codec('{ name = "heatmap", sigma = 1.0, activation = "softmax" }'),
        "heatmap by mse": _codec('{ name = "heatmap", sigma = 2.0 }', "mse"),
        "dark": _codec('{ name = "dark", sigma = 1.0, activation = "softmax", blur_kernel = 3 }'),
        "udp": _codec('{ name = "udp", sigma = 1.0, activation = "softmax", blur_kernel = 3 }'),
        "udp_combined": _codec('{ name = "udp_combined" }', "mse", "offset", head="offset"),
        "soft_argmax": _codec('{ name = "soft_argmax" }', "integral_l1", "jensen_shannon"),
        "simcc": _codec('{ name = "simcc" }', head="simcc"),
    },
}
"""What is compared, by name: overrides of the recipe."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=VARIANTS)
    parser.add_argument("--minutes", type=float, default=6.0, help="Minutes of training for each, on one core.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", help="Only these names.")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0)))
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/compare"),
        help="Folder of the results; those that exist are not trained again. Stored ones: benchmarks/results.",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, default=Path("data"), help="Folder with lspet/train.json and val.json.")
    parser.add_argument("--summary", action="store_true", help="Do not train, only summarise.")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        name, seed = arguments.one
        train_one(arguments.what, name, int(seed), arguments.minutes, arguments.runs, arguments.data)
        return
    failed = 0
    if not arguments.summary:
        names = arguments.only or list(VARIANTS[arguments.what])
        jobs = [(name, seed) for seed in arguments.seeds for name in names]
        failed = train_all(arguments.what, jobs, arguments.minutes, arguments.cores, arguments.runs, arguments.data)
    summarise(arguments.what, arguments.minutes, arguments.runs)
    if failed:
        sys.exit(f"{failed} training runs failed; their output is above.")


def train_all(what: str, jobs: list[tuple[str, int]], minutes: float, cores: list[int], runs: Path, data: Path) -> int:
    """Run every job without a result in a separate process, one per core at a time; return how many failed."""
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores:
        free.put(core)

    def run(job: tuple[str, int]) -> bool:
        name, seed = job
        if result_file(runs, what, minutes, name, seed).is_file():
            return True
        core = free.get()
        try:
            command = [sys.executable, __file__, what, "--minutes", str(minutes), "--runs", str(runs)]
            command += ["--data", str(data)]
            started = time.monotonic()
            done = subprocess.run(
                ["taskset", "-c", str(core), *command, "--one", name, str(seed)],
                env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1:]
            print(f"{name} seed {seed}: {' '.join(last)} ({time.monotonic() - started:.0f} s)", flush=True)
            return done.returncode == 0
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        return sum(not done for done in pool.map(run, jobs))


def result_file(runs: Path, what: str, minutes: float, name: str, seed: int) -> Path:
    """Return the file with the results of a training run."""
    return runs / what / f"{minutes:g}min" / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}-{seed}.json"


def train_one(what: str, name: str, seed: int, minutes: float, runs: Path, data: Path) -> None:
    """Measure the speed, train for the budget, and store the results with each person's errors."""
    import torch

    from poseglass.metrics.pck import normalised_distance, torso_px
    from poseglass.runs.build import training_data
    from poseglass.runs.prepare import prepare
    from poseglass.runs.recipe import Recipe
    from poseglass.training.monitor import Monitor

    overrides = [*VARIANTS[what][name], f"seed={seed}", "train.checkpoint_seconds=1000"]
    with tempfile.TemporaryDirectory() as folder:
        trial = prepare(
            Recipe.read(RECIPE, [*overrides, "train.epochs=1", "data.train.0.repeat=0.1"], data_folder=data),
            Path(folder) / "trial",
        )
        seconds: list[float] = []
        trial.on_step = lambda progress, _terms, _lr: seconds.append(progress.seconds)
        trial.val, trial.monitor = None, Monitor()  # nothing is measured, so the loss is monitored
        trial.train()
        # if the process was paused, one step is very long, which does not affect the median
        step_seconds = float(np.median(np.diff(seconds)[3:]))
        steps = max(60.0 * minutes / step_seconds, 1.0)
        whole = len(training_data(Recipe.read(RECIPE, overrides, data_folder=data))) // trial.recipe.train.batch_size
        epochs = max(int(steps // whole), 1)
        recipe = Recipe.read(
            RECIPE,
            [*overrides, f"train.epochs={epochs}", f"data.train.0.repeat={steps / (whole * epochs):.4f}",
             f"evaluate.every_epochs={epochs + 1}"],
            data_folder=data,
        )  # fmt: skip
        run = prepare(recipe, Path(folder) / "run")
        run.train()
        val = run.val
        assert val is not None
        found = run.measure(val)
        distances = np.concatenate(
            [normalised_distance(p.xy, t.xy, torso_px(t)) for p, t in zip(found.predicted, found.truth, strict=True)]
        )
        labelled = np.isfinite(distances)
        people = np.stack([((distances <= THRESHOLD) & labelled).sum(-1), labelled.sum(-1)], -1)
    result = {
        "name": name,
        "seed": seed,
        "minutes": minutes,
        "steps": run.total_steps,
        "step_ms": step_seconds * 1000,
        "results": {key: value for key, value in found.results.items() if "/" not in key},
        "rows": run.loop.progress.rows,
        "network": run.network_table,
        "codec": dict(recipe.codec),
        "size_wh": list(recipe.input.size_wh),
        "people": people.tolist(),
        "machine": machine(),
        "torch": torch.__version__.split("+")[0],
        "commit": commit(),
    }
    file = result_file(runs, what, minutes, name, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result))
    part.rename(file)
    print(f"PCK@0.2 {found.results['pck@0.2']:.4f} after {run.total_steps} steps of {step_seconds * 1000:.0f} ms")


def summarise(what: str, minutes: float, runs: Path) -> None:
    """Write one row for each name that has results, best first, and the image of accuracy against latency."""
    results: dict[str, list[dict[str, Any]]] = {}
    for name in VARIANTS[what]:
        files = sorted((runs / what / f"{minutes:g}min").glob("*.json"))
        found = [one for one in map(_read, files) if one["name"] == name]
        if found:
            results[name] = found
    if not results:
        print(f"No results of {minutes:g} minutes in {runs / what} yet.")
        return
    table = RESULTS / what / f"{what}-{machine()}.csv"
    before = list(csv.DictReader(table.open())) if table.is_file() else []
    costs = cost_of({name: found[0] for name, found in results.items()})
    rows = []
    for name, found in results.items():
        kept = [np.asarray(one["people"]) for one in found if "people" in one]
        if not kept:
            print(f"{name}: its files have no counts per person, so its interval is unchanged")
            rows += [row | costs[name] for row in before if row["name"] == name]
            continue
        each = [one["results"]["pck@0.2"] for one in found]
        # the interval is that of the seeds with these counts, shifted to the mean of all seeds
        aside = statistics.mean(each) - statistics.mean(one["results"]["pck@0.2"] for one in found if "people" in one)
        low, high = (end + aside for end in interval(kept))
        rows.append(
            {
                "name": name,
                "PCK@0.2": f"{statistics.mean(each):.4f}",
                "from": f"{low:.4f}",
                "to": f"{high:.4f}",
                "seeds": " ".join(f"{value:.4f}" for value in each),
                "interval of seeds": " ".join(str(one["seed"]) for one in found if "people" in one),
                "PCK@0.1": f"{statistics.mean(one['results']['pck@0.1'] for one in found):.4f}",
                **costs[name],
                "steps": round(statistics.mean(one["steps"] for one in found)),
                "minutes": found[0]["minutes"],
                "trained at commit": " ".join(sorted({one["commit"] for one in found})),
            }
        )
    rows.sort(key=lambda row: -float(row["PCK@0.2"]))
    for row in rows:
        print("  ".join(str(value) for value in list(row.values())[:10]))
    write_rows(table, rows)
    if what == "families":  # the others have about the same latency
        image(what, rows)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def interval(people: list[np.ndarray]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over seeds of PCK, people resampled alike for all of them.

    Args:
        people: For each seed ``(people, 2)``: how many keypoints of each are right, and how many are labelled.
    """
    right, labelled = np.stack(people).mean(0).T
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(right), (2000, len(right)))
    shares = right[drawn].sum(1) / labelled[drawn].sum(1)
    return float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))


def cost_of(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return parameters, multiply-adds and the latency of one crop; networks are timed in turns, in one process."""
    import torch

    from poseglass.core.table import build
    from poseglass.networks import NETWORKS
    from poseglass.networks.cost import latency_ms, multiply_adds, parameters

    networks, rows, times = {}, {}, {name: [] for name in results}
    for name, one in results.items():
        table = dict(one["network"])
        size_wh = (one["size_wh"][0], one["size_wh"][1])
        network = build(NETWORKS, table.pop("name"), **table)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        networks[name] = (network, size_wh)
        rows[name] = {"parameters": parameters(network), "multiply-adds": multiply_adds(network, size_wh)}
    for _ in range(7):
        for name, (network, size_wh) in networks.items():
            times[name].append(latency_ms(network, size_wh, repeats=5, warm_up=1))
    return {
        name: rows[name] | {"latency ms": f"{statistics.median(times[name]):.2f}", "input": "{}x{}".format(*size_wh)}
        for name, (_, size_wh) in networks.items()
    }


def image(what: str, rows: list[dict[str, Any]]) -> None:
    """Draw PCK@0.2 against the latency of one crop, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.6), dpi=110)
    points = [(float(row["latency ms"]), float(row["PCK@0.2"])) for row in rows]
    for row, (x, y) in zip(rows, points, strict=True):
        axes.errorbar(x, y, [[y - float(row["from"])], [float(row["to"]) - y]], fmt="o", capsize=3, markersize=5)
        # on the side away from the nearest neighbour, so that labels do not overlap
        near = min((point for point in points if point != (x, y)), key=lambda point: abs(point[0] - x), default=(x, y))
        axes.annotate(
            row["name"], (x, y), textcoords="offset points", xytext=(7, -11 if near[1] > y else 5), fontsize=8
        )
    axes.set_xlabel("latency of one crop of 128 px, ms (float32, eager, batch 1)")
    axes.set_ylabel("PCK@0.2 on lspet/val")
    axes.set_title(f"{what}: the same {rows[0]['minutes']:g} minutes of one core for each", fontsize=10)
    axes.grid(alpha=0.25)
    axes.margins(x=0.15)
    figure.tight_layout()
    path = Path(__file__).parents[1] / "docs/images" / f"{what}.png"
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
