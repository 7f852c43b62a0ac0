"""LR-ASPP: the light segmentation head of MobileNetV3.

Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244, section 6.4 and figure 10.
Reference code: torchvision (BSD).

How this differs from the paper: the means that weight the channels are over the whole map, as in torchvision, unless
``pool_hw`` is given; and maps are resized without aligning corners, as everywhere here.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm

PAPER_POOL_HW = (49, 49)
PAPER_POOL_STRIDE_HW = (16, 20)
"""The paper's pooling, for maps of stride 16 of images of 2048 x 1024 pixels."""


class LrAsppHead(nn.Module):
    """Coarse features, weighted by their means, and fine features, each to a logit per class; their sum.

    Args:
        channels: Channels of the backbone's levels.
        strides: Strides of the backbone's levels, finest first. The last level is the coarse one.
        num_classes: Number of classes, C.
        width: Channels of the weighted features.
        pool_hw: Height and width of the windows of the means, clipped to the map; None takes the whole map.
        pool_stride_hw: Steps between windows.
        fine_stride: Stride of the fine features; the first level of that stride is taken.

    Attributes:
        out_stride: Input pixels per pixel of the logits, ``fine_stride``.

    Raises:
        ValueError: Fewer than one class, a width or window below 1, or no level of the fine stride.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        *,
        width: int = 128,
        pool_hw: tuple[int, int] | None = None,
        pool_stride_hw: tuple[int, int] = PAPER_POOL_STRIDE_HW,
        fine_stride: int = 8,
    ) -> None:
        super().__init__()
        if num_classes < 1 or width < 1:
            raise ValueError(
                "LrAsppHead takes at least 1 class and a width of at least 1, got "
                f"num_classes={num_classes}, width={width}."
            )
        if min(*(pool_hw or (1, 1)), *pool_stride_hw) < 1:
            raise ValueError(
                "LrAsppHead: pool_hw and pool_stride_hw must be at least 1 pixel high and wide, got "
                f"{pool_hw} and {pool_stride_hw}."
            )
        if fine_stride not in strides[:-1]:
            raise ValueError(
                f"LrAsppHead needs a level of stride {fine_stride} before the last one; the backbone's levels have "
                f"strides {', '.join(map(str, strides))}. Set fine_stride to one of those."
            )
        self.pool_hw, self.pool_stride_hw = pool_hw, pool_stride_hw
        self.fine_level = list(strides).index(fine_stride)
        self.out_stride = fine_stride
        self.reduce = ConvNorm(channels[-1], width, 1)
        self.weigh = nn.Conv2d(channels[-1], width, 1, bias=False)
        self.fine_classes = nn.Conv2d(channels[self.fine_level], num_classes, 1)
        self.coarse_classes = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map a backbone's levels, finest first, to logits ``(B, C, H / out_stride, W / out_stride)``."""
        fine, coarse = levels[self.fine_level], levels[-1]
        weighted = self.reduce(coarse) * self._weights(coarse)
        weighted = functional.interpolate(weighted, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.fine_classes(fine) + self.coarse_classes(weighted)

    def _weights(self, coarse: Tensor) -> Tensor:
        """Return factors in [0, 1], ``(B, width, h, w)`` or ``(B, width, 1, 1)``."""
        if self.pool_hw is None:
            return self.weigh(coarse.mean((-2, -1), keepdim=True)).sigmoid()
        height, width = coarse.shape[-2:]
        window = (min(self.pool_hw[0], height), min(self.pool_hw[1], width))
        factors = self.weigh(functional.avg_pool2d(coarse, window, self.pool_stride_hw)).sigmoid()
        return functional.interpolate(factors, size=(height, width), mode="bilinear", align_corners=False)
