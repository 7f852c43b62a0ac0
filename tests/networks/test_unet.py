"""U-Net: the paper's to the unit, and what keypoints need of it."""

import pytest
import torch

from poseglass.networks.cost import parameters
from poseglass.networks.unet import UNet


def test_the_papers_network_and_its_sizes() -> None:
    with torch.device("meta"):
        network = UNet(2, in_channels=1, padded=False, norm=False)
        assert parameters(network) == 31_030_658
        assert not list(network.buffers())
        for given, made in ((572, 388), (188, 4)):
            assert network(torch.zeros(1, 1, given, 572))[0]["heatmap"].shape == (1, 2, made, 388)


def test_skips_are_cropped_to_their_middle() -> None:
    """A pixel of the unpadded output is that of the padded network, where the padding is out of its sight.

    At depth 1: at more, the two pool over different pixels, since borders of 2 px put the second pooling off by one.
    """
    torch.manual_seed(0)
    padded = UNet(2, width=4, depth=1, norm=False)
    bare = UNet(2, width=4, depth=1, norm=False, padded=False)
    bare.load_state_dict(padded.state_dict())
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        (whole,), (middle,) = padded(images), bare(images)
    assert middle["heatmap"].shape == (1, 2, 16, 32)
    torch.testing.assert_close(middle["heatmap"], whole["heatmap"][:, :, 8:-8, 8:-8], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
def test_stride_and_divisor(stem_stride: int) -> None:
    network = UNet(3, width=4, depth=2, stem_stride=stem_stride).eval()
    assert (network.stride, network.divisor) == (stem_stride, 4 * stem_stride)
    assert network(torch.zeros(1, 3, 16, 32))[0]["heatmap"].shape == (1, 3, 16 // stem_stride, 32 // stem_stride)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"width": 0}, "UNet: width must be a whole number above 0, got 0"),
        ({"depth": 1.5}, r"UNet: depth must be a whole number above 0, got 1\.5"),
        ({"stem_stride": 3}, "stem_stride must be 1, 2 or 4, and 1 where padded=False, got 3 with padded=True"),
        ({"stem_stride": 2, "padded": False}, "got 2 with padded=False"),
    ],
)
def test_what_makes_no_network_is_refused(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(2, **numbers)


def test_sizes_that_do_not_halve_evenly_are_refused_with_those_that_do() -> None:
    with torch.device("meta"):
        network = UNet(2, in_channels=1, padded=False, norm=False)
        with pytest.raises(ValueError, match=r"takes sides of 188 and up in steps of 16\. Nearest to 568: 572"):
            network(torch.zeros(1, 1, 572, 568))
        with pytest.raises(ValueError, match="Nearest to 172: 188"):
            network(torch.zeros(1, 1, 172, 572))
        with pytest.raises(ValueError, match=r"images of shape \(B, 1, H, W\), got \(1, 3, 572, 572\)"):
            network(torch.zeros(1, 3, 572, 572))
