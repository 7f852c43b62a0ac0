"""References of mmpose's hourglass (CornerNet's) and its pose machine, from their public names.

Written from tables of names, shapes and layers; see ``reference`` for what a reference is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from poseglass.checkpoints.reference import block, blocks, conv, conv_bn, doubled, norm, pooled


def corner_hourglass(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the last stack's heatmaps of an hourglass of basic blocks that downsamples by stride."""

    def hourglass(name: str, x: Tensor) -> Tensor:
        if f"{name}.up1.0.conv1.weight" not in state:
            return blocks(state, name, x)
        low = hourglass(f"{name}.low2", blocks(state, f"{name}.low1", x, stride=2))
        return blocks(state, f"{name}.up1", x) + doubled(blocks(state, f"{name}.low3", low))

    x = block(state, "backbone.stem.1.0", conv_bn(state, "backbone.stem.0", images, stride=2), stride=2)
    i, maps = 0, x
    while f"backbone.hourglass_modules.{i}.up1.0.conv1.weight" in state:
        features = conv_bn(state, f"backbone.out_convs.{i}", hourglass(f"backbone.hourglass_modules.{i}", x))
        maps = conv(state, f"head.multi_final_layers.{i}", features)
        if f"backbone.remap_convs.{i}.conv.weight" in state:
            parts = ((f"backbone.conv1x1s.{i}", x), (f"backbone.remap_convs.{i}", features))
            kept, back = (norm(state, f"{name}.bn", conv(state, f"{name}.conv", given)) for name, given in parts)
            x = block(state, f"backbone.inters.{i}", functional.relu(kept + back))
        i += 1
    return maps


def pose_machine(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the last stage's belief maps of a convolutional pose machine."""

    def trunk(name: str) -> Tensor:
        x = images
        for i in (0, 2, 4):
            x = pooled(conv_bn(state, f"{name}.{i}", x))
        return x

    maps = trunk("backbone.stem")
    for i in (6, 7, 8, 9):
        maps = conv_bn(state, f"backbone.stem.{i}", maps)
    features, i = trunk("backbone.middle"), 0
    while f"backbone.middle_conv.{i}.0.conv.weight" in state:
        x = torch.cat([maps, conv_bn(state, f"backbone.middle_conv.{i}.0", features)], 1)
        for j in range(3):
            x = conv_bn(state, f"backbone.cpm_stages.{i}.model.{j}", x)
        maps = conv_bn(state, f"backbone.out_convs.{i}.1", conv_bn(state, f"backbone.out_convs.{i}.0", x))
        i += 1
    return maps
