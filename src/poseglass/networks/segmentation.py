"""Networks for semantic segmentation: a dilated backbone and one of the heads in ``MASK_HEADS``.

No codec decodes masks yet: these networks are used from Python, for their outputs, cost and latency, and are not in
``NETWORKS``. LR-ASPP, R-ASPP and ASPP and the papers they are from are in ``heads.lr_aspp`` and ``heads.aspp``.

Example:
    >>> import torch
    >>> backbone = {"name": "mobilenet_v3_small", "reduced_tail": True}
    >>> network = SegmentationNetwork(21, backbone=backbone, head={"name": "lr_aspp"}, output_stride=16).eval()
    >>> with torch.inference_mode():
    ...     [stage] = network(torch.rand(1, 3, 128, 256))
    >>> stage["mask"].argmax(1).shape
    torch.Size([1, 128, 256])
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from poseglass.backbones import BACKBONES
from poseglass.core.prediction import Stages
from poseglass.core.table import build_part, lookup
from poseglass.heads import MASK_HEADS
from poseglass.layers.input_size import check_input


class SegmentationNetwork(nn.Module):
    """A backbone whose last strides are replaced by dilation, and a head: a logit per class and pixel.

    Args:
        num_classes: Number of classes, C, background included.
        backbone: ``{"name": ..., ...}``, built from ``BACKBONES``, or your own, "package.module:name". It is given
            ``output_stride`` if it has an argument of that name; without one it is used as it is, at 32.
        head: ``{"name": ..., ...}``, built from ``MASK_HEADS`` with the backbone's ``channels`` and ``strides`` and C.
        output_stride: Stride of the backbone's last level: 8 or 16, or 32 for no dilation.

    Attributes:
        stride: Input pixels per pixel of the head's output, which is then resized.
        divisor: Both sides of an input must be divisible by it.
        usual_size_wh: Usual input size, pixels.

    Raises:
        LookupError: An unknown name; the message suggests the nearest one.
        TypeError, ValueError: Arguments that a part does not accept, or an output stride that the backbone cannot give.
    """

    usual_size_wh: tuple[int, int] = (512, 512)

    def __init__(
        self, num_classes: int, *, backbone: Mapping[str, Any], head: Mapping[str, Any], output_stride: int = 16
    ) -> None:
        super().__init__()
        below: Any = build_part(BACKBONES, _dilated(backbone, output_stride), "backbone")
        over: Any = build_part(MASK_HEADS, head, "head", below.channels, below.strides, num_classes)
        self.backbone, self.head = below, over
        self.stride: int = over.out_stride
        self.divisor: int = below.divisor

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to one stage, ``"mask"`` ``(B, C, H, W)``, logits.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        check_input(images, self.divisor)
        logits = self.head(self.backbone(images))
        size = images.shape[-2:]
        return [{"mask": functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)}]


def _dilated(backbone: Mapping[str, Any], output_stride: int) -> dict[str, Any]:
    """Return a backbone's table with an output stride.

    Raises:
        ValueError: The table has another one already, or the backbone has no such argument.
    """
    table = dict(backbone)
    stated = table.setdefault("output_stride", output_stride)
    if stated != output_stride:
        raise ValueError(
            f"output_stride is {output_stride}, but the backbone's table says {stated}. State it once, as the argument "
            "output_stride of SegmentationNetwork."
        )
    name = table.get("name")
    if not isinstance(name, str) or _can_dilate(lookup(BACKBONES, name, kind="backbone")):
        return table  # a table without a name is reported where it is built
    if output_stride == 32:
        return {key: value for key, value in table.items() if key != "output_stride"}
    able = ", ".join(other for other, builder in BACKBONES.items() if _can_dilate(builder))
    raise ValueError(
        f"The backbone {name!r} cannot give an output stride of {output_stride}: it has no dilated variant, which "
        f"takes an argument output_stride. Use one of {able}, or output_stride=32."
    )


def _can_dilate(builder: Callable[..., Any]) -> bool:
    return "output_stride" in inspect.signature(builder).parameters


def lr_aspp_mobilenet_v3_large(num_classes: int = 21) -> SegmentationNetwork:
    """LR-ASPP on MobileNetV3-Large as torchvision builds it: 3,221,538 parameters at 21 classes.

    Its dilated blocks, its choice of fine features and its epsilon are torchvision's, so that its weights can be used;
    ``checkpoints.lr_aspp_torchvision`` imports them.
    """
    backbone = {"name": "mobilenet_v3_large", "eps": 1e-3, "dilates_first": True, "taps": "first"}
    return SegmentationNetwork(num_classes, backbone=backbone, head={"name": "lr_aspp"}, output_stride=16)
