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


def residual_count(block: str, a: int, b: int) -> int:
    """Parameters of a residual from a to b channels."""
    skip = a * b + b if a != b else 0
    if block == "bottleneck":
        return 2 * a + a * b // 2 + 9 * b * b // 4 + b * b // 2 + 4 * b + skip
    if block == "depthwise":
        return 2 * a + a * b // 2 + 9 * b // 2 + b * b // 4 + b * b // 2 + 4 * b + skip
    # 1x1 to b/4; 3x3 from b/4, 3b/8 and b/2 to b/8 each; 1x1 from 5b/8
    return (
        2 * a
        + a * b // 4
        + b // 4
        + 9 * b // 4
        + 81 * b * b // 64
        + 3 * b // 8
        + 5 * b // 4
        + 5 * b * b // 8
        + b
        + skip
    )


def whole_count(k: int, stacks: int, f: int, depth: int, blocks: int, stem: str, block: str) -> int:
    """Parameters of a stacked hourglass by a closed formula.

    Stem: 7x7 from 3 to f/4 with norm, residuals f/4 -> f/2 -> m -> f with m = f/2 ("newell") or f. An hourglass has
    3 depth + 1 positions. Then a residual, 1x1 with norm, heatmaps; and between stacks 1x1 from f and from K.
    """
    middle = f // 2 if stem == "newell" else f
    total = 147 * (f // 4) + 3 * (f // 4)
    total += sum(residual_count(block, a, b) for a, b in ((f // 4, f // 2), (f // 2, middle), (middle, f)))
    total += stacks * (3 * depth + 1 + 1) * blocks * residual_count(block, f, f)
    total += stacks * (f * f + f + 2 * f + k * f + k)
    return total + (stacks - 1) * (f * f + f + k * f + f)


@pytest.mark.parametrize("block", ["bottleneck", "depthwise", "dense"])
@pytest.mark.parametrize("stem", ["newell", "bearpaw"])
@pytest.mark.parametrize("width", [16, 48, 160, 256])
def test_whole_counts_follow_a_closed_formula(block: str, stem: str, width: int) -> None:
    for k, stacks, depth, blocks in ((16, 1, 4, 1), (17, 2, 3, 1), (14, 3, 1, 2)):
        with torch.device("meta"):
            network = StackedHourglass(
                k, num_stacks=stacks, width=width, depth=depth, num_blocks=blocks, stem=stem, block=block  # type: ignore[arg-type]
            )  # fmt: skip
        assert parameters(network) == whole_count(k, stacks, width, depth, blocks, stem, block)


def test_the_formula_gives_the_published_counts() -> None:
    published = {1: 3_426_448, 2: 6_570_400, 4: 12_858_304, 8: 25_434_112}
    assert {s: whole_count(16, s, 256, 4, 1, "newell", "bottleneck") for s in published} == published
    assert whole_count(16, 8, 256, 4, 1, "bearpaw", "bottleneck") == 25_594_624


@pytest.mark.parametrize("block", ["depthwise", "dense"])
def test_a_light_hourglass_predicts_and_every_parameter_gets_a_gradient(block: str) -> None:
    torch.manual_seed(0)
    network = StackedHourglass(3, num_stacks=2, width=16, depth=2, block=block)  # type: ignore[arg-type]
    stages = network(torch.rand(2, 3, 32, 48))
    assert [tuple(stage["heatmap"].shape) for stage in stages] == [(2, 3, 8, 12)] * 2
    sum(stage["heatmap"].square().mean() for stage in stages).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"width": 0}, r"width must be a multiple of 4 \(the stem starts at width/4\), got 0\."),
        ({"width": 0, "block": "depthwise"}, r"width must be a multiple of 4 \(the stem starts at width/4\), got 0\."),
        ({"width": 15, "block": "depthwise"}, r"width must be a multiple of 4 .* got 15\."),
        (
            {"width": 24, "block": "dense"},
            r"multiple of 16 \(dense residuals add an eighth of width/2 at a time\), got 24",
        ),
        ({"block": "shuffle"}, r"block must be 'bottleneck', 'depthwise' or 'dense', got 'shuffle'\."),
    ],
)
def test_light_designs_that_cannot_be(numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StackedHourglass(3, **numbers)
