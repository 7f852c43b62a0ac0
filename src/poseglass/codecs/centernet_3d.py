"""CenterNet's third task: depth, dimensions and orientation of an object, read at its centre.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, sections 4.1 and 6.3: the depth by
Eigen et al. 2014, the orientation in two bins by Mousavian et al., "3D Bounding Box Estimation Using Deep Learning and
Geometry", CVPR 2017. Bins and constants are those of xingyizhou/CenterNet (MIT), read for facts.

``CenterNetCodec(boxes_3d=True)`` uses these maps:

- ``"depth"`` ``(B, 1, h, w)``: x, of which 1 / (sigmoid(x) + 1e-6) - 1 are metres;
- ``"dimensions"`` ``(B, 3, h, w)``: height, width and length, metres;
- ``"rotation"`` ``(B, 8, h, w)``: for each of two bins, two logits (outside and inside), and sine and cosine of alpha
  from the bin's middle. The bins are those about -pi / 2 and pi / 2, each reaches over two thirds of the circle, and in
  the overlaps, where the object is seen along or from its front or back, an angle is in both.
- ``"middle_3d"`` ``(B, 2, h, w)``, only with ``middles_3d``: from the centre's whole pixel to the projection of the
  middle of the box in space, map pixels. It is ours: the public code takes the centre of the box in the image for it.
"""

import math

import torch
from torch import Tensor

from poseglass.core.prediction import Prediction

_FLOOR = 1e-6
"""What is added to the sigmoid of a depth, so that the depth is finite."""

_MIDDLES = (-math.pi / 2, math.pi / 2)
"""Middles of the two bins of alpha, radians."""


def metres_of(depth: Tensor) -> Tensor:
    """Return the depth in metres that the output "depth" states, float32, 0 to a million."""
    return 1.0 / (depth.float().sigmoid() + _FLOOR) - 1.0


def depth_of(metres: Tensor) -> Tensor:
    """Return the output "depth" of a perfect network for metres above 0; the inverse of ``metres_of``."""
    share = (1.0 / (metres.double() + 1.0) - _FLOOR).clamp(1e-9, 1.0 - 1e-9)
    return (share.log() - torch.log1p(-share)).to(metres.dtype)


def rotation_of(alpha: Tensor) -> Tensor:
    """Return the output "rotation" ``(..., 8)`` of a perfect network for angles ``(...)`` in (-pi, pi].

    The two numbers of a bin are 1 and 0 if the angle is outside, 0 and 1 if it is inside, instead of logits.
    """
    parts = []
    for middle, inside in zip(_MIDDLES, bins_of(alpha).unbind(-1), strict=True):
        rest = alpha - middle
        parts += [1.0 - inside.to(alpha.dtype), inside.to(alpha.dtype), rest.sin(), rest.cos()]
    return torch.stack(parts, -1)


def bins_of(alpha: Tensor) -> Tensor:
    """Return in which of the two bins angles in (-pi, pi] are: ``(..., 2)`` bool; each is in one or both."""
    sixth = math.pi / 6
    first = (alpha < sixth) | (alpha > 5 * sixth)
    second = (alpha > -sixth) | (alpha < -5 * sixth)
    return torch.stack([first, second], -1)


def alpha_of(rotation: Tensor) -> Tensor:
    """Return angles in (-pi, pi] from ``(..., 8)``: that of the bin that the network is surer the angle is in."""
    first = torch.atan2(rotation[..., 2], rotation[..., 3]) + _MIDDLES[0]
    second = torch.atan2(rotation[..., 6], rotation[..., 7]) + _MIDDLES[1]
    alpha = torch.where(rotation[..., 1] > rotation[..., 5], first, second)
    return math.pi - torch.remainder(math.pi - alpha, 2 * math.pi)


def targets_3d(
    observed: Tensor, counted: Tensor, scaled: Tensor | None, focal_px: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what a perfect network outputs for instances ``(B, N, D)``, and what of it is learnt ``(B, N)``.

    Args:
        observed: ``(B, N, 8)``, columns as ``core.box_3d.OBSERVED``, NaN where unknown.
        counted: ``(B, N)`` bool, instances whose centre is learnt.
        scaled: ``(B, N)`` bool, views that augmentation enlarged or reduced; None for none.
        focal_px: See ``CenterNetCodec``.

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
        "rotation": rotation_of(seen[..., 7]),
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

    Alpha becomes pi - alpha, which stays in the same bin, on the other side of its middle.
    """
    sign = prediction["rotation"].new_tensor([1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0])[:, None, None]
    return {
        "depth": prediction["depth"], "dimensions": prediction["dimensions"], "rotation": prediction["rotation"] * sign,
    }  # fmt: skip
