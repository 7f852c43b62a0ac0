"""CenterNet: boxes, and keypoints if there are any, of all objects of an image in one pass.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, section 5. Layer details from
xingyizhou/CenterNet (MIT). Written from the paper and tables of layers.

``num_keypoints=0`` gives a detector of boxes; 1 class and 17 keypoints are the paper's network for people.

How this differs from the paper: its ResNets have deformable convolutions before the transposed ones, of 256, 128 and 64
channels; these are the plain ones of the same code, all of 256 channels. Its DLA-34 has deformable convolutions on the
way up, and this one has plain ones. ResNet-34 and -50, HRNet-W32, MobileNetV3, Hourglass-52 and the light one are our
own.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from poseglass.core.prediction import Stages
from poseglass.heads.centernet import CenterNetHead
from poseglass.heads.stacked_centernet import MapFeedback
from poseglass.networks.compose import ComposedNetwork
from poseglass.networks.corner_hourglass import BLOCKS, WIDTHS, CornerHourglassTrunk


class CenterNetHourglass(nn.Module):
    """CornerNet's hourglass with a CenterNet head per stack: images to one stage per stack.

    Args:
        num_keypoints: Number of keypoints per object, K; 0 for boxes only.
        num_classes: Number of classes, C.
        num_stacks: Number of hourglasses in sequence, each supervised.
        map_feedback: Whether a stack also sees the predictions of the one before, as each stage of
            ``StackedCenterNetHead`` does. The paper's sees features alone.
        widths: Channels of the features, then after each downsampling step; fewer make a shallower hourglass.
        blocks: Residuals per position on each level, as many as ``widths``.
        head_width: Channels between the two convolutions of every output.
        visibility: Also output whether each keypoint is visible, occluded or absent, as ``CenterNetHead`` does.

    Attributes:
        stride: Stride of the maps, 4.
        divisor: Both sides of an input must be divisible by it.
        usual_size_wh: Usual training input size, pixels; variants for another size override it.

    Raises:
        ValueError: An invalid argument; the message says what is allowed.

    Source:
        Zhou et al. 2019, section 5; Law and Deng 2018, section 3.5.
    """

    stride = 4
    usual_size_wh: tuple[int, int] = (512, 512)

    def __init__(
        self,
        num_keypoints: int,
        *,
        num_classes: int = 1,
        num_stacks: int = 2,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
        head_width: int = 256,
        visibility: bool = False,
        map_feedback: bool = False,
    ) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.trunk = CornerHourglassTrunk(num_stacks=num_stacks, widths=widths, blocks=blocks)
        self.heads = nn.ModuleList(
            CenterNetHead(
                self.trunk.out_channels, num_keypoints, num_classes=num_classes, width=head_width, visibility=visibility
            )
            for _ in range(num_stacks)
        )
        first = self.heads[0]
        assert isinstance(first, CenterNetHead)
        self.map_feedback = nn.ModuleList(
            MapFeedback(first, self.trunk.out_channels) for _ in range(num_stacks - 1 if map_feedback else 0)
        )
        self.divisor = self.trunk.divisor

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to S stages, each as ``CenterNetHead`` returns; the last is the prediction.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        if not self.map_feedback:
            return [head(features) for head, features in zip(self.heads, self.trunk(images), strict=True)]
        features = self.trunk.begin(images)
        found: Stages = []
        for i, head in enumerate(self.heads):
            maps = self.trunk.stack(i, features)
            found.append(head(maps))
            if i < len(self.map_feedback):
                features = self.trunk.onward(i, features, maps, self.map_feedback[i](found[-1]))
        return found


def centernet_hourglass_104(num_keypoints: int, *, num_classes: int = 1) -> CenterNetHourglass:
    """Two stacks, the paper's most accurate network: 194,809,582 parameters at 16 keypoints.

    191,284,008 at 80 classes without keypoints, 194,811,124 at 17 keypoints; 350.453 G multiply-adds at 512 x 512.
    """
    return CenterNetHourglass(num_keypoints, num_classes=num_classes, num_stacks=2)


def centernet_hourglass_52(num_keypoints: int, *, num_classes: int = 1) -> CenterNetHourglass:
    """One stack: 97,217,463 parameters at 16 keypoints, 172.622 G multiply-adds at 512 x 512."""
    return CenterNetHourglass(num_keypoints, num_classes=num_classes, num_stacks=1)


def centernet_light(num_keypoints: int, *, num_classes: int = 1) -> CenterNetHourglass:
    """One narrow stack with three downsampling steps, for inputs of 128 px (sides a multiple of 32).

    1,990,519 parameters at 16 keypoints, 0.407 G multiply-adds at 128 x 128.
    """
    network = CenterNetHourglass(
        num_keypoints,
        num_classes=num_classes,
        num_stacks=1,
        widths=(64, 64, 96, 128),
        blocks=(1, 1, 1, 2),
        head_width=32,
    )
    network.usual_size_wh = (128, 128)
    return network


def centernet_resnet(
    num_keypoints: int,
    *,
    num_classes: int = 1,
    depth: int = 18,
    width: int = 64,
    num_deconvs: int = 3,
    deconv_width: int = 256,
    head_width: int = 64,
    visibility: bool = False,
) -> ComposedNetwork:
    """Any ResNet, transposed convolutions and a CenterNet head.

    Args:
        num_keypoints: Number of keypoints per object, K; 0 for boxes only.
        num_classes: Number of classes, C.
        depth: Depth of the ResNet: 18, 34, 50, 101 or 152.
        width: Channels of the ResNet's stem.
        num_deconvs: Number of transposed convolutions; each doubles the resolution, starting from stride 32.
        deconv_width: Channels of each transposed convolution.
        head_width: Channels between the two convolutions of every output.
        visibility: Also output whether each keypoint is visible, occluded or absent, as ``CenterNetHead`` does.

    Raises:
        LookupError: There is no ResNet of that depth.
        ValueError: Another invalid argument; the message says what is allowed.
    """
    network = ComposedNetwork(
        num_keypoints,
        backbone={"name": f"resnet{depth}", "width": width},
        neck={"name": "deconv", "num_layers": num_deconvs, "width": deconv_width},
        head={"name": "centernet", "num_classes": num_classes, "width": head_width, "visibility": visibility},
    )
    network.usual_size_wh = (512, 512)
    return network


def centernet_resnet18(num_keypoints: int, *, num_classes: int = 1) -> ComposedNetwork:
    """R18: 16,261,047 parameters at 16 keypoints, 29.934 G multiply-adds at 512 x 512.

    15,820,372 parameters at 80 classes without keypoints.
    """
    return centernet_resnet(num_keypoints, num_classes=num_classes, depth=18)


def centernet_resnet34(num_keypoints: int, *, num_classes: int = 1) -> ComposedNetwork:
    """R34: 26,369,207 parameters at 16 keypoints, 39.597 G multiply-adds at 512 x 512."""
    return centernet_resnet(num_keypoints, num_classes=num_classes, depth=34)


def centernet_resnet50(num_keypoints: int, *, num_classes: int = 1) -> ComposedNetwork:
    """R50: 34,884,023 parameters at 16 keypoints, 43.423 G multiply-adds at 512 x 512."""
    return centernet_resnet(num_keypoints, num_classes=num_classes, depth=50)


def centernet_resnet101(num_keypoints: int, *, num_classes: int = 1) -> ComposedNetwork:
    """R101: 53,876,151 parameters at 16 keypoints, 62.817 G multiply-adds at 512 x 512."""
    return centernet_resnet(num_keypoints, num_classes=num_classes, depth=101)


def centernet_dla34(num_keypoints: int, *, num_classes: int = 1) -> ComposedNetwork:
    """DLA-34 with its way up: 19,430,119 parameters at 16 keypoints, 37.834 G multiply-adds at 512 x 512.

    18,994,436 parameters at 80 classes without keypoints. The paper's DLA-34 has deformable 3x3 convolutions on the way
    up, and these are plain (``necks/dla_up.py``), so its results and published weights are not those of this network.
    """
    network = ComposedNetwork(
        num_keypoints,
        backbone={"name": "dla34"},
        neck={"name": "dla_up"},
        head={"name": "centernet", "num_classes": num_classes, "width": 256},
    )
    network.usual_size_wh = (512, 512)
    return network


def centernet_hrnet_w32(num_keypoints: int, *, num_classes: int = 1) -> ComposedNetwork:
    """The finest branch of HRNet-W32: 28,650,103 parameters at 16 keypoints, 42.634 G multiply-adds at 512 x 512."""
    network = ComposedNetwork(
        num_keypoints,
        backbone={"name": "hrnet", "width": 32, "finest_only": True},
        neck={"name": "level", "level": 0},
        head={"name": "centernet", "num_classes": num_classes, "width": 64},
    )
    network.usual_size_wh = (512, 512)
    return network


def centernet_mobilenet_v3(num_keypoints: int, *, num_classes: int = 1) -> ComposedNetwork:
    """MobileNetV3-Large with a thin U-Net neck: 3,081,495 parameters at 16 keypoints.

    2.857 G multiply-adds at 416 x 416, of which the head has 1.8 G. Backbone and neck are those of
    ``mobile_pose_large``.
    """
    network = ComposedNetwork(
        num_keypoints,
        backbone={"name": "mobilenet_v3_large", "last": False},
        neck={"name": "unet", "width": 96, "separable": True},
        head={"name": "centernet", "num_classes": num_classes, "width": 32},
    )
    network.usual_size_wh = (416, 416)
    return network
