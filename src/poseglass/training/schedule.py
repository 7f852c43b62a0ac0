"""Learning-rate schedules: plain functions of the step and of past evaluations, so that resuming is exact."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from poseglass.core.part import Part
from poseglass.metrics.metric import Better, is_new_best


class SchedulePart(Part):
    """The learning rate over time, as a factor on the optimiser's ``lr``."""

    name: Literal["constant", "cosine", "step", "plateau"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    final_factor: float = Field(default=0.0, ge=0.0)
    decay_epochs: int = Field(default=0, ge=0, description="Epochs at the end in which a cosine decays; 0: all.")
    milestones: tuple[int, ...] = ()
    factor: float = Field(default=0.1, gt=0.0)
    patience: int = Field(default=5, ge=1, description="Evaluations without a new best before plateau drops.")
    max_drops: int = Field(default=0, ge=0, description="Largest number of plateau drops; 0: no limit.")

    @model_validator(mode="after")
    def _decays(self) -> "SchedulePart":
        if self.decay_epochs and self.name != "cosine":
            raise ValueError(f'decay_epochs is only for name = "cosine", not for {self.name!r}; omit it')
        return self


@dataclass(slots=True)
class Schedule:
    """The factor on the base learning rate.

    Args:
        part: The schedule's table in the recipe.
        total_steps: Number of steps in the whole run.
        steps_per_epoch: Number of steps in an epoch; milestones are in epochs.
        better: Whether higher or lower values given to ``observe`` are better.
        best: Best value seen by a plateau schedule; None before the first.
        bad_epochs: Evaluations since the best or the last drop.
        dropped: How often the plateau schedule has dropped the learning rate.
    """

    part: SchedulePart
    total_steps: int
    steps_per_epoch: int
    better: Better = "higher"
    best: float | None = None
    bad_epochs: int = 0
    dropped: int = 0

    def factor(self, step: int) -> float:
        """Return the factor for step 0, 1, ..."""
        part = self.part
        warm = min(1.0, (step + 1) / part.warmup_steps) if part.warmup_steps else 1.0
        if part.name == "cosine":
            start = self._decay_starts()
            done = min(max(step - start, 0) / max(self.total_steps - start, 1), 1.0)
            return warm * (part.final_factor + (1 - part.final_factor) * 0.5 * (1 + math.cos(math.pi * done)))
        if part.name == "step":
            epoch = step // self.steps_per_epoch
            return warm * part.factor ** sum(epoch >= m for m in part.milestones)
        if part.name == "plateau":
            return warm * part.factor**self.dropped
        return warm

    def _decay_starts(self) -> int:
        """Return the step at which a cosine begins to decay.

        Source:
            Constant, then a short decay: Hu et al. 2024 (MiniCPM, section 4), https://arxiv.org/abs/2404.06395. The
            length of the constant part need not be known in advance.
        """
        if not self.part.decay_epochs:
            return self.part.warmup_steps
        return max(self.total_steps - self.part.decay_epochs * self.steps_per_epoch, self.part.warmup_steps)

    def end_matters_from(self) -> float:
        """Return the first step whose factor depends on the run's number of steps; infinity if none does."""
        return self._decay_starts() if self.part.name == "cosine" else math.inf

    def observe(self, value: float) -> None:
        """Record the monitored value of an evaluation: after ``patience`` without a new best, the learning rate drops.

        It drops at most ``max_drops`` times, or without limit if ``max_drops`` is 0. NaN is never a new best.

        Source:
            Newell et al. 2016, section 3.2: the learning rate drops once by 5 when validation accuracy plateaus.
        """
        if self.part.name != "plateau":
            return
        if is_new_best(value, self.best, self.better):
            self.best, self.bad_epochs = value, 0
            return
        self.bad_epochs += 1
        may_drop = self.part.max_drops == 0 or self.dropped < self.part.max_drops
        if self.bad_epochs >= self.part.patience and may_drop:
            self.dropped, self.bad_epochs = self.dropped + 1, 0

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"best": self.best, "bad_epochs": self.bad_epochs, "dropped": self.dropped}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.best, self.bad_epochs, self.dropped = state["best"], state["bad_epochs"], state["dropped"]
