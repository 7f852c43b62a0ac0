"""Floor 3: what papers propose, end to end: images to stages."""

from collections.abc import Callable

from torch import nn

from poseglass.networks.corner_hourglass import CornerHourglass, hourglass_52, hourglass_52_light, hourglass_104
from poseglass.networks.cpm import ConvolutionalPoseMachine, cpm, cpm_light
from poseglass.networks.stacked_hourglass import StackedHourglass, hg1, hg1_light, hg2, hg2_light, hg4, hg8

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "stacked_hourglass": StackedHourglass,
    "hg1": hg1,
    "hg2": hg2,
    "hg4": hg4,
    "hg8": hg8,
    "hg1_light": hg1_light,
    "hg2_light": hg2_light,
    "corner_hourglass": CornerHourglass,
    "hourglass_52": hourglass_52,
    "hourglass_104": hourglass_104,
    "hourglass_52_light": hourglass_52_light,
    "pose_machine": ConvolutionalPoseMachine,
    "cpm": cpm,
    "cpm_light": cpm_light,
}
