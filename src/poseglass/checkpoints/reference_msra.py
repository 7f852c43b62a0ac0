"""References of SimpleBaseline and HRNet, from their public names; mmpose's differ by prefixes of body and head.

Written from tables of names, shapes and layers; see ``reference`` for what a reference is.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from poseglass.checkpoints.reference import blocks, conv, doubled, norm, norm_relu, pooled


def simple_baseline(state: Mapping[str, Tensor], images: Tensor, *, body: str = "", head: str = "") -> Tensor:
    """Return the heatmaps of a SimpleBaseline: ResNet, transposed convolutions, 1x1.

    Args:
        state: State with the public names.
        images: ``(B, 3, H, W)``, normalised.
        body: Prefix of the ResNet's names, "backbone." in mmpose.
        head: Prefix of all other names, "head." in mmpose.
    """
    x = pooled(norm_relu(state, f"{body}bn1", conv(state, f"{body}conv1", images, stride=2)))
    for i in (1, 2, 3, 4):
        x = blocks(state, f"{body}layer{i}", x, stride=1 if i == 1 else 2)
    i = 0
    while f"{head}deconv_layers.{i}.weight" in state:
        weight = state[f"{head}deconv_layers.{i}.weight"].float()
        size = weight.shape[-1]  # each doubles the map
        x = functional.conv_transpose2d(x, weight, None, 2, {4: 1, 3: 1, 2: 0}[size], {4: 0, 3: 1, 2: 0}[size])
        x, i = norm_relu(state, f"{head}deconv_layers.{i + 1}", x), i + 3
    return conv(state, f"{head}final_layer", x)


def hrnet(state: Mapping[str, Tensor], images: Tensor, *, body: str = "", head: str = "") -> Tensor:
    """Return the heatmaps of an HRNet; arguments as in ``simple_baseline``."""
    return conv(state, f"{head}final_layer", hrnet_levels(state, images, body=body)[0])


def hrnet_levels(state: Mapping[str, Tensor], images: Tensor, *, body: str = "") -> list[Tensor]:
    """Return the outputs of HRNet's last module, finest first: one for pose, four for a classifier."""
    x = norm_relu(state, f"{body}bn1", conv(state, f"{body}conv1", images, stride=2))
    x = norm_relu(state, f"{body}bn2", conv(state, f"{body}conv2", x, stride=2))
    levels = [blocks(state, f"{body}layer1", x)]
    for stage in (2, 3, 4):
        transition = f"{body}transition{stage - 1}"
        # an unchanged branch has no tensors; a new one is made from the coarsest before it
        levels = [
            *(_transition(state, f"{transition}.{i}", level, 1) for i, level in enumerate(levels)),
            norm_relu(
                state,
                f"{transition}.{len(levels)}.0.1",
                conv(state, f"{transition}.{len(levels)}.0.0", levels[-1], stride=2),
            ),
        ]
        module = 0
        while f"{body}stage{stage}.{module}.branches.0.0.conv1.weight" in state:
            levels = _exchange(state, f"{body}stage{stage}.{module}", levels)
            module += 1
    return levels


def _transition(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    if f"{name}.0.weight" not in state:
        return x
    return norm_relu(state, f"{name}.1", conv(state, f"{name}.0", x, stride=stride))


def _exchange(state: Mapping[str, Tensor], name: str, levels: list[Tensor]) -> list[Tensor]:
    levels = [blocks(state, f"{name}.branches.{i}", level) for i, level in enumerate(levels)]
    mixed: list[Tensor] = []
    for i, own in enumerate(levels):
        if i and f"{name}.fuse_layers.{i}.0.0.0.weight" not in state:
            break  # the last module only keeps the finest branch
        total = own
        for j, other in enumerate(levels):
            part = f"{name}.fuse_layers.{i}.{j}"
            if j > i:
                total = total + doubled(norm(state, f"{part}.1", conv(state, f"{part}.0", other)), 2 ** (j - i))
            elif j < i:
                for k in range(i - j):
                    other = norm(state, f"{part}.{k}.1", conv(state, f"{part}.{k}.0", other, stride=2))
                    other = functional.relu(other) if k < i - j - 1 else other
                total = total + other
        mixed.append(functional.relu(total))
    return mixed
