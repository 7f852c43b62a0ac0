"""Error diagnosis: each keypoint is good, a jitter, an inversion, a swap or a miss.

Source: Ronchi and Perona, "Benchmarking and error diagnosis in multi-instance pose estimation" (ICCV 2017), section
3.1. The similarity of a predicted keypoint to a true one is the term that OKS sums, ``exp(-d^2 / (2 area (2
sigma)^2))``, with the area of the person.

- good: similarity of at least 0.85 to its own true position;
- jitter: at least 0.5, that is near but not near enough;
- inversion: not near its own position, but near its left/right counterpart on the same person (left and right wrist);
- swap: not near its own position, but near that keypoint, or its counterpart, of another person in the image;
- miss: near none of them, or not predicted at all.

A keypoint that is both an inversion and a swap counts as the one it is closer to.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.metrics.metric import Better, check_pair, check_same, check_seen
from poseglass.metrics.oks import keypoint_similarity, known_sigmas, person_area

KINDS: tuple[str, ...] = ("good", "jitter", "inversion", "swap", "miss")
"""Names of the values returned by ``keypoint_errors``; -1 is a keypoint without a label."""

USUAL_SIGMA = 0.083
"""Sigma of every keypoint if a skeleton has none: the mean of COCO's twelve sigmas below the head."""


def keypoint_errors(
    predicted: Instances,
    truth: Instances,
    *,
    sigmas: tuple[float, ...] | None = None,
    box_area_factor: float | None = 0.53,
    good: float = 0.85,
    near: float = 0.5,
) -> np.ndarray:
    """Classify each labelled keypoint of an image as good or as a kind of error.

    Args:
        predicted: N people; row n corresponds to row n of the labels.
        truth: All N people of the image.
        sigmas: K sigmas; None uses those of the skeleton, or ``USUAL_SIGMA`` for each if it has none.
        box_area_factor: If labels have no ``extra["area"]``, this times the box's area replaces it. None raises an
            error.
        good: Minimum similarity of a good keypoint.
        near: Minimum similarity of a keypoint that is near a position.

    Returns:
        ``(N, K)`` int8: an index of ``KINDS``, -1 where the truth is unknown.

    Raises:
        ValueError: Rows or skeletons do not correspond, or an area is missing and no factor is given.

    Example:
        The nose is right, the left eye is predicted at the right one, the right eye is 5 pixels off.

        >>> eyes = Skeleton("eyes", ("nose", "left_eye", "right_eye"), sigmas=(0.02, 0.02, 0.02))
        >>> xy = np.array([[[50.0, 50.0], [70.0, 30.0], [30.0, 30.0]]])
        >>> truth = Instances.from_keypoints(eyes, xy, extra={"area": np.array([10000.0])})
        >>> found = Instances.from_keypoints(eyes, np.array([[[50.0, 50.0], [31.0, 30.0], [30.0, 34.0]]]))
        >>> [KINDS[kind] for kind in keypoint_errors(found, truth)[0]]
        ['good', 'inversion', 'jitter']
    """
    check_pair(predicted, truth, same_rows=True)
    if not len(truth):
        return np.zeros((0, len(truth.skeleton)), np.int8)
    deviation = _sigmas(truth.skeleton, sigmas)
    flip = truth.skeleton.flip
    place = np.where(truth.known[..., None], truth.xy, np.nan).astype(np.float64)
    point = np.where(predicted.known[..., None], predicted.xy, np.nan).astype(np.float64)
    area = person_area(truth, box_area_factor)

    # (N, N, K): from the prediction in row n to the same keypoint and to its left/right counterpart of the person in
    # column m, scaled by the area of person m.
    same = np.nan_to_num(keypoint_similarity(point[:, None], place[None], area[None], deviation))
    other = np.nan_to_num(keypoint_similarity(point[:, None], place[None, :, flip], area[None], deviation[flip]))
    itself = np.arange(len(truth))
    own, inverted = same[itself, itself], other[itself, itself]
    elsewhere = np.maximum(same, other)
    elsewhere[itself, itself] = 0
    swapped = elsewhere.max(1)

    kind = np.select(
        [own >= good, own >= near, (inverted >= near) & (inverted >= swapped), swapped >= near],
        [0, 1, 2, 3],
        default=4,
    )
    return np.where(truth.known, kind, -1).astype(np.int8)


@dataclass(frozen=True, eq=False)
class KeypointErrors:
    """Error diagnosis counted over images. Rows must correspond, and an image must contain all its people.

    Args:
        sigmas: K sigmas; None uses those of the skeleton, or ``USUAL_SIGMA`` for each if it has none.
        box_area_factor: If labels have no ``extra["area"]``, this times the box's area replaces it. None raises an
            error.
        good: Minimum similarity of a good keypoint.
        near: Minimum similarity of a keypoint that is near a position.

    Raises:
        ValueError: The two similarities do not satisfy ``0 < near <= good <= 1``.

    Example:
        >>> eyes = Skeleton("eyes", ("nose", "left_eye", "right_eye"), sigmas=(0.02, 0.02, 0.02))
        >>> xy = np.array([[[50.0, 50.0], [70.0, 30.0], [30.0, 30.0]]])
        >>> truth = Instances.from_keypoints(eyes, xy, extra={"area": np.array([10000.0])})
        >>> metric = KeypointErrors()
        >>> metric.update(Instances.from_keypoints(eyes, xy[:, [0, 2, 1]]), truth)
        >>> metric.table()["left_eye"]["inversion"], round(metric.compute()["errors/good"], 3)
        (1.0, 0.333)
    """

    sigmas: tuple[float, ...] | None = None
    box_area_factor: float | None = 0.53
    good: float = 0.85
    near: float = 0.5
    _kinds: list[np.ndarray] = field(default_factory=list, init=False, repr=False)
    _skeleton: list[Skeleton] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.near <= self.good <= 1:
            raise ValueError(f"KeypointErrors needs 0 < near <= good <= 1, got near={self.near}, good={self.good}.")

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image.

        Raises:
            ValueError: As in ``keypoint_errors``, or the skeleton differs from earlier images.
        """
        check_seen(self._skeleton, truth.skeleton)
        kinds = keypoint_errors(
            predicted, truth, sigmas=self.sigmas, box_area_factor=self.box_area_factor, good=self.good, near=self.near
        )
        self._kinds.append(kinds)
        if not self._skeleton:
            self._skeleton.append(truth.skeleton)

    @property
    def counts(self) -> np.ndarray:
        """``(K, 5)`` int64: for each keypoint, how many are good, jitter, inversion, swap and miss."""
        width = len(self._skeleton[0]) if self._skeleton else 0
        kinds = np.concatenate([np.zeros((0, width), np.int8), *self._kinds])
        return (kinds[..., None] == np.arange(len(KINDS))).sum(0)

    def compute(self) -> dict[str, float]:
        """Return the share of each kind, ``errors/good`` ... ``errors/miss``; they add up to 1. NaN without labels."""
        shares = _shares(self.counts.sum(0))
        return {f"errors/{kind}": float(share) for kind, share in zip(KINDS, shares, strict=True)}

    def better(self, name: str) -> Better:
        """Return "higher" for the share of good keypoints and "lower" for the others."""
        return "higher" if name == "errors/good" else "lower"

    def table(self) -> dict[str, dict[str, float]]:
        """Return a row per keypoint: ``count`` and the share of each kind."""
        rows = {}
        for keypoint, counts in zip(self._skeleton[0].keypoints if self._skeleton else (), self.counts, strict=True):
            shares = zip(KINDS, _shares(counts), strict=True)
            rows[keypoint] = {"count": float(counts.sum())} | {kind: float(share) for kind, share in shares}
        return rows

    def merge(self, other: Self) -> None:
        """Merge the data of another metric with the same fields, such as one from another process.

        Raises:
            ValueError: The fields or the skeletons differ.
        """
        check_same(self, other)
        if other._skeleton and not self._skeleton:
            self._skeleton.append(other._skeleton[0])
        self._kinds.extend(other._kinds)


def _sigmas(skeleton: Skeleton, sigmas: tuple[float, ...] | None) -> np.ndarray:
    if sigmas is None and not skeleton.sigmas:
        return np.full(len(skeleton), USUAL_SIGMA)
    return known_sigmas(skeleton, sigmas)


def _shares(counts: np.ndarray) -> np.ndarray:
    total = counts.sum()
    return counts / total if total else np.full(len(counts), np.nan)
