"""Matches predicted with true people."""

from collections.abc import Sequence

import numpy as np

from poseglass.core.instances import Instances
from poseglass.metrics.oks import oks_matrix


def match(
    predicted: Instances,
    truth: Instances,
    *,
    threshold: float = 0.0,
    sigmas: Sequence[float] | None = None,
    box_area_factor: float | None = 0.53,
) -> np.ndarray:
    """Match each prediction, best box score first, with the free person of highest OKS.

    Args:
        predicted: N people.
        truth: M people.
        threshold: OKS must be above it.
        sigmas: K sigmas; None uses those of the skeleton.
        box_area_factor: As in ``poseglass.metrics.oks.person_area``.

    Returns:
        ``(N,)`` int64: the row of the truth, or -1 for none.

    Raises:
        ValueError: Skeletons differ, or there are no sigmas or areas.

    Example:
        >>> from poseglass.core.skeletons import COCO17
        >>> xy = np.random.default_rng(0).uniform(0, 100, (2, 17, 2))
        >>> truth = Instances.from_keypoints(COCO17, xy)
        >>> match(truth[[1, 0, 1]], truth).tolist()
        [1, 0, -1]
    """
    similarity = np.nan_to_num(oks_matrix(predicted, truth, sigmas, box_area_factor=box_area_factor))
    rows = np.full(len(predicted), -1)
    if not len(truth):
        return rows
    for n in np.argsort(-predicted.box_score, kind="stable"):
        best = int(similarity[n].argmax())
        if similarity[n, best] > threshold:
            rows[n] = best
            similarity[:, best] = -1
    return rows


def align(
    predicted: Instances,
    truth: Instances,
    *,
    threshold: float = 0.0,
    sigmas: Sequence[float] | None = None,
    box_area_factor: float | None = 0.53,
) -> Instances:
    """Reorder predictions so that row m is the person in row m of the truth; unmatched rows have unknown keypoints.

    For metrics whose rows must correspond, when people were detected by a network. Unmatched predictions are dropped,
    and so are the fields ``xyz_mm``, ``track`` and ``extra``.

    Args:
        predicted: N people.
        truth: M people.
        threshold: OKS must be above it.
        sigmas: K sigmas; None uses those of the skeleton.
        box_area_factor: As in ``poseglass.metrics.oks.person_area``.

    Returns:
        M instances.

    Raises:
        ValueError: Skeletons differ, or there are no sigmas or areas.
    """
    rows = match(predicted, truth, threshold=threshold, sigmas=sigmas, box_area_factor=box_area_factor)
    m, k = len(truth), len(truth.skeleton)
    xy = np.full((m, k, 2), np.nan, np.float32)
    box_xyxy = np.full((m, 4), np.nan, np.float32)
    score, box_score = np.zeros((m, k), np.float32), np.zeros(m, np.float32)
    taken = rows >= 0
    to = rows[taken]
    xy[to], score[to] = predicted.xy[taken], predicted.score[taken]
    box_xyxy[to], box_score[to] = predicted.box_xyxy[taken], predicted.box_score[taken]
    return Instances(truth.skeleton, xy, score, box_xyxy, box_score)
