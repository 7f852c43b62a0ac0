"""What training minimises: from a batch and the stages of a network to named terms."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from poseglass.codecs import Codec
from poseglass.core.targets import ModelInput
from poseglass.losses.terms import Loss, Term

Step = Callable[[nn.Module, ModelInput], dict[str, Tensor]]
"""Network and batch (images normalised) to named, weighted loss terms; their sum is minimised."""


T = TypeVar("T")


def supervised(
    codec: Codec,
    loss: Loss | Sequence[Sequence[Term]],
    *,
    sigmas: Sequence[float] = (),
    occluded: Sequence[bool] = (),
) -> Step:
    """Return the ordinary step: every stage is supervised (intermediate supervision), with equal weight.

    Args:
        codec: Makes the targets.
        loss: A function of heatmaps for every stage; or terms, for every stage if they are of one, or of each stage.
        sigmas: The Gaussian's width of each stage, heatmap pixels; none is the codec's own for all.
        occluded: Whether labelled but hidden keypoints count in each stage; none: they do in all.

    Raises:
        ValueError: When called: another number of stages than of losses, sigmas or occluded; occluded keypoints are to
            be left out, and the batch does not say which are.

    Source:
        Newell et al. 2016, section 3.2; widths that differ, and stages of visible keypoints alone: Chen et al. 2018
        (CPN), section 3, and its public code.
    """
    losses = [[Term(loss)]] if callable(loss) else list(loss)
    codecs = [replace(codec, sigma=sigma) for sigma in sigmas] or [codec]  # type: ignore[type-var]

    def step(network: nn.Module, batch: ModelInput) -> dict[str, Tensor]:
        targets = [one.encode(batch.targets, batch.size_wh) for one in codecs]
        stages = network(batch.images)
        values: dict[str, Tensor] = {}
        for i, stage in enumerate(stages):
            target = _of_stage(targets, i, len(stages), "stage_sigmas")
            weight = target["weight"]
            if occluded and not _of_stage(occluded, i, len(stages), "stage_occluded"):
                if batch.targets.occluded is None:
                    raise ValueError("stage_occluded leaves out occluded keypoints, and the batch does not know them.")
                weight = weight * ~batch.targets.occluded[:, 0]
            for term in _of_stage(losses, i, len(stages), "loss"):
                value = term.factor * term.loss(stage[term.prediction], target[term.target], weight)
                name = f"{term.target}/{i}"
                values[name] = values[name] + value if name in values else value
        return values

    return step


def _of_stage(items: Sequence[T], stage: int, stages: int, what: str) -> T:
    """Return the item of a stage; one item alone is every stage's."""
    if len(items) not in (1, stages):
        raise ValueError(f"{what} has {len(items)} entries, the network {stages} stages. Give one, or {stages}.")
    return items[0] if len(items) == 1 else items[stage]
