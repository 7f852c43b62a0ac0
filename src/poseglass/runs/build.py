"""Builds what the tables of a recipe name: data, crops, network, codec, device."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import torch
from torch import nn

from poseglass.codecs import Codec
from poseglass.core.card import WeightCard
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import listed, lookup
from poseglass.data import DATASETS
from poseglass.data.chip_images import ChipImages, read_chips
from poseglass.data.crops import Crops
from poseglass.data.whole_images import WholeImages
from poseglass.evaluation import PROTOCOLS
from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.mpii import MpiiProtocol
from poseglass.heads import HEADS
from poseglass.networks import NETWORKS
from poseglass.networks.widths import Widths, apply_widths
from poseglass.readers.mixed import mixed
from poseglass.runs.recipe import EvaluatePart, Recipe, RecipeError
from poseglass.runs.signature import signature_faults
from poseglass.training.criteria import CRITERIA
from poseglass.training.criterion import Criterion, StageCriterion, terms_of
from poseglass.transforms import TRANSFORMS, TransformError
from poseglass.transforms.chips import Chip


def make(table: Any, part: dict[str, Any], kind: str) -> Any:
    """Build ``table[part["name"]]`` from the other entries of a recipe's table.

    Raises:
        LookupError: An unknown name; the nearest name is suggested.
        RecipeError: An unknown key (the nearest one is suggested), a missing key, or an invalid value.
    """
    numbers = {k: v for k, v in part.items() if k != "name"}
    constructor = lookup(table, part["name"], kind=kind)
    if not callable(constructor):
        raise RecipeError(f"{kind} {part['name']!r} is a {type(constructor).__name__}; a class or function is needed.")
    if kind == "dataset" and isinstance(numbers.get("skeleton"), str):
        numbers["skeleton"] = lookup(SKELETONS, numbers["skeleton"], kind="skeleton")
    faults = signature_faults(constructor, numbers, f"{kind} {part['name']!r}")
    if faults:
        raise RecipeError(f"{'; '.join(faults)}.")
    try:
        return constructor(**numbers)
    except TypeError as error:
        raise RecipeError(f"{kind} {part['name']!r}: {error}.") from error


def training_data(recipe: Recipe) -> Dataset:
    """Read the recipe's training sets and join them by joint name in the recipe's skeleton.

    Raises:
        FileNotFoundError: One does not exist; the message says how to set its path.
        LookupError, RecipeError, ValueError: As ``make``, or raised by the reader.
    """
    parts: list[Dataset] = []
    repeats: list[float] = []
    for i, table in enumerate(recipe.data.train):
        numbers = dict(table)
        repeats.append(float(numbers.pop("repeat", 1)))
        parts.append(_make_dataset(numbers, f"data.train.{i}"))
    skeleton = None if recipe.skeleton is None else lookup(SKELETONS, recipe.skeleton, kind="skeleton")
    if len(parts) == 1 and repeats == [1] and skeleton in (None, parts[0].skeleton):
        return parts[0]
    return mixed(parts, skeleton=skeleton or parts[0].skeleton, repeats=repeats)


def validation_data(recipe: Recipe) -> Dataset | None:
    """Read the recipe's validation set, if it has one.

    Raises:
        FileNotFoundError, LookupError, RecipeError, ValueError: As ``training_data``.
    """
    return None if recipe.data.val is None else _make_dataset(recipe.data.val, "data.val")


def _make_dataset(table: dict[str, Any], where: str) -> Dataset:
    """Read a dataset of a recipe.

    Raises:
        FileNotFoundError: It does not exist; the message names the recipe's key and says how to set the path.
        LookupError, RecipeError, ValueError: As ``make``, or raised by the reader.
    """
    try:
        return make(DATASETS, table, "dataset")
    except FileNotFoundError as error:
        paths = {k: v for k, v in table.items() if isinstance(v, str) and len(Path(v).parts) > 1}
        key = next(iter(paths), "annotations")
        under_data = any(Path(v).parts[0] == "data" for v in paths.values())
        folder = "--data FOLDER sets the folder that the recipe calls data/; " if under_data else ""
        raise FileNotFoundError(
            f"{where} of the recipe: {error} {folder}--set {where}.{key}=PATH sets only this path."
        ) from None


def make_network(recipe: Recipe, skeleton: Skeleton, classes: tuple[str, ...] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """Build the recipe's network for a skeleton; return it and its table for the weight card.

    A head with a fixed input size gets the recipe's, and a network or head that tells classes apart their number,
    unless its table states another.

    Raises:
        RecipeError: The recipe's number of keypoints differs from that of the data, or it states fewer classes.
    """
    table = {"num_keypoints": len(skeleton)} | recipe.network
    if table["num_keypoints"] != len(skeleton):
        raise RecipeError(
            f"network.num_keypoints is {table['num_keypoints']}, but the data's skeleton {skeleton.name!r} has "
            f"{len(skeleton)}. Omit num_keypoints to take it from the data."
        )
    head = table.get("head")
    if isinstance(head, dict) and "size_wh" not in head and _takes(HEADS, head, "size_wh"):
        table["head"] = head = head | {"size_wh": list(recipe.input.size_wh)}
    if len(classes) > 1:
        if _takes(NETWORKS, table, "num_classes"):
            table = {"num_classes": len(classes)} | table
        elif isinstance(head, dict) and _takes(HEADS, head, "num_classes"):
            table["head"] = {"num_classes": len(classes)} | head
        own = table.get("head")
        stated = table.get("num_classes", own.get("num_classes") if isinstance(own, dict) else None)
        if stated is not None and stated < len(classes):
            raise RecipeError(
                f"num_classes of the network is {stated}, but the data have {len(classes)} classes: {listed(classes)}. "
                "Omit num_classes to take it from the data."
            )
    return make(NETWORKS, table, "network"), table


def set_widths(network: nn.Module, recipe: Recipe, start: WeightCard | None) -> Widths:
    """Set a network's widths from the recipe, in place; return them as stored in a weight card.

    Args:
        network: Network as built from the recipe's table.
        recipe: States the widths, or that they are those of the initial weights.
        start: The card of the initial weights. For backbone weights, only modules of the network's backbone are used.

    Raises:
        RecipeError: The network has no such module, or does not support such widths.
    """
    widths, source = recipe.widths, "widths"
    if widths == "init_from":
        assert start is not None
        widths, source = start_widths(network, start), f'widths = "init_from" (weights {start.name!r})'
    try:
        apply_widths(network, widths)
    except ValueError as error:
        raise RecipeError(f"{source}: {error} The recipe's network is {recipe.network}.") from None
    return widths


def start_widths(network: nn.Module, start: WeightCard) -> Widths:
    """Return the widths of initial weights, by the names of the modules in the network that loads them."""
    if start.part == "network":
        return start.widths
    known = dict(network.named_modules())
    inside = {f"backbone.{name}": numbers for name, numbers in start.widths.items()}
    return {name: numbers for name, numbers in inside.items() if name in known}


def make_criterion(recipe: Recipe, codec: Codec, device: torch.device) -> Criterion:
    """Return the recipe's criterion: its losses at every stage, or a custom criterion.

    A criterion that is a module (for example, with a teacher) is moved to the device and put in evaluation mode; its
    weights are not trained.

    Raises:
        RecipeError: An unknown key of the criterion, or the criterion is not callable.
        LookupError, ValueError: Raised by what a table names.
    """
    if recipe.criterion is None:
        assert recipe.loss is not None
        terms = terms_of(recipe.loss, codec.spec)
        return StageCriterion(terms, codec=codec, sigmas=recipe.stage_sigmas, occluded=recipe.stage_occluded)
    made = make(CRITERIA, recipe.criterion, "criterion")
    if not callable(made):
        raise RecipeError(
            f"criterion {recipe.criterion['name']!r} makes a {type(made).__name__}; expected a callable that takes "
            "(stages, targets, batch) and returns named terms, see poseglass.training.criterion.Criterion."
        )
    if isinstance(made, nn.Module):  # in evaluation mode, so that it is the same in every step and after a resume
        made = made.to(device).eval().requires_grad_(False)
    return cast(Criterion, made)


def _takes(table: Mapping[str, Callable[..., Any]], part: Mapping[str, Any], key: str) -> bool:
    """Whether the constructor named in a recipe's table has an argument of that name."""
    constructor = table.get(part.get("name", ""))
    return constructor is not None and key in inspect.signature(constructor).parameters


def make_examples(recipe: Recipe, dataset: Dataset, codec: Codec) -> Crops | WholeImages | ChipImages:
    """Return what the recipe trains on: augmented crops for a codec of one instance, else whole images or chips.

    Custom augmentations are tested first.

    Raises:
        RecipeError: Chips for a codec of one instance, or of several sizes; an entry of ``augment`` is unknown, is not
            an augmentation, or makes image and labels inconsistent; see ``transforms.probe``.
        FileNotFoundError, ValueError: The negative chips cannot be read, or no box gives a positive chip.
    """
    augment = tuple(_make_augmentation(i, part) for i, part in enumerate(recipe.augment))
    numbers = {"seed": recipe.seed, "sizes_wh": tuple(crop_sizes(recipe))}
    chips = recipe.data.chips
    if chips is not None and codec.spec.instances == 1:
        raise RecipeError(
            "data.chips is for networks that find everybody in an image, but the codec predicts one instance in a box. "
            "Remove it, or use a codec such as centernet."
        )
    if chips is not None and recipe.train.sizes:
        raise RecipeError("data.chips trains on chips of the input's size, so train.sizes must be empty.")
    try:
        if codec.spec.instances == 1:
            return Crops(dataset, recipe.input.spec(), augment, **numbers)
        if chips is None:
            return WholeImages(dataset, recipe.input.spec(), augment, **numbers)
        rule, negatives = chips.rule(recipe.input.size_wh), chips.negatives
        pool: tuple[tuple[int, Chip], ...] = ()
        if negatives is not None and negatives.file is not None:
            pool = read_chips(negatives.file, dataset, rule)
        share = negatives.share if negatives is not None and negatives.file is not None else 0.0
        return ChipImages(
            dataset, recipe.input.spec(), augment, rule=rule, seed=recipe.seed, pool=pool, share=share
        )  # fmt: skip
    except TransformError as error:
        raise RecipeError(str(error)) from error


def _make_augmentation(index: int, part: dict[str, Any]) -> Any:
    """Build an entry of ``augment``.

    Raises:
        RecipeError: An unknown name, or as ``make``; or the name is a function of samples instead of a class.
    """
    try:
        thing = lookup(TRANSFORMS, part["name"], kind="transform")
    except LookupError as error:
        raise RecipeError(f"augment[{index}]: {error}") from error
    if isinstance(thing, FunctionType) and not {"sample", "image"}.isdisjoint(inspect.signature(thing).parameters):
        raise RecipeError(
            f"augment[{index}] {part['name']!r} is a function of a sample or an image; expected a class, which is "
            "constructed from the other keys of its table. Write a class with the method "
            "__call__(self, sample, rng), or repaint(self, image, rng)."
        )
    return make(TRANSFORMS, part, f"augment[{index}]")


def crop_sizes(recipe: Recipe) -> list[tuple[int, int]]:
    """Return the size ``(width, height)`` of crops or whole views in every epoch."""
    sizes = [recipe.input.size_wh] * recipe.train.epochs
    for change in sorted(recipe.train.sizes, key=lambda c: c.epoch):
        sizes[change.epoch :] = [change.size_wh] * len(sizes[change.epoch :])
    return sizes


def protocol_of(part: EvaluatePart) -> CocoProtocol | MpiiProtocol | None:
    """Return the protocol that a recipe evaluates by, with the recipe's flip test; None if it has metrics instead.

    Raises:
        LookupError, RecipeError, ValueError: An unknown name, an unknown option, or an invalid value.
    """
    if part.protocol is None:
        return None
    return make(PROTOCOLS, {"flip_test": part.flip_test} | part.protocol, "protocol")
