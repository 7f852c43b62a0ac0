"""Which levels of a backbone a top-down path runs over, and by how much each is smaller than the next."""

import itertools


def levels_from(strides: tuple[int, ...], out_stride: int, what: str) -> tuple[int, list[int]]:
    """Return where the levels from ``out_stride`` on begin, and the factors from each of them to the next coarser.

    Args:
        strides: Of all levels, finest first.
        out_stride: Of the finest level that is to be used.
        what: Asks, for the message.

    Raises:
        ValueError: No level has that stride, or the strides do not grow by whole factors.

    Example:
        >>> levels_from((2, 4, 8, 32), 4, "FPN")
        (1, [2, 4])
    """
    if out_stride not in strides:
        known = ", ".join(str(stride) for stride in strides)
        raise ValueError(
            f"{what}: out_stride={out_stride} needs a level of that stride; the backbone's are {known}. "
            "Take one of those, or another backbone."
        )
    used = strides[strides.index(out_stride) :]
    steps = list(itertools.pairwise(used))
    if any(coarse % fine for fine, coarse in steps):
        raise ValueError(f"{what}: strides of levels must grow by whole factors, finest first, got {strides}.")
    return strides.index(out_stride), [coarse // fine for fine, coarse in steps]
