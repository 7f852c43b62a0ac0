"""The training loop. What varies is the step: a function from network and batch to named loss terms."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from poseglass.codecs import Codec
from poseglass.core.batch import PoseBatch
from poseglass.core.card import InputSpec
from poseglass.engine.ema import MovingAverage
from poseglass.engine.recipe import OptimizerPart
from poseglass.engine.schedule import Schedule
from poseglass.estimators.topdown import normalise

Step = Callable[[nn.Module, PoseBatch], dict[str, Tensor]]
"""Network and batch (images normalised) to named, weighted loss terms; their sum is minimised."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class TrainingStopped(RuntimeError):
    """Training cannot go on usefully; the message says why and what to try."""


def supervised(codec: Codec, loss: Loss) -> Step:
    """Return the ordinary step: the same target for every stage (intermediate supervision), equal weight.

    Source:
        Newell et al. 2016, section 3.2.
    """

    def step(network: nn.Module, batch: PoseBatch) -> dict[str, Tensor]:
        targets = codec.encode(batch)
        stages = network(batch.images)
        return {
            f"heatmap/{i}": loss(stage["heatmap"], targets["heatmap"], targets["weight"])
            for i, stage in enumerate(stages)
        }

    return step


def make_optimizer(network: nn.Module, part: OptimizerPart) -> torch.optim.Optimizer:
    """Make the optimiser; biases and normalisation (one-dimensional weights) are not decayed."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": part.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if part.name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=part.lr, alpha=part.alpha, eps=part.eps, momentum=part.momentum)
    if part.name == "sgd":
        return torch.optim.SGD(groups, lr=part.lr, momentum=part.momentum, fused=True)
    kind = torch.optim.AdamW if part.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=part.lr, betas=part.betas, eps=part.eps, fused=True)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in: "auto" takes bfloat16 where the processor has it.

    Without the instructions bfloat16 is emulated and several times slower than float32.
    """
    if wanted == "float32":
        return torch.float32
    if wanted == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    return torch.float32


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved in every checkpoint.

    Args:
        step: Optimiser steps done.
        images: Crops seen in the present epoch by this process.
        sums: Sums of each loss term over the present epoch's steps.
        steps_summed: Number of steps in those sums.
        first_loss: Mean total loss of the first steps, the yardstick of the flat-loss stop.
        first_count: Steps in that mean.
        recent_loss: Moving average of the total loss.
        rows: The curve so far, a row an epoch.
        best: Best figure so far.
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
    best: float = -math.inf
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        """Return plain numbers for a checkpoint."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        """Rebuild what ``state`` gave."""
        return cls(**state)


class Listener(Protocol):
    """Is told how training goes; draws a bar, writes files."""

    def on_step(self, progress: Progress, terms: dict[str, float], lr: float) -> None:
        """After every optimiser step; the place to save by time."""
        ...

    def on_epoch(self, progress: Progress, row: dict[str, float]) -> None:
        """After every epoch, with its means; may add figures to the row."""
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
            raise ValueError(f"The checkpoint holds another network than the recipe: {error}") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.restore(state["schedule"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.network.load_state_dict(state["ema"]["network"])
            self.ema.updates = state["ema"]["updates"]
        self.progress = Progress.from_state(state["progress"])
        torch.set_rng_state(state["rng"])


def fit(
    loop: Loop,
    batches: Iterator[PoseBatch],
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
    train_network: nn.Module | None = None,
) -> None:
    """Train until ``total_steps``; goes on from ``loop.progress``.

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
        train_network: What is called instead of ``loop.network``, e.g. its DDP wrapper.

    Raises:
        TrainingStopped: The loss is not finite, or flat.
    """
    progress = loop.progress
    network = train_network if train_network is not None else loop.network
    device = next(loop.network.parameters()).device
    network.train()
    while progress.step < total_steps:
        started = time.perf_counter()
        batch = next(batches)
        factor = loop.schedule.factor(progress.step)
        for group in loop.optimizer.param_groups:
            group["lr"] = base_lr * factor
        batch = batch.to(device)
        batch.images = normalise(batch.images, spec)
        autocast: AbstractContextManager = (
            torch.autocast(device.type, precision) if precision != torch.float32 else nullcontext()
        )
        with autocast:
            terms = step(network, batch)
        loss = torch.stack(list(terms.values())).sum()
        values = {name: float(value.detach()) for name, value in terms.items()}
        total = sum(values.values())
        if not math.isfinite(total):
            raise TrainingStopped(_not_finite(progress.step, values, base_lr * factor))
        loop.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(loop.network.parameters(), clip_norm)
        loop.optimizer.step()
        if loop.ema is not None:
            loop.ema.update(loop.network)
        progress.step += 1
        progress.images += len(batch)
        progress.steps_summed += 1
        for name, value in values.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.seconds += time.perf_counter() - started
        _watch_flat(progress, total, flat_after_steps)
        epoch_ends = progress.step % steps_per_epoch == 0
        if not epoch_ends:
            listener.on_step(progress, values, base_lr * factor)
            continue
        means = {name: value / progress.steps_summed for name, value in progress.sums.items()}
        row = {
            "epoch": float(progress.step // steps_per_epoch),
            "step": float(progress.step),
            "lr": base_lr * factor,
            "loss": sum(means.values()),
            **means,
            "train_seconds": progress.seconds,
        }
        progress.rows.append(row)
        progress.sums, progress.steps_summed, progress.images = {}, 0, 0
        listener.on_epoch(progress, row)
        network.train()


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
            f"after {progress.step} steps. Look at the targets with `poseglass look`, at labels with `poseglass check`, "
            "and try another learning rate. train.flat_after_steps=0 trains on regardless."
        )


def _not_finite(step: int, values: dict[str, float], lr: float) -> str:
    terms = ", ".join(f"{name} = {value:g}" for name, value in values.items())
    return (
        f"The loss is not finite at step {step} ({terms}; learning rate {lr:g}). "
        "Lower train.optimizer.lr, lengthen train.schedule.warmup_steps, set train.clip_norm=1.0, "
        "or train.precision='float32'. The last checkpoint is from before."
    )
