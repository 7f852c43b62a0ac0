"""SimpleBaseline: a ResNet, three transposed convolutions, one 1x1 convolution; and a dilated variant.

Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, https://arxiv.org/abs/1804.06208.
Layer details from microsoft/human-pose-estimation.pytorch (MIT) and leoxiaobin/deep-high-resolution-net.pytorch (MIT).
The dilated networks keep the resolution instead of recovering it: Insafutdinov et al., "DeeperCut", ECCV 2016,
https://arxiv.org/abs/1605.03170, section 3.

How this differs from the paper: R50 to R152 do not. R18, R34, the light variants, and the dilated network at stride 8
with only a 1x1 convolution on top are our own (DeeperCut dilates to stride 16 and adds one transposed convolution).
"""

from collections.abc import Mapping
from typing import Any

from poseglass.networks.compose import ComposedNetwork


def simple_baseline(
    num_keypoints: int,
    *,
    depth: int = 50,
    width: int = 64,
    num_deconvs: int = 3,
    deconv_width: int = 256,
    head: Mapping[str, Any] | None = None,
) -> ComposedNetwork:
    """Any ResNet followed by transposed convolutions; the defaults are the paper's R50.

    Args:
        num_keypoints: Number of keypoints, K.
        depth: Depth of the ResNet: 18, 34, 50, 101 or 152.
        width: Channels of the ResNet's stem.
        num_deconvs: Number of transposed convolutions; each doubles the resolution, starting from stride 32.
        deconv_width: Channels of each transposed convolution.
        head: As in ``ComposedNetwork``.
    """
    network = ComposedNetwork(
        num_keypoints,
        backbone={"name": f"resnet{depth}", "width": width},
        neck={"name": "deconv", "num_layers": num_deconvs, "width": deconv_width},
        head=head,
    )
    network.usual_size_wh = (192, 256)
    return network


def simple_baseline_r18(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """R18: 15,376,464 parameters at 16 keypoints, 3.862 G multiply-adds at 256 x 256."""
    return simple_baseline(num_keypoints, depth=18, head=head)


def simple_baseline_r34(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """R34: 25,484,624 parameters at 16 keypoints, 6.278 G multiply-adds at 256 x 256."""
    return simple_baseline(num_keypoints, depth=34, head=head)


def simple_baseline_r50(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """R50: 33,999,440 parameters at 16 keypoints, 7.234 G multiply-adds at 256 x 256."""
    return simple_baseline(num_keypoints, depth=50, head=head)


def simple_baseline_r101(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """R101: 52,991,568 parameters at 16 keypoints, 12.083 G multiply-adds at 256 x 256."""
    return simple_baseline(num_keypoints, depth=101, head=head)


def simple_baseline_r152(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """R152: 68,635,216 parameters at 16 keypoints, 16.931 G multiply-adds at 256 x 256."""
    return simple_baseline(num_keypoints, depth=152, head=head)


def simple_baseline_light(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """ResNet-18 with a 40-channel stem and 128-channel transposed convolutions; for inputs of 128 px.

    5,552,760 parameters at 16 keypoints, 0.337 G multiply-adds at 128 x 128.
    """
    network = simple_baseline(num_keypoints, depth=18, width=40, deconv_width=128, head=head)
    network.usual_size_wh = (128, 128)
    return network


def dilated_r50(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """ResNet-50 dilated to stride 8, which is also the stride of the heatmaps.

    23,540,816 parameters at 16 keypoints, 24.951 G multiply-adds at 256 x 256.
    """
    return _dilated(num_keypoints, 50, 64, head)


def dilated_light(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """ResNet-18 with a 24-channel stem, dilated to stride 8, which is also the heatmaps'; for inputs of 128 px.

    1,579,240 parameters at 16 keypoints, 0.433 G multiply-adds at 128 x 128.
    """
    network = _dilated(num_keypoints, 18, 24, head)
    network.usual_size_wh = (128, 128)
    return network


def _dilated(num_keypoints: int, depth: int, width: int, head: Mapping[str, Any] | None) -> ComposedNetwork:
    return ComposedNetwork(
        num_keypoints,
        backbone={"name": f"resnet{depth}", "width": width, "output_stride": 8},
        neck={"name": "level", "level": -1},
        head=head,
    )
