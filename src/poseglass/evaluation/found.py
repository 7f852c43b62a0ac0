"""Evaluation of what an estimator finds in whole images, without the boxes of the annotations."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, boxes_complete, classes_of
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.estimators.estimator import Estimator
from poseglass.estimators.onestage import of_boxes
from poseglass.evaluation.evaluate import Evaluation, judged_together, only_predicted, people_to_judge
from poseglass.metrics.box_ap import BoxAp
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
    crowds, neither count as found nor as missed where poses are compared. Boxes are only compared in images in which
    everything is labelled (``Dataset.boxes_complete``). Other metrics compare each labelled person with the instance
    found at their box (IoU of at least 0.5); all keypoints of a person who was not found are missed.

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
        ValueError: The skeletons share no joint, nothing in the dataset is labelled, boxes are to be compared but no
            image is completely labelled, or OKS is requested and the areas are implausible for the boxes.
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
    if not any(complete) and any(isinstance(metric, BoxAp) for metric in metrics):
        raise ValueError(
            f"In none of the {len(dataset)} images is everything labelled (boxes_complete is false), so what is found "
            "beside the labelled boxes cannot be judged. Leave out box_ap, or give completely labelled images."
        )
    renumbered = _renumbered(classes, classes_of(dataset))
    part = processes.part_of([1 + len(people) for people in labels])

    def images() -> Iterator[np.ndarray]:
        for i in range(len(dataset))[part]:
            yield dataset.image(i)

    def judge() -> list[Instances]:
        predicted = []
        for i, found in zip(range(len(dataset))[part], estimator.stream(images()), strict=True):
            everything = _in_labels(found, names, skeleton, renumbered)
            likely = everything[everything.box_score >= least_score]
            pairs = of_boxes(likely, truth[i].box_xyxy)
            predicted.append(pairs)
            for metric in metrics:
                if getattr(metric, "rows_correspond", True):
                    metric.update(pairs, truth[i])
                elif complete[i] or not isinstance(metric, BoxAp):
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


def _renumbered(found: Sequence[str], labelled: Sequence[str]) -> np.ndarray | None:
    """Return the number of each of the estimator's classes in the labels, -1 for none; None if they are the same.

    Raises:
        ValueError: No class has the same name.
    """
    if not found or not labelled or tuple(found) == tuple(labelled):
        return None
    numbers = np.array([labelled.index(name) if name in labelled else -1 for name in found], np.int64)
    if (numbers < 0).all():
        raise ValueError(
            f"The weights find {listed(found)}, but the labels are of {listed(labelled)}: no class has the same name. "
            "Use weights that find these classes, or rename the categories of the labels."
        )
    return numbers


def _in_labels(found: Instances, names: Skeleton, skeleton: Skeleton, renumbered: np.ndarray | None) -> Instances:
    """Return what was found with the keypoints and the classes of the labels."""
    if renumbered is not None:
        found = dataclasses.replace(found, label=renumbered[found.label])
        found = found[found.label >= 0]
    if not len(skeleton):
        return dataclasses.replace(
            found, skeleton=skeleton, xy=found.xy[:, :0], score=found.score[:, :0], visibility=None, probability=None,
            keypoint_extra={},
        )  # fmt: skip
    return dataclasses.replace(found, skeleton=names).in_skeleton(skeleton)
