"""Is this commit slower than another? Both checkouts run the same operations, interleaved, in one run.

    git worktree add ../old COMMIT
    python benchmarks/old_and_new.py ../old --out benchmarks/results/old-and-new.csv

Two processes, one per checkout, run each operation in turn, so that other load on the machine affects both. A row holds
the median of the ratios new / old over the repeats, with a 95 % interval (bootstrap of that median): an operation has
become slower if the interval is above 1. Where the interfaces of the commits differ, the operation is written for both.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_rows

BATCH = 16


def found(*places: str) -> Any:
    """Return the object at the first of several places, ``"package.module:name"``, that exists."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise LookupError(f"none of {', '.join(places)} is in this checkout")


def is_new() -> bool:
    try:
        importlib.import_module("poseglass.core.targets")
    except ImportError:
        return False
    return True


def synthetic(count: int, size_wh: tuple[int, int]) -> Any:
    return found("poseglass.synthetic:synthetic_people", "poseglass.datasets:synthetic_people")(
        count, seed=1, size_wh=size_wh
    )


def estimate() -> Callable[[], object]:
    """Eight people in one image, flip test, built-in weights."""
    import poseglass as pg

    estimator = pg.load(flip_test=True)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 640, 3), np.uint8)
    boxes = np.concatenate([rng.uniform(0, 200, (8, 2)), rng.uniform(300, 470, (8, 2))], 1)
    return lambda: estimator(image, boxes)


def stream() -> Callable[[], object]:
    """One person in each of 48 images, batches of 32, a trivial network: measures everything except the network."""
    import torch

    spec = found("poseglass.core.input_spec:InputSpec", "poseglass.core.card:InputSpec")((192, 256), 1.25)
    codec = found("poseglass.codecs:HeatmapCodec")()
    skeleton = found("poseglass.core.skeletons:COCO17")
    kind = found("poseglass.estimators.topdown:TopDownEstimator")
    maps = torch.rand(32, 17, 64, 48)

    class Ready(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            return [{"heatmap": maps[: len(images)]}]

    if is_new():
        estimator = kind(found("poseglass.programs:TorchProgram")(Ready(), codec, skeleton, spec))
    else:
        estimator = kind(Ready(), codec, skeleton, spec)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (300, 400, 3), np.uint8) for _ in range(8)]
    box = [[50.0, 20.0, 300.0, 290.0]]
    return lambda: list(estimator.stream((images[i % 8], box) for i in range(48)))


def encoded(codec: Any, count: int, size_wh: tuple[int, int], keypoints: int = 17) -> Callable[[], dict[str, Any]]:
    import torch

    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(count, keypoints, 2, generator=generator) * torch.tensor(size_wh)
    if is_new():
        targets = found("poseglass.core.targets:Targets").of_keypoints(xy)
        return lambda: codec.encode(targets, size_wh)
    batch = found("poseglass.core.batch:PoseBatch")(
        torch.zeros(count, 3, size_wh[1], size_wh[0]), xy[:, None], torch.ones(count, 1, keypoints),
        torch.zeros(count, 1, 4), torch.zeros(count, 2, 3), [""] * count,
    )  # fmt: skip
    return lambda: codec.encode(batch)


def encode(name: str) -> Callable[[], Callable[[], object]]:
    return lambda: encoded(found("poseglass.codecs:CODECS")[name](), 32, (192, 256))


def decode(name: str) -> Callable[[], Callable[[], object]]:
    def prepared() -> Callable[[], object]:
        import torch

        codec = found("poseglass.codecs:CODECS")[name]()
        target = encoded(codec, 32, (192, 256))()
        maps = {key: value.clamp_min(1e-6).log() if key in "xy" else value for key, value in target.items()
                if key not in ("weight",) and value.shape[1:] != torch.Size([17, 2])}  # fmt: skip
        return lambda: codec.decode(maps)

    return prepared


def crops() -> Callable[[], object]:
    """A batch of 32 augmented crops of images on disk."""
    spec = found("poseglass.core.input_spec:InputSpec", "poseglass.core.card:InputSpec")((160, 160), 1.1)
    affine = found("poseglass.transforms:RandomAffine")(degrees=40.0, rotate_probability=0.6, zoom_probability=0.2)
    jitter = found("poseglass.transforms:ColorJitter")(0.25, 0.25, 0.1, 0.05)
    occlusion = found("poseglass.transforms:Occlusion")(0.25)
    kind = found("poseglass.data.crops:Crops", "poseglass.engine.crops:Crops")
    collate = found("poseglass.data.loader:collate", "poseglass.engine.crops:collate")
    write_coco = found("poseglass.readers:write_coco", "poseglass.datasets:write_coco")
    coco = found("poseglass.readers:coco", "poseglass.datasets:coco")
    folder = Path(os.environ["OLD_AND_NEW"]) / ("new" if is_new() else "old")
    folder.mkdir()
    write_coco(
        synthetic(32, (400, 300)), folder / "people.json", **{"write_images" if is_new() else "write_pictures": True}
    )
    dataset = coco(folder / "people.json")
    made = (
        kind(dataset, spec, (affine, jitter, occlusion))
        if is_new()
        else kind(dataset, spec, affine, (jitter, occlusion))
    )
    count = len(made)
    epoch = iter(range(10**9))

    def run() -> object:
        number = next(epoch)
        return collate([made[(number, i % count, 160, 160)] for i in range(32)])

    return run


def train_step() -> Callable[[], object]:
    """A complete training step of a light hourglass, starting from the uint8 batch."""
    import torch

    network = found("poseglass.networks:NETWORKS")["hg1_light"](num_keypoints=14).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    spec = found("poseglass.core.input_spec:InputSpec", "poseglass.core.card:InputSpec")((96, 96))
    codec = found("poseglass.codecs:HeatmapCodec")(activation="softmax")
    supervised = found("poseglass.training.criterion:supervised", "poseglass.engine.train:supervised")
    images = torch.randint(0, 256, (BATCH, 96, 96, 3), dtype=torch.uint8)
    xy = torch.rand(BATCH, 14, 2) * 95
    loss = found("poseglass.losses:softmax_cross_entropy")
    if is_new():
        targets = found("poseglass.core.targets:Targets").of_keypoints(xy)
        batch = found("poseglass.core.targets:RawBatch")(images, targets, torch.zeros(BATCH, 2, 3), [""] * BATCH)
        model_input = found("poseglass.programs:model_input")
        term = found("poseglass.training.criterion:Term")
        step = supervised(codec, found("poseglass.training.criterion:StageCriterion")([term(loss)]))

        def ready() -> Any:
            return model_input(batch, spec)

    else:
        step = supervised(codec, loss)
        batch = found("poseglass.core.batch:PoseBatch")(
            images, xy[:, None], torch.ones(BATCH, 1, 14), torch.zeros(BATCH, 1, 4), torch.zeros(BATCH, 2, 3), []
        )
        normalise = found("poseglass.estimators.topdown:normalise")

        def ready() -> Any:
            return replace(batch, images=normalise(batch.images, spec))

    def run() -> object:
        total = torch.stack(list(step(network, ready()).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return total

    return run


def oks_ap() -> Callable[[], object]:
    """AP of 400 images of synthetic instances."""
    Instances = found("poseglass.core.instances:Instances")
    skeleton = found("poseglass.core.skeletons:COCO17")
    metric_kind = found("poseglass.metrics:OksAp")
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(400):
        xy = rng.uniform(0, 200, (3, 17, 2))
        people = Instances.from_keypoints(skeleton, xy, extra={"area": np.full(3, 9000.0)})
        pairs.append((Instances.from_keypoints(skeleton, xy + rng.normal(0, 4, xy.shape)), people))

    def run() -> object:
        metric = metric_kind()
        for found_people, truth in pairs:
            metric.update(found_people, truth)
        return metric.compute()

    return run


def moved() -> Callable[[], object]:
    """Instances of one person moved to a crop and back, 200 times."""
    Instances = found("poseglass.core.instances:Instances")
    Affine = found("poseglass.core.affine:Affine")
    skeleton = found("poseglass.core.skeletons:COCO17")
    person = Instances.from_keypoints(skeleton, np.random.default_rng(0).uniform(0, 200, (1, 17, 2)))
    there = Affine.crop(np.array([10.0, 10.0, 190.0, 190.0]), (96, 96))
    back = there.inverse()

    def run() -> object:
        for _ in range(200):
            person.moved(there).moved(back)
        return None

    return run


def weights() -> Callable[[], object]:
    """Load the built-in weights."""
    import poseglass as pg

    return lambda: pg.load()


PIECES: dict[str, Callable[[], Callable[[], object]]] = {
    "estimate 8 people, flip test": estimate,
    "stream of 48 images, no network": stream,
    "32 augmented crops": crops,
    "training step": train_step,
    "OKS-AP of 400 images": oks_ap,
    "move instances 400 times": moved,
    "load weights": weights,
    **{f"encode {name}": encode(name) for name in ("heatmap", "dark", "udp", "udp_combined", "soft_argmax", "simcc")},
    **{f"decode {name}": decode(name) for name in ("heatmap", "dark", "udp", "udp_combined", "soft_argmax", "simcc")},
}


def work() -> None:
    """Answer each name on standard input with the seconds that the operation takes."""
    ready: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in ready:
            ready[name] = PIECES[name]()
            for _ in range(3):
                ready[name]()
        # repeat for a tenth of a second, at least three times
        times: list[float] = []
        while len(times) < 3 or (sum(times) < 0.1 and len(times) < 200):
            start = time.perf_counter()
            ready[name]()
            times.append(time.perf_counter() - start)
        print(json.dumps(statistics.median(times)), flush=True)


def start(checkout: Path, scratch: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OLD_AND_NEW": scratch, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, __file__, "--work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def asked(process: subprocess.Popen[str], name: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline()))


def import_seconds(checkout: Path) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import poseglass"], env=os.environ | {"PYTHONPATH": str(checkout / "src")}, check=True
    )
    return time.perf_counter() - begin


def interval(ratios: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % interval of the median of ratios, by bootstrap."""
    draws = rng.choice(ratios, (4000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def commit_of(checkout: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, nargs="?", help="a checkout of the other commit")
    parser.add_argument("--out", type=Path, help="CSV to write")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", action="append", help="operations whose name contains this")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work()
        return
    if arguments.old is None:
        parser.error("name a checkout of the other commit")
    new = Path(__file__).resolve().parents[1]
    names = [n for n in PIECES if not arguments.only or any(word in n for word in arguments.only)]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    rounds = 2  # pairs of processes, because the memory layout differs between processes
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            processes = [start(path, scratch) for path in (arguments.old, new)]
            for repeat in range(-(-arguments.repeats // rounds)):
                for name in names:
                    order = (0, 1) if repeat % 2 == 0 else (1, 0)
                    seconds = {side: asked(processes[side], name) for side in order}
                    taken[name].append((seconds[0], seconds[1]))
            for process in processes:
                process.communicate()
    if not arguments.only:
        taken["import poseglass"] = []
        for repeat in range(arguments.repeats):
            paths = [arguments.old, new] if repeat % 2 == 0 else [new, arguments.old]
            seconds = {path: import_seconds(path) for path in paths}
            taken["import poseglass"].append((seconds[arguments.old], seconds[new]))
    rng = np.random.default_rng(0)
    rows = []
    for name, pairs in taken.items():
        old_s, new_s = np.array(pairs).T
        ratios = new_s / old_s
        low, high = interval(ratios, rng)
        rows.append(
            {
                "piece": name, "old ms": f"{np.median(old_s) * 1e3:.3f}", "new ms": f"{np.median(new_s) * 1e3:.3f}",
                "new / old": f"{np.median(ratios):.3f}", "95 % low": f"{low:.3f}", "95 % high": f"{high:.3f}",
                "repeats": len(pairs), "old commit": commit_of(arguments.old), "new commit": commit_of(new),
            }
        )  # fmt: skip
        print(f"{name:36} {rows[-1]['old ms']:>10} {rows[-1]['new ms']:>10}  {rows[-1]['new / old']} "
              f"({rows[-1]['95 % low']} to {rows[-1]['95 % high']})", flush=True)  # fmt: skip
    if arguments.out:
        write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
