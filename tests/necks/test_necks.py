"""Necks: what they add up to, and that the hourglass's way up is the pyramid's."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.necks.fpn import FPN, FPNLevels
from poseglass.necks.unet import UNetNeck
from poseglass.necks.upsample import Upsample
from poseglass.networks.stacked_hourglass import Hourglass

CHANNELS, STRIDES = (4, 6, 8, 10), (2, 4, 8, 32)


def levels(channels: tuple[int, ...], strides: tuple[int, ...], side: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, count, side // stride, 2 * side // stride, generator=generator)
        for count, stride in zip(channels, strides, strict=True)
    ]


def set_identity(conv: nn.Conv2d) -> None:
    with torch.no_grad():
        nn.init.dirac_(conv.weight)
        assert conv.bias is not None
        conv.bias.zero_()


def upsampled(features: Tensor, factor: int) -> Tensor:
    return features.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


@pytest.mark.parametrize(("neck", "out_stride"), [(FPN, 2), (FPN, 32), (UNetNeck, 8), (UNetNeck, 32), (Upsample, 16)])
def test_width_and_stride_are_chosen(neck: type, out_stride: int) -> None:
    made = neck(CHANNELS, STRIDES, width=12, out_stride=out_stride)
    assert made(levels(CHANNELS, STRIDES)).shape == (2, 12, 64 // out_stride, 128 // out_stride)


def test_with_identities_the_pyramid_is_the_sum_of_its_levels() -> None:
    fpn = FPN((6,) * 4, STRIDES, width=6)
    for conv in (*fpn.laterals, fpn.smoothing):
        set_identity(conv)
    _, c2, c3, c4 = given = levels((6,) * 4, STRIDES)
    with torch.no_grad():
        torch.testing.assert_close(fpn(given), c2 + upsampled(c3, 2) + upsampled(c4, 8), rtol=1e-6, atol=1e-6)


def test_upsample_is_a_pyramid_whose_finer_laterals_are_cut() -> None:
    fpn, alone = (make(CHANNELS, STRIDES, width=12, norm=True) for make in (FPN, Upsample))
    own = {name.replace("laterals.2.", "lateral."): tensor for name, tensor in fpn.state_dict().items()}
    alone.load_state_dict({name: tensor for name, tensor in own.items() if not name.startswith("laterals.")})
    with torch.no_grad():
        for lateral in fpn.laterals[:-1]:
            for parameter in lateral.parameters():
                parameter.zero_()
        given = levels(CHANNELS, STRIDES)
        assert torch.equal(fpn(given), alone(given))


def test_an_hourglass_is_a_pyramid_whose_laterals_are_residuals() -> None:
    """Both add what lies beside to what comes from below: with the same parts in the same places they are equal.

    The hourglass has one residual more on the way up, which the pyramid lacks.
    """
    torch.manual_seed(0)
    depth, width = 3, 8
    hourglass = Hourglass(depth, width).eval()
    fpn = FPN((width,) * (depth + 1), (4, 8, 16, 32), width=width)
    fpn.smoothing = nn.Identity()  # type: ignore[assignment]
    given, part = [torch.randn(2, width, 16, 32)], hourglass
    with torch.no_grad():
        for i in range(depth):
            given.append(part.down(functional.max_pool2d(given[-1], 2)))
            part.up = nn.Identity()  # type: ignore[assignment]
            fpn.laterals[i] = part.skip
            fpn.laterals[i + 1] = part.inner
            part = part.inner if isinstance(part.inner, Hourglass) else part
        assert torch.equal(fpn.eval()(given), hourglass(given[0]))


def test_levels_are_concatenated_finer_first() -> None:
    neck = UNetNeck((3, 5), (4, 8), width=2, separable=False).eval()
    fine, coarse = levels((3, 5), (4, 8))
    with torch.no_grad():
        merged = torch.cat([fine, upsampled(neck.coarsest(coarse), 2)], dim=1)
        assert torch.equal(neck([fine, coarse]), neck.merges[0](merged))


def test_separable_convolutions_are_fewer_numbers() -> None:
    full, thin = (sum(p.numel() for p in UNetNeck(CHANNELS, STRIDES, separable=s).parameters()) for s in (False, True))
    assert thin < full / 7


@pytest.mark.parametrize("neck", [FPN, UNetNeck])
def test_a_stride_that_no_level_has_is_refused_with_those_there_are(neck: type) -> None:
    with pytest.raises(ValueError, match=r"out_stride=4 needs a level of that stride; the backbone's are 8, 16\. Use"):
        neck((4, 8), (8, 16))
    with pytest.raises(ValueError, match=r"strides of levels must grow by whole factors, finest first, got \(4, 6\)"):
        neck((4, 8), (4, 6))


def test_upsample_refuses_a_stride_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="Upsample: out_stride=3 must divide the coarsest level's stride, 16"):
        Upsample((4, 8), (8, 16), out_stride=3)


def test_every_level_of_the_pyramid_is_that_of_a_pyramid_that_ends_there() -> None:
    torch.manual_seed(0)
    every = FPNLevels(CHANNELS, STRIDES, width=12, out_stride=4)
    given = levels(CHANNELS, STRIDES)
    with torch.no_grad():
        maps = every(given)
        assert every.out_strides == (4, 8, 32)
        for i, stride in enumerate(every.out_strides):
            one = FPN(CHANNELS, STRIDES, width=12, out_stride=stride)
            one.laterals = every.laterals[i:]
            one.smoothing = every.smoothings[i]  # type: ignore[assignment]
            assert torch.equal(maps[i], one(given))
    with pytest.raises(ValueError, match=r"FPNLevels: out_stride=16 needs a level of that stride; .* 2, 4, 8, 32"):
        FPNLevels(CHANNELS, STRIDES, out_stride=16)
