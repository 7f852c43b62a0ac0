"""MobileNetV3 under a thin, separable U-Net; the small one takes the fewest multiply-adds of all networks here.

Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244, for the backbone; Ronneberger
et al. 2015 for the way up; the combination is ours. No paper proposes these two, so there is no published result for
them.

The 1x1 convolution behind the last block (160 -> 960) is left out: it widens the mean over the map that a classifier
takes, and this neck would narrow it again at once.
"""

from collections.abc import Mapping
from typing import Any

from poseglass.backbones.mobilenet_v3 import Order
from poseglass.networks.compose import ComposedNetwork


def mobile_pose_small(
    num_keypoints: int,
    *,
    width: int = 48,
    order: Order = "activate_excite",
    eps: float = 1e-5,
    head: Mapping[str, Any] | None = None,
) -> ComposedNetwork:
    """MobileNetV3-Small, for inputs of 128 px (sides a multiple of 32): 898,808 parameters at 16 keypoints.

    27.0 M multiply-adds at 128 x 128, a thirtieth of ``hg2_light``.
    """
    network = ComposedNetwork(
        num_keypoints,
        backbone={"name": "mobilenet_v3_small", "last": False, "order": order, "eps": eps},
        neck={"name": "unet", "width": width, "separable": True},
        head=head,
    )
    network.usual_size_wh = (128, 128)
    return network


def mobile_pose_large(
    num_keypoints: int,
    *,
    width: int = 96,
    order: Order = "activate_excite",
    eps: float = 1e-5,
    head: Mapping[str, Any] | None = None,
) -> ComposedNetwork:
    """MobileNetV3-Large, for inputs of 128 px (sides a multiple of 32): 2,915,152 parameters at 16 keypoints.

    101.8 M multiply-adds at 128 x 128, an eighth of ``hg2_light``.
    """
    network = ComposedNetwork(
        num_keypoints,
        backbone={"name": "mobilenet_v3_large", "last": False, "order": order, "eps": eps},
        neck={"name": "unet", "width": width, "separable": True},
        head=head,
    )
    network.usual_size_wh = (128, 128)
    return network
