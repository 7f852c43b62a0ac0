"""COCO keypoint AP as computed by the public code."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from poseglass.core.boxes import area, around, inside_pixels
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.view import grown
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.evaluate import Evaluation, judged_together, people_to_judge
from poseglass.evaluation.protocol import (
    check_keypoints,
    check_words,
    crop_in_words,
    flip_in_words,
    name_of,
    padding_of,
    with_conventions,
)
from poseglass.metrics.oks import OksAp, check_areas, known_sigmas, person_area
from poseglass.metrics.oks_nms import oks_nms, soft_oks_nms
from poseglass.readers.coco_results import Detections, read_coco_results
from poseglass.readers.labelled import LabelledImages
from poseglass.training.distributed import ALONE, Processes


@dataclass(frozen=True, slots=True)
class CocoProtocol:
    """COCO keypoint AP as in SimpleBaseline and HRNet.

    Args:
        detections: A COCO result file with the input boxes. None uses ground-truth boxes: people with a labelled
            keypoint, without crowds, each with a box score of 1. Results from ground-truth boxes and from detections
            are not comparable.
        min_box_score: Detections with a lower score are excluded.
        max_boxes: Largest number of detections per image, best first; None uses all.
        clip_boxes: Which boxes are clipped to the image and made a pixel smaller (``core.boxes.inside_pixels``): those
            of the "truth", as the public readers do, "all", or "none".
        padding: Factor by which boxes are enlarged after they have the crop's aspect ratio; None uses that of the
            weights, 1.25 in the public families.
        flip_test: Average with the flipped crop. The codec's alignment determines whether flipped maps are shifted by
            a pixel.
        rescoring: The score of a pose: "box_times_joints", "joints" (only their mean) or "box".
        min_joint_score: Only joints with a higher score count in that mean; it is 0 if there are none.
        nms: "hard", "soft" (poses keep the lowered scores), or "none".
        nms_threshold: OKS above which a pose is suppressed; for "soft", the width of ``exp(-oks^2 / width)``.
        nms_area: The area that scales this OKS: that of the "enlarged_box" (aspect ratio and padding) as in public
            code, of the "box", or of the "annotation" (ground-truth boxes only).
        max_detections: Largest number of detections per image in the AP.
        detection_area: Whether an unmatched pose counts as medium or large by the extent of its "keypoints" (result
            files without "bbox", as the public code writes them) or by its "box".
        box_area_factor: The area that scales the OKS of a labelled person: None uses the annotated area (the box's if
            the file has none); a number is multiplied by the area of the box, 0.53 in CrowdPose's evaluation.
        sigmas: The K sigmas of OKS; None uses those of the labels.

    Raises:
        ValueError: An unknown option value, or a number out of range.
    """

    detections: str | Path | None = None
    min_box_score: float = 0.0
    max_boxes: int | None = None
    clip_boxes: Literal["truth", "all", "none"] = "truth"
    padding: float | None = None
    flip_test: bool = True
    rescoring: Literal["box_times_joints", "joints", "box"] = "box_times_joints"
    min_joint_score: float = 0.2
    nms: Literal["hard", "soft", "none"] = "hard"
    nms_threshold: float = 0.9
    nms_area: Literal["enlarged_box", "box", "annotation"] = "enlarged_box"
    max_detections: int = 20
    detection_area: Literal["keypoints", "box"] = "keypoints"
    box_area_factor: float | None = None
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_words(self)
        if self.nms_area == "annotation" and self.detections is not None:
            raise ValueError("nms_area='annotation' needs ground-truth boxes: detections have no annotated area.")
        for name in ("max_boxes", "max_detections", "padding", "nms_threshold", "box_area_factor"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"A COCO protocol's {name} must be above 0, got {value}.")

    def convention(self, estimator: TopDownEstimator) -> str:
        """Return the conventions of a result with this protocol and these weights, in one line."""
        if self.detections is None:
            boxes = "ground-truth boxes"
        else:
            best = "" if self.max_boxes is None else f", best {self.max_boxes} per image"
            boxes = f"boxes from {Path(self.detections).name} (score >= {self.min_box_score:g}{best})"
        clipped = {"truth": self.detections is None, "all": True, "none": False}[self.clip_boxes]
        scores = {
            "box_times_joints": f"box score x mean of joints above {self.min_joint_score:g}",
            "joints": f"mean of joints above {self.min_joint_score:g}",
            "box": "box score",
        }
        words = self.nms_area.replace("_", " ")
        suppression = (
            "no NMS" if self.nms == "none" else f"{self.nms} OKS-NMS at {self.nms_threshold:g} by {words} area"
        )
        return (
            f"protocol coco: {boxes}, {'clipped to the image and a pixel smaller' if clipped else 'as given'}, "
            f"x{padding_of(self.padding, estimator):g}, {crop_in_words(estimator)}; "
            f"{flip_in_words(self.flip_test, estimator)}; score: {scores[self.rescoring]}; {suppression}; "
            f"at most {self.max_detections} poses per image"
        )

    def evaluate(
        self,
        estimator: TopDownEstimator,
        dataset: Dataset,
        *,
        on_image: Callable[[], None] | None = None,
        processes: Processes = ALONE,
    ) -> Evaluation:
        """Estimate poses in every image and compute their AP.

        Args:
            estimator: Its ``flip_test`` and padding are replaced by the protocol's.
            dataset: Includes crowds and people without keypoints, as the COCO reader keeps them.
            on_image: Called after each image of this process's part, for a progress bar.
            processes: As in ``evaluation.evaluate``.

        Returns:
            All images by ascending id, without a table. ``predicted`` has the poses that were kept, best first,
            independent of the number in ``truth``; ``box_score`` is the score of the pose.

        Raises:
            ValueError: The weights lack a keypoint of the labels; the labels lack sigmas or have implausible areas;
                detections belong to other images or categories, or lie outside their image; or there is no box at all.
        """
        people, starts, ids = self._begun(dataset, estimator.skeleton)
        estimator = self.adjusted(estimator)
        sigmas = known_sigmas(dataset.skeleton, self.sigmas)
        order: list[int] = np.argsort(ids, kind="stable").tolist()
        mine = order[processes.part_of([len(starts[i].box_xyxy) for i in order])]
        metric = self.metric()

        def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for i in mine:
                if len(starts[i].box_xyxy):
                    yield dataset.image(i), starts[i].box_xyxy

        def judge() -> list[Instances]:
            poses = estimator.stream(images())
            predicted = []
            for i in mine:
                found = next(poses) if len(starts[i].box_xyxy) else Instances.empty(estimator.skeleton)
                kept = self._kept(found.in_skeleton(dataset.skeleton), starts[i], sigmas, estimator)
                predicted.append(kept)
                measured = replace(kept, box_xyxy=around(kept.xy)) if self.detection_area == "keypoints" else kept
                metric.update(measured, people[i])
                if on_image is not None:
                    on_image()
            return predicted

        predicted, results = judged_together(judge, [metric], processes)
        shown = order if processes.first else mine
        return Evaluation(
            dataset.skeleton, shown, predicted, [people_to_judge(people[i]) for i in shown],
            [dataset.source(i) for i in shown], results, {}, paired=False,
        )  # fmt: skip

    def check(self, dataset: Dataset, predicted: Skeleton) -> None:
        """Raise the errors of ``evaluate`` on data and keypoints, before any network runs."""
        self._begun(dataset, predicted)

    def adjusted(self, estimator: TopDownEstimator) -> TopDownEstimator:
        """Return the estimator with the protocol's flip test and padding."""
        return with_conventions(estimator, self.flip_test, padding_of(self.padding, estimator))

    def people(self, dataset: Dataset, index: int) -> Instances:
        """Return the labelled people in an image, with the area that scales their OKS."""
        labelled = dataset.instances(index)
        if self.box_area_factor is None:
            return labelled
        areas = np.nan_to_num(area(labelled.box_xyxy.astype(np.float64))) * self.box_area_factor
        return replace(labelled, extra=labelled.extra | {"area": areas})

    def metric(self) -> OksAp:
        """Return a new AP metric with these conventions."""
        return OksAp(self.sigmas, score="box", max_detections=self.max_detections)

    def _begun(self, dataset: Dataset, predicted: Skeleton) -> tuple[list[Instances], list["_Start"], np.ndarray]:
        """Return the people, the input boxes and the id of each image."""
        check_keypoints(predicted, dataset.skeleton)
        known_sigmas(dataset.skeleton, self.sigmas)
        people = [self.people(dataset, i) for i in range(len(dataset))]
        if self.box_area_factor is None:
            check_areas([people_to_judge(each) for each in people])
        given = dataset.image_ids if isinstance(dataset, LabelledImages) else range(len(dataset))
        if any(isinstance(one, str) for one in given):
            if self.detections is not None:
                raise ValueError(
                    f"{name_of(dataset)} has image ids that are strings, such as {given[0]!r}, but COCO results have "
                    "integer image ids. Use integers in labels and detections."
                )
            given = range(len(dataset))
        ids = np.array(given, np.int64)
        starts = list(self._starts(dataset, people, ids))
        if not any(len(start.box_xyxy) for start in starts):
            raise ValueError(
                f"None of the {len(dataset)} images has an input box: nobody is labelled, or no detection has a score "
                f"of at least {self.min_box_score:g}."
            )
        return people, starts, ids

    def _starts(self, dataset: Dataset, people: list[Instances], ids: np.ndarray) -> Iterator["_Start"]:
        """Yield the boxes of each image."""
        if self.detections is not None:
            found = self._detections(dataset, people, ids)
            by_image = np.argsort(found.image_id, kind="stable")
            first = np.searchsorted(found.image_id[by_image], ids, "left")
            last = np.searchsorted(found.image_id[by_image], ids, "right")
            for i in range(len(dataset)):
                rows = by_image[first[i] : last[i]]
                if self.max_boxes is not None:
                    rows = np.sort(rows[np.argsort(-found.score[rows], kind="stable")[: self.max_boxes]])
                yield self._start(dataset, i, found.box_xyxy[rows], found.score[rows], None)
            return
        for i, labelled in enumerate(people):
            mine = people_to_judge(labelled)
            areas = person_area(mine) if self.nms_area == "annotation" else None
            yield self._start(dataset, i, mine.box_xyxy.astype(np.float64), np.ones(len(mine)), areas)

    def _start(
        self, dataset: Dataset, i: int, box_xyxy: np.ndarray, score: np.ndarray, areas: np.ndarray | None
    ) -> "_Start":
        if self.clip_boxes == "all" or (self.clip_boxes == "truth" and self.detections is None):
            box_xyxy = inside_pixels(box_xyxy, dataset.size_wh(i))
            fine = area(box_xyxy) > 0
            box_xyxy, score = box_xyxy[fine], score[fine]
            areas = None if areas is None else areas[fine]
        elif len(box_xyxy):
            width, height = dataset.size_wh(i)
            beside = (box_xyxy[:, 2:] <= -0.5).any(1) | (box_xyxy[:, :2] >= np.array([width, height]) - 0.5).any(1)
            if beside.any():
                raise ValueError(
                    f"{dataset.source(i)} has {width} x {height} pixels, and the box "
                    f"{np.round(box_xyxy[beside][0], 1).tolist()} (x0 y0 x1 y1) lies outside it. Check that the boxes "
                    "belong to this dataset; clip_boxes='all' excludes such boxes."
                )
        return _Start(box_xyxy, score, areas)

    def _detections(self, dataset: Dataset, people: list[Instances], ids: np.ndarray) -> Detections:
        assert self.detections is not None
        found = read_coco_results(self.detections).of_images(ids.tolist(), where=name_of(dataset))
        categories = {int(c) for one in people for c in one.extra.get("category_id", ())}
        found = found.of_categories(categories or {1}, where=name_of(dataset))
        return found[found.score >= self.min_box_score]

    def _kept(self, found: Instances, start: "_Start", sigmas: np.ndarray, estimator: TopDownEstimator) -> Instances:
        score = pose_score(found.score, start.score, self.min_joint_score, self.rescoring)
        if self.nms == "none" or not len(found):
            rows = np.argsort(-score, kind="stable")
            return replace(found, box_score=score)[rows]
        if self.nms_area == "annotation":
            assert start.area is not None
            areas = start.area
        elif self.nms_area == "box":
            areas = area(start.box_xyxy)
        else:
            areas = area(grown(start.box_xyxy, estimator.input))
        if self.nms == "hard":
            rows = oks_nms(found.xy, score, areas, sigmas, threshold=self.nms_threshold)
            return replace(found, box_score=score)[rows]
        rows, lowered = soft_oks_nms(
            found.xy, score, areas, sigmas, width=self.nms_threshold, most=self.max_detections
        )  # fmt: skip
        return replace(found[rows], box_score=lowered)


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """Input boxes of one image, ``(N, 4)`` pixels, their scores, and annotated areas if those scale OKS."""

    box_xyxy: np.ndarray
    score: np.ndarray
    area: np.ndarray | None


def pose_score(
    joint_score: np.ndarray,
    box_score: np.ndarray,
    min_joint_score: float = 0.2,
    rescoring: Literal["box_times_joints", "joints", "box"] = "box_times_joints",
) -> np.ndarray:
    """Return the score of poses ``(N,)`` float64.

    Args:
        joint_score: ``(N, K)`` in [0, 1], maxima of the heatmaps.
        box_score: ``(N,)``.
        min_joint_score: Only joints above it count in the mean, which is 0 if there are none.
        rescoring: As in ``CocoProtocol``.

    Example:
        >>> pose_score(np.array([[0.1, 0.4, 0.8]]), np.array([0.5])).round(6).tolist()
        [0.3]
    """
    box = np.asarray(box_score, np.float64)
    if rescoring == "box":
        return box.copy()
    joints = np.asarray(joint_score, np.float64)
    # compared in the precision of the scores, which is usually single
    above = np.asarray(joint_score) > np.asarray(joint_score).dtype.type(min_joint_score)
    mean = np.where(above, joints, 0.0).sum(-1) / np.maximum(above.sum(-1), 1)
    return mean if rescoring == "joints" else box * mean
