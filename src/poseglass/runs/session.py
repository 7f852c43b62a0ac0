"""A training run: trains, evaluates, and writes the curve, checkpoints, weights and report."""

import errno
import itertools
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import poseglass
from poseglass.codecs import Codec
from poseglass.core.card import WeightCard
from poseglass.core.environment import made_with, source_commit
from poseglass.core.sample import Dataset, classes_of
from poseglass.core.targets import RawBatch
from poseglass.data.examples import Examples
from poseglass.data.loader import PlaceSampler, load_batches
from poseglass.estimators.chips import Chips
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.weights_file import save_weights
from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.evaluate import Evaluation, evaluate
from poseglass.evaluation.found import evaluate_found
from poseglass.evaluation.mpii import MpiiProtocol
from poseglass.metrics import METRICS
from poseglass.metrics.metric import Metric, is_new_best
from poseglass.networks.widths import Widths
from poseglass.programs.torch_program import TorchProgram
from poseglass.runs.build import (
    make,
    protocol_of,
)
from poseglass.runs.finish import finish
from poseglass.runs.folder import RunFolder
from poseglass.runs.recipe import Recipe
from poseglass.training.checkpoint import save_checkpoint
from poseglass.training.criterion import Criterion, supervised
from poseglass.training.distributed import ALONE, Processes
from poseglass.training.loop import Interrupted, Loop, Progress, TrainingStopped, fit
from poseglass.training.monitor import Monitor
from poseglass.training.signals import asked_to_stop
from poseglass.training.tensorboard import Board
from poseglass.transforms.chips import ChipRule

RETRY_SECONDS = 30.0
"""Time after a failed save until the next attempt."""


@dataclass(slots=True)
class Run:
    """A run that is ready to train; made by ``prepare``."""

    recipe: Recipe
    folder: RunFolder
    loop: Loop
    examples: Examples
    val: Dataset | None
    codec: Codec
    criterion: Criterion
    network_table: dict[str, Any]
    sizes_wh: list[tuple[int, int]]
    steps_per_epoch: int
    device: torch.device
    monitor: Monitor
    processes: Processes = ALONE
    tensorboard: bool = False
    precision: torch.dtype = torch.float32
    note: str = ""
    notes: tuple[str, ...] = ()
    on_epoch: Callable[[dict[str, float]], None] | None = None
    on_step: Callable[[Progress, dict[str, float], float], None] | None = None
    on_warning: Callable[[str], None] = logging.getLogger("poseglass").warning
    widths: Widths = field(default_factory=dict)
    negative_chips: str = ""
    _save_at: float = field(init=False)
    _saved_step: int = field(init=False)
    _unsaved: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._save_at = time.monotonic() + self.recipe.train.checkpoint_seconds
        self._saved_step = self.loop.progress.step

    @property
    def total_steps(self) -> int:
        """Number of steps in the whole run."""
        return self.steps_per_epoch * self.recipe.train.epochs

    @property
    def complete(self) -> bool:
        """Whether training is finished."""
        progress = self.loop.progress
        ended = progress.step >= self.total_steps or self.enough
        return ended and not progress.epoch_due(self.steps_per_epoch)

    @property
    def enough(self) -> bool:
        """Whether the last ``train.stop_after`` evaluations gave no new best, which ends training (early stopping).

        It depends only on the curve, so it is the same in all processes and after a resume.
        """
        patience = self.recipe.train.stop_after
        return 0 < patience <= self.monitor.since_best(self.loop.progress.rows)

    @property
    def early_end(self) -> str:
        """A sentence that says when and why training ended before its last epoch; empty if it did not."""
        part, progress = self.recipe.train, self.loop.progress
        if not self.enough or progress.step >= self.total_steps:
            return ""
        best = self.monitor.best_row(progress.rows)
        words = "no value was finite" if best is None else f"the best was in epoch {progress.rows[best]['epoch']:.0f}"
        return (
            f"Training stopped early, after epoch {progress.rows[-1]['epoch']:.0f} of {part.epochs}: no new best "
            f"{self.monitor.name} in {part.stop_after} evaluations (train.stop_after); {words}."
        )

    @property
    def trained(self) -> nn.Module:
        """The network that is evaluated and saved: the moving average if there is one."""
        return self.loop.network if self.loop.ema is None else self.loop.ema.network

    @property
    def made_with(self) -> dict[str, str | int]:
        """What must be the same for the run to resume bit for bit."""
        return made_with(self.device, self.processes.world, self.precision)

    @property
    def flip_test(self) -> bool:
        """Whether evaluation averages with the flipped crop: if the recipe says so and the skeleton can be flipped."""
        return self.recipe.evaluate.flip_test and self.examples.skeleton.mirrors

    @property
    def finds(self) -> bool:
        """Whether the network finds instances in whole images, instead of one in a given box."""
        return self.codec.spec.instances != 1

    @property
    def chip_rule(self) -> ChipRule | None:
        """The rule of the chips that the network is trained on; None if it is trained on something else."""
        return None if self.recipe.data.chips is None else self.recipe.data.chips.rule(self.recipe.input.size_wh)

    def estimator(self, network: nn.Module | None = None) -> TopDownEstimator | OneStageEstimator:
        """Return an estimator, the one that users call, with the current network or with another one."""
        program = TorchProgram(
            network or self.trained, self.codec, self.examples.skeleton, self.recipe.input.spec(self.sizes_wh[-1]),
            flip_test=self.flip_test,
        )  # fmt: skip
        batch_size = self.recipe.evaluate.batch_size
        if self.finds:  # average precision needs low scores too
            chips = None if self.chip_rule is None else Chips(self.chip_rule)
            return OneStageEstimator(program, min_box_score=0.01, batch_size=batch_size, chips=chips)
        return TopDownEstimator(program, batch_size=batch_size)

    @property
    def protocol(self) -> CocoProtocol | MpiiProtocol | None:
        """The evaluation protocol, if the recipe names one."""
        return protocol_of(self.recipe.evaluate)

    def metrics(self) -> list[Metric]:
        """Return new instances of the recipe's metrics."""
        return [make(METRICS, part, "metric") for part in self.recipe.evaluate.metrics]

    def measure(
        self, dataset: Dataset, network: nn.Module | None = None, *, on_image: Callable[[], None] | None = None
    ) -> Evaluation:
        """Evaluate the current network, or another one. All processes must call this; each evaluates its part."""
        estimator, protocol = self.estimator(network), self.protocol
        if isinstance(estimator, OneStageEstimator):
            return evaluate_found(
                estimator, dataset, self.metrics(), on_image=on_image, processes=self.processes,
                classes=classes_of(self.examples.dataset),
            )  # fmt: skip
        if protocol is not None:
            return protocol.evaluate(estimator, dataset, on_image=on_image, processes=self.processes)
        return evaluate(
            estimator, dataset, self.metrics(), on_image=on_image, processes=self.processes,
            classes=classes_of(self.examples.dataset),
        )  # fmt: skip

    def card(self, results: dict[str, float]) -> WeightCard:
        """Return the card for the current weights."""
        return WeightCard(
            name=self.recipe.name,
            network=self.network_table,
            codec=self.recipe.codec,
            skeleton=self.examples.skeleton,
            input=self.recipe.input.spec(self.sizes_wh[-1]),
            results=results,
            recipe=self.recipe.to_toml(),
            commit=source_commit(),
            poseglass=poseglass.__version__,
            widths=self.widths,
            classes=classes_of(self.examples.dataset) if self.finds or not len(self.examples.skeleton) else (),
            chips=() if self.chip_rule is None else tuple(scale.to_card() for scale in self.chip_rule.scales),
        )

    def save(self) -> bool:
        """Write a checkpoint; if that fails, warn, and keep the previous one.

        Returns:
            Whether it was written.

        Raises:
            TrainingStopped: A weight is NaN or infinite; no checkpoint is written in that case.
        """
        bad = self.loop.not_finite()
        if bad:
            raise TrainingStopped(
                f"After step {self.loop.progress.step} {len(bad)} weights are not finite, {bad[0]!r} first. Set "
                f"train.clip_norm=1.0 or lower train.optimizer.lr. The checkpoint of step {self._saved_step} is intact."
            )
        state = self._state()
        written = self._write("checkpoint", lambda: save_checkpoint(self.folder.checkpoint, state))
        wait = self.recipe.train.checkpoint_seconds
        self._save_at = time.monotonic() + (wait if written else min(wait, RETRY_SECONDS))
        if written:
            self._saved_step = self.loop.progress.step
        return written

    def _state(self) -> dict[str, Any]:
        """Return what a later process needs to resume."""
        # "made_with" tells whether that is possible bit for bit, "widths" how to build the network, and the digest
        # "negative_chips" whether their file is still the same
        more = {"made_with": self.made_with, "widths": self.widths, "negative_chips": self.negative_chips}
        return {**self.loop.state(), **more}

    def _write(self, what: str, work: Callable[[], None]) -> bool:
        """Write a file if possible; warn at the first of consecutive failures, and when writing works again."""
        try:
            work()
        except OSError as error:
            if what not in self._unsaved:
                self.on_warning(
                    f"The {what} could not be written to {self.folder.path} ({_reason(error)}). Training continues and "
                    "will try again; the previous file is untouched."
                )
            self._unsaved.add(what)
            return False
        if what in self._unsaved:
            self._unsaved.remove(what)
            self.on_warning(f"The {what} could be written again.")
        return True

    def train(self) -> Evaluation | None:
        """Train to the end, with checkpoints; then evaluate the best weights and write the report.

        Returns:
            The evaluation of the best weights on the validation set, if there is one; in the first process only.

        Raises:
            TrainingStopped: The loss is not finite, or flat.
            KeyboardInterrupt: The user asked to stop; a checkpoint has been saved.
            OSError: The weights could not be written at the end.
        """
        if not self.complete:
            with asked_to_stop() as asked:
                self._fit(asked)
        self.processes.once(self._write_now)
        return finish(self)

    def rehearse(self, steps: int, size_wh: tuple[int, int]) -> float:
        """Train a few steps at a crop size, without evaluation or files; return the median time of a step in seconds.

        This changes the weights, so the run must not be trained afterwards.

        Args:
            steps: At least 2, of which the first is not timed; limited to the steps of the run.
            size_wh: Crop size, one of those in the recipe.

        Returns:
            The time in the first process; NaN in the others.
        """
        times: list[float] = []
        told, self.on_step = self.on_step, lambda progress, _terms, _lr: times.append(progress.seconds)
        self._save_at = math.inf
        self.loop.progress = Progress()
        try:
            with asked_to_stop() as asked:
                self._fit(asked, until=min(steps, self.total_steps), sizes_wh=[size_wh] * len(self.sizes_wh))
        finally:
            self.on_step = told
        laps = [after - before for before, after in itertools.pairwise(times)]
        return statistics.median(laps or times or [math.nan])

    def _fit(
        self,
        asked: Callable[[], bool],
        *,
        until: int | None = None,
        sizes_wh: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        part, processes = self.recipe.train, self.processes
        sampler = PlaceSampler(
            len(self.examples), batch_size=part.batch_size, sizes_wh=sizes_wh or self.sizes_wh, seed=self.recipe.seed,
            start_step=self.loop.progress.step, rank=processes.rank, world=processes.world,
        )  # fmt: skip
        # Starting a loader draws a number from torch's generator, which would differ in a resumed run.
        generator = torch.get_rng_state()
        batches = load_batches(self.examples, sampler, workers=part.workers)
        torch.set_rng_state(generator)
        board = None
        try:
            if self.tensorboard and processes.first:
                board = Board(self.folder.path, start_step=self.loop.progress.step)
            fit(
                self.loop,
                self._told_plainly(batches),
                supervised(self.codec, self.criterion),
                _Keeper(self, asked, board),
                spec=self.recipe.input.spec(),
                steps_per_epoch=self.steps_per_epoch
                if until is None
                else until + 1,  # the end of an epoch is evaluated
                total_steps=self.total_steps if until is None else until,
                base_lr=part.optimizer.lr,
                precision=self.precision,
                clip_norm=part.clip_norm,
                # with initial weights the loss is low already and decreases little
                flat_after_steps=0 if part.init_from else part.flat_after_steps,
                freeze_norms=part.freeze_norms,
                frozen=[self.loop.network.get_submodule(name) for name in part.frozen],
                processes=processes,
            )
        except Interrupted:
            if processes.first and not self.save():
                raise Interrupted(
                    f"the checkpoint of step {self.loop.progress.step} could not be written, but that of step "
                    f"{self._saved_step} is kept"
                ) from None
            raise
        finally:
            batches.close()
            if board is not None:
                board.close()

    def _told_plainly(self, batches: Iterator[RawBatch]) -> Iterator[RawBatch]:
        """Yield the batches; an error in a loader process is raised with its original message, after a checkpoint."""
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (ValueError, LookupError, OSError, RuntimeError) as error:
                if self.processes.first:
                    self.save()
                raise _own_words(error) from error
            yield batch

    def _write_now(self) -> None:
        """Write at the end any files that could not be written during training.

        Raises:
            OSError: Writing still fails.
        """
        if not self._unsaved:
            return
        try:
            save_checkpoint(self.folder.checkpoint, self._state())
            self.folder.write_curve(self.loop.progress.rows)
        except OSError as error:
            raise OSError(
                f"All {self.loop.progress.step} steps are done, but the last checkpoint could not be written to "
                f"{self.folder.path} ({_reason(error)}). Free some space, then run again with --resume, which repeats "
                f"the steps after step {self._saved_step}."
            ) from error
        self._unsaved.clear()


class _Keeper:
    """Keeps the run folder up to date during training, and calls the run's callbacks. Only the first process writes."""

    def __init__(self, run: Run, asked: Callable[[], bool], board: Board | None) -> None:
        self.run, self.stop_wanted, self.board = run, asked, board

    def on_step(self, progress: Progress, terms: dict[str, float], lr: float) -> None:
        run = self.run
        if not run.processes.first:
            return
        if run.on_step is not None:
            run.on_step(progress, terms, lr)
        if self.board is not None and progress.step % 20 == 0:
            self.board.write({"train/loss": sum(terms.values()), "train/lr": lr}, progress.step)
        if time.monotonic() > run._save_at:
            run.save()

    def measure(self, progress: Progress, row: dict[str, float]) -> None:
        run, part = self.run, self.run.recipe.evaluate
        if run.val is None or not part.measures:
            run.loop.schedule.observe(row[run.monitor.column])
            return
        last = progress.step >= run.total_steps
        if int(row["epoch"]) % part.every_epochs and not last:
            return
        results = run.measure(run.val, on_image=self._leave_if_asked).results
        row |= {f"val/{name}": value for name, value in results.items()}
        value = row[run.monitor.column]
        run.loop.schedule.observe(value)
        if run.processes.first and is_new_best(value, progress.best, run.monitor.better):
            card = run.card({f"val {k}": v for k, v in results.items()})
            if run._write("best weights", lambda: save_weights(run.folder.best, run.trained.state_dict(), card)):
                progress.best = value

    def on_epoch(self, progress: Progress, row: dict[str, float]) -> None:
        run = self.run
        if not run.processes.first:
            return
        run._write("curve", lambda: run.folder.write_curve(progress.rows))
        run.save()
        if self.board is not None:
            self.board.write({k: v for k, v in row.items() if k not in ("epoch", "step")}, progress.step, flush=True)
        if run.on_epoch is not None:
            run.on_epoch(row)

    def enough(self, progress: Progress) -> bool:
        return self.run.enough

    def _leave_if_asked(self) -> None:
        if self.stop_wanted():
            raise Interrupted


def _reason(error: OSError) -> str:
    """Return the reason why a file could not be written, such as "No space left on device"."""
    number = error.errno
    return str(error) if number is None or number not in errno.errorcode else os.strerror(number)


def _own_words(error: Exception) -> Exception:
    """Return an error of a loader process without the traceback that the loader adds to its message."""
    text = str(error)
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return RuntimeError(
            f"{text.splitlines()[0]} The system may have killed it because memory ran out: lower train.workers or "
            "train.batch_size, or set train.workers=0 to see its error."
        )
    if not text.startswith("Caught "):
        return error
    own = text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
    return type(error)(own or text)
