"""Tensor names in repositories derived from torchvision's ResNet, for ResNet and HRNet: our name -> theirs.

Most public pose networks are built on that code, so several importers share these tables of names.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from poseglass.checkpoints.importer import normalisation, shape_of
from poseglass.estimators.weights_file import CheckpointError

RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks per stage, by depth; those of 18 and 34 have two convolutions, the others three."""


def conv_then_norm(new: str, conv: str, norm: str) -> dict[str, str]:
    """Return the names of a convolution without bias and its batch norm; ours are ``new`` with "conv" and "norm"."""
    return {f"{new}.conv.weight": f"{conv}.weight"} | normalisation(f"{new}.norm", norm)


def residual_block(new: str, old: str, num_convs: int, *, shortcut: bool) -> dict[str, str]:
    """Return the names of a basic block (two convolutions) or a bottleneck (three)."""
    names: dict[str, str] = {}
    for k in range(1, num_convs + 1):
        names |= conv_then_norm(f"{new}.inside{k}", f"{old}.conv{k}", f"{old}.bn{k}")
    if shortcut:
        names |= conv_then_norm(f"{new}.shortcut", f"{old}.downsample.0", f"{old}.downsample.1")
    return names


def resnet_names(depth: int, *, new: str = "", old: str = "") -> dict[str, str]:
    """Return the names of a whole ``ResNet`` without its classifier; ``new`` and ``old`` are prefixes."""
    num_convs = 2 if depth < 50 else 3
    names = conv_then_norm(f"{new}stem", f"{old}conv1", f"{old}bn1")
    for i, count in enumerate(RESNET_BLOCKS[depth]):
        for j in range(count):
            shortcut = j == 0 and (i > 0 or num_convs == 3)  # a basic block of the first stage keeps the shape
            block = residual_block(f"{new}stages.{i}.{j}", f"{old}layer{i + 1}.{j}", num_convs, shortcut=shortcut)
            names |= block
    return names


def resnet_depth(keys: Collection[str], *, old: str = "") -> int | None:
    """Return the depth of the ResNet that has these names; None if there is no such ResNet."""
    counts = tuple(
        sum(key.startswith(f"{old}layer{i}.") and key.endswith(".conv1.weight") for key in keys) for i in (1, 2, 3, 4)
    )
    basic = f"{old}layer1.0.conv3.weight" not in keys
    fitting = [depth for depth, blocks in RESNET_BLOCKS.items() if blocks == counts and (depth < 50) == basic]
    return fitting[0] if fitting else None


def hrnet_names(
    num_modules: Sequence[int],
    num_blocks: int,
    num_bottlenecks: int,
    *,
    finest_only: bool,
    new: str = "",
    old: str = "",
) -> dict[str, str]:
    """Return the names of a whole ``HRNet``; ``new`` and ``old`` are prefixes."""
    names = conv_then_norm(f"{new}stem.0", f"{old}conv1", f"{old}bn1")
    names |= conv_then_norm(f"{new}stem.1", f"{old}conv2", f"{old}bn2")
    for j in range(num_bottlenecks):
        names |= residual_block(f"{new}bottlenecks.{j}", f"{old}layer1.{j}", 3, shortcut=j == 0)
    names |= conv_then_norm(f"{new}finest", f"{old}transition1.0.0", f"{old}transition1.0.1")
    for i, count in enumerate(num_modules):
        branches = i + 2
        begin = f"{old}transition{i + 1}.{i + 1}.0"
        names |= conv_then_norm(f"{new}coarser.{i}", f"{begin}.0", f"{begin}.1")
        for m in range(count):
            ours, theirs = f"{new}stages.{i}.{m}", f"{old}stage{i + 2}.{m}"
            for b in range(branches):
                for k in range(num_blocks):
                    names |= residual_block(f"{ours}.branches.{b}.{k}", f"{theirs}.branches.{b}.{k}", 2, shortcut=False)
            outputs = 1 if finest_only and i == 2 and m == count - 1 else branches
            for target in range(outputs):
                for source in range(branches):
                    path, fuse = f"{ours}.exchange.{target}.{source}", f"{theirs}.fuse_layers.{target}.{source}"
                    if source > target:
                        names |= conv_then_norm(path, f"{fuse}.0", f"{fuse}.1")
                    for step in range(target - source):
                        names |= conv_then_norm(f"{path}.{step}", f"{fuse}.{step}.0", f"{fuse}.{step}.1")
    return names


def hrnet_counts(keys: Collection[str], *, old: str = "") -> dict[str, Any]:
    """Return ``num_modules``, ``num_blocks`` and ``num_bottlenecks`` according to these names."""

    def count(before: str, after: str) -> int:
        return sum(key.startswith(f"{old}{before}") and key.endswith(after) for key in keys)

    return {
        "num_modules": [count(f"stage{s}.", ".branches.0.0.conv1.weight") for s in (2, 3, 4)],
        "num_blocks": count("stage2.0.branches.0.", ".conv1.weight"),
        "num_bottlenecks": count("layer1.", ".conv1.weight"),
    }


def pose_hrnet(keys: Collection[str], num_keypoints: int, width: int, stem_width: int, *, old: str) -> dict[str, Any]:
    """Return a card's description of an HRNet for pose: by its short name if it is one of the paper's."""
    counts = hrnet_counts(keys, old=old)
    published = {"num_modules": [1, 4, 3], "num_blocks": 4, "num_bottlenecks": 4}
    if width in (32, 48) and stem_width == 64 and counts == published:
        return {"name": f"hrnet_w{width}", "num_keypoints": num_keypoints}
    return {"name": "hrnet", "num_keypoints": num_keypoints, "width": width, "stem_width": stem_width} | counts


def pose_hrnet_names(network: Mapping[str, Any], *, old: str, head: str) -> dict[str, str]:
    """Return our name -> theirs for an HRNet for pose: prefix ``old`` for its backbone, ``head`` for its output."""
    names = hrnet_names(
        network.get("num_modules", (1, 4, 3)),
        network.get("num_blocks", 4),
        network.get("num_bottlenecks", 4),
        finest_only=True,
        new="backbone.",
        old=old,
    )
    return names | {"head.conv.weight": f"{head}final_layer.weight", "head.conv.bias": f"{head}final_layer.bias"}


def simple_baseline(state: Mapping[str, Tensor], *, old: str, head: str, layout: str) -> dict[str, Any]:
    """Return a card's description of a SimpleBaseline, by its short name if it is one of the paper's.

    Raises:
        CheckpointError: A required tensor is missing, or the blocks match no known ResNet.
    """
    num_keypoints, deconv_width, _, _ = shape_of(state, f"{head}final_layer.weight", 4, layout)
    width = shape_of(state, f"{old}conv1.weight", 4, layout)[0]
    depth = resnet_depth(state, old=old)
    if depth is None:
        raise CheckpointError(f"The checkpoint looks like {layout}, but its blocks match no ResNet 18 to 152.")
    num_deconvs = sum(key.startswith(f"{head}deconv_layers.") and key.endswith(".running_mean") for key in state)
    if (width, deconv_width, num_deconvs) == (64, 256, 3):
        return {"name": f"simple_baseline_r{depth}", "num_keypoints": num_keypoints}
    table: dict[str, Any] = {"name": "simple_baseline", "num_keypoints": num_keypoints, "depth": depth}
    return table | {"width": width, "num_deconvs": num_deconvs, "deconv_width": deconv_width}


def simple_baseline_names(network: Mapping[str, Any], *, old: str, head: str) -> dict[str, str]:
    """Return our name -> theirs for a SimpleBaseline: prefix ``old`` for its ResNet, ``head`` for the rest."""
    short = str(network["name"]).rpartition("_r")[2]
    names = resnet_names(int(short) if short.isdigit() else network.get("depth", 50), new="backbone.", old=old)
    for i in range(network.get("num_deconvs", 3)):  # theirs numbers convolution, batch norm and ReLU consecutively
        deconv = f"{head}deconv_layers"
        names |= conv_then_norm(f"neck.layers.{i}", f"{deconv}.{3 * i}", f"{deconv}.{3 * i + 1}")
    return names | {"head.conv.weight": f"{head}final_layer.weight", "head.conv.bias": f"{head}final_layer.bias"}
