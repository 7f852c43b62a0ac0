"""Ctrl-C and SIGTERM as a flag that training checks between two steps, so that it never stops in the middle of one."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

IMPATIENT_SECONDS = 1.0
"""A second Ctrl-C after this time ends the program at once. An earlier one counts as the same, because torchrun
forwards the signal that the terminal has already sent to every process."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Record requests to stop inside the context; the previous signal handlers are restored afterwards.

    Yields:
        A function that returns whether Ctrl-C, SIGTERM (a service manager) or SIGHUP (a closed terminal, unless started
        by nohup) arrived. Outside the main thread, where signals cannot be handled, always False.

    Raises:
        KeyboardInterrupt: A second Ctrl-C came more than a second after the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    times: list[float] = []

    def take(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and times and time.monotonic() - times[0] > IMPATIENT_SECONDS:
            raise KeyboardInterrupt
        times.append(time.monotonic())

    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, take)
        yield lambda: bool(times)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
