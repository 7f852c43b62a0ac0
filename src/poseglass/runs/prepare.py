"""Prepares a run from a recipe: reads the data, builds the network, checks both, and opens the run folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from poseglass.checkpoints import import_checkpoint
from poseglass.checkpoints.package import package_weights
from poseglass.codecs import CODECS
from poseglass.core.card import WeightCard
from poseglass.core.device import choose_device
from poseglass.core.environment import changed_circumstances
from poseglass.core.precision import choose_precision, guarded_precision
from poseglass.core.sample import Dataset, classes_of
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.data.crops import Crops
from poseglass.data.examples import Examples
from poseglass.estimators.load import PACKAGE_PREFIX, find_weights
from poseglass.estimators.transfer import keypoint_channels, load_backbone, load_matching, load_trunk, to_other_classes
from poseglass.estimators.weights_file import CheckpointError, has_card, read_weights, save_weights
from poseglass.heads.centernet import CenterNetHead
from poseglass.layers.synchronised_norm import synchronise_norms
from poseglass.networks.widths import apply_widths, described, widths_of
from poseglass.readers.notes import notes_of
from poseglass.runs.build import (
    crop_sizes,
    make,
    make_criterion,
    make_examples,
    make_network,
    set_widths,
    start_widths,
    training_data,
    validation_data,
)
from poseglass.runs.check import (
    check_best,
    check_boxes_3d,
    check_end,
    check_evaluation,
    check_loss,
    check_negative_chips,
    check_occluded,
    check_poses,
    check_shapes,
    check_trainable,
    check_unchanged,
    check_visibility,
)
from poseglass.runs.folder import RunFolder
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.runs.session import Run
from poseglass.runs.whites import different_whites
from poseglass.training.checkpoint import load_checkpoint
from poseglass.training.distributed import Processes, from_environment, join
from poseglass.training.ema import MovingAverage
from poseglass.training.loop import Loop, Progress
from poseglass.training.monitor import Monitor
from poseglass.training.optimizer import backbone_of, freeze, make_optimizer
from poseglass.training.schedule import Schedule
from poseglass.training.tensorboard import check_installed


def prepare(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    processes: Processes | None = None,
) -> Run:
    """Read the data, build the network, check everything that can be checked, and open or reopen the run folder.

    Args:
        recipe: The complete recipe.
        folder: The run folder; new, unless resuming.
        resume: Resume from the folder's checkpoint, or from the beginning if none was written.
        device: "auto", "cpu", "cuda", ...
        tensorboard: Also write TensorBoard event files.
        processes: Processes of the run; None reads them from the environment, as set by torchrun.

    Raises:
        RecipeError, LookupError, ValueError, RuntimeError, OSError: With a message that says what is wrong; in this
            case the folder of a new run has not been created.
    """
    processes = from_environment() if processes is None else processes
    chips = recipe.data.chips
    if chips is not None and chips.negatives is not None and chips.negatives.file is None:
        raise RecipeError(
            "data.chips.negatives has no file of negative chips. `poseglass train` finds them in a first training; set "
            "data.chips.negatives.file to those of an earlier one."
        )
    part = recipe.train
    run_folder = RunFolder(folder)
    target = choose_device(device, processes.local_rank)
    if part.batch_size % processes.world:
        raise RecipeError(
            f"train.batch_size is {part.batch_size}, which is not divisible by {processes.world} processes. "
            f"Set it to a multiple of {processes.world}."
        )
    if tensorboard:
        check_installed()
    join(processes, target)
    state = None
    if resume:
        check_unchanged(recipe, run_folder)
        processes.once(run_folder.reopen)
        # a run that ended before its first checkpoint starts from the beginning
        there = processes.once(run_folder.checkpoint.exists)  # asked once, because a shared disk may lag
        state = load_checkpoint(run_folder.checkpoint) if there else None
    pool = check_negative_chips(recipe, run_folder, state)
    torch.manual_seed(recipe.seed)
    codec = make(CODECS, recipe.codec, "codec")
    check_trainable(recipe, codec)
    if recipe.loss is not None:
        check_loss(recipe.loss, codec, recipe.stage_sigmas)
    examples = make_examples(recipe, training_data(recipe), codec)
    if recipe.data.cache_gb > 0 and isinstance(examples, Crops):
        examples = examples.cached(int(recipe.data.cache_gb * 1e9))
    check_occluded(recipe, examples.labels)
    check_visibility(codec, examples.labels)
    check_boxes_3d(recipe, codec, examples.labels, getattr(examples, "augment", ()))
    check_poses(codec, examples.skeleton)
    val = validation_data(recipe)
    different = different_whites(examples.dataset, val)
    if different and not resume:  # a run that has begun keeps its data, so it only has a note
        raise RecipeError(different)
    monitor = check_evaluation(
        recipe, val, examples.skeleton, finds=codec.spec.instances != 1, in_space=codec.spec.boxes_3d,
        classes=classes_of(examples.dataset),
    )  # fmt: skip
    network, table = make_network(recipe, examples.skeleton, classes_of(examples.dataset))
    weights: dict[str, torch.Tensor] = {}
    start = None
    if part.init_from is not None and state is None:
        weights, start = initial_weights(part.init_from)
    if state is None:
        widths = set_widths(network, recipe, start)
    else:  # the initial weights may no longer exist
        widths = state.get("widths", {})
        apply_widths(network, widths)
    sizes = crop_sizes(recipe)
    check_shapes(network, codec, sizes, recipe, len(examples.skeleton))
    criterion = make_criterion(recipe, codec, target)
    steps_per_epoch = len(examples) // part.batch_size
    if steps_per_epoch < 1:
        raise RecipeError(
            f"train.batch_size is {part.batch_size}, but there are only {len(examples)} {examples.kind}. "
            f"Set it to at most {len(examples)}."
        )
    progress = Progress() if state is None else Progress.from_state(state["progress"])
    moved = processes.once(lambda: _move_end(run_folder, recipe, progress, steps_per_epoch, monitor)) if resume else ""
    started = ""
    if start is not None:
        initial = {name: value.clone() for name, value in network.named_parameters() if value.ndim > 1}
        classes = classes_of(examples.dataset)
        started = _start(network, weights, start, examples.skeleton, f"{start.name} ({part.init_from})", classes)
        started += _other_normalisation(start, recipe)
        _check_frozen(network, part.frozen, initial)
    if processes.world > 1:
        network = synchronise_norms(network, target)
    network = network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if part.freeze_norms:
        backbone_of(network, "train.freeze_norms")
    freeze(network, part.frozen)
    loop = Loop(
        network,
        make_optimizer(network, part.optimizer),
        Schedule(part.schedule, steps_per_epoch * part.epochs, steps_per_epoch, monitor.better),
        MovingAverage(network, part.ema_decay) if part.ema_decay else None,
        Progress(),
    )
    if state is not None:
        loop.restore(state)
    elif not resume:
        processes.once(lambda: run_folder.create(recipe))
    precision, doubt = guarded_precision(choose_precision(part.precision, target), network, sizes, target)
    run = Run(
        recipe, run_folder, loop, examples, val, codec, criterion, table, sizes, steps_per_epoch, target, monitor,
        processes, tensorboard, precision, widths=widths, negative_chips=pool,
    )  # fmt: skip
    run.note = " ".join(words for words in (started, doubt) if words)
    run.notes = (*_notes(examples, val), *([different] if different else []))
    if resume and state is None:
        run.note = f"There is no checkpoint in {folder}: the run starts from the beginning."
    if state is not None and processes.first:
        changed = changed_circumstances(state.get("made_with"), run.made_with)
        run.note = " ".join(words for words in (moved, changed, doubt) if words)
        run._write("curve", lambda: run_folder.write_curve(loop.progress.rows))
    return run


def _check_frozen(network: nn.Module, frozen: Sequence[str], initial: Mapping[str, torch.Tensor]) -> None:
    """Raise if frozen modules have weights that the start did not set.

    Raises:
        RecipeError: They do; the message names the tensors.
    """
    now = dict(network.named_parameters())
    random = [
        name
        for name, value in initial.items()
        if any(name.startswith(f"{module}.") for module in frozen) and torch.equal(now[name], value)
    ]
    if random:
        raise RecipeError(
            f"train.frozen: {listed(random)} would stay random, because the weights of train.init_from do not contain "
            "them. Freeze only what they initialise."
        )


def initial_weights(source: str) -> tuple[dict[str, torch.Tensor], WeightCard]:
    """Read the weights that a run starts from.

    Args:
        source: "package:NAME"; or the name of weights, a file of ours or a run's folder; or a checkpoint of another
            project, of a layout that ``poseglass import`` knows.

    Raises:
        FileNotFoundError: None of them.
        CheckpointError: The file cannot be read safely, or no importer knows its layout.
    """
    if source.startswith(PACKAGE_PREFIX):
        return read_weights(package_weights(source))
    path = find_weights(source)
    if has_card(path):
        return read_weights(path)
    try:
        return import_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"train.init_from: {error} If its keypoints or its layout have to be told, import it first, with "
            "`poseglass import CHECKPOINT --out FILE.safetensors`, and start from that file."
        ) from error


def _notes(examples: Examples, val: Dataset | None) -> tuple[str, ...]:
    """Return the notes on the data, each once; those that hold for both sets are attributed to the training data."""
    of_train = [*notes_of(examples.dataset), *examples.notes]
    of_val = [] if val is None else notes_of(val, mirroring=False)
    return (*of_train, *(f"data.val: {note}" for note in of_val if note not in of_train))


def _check_same_backbone(card: WeightCard, backbone: object) -> None:
    """Raise if a network's backbone is another variant than that of the weights, which shapes may not reveal.

    Args:
        card: Card of a backbone, or of a network, whose table may have the variant itself or in that of its backbone.
        backbone: The backbone of the network that starts from the weights, if it has one.

    Raises:
        RecipeError: It is; the message gives the key and its value in the card.
    """
    inner = card.network.get("backbone")
    stated = (inner if isinstance(inner, dict) else {}) | card.network
    for key in ("order", "eps"):
        value = stated.get(key)
        if value is not None and getattr(backbone, key, value) != value:
            raise RecipeError(
                f"train.init_from: weights {card.name!r} are for a backbone with {key} = {value!r}, but the network's "
                f"has {getattr(backbone, key)!r}. Set {key} of the network, or of its backbone, to {value!r}."
            )


def _check_same_widths(card: WeightCard, network: nn.Module) -> None:
    """Raise if modules of the weights have other widths than those of a network.

    Raises:
        RecipeError: They do; the message names the modules, and says how to build the network with their widths.
    """
    own = widths_of(network)
    differing = {
        name: numbers
        for name, numbers in start_widths(network, card).items()
        if name in own and own[name] != own[name] | numbers
    }
    if differing:
        raise RecipeError(
            f"train.init_from: weights {card.name!r} have widths that the recipe's network table does not state: "
            f'{listed(described(differing))}. Set widths = "init_from" in the recipe (--set widths=init_from) to build '
            "the network with these widths."
        )


def _start(
    network: nn.Module,
    weights: dict[str, torch.Tensor],
    card: WeightCard,
    skeleton: Skeleton,
    source: str,
    classes: Sequence[str] = (),
) -> str:
    """Copy initial weights into a network; return a sentence that says which parts they initialised.

    Raises:
        CheckpointError: They do not fit.
        RecipeError: The network's backbone is another variant than theirs, or its widths differ from theirs.
    """
    _check_same_widths(card, network)
    _check_same_backbone(card, getattr(network, "backbone", None))
    if card.skeleton is None:
        unused = load_backbone(network, weights, source=card.name)
        left = f" {len(unused)} tensors of the weights are unused: {listed(unused)}." if unused else ""
        return f"Started from {source}: all of the backbone; the layers above it have initial values.{left}"
    theirs, ours = card.skeleton.keypoints, skeleton.keypoints
    weights, added = _with_visibility(network, weights)
    weights, told = _with_heading_bins(network, weights)
    added += told
    weights, told = to_other_classes(network, weights, card, classes)
    added += told
    parts = load_trunk(network, weights)
    if parts:
        return f"Started from {source}: its {' and '.join(parts)}; all other layers differ, and have initial values."
    load_matching(
        network,
        weights,
        from_keypoints=theirs,
        to_keypoints=ours,
        channels=None if theirs == ours else keypoint_channels(card),
        source=card.name,
    )
    if theirs == ours:
        return f"Started from {source}: all of its {'other ' if added else ''}weights.{added}"
    new, unused = [name for name in ours if name not in theirs], [name for name in theirs if name not in ours]
    parts = [f"{len(ours) - len(new)} of {len(ours)} keypoints are in both and keep their weights, matched by name"]
    parts += [f"new, from initial values: {listed(new)}"] if new else []
    parts += [f"in the weights only: {listed(unused)}"] if unused else []
    return f"Started from {source}; {'; '.join(parts)}.{added}"


def _with_visibility(network: nn.Module, weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """Return weights with a network's initial values of the output "visibility" if they lack it; and a sentence then.

    Weights of older CenterNets have no such output, and a network that is to learn it starts from them.
    """
    outputs = tuple(
        f"{name}.outputs.visibility." if name else "outputs.visibility."
        for name, module in network.named_modules()
        if isinstance(module, CenterNetHead) and "visibility" in module.outputs
    )
    lacking = (
        {name: value for name, value in network.state_dict().items() if name.startswith(outputs)} if outputs else {}
    )
    if not lacking or not weights.keys().isdisjoint(lacking):
        return weights, ""
    return weights | lacking, " The weights predict no visibility: this output has initial values."


def _with_heading_bins(network: nn.Module, weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """Return weights with a network's initial values of the headings if they have other bins; and a sentence then."""
    ours = network.state_dict()
    differing: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, CenterNetHead) and "rotation" in module.outputs:
            prefix = f"{name}.outputs.rotation.last." if name else "outputs.rotation.last."
            keys = [key for key in ours if key.startswith(prefix) and key in weights]
            differing += [key for key in keys if len(weights[key]) != len(ours[key])]
    if not differing:
        return weights, ""
    theirs, new = (len(tensors[differing[0]]) // 4 for tensors in (weights, ours))
    return (
        weights | {key: ours[key] for key in differing},
        f" The weights predict headings in {theirs} bins, the network in {new}: the last layer of this output has "
        "initial values.",
    )


def _other_normalisation(card: WeightCard, recipe: Recipe) -> str:
    """Return a sentence if the images of the weights were normalised in another way than the recipe's, or nothing."""
    stated: list[str] = []
    for key in ("mean", "std"):
        theirs, ours = getattr(card.input, key), getattr(recipe.input, key)
        if any(abs(a - b) > 1e-3 for a, b in zip(theirs, ours, strict=True)):  # people write three decimals
            stated.append(f"input.{key} = [{', '.join(f'{number:.4g}' for number in theirs)}]")
    if card.input.color != recipe.input.color:
        stated.append(f'input.color = "{card.input.color}"')
    if not stated:
        return ""
    return f" The weights were trained with {', '.join(stated)}, unlike this recipe; set that for a better start."


def _move_end(folder: RunFolder, recipe: Recipe, progress: Progress, steps_per_epoch: int, monitor: Monitor) -> str:
    """Change the end of a run to that of the given recipe, if it differs; return a sentence that says so.

    Raises:
        RecipeError: It is too late for that; the folder is unchanged.
    """
    stored = folder.stored_recipe()
    if not check_end(stored, recipe, step=progress.step, steps_per_epoch=steps_per_epoch):
        return ""
    check_best(folder, progress, monitor)
    schedule = stored.train.schedule.model_copy(update={"decay_epochs": recipe.train.schedule.decay_epochs})
    part = stored.train.model_copy(update={"epochs": recipe.train.epochs, "schedule": schedule})
    now = stored.model_copy(update={"train": part})
    # these belong to the previous end
    for file in (folder.last, folder.report):
        file.unlink(missing_ok=True)
    if folder.best.is_file():
        weights, card = read_weights(folder.best)
        save_weights(folder.best, weights, dataclasses.replace(card, recipe=now.to_toml()))
    folder.write_recipe(now)
    return f"The end was moved from epoch {stored.train.epochs} to {recipe.train.epochs}."
