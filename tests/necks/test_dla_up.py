"""Iterative deep aggregation: which maps are merged in which order, and the upsampling that it starts with."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.necks.dla_up import DLAUp, Merge

CHANNELS, STRIDES = (4, 6, 8, 10), (4, 8, 16, 32)


def levels(strides: tuple[int, ...] = STRIDES, channels: tuple[int, ...] = CHANNELS, side: int = 96) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, count, side // stride, 2 * side // stride, generator=generator)
        for count, stride in zip(channels, strides, strict=True)
    ]


def test_levels_are_merged_as_in_centernet() -> None:
    torch.manual_seed(0)
    neck = DLAUp(CHANNELS, STRIDES).eval()
    (s16,), (s8, s8_more), (s4, s4_more, s4_most) = (list(step) for step in neck.steps)  # type: ignore[arg-type]
    c2, c3, c4, c5 = given = levels()
    with torch.no_grad():
        a = s16(c4, c5)
        b1 = s8(c3, c4)
        b2 = s8_more(b1, a)
        d1 = s4(c2, c3)
        d2 = s4_more(d1, b1)
        d3 = s4_most(d2, b2)
        expected = neck.last[1](neck.last[0](d3, b2), a)
        assert torch.equal(neck(given), expected)
    assert [merge.project.conv.in_channels for merge in neck.last] == [6, 8]  # type: ignore[union-attr]
    assert (neck.out_channels, neck.out_stride) == (4, 4)


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (2, 4, 8, 32), (4, 8, 8, 8), (4, 12, 24, 48), (4, 4, 8, 16)])
def test_any_whole_factors_fit(strides: tuple[int, ...]) -> None:
    neck = DLAUp(CHANNELS, strides)
    finest = strides.index(4)
    assert neck(levels(strides)).shape == (1, CHANNELS[finest], 24, 48)


def test_two_levels_are_one_merge() -> None:
    neck = DLAUp((4, 6), (4, 8)).eval()
    fine, coarse = levels((4, 8), (4, 6))
    (merge,) = neck.steps[0]  # type: ignore[misc]
    with torch.no_grad():
        assert torch.equal(neck([fine, coarse]), merge(fine, coarse))
    assert len(neck.last) == 0


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_upsampling_starts_as_bilinear_interpolation(factor: int) -> None:
    up = Merge(3, 5, factor).up
    assert isinstance(up, nn.ConvTranspose2d)
    small = torch.rand(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    large = functional.interpolate(small, scale_factor=factor, mode="bilinear", align_corners=False)
    edge = (slice(None), slice(None), slice(factor, -factor), slice(factor, -factor))  # beyond it the kernel sees zeros
    with torch.no_grad():
        made = up(small)
    assert made.shape == large.shape
    torch.testing.assert_close(made[edge], large[edge])


def test_a_level_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level of stride 4 with coarser ones.*more levels, or the neck \"level\""):
        DLAUp((32,), (4,))
    with pytest.raises(ValueError, match="DLAUp: out_stride=2 needs a level of that stride"):
        DLAUp(CHANNELS, STRIDES, out_stride=2)
