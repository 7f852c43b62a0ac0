"""Multi-Scale DenseNet: exits that do not depend on what comes after them."""

from typing import Any

import pytest
import torch

from poseglass.networks.msdnet import MultiScaleDenseNet


def small(**numbers: Any) -> MultiScaleDenseNet:
    torch.manual_seed(0)
    usual = {"num_classes": 5, "exits": 3, "layers": 2, "growth": 4, "width": 8, "stem_stride": 1}
    return MultiScaleDenseNet(**usual | numbers).eval()


@pytest.mark.parametrize("reduces", [True, False])
def test_logits_of_an_exit_do_not_change_when_deeper_layers_do(reduces: bool) -> None:
    network, images = small(reduces=reduces), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        before = [stage["class"] for stage in network(images)]
        for layer in list(network.layers[2:]) + list(network.classifiers[1:]):
            for parameter in layer.parameters():
                parameter.add_(1.0)
        after = [stage["class"] for stage in network(images)]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert not torch.allclose(before[2], after[2])


def test_every_parameter_is_used_where_finer_scales_are_left_out() -> None:
    network = small().train()
    loss = sum(stage["class"].square().sum() for stage in network(torch.randn(4, 3, 32, 32)))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_every_layer_sees_all_layers_before_it_at_its_scale() -> None:
    """Dense connectivity: the coarsest features of a later layer have a gradient in those of the first."""
    network = small(factors=(1, 2))
    state = tuple(one.detach().requires_grad_() for one in network.begin(torch.randn(1, 3, 16, 16)))
    prediction, _ = network.stage(0, state)
    prediction["class"].sum().backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in state)


def test_channels_grow_by_the_growth_of_each_scale() -> None:
    network = small(reduces=False, factors=(1, 2, 4))
    state = network.begin(torch.randn(1, 3, 16, 16))
    assert [one.shape[1] for one in state] == [8, 16, 32]
    assert [one.shape[2] for one in state] == [16, 8, 4]
    _, state = network.stage(0, state)  # two layers
    assert [one.shape[1] for one in state] == [8 + 2 * 4, 16 + 2 * 8, 32 + 2 * 16]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number above 0, got 0"),
        ({"growth": 1.5}, "growth must be a whole number above 0, got 1.5"),
        ({"factors": ()}, "at least one scale"),
        ({"factors": (1, 0)}, "factors must be a whole number above 0, got 0"),
        ({"stem_stride": 2}, "stem_stride must be 1 or 4, got 2"),
    ],
)
def test_numbers_that_make_no_network_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**numbers)


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="both sides must be divisible by 8"):
        small()(torch.zeros(1, 3, 20, 16))
