"""Evaluation on a dataset in source pixels, with the same estimator that users call."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, classes_of
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.estimators.estimator import Estimator
from poseglass.metrics.metric import Metric
from poseglass.metrics.oks import OksAp, check_areas
from poseglass.readers.mixed import respelt
from poseglass.training.distributed import ALONE, Processes


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The predictions in every image of a dataset, and the results.

    If several processes share an evaluation, the first process holds every image, and the others hold their own part of
    the images; all have the results over all images.

    Args:
        skeleton: Skeleton of predictions and truth.
        indices: Indices in the dataset of the images with people to evaluate.
        predicted: One ``Instances`` per image, rows as in ``truth``; with the COCO protocol the poses that it keeps,
            best first.
        truth: One ``Instances`` per image: people with a labelled keypoint and a box, without crowds.
        sources: Paths or ids of the images.
        results: Results by name, from all metrics.
        table: Results per joint, from the first metric.
        paired: Whether row i of a prediction belongs to the person in row i of the truth; otherwise the poses are not
            matched to people.
    """

    skeleton: Skeleton
    indices: list[int]
    predicted: list[Instances]
    truth: list[Instances]
    sources: list[str]
    results: dict[str, float]
    table: dict[str, dict[str, float]]
    paired: bool = True


def only_predicted(instances: Instances, predicted: Skeleton) -> Instances:
    """Return labels with the joints that a network does not predict as unlabelled, so that they count as no errors."""
    unknown = predicted.indices_of(instances.skeleton.keypoints) < 0
    if not unknown.any():
        return instances
    xy, score = instances.xy.copy(), instances.score.copy()
    xy[:, unknown], score[:, unknown] = np.nan, 0.0
    return dataclasses.replace(instances, xy=xy, score=score)


def people_to_judge(instances: Instances, predicted: Skeleton | None = None) -> Instances:
    """Return the people that count in an evaluation: a labelled keypoint, a box with area, not a crowd.

    Without keypoints in the skeleton, these are all with a box that are not crowds.

    Args:
        instances: The labels of an image.
        predicted: The skeleton that the network predicts; see ``only_predicted``. None keeps all.
    """
    if predicted is not None:
        instances = only_predicted(instances, predicted)
    box = instances.box_xyxy
    use = np.isfinite(box).all(1) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    if len(instances.skeleton):
        use &= instances.known.any(1)
    if "crowd" in instances.extra:
        use &= ~np.asarray(instances.extra["crowd"], dtype=bool)
    return instances[use]


def judged_together(
    judge: Callable[[], list[Instances]], metrics: Sequence[Metric], processes: Processes
) -> tuple[list[Instances], dict[str, float]]:
    """Evaluate the images of each process, and merge the results in the order of the images.

    Args:
        judge: Returns the predictions for this process's part of the images (``Processes.part_of``), after updating the
            metrics with them.
        metrics: The metrics that ``judge`` updates; afterwards those of the first process include every image.
        processes: The processes, all of which must call this.

    Returns:
        predicted: Predictions for every image in the first process, for its own part in the others.
        results: Results by name, from all metrics over all images, in every process.
    """
    parts = processes.gather(lambda: (judge(), list(metrics)))

    def merged() -> dict[str, float]:
        for _, others in parts[1:]:
            for metric, other in zip(metrics, others, strict=True):
                metric.merge(other)
        results: dict[str, float] = {}
        for metric in metrics:
            new = metric.compute()
            twice = sorted(set(results) & set(new))
            if twice:
                raise ValueError(
                    f"Names of results must differ between metrics, got {', '.join(twice)} twice (the second time from "
                    f"{type(metric).__name__}); leave out one metric."
                )
            results |= new
        return results

    results = processes.once(merged)
    return [found for predicted, _ in parts for found in predicted], results


def class_numbers(found: Sequence[str], labelled: Sequence[str]) -> np.ndarray | None:
    """Return the number of each of the estimator's classes in the labels, -1 for none; None takes numbers as they are.

    One class on each side is the same class, whatever its name: "person" and "human".

    Raises:
        ValueError: No class has the same name.
    """
    if not found or not labelled or tuple(found) == tuple(labelled) or len(found) == len(labelled) == 1:
        return None
    numbers = np.array([labelled.index(name) if name in labelled else -1 for name in found], np.int64)
    if (numbers < 0).all():
        raise ValueError(
            f"The weights find {listed(found)}, but the labels are of {listed(labelled)}: no class has the same name. "
            "Use weights that find these classes, or rename the categories of the labels."
        )
    return numbers


def evaluate(
    estimator: Estimator,
    dataset: Dataset,
    metrics: Sequence[Metric],
    *,
    on_image: Callable[[], None] | None = None,
    processes: Processes = ALONE,
    classes: Sequence[str] = (),
) -> Evaluation:
    """Estimate the pose of every person from the annotated box and compare it with the labels.

    A network without keypoints tells the class of what a box shows, which is compared instead.

    Args:
        estimator: Maps an image and boxes to instances.
        dataset: Its skeleton must share joints with the estimator's; they are matched by name, in any spelling ("Left
            Wrist", "wrist_l").
        metrics: Metrics to update; pass new ones to start from zero.
        on_image: Called after each image of this process's part, for a progress bar; an exception that it raises ends
            the evaluation in all processes.
        processes: Each process estimates its part of the images; all must call this, with the same weights.
        classes: As in ``evaluate_found``.

    Returns:
        The evaluation, with the same results as a single process: metrics are merged in the order of the images.

    Raises:
        ValueError: The skeletons share no joint, or estimator and labels no class; nobody in the dataset is labelled;
            or OKS is requested and the areas are implausible for the boxes.
    """
    names = respelt(estimator.skeleton, dataset.skeleton.keypoints)
    shared = set(names.keypoints) & set(dataset.skeleton.keypoints)
    if not shared and (len(names) or len(dataset.skeleton)):
        raise ValueError(
            f"The weights predict {estimator.skeleton.name!r} ({listed(estimator.skeleton.keypoints)}), but the labels "
            f"have {dataset.skeleton.name!r} ({listed(dataset.skeleton.keypoints)}): no keypoint has the same name. "
            "Use weights that predict these keypoints (--weights FILE), or rename the keypoints of either."
        )
    kept: list[int] = []
    truth: list[Instances] = []
    for i in range(len(dataset)):
        people = people_to_judge(dataset.instances(i), names)
        if len(people):
            kept.append(i)
            truth.append(people)
    if not kept:
        raise ValueError(
            f"None of the {len(dataset)} images has a labelled person with a box, so there is nothing to evaluate. "
            "Check the data with `poseglass check`."
        )

    if any(isinstance(metric, OksAp) for metric in metrics):
        check_areas(truth)
    part = processes.part_of([len(people) for people in truth])
    skeleton = dataset.skeleton
    renumbered = class_numbers(classes, classes_of(dataset)) if not len(skeleton) else None

    def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i, people in zip(kept[part], truth[part], strict=True):
            yield dataset.image(i), people.box_xyxy

    def judge() -> list[Instances]:
        predicted = []
        for found, people in zip(estimator.stream(images()), truth[part], strict=True):
            aligned = dataclasses.replace(found, skeleton=names).in_skeleton(skeleton)
            if renumbered is not None:
                aligned = dataclasses.replace(aligned, label=renumbered[aligned.label])
            predicted.append(aligned)
            for metric in metrics:
                metric.update(aligned, people)
            if on_image is not None:
                on_image()
        return predicted

    predicted, results = judged_together(judge, metrics, processes)
    table = processes.once(lambda: metrics[0].table() if metrics else {})
    if not processes.first:
        kept, truth = kept[part], truth[part]
    return Evaluation(skeleton, kept, predicted, truth, [dataset.source(i) for i in kept], results, table)
