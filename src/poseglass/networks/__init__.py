"""Floor 3: what papers propose, end to end: images to stages."""

from collections.abc import Callable

from torch import nn

from poseglass.networks.stacked_hourglass import StackedHourglass, hg1, hg1_light, hg2, hg2_light, hg4, hg8

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "stacked_hourglass": StackedHourglass,
    "hg1": hg1,
    "hg2": hg2,
    "hg4": hg4,
    "hg8": hg8,
    "hg1_light": hg1_light,
    "hg2_light": hg2_light,
}
