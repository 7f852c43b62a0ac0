"""HRNet: its structure, beside what the contract asks of every backbone."""

from typing import Any

import pytest
import torch
from torch import nn

from poseglass.backbones.hrnet import ExchangeModule, HRNet

BRANCHES = (2, 3, 3, 3, 3, 4, 4, 4)
"""Of the modules of stages 2, 3 and 4, as published."""


def tiny(**numbers: Any) -> HRNet:
    torch.manual_seed(0)
    small = {"num_modules": (2, 1, 2), "num_blocks": 1, "num_bottlenecks": 2, "stem_width": 4}
    return HRNet(4, **(small | numbers)).eval()


@pytest.mark.slow
def test_published_numbers_of_modules_and_outputs() -> None:
    with torch.device("meta"):
        pose, features = HRNet(32, finest_only=True), HRNet(32)
    for network, last in ((pose, 1), (features, 4)):
        modules = [m for m in network.modules() if isinstance(m, ExchangeModule)]
        outputs = [len(m.exchange) for m in modules]
        assert outputs == [2, 3, 3, 3, 3, 4, 4, last]
        assert [[len(list(b.children())) for b in m.branches] for m in modules] == [[4] * n for n in BRANCHES]
    assert (pose.channels, pose.strides) == ((32,), (4,))
    assert (features.channels, features.strides) == ((32, 64, 128, 256), (4, 8, 16, 32))


@pytest.mark.slow
def test_the_finest_level_is_the_same_with_and_without_the_others() -> None:
    every, finest = tiny(), tiny(finest_only=True)
    assert finest.state_dict().keys() < every.state_dict().keys()
    finest.load_state_dict({name: every.state_dict()[name] for name in finest.state_dict()})
    images = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(every(images)[0], finest(images)[0])


def _bare(module: ExchangeModule) -> ExchangeModule:
    """Blocks that change nothing (their convolutions give zero), paths that give what comes in, positive."""
    for block in module.branches.modules():
        if isinstance(block, nn.Conv2d):
            nn.init.zeros_(block.weight)
    for conv in module.exchange.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.constant_(conv.weight, 1 / conv.weight[0].numel())
    return module.eval()


def test_a_checkerboard_below_comes_up_as_blocks_of_two_by_two() -> None:
    """Nearest-neighbour upsampling; a bilinear one would smear the edges."""
    module = _bare(ExchangeModule((1, 1), num_blocks=1, num_outputs=1))
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2 * 1.0
    with torch.inference_mode():
        (up,) = module([torch.zeros(1, 1, 8, 8), board[None, None]])
    expected = board.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(up[0, 0], expected, rtol=1e-4, atol=0)


def test_every_branch_reaches_every_output() -> None:
    module = _bare(ExchangeModule((1, 2, 4), num_blocks=1, num_outputs=3))
    for source in range(3):
        features = [torch.zeros(1, 2**j, 8 // 2**j, 8 // 2**j) for j in range(3)]
        features[source] += 1.0
        with torch.inference_mode():
            outputs = module(features)
        assert [tuple(x.shape[1:]) for x in outputs] == [(1, 8, 8), (2, 4, 4), (4, 2, 2)]
        assert all(float(x[..., -1, -1].min()) > 0.5 for x in outputs)


def test_a_new_branch_is_made_from_the_coarsest_one_alone() -> None:
    network = tiny()
    assert [begin.get_parameter("conv.weight").shape[1] for begin in network.coarser] == [16, 8, 16]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_modules": (1, 4)}, r"num_modules needs three numbers, for stages 2, 3 and 4, got \[1, 4\]"),
        ({"num_modules": (1, 0, 1)}, "num_modules must be a whole number above 0, got 0"),
        ({"num_blocks": 0}, "num_blocks must be a whole number above 0, got 0"),
        ({"stem_width": 0}, "stem_width must be a whole number above 0, got 0"),
        ({"num_bottlenecks": 1.5}, "num_bottlenecks must be a whole number above 0, got 1.5"),
    ],
)
def test_numbers_that_make_no_hrnet(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**numbers)
