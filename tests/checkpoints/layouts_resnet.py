"""Toy ResNets, SimpleBaselines, HRNets and DLAs in the public names, and what they compute, straight from them.

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

    def conv(self, name: str, given: int, made: int, size: int = 1) -> None:
        normal = torch.randn((made, given, size, size), generator=self.random)
        self.state[f"{name}.weight"] = normal / (given * size * size) ** 0.5

    def norm(self, name: str, width: int) -> None:
        for leaf, start, spread in (("weight", 1.0, 0.1), ("bias", 0.0, 0.1), ("running_mean", 0.0, 0.1)):
            self.state[f"{name}.{leaf}"] = start + spread * torch.randn(width, generator=self.random)
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=self.random)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(3)

    def block(self, name: str, given: int, width: int, *, bottleneck: bool, shortcut: bool) -> int:
        """Return the channels that the block gives."""
        sizes = [(given, width, 1), (width, width, 3), (width, 4 * width, 1)]
        for k, (a, b, size) in enumerate(sizes if bottleneck else [(given, width, 3), (width, width, 3)], 1):
            self.conv(f"{name}.conv{k}", a, b, size)
            self.norm(f"{name}.bn{k}", b)
        made = 4 * width if bottleneck else width
        if shortcut:
            self.conv(f"{name}.downsample.0", given, made)
            self.norm(f"{name}.downsample.1", made)
        return made

    def output(self, name: str, given: int, num_keypoints: int) -> None:
        self.conv(name, given, num_keypoints)
        self.state[f"{name}.bias"] = torch.randn(num_keypoints, generator=self.random)


def resnet(make: Maker, blocks: tuple[int, ...], width: int, *, bottleneck: bool) -> int:
    """Add a ResNet; return the channels of its last stage."""
    make.conv("conv1", 3, width, 7)
    make.norm("bn1", width)
    given = width
    for i, count in enumerate(blocks):
        for j in range(count):
            shortcut = j == 0 and (i > 0 or bottleneck)
            name = f"layer{i + 1}.{j}"
            given = make.block(name, given, width * 2**i, bottleneck=bottleneck, shortcut=shortcut)
    return given


def torchvision(*, bottleneck: bool = True, width: int = 4) -> State:
    """ResNet-50, or 18, with its classifier."""
    make = Maker(0)
    last = resnet(make, (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2), width, bottleneck=bottleneck)
    return make.state | {"fc.weight": torch.zeros(10, last), "fc.bias": torch.zeros(10)}


def simple_baseline(num_keypoints: int = 17, *, bottleneck: bool = True, num_deconvs: int = 3) -> State:
    """SimpleBaseline of ResNet-50, or 18, four channels wide, deconvolutions of eight."""
    make = Maker(1)
    given = resnet(make, (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2), 4, bottleneck=bottleneck)
    for i in range(num_deconvs):
        make.conv(f"deconv_layers.{3 * i}", 8, given, 4)  # a transposed convolution is stored input first
        make.norm(f"deconv_layers.{3 * i + 1}", 8)
        given = 8
    make.output("final_layer", 8, num_keypoints)
    return make.state


def hrnet(
    num_keypoints: int = 17, *, width: int = 4, num_modules: tuple[int, int, int] = (1, 2, 2), classifier: bool = False
) -> State:
    """HRNet of two blocks per branch and two bottlenecks; a classifier has all outputs and further parts."""
    make = Maker(2)
    for k, given in ((1, 3), (2, 8)):
        make.conv(f"conv{k}", given, 8, 3)
        make.norm(f"bn{k}", 8)
    make.block("layer1.0", 8, 8, bottleneck=True, shortcut=True)
    make.block("layer1.1", 32, 8, bottleneck=True, shortcut=False)
    make.conv("transition1.0.0", 32, width, 3)
    make.norm("transition1.0.1", width)
    for i, count in enumerate(num_modules):
        make.conv(f"transition{i + 1}.{i + 1}.0.0", 32 if i == 0 else width * 2**i, width * 2 ** (i + 1), 3)
        make.norm(f"transition{i + 1}.{i + 1}.0.1", width * 2 ** (i + 1))
        for m in range(count):
            module = f"stage{i + 2}.{m}"
            for b in range(i + 2):
                for k in range(2):
                    name = f"{module}.branches.{b}.{k}"
                    make.block(name, width * 2**b, width * 2**b, bottleneck=False, shortcut=False)
            finest_only = not classifier and (i, m) == (2, count - 1)
            for target in range(1 if finest_only else i + 2):
                for source in range(i + 2):
                    fuse = f"{module}.fuse_layers.{target}.{source}"
                    given, made = width * 2**source, width * 2**target
                    if source > target:
                        make.conv(f"{fuse}.0", given, made)
                        make.norm(f"{fuse}.1", made)
                    for step in range(target - source):
                        out = made if step == target - source - 1 else given
                        make.conv(f"{fuse}.{step}.0", given, out, 3)
                        make.norm(f"{fuse}.{step}.1", out)
    if classifier:
        make.block("incre_modules.0.0", width, 32, bottleneck=True, shortcut=True)
        make.conv("downsamp_modules.0.0", 128, 256, 3)
        make.output("final_layer.0", 256, 2048)
        make.state |= {"classifier.weight": torch.zeros(10, 2048), "classifier.bias": torch.zeros(10)}
    else:
        make.output("final_layer", width, num_keypoints)
    return make.state


def dla(width: int = 4) -> State:
    """DLA-34 with its classifier, and with what it stores and never runs: "project" of "level3" and "level4"."""
    make = Maker(3)
    for name, given, made, size in (("base_layer", 3, 1, 7), ("level0", 1, 1, 3), ("level1", 1, 2, 3)):
        make.conv(f"{name}.0", given if given == 3 else given * width, made * width, size)
        make.norm(f"{name}.1", made * width)
    for i, deep in ((2, False), (3, True), (4, True), (5, False)):
        given, made, name = width * 2 ** (i - 1), width * 2**i, f"level{i}"
        make.conv(f"{name}.project.0", given, made)
        make.norm(f"{name}.project.1", made)
        below = given if i > 2 else 0
        trees = [(f"{name}.tree1", given, 0), (f"{name}.tree2", made, below + made)] if deep else [(name, given, below)]
        for tree, its, more in trees:
            make.block(f"{tree}.tree1", its, made, bottleneck=False, shortcut=False)
            make.block(f"{tree}.tree2", made, made, bottleneck=False, shortcut=False)
            if deep and its != made:
                make.conv(f"{tree}.project.0", its, made)
                make.norm(f"{tree}.project.1", made)
            make.conv(f"{tree}.root.conv", 2 * made + more, made)
            make.norm(f"{tree}.root.bn", made)
    make.output("fc", 32 * width, 10)
    return make.state


def mmpose(state: State, head: str) -> State:
    """The same tensors as mmpose names them; ``head`` is "head" in 1.x, "keypoint_head" in 0.x."""
    heads = ("deconv_layers.", "final_layer.")
    return {f"{head if name.startswith(heads) else 'backbone'}.{name}": value for name, value in state.items()}


def _conv(state: State, conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{conv}.weight"]
    return _norm(state, norm, functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2))


def _norm(state: State, norm: str, x: Tensor) -> Tensor:
    mean, var, scale, bias = (state[f"{norm}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, mean, var, scale, bias)


def _block(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    num_convs = 3 if f"{name}.conv3.weight" in state else 2
    inside = x
    for k in range(1, num_convs + 1):
        strided = k == (2 if num_convs == 3 else 1)
        inside = _conv(state, f"{name}.conv{k}", f"{name}.bn{k}", inside, stride if strided else 1)
        inside = inside if k == num_convs else inside.relu()
    if f"{name}.downsample.0.weight" in state:
        x = _conv(state, f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
    return (inside + x).relu()


def run_resnet(state: State, images: Tensor) -> list[Tensor]:
    """Return C2 to C5."""
    x = functional.max_pool2d(_conv(state, "conv1", "bn1", images, 2).relu(), 3, 2, 1)
    levels: list[Tensor] = []
    for i in (1, 2, 3, 4):
        j = 0
        while f"layer{i}.{j}.conv1.weight" in state:
            x = _block(state, f"layer{i}.{j}", x, 2 if i > 1 and j == 0 else 1)
            j += 1
        levels.append(x)
    return levels


def run_simple_baseline(state: State, images: Tensor) -> Tensor:
    """Return the heatmaps."""
    x = run_resnet(state, images)[-1]
    i = 0
    while f"deconv_layers.{i}.weight" in state:
        x = functional.conv_transpose2d(x, state[f"deconv_layers.{i}.weight"], None, 2, 1)
        x = _norm(state, f"deconv_layers.{i + 1}", x).relu()
        i += 3
    return functional.conv2d(x, state["final_layer.weight"], state["final_layer.bias"])


def run_hrnet_levels(state: State, images: Tensor) -> list[Tensor]:
    """Return the levels of the last module."""
    x = _conv(state, "conv2", "bn2", _conv(state, "conv1", "bn1", images, 2).relu(), 2).relu()
    x = _block(state, "layer1.1", _block(state, "layer1.0", x))
    levels = [_conv(state, "transition1.0.0", "transition1.0.1", x).relu()]
    coarsest = x
    for i in (1, 2, 3):
        levels.append(_conv(state, f"transition{i}.{i}.0.0", f"transition{i}.{i}.0.1", coarsest, 2).relu())
        m = 0
        while f"stage{i + 1}.{m}.branches.0.0.conv1.weight" in state:
            module = f"stage{i + 1}.{m}"
            levels = [
                _block(state, f"{module}.branches.{b}.1", _block(state, f"{module}.branches.{b}.0", level))
                for b, level in enumerate(levels)
            ]
            made: list[Tensor] = []
            for target in range(len(levels)):
                if not any(name.startswith(f"{module}.fuse_layers.{target}.") for name in state):
                    continue
                total = torch.zeros(())
                for source, level in enumerate(levels):
                    fuse, y = f"{module}.fuse_layers.{target}.{source}", level
                    if source > target:
                        y = _conv(state, f"{fuse}.0", f"{fuse}.1", y)
                        y = functional.interpolate(y, scale_factor=2 ** (source - target), mode="nearest")
                    for step in range(target - source):
                        y = _conv(state, f"{fuse}.{step}.0", f"{fuse}.{step}.1", y, 2)
                        y = y if step == target - source - 1 else y.relu()
                    total = total + y
                made.append(total.relu())
            levels = made
            m += 1
        coarsest = levels[-1]
    return levels


def run_hrnet(state: State, images: Tensor) -> Tensor:
    """Return the heatmaps."""
    (finest,) = run_hrnet_levels(state, images)
    return functional.conv2d(finest, state["final_layer.weight"], state["final_layer.bias"])
