"""What a calibration is fitted to: scores and errors of an estimator on labelled images."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from poseglass.core.boxes import iou
from poseglass.core.instances import Instances
from poseglass.core.large_image import ReadableImage
from poseglass.core.sample import Dataset, boxes_complete
from poseglass.core.skeleton import Skeleton
from poseglass.core.view import View
from poseglass.estimators.estimator import Boxes, Frame
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.calibrate import Observed
from poseglass.evaluation.evaluate import evaluate
from poseglass.evaluation.found import evaluate_found
from poseglass.evaluation.reliability import torsos_of
from poseglass.metrics.metric import Better
from poseglass.metrics.pck import normalised_distance
from poseglass.readers.mixed import respelt

LEAST = 0.01
"""Lowest score of the boxes that are looked at."""


def observe(
    estimator: TopDownEstimator | OneStageEstimator, dataset: Dataset, *, on_image: Callable[[], None] | None = None
) -> Observed:
    """Run an estimator on labelled images, and collect its scores and errors in the order of its own keypoints.

    Args:
        estimator: A top-down one gets the boxes of the labels. One that finds everybody has its boxes judged in images
            where everybody is labelled, and its keypoints where a box overlaps a labelled person's by half.
        dataset: Its keypoints are matched by name, in any spelling.
        on_image: Called after each image.

    Raises:
        ValueError: As ``evaluate`` and ``evaluate_found``.
    """
    boxes = _Boxes()
    if isinstance(estimator, TopDownEstimator):
        result = evaluate(estimator, dataset, [], on_image=on_image)
    else:
        complete = any(boxes_complete(dataset, i) for i in range(len(dataset)))
        classes = estimator.card.classes if estimator.card is not None else ()
        result = evaluate_found(
            _WithSides(replace(estimator, min_box_score=LEAST)), dataset, [boxes] if complete else [],
            on_image=on_image, classes=classes, least_score=LEAST,
        )  # fmt: skip
    own = estimator.skeleton
    names = respelt(own, dataset.skeleton.keypoints)
    none = np.zeros((0, len(own)))
    score, torsos, shares = [none], [none], [none]
    for found, people in zip(result.predicted, result.truth, strict=True):
        there = found.box_score > 0
        if not len(own) or not there.any():
            continue
        found, people = (
            replace(each.in_skeleton(names)[there], skeleton=own) for each in (found, people)
        )  # fmt: skip
        labels = np.where(people.known[..., None], people.xy, np.nan)
        if isinstance(estimator, TopDownEstimator):
            longest = max(estimator.input.size_wh)
            side_px = np.array([longest * View.crop(box, estimator.input).home.scale for box in people.box_xyxy])
        else:
            side_px = found.keypoint_extra[_WithSides.key].max(1)
        score.append(found.score)
        torsos.append(torsos_of(found, people))
        shares.append(normalised_distance(found.xy, labels, side_px))
    return Observed(
        np.concatenate(score), np.concatenate(torsos), np.concatenate(shares),
        np.concatenate([np.zeros(0), *boxes.score]), np.concatenate([np.zeros(0, bool), *boxes.right]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _WithSides:
    """An estimator whose instances carry the longer side of the box that was found, pixels, at every keypoint."""

    estimator: OneStageEstimator
    key: ClassVar[str] = "found_side_px"

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints."""
        return self.estimator.skeleton

    def __call__(self, image: ReadableImage, boxes: Boxes = None) -> Instances:
        """Find the instances of one image."""
        return next(self.stream([(image, boxes)]))

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find the instances of many images."""
        for found in self.estimator.stream(frames, causal=causal):
            side_px = (found.box_xyxy[:, 2:] - found.box_xyxy[:, :2]).max(1, initial=0.0)
            sides = np.broadcast_to(side_px[:, None], found.score.shape)
            yield replace(found, keypoint_extra=found.keypoint_extra | {self.key: sides})


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Collects which found boxes are right, as a metric that ``evaluate_found`` updates."""

    score: list[np.ndarray] = field(default_factory=list)
    right: list[np.ndarray] = field(default_factory=list)
    rows_correspond: ClassVar[bool] = False

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image: each labelled instance is found once, by the best box of its class that overlaps it by half.

        What lies in a crowd does not count.
        """
        crowd = np.asarray(truth.extra.get("crowd", np.zeros(len(truth), bool)), bool)
        overlap = iou(predicted.box_xyxy, truth.box_xyxy) * (predicted.label[:, None] == truth.label)
        right, counts = np.zeros(len(predicted), bool), np.ones(len(predicted), bool)
        free = ~crowd
        for row in np.argsort(-predicted.box_score, kind="stable"):
            here = np.where(free, overlap[row], 0.0)
            if here.size and here.max() >= 0.5:
                right[row] = True
                free[here.argmax()] = False
            elif crowd.any() and overlap[row][crowd].max() > 0.2:
                counts[row] = False
        self.score.append(predicted.box_score[counts])
        self.right.append(right[counts])

    def compute(self) -> dict[str, float]:
        """Return nothing; the arrays are what counts."""
        return {}

    def better(self, name: str) -> Better:
        """Return "higher"; there are no results."""
        return "higher"

    def table(self) -> dict[str, dict[str, float]]:
        """Return nothing."""
        return {}

    def merge(self, other: Self) -> None:
        """Add the images of another."""
        self.score.extend(other.score)
        self.right.extend(other.right)
