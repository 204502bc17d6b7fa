from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.calibration import Calibration, CalibrationReport


def world(users: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A model's own probabilities, twice too sure of itself, lengths, the truth, and hits."""
    random = np.random.default_rng(seed)
    logit, lengths = random.normal(-1, 1.5, users), random.integers(1, 200, users)
    truth = 1 / (1 + np.exp(-(0.5 * logit - 0.2 * np.log1p(lengths))))
    return 1 / (1 + np.exp(-logit)), lengths, truth, random.random(users) < truth


def test_a_model_that_is_too_sure_is_put_right() -> None:
    share, lengths, _, hits = world(20_000, seed=0)
    calibration = Calibration.fit(share, lengths, hits)
    assert calibration is not None
    assert (calibration.slope, calibration.of_length) == pytest.approx((0.5, -0.2), abs=0.05)
    share, lengths, truth, hits = world(20_000, seed=1)
    confidence = calibration(share, lengths)
    assert np.abs(confidence - truth).max() < 0.05
    assert CalibrationReport.of(share, hits).error > 0.1
    report = CalibrationReport.of(confidence, hits)
    assert report.error < 0.02
    assert report.deciles == sorted(report.deciles)  # rising, in confidence and in hits
    assert [rate for _, rate in report.deciles] == sorted(rate for _, rate in report.deciles)
    assert Calibration.from_dict({**calibration.to_dict(), "k": 20}) == calibration


def test_too_few_users_and_users_who_are_all_alike_give_none() -> None:
    share, lengths, _, hits = world(100, seed=0)
    assert Calibration.fit(share[:40], lengths[:40], hits[:40]) is None
    assert Calibration.fit(share, lengths, np.zeros(100, dtype=bool)) is None


def test_a_fit_on_a_model_that_is_all_but_certain_does_not_run_away() -> None:
    """Of lists whose probability is nearly 1, two miss: whole steps of Newton's lead to -1000."""
    share, hits = np.full(60, 1 - 1e-6), np.ones(60, dtype=bool)
    hits[:2] = False
    calibration = Calibration.fit(share, np.full(60, 8), hits)
    assert calibration is not None
    assert calibration(share[:1], np.array([8]))[0] == pytest.approx(58 / 60, abs=0.02)


def test_impossible_and_certain_lists_have_a_finite_confidence() -> None:
    share, lengths, _, hits = world(200, seed=0)
    calibration = Calibration.fit(share, lengths, hits)
    assert calibration is not None
    confidence = calibration(np.array([0.0, 1.0]), np.array([0, 10**6]))
    assert ((confidence > 0) & (confidence < 1)).all()


def test_the_error_is_the_mean_distance_over_tenths() -> None:
    confidence = np.linspace(0.05, 0.95, 100)
    report = CalibrationReport.of(confidence, np.zeros(100, dtype=bool))
    assert (report.users, report.error) == (100, pytest.approx(0.5))
