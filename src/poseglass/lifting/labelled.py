"""2D labels of photographs as RepNet's points, which need no 3D."""

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.lifting.bodies import CONVERT
from poseglass.lifting.repnet import REPNET16


def labelled_points(people: Instances, world: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return the people all of whose keypoints are labelled, in ``REPNET16``'s order: ``(M, 16, 2)`` pixels.

    Keypoints that the labels have no name for, such as the spine, are placed as a weighted sum of the others. The
    weights sum to 1 and are fitted to poses in 3D, so they hold as well for what a weak perspective camera sees of
    these. (RepNet's loss does not count the spine.)

    Args:
        people: Labels.
        world: ``(N, K, 3)``, poses in any unit, to fit the weights to; not paired with the labels.
        skeleton: Of the poses.

    Raises:
        ValueError: The labels lack more than the trunk: no arms, legs, neck or head. Or the poses lack keypoints.

    Example:
        >>> from poseglass.core.skeletons import H36M17, LSP14
        >>> rng = np.random.default_rng(0)
        >>> people = Instances.from_keypoints(LSP14, rng.uniform(0, 100, (3, 14, 2)))
        >>> labelled_points(people, rng.normal(size=(50, 17, 3)), H36M17).shape
        (3, 16, 2)
    """
    source = people.skeleton.indices_of(REPNET16.keypoints)
    names = REPNET16.keypoints
    there = source >= 0
    lacking = [name for name, found in zip(names, there, strict=True) if not found]
    if set(lacking) - {"spine", "thorax"}:
        odd = sorted(set(lacking) - {"spine", "thorax"})
        raise ValueError(
            f"Labels in skeleton {people.skeleton.name!r} have no {', '.join(odd)}, which RepNet needs. Give labels "
            "with arms, legs, neck and head_top, such as LSP's; those of COCO itself have neither neck nor head_top."
        )
    xy = people.xy[:, source[there]].astype(np.float64)
    xy = xy[people.known[:, source[there]].all(1)]
    out = np.zeros((len(xy), len(names), 2))
    out[:, there] = xy
    poses = np.asarray(world, np.float64)[:, skeleton.all_indices_of(names, needed_by="RepNet", advice=CONVERT)]
    poses = poses - poses[:, there].mean(1, keepdims=True)
    middle = xy.mean(1, keepdims=True)
    for name in lacking:
        column = names.index(name)
        inputs = poses[:, there].transpose(0, 2, 1).reshape(-1, int(there.sum()))
        # centred, and with a share of the mean to make the sum of the weights 1
        weights, *_ = np.linalg.lstsq(inputs, poses[:, column].reshape(-1), rcond=None)
        weights = weights + (1 - weights.sum()) / len(weights)
        out[:, column] = np.einsum("nki,k->ni", xy - middle, weights) + middle[:, 0]
    return out.astype(np.float32)
