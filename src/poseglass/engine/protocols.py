"""The test protocols behind published figures: boxes, suppression and scores as named options.

Two figures of the same weights differ by points when one of these differs, so each is a field with the public default,
and ``convention`` says in one line which were followed. The crop, the network and the decoding are the estimator's, as
for every user; what belongs to weights rather than to a protocol (where a box's centre lands in the crop, the grid of
the heatmap and with it the one-pixel shift of the flip test, the order of colours) is on the weights' card.

Sources: the public code of SimpleBaseline and HRNet (COCO, MPII) and of the stacked hourglass (MPII), read for facts;
docs/how-to/follow_a_protocol.md has the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from poseglass.core.boxes import area, around, fit_aspect, inside_pixels
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.datasets.coco_results import Detections, read_coco_results
from poseglass.datasets.labelled import LabelledImages
from poseglass.engine.assemble import make
from poseglass.engine.evaluate import Evaluation, people_to_judge
from poseglass.engine.recipe import EvaluatePart
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.weights import listed
from poseglass.metrics.oks import OksAp, known_sigmas, person_area
from poseglass.metrics.oks_nms import oks_nms, soft_oks_nms
from poseglass.metrics.pck import Comparator, Mean, Pck, pckh


@dataclass(frozen=True, slots=True)
class CocoProtocol:
    """COCO keypoint AP as SimpleBaseline and HRNet take it.

    Args:
        detections: A COCO result file with the boxes to start from. None starts from the truth: people with a labelled
            keypoint, crowds left out, and a box score of 1 each. Figures
            from true boxes and from detections do not compare.
        min_box_score: Detections below it are left out.
        max_boxes: At most so many of the best detections of a picture; None takes all.
        cut_boxes: Which boxes are cut to the image and made a pixel smaller (``core.boxes.inside_pixels``): those of
            the "truth", as the public readers do, "all", or "none".
        padding: What boxes are enlarged by after they have the crop's aspect; None is the weights' own, 1.25 in the
            public families.
        flip_test: Average with the mirrored crop. Whether mirrored maps move by a pixel says the codec's alignment.
        rescoring: The score of a pose: "box_times_joints", "joints" (their mean alone) or "box".
        min_joint_score: Joints up to it are left out of that mean; it is 0 where none is above.
        nms: "hard", "soft" (lowered scores are the scores), or "none".
        nms_threshold: An OKS above it suppresses; for "soft" the width of ``exp(-oks^2 / width)``.
        nms_area: What scales that OKS: the area of the "enlarged_box" (aspect and padding) as in public code, of the
            "box", or the "annotation"'s (true boxes only).
        max_detections: Of a picture, in the AP.
        detection_area: Whether a pose that matches nobody counts among medium or large people by the extent of its
            "keypoints" (result files without "bbox", as the public code writes them) or by its "box".
        box_area_factor: What scales the OKS of a true person: None is the annotated area (of the box, where a file has
            none); a number is that times the area of the box, 0.53 in CrowdPose's evaluation.
        sigmas: K of OKS; None takes those of the labels.

    Raises:
        ValueError: A word that is not known, or a number out of range.
    """

    detections: str | Path | None = None
    min_box_score: float = 0.0
    max_boxes: int | None = None
    cut_boxes: Literal["truth", "all", "none"] = "truth"
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
        _check_words(self)
        if self.nms_area == "annotation" and self.detections is not None:
            raise ValueError("nms_area='annotation' needs boxes from the truth: detections have no annotated area.")
        for name in ("max_boxes", "max_detections", "padding", "nms_threshold", "box_area_factor"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"A COCO protocol's {name} must be above 0, got {value}.")

    def convention(self, estimator: TopDownEstimator) -> str:
        """Return in one line what a figure of this protocol with these weights follows."""
        if self.detections is None:
            boxes = "boxes from the truth"
        else:
            best = "" if self.max_boxes is None else f", best {self.max_boxes} of a picture"
            boxes = f"boxes from {Path(self.detections).name} (score >= {self.min_box_score:g}{best})"
        cut = {"truth": self.detections is None, "all": True, "none": False}[self.cut_boxes]
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
            f"protocol coco: {boxes}, {'cut to the picture and a pixel smaller' if cut else 'as given'}, "
            f"x{_padding(self.padding, estimator):g}, {_crop(estimator)}; {_flip(self.flip_test, estimator)}; score: "
            f"{scores[self.rescoring]}; {suppression}; at most {self.max_detections} poses a picture"
        )

    def evaluate(
        self, estimator: TopDownEstimator, dataset: Dataset, *, on_image: Callable[[], None] | None = None
    ) -> Evaluation:
        """Find poses in every image and measure their AP.

        Args:
            estimator: Its ``flip_test`` and padding give way to the protocol's.
            dataset: With crowds and people without keypoints, as the reader of COCO keeps them.
            on_image: Called after each image, for a progress bar.

        Returns:
            All images by ascending id, no table. ``predicted`` are the poses that were kept, best first, however many
            there are in ``truth``; ``box_score`` is the score of the pose.

        Raises:
            ValueError: The weights lack a keypoint of the labels; labels lack sigmas or areas; detections are of other
                images or categories, or lie outside their image; there is no box at all.
        """
        people, starts, ids = self._begun(dataset, estimator.skeleton)
        estimator = self.adjusted(estimator)
        sigmas = known_sigmas(dataset.skeleton, self.sigmas)
        order = np.argsort(ids, kind="stable").tolist()

        def pictures() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for i in order:
                if len(starts[i].box_xyxy):
                    yield dataset.image(i), starts[i].box_xyxy

        metric = self.metric()
        poses = estimator.stream(pictures())
        predicted = []
        for i in order:
            found = next(poses) if len(starts[i].box_xyxy) else Instances.empty(estimator.skeleton)
            kept = self._kept(found.in_skeleton(dataset.skeleton), starts[i], sigmas, estimator)
            predicted.append(kept)
            measured = replace(kept, box_xyxy=around(kept.xy)) if self.detection_area == "keypoints" else kept
            metric.update(measured, people[i])
            if on_image is not None:
                on_image()
        return Evaluation(
            dataset.skeleton, order, predicted, [people_to_judge(people[i]) for i in order],
            [dataset.source(i) for i in order], metric.compute(), {}, paired=False,
        )  # fmt: skip

    def check(self, dataset: Dataset, predicted: Skeleton) -> None:
        """Raise what ``evaluate`` would say of data and keypoints, before any network runs."""
        self._begun(dataset, predicted)

    def adjusted(self, estimator: TopDownEstimator) -> TopDownEstimator:
        """Return the estimator with the protocol's flip test and padding."""
        return _with(estimator, self.flip_test, _padding(self.padding, estimator))

    def people(self, dataset: Dataset, index: int) -> Instances:
        """Return the labelled people of an image, with the area that scales their OKS."""
        labelled = dataset.instances(index)
        if self.box_area_factor is None:
            return labelled
        areas = np.nan_to_num(area(labelled.box_xyxy.astype(np.float64))) * self.box_area_factor
        return replace(labelled, extra=labelled.extra | {"area": areas})

    def metric(self) -> OksAp:
        """Return a fresh AP by these conventions."""
        return OksAp(self.sigmas, score="box", max_detections=self.max_detections)

    def _begun(self, dataset: Dataset, predicted: Skeleton) -> tuple[list[Instances], list["_Start"], np.ndarray]:
        """Return the people, the boxes to start from and the id of each image."""
        check_keypoints(predicted, dataset.skeleton)
        known_sigmas(dataset.skeleton, self.sigmas)
        people = [self.people(dataset, i) for i in range(len(dataset))]
        ids = np.array(dataset.image_ids if isinstance(dataset, LabelledImages) else range(len(dataset)), np.int64)
        starts = list(self._starts(dataset, people, ids))
        if not any(len(start.box_xyxy) for start in starts):
            raise ValueError(
                f"None of the {len(dataset)} images has a box to start from: nobody is labelled, or no detection has a "
                f"score of at least {self.min_box_score:g}."
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
        if self.cut_boxes == "all" or (self.cut_boxes == "truth" and self.detections is None):
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
                    f"{np.round(box_xyxy[beside][0], 1).tolist()} (x0 y0 x1 y1) lies outside of it; are the boxes of "
                    "this data set? cut_boxes='all' leaves such boxes out."
                )
        return _Start(box_xyxy, score, areas)

    def _detections(self, dataset: Dataset, people: list[Instances], ids: np.ndarray) -> Detections:
        assert self.detections is not None
        found = read_coco_results(self.detections).of_images(ids.tolist(), where=_name(dataset))
        categories = {int(c) for one in people for c in one.extra.get("category_id", ())}
        found = found.of_categories(categories or {1}, where=_name(dataset))
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
            areas = area(fit_aspect(start.box_xyxy, estimator.input.aspect, padding=estimator.input.padding))
        if self.nms == "hard":
            rows = oks_nms(found.xy, score, areas, sigmas, threshold=self.nms_threshold)
            return replace(found, box_score=score)[rows]
        rows, lowered = soft_oks_nms(
            found.xy, score, areas, sigmas, width=self.nms_threshold, most=self.max_detections
        )  # fmt: skip
        return replace(found[rows], box_score=lowered)


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """Boxes to start from in one image, ``(N, 4)`` pixels, their scores, and annotated areas where those scale OKS."""

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
        min_joint_score: Only joints above it count in the mean, which is 0 where there is none.
        rescoring: As in ``CocoProtocol``.

    Example:
        >>> pose_score(np.array([[0.1, 0.4, 0.8]]), np.array([0.5])).round(6).tolist()
        [0.3]
    """
    box = np.asarray(box_score, np.float64)
    if rescoring == "box":
        return box.copy()
    joints = np.asarray(joint_score, np.float64)
    # the same comparison as in single precision, which is what scores come in
    above = np.asarray(joint_score) > np.asarray(joint_score).dtype.type(min_joint_score)
    mean = np.where(above, joints, 0.0).sum(-1) / np.maximum(above.sum(-1), 1)
    return mean if rescoring == "joints" else box * mean


@dataclass(frozen=True, slots=True)
class MpiiProtocol:
    """MPII PCKh from the annotated centre and scale, as the stacked hourglass, SimpleBaseline and HRNet take it.

    Args:
        adjustment: How often centre and scale are adjusted (centre down by 15 px times the scale, scale times 1.25)
            before the crop of 200 px times the scale: "once". The reader gives the same raw boxes whatever the file
            holds, so "twice" and "none" are there to reproduce figures that were taken wrongly.
        flip_test: Average with the mirrored crop. Whether mirrored maps move by a pixel says the codec's alignment.
        add_one: MPII counts pixels from 1; predictions counted from 0 get 1 added before they are compared. False
            reproduces figures where that was forgotten: everything is a pixel off along both axes.
        head_factor: The head's size is this times the diagonal of the head box.
        limits: In units of that size. HRNet's printed "Mean@0.1" is taken at 0.11.
        comparator: "<=" (the original code, SimpleBaseline, HRNet) or "<" (bearpaw, anibali, mmpose, princeton).
        mean: All joints counted "together" as often as they are labelled, or the unweighted mean over "joints".
        left_out: Joints that the mean leaves out.

    Raises:
        ValueError: A word that is not known, or a number out of range.
    """

    adjustment: Literal["once", "twice", "none"] = "once"
    flip_test: bool = True
    add_one: bool = True
    head_factor: float = 0.6
    limits: tuple[float, ...] = (0.5, 0.1)
    comparator: Comparator = "<="
    mean: Mean = "together"
    left_out: tuple[str, ...] = ("pelvis", "thorax")

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(self.limits))
        object.__setattr__(self, "left_out", tuple(self.left_out))
        _check_words(self)
        if not self.head_factor > 0:
            raise ValueError(f"An MPII protocol's head_factor must be above 0, got {self.head_factor}.")

    def convention(self, estimator: TopDownEstimator) -> str:
        """Return in one line what a figure of this protocol with these weights follows."""
        boxes = f"boxes from centre and scale, adjusted {self.adjustment.replace('none', 'never')}"
        one = "1 added to predictions counted from 0" if self.add_one else "nothing added to predictions"
        without = f"without {listed(self.left_out)}" if self.left_out else "of all joints"
        means = {"together": "joints counted together", "joints": "unweighted mean over joints"}
        return (
            f"protocol mpii: {boxes}, {_crop(estimator)}; {_flip(self.flip_test, estimator)}; {one}; error "
            f"{self.comparator} limit x {self.head_factor:g} x head diagonal; {means[self.mean]} {without}; no "
            "rescoring, no NMS"
        )

    def evaluate(
        self, estimator: TopDownEstimator, dataset: Dataset, *, on_image: Callable[[], None] | None = None
    ) -> Evaluation:
        """Find the pose of every annotated person and measure PCKh.

        Args:
            estimator: Its ``flip_test`` and padding give way to the protocol's.
            dataset: As ``datasets.mpii`` reads it: raw boxes about the protocol's centre, ``extra["head_px"]``.
            on_image: Called after each image, for a progress bar.

        Raises:
            ValueError: The weights lack a keypoint of the labels, nobody is labelled, or labels have no head sizes.
        """
        kept, truth = self._begun(dataset, estimator.skeleton)
        estimator = self.adjusted(estimator)
        metric = self.metric()

        def pictures() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for i, people in zip(kept, truth, strict=True):
                yield dataset.image(i), self.boxes(people.box_xyxy)

        pairs: list[tuple[Instances, Instances]] = []
        for found, people in zip(estimator.stream(pictures()), truth, strict=True):
            pairs.append(self.compared(found.in_skeleton(dataset.skeleton), people))
            metric.update(*pairs[-1])
            if on_image is not None:
                on_image()
        return Evaluation(
            dataset.skeleton, kept, [found for found, _ in pairs], [people for _, people in pairs],
            [dataset.source(i) for i in kept], metric.compute(), metric.table(),
        )  # fmt: skip

    def adjusted(self, estimator: TopDownEstimator) -> TopDownEstimator:
        """Return the estimator with the protocol's flip test; what ``boxes`` gives is cropped as it is."""
        return _with(estimator, self.flip_test, 1.0)

    def people(self, dataset: Dataset, index: int) -> Instances:
        """Return the labelled people of an image."""
        return dataset.instances(index)

    def check(self, dataset: Dataset, predicted: Skeleton) -> None:
        """Raise what ``evaluate`` would say of data and keypoints, before any network runs."""
        self._begun(dataset, predicted)

    def _begun(self, dataset: Dataset, predicted: Skeleton) -> tuple[list[int], list[Instances]]:
        """Return the images with people to judge, and those people."""
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
                f"None of the {len(dataset)} images has a labelled person: nothing to evaluate. MPII's own test people "
                "are not labelled; take the validation people."
            )
        if any("head_px" not in people.extra for people in truth):
            raise ValueError(
                "PCKh divides by the size of the head, and these labels have no head boxes (extra['head_px']). For "
                "MPII's validation people give --set data.head_boxes=detections_our_format.mat."
            )
        return kept, truth

    def boxes(self, raw_xyxy: np.ndarray) -> np.ndarray:
        """Return what is cropped, ``(N, 4)`` pixels, from the raw boxes that the reader gives.

        Example:
            A person of scale 1: 200 px about the centre that is already moved down by 15.

            >>> raw = np.array([[0.0, 15.0, 200.0, 215.0]])
            >>> MpiiProtocol().boxes(raw).tolist(), MpiiProtocol("none").boxes(raw).tolist()
            ([[-25.0, -10.0, 225.0, 240.0]], [[0.0, 0.0, 200.0, 200.0]])
        """
        box = np.asarray(raw_xyxy, np.float64)
        scale = (box[:, 2] - box[:, 0]) / 200.0
        # the second adjustment finds a scale that is 1.25 times as large
        down, larger = {"once": (0.0, 1.25), "twice": (15.0 * 1.25, 1.25**2), "none": (-15.0, 1.0)}[self.adjustment]
        moved = box + np.stack([0.0 * scale, down * scale] * 2, 1)
        return fit_aspect(moved, 1.0, padding=larger)

    def metric(self) -> Pck:
        """Return a fresh PCKh by these conventions."""
        return pckh(self.limits, self.comparator, self.mean, self.left_out)

    def compared(self, predicted: Instances, truth: Instances) -> tuple[Instances, Instances]:
        """Return both sides as the metric compares them: predictions counted from 1 or not, heads by their factor."""
        if not self.add_one:  # labels are counted from 0 here, so forgetting the one takes one away
            predicted = replace(predicted, xy=predicted.xy - 1.0)
        if self.head_factor != 0.6 and "head_px" in truth.extra:
            head = np.asarray(truth.extra["head_px"], np.float64) * (self.head_factor / 0.6)
            truth = replace(truth, extra=truth.extra | {"head_px": head})
        return predicted, truth


PROTOCOLS: dict[str, Callable[..., CocoProtocol | MpiiProtocol]] = {
    "coco": CocoProtocol,
    "mpii": MpiiProtocol,
}
"""Protocols by name, for ``poseglass evaluate --protocol NAME``."""


def protocol_of(part: EvaluatePart) -> CocoProtocol | MpiiProtocol | None:
    """Return the protocol that a recipe measures by, with the recipe's flip test; None where it has metrics.

    Raises:
        LookupError, RecipeError, ValueError: An unknown name, an option it does not take, or a value it refuses.
    """
    if part.protocol is None:
        return None
    return make(PROTOCOLS, {"flip_test": part.flip_test} | part.protocol, "protocol")


def check_keypoints(predicted: Skeleton, labels: Skeleton) -> None:
    """Raise unless every keypoint of the labels is predicted: a protocol leaves none of them out.

    Raises:
        ValueError: Names those that are missing.
    """
    missing = [name for name in labels.keypoints if name not in predicted.keypoints]
    if missing:
        raise ValueError(
            f"A protocol measures every keypoint of {labels.name!r}, and these weights do not predict "
            f"{listed(missing)}. Take weights of that skeleton (--weights FILE), or evaluate without a protocol, which "
            "compares the keypoints both have."
        )


def _with(estimator: TopDownEstimator, flip_test: bool, padding: float) -> TopDownEstimator:
    return replace(estimator, flip_test=flip_test, input=replace(estimator.input, padding=padding))


def _padding(padding: float | None, estimator: TopDownEstimator) -> float:
    return estimator.input.padding if padding is None else padding


def _crop(estimator: TopDownEstimator) -> str:
    """Return how the weights see a box: where its centre lands, and in which order the colours come."""
    return f"{estimator.input.crop} crops in {estimator.input.color.upper()}"


def _flip(flip_test: bool, estimator: TopDownEstimator) -> str:
    if not flip_test:
        return "no flip test"
    moved = getattr(estimator.codec, "alignment", None) == "corner"
    return f"flip test, mirrored maps {'moved right by a pixel' if moved else 'not moved'}"


def _name(dataset: Dataset) -> str:
    return dataset.name if isinstance(dataset, LabelledImages) else "the data set"


def _check_words(protocol: Any) -> None:
    """Raise unless each field that takes one of several words has one of them."""
    for name, kind in get_type_hints(type(protocol)).items():
        words = get_args(kind)
        value = getattr(protocol, name)
        if words and all(isinstance(w, str) for w in words) and value not in words:
            raise ValueError(f"A protocol's {name} must be {' or '.join(map(repr, words))}, got {value!r}.")
