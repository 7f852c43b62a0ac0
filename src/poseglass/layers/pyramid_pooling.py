"""Pyramid pooling: each cell also sees means over large parts of the map.

Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, https://arxiv.org/abs/1612.01105, section 3.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.conv_norm import ConvNorm


class PyramidPooling(nn.Module):
    """Pool to grids of several sizes, narrow each by 1x1, enlarge, concatenate with the input, convolve by 3x3.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bins: Cells along each side of the grids, such as the paper's 1, 2, 3 and 6; whole numbers above 0, each once.

    Raises:
        ValueError: Bins that are not valid, or more of them than the input has channels.

    Source:
        Zhao et al. 2017, section 3.2. How this differs: the result is enlarged with corresponding edges, as in later
        implementations.
    """

    def __init__(self, in_channels: int, out_channels: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        if not bins or any(int(b) != b or b < 1 for b in bins):
            raise ValueError(
                f"PyramidPooling takes bins that are whole numbers above 0, such as [1, 2, 3, 6]; got {list(bins)}."
            )
        if len(set(bins)) < len(bins):
            raise ValueError(f"PyramidPooling takes each number of bins once, got {list(bins)}.")
        if len(bins) > in_channels:
            raise ValueError(
                f"PyramidPooling divides its {in_channels} channels among {len(bins)} grids. Give at most that many."
            )
        self.bins = tuple(int(b) for b in bins)
        narrow = in_channels // len(self.bins)
        self.narrow = nn.ModuleList(ConvNorm(in_channels, narrow, 1) for _ in self.bins)
        self.join = ConvNorm(in_channels + narrow * len(self.bins), out_channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``."""
        size = features.shape[-2:]
        parts = [features]
        for bins, narrow in zip(self.bins, self.narrow, strict=True):
            pooled = narrow(grid_means(features, bins))
            parts.append(functional.interpolate(pooled, size, mode="bilinear", align_corners=False))
        return self.join(torch.cat(parts, dim=1))


def grid_means(features: Tensor, bins: int) -> Tensor:
    """Return the means ``(B, C, bins, bins)`` over the cells of a grid, as ``adaptive_avg_pool2d``.

    By two products with constant matrices, which every runtime has; adaptive pooling is not exported where the sizes do
    not divide.
    """
    height, width = features.shape[-2:]
    return means(height, bins).to(features) @ features @ means(width, bins).to(features).T


def means(cells: int, bins: int) -> Tensor:
    """Return the matrix ``(bins, cells)`` that averages cells into bins, which overlap where they do not divide."""
    matrix = torch.zeros(bins, cells)
    for i in range(bins):
        start, end = i * cells // bins, -(-(i + 1) * cells // bins)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
