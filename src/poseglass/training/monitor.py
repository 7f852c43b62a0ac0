"""What a run monitors: the column of its curve for the best weights, the plateau schedule and early stopping."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poseglass.metrics.metric import Better, is_new_best


@dataclass(frozen=True, slots=True)
class Monitor:
    """A column of the curve, and which of its values are better. Rows without it were not evaluated.

    Args:
        column: A validation result such as ``"val/pck@0.2"``, or ``"loss"``, the training loss.
        better: Whether higher or lower values are better.

    Example:
        >>> rows = [{"val/errors/miss": x} for x in (0.5, 0.3, 0.3, float("nan"))]
        >>> monitor = Monitor("val/errors/miss", "lower")
        >>> monitor.best_row(rows), monitor.since_best(rows)
        (1, 2)
    """

    column: str = "loss"
    better: Better = "lower"

    @property
    def name(self) -> str:
        """The name of the result without the prefix of its dataset: ``"pck@0.2"``."""
        return self.column.removeprefix("val/")

    def best_row(self, rows: Sequence[Mapping[str, float]]) -> int | None:
        """Return the index of the first row that no other row beats; None if no value is finite."""
        best: float | None = None
        at: int | None = None
        for number, row in enumerate(rows):
            value = row.get(self.column, math.nan)
            if is_new_best(value, best, self.better):
                best, at = value, number
        return at

    def since_best(self, rows: Sequence[Mapping[str, float]]) -> int:
        """Return the number of evaluations after the best one, or of all if none was finite."""
        at = self.best_row(rows)
        return sum(self.column in row for row in rows[0 if at is None else at + 1 :])
