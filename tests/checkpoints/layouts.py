"""Toy checkpoints in the public layouts, and what those networks compute, straight from the original names.

Written from tables of names and shapes. Nothing here goes through the importers, so agreement means something.
"""

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


class Maker:
    """Collects tensors with reproducible random values."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self.random = torch.Generator().manual_seed(seed)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def conv(self, name: str, given: int, made: int, size: int = 1) -> None:
        self.state[f"{name}.weight"] = self._normal(made, given, size, size) / (given * size * size) ** 0.5
        self.state[f"{name}.bias"] = 0.1 * self._normal(made)

    def norm(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = 1 + 0.1 * self._normal(width)
        self.state[f"{name}.bias"] = 0.1 * self._normal(width)
        self.state[f"{name}.running_mean"] = 0.1 * self._normal(width)
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=self.random)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(3)


def princeton(num_stacks: int = 2, num_keypoints: int = 16, width: int = 8, depth: int = 2, seed: int = 0) -> State:
    """Names and shapes as princeton-vl/pytorch_stacked_hourglass stores them, unused skip convolutions included."""
    make = Maker(seed)

    def residual(name: str, given: int, made: int) -> None:
        for k, (a, b, size) in enumerate(((given, made // 2, 1), (made // 2, made // 2, 3), (made // 2, made, 1)), 1):
            make.norm(f"{name}.bn{k}", a)
            make.conv(f"{name}.conv{k}.conv", a, b, size)
        make.conv(f"{name}.skip_layer.conv", given, made)

    make.conv("pre.0.conv", 3, width // 4, 7)
    make.norm("pre.0.bn", width // 4)
    residual("pre.1", width // 4, width // 2)
    residual("pre.3", width // 2, width // 2)
    residual("pre.4", width // 2, width)
    for i in range(num_stacks):
        name = f"hgs.{i}.0"
        for _ in range(depth):
            for part in ("up1", "low1", "low3"):
                residual(f"{name}.{part}", width, width)
            name = f"{name}.low2"
        residual(name, width, width)
        residual(f"features.{i}.0", width, width)
        make.conv(f"features.{i}.1.conv", width, width)
        make.norm(f"features.{i}.1.bn", width)
        make.conv(f"outs.{i}.conv", width, num_keypoints)
        if i < num_stacks - 1:
            make.conv(f"merge_features.{i}.conv.conv", width, width)
            make.conv(f"merge_preds.{i}.conv.conv", num_keypoints, width)
    return make.state


def bearpaw(
    num_stacks: int = 2, num_keypoints: int = 16, width: int = 8, depth: int = 2, num_blocks: int = 1, seed: int = 0
) -> State:
    """Names and shapes as bearpaw/pytorch-pose stores them."""
    make = Maker(seed)

    def residual(name: str, given: int, made: int) -> None:
        for k, (a, b, size) in enumerate(((given, made // 2, 1), (made // 2, made // 2, 3), (made // 2, made, 1)), 1):
            make.norm(f"{name}.bn{k}", a)
            make.conv(f"{name}.conv{k}", a, b, size)
        if given != made:
            make.conv(f"{name}.downsample.0", given, made)

    make.conv("conv1", 3, width // 4, 7)
    make.norm("bn1", width // 4)
    residual("layer1.0", width // 4, width // 2)
    residual("layer2.0", width // 2, width)
    residual("layer3.0", width, width)
    for i in range(num_stacks):
        for level in range(depth):
            for part in range(4 if level == 0 else 3):
                for j in range(num_blocks):
                    residual(f"hg.{i}.hg.{level}.{part}.{j}", width, width)
        for j in range(num_blocks):
            residual(f"res.{i}.{j}", width, width)
        make.conv(f"fc.{i}.0", width, width)
        make.norm(f"fc.{i}.1", width)
        make.conv(f"score.{i}", width, num_keypoints)
        if i < num_stacks - 1:
            make.conv(f"fc_.{i}", width, width)
            make.conv(f"score_.{i}", num_keypoints, width)
    return make.state


def _conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return functional.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2)


def _norm_relu(state: State, name: str, x: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.relu(functional.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"]))


def _residual(state: State, name: str, x: Tensor, conv: str, skip: str) -> Tensor:
    inside = x
    for k in (1, 2, 3):
        inside = _conv(state, f"{name}.conv{k}{conv}", _norm_relu(state, f"{name}.bn{k}", inside))
    return inside + (x if inside.shape == x.shape else _conv(state, f"{name}.{skip}", x))


def run_princeton(state: State, images: Tensor) -> list[Tensor]:
    """Return the maps of every stack, as that network computes them from its own state."""

    def residual(name: str, x: Tensor) -> Tensor:
        return _residual(state, name, x, ".conv", "skip_layer.conv")

    def hourglass(name: str, x: Tensor) -> Tensor:
        if f"{name}.bn1.weight" in state:
            return residual(name, x)
        low = residual(f"{name}.low1", functional.max_pool2d(x, 2))
        low = residual(f"{name}.low3", hourglass(f"{name}.low2", low))
        return residual(f"{name}.up1", x) + functional.interpolate(low, scale_factor=2, mode="nearest")

    x = residual("pre.1", _norm_relu(state, "pre.0.bn", _conv(state, "pre.0.conv", images, 2)))
    x = residual("pre.4", residual("pre.3", functional.max_pool2d(x, 2)))
    maps: list[Tensor] = []
    while f"outs.{len(maps)}.conv.weight" in state:
        i = len(maps)
        feature = residual(f"features.{i}.0", hourglass(f"hgs.{i}.0", x))
        feature = _norm_relu(state, f"features.{i}.1.bn", _conv(state, f"features.{i}.1.conv", feature))
        maps.append(_conv(state, f"outs.{i}.conv", feature))
        if f"merge_preds.{i}.conv.conv.weight" in state:
            x = x + _conv(state, f"merge_preds.{i}.conv.conv", maps[-1])
            x = x + _conv(state, f"merge_features.{i}.conv.conv", feature)
    return maps


def run_bearpaw(state: State, images: Tensor) -> list[Tensor]:
    """Return the maps of every stack, as that network computes them from its own state."""

    def residuals(name: str, x: Tensor) -> Tensor:
        j = 0
        while f"{name}.{j}.conv1.weight" in state:
            x = _residual(state, f"{name}.{j}", x, "", "downsample.0")
            j += 1
        return x

    def hourglass(name: str, level: int, x: Tensor) -> Tensor:
        low = residuals(f"{name}.{level}.1", functional.max_pool2d(x, 2))
        low = hourglass(name, level - 1, low) if level else residuals(f"{name}.0.3", low)
        low = functional.interpolate(residuals(f"{name}.{level}.2", low), scale_factor=2, mode="nearest")
        return residuals(f"{name}.{level}.0", x) + low

    x = residuals("layer1", _norm_relu(state, "bn1", _conv(state, "conv1", images, 2)))
    x = residuals("layer3", residuals("layer2", functional.max_pool2d(x, 2)))
    outermost = max(int(name.split(".")[3]) for name in state if name.startswith("hg."))
    maps: list[Tensor] = []
    while f"score.{len(maps)}.weight" in state:
        i = len(maps)
        feature = residuals(f"res.{i}", hourglass(f"hg.{i}.hg", outermost, x))
        feature = _norm_relu(state, f"fc.{i}.1", _conv(state, f"fc.{i}.0", feature))
        maps.append(_conv(state, f"score.{i}", feature))
        if f"score_.{i}.weight" in state:
            x = x + _conv(state, f"fc_.{i}", feature) + _conv(state, f"score_.{i}", maps[-1])
    return maps
