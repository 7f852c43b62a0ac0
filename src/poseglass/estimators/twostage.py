"""TwoStageEstimator: a detector finds boxes, a top-down network the keypoints or the class in each; one call."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from poseglass.core.boxes import area
from poseglass.core.instances import Instances
from poseglass.core.large_image import ReadableImage
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.estimator import Boxes, Estimator, Frame, image_and_boxes
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator, check_boxes
from poseglass.estimators.whole_image import WholeImageEstimator
from poseglass.metrics.oks_nms import oks_nms


@dataclass(frozen=True, slots=True, eq=False)
class TwoStageEstimator:
    """Finds everybody in an image: the detector's boxes, then the poses in them, over several images in one batch.

    Args:
        detector: Finds boxes; its keypoints are not used. Boxes that a pose cannot be found in are dropped: without
            area, outside the image, or of less than two pixels in its upper left corner.
        poses: Finds the keypoints in a box.
        nms_oks: Of two poses whose OKS with each other is above this, the one with the lower score is removed: it is
            the same person, found twice. None keeps all. It needs a skeleton with sigmas; without, all are kept.
        images_per_batch: Number of images that the detector sees before their poses are estimated; all of them are in
            memory at that time.

    Raises:
        ValueError: ``nms_oks`` outside (0, 1], fewer than one image per batch, ``poses`` that find boxes themselves, or
            a ``detector`` of boxes in space, which needs the calibration of each image.
    """

    detector: Estimator
    poses: TopDownEstimator | WholeImageEstimator
    nms_oks: float | None = 0.9
    images_per_batch: int = 8

    def __post_init__(self) -> None:
        if (self.nms_oks is not None and not 0 < self.nms_oks <= 1) or self.images_per_batch < 1:
            raise ValueError(
                "TwoStageEstimator needs nms_oks in (0, 1] or None and images_per_batch of at least 1, got "
                f"{self.nms_oks} and {self.images_per_batch}."
            )

        if self.poses.finds_boxes:
            raise ValueError(f"TwoStageEstimator.poses must take boxes, but {self.poses!r} finds them itself.")
        if isinstance(self.detector, OneStageEstimator) and self.detector.finds_boxes_3d:
            raise ValueError(
                f"TwoStageEstimator.detector must find boxes in images, but {self.detector!r} finds boxes in space, "
                "which a second network does not take. Use it alone (`poseglass predict --weights`), or another "
                "detector."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.detector!r}, {self.poses!r})"

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints."""
        return self.poses.skeleton

    @property
    def finds_boxes(self) -> bool:
        """True: its detector finds the boxes."""
        return True

    @property
    def tells_classes(self) -> bool:
        """Whether the second network tells the class of each box, as one without keypoints does, instead of a pose."""
        return not len(self.skeleton)

    def __call__(self, image: ReadableImage, boxes: Boxes = None) -> Instances:
        """Find the poses of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes: ``(N, 4)`` x0 y0 x1 y1 in image pixels; None lets the detector find them.

        Returns:
            In image pixels. With given boxes, one instance per box, in their order. Otherwise best first, by the
            product of the box's score and the mean score of its keypoints; ``box_score`` is the detector's. Where the
            second network tells classes, ``label`` is its, and ``box_score`` the product of both scores.
        """
        return next(self.stream([(image, boxes)]))

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find the poses of many images; yields one ``Instances`` each, in order.

        Args:
            frames: Images, or pairs of an image and its boxes.
            causal: Yield the result of each frame before the next one is requested.
        """
        group: deque[tuple[ReadableImage, Boxes]] = deque()
        for frame in frames:
            image, boxes = image_and_boxes(frame)
            if boxes is not None:
                boxes = check_boxes(image, boxes)
            group.append((image, boxes))
            if causal or len(group) == self.images_per_batch:
                yield from self._run(list(group))
                group.clear()
        if group:
            yield from self._run(list(group))

    def _run(self, group: list[tuple[ReadableImage, Boxes]]) -> Iterator[Instances]:
        found = self.detector.stream(image for image, boxes in group if boxes is None)
        people = [_usable(next(found), image) if boxes is None else None for image, boxes in group]
        work = [
            (image, boxes if detected is None else detected.box_xyxy)
            for (image, boxes), detected in zip(group, people, strict=True)
        ]
        for poses, detected in zip(self.poses.stream(work), people, strict=True):
            yield poses if detected is None else self._together(poses, detected)

    def _together(self, poses: Instances, detected: Instances) -> Instances:
        """Return the poses of found boxes with their scores, without duplicates, best first."""
        extra = dict(poses.extra)
        if "box_probability" in detected.extra:
            extra["box_probability"] = detected.extra["box_probability"]
        if self.tells_classes:
            poses = replace(poses, box_score=detected.box_score * poses.box_score, extra=extra)
            return poses[np.argsort(-poses.box_score, kind="stable")]
        poses = replace(poses, box_score=detected.box_score, label=detected.label, extra=extra)
        if not len(poses):
            return poses
        score = poses.box_score * poses.score.mean(1)
        if self.nms_oks is None or not self.skeleton.sigmas:
            return poses[np.argsort(-score, kind="stable")]
        size = area(poses.box_xyxy)
        return poses[oks_nms(poses.xy, score, size, self.skeleton.sigmas, threshold=self.nms_oks)]


def _usable(detected: Instances, image: ReadableImage) -> Instances:
    """Return those whose boxes ``check_boxes`` accepts; what it says about given boxes is no error of found ones."""
    box, (height, width) = detected.box_xyxy, image.shape[:2]
    good = np.isfinite(box).all(1) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    good &= (box[:, 2] > -0.5) & (box[:, 3] > -0.5) & (box[:, 0] < width - 0.5) & (box[:, 1] < height - 0.5)
    if max(width, height) > 2:
        good &= np.abs(box).max(1, initial=0.0) > 1.5
    return detected if good.all() else detected[good]
