"""What detectors found in test images, kept as JSON, and 95 % intervals of what is measured on it."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeletons import BOXES

Image = dict[str, Any]
"""Boxes, scores and labels that were found in an image; boxes, labels and crowds that are there."""


def kept(found: Instances, truth: Instances, most: int) -> Image:
    """Return the ``most`` surest boxes of an image, and its labels: boxes to 0.1 px, scores to 0.0001."""
    best = np.argsort(-found.box_score)[:most]
    crowd = np.asarray(truth.extra.get("crowd", np.zeros(len(truth))), bool)
    return {
        "boxes": np.round(found.box_xyxy[best].astype(float), 1).tolist(),
        "scores": np.round(found.box_score[best].astype(float), 4).tolist(),
        "labels": found.label[best].tolist(),
        "truth": np.round(truth.box_xyxy.astype(float), 1).tolist(),
        "truth_labels": truth.label.tolist(),
        "crowd": crowd.tolist(),
    }


def instances_of(image: Image) -> tuple[Instances, Instances]:
    """Return what was found in an image, and what is there."""

    def boxes(xyxy: list, scores: np.ndarray, labels: list, **extra: Any) -> Instances:
        n = len(xyxy)
        box_xyxy = np.asarray(xyxy, np.float32).reshape(-1, 4)
        return Instances(
            BOXES, np.zeros((n, 0, 2)), np.zeros((n, 0)), box_xyxy, scores, np.asarray(labels, int), **extra
        )

    crowd = {"crowd": np.asarray(image["crowd"], bool)}
    return (
        boxes(image["boxes"], np.asarray(image["scores"]), image["labels"]),
        boxes(image["truth"], np.ones(len(image["truth"])), image["truth_labels"], extra=crowd),
    )


def intervals(
    sets: Sequence[list[Image]], measure: Callable[[list[Image]], dict[str, float]], draws: int
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of the mean over ``sets`` of each result, their images drawn alike with replacement."""
    rng = np.random.default_rng(0)
    values: dict[str, list[float]] = {}
    for _ in range(draws):
        order = rng.integers(0, len(sets[0]), len(sets[0]))
        each = [measure([images[i] for i in order]) for images in sets]
        for name in each[0]:
            values.setdefault(name, []).append(statistics.mean(one[name] for one in each))
    return {name: (float(np.nanquantile(v, 0.025)), float(np.nanquantile(v, 0.975))) for name, v in values.items()}
