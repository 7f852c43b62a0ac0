"""How well calibrated predictions are: whether keypoints stated as right with 0.8 are right in 8 of 10 cases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from poseglass.core.calibration import Calibration
from poseglass.core.instances import Instances
from poseglass.metrics.pck import length_px, normalised_distance
from poseglass.readers.mixed import respelt

TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")

BINS = 15
"""Number of bins of the diagram and of the expected calibration error; each has equally many keypoints."""


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Probabilities and radii of predicted keypoints, and what came of them.

    Args:
        probability: ``(M,)``, of keypoints with a label, of people with a labelled torso.
        right: ``(M,)`` bool, whether each lies within ``within`` torsos of its label.
        score: ``(M,)``, the raw scores.
        radius_px: ``(L,)`` of all keypoints with a label, image pixels; empty if none was predicted.
        error_px: ``(L,)``, their distances from the labels.
        within: As in ``Calibration``.
        coverage: As in ``Calibration``.
    """

    probability: np.ndarray
    right: np.ndarray
    score: np.ndarray
    radius_px: np.ndarray
    error_px: np.ndarray
    within: float
    coverage: float

    def results(self) -> dict[str, float]:
        """Return the results by name.

        Returns:
            "ece", the expected calibration error; "brier", the Brier score of the probabilities, "brier of score" that
            of the raw scores, "brier of constant" that of stating the overall share each time; "coverage", the share
            of keypoints within their radius; "median radius px".
        """
        results = expected_error(self.probability, self.right)
        results["brier of score"] = float(np.mean((self.score - self.right) ** 2))
        if len(self.radius_px):
            results["coverage"] = float(np.mean(self.error_px <= self.radius_px))
            results["median radius px"] = float(np.median(self.radius_px))
        return results

    def diagram(self, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
        """Return mean probability and share that is right of each bin, ``(bins,)`` each."""
        parts = _bins(self.probability, bins)
        return (
            np.array([self.probability[rows].mean() for rows in parts]),
            np.array([self.right[rows].mean() for rows in parts]),
        )

    def in_words(self) -> str:
        """Return the results as one or two sentences."""
        got = self.results()
        text = (
            f"Probabilities (within {self.within:g} of the torso, {len(self.probability):,} keypoints): expected "
            f"calibration error {got['ece']:.3f}, Brier score {got['brier']:.3f} (raw scores "
            f"{got['brier of score']:.3f}, a constant {got['brier of constant']:.3f})."
        )
        if "coverage" in got:
            text += (
                f" Radii: {got['coverage']:.1%} of keypoints lie within their radius (target {self.coverage:.0%}); the "
                f"median radius is {got['median radius px']:.1f} px."
            )
        return text


def reliability_of(
    predicted: Sequence[Instances], truth: Sequence[Instances], calibration: Calibration
) -> Reliability | None:
    """Return the reliability of predictions, or None if nothing can be said: no probabilities, or no labelled torso.

    Args:
        predicted: One ``Instances`` per image, with probabilities.
        truth: Rows as in ``predicted``.
        calibration: What the probabilities come from.
    """
    if not all(found.probability is not None for found in predicted if len(found)):
        return None
    chance, right, score, radius, error = [], [], [], [], []
    for found, people in zip(predicted, truth, strict=True):
        if found.probability is None or not len(found):
            continue
        labels = np.where((people.known & found.known)[..., None], people.xy, np.nan)
        torsos = torsos_of(found, people)
        known = ~np.isnan(torsos)
        chance.append(found.probability[known])
        right.append(torsos[known] <= calibration.within)
        score.append(found.score[known])
        if "radius_px" in found.keypoint_extra:
            error_px = normalised_distance(found.xy, labels, 1.0)
            known = ~np.isnan(error_px)
            radius.append(found.keypoint_extra["radius_px"][known])
            error.append(error_px[known])
    if not sum(map(len, chance)):
        return None
    none = np.zeros(0)
    return Reliability(
        np.concatenate(chance), np.concatenate(right), np.concatenate(score), np.concatenate([none, *radius]),
        np.concatenate([none, *error]), calibration.within, calibration.coverage,
    )  # fmt: skip


def torsos_of(found: Instances, people: Instances) -> np.ndarray:
    """Return the errors of N people in torsos, ``(N, K)``, NaN where nothing counts.

    Args:
        found: The predictions.
        people: The labels, row by row, of the same skeleton. One without shoulders and hips has no torso.
    """
    xy = np.where((people.known & found.known)[..., None], people.xy, np.nan)
    spelt = respelt(people.skeleton, TORSO)
    if not set(TORSO) <= set(spelt.keypoints):
        return np.full(found.score.shape, np.nan)
    return normalised_distance(found.xy, xy, length_px(replace(people, skeleton=spelt), "torso"))


def expected_error(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> dict[str, float]:
    """Return the expected calibration error and the Brier score of probabilities.

    Args:
        probability: ``(M,)`` in [0, 1].
        right: ``(M,)`` bool.
        bins: Number of bins with equally many probabilities.

    Returns:
        "ece", the mean over bins of the distance between mean probability and share that is right (Guo et al. 2017,
        section 2, https://arxiv.org/abs/1706.04599); "brier", the mean squared distance; "brier of constant", that of
        stating the overall share each time.

    Example:
        >>> expected_error(np.array([0.0, 0.5, 0.5, 1.0]), np.array([False, False, True, True]), bins=2)
        {'ece': 0.25, 'brier': 0.125, 'brier of constant': 0.25}
    """
    gaps = [abs(probability[rows].mean() - right[rows].mean()) * len(rows) for rows in _bins(probability, bins)]
    share = right.mean()
    return {
        "ece": float(sum(gaps) / len(probability)),
        "brier": float(np.mean((probability - right) ** 2)),
        "brier of constant": float(share * (1 - share)),
    }


def _bins(probability: np.ndarray, bins: int) -> list[np.ndarray]:
    order = np.argsort(probability, kind="stable")
    return [rows for rows in np.array_split(order, bins) if len(rows)]
