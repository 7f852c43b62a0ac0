"""Fitted calibrations: probabilities come true, and radii cover what they were to, on people who were left out."""

import numpy as np
import pytest

from poseglass.evaluation.calibrate import (
    Observed,
    conformal_quantile,
    fit_calibration,
    isotonic,
    read,
)
from poseglass.evaluation.reliability import expected_error


def people(number: int, seed: int, keypoints: int = 14) -> tuple[Observed, np.ndarray]:
    """Return people whose scores say too much, each keypoint in its own way, and the true probabilities."""
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 1, (number, keypoints))
    way = np.linspace(-1.5, 0.5, keypoints)
    true = 1 / (1 + np.exp(-(3 * score - 1.5 + way)))
    right = rng.random(score.shape) < true
    torsos = np.where(right, 0.2 * rng.random(score.shape), 0.2 + rng.exponential(0.5, score.shape))
    torsos[rng.random(score.shape) < 0.1] = np.nan
    none = np.zeros(0)
    return Observed(score, torsos, 0.3 * torsos, none, none.astype(bool)), true


def test_probabilities_come_true_and_radii_cover() -> None:
    seen, _ = people(500, 0)
    fitted = fit_calibration(seen)
    new, true = people(1000, 1)
    known = ~np.isnan(new.error_torsos)
    stated, right = read(fitted.probability, new.score), new.error_torsos <= 0.2
    got = expected_error(stated[known], right[known])
    assert got["ece"] < 0.03
    assert got["brier"] < got["brier of constant"]
    assert got["brier"] < np.mean((new.score - right)[known] ** 2)
    assert np.abs(stated - true).mean() < 0.05
    covered = (new.error_share <= read(fitted.radius_share, new.score))[known].mean()
    assert covered == pytest.approx(0.9, abs=0.02)
    assert (np.diff(fitted.probability, axis=1) >= -1e-6).all()
    assert (np.diff(fitted.radius_share, axis=1) <= 1e-6).all()
    assert fitted.measured["ece"] < 0.03


def test_scores_that_say_nothing_get_the_share_that_is_right() -> None:
    rng = np.random.default_rng(2)
    right = rng.random((400, 4)) < 0.7
    torsos = np.where(right, 0.1, 0.4)
    none = np.zeros(0)
    fitted = fit_calibration(Observed(rng.random((400, 4)), torsos, torsos, none, none.astype(bool)))
    assert np.abs(fitted.probability[:, 4:-4] - 0.7).max() < 0.12


def test_boxes_get_a_curve_of_their_own() -> None:
    rng = np.random.default_rng(3)
    score = rng.random(3000)
    seen, _ = people(100, 4)
    fitted = fit_calibration(
        Observed(seen.score, seen.error_torsos, seen.error_share, score, rng.random(3000) < score**2), flip_test=True
    )
    assert fitted.flip_test
    np.testing.assert_allclose(fitted.box_probability, np.linspace(0, 1, 33) ** 2, atol=0.12)


def test_too_few_labels_are_refused() -> None:
    seen, _ = people(5, 5)
    with pytest.raises(ValueError, match=r"at least 100 labelled keypoints .* got \d+\."):
        fit_calibration(seen)


def test_isotonic_is_the_nearest_rising_sequence(rng) -> None:
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert isotonic(np.array([3.0, 0.0]), np.array([1.0, 3.0])).tolist() == [0.75, 0.75]
    values, weights = rng.random(50), rng.random(50) + 0.1
    fitted = isotonic(values, weights)
    assert (np.diff(fitted) >= 0).all()
    best = (weights * (fitted - values) ** 2).sum()
    for _ in range(200):  # no rising sequence nearby is nearer
        other = np.sort(fitted + 0.05 * rng.standard_normal(50))
        assert (weights * (other - values) ** 2).sum() >= best - 1e-12


def test_conformal_quantile_counts_the_next_value(rng) -> None:
    assert conformal_quantile(np.arange(1.0, 10.0), 0.9) == 9.0
    assert conformal_quantile(np.arange(1.0, 20.0), 0.9) == 18.0
    hits = [rng.random() <= conformal_quantile(rng.random(19), 0.9) for _ in range(4000)]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.02)


def test_a_keypoint_much_worse_than_the_others_gets_its_own_share() -> None:
    rng = np.random.default_rng(6)
    score = rng.beta(8, 1, (500, 6))
    share = np.array([0.95, 0.9, 0.9, 0.9, 0.05, 0.4])
    errors = np.where(rng.random(score.shape) < share, 0.1, 0.9)
    none = np.zeros(0)
    fitted = fit_calibration(Observed(score, errors, errors, none, none.astype(bool)))
    stated = read(fitted.probability, score).mean(0)
    np.testing.assert_allclose(stated, (errors < 0.2).mean(0), atol=0.08)


def test_what_finds_boxes_only() -> None:
    rng = np.random.default_rng(7)
    score = rng.random(3000)
    empty = np.zeros((0, 0))
    fitted = fit_calibration(Observed(empty, empty, empty, score, rng.random(3000) < score))
    assert fitted.probability.shape[0] == 0
    assert fitted.measured is None
    np.testing.assert_allclose(fitted.box_probability, np.linspace(0, 1, 33), atol=0.12)
