"""No neck: one level of the backbone, unchanged. For HRNet's finest level, or the coarsest of a dilated backbone."""

from collections.abc import Sequence

from torch import Tensor, nn


class Level(nn.Module):
    """The features of one level, unchanged.

    Args:
        channels: Channels of the backbone's levels.
        strides: Strides of the backbone's levels.
        level: Index of the level: 0 is the finest, -1 the coarsest.

    Attributes:
        out_channels, out_stride: As in every neck.

    Raises:
        ValueError: The backbone has no such level.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, level: int = 0) -> None:
        super().__init__()
        if not -len(channels) <= level < len(channels):
            raise ValueError(
                f"Level: the backbone has {len(channels)} levels, of strides {', '.join(map(str, strides))}; level "
                f"must be from {-len(channels)} to {len(channels) - 1}, got {level}."
            )
        self.level = level
        self.out_channels = channels[level]
        self.out_stride = strides[level]

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return ``levels[level]``."""
        return levels[self.level]
