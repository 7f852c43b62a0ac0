import pytest

from poseglass.metrics.metric import is_new_best
from poseglass.training.monitor import Monitor

NAN = float("nan")


@pytest.mark.parametrize(("better", "beats"), [("higher", 0.6), ("lower", 0.4)])
def test_a_new_best_beats_the_one_before(better, beats):
    assert is_new_best(beats, 0.5, better)
    assert not is_new_best(1.0 - beats, 0.5, better)
    assert not is_new_best(0.5, 0.5, better)
    assert is_new_best(0.5, None, better)
    for value in (NAN, float("inf"), -float("inf")):
        assert not is_new_best(value, None, better)
        assert not is_new_best(value, 0.5, better)


@pytest.mark.parametrize(("better", "row", "since"), [("higher", 2, 3), ("lower", 5, 1)])
def test_which_row_is_the_best_and_how_long_ago(better, row, since):
    monitor = Monitor("val/x", better)
    values = [NAN, 0.2, 0.5, None, 0.5, 0.1, NAN]
    rows = [{"epoch": 1.0} if value is None else {"val/x": value} for value in values]
    assert (monitor.name, monitor.best_row(rows)) == ("x", row)
    assert monitor.since_best(rows) == since


def test_nothing_measured_has_no_best():
    assert Monitor().best_row([]) is None
    assert Monitor().since_best([]) == 0
    assert Monitor("val/x").best_row([{"val/x": NAN}, {"loss": 1.0}]) is None
    assert Monitor("val/x").since_best([{"val/x": NAN}, {"loss": 1.0}]) == 1
    assert Monitor().best_row([{"loss": 2.0}, {"loss": 1.0}, {"loss": 3.0}]) == 1
