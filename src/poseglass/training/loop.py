"""The training loop. It is independent of the task: the step maps a network and a batch to named loss terms."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from poseglass.core.input_spec import InputSpec
from poseglass.core.targets import RawBatch
from poseglass.layers.synchronised_norm import BATCH_NORMS
from poseglass.programs.normalise import model_input
from poseglass.training.criterion import Step
from poseglass.training.distributed import ALONE, Processes
from poseglass.training.ema import MovingAverage
from poseglass.training.optimizer import backbone_of
from poseglass.training.schedule import Schedule

ZERO_STEPS = 20
"""Consecutive steps with a loss of exactly 0 that end training: a single batch may have no visible keypoint."""


class TrainingStopped(RuntimeError):
    """Training cannot usefully continue; the message says why and what to try."""


class Interrupted(KeyboardInterrupt):
    """The user asked training to stop (Ctrl-C, SIGTERM), and it stopped between two steps."""


@dataclass(slots=True)
class Progress:
    """Progress of a run; saved in every checkpoint.

    Args:
        step: Optimiser steps done.
        images: Crops seen in the current epoch, by all processes together.
        sums: Sum of each loss term over the steps of the current epoch.
        steps_summed: Number of steps in those sums.
        first_loss: Mean total loss of the first steps, the reference for the flat-loss stop.
        first_count: Steps in that mean.
        recent_loss: Moving average of the total loss.
        rows: The curve so far, one row per epoch; the last row is missing while its evaluation is due.
        best: Monitored value of the best weights saved; None before there are any. Known to the first process only.
        seconds: Training time so far, including that before a resume.
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
        """Restore what ``state`` returned."""
        return cls(**state)

    def epoch_due(self, steps_per_epoch: int) -> bool:
        """Whether the last epoch's steps are done but its row is not in the curve yet."""
        epochs, rest = divmod(self.step, steps_per_epoch)
        return rest == 0 and len(self.rows) < epochs


class Listener(Protocol):
    """Callbacks of training: draws a progress bar, evaluates, writes files, forwards a request to stop."""

    def stop_wanted(self) -> bool:
        """Whether a stop was requested; called after every step."""
        ...

    def on_step(self, progress: Progress, terms: dict[str, float], lr: float) -> None:
        """Called after every optimiser step except the last of an epoch; the place to save at intervals."""
        ...

    def measure(self, progress: Progress, row: dict[str, float]) -> None:
        """Add results to the row of a finished epoch. If it raises, nothing else may have changed."""
        ...

    def on_epoch(self, progress: Progress, row: dict[str, float]) -> None:
        """Called after every epoch, when its row is in the curve; the place to save."""
        ...

    def enough(self, progress: Progress) -> bool:
        """Whether training ends here; called after every epoch, with the same answer in all processes."""
        ...


@dataclass(slots=True)
class Loop:
    """The state that ``fit`` updates: the parts that a checkpoint holds."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: MovingAverage | None
    progress: Progress

    def state(self) -> dict[str, Any]:
        """Return everything that a run needs to resume bit for bit."""
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
        """Restore what ``state`` returned.

        Raises:
            ValueError: The checkpoint belongs to another network.
        """
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError as error:
            words = " ".join(str(error).split())
            raise ValueError(f"The checkpoint's network differs from the recipe's: {words}") from None
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
    freeze_norms: bool = False,
    frozen: Sequence[nn.Module] = (),
    processes: Processes = ALONE,
) -> None:
    """Train from ``loop.progress`` until ``total_steps``, or until the listener ends training.

    Several processes each train on their part of every batch: gradients are averaged over them, and so are the losses
    that are logged and checked, so all of them take the same steps and stop together.

    Args:
        loop: Network, optimiser, schedule, moving average and progress; changed in place.
        batches: Yields the batches from ``loop.progress.step`` on; images uint8 ``(B, H, W, 3)``.
        step: Maps network and batch to loss terms.
        listener: Called after each step and each epoch.
        spec: Normalisation of the images.
        steps_per_epoch: Number of steps in an epoch.
        total_steps: Number of steps in the whole run.
        base_lr: Learning rate that the schedule's factor multiplies.
        precision: Data type of autocast; float32 switches it off.
        clip_norm: Largest gradient norm, 0 for no clipping.
        flat_after_steps: Stop if the loss has not decreased by 1 % after this many steps, 0 for never.
        freeze_norms: Whether the batch norms of the network's ``backbone`` use their stored statistics and keep them;
            their scales and offsets are trained all the same.
        frozen: Modules that stay in evaluation mode; see ``optimizer.freeze``.
        processes: Processes of the run.

    Raises:
        ValueError: ``freeze_norms`` for a network without a backbone.
        TrainingStopped: The loss is not finite, flat, or exactly 0 in ``ZERO_STEPS`` consecutive steps.
        Interrupted: The listener requested a stop; every part of ``loop`` is as after a complete step.
    """
    progress = loop.progress
    device = next(loop.network.parameters()).device
    network = parallel(loop.network, device, processes)
    kept = backbone_of(loop.network, "train.freeze_norms") if freeze_norms else None
    _train_mode(network, kept, frozen)
    names: list[str] | None = None
    zeros = 0
    while True:
        if progress.epoch_due(steps_per_epoch):
            _end_epoch(loop, listener, steps_per_epoch, base_lr)
            _train_mode(network, kept, frozen)
            if listener.enough(progress):
                return
        if progress.step >= total_steps:
            return
        started = time.perf_counter()
        batch = next(batches)
        lr = base_lr * loop.schedule.factor(progress.step)
        for group in loop.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
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
                f"mix: {', '.join(names)} first, {', '.join(terms)} at step {progress.step}. Return 0 for a term that "
                "does not apply."
            )
        loss = torch.stack(list(terms.values())).sum()
        loop.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The losses of all processes, and whether any of them was asked to stop: one message per step, and on a GPU
        # one synchronisation per step, when forward and backward are already under way.
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
                f"The loss is exactly 0 in {zeros} consecutive steps, up to step {progress.step}, so nothing is "
                "learnt. Either no labelled keypoint lies in the crops, or every weight of the loss is 0. Look at the "
                "crops with `poseglass look`, and check the labels with `poseglass check`."
            )
        _watch_flat(progress, total, flat_after_steps)
        if stop:
            raise Interrupted
        if progress.step % steps_per_epoch:
            listener.on_step(progress, values, lr)


def _train_mode(network: nn.Module, kept: nn.Module | None, frozen: Sequence[nn.Module]) -> None:
    """Set a network to training mode, except for the batch norms in ``kept``, and for frozen modules."""
    network.train()
    for module in frozen:
        module.eval()
    for module in () if kept is None else kept.modules():
        if isinstance(module, BATCH_NORMS):
            module.eval()


def parallel(network: nn.Module, device: torch.device, processes: Processes) -> nn.Module:
    """Return the network itself for one process, else a wrapper that averages gradients over processes."""
    if processes.world == 1:
        return network
    # Buffers are batch norm's statistics, which synchronised norms keep equal in all processes.
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # its replacement is not in every PyTorch 2.13
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
            f"after {progress.step} steps. Look at the targets with `poseglass look`, check the labels with "
            "`poseglass check`, and try another learning rate. train.flat_after_steps=0 disables this check."
        )


def _not_finite(what: str, step: int, values: dict[str, float], lr: float) -> str:
    terms = ", ".join(f"{name} = {value:g}" for name, value in values.items())
    return (
        f"The {what} is not finite at step {step} ({terms}; learning rate {lr:g}). "
        "Lower train.optimizer.lr, lengthen train.schedule.warmup_steps, set train.clip_norm=1.0, "
        "or train.precision='float32'. The last checkpoint was written before this step."
    )
