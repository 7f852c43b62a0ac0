"""The coarsest level alone, upsampled: a top-down path without lateral connections.

No paper proposes this. It is an FPN (``necks/fpn.py``) without any lateral connections except the coarsest, for
ablations that measure what the finer levels contribute.
"""

from torch import Tensor, nn
from torch.nn import functional


class Upsample(nn.Module):
    """1x1 convolution to ``width``, nearest-neighbour upsampling, 3x3 convolution; only the coarsest level is used.

    Args:
        channels: Channels of the backbone's levels, finest first.
        strides: Strides of those levels.
        width: Channels of every map inside.
        out_stride: Stride of the output.
        norm: Whether batch norm and ReLU follow the 3x3 convolution.

    Attributes:
        out_channels: ``width``.
        out_stride: As given.

    Raises:
        ValueError: ``out_stride`` does not divide the coarsest stride.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        width: int = 256,
        out_stride: int = 4,
        norm: bool = False,
    ) -> None:
        super().__init__()
        if out_stride < 1 or strides[-1] % out_stride:
            raise ValueError(
                f"Upsample: out_stride={out_stride} must divide the coarsest level's stride, {strides[-1]}."
            )
        self.out_channels, self.out_stride = width, out_stride
        self._factor = strides[-1] // out_stride
        self.lateral = nn.Conv2d(channels[-1], width, 1)
        self.smoothing = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else None

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map a backbone's levels, finest first, to ``(B, width, H / out_stride, W / out_stride)``."""
        features = self.lateral(levels[-1])
        features = functional.interpolate(features, scale_factor=float(self._factor), mode="nearest")
        features = self.smoothing(features)
        return features if self.norm is None else functional.relu(self.norm(features), inplace=True)
