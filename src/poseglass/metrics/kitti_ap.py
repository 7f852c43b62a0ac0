"""KITTI's average precision of boxes in space: by overlap in the bird's-eye view, and in 3D.

Geiger, Lenz, Urtasun, "Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite", CVPR 2012; Simonelli et
al., "Disentangling Monocular 3D Object Detection", ICCV 2019, for 40 points. Rules are those of the benchmark's
published evaluation, which counts as follows.

Of each class, labels that are easy enough for a level count; harder ones, and regions to ignore of the same class, may
be found without being right or wrong. So may detections whose box in the image is lower than the level's height. A
detection finds a label if they overlap by more than the least overlap of the class; at the score above which precision
is measured, the detection that overlaps most is taken. Thresholds of the score are 41, evenly over the recall that all
detections reach, and precision at each is the largest from there on. Regions that are to be ignored whatever is in them
excuse nothing here, because they have no box in space.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from poseglass.core.box_3d import wrapped
from poseglass.core.boxes import iou
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.metrics.metric import Better, check_pair, check_same, check_seen
from poseglass.metrics.rotated import overlaps_3d

LEVELS = ("easy", "moderate", "hard")
"""Levels of difficulty."""

KINDS = ("bev", "3d")
"""Kinds of overlap."""

MOST_OCCLUDED = (0, 1, 2)
"""Largest ``extra["occlusion"]`` of labels that count, by level."""

MOST_TRUNCATED = (0.15, 0.3, 0.5)
"""Largest ``extra["truncation"]`` of labels that count, by level."""

_POINTS = 41

_COUNTS, _IGNORED, _OTHER = 0, 1, -1


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """What is compared of an image: of labels and detections the class, the height of the box, and overlaps.

    Args:
        label: ``(M,)`` classes of the labels.
        level: ``(M,)`` the easiest level at which each counts; 3 for none.
        found: ``(N,)`` classes of the detections.
        height_px: ``(N,)`` heights of their boxes in the image.
        score: ``(N,)``.
        overlaps: Of ``KINDS``, ``(N, M)`` each.
    """

    label: np.ndarray
    level: np.ndarray
    found: np.ndarray
    height_px: np.ndarray
    score: np.ndarray
    overlaps: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class KittiAp:
    """Average precision of boxes in space as KITTI measures it, and how far depth and yaw are off.

    Results are "AP40_3d_moderate" and so on: 11 or 40 points of recall, "bev" or "3d", "easy", "moderate" or "hard";
    the mean over the classes of which a label counts, and NaN if none does. "depth_error" is the mean of the error of
    the depth as a share of it, and "yaw_15" the share of yaws within 15 degrees, both of the labels of the level "hard"
    that are found by their box in the image (an overlap of at least 0.5, a score of at least ``min_score``);
    "found" is the share of such labels.

    Labels have ``box_3d``, and may have ``extra["occlusion"]``, ``extra["truncation"]`` and ``extra["crowd"]``. Labels
    that are crowds, and those without a ``box_3d``, are regions to ignore; a crowd with a box in space may be found
    without being wrong.

    Args:
        least_overlap: Overlap above which a box is found, by the number of its class; KITTI's are 0.7 for cars and 0.5
            for pedestrians and cyclists, the default being CenterNet's order: pedestrian, car, cyclist.
        least_height_px: Of the box in the image, for easy, moderate and hard; KITTI's, whose images are 375 px high.
        min_score: Lowest score of what is compared for depth and yaw.

    Raises:
        ValueError: A number out of range.

    Source:
        KITTI's development kit; its detections' heights are whole pixels, rounded down.
    """

    rows_correspond: ClassVar[bool] = False

    least_overlap: tuple[float, ...] = (0.5, 0.7, 0.5)
    least_height_px: tuple[float, float, float] = (40.0, 25.0, 25.0)
    min_score: float = 0.3
    _images: list[_Image] = field(default_factory=list, init=False, repr=False)
    _errors: list[np.ndarray] = field(default_factory=list, init=False, repr=False)
    _skeleton: list[Skeleton] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "least_overlap", tuple(float(v) for v in self.least_overlap))
        object.__setattr__(self, "least_height_px", tuple(float(v) for v in self.least_height_px))
        if not self.least_overlap or not all(0 < v < 1 for v in self.least_overlap):
            raise ValueError(
                "KittiAp.least_overlap must have a number between 0 and 1 for each class, such as (0.5, 0.7, 0.5), got "
                f"{self.least_overlap}."
            )
        if len(self.least_height_px) != 3 or not all(0 <= v < float("inf") for v in self.least_height_px):
            raise ValueError(
                f"KittiAp.least_height_px must be three heights in pixels, got {self.least_height_px}."
            )  # fmt: skip
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"KittiAp.min_score must be in [0, 1], got {self.min_score}.")

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image.

        Raises:
            ValueError: Skeletons differ; predictions or labels have no boxes in space; or a label has a class without a
                least overlap.
        """
        check_pair(predicted, truth, same_rows=False)
        check_seen(self._skeleton, truth.skeleton)
        for what, people in (("predictions", predicted), ("labels", truth)):
            if len(people) and people.box_3d is None:
                raise ValueError(
                    f"KittiAp compares boxes in space, but the {what} have none (Instances.box_3d is None). Use a "
                    "codec with boxes_3d and labels such as kitti or streets, or another metric."
                )
        if len(truth) and int(truth.label.max()) >= len(self.least_overlap):
            raise ValueError(
                f"A label is of class {int(truth.label.max())}, but KittiAp has least_overlap for "
                f"{len(self.least_overlap)} classes. Give one number for each class."
            )
        if not self._skeleton:
            self._skeleton.append(truth.skeleton)
        labelled, found = _boxes(truth), _boxes(predicted)
        solid = np.isfinite(labelled).all(1)  # others have no place in space
        truth, labelled = truth[solid], labelled[solid]
        kept = np.isfinite(found).all(1)
        predicted, found = predicted[kept], found[kept]
        level = self._level(truth)
        tall = np.floor(np.abs(predicted.box_xyxy[:, 3] - predicted.box_xyxy[:, 1]).astype(np.float64))
        self._images.append(
            _Image(
                truth.label, level, predicted.label, tall, predicted.box_score.astype(np.float64),
                overlaps_3d(found, labelled),
            )
        )  # fmt: skip
        self._errors.append(self._off(predicted, found, truth[level < 3], labelled[level < 3]))

    def _level(self, truth: Instances) -> np.ndarray:
        """Return the easiest level at which each label counts ``(M,)``, 3 for none."""
        count = len(truth)
        tall = np.abs(truth.box_xyxy[:, 3] - truth.box_xyxy[:, 1])
        hidden = np.asarray(truth.extra.get("occlusion", np.zeros(count)))
        cut = np.asarray(truth.extra.get("truncation", np.zeros(count)))
        crowd = np.asarray(truth.extra.get("crowd", np.zeros(count)), bool)
        level = np.full(count, 3)
        for n in (2, 1, 0):
            fits = (hidden <= MOST_OCCLUDED[n]) & (cut <= MOST_TRUNCATED[n]) & (tall > self.least_height_px[n])
            level[fits & ~crowd] = n
        return level

    def _off(self, predicted: Instances, found: np.ndarray, truth: Instances, labelled: np.ndarray) -> np.ndarray:
        """Return of each label that counts the error of depth, as a share, and of yaw, radians; NaN if not found."""
        errors = np.full((len(truth), 2), np.nan)
        overlap = iou(predicted.box_xyxy, truth.box_xyxy) * (predicted.label[:, None] == truth.label)
        free = np.ones(len(truth), bool)
        for row in np.argsort(-predicted.box_score, kind="stable"):
            here = np.where(free, overlap[row], 0.0)
            if predicted.box_score[row] < self.min_score or not here.size or here.max() < 0.5:
                continue
            n = int(here.argmax())
            free[n] = False
            errors[n, 0] = abs(found[row, 2] - labelled[n, 2]) / max(abs(labelled[n, 2]), 1e-9)
            errors[n, 1] = abs(float(wrapped(found[row, 6] - labelled[n, 6])))
        return errors

    def compute(self) -> dict[str, float]:
        """Return the results; see the class."""
        rows = self._rows()
        names = [f"AP{points}_{kind}_{level}" for points in (11, 40) for kind in KINDS for level in LEVELS]
        means = {
            name: _mean([row[name] for row in rows.values() if not np.isnan(row[name])]) for name in names
        }  # fmt: skip
        errors = np.concatenate([np.zeros((0, 2)), *self._errors])
        there = np.isfinite(errors).all(1)
        return means | {
            "depth_error": _mean(errors[there, 0]),
            "yaw_15": _mean(np.asarray(errors[there, 1] <= np.deg2rad(15), float)),
            "found": _mean(np.asarray(there, float)),
        }

    def better(self, name: str) -> Better:
        """Return "lower" for the error of the depth, "higher" for the others."""
        return "lower" if name == "depth_error" else "higher"

    def table(self) -> dict[str, dict[str, float]]:
        """Return average precision of each class, by its number, as in ``compute``; NaN where no label counts."""
        return {str(number): row for number, row in self._rows().items()}

    def merge(self, other: Self) -> None:
        """Merge the data of another metric with the same fields.

        Raises:
            ValueError: The fields differ.
        """
        check_same(self, other)
        if not self._skeleton:
            self._skeleton.extend(other._skeleton)
        self._images.extend(other._images)
        self._errors.extend(other._errors)

    def _rows(self) -> dict[int, dict[str, float]]:
        classes = np.unique(np.concatenate([np.zeros(0, np.int64), *(image.label for image in self._images)]))
        rows: dict[int, dict[str, float]] = {}
        for number in classes.tolist():
            row: dict[str, float] = {}
            for k, kind in enumerate(KINDS):
                for n, level in enumerate(LEVELS):
                    precision = self.precisions(number, k, n)
                    row[f"AP11_{kind}_{level}"] = float(precision[::4].mean())
                    row[f"AP40_{kind}_{level}"] = float(precision[1:].mean())
            rows[int(number)] = row
        return rows

    def precisions(self, label: int, kind: int, level: int) -> np.ndarray:
        """Return the precision at 41 points of recall, evenly from 0 to 1, of a class; NaN if no label counts.

        Args:
            label: Number of the class.
            kind: 0 for the bird's-eye view, 1 for 3D.
            level: 0 for easy, 1 for moderate, 2 for hard.
        """
        least = self.least_overlap[label] if label < len(self.least_overlap) else 1.0
        low = self.least_height_px[level]
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        counted = 0
        for image in self._images:
            mine = image.label == label
            wanted = np.where(image.level[mine] <= level, _COUNTS, _IGNORED)
            allowed = np.where(image.height_px < low, _IGNORED, np.where(image.found == label, _COUNTS, _OTHER))
            use = allowed != _OTHER
            counted += int((wanted == _COUNTS).sum())
            if use.any():
                overlap = image.overlaps[kind][use][:, mine]
                parts.append((wanted, allowed[use], image.score[use], overlap))
        if not counted:
            return np.full(_POINTS, np.nan)
        right = [score for part in parts for score in _right_scores(*part, least)]
        precision = np.zeros(_POINTS)
        for n, threshold in enumerate(_thresholds(np.array(right), counted)[:_POINTS]):
            found = wrong = 0
            for part in parts:
                hits, misses = _counted(*part, least, threshold)
                found, wrong = found + hits, wrong + misses
            precision[n] = found / (found + wrong) if found + wrong else 0.0
        return np.maximum.accumulate(precision[::-1])[::-1]


def _boxes(people: Instances) -> np.ndarray:
    return np.zeros((0, 7)) if people.box_3d is None else people.box_3d.astype(np.float64)


def _mean(values: list[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _right_scores(
    wanted: np.ndarray, allowed: np.ndarray, score: np.ndarray, overlap: np.ndarray, least: float
) -> list[float]:
    """Return the scores of detections that find a label that counts, each label by the detection of the best score."""
    free = np.ones(len(score), bool)
    scores = []
    for n in range(len(wanted)):
        fits = np.flatnonzero(free & (overlap[:, n] > least))
        if not len(fits):
            continue
        best = int(fits[score[fits].argmax()])
        free[best] = False
        if wanted[n] == _COUNTS and allowed[best] == _COUNTS:
            scores.append(float(score[best]))
    return scores


def _thresholds(scores: np.ndarray, counted: int) -> list[float]:
    """Return the scores at which the recall passes 0, 1/40, 2/40, ..., as nearly as possible."""
    scores = np.sort(scores)[::-1]
    chosen: list[float] = []
    recall = 0.0
    for n, score in enumerate(scores):
        left = (n + 1) / counted
        right = (n + 2) / counted if n < len(scores) - 1 else left
        if right - recall < recall - left and n < len(scores) - 1:
            continue
        chosen.append(float(score))
        recall += 1 / (_POINTS - 1)
    return chosen


def _counted(
    wanted: np.ndarray, allowed: np.ndarray, score: np.ndarray, overlap: np.ndarray, least: float, threshold: float
) -> tuple[int, int]:
    """Return how many detections of at least a score find a label that counts, and how many are wrong."""
    use = score >= threshold
    free = use.copy()
    found = 0
    for n in range(len(wanted)):
        fits = free & (overlap[:, n] > least)
        proper = np.flatnonzero(fits & (allowed == _COUNTS))
        if len(proper):
            best = int(proper[overlap[proper, n].argmax()])
        else:
            small = np.flatnonzero(fits)
            if not len(small):
                continue
            best = int(small[0])
        free[best] = False
        found += wanted[n] == _COUNTS and allowed[best] == _COUNTS
    return int(found), int((free & (allowed == _COUNTS)).sum())
