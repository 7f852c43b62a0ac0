"""MobileNetV3: counts of the paper's tables, its nonlinearities, and the two orders of the public code."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from poseglass.backbones.mobilenet_v3 import SMALL, MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from poseglass.layers.conv_norm import activate
from poseglass.layers.inverted_residual import InvertedResidual
from poseglass.layers.squeeze_excite import SqueezeExcite
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.networks.mobilenet_v3 import mobilenet_v3_large_classifier, mobilenet_v3_small_classifier


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "width", "count", "entries", "adds"),
    [
        (mobilenet_v3_large_classifier, 1.0, 5_483_032, 312, 216_589_760),
        (mobilenet_v3_large_classifier, 0.75, 3_993_528, 312, 154_560_624),
        (mobilenet_v3_small_classifier, 1.0, 2_542_856, 244, 56_510_400),
        (mobilenet_v3_small_classifier, 0.75, 2_041_872, 244, 43_399_344),
    ],
)
def test_counts_are_those_of_the_public_classifiers(make, width, count, entries, adds) -> None:
    with torch.device("meta"):
        network = make(width=width)
    assert (parameters(network), len(network.state_dict())) == (count, entries)
    assert multiply_adds(network, (224, 224)) == adds


@pytest.mark.parametrize(
    ("make", "numbers", "channels", "stated"),
    [
        (mobilenet_v3_large, {}, (16, 24, 40, 112, 960), 2_971_952),
        (mobilenet_v3_large, {"last": False}, (16, 24, 40, 112, 160), 2_971_952 - 160 * 960 - 2 * 960),
        (mobilenet_v3_large, {"width": 0.75}, (16, 24, 32, 88, 720), None),
        (mobilenet_v3_small, {}, (16, 16, 24, 48, 576), 927_008),
        (mobilenet_v3_small, {"last": False}, (16, 16, 24, 48, 96), 927_008 - 96 * 576 - 2 * 576),
        (mobilenet_v3_small, {"width": 0.35}, (8, 8, 8, 16, 200), None),
    ],
)
def test_levels(make, numbers, channels, stated) -> None:
    with torch.device("meta"):
        backbone = make(**numbers)
    assert (backbone.channels, backbone.strides, backbone.divisor) == (channels, (2, 4, 8, 16, 32), 32)
    if stated is not None:
        assert parameters(backbone) == stated


def test_squeezed_channels_are_a_quarter_in_multiples_of_8() -> None:
    with torch.device("meta"):
        squeezed = {
            make: [m.reduce.out_channels for m in make().modules() if isinstance(m, SqueezeExcite)]
            for make in (mobilenet_v3_large, mobilenet_v3_small)
        }
    assert squeezed[mobilenet_v3_large] == [24, 32, 32, 120, 168, 168, 240, 240]
    assert squeezed[mobilenet_v3_small] == [8, 24, 64, 64, 32, 40, 72, 144, 144]


def test_hard_swish_and_its_slope() -> None:
    at = torch.tensor([-4.0, -3.0, -1.5, -1.0, 0.0, 1.0, 3.0, 4.0], requires_grad=True)
    values = activate(at, "hardswish")
    expected = torch.tensor([0.0, 0.0, -0.375, -1 / 3, 0.0, 2 / 3, 3.0, 4.0])
    torch.testing.assert_close(values.detach(), expected)
    values.sum().backward()
    inside = at.detach()[2:6]
    assert at.grad is not None
    torch.testing.assert_close(at.grad[2:6], (2 * inside + 3) / 6)
    assert at.grad[4] == 0.5
    assert at.grad[[0, 7]].tolist() == [0.0, 1.0]  # beyond the two corners


def test_squeeze_excite_by_hand() -> None:
    layer = SqueezeExcite(4)
    with torch.no_grad():
        for conv in (layer.reduce, layer.expand):
            conv.weight.zero_()
            assert conv.bias is not None
            conv.bias.zero_()
        layer.reduce.weight[0, 2] = 1.0  # the first of eight is the mean of channel 2
        layer.expand.weight[:, 0] = torch.tensor([0.0, 3.0, -6.0, 9.0])[:, None, None]
        features = torch.ones(1, 4, 2, 2)
        torch.testing.assert_close(layer(features)[0, :, 0, 0], torch.tensor([0.5, 1.0, 0.0, 1.0]))


def test_the_two_orders_differ_only_in_expanded_blocks_with_squeeze_excite() -> None:
    images = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    for expanded, squeeze, same in ((24, True, False), (24, False, True), (8, True, True)):
        torch.manual_seed(1)
        first = InvertedResidual(8, expanded, 8, squeeze=squeeze, activation="hardswish").eval()
        other = InvertedResidual(
            8, expanded, 8, squeeze=squeeze, activation="hardswish", order="excite_activate"
        ).eval()
        other.load_state_dict(first.state_dict())
        with torch.no_grad():
            assert torch.equal(first(images), other(images)) == same


def test_what_makes_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width must be a number above 0, such as 0\.75 or 1\.0, got 0"):
        mobilenet_v3_small(width=0)
    with pytest.raises(ValueError, match="order must be 'activate_excite' or 'excite_activate', got 'timm'"):
        mobilenet_v3_large(order="timm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"output_stride must be 8, 16 or 32, got 4"):
        mobilenet_v3_large(output_stride=4)
    with pytest.raises(ValueError, match="taps must be 'last' or 'first', got 'middle'"):
        mobilenet_v3_large(taps="middle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"hardswish_from must be .* one of 16, 24, 40, 80, 112, 160; got 96"):
        mobilenet_v3_large(hardswish_from=96)


@pytest.mark.parametrize("make", [mobilenet_v3_large, mobilenet_v3_small])
@pytest.mark.parametrize(("output_stride", "strides"), [(16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))])
@pytest.mark.parametrize("taps", ["last", "first"])
def test_dilation_in_place_of_stride(make, output_stride, strides, taps) -> None:
    with torch.device("meta"):
        plain, dilated = make(taps=taps), make(taps=taps, output_stride=output_stride).eval()
        levels = dilated(torch.zeros(1, 3, 2 * output_stride, 4 * output_stride))
    assert (dilated.channels, dilated.strides, dilated.divisor) == (plain.channels, strides, output_stride)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (count, 2 * output_stride // stride, 4 * output_stride // stride)
        for count, stride in zip(dilated.channels, strides, strict=True)
    ]
    shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in (plain, dilated)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("output_stride", [16, 8])
def test_a_dilated_backbone_computes_the_strided_one_s_features_in_between(output_stride: int) -> None:
    """Without squeeze-and-excitation, whose means are over more positions."""
    rows = tuple(replace(row, squeeze=False) for row in SMALL)
    torch.manual_seed(0)
    plain = MobileNetV3(rows, width=0.5).eval()
    dilated, torchvisions = (
        MobileNetV3(rows, width=0.5, output_stride=output_stride, dilates_first=first).eval() for first in (False, True)
    )
    images = torch.rand(1, 3, 96, 64)
    step = 32 // output_stride
    with torch.no_grad():
        for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
        for other in (dilated, torchvisions):
            other.load_state_dict(plain.state_dict())
        expected = plain(images)[-1]
        torch.testing.assert_close(dilated(images)[-1][:, :, ::step, ::step], expected)
        assert (torchvisions(images)[-1][:, :, ::step, ::step] - expected).abs().max() > 1e-3 * expected.abs().max()


def test_a_block_that_lost_its_stride_does_not_add_its_input() -> None:
    """With a reduced tail, Small's has as many channels in as out."""
    with torch.device("meta"):
        network = mobilenet_v3_small(output_stride=16, reduced_tail=True)
    assert network.channels == (16, 16, 24, 48, 288)
    block = network.blocks[8]
    assert isinstance(block, InvertedResidual)
    assert block.depthwise.conv.in_channels == 288
    assert block.project.conv.out_channels == 48
    assert [bool(b.adds) for b in network.blocks] == [
        False,
        False,
        True,
        False,
        True,
        True,
        False,
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("make", "start", "first"),
    [
        (mobilenet_v3_large, 16, 0),
        (mobilenet_v3_large, 80, 6),
        (mobilenet_v3_large, 112, 10),
        (mobilenet_v3_small, 40, 3),
    ],
)
def test_where_hard_swish_starts(make, start: int, first: int) -> None:
    with torch.device("meta"):
        network, plain = make(hardswish_from=start), make()
    found = [block.activation for block in network.blocks]
    assert found == ["relu"] * first + ["hardswish"] * (len(found) - first)
    published = [block.activation for block in plain.blocks]
    assert (found == published) == ((make, start) in ((mobilenet_v3_large, 80), (mobilenet_v3_small, 40)))
    assert network.stem.activation == network.last.activation == "hardswish"


def test_the_levels_of_the_first_blocks_are_torchvisions() -> None:
    network = mobilenet_v3_large(width=0.35, taps="first").eval()
    seen = {}
    for i, block in enumerate(network.blocks):
        block.register_forward_hook(lambda module, given, made, i=i: seen.__setitem__(i, made))
    with torch.no_grad():
        levels = network(torch.rand(1, 3, 64, 64))
    for level, block in ((1, 1), (2, 3), (3, 6)):
        assert levels[level] is seen[block]
