"""The training loop. What varies is the step: a function from network and batch to named loss terms."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from poseglass.core.input_spec import InputSpec
from poseglass.core.targets import RawBatch
from poseglass.programs.normalise import model_input
from poseglass.training.criterion import Step
from poseglass.training.distributed import ALONE, Processes
from poseglass.training.ema import MovingAverage
from poseglass.training.schedule import Schedule

ZERO_STEPS = 20
"""So many steps with a loss of exactly 0 end training: a batch may show no keypoint, many in a row do not."""


class TrainingStopped(RuntimeError):
    """Training cannot go on usefully; the message says why and what to try."""


class Interrupted(KeyboardInterrupt):
    """Somebody asked training to stop (Ctrl-C, SIGTERM), and it did so between two steps."""


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved in every checkpoint.

    Args:
        step: Optimiser steps done.
        images: Crops seen in the present epoch, by all processes together.
        sums: Sums of each loss term over the present epoch's steps.
        steps_summed: Number of steps in those sums.
        first_loss: Mean total loss of the first steps, the yardstick of the flat-loss stop.
        first_count: Steps in that mean.
        recent_loss: Moving average of the total loss.
        rows: The curve so far, a row an epoch; one row short while the last epoch's evaluation is due.
        best: Monitored value of the best weights that were kept; None before there are any. Of the first process.
        seconds: Training time in earlier processes.
    """

    step: int = 0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    steps_summed: int = 0
    first_loss: float = 0.0
    first_count: int = 0
    recent_loss: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        """Return plain numbers for a checkpoint."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        """Rebuild what ``state`` gave."""
        return cls(**state)

    def epoch_due(self, steps_per_epoch: int) -> bool:
        """Whether the last epoch's steps are done but its row is not in the curve yet."""
        epochs, rest = divmod(self.step, steps_per_epoch)
        return rest == 0 and len(self.rows) < epochs


class Listener(Protocol):
    """Is told how training goes: draws a bar, measures, writes files, passes on the wish to stop."""

    def stop_wanted(self) -> bool:
        """Whether somebody asked for an end; asked after every step."""
        ...

    def on_step(self, progress: Progress, terms: dict[str, float], lr: float) -> None:
        """After every optimiser step but an epoch's last; the place to save by time."""
        ...

    def measure(self, progress: Progress, row: dict[str, float]) -> None:
        """Add results to the row of a finished epoch. Nothing else may change if it raises."""
        ...

    def on_epoch(self, progress: Progress, row: dict[str, float]) -> None:
        """After every epoch, its row in the curve; the place to save."""
        ...

    def enough(self, progress: Progress) -> bool:
        """Whether training ends here; asked after every epoch, and answered alike in all processes."""
        ...


@dataclass(slots=True)
class Loop:
    """What ``fit`` moves on: the parts a checkpoint holds."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: MovingAverage | None
    progress: Progress

    def state(self) -> dict[str, Any]:
        """Return everything that a run needs to go on bit for bit."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "ema": None
            if self.ema is None
            else {"network": self.ema.network.state_dict(), "updates": self.ema.updates},
            "progress": self.progress.state(),
            "rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave.

        Raises:
            ValueError: The checkpoint belongs to another network.
        """
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError as error:
            words = " ".join(str(error).split())
            raise ValueError(f"The checkpoint holds another network than the recipe: {words}") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.restore(state["schedule"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.network.load_state_dict(state["ema"]["network"])
            self.ema.updates = state["ema"]["updates"]
        self.progress = Progress.from_state(state["progress"])
        torch.set_rng_state(state["rng"])

    def not_finite(self) -> list[str]:
        """Return the names of weights that are NaN or infinite."""
        state = self.network.state_dict()
        return [n for n, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]


def fit(
    loop: Loop,
    batches: Iterator[RawBatch],
    step: Step,
    listener: Listener,
    *,
    spec: InputSpec,
    steps_per_epoch: int,
    total_steps: int,
    base_lr: float,
    precision: torch.dtype = torch.float32,
    clip_norm: float = 0.0,
    flat_after_steps: int = 500,
    processes: Processes = ALONE,
) -> None:
    """Train until ``total_steps``, or the listener has had enough; goes on from ``loop.progress``.

    Several processes each train on their part of every batch: gradients are averaged over them, and so are the losses
    that are logged and judged, so all of them take the same steps and stop together.

    Args:
        loop: Network, optimiser, schedule, average and progress; changed in place.
        batches: Yields the batches from ``loop.progress.step`` on; images uint8 ``(B, H, W, 3)``.
        step: Network and batch to loss terms.
        listener: Is told after each step and each epoch.
        spec: Normalisation.
        steps_per_epoch: Steps after which an epoch ends.
        total_steps: Of the whole run.
        base_lr: Times the schedule's factor is the learning rate.
        precision: Of autocast; float32 switches it off.
        clip_norm: Largest gradient norm, 0 for no clipping.
        flat_after_steps: Stop if the loss has not fallen by 1 % after this many steps, 0 for never.
        processes: Of the run.

    Raises:
        TrainingStopped: The loss is not finite, flat, or exactly 0 in ``ZERO_STEPS`` steps one after another.
        Interrupted: The listener wanted to stop; every part of ``loop`` is as after a whole step.
    """
    progress = loop.progress
    device = next(loop.network.parameters()).device
    network = parallel(loop.network, device, processes)
    network.train()
    names: list[str] | None = None
    zeros = 0
    while True:
        if progress.epoch_due(steps_per_epoch):
            _end_epoch(loop, listener, steps_per_epoch, base_lr)
            network.train()
            if listener.enough(progress):
                return
        if progress.step >= total_steps:
            return
        started = time.perf_counter()
        batch = next(batches)
        lr = base_lr * loop.schedule.factor(progress.step)
        for group in loop.optimizer.param_groups:
            group["lr"] = lr
        inputs = model_input(batch.to(device), spec)
        autocast: AbstractContextManager = (
            torch.autocast(device.type, precision) if precision != torch.float32 else nullcontext()
        )
        with autocast:
            terms = step(network, inputs)
        if names is None:
            names = processes.share([*terms])
        if [*terms] != names:
            raise TrainingStopped(
                f"The loss terms must be the same, in the same order, in every step and process, or their means would "
                f"mix: {', '.join(names)} first, {', '.join(terms)} at step {progress.step}. Give a term that does not "
                "apply as 0."
            )
        loss = torch.stack(list(terms.values())).sum()
        loop.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The losses of all processes, and whether any of them was told to stop: one message a step, and on a GPU one
        # wait a step, when forward and backward are already under way.
        told = torch.tensor([float(listener.stop_wanted())], device=device)
        *means, stop = processes.mean(torch.cat([torch.stack(list(terms.values())).detach().float(), told])).tolist()
        values = dict(zip(terms, means, strict=True))
        total = sum(means)
        if not math.isfinite(total):
            raise TrainingStopped(_not_finite("loss", progress.step, values, lr))
        if clip_norm > 0:
            norm = float(torch.nn.utils.clip_grad_norm_(loop.network.parameters(), clip_norm))
            if not math.isfinite(norm):
                raise TrainingStopped(_not_finite("gradient", progress.step, values, lr))
        loop.optimizer.step()
        if loop.ema is not None:
            loop.ema.update(loop.network)
        progress.step += 1
        progress.images += len(batch) * processes.world
        progress.steps_summed += 1
        for name, value in values.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.seconds += time.perf_counter() - started
        zeros = zeros + 1 if total == 0 else 0
        if zeros >= min(ZERO_STEPS, total_steps):
            raise TrainingStopped(
                f"The loss is exactly 0 in {zeros} steps one after another, up to step {progress.step}: nothing is "
                "learnt. Either no labelled keypoint lies in the crops, or every weight of the loss is 0. Look at the "
                "crops with `poseglass look`, at labels with `poseglass check`."
            )
        _watch_flat(progress, total, flat_after_steps)
        if stop:
            raise Interrupted
        if progress.step % steps_per_epoch:
            listener.on_step(progress, values, lr)


def parallel(network: nn.Module, device: torch.device, processes: Processes) -> nn.Module:
    """Return what is called in the place of the network: alone itself, else a wrapper that averages gradients."""
    if processes.world == 1:
        return network
    # Buffers are batch norm's statistics, which synchronised norms keep equal in all processes.
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # a newer spelling, not in every 2.13
        return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)


def _end_epoch(loop: Loop, listener: Listener, steps_per_epoch: int, base_lr: float) -> None:
    progress = loop.progress
    means = {name: value / max(progress.steps_summed, 1) for name, value in progress.sums.items()}
    row = {
        "epoch": float(progress.step // steps_per_epoch),
        "step": float(progress.step),
        "lr": base_lr * loop.schedule.factor(progress.step - 1),
        "loss": sum(means.values()),
        **means,
        "train_seconds": progress.seconds,
    }
    listener.measure(progress, row)
    progress.rows.append(row)
    progress.sums, progress.steps_summed, progress.images = {}, 0, 0
    listener.on_epoch(progress, row)


def _watch_flat(progress: Progress, total: float, flat_after_steps: int) -> None:
    if progress.first_count < 20:
        progress.first_loss = (progress.first_loss * progress.first_count + total) / (progress.first_count + 1)
        progress.first_count += 1
        progress.recent_loss = progress.first_loss
        return
    progress.recent_loss += 0.02 * (total - progress.recent_loss)
    if flat_after_steps and progress.step == flat_after_steps and progress.recent_loss > 0.99 * progress.first_loss:
        raise TrainingStopped(
            f"The loss is flat: {progress.first_loss:.5g} over the first 20 steps, {progress.recent_loss:.5g} now, "
            f"after {progress.step} steps. Look at the targets with `poseglass look`, at labels with "
            "`poseglass check`, and try another learning rate. train.flat_after_steps=0 trains on regardless."
        )


def _not_finite(what: str, step: int, values: dict[str, float], lr: float) -> str:
    terms = ", ".join(f"{name} = {value:g}" for name, value in values.items())
    return (
        f"The {what} is not finite at step {step} ({terms}; learning rate {lr:g}). "
        "Lower train.optimizer.lr, lengthen train.schedule.warmup_steps, set train.clip_norm=1.0, "
        "or train.precision='float32'. The last checkpoint is from before."
    )
