"""A depthwise convolution whose gradients are fast in bfloat16 on a CPU.

oneDNN has quick kernels for depthwise convolutions in bfloat16, but falls back to slow ones for two gradients: that of
the input at stride 2, and that of a 5x5 kernel. Both can be put together from convolutions that are quick:

- At stride 2, input pixels whose row is even meet other rows of the kernel than those whose row is odd, and likewise
  for columns. So each of the four kinds of pixels gets its gradient from a convolution of stride 1 with a part of the
  kernel.
- The gradient of a 5x5 kernel is that of four 3x3 kernels which lie over its corners, on an input that is shifted by 0
  or 2 pixels. They overlap in the middle, where they agree.

Measured on two cores of an AMD EPYC: 57 to 8 ms for the first (96 channels of 81 x 81, batch 32), 29 to 4 ms for the
second (672 channels of 10 x 10); see ``benchmarks/depthwise.py``.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Pair = tuple[int, int]


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with as many groups as channels and without bias; same parameters and results.

    While it trains on a CPU in bfloat16, its gradients take the ways described above; everywhere else it is a plain
    ``nn.Conv2d``.

    Args:
        channels: Channels of input and output.
        kernel_size: Side of the kernel.
        stride: Stride.
        padding: Zeros added on each side.
        dilation: Dilation.
    """

    def __init__(
        self, channels: int, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
    ) -> None:
        super().__init__(
            channels, channels, kernel_size, stride, padding, dilation=dilation, groups=channels, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to ``(B, C, h', w')``."""
        if not self.training or not self._has_slow_gradient() or not _trains_in_bfloat16(input):
            return super().forward(input)
        taken = input.to(torch.bfloat16), self.weight.to(torch.bfloat16)
        return cast(Tensor, _Depthwise.apply(*taken, self.stride[0], cast(Pair, self.padding)))

    def _has_slow_gradient(self) -> bool:
        square = self.kernel_size[0] == self.kernel_size[1] and self.stride[0] == self.stride[1]
        slow = self.stride[0] == 2 or self.kernel_size[0] == 5
        return square and slow and self.kernel_size[0] in (3, 5) and self.stride[0] <= 2 and self.dilation == (1, 1)


def _trains_in_bfloat16(features: Tensor) -> bool:
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if features.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return False


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 or 2 with a 3x3 or 5x5 kernel, all in bfloat16."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, stride: int, padding: Pair) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(features, kernel, None, stride, padding, groups=len(kernel))

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]  # autograd passes both by position
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, kernel = ctx.saved_tensors
        gradient = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        of_input, of_kernel = None, None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                of_input = gradient_of_input(gradient, kernel, features.shape, ctx.stride, ctx.padding)
            if ctx.needs_input_grad[1]:
                of_kernel = gradient_of_kernel(gradient, features, kernel.shape[-1], ctx.stride, ctx.padding)
        return of_input, of_kernel, None, None


def gradient_of_input(gradient: Tensor, kernel: Tensor, shape: torch.Size, stride: int, padding: Pair) -> Tensor:
    """Return the gradient of a depthwise convolution's input.

    Args:
        gradient: Of the output, ``(B, C, h', w')``.
        kernel: ``(C, 1, k, k)``.
        shape: Of the input, ``(B, C, h, w)``.
        stride: Stride of the convolution.
        padding: Zeros above and below, and left and right.
    """
    side = kernel.shape[-1]
    if stride == 1:
        return _convolve(gradient, kernel, *((side - 1 - pad, side - 1 - pad) for pad in padding))
    result = torch.empty(shape, dtype=gradient.dtype).contiguous(memory_format=torch.channels_last)
    for row in range(stride):
        for column in range(stride):
            # Input row i meets kernel row t in output row o when i + padding = stride * o + t: t is congruent to `row`.
            part = kernel[:, :, row::stride, column::stride]
            if (row - padding[0]) % stride >= shape[2] or (column - padding[1]) % stride >= shape[3]:
                continue  # no input pixel is of this kind
            starts, pads = [], []
            for first, extent, of_output, pad, taps in zip(
                (row, column), shape[2:], gradient.shape[2:], padding, part.shape[2:], strict=True
            ):
                start = (first - pad) % stride
                shift = (start + pad - first) // stride
                before = taps - 1 - shift
                starts.append(start)
                pads.append((before, len(range(start, extent, stride)) + shift - of_output))
            result[:, :, starts[0] :: stride, starts[1] :: stride] = _convolve(gradient, part, *pads)
    return result


def gradient_of_kernel(gradient: Tensor, features: Tensor, side: int, stride: int, padding: Pair) -> Tensor:
    """Return the gradient of a depthwise convolution's kernel, ``(C, 1, side, side)``.

    Args:
        gradient: Of the output, ``(B, C, h', w')``.
        features: The input, ``(B, C, h, w)``.
        side: Of the kernel: 3 or 5.
        stride: Stride of the convolution.
        padding: Zeros above and below, and left and right.
    """
    if side == 3:
        return _gradient_of_3x3(gradient, features, stride, padding)
    padded = functional.pad(features, (padding[1], padding[1], padding[0], padding[0]))
    height, width = ((extent - 1) * stride + 3 for extent in gradient.shape[2:])
    result = gradient.new_empty(features.shape[1], 1, side, side)
    for top in (0, side - 3):
        for left in (0, side - 3):
            under = padded[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            result[:, :, top : top + 3, left : left + 3] = _gradient_of_3x3(gradient, under, stride, (0, 0))
    return result


def _gradient_of_3x3(gradient: Tensor, features: Tensor, stride: int, padding: Pair) -> Tensor:
    channels = features.shape[1]
    kernel = gradient.new_empty(channels, 1, 3, 3)
    wanted = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, features, kernel, None, [stride] * 2, list(padding), [1, 1], False, [0, 0], channels, wanted
    )[1]


def _convolve(gradient: Tensor, kernel: Tensor, rows: Pair, columns: Pair) -> Tensor:
    """Correlate with the turned kernel after adding zeros above and below, left and right; negative numbers crop."""
    turned = kernel.flip(2, 3)
    if rows[0] == rows[1] >= 0 and columns[0] == columns[1] >= 0:
        return functional.conv2d(gradient, turned, None, 1, (rows[0], columns[0]), groups=len(kernel))
    padded = functional.pad(gradient, (*columns, *rows))
    return functional.conv2d(padded, turned, None, 1, groups=len(kernel))
