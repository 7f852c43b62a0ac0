"""MobileNetV3: counts of the paper's tables, its nonlinearities, and the two orders of the public code."""

import pytest
import torch
from torch import nn

from poseglass.backbones.mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from poseglass.layers.conv_norm import activate
from poseglass.layers.inverted_residual import InvertedResidual
from poseglass.layers.squeeze_excite import SqueezeExcite
from poseglass.networks.cost import multiply_adds, parameters


class Classifier(nn.Module):
    """The paper's last stage behind a backbone, for its counts."""

    def __init__(self, backbone: MobileNetV3, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.hidden = nn.Linear(backbone.channels[-1], hidden)
        self.classes = nn.Linear(hidden, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = self.backbone(images)[-1].mean((2, 3))
        return self.classes(activate(self.hidden(means), "hardswish"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "width", "hidden", "count", "entries", "adds"),
    [
        (mobilenet_v3_large, 1.0, 1280, 5_483_032, 312, 216_589_760),
        (mobilenet_v3_large, 0.75, 1280, 3_993_528, 312, 154_560_624),
        (mobilenet_v3_small, 1.0, 1024, 2_542_856, 244, 56_510_400),
        (mobilenet_v3_small, 0.75, 1024, 2_041_872, 244, 43_399_344),
    ],
)
def test_counts_are_those_of_the_public_classifiers(make, width, hidden, count, entries, adds) -> None:
    with torch.device("meta"):
        network = Classifier(make(width=width), hidden)
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
