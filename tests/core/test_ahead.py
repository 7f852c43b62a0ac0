import threading
import time

import pytest

from poseglass.core.ahead import ahead


def test_items_come_in_order_from_another_thread():
    makers = []

    def items():
        for number in range(50):
            makers.append(threading.current_thread().name)
            yield number

    assert list(ahead(items(), most=4)) == list(range(50))
    assert set(makers) == {"ahead"}


def test_no_more_are_made_than_may_be_ready():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield 10

    taken = ahead(items(), most=30, weigh=int)
    next(taken)
    for _ in range(100):  # wait until the thread waits
        time.sleep(0.005)
    assert made == [0, 1, 2, 3]  # three are ready; a fourth would exceed the 30
    taken.close()
    assert made == [0, 1, 2, 3]


def test_one_that_is_heavier_than_all_allowed_comes_alone():
    assert list(ahead(iter([100, 100, 100]), most=30, weigh=int)) == [100] * 3


def test_an_error_comes_at_its_place():
    def items():
        yield 1
        raise OSError("the disk is gone")

    taken = ahead(items(), most=8)
    assert next(taken) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)


def test_the_thread_ends_when_nobody_takes_more():
    taken = ahead(iter(range(10**9)), most=4)
    assert next(taken) == 0
    taken.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_nothing_ready():
    assert list(ahead([], most=1)) == []
    with pytest.raises(ValueError, match="most of at least 1, got 0"):
        ahead([], most=0)
