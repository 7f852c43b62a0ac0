"""Reading ahead: the next items of an iterator are made on a thread of their own while the last one is used."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], *, most: int, weigh: Callable[[T], int] = lambda _: 1) -> Generator[T, None, None]:
    """Yield items in order, while the next ones are made on another thread.

    The thread ends with the items, with an error, or when the iterator that this returns is closed or collected; an
    item that is being made at that time is finished first.

    Args:
        items: Made on the other thread, one at a time.
        most: The thread waits while the items that are ready weigh as much as this, or more.
        weigh: Weight of an item, such as its bytes.

    Raises:
        ValueError: ``most`` below 1.
        BaseException: Whatever making an item raises, at its place in the order.
    """
    if most < 1:
        raise ValueError(f"ahead needs most of at least 1, got {most}.")
    return _taken(_Shelf(items, most, weigh))


class _Shelf(Generic[T]):
    """Items that are ready, between the thread that makes them and the one that takes them."""

    def __init__(self, items: Iterable[T], most: int, weigh: Callable[[T], int]) -> None:
        self.items, self.most, self.weigh = items, most, weigh
        self.ready: deque[tuple[T, int]] = deque()
        self.weight = 0
        self.ended = self.closed = False
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def fill(self) -> None:
        try:
            for item in self.items:
                weight = self.weigh(item)
                with self.changed:
                    self.ready.append((item, weight))
                    self.weight += weight
                    self.changed.notify_all()
                    while self.weight >= self.most and not self.closed:
                        self.changed.wait()
                    if self.closed:
                        return
                del item  # it may be large, and the next one takes its time
        except BaseException as error:  # handed on, also an interruption
            self.error = error
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def take(self) -> T:
        """Return the next item.

        Raises:
            StopIteration: There is none.
        """
        with self.changed:
            while not self.ready and not self.ended:
                self.changed.wait()
            if self.ready:
                item, weight = self.ready.popleft()
                self.weight -= weight
                self.changed.notify_all()
                return item
            if self.error is not None:
                raise self.error
            raise StopIteration

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def _taken(shelf: _Shelf[T]) -> Generator[T, None, None]:
    thread = threading.Thread(target=shelf.fill, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = shelf.take()
            except StopIteration:
                return
            yield item
            del item
    finally:
        shelf.close()
        thread.join()
