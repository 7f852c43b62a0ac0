"""Early exit: a stacked network stops at the stage where two successive ones agree, each view for itself.

Our own rule, made possible by intermediate supervision (Newell et al. 2016, section 3.2): every stack predicts the same
keypoints, so where a further stack no longer moves them, those after it rarely do. Multi-Scale DenseNet (Huang et al.
2018, https://arxiv.org/abs/1703.09844, section 3) stops by confidence instead, which is what remains for classes.
"""

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

    After every stage but the first, a view whose keypoints have moved by at most ``within_px`` since the stage before
    is done, and its prediction is that of this stage. The others go on. The largest movement of a view's keypoints
    counts.

    Args:
        network: A network with stages, such as ``StackedHourglass`` or ``ConvolutionalPoseMachine``, in evaluation
            mode.
        codec: Decodes keypoints of one instance from each stage.
        within_px: Largest movement that counts as agreement, view pixels; 0 or more. Infinity stops all views at the
            second stage.

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
        network = self.network
        assert isinstance(network, StageByStage)
        if network.training:
            network.eval()
        device = next(network.parameters()).device
        result: Prediction = {}
        with torch.inference_mode():
            state = network.begin(images.to(device))
            views = torch.arange(len(images), device=device)
            before: Tensor | None = None
            for number in range(network.num_stages):
                prediction, state = network.stage(number, state)
                xy = self.codec.decode(prediction).xy[:, 0]
                if not result:
                    result = {name: torch.empty_like(value) for name, value in prediction.items()}
                done = torch.zeros(len(views), dtype=torch.bool, device=device)
                if number == network.num_stages - 1:
                    done[:] = True
                elif before is not None:
                    done = torch.linalg.vector_norm(xy - before, dim=-1).amax(-1) <= self.within_px
                self.exits[number] += int(done.sum())
                for name, value in prediction.items():
                    result[name][views[done]] = value[done]
                if done.all():
                    break
                if done.any():
                    left = ~done
                    state, views, xy = tuple(one[left] for one in state), views[left], xy[left]
                before = xy
        return result

    def in_words(self) -> str:
        """Return how many views ended after which stage, in a sentence."""
        total = sum(self.exits)
        if not total:
            return "Early exit: no view was run."
        mean = sum((i + 1) * count for i, count in enumerate(self.exits)) / total
        ended = ", ".join(f"{count:,} after stage {i + 1}" for i, count in enumerate(self.exits) if count)
        return (
            f"Early exit within {self.within_px:g} px: of {total:,} views, {ended} of {len(self.exits)}; "
            f"{mean:.2f} stages on average."
        )
