"""Checks before hours of training: shapes, loss, metrics, and a recipe that has changed."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from poseglass.codecs import Codec
from poseglass.core.instances import Instances
from poseglass.core.prediction import Prediction
from poseglass.core.sample import Dataset, classes_of
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import nearest
from poseglass.estimators.weights_file import read_weights, sha256_of
from poseglass.evaluation.evaluate import class_numbers, people_to_judge
from poseglass.evaluation.found import check_calibrated, check_complete
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
from poseglass.training.criteria import CRITERIA
from poseglass.training.criterion import LossPart, completed, loss_line, losses_for, outputs_of
from poseglass.training.loop import Progress
from poseglass.training.monitor import Monitor
from poseglass.training.schedule import Schedule
from poseglass.transforms import Augmentation, RandomAffine

FREE_TO_CHANGE = (
    "notes", "data.cache_gb", "train.workers", "train.checkpoint_seconds", "train.flat_after_steps",
    "evaluate.batch_size",
)  # fmt: skip
"""Keys that may differ from the stored recipe when a run is resumed: the weights do not depend on them."""

END = ("train.epochs", "train.schedule.decay_epochs")
"""Keys that may differ as long as no completed step depended on them; see ``check_end``."""


def check_shapes(
    network: nn.Module, codec: Codec, sizes_wh: list[tuple[int, int]], recipe: Recipe, keypoints: int
) -> None:
    """Run the network without data (on the meta device) and compare its outputs with the codec's targets.

    Raises:
        RecipeError: The network does not support an input size; an output is missing or has another shape than the
            codec's target; the number of stages does not match the recipe's sigmas or losses; a stage has no loss for
            an output that the codec reads; or the network fails or does not return stages.
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
                return  # it needs values, which the meta device does not have
            raise RecipeError(
                f"The network fails on images of (2, 3, {height}, {width}): {type(error).__name__}: {error}"
            ) from error
        try:
            found, classes = (_count(letter, dict(stages[-1]), codec) for letter in "KC")
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            raise RecipeError(
                f"The network returns {type(stages).__name__}, expected a list of stages, each a dict from names to "
                "maps (B, K, ...), such as [{'heatmap': maps}]."
            ) from None
        if found not in (0, keypoints):
            raise RecipeError(
                f"The network returns maps of {found} keypoints, but the data have {keypoints}. Give the network an "
                "argument num_keypoints, and return as many maps."
            )
        _check_stages(len(stages), recipe)
        for key, shape in codec.spec.shapes(keypoints, (width, height), max(classes, 1)).items():
            for number, stage in enumerate(stages):
                _check_key(key, stage, (2, *shape), number, height, codec.spec.outputs[key].stride)
        for number in range(len(stages)):
            if recipe.loss is not None:
                _check_trained(recipe.loss, codec, number)


def _count(letter: str, stage: Prediction, codec: Codec) -> int:
    """Return the length of an axis of the codec's outputs in a network's stage; 0 if no output has that axis."""
    for key, output in codec.spec.outputs.items():
        if letter in output.shape and key in stage:
            return stage[key].shape[1 + output.shape.index(letter)]
    return 0


def _check_stages(stages: int, recipe: Recipe) -> None:
    for name, items in (("stage_sigmas", recipe.stage_sigmas), ("stage_occluded", recipe.stage_occluded)):
        if len(items) not in (0, 1, stages):
            raise RecipeError(
                f"{name} must have one entry or one per stage of the network ({stages}), got {len(items)}."
            )
    numbers = range(stages)
    for i, part in enumerate(recipe.loss or ()):
        beyond = [stage for stage in part.stages or () if stage not in numbers]
        if beyond:
            raise RecipeError(
                f"loss.{i}.stages has {beyond[0]}, but the network's stages are {', '.join(map(str, numbers))}. Omit "
                "stages to apply the loss to all."
            )


def _check_key(
    key: str, stage: Prediction, expected: tuple[int, ...], number: int, height: int, own_stride: int | None
) -> None:
    if key not in stage and key == "visibility":
        raise RecipeError(
            f"The codec encodes 'visibility', but stage {number} of the network returns "
            f"{', '.join(map(repr, stage))}. Set network.head.visibility = true (network.visibility for "
            "centernet_hourglass and centernet_resnet), or omit codec.visibility."
        )
    if key not in stage and key in ("depth", "dimensions", "rotation", "middle_3d"):
        option = "middles_3d" if key == "middle_3d" else "boxes_3d"
        raise RecipeError(
            f"The codec encodes {key!r}, but stage {number} of the network returns {', '.join(map(repr, stage))}. Set "
            f"network.head.{option} = true (of a composed network with the head centernet), or omit codec.{option}."
        )
    if key not in stage:
        raise RecipeError(
            f"The codec encodes {key!r}, but stage {number} of the network returns {', '.join(map(repr, stage))}. Use "
            "the codec's head: network.head.name = 'offset' for 'offset', 'simcc' for 'x' and 'y', else 'heatmap'. If "
            "the network takes no head (hourglasses, U-Nets, pose machines, pyramids), use another codec or network."
        )
    got = tuple(stage[key].shape)
    if got == expected:
        return
    bins = key == "rotation" and len(got) == len(expected) == 4 and got[1] % 4 == expected[1] % 4 == 0
    if bins and got[-2:] == expected[-2:]:
        raise RecipeError(
            f"Stage {number} of the network predicts headings in {got[1] // 4} bins, but the codec reads "
            f"{expected[1] // 4}. Set codec.heading_bins and network.head.heading_bins to the same number."
        )
    if len(got) != len(expected) or (len(got) >= 4 and got[-2:] == expected[-2:]):
        raise RecipeError(
            f"Stage {number} of the network returns {key!r} of shape {got[1:]}, but the codec reads {expected[1:]} "
            "(without the batch). Give the network the codec's head, or use another codec."
        )
    if len(got) >= 4 and own_stride is not None:
        raise RecipeError(
            f"The network's maps {key!r} are {got[-2:]} (h, w) for an input of height {height}, but the codec's are "
            f"{expected[-2:]}, of stride {own_stride}. Use inputs whose sides are divisible by {own_stride}, and give "
            "the network levels of the codec's strides."
        )
    if len(got) >= 4:
        raise RecipeError(
            f"The network's maps are {got[-2:]} (h, w) for an input of height {height}, but the codec's are "
            f"{expected[-2:]}. Set codec.stride to {height // got[-2]}."
        )
    raise RecipeError(
        f"The network returns {key!r} of {stage[key].shape[-1]} bins, but the codec encodes {expected[-1]}. "
        "Set codec.split and network.head.split to the same number."
    )


def check_trainable(recipe: Recipe, codec: Codec) -> None:
    """Raise if a codec of several instances is to be trained with per-output losses, cached crops or a protocol.

    Raises:
        RecipeError: It is; the message says what to write instead.
    """
    if codec.spec.instances == 1:
        return
    name = recipe.codec["name"]
    if recipe.criterion is None:
        criterion = name if name in CRITERIA else "centernet"
        raise RecipeError(
            f"The codec {name!r} decodes any number of instances from a whole image, which the losses of single "
            f'outputs do not train. Write criterion = {{ name = "{criterion}" }}, and omit loss.'
        )
    if recipe.data.cache_gb > 0:
        raise RecipeError(
            f"data.cache_gb is {recipe.data.cache_gb:g}, but only crops can be cached, and the codec {name!r} is "
            "trained on whole images. Omit data.cache_gb."
        )
    if recipe.evaluate.protocol is not None:
        raise RecipeError(
            f"evaluate.protocol is {recipe.evaluate.protocol['name']!r}, which gives the boxes of the people to the "
            f"network, but with the codec {name!r} the network finds them. Write metrics instead: evaluate.metrics = "
            '[{ name = "oks_ap" }, { name = "box_ap" }].'
        )


def check_loss(parts: Sequence[LossPart], codec: Codec, sigmas: Sequence[float] = ()) -> None:
    """Raise if a loss is unknown, or does not fit the codec.

    Raises:
        LookupError: An unknown loss.
        RecipeError: A network trained so would not learn: one of the two expects logits, the other Gaussians; a loss is
            for an output that the codec does not read; or an output that it reads has no loss. Or the arguments of a
            loss are invalid, or sigmas are given for a codec without one.
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
        raise RecipeError(f"stage_sigmas is {list(sigmas)}, but the codec encodes no Gaussians. Omit stage_sigmas.")
    if not all(sigma > 0 for sigma in sigmas):
        raise RecipeError(f"stage_sigmas must be positive (in heatmap pixels), got {list(sigmas)}.")


def _check_fit(i: int, parts: Sequence[LossPart], codec: Codec) -> None:
    """Raise if an entry applies to no output that the codec reads, or expects another activation than the codec."""
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
        advice = f"Write {', or '.join(ways)}" if ways else "Use another codec"
        raise RecipeError(
            f"loss.{i} is {part.name!r}, which trains {key!r} with activation {loss.activation!r}, but the codec's is "
            f"{has!r}. {advice}."
        )


def _check_numbers(where: str, part: LossPart, codec: Codec) -> None:
    """Raise if arguments of a loss are unknown or invalid; built-in losses are run on zeros."""
    loss = find_loss(LOSSES, part.name)
    faults = loss_faults(part.model_dump(), where, trust_code=True)
    if faults:
        raise RecipeError(f"{'; '.join(faults)}.")
    if not part.numbers or part.name not in LOSSES or loss.target is not None:
        return
    coarsest = max(codec.spec.stride_of(key) for key in codec.spec.outputs)
    shapes = codec.spec.shapes(2, (coarsest, coarsest))
    for key in _outputs(part, codec, where):
        zeros = torch.zeros(1, *shapes[key])
        try:
            loss.function(zeros, zeros, torch.zeros(1, 2), **part.numbers)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(f"{where}: {error}") from error


def _check_trained(parts: Sequence[LossPart], codec: Codec, stage: int | None) -> None:
    """Raise if the codec reads an output that no loss trains in a stage; None if no entry names stages."""
    here = [(i, part) for i, part in enumerate(parts) if part.stages is None or stage in part.stages]
    trained = {key for i, part in here for key in _outputs(part, codec, f"loss.{i}")}
    left = [key for key in codec.spec.outputs if key not in trained]
    if not left:
        return
    whole = completed([part for _, part in here], codec.spec)
    advice = 'No built-in loss fits it: use another codec, or write a custom loss (name = "package.module:name")'
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
    """Return the outputs of a codec that a loss entry applies to.

    Raises:
        LookupError: An unknown loss.
        RecipeError: There are none.
    """
    try:
        return outputs_of(part, find_loss(LOSSES, part.name), codec.spec, where)
    except ValueError as error:
        raise RecipeError(str(error)) from None


def _fields(codec: Codec) -> set[str]:
    """Return the names of the fields of a codec that a recipe can set."""
    return {field.name for field in dataclasses.fields(codec)} if dataclasses.is_dataclass(codec) else set()


def check_occluded(recipe: Recipe, labels: Instances) -> None:
    """Raise if a recipe excludes occluded keypoints, but the labels do not state which are occluded.

    Raises:
        RecipeError: They do not.
    """
    if not all(recipe.stage_occluded) and not np.any(labels.keypoint_extra.get("occluded", False)):
        raise RecipeError(
            f"stage_occluded is {list(recipe.stage_occluded)}, which excludes occluded keypoints from the loss, but no "
            "keypoint is marked as occluded, or not every training set has such marks. Omit stage_occluded."
        )


def check_visibility(codec: Codec, labels: Instances) -> None:
    """Raise if a codec learns visibility, but the labels do not tell occluded keypoints from visible ones.

    Raises:
        RecipeError: They do not: every keypoint would be learnt as visible.
    """
    if "visibility" in codec.spec.outputs and not np.any(labels.keypoint_extra.get("occluded", False)):
        raise RecipeError(
            "codec.visibility is true, but no keypoint of the training data is marked as occluded (COCO: v = 1 beside "
            "v = 2), or not every training set has such marks, so a network would learn to call every keypoint "
            "visible. Omit codec.visibility, or train with labels that mark occlusion."
        )


def check_boxes_3d(recipe: Recipe, codec: Codec, labels: Instances, augment: Sequence[Augmentation]) -> None:
    """Raise if a codec learns boxes in space that the labels or the views cannot teach.

    Raises:
        RecipeError: The labels have none, or no calibrations; a view is turned; or chips are of several scales, or
            views of several sizes, and depths are not stated at one focal length.
    """
    if not codec.spec.boxes_3d:
        return
    if labels.box_3d is None or labels.projection is None:
        raise RecipeError(
            "codec.boxes_3d is true, but the training data have no boxes in space with the calibration of each image, "
            "or not every set has. Train on data that have them, such as kitti or streets, or omit codec.boxes_3d."
        )
    for i, each in enumerate(augment):
        if isinstance(each, RandomAffine) and each.degrees > 0:
            raise RecipeError(
                f"augment[{i}] turns views by up to {each.degrees:g} degrees, but boxes in space stand upright in "
                f"them. Set augment.{i}.degrees = 0.0."
            )
    if getattr(codec, "focal_px", 0.0):
        return
    if recipe.data.chips is not None:
        raise RecipeError(
            "data.chips shows images at several scales, from which depths can only be learnt at one focal length. Set "
            "codec.focal_px to about that of the views, in pixels, or remove data.chips."
        )
    sizes = list(dict.fromkeys(crop_sizes(recipe)))
    if len(sizes) > 1:
        words = ", ".join(f"{width} x {height}" for width, height in sizes)
        raise RecipeError(
            f"train.sizes shows images in views of {len(sizes)} sizes ({words} pixels), which are of several focal "
            "lengths, but depths can only be learnt at one. Set codec.focal_px to about that of the views, in pixels, "
            "or remove train.sizes."
        )


def check_poses(codec: Codec, skeleton: Skeleton) -> None:
    """Raise if the data have keypoints that a codec of boxes alone would leave out.

    Raises:
        RecipeError: They have: the network would be said to predict them, and never learn any.
    """
    if len(skeleton) and not codec.spec.keypoints:
        raise RecipeError(
            f"This codec learns no keypoints (centernet with poses = false, or box_class), but the data have the "
            f"{len(skeleton)} of {skeleton.name!r}. Set boxes_only = true for each data set, and omit skeleton, or use "
            "a codec of keypoints."
        )


def check_evaluation(
    recipe: Recipe,
    val: Dataset | None,
    skeleton: Skeleton,
    *,
    finds: bool = False,
    in_space: bool = False,
    classes: Sequence[str] = (),
) -> Monitor:
    """Evaluate the first labelled image against itself, so that a result that is not available is found early.

    Args:
        recipe: Names the metrics or the protocol.
        val: The validation set, if there is one.
        skeleton: Skeleton of the network.
        finds: Whether the network finds instances in whole images.
        in_space: Whether it finds boxes in space.
        classes: Classes of the training set, if it names them.

    Returns:
        What the run monitors: the result that ``evaluate.monitor`` names, or the first one; the training loss if
        nothing is evaluated.

    Raises:
        RecipeError: ``evaluate.monitor`` names no result of the metrics or the protocol, or its metric does not say
            whether higher or lower values are better.
        ValueError, LookupError: Raised by the metric or the protocol: nobody is labelled, a length is missing, no
            keypoint is shared, the boxes belong to other images, or calibrations are missing.
    """
    metrics: list[Metric] = [make(METRICS, part, "metric") for part in recipe.evaluate.metrics]
    protocol = protocol_of(recipe.evaluate)
    if val is None or not recipe.evaluate.measures:
        return Monitor()
    if protocol is not None:
        protocol.check(val, skeleton)
        metrics = [protocol.metric()]
    if finds:
        check_complete(val, metrics)
    if in_space:
        check_calibrated(val)
    if finds or not len(skeleton):
        class_numbers(classes, classes_of(val))
    labelled = (val.instances(i) if protocol is None else protocol.people(val, i) for i in range(len(val)))
    people = next((judged for each in labelled if len(judged := people_to_judge(each))), None)
    if people is None:
        raise ValueError(
            f"None of the {len(val)} images of data.val has a labelled person with a box, so there is nothing to "
            "monitor for the best weights. Check the data with `poseglass check`."
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
            f"evaluate.monitor is {name!r}, but no metric computes it.{nearest(name, metric_of)} "
            f"Known: {', '.join(metric_of)}."
        )
    return Monitor(f"val/{name}", _better(metric_of[name], name))


def _better(metric: Metric, name: str) -> Better:
    ask = getattr(metric, "better", None)  # a custom metric may not have this method yet
    answer = None if ask is None else ask(name)
    if answer == "higher" or answer == "lower":
        return answer
    got = "but there is no such method" if ask is None else f"got {answer!r}"
    raise RecipeError(
        f"{name!r} is monitored for the best weights, so its metric must say which of its values are better: "
        f"{type(metric).__name__}.better({name!r}) must return 'higher' or 'lower', {got}. Fix the metric, or set "
        "evaluate.monitor to a result of another one."
    )


def check_end(stored: Recipe, recipe: Recipe, *, step: int, steps_per_epoch: int) -> bool:
    """Return whether a resumed run has been given another end, which is allowed while nothing has depended on it.

    Args:
        stored: The recipe that the run was started with.
        recipe: The recipe that it is resumed with.
        step: Steps done.
        steps_per_epoch: Number of steps in an epoch.

    Raises:
        RecipeError: Completed steps or evaluations would have been different with the other end.
    """
    changed = {key: values for key, values in differences(stored, recipe).items() if key in END}
    if not changed:
        return False
    matters = min(_end_matters_from(r, steps_per_epoch) for r in (stored, recipe))
    if step > matters:
        words = ", ".join(f"{key} = {before}, not {now}" for key, (before, now) in changed.items())
        raise RecipeError(
            f"The run was started with {words}. Its end can be changed until step {max(matters, 0):.0f}, where the "
            f"learning rate begins to decay or the run would end, and {step} steps are done. Resume without that "
            "change, or start a new run with --set train.init_from=WEIGHTS."
        )
    sizes = [crop_sizes(r) for r in (stored, recipe)]
    if sizes[0][-1] != sizes[1][-1] or set(sizes[0]) != set(sizes[1]):
        raise RecipeError(
            f"With train.epochs = {recipe.train.epochs} crops have other sizes than with {stored.train.epochs}, and "
            "the run so far depends on them. Start a new run with --set train.init_from=WEIGHTS."
        )
    return True


def _end_matters_from(recipe: Recipe, steps_per_epoch: int) -> float:
    """Return the last step up to which a run of this recipe does not depend on its end."""
    part, total = recipe.train, steps_per_epoch * recipe.train.epochs
    # The last epoch is evaluated even if every_epochs would skip it.
    last = total if part.epochs % recipe.evaluate.every_epochs == 0 else total - 1
    return min(Schedule(part.schedule, total, steps_per_epoch).end_matters_from(), last)


def check_best(folder: RunFolder, progress: Progress, monitor: Monitor) -> None:
    """Raise if the best weights in a folder are newer than its checkpoint, so from steps that are to be repeated.

    Raises:
        RecipeError: They are; with another end, weights of the discarded steps would be kept.
    """
    if not folder.best.is_file():
        return
    _, card = read_weights(folder.best)
    if progress.best is None or card.results.get(f"val {monitor.name}") != progress.best:
        raise RecipeError(
            f"{folder.best} was written after the last checkpoint, in steps towards the previous end. Resume without "
            "that change until the next checkpoint (train.checkpoint_seconds), or start a new run."
        )


def check_unchanged(recipe: Recipe, folder: RunFolder) -> None:
    """Raise if a recipe differs from the one that a run was started with in a key that the weights depend on.

    Raises:
        RecipeError: It does; the message names the first such key.
    """
    changed = differences(folder.stored_recipe(), recipe)
    for key, (before, now) in changed.items():
        if key not in FREE_TO_CHANGE and key not in END:
            raise RecipeError(
                f"The run in {folder.path} was started with {key} = {before!r}, not {now!r}; a resumed run keeps its "
                f"recipe. Omit the recipe (--resume --run {folder.path}), or start a new run. These may change: "
                f"{', '.join(FREE_TO_CHANGE)}; and, while the learning rate is constant, {', '.join(END)}."
            )


def check_negative_chips(recipe: Recipe, folder: RunFolder, state: Mapping[str, Any] | None) -> str:
    """Raise if a run is resumed with other negative chips than it was started with.

    Args:
        recipe: Names their file, if there are any.
        folder: Folder of the run.
        state: Its checkpoint; None for a new run.

    Returns:
        The digest of their file, for the checkpoint; "" without negative chips.

    Raises:
        RecipeError: They are others.
        FileNotFoundError: No such file.
    """
    negatives = None if recipe.data.chips is None else recipe.data.chips.negatives
    if negatives is None or negatives.file is None:
        return ""
    digest = sha256_of(negatives.file)
    if state is not None and state.get("negative_chips", digest) != digest:
        raise RecipeError(
            f"{negatives.file} holds other negative chips than when the run in {folder.path} was started, and a "
            "resumed run keeps them. Restore the file, or start a new run."
        )
    return digest
