"""Fit a calibration: from the scores and errors of predictions on people that the network was not trained on.

The probability of a keypoint is a logistic function of a curve that all keypoints share. That curve is isotonic
regression (Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD
2002, section 3); the logistic function, two numbers per keypoint, is Platt's ("Probabilistic outputs for support vector
machines", 1999, section 2), held near the identity, so that a keypoint with few labels follows the others.

The radius is split conformal prediction (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005,
chapter 2; Lei et al. 2018, section 2.2, https://arxiv.org/abs/1604.04173): a curve of the errors' quantile at a score,
times the number that makes it cover the requested share of people who were not in the fit of the curve.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from poseglass.core.boxes import iou
from poseglass.core.calibration import Calibration
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, boxes_complete
from poseglass.core.view import View
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.evaluate import evaluate
from poseglass.evaluation.found import evaluate_found
from poseglass.evaluation.reliability import expected_error
from poseglass.metrics.metric import Better
from poseglass.metrics.pck import length_px, normalised_distance
from poseglass.readers.mixed import respelt

KNOTS = 33
"""Values of a curve."""

PRIOR = 60.0
"""How many labelled keypoints the shared curve counts for when a keypoint's own two numbers are fitted."""

FOLDS = 5
FEWEST = 100
"""Labelled keypoints without which nothing can be fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Scores and errors of N people's K keypoints.

    Args:
        score: ``(N, K)`` in [0, 1].
        torsos: ``(N, K)`` errors in torsos; NaN where nothing is labelled, or no torso.
        views: ``(N, K)`` errors as shares of the longer side of the view, or of the box where the network finds boxes;
            NaN where nothing is labelled.
        box_score: ``(B,)`` scores of boxes, of other people too; empty if boxes were given.
        box_right: ``(B,)`` bool, whether a box overlaps a labelled person's by half.
    """

    score: np.ndarray
    torsos: np.ndarray
    views: np.ndarray
    box_score: np.ndarray
    box_right: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Observed":
        return Observed(self.score[rows], self.torsos[rows], self.views[rows], self.box_score, self.box_right)


def observe(
    estimator: TopDownEstimator | OneStageEstimator, dataset: Dataset, *, on_image: Callable[[], None] | None = None
) -> Observed:
    """Run an estimator on labelled images, and collect its scores and errors in the order of its own keypoints.

    Args:
        estimator: A top-down one gets the boxes of the labels. One that finds everybody has its boxes judged in images
            where everybody is labelled, and its keypoints where a box overlaps a labelled person's by half.
        dataset: Its keypoints are matched by name.
        on_image: Called after each image.

    Raises:
        ValueError: As ``evaluate`` and ``evaluate_found``.
    """
    boxes = _Boxes()
    if isinstance(estimator, TopDownEstimator):
        result = evaluate(estimator, dataset, [], on_image=on_image)
    else:
        every = replace(estimator, min_box_score=0.01)
        complete = any(boxes_complete(dataset, i) for i in range(len(dataset)))
        classes = estimator.card.classes if estimator.card is not None else ()
        result = evaluate_found(
            every, dataset, [boxes] if complete else [], on_image=on_image, classes=classes, least_score=0.01
        )
    names = respelt(estimator.skeleton, dataset.skeleton.keypoints)
    none = np.zeros((0, len(names)))
    score, torsos, views = [none], [none], [none]
    for found, people in zip(result.predicted, result.truth, strict=True):
        if not len(names):
            continue
        there = found.box_score > 0
        found, people = found.in_skeleton(names)[there], people.in_skeleton(names)[there]
        labels = np.where(people.known[..., None], people.xy, np.nan)
        if isinstance(estimator, TopDownEstimator):
            wide = max(estimator.input.size_wh)
            side_px = np.array([wide * View.crop(box, estimator.input).home.scale for box in people.box_xyxy])
        else:
            side_px = (found.box_xyxy[:, 2:] - found.box_xyxy[:, :2]).max(1)
        score.append(found.score)
        torsos.append(normalised_distance(found.xy, labels, length_px(people, "torso")))
        views.append(normalised_distance(found.xy, labels, side_px))
    return Observed(
        np.concatenate(score), np.concatenate(torsos), np.concatenate(views),
        np.concatenate([np.zeros(0), *boxes.score]), np.concatenate([np.zeros(0, bool), *boxes.right]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Collects which found boxes are right, as a metric that ``evaluate_found`` updates."""

    score: list[np.ndarray] = field(default_factory=list)
    right: list[np.ndarray] = field(default_factory=list)
    rows_correspond: ClassVar[bool] = False

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image: each labelled person is found once, by the best box that overlaps theirs by half (IoU)."""
        crowd = np.asarray(truth.extra.get("crowd", np.zeros(len(truth), bool)), bool)
        overlap = iou(predicted.box_xyxy, truth.box_xyxy)
        right, counts = np.zeros(len(predicted), bool), np.ones(len(predicted), bool)
        free = ~crowd
        for row in np.argsort(-predicted.box_score, kind="stable"):
            here = np.where(free, overlap[row], 0.0)
            if here.size and here.max() >= 0.5:
                right[row] = True
                free[here.argmax()] = False
            elif crowd.any() and overlap[row][crowd].max() > 0.2:
                counts[row] = False
        self.score.append(predicted.box_score[counts])
        self.right.append(right[counts])

    def compute(self) -> dict[str, float]:
        """Return nothing; the arrays are what counts."""
        return {}

    def better(self, name: str) -> Better:
        """Return "higher"; there are no results."""
        return "higher"

    def table(self) -> dict[str, dict[str, float]]:
        """Return nothing."""
        return {}

    def merge(self, other: Self) -> None:
        """Add the images of another."""
        self.score.extend(other.score)
        self.right.extend(other.right)


def joined(parts: Sequence[Observed]) -> Observed:
    """Return what was observed on several data sets as one."""
    return Observed(
        *(np.concatenate([getattr(part, name) for part in parts])
          for name in ("score", "torsos", "views", "box_score", "box_right"))
    )  # fmt: skip


def fit_calibration(
    seen: Observed,
    *,
    within: float = 0.2,
    coverage: float = 0.9,
    flip_test: bool = False,
    data: str = "",
    folds: int = FOLDS,
) -> Calibration:
    """Fit the curves, and measure by cross-validation over people what they give on others.

    Args:
        seen: Scores and errors on people that the network was not trained on.
        within: See ``Calibration``.
        coverage: See ``Calibration``.
        flip_test: Whether the scores are of a flip test.
        data: What the people are, in words.
        folds: Parts of the cross-validation; rows are dealt to them in turn.

    Raises:
        ValueError: Too few keypoints are labelled.
    """
    counted = int(np.isfinite(seen.torsos).sum())
    if counted < FEWEST:
        raise ValueError(
            f"Calibration needs at least {FEWEST} labelled keypoints of people whose shoulders and hips are labelled, "
            f"got {counted}."
        )
    fold = np.arange(len(seen.score)) % folds
    probability = np.full(seen.score.shape, np.nan)
    quantile = np.full(seen.score.shape, np.nan)
    for part in range(folds):
        others, here = seen[fold != part], fold == part
        probability[here] = read(fit_probability(others.score, others.torsos <= within, ~np.isnan(others.torsos)),
                                 seen.score[here])  # fmt: skip
        quantile[here] = read(fit_quantile(others.score, others.views, coverage), seen.score[here])
    ratio = (seen.views / quantile)[~np.isnan(seen.views)]
    factor = conformal_quantile(ratio, coverage)
    right, known = seen.torsos <= within, ~np.isnan(seen.torsos)
    curve = fit_quantile(seen.score, seen.views, coverage) * factor
    boxes = None
    if len(seen.box_score) >= FEWEST:
        boxes = fit_shared(seen.box_score, seen.box_right)
    measured = expected_error(probability[known], right[known])
    measured["brier of score"] = float(np.mean((seen.score[known] - right[known]) ** 2))
    return Calibration(
        fit_probability(seen.score, right, known), curve.astype(np.float32), within, coverage, flip_test, boxes,
        len(seen.score), data, measured,
    )  # fmt: skip


def fit_probability(score: np.ndarray, right: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return curves ``(K, KNOTS)`` float32 of the share that is right, from ``(N, K)`` each."""
    shared = fit_shared(score[known], right[known])
    logit = _logit(shared)
    curves = np.empty((score.shape[1], KNOTS), np.float32)
    for k in range(score.shape[1]):
        own = known[:, k]
        at = _logit(_read_one(shared, score[own, k]))
        slope, shift = _platt(at, right[own, k])
        curves[k] = 1 / (1 + np.exp(-(slope * logit + shift)))
    return curves


def fit_shared(score: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return one rising curve ``(KNOTS,)`` float32 of the share that is right, from ``(M,)`` each."""
    place = np.clip(score, 0, 1) * (KNOTS - 1)
    # each observation is shared out to the two knots beside it, and one that is half right is added at every knot
    below = np.minimum(place.astype(np.int64), KNOTS - 2)
    share = place - below
    weight = np.bincount(below, 1 - share, KNOTS) + np.bincount(below + 1, share, KNOTS)
    hits = np.bincount(below, (1 - share) * right, KNOTS) + np.bincount(below + 1, share * right, KNOTS)
    mean = (hits + 0.5 * right.mean()) / (weight + 0.5)
    return isotonic(mean, weight + 0.5).astype(np.float32)


def fit_quantile(score: np.ndarray, error: np.ndarray, coverage: float) -> np.ndarray:
    """Return falling curves ``(K, KNOTS)`` of the errors' quantile at a score, the same for all keypoints but a factor.

    Args:
        score: ``(N, K)``.
        error: ``(N, K)``, NaN where unknown.
        coverage: Which quantile.
    """
    known = ~np.isnan(error)
    order = np.argsort(score[known], kind="stable")
    scores, errors = score[known][order], error[known][order]
    count = max(len(scores) // 20, 1) if len(scores) < 2000 else 100
    bins = np.array_split(np.arange(len(scores)), max(len(scores) // count, 1))
    centers = np.array([scores[rows].mean() for rows in bins])
    levels = np.array([conformal_quantile(errors[rows], coverage) for rows in bins])
    levels = isotonic(levels[::-1], np.array([len(rows) for rows in bins], np.float64)[::-1])[::-1]
    shared = np.interp(np.linspace(0, 1, KNOTS), centers, levels)
    factors = np.ones(score.shape[1])
    for k in range(score.shape[1]):
        own = known[:, k]
        if own.sum() >= FEWEST:
            ratio = error[own, k] / _read_one(shared, score[own, k])
            factors[k] = conformal_quantile(ratio, coverage)
    return np.outer(factors, shared)


def conformal_quantile(values: np.ndarray, coverage: float) -> float:
    """Return the smallest value that covers a share of exchangeable values, the next one included."""
    ordered = np.sort(values)
    rank = int(np.ceil((len(ordered) + 1) * coverage))
    return float(ordered[min(rank, len(ordered)) - 1])


def isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the rising sequence with the least weighted squared distance from values (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m, i), (b, n, j) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n, i + j)]
    return np.concatenate([np.full(count, value) for value, _, count in blocks])


def read(curves: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return curves ``(K, M)`` read at scores ``(N, K)``."""
    return np.stack([_read_one(curve, score[:, k]) for k, curve in enumerate(curves)], 1)


def _platt(at: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return slope (at least 0.2) and shift of a logistic regression of ``right``, held near 1 and 0 by a prior."""
    slope, shift = 1.0, 0.0
    strength = np.array([PRIOR, PRIOR]) / 4  # a label at probability 0.5 weighs 1/4
    design = np.stack([at, np.ones_like(at)], 1)
    for _ in range(25):
        now = 1 / (1 + np.exp(-(design @ [slope, shift])))
        gradient = design.T @ (now - right) + strength * [slope - 1, shift]
        curvature = (design * (now * (1 - now))[:, None]).T @ design + np.diag(strength)
        step = np.linalg.solve(curvature, gradient)
        slope, shift = max(slope - step[0], 0.2), shift - step[1]
        if np.abs(step).max() < 1e-6:
            break
    return float(slope), float(shift)


def _logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability.astype(np.float64), 1e-3, 1 - 1e-3)
    return np.log(clipped / (1 - clipped))


def _read_one(curve: np.ndarray, score: np.ndarray) -> np.ndarray:
    return np.interp(score, np.linspace(0, 1, len(curve)), curve)
