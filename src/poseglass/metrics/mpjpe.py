"""Errors of 3D poses: MPJPE and its aligned variants, 3DPCK and its area, and symmetry.

Ionescu et al., "Human3.6M", PAMI 2014 (MPJPE); Martinez et al., "A Simple Yet Effective Baseline for 3D Human Pose
Estimation", ICCV 2017 (protocols 1 and 2); Mehta et al., "Monocular 3D Human Pose Estimation in the Wild", 3DV 2017
(3DPCK, AUC); Rhodin et al., "Unsupervised Geometry-Aware Representation for 3D Human Pose Estimation", ECCV 2018
(N-MPJPE).

All take arrays ``(N, K, 3)`` in millimetres and not ``Instances``, and they are not in ``METRICS``: a pose to be lifted
has no image, no box and no score, and metrics of that table are in pixels of an image, where rows may have to be
matched. Row n of predictions and labels is the same pose here.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from poseglass.core.skeleton import Skeleton
from poseglass.metrics.metric import Better

PCK_MM = 150.0
"""Within this distance a keypoint is right: half of a head, as Mehta et al. have it."""

AUC_MM = tuple(5.0 * step for step in range(31))
"""Thresholds whose PCK is averaged to the AUC: 0 to 150 mm."""

_ROWS = ("mpjpe", "n_mpjpe", "pa_mpjpe", "pa_mpjpe_reflected")


def distances_mm(predicted_mm: np.ndarray, truth_mm: np.ndarray) -> np.ndarray:
    """Return the distance of each keypoint, ``(..., K)``, NaN where either is unknown.

    Args:
        predicted_mm: ``(..., K, 3)``.
        truth_mm: The same shape.

    Raises:
        ValueError: The shapes differ.
    """
    predicted_mm, truth_mm = _pair(predicted_mm, truth_mm)
    return np.linalg.norm(predicted_mm - truth_mm, axis=-1)


def relative_to(xyz_mm: np.ndarray, keypoint: int) -> np.ndarray:
    """Return poses ``(..., K, 3)`` relative to one of their keypoints; all NaN where it is unknown."""
    xyz_mm = np.asarray(xyz_mm, np.float64)
    return xyz_mm - xyz_mm[..., keypoint : keypoint + 1, :]


def align_scale(predicted_mm: np.ndarray, truth_mm: np.ndarray) -> np.ndarray:
    """Return predictions times the one factor per pose that brings them nearest to the truth, for N-MPJPE.

    Args:
        predicted_mm: ``(N, K, 3)``, relative to the root; NaN where unknown.
        truth_mm: The same.
    """
    predicted_mm, truth_mm = _pair(predicted_mm, truth_mm)
    both = _known(predicted_mm, truth_mm)[..., None]
    dot = np.where(both, predicted_mm * truth_mm, 0.0).sum((-2, -1))
    own = np.where(both, np.square(predicted_mm), 0.0).sum((-2, -1))
    return predicted_mm * np.divide(dot, own, out=np.zeros_like(dot), where=own > 0)[..., None, None]


def align_procrustes(predicted_mm: np.ndarray, truth_mm: np.ndarray, *, reflection: bool) -> np.ndarray:
    """Return predictions after the rotation, scale and shift that bring them nearest to the truth.

    Least squares over the keypoints that are known in both (Umeyama, "Least-Squares Estimation of Transformation
    Parameters Between Two Point Patterns", PAMI 1991). A prediction whose keypoints all coincide has no shape to align
    and becomes the truth's mean.

    Args:
        predicted_mm: ``(N, K, 3)``; NaN where unknown.
        truth_mm: The same.
        reflection: Whether a mirrored pose may be mirrored back, which can only lower the error, and forgives left for
            right and front for back. The evaluation that RepNet released allows it; most others do not.

    Returns:
        ``(N, K, 3)``; all NaN for poses that say nothing: fewer than three keypoints known in both (two can always be
        made to coincide), or a truth whose keypoints all coincide.
    """
    predicted_mm, truth_mm = _pair(predicted_mm, truth_mm)
    if predicted_mm.ndim != 3:
        raise ValueError(f"Poses must have shape (N, K, 3), got {predicted_mm.shape}.")
    both = _known(predicted_mm, truth_mm)
    count = np.maximum(both.sum(1), 1)[:, None]
    centred, centres = [], []
    for points in (predicted_mm, truth_mm):
        points = np.where(both[..., None], points, 0.0)
        centre = points.sum(1) / count
        centred.append(np.where(both[..., None], points - centre[:, None], 0.0))
        centres.append(centre)
    source, target = centred
    u, sizes, vh = np.linalg.svd(np.einsum("nki,nkj->nij", target, source))
    sign = np.ones_like(sizes)
    if not reflection:
        sign[:, 2] = np.where(np.linalg.det(u @ vh) < 0, -1.0, 1.0)
    rotation = u * sign[:, None] @ vh
    spread = _size(source)
    shaped = spread > 1e-9 * _size(predicted_mm, both)  # less is rounding
    scale = np.divide((sizes * sign).sum(1), np.square(spread), out=np.zeros(len(spread)), where=shaped)
    moved = (predicted_mm - centres[0][:, None]) @ rotation.transpose(0, 2, 1) * scale[:, None, None]
    moved += centres[1][:, None]
    degenerate = (both.sum(1) < 3) | (_size(target) <= 1e-9 * _size(truth_mm, both))
    return np.where(degenerate[:, None, None], np.nan, moved)


def symmetry_error_mm(xyz_mm: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return how far bones on the left and on the right differ in length: ``(N,)`` mm, the mean over pairs of bones.

    Args:
        xyz_mm: ``(N, K, 3)``; bones of unknown keypoints are left out, and without any pair it is NaN.
        skeleton: A bone whose ends are swapped with those of another by the skeleton's flip pairs is one of a pair.

    Raises:
        ValueError: The skeleton has no such pair.
    """
    pairs = _pairs_of_bones(skeleton)
    if not len(pairs):
        raise ValueError(f"Skeleton {skeleton.name!r} has no bone with a counterpart on the other side.")
    xyz_mm = np.asarray(xyz_mm, np.float64)
    ends = xyz_mm[:, pairs]  # (N, M, 2 sides, 2 ends, 3)
    lengths = np.linalg.norm(ends[..., 0, :] - ends[..., 1, :], axis=-1)
    apart = np.abs(lengths[..., 0] - lengths[..., 1])
    some = np.isfinite(apart).sum(1)
    return np.where(some > 0, np.nansum(apart, 1) / np.maximum(some, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Pose3dErrors:
    """Errors of predicted 3D poses, over all keypoints that are known.

    Args:
        skeleton: Of predictions and truth.
        root: The keypoint that both are made relative to before MPJPE, N-MPJPE, 3DPCK and AUC; its own error, 0, counts
            as one of K, as in the figures of the field. None compares them where they are.
        threshold_mm: Of 3DPCK. A keypoint at exactly this distance is right.

    Raises:
        LookupError: The skeleton has no such root.
        ValueError: A threshold that is not positive.

    Example:
        >>> from poseglass.core.skeletons import H36M17
        >>> truth = np.random.default_rng(0).normal(0, 300, (4, 17, 3))
        >>> errors = Pose3dErrors(H36M17)
        >>> errors.update(truth * [-1, 1, 1], truth)
        >>> found = errors.compute()
        >>> round(found["pa_mpjpe_reflected"], 6), found["pa_mpjpe"] > 50
        (0.0, True)
    """

    skeleton: Skeleton
    root: str | None = "pelvis"
    threshold_mm: float = PCK_MM
    _seen: list[dict[str, np.ndarray]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.root is not None:
            self.skeleton.index(self.root)
        if not self.threshold_mm > 0:
            raise ValueError(f"The threshold of 3DPCK must be positive, got {self.threshold_mm} mm.")

    def update(self, predicted_mm: np.ndarray, truth_mm: np.ndarray) -> None:
        """Add poses.

        Args:
            predicted_mm: ``(N, K, 3)``. A known keypoint that is NaN here is "missing": wrong for PCK and AUC, and left
                out of the means in millimetres. If the root is NaN here, nothing of the pose can be placed: all its
                known keypoints are missing, though Procrustes, which needs no root, still measures those given.
            truth_mm: ``(N, K, 3)``; keypoints that are NaN here are "unknown" and not measured. To measure some
                keypoints alone, set the others to NaN.

        Raises:
            ValueError: Shapes differ or are not those of the skeleton, or a position is infinite.
        """
        predicted_mm, truth_mm = _pair(predicted_mm, truth_mm)
        k = len(self.skeleton)
        if truth_mm.ndim != 3 or truth_mm.shape[1] != k:
            raise ValueError(
                f"Poses in skeleton {self.skeleton.name!r} must have shape (N, {k}, 3), got {truth_mm.shape}."
            )
        if np.isinf(predicted_mm).any() or np.isinf(truth_mm).any():
            raise ValueError("Positions must be finite, or NaN where unknown; got infinity.")
        known = np.asarray(np.isfinite(truth_mm).all(-1))
        given = np.asarray(np.isfinite(predicted_mm).all(-1))
        rooted, unplaced = np.ones(len(truth_mm), bool), np.zeros(len(truth_mm), bool)
        placed, wanted = predicted_mm, truth_mm
        if self.root is not None:
            at = self.skeleton.index(self.root)
            rooted = known[:, at]
            unplaced = rooted & ~given[:, at]
            given &= ~unplaced[:, None]
            placed, wanted = relative_to(predicted_mm, at), relative_to(truth_mm, at)
        reflected = align_procrustes(predicted_mm, truth_mm, reflection=True)
        rotated = align_procrustes(predicted_mm, truth_mm, reflection=False)
        found = {
            "mpjpe": distances_mm(placed, wanted),
            "n_mpjpe": distances_mm(align_scale(placed, wanted), wanted),
            "pa_mpjpe": distances_mm(rotated, truth_mm),
            "pa_mpjpe_reflected": distances_mm(reflected, truth_mm),
        }
        measured = known & rooted[:, None]
        with np.errstate(invalid="ignore"):  # NaN, which is missing, is within no threshold
            right = [(measured & (found["mpjpe"] <= mm)).sum(0) for mm in (self.threshold_mm, *AUC_MM)]
        asymmetry = (
            symmetry_error_mm(predicted_mm, self.skeleton)
            if len(_pairs_of_bones(self.skeleton))
            else np.full(len(truth_mm), np.nan)
        )
        some = known.any(1)
        self._seen.append(
            {
                "sums": np.stack([np.nansum(found[row], 0) for row in _ROWS]),
                "numbers": np.stack([np.isfinite(found[row]).sum(0) for row in _ROWS]),
                "right": np.stack(right),
                "measured": measured.sum(0),
                "symmetry": np.array([np.nansum(asymmetry), np.isfinite(asymmetry).sum()]),
                "poses": np.array(len(truth_mm)),
                "unknown": np.array((~known).sum()),
                "missing": np.array((known & ~given).sum()),
                "without_root": np.array((~rooted & some).sum()),
                "without_predicted_root": np.array(unplaced.sum()),
                "degenerate": np.array(np.isnan(rotated).all((1, 2)).sum()),
            }
        )

    def compute(self) -> dict[str, float]:
        """Return the results over all poses so far; NaN where nothing was measured.

        In millimetres "mpjpe" (relative to the root), "n_mpjpe" (also scaled), "pa_mpjpe" (after Procrustes, rotations
        only), "pa_mpjpe_reflected" (mirroring allowed) and "symmetry_error" (of the prediction); in [0, 1] "pck3d@150"
        and "auc3d", both relative to the root. And numbers: "poses"; keypoints "unknown" in the truth and "missing" in
        the prediction, those of a pose without a predicted root included; poses "without_root" in the truth and
        "without_predicted_root"; and "degenerate" poses that Procrustes leaves out (fewer than three keypoints, or a
        truth of one point).
        """
        sums, numbers = self._total("sums"), self._total("numbers")
        results: dict[str, float] = dict.fromkeys(_ROWS, float("nan"))
        if self._seen:
            results |= {row: _ratio(sums[i].sum(), numbers[i].sum()) for i, row in enumerate(_ROWS)}
        right, measured = self._total("right"), float(np.sum(self._total("measured")))
        pck = [_ratio(float(row.sum()), measured) for row in right] if self._seen else [float("nan")]
        results[self._pck] = pck[0]
        results["auc3d"] = float(np.mean(pck[1:])) if len(pck) > 1 else float("nan")
        symmetry = self._total("symmetry")
        results["symmetry_error"] = _ratio(symmetry[0], symmetry[1]) if self._seen else float("nan")
        for name in ("poses", "unknown", "missing", "without_root", "without_predicted_root", "degenerate"):
            results[name] = float(np.sum(self._total(name)))
        return results

    @property
    def _pck(self) -> str:
        return f"pck3d@{self.threshold_mm:g}"

    def _total(self, name: str) -> np.ndarray:
        return np.sum([part[name] for part in self._seen], axis=0) if self._seen else np.zeros(0)

    def better(self, name: str) -> Better:
        """Return "higher" for 3DPCK, AUC and the number of poses, "lower" for all else."""
        return "higher" if name.startswith(("pck3d", "auc3d", "poses")) else "lower"

    def table(self) -> dict[str, dict[str, float]]:
        """Return the errors and the 3DPCK of each keypoint."""
        if not self._seen:
            return {}
        sums, numbers = self._total("sums"), self._total("numbers")
        right, measured = self._total("right")[0], self._total("measured")
        return {
            keypoint: {
                **{row: _ratio(sums[i, k], numbers[i, k]) for i, row in enumerate(_ROWS)},
                self._pck: _ratio(right[k], measured[k]),
            }
            for k, keypoint in enumerate(self.skeleton.keypoints)
        }

    def merge(self, other: Self) -> None:
        """Merge the data of another one with the same fields, as if its poses came after this one's.

        Raises:
            ValueError: The fields differ.
        """
        mine, theirs = (
            (type(m), m.skeleton.keypoints, m.skeleton.bones, m.root, m.threshold_mm) for m in (self, other)
        )
        if mine != theirs:
            raise ValueError(f"Only metrics with the same fields can be merged, got {self} and {other}.")
        self._seen.extend(other._seen)


def _pair(predicted_mm: np.ndarray, truth_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted_mm, truth_mm = np.asarray(predicted_mm, np.float64), np.asarray(truth_mm, np.float64)
    if predicted_mm.shape != truth_mm.shape or predicted_mm.ndim < 2 or predicted_mm.shape[-1] != 3:
        raise ValueError(
            "Predicted and true poses must have the same shape (N, K, 3), got "
            f"{predicted_mm.shape} and {truth_mm.shape}."
        )
    return predicted_mm, truth_mm


def _known(predicted_mm: np.ndarray, truth_mm: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(predicted_mm).all(-1) & np.isfinite(truth_mm).all(-1))


def _size(points: np.ndarray, both: np.ndarray | None = None) -> np.ndarray:
    """Return the norm of all coordinates of each pose: ``(N,)``."""
    if both is not None:
        points = np.where(both[..., None], points, 0.0)
    return np.sqrt(np.square(points).sum((1, 2)))


def _pairs_of_bones(skeleton: Skeleton) -> np.ndarray:
    """Return bones on one side with those on the other: ``(M, 2, 2)`` int64, keypoints of [side, end]."""
    bones, flip = skeleton.bone_indices, skeleton.flip
    found = [
        (bone, (int(flip[bone[0]]), int(flip[bone[1]])))
        for bone in (tuple(int(end) for end in pair) for pair in bones)
        if {int(flip[bone[0]]), int(flip[bone[1]])} != set(bone)
    ]
    there = {frozenset(bone) for bone, _ in found}
    once = {frozenset((frozenset(a), frozenset(b))): (a, b) for a, b in found if frozenset(b) in there}
    return np.array(list(once.values()), np.int64).reshape(-1, 2, 2)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
