"""Early exit: a stacked network stops at the stage where two successive ones agree, each view for itself.

Our own rule, made possible by intermediate supervision (Newell et al. 2016, section 3.2): every stack predicts the same
keypoints, so where a further stack no longer moves them, those after it rarely do. Multi-Scale DenseNet (Huang et al.
2018, https://arxiv.org/abs/1703.09844, section 3) stops by confidence instead, which is what remains for classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from poseglass.codecs import Codec
from poseglass.core.prediction import Prediction

FEWEST_STAGES = 3
"""Two stages always run, to be compared; a network with fewer than three saves nothing."""


@runtime_checkable
class StageByStage(Protocol):
    """A network whose stages can be run one after the other, with fewer views at every stage."""

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        ...

    def begin(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, 3, H, W)`` to the state that the first stage sees; every tensor of it has the axis B."""
        ...

    def stage(self, number: int, state: tuple[Tensor, ...]) -> tuple[Prediction, tuple[Tensor, ...]]:
        """Run one stage, counted from 0; return its prediction and the state that the next one sees."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EarlyExit:
    """A forward that runs each view through as few stages as it needs.

    After every stage but the first, a view whose keypoints have moved by at most ``within_px`` since the stage before,
    in the mean over keypoints, is done, and its prediction is that of this stage. The others go on. (The largest
    movement would be that of a hidden keypoint, which may jump at every stage.)

    Args:
        network: A network with stages, such as ``StackedHourglass`` or ``ConvolutionalPoseMachine``, in evaluation
            mode.
        codec: Decodes keypoints of one instance from each stage.
        within_px: Largest mean movement that counts as agreement, view pixels; 0 or more. Infinity stops all views at
            the second stage.

    Attributes:
        exits: Number of views that ended after each stage so far; a flipped view counts as another one.

    Raises:
        ValueError: A network without such stages or with fewer than three, a codec of several instances or of no
            keypoints, or a distance below 0.
    """

    network: torch.nn.Module
    codec: Codec
    within_px: float
    exits: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        name = type(self.network).__name__
        if not self.within_px >= 0:
            raise ValueError(f"Early exit takes a distance of 0 px or more, got {self.within_px!r}.")
        if not isinstance(self.network, StageByStage):
            raise ValueError(
                f"Early exit compares stages that follow each other, and {name} has none that can be run one by one. "
                "Use a network of stacks or stages, such as hg8, hourglass_104 or cpm, or omit early exit."
            )
        if self.network.num_stages < FEWEST_STAGES:
            raise ValueError(
                f"Early exit compares a stage with the one before it, so two always run, and {name} here has "
                f"{self.network.num_stages}: nothing is left to omit. Use a network of at least three stages, or omit "
                "early exit."
            )
        if self.codec.spec.instances != 1 or not self.codec.spec.keypoints:
            raise ValueError(
                f"Early exit compares the keypoints of one instance in each view, and {type(self.codec).__name__} "
                "decodes something else. Omit early exit."
            )
        self.exits.extend([0] * self.network.num_stages)

    def __call__(self, images: Tensor) -> Prediction:
        """Map normalised images ``(B, 3, H, W)`` to the prediction of the stage after which each view ended."""
        before: list[Tensor] = []

        def agree(prediction: Prediction, kept: Tensor | None) -> Tensor | None:
            xy = self.codec.decode(prediction).xy[:, 0]
            last = before.pop() if before else None
            before.append(xy)
            if last is None:
                return None
            last = last if kept is None else last[kept]
            return torch.linalg.vector_norm(xy - last, dim=-1).mean(-1) <= self.within_px

        return run_until(self.network, images, agree, self.exits)

    def in_words(self) -> str:
        """Return how many views ended after which stage, in a sentence."""
        return _in_words(f"Early exit within {self.within_px:g} px", self.exits)


@dataclass(frozen=True, slots=True, eq=False)
class ConfidentExit:
    """A forward of a classifier with exits that runs each view until a class is probable enough.

    Args:
        network: A classifier with stages, such as ``MultiScaleDenseNet``, in evaluation mode.
        confidence: Least probability of the most probable class at which a view ends, 0 to 1.

    Attributes:
        exits: Number of views that ended after each stage so far.

    Raises:
        ValueError: A network without such stages, or a probability outside [0, 1].

    Source:
        Huang et al. 2018, section 3, "anytime prediction", and 5.1; the threshold is given, not set from a budget.
    """

    network: torch.nn.Module
    confidence: float
    exits: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"An exit takes a confidence from 0 to 1, got {self.confidence!r}.")
        if not isinstance(self.network, StageByStage):
            raise ValueError(
                f"{type(self.network).__name__} has no exits that can be run one by one. Use a classifier that has, "
                "such as msdnet."
            )
        self.exits.extend([0] * self.network.num_stages)

    def __call__(self, images: Tensor) -> Prediction:
        """Map normalised images ``(B, 3, H, W)`` to the logits ``(B, C)`` of the exit where each view ended.

        Raises:
            ValueError: The network has no classes.
        """

        def sure(prediction: Prediction, kept: Tensor | None) -> Tensor:
            if "class" not in prediction:
                raise ValueError(
                    f"A confident exit reads classes, and this network gives {', '.join(prediction)}. For keypoints, "
                    "use EarlyExit."
                )
            return prediction["class"].softmax(-1).amax(-1) >= self.confidence

        return run_until(self.network, images, sure, self.exits)

    def in_words(self) -> str:
        """Return how many views ended after which stage, in a sentence."""
        return _in_words(f"Exits at a confidence of {self.confidence:g}", self.exits)


Done = Callable[[Prediction, Tensor | None], Tensor | None]
"""Says which views ``(B,)`` are done after a stage, from its prediction and from which rows of the stage before were
kept (None: all); None says that none is."""


def run_until(network: torch.nn.Module, images: Tensor, done: Done, exits: list[int]) -> Prediction:
    """Run a network stage by stage, each view until it is done, at most to the last stage.

    Args:
        network: As ``StageByStage``.
        images: ``(B, 3, H, W)``, normalised.
        done: Called after every stage.
        exits: One count for each stage, to which the views that ended there are added.

    Returns:
        Of every view, the prediction of the stage where it ended.
    """
    assert isinstance(network, StageByStage)
    assert isinstance(network, torch.nn.Module)
    if network.training:
        network.eval()
    device = next(network.parameters()).device
    result: Prediction = {}
    with torch.inference_mode():
        state = network.begin(images.to(device))
        views, kept = torch.arange(len(images), device=device), None
        for number in range(network.num_stages):
            prediction, state = network.stage(number, state)
            if not result:
                result = {name: torch.empty_like(value) for name, value in prediction.items()}
            ended = done(prediction, kept)
            if number == network.num_stages - 1:
                ended = torch.ones(len(views), dtype=torch.bool, device=device)
            elif ended is None:
                ended = torch.zeros(len(views), dtype=torch.bool, device=device)
            exits[number] += int(ended.sum())
            for name, value in prediction.items():
                result[name][views[ended]] = value[ended]
            if ended.all():
                break
            kept = None
            if ended.any():
                kept = ~ended
                state, views = tuple(one[kept] for one in state), views[kept]
    return result


def _in_words(rule: str, exits: list[int]) -> str:
    total = sum(exits)
    if not total:
        return f"{rule}: no view was run."
    mean = sum((i + 1) * count for i, count in enumerate(exits)) / total
    ended = ", ".join(f"{count:,} after stage {i + 1}" for i, count in enumerate(exits) if count)
    return f"{rule}: of {total:,} views, {ended} of {len(exits)}; {mean:.2f} stages on average."
