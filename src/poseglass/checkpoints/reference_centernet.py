"""References of CenterNet's hourglass and ResNet, from their public names, with all outputs by our names.

Written from tables of names, shapes and layers; see ``reference`` for what a reference is.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from poseglass.checkpoints.reference import blocks, conv, conv_bn, doubled, norm, norm_relu, pooled
from poseglass.core.prediction import Prediction

OUTPUTS = {
    "hm": "center",
    "wh": "size",
    "reg": "center_offset",
    "hps": "keypoints",
    "hm_hp": "heatmap",
    "hp_offset": "heatmap_offset",
}


def hourglass(state: Mapping[str, Tensor], images: Tensor) -> Prediction:
    """Return the last stack's outputs; ``"keypoints"`` as ``(B, K, 2, h, w)``."""

    def residual(name: str, x: Tensor, stride: int = 1) -> Tensor:
        inside = norm_relu(state, f"{name}.bn1", conv(state, f"{name}.conv1", x, stride=stride))
        inside = norm(state, f"{name}.bn2", conv(state, f"{name}.conv2", inside))
        if f"{name}.skip.0.weight" in state:
            x = norm(state, f"{name}.skip.1", conv(state, f"{name}.skip.0", x, stride=stride))
        return functional.relu(inside + x)

    def row(name: str, x: Tensor, stride: int = 1) -> Tensor:
        j = 0
        while f"{name}.{j}.conv1.weight" in state:
            x, j = residual(f"{name}.{j}", x, 1 if j else stride), j + 1
        return x

    def module(name: str, x: Tensor) -> Tensor:
        if f"{name}.up1.0.conv1.weight" not in state:
            return row(name, x)
        low = row(f"{name}.low3", module(f"{name}.low2", row(f"{name}.low1", x, 2)))
        return row(f"{name}.up1", x) + doubled(low)

    x = residual("pre.1", conv_bn(state, "pre.0", images, stride=2), 2)
    i, features = 0, x
    while f"cnvs.{i}.conv.weight" in state:
        features = conv_bn(state, f"cnvs.{i}", module(f"kps.{i}", x))
        if f"cnvs_.{i}.0.weight" in state:
            kept = norm(state, f"inters_.{i}.1", conv(state, f"inters_.{i}.0", x))
            back = norm(state, f"cnvs_.{i}.1", conv(state, f"cnvs_.{i}.0", features))
            x = residual(f"inters.{i}", functional.relu(kept + back))
        i += 1
    return _outputs(state, features, f".{i - 1}.0.conv", f".{i - 1}.1")


def resnet(state: Mapping[str, Tensor], images: Tensor) -> Prediction:
    """Return the outputs of ResNet with transposed convolutions; ``"keypoints"`` as ``(B, K, 2, h, w)``."""
    x = pooled(norm_relu(state, "bn1", conv(state, "conv1", images, stride=2)))
    for i in (1, 2, 3, 4):
        x = blocks(state, f"layer{i}", x, stride=1 if i == 1 else 2)
    i = 0
    while f"deconv_layers.{i}.weight" in state:
        x = functional.conv_transpose2d(x, state[f"deconv_layers.{i}.weight"].float(), None, 2, 1)
        x, i = norm_relu(state, f"deconv_layers.{i + 1}", x), i + 3
    return _outputs(state, x, ".0", ".2")


def _outputs(state: Mapping[str, Tensor], x: Tensor, first: str, last: str) -> Prediction:
    """Return every output that the state has: two convolutions with a ReLU between them."""
    made: Prediction = {}
    for theirs, ours in OUTPUTS.items():
        if f"{theirs}{last}.weight" in state:
            made[ours] = conv(state, f"{theirs}{last}", functional.relu(conv(state, f"{theirs}{first}", x)))
    if "keypoints" in made:
        made["keypoints"] = made["keypoints"].unflatten(1, (-1, 2))
    return made
