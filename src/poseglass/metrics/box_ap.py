"""COCO's average precision of boxes as a metric on instances."""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from poseglass.core.boxes import area as box_area
from poseglass.core.boxes import xyxy_to_xywh
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.metrics.box_average_precision import (
    MAX_DETECTIONS,
    BoxDetections,
    BoxResult,
    BoxTruth,
    check_boxes,
    check_max_detections,
    evaluate_boxes,
)
from poseglass.metrics.metric import Better, check_pair, check_same, check_seen
from poseglass.metrics.precision_recall import flat_arrays


@dataclass(frozen=True, eq=False)
class BoxAp:
    """COCO's average precision by IoU of boxes, over images; the mean over the classes that are labelled.

    Rows need not correspond: detections are matched with labels of the same class (``label``). Keypoints are not used,
    and the skeleton may have none. Labels may have ``extra["crowd"]`` and ``extra["area"]``; the area, by default that
    of the box, only assigns an object to small, medium or large. Detections with equal scores in different images keep
    the order in which the images came, as in pycocotools, which keeps the order of image ids.

    Args:
        max_detections: Maximum numbers per image and class, ascending; AP is that of the last.

    Raises:
        ValueError: ``max_detections`` are not ascending positive numbers.

    Example:
        An IoU of 0.64 passes three of the ten thresholds: 0.50, 0.55 and 0.60.

        >>> thing = Skeleton("thing", ())
        >>> def boxed(box_xyxy):
        ...     return Instances(thing, np.zeros((1, 0, 2)), np.zeros((1, 0)), np.array([box_xyxy]), np.ones(1))
        >>> metric = BoxAp()
        >>> metric.update(boxed([0, 0, 80, 80]), boxed([0, 0, 100, 100]))
        >>> results = metric.compute()
        >>> round(results["box_AP"], 3), round(results["box_AP50"], 3), results["box_AP75"], results["box_AP_small"]
        (0.3, 1.0, 0.0, -1.0)
    """

    rows_correspond: ClassVar[bool] = False

    max_detections: tuple[int, ...] = MAX_DETECTIONS
    _images: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = field(
        default_factory=list, init=False, repr=False
    )
    _skeleton: list[Skeleton] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_detections", check_max_detections(self.max_detections))

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image.

        Raises:
            ValueError: Skeletons differ, or a box or a score is not finite.
        """
        check_pair(predicted, truth, same_rows=False)
        check_seen(self._skeleton, truth.skeleton)
        labelled_xywh = xyxy_to_xywh(truth.box_xyxy.astype(np.float64))
        detected_xywh = xyxy_to_xywh(predicted.box_xyxy.astype(np.float64))
        check_boxes(labelled_xywh, "label")
        check_boxes(detected_xywh, "detection")
        box = box_area(truth.box_xyxy.astype(np.float64))
        if not self._skeleton:
            self._skeleton.append(truth.skeleton)
        area = np.asarray(truth.extra.get("area", box), np.float64).reshape(len(truth))
        self._images.append(
            (
                {
                    "category": truth.label,
                    "box_xywh": labelled_xywh,
                    "area": np.where(np.isfinite(area), area, box),
                    "crowd": np.asarray(truth.extra.get("crowd", np.zeros(len(truth))), bool),
                },
                {
                    "category": predicted.label,
                    "box_xywh": detected_xywh,
                    "score": predicted.box_score.astype(np.float64),
                },
            )
        )

    def result(self) -> BoxResult:
        """Return precision and recall at every threshold, class and area range.

        Raises:
            ValueError: No image has been added.
        """
        if not self._images:
            raise ValueError("BoxAp has seen no image yet; call update(predicted, truth) for each.")
        classes = self._classes()
        return evaluate_boxes(
            BoxTruth(**flat_arrays([truth for truth, _ in self._images], classes)),
            BoxDetections(**flat_arrays([found for _, found in self._images], classes)),
            max_detections=self.max_detections,
            categories=max(len(classes), 1),
        )

    def compute(self) -> dict[str, float]:
        """Return COCO's twelve results as ``box_AP``, ``box_AP50``, ...; -1 if there is nothing to find.

        ``OksAp`` names its results AP, so that both can be computed at once.

        Raises:
            ValueError: No image has been added.
        """
        return {f"box_{name}": value for name, value in self.result().results().items()}

    def better(self, name: str) -> Better:
        """Return "higher": all results are precision or recall."""
        return "higher"

    def table(self) -> dict[str, dict[str, float]]:
        """Return the twelve results per labelled class: row ``"3"`` for class 3; ``"all"`` if nothing is labelled."""
        result = self.result()
        names = [str(c) for c in self._classes()] or ["all"]
        return {name: result.results(c) for c, name in enumerate(names)}

    def merge(self, other: Self) -> None:
        """Merge the data of another metric with the same fields, such as one from another process.

        Raises:
            ValueError: The fields or the skeletons differ.
        """
        check_same(self, other)
        if other._skeleton and not self._skeleton:
            self._skeleton.append(other._skeleton[0])
        self._images.extend(other._images)

    def _classes(self) -> np.ndarray:
        return np.unique(np.concatenate([truth["category"] for truth, _ in self._images]))
