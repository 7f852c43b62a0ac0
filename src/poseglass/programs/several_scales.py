"""Multi-scale testing of the keypoints in a view: maps at several sizes of the view, averaged on the original grid.

As in testing code of Convolutional Pose Machines (Wei et al. 2016, section 4) and its successors. The view is resized,
not cropped again: at scales above 1 the network sees a blurred, larger person.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from poseglass.codecs import Codec
from poseglass.codecs.heatmap import activate
from poseglass.codecs.spec import Activation, Grid
from poseglass.core.prediction import Prediction
from poseglass.core.table import listed
from poseglass.programs.program import Forward

MOST_SCALES = 16
"""Largest number of scales; more is a mistake."""

LEAST_SCALE, MOST_SCALE = 0.2, 4.0
"""Smallest and largest scale: beyond them a network sees nothing that it has learnt."""

SMALLEST = 1e-12
"""Smallest probability that is turned into a logit."""


def check_scales(scales: tuple[float, ...]) -> None:
    """Raise unless scales are positive, finite and different.

    Raises:
        ValueError: They are not; the message names the one that is wrong.
    """
    if not 1 <= len(scales) <= MOST_SCALES:
        raise ValueError(f"Expected 1 to {MOST_SCALES} scales, such as 0.75, 1 and 1.25; got {len(scales)}.")
    for scale in scales:
        if not LEAST_SCALE <= scale <= MOST_SCALE:
            raise ValueError(
                f"A scale must be a number from {LEAST_SCALE} to {MOST_SCALE}, such as 0.75 or 1.25; got {scale!r}."
            )
    for i, scale in enumerate(scales):
        if scale in scales[:i]:
            raise ValueError(
                f"The scale {scale:g} is given twice, and would count twice in the average. Give each scale once."
            )


def check_averages(codec: Codec) -> None:
    """Raise unless a codec decodes maps of keypoints, which can be averaged over scales.

    Raises:
        ValueError: It decodes something else, such as offsets in pixels; the message names it.
    """
    spec = codec.spec
    others = [
        f"{name} ({', '.join(map(str, output.shape))})"
        for name, output in spec.outputs.items()
        if output.shape != ("K", "h", "w") or output.activation == "sigmoid"
    ]
    if others or spec.instances != 1:
        what = listed(others) if others else f"{spec.instances} instances in a view"
        raise ValueError(
            f"Maps of several scales are averaged where a codec decodes heatmaps (K, h, w), and {type(codec).__name__} "
            f"decodes {what}. Use one scale."
        )


def scaled_size(size_wh: tuple[int, int], scale: float, divisor: int) -> tuple[int, int]:
    """Return the size of a view at a scale, rounded to what a network accepts, at least ``divisor``."""
    width, height = (max(round(side * scale / divisor), 1) * divisor for side in size_wh)
    return width, height


@dataclass(frozen=True, slots=True, eq=False)
class SeveralScales:
    """A forward that averages the maps of several sizes of the images on the grid of the original size.

    At the scale 1 alone, it gives exactly what ``forward`` gives.

    Args:
        forward: Normalised images to maps.
        codec: What decodes them; its alignment says how pixels of images and maps correspond.
        scales: Each is a factor of both sides, which are then rounded to a multiple of ``divisor``.
        divisor: Both sides of an image must be divisible by it.

    Raises:
        ValueError: Scales that are not valid, or a codec whose outputs cannot be averaged; when called: two scales that
            give the same size of these images.
    """

    forward: Forward
    codec: Codec
    scales: tuple[float, ...]
    divisor: int

    def __post_init__(self) -> None:
        check_scales(self.scales)
        check_averages(self.codec)

    def __call__(self, images: Tensor) -> Prediction:
        """Map normalised images ``(B, 3, H, W)`` to the mean of the maps."""
        height, width = images.shape[-2:]
        spec, found = self.codec.spec, dict[str, list[Tensor]]()
        sizes = self.sizes_wh((width, height))
        if sizes == [(width, height)]:
            return self.forward(images)
        for size_wh in sizes:
            maps = self.forward(images if size_wh == (width, height) else resized(images, size_wh, spec.alignment))
            for name in spec.outputs:
                activation = spec.outputs[name].activation
                values = values_of(maps[name], activation)
                values = unscaled(values, (width, height), size_wh, spec.stride_of(name), spec.alignment)
                if activation == "softmax":  # a larger map spreads its probability over more cells
                    values = values / values.sum((-2, -1), keepdim=True).clamp_min(SMALLEST)
                found.setdefault(name, []).append(values)
        return {
            name: maps_of(torch.stack(values).mean(0), spec.outputs[name].activation) for name, values in found.items()
        }

    def sizes_wh(self, size_wh: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the sizes at which images of a size are shown.

        Raises:
            ValueError: Two of them are the same.
        """
        sizes = [scaled_size(size_wh, scale, self.divisor) for scale in self.scales]
        for i, size in enumerate(sizes):
            if size in sizes[:i]:
                raise ValueError(
                    f"The scales {self.scales[sizes.index(size)]:g} and {self.scales[i]:g} both show views of "
                    f"{size_wh[0]} x {size_wh[1]} px at {size[0]} x {size[1]} px, since sides must be divisible by "
                    f"{self.divisor}. Omit one of them."
                )
        return sizes


def resized(images: Tensor, size_wh: tuple[int, int], alignment: Grid) -> Tensor:
    """Resize images ``(B, C, H, W)`` linearly, averaging where they shrink.

    Edges correspond, or the centres of corner pixels for the alignment "udp".
    """
    matrices = []
    for side, scaled in zip(images.shape[-2:], size_wh[::-1], strict=True):
        i = torch.arange(scaled, dtype=torch.float64)
        positions = i * (side - 1) / max(scaled - 1, 1) if alignment == "udp" else (i + 0.5) * side / scaled - 0.5
        matrices.append(_weights(positions, side, shrink=side / scaled).to(images))
    return torch.einsum("yh,bchw,xw->bcyx", matrices[0], images, matrices[1])


def unscaled(
    maps: Tensor, size_wh: tuple[int, int], scaled_wh: tuple[int, int], stride: int, alignment: Grid
) -> Tensor:
    """Return maps ``(B, K, h, w)`` of views that were resized, on the grid of the views before, bilinearly.

    Args:
        maps: Maps of views of ``scaled_wh``.
        size_wh: Size of the views before, pixels.
        scaled_wh: Size of the views that the maps are of, pixels.
        stride: View pixels per map pixel.
        alignment: How pixels of views and maps correspond.
    """
    if scaled_wh == size_wh:
        return maps
    x = _positions(size_wh[0], scaled_wh[0], stride, maps.shape[-1], alignment)
    y = _positions(size_wh[1], scaled_wh[1], stride, maps.shape[-2], alignment)
    rows = _weights(y, maps.shape[-2]).to(maps)
    columns = _weights(x, maps.shape[-1]).to(maps)
    return torch.einsum("yh,bkhw,xw->bkyx", rows, maps, columns)


def _positions(side: int, scaled: int, stride: int, scaled_cells: int, alignment: Grid) -> Tensor:
    """Return where each cell of the original map lies on the scaled one, in its cells."""
    cells = side // stride
    i = torch.arange(cells, dtype=torch.float64)
    factor = scaled / side
    if alignment == "corner":  # a cell is at pixel i * stride, whose edges-correspond position is (x + 0.5) s - 0.5
        return ((i * stride + 0.5) * factor - 0.5) / stride
    if alignment == "udp":  # corner pixels correspond to corner cells at every size
        return i * (scaled_cells - 1) / max(cells - 1, 1)
    return (i + 0.5) * factor - 0.5


def _weights(positions: Tensor, cells: int, shrink: float = 1.0) -> Tensor:
    """Return the matrix ``(len(positions), cells)`` of linear interpolation; beyond the edge, the edge's value.

    Where the result is smaller, the triangle that weights cells is ``shrink`` times as wide.
    """
    wide = max(shrink, 1.0)
    inside = positions.clamp(0, cells - 1) if wide == 1.0 else positions
    weights = (1 - (inside[:, None] - torch.arange(cells, dtype=inside.dtype)).abs() / wide).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def values_of(maps: Tensor, activation: Activation) -> Tensor:
    """Return what maps mean, which can be averaged: probabilities for logits."""
    return activate(maps, activation)


def maps_of(values: Tensor, activation: Activation) -> Tensor:
    """Return maps that mean given values, the inverse of ``values_of``."""
    if activation == "softmax":
        return values.clamp_min(SMALLEST).log()
    return values
