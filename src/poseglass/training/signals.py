"""Ctrl-C and SIGTERM as a question that training asks between two steps, so that it never stops halfway through one."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

IMPATIENT_SECONDS = 1.0
"""A second Ctrl-C after this long ends the program at once. Sooner it is the same one: torchrun passes on what the
terminal has already sent to everybody."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Collect the wish to stop while inside; afterwards signals mean what they meant before.

    Yields:
        Whether Ctrl-C, SIGTERM (a service manager) or SIGHUP (a closed terminal, unless started by nohup) came.
        Outside the main thread, where signals cannot be taken, always False.

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
