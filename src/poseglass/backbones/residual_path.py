"""The way down of an hourglass as a backbone: residuals of one width, pooled between the levels.

Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016, https://arxiv.org/abs/1603.06937,
for the stem and the way down; as a backbone of its own, with the lighter residuals of ``layers/light_residual.py``, it
is our own, and there are no published weights or results for it.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.light_residual import RESIDUALS, check_block


class ResidualPath(nn.Module):
    """Images to levels of one width at the strides 4, 8, 16 and so on.

    7x7 convolution of stride 2, residual, pooling, residual; and for each further level pooling and ``num_blocks``
    residuals. Batch norm and ReLU end every level, because pre-activation residuals end with a sum.

    Args:
        width: Channels of every level, a multiple of 4 (of 16 with dense residuals).
        block: Kind of the residuals, as in ``StackedHourglass``.
        num_blocks: Residuals of each level.
        levels: Number of levels; the last one has stride ``2 ** (levels + 1)``.

    Attributes:
        channels: ``(width, width, ...)``.
        strides: Strides of the levels, (4, 8, 16, 32) for four.
        divisor: Both sides of an input must be divisible by it: the last stride.

    Raises:
        ValueError: An unknown block, a width that it cannot have, or a number below one.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        block: Literal["bottleneck", "depthwise", "dense"] = "bottleneck",
        num_blocks: int = 1,
        levels: int = 4,
    ) -> None:
        super().__init__()
        check_block("ResidualPath", block, width)
        for name, value in (("num_blocks", num_blocks), ("levels", levels)):
            if int(value) != value or value < 1:
                raise ValueError(f"ResidualPath: {name} must be a whole number above 0, got {value!r}.")
        residual = RESIDUALS[block]
        self.stem = ConvNorm(3, width // 4, 7, stride=2)
        self.first = residual(width // 4, width // 2)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(residual(width // 2 if i == j == 0 else width, width) for j in range(num_blocks)),
            )
            for i in range(levels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(levels))
        self.channels = (width,) * levels
        self.strides = tuple(2 ** (i + 2) for i in range(levels))
        self.divisor = self.strides[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to the levels ``(B, width, H / strides[i], W / strides[i])``, finest first."""
        features, made = self.first(self.stem(images)), []
        for level, norm in zip(self.levels, self.norms, strict=True):
            features = level(functional.max_pool2d(features, 2))
            made.append(functional.relu(norm(features)))
        return made
