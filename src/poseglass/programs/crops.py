"""Views read from an image in PyTorch, so that an exported file can do it: without aliasing, as ``View.read`` does.

An upright view is separable: each of its rows is a weighted mean of rows of the image, and each of its columns of
columns. The weights of both axes are matrices, and a view is two matrix products. They follow ``warp_image``: where a
view shrinks the image by two or more, pixels are first averaged by a whole factor, over the part of the image that the
view shows, and those means are interpolated linearly. How this differs: nothing is rounded to whole grey values between
the two steps, and weights are not rounded to 1/32 pixel.

``grid_sample`` would need as many samples per view pixel as the view shrinks the image, and a runtime lacks a loop that
chooses their number by the box.
"""

import torch
from torch import Tensor

from poseglass.core.input_spec import InputSpec


def crop_maps(boxes_xyxy: Tensor, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Return the maps from image pixels to the views of boxes, as ``View.crop`` makes them.

    Args:
        boxes_xyxy: ``(N, 4)`` float32, image pixels, with area.
        spec: Gives size, padding and rule of the crops.

    Returns:
        Scale and shift, ``(N, 2)`` float32 each: a point xy of the image is at ``scale * xy + shift`` in the view.
    """
    width, height = spec.size_wh
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    center, side = (low + high) / 2, high - low
    # the smaller of the two sides grows to the aspect ratio, then both by the padding
    wide = torch.maximum(side[:, 0], side[:, 1] * spec.aspect) * spec.padding
    size = torch.stack([wide, wide / spec.aspect], 1)
    short = 1 if spec.crop == "udp" else 0
    first = {"edges": -0.5, "msra": 0.0, "udp": 0.0}[spec.crop]
    scale = torch.tensor([width - short, height - short], dtype=torch.float32, device=size.device) / size
    return scale, first - scale * (center - size / 2)


def letterbox_maps(height: Tensor, width: Tensor, size_wh: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the map from image pixels to the view of a whole image, as ``View.letterbox`` makes it.

    Args:
        height: Rows of the image, a float32 scalar.
        width: Columns of the image, a float32 scalar.
        size_wh: Size of the view, pixels.

    Returns:
        Scale and shift, ``(1, 2)`` float32 each, as ``crop_maps`` returns them.
    """
    scale = torch.minimum(size_wh[0] / width, size_wh[1] / height)
    full = torch.stack([width, height])
    sides = torch.tensor(size_wh, dtype=torch.float32, device=full.device)
    shift = (sides - 1) / 2 - scale * (full - 1) / 2
    return scale.expand(1, 2), shift[None]


def read_views(image: Tensor, scale: Tensor, shift: Tensor, size_wh: tuple[int, int]) -> Tensor:
    """Return the views of an image; outside the image they are black.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        scale: ``(N, 2)`` float32, view pixels per image pixel along x and y.
        shift: ``(N, 2)`` float32, view pixels.
        size_wh: Size of the views, pixels.

    Returns:
        ``(N, height, width, 3)`` uint8.
    """
    height, width = image.shape[0], image.shape[1]
    factor = (1 / (scale[:, 0] * scale[:, 1]).sqrt()).floor().clamp(min=1)
    rows = _weights(scale[:, 1], shift[:, 1], size_wh[1], height, factor)
    columns = _weights(scale[:, 0], shift[:, 0], size_wh[0], width, factor)
    flat = image.float().reshape(height, -1)  # (H, W 3): one product for all views
    lines = torch.matmul(rows.reshape(-1, height), flat).reshape(-1, size_wh[1], width, 3)  # (N, h, W, 3)
    lines = lines.permute(0, 2, 1, 3).reshape(-1, width, size_wh[1] * 3)
    seen = torch.matmul(columns, lines).reshape(-1, size_wh[0], size_wh[1], 3)  # (N, w, h, 3)
    return seen.permute(0, 2, 1, 3).round().clamp(0, 255).to(torch.uint8)


def _weights(scale: Tensor, shift: Tensor, side: int, full: int, factor: Tensor) -> Tensor:
    """Return the weights of an image's pixels in each view pixel, along one axis: ``(N, side, full)``.

    Pixels are averaged in blocks of ``length`` from ``start`` on, and the means are interpolated linearly.
    """
    scale, shift, factor = scale[:, None], shift[:, None], factor[:, None]
    shrinks = factor >= 2
    low, high = (-0.5 - shift) / scale, (side - 0.5 - shift) / scale  # the part of the image that the view shows
    start = torch.where(shrinks, (low.floor() - factor).clamp(0, full - 1), torch.zeros_like(low))
    end = torch.where(shrinks, (high.ceil() + factor + 1).clamp(max=full), torch.full_like(high, full))
    end = torch.maximum(end, start + 1)
    blocks = ((end - start) / factor).floor().clamp(min=1)
    length = (end - start) / blocks
    at = (torch.arange(side, device=scale.device) - shift) / scale  # (N, side), pixel centres in the image
    block = (at + 0.5 - start) / length - 0.5  # the same, counted in blocks
    first = block.floor()
    part = block - first
    pixels = torch.arange(full, device=scale.device, dtype=torch.float32)

    def mean(index: Tensor) -> Tensor:
        """Return the weights of the mean of one block per view pixel, all zero where there is no such block."""
        from_, inside = (start + index * length)[..., None], ((index >= 0) & (index < blocks))[..., None]
        share = torch.minimum(pixels + 1, from_ + length[..., None]) - torch.maximum(pixels, from_)
        return share.clamp(min=0) * inside / length[..., None]

    return mean(first) * (1 - part)[..., None] + mean(first + 1) * part[..., None]
