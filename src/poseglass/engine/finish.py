"""After training: the last weights, what the best ones reach, and the report; and the report of any evaluation."""

import copy
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.boxes import fit_aspect
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.engine.environment import environment as this_environment
from poseglass.engine.evaluate import Evaluation, evaluate
from poseglass.engine.report import TILE_PX, Example, Report, write_report
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.weights import load_strictly, read_weights, save_weights
from poseglass.metrics.errors import KeypointErrors
from poseglass.metrics.pck import Pck, pckh
from poseglass.metrics.pck import pck as share_within
from poseglass.transforms import warp_image

if TYPE_CHECKING:
    from poseglass.engine.run import Run

EXAMPLES = 8
"""Best pictures in a report, and as many worst ones."""

UNIT_NAMES = {
    "torso": "error, in torso lengths",
    "torso_flic": "error, in torso lengths",
    "head": "error, in head lengths",
    "box_diagonal": "error, in box diagonals",
    "box_side": "error, in box sides",
    "pixel": "error, in pixels",
}


def finish(run: "Run") -> Evaluation | None:
    """Write ``last.safetensors``, measure the best weights on the validation set, and write ``report.html``.

    Returns:
        What the best weights reach, or None without a validation set.

    Raises:
        OSError: A file could not be written; training itself is safe in the checkpoint.
    """
    rows, folder = run.loop.progress.rows, run.folder
    last = {k.removeprefix("val/"): v for k, v in (rows[-1] if rows else {}).items() if k.startswith("val/")}
    try:
        save_weights(folder.last, run.trained.state_dict(), run.card({f"val {k}": v for k, v in last.items()}))
        evaluation, notes = None, []
        if run.val is not None and run.recipe.evaluate.measures:
            evaluation, notes = _measure_best(run)
        write_report(folder.report, _report(run, evaluation, notes))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            f"Training is done and its checkpoint is kept, but weights or report could not be written to {folder.path} "
            f"({reason}). Make room, then --resume writes them."
        ) from error
    return evaluation


def _measure_best(run: "Run") -> tuple[Evaluation, list[str]]:
    assert run.val is not None
    network, which = run.trained, "the last weights (no best ones were kept)"
    if run.folder.best.is_file():
        state, _ = read_weights(run.folder.best)
        network = copy.deepcopy(run.trained)
        load_strictly(network, state, source=run.folder.best.name)
        which = f"the best weights ({run.folder.best.name}{_epoch_of_best(run)})"
    evaluation = run.measure(run.val, network)
    protocol, estimator = run.protocol, run.estimator(network)
    evaluation = with_pairs(evaluation, protocol.adjusted(estimator) if protocol else estimator, run.val)
    people = sum(len(t) for t in evaluation.truth)
    flip = "flip test on" if run.recipe.evaluate.flip_test else "no flip test"
    boxes = f"from the boxes of the annotations, {flip}"
    if protocol is not None:
        boxes = f"{protocol.convention(estimator)}; pictures and curves from the boxes of the annotations"
    note = (
        f"Figures and pictures: {which} on {people:,} people in {len(evaluation.truth):,} images of the validation "
        f"set, {boxes}. That set also chose the weights."
    )
    return evaluation, [note]


def _epoch_of_best(run: "Run") -> str:
    part = run.recipe.evaluate
    measured = [row for row in run.loop.progress.rows if any(k.startswith("val/") for k in row)]
    if not measured:
        return ""
    name = f"val/{part.choose}" if part.choose else next(k for k in measured[0] if k.startswith("val/"))
    best = max(measured, key=lambda row: row.get(name, -math.inf))
    return f", epoch {best['epoch']:.0f}"


def _report(run: "Run", evaluation: Evaluation | None, notes: list[str]) -> Report:
    recipe = run.recipe
    common = {
        "title": recipe.name,
        "curve": run.loop.progress.rows,
        "recipe": recipe.to_toml(),
        "environment": run.folder.stored_environment() or this_environment(),
    }
    if evaluation is None or run.val is None:
        return Report(skeleton=run.crops.skeleton, notes=["There was no validation set to measure on."], **common)
    metrics = run.metrics() if run.protocol is None else [run.protocol.metric()]
    measure = next((m for m in metrics if isinstance(m, Pck)), None)
    return report_of(evaluation, run.val, pck=measure, headline_first=recipe.evaluate.choose, notes=notes, **common)


def with_pairs(evaluation: Evaluation, estimator: TopDownEstimator, dataset: Dataset) -> Evaluation:
    """Return an evaluation whose poses are of the labelled people, as a report's pictures need them, figures kept.

    Args:
        evaluation: As a metric or protocol gave it.
        estimator: Finds the pose in each labelled box, where those are not there yet.
        dataset: That it was made on.
    """
    if evaluation.paired:
        return evaluation
    pairs = evaluate(estimator, dataset, [])
    return dataclasses.replace(pairs, figures=evaluation.figures, table=evaluation.table)


def report_of(
    evaluation: Evaluation,
    dataset: Dataset,
    *,
    title: str,
    pck: Pck | None = None,
    headline_first: str | None = None,
    curve: Sequence[Mapping[str, float]] = (),
    recipe: str = "",
    environment: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    examples: int = EXAMPLES,
) -> Report:
    """Gather what an evaluation's report shows.

    Args:
        evaluation: From ``engine.evaluate``.
        dataset: That it was made on; pictures are cut from its images.
        title: Of the page.
        pck: Gives unit and limits of the curve and ranks the pictures; None takes what suits the labels: PCKh where
            head sizes are known, by the torso where there is one, else by the box.
        headline_first: Figure to show first.
        curve: Rows of a training curve.
        recipe: TOML text.
        environment: Machine and versions; None takes those of this program.
        notes: Sentences for the top of the page.
        examples: Best pictures, and as many worst ones.

    Raises:
        ValueError: Poses and labels are not paired.
    """
    if not evaluation.paired:
        raise ValueError(
            "A report compares each pose with the labels of its person, and these poses are of whoever was found. "
            "Make pairs of them first: with_pairs(evaluation, estimator, dataset)."
        )
    metric = _measured(evaluation, pck)
    limits, shares, joint_curves = metric.curve()
    errors = KeypointErrors()
    for predicted, truth in zip(evaluation.predicted, evaluation.truth, strict=True):
        errors.update(predicted, truth)
    figures = {k: v for k, v in evaluation.figures.items() if "/" not in k}
    if headline_first in evaluation.figures:
        figures = {headline_first: evaluation.figures[headline_first]} | figures
    people = {"people": float(sum(len(t) for t in evaluation.truth)), "images": float(len(evaluation.truth))}
    limit = metric.limits[0]
    unit = UNIT_NAMES.get(metric.normaliser) if isinstance(metric.normaliser, str) else None
    return Report(
        title=title,
        skeleton=evaluation.skeleton,
        headline=figures | people,
        curve=curve,
        per_joint=evaluation.table or metric.table(),
        pck_curve=(limits, shares) if np.isfinite(shares).all() else None,
        joint_curves=joint_curves if np.isfinite(shares).all() else None,
        limit_name=unit or f"error, in units of {metric.normaliser}",
        examples=_examples(evaluation, dataset, metric, limit, examples),
        figure_name=f"{metric.name}@{limit:g}",
        errors=errors.table(),
        recipe=recipe,
        environment=this_environment() if environment is None else environment,
        notes=notes,
    )


def usual_pck(skeleton: Skeleton, truth: Sequence[Instances]) -> Pck:
    """Return the PCK that suits some labels: by the head where its size is known, the torso, or else the box."""
    if any("head_px" in t.extra and np.isfinite(t.extra["head_px"]).any() for t in truth):
        return pckh(left_out=tuple(n for n in ("pelvis", "thorax") if n in skeleton.keypoints))
    corners = {f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "shoulder")}
    if corners <= set(skeleton.keypoints):
        torso = Pck("torso", (0.2, 0.1))
        for people in truth:
            torso.update(people, people)
        if torso.people:
            return Pck("torso", (0.2, 0.1))
    return Pck("box_diagonal", (0.05,))


def _measured(evaluation: Evaluation, pck: Pck | None) -> Pck:
    """Return a PCK that has seen the evaluation's people, in order; the one given stays as it is."""
    metric = copy.copy(pck) if pck is not None else usual_pck(evaluation.skeleton, evaluation.truth)
    object.__setattr__(metric, "_distance", [])
    object.__setattr__(metric, "_skeleton", [])
    for predicted, truth in zip(evaluation.predicted, evaluation.truth, strict=True):
        metric.update(predicted, truth)
    return metric


def _examples(evaluation: Evaluation, dataset: Dataset, metric: Pck, limit: float, count: int) -> list[Example]:
    """Cut out the best and the worst people, those with many labels before those with few."""
    places = [(i, n) for i, truth in enumerate(evaluation.truth) for n in range(len(truth))]
    distance = metric.distance
    counted = ~np.isnan(distance)
    labels = counted.sum(1)
    usable = np.flatnonzero(labels >= max(1, int(labels.max(initial=0)) // 2))
    if not len(usable):
        return []
    share = np.array([share_within(distance[p], limit, metric.comparator) for p in usable])
    # people alike in share are told apart by how far off they are, up to twice the limit
    off = np.array([np.minimum(distance[p][counted[p]], 2 * limit).mean() for p in usable])
    order = np.lexsort((off, -share))
    half = min(count, (len(order) + 1) // 2)
    chosen = list(dict.fromkeys([*order[:half], *order[::-1][:count]]))
    return [_example(evaluation, dataset, *places[usable[c]], float(share[c])) for c in chosen]


def _example(evaluation: Evaluation, dataset: Dataset, image: int, row: int, figure: float) -> Example:
    truth, predicted = evaluation.truth[image][row], evaluation.predicted[image][row]
    points = truth.xy[0][truth.known[0]].astype(np.float64)
    corners = np.concatenate([truth.box_xyxy.reshape(-1, 2).astype(np.float64), points])
    low, high = corners.min(0), corners.max(0)
    around = fit_aspect(np.concatenate([low, np.maximum(high, low + 8.0)]), 1.0, padding=1.15)
    size_wh = (TILE_PX, TILE_PX)
    to_crop = Affine.crop(around, size_wh)
    pixels = warp_image(dataset.image(evaluation.indices[image]), to_crop, size_wh)
    caption = Path(evaluation.sources[image]).name or evaluation.sources[image]
    return Example(caption, pixels, truth.moved(to_crop), predicted.moved(to_crop), figure)
