"""Segmentation networks: counts of the public ones, sizes of masks, and what is refused."""

import pytest
import torch

from poseglass.backbones import BACKBONES
from poseglass.heads import MASK_HEADS
from poseglass.heads.aspp import AsppHead, r_aspp
from poseglass.heads.lr_aspp import PAPER_POOL_HW, LrAsppHead
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.networks.segmentation import SegmentationNetwork, lr_aspp_mobilenet_v3_large

LARGE = {"name": "mobilenet_v3_large"}


def test_counts_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        lite = lr_aspp_mobilenet_v3_large()
        deep = SegmentationNetwork(21, backbone=LARGE, head={"name": "aspp"})
    assert parameters(lite) == 3_221_538
    assert sum(b.numel() for name, b in lite.named_buffers() if "num_batches" not in name) == 24_656
    # deeplabv3_mobilenet_v3_large has 11,029,328, of which its auxiliary head (3x3 to 10 channels, 1x1) has 3,851
    assert parameters(deep) == 11_029_328 - (40 * 10 * 9 + 2 * 10 + 10 * 21 + 21)


@pytest.mark.parametrize("head", MASK_HEADS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18"])
def test_a_mask_has_the_size_of_the_image(head: str, output_stride: int, backbone: str) -> None:
    with torch.device("meta"):
        network = SegmentationNetwork(5, backbone={"name": backbone}, head={"name": head}, output_stride=output_stride)
        [stage] = network.eval()(torch.zeros(2, 3, 2 * network.divisor, 3 * network.divisor))
    assert network.divisor == output_stride
    assert stage["mask"].shape == (2, 5, 2 * output_stride, 3 * output_stride)
    assert network.stride == (8 if head == "lr_aspp" else output_stride)


@pytest.mark.parametrize("head", MASK_HEADS)
def test_every_parameter_of_a_head_is_used(head: str) -> None:
    torch.manual_seed(0)
    made = MASK_HEADS[head]((8, 16, 24, 32, 48), (2, 4, 8, 16, 16), 3, width=8)
    sizes = (64, 32, 16, 8, 8)
    levels = [torch.randn(2, count, size, size) for count, size in zip((8, 16, 24, 32, 48), sizes, strict=True)]
    made(levels).square().mean().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        assert parameter.grad.abs().max() > 0, f"gradient of {name} is zero"


def test_a_reduced_tail_halves_the_last_block_and_costs_less() -> None:
    with torch.device("meta"):
        full, half = (
            SegmentationNetwork(19, backbone=LARGE | {"reduced_tail": reduced}, head={"name": "lr_aspp"})
            for reduced in (False, True)
        )
    assert half.backbone.channels == (16, 24, 40, 112, 480)  # type: ignore[union-attr]
    assert parameters(half) == 1_746_878
    assert multiply_adds(half, (512, 512)) < 0.64 * multiply_adds(full, (512, 512))


def test_the_paper_s_pooling_sees_windows_of_the_map() -> None:
    torch.manual_seed(0)
    numbers = ((8, 8), (8, 16), 2)
    whole, windows = LrAsppHead(*numbers, width=4), LrAsppHead(*numbers, width=4, pool_hw=PAPER_POOL_HW)
    windows.load_state_dict(whole.eval().state_dict())
    windows.eval()
    levels = [torch.randn(1, 8, 128, 256), torch.randn(1, 8, 64, 128).abs() + torch.linspace(0, 3, 128)]
    with torch.no_grad():
        assert windows._weights(levels[1]).shape == (1, 4, 64, 128)
        means = levels[1][:, :, :49, 20:69].mean((2, 3))  # the second of four windows side by side
        expected = torch.sigmoid(torch.nn.functional.linear(means, windows.weigh.weight[:, :, 0, 0]))
        # the middle of the second of four windows' factors, resized from 4 to 128 columns: between columns 47 and 48
        middle = windows._weights(levels[1])[:, :, 0, 47:49].mean(-1)
        torch.testing.assert_close(middle, expected, atol=1e-3, rtol=0)
        assert (windows(levels) - whole(levels)).abs().max() > 1e-3
        small = [level[..., :32, :32] for level in levels]  # smaller than a window: the whole map, in both
        torch.testing.assert_close(windows([small[0], small[1]]), whole([small[0], small[1]]))


def test_r_aspp_is_aspp_without_dilated_convolutions() -> None:
    head = r_aspp((8,), (16,), 3, width=4)
    assert (len(head.dilated), head.refine, head.project.conv.in_channels) == (0, None, 8)
    full = AsppHead((8,), (16,), 3, width=4)
    assert [conv.conv.dilation[0] for conv in full.dilated] == [12, 24, 36]  # type: ignore[union-attr]
    assert full.project.conv.in_channels == 20


def plain_backbone():
    """Somebody's own backbone, without a dilated variant."""
    return BACKBONES["efficientnet_lite0"]()


def dilated_backbone(output_stride: int = 32):
    return BACKBONES["mobilenet_v3_small"](output_stride=output_stride)


def test_a_backbone_of_one_s_own_is_used() -> None:
    lite, here = {"name": "lr_aspp"}, __name__
    with torch.device("meta"):
        plain = SegmentationNetwork(3, backbone={"name": f"{here}:plain_backbone"}, head=lite, output_stride=32)
        dilated = SegmentationNetwork(3, backbone={"name": f"{here}:dilated_backbone"}, head=lite, output_stride=16)
    assert (plain.divisor, dilated.divisor) == (32, 16)
    with pytest.raises(ValueError, match=r":plain_backbone' cannot give an output stride of 16: .* Use one of mobilen"):
        SegmentationNetwork(3, backbone={"name": f"{here}:plain_backbone"}, head=lite)
    with pytest.raises(LookupError, match=r":nothing' cannot be imported"):
        SegmentationNetwork(3, backbone={"name": f"{here}:nothing"}, head=lite)


def test_what_cannot_be_built_is_refused() -> None:
    lite = {"name": "lr_aspp"}
    with pytest.raises(
        ValueError, match=r"'hrnet' cannot give an output stride of 16: .* Use one of mobilenet_v3_small"
    ):
        SegmentationNetwork(3, backbone={"name": "hrnet"}, head=lite)
    with pytest.raises(ValueError, match="'efficientnet_lite0' cannot give an output stride of 8"):
        SegmentationNetwork(3, backbone={"name": "efficientnet_lite0"}, head=lite, output_stride=8)
    with torch.device("meta"):
        SegmentationNetwork(3, backbone={"name": "efficientnet_lite0"}, head=lite, output_stride=32)
    with pytest.raises(ValueError, match="MobileNetV3: output_stride must be 8, 16 or 32, got 4"):
        SegmentationNetwork(3, backbone=LARGE, head=lite, output_stride=4)
    with pytest.raises(ValueError, match=r"output_stride is 16, but the backbone's table says 8"):
        SegmentationNetwork(3, backbone=LARGE | {"output_stride": 8}, head=lite)
    with pytest.raises(LookupError, match="Did you mean 'mobilenet_v3_large'"):
        SegmentationNetwork(3, backbone={"name": "mobilenet_v3_larg"}, head=lite)
    with pytest.raises(LookupError, match="Did you mean 'lr_aspp'"):
        SegmentationNetwork(3, backbone=LARGE, head={"name": "lr_asp"})
    with pytest.raises(ValueError, match=r"LrAsppHead takes at least 1 class .* got num_classes=0, width=128"):
        SegmentationNetwork(0, backbone=LARGE, head=lite)
    with pytest.raises(ValueError, match=r"LrAsppHead takes .* got num_classes=3, width=0"):
        LrAsppHead((8, 8), (8, 16), 3, width=0)
    with pytest.raises(ValueError, match=r"pool_hw and pool_stride_hw must be at least 1 pixel .* \(0, 49\) and"):
        LrAsppHead((8, 8), (8, 16), 3, pool_hw=(0, 49))
    with pytest.raises(ValueError, match=r"needs a level of stride 8 before the last one; .* strides 4, 16\. Set"):
        LrAsppHead((8, 8), (4, 16), 3)
    with pytest.raises(
        ValueError, match=r"AsppHead takes .* num_classes=0, width=256, rates=\(12, 24, 36\), dropout=0.5"
    ):
        AsppHead((8,), (16,), 0)
    with pytest.raises(ValueError, match=r"AsppHead takes .* rates=\(0,\)"):
        AsppHead((8,), (16,), 3, rates=(0,))
    with torch.device("meta"):
        network = SegmentationNetwork(3, backbone=LARGE, head=lite)
    with pytest.raises(ValueError, match=r"divisible by 16 .* Nearest valid sizes: 512 x 512 or 528 x 528"):
        network(torch.zeros(1, 3, 520, 520, device="meta"))
