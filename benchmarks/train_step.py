"""Training steps of ``hg2`` at batch 8 and 256 px: poseglass's settings compared with a plain loop; and memory.

The plain loop uses float32, NCHW memory, the C library's default allocator, and an optimiser that loops over
parameters. Poseglass's is ``training.loop.fit`` itself with the settings of ``poseglass train``: bfloat16 autocast
where the processor supports it, channels_last, a fused optimiser, freed memory kept. Same network, initial weights,
images, targets, loss and optimiser (Adam, mean squared error of both stages).

The allocator is set per process, so every variant has its own process, waits while the others work, and makes a step
on request: interleaved, medians, one run. Losses are compared before anything is timed.

    python benchmarks/train_step.py [--repeats 7] [--steps 2] [--threads 2] [--output benchmarks/results]
    python benchmarks/train_step.py --batch 1 --size 64 --repeats 1 --steps 1     # does it run?

The ratio is that of the first two rows. The others remove one of poseglass's settings, or keep freed memory in the
plain loop. "peak GiB" is the largest resident size of the process: interpreter, libraries, network, optimiser,
activations. ``--batch`` measures it at other batch sizes.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, machine, write_rows

from poseglass.codecs import HeatmapCodec
from poseglass.core.allocator import keep_freed_memory
from poseglass.core.input_spec import InputSpec
from poseglass.core.precision import choose_precision
from poseglass.core.table import build
from poseglass.core.targets import ModelInput, RawBatch, Targets
from poseglass.losses.heatmap import mean_squared_error
from poseglass.networks import NETWORKS
from poseglass.programs.normalise import normalise
from poseglass.training.criterion import StageCriterion, Term, supervised
from poseglass.training.loop import Loop, Progress, fit
from poseglass.training.optimizer import OptimizerPart, make_optimizer
from poseglass.training.schedule import Schedule, SchedulePart

TARGET, KEYPOINTS, LEARNING_RATE = 2.5, 16, 2.5e-4


@dataclass(frozen=True)
class Variant:
    """The settings of a training process."""

    name: str
    keep_memory: bool = True
    bfloat16: bool = True
    channels_last: bool = True
    fused: bool = True
    plain_loop: bool = False


PLAIN = Variant("plain", keep_memory=False, bfloat16=False, channels_last=False, fused=False, plain_loop=True)
OURS = Variant("poseglass")
ALLOCATOR_ALONE = (
    Variant("poseglass, freed memory given back", keep_memory=False),
    Variant("plain, freed memory kept", bfloat16=False, channels_last=False, fused=False, plain_loop=True),
)
ONE_LESS = (
    Variant("poseglass, float32", bfloat16=False),
    Variant("poseglass, NCHW", channels_last=False),
    Variant("poseglass, optimiser in loops", fused=False),
)


class Silent:
    """A listener of ``fit`` that only keeps the last loss."""

    loss = 0.0

    def stop_wanted(self) -> bool:
        return False

    def measure(self, progress: Progress, row: dict[str, float]) -> None:
        raise AssertionError("an epoch longer than the benchmark ended")

    def on_step(self, progress: Progress, terms: dict[str, float], lr: float) -> None:
        self.loss = sum(terms.values())

    def on_epoch(self, progress: Progress, row: dict[str, float]) -> None:
        raise AssertionError("an epoch longer than the benchmark ended")


def make_batch(batch: int, size: int) -> RawBatch:
    """Return random images as the loader gives them (uint8, NHWC) with keypoints."""
    generator = torch.Generator().manual_seed(0)
    return RawBatch(
        images=torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator),
        targets=Targets.of_keypoints(torch.rand(batch, KEYPOINTS, 2, generator=generator) * (size - 1)),
        to_source=torch.eye(2, 3, dtype=torch.float64).expand(batch, 2, 3),
        sources=[""] * batch,
    )


def poseglass_steps(variant: Variant, network_name: str, batch: RawBatch) -> Callable[[], float]:
    """Return a function that trains one step as ``poseglass train`` does and returns the loss."""
    torch.manual_seed(0)
    network = build(NETWORKS, network_name, num_keypoints=KEYPOINTS)
    if variant.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if variant.fused:
        optimizer = make_optimizer(network, OptimizerPart(name="adam", lr=LEARNING_RATE))
    else:
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, foreach=False, fused=False)
    precision = choose_precision("auto" if variant.bfloat16 else "float32", torch.device("cpu"))
    loop = Loop(network, optimizer, Schedule(SchedulePart(name="constant"), 10**6, 10**6), None, Progress())
    step, listener = supervised(HeatmapCodec(), StageCriterion([Term(mean_squared_error)])), Silent()
    batches = itertools.cycle([batch])

    def train() -> float:
        fit(
            loop,
            batches,
            step if variant.channels_last else in_nchw(step),
            listener,
            spec=InputSpec(),
            steps_per_epoch=10**6,
            total_steps=loop.progress.step + 1,
            base_lr=LEARNING_RATE,
            precision=precision,
            flat_after_steps=0,
        )
        return listener.loss

    return train


def in_nchw(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a step so that images come in NCHW memory."""

    def contiguous(network: torch.nn.Module, batch: ModelInput) -> Any:
        return step(network, ModelInput(batch.images.contiguous(), batch.targets))

    return contiguous


def plain_steps(network_name: str, batch: RawBatch) -> Callable[[], float]:
    """Return a function that makes one plain training step on prepared images and targets, and returns the loss."""
    torch.manual_seed(0)
    network = build(NETWORKS, network_name, num_keypoints=KEYPOINTS).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, foreach=False, fused=False)
    images = normalise(batch.images, InputSpec()).contiguous()
    targets = HeatmapCodec().encode(batch.targets, batch.size_wh)

    def train() -> float:
        loss = torch.zeros(())
        for stage in network(images):
            loss = loss + torch.nn.functional.mse_loss(stage["heatmap"], targets["heatmap"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


def serve(variant: Variant, network_name: str, batch: int, size: int, threads: int) -> None:
    """Train when a line with a number of steps arrives; answer with seconds, losses, page faults and peak memory."""
    if variant.keep_memory and not keep_freed_memory():
        print("the settings of the C library's allocator had no effect", file=sys.stderr)
    torch.set_num_threads(threads)
    data = make_batch(batch, size)
    train = plain_steps(network_name, data) if variant.plain_loop else poseglass_steps(variant, network_name, data)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        seconds, losses = [], []
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(int(line)):
            start = time.perf_counter()
            losses.append(train())
            seconds.append(time.perf_counter() - start)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        answer = {
            "seconds": seconds,
            "losses": losses,
            "faults": (usage.ru_minflt - faults) / len(seconds),
            "peak_gib": usage.ru_maxrss / 2**20,
        }
        print(json.dumps(answer), flush=True)


class Worker:
    """A process that trains on request."""

    def __init__(self, variant: Variant, arguments: argparse.Namespace) -> None:
        self.variant = variant
        self.seconds: list[float] = []
        self.faults: list[float] = []
        self.losses: list[float] = []
        self.peak_gib = 0.0
        job = {
            "variant": asdict(variant),
            "network_name": arguments.network,
            "batch": arguments.batch,
            "size": arguments.size,
            "threads": arguments.threads,
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answer()

    def step(self, count: int, *, counted: bool = True) -> None:
        """Train a number of steps; the first steps of a process are for warming up."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.losses += answer["losses"]
        self.peak_gib = answer["peak_gib"]
        if counted:
            self.seconds += answer["seconds"]
            self.faults.append(answer["faults"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The process of {self.variant.name!r} ended early.")
        return json.loads(line)

    def close(self) -> None:
        """Terminate the process; it has nothing to save."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def compare(variants: tuple[Variant, ...], arguments: argparse.Namespace) -> list[Worker]:
    """Train all variants interleaved; two steps each to warm up.

    Raises:
        SystemExit: The variants do not train alike: their first losses differ by more than bfloat16 explains.
    """
    workers = [Worker(variant, arguments) for variant in variants]
    for worker in workers:
        worker.step(2, counted=False)
        if not abs(worker.losses[0] / workers[0].losses[0] - 1) < 0.05:
            raise SystemExit(
                f"First loss of {worker.variant.name!r} is {worker.losses[0]:.5g}, that of "
                f"{workers[0].variant.name!r} {workers[0].losses[0]:.5g}: they do not train the same thing."
            )
    for _ in range(arguments.repeats):
        for worker in workers:
            worker.step(arguments.steps)
    for worker in workers:
        worker.close()
    return workers


def rows_of(workers: list[Worker], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per variant; ratios are to the first one."""
    slowest = statistics.median(workers[0].seconds)
    rows = []
    for worker in workers:
        seconds = statistics.median(worker.seconds)
        rows.append(
            {
                "variant": worker.variant.name,
                "processes alive": len(workers),
                "seconds a step": f"{seconds:.4f}",
                "images a second": f"{arguments.batch / seconds:.2f}",
                f"times as fast as {workers[0].variant.name}": f"{slowest / seconds:.2f}",
                "peak GiB": f"{worker.peak_gib:.2f}",
                "page faults a step": f"{statistics.median(worker.faults):.0f}",
                "first loss": f"{worker.losses[0]:.6f}",
                "network": arguments.network,
                "batch": arguments.batch,
                "size": arguments.size,
                "steps": len(worker.seconds),
                "threads": arguments.threads,
                "bfloat16": choose_precision("auto", torch.device("cpu")) == torch.bfloat16,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="hg2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-ratio", action="store_true", help="only the ratio, without the other variants")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        job = json.loads(arguments.serve)
        serve(Variant(**job.pop("variant")), **job)
        return

    # first the reported ratio, with no other process alive; then the effect of each setting
    rows = rows_of(compare((PLAIN, OURS), arguments), arguments)
    ratio = float(rows[0]["seconds a step"]) / float(rows[1]["seconds a step"])
    if not arguments.only_ratio:
        rows += rows_of(compare((PLAIN, OURS, *ALLOCATOR_ALONE, *ONE_LESS), arguments), arguments)
    for row in rows:
        print("  ".join(f"{value:>8}" for value in list(row.values())[2:7]), "", row["variant"])
    if (arguments.network, arguments.batch, arguments.size) == ("hg2", 8, 256):
        write_rows(arguments.output / f"train_step-{machine()}.csv", rows, "networks", "layers", "training", "core")
    met = "met" if ratio >= TARGET else "NOT met"
    print(f"{ratio:.2f} times as fast as the plain loop; the target of {TARGET:g} is {met}")


if __name__ == "__main__":
    main()
