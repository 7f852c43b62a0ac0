"""Feature Pyramid Network: 1x1 lateral convolutions, added along a top-down path from the coarsest level.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, https://arxiv.org/abs/1612.03144. Written from
the paper.

How this differs from the paper: a detector reads every level and shares one head among them. ``FPNLevels`` gives it
those, without the paper's P6. For keypoints only the finest level that is used is read, so ``FPN`` smooths only that
one. One level of an hourglass does the same with residuals in place of the lateral convolutions, and one more after
upsampling: ``tests/necks`` converts each into the other.
"""

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.pyramid import levels_from


class FPN(nn.Module):
    """Top-down by addition.

    Args:
        channels: Channels of the backbone's levels, finest first.
        strides: Strides of those levels.
        width: Channels of every map inside.
        out_stride: Stride of the output, and of the finest level that is used; finer levels are ignored.
        norm: Whether batch norm and ReLU follow the smoothing. A detector's heads have nonlinearities of their own; a
            single 1x1 convolution to heatmaps does not, and this neck is otherwise linear.

    Attributes:
        out_channels: ``width``.
        out_stride: As given.

    Raises:
        ValueError: No level has stride ``out_stride``.

    Source:
        Lin et al. 2017, section 3. Upsampling is nearest-neighbour.
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
        self._first, self._factors = levels_from(strides, out_stride, "FPN")
        self.out_channels, self.out_stride = width, out_stride
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels[self._first :])
        self.smoothing = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else None

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map a backbone's levels, finest first, to ``(B, width, H / out_stride, W / out_stride)``."""
        features = self.smoothing(_top_down(self.laterals, self._factors, levels[self._first :])[0])
        return features if self.norm is None else functional.relu(self.norm(features), inplace=True)


class FPNLevels(nn.Module):
    """Top-down by addition, with a smoothed map of every level that is used, for heads shared by the levels.

    Args:
        channels: Channels of the backbone's levels, finest first.
        strides: Strides of those levels.
        width: Channels of every map.
        out_stride: Stride of the finest map; finer levels are ignored. 8 gives P3 and what is coarser.

    Attributes:
        out_channels: ``width``.
        out_strides: Strides of the maps, finest first.

    Raises:
        ValueError: No level has stride ``out_stride``.

    Source:
        Lin et al. 2017, section 3 and figure 3. Upsampling is nearest-neighbour.
    """

    def __init__(
        self, channels: tuple[int, ...], strides: tuple[int, ...], *, width: int = 256, out_stride: int = 8
    ) -> None:
        super().__init__()
        self._first, self._factors = levels_from(strides, out_stride, "FPNLevels")
        self.out_channels, self.out_strides = width, tuple(strides[self._first :])
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels[self._first :])
        self.smoothings = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.out_strides)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Map a backbone's levels to maps ``(B, width, H / s, W / s)`` for each s of ``out_strides``."""
        maps = _top_down(self.laterals, self._factors, levels[self._first :])
        return [smoothing(features) for smoothing, features in zip(self.smoothings, maps, strict=True)]


def _top_down(laterals: nn.ModuleList, factors: list[int], levels: list[Tensor]) -> list[Tensor]:
    """Return the merged maps of all levels, finest first, before smoothing."""
    features = laterals[-1](levels[-1])
    merged = [features]
    for i in reversed(range(len(factors))):
        features = functional.interpolate(features, scale_factor=float(factors[i]), mode="nearest")
        features = laterals[i](levels[i]) + features
        merged.insert(0, features)
    return merged
