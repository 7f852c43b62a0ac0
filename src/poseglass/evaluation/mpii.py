"""MPII PCKh as computed by the public code."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from poseglass.core.boxes import fit_aspect
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.evaluate import Evaluation, judged_together, people_to_judge
from poseglass.evaluation.protocol import check_keypoints, check_words, crop_in_words, flip_in_words, with_conventions
from poseglass.metrics.pck import Comparator, Mean, Pck, pckh
from poseglass.training.distributed import ALONE, Processes


@dataclass(frozen=True, slots=True)
class MpiiProtocol:
    """MPII PCKh from the annotated centre and scale, as in the stacked hourglass, SimpleBaseline and HRNet.

    Args:
        adjustment: How often centre and scale are adjusted (centre down by 15 px times the scale, scale times 1.25)
            before the crop of 200 px times the scale: "once". The reader returns the same raw boxes for every file
            format; "twice" and "none" reproduce results of evaluations with that mistake.
        flip_test: Average with the flipped crop. The codec's alignment determines whether flipped maps are shifted by
            a pixel.
        add_one: MPII counts pixels from 1, so 1 is added to predictions counted from 0 before they are compared. False
            reproduces results where that was forgotten: everything is a pixel off along both axes.
        head_factor: Factor from the diagonal of the head box to the head size.
        thresholds: Thresholds in units of that size. The "Mean@0.1" printed by HRNet is at 0.11.
        comparator: "<=" (the original code, SimpleBaseline, HRNet) or "<" (bearpaw, anibali, mmpose, princeton).
        mean: "micro" counts every labelled joint once, "macro" is the unweighted mean over joints.
        excluded: Joints that the average excludes.

    Raises:
        ValueError: An unknown option value, or a number out of range.
    """

    adjustment: Literal["once", "twice", "none"] = "once"
    flip_test: bool = True
    add_one: bool = True
    head_factor: float = 0.6
    thresholds: tuple[float, ...] = (0.5, 0.1)
    comparator: Comparator = "<="
    mean: Mean = "micro"
    excluded: tuple[str, ...] = ("pelvis", "thorax")

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        object.__setattr__(self, "excluded", tuple(self.excluded))
        check_words(self)
        if not self.head_factor > 0:
            raise ValueError(f"An MPII protocol's head_factor must be above 0, got {self.head_factor}.")

    def convention(self, estimator: TopDownEstimator) -> str:
        """Return the conventions of a result with this protocol and these weights, in one line."""
        boxes = f"boxes from centre and scale, adjusted {self.adjustment.replace('none', 'never')}"
        one = "1 added to predictions counted from 0" if self.add_one else "nothing added to predictions"
        without = f"without {listed(self.excluded)}" if self.excluded else "over all joints"
        means = {"micro": "micro average", "macro": "macro average"}
        return (
            f"protocol mpii: {boxes}, {crop_in_words(estimator)}; {flip_in_words(self.flip_test, estimator)}; {one}; "
            f"error {self.comparator} threshold x {self.head_factor:g} x head diagonal; {means[self.mean]} {without}; "
            "no rescoring, no NMS"
        )

    def evaluate(
        self,
        estimator: TopDownEstimator,
        dataset: Dataset,
        *,
        on_image: Callable[[], None] | None = None,
        processes: Processes = ALONE,
    ) -> Evaluation:
        """Estimate the pose of every annotated person and compute PCKh.

        Args:
            estimator: Its ``flip_test`` and padding are replaced by the protocol's.
            dataset: As read by ``readers.mpii``: raw boxes around the protocol's centre, ``extra["head_px"]``.
            on_image: Called after each image of this process's part, for a progress bar.
            processes: As in ``evaluation.evaluate``.

        Raises:
            ValueError: The weights lack a keypoint of the labels, nobody is labelled, or the labels have no head sizes.
        """
        kept, truth = self._begun(dataset, estimator.skeleton)
        truth = [self._with_heads(people) for people in truth]
        estimator = self.adjusted(estimator)
        metric = self.metric()
        part = processes.part_of([len(people) for people in truth])

        def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for i, people in zip(kept[part], truth[part], strict=True):
                yield dataset.image(i), self.boxes(people.box_xyxy)

        def judge() -> list[Instances]:
            predicted = []
            for found, people in zip(estimator.stream(images()), truth[part], strict=True):
                predicted.append(self._counted(found.in_skeleton(dataset.skeleton)))
                metric.update(predicted[-1], people)
                if on_image is not None:
                    on_image()
            return predicted

        predicted, results = judged_together(judge, [metric], processes)
        table = processes.once(metric.table)
        if not processes.first:
            kept, truth = kept[part], truth[part]
        sources = [dataset.source(i) for i in kept]
        return Evaluation(dataset.skeleton, kept, predicted, truth, sources, results, table)

    def adjusted(self, estimator: TopDownEstimator) -> TopDownEstimator:
        """Return the estimator with the protocol's flip test and no padding: ``boxes`` returns the final crops."""
        return with_conventions(estimator, self.flip_test, 1.0)

    def people(self, dataset: Dataset, index: int) -> Instances:
        """Return the labelled people in an image."""
        return dataset.instances(index)

    def check(self, dataset: Dataset, predicted: Skeleton) -> None:
        """Raise the errors of ``evaluate`` on data and keypoints, before any network runs."""
        self._begun(dataset, predicted)

    def _begun(self, dataset: Dataset, predicted: Skeleton) -> tuple[list[int], list[Instances]]:
        """Return the images with people to evaluate, and those people."""
        check_keypoints(predicted, dataset.skeleton)
        kept: list[int] = []
        truth: list[Instances] = []
        for i in range(len(dataset)):
            people = people_to_judge(dataset.instances(i))
            if len(people):
                kept.append(i)
                truth.append(people)
        if not kept:
            raise ValueError(
                f"None of the {len(dataset)} images has a labelled person, so there is nothing to evaluate. MPII's "
                "test people are not labelled; use the validation people."
            )
        if any("head_px" not in people.extra for people in truth):
            raise ValueError(
                "PCKh divides by the head size, but these labels have no head boxes (extra['head_px']). For MPII's "
                "validation people, use --set data.head_boxes=detections_our_format.mat."
            )
        return kept, truth

    def boxes(self, raw_xyxy: np.ndarray) -> np.ndarray:
        """Return the boxes to crop, ``(N, 4)`` pixels, from the raw boxes of the reader.

        Example:
            A person of scale 1: 200 px around the centre that is already moved down by 15 px.

            >>> raw = np.array([[0.0, 15.0, 200.0, 215.0]])
            >>> MpiiProtocol().boxes(raw).tolist(), MpiiProtocol("none").boxes(raw).tolist()
            ([[-25.0, -10.0, 225.0, 240.0]], [[0.0, 0.0, 200.0, 200.0]])
        """
        box = np.asarray(raw_xyxy, np.float64)
        scale = (box[:, 2] - box[:, 0]) / 200.0
        # the second adjustment starts from a scale that is 1.25 times as large
        down, larger = {"once": (0.0, 1.25), "twice": (15.0 * 1.25, 1.25**2), "none": (-15.0, 1.0)}[self.adjustment]
        moved = box + np.stack([0.0 * scale, down * scale] * 2, 1)
        return fit_aspect(moved, 1.0, padding=larger)

    def metric(self) -> Pck:
        """Return a new PCKh metric with these conventions."""
        return pckh(self.thresholds, self.comparator, self.mean, self.excluded)

    def compared(self, predicted: Instances, truth: Instances) -> tuple[Instances, Instances]:
        """Return predictions and truth as the metric compares them: pixels counted from 1 or not, heads scaled."""
        return self._counted(predicted), self._with_heads(truth)

    def _counted(self, predicted: Instances) -> Instances:
        # labels are counted from 0 here, so forgetting to add 1 is the same as subtracting 1
        return predicted if self.add_one else replace(predicted, xy=predicted.xy - 1.0)

    def _with_heads(self, truth: Instances) -> Instances:
        if self.head_factor == 0.6 or "head_px" not in truth.extra:
            return truth
        head = np.asarray(truth.extra["head_px"], np.float64) * (self.head_factor / 0.6)
        return replace(truth, extra=truth.extra | {"head_px": head})
