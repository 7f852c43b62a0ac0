import pytest

from poseglass.training.schedule import Schedule, SchedulePart


def factors(total: int = 100, per_epoch: int = 10, **numbers) -> list[float]:
    schedule = Schedule(SchedulePart(**numbers), total, per_epoch)
    return [schedule.factor(step) for step in range(total)]


def test_constant_with_warm_up():
    assert factors(name="constant", warmup_steps=4)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_falls_from_one_to_the_final_factor():
    values = factors(name="cosine", final_factor=0.1)
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.55)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)
    assert values == sorted(values, reverse=True)
    assert Schedule(SchedulePart(name="cosine"), 100, 10).factor(100) == pytest.approx(0.0)


def test_cosine_starts_after_the_warm_up():
    values = factors(name="cosine", warmup_steps=10)
    assert values[9] == 1.0
    assert values[10] == 1.0
    assert values[55] == pytest.approx(0.5)


def test_a_cosine_can_stay_flat_and_fall_at_the_end():
    values = factors(name="cosine", warmup_steps=4, decay_epochs=2)
    assert values[3:81] == [1.0] * 78
    assert values[90] == pytest.approx(0.5)
    assert values[99] == pytest.approx(0.0, abs=0.01)
    longer = Schedule(SchedulePart(name="cosine", warmup_steps=4, decay_epochs=2), 200, 10)
    assert longer.factor(150) == 1.0
    assert longer.end_matters_from() == 180
    assert Schedule(SchedulePart(name="cosine", warmup_steps=4), 200, 10).end_matters_from() == 4
    assert Schedule(SchedulePart(name="plateau"), 200, 10).end_matters_from() == float("inf")


def test_steps_count_epochs():
    values = factors(name="step", milestones=(3, 6), factor=0.1)
    assert [values[29], values[30], values[59], values[60]] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_plateau_drops_after_patience_without_a_new_best():
    schedule = Schedule(SchedulePart(name="plateau", factor=0.2, patience=2), 100, 10)
    seen = []
    for value in (0.1, 0.3, 0.3, 0.2, 0.2, 0.31, 0.1, 0.1):
        schedule.observe(value)
        seen.append(schedule.factor(0))
    assert seen == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.04])


def test_a_plateau_can_drop_once_only():
    """The paper drops once; max_drops says so."""
    schedule = Schedule(SchedulePart(name="plateau", factor=0.2, patience=1, max_drops=1), 100, 10)
    for value in (0.3, 0.2, 0.1, 0.0):
        schedule.observe(value)
    assert schedule.factor(0) == pytest.approx(0.2)


def test_a_plateau_of_errors_drops_when_they_no_longer_fall():
    schedule = Schedule(SchedulePart(name="plateau", factor=0.2, patience=2), 100, 10, "lower")
    seen = []
    for value in (0.9, 0.7, 0.7, 0.8, 0.8, 0.69, 0.9, float("nan")):
        schedule.observe(value)
        seen.append(schedule.factor(0))
    assert seen == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.04])
    assert schedule.best == 0.69


def test_other_schedules_observe_nothing():
    schedule = Schedule(SchedulePart(name="cosine"), 100, 10)
    before = schedule.state()
    schedule.observe(0.5)
    assert schedule.state() == before


def test_state_round_trip():
    part = SchedulePart(name="plateau", patience=2)
    schedule, other = Schedule(part, 100, 10), Schedule(part, 100, 10)
    for value in (0.3, 0.2, 0.2, 0.1):
        schedule.observe(value)
    other.restore(schedule.state())
    assert other == schedule


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf")])
def test_a_result_that_could_not_be_had_is_not_a_best(value, better):
    schedule = Schedule(SchedulePart(name="plateau", patience=9), 100, 10, better)
    schedule.observe(value)
    assert schedule.bad_epochs == 1
    schedule.observe(0.1)
    assert (schedule.best, schedule.bad_epochs) == (0.1, 0)
