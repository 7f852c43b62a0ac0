"""PCK: the percentage of correct keypoints. Also PCKh, the PCK curve and the area under it.

Sources: Yang and Ramanan, "Articulated human detection with flexible mixtures of parts" (PAMI 2013); Sapp and Taskar,
"MODEC" (CVPR 2013), for the torso of FLIC; Andriluka et al., "2D human pose estimation" (CVPR 2014), for PCKh.

A *distance* here is an array of errors divided by a length of the same person: finite if both points are known, ``inf``
if the truth is known and the prediction is missing (it counts as wrong), NaN if the truth or the length is unknown (it
does not count).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import nearest
from poseglass.metrics.metric import Better, check_pair, check_same, check_seen

Comparator = Literal["<=", "<"]
Mean = Literal["micro", "macro"]


def normalised_distance(predicted_xy: np.ndarray, truth_xy: np.ndarray, length_px: np.ndarray | float) -> np.ndarray:
    """Return errors in units of a length.

    Args:
        predicted_xy: ``(N, K, 2)`` image pixels, NaN = missing.
        truth_xy: ``(N, K, 2)`` image pixels, NaN = unknown.
        length_px: ``(N,)`` or one number, pixels; NaN or 0 excludes the person.

    Returns:
        ``(N, K)`` float64; NaN where it does not count, inf where the prediction is missing.

    Example:
        >>> truth = np.array([[[0, 0], [0, 0], [np.nan, np.nan]]])
        >>> predicted = np.array([[[3, 4], [np.nan, 0], [1, 1]]])
        >>> normalised_distance(predicted, truth, 10.0).tolist()
        [[0.5, inf, nan]]
    """
    predicted, truth = np.asarray(predicted_xy, np.float64), np.asarray(truth_xy, np.float64)
    length = np.broadcast_to(np.asarray(length_px, np.float64), truth.shape[:1])
    length = np.where(length > 0, length, np.nan)
    difference = predicted - truth
    error_px = np.sqrt(difference[..., 0] ** 2 + difference[..., 1] ** 2)
    error_px = np.where(np.isfinite(predicted).all(-1), error_px, np.inf)
    return np.where(np.isfinite(truth).all(-1), error_px / length[:, None], np.nan)


def pck(
    distance: np.ndarray, threshold: float, comparator: Comparator = "<=", *, axis: int | None = None
) -> np.ndarray | float:
    """Return the share of distances within a threshold.

    Args:
        distance: Any shape, NaN = does not count.
        threshold: In the same unit.
        comparator: ``"<="`` as in HRNet, SimpleBaseline and the original Lua code; ``"<"`` as in mmpose and bearpaw.
        axis: Axis along which to count; None counts over all.

    Returns:
        A number in [0, 1], or an array without that axis; NaN where nothing counts.

    Raises:
        ValueError: An unknown comparator.

    Example:
        >>> distance = np.array([0.1, 0.2, 0.3, np.inf, np.nan])
        >>> pck(distance, 0.2), pck(distance, 0.2, "<")
        (0.5, 0.25)
    """
    distance = np.asarray(distance, np.float64)
    counted = ~np.isnan(distance)
    right = distance <= threshold if _side(comparator) == "right" else distance < threshold
    total = counted.sum(axis)
    share = np.divide(right.sum(axis), total, out=np.full(np.shape(total), np.nan), where=total > 0)
    return float(share) if axis is None else share


def pck_curve(distance: np.ndarray, thresholds: np.ndarray, comparator: Comparator = "<=") -> np.ndarray:
    """Return the share of distances within each of M thresholds: ``(M,)``, NaN where nothing counts.

    Example:
        >>> pck_curve(np.array([0.1, 0.2, 0.3, np.inf]), np.array([0.0, 0.2, 0.3])).tolist()
        [0.0, 0.5, 0.75]
    """
    flat = np.asarray(distance, np.float64).ravel()
    flat = np.sort(flat[~np.isnan(flat)])
    if not len(flat):
        return np.full(len(thresholds), np.nan)
    return np.searchsorted(flat, np.asarray(thresholds, np.float64), side=_side(comparator)) / len(flat)


def auc(distance: np.ndarray, highest: float, *, steps: int | None = None, comparator: Comparator = "<=") -> float:
    """Return the area under the PCK curve from 0 to a threshold, divided by that threshold: in [0, 1].

    Args:
        distance: Any shape, NaN = does not count.
        highest: The threshold up to which the curve is integrated.
        steps: None gives the exact area of the curve, which is a step function. A number uses the trapezoidal rule with
            that many equal steps, as the published evaluation scripts do.
        comparator: Only matters for a distance exactly on a step.

    Raises:
        ValueError: The threshold or the number of steps is not above 0.

    Example:
        >>> auc(np.array([0.0, 0.25, 0.5, np.inf]), 0.5)
        0.375
        >>> auc(np.array([0.0, 0.25, 0.5, np.inf]), 0.5, steps=2)
        0.5
    """
    if not highest > 0 or (steps is not None and steps < 1):
        raise ValueError(
            f"AUC needs a highest threshold above 0 and at least 1 step (or None), got highest={highest}, "
            f"steps={steps}."
        )
    if steps is None:
        flat = np.asarray(distance, np.float64)
        flat = flat[~np.isnan(flat)]
        return float(np.clip(1 - flat / highest, 0, None).mean()) if flat.size else float("nan")
    heights = pck_curve(distance, np.linspace(0, highest, steps + 1), comparator)
    return float((heights[1:] + heights[:-1]).sum() / (2 * steps))


def segment_px(truth: Instances, start: str, end: str) -> np.ndarray:
    """Return the distance between two named keypoints, ``(N,)`` pixels, NaN if one of them is unknown."""
    a, b = truth.skeleton.index(start), truth.skeleton.index(end)
    xy, known = truth.xy.astype(np.float64), truth.known
    length = np.sqrt(((xy[:, a] - xy[:, b]) ** 2).sum(-1))
    return np.where(known[:, a] & known[:, b], length, np.nan)


def torso_px(truth: Instances) -> np.ndarray:
    """Return the mean of the two hip-to-opposite-shoulder distances, ``(N,)``, NaN unless all four are labelled."""
    missing = [
        n for n in ("left_hip", "right_hip", "left_shoulder", "right_shoulder") if n not in truth.skeleton.keypoints
    ]
    if missing:
        raise LookupError(
            f"The torso is measured between hips and shoulders, and skeleton {truth.skeleton.name!r} has no "
            f"{' and no '.join(missing)}. Choose another normaliser, such as normaliser = 'box_diagonal' "
            "(--normaliser box_diagonal), or a pair of its keypoints."
        )
    left = segment_px(truth, "left_hip", "right_shoulder")
    return (left + segment_px(truth, "right_hip", "left_shoulder")) / 2


def box_diagonal_px(truth: Instances) -> np.ndarray:
    """Return the diagonal of the boxes, ``(N,)`` pixels."""
    size_wh = (truth.box_xyxy[:, 2:] - truth.box_xyxy[:, :2]).astype(np.float64)
    return np.sqrt((size_wh**2).sum(-1))


def box_side_px(truth: Instances) -> np.ndarray:
    """Return the longer side of the boxes, ``(N,)`` pixels."""
    return (truth.box_xyxy[:, 2:] - truth.box_xyxy[:, :2]).astype(np.float64).max(-1)


def extra_px(truth: Instances, key: str) -> np.ndarray:
    """Return a length given by the dataset, ``extra[key]``, ``(N,)`` pixels.

    It is converted to float32, the precision of coordinates: files made in single precision hold 29.9999993 for 30,
    which would decide whether an error of exactly 3 is within a threshold of 0.1.

    Raises:
        LookupError: The instances have no such entry.
    """
    if key not in truth.extra:
        known = ", ".join(sorted(truth.extra)) or "none"
        raise LookupError(
            f"These instances of {truth.skeleton.name!r} have no extra[{key!r}] to divide errors by (they have: "
            f"{known}); use another normaliser, such as 'torso' or 'box_diagonal'."
        )
    return np.asarray(truth.extra[key], np.float32).astype(np.float64).reshape(len(truth))


NORMALISERS: dict[str, Callable[[Instances], np.ndarray]] = {
    "torso": torso_px,
    "torso_flic": lambda truth: segment_px(truth, "right_shoulder", "left_hip"),
    "box_diagonal": box_diagonal_px,
    "box_side": box_side_px,
    "head": lambda truth: extra_px(truth, "head_px"),
    "pixel": lambda truth: np.ones(len(truth)),
}
"""Lengths that an error may be divided by. "torso" is the mean of the two hip-to-opposite-shoulder distances;
"torso_flic" right shoulder to left hip; "box_side" the longer side; "head" is ``extra["head_px"]``, in MPII 0.6 times
the diagonal of the head box; "pixel" is 1."""


def length_px(truth: Instances, normaliser: str | tuple[str, str]) -> np.ndarray:
    """Return the length that errors are divided by.

    Args:
        truth: Labels of N people.
        normaliser: A name of ``NORMALISERS``, ``"extra:KEY"``, or a pair of keypoint names.

    Returns:
        ``(N,)`` pixels, NaN where it is unknown.

    Raises:
        LookupError: No such normaliser, keypoint or entry of ``extra``.

    Example:
        >>> from poseglass.core.skeletons import LSP14
        >>> xy = np.zeros((1, 14, 2))
        >>> xy[0, LSP14.index("right_shoulder")] = 30, 40
        >>> people = Instances.from_keypoints(LSP14, xy)
        >>> length_px(people, "torso_flic"), length_px(people, "torso"), length_px(people, ("neck", "right_shoulder"))
        (array([50.]), array([25.]), array([50.]))
    """
    if not len(truth):
        return np.zeros(0)
    if not isinstance(normaliser, str):
        return segment_px(truth, *normaliser)
    if normaliser.startswith("extra:"):
        return extra_px(truth, normaliser.removeprefix("extra:"))
    _check_normaliser(normaliser)
    return NORMALISERS[normaliser](truth)


@dataclass(frozen=True, eq=False)
class Pck:
    """Percentage of correct keypoints over images; a share in [0, 1], not multiplied by 100.

    Row n of the predictions corresponds to row n of the labels. An unknown label does not count, a missing prediction
    counts as wrong, and a person whose length is unknown is excluded.

    Three averages are in use, and they differ by a point or two: HRNet and SimpleBaseline weight every joint by how
    often it is labelled, with pelvis and thorax excluded (``mean="micro"``, ``excluded=("pelvis", "thorax")``); bearpaw
    and anibali average the same joints unweighted (``mean="macro"``); princeton-vl's PyTorch code counts every joint
    (``mean="micro"``, nothing excluded).

    Args:
        normaliser: A name of ``NORMALISERS``, ``"extra:KEY"``, or a pair of keypoint names.
        thresholds: One or more, in units of that length.
        comparator: ``"<="`` or ``"<"``.
        mean: Which average gets the plain name: ``"micro"`` counts every labelled joint once, ``"macro"`` is the
            unweighted mean over joints.
        excluded: Names of keypoints that the averages exclude; they still appear in the table.
        auc_to: Threshold up to which the area under the curve is computed; None uses the highest of ``thresholds``.
        name: Prefix of the results.

    Raises:
        ValueError: A threshold is not above 0, or the comparator or mean is unknown.
        LookupError: The normaliser is unknown.

    Example:
        >>> from poseglass.core.skeletons import LSP14
        >>> xy = np.zeros((1, 14, 2))
        >>> xy[0, LSP14.index("left_hip")] = xy[0, LSP14.index("right_hip")] = 0, 100
        >>> truth = Instances.from_keypoints(LSP14, xy)
        >>> off = xy + np.where(np.arange(14) < 7, 20, 21)[None, :, None] * [1, 0]
        >>> metric = Pck()
        >>> metric.update(Instances.from_keypoints(LSP14, off), truth)
        >>> metric.compute()["pck@0.2"], metric.table()["neck"]["pck@0.2"]
        (0.5, 0.0)
    """

    normaliser: str | tuple[str, str] = "torso"
    thresholds: tuple[float, ...] = (0.2,)
    comparator: Comparator = "<="
    mean: Mean = "micro"
    excluded: tuple[str, ...] = ()
    auc_to: float | None = None
    name: str = "pck"
    _distance: list[np.ndarray] = field(default_factory=list, init=False, repr=False)
    _skeleton: list[Skeleton] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(float(x) for x in self.thresholds))
        object.__setattr__(self, "excluded", tuple(self.excluded))
        if isinstance(self.normaliser, str):
            if not self.normaliser.startswith("extra:"):
                _check_normaliser(self.normaliser)
        else:
            start, end = self.normaliser
            object.__setattr__(self, "normaliser", (start, end))
        if (
            not self.thresholds
            or not all(x > 0 for x in self.thresholds)
            or (self.auc_to is not None and self.auc_to <= 0)
        ):
            raise ValueError(f"PCK thresholds must be above 0, got thresholds={self.thresholds}, auc_to={self.auc_to}.")
        _side(self.comparator)
        if self.mean not in ("micro", "macro"):
            raise ValueError(f"PCK mean must be 'micro' or 'macro', got {self.mean!r}.")

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image.

        Raises:
            ValueError: Rows or skeletons do not correspond, or a name in ``excluded`` is not in the skeleton.
            LookupError: The labels lack what the normaliser needs.
        """
        check_pair(predicted, truth, same_rows=True)
        if not self._skeleton:
            for keypoint in self.excluded:
                if keypoint not in truth.skeleton.keypoints:
                    raise ValueError(
                        f"Skeleton {truth.skeleton.name!r} has no keypoint {keypoint!r} to exclude."
                        f"{nearest(keypoint, truth.skeleton.keypoints)} Known: {', '.join(truth.skeleton.keypoints)}; "
                        "excluded=() excludes none."
                    )
            self._skeleton.append(truth.skeleton)
        check_seen(self._skeleton, truth.skeleton)
        self._distance.append(
            normalised_distance(
                np.where(predicted.known[..., None], predicted.xy, np.nan),
                np.where(truth.known[..., None], truth.xy, np.nan),
                length_px(truth, self.normaliser),
            )
        )

    @property
    def distance(self) -> np.ndarray:
        """``(N, K)`` for all people so far, in units of the length; NaN does not count, inf is missing."""
        width = len(self._skeleton[0]) if self._skeleton else 0
        return np.concatenate([np.zeros((0, width)), *self._distance])

    @property
    def people(self) -> int:
        """Number of people who count: those with a length and a labelled keypoint."""
        return int((~np.isnan(self.distance)).any(-1).sum())

    def compute(self) -> dict[str, float]:
        """Return for each threshold ``pck@0.2`` (the average of ``mean``), ``pck@0.2/micro`` and ``pck@0.2/macro``.

        If keypoints are excluded, ``.../micro_all`` and ``.../macro_all`` exclude none. ``pck_auc@0.2`` is the exact
        area under the curve up to that threshold, micro-averaged. NaN if nothing counts.
        """
        distance = self.distance
        kept = self._kept()
        results: dict[str, float] = {}
        for threshold in self.thresholds:
            key = f"{self.name}@{threshold:g}"
            means = _means(distance[:, kept], threshold, self.comparator)
            results[key] = means[self.mean]
            results |= {f"{key}/{mean}": value for mean, value in means.items()}
            if self.excluded:
                means = _means(distance, threshold, self.comparator)
                results |= {f"{key}/{mean}_all": value for mean, value in means.items()}
        results[f"{self.name}_auc@{self._highest:g}"] = auc(distance[:, kept], self._highest)
        return results

    def better(self, name: str) -> Better:
        """Return "higher": every result is a share of correct keypoints."""
        return "higher"

    def table(self, *, pairs: bool = False) -> dict[str, dict[str, float]]:
        """Return a row per keypoint: ``count``, ``pck@0.2`` for each threshold, ``pck_auc@0.2``, ``median`` distance.

        Args:
            pairs: Merge left and right: "wrist" is the unweighted mean of both, as printed in the literature.
        """
        distance, highest = self.distance, self._highest
        rows: dict[str, dict[str, float]] = {}
        for k, keypoint in enumerate(self._skeleton[0].keypoints if self._skeleton else ()):
            column = distance[:, k]
            counted = column[~np.isnan(column)]
            row = {"count": float(len(counted))}
            row |= {f"{self.name}@{x:g}": float(pck(column, x, self.comparator)) for x in self.thresholds}
            row[f"{self.name}_auc@{highest:g}"] = auc(column, highest)
            row["median"] = float(np.quantile(counted, 0.5, method="lower")) if len(counted) else float("nan")
            rows[keypoint] = row
        return _join_sides(rows, self._skeleton[0]) if pairs and rows else rows

    def curve(self, highest: float | None = None, *, steps: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the PCK curve for a plot.

        Args:
            highest: The last threshold; None uses that of the area under the curve.
            steps: Number of steps.

        Returns:
            thresholds: ``(steps + 1,)`` from 0.
            micro: ``(steps + 1,)`` the micro average over the keypoints that are not excluded.
            per_joint: ``(steps + 1, K)``.
        """
        thresholds = np.linspace(0, self._highest if highest is None else highest, steps + 1)
        distance = self.distance
        columns = [pck_curve(distance[:, k], thresholds, self.comparator) for k in range(distance.shape[1])]
        per_joint = np.stack(columns, -1) if columns else np.zeros((steps + 1, 0))
        return thresholds, pck_curve(distance[:, self._kept()], thresholds, self.comparator), per_joint

    def merge(self, other: Self) -> None:
        """Merge the data of another metric with the same fields, such as one from another process.

        Raises:
            ValueError: The fields or the skeletons differ.
        """
        check_same(self, other)
        if other._skeleton and not self._skeleton:
            self._skeleton.append(other._skeleton[0])
        self._distance.extend(other._distance)

    @property
    def _highest(self) -> float:
        return max(self.thresholds) if self.auc_to is None else float(self.auc_to)

    def _kept(self) -> np.ndarray:
        names = self._skeleton[0].keypoints if self._skeleton else ()
        return np.array([name not in self.excluded for name in names], dtype=bool)


def pckh(
    thresholds: tuple[float, ...] = (0.5, 0.1),
    comparator: Comparator = "<=",
    mean: Mean = "micro",
    excluded: tuple[str, ...] = ("pelvis", "thorax"),
    auc_to: float | None = None,
) -> Pck:
    """Return PCK in units of the head size, ``extra["head_px"]``, as HRNet and most papers compute it on MPII.

    In MPII the head size is 0.6 times the diagonal of the head box. A skeleton without pelvis and thorax needs
    ``excluded=()``. HRNet's printed "Mean@0.1" is really computed at 0.11.

    Example:
        >>> pckh().normaliser, pckh().thresholds, pckh().excluded
        ('head', (0.5, 0.1), ('pelvis', 'thorax'))
    """
    return Pck("head", thresholds, comparator, mean, excluded, auc_to, name="pckh")


def _side(comparator: str) -> Literal["left", "right"]:
    if comparator not in ("<=", "<"):
        raise ValueError(f"PCK comparator must be '<=' or '<', got {comparator!r}.")
    return "right" if comparator == "<=" else "left"


def _check_normaliser(name: str) -> None:
    if name not in NORMALISERS:
        raise LookupError(
            f"Unknown normaliser {name!r}.{nearest(name, NORMALISERS)} Known: {', '.join(NORMALISERS)}, 'extra:KEY', "
            "or a pair of keypoint names."
        )


def _means(distance: np.ndarray, threshold: float, comparator: Comparator) -> dict[Mean, float]:
    per_joint = np.asarray(pck(distance, threshold, comparator, axis=0))
    per_joint = per_joint[~np.isnan(per_joint)]
    return {
        "micro": float(pck(distance, threshold, comparator)),
        "macro": float(per_joint.mean()) if per_joint.size else float("nan"),
    }


def _join_sides(rows: dict[str, dict[str, float]], skeleton: Skeleton) -> dict[str, dict[str, float]]:
    joined: dict[str, dict[str, float]] = {}
    for k, partner in enumerate(skeleton.flip):
        name, other = skeleton.keypoints[k], skeleton.keypoints[int(partner)]
        if partner < k:
            continue
        if partner == k:
            joined[name] = rows[name]
            continue
        both = [rows[name], rows[other]]
        means = {}
        for column in rows[name]:
            values = np.array([row[column] for row in both])
            values = values[~np.isnan(values)]
            means[column] = float(values.mean()) if values.size else float("nan")
        means["count"] = both[0]["count"] + both[1]["count"]
        joined[_without_side(name, other)] = means
    return joined


def _without_side(name: str, other: str) -> str:
    """Return the common part of two names: "left_wrist" and "right_wrist" give "wrist"; else both, joined by "/"."""
    parts = [p for p in name.replace("-", "_").split("_") if p in other.replace("-", "_").split("_")]
    return "_".join(parts) or f"{name}/{other}"
