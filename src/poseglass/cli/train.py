"""``poseglass train``: trains a network from a recipe."""

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from poseglass.cli.screen import in_commands
from poseglass.evaluation.evaluate import Evaluation
from poseglass.runs.examine import examine
from poseglass.runs.folder import RunFolder
from poseglass.runs.negatives import (
    FILE_NAME,
    check_first,
    check_negatives,
    find_negatives,
    has_negatives,
    needs_negatives,
    proposing_folder,
    proposing_recipe,
    with_negatives,
    without_negatives,
)
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.runs.session import Run
from poseglass.training.distributed import Processes, from_environment, leave
from poseglass.training.loop import Progress as TrainingProgress
from poseglass.transforms import TRANSFORMS

CHECK_STEPS = 5
"""Number of steps of --check; the first one, which includes the start-up, is not timed."""

TELL_SECONDS = 60.0
"""Interval between lines within an epoch, if no progress bar can be drawn."""


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (.toml). Optional with --resume, which reads it from the run.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: --set train.epochs=3. May be repeated."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The folder that the recipe calls data/. Default: ./data."),
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", "--run-folder", help="Run folder. Default: runs/NAME.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the last checkpoint in the run folder.")
    ] = False,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1, ...")] = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the complete recipe with defaults, and exit.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Read the data, train a few steps and estimate the time; nothing is kept."),
    ] = False,
) -> None:
    """Train a network from a recipe. Stop it with Ctrl-C, and continue with --resume.

    Several processes: torchrun --nproc-per-node N -m poseglass train RECIPE.
    """
    if recipe is None and not (resume and run is not None):
        raise ValueError("train needs a recipe file, or --resume --run FOLDER to resume a run.")
    if recipe is None:
        assert run is not None
        if data is not None:
            raise ValueError("A resumed run keeps the paths of its recipe; omit --data.")
        chosen = RunFolder(run).stored_recipe(overrides or ())
    else:
        chosen = Recipe.read(recipe, overrides or (), data_folder=data)
    processes = from_environment()
    console = Console(quiet=not processes.first)
    if show:
        console.print(chosen.to_toml(), end="", markup=False, highlight=False, soft_wrap=True)
        return
    folder = run or Path("runs") / chosen.name
    try:
        if check:
            try_out(chosen, folder, device, processes, console, resume=resume)
            return
        if needs_negatives(chosen) and resume:
            chosen = with_negatives(chosen, _stored_file(folder))
        elif needs_negatives(chosen):
            chosen = _with_negatives(chosen, folder, device, processes, console)
        work = prepare(
            chosen, folder, resume=resume, device=device, tensorboard=tensorboard, processes=processes
        )  # fmt: skip
        if work.complete and work.folder.last.is_file() and work.folder.report.is_file():
            early = f"{work.early_end} " if work.early_end else ""
            console.print(
                f"The run in {folder} is finished: {work.loop.progress.step} of {work.total_steps} steps. "
                f"{early}Its report is {work.folder.report}. To train more epochs, start a new run with "
                f"--set train.init_from={work.folder.last}.",
                soft_wrap=True, highlight=False,
            )  # fmt: skip
            return
        _announce(work, console, work.folder.path)
        train_with_bar(work, console)
    except KeyboardInterrupt as stop:
        if processes.first:
            words = "poseglass: stopped before the first step was complete; nothing is kept."
            if not check and RunFolder(proposing_folder(folder)).checkpoint.is_file() and not RunFolder(folder).taken:
                words = "poseglass: stopped in the first training; the same command, without --resume, continues it."
            if not check and RunFolder(folder).checkpoint.is_file():
                what = str(stop) or "a checkpoint is kept"
                words = f"poseglass: stopped; {what}. Continue with: poseglass train --resume --run {folder}"
            Console(stderr=True).print(words, soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(130) from None
    finally:
        leave()


def _stored_file(folder: Path) -> Path:
    """Return the file of negative chips that a run was started with."""
    chips = RunFolder(folder).stored_recipe().data.chips
    kept = None if chips is None or chips.negatives is None else chips.negatives.file
    return proposing_folder(folder) / FILE_NAME if kept is None else Path(kept)


def _with_negatives(recipe: Recipe, folder: Path, device: str, processes: Processes, console: Console) -> Recipe:
    """Return the recipe with a file of negative chips, after the first training that proposes them.

    A first training that was interrupted is resumed, and one that has ended is not repeated.

    Raises:
        FileExistsError: The run folder is taken, which is said before the first training.
        RecipeError: There are several processes; the folder of the first training holds another one; in no image is
            everything labelled; or no chip shows enough proposals.
    """
    RunFolder(folder).check_free()
    if processes.world > 1:
        raise RecipeError(
            "The first training, which finds negative chips, runs in one process. Run this command without torchrun "
            "until it says where they are kept, and set data.chips.negatives.file to that file."
        )
    first = proposing_folder(folder)
    file = first / FILE_NAME
    began = RunFolder(first).taken
    if began:
        check_first(recipe, first)
    else:  # what is wrong with the run is found before the first training, not after it
        with tempfile.TemporaryDirectory() as nowhere:
            check_negatives(
                prepare(without_negatives(recipe), Path(nowhere) / "run", device=device, processes=processes)
            )
    if has_negatives(recipe, file):
        console.print(f"negative chips of an earlier first training are used: {file}", soft_wrap=True, markup=False)
        return with_negatives(recipe, file)
    console.print(
        f"{'resuming' if began else 'first,'} a brief training that proposes negative chips, in {first}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    work = prepare(proposing_recipe(recipe), first, resume=began, device=device, processes=processes)
    if not work.complete:
        _announce(work, console, first)
        with Bar(work, console):
            work.train()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking for negative chips", total=len(work.examples.dataset))
        console.print(
            find_negatives(recipe, work, file, lambda: progress.advance(task)), soft_wrap=True, markup=False
        )  # fmt: skip
    return with_negatives(recipe, file)


def try_out(recipe: Recipe, folder: Path, device: str, processes: Processes, console: Console, *, resume: bool) -> None:
    """Train a few steps at each crop size, and estimate the time of the run; nothing is kept.

    Raises:
        ValueError: ``resume`` is set.
    """
    if resume:
        raise ValueError("--check is only for a new run; omit --resume.")
    if RunFolder(folder).taken:
        console.print(
            f"note: {folder} already holds a run; training needs another folder (--run), or --resume.",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    uncached = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache_gb": 0.0})})
    with tempfile.TemporaryDirectory() as nowhere:
        proposing = needs_negatives(uncached)
        if proposing:
            console.print("note: a brief first training will propose negative chips; they are not checked here.")
            uncached = without_negatives(uncached)
        work = prepare(uncached, Path(nowhere) / "run", device=device, processes=processes)
        if proposing:
            check_negatives(work)
        _announce(work, console, folder)
        for doubt in work.processes.once(lambda: examine(work.examples.dataset, work.val, flips=_flips(work))):
            console.print(f"warning: {doubt}", soft_wrap=True, highlight=False, markup=False)
        seconds = {size: work.rehearse(CHECK_STEPS, size) for size in dict.fromkeys(work.sizes_wh)}
    warm_up = recipe.train.schedule.warmup_steps
    if warm_up > work.total_steps / 4:
        console.print(f"note: train.schedule.warmup_steps is {warm_up} of the run's {work.total_steps} steps.")
    steps = " and ".join(f"{value:.2f} s at {width} x {height} px" for (width, height), value in seconds.items())
    epochs = [seconds[size] * work.steps_per_epoch for size in work.sizes_wh]
    longest = _duration(max(epochs)) if len(seconds) == 1 else f"{_duration(min(epochs))} to {_duration(max(epochs))}"
    console.print(
        f"checked: a step takes {steps}, an epoch {longest}, the run {_duration(sum(epochs))}, without evaluation and "
        "the first reading of images; nothing was written",
        soft_wrap=True, highlight=False,
    )  # fmt: skip


def _flips(work: Run) -> bool:
    """Return whether training or evaluation flips images; a custom augmentation may."""
    own = any(
        getattr(augmentation, "flip_probability", type(augmentation) not in TRANSFORMS.values())
        for augmentation in work.examples.augment
    )
    return work.examples.skeleton.mirrors and (own or work.flip_test)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _announce(work: Run, console: Console, folder: Path) -> None:
    parameters = sum(p.numel() for p in work.loop.network.parameters())
    together = f", {work.processes.world} processes" if work.processes.world > 1 else ""
    console.print(
        f"{work.recipe.name}: {len(work.examples):,} {work.examples.kind}, {parameters:,} parameters, "
        f"{work.recipe.train.epochs} epochs "
        f"of {work.steps_per_epoch} steps on {work.device}{together}; run folder {folder}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    for note in work.notes:
        console.print(f"note: {in_commands(note)}", soft_wrap=True, highlight=False, markup=False)
    if work.note:
        console.print(work.note, soft_wrap=True, markup=False)
    if work.loop.progress.step:
        console.print(f"resuming from step {work.loop.progress.step} of {work.total_steps}")


def train_with_bar(work: Run, console: Console) -> Evaluation | None:
    """Train with a progress bar on a terminal, else one line per epoch; print the results at the end."""
    with Bar(work, console):
        evaluation = work.train()
    if work.early_end:
        console.print(work.early_end, soft_wrap=True, markup=False)
    if evaluation is not None:
        first = work.recipe.evaluate.monitor or next(iter(evaluation.results))
        results = {first: evaluation.results[first]} | {k: v for k, v in evaluation.results.items() if "/" not in k}
        words = "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        console.print(f"best weights on the validation set: {words}", soft_wrap=True, markup=False)
    console.print(
        f"done: report, curve, weights and checkpoint are in {work.folder.path}", soft_wrap=True, markup=False
    )
    return evaluation


_SIZES = re.compile(r"AR|_(small|medium|large)$")
"""Results that a line per epoch leaves out if there are many: recalls, and those of objects of one size."""


class Bar:
    """Shows the progress of a run: a progress bar on a terminal, else one line per epoch."""

    def __init__(self, work: Run, console: Console) -> None:
        self.work, self.console = work, console
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[results]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> None:
        self.progress.start()
        done = self.work.loop.progress.step
        self.task = self.progress.add_task("training", total=self.work.total_steps, completed=done, results="")
        self.work.on_step, self.work.on_epoch, self.work.on_warning = self.on_step, self.on_epoch, self.on_warning
        self.last_seconds, self.last_step, self.rate = self.work.loop.progress.seconds, done, 0.0
        # the first line comes soon after the start
        self.told_at = time.monotonic() - TELL_SECONDS + min(5.0, TELL_SECONDS)

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def on_step(self, progress: TrainingProgress, terms: dict[str, float], lr: float) -> None:
        """Move the bar."""
        if progress.step - self.last_step >= 10:
            images = (progress.step - self.last_step) * self.work.recipe.train.batch_size
            self.rate = images / max(progress.seconds - self.last_seconds, 1e-9)
            self.last_seconds, self.last_step = progress.seconds, progress.step
        rate = f"  {self.rate:.0f} img/s" if self.rate else ""
        results = f"loss {sum(terms.values()):.4g}  lr {lr:.2g}{rate}"
        self.progress.update(self.task, completed=progress.step, results=results)
        if not self.console.is_terminal and time.monotonic() - self.told_at > TELL_SECONDS:
            self.told_at = time.monotonic()
            self.console.print(f"step {progress.step} of {self.work.total_steps}  {results}", soft_wrap=True)
            sys.stdout.flush()

    def on_warning(self, words: str) -> None:
        """Print a warning above the progress bar."""
        self.console.print(f"warning: {words}", soft_wrap=True, markup=False)
        sys.stdout.flush()

    def on_epoch(self, row: dict[str, float]) -> None:
        """Print the epoch's results."""
        monitored = self.work.monitor.column
        val = {
            k.removeprefix("val/"): v
            for k, v in row.items()
            if k.startswith("val/") and ("/" not in k[4:] or k == monitored)
        }
        if len(val) > 6:  # average precision has many; the curve has all
            val = {k: v for k, v in val.items() if not _SIZES.search(k) or f"val/{k}" == monitored}
        results = "".join(f"  {name} {value:.4f}" for name, value in val.items())
        rate = f"  {self.rate:.0f} img/s" if self.rate else ""
        self.console.print(
            f"epoch {row['epoch']:.0f}/{self.work.recipe.train.epochs}  loss {row['loss']:.5g}  lr {row['lr']:.2g}"
            f"{rate}  {row['train_seconds']:.0f} s{results}",
            soft_wrap=True,
        )
        self.told_at = time.monotonic()
        self.progress.update(self.task, completed=int(row["step"]))
        sys.stdout.flush()
