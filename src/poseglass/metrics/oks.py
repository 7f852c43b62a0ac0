"""OKS, the similarity of two poses, and COCO's average precision as a metric on instances.

Sources: Lin et al., "Microsoft COCO" (ECCV 2014) and the evaluation page of the dataset; Ronchi and Perona,
"Benchmarking and error diagnosis in multi-instance pose estimation" (ICCV 2017), section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from poseglass.core.boxes import area as box_area
from poseglass.core.boxes import xyxy_to_xywh
from poseglass.core.instances import Instances
from poseglass.core.plausible import implausible_areas
from poseglass.core.skeleton import Skeleton
from poseglass.metrics.average_precision import OksDetections, OksResult, OksTruth, evaluate_oks
from poseglass.metrics.metric import Better, check_pair, check_same, check_seen
from poseglass.metrics.precision_recall import flat_arrays


def keypoint_similarity(
    predicted_xy: np.ndarray, truth_xy: np.ndarray, area: np.ndarray | float, sigmas: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return ``exp(-d^2 / (2 area (2 sigma)^2))`` for each keypoint.

    Args:
        predicted_xy: ``(..., K, 2)`` pixels, NaN = missing.
        truth_xy: ``(..., K, 2)`` pixels, NaN = unknown; leading axes broadcast.
        area: ``(...)`` area of the person, square pixels.
        sigmas: ``(K,)``.

    Returns:
        ``(..., K)`` in [0, 1]; 0 where the prediction is missing, NaN where the truth is unknown.

    Example:
        At a distance of ``2 sigma sqrt(area)`` it is exp(-1/2).

        >>> truth = np.array([[0.0, 0.0], [0.0, 0.0]])
        >>> predicted = np.array([[0.0, 0.0], [0.0, 20.0]])
        >>> keypoint_similarity(predicted, truth, 10000.0, (0.1, 0.1)).round(4).tolist()
        [1.0, 0.6065]
    """
    predicted, truth = np.asarray(predicted_xy, np.float64), np.asarray(truth_xy, np.float64)
    difference = predicted - truth
    squared = difference[..., 0] ** 2 + difference[..., 1] ** 2
    variance = (2 * np.asarray(sigmas, np.float64)) ** 2
    scale = np.asarray(area, np.float64)[..., None] + np.spacing(1)
    similarity = np.exp(-squared / variance / scale / 2)
    similarity = np.where(np.isfinite(predicted).all(-1), similarity, 0.0)
    return np.where(np.isfinite(truth).all(-1), similarity, np.nan)


def oks(
    predicted_xy: np.ndarray, truth_xy: np.ndarray, area: np.ndarray | float, sigmas: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return the object keypoint similarity of poses: the mean of ``keypoint_similarity`` over the labelled keypoints.

    Args:
        predicted_xy: ``(..., K, 2)`` pixels, NaN = missing.
        truth_xy: ``(..., K, 2)`` pixels, NaN = unknown; leading axes broadcast.
        area: ``(...)`` area of the person, square pixels.
        sigmas: ``(K,)``.

    Returns:
        ``(...)`` in [0, 1]; NaN if nothing is labelled.

    Example:
        >>> truth = np.array([[0.0, 0.0], [0.0, 0.0], [np.nan, np.nan]])
        >>> predicted = np.array([[0.0, 0.0], [0.0, 20.0], [5.0, 5.0]])
        >>> oks(predicted, truth, 10000.0, (0.1, 0.1, 0.1)).round(4).item()
        0.8033
    """
    similarity = keypoint_similarity(predicted_xy, truth_xy, area, sigmas)
    counted = ~np.isnan(similarity)
    total = counted.sum(-1)
    summed = np.where(counted, similarity, 0.0).sum(-1)
    return np.divide(summed, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def oks_matrix(
    predicted: Instances,
    truth: Instances,
    sigmas: Sequence[float] | None = None,
    *,
    box_area_factor: float | None = None,
) -> np.ndarray:
    """Return the OKS between every predicted and every true person of an image.

    Args:
        predicted: N people.
        truth: M people; ``extra["area"]`` is used.
        sigmas: K sigmas; None uses the skeleton's.
        box_area_factor: As in ``person_area``.

    Returns:
        ``(N, M)`` float64; NaN in the column of a person without labelled keypoints.

    Raises:
        ValueError: Skeletons differ, or there are no sigmas or areas.
    """
    check_pair(predicted, truth, same_rows=False)
    return oks(
        _known_xy(predicted)[:, None],
        _known_xy(truth)[None],
        person_area(truth, box_area_factor)[None],
        known_sigmas(truth.skeleton, sigmas),
    )


def known_sigmas(skeleton: Skeleton, sigmas: Sequence[float] | None = None) -> np.ndarray:
    """Return the given sigmas, or else the skeleton's: ``(K,)`` float64.

    Raises:
        ValueError: There are none, or not one positive number per keypoint.
    """
    values = skeleton.sigmas if sigmas is None else sigmas
    if not len(values):
        raise ValueError(
            f"Skeleton {skeleton.name!r} has no sigmas, and OKS needs one per keypoint. Give sigmas=(...), "
            f"{len(skeleton)} numbers; COCO's range from 0.025 (eyes) to 0.107 (hips)."
        )
    array = np.asarray(values, np.float64)
    if array.shape != (len(skeleton),) or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(
            f"OKS needs {len(skeleton)} positive sigmas (one per keypoint of {skeleton.name!r}), got "
            f"{array.size}: {array.tolist()}."
        )
    return array


def check_areas(people: Sequence[Instances]) -> None:
    """Raise if the areas of most people do not match their boxes, so that their OKS would be meaningless.

    Args:
        people: Labelled people of any number of images, with ``extra["area"]`` if known.

    Raises:
        ValueError: The areas of more than half of them do not match; the first is named.
    """
    known = [p for p in people if len(p) and "area" in p.extra]
    if not known:
        return
    areas, boxes, labelled = (
        np.concatenate([np.asarray(part) for part in parts])
        for parts in zip(*((p.extra["area"], p.box_xyxy, p.known.any(1)) for p in known), strict=True)
    )
    wrong = implausible_areas(areas.astype(np.float64), boxes, np.full((len(areas), 2), np.nan), labelled)
    if wrong.sum() > 0.5 * max(labelled.sum(), 1):
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"OKS divides by the area of a person, and that of {int(wrong.sum()):,} of {int(labelled.sum()):,} people "
            f"cannot be that of their boxes: {areas[first]:g} where the box has {box_area(boxes[first]):.0f} square "
            "pixels. Correct 'area' in the labels, or use the area of the boxes with the data set's option "
            'area = "box".'
        )


def person_area(instances: Instances, box_area_factor: float | None = None) -> np.ndarray:
    """Return the area that scales OKS: ``(N,)`` square pixels.

    Args:
        instances: With ``extra["area"]`` (in COCO, the area of the segmentation).
        box_area_factor: If there is no area, this times the area of the box replaces it; 0.53 is usual. None raises an
            error.

    Raises:
        ValueError: An area is missing and no factor is given.
    """
    area = np.full(len(instances), np.nan)
    if "area" in instances.extra:
        area = np.asarray(instances.extra["area"], np.float64).reshape(len(instances))
    missing = ~np.isfinite(area)
    if missing.any():
        if box_area_factor is None:
            raise ValueError(
                f"OKS needs the area of every person, extra['area']; {int(missing.sum())} of {len(instances)} people "
                f"of {instances.skeleton.name!r} have none. Give box_area_factor=0.53 to take it from their boxes."
            )
        area = np.where(missing, _box_area(instances) * box_area_factor, area)
    return area


@dataclass(frozen=True, eq=False)
class OksAp:
    """COCO's average precision by OKS, over images.

    Rows need not correspond: detections are matched with people. A keypoint that is missing in a prediction counts as
    infinitely far. Detections with equal scores in different images keep the order in which the images came, as in
    pycocotools, which keeps the order of image ids.

    Args:
        sigmas: K sigmas; None uses those of the skeleton.
        box_area_factor: If labels have no ``extra["area"]``, this times the box's area replaces it; 0.53 is usual. None
            raises an error.
        score: Score of an instance: ``"box_times_keypoints"`` (box score times the mean of the keypoints' scores, as
            ``Instances.to_coco`` writes) or ``"box"``.
        per_category: Evaluate each ``extra["category_id"]`` separately, and average.
        max_detections: Maximum number per image and category.

    Raises:
        ValueError: The score is neither of the two.

    Example:
        An OKS of exp(-1/2) = 0.607 passes three of the ten thresholds: 0.50, 0.55 and 0.60.

        >>> point = Skeleton("point", ("tip",), sigmas=(0.1,))
        >>> truth = Instances.from_keypoints(point, np.zeros((1, 1, 2)), extra={"area": np.array([10000.0])})
        >>> metric = OksAp()
        >>> metric.update(Instances.from_keypoints(point, np.array([[[0.0, 20.0]]])), truth)
        >>> results = metric.compute()
        >>> round(results["AP"], 3), round(results["AP50"], 3), results["AP75"], results["AP_medium"]
        (0.3, 1.0, 0.0, -1.0)
    """

    rows_correspond: ClassVar[bool] = False

    sigmas: tuple[float, ...] | None = None
    box_area_factor: float | None = None
    score: str = "box_times_keypoints"
    per_category: bool = False
    max_detections: int = 20
    _images: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = field(
        default_factory=list, init=False, repr=False
    )
    _skeleton: list[Skeleton] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.score not in ("box_times_keypoints", "box"):
            raise ValueError(f"OksAp score must be 'box_times_keypoints' or 'box', got {self.score!r}.")
        if self.sigmas is not None:
            object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image.

        Raises:
            ValueError: Skeletons differ; sigmas, areas or (if required) categories are missing.
        """
        check_pair(predicted, truth, same_rows=False)
        known_sigmas(truth.skeleton, self.sigmas)
        if not self._skeleton:
            self._skeleton.append(truth.skeleton)
        check_seen(self._skeleton, truth.skeleton)
        crowd = np.asarray(truth.extra.get("crowd", np.zeros(len(truth))), bool)
        labelled = truth.known
        score = predicted.box_score.astype(np.float64)
        if self.score == "box_times_keypoints":
            score = score * predicted.score.mean(-1, dtype=np.float64)
        xy = _known_xy(predicted)
        area = _box_area(predicted)
        unboxed = ~np.isfinite(area)
        if unboxed.any():
            area = np.where(unboxed, _extent(xy), area)
        self._images.append(
            (
                {
                    "category": self._category(truth, "labels"),
                    "xy": np.where(labelled[..., None], truth.xy, 0.0).astype(np.float64),
                    "labelled": labelled,
                    "area": person_area(truth, self.box_area_factor),
                    "box_xywh": np.nan_to_num(xyxy_to_xywh(truth.box_xyxy.astype(np.float64))),
                    "crowd": crowd,
                    "ignored": crowd | ~labelled.any(-1),
                },
                {"category": self._category(predicted, "predictions"), "xy": xy, "score": score, "area": area},
            )
        )

    def result(self) -> OksResult:
        """Return precision and recall at every threshold, category and area range.

        Raises:
            ValueError: No image has been added.
        """
        if not self._images:
            raise ValueError("OksAp has seen no image yet; call update(predicted, truth) for each.")
        categories = self._categories()
        return evaluate_oks(
            OksTruth(**flat_arrays([truth for truth, _ in self._images], categories)),
            OksDetections(**flat_arrays([found for _, found in self._images], categories)),
            known_sigmas(self._skeleton[0], self.sigmas),
            max_detections=self.max_detections,
            categories=max(len(categories), 1),
        )

    def compute(self) -> dict[str, float]:
        """Return ``AP AP50 AP75 AP_medium AP_large`` and the same five of ``AR``; -1 if there are no people to find.

        Raises:
            ValueError: No image has been added.
        """
        return self.result().results()

    def better(self, name: str) -> Better:
        """Return "higher": all results are precision or recall."""
        return "higher"

    def table(self) -> dict[str, dict[str, float]]:
        """Return the ten results per category: row ``"1"`` for category 1, or ``"all"`` if they are not separated."""
        result = self.result()
        names = [str(c) for c in self._categories()] if self.per_category else ["all"]
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

    def _category(self, instances: Instances, what: str) -> np.ndarray:
        if not self.per_category or not len(instances):
            return np.zeros(len(instances), np.int64)
        if "category_id" not in instances.extra:
            raise ValueError(
                f"OksAp(per_category=True) needs extra['category_id'], and the {what} have none; add it, or set "
                "per_category=False."
            )
        return np.asarray(instances.extra["category_id"], np.int64)

    def _categories(self) -> np.ndarray:
        return np.unique(np.concatenate([truth["category"] for truth, _ in self._images]))


def _known_xy(instances: Instances) -> np.ndarray:
    return np.where(instances.known[..., None], instances.xy, np.nan).astype(np.float64)


def _box_area(instances: Instances) -> np.ndarray:
    size_wh = (instances.box_xyxy[:, 2:] - instances.box_xyxy[:, :2]).astype(np.float64)
    return size_wh[:, 0] * size_wh[:, 1]


def _extent(xy: np.ndarray) -> np.ndarray:
    """Return the area of the box around known points, ``(N,)``, or 0 if none is known."""
    known = np.isfinite(xy)
    size = np.where(known, xy, -np.inf).max(-2) - np.where(known, xy, np.inf).min(-2)
    return np.where(np.isfinite(size), size, 0.0).prod(-1)
