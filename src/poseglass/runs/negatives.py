"""Negative chips of a recipe: a brief first training proposes, and chips of what no positive chip shows are the pool.

Source:
    Singh, Najibi, Davis, "SNIPER", NeurIPS 2018, section 3.3.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.sample import Dataset, projection_of
from poseglass.core.table import counted, listed
from poseglass.data.chip_images import negative_chips, without_doubt, write_chips
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.runs.folder import RunFolder
from poseglass.runs.recipe import Recipe, RecipeError, differences
from poseglass.runs.session import Run

FILE_NAME = "negative_chips.json"


def needs_negatives(recipe: Recipe) -> bool:
    """Return whether a recipe wants negative chips and names no file of them."""
    chips = recipe.data.chips
    return chips is not None and chips.negatives is not None and chips.negatives.file is None


def proposing_folder(folder: Path) -> Path:
    """Return the run folder of the first training, beside that of the run."""
    whole = folder.resolve()
    return whole.with_name(f"{whole.name}-proposals")


def without_negatives(recipe: Recipe) -> Recipe:
    """Return the recipe with positive chips alone."""
    chips = recipe.data.chips
    if chips is None:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"chips": chips.without_negatives})})


def check_first(recipe: Recipe, first: Path) -> None:
    """Raise if the folder of the first training holds another one than this recipe's.

    Raises:
        RecipeError: It does; the message names what differs.
    """
    stored = RunFolder(first).stored_recipe()
    found = differences(stored, proposing_recipe(recipe))
    if found:
        words = [f"{key} = {old!r}, now {new!r}" for key, (old, new) in found.items()]
        raise RecipeError(
            f"{first} holds a first training with other settings: {listed(words)}. Remove it, or choose another --run."
        )


def has_negatives(recipe: Recipe, file: Path) -> bool:
    """Return whether a file holds the negative chips that a recipe asks for: they need not be found again then."""
    try:
        return json.loads(file.read_text()).get("settings") == _settings(recipe)
    except (OSError, ValueError, AttributeError):
        return False


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return what, besides the first training, decides which chips are found."""
    chips = recipe.data.chips
    if chips is None or chips.negatives is None:
        raise RecipeError("The recipe has no data.chips.negatives.")
    return {
        "format": 2,  # raised when the rule changes by which chips are chosen
        "seed": recipe.seed, "at_least": list(chips.at_least), "min_score": chips.negatives.min_score,
    }  # fmt: skip


def proposing_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of the first training: brief, on positive chips alone, and without evaluation.

    Raises:
        RecipeError: The recipe wants no negative chips.
    """
    chips = recipe.data.chips
    if chips is None or chips.negatives is None:
        raise RecipeError("The recipe has no data.chips.negatives.")
    schedule = recipe.train.schedule.model_copy(update={"name": "constant", "decay_epochs": 0})
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-proposals",
            "data": recipe.data.model_copy(update={"chips": chips.without_negatives, "val": None}),
            "train": recipe.train.model_copy(
                update={"epochs": chips.negatives.epochs, "schedule": schedule, "stop_after": 0}
            ),
            "evaluate": type(recipe.evaluate)(),
        }
    )  # fmt: skip


def with_negatives(recipe: Recipe, file: Path) -> Recipe:
    """Return the recipe with a file of negative chips.

    Raises:
        RecipeError: The recipe wants no negative chips.
    """
    chips = recipe.data.chips
    if chips is None or chips.negatives is None:
        raise RecipeError("The recipe has no data.chips.negatives.")
    negatives = chips.negatives.model_copy(update={"file": str(file)})
    data = recipe.data.model_copy(update={"chips": chips.model_copy(update={"negatives": negatives})})
    return recipe.model_copy(update={"data": data})


def check_negatives(first: Run) -> None:
    """Raise if no training image can have negative chips, which needs no network to be known.

    Args:
        first: A run on the data, before it begins.

    Raises:
        RecipeError: In none is everything labelled, or none of those has the calibration that boxes in space need.
    """
    dataset, spatial = first.examples.dataset, first.codec.spec.boxes_3d
    if not _proposing(dataset, spatial=spatial):
        needed, lacking = "everything is labelled", "boxes_complete is false"
        if spatial:
            needed, lacking = f"{needed} and the camera is calibrated", f"{lacking}, or they have no calibration"
        raise RecipeError(
            f"data.chips.negatives needs images in which {needed}: what is found elsewhere may be an object. None of "
            f"the {counted(len(dataset), 'training image')} is one ({lacking}). Train without negative chips, or add "
            "such images."
        )


def _proposing(dataset: Dataset, *, spatial: bool) -> set[int]:
    """Return the images where what a network finds, but is not labelled, is surely wrong, and where it can look."""
    return {index for index in without_doubt(dataset) if not spatial or projection_of(dataset, index) is not None}


def find_negatives(recipe: Recipe, first: Run, file: Path, on_image: Callable[[], None] | None = None) -> str:
    """Look at all training images with the network of the first training, and write the pool of negative chips.

    Args:
        recipe: The recipe that wants them.
        first: The first training, which has ended.
        file: Where they are written.
        on_image: Called after each image.

    Returns:
        A sentence about what was found.

    Raises:
        RecipeError: No chip shows enough proposals.
    """  # fmt: skip
    chips = recipe.data.chips
    if chips is None or chips.negatives is None:
        raise RecipeError("The recipe has no data.chips.negatives.")
    estimator = first.estimator()
    assert isinstance(estimator, OneStageEstimator)
    estimator = replace(estimator, min_box_score=chips.negatives.min_score)
    dataset = first.examples.dataset
    proposals: list[np.ndarray] = []
    seen: dict[str, np.ndarray] = {}  # an image may be there several times
    proposing = _proposing(dataset, spatial=estimator.finds_boxes_3d)
    for index in range(len(dataset)):
        source = dataset.source(index)
        if index not in proposing:
            proposals.append(np.zeros((0, 4)))
        else:
            if source not in seen:
                projection = projection_of(dataset, index) if estimator.finds_boxes_3d else None
                seen[source] = estimator(dataset.image(index), projection=projection).box_xyxy
            proposals.append(seen[source])
        if on_image is not None:
            on_image()
    rule = chips.rule(recipe.input.size_wh)
    pool = negative_chips(dataset, rule, proposals, chips.at_least, seed=recipe.seed)
    boxes = sum(len(boxes) for boxes in proposals)
    if not pool:
        raise RecipeError(
            f"No negative chip: the first training made {counted(boxes, 'proposal')} in "
            f"{counted(len(proposing), 'image')}, but no chip shows {min(chips.at_least)} that no positive chip shows. "
            "Lower data.chips.negatives.at_least or min_score, raise its epochs, or train without negative chips."
        )
    write_chips(file, dataset, pool, settings=_settings(recipe))
    images = len({image for image, _ in pool})
    return (
        f"{counted(len(pool), 'negative chip')} in {counted(images, 'image')}, from {boxes:,} proposals, are kept in "
        f"{file}."
    )
