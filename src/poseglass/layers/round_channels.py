"""Channel counts after a width multiplier: multiples of 8, never much below the requested count."""


def round_channels(channels: float, multiple: int = 8) -> int:
    """Return the multiple nearest to ``channels``, or the next higher one if that is more than a tenth too small.

    Source:
        The rule of the MobileNet papers' public code; Howard et al. 2019, https://arxiv.org/abs/1905.02244.

    Example:
        >>> [round_channels(count) for count in (3, 12, 18, 24, 30)]
        [8, 16, 24, 24, 32]
    """
    nearest = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return nearest + multiple if nearest < 0.9 * channels else nearest
