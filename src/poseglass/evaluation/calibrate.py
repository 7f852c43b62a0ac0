"""Fit a calibration: from the scores and errors of predictions on people that the network was not trained on.

The probability of a keypoint is a logistic function of its score and the score's logit (Platt, "Probabilistic outputs
for support vector machines", 1999, section 2): one for all keypoints, then one of that for each, two numbers that are
held near the identity, so that a keypoint with few labels follows the others. Isotonic regression (Zadrozny and Elkan,
"Transforming classifier scores into accurate multiclass probability estimates", KDD 2002, section 3) in place of the
first gave a higher Brier score on a few thousand labels; it is used for boxes, whose scores are far from probabilities.

The radius is split conformal prediction (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005,
chapter 2; Lei et al. 2018, section 2.2, https://arxiv.org/abs/1604.04173): a curve of the errors' quantile at a score,
times the number that makes it cover the requested share of people who were not in the fit of the curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from poseglass.core.calibration import Calibration, read_curves
from poseglass.evaluation.reliability import expected_error

KNOTS = 33
"""Values of a curve."""

PRIOR = 60.0
"""How many labelled keypoints the shared curve counts for when a keypoint's own two numbers are fitted."""

FOLDS = 5
BLOCK = 10
"""Rows that stay together in the cross-validation."""

SMALLEST = 1e-4
"""Floor of the error's quantile, as a share of the view."""

LEAST_SLOPE = 0.2
"""Least slope of a keypoint's logistic function: a higher score is never a lower probability."""

FEWEST = 100
"""Labelled keypoints without which nothing can be fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Scores and errors of N people's K keypoints.

    Args:
        score: ``(N, K)`` in [0, 1].
        error_torsos: ``(N, K)`` errors in torsos; NaN where nothing is labelled, or no torso.
        error_share: ``(N, K)`` errors as shares of the longer side of the view, or of the box where the network finds
            boxes; NaN where nothing is labelled.
        box_score: ``(B,)`` scores of boxes, of other people too; empty if boxes were given.
        box_right: ``(B,)`` bool, whether a box overlaps a labelled person's by half.
    """

    score: np.ndarray
    error_torsos: np.ndarray
    error_share: np.ndarray
    box_score: np.ndarray
    box_right: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Observed":
        return Observed(
            self.score[rows], self.error_torsos[rows], self.error_share[rows], self.box_score, self.box_right
        )


def joined(parts: Sequence[Observed]) -> Observed:
    """Return what was observed on several data sets as one."""
    return Observed(
        *(np.concatenate([getattr(part, name) for part in parts])
          for name in ("score", "error_torsos", "error_share", "box_score", "box_right"))
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
        folds: Parts of the cross-validation; blocks of rows are dealt to them in turn.

    Raises:
        ValueError: Too few keypoints and too few boxes are labelled.
    """
    known = ~np.isnan(seen.error_torsos)
    boxes = fit_shared(seen.box_score, seen.box_right) if len(seen.box_score) >= FEWEST else None
    if not seen.score.shape[1] and boxes is not None:  # finds boxes only
        none = np.zeros((0, KNOTS), np.float32)
        return Calibration(none, None, within, coverage, flip_test, boxes, len(seen.box_score), data)
    if known.sum() < FEWEST:
        raise ValueError(
            f"Calibration needs at least {FEWEST} labelled keypoints of people whose shoulders and hips are labelled, "
            f"got {known.sum()}; weights that find boxes without keypoints need as many found boxes, got "
            f"{len(seen.box_score)}. Give more labelled images."
        )
    # rows that follow each other may show the same person or scene, and stay together
    fold = np.arange(len(seen.score)) // BLOCK % folds
    right = seen.error_torsos <= within
    probability = np.full(seen.score.shape, np.nan)
    quantile = np.full(seen.score.shape, np.nan)
    for part in sorted(set(fold.tolist())):
        others, here = fold != part, fold == part
        if not known[others].any():
            others = here
        probability[here] = read(fit_probability(seen.score[others], right[others], known[others]), seen.score[here])
        quantile[here] = read(fit_quantile(seen.score[others], seen.error_share[others], coverage), seen.score[here])
    labelled = ~np.isnan(seen.error_share)
    factor = conformal_quantile((seen.error_share / quantile)[labelled], coverage)
    curve = fit_quantile(seen.score, seen.error_share, coverage) * factor
    measured = expected_error(probability[known], right[known])
    measured["brier of score"] = float(np.mean((seen.score[known] - right[known]) ** 2))
    measured["coverage"] = float(np.mean((seen.error_share <= quantile * factor)[labelled]))
    return Calibration(
        fit_probability(seen.score, right, known), curve.astype(np.float32), within, coverage, flip_test, boxes,
        len(seen.score), data, measured,
    )  # fmt: skip


def fit_probability(score: np.ndarray, right: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return curves ``(K, KNOTS)`` float32 of the share that is right, from ``(N, K)`` each."""
    numbers = _logistic(_features(score[known]), right[known], np.array([1.0, 0.0, 0.0]), 1.0)
    logit = isotonic(_features(np.linspace(0, 1, KNOTS)) @ numbers, np.ones(KNOTS))
    curves = np.empty((score.shape[1], KNOTS), np.float32)
    for k in range(score.shape[1]):
        own = known[:, k]
        at = np.interp(score[own, k], np.linspace(0, 1, KNOTS), logit)
        design = np.stack([at, np.ones_like(at)], 1)
        slope, shift = _logistic(design, right[own, k], np.array([1.0, 0.0]), PRIOR / 4, least=LEAST_SLOPE)
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
    shared = np.maximum(np.interp(np.linspace(0, 1, KNOTS), centers, levels), SMALLEST)
    factors = np.ones(score.shape[1])
    for k in range(score.shape[1]):
        own = known[:, k]
        if own.sum() >= FEWEST:
            ratio = error[own, k] / read(shared, score[own, k])
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
    """Return curves ``(K, M)``, or one ``(M,)``, read at scores ``(..., K)``; see ``read_curves``."""
    return read_curves(curves, torch.from_numpy(np.asarray(score, np.float32))).numpy()


def _features(score: np.ndarray) -> np.ndarray:
    """Return what the logistic function of all keypoints sees of scores ``(M,)``: logit, score and 1, ``(M, 3)``."""
    return np.stack([_logit(score), score, np.ones_like(score)], 1)


def _logistic(
    design: np.ndarray, right: np.ndarray, start: np.ndarray, strength: float, *, least: float = -np.inf
) -> np.ndarray:
    """Return the numbers of a logistic regression, by Newton's method.

    Args:
        design: ``(M, F)``.
        right: ``(M,)`` bool.
        start: ``(F,)`` numbers that a quadratic penalty holds them near.
        strength: Weight of the penalty; a label at probability 0.5 weighs 1/4.
        least: Least value of the first number. From there on the others move alone.
    """

    def cost(numbers: np.ndarray) -> float:
        z = design @ numbers
        return float(np.sum(np.logaddexp(0, z) - right * z) + 0.5 * strength * np.sum((numbers - start) ** 2))

    now = start.copy()
    for _ in range(50):
        chance = 1 / (1 + np.exp(-(design @ now)))
        gradient = design.T @ (chance - right) + strength * (now - start)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + strength * np.eye(len(now))
        step = np.linalg.solve(curvature, gradient)
        if now[0] - step[0] < least:
            step[0] = now[0] - least
            step[1:] = np.linalg.solve(curvature[1:, 1:], gradient[1:] - curvature[1:, 0] * step[0])
        size = 1.0
        while size > 1e-4 and cost(now - size * step) > cost(now):
            size /= 2
        now = now - size * step
        if np.abs(size * step).max() < 1e-6:
            break
    return now


def _logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability.astype(np.float64), 1e-3, 1 - 1e-3)
    return np.log(clipped / (1 - clipped))
