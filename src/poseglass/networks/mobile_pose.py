"""MobileNetV3 with a thin, separable U-Net neck; the small one has the fewest multiply-adds of all here.

Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244, for the backbone; Ronneberger
et al. 2015 for the neck; the combination is our own. No paper proposes these two networks, so there are no published
results for them.

The 1x1 convolution after the last block (160 -> 960) is omitted: it widens the features for a classifier's global
pooling, and this neck would narrow them again at once.
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
