"""``poseglass train``: from a recipe to a run folder."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from poseglass.engine.recipe import Recipe
from poseglass.engine.run import Run, RunFolder, prepare
from poseglass.engine.train import Progress as TrainingProgress


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe, .toml. With --resume it is read from the run.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value: --set train.epochs=3. May be repeated.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run; runs/NAME unless given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    show: Annotated[bool, typer.Option("--print", help="Show every value after defaults, and stop.")] = False,
) -> None:
    """Train a network by a recipe. Stop it with Ctrl-C, go on with --resume."""
    if recipe is None and not (resume and run is not None):
        raise ValueError("train needs a recipe file, or --resume --run FOLDER to go on with a run.")
    if recipe is None:
        assert run is not None
        if overrides:
            raise ValueError("--set changes a new run; a run that is resumed keeps its recipe.")
        chosen = RunFolder(run).stored_recipe()
    else:
        chosen = Recipe.read(recipe, overrides or ())
    console = Console()
    if show:
        console.print_json(chosen.model_dump_json())
        return
    folder = run or Path("runs") / chosen.name
    work = prepare(chosen, folder, resume=resume, device=device)
    parameters = sum(p.numel() for p in work.loop.network.parameters())
    console.print(
        f"{chosen.name}: {len(work.crops):,} people, {parameters:,} parameters, {chosen.train.epochs} epochs of "
        f"{work.steps_per_epoch} steps on {work.device}; run folder {folder}"
    )
    if work.loop.progress.step:
        console.print(f"going on from step {work.loop.progress.step} of {work.total_steps}")
    # a service manager stops a process with SIGTERM: keep a checkpoint then too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    train_with_bar(work, console)
    console.print(f"done: curve, weights and checkpoint are in {folder}")


def train_with_bar(work: Run, console: Console) -> None:
    """Train with a live bar on a terminal, a line an epoch elsewhere."""
    with Bar(work, console):
        work.train()


class Bar:
    """Draws the progress of a run: a live bar on a terminal, a line an epoch elsewhere."""

    def __init__(self, work: Run, console: Console) -> None:
        self.work, self.console = work, console
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> None:
        self.progress.start()
        done = self.work.loop.progress.step
        self.task = self.progress.add_task("training", total=self.work.total_steps, completed=done, figures="")
        self.work.on_step, self.work.on_epoch = self.on_step, self.on_epoch
        self.last_seconds, self.last_step, self.rate = self.work.loop.progress.seconds, done, 0.0

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def on_step(self, progress: TrainingProgress, terms: dict[str, float], lr: float) -> None:
        """Move the bar."""
        if progress.step - self.last_step >= 10:
            images = (progress.step - self.last_step) * self.work.recipe.train.batch_size
            self.rate = images / max(progress.seconds - self.last_seconds, 1e-9)
            self.last_seconds, self.last_step = progress.seconds, progress.step
        figures = f"loss {sum(terms.values()):.4g}  lr {lr:.2g}  {self.rate:.0f} img/s"
        self.progress.update(self.task, completed=progress.step, figures=figures)

    def on_epoch(self, row: dict[str, float]) -> None:
        """Print the epoch's figures."""
        val = {k.removeprefix("val/"): v for k, v in row.items() if k.startswith("val/") and "/" not in k[4:]}
        figures = "".join(f"  {name} {value:.4f}" for name, value in val.items())
        rate = f"  {self.rate:.0f} img/s" if self.rate else ""
        self.console.print(
            f"epoch {row['epoch']:.0f}/{self.work.recipe.train.epochs}  loss {row['loss']:.5g}  lr {row['lr']:.2g}"
            f"{rate}  {row['train_seconds']:.0f} s{figures}"
        )
        self.progress.update(self.task, completed=int(row["step"]))
        sys.stdout.flush()
