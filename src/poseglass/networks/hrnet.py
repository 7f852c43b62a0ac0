"""HRNet for pose: the finest of its resolutions, and one 1x1 convolution to the heatmaps.

Sun, Xiao, Liu, Wang, "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019,
https://arxiv.org/abs/1902.09212. Layer details from leoxiaobin/deep-high-resolution-net.pytorch (MIT).

How this differs from the paper: W32 and W48 do not. The light variant is our own, for inputs of 128 px on a laptop.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from poseglass.networks.compose import ComposedNetwork


def hrnet(
    num_keypoints: int,
    *,
    width: int = 32,
    num_modules: Sequence[int] = (1, 4, 3),
    num_blocks: int = 4,
    num_bottlenecks: int = 4,
    stem_width: int = 64,
    head: Mapping[str, Any] | None = None,
) -> ComposedNetwork:
    """Any HRNet for pose; the arguments are those of ``poseglass.backbones.hrnet.HRNet``, and default to W32."""
    network = ComposedNetwork(
        num_keypoints,
        backbone={
            "name": "hrnet",
            "width": width,
            "num_modules": num_modules,
            "num_blocks": num_blocks,
            "num_bottlenecks": num_bottlenecks,
            "stem_width": stem_width,
            "finest_only": True,
        },
        neck={"name": "level", "level": 0},
        head=head,
    )
    network.usual_size_wh = (192, 256)
    return network


def hrnet_w32(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """W32: 28,536,080 parameters at 16 keypoints, 10.193 G multiply-adds at 256 x 256."""
    return hrnet(num_keypoints, width=32, head=head)


def hrnet_w48(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """W48: 63,595,696 parameters at 16 keypoints, 20.922 G multiply-adds at 256 x 256."""
    return hrnet(num_keypoints, width=48, head=head)


def hrnet_w16_light(num_keypoints: int, *, head: Mapping[str, Any] | None = None) -> ComposedNetwork:
    """W16 with fewer modules, for inputs of 128 px.

    One, two and one modules instead of one, four and three, half the stem, two bottlenecks: 2,722,640 parameters at 16
    keypoints, 0.316 G multiply-adds at 128 x 128.
    """
    network = hrnet(num_keypoints, width=16, num_modules=(1, 2, 1), num_bottlenecks=2, stem_width=32, head=head)
    network.usual_size_wh = (128, 128)
    return network
