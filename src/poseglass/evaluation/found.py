"""Evaluation of what an estimator finds in whole images, without the boxes of the annotations."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, boxes_complete, classes_of, projection_of
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.estimators.estimator import Estimator, Frame
from poseglass.estimators.onestage import OneStageEstimator, of_boxes
from poseglass.evaluation.evaluate import (
    Evaluation,
    class_numbers,
    judged_together,
    only_predicted,
    people_to_judge,
)
from poseglass.metrics.metric import Metric
from poseglass.metrics.oks import OksAp, check_areas
from poseglass.readers.mixed import respelt
from poseglass.training.distributed import ALONE, Processes

LEAST_SCORE = 0.3
"""Lowest box score of what counts as found in metrics that compare a person's pose with the same person's labels."""


def evaluate_found(
    estimator: Estimator,
    dataset: Dataset,
    metrics: Sequence[Metric],
    *,
    on_image: Callable[[], None] | None = None,
    processes: Processes = ALONE,
    least_score: float = LEAST_SCORE,
    classes: Sequence[str] = (),
) -> Evaluation:
    """Find the instances of every image and compare them with the labels.

    Average precision sees everything that was found, whatever its score; labelled instances without keypoints, and
    crowds, neither count as found nor as missed where poses are compared. It only sees images in which everything is
    labelled (``core.sample.boxes_complete``), since in others who is found without a label may be right. Other metrics
    compare each labelled person with the instance of the same class found at their box (IoU of at least 0.5); all
    keypoints of a person who was not found are missed.

    Args:
        estimator: Finds instances in images; let it return low scores too, since average precision needs them.
        dataset: As in ``evaluate``. Without keypoints, only boxes are compared.
        metrics: As in ``evaluate``.
        on_image: As in ``evaluate``.
        processes: As in ``evaluate``.
        least_score: Lowest box score of instances that are compared with a person's labels.
        classes: Names of the classes that the estimator's labels count through. If the dataset names its own, classes
            are matched by name, and what is found of others does not count. Empty takes the numbers as they are.

    Returns:
        The evaluation; its predictions are the instances found at the labelled people, row by row.

    Raises:
        ValueError: The skeletons share no joint, or estimator and labels no class; nothing in the dataset is labelled;
            average precision is requested but no image is completely labelled; OKS is requested and the areas are
            implausible for the boxes; or the estimator finds boxes in space, and an image has no calibration.
    """
    skeleton = dataset.skeleton
    names = respelt(estimator.skeleton, skeleton.keypoints)
    if len(skeleton) and not set(names.keypoints) & set(skeleton.keypoints):
        raise ValueError(
            f"The weights predict {estimator.skeleton.name!r} ({listed(estimator.skeleton.keypoints) or 'boxes only'}),"
            f" but the labels have {skeleton.name!r} ({listed(skeleton.keypoints)}): no keypoint has the same name. "
            "Use weights that predict these keypoints, or compare only boxes (a data set read with boxes_only)."
        )
    labels = [_labelled(dataset.instances(i), names) for i in range(len(dataset))]
    truth = [people_to_judge(people) for people in labels]
    if not any(len(people) for people in truth):
        raise ValueError(
            f"None of the {len(dataset)} images has a labelled instance with a box, so there is nothing to evaluate. "
            "Check the data with `poseglass check`."
        )
    if any(isinstance(metric, OksAp) for metric in metrics):
        check_areas([people for people in truth if len(people)])
    complete = [boxes_complete(dataset, i) for i in range(len(dataset))]
    check_complete(dataset, metrics)
    spatial = isinstance(estimator, OneStageEstimator) and estimator.finds_boxes_3d
    renumbered = class_numbers(classes, classes_of(dataset))
    part = processes.part_of([1 + len(people) for people in labels])

    def images() -> Iterator[Frame]:
        for i in range(len(dataset))[part]:
            projection = projection_of(dataset, i)
            if spatial and projection is None:
                raise ValueError(_uncalibrated(dataset, i))
            yield dataset.image(i) if projection is None else (dataset.image(i), None, projection)

    def judge() -> list[Instances]:
        predicted = []
        for i, found in zip(range(len(dataset))[part], estimator.stream(images()), strict=True):
            everything = _in_labels(found, names, skeleton, renumbered)
            likely = everything[everything.box_score >= least_score]
            pairs = _at_labels(likely, truth[i])
            predicted.append(pairs)
            for metric in metrics:
                if getattr(metric, "rows_correspond", True):
                    metric.update(pairs, truth[i])
                elif complete[i]:
                    metric.update(everything, labels[i])
            if on_image is not None:
                on_image()
        return predicted

    predicted, results = judged_together(judge, metrics, processes)
    table = processes.once(lambda: metrics[0].table() if metrics else {})
    kept = list(range(len(dataset)))
    if not processes.first:
        kept, truth = kept[part], truth[part]
    return Evaluation(skeleton, kept, predicted, truth, [dataset.source(i) for i in kept], results, table)


def _labelled(instances: Instances, names: Skeleton) -> Instances:
    """Return the labels with a box and the crowds of an image; joints that are not predicted become unlabelled."""
    instances = only_predicted(instances, names)
    box = instances.box_xyxy
    return instances[np.isfinite(box).all(1) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])]


def check_complete(dataset: Dataset, metrics: Sequence[Metric]) -> None:
    """Raise if average precision is requested, but in no image everything is labelled.

    Raises:
        ValueError: It is.
    """
    precise = [metric for metric in metrics if not getattr(metric, "rows_correspond", True)]
    if precise and not any(boxes_complete(dataset, i) for i in range(len(dataset))):
        raise ValueError(
            f"In none of the {len(dataset)} images is everything labelled (boxes_complete is false), so what is found "
            f"beside the labelled boxes cannot be judged. Leave out {type(precise[0]).__name__}, or give completely "
            "labelled images."
        )


def check_calibrated(dataset: Dataset) -> None:
    """Raise if an image has no calibration of its camera, which is needed to find boxes in space.

    Raises:
        ValueError: One has none.
    """
    without = next((i for i in range(len(dataset)) if projection_of(dataset, i) is None), None)
    if without is not None:
        raise ValueError(_uncalibrated(dataset, without))


def _uncalibrated(dataset: Dataset, index: int) -> str:
    return (
        "To find boxes in space, the calibration of the camera of each image must be known, but these data have none "
        f"for {dataset.source(index)}. Evaluate on data that have them, such as kitti or streets."
    )


def _at_labels(found: Instances, truth: Instances) -> Instances:
    """Return what was found of the same class at each labelled box, row by row; unknown keypoints where nothing was."""
    pairs = of_boxes(found[:0], truth.box_xyxy)
    parts = {c: of_boxes(found[found.label == c], truth.box_xyxy[truth.label == c]) for c in np.unique(truth.label)}
    xy, score = pairs.xy.copy(), pairs.score.copy()
    box_score, label = pairs.box_score.copy(), truth.label.copy()
    probability = None if pairs.probability is None else pairs.probability.copy()
    box_3d = None if pairs.box_3d is None else pairs.box_3d.copy()
    projection = None if pairs.projection is None else pairs.projection.copy()
    for c, part in parts.items():
        rows = truth.label == c
        xy[rows], score[rows], box_score[rows] = part.xy, part.score, part.box_score
        if probability is not None and part.probability is not None:
            probability[rows] = part.probability
        if box_3d is not None and part.box_3d is not None:
            box_3d[rows] = part.box_3d
        if projection is not None and part.projection is not None:
            projection[rows] = part.projection
    more = {name: np.zeros_like(values) for name, values in pairs.keypoint_extra.items()}
    for name, values in more.items():
        for c, part in parts.items():
            values[truth.label == c] = part.keypoint_extra[name]
    return dataclasses.replace(
        pairs, xy=xy, score=score, box_score=box_score, label=label, probability=probability, box_3d=box_3d,
        projection=projection, keypoint_extra=more,
    )  # fmt: skip


def _in_labels(found: Instances, names: Skeleton, skeleton: Skeleton, renumbered: np.ndarray | None) -> Instances:
    """Return what was found with the keypoints and the classes of the labels."""
    if renumbered is not None:
        most = max(int(found.label.max(initial=0)) + 1 - len(renumbered), 0)  # classes that the card does not name
        numbers = np.concatenate([renumbered, np.full(most, -1, np.int64)])
        found = dataclasses.replace(found, label=numbers[found.label])
        found = found[found.label >= 0]
    if not len(skeleton):
        return dataclasses.replace(
            found, skeleton=skeleton, xy=found.xy[:, :0], score=found.score[:, :0], visibility=None, probability=None,
            keypoint_extra={},
        )  # fmt: skip
    return dataclasses.replace(found, skeleton=names).in_skeleton(skeleton)
