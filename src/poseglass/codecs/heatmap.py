"""Heatmaps: one Gaussian per keypoint, decoded by arg-max with a quarter-pixel offset.

Tompson et al. 2014 (arXiv 1406.2984) regress Gaussians; the quarter offset is from Newell et al. 2016, section 3.1
(arXiv 1603.06937). How this differs: Gaussians are centred at the exact sub-pixel position instead of a truncated one
(the truncation in public ports biases targets by up to a heatmap pixel), and a map may hold logits of a softmax over
its pixels instead of the Gaussian's values (``activation="softmax"``), which learns several times as fast from few
images.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from poseglass.codecs.spec import Activation, CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, one_instance

Alignment = Literal["center", "corner"]
Placement = Literal["exact", "rounded", "whole"]


@dataclass(frozen=True, slots=True)
class HeatmapCodec:
    """Encodes keypoints as Gaussian maps; decodes them by arg-max with the quarter offset.

    Args:
        stride: Input pixels per heatmap pixel.
        sigma: Standard deviation of the Gaussian, heatmap pixels.
        alignment: How input and heatmap pixels correspond. "center": ``(x + 0.5) / stride - 0.5``, both grids cover
            the same area (hourglass). "corner": ``x / stride`` (MSRA simple baseline and HRNet weights).
        activation: What the maps hold. "none": the Gaussian itself, peak 1. "softmax": logits over the map's pixels.
        unlabelled: "ignore" excludes unknown keypoints from the loss; "background" trains their maps towards zero,
            as the original hourglass code does. A softmax always has a peak somewhere, so it cannot learn that.
        placement: Where Gaussians are centred and clipped. "exact": at the sub-pixel position, clipped at three sigma,
            for keypoints in the map. "rounded": at the nearest whole heatmap pixel, also for keypoints up to three
            sigma outside, as the MSRA family trains. "whole": at the sub-pixel position, not clipped, up to three sigma
            outside, as DARK trains.

    Raises:
        ValueError: A stride or sigma that is not positive, an unknown option, or "background" with "softmax".
    """

    stride: int = 4
    sigma: float = 1.0
    alignment: Alignment = "center"
    activation: Literal["none", "softmax"] = "none"
    unlabelled: Literal["ignore", "background"] = "ignore"
    placement: Placement = "exact"

    def __post_init__(self) -> None:
        check_heatmap_fields(self.stride, self.sigma, self.alignment, self.activation, self.unlabelled, self.placement)

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        return CodecSpec({"heatmap": Output(("K", "h", "w"), self.activation)}, self.stride, self.alignment, self.sigma)

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        """Draw the maps for a view of ``size_wh`` on the targets' device.

        Returns:
            ``"heatmap"`` ``(B, K, H/stride, W/stride)`` with peak 1, and ``"weight"`` ``(B, K)``.
        """
        return encode_heatmaps(
            targets, size_wh, stride=self.stride, sigma=self.sigma, alignment=self.alignment,
            unlabelled=self.unlabelled, placement=self.placement, activation=self.activation,
        )  # fmt: skip

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode ``"heatmap"`` ``(B, K, h, w)``: points in network-input pixels ``(B, 1, K, 2)``, scores in [0, 1]."""
        maps = prediction["heatmap"].float().contiguous()
        xy, peak = argmax_2d(maps)
        score = peak_score(maps, xy, peak, self.sigma, softmax_scale(maps, peak, self.activation))
        xy = quarter_offset(maps, xy)  # logits have the same order as their probabilities
        return Decoded.one_instance(to_input(xy, self.stride, self.alignment), score)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image."""
        return {"heatmap": flip_heatmaps(prediction["heatmap"], skeleton, self.alignment)}


def check_heatmap_fields(
    stride: int, sigma: float, alignment: str, activation: str, unlabelled: str, placement: str = "exact"
) -> None:
    """Raise if a number or option is not valid for any heatmap codec.

    Raises:
        ValueError: Names the field, what it accepts and what it got.
    """
    if stride < 1 or not sigma > 0:
        raise ValueError(f"A heatmap codec needs stride >= 1 and sigma > 0, got stride={stride}, sigma={sigma}.")
    for name, value, known in (
        ("alignment", alignment, ("center", "corner")),
        ("activation", activation, ("none", "softmax")),
        ("unlabelled", unlabelled, ("ignore", "background")),
        ("placement", placement, ("exact", "rounded", "whole")),
    ):
        if value not in known:
            raise ValueError(f"A heatmap codec's {name} must be {' or '.join(map(repr, known))}, got {value!r}.")
    if activation == "softmax" and unlabelled == "background":
        raise ValueError(
            "A heatmap codec with activation='softmax' cannot have unlabelled='background': a softmax sums to 1 and "
            "cannot be trained towards zero. Use unlabelled='ignore', or activation='none'."
        )


def to_heatmap(xy: Tensor, stride: int, alignment: Alignment) -> Tensor:
    """Map network-input pixels ``(..., 2)`` to heatmap pixels."""
    return (xy + 0.5) / stride - 0.5 if alignment == "center" else xy / stride


def to_input(xy: Tensor, stride: int, alignment: Alignment) -> Tensor:
    """Map heatmap pixels ``(..., 2)`` to network-input pixels."""
    return (xy + 0.5) * stride - 0.5 if alignment == "center" else xy * stride


def encode_heatmaps(
    targets: Targets,
    size_wh: tuple[int, int],
    *,
    stride: int,
    sigma: float,
    alignment: Alignment,
    unlabelled: Literal["ignore", "background"],
    placement: Placement = "exact",
    activation: Activation = "none",
) -> Prediction:
    """Draw one map per keypoint of the single instance in each view of ``size_wh``.

    A keypoint that is unknown (whatever its coordinates, even NaN) or outside the map (as ``placement`` defines it) has
    an empty map and weight 0. With logits (``activation="softmax"``), the weight of a keypoint near or beyond the
    border is the share of its Gaussian that is inside (``share_inside``), if ``placement`` draws keypoints outside.

    Returns:
        ``"heatmap"`` ``(B, K, h, w)`` float32 with peak 1 and ``"weight"`` ``(B, K)`` float32.
    """
    xy, weight = one_instance(targets)
    xy, map_wh = to_heatmap(xy, stride, alignment), (size_wh[0] // stride, size_wh[1] // stride)
    weight = weight * within(xy, map_wh, 0.0 if placement == "exact" else 3 * sigma)
    if placement == "rounded":
        xy = nearest_pixel(xy)
    # far away, a Gaussian is clipped to zero everywhere: no extra pass to clear the maps, and no NaN
    xy = torch.where((weight > 0)[..., None], xy, torch.full_like(xy, -1e4))
    if activation == "softmax" and placement != "exact":
        weight = weight * share_inside(xy, map_wh, sigma)
    maps = draw_gaussians(xy, map_wh, sigma, reach=math.inf if placement == "whole" else 3 * sigma)
    if unlabelled == "background":
        weight = torch.ones_like(weight)
    return {"heatmap": maps, "weight": weight}


def within(xy: Tensor, size_wh: tuple[int, int], reach: float) -> Tensor:
    """Return which heatmap points ``(..., 2)`` lie in the map or, when rounded, at most ``reach`` pixels outside."""
    size = torch.tensor(size_wh, device=xy.device)
    if reach == 0:
        return ((xy > -0.5) & (xy < size - 0.5)).all(-1)
    at = nearest_pixel(xy)
    return ((at >= -reach) & (at <= size - 1 + reach)).all(-1)


def share_inside(xy: Tensor, size_wh: tuple[int, int], sigma: float) -> Tensor:
    """Return the share of the mass of Gaussians at ``(..., 2)`` that lies in the map, ``(...)`` in [0, 1].

    A softmax sums to 1 over the map, so its target is normalised over the map too: the tail of a Gaussian two sigma
    outside would become as certain a target as a whole one. Weighting by this share compensates for that.
    """
    size = torch.tensor(size_wh, device=xy.device)
    below, above = (torch.erf((edge - xy) / (sigma * math.sqrt(2))) for edge in (-0.5, size - 0.5))
    return ((above - below) / 2).prod(-1)


def nearest_pixel(xy: Tensor) -> Tensor:
    """Return points rounded as in the MSRA family: a half is added and the fraction is truncated towards zero."""
    return (xy + 0.5).trunc()


def draw_gaussians(
    xy: Tensor, size_wh: tuple[int, int], sigma: float, *, reach: float | None = None, about: Tensor | None = None
) -> Tensor:
    """Draw unnormalised Gaussians with peak 1 at exact positions, clipped at a distance along each axis.

    Args:
        xy: ``(..., 2)``, heatmap pixels.
        size_wh: Size of the maps.
        sigma: Standard deviation, heatmap pixels.
        reach: Distance at which they are clipped, heatmap pixels; None means three sigma.
        about: ``(..., 2)``, the point from which that distance is measured; None means ``xy``.

    Returns:
        ``(..., H, W)`` float32.

    Source:
        Newell et al. 2016, section 3.1: a 2D Gaussian with a standard deviation of 1 px at 64 x 64.
    """
    columns = torch.arange(size_wh[0], device=xy.device, dtype=torch.float32) - xy[..., 0, None].float()
    rows = torch.arange(size_wh[1], device=xy.device, dtype=torch.float32) - xy[..., 1, None].float()
    moved = torch.zeros_like(xy) if about is None else (xy - about).float()
    reach = 3 * sigma if reach is None else reach
    # separable: w + h exponentials per joint instead of w * h
    across = torch.exp(columns.square() * (-0.5 / sigma**2)) * ((columns + moved[..., 0, None]).abs() <= reach)
    down = torch.exp(rows.square() * (-0.5 / sigma**2)) * ((rows + moved[..., 1, None]).abs() <= reach)
    return down[..., :, None] * across[..., None, :]


def activate(maps: Tensor, activation: Activation) -> Tensor:
    """Convert network outputs ``(B, K, h, w)`` into maps for display, float32 and contiguous.

    Decoding does not need this: it converts only the pixels around a peak into probabilities (``softmax_scale``).
    """
    maps = maps.float().contiguous()
    if activation == "none":
        return maps
    if activation == "sigmoid":
        return maps.sigmoid()
    return functional.softmax(maps.flatten(2), dim=-1).view_as(maps)


def argmax_2d(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the peak of every map; of several equal ones, the first in row-major order.

    Args:
        maps: ``(B, K, h, w)``, contiguous.

    Returns:
        Peak positions ``(B, K, 2)`` float32, heatmap pixels, and values ``(B, K)``. A map that contains a NaN has the
        value NaN and an arbitrary position.
    """
    flat = maps.flatten(2)
    at = _argmax(flat.flatten(0, 1)).view(flat.shape[:2])
    width = maps.shape[-1]
    return torch.stack([at % width, at // width], -1).float(), flat.gather(-1, at[..., None]).squeeze(-1)


def _argmax(rows: Tensor) -> Tensor:
    """Return the index of the (first) maximum of each row ``(N, n)``, ``(N,)`` int64.

    On a CPU this uses NumPy, whose arg-max is vectorised and reads memory as fast as one core can; PyTorch's is not,
    and takes twice as long on two cores. Two NumPy threads were tried: waking the second core costs as much as it
    saves.
    """
    if not _on_cpu_eagerly(rows):
        return rows.argmax(-1)
    return torch.from_numpy(rows.detach().numpy().argmax(-1))


def _on_cpu_eagerly(values: Tensor) -> bool:
    """Whether values are available: on the CPU, and not being traced by a compiler or an export."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return values.device.type == "cpu" and not tracing


def quarter_offset(maps: Tensor, xy: Tensor) -> Tensor:
    """Move each peak a quarter pixel towards its higher neighbour.

    The arg-max is quantised to whole heatmap pixels; this removes part of that error at no cost. A peak on the border
    is not moved along that axis. Public code differs there: the original does not move such a peak along either axis,
    and mmpose also does not move one that is a pixel away from the left or the top border.

    Args:
        maps: ``(B, K, h, w)``, any real values.
        xy: ``(B, K, 2)``, heatmap pixels, the arg-max of each map.

    Returns:
        ``(B, K, 2)``, heatmap pixels, each coordinate moved by -0.25, 0 or 0.25.

    Raises:
        ValueError: The leading axes of ``maps`` and ``xy`` differ.

    Source:
        Newell et al. 2016, section 3.1, https://arxiv.org/abs/1603.06937.

    Example:
        >>> maps = torch.tensor([[[[0.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.2, 0.0]]]])
        >>> quarter_offset(maps, torch.tensor([[[1.0, 1.0]]])).tolist()
        [[[1.25, 1.25]]]
    """
    if maps.shape[:2] != xy.shape[:2]:
        raise ValueError(f"maps {tuple(maps.shape)} and xy {tuple(xy.shape)} must share (B, K).")
    height, width = maps.shape[-2:]
    at = xy.long()
    to_next, last = torch.tensor([1, width, width - 1, height - 1], device=maps.device).split(2)
    here = (at[..., 1] * width + at[..., 0])[..., None]
    step = to_next * ((at > 0) & (at < last))
    after, before = maps.flatten(2).gather(-1, torch.cat([here + step, here - step], -1)).split(2, -1)
    return xy + (after - before).sign().nan_to_num(0.0) * 0.25  # 0 if the map is NaN


SoftmaxScale = tuple[Tensor, Tensor]
"""For maps of logits, each ``(B, K)``: the peak, and the logarithm of the sum over the map of ``exp(logit - peak)``.

The two are kept separate so that probabilities do not lose precision if logits are large.
"""


def softmax_scale(maps: Tensor, peak: Tensor, activation: Activation) -> SoftmaxScale | None:
    """Return what converts single logits into probabilities; None for Gaussian maps, which need no conversion.

    Args:
        maps: ``(B, K, h, w)`` float32.
        peak: ``(B, K)``, the largest value of each map.
        activation: What the maps hold.
    """
    if activation == "none":
        return None
    rows = maps.flatten(2)
    if not _on_cpu_eagerly(rows):
        return peak, (rows - peak[..., None]).exp().sum(-1).log()
    # process a few maps at a time, so that they stay in the processor's cache between the three passes
    parts = zip(rows.flatten(0, 1).split(128), peak.flatten()[:, None].split(128), strict=True)
    sums = torch.cat([(part - top).exp_().sum(-1) for part, top in parts]) if rows.numel() else peak.flatten()
    return peak, sums.log().view_as(peak)


def probabilities(values: Tensor, scale: SoftmaxScale | None) -> Tensor:
    """Convert windows ``(B, K, rows, columns)`` of logits into probabilities; Gaussian maps are returned unchanged."""
    if scale is None:
        return values
    peak, log_sum = scale
    return (values - peak[..., None, None] - log_sum[..., None, None]).exp()


def peak_score(maps: Tensor, xy: Tensor, peak: Tensor, sigma: float, scale: SoftmaxScale | None) -> Tensor:
    """Return the score of each peak, ``(B, K)`` in [0, 1].

    For a Gaussian map, the score is the peak, clipped to [0, 1]. For a softmax map, it is the probability mass within
    two sigma of the peak (a window of ``2 * ceil(2 * sigma) + 1`` pixels). A map that contains a NaN has score 0.
    """
    if scale is None:
        return peak.nan_to_num(0.0).clamp(0.0, 1.0)
    share = probabilities(window(maps, xy, math.ceil(2 * sigma), outside=-math.inf), scale).sum((-1, -2))
    return share.nan_to_num(0.0).clamp(0.0, 1.0)


def window(maps: Tensor, xy: Tensor, reach: int, *, outside: float = 0.0) -> Tensor:
    """Crop ``(2 * reach + 1)`` square windows around whole pixels.

    Args:
        maps: ``(B, K, h, w)``.
        xy: ``(B, K, 2)``, heatmap pixels, whole numbers.
        reach: Pixels to each side.
        outside: Value outside the maps.

    Returns:
        ``(B, K, 2 * reach + 1, 2 * reach + 1)``, rows first.
    """
    height, width = maps.shape[-2:]
    steps = torch.arange(-reach, reach + 1, device=maps.device)
    columns, rows = xy[..., 0, None].long() + steps, xy[..., 1, None].long() + steps
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    index = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    values = maps.flatten(2).gather(-1, index.flatten(2)).view(index.shape)
    return torch.where(inside, values, outside)


def inner_window(maps: Tensor, xy: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Crop windows like ``window``, but shifted (and, for smaller maps, clipped) so that they lie inside.

    Strips of memory are copied instead of single pixels, which is several times as fast for large windows.

    Returns:
        ``(B, K, rows, columns)``, at most ``2 * reach + 1`` each, and the position of the pixel ``xy`` in them, ``(B,
        K, 2)`` int64.
    """
    height, width = maps.shape[-2:]
    rows, columns = min(2 * reach + 1, height), min(2 * reach + 1, width)
    x, y = xy[..., 0].long(), xy[..., 1].long()
    left, top = (x - reach).clamp(0, width - columns), (y - reach).clamp(0, height - rows)
    first = torch.arange(x.numel(), device=maps.device).view(x.shape) * (height * width) + top * width + left
    starts = first[..., None] + torch.arange(rows, device=maps.device) * width
    if x.numel() == 0:
        return maps.new_zeros(*x.shape, rows, columns), torch.stack([x - left, y - top], -1)
    strips = maps.flatten().unfold(0, columns, 1)
    values = strips.index_select(0, starts.flatten()).view(*x.shape, rows, columns)
    return values, torch.stack([x - left, y - top], -1)


def flip_heatmaps(maps: Tensor, skeleton: Skeleton, alignment: Alignment) -> Tensor:
    """Flip maps ``(B, K, h, w)`` and swap left and right keypoints.

    With "center" alignment, flipping twice restores the map, and the flipped map of the flipped image is aligned with
    the image's own. With "corner" alignment, the flipped grid is off by ``1 - 1 / stride`` heatmap pixels, so maps are
    shifted right by one, as the public code of that family does at test time: one input pixel of the shift remains, and
    the first column appears twice.
    """
    order = torch.as_tensor(skeleton.flip, device=maps.device)
    flipped = maps.flip(-1).index_select(1, order)
    if alignment == "corner":
        flipped = torch.cat([flipped[..., :1], flipped[..., :-1]], -1)
    return flipped
