"""References of ResNet, MobileNetV3, EfficientNet-Lite and DLA classifiers, up to their last map, by public names.

Written from tables of names, shapes and layers; see ``reference`` for what a reference is. Each returns the levels of
the corresponding backbone in ``BACKBONES``, finest first. MobileNetV3's classifier and torchvision's LR-ASPP on it are
here too, to their logits.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from poseglass.checkpoints.reference import blocks, conv, norm, norm_relu, pooled
from poseglass.core.prediction import Prediction

_STRIDES = {
    15: (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1),
    11: (2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1),
}
"""Number of blocks of MobileNetV3, Large and Small (Howard et al. 2019, tables 1 and 2)."""

_FIRST_HARD = {15: 6, 11: 3}
"""The first block with h-swish; earlier ones have a ReLU."""


def resnet(state: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """Return the outputs of the four stages of a ResNet with torchvision's names; ``images`` ``(B, 3, H, W)``."""
    x = pooled(norm_relu(state, "bn1", conv(state, "conv1", images, stride=2)))
    levels: list[Tensor] = []
    for i in (1, 2, 3, 4):
        x = blocks(state, f"layer{i}", x, stride=1 if i == 1 else 2)
        levels.append(x)
    return levels


def mobilenet_v3(
    state: Mapping[str, Tensor], images: Tensor, *, publisher: Literal["dli14", "torchvision", "timm"]
) -> list[Tensor]:
    """Return the input of each block with stride 2 of a MobileNetV3, and the last convolution's output.

    Args:
        state: State with the publisher's names.
        images: ``(B, 3, H, W)``, normalised.
        publisher: Determines the names, the epsilon of batch norm, and the order of activation and
            squeeze-and-excitation.
    """
    maps = _mobilenet_v3_maps(state, images, publisher)
    strides = _STRIDES[len(maps) - 2]
    return [*(maps[i] for i, stride in enumerate(strides) if stride == 2), maps[-1]]


def mobilenet_v3_classifier(
    state: Mapping[str, Tensor], images: Tensor, *, publisher: Literal["dli14", "torchvision", "timm"]
) -> Prediction:
    """Return the logits of a MobileNetV3 classifier as ``"class"`` ``(B, C)``; arguments as in ``mobilenet_v3``."""
    hidden, classes = ("conv_head", "classifier") if publisher == "timm" else ("classifier.0", "classifier.3")
    x = _mobilenet_v3_maps(state, images, publisher)[-1].mean((2, 3))
    for name in (hidden, classes):  # some store the first as a 1x1 kernel
        x = functional.linear(x, state[f"{name}.weight"].float().flatten(1), state[f"{name}.bias"].float())
        x = functional.hardswish(x) if name == hidden else x
    return {"class": x}


def lr_aspp(state: Mapping[str, Tensor], images: Tensor) -> Prediction:
    """Return the logits of torchvision's LR-ASPP on MobileNetV3-Large as ``"mask"`` ``(B, C, H, W)``.

    The last three blocks have a dilation of 2, and none of them a stride. The fine features are those of the first
    block of stride 8, number 4 counted from the first convolution.

    Args:
        state: State with torchvision's names, ``backbone.*`` and ``classifier.*``.
        images: ``(B, 3, H, W)``, normalised.
    """
    features = {name.replace("backbone.", "features.", 1): tensor for name, tensor in state.items()}
    maps = _mobilenet_v3_maps(features, images, "torchvision", dilated_from=12)
    fine, coarse = maps[4], maps[-1]
    reduced = norm_relu(state, "classifier.cbr.1", conv(state, "classifier.cbr.0", coarse))
    weights = torch.sigmoid(conv(state, "classifier.scale.1", coarse.mean((2, 3), keepdim=True)))
    weighted = functional.interpolate(reduced * weights, size=fine.shape[2:], mode="bilinear", align_corners=False)
    logits = conv(state, "classifier.low_classifier", fine) + conv(state, "classifier.high_classifier", weighted)
    return {"mask": functional.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)}


def _mobilenet_v3_maps(
    state: Mapping[str, Tensor],
    images: Tensor,
    publisher: Literal["dli14", "torchvision", "timm"],
    *,
    dilated_from: int | None = None,
) -> list[Tensor]:
    """Return the outputs of the first convolution, of every block, and of the last convolution."""
    eps = 1e-3 if publisher == "torchvision" else 1e-5
    stem = {"timm": ("conv_stem", "bn1")}.get(publisher, ("features.0.0", "features.0.1"))
    x = functional.hardswish(norm(state, stem[1], conv(state, stem[0], images, stride=2), eps=eps))
    bases = list(_bases(state, publisher))
    maps = [x]
    for i, base in enumerate(bases):
        stride, dilation = _STRIDES[len(bases)][i], 1
        if dilated_from is not None and i >= dilated_from:
            stride, dilation = 1, 2
        act = functional.hardswish if i >= _FIRST_HARD[len(bases)] else functional.relu
        at, y = _places(state, publisher, base, i > 0), x
        if i:
            y = act(norm(state, f"{base}.{at['pw_bn']}", conv(state, f"{base}.{at['pw']}", y), eps=eps))
        kernel = state[f"{base}.{at['dw']}.weight"].float()
        reach = dilation * (kernel.shape[-1] // 2)
        y = functional.conv2d(y, kernel, None, stride, reach, dilation, groups=len(kernel))
        y = norm(state, f"{base}.{at['dw_bn']}", y, eps=eps)
        squeeze = f"{base}.{at['fc1']}"
        if f"{squeeze}.weight" not in state:
            y = act(y)
        elif publisher == "dli14" and i:  # its first block, which does not expand, has the paper's order
            y = act(_excited(state, squeeze, f"{base}.{at['fc2']}", y))
        else:
            y = _excited(state, squeeze, f"{base}.{at['fc2']}", act(y))
        y = norm(state, f"{base}.{at['out_bn']}", conv(state, f"{base}.{at['out']}", y), eps=eps)
        x = x + y if x.shape == y.shape else y
        maps.append(x)
    last = {
        "dli14": ("conv.0", "conv.1"),
        "torchvision": (f"features.{len(bases) + 1}.0", f"features.{len(bases) + 1}.1"),
        "timm": ("blocks.{0}.0.conv", "blocks.{0}.0.bn1"),
    }[publisher]
    deepest = int(bases[-1].split(".")[1]) + 1  # among timm's stages
    kernel, its_norm = (name.format(deepest) for name in last)
    return [*maps, functional.hardswish(norm(state, its_norm, conv(state, kernel, x), eps=eps))]


def _bases(state: Mapping[str, Tensor], publisher: str) -> Iterator[str]:
    """Yield the prefix of each block's names."""
    if publisher != "timm":
        inside, first = ("conv", "conv.0") if publisher == "dli14" else ("block", "block.0.0")
        i = 1
        while f"features.{i}.{first}.weight" in state:
            yield f"features.{i}.{inside}"
            i += 1
        return
    stage, place = 0, 0
    while f"blocks.{stage}.{place}.conv_dw.weight" in state:
        yield f"blocks.{stage}.{place}"
        again = f"blocks.{stage}.{place + 1}.conv_dw.weight" in state
        stage, place = (stage, place + 1) if again else (stage + 1, 0)


def _excited(state: Mapping[str, Tensor], reduce: str, expand: str, x: Tensor) -> Tensor:
    """Scale the channels by a function of their means: two dense layers, which some store as 1x1 kernels."""
    (first, second), (bias, other) = (
        [state[f"{name}.{leaf}"].float() for name in (reduce, expand)] for leaf in ("weight", "bias")
    )
    hidden = functional.relu(functional.linear(x.mean((2, 3)), first.flatten(1), bias))
    return x * functional.hardsigmoid(functional.linear(hidden, second.flatten(1), other))[:, :, None, None]


def _places(state: Mapping[str, Tensor], publisher: str, base: str, widens: bool) -> dict[str, str]:
    """Return where a block stores its convolutions, norms and squeeze-and-excitation."""
    if publisher == "dli14":  # activations, and identities in place of squeeze-and-excitation, count as entries too
        at = 3 if widens else 0
        squeeze = f"{at + 2 if widens else 3}.fc"
        numbers = {"pw": 0, "pw_bn": 1, "dw": at, "dw_bn": at + 1, "out": at + 4, "out_bn": at + 5}
        return {key: str(value) for key, value in numbers.items()} | {"fc1": f"{squeeze}.0", "fc2": f"{squeeze}.2"}
    if publisher == "torchvision":
        at = 1 if widens else 0
        out = at + 2 if f"{base}.{at + 1}.fc1.weight" in state else at + 1
        return {
            "pw": "0.0", "pw_bn": "0.1", "dw": f"{at}.0", "dw_bn": f"{at}.1", "fc1": f"{at + 1}.fc1",
            "fc2": f"{at + 1}.fc2", "out": f"{out}.0", "out_bn": f"{out}.1",
        }  # fmt: skip
    number = 2 if widens else 1
    return {
        "pw": "conv_pw", "pw_bn": "bn1", "dw": "conv_dw", "dw_bn": f"bn{number}", "fc1": "se.conv_reduce",
        "fc2": "se.conv_expand", "out": "conv_pwl" if widens else "conv_pw", "out_bn": f"bn{number + 1}",
    }  # fmt: skip


def efficientnet_lite(state: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """Return the input of each block with stride 2 of an EfficientNet-Lite, and the output of its last block.

    The strides are read from the numbers of channels and the place in the network: a block that begins one of the
    stages 2, 3, 4 and 6 halves the map (Tan and Le 2019, table 1).

    Args:
        state: State with the names of ``efficientnet-lite-pytorch``.
        images: ``(B, 3, H, W)``, normalised.
    """
    x = functional.relu6(norm(state, "_bn0", _same(state, "_conv_stem", images, 2), eps=1e-3))
    levels: list[Tensor] = []
    stage, i = 0, 0
    while (base := f"_blocks.{i}") and f"{base}._depthwise_conv.weight" in state:
        begins = len(state[f"{base}._project_conv.weight"]) != x.shape[1]
        stage += begins
        stride = 2 if begins and stage in (2, 3, 4, 6) else 1
        if stride == 2:
            levels.append(x)
        y = x
        if f"{base}._expand_conv.weight" in state:
            y = functional.relu6(norm(state, f"{base}._bn0", _same(state, f"{base}._expand_conv", y, 1), eps=1e-3))
        y = functional.relu6(norm(state, f"{base}._bn1", _same(state, f"{base}._depthwise_conv", y, stride), eps=1e-3))
        y = norm(state, f"{base}._bn2", _same(state, f"{base}._project_conv", y, 1), eps=1e-3)
        x, i = y if begins else x + y, i + 1
    return [*levels, x]


def _same(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    """Convolve as TensorFlow does with padding "SAME", whose odd pixel is the last; one channel in makes it depthwise.

    The map is padded by the kernel's reach on both sides. With stride 2 an even side needs one pixel less, which
    TensorFlow omits at the top or left: the grid begins one pixel later.
    """
    kernel = state[f"{name}.weight"].float()
    reach = kernel.shape[-1] // 2
    x = functional.pad(x, (reach,) * 4)
    top, left = (1 if stride == 2 and side % 2 == 0 else 0 for side in x.shape[2:])
    return functional.conv2d(x[:, :, top:, left:], kernel, None, stride, groups=x.shape[1] // kernel.shape[1])


def dla(state: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """Return the outputs of "level2" to "level5" of a DLA with basic blocks; ``images`` ``(B, 3, H, W)``."""
    x = images
    for name, stride in (("base_layer", 1), ("level0", 1), ("level1", 2)):
        x = norm_relu(state, f"{name}.1", conv(state, f"{name}.0", x, stride=stride))
    levels: list[Tensor] = []
    for i in (2, 3, 4, 5):  # from "level3" on, the last root of a level also reads the level's input
        x = _tree(state, f"level{i}", x, 2, [functional.max_pool2d(x, 2)] if i > 2 else [])
        levels.append(x)
    return levels


def _tree(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int, earlier: Sequence[Tensor]) -> Tensor:
    """Apply two blocks and their root, or two trees; only the trees of two blocks use a stored "project"."""
    if f"{name}.root.conv.weight" not in state:
        made = _tree(state, f"{name}.tree1", x, stride, [])
        return _tree(state, f"{name}.tree2", made, 1, [*earlier, made])
    beside = functional.max_pool2d(x, stride)
    if f"{name}.project.0.weight" in state:
        beside = norm(state, f"{name}.project.1", conv(state, f"{name}.project.0", beside))
    outputs: list[Tensor] = []
    for place in ("tree1", "tree2"):
        inside = norm_relu(state, f"{name}.{place}.bn1", conv(state, f"{name}.{place}.conv1", x, stride=stride))
        inside = norm(state, f"{name}.{place}.bn2", conv(state, f"{name}.{place}.conv2", inside))
        x = beside = functional.relu(inside + beside)
        stride = 1
        outputs.insert(0, x)
    return norm_relu(state, f"{name}.root.bn", conv(state, f"{name}.root.conv", torch.cat([*outputs, *earlier], 1)))
