"""Deeply-Fused Nets: sums after every block; with all weights but one at zero, one network is left."""

from typing import Any

import pytest
import torch

from poseglass.backbones.deeply_fused import DeeplyFused, deeply_fused
from poseglass.networks.cost import parameters

DEPTHS = ((1, 1, 1, 1), (2, 1, 3, 1))


def test_the_stated_count() -> None:
    with torch.device("meta"):
        assert parameters(deeply_fused()) == 2_364_064


@pytest.mark.parametrize("kept", [0, 1])
def test_with_one_weight_left_the_result_is_that_networks(kept: int) -> None:
    torch.manual_seed(0)
    fusion = [0.0, 0.0]
    fusion[kept] = 1.0
    fused = DeeplyFused(depths=DEPTHS, width=4, fusion=fusion).eval()
    alone = DeeplyFused(depths=[DEPTHS[kept]], width=4).eval()
    renamed = {}
    for name, value in fused.state_dict().items():
        pieces = name.split(".")
        if pieces[0] == "blocks":
            if pieces[2] != str(kept):
                continue
            pieces[2] = "0"
        renamed[".".join(pieces)] = value
    alone.load_state_dict(renamed)
    images = torch.randn(2, 3, 32, 64)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(fused(images), alone(images), strict=True))


def test_levels_are_sums_of_what_both_make_of_the_level_before() -> None:
    torch.manual_seed(0)
    fused = DeeplyFused(depths=DEPTHS, width=4).eval()
    with torch.inference_mode():
        levels = fused(torch.randn(1, 3, 64, 64))
        second: Any = fused.blocks[1]
        assert torch.equal(levels[1], second[0](levels[0]) + second[1](levels[0]))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"depths": ()}, "four whole numbers above 0"), ({"depths": ((1, 1, 1),)}, "four whole numbers above 0"),
        ({"depths": ((1, 1, 0, 1),)}, "four whole numbers above 0"), ({"width": 0}, "a width of at least 1, got 0"),
        ({"fusion": (1.0,)}, "one finite fusion weight for each of its 2"),
        ({"fusion": (1.0, float("nan"))}, "one finite fusion weight for each of its 2"),
    ],
)  # fmt: skip
def test_numbers_that_make_no_network_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeeplyFused(**numbers)
