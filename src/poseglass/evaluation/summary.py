"""Gathers the content of an evaluation's report: results, curves, errors and examples."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from poseglass.core.boxes import fit_aspect
from poseglass.core.environment import environment as this_environment
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.view import View
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.evaluate import Evaluation, evaluate
from poseglass.evaluation.reliability import Reliability
from poseglass.evaluation.report import TILE_PX, Example, Report
from poseglass.metrics.errors import KeypointErrors
from poseglass.metrics.pck import Pck, pckh
from poseglass.metrics.pck import pck as share_within
from poseglass.training.distributed import ALONE, Processes

EXAMPLES = 8
"""Number of best images in a report, and of worst ones."""

UNIT_NAMES = {
    "torso": "error, in torso lengths",
    "torso_flic": "error, in torso lengths",
    "head": "error, in head lengths",
    "box_diagonal": "error, in box diagonals",
    "box_side": "error, in box sides",
    "pixel": "error, in pixels",
}


def with_pairs(
    evaluation: Evaluation, estimator: TopDownEstimator, dataset: Dataset, *, processes: Processes = ALONE
) -> Evaluation:
    """Return an evaluation with the same results whose poses are paired with the labelled people, as a report needs.

    Args:
        evaluation: From ``evaluate`` or a protocol.
        estimator: Estimates the pose in each labelled box, if the evaluation is not paired yet.
        dataset: The evaluated dataset.
        processes: As in ``evaluate``.
    """
    if evaluation.paired:
        return evaluation
    pairs = evaluate(estimator, dataset, [], processes=processes)
    return dataclasses.replace(pairs, results=evaluation.results, table=evaluation.table)


def report_of(
    evaluation: Evaluation,
    dataset: Dataset,
    *,
    title: str,
    pck: Pck | None = None,
    headline_first: str | None = None,
    curve: Sequence[Mapping[str, float]] = (),
    best: tuple[str, int] | None = None,
    recipe: str = "",
    environment: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    examples: int = EXAMPLES,
    reliability: Reliability | None = None,
) -> Report:
    """Gather the content of an evaluation's report.

    Args:
        evaluation: From ``evaluation.evaluate``.
        dataset: The evaluated dataset; examples are cropped from its images.
        title: Title of the page.
        pck: Determines the unit and thresholds of the curve and ranks the images. None selects one by the labels: PCKh
            if head sizes are known, else PCK by the torso if there is one, else by the box.
        headline_first: Name of the result to show first.
        curve: Rows of a training curve.
        best: As in ``Report``.
        recipe: TOML text.
        environment: Machine and versions; None uses those of this process.
        notes: Sentences for the top of the page.
        examples: Number of best images, and of worst ones.
        reliability: As in ``Report``.

    Raises:
        ValueError: Poses and labels are not paired.
    """
    if not evaluation.paired:
        raise ValueError(
            "A report compares each pose with the labels of its person, but these poses are not paired with labelled "
            "people. Pair them first: with_pairs(evaluation, estimator, dataset)."
        )
    results = {k: v for k, v in evaluation.results.items() if "/" not in k}
    if headline_first in evaluation.results:
        results = {headline_first: evaluation.results[headline_first]} | results
    people = {"people": float(sum(len(t) for t in evaluation.truth)), "images": float(len(evaluation.truth))}
    if not len(evaluation.skeleton):  # only boxes
        return Report(
            title=title, skeleton=evaluation.skeleton, headline=results | people, curve=curve, best=best,
            recipe=recipe, environment=this_environment() if environment is None else environment, notes=notes,
        )  # fmt: skip
    metric = _measured(evaluation, pck)
    thresholds, shares, joint_curves = metric.curve()
    errors = KeypointErrors()
    for predicted, truth in zip(evaluation.predicted, evaluation.truth, strict=True):
        errors.update(predicted, truth)
    threshold = metric.thresholds[0]
    unit = UNIT_NAMES.get(metric.normaliser) if isinstance(metric.normaliser, str) else None
    return Report(
        title=title,
        skeleton=evaluation.skeleton,
        headline=results | people,
        curve=curve,
        best=best,
        per_joint=evaluation.table or metric.table(),
        pck_curve=(thresholds, shares) if np.isfinite(shares).all() else None,
        joint_curves=joint_curves if np.isfinite(shares).all() else None,
        threshold_name=unit or f"error, in units of {metric.normaliser}",
        examples=_examples(evaluation, dataset, metric, threshold, examples),
        result_name=f"{metric.name}@{threshold:g}",
        errors=errors.table(),
        reliability=reliability,
        recipe=recipe,
        environment=this_environment() if environment is None else environment,
        notes=notes,
    )


def usual_pck(skeleton: Skeleton, truth: Sequence[Instances]) -> Pck:
    """Return the PCK that suits the labels: by the head if its size is known, else by the torso, else by the box."""
    if any("head_px" in t.extra and np.isfinite(t.extra["head_px"]).any() for t in truth):
        return pckh(excluded=tuple(n for n in ("pelvis", "thorax") if n in skeleton.keypoints))
    corners = {f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "shoulder")}
    if corners <= set(skeleton.keypoints):
        torso = Pck("torso", (0.2, 0.1))
        for people in truth:
            torso.update(people, people)
        if torso.people:
            return Pck("torso", (0.2, 0.1))
    return Pck("box_diagonal", (0.05,))


def _measured(evaluation: Evaluation, pck: Pck | None) -> Pck:
    """Return a PCK updated with the evaluation's people, in order; the given one is not modified."""
    metric = dataclasses.replace(pck) if pck is not None else usual_pck(evaluation.skeleton, evaluation.truth)
    for predicted, truth in zip(evaluation.predicted, evaluation.truth, strict=True):
        metric.update(predicted, truth)
    return metric


def _examples(evaluation: Evaluation, dataset: Dataset, metric: Pck, threshold: float, count: int) -> list[Example]:
    """Crop the best and the worst people among those with enough labels."""
    places = [(i, n) for i, truth in enumerate(evaluation.truth) for n in range(len(truth))]
    distance = metric.distance
    counted = ~np.isnan(distance)
    labels = counted.sum(1)
    usable = np.flatnonzero(labels >= max(1, int(labels.max(initial=0)) // 2))
    if not len(usable):
        return []
    share = np.array([share_within(distance[p], threshold, metric.comparator) for p in usable])
    # people with the same share are ordered by their mean error, clipped to twice the threshold
    off = np.array([np.minimum(distance[p][counted[p]], 2 * threshold).mean() for p in usable])
    order = np.lexsort((off, -share))
    half = min(count, (len(order) + 1) // 2)
    chosen = list(dict.fromkeys([*order[:half], *order[::-1][:count]]))
    return [_example(evaluation, dataset, *places[usable[c]], float(share[c])) for c in chosen]


def _example(evaluation: Evaluation, dataset: Dataset, image: int, row: int, result: float) -> Example:
    truth, predicted = evaluation.truth[image][row], evaluation.predicted[image][row]
    points = truth.xy[0][truth.known[0]].astype(np.float64)
    corners = np.concatenate([truth.box_xyxy.reshape(-1, 2).astype(np.float64), points])
    low, high = corners.min(0), corners.max(0)
    around = fit_aspect(np.concatenate([low, np.maximum(high, low + 8.0)]), 1.0, padding=1.15)
    view = View.of_region(around, (TILE_PX, TILE_PX))
    pixels = view.read(dataset.image(evaluation.indices[image]))
    caption = Path(evaluation.sources[image]).name or evaluation.sources[image]
    return Example(caption, pixels, truth.moved(view.to_view), predicted.moved(view.to_view), result)
