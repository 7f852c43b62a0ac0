"""MobileNetV3: inverted residuals with squeeze-and-excitation and h-swish, found by architecture search.

Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244. Reference code:
d-li14/mobilenetv3.pytorch (MIT), torchvision (BSD), timm (Apache-2.0); written from the paper and tables of their
layers and counts.

How this differs from the paper: the classification tail (global average pooling, 960 -> 1280 -> 1000) is not part of
the backbone, since pose networks need maps; ``networks.mobilenet_v3`` has it. Public implementations disagree on
whether the activation or squeeze-and-excitation comes first, and on the epsilon of batch norm; both are arguments, so
that weights from either can be used. Widths inside a block follow the input's rounded width, as in d-li14 and timm.

For dense prediction (section 6.4), the last strides can be replaced by dilation and the last level can have half the
channels. Public code disagrees here too: the block that loses its stride keeps its undilated kernel in the paper's own
(TensorFlow) code, as in DeepLab, and is dilated in torchvision; and the features of a stride are those of its last
block in DeepLab, of its first in torchvision. Both are arguments.
"""

from dataclasses import dataclass, replace
from typing import Literal

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

Taps = Literal["last", "first"]


def with_hardswish_from(rows: tuple[Row, ...], channels: int | None) -> tuple[Row, ...]:
    """Return the rows with h-swish in the first block of that many output channels and all after it, else ReLU.

    The convolutions before and after the blocks keep their h-swish.

    Args:
        rows: ``LARGE`` or ``SMALL``.
        channels: Output channels of a block at width 1, as N in the paper's "h-swish @N"; None leaves the rows as they
            are, which is 80 for Large and 40 for Small.

    Raises:
        ValueError: No block has that many output channels.

    Source:
        Howard et al. 2019, sections 5.2 and 6.1, the ablation of nonlinearities.
    """
    if channels is None:
        return rows
    counts = [row.out_channels for row in rows]
    if channels not in counts:
        known = ", ".join(map(str, dict.fromkeys(counts)))
        raise ValueError(
            f"MobileNetV3: hardswish_from must be the output channels of a block at width 1, one of {known}; got "
            f"{channels!r}."
        )
    first = counts.index(channels)
    return tuple(replace(row, activation="hardswish" if i >= first else "relu") for i, row in enumerate(rows))


def with_reduced_tail(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows with half the output channels from the last strided block on; for Large 80 instead of 160.

    Source:
        Howard et al. 2019, section 6.4, "RF2"; ``reduced_tail`` in torchvision.
    """
    first = max(i for i, row in enumerate(rows) if row.stride == 2)
    return tuple(
        row
        if i < first
        else replace(
            row, out_channels=row.out_channels // 2, expanded=row.expanded if i == first else row.expanded // 2
        )
        for i, row in enumerate(rows)
    )


class MobileNetV3(nn.Module):
    """Images to five levels, one at each of the strides 2, 4, 8, 16 and 32.

    Args:
        rows: The blocks, ``LARGE`` or ``SMALL``.
        width: Multiplier of every number of channels.
        last: Whether the 1x1 convolution after the blocks (160 -> 960, 96 -> 576) is part of the last level.
        order: Order of activation and squeeze-and-excitation, see ``InvertedResidual``.
        eps: Epsilon of batch norm: 1e-5 (d-li14, timm) or 1e-3 (torchvision).
        output_stride: Stride of the last level: 32, 16 or 8. With 16 or 8, the last one or two strided blocks keep
            their input's resolution, and the depthwise convolutions after them are dilated by 2, then 4. The tensors
            are the same, and so are the features at the positions that the strided network computes, up to
            squeeze-and-excitation, whose means are over more positions.
        dilates_first: Whether a block that has lost its stride is dilated itself, as in torchvision.
        reduced_tail: Whether the last level has half the channels, see ``with_reduced_tail``.
        hardswish_from: Output channels of the first block with h-swish, see ``with_hardswish_from``.
        taps: Whether the levels before the last one are the outputs of the last block of their stride, or of the first,
            as in torchvision's networks for segmentation.

    Attributes:
        channels: Channels of the levels, finest first; (16, 24, 40, 112, 960) for Large at width 1.
        strides: Strides of the levels, (2, 4, 8, 16, 32), none larger than the output stride.
        divisor: Both sides of an input must be divisible by it: the output stride.

    Raises:
        ValueError: A width that is not positive, an unknown order or taps, an output stride that is not 8, 16 or 32, or
            no block with ``hardswish_from`` output channels.

    Source:
        Howard et al. 2019, tables 1 and 2 and section 6.4.
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        *,
        width: float = 1.0,
        last: bool = True,
        order: Order = "activate_excite",
        eps: float = 1e-5,
        output_stride: int = 32,
        dilates_first: bool = False,
        reduced_tail: bool = False,
        hardswish_from: int | None = None,
        taps: Taps = "last",
    ) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"MobileNetV3: width must be a number above 0, such as 0.75 or 1.0, got {width!r}.")
        if order not in ("activate_excite", "excite_activate"):
            raise ValueError(f"MobileNetV3: order must be 'activate_excite' or 'excite_activate', got {order!r}.")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"MobileNetV3: output_stride must be 8, 16 or 32, got {output_stride!r}.")
        if taps not in ("last", "first"):
            raise ValueError(f"MobileNetV3: taps must be 'last' or 'first', got {taps!r}.")
        rows = with_hardswish_from(rows, hardswish_from)
        rows = with_reduced_tail(rows) if reduced_tail else rows
        now = round_channels(STEM_CHANNELS * width)
        self.stem = ConvNorm(3, now, 3, stride=2, activation="hardswish", eps=eps)
        self.blocks = nn.ModuleList()
        channels: list[int] = []
        strides, dilation = [2], 1
        stated = STEM_CHANNELS
        if taps == "first":
            channels.append(now)
        for row in rows:
            stride, here = row.stride, dilation
            if row.stride == 2:
                if taps == "last":  # the features before a strided block are the last of their level
                    channels.append(now)
                if strides[-1] == output_stride:
                    stride, dilation = 1, 2 * dilation
                    here = dilation if dilates_first else here
                strides.append(strides[-1] * stride)
            expanded, made = round_channels(now * row.expanded / stated), round_channels(row.out_channels * width)
            self.blocks.append(
                InvertedResidual(
                    now,
                    expanded,
                    made,
                    kernel_size=row.kernel_size,
                    stride=stride,
                    dilation=here,
                    squeeze=row.squeeze,
                    activation=row.activation,
                    order=order,
                    eps=eps,
                    adds=False if row.stride == 2 else None,
                )
            )
            stated, now = row.out_channels, made
            if row.stride == 2 and taps == "first":
                channels.append(now)
        wide = round_channels(rows[-1].expanded * width)
        self.last = ConvNorm(now, wide, 1, activation="hardswish", eps=eps) if last else None
        self.order, self.eps, self.taps = order, eps, taps  # kept because no tensor shape shows them
        # the last level ends with the last block, whichever block of the others is taken
        self.channels = (*channels[: len(strides) - 1], wide if last else now)
        self.strides = tuple(strides)
        self.divisor = output_stride
        self._starts_level = [row.stride == 2 for row in rows]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``(B, 3, H, W)`` to the levels ``(B, channels[i], H / strides[i], W / strides[i])``, finest first."""
        features = self.stem(images)
        ends, firsts = [], [features]
        for block, starts in zip(self.blocks, self._starts_level, strict=True):
            if starts:
                ends.append(features)
            features = block(features)
            if starts:
                firsts.append(features)
        levels = ends if self.taps == "last" else firsts[:-1]
        return [*levels, features if self.last is None else self.last(features)]


def mobilenet_v3_large(
    *,
    width: float = 1.0,
    last: bool = True,
    order: Order = "activate_excite",
    eps: float = 1e-5,
    output_stride: int = 32,
    dilates_first: bool = False,
    reduced_tail: bool = False,
    hardswish_from: int | None = None,
    taps: Taps = "last",
) -> MobileNetV3:
    """MobileNetV3-Large: 2,971,952 parameters at width 1 without the classification tail."""
    return MobileNetV3(
        LARGE,
        width=width,
        last=last,
        order=order,
        eps=eps,
        output_stride=output_stride,
        dilates_first=dilates_first,
        reduced_tail=reduced_tail,
        hardswish_from=hardswish_from,
        taps=taps,
    )


def mobilenet_v3_small(
    *,
    width: float = 1.0,
    last: bool = True,
    order: Order = "activate_excite",
    eps: float = 1e-5,
    output_stride: int = 32,
    dilates_first: bool = False,
    reduced_tail: bool = False,
    hardswish_from: int | None = None,
    taps: Taps = "last",
) -> MobileNetV3:
    """MobileNetV3-Small: 927,008 parameters at width 1 without the classification tail."""
    return MobileNetV3(
        SMALL,
        width=width,
        last=last,
        order=order,
        eps=eps,
        output_stride=output_stride,
        dilates_first=dilates_first,
        reduced_tail=reduced_tail,
        hardswish_from=hardswish_from,
        taps=taps,
    )
