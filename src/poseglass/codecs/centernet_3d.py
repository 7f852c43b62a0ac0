"""CenterNet's third task: depth, dimensions and orientation of an object, read at its centre.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, sections 4.1 and 6.3: the depth by
Eigen et al. 2014, the orientation in two bins by Mousavian et al., "3D Bounding Box Estimation Using Deep Learning and
Geometry", CVPR 2017. Bins and constants are those of xingyizhou/CenterNet (MIT), read for facts.

``CenterNetCodec(boxes_3d=True)`` uses these maps:

- ``"depth"`` ``(B, 1, h, w)``: x, of which 1 / (sigmoid(x) + 1e-6) - 1 are metres;
- ``"dimensions"`` ``(B, 3, h, w)``: height, width and length, metres;
- ``"rotation"`` ``(B, 4 * H, h, w)``: for each of H = ``heading_bins`` bins, two logits (outside and inside), and sine
  and cosine of alpha from the bin's middle. The two published bins are those about -pi / 2 and pi / 2, each reaches
  over two thirds of the circle, and in the overlaps, where the object is seen along or from its front or back, an angle
  is in both. More bins divide the circle alike, and overlap by as large a share. They are ours: a network that is
  trained briefly draws angles to the middle of their bin, which matters less the narrower the bins are.
- ``"middle_3d"`` ``(B, 2, h, w)``, only with ``middles_3d``: from the centre's whole pixel to the projection of the
  middle of the box in space, map pixels. It is ours: the public code takes the centre of the box in the image for it.
"""

import math

import torch
from torch import Tensor

from poseglass.core.prediction import Prediction

_FLOOR = 1e-6
"""What is added to the sigmoid of a depth, so that the depth is finite."""

_REACH = 2 / 3
"""How far a bin reaches to both sides of its middle, as a share of the distance of two middles."""


def metres_of(depth: Tensor) -> Tensor:
    """Return the depth in metres that the output "depth" states, float32, 0 to a million."""
    return 1.0 / (depth.float().sigmoid() + _FLOOR) - 1.0


def depth_of(metres: Tensor) -> Tensor:
    """Return the output "depth" of a perfect network for metres above 0; the inverse of ``metres_of``."""
    share = (1.0 / (metres.double() + 1.0) - _FLOOR).clamp(1e-9, 1.0 - 1e-9)
    return (share.log() - torch.log1p(-share)).to(metres.dtype)


def middles_of(bins: int) -> list[float]:
    """Return the middles of ``bins`` equal bins of alpha, radians, rising from -pi."""
    return [-math.pi + 2 * math.pi / bins * (place + 0.5) for place in range(bins)]


def rotation_of(alpha: Tensor, bins: int = 2) -> Tensor:
    """Return the output "rotation" ``(..., 4 * bins)`` of a perfect network for angles ``(...)`` in (-pi, pi].

    The two numbers of a bin are 1 and 0 if the angle is outside, 0 and 1 if it is inside, instead of logits.
    """
    rest = alpha[..., None] - alpha.new_tensor(middles_of(bins))
    inside = bins_of(alpha, bins).to(alpha.dtype)
    return torch.stack([1.0 - inside, inside, rest.sin(), rest.cos()], -1).flatten(-2)


def bins_of(alpha: Tensor, bins: int = 2) -> Tensor:
    """Return in which of the bins angles in (-pi, pi] are: ``(..., bins)`` bool; each is in one or in two of them."""
    away = alpha[..., None] - alpha.new_tensor(middles_of(bins))
    away = torch.remainder(away + math.pi, 2 * math.pi) - math.pi
    return away.abs() < _REACH * 2 * math.pi / bins


def alpha_of(rotation: Tensor) -> Tensor:
    """Return angles in (-pi, pi] from ``(..., 4 * bins)``: that of the bin that the network is surest it is in.

    Of the two published bins, that is the one with the larger logit of inside, as in the public code; of more, the one
    where it exceeds that of outside by most, which is what the loss trains.
    """
    each = rotation.unflatten(-1, (-1, 4))
    inside = each[..., 1] if each.shape[-2] == 2 else each[..., 1] - each[..., 0]
    best = inside.argmax(-1, keepdim=True)
    rest = torch.atan2(each[..., 2], each[..., 3]).gather(-1, best)[..., 0]
    alpha = rest + rest.new_tensor(middles_of(each.shape[-2]))[best[..., 0]]
    return math.pi - torch.remainder(math.pi - alpha, 2 * math.pi)


def targets_3d(
    observed: Tensor, counted: Tensor, scaled: Tensor | None, focal_px: float, heading_bins: int = 2
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what a perfect network outputs for instances ``(B, N, D)``, and what of it is learnt ``(B, N)``.

    Args:
        observed: ``(B, N, 8)``, columns as ``core.box_3d.OBSERVED``, NaN where unknown.
        counted: ``(B, N)`` bool, instances whose centre is learnt.
        scaled: ``(B, N)`` bool, views that augmentation enlarged or reduced; None for none.
        focal_px: See ``CenterNetCodec``.
        heading_bins: See ``CenterNetCodec``.

    Returns:
        Values by output: "depth", "dimensions", "rotation"; and weights by name: "depth_weight" for depth and
        dimensions, which in a scaled view of the published form say nothing, and "rotation_weight".
    """
    there = counted & observed.isfinite().all(-1) & (observed[..., 2] > 0)
    seen = torch.where(there[..., None], observed, 1.0)
    metres = seen[..., 2] / 1000
    learnt = there
    if focal_px:
        metres = metres * (focal_px / seen[..., 3])
    elif scaled is not None:
        learnt = there & ~scaled
    length, height, width = (seen[..., column] / 1000 for column in (4, 5, 6))
    values = {
        "depth": depth_of(metres)[..., None],
        "dimensions": torch.stack([height, width, length], -1),
        "rotation": rotation_of(seen[..., 7], heading_bins),
    }
    return values, {"depth_weight": learnt.float(), "rotation_weight": there.float()}


def decoded_3d(values: dict[str, Tensor], middle_xy: Tensor, focal_px: float) -> Tensor:
    """Return what was observed ``(B, N, 8)`` float32, columns as ``core.box_3d.OBSERVED``.

    Args:
        values: "depth", "dimensions" and "rotation" at the centres, ``(B, N, D)``.
        middle_xy: ``(B, N, 2)``, view pixels of the middle of the box in space.
        focal_px: See ``CenterNetCodec``.
    """
    depth = metres_of(values["depth"]) * 1000
    height, width, length = (values["dimensions"].clamp_min(0.0) * 1000).split(1, -1)
    focal = torch.full_like(depth, focal_px)
    return torch.cat([middle_xy, depth, focal, length, height, width, alpha_of(values["rotation"])[..., None]], -1)


def flipped_3d(prediction: Prediction) -> Prediction:
    """Return depth, dimensions and rotation of a mirrored image, not yet flipped in place.

    Alpha becomes pi - alpha, on the other side of the middle of the bin that has the mirrored middle; of two bins, that
    is the same one.
    """
    each = prediction["rotation"].unflatten(1, (-1, 4))
    bins = each.shape[1]
    mirrored = [(bins // 2 - 1 - place) % bins for place in range(bins)]
    sign = each.new_tensor([1.0, 1.0, -1.0, 1.0])[:, None, None]
    turned = (each[:, mirrored] * sign).flatten(1, 2)
    return {"depth": prediction["depth"], "dimensions": prediction["dimensions"], "rotation": turned}
