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


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was found in every image of a dataset, and the figures.

    Args:
        skeleton: Of predictions and truth.
        indices: Image numbers in the dataset, those with people to judge.
        predicted: One ``Instances`` an image, rows as in ``truth``; of COCO's protocol the poses it keeps, best first.
        truth: One ``Instances`` an image: people with a labelled keypoint and a box, crowds left out.
        sources: Paths or ids.
        figures: By name, from all metrics.
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


def evaluate(
    estimator: TopDownEstimator,
    dataset: Dataset,
    metrics: Sequence[Metric],
    *,
    on_image: Callable[[], None] | None = None,
) -> Evaluation:
    """Estimate every person from the annotation's box and compare.

    Args:
        estimator: Image and boxes to instances.
        dataset: Whose skeleton shares joints with the estimator's; they are compared by name.
        metrics: Taken as they are, fresh ones for a fresh figure.
        on_image: Called after each image, for a progress bar.

    Raises:
        ValueError: The skeletons share no joint, or nobody in the dataset is labelled.
    """
    shared = set(estimator.skeleton.keypoints) & set(dataset.skeleton.keypoints)
    if not shared:
        raise ValueError(
            f"The weights predict {estimator.skeleton.name!r} ({listed(estimator.skeleton.keypoints)}) and the labels "
            f"are of {dataset.skeleton.name!r} ({listed(dataset.skeleton.keypoints)}): no keypoint has the same name. "
            "Give weights that predict these keypoints (--weights FILE), or rename one side's."
        )
    kept: list[int] = []
    truth: list[Instances] = []
    for i in range(len(dataset)):
        people = people_to_judge(dataset.instances(i), estimator.skeleton)
        if len(people):
            kept.append(i)
            truth.append(people)
    if not kept:
        raise ValueError(
            f"None of the {len(dataset)} images has a labelled person with a box: nothing to evaluate. "
            "Look at the data with `poseglass check`."
        )

    def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i, people in zip(kept, truth, strict=True):
            yield dataset.image(i), people.box_xyxy

    skeleton = dataset.skeleton
    predicted = []
    for found, people in zip(estimator.stream(images()), truth, strict=True):
        aligned = found.in_skeleton(skeleton) if found.skeleton != skeleton else found
        predicted.append(aligned)
        for metric in metrics:
            metric.update(aligned, people)
        if on_image is not None:
            on_image()
    results: dict[str, float] = {}
    for metric in metrics:
        results |= metric.compute()
    return Evaluation(
        skeleton, kept, predicted, truth, [dataset.source(i) for i in kept], results,
        metrics[0].table() if metrics else {},
    )  # fmt: skip
