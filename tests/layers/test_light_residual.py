"""The lighter residuals: their counts by closed formulas over widths, what they compute, and what they refuse."""

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional

from poseglass.layers.light_residual import RESIDUALS, DenseResidual, DepthwiseResidual
from poseglass.layers.residual import PreActivationResidual
from poseglass.networks.cost import parameters

FORMULAS = {
    "bottleneck": lambda f: Fraction(13, 4) * f**2 + 6 * f,
    "depthwise": lambda f: Fraction(5, 4) * f**2 + Fraction(21, 2) * f,
    "dense": lambda f: Fraction(137, 64) * f**2 + Fraction(57, 8) * f,
}
"""Parameters at f channels in and out."""


def by_layers(block: str, a: int, b: int) -> int:
    """Parameters from a to b channels, summed by hand: norms 2c, convolutions with a bias, the skip connection."""
    skip = a * b + b if a != b else 0
    half = b // 2
    first = 2 * a + a * half + half
    last = 2 * half + half * b + b
    if block == "bottleneck":
        return first + 2 * half + 9 * half * half + half + last + skip
    if block == "depthwise":
        return first + 2 * half + 9 * half + half * half + half + last + skip
    narrow, growth = b // 4, b // 8
    total = 2 * a + a * narrow + narrow
    for width in (narrow, narrow + growth, narrow + 2 * growth):
        total += 2 * width + 9 * width * growth + growth
    width = narrow + 3 * growth
    return total + 2 * width + width * b + b + skip


@pytest.mark.parametrize("block", RESIDUALS)
def test_counts_are_those_of_the_closed_formula_at_every_width(block: str) -> None:
    step = 8 if block == "dense" else 2
    with torch.device("meta"):
        for width in (*range(step, 66, step), 96, 128, 160, 256, 512):
            count = parameters(RESIDUALS[block](width, width))
            assert count == FORMULAS[block](width) == by_layers(block, width, width)
            assert parameters(RESIDUALS[block](3 * width + 1, width)) == by_layers(block, 3 * width + 1, width)


def test_counts_at_256_channels() -> None:
    assert [FORMULAS[block](256) for block in RESIDUALS] == [214_528, 84_608, 142_112]
    # the 3x3 convolution from 128 to 128 channels, without biases: 8.41 times as many weights as the split one
    block = DepthwiseResidual(256, 256)
    assert block.depthwise.weight.numel() + block.pointwise.weight.numel() == 1_152 + 16_384 == 17_536
    assert PreActivationResidual(256, 256).conv2.weight.numel() == 147_456


def settled(block: nn.Module) -> nn.Module:
    """Return it in evaluation, with norms that are not those of a new one."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return block.eval()


@pytest.mark.parametrize(("before", "after"), [(8, 8), (8, 12)])
def test_the_depthwise_residual_is_the_stated_sequence(before: int, after: int) -> None:
    torch.manual_seed(0)
    block = settled(DepthwiseResidual(before, after))
    features = torch.randn(2, before, 4, 6)
    kept = features.clone()
    inside = block.conv1(functional.relu(block.norm1(kept)))  # type: ignore[operator]
    inside = functional.relu(block.norm2(inside))  # type: ignore[operator]
    weight = block.depthwise.weight  # type: ignore[union-attr]
    inside = functional.conv2d(inside, weight, padding=1, groups=after // 2)  # type: ignore[arg-type]
    inside = block.conv3(functional.relu(block.norm3(block.pointwise(inside))))  # type: ignore[operator]
    skip = kept if block.adapt is None else block.adapt(kept)  # type: ignore[operator]
    torch.testing.assert_close(block(features), skip + inside)
    assert torch.equal(features, kept)


@pytest.mark.parametrize(("before", "after"), [(16, 16), (8, 24)])
def test_the_dense_residual_is_the_stated_sequence(before: int, after: int) -> None:
    torch.manual_seed(0)
    block = settled(DenseResidual(before, after))
    features = torch.randn(2, before, 9, 9)
    kept = features.clone()
    parts = [block.conv1(functional.relu(block.norm1(kept)))]  # type: ignore[operator]
    for norm, conv in zip(block.norms, block.convs, strict=True):  # type: ignore[arg-type]
        parts.append(conv(functional.relu(norm(torch.cat(parts, 1)))))
    assert [part.shape[1] for part in parts] == [after // 4, after // 8, after // 8, after // 8]
    inside = block.conv3(functional.relu(block.norm3(torch.cat(parts, 1))))  # type: ignore[operator]
    skip = kept if block.adapt is None else block.adapt(kept)  # type: ignore[operator]
    torch.testing.assert_close(block(features), skip + inside)
    assert torch.equal(features, kept)


def test_a_dense_residual_sees_seven_pixels_and_the_others_three() -> None:
    for name, side in (("bottleneck", 3), ("depthwise", 3), ("dense", 7)):
        torch.manual_seed(0)
        block = settled(RESIDUALS[name](32, 32)).double()
        features = torch.randn(32, 32, 15, 15, dtype=torch.float64, requires_grad=True)
        block(features)[:, :, 7, 7].square().sum().backward()
        assert features.grad is not None
        seen = features.grad.abs().amax((0, 1)) > 0
        assert seen.any(0).sum() == seen.any(1).sum() == side


@pytest.mark.parametrize("block", RESIDUALS)
@pytest.mark.parametrize("training", [True, False])
def test_zeroing_the_last_convolution_makes_it_the_identity(block: str, training: bool) -> None:
    made = RESIDUALS[block](16, 16).train(training)
    nn.init.zeros_(made.conv3.weight)
    nn.init.zeros_(made.conv3.bias)  # type: ignore[arg-type]
    features = torch.randn(2, 16, 5, 7)
    assert torch.equal(made(features), features)


@pytest.mark.parametrize(
    ("block", "before", "after", "message"),
    [
        ("bottleneck", 8, 0, r"A bottleneck residual needs at least 1 channel before and behind, got 8 and 0\."),
        ("depthwise", 0, 8, r"A depthwise residual needs at least 1 channel before and behind, got 0 and 8\."),
        ("depthwise", 8, 7, r"A depthwise residual needs an even number of output channels, got 7\."),
        ("dense", 8, 0, r"A dense residual needs at least 1 channel before and behind, got 8 and 0\."),
        ("dense", 8, 12, r"A dense residual needs output channels in multiples of 8, got 12\."),
    ],
)
def test_widths_that_cannot_be(block: str, before: int, after: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RESIDUALS[block](before, after)
