"""MobileNetV3: inverted residuals with squeeze-and-excitation and h-swish, found by architecture search.

Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244. Reference code:
d-li14/mobilenetv3.pytorch (MIT), torchvision (BSD), timm (Apache-2.0); written from the paper and tables of their
layers and counts.

How this differs from the paper: the classification tail (global average pooling, 960 -> 1280 -> 1000) is omitted, since
pose networks need maps. Public implementations disagree on whether the activation or squeeze-and-excitation comes
first, and on the epsilon of batch norm; both are arguments, so that weights from either can be used. Widths inside a
block follow the input's rounded width, as in d-li14 and timm.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from poseglass.layers.conv_norm import Activation, ConvNorm
from poseglass.layers.inverted_residual import InvertedResidual, Order
from poseglass.layers.round_channels import round_channels


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the paper's tables 1 and 2, at width 1.

    Args:
        kernel_size: Kernel size of the depthwise convolution.
        expanded: Channels inside the block.
        out_channels: Output channels of the block.
        squeeze: Whether the block has squeeze-and-excitation.
        activation: Activation inside the block.
        stride: Stride of the depthwise convolution.
    """

    kernel_size: int
    expanded: int
    out_channels: int
    squeeze: bool
    activation: Activation
    stride: int


LARGE = (
    Row(3, 16, 16, False, "relu", 1),
    Row(3, 64, 24, False, "relu", 2),
    Row(3, 72, 24, False, "relu", 1),
    Row(5, 72, 40, True, "relu", 2),
    Row(5, 120, 40, True, "relu", 1),
    Row(5, 120, 40, True, "relu", 1),
    Row(3, 240, 80, False, "hardswish", 2),
    Row(3, 200, 80, False, "hardswish", 1),
    Row(3, 184, 80, False, "hardswish", 1),
    Row(3, 184, 80, False, "hardswish", 1),
    Row(3, 480, 112, True, "hardswish", 1),
    Row(3, 672, 112, True, "hardswish", 1),
    Row(5, 672, 160, True, "hardswish", 2),
    Row(5, 960, 160, True, "hardswish", 1),
    Row(5, 960, 160, True, "hardswish", 1),
)

SMALL = (
    Row(3, 16, 16, True, "relu", 2),
    Row(3, 72, 24, False, "relu", 2),
    Row(3, 88, 24, False, "relu", 1),
    Row(5, 96, 40, True, "hardswish", 2),
    Row(5, 240, 40, True, "hardswish", 1),
    Row(5, 240, 40, True, "hardswish", 1),
    Row(5, 120, 48, True, "hardswish", 1),
    Row(5, 144, 48, True, "hardswish", 1),
    Row(5, 288, 96, True, "hardswish", 2),
    Row(5, 576, 96, True, "hardswish", 1),
    Row(5, 576, 96, True, "hardswish", 1),
)

STEM_CHANNELS = 16


class MobileNetV3(nn.Module):
    """Images to five levels, one at each of the strides 2, 4, 8, 16 and 32.

    Args:
        rows: The blocks, ``LARGE`` or ``SMALL``.
        width: Multiplier of every number of channels.
        last: Whether the 1x1 convolution after the blocks (160 -> 960, 96 -> 576) is part of the last level.
        order: Order of activation and squeeze-and-excitation, see ``InvertedResidual``.
        eps: Epsilon of batch norm: 1e-5 (d-li14, timm) or 1e-3 (torchvision).

    Attributes:
        channels: Channels of the levels, finest first; (16, 24, 40, 112, 960) for Large at width 1.
        strides: Strides of the levels, (2, 4, 8, 16, 32).
        divisor: Both sides of an input must be divisible by it, 32.

    Raises:
        ValueError: A width that is not positive, or an unknown order.

    Source:
        Howard et al. 2019, tables 1 and 2.
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        *,
        width: float = 1.0,
        last: bool = True,
        order: Order = "activate_excite",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"MobileNetV3: width must be a number above 0, such as 0.75 or 1.0, got {width!r}.")
        if order not in ("activate_excite", "excite_activate"):
            raise ValueError(f"MobileNetV3: order must be 'activate_excite' or 'excite_activate', got {order!r}.")
        now = round_channels(STEM_CHANNELS * width)
        self.stem = ConvNorm(3, now, 3, stride=2, activation="hardswish", eps=eps)
        self.blocks = nn.ModuleList()
        channels: list[int] = []
        stated = STEM_CHANNELS
        for row in rows:
            if row.stride == 2:  # the features before a strided block are the last of their level
                channels.append(now)
            expanded, made = round_channels(now * row.expanded / stated), round_channels(row.out_channels * width)
            self.blocks.append(
                InvertedResidual(
                    now,
                    expanded,
                    made,
                    kernel_size=row.kernel_size,
                    stride=row.stride,
                    squeeze=row.squeeze,
                    activation=row.activation,
                    order=order,
                    eps=eps,
                )
            )
            stated, now = row.out_channels, made
        wide = round_channels(rows[-1].expanded * width)
        self.last = ConvNorm(now, wide, 1, activation="hardswish", eps=eps) if last else None
        self.order, self.eps = order, eps  # kept because no tensor shape shows them
        self.channels = (*channels, wide if last else now)
        self.strides = tuple(2 ** (i + 1) for i in range(len(self.channels)))
        self.divisor = self.strides[-1]
        self._shrinks = [row.stride == 2 for row in rows]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to the levels ``(B, channels[i], H / strides[i], W / strides[i])``, finest first."""
        features, levels = self.stem(images), []
        for block, shrinks in zip(self.blocks, self._shrinks, strict=True):
            if shrinks:
                levels.append(features)
            features = block(features)
        return [*levels, features if self.last is None else self.last(features)]


def mobilenet_v3_large(
    *, width: float = 1.0, last: bool = True, order: Order = "activate_excite", eps: float = 1e-5
) -> MobileNetV3:
    """MobileNetV3-Large: 2,971,952 parameters at width 1 without the classification tail."""
    return MobileNetV3(LARGE, width=width, last=last, order=order, eps=eps)


def mobilenet_v3_small(
    *, width: float = 1.0, last: bool = True, order: Order = "activate_excite", eps: float = 1e-5
) -> MobileNetV3:
    """MobileNetV3-Small: 927,008 parameters at width 1 without the classification tail."""
    return MobileNetV3(SMALL, width=width, last=last, order=order, eps=eps)
