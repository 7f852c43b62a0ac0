"""Evaluation: the same estimator a user calls, over a dataset, in source pixels."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.metrics.metric import Metric
from poseglass.metrics.oks import OksAp, check_areas
from poseglass.readers.mixed import respelt
from poseglass.training.distributed import ALONE, Processes


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was found in every image of a dataset, and the results.

    Of an evaluation that several processes share, the first one's holds every image. Those of the others hold their own
    part of the images, and the results of all.

    Args:
        skeleton: Of predictions and truth.
        indices: Image numbers in the dataset, those with people to judge.
        predicted: One ``Instances`` an image, rows as in ``truth``; of COCO's protocol the poses it keeps, best first.
        truth: One ``Instances`` an image: people with a labelled keypoint and a box, crowds excluded.
        sources: Paths or ids.
        results: By name, from all metrics.
        table: Per joint, from the first metric.
        paired: Whether row i of a prediction is of the person in row i of the truth; else they are poses of anybody.
    """

    skeleton: Skeleton
    indices: list[int]
    predicted: list[Instances]
    truth: list[Instances]
    sources: list[str]
    results: dict[str, float]
    table: dict[str, dict[str, float]]
    paired: bool = True


def people_to_judge(instances: Instances, predicted: Skeleton | None = None) -> Instances:
    """Return the people an evaluation with true boxes counts: a labelled keypoint, a box with area, no crowd.

    Args:
        instances: The labels of an image.
        predicted: What the network predicts; joints it does not know are taken as unlabelled, so that they do not
            count as wrong. None keeps all.
    """
    if predicted is not None:
        unknown = predicted.indices_of(instances.skeleton.keypoints) < 0
        if unknown.any():
            xy, score = instances.xy.copy(), instances.score.copy()
            xy[:, unknown], score[:, unknown] = np.nan, 0.0
            instances = dataclasses.replace(instances, xy=xy, score=score)
    box = instances.box_xyxy
    use = instances.known.any(1) & np.isfinite(box).all(1) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    if "crowd" in instances.extra:
        use &= ~np.asarray(instances.extra["crowd"], dtype=bool)
    return instances[use]


def judged_together(
    judge: Callable[[], list[Instances]], metrics: Sequence[Metric], processes: Processes
) -> tuple[list[Instances], dict[str, float]]:
    """Judge the images of each process in it, and merge what was found in the order of the images.

    Args:
        judge: Returns the predictions for this process's part of the images (``Processes.part_of``), after it has shown
            them to the metrics.
        metrics: What ``judge`` updates; in the first process they have seen every image afterwards.
        processes: All of which call this.

    Returns:
        predicted: Of every image in the first process, of its own part in the others.
        results: By name, from all metrics over all images; in every process.
    """
    parts = processes.gather(lambda: (judge(), list(metrics)))

    def merged() -> dict[str, float]:
        for _, others in parts[1:]:
            for metric, other in zip(metrics, others, strict=True):
                metric.merge(other)
        results: dict[str, float] = {}
        for metric in metrics:
            results |= metric.compute()
        return results

    results = processes.once(merged)
    return [found for predicted, _ in parts for found in predicted], results


def evaluate(
    estimator: TopDownEstimator,
    dataset: Dataset,
    metrics: Sequence[Metric],
    *,
    on_image: Callable[[], None] | None = None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Estimate every person from the annotation's box and compare.

    Args:
        estimator: Image and boxes to instances.
        dataset: Whose skeleton shares joints with the estimator's; they are compared by name, whatever the spelling
            ("Left Wrist", "wrist_l").
        metrics: Taken as they are, fresh ones for fresh results.
        on_image: Called after each image of this process's part, for a progress bar; what it raises ends the evaluation
            in all processes.
        processes: Each estimates its part of the images; all of them call this, with the same weights.

    Returns:
        With results as one process would have them: metrics are merged in the order of the images.

    Raises:
        ValueError: The skeletons share no joint, nobody in the dataset is labelled, or OKS is measured and areas cannot
            be those of the boxes.
    """
    names = respelt(estimator.skeleton, dataset.skeleton.keypoints)
    shared = set(names.keypoints) & set(dataset.skeleton.keypoints)
    if not shared:
        raise ValueError(
            f"The weights predict {estimator.skeleton.name!r} ({listed(estimator.skeleton.keypoints)}) and the labels "
            f"are of {dataset.skeleton.name!r} ({listed(dataset.skeleton.keypoints)}): no keypoint has the same name. "
            "Give weights that predict these keypoints (--weights FILE), or rename one side's."
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
            f"None of the {len(dataset)} images has a labelled person with a box: nothing to evaluate. "
            "Look at the data with `poseglass check`."
        )

    if any(isinstance(metric, OksAp) for metric in metrics):
        check_areas(truth)
    part = processes.part_of([len(people) for people in truth])
    skeleton = dataset.skeleton

    def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i, people in zip(kept[part], truth[part], strict=True):
            yield dataset.image(i), people.box_xyxy

    def judge() -> list[Instances]:
        predicted = []
        for found, people in zip(estimator.stream(images()), truth[part], strict=True):
            aligned = dataclasses.replace(found, skeleton=names).in_skeleton(skeleton)
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
