"""ResNet, strided and dilated."""

import pytest
import torch
from torch import nn

from poseglass.backbones import BACKBONES
from poseglass.backbones.resnet import ResNet
from poseglass.layers.resnet_blocks import BasicBlock, Bottleneck
from poseglass.networks.cost import parameters


def seeded(depth: int, output_stride: int) -> ResNet:
    torch.manual_seed(0)
    return ResNet(depth, width=8, output_stride=output_stride).double().eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        ("resnet101", 42_500_160),
        ("resnet152", 58_143_808),
    ],
)
def test_parameters_are_those_of_the_paper_without_a_classifier(name: str, count: int) -> None:
    with torch.device("meta"):
        networks = [BACKBONES[name](output_stride=stride) for stride in (32, 16, 8)]
    assert [parameters(network) for network in networks] == [count] * 3
    assert f"{count:,} parameters" in (BACKBONES[name].__doc__ or "")
    states = [{k: v.shape for k, v in network.state_dict().items()} for network in networks]
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("depth", [18, 50])
def test_dilated_features_are_the_strided_ones_and_those_between(depth: int, output_stride: int) -> None:
    """Holes in the kernels where the stride was: at every n-th place nothing has changed."""
    strided, dilated = seeded(depth, 32), seeded(depth, output_stride)
    images = torch.rand(1, 3, 96, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, levels = strided(images), dilated(images)
    assert dilated.strides == tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
    for reference, features, coarse, fine in zip(expected, levels, strided.strides, dilated.strides, strict=True):
        assert features.shape[-2:] == (96 // fine, 64 // fine)
        step = coarse // fine
        torch.testing.assert_close(features[..., ::step, ::step], reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_the_response_to_an_impulse_grows_with_dilation(
    block: type[BasicBlock] | type[Bottleneck], dilation: int
) -> None:
    torch.manual_seed(0)
    made = block(64, 64 // block.expansion, dilations=(dilation, dilation)).double().eval()
    features = torch.zeros(1, 64, 41, 41, dtype=torch.double)
    with torch.inference_mode():
        silence = made(features)
        features[..., 20, 20] = 100.0
        heard = (made(features) - silence).abs().amax((0, 1)) > 0
    reach = dilation * (2 if block is BasicBlock else 1)  # 3x3 convolutions in a row
    rows = heard.any(1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (20 - reach, 20 + reach)
    assert int(heard.sum()) == (2 * reach // dilation + 1) ** 2  # only every dilation-th place is reached


@pytest.mark.parametrize(("output_stride", "reach"), [(32, 1), (8, 4)])
def test_the_last_convolution_keeps_its_reach_in_pixels(output_stride: int, reach: int) -> None:
    """A dilation of 4 at stride 8 spans what a plain convolution spans at stride 32."""
    last = [m for m in seeded(18, output_stride).modules() if isinstance(m, nn.Conv2d)][-1]
    assert (last.kernel_size, last.dilation) == ((3, 3), (reach, reach))
    assert reach * output_stride == 32


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"depth": 20}, "depth must be one of 18, 34, 50, 101, 152, got 20"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_numbers_that_make_no_resnet(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet(**numbers)  # type: ignore[arg-type]
