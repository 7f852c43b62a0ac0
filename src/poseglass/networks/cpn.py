"""Cascaded Pyramid Network: every level of a feature pyramid predicts heatmaps, and a second network refines them.

Chen, Wang, Peng, Zhang, Yu, Sun, "Cascaded Pyramid Network for Multi-Person Pose Estimation", CVPR 2018,
https://arxiv.org/abs/1711.07319. Written from the paper and a table of parameter counts; no code was read.

How this differs from the paper: details that it leaves open were chosen to match the parameter counts. Every
convolution, including that of the heatmaps, has no bias and is followed by batch norm; upsampling is bilinear with
aligned corners; and each level's heatmaps are resized to the output's size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.backbones import BACKBONES
from poseglass.core.prediction import Stages
from poseglass.core.table import build_part
from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.input_size import check_input


def resize(features: Tensor, like: Tensor) -> Tensor:
    """Resize features to the height and width of ``like``, bilinearly, with aligned corners."""
    if features.shape[-2:] == like.shape[-2:]:
        return features
    return functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=True)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, added to a 1x1 projection of the input, ReLU last.

    Args:
        in_channels: Channels of the input.
        middle: Channels inside.
        out_channels: Channels of the output.

    Source:
        He et al. 2016, figure 5 right, https://arxiv.org/abs/1512.03385; here the skip is always projected.
    """

    def __init__(self, in_channels: int, middle: int, out_channels: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            ConvNorm(in_channels, middle, 1),
            ConvNorm(middle, middle, 3),
            ConvNorm(middle, out_channels, 1, activation="none"),
        )
        self.shortcut = ConvNorm(in_channels, out_channels, 1, activation="none")

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``."""
        return functional.relu(self.inside(features) + self.shortcut(features))


class GlobalNet(nn.Module):
    """A top-down feature pyramid, and heatmaps from each of its levels.

    Args:
        channels: Channels of the backbone's levels, finest first.
        num_keypoints: Number of keypoints, K.
        width: Channels of every level of the pyramid.

    Source:
        Chen et al. 2018, section 3.2.1. The 1x1 convolution of the top-down path comes after the upsampling.
    """

    def __init__(self, channels: tuple[int, ...], num_keypoints: int, width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvNorm(given, width, 1) for given in channels)
        self.tops = nn.ModuleList(ConvNorm(width, width, 1, activation="none") for _ in channels[1:])
        self.predict = nn.ModuleList(
            nn.Sequential(ConvNorm(width, width, 1), nn.Conv2d(width, num_keypoints, 3, padding=1, bias=False))
            for _ in channels
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(num_keypoints) for _ in channels)

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map the backbone's levels to the pyramid's and to each level's heatmaps, both finest first.

        Returns:
            Levels ``(B, width, h_i, w_i)``, and maps ``(B, K, h_0, w_0)`` at the finest level's size.
        """
        pyramid = [self.laterals[-1](levels[-1])]
        for i in reversed(range(len(levels) - 1)):
            above = resize(pyramid[0], levels[i])
            pyramid.insert(0, self.laterals[i](levels[i]) + self.tops[i](above))
        maps = [
            norm(resize(predict(level), levels[0]))
            for level, predict, norm in zip(pyramid, self.predict, self.norms, strict=True)
        ]
        return pyramid, maps


class RefineNet(nn.Module):
    """Combines all levels of the pyramid into one set of heatmaps; coarser levels get more bottlenecks.

    Args:
        num_levels: Number of pyramid levels; level i, counted from the finest, goes through i bottlenecks.
        num_keypoints: Number of keypoints, K.
        width: Channels of every level, even.

    Source:
        Chen et al. 2018, section 3.2.2 and figure 1.
    """

    def __init__(self, num_levels: int, num_keypoints: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.levels = nn.ModuleList(
            nn.Sequential(*(Bottleneck(width, half, width) for _ in range(i))) for i in range(num_levels)
        )
        self.mix = Bottleneck(num_levels * width, half, width)
        self.predict = ConvNorm(width, num_keypoints, 3, activation="none")

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Map ``(B, width, h_i, w_i)``, finest first, to ``(B, K, h_0, w_0)``."""
        refined = [resize(level(given), pyramid[0]) for level, given in zip(self.levels, pyramid, strict=True)]
        return self.predict(self.mix(torch.cat(refined, dim=1)))


class CascadedPyramidNetwork(nn.Module):
    """The whole network: images to one stage of heatmaps per level of GlobalNet, coarsest first, then RefineNet's.

    Args:
        num_keypoints: Number of keypoints, K.
        backbone: ``{"name": ..., ...}``, built from ``BACKBONES``; None means the paper's ResNet-50.
        width: Channels of the pyramid, even.

    Attributes:
        stride: Stride of the heatmaps, which is the backbone's finest: 4 with a ResNet.
        divisor: Both sides of an input must be divisible by it.
        usual_size_wh: Usual training input size, pixels; variants for another size override it.

    Raises:
        LookupError: An unknown backbone; the message suggests the nearest one.
        ValueError: An invalid width, or a backbone without a name.

    Source:
        Chen et al. 2018, section 3.2. In the paper, GlobalNet is trained on all labelled joints and RefineNet on the
        hard ones (``losses.heatmap.hard_keypoint_squared_error``).
    """

    usual_size_wh: tuple[int, int] = (192, 256)

    def __init__(self, num_keypoints: int, *, backbone: Mapping[str, Any] | None = None, width: int = 256) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"A cascaded pyramid's width must be even (bottlenecks halve it), got {width!r}.")
        below: Any = build_part(BACKBONES, {"name": "resnet50"} if backbone is None else backbone, "backbone")
        self.num_keypoints = num_keypoints
        self.backbone = below
        self.global_net = GlobalNet(below.channels, num_keypoints, width)
        self.refine_net = RefineNet(len(below.channels), num_keypoints, width)
        self.stride: int = below.strides[0]
        self.divisor: int = below.divisor

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to stages ``{"heatmap": (B, K, H/stride, W/stride)}``; the last is the prediction.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        check_input(images, self.divisor)
        pyramid, maps = self.global_net(self.backbone(images))
        return [{"heatmap": heatmap} for heatmap in [*reversed(maps), self.refine_net(pyramid)]]


def cpn_r50(num_keypoints: int) -> CascadedPyramidNetwork:
    """With ResNet-50: 27,395,296 parameters at 16 keypoints, 9.732 G multiply-adds at 256 x 256."""
    return CascadedPyramidNetwork(num_keypoints, backbone={"name": "resnet50"})


def cpn_r101(num_keypoints: int) -> CascadedPyramidNetwork:
    """With ResNet-101: 46,387,424 parameters at 16 keypoints, 14.581 G multiply-adds at 256 x 256."""
    return CascadedPyramidNetwork(num_keypoints, backbone={"name": "resnet101"})


def cpn_light(num_keypoints: int) -> CascadedPyramidNetwork:
    """ResNet-18 with a 40-channel stem and a 64-channel pyramid; for inputs of 128 px.

    4,627,976 parameters at 16 keypoints, 0.323 G multiply-adds at 128 x 128.
    """
    network = CascadedPyramidNetwork(num_keypoints, backbone={"name": "resnet18", "width": 40}, width=64)
    network.usual_size_wh = (128, 128)
    return network
