"""A training run: from a recipe to a folder with curve, checkpoints, weights and report."""

import csv
import io
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import poseglass
from poseglass.codecs import CODECS, Codec
from poseglass.core.card import WeightCard
from poseglass.core.image import write_bytes
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import build, lookup
from poseglass.datasets import DATASETS
from poseglass.datasets.mixed import mixed
from poseglass.engine.checkpoint import load_checkpoint, save_checkpoint
from poseglass.engine.crops import Crops, PlaceSampler, load_batches
from poseglass.engine.ema import MovingAverage
from poseglass.engine.evaluate import Evaluation, evaluate
from poseglass.engine.recipe import Recipe, RecipeError
from poseglass.engine.schedule import Schedule
from poseglass.engine.train import Loop, Progress, choose_precision, fit, make_optimizer, supervised
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.weights import load_matching, read_weights, save_weights
from poseglass.losses import LOSSES
from poseglass.metrics import METRICS
from poseglass.networks import NETWORKS
from poseglass.transforms import TRANSFORMS, RandomAffine


def make(table: Any, part: dict[str, Any], kind: str, **more: Any) -> Any:
    """Build ``table[part["name"]]`` from the other entries of a recipe's table.

    Raises:
        LookupError: An unknown name; the nearest is given.
        RecipeError: Numbers the thing does not take, in its own words.
    """
    numbers = {k: v for k, v in part.items() if k != "name"} | more
    lookup(table, part["name"], kind=kind)
    try:
        return build(table, part["name"], **numbers)
    except TypeError as error:
        raise RecipeError(f"{kind} {part['name']!r}: {error}.") from error


def training_data(recipe: Recipe) -> Dataset:
    """Read the recipe's training sets and join them by joint name in the recipe's skeleton."""
    parts: list[Dataset] = []
    repeats: list[int] = []
    for table in recipe.data.train:
        numbers = dict(table)
        repeats.append(int(numbers.pop("repeat", 1)))
        parts.append(make(DATASETS, numbers, "dataset"))
    skeleton = None if recipe.skeleton is None else lookup(SKELETONS, recipe.skeleton, kind="skeleton")
    if len(parts) == 1 and repeats == [1] and skeleton in (None, parts[0].skeleton):
        return parts[0]
    return mixed(parts, skeleton=skeleton or parts[0].skeleton, repeats=repeats)


def validation_data(recipe: Recipe) -> Dataset | None:
    """Read the recipe's validation set, if it has one."""
    return None if recipe.data.val is None else make(DATASETS, recipe.data.val, "dataset")


def make_network(recipe: Recipe, skeleton: Skeleton) -> tuple[nn.Module, dict[str, Any]]:
    """Build the recipe's network for a skeleton; return it and the table that a card keeps.

    Raises:
        RecipeError: The recipe states another number of keypoints than the data have.
    """
    table = {"num_keypoints": len(skeleton)} | recipe.network
    if table["num_keypoints"] != len(skeleton):
        raise RecipeError(
            f"network.num_keypoints is {table['num_keypoints']}, the data's skeleton {skeleton.name!r} has "
            f"{len(skeleton)}. Leave num_keypoints out, and it follows the data."
        )
    return make(NETWORKS, table, "network"), table


def make_crops(recipe: Recipe, dataset: Dataset) -> Crops:
    """Return the recipe's augmented crops of a dataset.

    Raises:
        RecipeError: More than one geometric augmentation: they are composed into one map.
    """
    steps = [make(TRANSFORMS, part, "transform") for part in recipe.augment]
    geometric = [s for s in steps if isinstance(s, RandomAffine)]
    if len(geometric) > 1:
        raise RecipeError("augment takes one random_affine: scale, turn, shift and mirror are one map.")
    photometric = tuple(s for s in steps if not isinstance(s, RandomAffine))
    return Crops(dataset, recipe.input.spec(), geometric[0] if geometric else None, photometric, recipe.seed)


def environment() -> dict[str, str]:
    """Return what a figure should be kept with: machine, versions, commit."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {
        "poseglass": poseglass.__version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{cpu}, {torch.get_num_threads()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def source_commit() -> str:
    """Return the commit of the source tree this runs from, with "+changes" if it was edited, or "" outside one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", "--error-unmatch", Path(__file__).name):
            return ""
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


class RunFolder:
    """The files of a run: recipe, environment, curve, checkpoint, best weights."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self.curve = path / "curve.csv"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.report = path / "report.html"
        self.recipe = path / "recipe.json"

    def create(self, recipe: Recipe) -> None:
        """Make the folder for a new run.

        Raises:
            FileExistsError: It holds a run already.
        """
        if self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(
                f"The run folder {self.path} is not empty. Go on with it by --resume, or name another with --run."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_bytes(self.recipe, recipe.model_dump_json(indent=1).encode())
        write_bytes(self.path / "environment.json", json.dumps(environment(), indent=1).encode())

    def stored_recipe(self) -> Recipe:
        """Read the recipe this run was started with.

        Raises:
            FileNotFoundError: The folder holds no run.
        """
        if not self.recipe.is_file():
            raise FileNotFoundError(f"{self.path} holds no run to go on with: there is no {self.recipe.name} in it.")
        return Recipe.from_dict(json.loads(self.recipe.read_text()), name=str(self.recipe))

    def write_curve(self, rows: list[dict[str, float]]) -> None:
        """Write the curve so far as CSV, a row an epoch; columns are the union of all rows' names."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
        write_bytes(self.curve, text.getvalue().encode())


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
    on_epoch: Callable[[dict[str, float]], None] | None = None
    on_step: Callable[[Progress, dict[str, float], float], None] | None = None
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.steps_per_epoch * self.recipe.train.epochs

    @property
    def trained(self) -> nn.Module:
        """The network whose figures count: the moving average where there is one."""
        return self.loop.network if self.loop.ema is None else self.loop.ema.network

    def estimator(self) -> TopDownEstimator:
        """Return the user's estimator over the weights as they stand."""
        return TopDownEstimator(
            self.trained, self.codec, self.crops.skeleton, self.recipe.input.spec(self.sizes_wh[-1]),
            flip_test=self.recipe.evaluate.flip_test, batch_size=self.recipe.evaluate.batch_size,
        )  # fmt: skip

    def measure(self, dataset: Dataset) -> Evaluation:
        """Evaluate the weights as they stand."""
        metrics = [make(METRICS, part, "metric") for part in self.recipe.evaluate.metrics]
        return evaluate(self.estimator(), dataset, metrics)

    def card(self, results: dict[str, float]) -> WeightCard:
        """Return the card for the weights as they stand."""
        return WeightCard(
            name=self.recipe.name,
            network=self.network_table,
            codec=self.recipe.codec,
            skeleton=self.crops.skeleton,
            input=self.recipe.input.spec(self.sizes_wh[-1]),
            results=results,
            recipe=self.recipe.model_dump_json(),
            commit=source_commit(),
            poseglass=poseglass.__version__,
        )

    def save(self) -> None:
        """Write the checkpoint now."""
        save_checkpoint(self.folder.checkpoint, self.loop.state())
        self._saved_at = time.monotonic()

    def train(self) -> None:
        """Train to the end, saving on the way.

        Raises:
            TrainingStopped: The loss is not finite, or flat.
            KeyboardInterrupt: After a checkpoint has been kept.
        """
        part = self.recipe.train
        sampler = PlaceSampler(
            len(self.crops), batch_size=part.batch_size, sizes_wh=self.sizes_wh, seed=self.recipe.seed,
            start_step=self.loop.progress.step,
        )  # fmt: skip
        try:
            fit(
                self.loop,
                load_batches(self.crops, sampler, workers=part.workers),
                supervised(self.codec, lookup(LOSSES, self.recipe.loss, kind="loss")),
                _Saver(self),
                spec=self.recipe.input.spec(),
                steps_per_epoch=self.steps_per_epoch,
                total_steps=self.total_steps,
                base_lr=part.optimizer.lr,
                precision=choose_precision(part.precision, self.device),
                clip_norm=part.clip_norm,
                flat_after_steps=part.flat_after_steps,
            )
        except KeyboardInterrupt:
            self.save()
            raise


class _Saver:
    """Keeps the folder up to date while a run trains."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_step(self, progress: Progress, terms: dict[str, float], lr: float) -> None:
        run = self.run
        if run.on_step is not None:
            run.on_step(progress, terms, lr)
        if time.monotonic() - run._saved_at > run.recipe.train.checkpoint_seconds:
            run.save()

    def on_epoch(self, progress: Progress, row: dict[str, float]) -> None:
        run = self.run
        epoch, part = int(row["epoch"]), run.recipe.evaluate
        last = progress.step >= run.total_steps
        if run.val is not None and part.metrics and (epoch % part.every_epochs == 0 or last):
            figures = run.measure(run.val).figures
            row |= {f"val/{name}": value for name, value in figures.items()}
            chosen = figures[part.choose or next(iter(figures))]
            run.loop.schedule.observe(chosen)
            if chosen > progress.best:
                progress.best = chosen
                save_weights(
                    run.folder.best, run.trained.state_dict(), run.card({f"val {k}": v for k, v in figures.items()})
                )
        else:
            run.loop.schedule.observe(-row["loss"]) if run.val is None else None
        run.folder.write_curve(progress.rows)
        run.save()
        if run.on_epoch is not None:
            run.on_epoch(row)


def prepare(recipe: Recipe, folder: Path, *, resume: bool = False, device: str = "auto") -> Run:
    """Read the data, build the network, and open or reopen the run folder.

    Args:
        recipe: In full.
        folder: Of the run; new, unless resuming.
        resume: Go on from the folder's checkpoint.
        device: "auto", "cpu", "cuda", ...

    Raises:
        RecipeError, LookupError, ValueError, FileNotFoundError, FileExistsError: In the words of what went wrong.
    """
    part = recipe.train
    run_folder = RunFolder(folder)
    state = load_checkpoint(run_folder.checkpoint) if resume else None
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    torch.manual_seed(recipe.seed)
    codec = make(CODECS, recipe.codec, "codec")
    crops = make_crops(recipe, training_data(recipe))
    val = validation_data(recipe)
    network, table = make_network(recipe, crops.skeleton)
    if part.start_from is not None:
        weights, card = read_weights(part.start_from)
        load_matching(
            network,
            weights,
            from_keypoints=card.skeleton.keypoints,
            to_keypoints=crops.skeleton.keypoints,
            source=card.name,
        )
    network = network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, part.optimizer)
    sizes = [recipe.input.size_wh] * part.epochs
    for change in sorted(part.sizes, key=lambda c: c.epoch):
        sizes[change.epoch :] = [change.size_wh] * len(sizes[change.epoch :])
    steps_per_epoch = len(crops) // part.batch_size
    if steps_per_epoch < 1:
        raise RecipeError(
            f"train.batch_size is {part.batch_size}, but there are only {len(crops)} people. "
            f"Set it to at most {len(crops)}."
        )
    loop = Loop(
        network,
        optimizer,
        Schedule(part.schedule, steps_per_epoch * part.epochs, steps_per_epoch),
        MovingAverage(network, part.ema_decay) if part.ema_decay else None,
        Progress(),
    )
    if state is not None:
        loop.restore(state)
        run_folder.write_curve(loop.progress.rows)
    else:
        run_folder.create(recipe)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    return Run(recipe, run_folder, loop, crops, val, codec, table, sizes, steps_per_epoch, target)
