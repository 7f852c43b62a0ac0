"""After training: the last weights, the results of the best ones, and the report."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn

from poseglass.core.card import WeightCard
from poseglass.core.environment import environment as this_environment
from poseglass.core.sample import Dataset
from poseglass.data.examples import Examples
from poseglass.estimators.fit import load_strictly
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.weights_file import read_weights, save_weights
from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.evaluate import Evaluation
from poseglass.evaluation.mpii import MpiiProtocol
from poseglass.evaluation.report import Report, write_report
from poseglass.evaluation.summary import report_of, with_pairs
from poseglass.metrics.metric import Metric
from poseglass.metrics.pck import Pck
from poseglass.runs.folder import RunFolder
from poseglass.runs.recipe import Recipe
from poseglass.training.distributed import Processes
from poseglass.training.loop import Loop
from poseglass.training.monitor import Monitor


class TrainedRun(Protocol):
    """The interface that ``finish`` needs; ``runs.session.Run`` implements it."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        ...

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        ...

    @property
    def processes(self) -> Processes:
        """The processes of the run, and the rank of this one."""
        ...

    @property
    def loop(self) -> Loop:
        """Network, optimiser and progress."""
        ...

    @property
    def val(self) -> Dataset | None:
        """The validation set."""
        ...

    @property
    def examples(self) -> Examples:
        """What the network is trained on."""
        ...

    @property
    def monitor(self) -> Monitor:
        """The result that is monitored for the best weights."""
        ...

    @property
    def flip_test(self) -> bool:
        """Whether evaluation averages with the flipped crop."""
        ...

    @property
    def early_end(self) -> str:
        """When and why training ended before its last epoch; empty if it did not."""
        ...

    @property
    def trained(self) -> nn.Module:
        """The network that is evaluated and saved."""
        ...

    @property
    def protocol(self) -> CocoProtocol | MpiiProtocol | None:
        """The evaluation protocol, if the recipe names one."""
        ...

    def card(self, results: dict[str, float]) -> WeightCard:
        """Return the card for the weights."""
        ...

    def metrics(self) -> list[Metric]:
        """Return fresh metrics."""
        ...

    def estimator(self, network: nn.Module | None = None) -> TopDownEstimator | OneStageEstimator:
        """Return an estimator with the trained network, or with another one."""
        ...

    def measure(self, dataset: Dataset, network: nn.Module | None = None) -> Evaluation:
        """Evaluate the trained network, or another one, in all processes."""
        ...


def finish(run: TrainedRun) -> Evaluation | None:
    """Write ``last.safetensors``, evaluate the best weights on the validation set, and write ``report.html``.

    All processes of a run call this: they share the evaluation, and the first one writes. None of them returns before
    the first has finished writing.

    Returns:
        The evaluation of the best weights, in the first process; None in the others and without a validation set.

    Raises:
        OSError: A file could not be written; training itself is saved in the checkpoint.
    """
    with _told_of(run.folder):
        run.processes.once(lambda: _save_last(run))
    evaluation, notes = None, []
    if run.val is not None and run.recipe.evaluate.measures:
        evaluation, notes = _measure_best(run)
    with _told_of(run.folder):
        run.processes.once(lambda: write_report(run.folder.report, _report(run, evaluation, notes)))
    return evaluation if run.processes.first else None


@contextmanager
def _told_of(folder: RunFolder) -> Iterator[None]:
    """Add to the error of a file that cannot be written what has been saved and what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            f"Training is complete and its checkpoint is saved, but weights or report could not be written to "
            f"{folder.path} ({reason}). Free some space, then run again with --resume to write them."
        ) from error


def _save_last(run: TrainedRun) -> None:
    rows = run.loop.progress.rows
    last = {k.removeprefix("val/"): v for k, v in (rows[-1] if rows else {}).items() if k.startswith("val/")}
    save_weights(run.folder.last, run.trained.state_dict(), run.card({f"val {k}": v for k, v in last.items()}))


def _measure_best(run: TrainedRun) -> tuple[Evaluation, list[str]]:
    assert run.val is not None

    def best() -> dict[str, Tensor] | None:
        return read_weights(run.folder.best)[0] if run.folder.best.is_file() else None

    network, which = run.trained, "the last weights (no best ones were kept)"
    state = run.processes.once(best)  # only the first process needs access to the folder
    if state is not None:
        network = copy.deepcopy(run.trained)
        load_strictly(network, state, source=run.folder.best.name)
        row = _row_of_best(run)
        epoch = "" if row is None else f", epoch {run.loop.progress.rows[row]['epoch']:.0f}"
        which = f"the best weights ({run.folder.best.name}{epoch})"
    evaluation = run.measure(run.val, network)
    protocol, estimator = run.protocol, run.estimator(network)
    flip = "flip test on" if run.flip_test else "no flip test"
    boxes = f"from the boxes of the annotations, {flip}"
    if isinstance(estimator, OneStageEstimator):
        boxes = f"found in the whole images, {flip}"
    else:
        adjusted = protocol.adjusted(estimator) if protocol else estimator
        evaluation = with_pairs(evaluation, adjusted, run.val, processes=run.processes)
        if protocol is not None:
            boxes = f"{protocol.convention(estimator)}; images and curves from the boxes of the annotations"
    people = sum(len(t) for t in evaluation.truth)
    note = (
        f"Results and images: {which} on {people:,} people in {len(evaluation.truth):,} images of the validation "
        f"set, {boxes}. The best weights were also selected on that set."
    )
    return evaluation, [note]


def _row_of_best(run: TrainedRun) -> int | None:
    """Return the row of the curve for the best weights that were saved (saving may have failed for better ones)."""
    progress = run.loop.progress
    if progress.best is None:
        return None
    return next((n for n, row in enumerate(progress.rows) if row.get(run.monitor.column) == progress.best), None)


def _report(run: TrainedRun, evaluation: Evaluation | None, notes: list[str]) -> Report:
    recipe = run.recipe
    early = [run.early_end] if run.early_end else []
    common = {
        "title": recipe.name,
        "curve": run.loop.progress.rows,
        "recipe": recipe.to_toml(),
        "environment": run.folder.stored_environment() or this_environment(),
    }
    if evaluation is None or run.val is None:
        notes = [*early, "There was no validation set to evaluate on."]
        return Report(skeleton=run.examples.skeleton, notes=notes, **common)
    metrics = run.metrics() if run.protocol is None else [run.protocol.metric()]
    measure = next((m for m in metrics if isinstance(m, Pck)), None)
    row = _row_of_best(run)
    return report_of(
        evaluation, run.val, pck=measure, headline_first=recipe.evaluate.monitor,
        best=None if row is None else (run.monitor.column, row), notes=[*early, *notes], **common,
    )  # fmt: skip
