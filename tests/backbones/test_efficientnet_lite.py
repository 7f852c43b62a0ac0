"""EfficientNet-Lite: counts of the public classifiers, TensorFlow's padding, and what its blocks are made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from poseglass.backbones import BACKBONES
from poseglass.backbones.efficientnet_lite import EfficientNetLite
from poseglass.core.table import build
from poseglass.layers.conv_norm import ConvNorm, activate, pad_same
from poseglass.layers.squeeze_excite import SqueezeExcite
from poseglass.networks.compose import ComposedNetwork
from poseglass.networks.cost import multiply_adds, parameters


class Classifier(nn.Module):
    """The published last stage over a backbone, for its counts."""

    def __init__(self, backbone: EfficientNetLite) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = ConvNorm(backbone.channels[-1], 1280, 1, activation="relu6")
        self.classes = nn.Linear(1280, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classes(self.head(self.backbone(images)[-1]).mean((2, 3)))


@pytest.mark.parametrize(
    ("number", "side_px", "channels", "classifier_parameters", "entries", "giga_adds"),
    [
        (0, 224, (16, 24, 40, 112, 320), 4_652_008, 296, 0.385),
        (1, 240, (16, 24, 40, 112, 320), 5_416_680, 386, 0.600),
        (2, 260, (16, 24, 48, 120, 352), 6_092_072, 386, 0.860),
        (3, 280, (24, 32, 48, 136, 384), 8_197_096, 440, 1.383),
        (4, 300, (24, 32, 56, 160, 448), 13_006_568, 548, 2.553),
    ],
)
def test_counts_are_those_of_the_public_classifiers(
    number: int, side_px: int, channels: tuple[int, ...], classifier_parameters: int, entries: int, giga_adds: float
) -> None:
    with torch.device("meta"):
        backbone = build(BACKBONES, f"efficientnet_lite{number}")
        assert isinstance(backbone, EfficientNetLite)
        network = Classifier(backbone)
    assert (backbone.channels, backbone.strides, backbone.divisor) == (channels, (2, 4, 8, 16, 32), 32)
    assert (parameters(network), len(network.state_dict())) == (classifier_parameters, entries)
    assert multiply_adds(network, (side_px, side_px)) / 1e9 == pytest.approx(giga_adds, abs=0.03)
    stated = f"{parameters(backbone):,} parameters"
    assert stated in str(BACKBONES[f"efficientnet_lite{number}"].__doc__)
    assert not [module for module in backbone.modules() if isinstance(module, SqueezeExcite)]


def test_relu6_and_its_ends() -> None:
    at = torch.tensor([-1.0, 0.0, 3.0, 6.0, 9.0])
    assert activate(at, "relu6").tolist() == [0.0, 0.0, 3.0, 6.0, 6.0]


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("side", [8, 9])
def test_padding_at_stride_2_is_that_of_tensorflow(kernel_size: int, side: int) -> None:
    """Of an even side less is padded before than after, of an odd one as much; the output is half, rounded up."""
    before = (kernel_size - 2) // 2 if side == 8 else (kernel_size - 1) // 2
    after = (kernel_size - 1) // 2
    features = torch.rand(1, 2, side, 8)
    padded = pad_same(features, kernel_size, 2)
    assert padded.shape[2] == before + side + after
    assert torch.equal(padded[:, :, before : before + side, (kernel_size - 2) // 2 :][..., :8], features)
    layer = ConvNorm(2, 3, kernel_size, stride=2, activation="none", same=True).eval()
    expected = functional.conv2d(padded, layer.conv.weight, stride=2)
    torch.testing.assert_close(layer(features), expected / (1 + 1e-5) ** 0.5)
    assert layer(features).shape == (1, 3, (side + 1) // 2, 4)


def test_padding_at_stride_1_is_the_usual_one() -> None:
    torch.manual_seed(0)
    same, usual = ConvNorm(2, 3, 5, same=True).eval(), ConvNorm(2, 3, 5).eval()
    usual.load_state_dict(same.state_dict())
    features = torch.rand(1, 2, 7, 8)
    assert torch.equal(same(features), usual(features))
    with pytest.raises(ValueError, match="same=True is for convolutions without dilation, got dilation 2"):
        ConvNorm(2, 3, 3, dilation=2, same=True)


@pytest.mark.parametrize("neck", ["unet", "deconv"])
@pytest.mark.parametrize("head", ["heatmap", "centernet"])
def test_every_parameter_gets_a_gradient(neck: str, head: str) -> None:
    torch.manual_seed(0)
    network = ComposedNetwork(
        5, backbone={"name": "efficientnet_lite0"}, neck={"name": neck, "width": 8}, head={"name": head}
    )
    (stage,) = network(torch.randn(2, 3, 64, 32))
    sum(maps.square().sum() for maps in stage.values()).backward()  # type: ignore[union-attr]
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_what_makes_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width must be a number above 0, such as 1\.0 or 1\.2, got 0"):
        EfficientNetLite(width=0)
    with pytest.raises(ValueError, match=r"depth must be a number above 0, .* got -1"):
        EfficientNetLite(depth=-1)


@pytest.mark.parametrize(("coarsest", "levels"), [(4, 2), (8, 3), (16, 4), (32, 5)])
def test_a_backbone_may_end_at_a_finer_level(coarsest: int, levels: int) -> None:
    torch.manual_seed(0)
    whole, part = (build(BACKBONES, "efficientnet_lite2", coarsest=stride).eval() for stride in (32, coarsest))
    part.load_state_dict({name: value for name, value in whole.state_dict().items() if name in part.state_dict()})
    assert part.divisor == part.strides[-1] == coarsest
    assert part.channels == whole.channels[:levels]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(part(images), whole(images)[:levels], strict=True):
            assert torch.equal(ours, theirs)


def test_a_level_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"coarsest must be a level's stride \(4, 8, 16 or 32\), got 12"):
        EfficientNetLite(coarsest=12)
