"""From the tables of a recipe to the things they name: data, crops, network, codec, device."""

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
from poseglass.core.table import lookup
from poseglass.data import DATASETS
from poseglass.data.crops import Crops
from poseglass.evaluation import PROTOCOLS
from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.mpii import MpiiProtocol
from poseglass.heads import HEADS
from poseglass.networks import NETWORKS
from poseglass.networks.widths import Widths, apply_widths
from poseglass.readers.mixed import mixed
from poseglass.runs.recipe import EvaluatePart, Recipe, RecipeError
from poseglass.runs.signature import signature_faults
from poseglass.training.criterion import Criterion, StageCriterion, terms_of
from poseglass.training.distributed import ALONE, Processes
from poseglass.transforms import TRANSFORMS, TransformError


def make(table: Any, part: dict[str, Any], kind: str) -> Any:
    """Build ``table[part["name"]]`` from the other entries of a recipe's table.

    Raises:
        LookupError: An unknown name; the nearest is given.
        RecipeError: A key that the thing does not take (the nearest one is named) or lacks, or a value it refuses.
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
        FileNotFoundError: One is not there; how to say where it is.
        LookupError, RecipeError, ValueError: As ``make``, or in the reader's words.
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
        FileNotFoundError: Not there; the recipe's key is named, and how to say where it is.
        LookupError, RecipeError, ValueError: As ``make``, or in the reader's words.
    """
    try:
        return make(DATASETS, table, "dataset")
    except FileNotFoundError as error:
        paths = {k: v for k, v in table.items() if isinstance(v, str) and len(Path(v).parts) > 1}
        key = next(iter(paths), "annotations")
        under_data = any(Path(v).parts[0] == "data" for v in paths.values())
        folder = "--data FOLDER says where the folder is that the recipe calls data/; " if under_data else ""
        raise FileNotFoundError(
            f"{where} of the recipe: {error} {folder}--set {where}.{key}=PATH gives this one alone."
        ) from None


def make_network(recipe: Recipe, skeleton: Skeleton) -> tuple[nn.Module, dict[str, Any]]:
    """Build the recipe's network for a skeleton; return it and the table that a card keeps.

    A head for one size of input has the recipe's, unless it states another.

    Raises:
        RecipeError: The recipe states another number of keypoints than the data have.
    """
    table = {"num_keypoints": len(skeleton)} | recipe.network
    if table["num_keypoints"] != len(skeleton):
        raise RecipeError(
            f"network.num_keypoints is {table['num_keypoints']}, the data's skeleton {skeleton.name!r} has "
            f"{len(skeleton)}. Leave num_keypoints out, and it follows the data."
        )
    head = table.get("head")
    if isinstance(head, dict) and "size_wh" not in head and _takes(HEADS, head, "size_wh"):
        table["head"] = head | {"size_wh": list(recipe.input.size_wh)}
    return make(NETWORKS, table, "network"), table


def set_widths(network: nn.Module, recipe: Recipe, start: WeightCard | None) -> Widths:
    """Give a network the recipe's widths, in place; return them as a card keeps them.

    Args:
        network: As the recipe's table makes it.
        recipe: States widths, or that they are those of the weights to start from.
        start: The card of these weights. Of those of a backbone alone, what the network's backbone has is taken.

    Raises:
        RecipeError: The network has no such module, or cannot have such widths.
    """
    widths, source = recipe.widths, "widths"
    if widths == "init_from":
        assert start is not None
        widths, source = start_widths(network, start), f'widths = "init_from", of weights {start.name!r}'
    try:
        apply_widths(network, widths)
    except ValueError as error:
        raise RecipeError(f"{source}: {error} The recipe's network is {recipe.network}.") from None
    return widths


def start_widths(network: nn.Module, start: WeightCard) -> Widths:
    """Return the widths of weights by the names that their modules have in a network that starts from them."""
    if start.part == "network":
        return start.widths
    known = dict(network.named_modules())
    inside = {f"backbone.{name}": numbers for name, numbers in start.widths.items()}
    return {name: numbers for name, numbers in inside.items() if name in known}


def make_criterion(recipe: Recipe, codec: Codec, device: torch.device) -> Criterion:
    """Return what the recipe's network is trained by: its losses at every stage, or a criterion of its own.

    A criterion that is a module (it holds a teacher) is moved to the device and put in evaluation mode; its weights are
    not trained.

    Raises:
        RecipeError: A key that the criterion does not take, or it cannot be called.
        LookupError, ValueError: In the words of what a table names.
    """
    if recipe.criterion is None:
        assert recipe.loss is not None
        terms = terms_of(recipe.loss, codec.spec)
        return StageCriterion(terms, codec=codec, sigmas=recipe.stage_sigmas, occluded=recipe.stage_occluded)
    made = make({}, recipe.criterion, "criterion")
    if not callable(made):
        raise RecipeError(
            f"criterion {recipe.criterion['name']!r} makes a {type(made).__name__}; expected something that is called "
            "with (stages, targets, batch) and gives named terms, see poseglass.training.criterion.Criterion."
        )
    if isinstance(made, nn.Module):  # in evaluation mode, so that it is the same in every step and after a resume
        made = made.to(device).eval().requires_grad_(False)
    return cast(Criterion, made)


def _takes(table: Mapping[str, Callable[..., Any]], part: Mapping[str, Any], key: str) -> bool:
    """Whether the thing that a part of a recipe names has an argument of that name."""
    constructor = table.get(part.get("name", ""))
    return constructor is not None and key in inspect.signature(constructor).parameters


def make_crops(recipe: Recipe, dataset: Dataset) -> Crops:
    """Return the recipe's augmented crops of a dataset. Augmentations of one's own are tried first.

    Raises:
        RecipeError: An entry of ``augment`` is unknown, is no augmentation, or parts image and labels; see
            ``transforms.probe``.
    """
    augment = tuple(_make_augmentation(i, part) for i, part in enumerate(recipe.augment))
    try:
        return Crops(dataset, recipe.input.spec(), augment, seed=recipe.seed, sizes_wh=tuple(crop_sizes(recipe)))
    except TransformError as error:
        raise RecipeError(str(error)) from error


def _make_augmentation(index: int, part: dict[str, Any]) -> Any:
    """Build an entry of ``augment``.

    Raises:
        RecipeError: An unknown name, or as ``make``; a function that is called with samples is no entry.
    """
    try:
        thing = lookup(TRANSFORMS, part["name"], kind="transform")
    except LookupError as error:
        raise RecipeError(f"augment[{index}]: {error}") from error
    if isinstance(thing, FunctionType) and not {"sample", "image"}.isdisjoint(inspect.signature(thing).parameters):
        raise RecipeError(
            f"augment[{index}] {part['name']!r} is a function of a sample or an image; a recipe names a class, which "
            "is made of the other keys of its table. Write a class with the method __call__(self, sample, rng), or "
            "repaint(self, image, rng)."
        )
    return make(TRANSFORMS, part, f"augment[{index}]")


def crop_sizes(recipe: Recipe) -> list[tuple[int, int]]:
    """Return the crop size ``(width, height)`` of every epoch."""
    sizes = [recipe.input.size_wh] * recipe.train.epochs
    for change in sorted(recipe.train.sizes, key=lambda c: c.epoch):
        sizes[change.epoch :] = [change.size_wh] * len(sizes[change.epoch :])
    return sizes


def choose_device(wanted: str, processes: Processes = ALONE) -> torch.device:
    """Return the device to train on; "auto" takes CUDA where there is one, each process its own.

    Raises:
        ValueError: No such device, here or anywhere.
    """
    here = torch.cuda.is_available()
    if wanted == "auto":
        wanted = "cuda" if here else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:0, ..., got {wanted!r}.") from None
    if device.type == "cuda":
        if not here:
            raise ValueError(
                f"device {wanted!r} is not available: this PyTorch ({torch.__version__}) sees no GPU. "
                "Take --device cpu."
            )
        if device.index is None:
            device = torch.device("cuda", processes.local_rank)
        if device.index >= torch.cuda.device_count():
            raise ValueError(
                f"device 'cuda:{device.index}' is not available: there are {torch.cuda.device_count()} GPUs, counted "
                "from 0."
            )
        return device
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {wanted!r} is not available: {str(error).splitlines()[0]}") from None
    return device


def protocol_of(part: EvaluatePart) -> CocoProtocol | MpiiProtocol | None:
    """Return the protocol that a recipe measures by, with the recipe's flip test; None where it has metrics.

    Raises:
        LookupError, RecipeError, ValueError: An unknown name, an option it does not take, or a value it refuses.
    """
    if part.protocol is None:
        return None
    return make(PROTOCOLS, {"flip_test": part.flip_test} | part.protocol, "protocol")
