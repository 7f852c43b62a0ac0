"""The stacked hourglass: its structure, beside what the contract asks of every network."""

import pytest
import torch

from poseglass.layers.residual import PreActivationResidual
from poseglass.networks.cost import parameters
from poseglass.networks.stacked_hourglass import Hourglass, StackedHourglass, hg1_light, hg2_light


def tiny() -> StackedHourglass:
    torch.manual_seed(0)
    return StackedHourglass(3, num_stacks=3, width=8, depth=2).eval()


def test_thirteen_residuals_at_depth_four() -> None:
    with torch.device("meta"):
        hourglass = Hourglass(4, 8)
    assert sum(isinstance(m, PreActivationResidual) for m in hourglass.modules()) == 13


def test_no_weights_are_shared_between_stacks() -> None:
    network = tiny()
    assert len({p.data_ptr() for p in network.parameters()}) == len(list(network.parameters()))
    assert len(network.feature_feedback) == len(network.heatmap_feedback) == 2


def test_a_stack_sees_what_the_one_before_it_predicted() -> None:
    network, images = tiny(), torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = network(images)
        network.outputs[0].heatmap.bias += 1.0  # type: ignore[union-attr, operator]
        after = network(images)
    torch.testing.assert_close(after[0]["heatmap"], before[0]["heatmap"] + 1.0)
    for later in (1, 2):
        assert (after[later]["heatmap"] - before[later]["heatmap"]).abs().max() > 1e-4


def test_early_stages_do_not_depend_on_later_stacks() -> None:
    network, images = tiny(), torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = network(images)
        for parameter in network.hourglasses[2].parameters():
            parameter.zero_()
        after = network(images)
    assert torch.equal(after[1]["heatmap"], before[1]["heatmap"])
    assert not torch.equal(after[2]["heatmap"], before[2]["heatmap"])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_stacks": 0}, "num_stacks must be a whole number above 0, got 0"),
        ({"depth": 0}, "depth must be a whole number above 0, got 0"),
        ({"num_blocks": -1}, "num_blocks must be a whole number above 0, got -1"),
        ({"width": 10}, "width must be a multiple of 4 .* got 10"),
        ({"stem": "lua"}, "stem must be 'newell' or 'bearpaw', got 'lua'"),
    ],
)
def test_numbers_that_make_no_network(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StackedHourglass(3, **numbers)


def test_no_keypoints_are_refused() -> None:
    with pytest.raises(ValueError, match="num_keypoints must be a whole number above 0, got 0"):
        StackedHourglass(0)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32), (1, 4, 32, 32)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images of shape \(B, 3, H, W\), got"):
        tiny()(torch.zeros(shape))


def test_the_message_names_the_sizes_around() -> None:
    with pytest.raises(ValueError, match=r"Input of 40 x 10 .* divisible by 16.* valid sizes: 32 x 16 or 48 x 16\."):
        tiny()(torch.zeros(1, 3, 10, 40))


def test_the_light_family_is_light() -> None:
    with torch.device("meta"):
        one, two = hg1_light(14), hg2_light(14)
    assert parameters(one) < 250_000
    assert parameters(two) < 6_000_000
    assert (one.divisor, two.divisor) == (32, 32)
