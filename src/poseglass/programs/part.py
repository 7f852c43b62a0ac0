"""A part of the keypoints that a network predicts, by name."""

from dataclasses import replace

import torch

from poseglass.core.prediction import BY_KEYPOINT, Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed


def check_part(part: Skeleton, whole: Skeleton) -> None:
    """Raise unless a skeleton has only keypoints that another one has.

    Raises:
        ValueError: It names the missing keypoints.
    """
    missing = [name for name in part.keypoints if name not in whole.keypoints]
    if missing:
        raise ValueError(
            f"Skeleton {part.name!r} needs {listed(missing)}, which these weights do not predict. "
            f"They predict {whole.name!r}: {', '.join(whole.keypoints)}."
        )


def in_part(decoded: Decoded, whole: Skeleton, part: Skeleton | None) -> Decoded:
    """Return decoded instances with the keypoints of a part of their skeleton, in its order; None keeps all."""
    if part is None:
        return decoded
    order = torch.as_tensor([whole.index(name) for name in part.keypoints], device=decoded.xy.device)
    given = {name: getattr(decoded, name) for name in BY_KEYPOINT}
    return replace(decoded, **{name: one.index_select(2, order) for name, one in given.items() if one is not None})
