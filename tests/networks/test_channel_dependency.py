"""The channel dependency of a module: the article's blocks, every operation by graph and gradient, what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.channel_local import ChannelInterlace, ChannelLocalBlock
from poseglass.layers.conv_norm import ConvNorm, SeparableConvNorm
from poseglass.layers.inverted_residual import InvertedResidual
from poseglass.layers.light_residual import DenseResidual, DepthwiseResidual
from poseglass.layers.residual import PreActivationResidual
from poseglass.layers.resnet_blocks import Bottleneck
from poseglass.networks.channel_dependency import (
    FOLLOWED,
    ChannelGraph,
    ChannelTraceError,
    block_graphs,
    channel_receptive_field,
    step_graphs,
)


class Function(nn.Module):
    """A function as a module, with layers that it may use."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.inside = function, nn.ModuleList(layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.function(features, *self.inside)


class ResNeXtBlock(nn.Module):
    """1x1, grouped 3x3, 1x1, added to the input (Xie et al. 2017, figure 3c)."""

    def __init__(self, channels: int, inside: int, groups: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(channels, inside, 1)
        self.grouped = ConvNorm(inside, inside, 3, groups=groups)
        self.expand = ConvNorm(inside, channels, 1, activation="none")

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.expand(self.grouped(self.reduce(features))))


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, added to the input (Zhang et al. 2018, figure 2b)."""

    def __init__(self, channels: int, inside: int, groups: int, *, shuffles: bool = True) -> None:
        super().__init__()
        self.first = ConvNorm(channels, inside, 1, groups=groups)
        self.depthwise = ConvNorm(inside, inside, 3, groups=inside, activation="none")
        self.last = ConvNorm(inside, channels, 1, groups=groups, activation="none")
        self.groups, self.shuffles = groups, shuffles

    def forward(self, features: Tensor) -> Tensor:
        inside = self.first(features)
        if self.shuffles:
            batch, channels, height, width = inside.shape
            parted = inside.view(batch, self.groups, channels // self.groups, height, width)
            inside = parted.transpose(1, 2).reshape(batch, channels, height, width)
        return functional.relu(features + self.last(self.depthwise(inside)))


def xception(channels: int) -> nn.Module:
    """Two separable convolutions, added to the input (Chollet 2017, figure 5)."""
    return Function(
        lambda x, one, other: x + other(one(functional.relu(x))), *(SeparableConvNorm(channels, channels),) * 2
    )


def grouped_pointwise(channels: int, groups: int) -> nn.Module:
    """Depthwise 3x3 and grouped 1x1: the article's figure 4."""
    return nn.Sequential(
        ConvNorm(channels, channels, 3, groups=channels), ConvNorm(channels, channels, 1, groups=groups)
    )


@pytest.mark.parametrize(
    ("block", "channels"),
    [
        (Bottleneck(32, 8), 32),
        (ResNeXtBlock(32, 16, 4), 32),
        (SeparableConvNorm(32, 24), 32),  # MobileNet
        (xception(16), 16),
        (ShuffleUnit(32, 16, 4), 32),
        (ChannelLocalBlock(32, 24), 32),
        (ChannelLocalBlock(32, 24, groups="cheapest"), 32),
        (InvertedResidual(8, 24, 8, squeeze=True, activation="hardswish"), 8),
        (PreActivationResidual(8, 12), 8),
        (DepthwiseResidual(8, 8), 8),
        (DenseResidual(16, 16), 16),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_blocks_that_reach_the_full_field(block: nn.Module, channels: int) -> None:
    graph = channel_receptive_field(block, channels, by="both", side=8)
    assert graph.full
    assert set(graph.sizes) == {channels}


@pytest.mark.parametrize(
    ("block", "channels", "sizes"),
    [
        (grouped_pointwise(64, 4), 64, 16),  # figure 4
        (ChannelLocalBlock(64, 64, interlaced=False), 64, 32),
        (ChannelLocalBlock(64, 64, groups=(64, 4)), 64, 16),
        (ChannelLocalBlock(64, 64, groups=(32, 4)), 64, 32),
        (ConvNorm(16, 16, 3, groups=16), 16, 1),
        (nn.Conv2d(16, 32, 1, groups=4), 16, 4),
    ],
)
def test_blocks_that_do_not(block: nn.Module, channels: int, sizes: int) -> None:
    graph = channel_receptive_field(block, channels, by="both", side=8)
    assert not graph.full
    assert set(graph.sizes) == {sizes}


def test_without_the_shuffle_groups_stay_among_themselves() -> None:
    graph = channel_receptive_field(ShuffleUnit(32, 16, 4, shuffles=False), 32, by="both", side=8)
    expected = np.kron(np.eye(4, dtype=bool), np.ones((8, 8), bool))
    assert np.array_equal(graph.depends, expected)


def test_the_sizes_of_the_article_at_512_channels() -> None:
    for interlaced, size in ((True, 512), (False, 256)):
        graph = channel_receptive_field(
            ChannelLocalBlock(512, 512, groups=(256, 2), interlaced=interlaced), 512, side=4
        )
        assert set(graph.sizes) == {size}


@pytest.mark.parametrize("g1", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("g2", [1, 2, 3, 4, 6, 12])
def test_the_rule_holds_in_a_block(g1: int, g2: int) -> None:
    graph = channel_receptive_field(ChannelLocalBlock(12, 24, groups=(g1, g2)), 12, by="graph", side=4)
    assert graph.full == (g1 * g2 <= 12)


class Attention(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        rows = features.flatten(2)
        return functional.scaled_dot_product_attention(rows, rows, rows).unflatten(2, features.shape[2:])


INDEX = [3, 0, 2, 1, 5, 4, 7, 6]


def reverse(features: Tensor) -> Tensor:
    return features[:, torch.tensor(INDEX)]


def grouped(channels: int, groups: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 1, groups=groups)


OPERATIONS: dict[str, nn.Module] = {
    "index": Function(reverse),
    "index_select": Function(lambda x: x.index_select(1, torch.tensor(INDEX[:5]))),
    "flip": Function(lambda x: x.flip(1)),
    "roll": Function(lambda x: x.roll(3, 1)),
    "shuffle": Function(lambda x: functional.channel_shuffle(x, 4)),
    "nn.ChannelShuffle": nn.ChannelShuffle(2),
    "interlace": ChannelInterlace(8, 4),
    "unflatten and flatten": Function(lambda x: x.unflatten(1, (2, 2, 2)).permute(0, 3, 1, 2, 4, 5).flatten(1, 3)),
    "chunk and cat": Function(lambda x: torch.cat(list(reversed(x.chunk(4, 1))), 1)),
    "split": Function(lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1)),
    "slices": Function(lambda x: x[:, ::2] * x[:, 1::2] - 1),
    "select and stack": Function(lambda x: torch.stack([x[:, 5], x[:, 0]], 1)),
    "unbind": Function(lambda x: torch.stack(x.unbind(1)[::-1], 1)),
    "pixels dropped": Function(lambda x, c: c(x[:, :, ::2, 1:5]), grouped(8, 4)),
    "concatenated with itself": Function(lambda x, c: torch.cat([x, c(x)], 1), grouped(8, 2)),
    "added": Function(lambda x, c: x + c(x), grouped(8, 4)),
    "multiplied by a mean": Function(lambda x: x * x.mean((2, 3), keepdim=True).flip(1)),
    "mean of channels": Function(lambda x: x * x.mean(1, keepdim=True)),
    "softmax of channels": Function(lambda x: x.softmax(1)),
    "softmax of pixels": Function(lambda x: x.flatten(2).softmax(2).unflatten(2, x.shape[2:])),
    "group norm": nn.GroupNorm(4, 8),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
    "layer norm of channels": Function(lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(8)),
    "batch norm": nn.BatchNorm2d(8),
    "activations": nn.Sequential(
        nn.Hardswish(), nn.SiLU(inplace=True), nn.GELU(), nn.LeakyReLU(), nn.ReLU6(inplace=True)
    ),
    "prelu": nn.PReLU(8),
    "transposed": nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1, groups=4),
    "dilated": nn.Conv2d(8, 4, 3, padding=2, dilation=2, groups=2),
    "max pooling": nn.MaxPool2d(3, stride=2, padding=1),
    "average pooling": nn.AvgPool2d(2),
    "adaptive pooling and a linear layer": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    "flattened pixels": Function(lambda x, linear: linear(x[:, 2:4].flatten(1)), nn.Linear(2 * 64, 3)),
    "linear over channels": Function(lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(8, 6)),
    "nearest": nn.Upsample(scale_factor=2.0, mode="nearest"),
    "bilinear": nn.Upsample(scale_factor=2.0, mode="bilinear"),
    "reflection": nn.ReflectionPad2d(1),
    "padded channels": Function(lambda x: functional.pad(x, (0, 0, 0, 0, 1, 2))),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "repeated": Function(lambda x: x[:, :3].repeat(1, 2, 1, 1)),
    "expanded": Function(lambda x: x[:, 2:3].expand(-1, 4, -1, -1)),
    "groups in the batch": Function(lambda x, c: c(x.reshape(-1, 4, 8, 8)).reshape(-1, 8, 8, 8), nn.Conv2d(4, 4, 1)),
    "a sum in place": Function(lambda x, c: c(x).add_(x.flip(1)), grouped(8, 8)),
    "where": Function(lambda x: torch.where(x > 0, x, x.flip(1))),
    "attention among channels": Attention(),
    "dropout": nn.Sequential(nn.Dropout2d(0.5), nn.Dropout(0.5)),
    "a constant": Function(lambda x: x + torch.ones_like(x[:, :1])),
    "part of the input unused": Function(lambda x, c: c(x[:, 2:]), nn.Conv2d(6, 4, 1, groups=2)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_graph_and_gradient_agree_on_every_operation(name: str) -> None:
    graph = channel_receptive_field(OPERATIONS[name], 8, by="both", side=8)
    assert graph.depends.any()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("index", [[i] for i in INDEX]),
        ("group norm", [[i // 2 * 2, i // 2 * 2 + 1] for i in range(8)]),
        ("instance norm", [[i] for i in range(8)]),
        ("pixel shuffle", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("padded channels", [[], *[[i] for i in range(8)], [], []]),
        ("multiplied by a mean", [sorted({i, 7 - i}) for i in range(8)]),
        ("part of the input unused", [[2, 3, 4], [2, 3, 4], [5, 6, 7], [5, 6, 7]]),
        ("transposed", [[i // 3 * 2, i // 3 * 2 + 1] for i in range(12)]),
        ("flattened pixels", [[2, 3]] * 3),
    ],
)
def test_fields_by_hand(name: str, fields: list[list[int]]) -> None:
    graph = channel_receptive_field(OPERATIONS[name], 8, side=8)
    assert [graph.field(i) for i in range(len(graph.depends))] == fields


def written_in_part(features: Tensor) -> Tensor:
    made = torch.zeros_like(features)
    made[:, :4] = features[:, 4:]
    return made


def added_in_part(features: Tensor) -> Tensor:
    made = features.clone()
    made[:, :4].add_(features[:, 4:])
    return made


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Function(lambda x: x.cumsum(1)),
            r"through aten\.cumsum in the module itself \(Function\)\. Use by='gradient'",
        ),
        (nn.Sequential(nn.Conv2d(8, 8, 1), Function(lambda x: x.sort(1)[0])), r"aten\.sort in 1 \(Function\)"),
        (nn.Sequential(Function(lambda x: torch.fft.fft2(x).real)), r"aten\._fft_(r2c|c2c) in 0 \(Function\)"),
        (Function(lambda x: x * float(x.max())), r"aten\._local_scalar_dense in"),
        (Function(written_in_part), r"aten\.copy_, which writes into a part of another tensor in"),
        (Function(added_in_part), r"aten\.add_, which writes into a part of another tensor"),
        (Function(lambda x: x[:, x.mean((0, 2, 3)) > 0]), r"aten\.(index|nonzero)"),
        (Function(lambda x, c: c(x.transpose(1, 2)), nn.Conv2d(8, 8, 1)), r"channels were moved to an axis of pixels"),
        (Function(lambda x: functional.conv2d(x, x[:, :1, :1, :1].expand(8, 8, 1, 1))), r"weights of a convolution"),
        (
            Function(lambda x: functional.conv2d(x, torch.ones(8, 8, 1, 1), x.mean((0, 2, 3)))),
            r"the bias of a convolution depends",
        ),
        (
            Function(lambda x: torch.addmm(x[0].flatten(1), torch.ones(8, 8), torch.ones(8, 64))[None]),
            r"what is added to a matrix product depends",
        ),
        (Function(lambda x: [x]), r"returns a list, not a tensor\. Pick one: output=lambda made: made\[-1\]\."),
        (Function(lambda x: x.sum()), r"output must be features \(B, C, \.\.\.\), got \(\)\."),
    ],
)
def test_what_cannot_be_followed_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(ChannelTraceError, match=message):
        channel_receptive_field(module, 8, side=8)


def test_what_has_no_rule_can_be_found_by_gradient() -> None:
    graph = channel_receptive_field(Function(lambda x: x.cumsum(1)), 6, by="gradient", side=4)
    assert np.array_equal(graph.depends, np.tril(np.ones((6, 6), bool)))


def test_a_disagreement_is_said() -> None:
    with pytest.raises(
        ChannelTraceError, match=r"output channel 0 depends on input channel 7, by its gradient it does n"
    ):
        channel_receptive_field(Function(lambda x: x + 0 * x.flip(1)), 8, by="both", side=4)
    with pytest.raises(ChannelTraceError, match="has no gradient"):
        channel_receptive_field(Function(lambda x: x.detach()), 8, by="both", side=4)


def test_own_weights_show_channels_that_are_zero() -> None:
    conv = nn.Conv2d(4, 3, 1)
    nn.init.zeros_(conv.weight[:, 2:3])
    assert channel_receptive_field(conv, 4, by="gradient", side=4).full
    own = channel_receptive_field(conv, 4, by="gradient", side=4, own_weights=True)
    assert [own.field(i) for i in range(3)] == [[0, 1, 3]] * 3
    assert not conv.weight[:, 2].any()  # the module is left as it was


def test_the_module_is_left_as_it_was() -> None:
    block = ChannelLocalBlock(8, 8)
    before = {key: value.clone() for key, value in block.state_dict().items()}
    for by in ("graph", "gradient"):
        channel_receptive_field(block, 8, by=by, side=4)  # type: ignore[arg-type]
    assert all(torch.equal(before[key], value) for key, value in block.state_dict().items())
    assert all(module.training for module in block.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())
    assert all(parameter.grad is None for parameter in block.parameters())


def test_one_of_several_outputs_and_rows_instead_of_images() -> None:
    levels = Function(lambda x, c: [x, c(x)], grouped(8, 4))  # type: ignore[arg-type, return-value]
    graph = channel_receptive_field(levels, 8, by="both", output=lambda made: made[-1], side=4)
    assert set(graph.sizes) == {2}
    rows = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    assert channel_receptive_field(rows, 6, by="both", side=0).full


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1 and side at least 0, got 0 and 16"),
        ({"in_channels": 4, "side": -1}, "got 4 and -1"),
        ({"in_channels": 4, "by": "hand"}, "by must be 'graph', 'gradient' or 'both', got 'hand'"),
        ({"in_channels": 4, "own_weights": True}, "own_weights is for by='gradient'"),
    ],
)
def test_arguments_that_make_no_sense(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channel_receptive_field(nn.Conv2d(4, 4, 1), **numbers)


class Crossed(nn.Module):
    """A residual whose sum brings in other channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = grouped(8, 8)

    def forward(self, features: Tensor) -> Tensor:
        return features.flip(1) + self.conv(features)


def test_steps_of_a_block_and_their_product() -> None:
    steps = step_graphs(ChannelLocalBlock(12, 6, groups=(6, 2)), 12, side=4)
    assert list(steps) == ["spatial", "interlace", "pointwise"]
    assert [set(step.sizes) for step in steps.values()] == [{2}, {1}, {6}]
    spatial, interlace, pointwise = steps.values()
    assert pointwise.after(interlace.after(spatial)).full
    assert not pointwise.after(spatial).full
    with pytest.raises(ValueError, match="first module has 6 output channels, but the second takes 12"):
        spatial.after(pointwise)
    with pytest.raises(ChannelTraceError, match="are not the whole module"):
        step_graphs(Crossed(), 8, side=4)
    with pytest.raises(ChannelTraceError, match="norms does not take what comes before it"):
        step_graphs(DenseResidual(8, 8), 8, side=4)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, features: Tensor, more: Tensor) -> Tensor:
        return self.one(features) + self.other(more)


def test_blocks_of_a_network_and_those_without_a_graph() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            inner = nn.Sequential(grouped_pointwise(4, 2), SeparableConvNorm(4, 4))
            self.blocks = nn.ModuleList([inner, Pair()])

        def forward(self, images: Tensor) -> Tensor:
            features = self.blocks[0](self.stem(images))
            return self.blocks[1](features, features)

    network = Net()
    found = block_graphs(network, (8, 8))
    assert {name: graph.full for name, graph in found.graphs.items()} == {"blocks.0.0": False, "blocks.0.1": True}
    assert list(found.skipped) == ["blocks.1"]
    assert "not called with a single tensor" in found.skipped["blocks.1"]
    assert network.training
    whole = block_graphs(network, (8, 8), names=["stem", ""])
    assert [graph.depends.shape for graph in whole.graphs.values()] == [(4, 3), (4, 3)]
    with pytest.raises(ChannelTraceError, match=r"blocks\.1: It is not called with a single tensor"):
        block_graphs(network, (8, 8), names=["blocks.1"])
    with pytest.raises(LookupError, match=r"no module 'blocks\.7'"):
        block_graphs(network, (8, 8), names=["blocks.7"])


def test_the_graph_says_its_sizes() -> None:
    graph = ChannelGraph(np.array([[True, False, True], [False, False, False]]))
    assert graph.sizes.tolist() == [2, 0]
    assert not graph.full
    assert (graph.field(0), graph.field(1)) == ([0, 2], [])


def test_the_operations_are_known_by_name() -> None:
    assert {"convolution", "cat", "index", "native_group_norm"} <= set(FOLLOWED)
