"""Convolutional pose machines: what a stage sees, and strides."""

from typing import Any

import pytest
import torch

from poseglass.networks.cost import parameters
from poseglass.networks.cpm import ConvolutionalPoseMachine, cpm


def small(**numbers: Any) -> ConvolutionalPoseMachine:
    torch.manual_seed(0)
    usual = {"num_stages": 3, "width": 8, "first_width": 16, "feature_width": 4, "kernel_size": 3}
    return ConvolutionalPoseMachine(2, **usual | {"stage_kernel_size": 5} | numbers).eval()


def test_the_size_is_mmposes_and_maps_are_46_by_46() -> None:
    with torch.device("meta"):
        network = cpm(16).eval()
        assert parameters(network) == 31_225_568
        stages = network(torch.empty(1, 3, 368, 368))
    assert [tuple(stage["heatmap"].shape) for stage in stages] == [(1, 16, 46, 46)] * 6


@pytest.mark.parametrize(("stride", "side"), [(8, 6), (4, 12)])
def test_strides(stride: int, side: int) -> None:
    network = small(stride=stride)
    assert network.stride == network.divisor == stride
    assert network(torch.rand(1, 3, 48, 48))[-1]["heatmap"].shape == (1, 2, side, side)


def test_every_stage_reads_the_belief_before_it_and_the_image() -> None:
    network, images = small(), torch.rand(1, 3, 32, 32)
    before = [stage["heatmap"] for stage in network(images)]
    with torch.no_grad():
        network.first[-1].bias.add_(1.0)  # type: ignore[union-attr]
    after = [stage["heatmap"] for stage in network(images)]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    with torch.no_grad():
        network.trunk[0].conv.weight.mul_(-1.0)  # type: ignore[union-attr]
    again = [stage["heatmap"] for stage in network(images)]
    assert [torch.equal(a, b) for a, b in zip(after, again, strict=True)] == [True, False, False]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"num_stages": 1}, "needs num_stages of 2 or more, got 1"),
        ({"width": 0}, "width must be a whole number above 0, got 0"),
        ({"feature_width": 1.5}, "feature_width must be a whole number above 0, got 1.5"),
        ({"kernel_size": 4}, "kernel_size must be odd, to keep the size of maps; got 4"),
        ({"stage_kernel_size": 0}, "stage_kernel_size must be odd, to keep the size of maps; got 0"),
        ({"stride": 2}, "stride must be 4 or 8, got 2"),
    ],
)
def test_numbers_that_make_no_network_are_refused(numbers: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small(**numbers)
