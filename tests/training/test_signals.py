import signal
import threading

import pytest

from poseglass.training import signals
from poseglass.training.signals import asked_to_stop


@pytest.fixture(autouse=True)
def heard():
    """A shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_becomes_a_question_and_is_itself_again_afterwards(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with asked_to_stop() as asked:
            assert not asked()
            signal.raise_signal(number)
            assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with asked_to_stop() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_right_away_is_the_same_one_and_a_later_one_is_impatience(monkeypatch):
    with asked_to_stop() as asked:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(signals, "IMPATIENT_SECONDS", -1.0)
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_train_without_signals():
    seen = []

    def work() -> None:
        with asked_to_stop() as asked:
            seen.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
