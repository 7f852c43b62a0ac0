"""The training criterion: maps a network's stages, the encoded targets and the batch to named loss terms."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from pydantic import ConfigDict, Field, field_validator
from torch import Tensor, nn

from poseglass.codecs import Codec, CodecSpec
from poseglass.core.part import Part
from poseglass.core.prediction import Prediction, Stages
from poseglass.core.table import nearest
from poseglass.core.targets import ModelInput
from poseglass.losses import LOSSES
from poseglass.losses.loss import Loss, find_loss

Step = Callable[[nn.Module, ModelInput], dict[str, Tensor]]
"""Maps a network and a batch (images normalised) to named, weighted loss terms; their sum is minimised."""

T = TypeVar("T")


class Criterion(Protocol):
    """Computes the loss that a network is trained with.

    ``StageCriterion``, the default, compares maps with maps. A custom criterion may gather at the centres of instances,
    run a teacher on ``batch.images``, or exclude the regions that ``batch.targets.crowd`` marks.
    """

    def __call__(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        """Return named scalar terms; their sum is minimised, and each has a column in the training curve.

        The names must be the same at every step and in every process.

        Args:
            stages: The network's output, one prediction per supervised stage.
            targets: ``batch.targets`` as encoded by the codec.
            batch: Images ``(B, 3, H, W)``, normalised, and the labels in view pixels.
        """
        ...


class LossPart(Part):
    """An entry of a recipe's ``loss``; any other keys are arguments of the loss itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False, description="Weight of the term.")
    of: str | None = Field(default=None, description="An output of the codec; by default all that the loss fits.")
    stages: tuple[int, ...] | None = Field(default=None, description="Supervised stages, from 0; by default all.")

    @field_validator("stages")
    @classmethod
    def _from_zero(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 0 or len(set(value)) < len(value)):
            raise ValueError(f"must be different stages, counted from 0, e.g. [0, 1], got {list(value)}")
        return value

    @property
    def numbers(self) -> dict[str, Any]:
        """The arguments of the loss itself."""
        return dict(self.model_extra or {})


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a criterion.

    Args:
        function: Maps prediction, target and weight ``(B, K)`` to a scalar.
        output: Key in a stage of the network.
        target: Key in the encoded targets; the term is named after it.
        weight: Factor of the term.
        stages: Supervised stages that it applies to; None for all.
    """

    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    output: str = "heatmap"
    target: str = "heatmap"
    weight: float = 1.0
    stages: tuple[int, ...] | None = None


def terms_of(parts: Sequence[LossPart], spec: CodecSpec) -> tuple[Term, ...]:
    """Return the terms of a recipe's ``loss`` for the outputs and targets of a codec.

    Raises:
        LookupError: An unknown loss; the nearest name is suggested.
        ValueError: A loss is for an output that the codec does not read, or needs a target that it does not encode.
    """
    terms: list[Term] = []
    for i, part in enumerate(parts):
        loss = find_loss(LOSSES, part.name)
        function = partial(loss.function, **part.numbers) if part.numbers else loss.function
        for key in outputs_of(part, loss, spec, f"loss.{i}"):
            terms.append(Term(function, key, loss.target or key, part.weight, part.stages))
    return tuple(terms)


def outputs_of(part: LossPart, loss: Loss, spec: CodecSpec, where: str) -> list[str]:
    """Return the outputs of a codec that a loss entry applies to, whatever their activation.

    Args:
        part: The entry.
        loss: The loss that it names.
        spec: Specification of the codec.
        where: The entry's key in the recipe, for the message.

    Raises:
        ValueError: There is none, or the requested one is not among them.
    """
    possible = _possible_outputs(loss, spec)
    reads = f"the codec reads {', '.join(map(repr, spec.outputs))}"
    if part.of is not None:
        if part.of in possible:
            return [part.of]
        if part.of not in spec.outputs:
            raise ValueError(f"{where}.of is {part.of!r}, but {reads}.{nearest(part.of, spec.outputs)}")
        others = f"set of to {' or '.join(map(repr, possible))}" if possible else "use another loss"
        raise ValueError(f"{where}.of is {part.of!r}, which {part.name!r} does not apply to; {others}.")
    if not possible:
        mine = " or ".join(map(repr, loss.outputs))
        does = f"applies to {mine}, but {reads}"
        if loss.target is not None and set(loss.outputs) & set(spec.outputs):
            encodes = ", ".join(map(repr, [*spec.outputs, *spec.loss_keys]))
            does = f"compares {mine} with {loss.target!r}, but the codec encodes {encodes}"
        whole = completed((), spec)
        raise ValueError(
            f"{where}: {part.name!r} {does}. "
            + (f"Use another codec, or write {loss_line(whole)}." if whole else "Use another codec.")
        )
    if loss.outputs:
        return possible
    if "heatmap" in possible:
        return ["heatmap"]
    raise ValueError(
        f"{where} does not state which output {part.name!r} applies to, and {reads}. "
        f"Write {loss_line([part.model_copy(update={'of': possible[0]})])}."
    )


def _possible_outputs(loss: Loss, spec: CodecSpec) -> list[str]:
    encoded = {*spec.outputs, *spec.loss_keys}
    return [key for key in loss.outputs or spec.outputs if key in spec.outputs and (loss.target or key) in encoded]


def losses_for(key: str, spec: CodecSpec) -> list[str]:
    """Return the names of the losses that fit an output of a codec and its activation."""
    holds = spec.outputs[key].activation
    return [
        name for name, loss in LOSSES.items()
        if key in _possible_outputs(loss, spec) and loss.activation in (None, holds)
    ]  # fmt: skip


def completed(parts: Sequence[LossPart], spec: CodecSpec) -> list[LossPart] | None:
    """Return a recipe's ``loss`` completed to train all outputs of a codec; None if no loss fits one of them."""
    whole = list(parts)
    trained = {key for part in parts for key in outputs_of(part, find_loss(LOSSES, part.name), spec, "loss")}
    for key in spec.outputs:
        if key not in trained:
            fitting = losses_for(key, spec)
            if not fitting:
                return None
            more = _possible_outputs(LOSSES[fitting[0]], spec)
            whole.append(LossPart(name=fitting[0], of=key if trained.intersection(more) else None))
            trained |= {key} if trained.intersection(more) else {*more}
    return whole


def loss_line(parts: Sequence[LossPart]) -> str:
    """Return the line of a recipe that configures the losses.

    Example:
        >>> loss_line([LossPart(name="mse"), LossPart(name="offset", weight=0.5)])
        'loss = [{ name = "mse" }, { name = "offset", weight = 0.5 }]'
    """
    stated = (part.model_dump(exclude_defaults=True) for part in parts)
    tables = (", ".join(f"{key} = {json.dumps(value, default=str)}" for key, value in one.items()) for one in stated)
    return f"loss = [{', '.join(f'{{ {table} }}' for table in tables)}]"


class StageCriterion:
    """The default criterion: every stage is supervised (intermediate supervision).

    Args:
        terms: The terms; every stage needs at least one.
        codec: Encodes the targets of stages whose sigma differs from the codec's own; required with ``sigmas``.
        sigmas: Sigma of the Gaussians in heatmap pixels, one per stage or one for all; empty uses the codec's own.
        occluded: Whether labelled but occluded keypoints count, one value per stage or one for all; empty counts them.

    Raises:
        ValueError: ``sigmas`` without a codec.

    Source:
        Newell et al. 2016, section 3.2; different sigmas per stage, and stages trained on visible keypoints only: Chen
        et al. 2018 (CPN), section 3, and its public code.

    Example:
        >>> from poseglass.codecs import HeatmapCodec
        >>> from poseglass.losses.heatmap import mean_squared_error
        >>> step = supervised(HeatmapCodec(), StageCriterion([Term(mean_squared_error)]))
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        codec: Codec | None = None,
        sigmas: Sequence[float] = (),
        occluded: Sequence[bool] = (),
    ) -> None:
        if sigmas and codec is None:
            raise ValueError("StageCriterion: sigmas need a codec that encodes them, got none. Pass codec=.")
        self.terms, self.sigmas, self.occluded = tuple(terms), tuple(sigmas), tuple(occluded)
        # stages with the codec's own sigma use the targets that the step has already encoded
        self._drawn_by: dict[float, Codec] = {
            sigma: replace(codec, sigma=sigma)  # type: ignore[type-var]
            for sigma in self.sigmas
            if codec is not None and sigma != codec.spec.sigma
        }

    def __call__(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        """Return the terms ``"heatmap/0"``, ``"heatmap/1"``, ...: the target and the stage.

        Raises:
            ValueError: The number of stages does not match sigmas, occluded or the terms; or occluded keypoints are to
                be excluded, but the batch does not state which are occluded.
        """
        drawn = {sigma: codec.encode(batch.targets, batch.size_wh) for sigma, codec in self._drawn_by.items()}
        values: dict[str, Tensor] = {}
        for i, (stage, terms) in enumerate(zip(stages, self._terms_by_stage(len(stages)), strict=True)):
            target = (
                drawn.get(_of_stage(self.sigmas, i, len(stages), "stage_sigmas"), targets) if self.sigmas else targets
            )
            weight = target["weight"]
            if self.occluded and not _of_stage(self.occluded, i, len(stages), "stage_occluded"):
                weight = weight * ~_hidden(batch, weight)
            for term in terms:
                value = term.weight * term.function(stage[term.output], target[term.target], weight)
                name = f"{term.target}/{i}"
                values[name] = values[name] + value if name in values else value
        return values

    def _terms_by_stage(self, stages: int) -> list[list[Term]]:
        """Return the terms of each stage.

        Raises:
            ValueError: A term names a stage that does not exist, or a stage has no term.
        """
        numbers = range(stages)
        for number in {number for term in self.terms for number in term.stages or ()}:
            if number not in numbers:
                raise ValueError(
                    f"loss names stage {number}, but the network's stages are {', '.join(map(str, numbers))}."
                )
        found = [[term for term in self.terms if term.stages is None or i in term.stages] for i in numbers]
        if not all(found):
            raise ValueError(
                f"No loss applies to stage {next(i for i in numbers if not found[i])} of the network, which has "
                f"{stages} stages. Add one, or omit stages in an entry, so that it applies to all."
            )
        return found


def _hidden(batch: ModelInput, weight: Tensor) -> Tensor:
    """Return which keypoints are labelled but occluded, bool, in the shape of a codec's weight.

    Raises:
        ValueError: The batch does not state it, or the weight is not per keypoint.
    """
    occluded = batch.targets.occluded
    if occluded is None:
        raise ValueError("stage_occluded excludes occluded keypoints, but the batch does not state which are occluded.")
    if occluded.numel() != weight.numel():
        raise ValueError(
            f"stage_occluded excludes occluded keypoints {tuple(occluded.shape)}, but the codec's weight "
            f"{tuple(weight.shape)} is not per keypoint. Omit stage_occluded, or write a custom criterion."
        )
    return occluded.view_as(weight)


def supervised(codec: Codec, criterion: Criterion) -> Step:
    """Return a training step: encode the labels, run the network, and compute the criterion.

    Args:
        codec: Encodes the targets.
        criterion: Computes the loss terms; ``StageCriterion`` is the default.

    Raises:
        ValueError: When the step is called: the criterion does not return named scalars.
    """

    def step(network: nn.Module, batch: ModelInput) -> dict[str, Tensor]:
        targets = codec.encode(batch.targets, batch.size_wh)
        terms = criterion(network(batch.images), targets, batch)
        if not isinstance(terms, dict) or not terms:
            raise ValueError(f'A criterion must return named terms, e.g. {{"heatmap/0": loss}}, got {terms!r}.')
        for name, value in terms.items():
            if not isinstance(value, Tensor) or value.ndim:
                got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise ValueError(f"A criterion's terms must be scalar tensors; {name!r} is {got}. Return its mean.")
        return terms

    return step


def _of_stage(items: Sequence[T], stage: int, stages: int, what: str) -> T:
    """Return the item for a stage; a single item applies to every stage."""
    if len(items) not in (1, stages):
        raise ValueError(f"{what} must have one entry or one per stage of the network ({stages}), got {len(items)}.")
    return items[0] if len(items) == 1 else items[stage]
