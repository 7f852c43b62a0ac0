"""The necks that take one level."""

import pytest
import torch

from poseglass.necks.deconv import Deconv
from poseglass.necks.level import Level


def levels() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, c, s, s, generator=generator) for c, s in ((4, 8), (8, 4), (16, 2))]


@pytest.mark.parametrize(("level", "stride"), [(0, 4), (1, 8), (-1, 16)])
def test_a_level_is_taken_as_it_is(level: int, stride: int) -> None:
    neck, features = Level((4, 8, 16), (4, 8, 16), level=level), levels()
    assert neck(features) is features[level]
    assert (neck.out_channels, neck.out_stride) == (stride, stride)
    assert not list(neck.parameters())


def test_a_level_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"has 3 levels, of strides 4, 8, 16; level must be from -3 to 2, got 3"):
        Level((4, 8, 16), (4, 8, 16), level=3)


@pytest.mark.parametrize(("num_layers", "stride"), [(1, 8), (3, 2)])
def test_each_deconvolution_doubles_the_resolution(num_layers: int, stride: int) -> None:
    neck, features = Deconv((4, 8, 16), (4, 8, 16), num_layers=num_layers, width=6), levels()
    assert (neck.out_channels, neck.out_stride) == (6, stride)
    assert neck(features).shape == (1, 6, 32 // stride, 32 // stride)
    changed = [torch.zeros(1), torch.zeros(1), features[2]]
    assert torch.equal(neck.eval()(features), neck(changed))  # only the coarsest level is used


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_layers": 0}, "num_layers and width must be at least 1, got 0 and 256"),
        ({"width": 0}, "num_layers and width must be at least 1, got 3 and 0"),
        ({"num_layers": 5}, "5 layers double the resolution 5 times, but the coarsest level has stride 16"),
    ],
)
def test_numbers_that_make_no_deconvolutions(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deconv((4, 8, 16), (4, 8, 16), **numbers)
