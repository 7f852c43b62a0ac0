"""The coarsest level alone, made larger: what a top-down path is without the levels beside it.

Nobody proposes this. It is an FPN (``necks/fpn.py``) with all laterals cut but the coarsest one, so that a comparison
of necks can tell what the finer levels are worth.
"""

from torch import Tensor, nn
from torch.nn import functional


class Upsample(nn.Module):
    """1x1 to ``width``, nearest-neighbour, 3x3; no level but the coarsest is read.

    Args:
        channels: Of the backbone's levels, finest first.
        strides: Of those levels.
        width: Channels of every map inside.
        out_stride: Of what is given.
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
