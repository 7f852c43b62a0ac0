"""Selects the levels of a backbone that a top-down path uses, and the scale factors between them."""

import itertools


def levels_from(strides: tuple[int, ...], out_stride: int, what: str) -> tuple[int, list[int]]:
    """Return the index of the level with ``out_stride``, and the factor from each level to the next coarser one.

    Args:
        strides: Strides of all levels, finest first.
        out_stride: Stride of the finest level to use.
        what: Name of the caller, for the message.

    Raises:
        ValueError: No level has that stride, or the strides are not multiples of each other.

    Example:
        >>> levels_from((2, 4, 8, 32), 4, "FPN")
        (1, [2, 4])
    """
    if out_stride not in strides:
        known = ", ".join(str(stride) for stride in strides)
        raise ValueError(
            f"{what}: out_stride={out_stride} needs a level of that stride; the backbone's are {known}. "
            "Use one of those, or another backbone."
        )
    used = strides[strides.index(out_stride) :]
    steps = list(itertools.pairwise(used))
    if any(coarse % fine for fine, coarse in steps):
        raise ValueError(f"{what}: strides of levels must grow by whole factors, finest first, got {strides}.")
    return strides.index(out_stride), [coarse // fine for fine, coarse in steps]
