"""What can be found wrong before hours of training: shapes, loss, metrics, a recipe that has changed."""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from poseglass.codecs import Codec
from poseglass.core.instances import Instances
from poseglass.core.prediction import Prediction
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import nearest
from poseglass.estimators.weights_file import read_weights
from poseglass.evaluation.evaluate import people_to_judge
from poseglass.losses import LOSSES
from poseglass.losses.loss import find_loss
from poseglass.metrics import METRICS
from poseglass.metrics.metric import Better, Metric
from poseglass.metrics.oks import OksAp, check_areas
from poseglass.readers.mixed import respelt
from poseglass.runs.build import crop_sizes, make, protocol_of
from poseglass.runs.folder import RunFolder
from poseglass.runs.recipe import Recipe, RecipeError, differences
from poseglass.runs.signature import loss_faults
from poseglass.training.criterion import LossPart, completed, loss_line, losses_for, outputs_of
from poseglass.training.loop import Progress
from poseglass.training.monitor import Monitor
from poseglass.training.schedule import Schedule

FREE_TO_CHANGE = (
    "notes", "data.cache_gb", "train.workers", "train.checkpoint_seconds", "train.flat_after_steps",
    "evaluate.batch_size",
)  # fmt: skip
"""What may differ from the stored recipe when a run goes on: nothing that the weights depend on."""

END = ("train.epochs", "train.schedule.decay_epochs")
"""What may differ as long as no step hung on it; see ``check_end``."""


def check_shapes(
    network: nn.Module, codec: Codec, sizes_wh: list[tuple[int, int]], recipe: Recipe, keypoints: int
) -> None:
    """Run the network without numbers (on the meta device) and compare what it gives with the codec's targets.

    Raises:
        RecipeError: A size the network does not take; a key that the network does not give, or of another shape than
            the codec encodes; another number of stages than the recipe has Gaussian widths for, or than its losses
            name; a stage in which nothing trains what the codec reads; a network that fails, or gives something else
            than stages.
    """
    hollow = copy.deepcopy(network).to("meta").eval()
    for width, height in dict.fromkeys(sizes_wh):
        images = torch.empty(2, 3, height, width, device="meta")
        try:
            with torch.no_grad():
                stages = hollow(images)
        except ValueError as error:
            raise RecipeError(f"input.size_wh or train.sizes: {error}") from None
        except (RuntimeError, TypeError, LookupError, AttributeError) as error:
            if "meta" in str(error).lower():
                return  # it asks for numbers, which the meta device does not have
            raise RecipeError(
                f"The network fails on images of (2, 3, {height}, {width}): {type(error).__name__}: {error}"
            ) from error
        try:
            found, classes = (_count(letter, dict(stages[-1]), codec) for letter in "KC")
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            raise RecipeError(
                f"The network gives {type(stages).__name__}, expected a list of stages, each a dict of a name and maps "
                "(B, K, ...), such as [{'heatmap': maps}]."
            ) from None
        if found not in (0, keypoints):
            raise RecipeError(
                f"The network gives maps of {found} keypoints, the data have {keypoints}. Take num_keypoints as an "
                "argument of the network and make as many."
            )
        _check_stages(len(stages), recipe)
        for key, shape in codec.spec.shapes(keypoints, (width, height), max(classes, 1)).items():
            for number, stage in enumerate(stages):
                _check_key(key, stage, (2, *shape), number, height)
        for number in range(len(stages)):
            if recipe.loss is not None:
                _check_trained(recipe.loss, codec, number)


def _count(letter: str, stage: Prediction, codec: Codec) -> int:
    """Return how long an axis of the codec's outputs is in what a network gives; 0 where none of them has it."""
    for key, output in codec.spec.outputs.items():
        if letter in output.shape and key in stage:
            return stage[key].shape[1 + output.shape.index(letter)]
    return 0


def _check_stages(stages: int, recipe: Recipe) -> None:
    for name, items in (("stage_sigmas", recipe.stage_sigmas), ("stage_occluded", recipe.stage_occluded)):
        if len(items) not in (0, 1, stages):
            raise RecipeError(f"{name} has {len(items)} entries, the network {stages} stages. Give one, or {stages}.")
    numbers = range(stages)
    for i, part in enumerate(recipe.loss or ()):
        beyond = [stage for stage in part.stages or () if stage not in numbers]
        if beyond:
            raise RecipeError(
                f"loss.{i}.stages has {beyond[0]}, the network has {stages}: {', '.join(map(str, numbers))}. Leave "
                "stages out, and the loss is of all."
            )


def _check_key(key: str, stage: Prediction, expected: tuple[int, ...], number: int, height: int) -> None:
    if key not in stage:
        raise RecipeError(
            f"The codec encodes {key!r}, stage {number} of the network gives {', '.join(map(repr, stage))}. Take the "
            "codec's head: network.head.name = 'offset' for 'offset', 'simcc' for 'x' and 'y', else 'heatmap'. If the "
            "network takes no head (hourglasses, U-Nets, pose machines, pyramids), take another codec or network."
        )
    got = tuple(stage[key].shape)
    if got == expected:
        return
    if len(got) != len(expected) or (len(got) >= 4 and got[-2:] == expected[-2:]):
        raise RecipeError(
            f"Stage {number} of the network gives {key!r} of shape {got[1:]}, the codec reads {expected[1:]} "
            "(without the batch). Give the network the codec's head, or take another codec."
        )
    if len(got) >= 4:
        raise RecipeError(
            f"The network's maps are {got[-2:]} (h, w) for an input of height {height}, the codec draws "
            f"{expected[-2:]}. Set codec.stride to {height // got[-2]}."
        )
    raise RecipeError(
        f"The network gives {key!r} of {stage[key].shape[-1]} bins, the codec encodes {expected[-1]}. "
        "Give codec.split and network.head.split the same number."
    )


def check_loss(parts: Sequence[LossPart], codec: Codec, sigmas: Sequence[float] = ()) -> None:
    """Raise if a loss is unknown, or cannot go with the codec.

    Raises:
        LookupError: An unknown loss.
        RecipeError: One of them takes maps as logits, the other as Gaussians; or a loss is of what the codec does not
            read; or something that it reads has no loss. Such a network would not learn. Or a loss refuses its numbers,
            or there are widths for a codec without one.
    """
    if not parts:
        raise RecipeError(
            f"loss is an empty list. Write {loss_line(completed((), codec.spec) or [LossPart(name='mse')])}."
        )
    for i, part in enumerate(parts):
        _check_fit(i, parts, codec)
        _check_numbers(f"loss.{i}", part, codec)
    named = sorted({stage for part in parts for stage in part.stages or ()})
    for stage in named or [None]:
        _check_trained(parts, codec, stage)
    if sigmas and (codec.spec.sigma is None or "sigma" not in _fields(codec)):
        raise RecipeError(f"stage_sigmas is {list(sigmas)}, but the codec draws no Gaussians. Leave stage_sigmas out.")
    if not all(sigma > 0 for sigma in sigmas):
        raise RecipeError(f"stage_sigmas must be positive heatmap pixels, got {list(sigmas)}.")


def _check_fit(i: int, parts: Sequence[LossPart], codec: Codec) -> None:
    """Raise if an entry is of nothing that the codec reads, or takes it otherwise than the codec."""
    part, spec = parts[i], codec.spec
    loss = find_loss(LOSSES, part.name)
    for key in _outputs(part, codec, f"loss.{i}"):
        has = spec.outputs[key].activation
        if loss.activation in (None, has):
            continue
        ways = [f'codec.activation = "{loss.activation}"'] if "activation" in _fields(codec) else []
        others = losses_for(key, spec)
        if others:
            exchanged = LossPart(name=others[0], weight=part.weight, of=part.of, stages=part.stages)
            ways.append(loss_line([*parts[:i], exchanged, *parts[i + 1 :]]))
        advice = f"Write {', or '.join(ways)}" if ways else "Take another codec"
        raise RecipeError(
            f"loss.{i} is {part.name!r}, which trains {key!r} with activation {loss.activation!r}, but the codec's is "
            f"{has!r}. {advice}."
        )


def _check_numbers(where: str, part: LossPart, codec: Codec) -> None:
    """Raise if a loss does not take its numbers, or refuses one: those of ours are tried on zeros."""
    loss = find_loss(LOSSES, part.name)
    faults = loss_faults(part.model_dump(), where, trust_code=True)
    if faults:
        raise RecipeError(f"{'; '.join(faults)}.")
    if not part.numbers or part.name not in LOSSES or loss.target is not None:
        return
    shapes = codec.spec.shapes(2, (codec.spec.stride, codec.spec.stride))
    for key in _outputs(part, codec, where):
        zeros = torch.zeros(1, *shapes[key])
        try:
            loss.function(zeros, zeros, torch.zeros(1, 2), **part.numbers)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(f"{where}: {error}") from error


def _check_trained(parts: Sequence[LossPart], codec: Codec, stage: int | None) -> None:
    """Raise if the codec reads something that no loss trains in a stage; None is any, where no entry names stages."""
    here = [(i, part) for i, part in enumerate(parts) if part.stages is None or stage in part.stages]
    trained = {key for i, part in here for key in _outputs(part, codec, f"loss.{i}")}
    left = [key for key in codec.spec.outputs if key not in trained]
    if not left:
        return
    whole = completed([part for _, part in here], codec.spec)
    advice = 'Take another codec: no loss here is of it, or write one of your own (name = "package.module:name")'
    if whole is not None:
        of_stage = {} if stage is None or len(here) == len(parts) else {"stages": (stage,)}
        added = [part.model_copy(update=of_stage) for part in whole[len(here) :]]
        advice = f"Write {loss_line([*parts, *added])}"
    in_it = "" if stage is None else f" in stage {stage}"
    raise RecipeError(
        f"loss trains {', '.join(sorted(trained)) or 'nothing'}{in_it}, but the codec reads {', '.join(left)} too. "
        f"{advice}."
    )


def _outputs(part: LossPart, codec: Codec, where: str) -> list[str]:
    """Return the outputs of a codec that an entry is of.

    Raises:
        LookupError: An unknown loss.
        RecipeError: There are none.
    """
    try:
        return outputs_of(part, find_loss(LOSSES, part.name), codec.spec, where)
    except ValueError as error:
        raise RecipeError(str(error)) from None


def _fields(codec: Codec) -> set[str]:
    """Return the names of what a recipe can set of a codec."""
    return {field.name for field in dataclasses.fields(codec)} if dataclasses.is_dataclass(codec) else set()


def check_occluded(recipe: Recipe, labels: Instances) -> None:
    """Raise if a recipe leaves out hidden keypoints and the labels do not say which are.

    Raises:
        RecipeError: They do not.
    """
    if not all(recipe.stage_occluded) and not np.any(labels.keypoint_extra.get("occluded", False)):
        raise RecipeError(
            f"stage_occluded is {list(recipe.stage_occluded)}, which leaves hidden keypoints out of the loss, but no "
            "keypoint is marked as hidden, or not every training set says which are. Leave stage_occluded out."
        )


def check_evaluation(recipe: Recipe, val: Dataset | None, skeleton: Skeleton) -> Monitor:
    """Judge the first labelled image by itself, so that a result that cannot be had is found before hours of training.

    Returns:
        What the run goes by: the result that ``evaluate.monitor`` names, or the first; the training loss where nothing
        is measured.

    Raises:
        RecipeError: ``evaluate.monitor`` names no result of the metrics or the protocol, or its metric does not say
            which of its values are better.
        ValueError, LookupError: In the words of metric or protocol: nobody labelled, a length missing, no keypoint
            shared, boxes of other images.
    """
    metrics: list[Metric] = [make(METRICS, part, "metric") for part in recipe.evaluate.metrics]
    protocol = protocol_of(recipe.evaluate)
    if val is None or not recipe.evaluate.measures:
        return Monitor()
    if protocol is not None:
        protocol.check(val, skeleton)
        metrics = [protocol.metric()]
    labelled = (val.instances(i) if protocol is None else protocol.people(val, i) for i in range(len(val)))
    people = next((judged for each in labelled if len(judged := people_to_judge(each))), None)
    if people is None:
        raise ValueError(
            f"None of the {len(val)} images of data.val has a labelled person with a box: nothing to monitor "
            "for the best weights. Look at the data with `poseglass check`."
        )
    spelt = dataclasses.replace(people, skeleton=respelt(val.skeleton, skeleton.keypoints))
    found = dataclasses.replace(spelt.in_skeleton(skeleton).in_skeleton(spelt.skeleton), skeleton=val.skeleton)
    if any(isinstance(metric, OksAp) for metric in metrics) and protocol is None:
        check_areas([people_to_judge(val.instances(i)) for i in range(len(val))])
    metric_of: dict[str, Metric] = {}
    for metric in metrics:
        metric.update(found, people)
        metric_of |= dict.fromkeys(metric.compute(), metric)
    name = recipe.evaluate.monitor or next(iter(metric_of), "")
    if name not in metric_of:
        raise RecipeError(
            f"evaluate.monitor is {name!r}, which nothing that is measured gives.{nearest(name, metric_of)} "
            f"Known: {', '.join(metric_of)}."
        )
    return Monitor(f"val/{name}", _better(metric_of[name], name))


def _better(metric: Metric, name: str) -> Better:
    ask = getattr(metric, "better", None)  # a metric of one's own may be older than the question
    answer = None if ask is None else ask(name)
    if answer == "higher" or answer == "lower":
        return answer
    got = "there is no such method" if ask is None else f"got {answer!r}"
    raise RecipeError(
        f"{name!r} is monitored for the best weights, so its metric must say which of its values are better: "
        f"{type(metric).__name__}.better({name!r}) must return 'higher' or 'lower', {got}. Mend the metric, or set "
        "evaluate.monitor to a result of another one."
    )


def check_end(stored: Recipe, recipe: Recipe, *, step: int, steps_per_epoch: int) -> bool:
    """Return whether a run that goes on has been given another end, which it may be while nothing hung on it yet.

    Args:
        stored: What the run was started with.
        recipe: What it goes on with.
        step: Steps done.
        steps_per_epoch: Of the run.

    Raises:
        RecipeError: Steps were done, or epochs measured, that the other end would have made otherwise.
    """
    changed = {key: values for key, values in differences(stored, recipe).items() if key in END}
    if not changed:
        return False
    matters = min(_end_matters_from(r, steps_per_epoch) for r in (stored, recipe))
    if step > matters:
        words = ", ".join(f"{key} = {before}, not {now}" for key, (before, now) in changed.items())
        raise RecipeError(
            f"The run was started with {words}. Its end can be moved up to step {max(matters, 0):.0f}, where the "
            f"learning rate begins to decay or the run would end, and {step} are done. Go on without that change, or "
            "start a new run with --set train.init_from=WEIGHTS."
        )
    sizes = [crop_sizes(r) for r in (stored, recipe)]
    if sizes[0][-1] != sizes[1][-1] or set(sizes[0]) != set(sizes[1]):
        raise RecipeError(
            f"With train.epochs = {recipe.train.epochs} crops have other sizes than with {stored.train.epochs}; what "
            "was made and measured so far hangs on them. Start a new run with --set train.init_from=WEIGHTS."
        )
    return True


def _end_matters_from(recipe: Recipe, steps_per_epoch: int) -> float:
    """Return the last step up to which a run of this recipe does not know when it ends."""
    part, total = recipe.train, steps_per_epoch * recipe.train.epochs
    # The last epoch is measured, also where its number would not ask for it.
    last = total if part.epochs % recipe.evaluate.every_epochs == 0 else total - 1
    return min(Schedule(part.schedule, total, steps_per_epoch).end_matters_from(), last)


def check_best(folder: RunFolder, progress: Progress, monitor: Monitor) -> None:
    """Raise if the best weights in a folder are younger than its checkpoint: those of steps that are to be undone.

    Raises:
        RecipeError: They are; a moved end would keep weights of the abandoned one.
    """
    if not folder.best.is_file():
        return
    _, card = read_weights(folder.best)
    if progress.best is None or card.results.get(f"val {monitor.name}") != progress.best:
        raise RecipeError(
            f"{folder.best} was written after the last checkpoint, by steps towards the end that is to be moved. Go on "
            "without that change until the next checkpoint (train.checkpoint_seconds), or start a new run."
        )


def check_unchanged(recipe: Recipe, folder: RunFolder) -> None:
    """Raise if a recipe differs from the one a run was started with, in what the weights depend on.

    Raises:
        RecipeError: It does; the first such key is named.
    """
    changed = differences(folder.stored_recipe(), recipe)
    for key, (before, now) in changed.items():
        if key not in FREE_TO_CHANGE and key not in END:
            raise RecipeError(
                f"The run in {folder.path} was started with {key} = {before!r}, not {now!r}; a run that goes on keeps "
                f"its recipe. Leave the recipe out (--resume --run {folder.path}), or start a new run. "
                f"Free to change: {', '.join(FREE_TO_CHANGE)}; and while the rate is flat {', '.join(END)}."
            )
