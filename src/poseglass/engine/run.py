"""A training run: from a recipe to a folder with curve, checkpoints, weights and report."""

import dataclasses
import errno
import itertools
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import poseglass
from poseglass.codecs import CODECS, Codec
from poseglass.core.batch import PoseBatch
from poseglass.core.card import WeightCard
from poseglass.core.precision import guarded_precision
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.engine.assemble import (
    choose_device,
    crop_sizes,
    make,
    make_crops,
    make_network,
    training_data,
    validation_data,
)
from poseglass.engine.checkpoint import load_checkpoint, save_checkpoint
from poseglass.engine.checks import (
    check_best,
    check_end,
    check_evaluation,
    check_loss,
    check_occluded,
    check_shapes,
    check_unchanged,
    loss_terms,
)
from poseglass.engine.crops import Crops, PlaceSampler, load_batches
from poseglass.engine.ema import MovingAverage
from poseglass.engine.environment import changed_circumstances, made_with, source_commit
from poseglass.engine.evaluate import Evaluation, evaluate
from poseglass.engine.finish import finish
from poseglass.engine.processes import ALONE, Processes, from_environment, join
from poseglass.engine.protocols import CocoProtocol, MpiiProtocol, protocol_of
from poseglass.engine.recipe import Recipe, RecipeError
from poseglass.engine.run_folder import RunFolder
from poseglass.engine.schedule import Schedule
from poseglass.engine.signals import asked_to_stop
from poseglass.engine.tensorboard import Board, check_installed
from poseglass.engine.train import (
    Interrupted,
    Loop,
    Progress,
    TrainingStopped,
    choose_precision,
    fit,
    make_optimizer,
    supervised,
)
from poseglass.estimators.load import find_weights
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.weights import listed, load_backbone, load_matching, read_weights, save_weights
from poseglass.layers.synchronised_norm import synchronise_norms
from poseglass.metrics import METRICS
from poseglass.metrics.metric import Metric

RETRY_SECONDS = 30.0
"""How long after a failed save the next one is tried."""


@dataclass(slots=True)
class Run:
    """A run that is ready to train; made by ``prepare``."""

    recipe: Recipe
    folder: RunFolder
    loop: Loop
    crops: Crops
    val: Dataset | None
    codec: Codec
    network_table: dict[str, Any]
    sizes_wh: list[tuple[int, int]]
    steps_per_epoch: int
    device: torch.device
    processes: Processes = ALONE
    tensorboard: bool = False
    precision: torch.dtype = torch.float32
    note: str = ""
    on_epoch: Callable[[dict[str, float]], None] | None = None
    on_step: Callable[[Progress, dict[str, float], float], None] | None = None
    on_warning: Callable[[str], None] = logging.getLogger("poseglass").warning
    _save_at: float = field(init=False)
    _saved_step: int = field(init=False)
    _unsaved: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._save_at = time.monotonic() + self.recipe.train.checkpoint_seconds
        self._saved_step = self.loop.progress.step

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.steps_per_epoch * self.recipe.train.epochs

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train."""
        progress = self.loop.progress
        return progress.step >= self.total_steps and not progress.epoch_due(self.steps_per_epoch)

    @property
    def trained(self) -> nn.Module:
        """The network whose figures count: the moving average where there is one."""
        return self.loop.network if self.loop.ema is None else self.loop.ema.network

    @property
    def made_with(self) -> dict[str, str | int]:
        """What has to be the same for the run to go on bit for bit."""
        return made_with(self.device, self.processes.world, self.precision)

    def estimator(self, network: nn.Module | None = None) -> TopDownEstimator:
        """Return the user's estimator over the weights as they stand, or over others."""
        return TopDownEstimator(
            network or self.trained, self.codec, self.crops.skeleton, self.recipe.input.spec(self.sizes_wh[-1]),
            flip_test=self.recipe.evaluate.flip_test, batch_size=self.recipe.evaluate.batch_size,
        )  # fmt: skip

    @property
    def protocol(self) -> CocoProtocol | MpiiProtocol | None:
        """The published protocol that the recipe measures by, if it names one."""
        return protocol_of(self.recipe.evaluate)

    def metrics(self) -> list[Metric]:
        """Return fresh metrics of the recipe."""
        return [make(METRICS, part, "metric") for part in self.recipe.evaluate.metrics]

    def measure(
        self, dataset: Dataset, network: nn.Module | None = None, *, on_image: Callable[[], None] | None = None
    ) -> Evaluation:
        """Evaluate the weights as they stand, or others."""
        if self.protocol is not None:
            return self.protocol.evaluate(self.estimator(network), dataset, on_image=on_image)
        return evaluate(self.estimator(network), dataset, self.metrics(), on_image=on_image)

    def card(self, results: dict[str, float]) -> WeightCard:
        """Return the card for the weights as they stand."""
        return WeightCard(
            name=self.recipe.name,
            network=self.network_table,
            codec=self.recipe.codec,
            skeleton=self.crops.skeleton,
            input=self.recipe.input.spec(self.sizes_wh[-1]),
            results=results,
            recipe=self.recipe.to_toml(),
            commit=source_commit(),
            poseglass=poseglass.__version__,
        )

    def save(self) -> bool:
        """Write the checkpoint now; where that fails, say so, and leave the one before as it is.

        Returns:
            Whether it was written.

        Raises:
            TrainingStopped: A weight is NaN or infinite; no checkpoint is made of that.
        """
        bad = self.loop.not_finite()
        if bad:
            raise TrainingStopped(
                f"After step {self.loop.progress.step} {len(bad)} weights are not finite, {bad[0]!r} first. Set "
                f"train.clip_norm=1.0 or lower train.optimizer.lr. The checkpoint of step {self._saved_step} is whole."
            )
        # "made_with" tells a later process whether it can go on bit for bit
        state = {**self.loop.state(), "made_with": self.made_with}
        written = self._write("checkpoint", lambda: save_checkpoint(self.folder.checkpoint, state))
        wait = self.recipe.train.checkpoint_seconds
        self._save_at = time.monotonic() + (wait if written else min(wait, RETRY_SECONDS))
        if written:
            self._saved_step = self.loop.progress.step
        return written

    def _write(self, what: str, work: Callable[[], None]) -> bool:
        """Write a file if that is possible; the first failure in a row is told, and when it works again."""
        try:
            work()
        except OSError as error:
            if what not in self._unsaved:
                self.on_warning(
                    f"The {what} could not be written to {self.folder.path} ({_reason(error)}). Training goes on and "
                    "tries again; what was there before is untouched."
                )
            self._unsaved.add(what)
            return False
        if what in self._unsaved:
            self._unsaved.remove(what)
            self.on_warning(f"The {what} could be written again.")
        return True

    def train(self) -> Evaluation | None:
        """Train to the end, saving on the way; then measure the best weights and write the report.

        Returns:
            What the best weights reach on the validation set, if there is one; in the first process only.

        Raises:
            TrainingStopped: The loss is not finite, or flat.
            KeyboardInterrupt: Somebody asked to stop; a checkpoint has been kept.
            OSError: At the end the weights could not be written.
        """
        if not self.complete:
            with asked_to_stop() as asked:
                self._fit(asked)
        evaluation: list[Evaluation | None] = []

        def end() -> None:
            if self._unsaved:
                self._write_now()
            evaluation.append(finish(self))

        # the others wait: a process that leaves early pulls the rug from under those that still write
        self.processes.once(end)
        return evaluation[0] if evaluation else None

    def rehearse(self, steps: int, size_wh: tuple[int, int]) -> float:
        """Make the first steps at a crop size, without evaluation or files; return the median of their seconds.

        The weights are those after the steps: this run is not to be trained further.

        Args:
            steps: At least 2, of which the first is not timed; no more than the run has.
            size_wh: Of the crops, one of those of the recipe.

        Returns:
            NaN in all processes but the first, which are not told.
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
            len(self.crops), batch_size=part.batch_size, sizes_wh=sizes_wh or self.sizes_wh, seed=self.recipe.seed,
            start_step=self.loop.progress.step, rank=processes.rank, world=processes.world,
        )  # fmt: skip
        # Starting a loader draws a number from torch's generator, at another place in a run that goes on.
        generator = torch.get_rng_state()
        batches = load_batches(self.crops, sampler, workers=part.workers)
        torch.set_rng_state(generator)
        board = None
        try:
            if self.tensorboard and processes.first:
                board = Board(self.folder.path, start_step=self.loop.progress.step)
            fit(
                self.loop,
                self._told_plainly(batches),
                supervised(
                    self.codec,
                    loss_terms(self.recipe.loss, self.codec, self.recipe.input.size_wh),
                    sigmas=self.recipe.stage_sigmas,
                    occluded=self.recipe.stage_occluded,
                ),
                _Keeper(self, asked, board),
                spec=self.recipe.input.spec(),
                steps_per_epoch=self.steps_per_epoch if until is None else until + 1,  # an epoch's end is measured
                total_steps=self.total_steps if until is None else until,
                base_lr=part.optimizer.lr,
                precision=self.precision,
                clip_norm=part.clip_norm,
                # weights to start from have a low loss already, which falls by little
                flat_after_steps=0 if part.start_from else part.flat_after_steps,
                processes=processes,
            )
        except Interrupted:
            if processes.first and not self.save():
                raise Interrupted(
                    f"the checkpoint of step {self.loop.progress.step} could not be written, that of step "
                    f"{self._saved_step} is kept"
                ) from None
            raise
        finally:
            batches.close()
            if board is not None:
                board.close()

    def _told_plainly(self, batches: Iterator[PoseBatch]) -> Iterator[PoseBatch]:
        """Yield the batches; an error of a loader process is raised in its own words, after a checkpoint."""
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
        """Write at the end what could not be written on the way.

        Raises:
            OSError: Still not possible.
        """
        try:
            save_checkpoint(self.folder.checkpoint, {**self.loop.state(), "made_with": self.made_with})
            self.folder.write_curve(self.loop.progress.rows)
        except OSError as error:
            raise OSError(
                f"All {self.total_steps} steps are done, but the last checkpoint could not be written to "
                f"{self.folder.path} ({_reason(error)}). Make room, then --resume: it repeats the steps after step "
                f"{self._saved_step}."
            ) from error
        self._unsaved.clear()


class _Keeper:
    """Keeps the folder up to date while a run trains, and passes on what happens. Only the first process writes."""

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
            run.loop.schedule.observe(-row["loss"])
            return
        last = progress.step >= run.total_steps
        if int(row["epoch"]) % part.every_epochs and not last:
            return
        figures: dict[str, float] | None = None
        if run.processes.first:
            try:
                figures = run.measure(run.val, on_image=self._leave_if_asked).figures
            except Interrupted:
                figures = None
        figures = run.processes.share(figures)
        if figures is None:
            raise Interrupted
        row |= {f"val/{name}": value for name, value in figures.items()}
        chosen = figures[part.choose or next(iter(figures))]
        run.loop.schedule.observe(chosen)
        if chosen > progress.best and run.processes.first:
            card = run.card({f"val {k}": v for k, v in figures.items()})
            if run._write("best weights", lambda: save_weights(run.folder.best, run.trained.state_dict(), card)):
                progress.best = chosen

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

    def _leave_if_asked(self) -> None:
        if self.stop_wanted():
            raise Interrupted


def _reason(error: OSError) -> str:
    """Return why a file could not be written: "No space left on device"."""
    number = error.errno
    return str(error) if number is None or number not in errno.errorcode else os.strerror(number)


def _own_words(error: Exception) -> Exception:
    """Return an error of a loader process without the traceback that the loader wraps it in."""
    text = str(error)
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return RuntimeError(
            f"{text.splitlines()[0]} The system may have ended it for want of memory: lower train.workers or "
            "train.batch_size, or set train.workers=0 to see what it says."
        )
    if not text.startswith("Caught "):
        return error
    own = text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
    return type(error)(own or text)


def prepare(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    processes: Processes | None = None,
) -> Run:
    """Read the data, build the network, check all that can be checked, and open or reopen the run folder.

    Args:
        recipe: In full.
        folder: Of the run; new, unless resuming.
        resume: Go on from the folder's checkpoint, or from the beginning where none was written.
        device: "auto", "cpu", "cuda", ...
        tensorboard: Write event files too.
        processes: Of the run; None asks the environment, as torchrun sets it.

    Raises:
        RecipeError, LookupError, ValueError, RuntimeError, OSError: In the words of what went wrong; a new run's
            folder has not been made then.
    """
    processes = from_environment() if processes is None else processes
    part = recipe.train
    run_folder = RunFolder(folder)
    target = choose_device(device, processes)
    if part.batch_size % processes.world:
        raise RecipeError(
            f"train.batch_size is {part.batch_size}, which does not divide among {processes.world} processes. "
            f"Set it to a multiple of {processes.world}."
        )
    if tensorboard:
        check_installed()
    join(processes, target)
    state = None
    if resume:
        check_unchanged(recipe, run_folder)
        processes.once(run_folder.reopen)
        # a run that was ended before its first checkpoint goes on from its beginning
        state = load_checkpoint(run_folder.checkpoint) if run_folder.checkpoint.exists() else None
    torch.manual_seed(recipe.seed)
    codec = make(CODECS, recipe.codec, "codec")
    check_loss(recipe.loss, codec, recipe.input.size_wh, recipe.stage_sigmas)
    crops = make_crops(recipe, training_data(recipe))
    if recipe.data.cache_gb > 0:
        crops = crops.cached(int(recipe.data.cache_gb * 1e9))
    check_occluded(recipe, crops.labels)
    val = validation_data(recipe)
    check_evaluation(recipe, val, crops.skeleton)
    network, table = make_network(recipe, crops.skeleton)
    sizes = crop_sizes(recipe)
    check_shapes(network, codec, sizes, recipe)
    steps_per_epoch = len(crops) // part.batch_size
    if steps_per_epoch < 1:
        raise RecipeError(
            f"train.batch_size is {part.batch_size}, but there are only {len(crops)} people. "
            f"Set it to at most {len(crops)}."
        )
    progress = Progress() if state is None else Progress.from_state(state["progress"])
    moved = processes.once(lambda: _move_end(run_folder, recipe, progress, steps_per_epoch)) if resume else ""
    started = ""
    if part.start_from is not None and state is None:
        weights, card = read_weights(find_weights(part.start_from))
        started = _start(network, weights, card, crops.skeleton, f"{card.name} ({part.start_from})")
    if processes.world > 1:
        network = synchronise_norms(network, target)
    network = network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = Loop(
        network,
        make_optimizer(network, part.optimizer),
        Schedule(part.schedule, steps_per_epoch * part.epochs, steps_per_epoch),
        MovingAverage(network, part.ema_decay) if part.ema_decay and processes.first else None,
        Progress(),
    )
    if state is not None:
        loop.restore(state)
    elif not resume:
        processes.once(lambda: run_folder.create(recipe))
    precision, doubt = guarded_precision(choose_precision(part.precision, target), network, sizes, target)
    run = Run(
        recipe, run_folder, loop, crops, val, codec, table, sizes, steps_per_epoch, target, processes, tensorboard,
        precision,
    )  # fmt: skip
    run.note = " ".join(words for words in (started, doubt) if words)
    if state is not None and processes.first:
        changed = changed_circumstances(state.get("made_with"), run.made_with)
        run.note = " ".join(words for words in (moved, changed, doubt) if words)
        run._write("curve", lambda: run_folder.write_curve(loop.progress.rows))
    return run


def _check_same_backbone(card: WeightCard, backbone: object) -> None:
    """Raise if a network has another variant of a backbone than its weights are of, which shapes may not show.

    Raises:
        RecipeError: With the number and the card's value of it.
    """
    for key in ("order", "eps"):
        value = card.network.get(key)
        if value is not None and getattr(backbone, key, value) != value:
            raise RecipeError(
                f"train.start_from: weights {card.name!r} are of a backbone with {key} = {value!r}, the network's has "
                f"{getattr(backbone, key)!r}. Set {key} of the network, or of its backbone, to {value!r}."
            )


def _start(
    network: nn.Module,
    weights: dict[str, torch.Tensor],
    card: WeightCard,
    skeleton: Skeleton,
    source: str,
) -> str:
    """Copy weights into a network that is about to be trained; return a sentence that says what they started.

    Raises:
        CheckpointError: They do not fit.
        RecipeError: The network's backbone is another variant than theirs.
    """
    if card.skeleton is None:
        _check_same_backbone(card, getattr(network, "backbone", None))
        unused = load_backbone(network, weights, source=card.name)
        left = f" {len(unused)} tensors of theirs have no place in it: {listed(unused)}." if unused else ""
        return f"Started from {source}: all of the backbone; what is above it begins anew.{left}"
    begun = load_matching(
        network,
        weights,
        from_keypoints=card.skeleton.keypoints,
        to_keypoints=skeleton.keypoints,
        source=card.name,
    )
    if not begun:
        return f"Started from {source}: all of its weights."
    kept = [name for name in skeleton.keypoints if name in card.skeleton.keypoints]
    return (
        f"Started from {source}; {len(kept)} of {len(skeleton)} keypoints are in both and keep what they know, the "
        "others begin anew."
    )


def _move_end(folder: RunFolder, recipe: Recipe, progress: Progress, steps_per_epoch: int) -> str:
    """Give a run the end its recipe now has, if that is another one; return a sentence that says so.

    Raises:
        RecipeError: Too late for that; the folder is as before.
    """
    stored = folder.stored_recipe()
    if not check_end(stored, recipe, step=progress.step, steps_per_epoch=steps_per_epoch):
        return ""
    check_best(folder, progress, recipe.evaluate.choose)
    schedule = stored.train.schedule.model_copy(update={"fall_epochs": recipe.train.schedule.fall_epochs})
    part = stored.train.model_copy(update={"epochs": recipe.train.epochs, "schedule": schedule})
    now = stored.model_copy(update={"train": part})
    # what an earlier end has left is not this one's
    for file in (folder.last, folder.report):
        file.unlink(missing_ok=True)
    if folder.best.is_file():
        weights, card = read_weights(folder.best)
        save_weights(folder.best, weights, dataclasses.replace(card, recipe=now.to_toml()))
    folder.write_recipe(now)
    return f"The end was moved from epoch {stored.train.epochs} to {recipe.train.epochs}."
