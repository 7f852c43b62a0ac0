"""CenterNet on several levels of a feature pyramid: every object is found on the level that fits its size.

The pyramid is that of Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
https://arxiv.org/abs/1612.03144; the outputs are those of Zhou, Wang, Krähenbühl, "Objects as Points", 2019,
https://arxiv.org/abs/1904.07850. Levels share one head, as in both Lin et al. 2017, section 4.1, and FCOS.

How this differs: FPN's detectors use P2 to P6 and anchors, FCOS P3 to P7 and every location in a box; these are P3 to
P5, and the centre alone. Neither published CenterNet on a pyramid: there are no public weights for these networks.
"""

from typing import Any

from torch import Tensor, nn

from poseglass.backbones import BACKBONES
from poseglass.core.prediction import Stages
from poseglass.core.table import build_part
from poseglass.heads.centernet import CenterNetHead
from poseglass.layers.input_size import check_input
from poseglass.necks.fpn import FPNLevels


class CenterNetFPN(nn.Module):
    """A ResNet, a pyramid P3 to P5, and one CenterNet head for all levels: images to one stage.

    Args:
        num_keypoints: Number of keypoints per object, K; 0 for boxes only.
        num_classes: Number of classes, C.
        depth: Depth of the ResNet: 18, 34, 50, 101 or 152.
        width: Channels of the ResNet's stem.
        fpn_width: Channels of every level of the pyramid.
        head_width: Channels between the two convolutions of every output.

    Attributes:
        strides: Strides of the levels, finest first: 8, 16, 32.
        stride: Stride of the finest maps.
        divisor: Both sides of an input must be divisible by it.
        usual_size_wh: Usual training input size, pixels.

    Raises:
        LookupError: There is no ResNet of that depth.
        ValueError: Another invalid argument; the message says what is allowed.
    """

    usual_size_wh: tuple[int, int] = (512, 512)

    def __init__(
        self, num_keypoints: int, *, num_classes: int = 1, depth: int = 18, width: int = 64, fpn_width: int = 256,
        head_width: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_keypoints = num_keypoints
        backbone: Any = build_part(BACKBONES, {"name": f"resnet{depth}", "width": width}, "backbone")
        self.backbone = backbone
        self.neck = FPNLevels(backbone.channels, backbone.strides, width=fpn_width, out_stride=8)
        self.head = CenterNetHead(fpn_width, num_keypoints, num_classes=num_classes, width=head_width)
        self.strides = self.neck.out_strides
        self.stride: int = self.strides[0]
        self.divisor: int = backbone.divisor

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to one stage: what ``CenterNetHead`` returns for each level, as ``"center_8"``.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        check_input(images, self.divisor)
        stage = {}
        for stride, features in zip(self.strides, self.neck(self.backbone(images)), strict=True):
            stage |= {f"{name}_{stride}": maps for name, maps in self.head(features).items()}
        return [stage]


def centernet_fpn_resnet18(num_keypoints: int, *, num_classes: int = 1) -> CenterNetFPN:
    """R18: 14,065,591 parameters at 16 keypoints, 17.656 G multiply-adds at 512 x 512.

    13,624,916 parameters at 80 classes without keypoints.
    """
    return CenterNetFPN(num_keypoints, num_classes=num_classes, depth=18)
