"""Non-maximum suppression of duplicate poses, by OKS instead of box overlap.

Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild" (CVPR 2017); the soft variant is Bodla et
al., "Soft-NMS" (ICCV 2017), with OKS for the overlap. How this differs: all keypoints count, whatever their scores, as
in the public code of SimpleBaseline and HRNet.
"""

from collections.abc import Sequence

import numpy as np

from poseglass.metrics.oks import oks


def oks_nms(
    xy: np.ndarray, score: np.ndarray, area: np.ndarray, sigmas: Sequence[float] | np.ndarray, *, threshold: float = 0.9
) -> np.ndarray:
    """Keep the best pose of each group; poses whose OKS with it is above a threshold are suppressed.

    The OKS of two poses uses the mean of their areas, since neither is the truth.

    Args:
        xy: ``(N, K, 2)`` pixels of one image's people, NaN = missing.
        score: ``(N,)`` scores of the poses.
        area: ``(N,)`` square pixels that scale OKS, by whichever rule is used (box, enlarged box, annotation).
        sigmas: ``(K,)``.
        threshold: An OKS above it suppresses; one equal to it does not.

    Returns:
        Indices of the kept rows, best first, int64. Equal scores keep their order.

    Example:
        >>> pose = np.zeros((1, 2))
        >>> xy = np.stack([pose, pose + 1, pose + 90])
        >>> oks_nms(xy, np.array([0.5, 0.6, 0.4]), np.full(3, 10000.0), (0.1,)).tolist()
        [1, 2]
    """
    points, areas = _checked(xy, score, area)
    left = np.argsort(-np.asarray(score, np.float64), kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[~(_oks_with(points, areas, best, left, sigmas) > threshold)]
    return np.array(kept, np.int64)


def soft_oks_nms(
    xy: np.ndarray,
    score: np.ndarray,
    area: np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    *,
    width: float = 0.9,
    most: int = 20,
) -> tuple[np.ndarray, np.ndarray]:
    """Multiply the score of each pose by ``exp(-oks^2 / width)`` for every better pose, and keep the best.

    Args:
        xy: ``(N, K, 2)`` pixels of one image's people, NaN = missing.
        score: ``(N,)`` scores of the poses.
        area: ``(N,)`` square pixels, as in ``oks_nms``.
        sigmas: ``(K,)``.
        width: The smaller it is, the more a nearby pose loses.
        most: Maximum number of poses to keep.

    Returns:
        Indices of the kept rows ``(M,)`` int64, best first, and their reduced scores ``(M,)`` float64.
    """
    points, areas = _checked(xy, score, area)
    lowered = np.asarray(score, np.float64).copy()
    left = np.arange(len(lowered))
    kept = []
    while len(left) and len(kept) < most:
        at = int(lowered[left].argmax())
        best, left = left[at], np.delete(left, at)
        kept.append(int(best))
        lowered[left] *= np.exp(-(np.nan_to_num(_oks_with(points, areas, best, left, sigmas)) ** 2) / width)
    rows = np.array(kept, np.int64)
    return rows, lowered[rows]


def _oks_with(
    xy: np.ndarray, area: np.ndarray, best: int, others: np.ndarray, sigmas: Sequence[float] | np.ndarray
) -> np.ndarray:
    return oks(xy[others], xy[best], (area[others] + area[best]) / 2, sigmas)


def _checked(xy: np.ndarray, score: np.ndarray, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, areas = np.asarray(xy, np.float64), np.asarray(area, np.float64)
    n = len(points)
    if points.ndim != 3 or np.shape(score) != (n,) or areas.shape != (n,):
        raise ValueError(
            f"OKS-NMS needs xy (N, K, 2) and one score and one area for each of the N poses, got {points.shape}, "
            f"{np.shape(score)} and {areas.shape}."
        )
    return points, areas
