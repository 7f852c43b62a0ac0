"""Layer 3: complete networks, each from one paper, that map images to stages."""

from collections.abc import Callable

from torch import nn

from poseglass.networks.centernet import (
    CenterNetHourglass,
    centernet_dla34,
    centernet_hourglass_52,
    centernet_hourglass_104,
    centernet_hrnet_w32,
    centernet_light,
    centernet_mobilenet_v3,
    centernet_resnet,
    centernet_resnet18,
    centernet_resnet34,
    centernet_resnet50,
    centernet_resnet101,
)
from poseglass.networks.centernet_fpn import CenterNetFPN, centernet_fpn_resnet18
from poseglass.networks.classifier import classifier
from poseglass.networks.clcnet import clcnet_a_classifier, clcnet_b_classifier
from poseglass.networks.compose import ComposedNetwork
from poseglass.networks.corner_hourglass import CornerHourglass, hourglass_52, hourglass_52_light, hourglass_104
from poseglass.networks.cpm import ConvolutionalPoseMachine, cpm, cpm_light
from poseglass.networks.cpn import CascadedPyramidNetwork, cpn_light, cpn_r50, cpn_r101
from poseglass.networks.hrnet import hrnet, hrnet_w16_light, hrnet_w32, hrnet_w48
from poseglass.networks.mobile_pose import mobile_pose_large, mobile_pose_small
from poseglass.networks.mobilenet_v3 import mobilenet_v3_large_classifier, mobilenet_v3_small_classifier
from poseglass.networks.msdnet import MultiScaleDenseNet, msdnet
from poseglass.networks.simple_baseline import (
    dilated_light,
    dilated_r50,
    simple_baseline,
    simple_baseline_light,
    simple_baseline_r18,
    simple_baseline_r34,
    simple_baseline_r50,
    simple_baseline_r101,
    simple_baseline_r152,
)
from poseglass.networks.stacked_hourglass import StackedHourglass, hg1, hg1_light, hg2, hg2_light, hg4, hg8
from poseglass.networks.unet import UNet, unet_full, unet_light

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "stacked_hourglass": StackedHourglass,
    "unet": UNet,
    "composed": ComposedNetwork,
    "corner_hourglass": CornerHourglass,
    "pose_machine": ConvolutionalPoseMachine,
    "cpn": CascadedPyramidNetwork,
    "hrnet": hrnet,
    "simple_baseline": simple_baseline,
    "centernet_hourglass": CenterNetHourglass,
    "centernet_resnet": centernet_resnet,
    "centernet_fpn": CenterNetFPN,
    "multi_scale_densenet": MultiScaleDenseNet,
    "classifier": classifier,
}
"""Builders of a whole family: any member can be built from keyword arguments, which determine its cost."""

NETWORKS: dict[str, Callable[..., nn.Module]] = FAMILIES | {
    "hg1": hg1,
    "hg2": hg2,
    "hg4": hg4,
    "hg8": hg8,
    "hg1_light": hg1_light,
    "hg2_light": hg2_light,
    "unet_full": unet_full,
    "unet_light": unet_light,
    "mobile_pose_small": mobile_pose_small,
    "mobile_pose_large": mobile_pose_large,
    "hourglass_52": hourglass_52,
    "hourglass_104": hourglass_104,
    "hourglass_52_light": hourglass_52_light,
    "cpm": cpm,
    "cpm_light": cpm_light,
    "cpn_r50": cpn_r50,
    "cpn_r101": cpn_r101,
    "cpn_light": cpn_light,
    "hrnet_w32": hrnet_w32,
    "hrnet_w48": hrnet_w48,
    "hrnet_w16_light": hrnet_w16_light,
    "simple_baseline_r18": simple_baseline_r18,
    "simple_baseline_r34": simple_baseline_r34,
    "simple_baseline_r50": simple_baseline_r50,
    "simple_baseline_r101": simple_baseline_r101,
    "simple_baseline_r152": simple_baseline_r152,
    "simple_baseline_light": simple_baseline_light,
    "dilated_r50": dilated_r50,
    "dilated_light": dilated_light,
    "centernet_hourglass_52": centernet_hourglass_52,
    "centernet_hourglass_104": centernet_hourglass_104,
    "centernet_light": centernet_light,
    "centernet_resnet18": centernet_resnet18,
    "centernet_resnet34": centernet_resnet34,
    "centernet_resnet50": centernet_resnet50,
    "centernet_resnet101": centernet_resnet101,
    "centernet_dla34": centernet_dla34,
    "centernet_hrnet_w32": centernet_hrnet_w32,
    "centernet_mobilenet_v3": centernet_mobilenet_v3,
    "centernet_fpn_resnet18": centernet_fpn_resnet18,
    "mobilenet_v3_large_classifier": mobilenet_v3_large_classifier,
    "mobilenet_v3_small_classifier": mobilenet_v3_small_classifier,
    "msdnet": msdnet,
    "clcnet_a_classifier": clcnet_a_classifier,
    "clcnet_b_classifier": clcnet_b_classifier,
}
"""Every network that a recipe or a card can name. Each states its ``stride``, ``divisor`` and ``usual_size_wh``."""
