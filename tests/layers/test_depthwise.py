"""A depthwise convolution gives the gradients of ``nn.Conv2d``, also where it takes ways of its own."""

import pytest
import torch
from torch import Tensor, nn

from poseglass.layers import depthwise
from poseglass.layers.depthwise import DepthwiseConv2d

CASES = [(3, 2, 0, (81, 40)), (3, 2, 1, (16, 15)), (5, 2, 0, (13, 14)), (5, 2, 2, (12, 9)), (5, 1, 2, (7, 10)),
         (5, 1, 0, (9, 6)), (3, 1, 1, (6, 6)), (3, 2, 1, (1, 2)), (5, 2, 2, (2, 1))]  # fmt: skip


@pytest.mark.parametrize(("side", "stride", "padding", "size_hw"), CASES)
def test_gradients_are_those_of_autograd(side: int, stride: int, padding: int, size_hw: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 4, *size_hw, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(4, 1, side, side, dtype=torch.float64, requires_grad=True)
    output = nn.functional.conv2d(features, kernel, None, stride, padding, groups=4)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    pads = (padding, padding)
    of_input = depthwise.gradient_of_input(gradient, kernel.detach(), features.shape, stride, pads)
    of_kernel = depthwise.gradient_of_kernel(gradient, features.detach(), side, stride, pads)
    torch.testing.assert_close(of_input, features.grad)
    torch.testing.assert_close(of_kernel, kernel.grad)


@pytest.mark.parametrize(("side", "stride", "padding", "size_hw"), CASES)
def test_a_training_step_in_bfloat16(side: int, stride: int, padding: int, size_hw: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, *size_hw).bfloat16().float()
    own = DepthwiseConv2d(4, side, stride=stride, padding=padding).train()
    plain = nn.Conv2d(4, 4, side, stride, padding, groups=4, bias=False)
    plain.load_state_dict(own.state_dict())

    def step(layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        given = features.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(given)
        output.float().square().sum().backward()
        assert given.grad is not None
        assert layer.weight.grad is not None
        return output, given.grad, layer.weight.grad

    for ours, theirs in zip(step(own), step(plain), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item())


@pytest.mark.parametrize(
    ("training", "enabled", "taken"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_the_own_way_is_for_training_in_bfloat16(training: bool, enabled: bool, taken: bool) -> None:
    layer = DepthwiseConv2d(4, 5, padding=2).train(training)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        output = layer(torch.randn(1, 4, 8, 8))
    assert ("_Depthwise" in type(output.grad_fn).__name__) == taken
