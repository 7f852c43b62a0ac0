"""The residual: what it owns, what it computes, and that it leaves its input alone."""

import pytest
import torch
from torch.nn import functional

from poseglass.layers.residual import PreActivationResidual


def test_equal_widths_own_no_skip_weights() -> None:
    block = PreActivationResidual(16, 16)
    assert block.adapt is None
    assert not [name for name in block.state_dict() if "adapt" in name]
    assert sum(p.numel() for p in block.parameters()) == 3.25 * 16**2 + 6 * 16


def test_other_widths_own_a_bare_convolution() -> None:
    block = PreActivationResidual(8, 16)
    assert block.adapt is not None
    assert tuple(block.adapt.weight.shape) == (16, 8, 1, 1)


@pytest.mark.parametrize("training", [True, False])
def test_zeroing_conv3_makes_it_the_identity(training: bool) -> None:
    block = PreActivationResidual(16, 16).train(training)
    torch.nn.init.zeros_(block.conv3.weight)
    torch.nn.init.zeros_(block.conv3.bias)  # type: ignore[arg-type]
    features = torch.randn(2, 16, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(features), features)


@pytest.mark.parametrize(("before", "after"), [(8, 8), (8, 12)])
def test_it_is_the_published_sequence_and_leaves_its_input_alone(before: int, after: int) -> None:
    torch.manual_seed(0)
    block = PreActivationResidual(before, after).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    features = torch.randn(2, before, 4, 6)
    kept = features.clone()
    inside = block.conv1(functional.relu(block.norm1(kept)))
    inside = block.conv2(functional.relu(block.norm2(inside)))
    inside = block.conv3(functional.relu(block.norm3(inside)))
    skip = kept if block.adapt is None else block.adapt(kept)
    torch.testing.assert_close(block(features), skip + inside)
    assert torch.equal(features, kept)


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="even number of output channels, got 7"):
        PreActivationResidual(8, 7)
