"""CornerNet's hourglass: the fact sheet's counts, and where its stages get their features."""

from typing import Any

import pytest
import torch

from poseglass.networks.corner_hourglass import CornerHourglass, CornerHourglassTrunk, hourglass_52, hourglass_104
from poseglass.networks.cost import multiply_adds, parameters

NEVER_RUN = 2 * (256 * 256 * 9 + 2 * 256)
"""The residual between stacks that the public code also stores where there is one stack."""

DETECTION_HEADS = 3 * (256 * 256 * 9 + 256) + 257 * (80 + 2 + 2)
"""Parameters of CenterNet's three heads for 80 classes, of one stack."""


def small(**numbers: Any) -> CornerHourglass:
    torch.manual_seed(0)
    return CornerHourglass(3, **{"num_stacks": 2, "widths": (8, 8, 12), "blocks": (1, 2, 1)} | numbers).eval()


def test_counts_of_mmpose_and_centernet() -> None:
    with torch.device("meta"):
        one, two = hourglass_52(17), hourglass_104(17).trunk
    assert parameters(one) + NEVER_RUN == 94_847_889
    assert parameters(one.trunk) + NEVER_RUN + DETECTION_HEADS == 95_454_676 + NEVER_RUN
    assert parameters(two) + 2 * DETECTION_HEADS == 191_284_008
    assert sum(b.numel() for name, b in two.named_buffers() if "tracked" not in name) == 117_504
    heads = 128 * 128 * 256 * (3 * 256 * 9 + 80 + 2 + 2)
    assert multiply_adds(two, (512, 512)) + 2 * heads == 292_714_708_992


def test_the_trunk_gives_features_for_any_head() -> None:
    trunk = CornerHourglassTrunk(num_stacks=3, widths=(8, 8, 12, 16), blocks=(1, 1, 1, 2)).eval()
    assert (trunk.out_channels, trunk.stride, trunk.divisor) == (8, 4, 32)
    with torch.no_grad():
        maps = trunk(torch.rand(2, 3, 32, 64))
    assert [tuple(features.shape) for features in maps] == [(2, 8, 8, 16)] * 3
    assert all((features >= 0).all() for features in maps)


def test_features_are_fed_on_and_predictions_are_not() -> None:
    network, images = small(), torch.rand(1, 3, 16, 16)
    before = network(images)
    with torch.no_grad():
        network.heads[0].conv.weight.add_(1.0)  # type: ignore[union-attr]
    after = network(images)
    assert not torch.equal(before[0]["heatmap"], after[0]["heatmap"])
    assert torch.equal(before[1]["heatmap"], after[1]["heatmap"])
    with torch.no_grad():
        network.trunk.outputs[0].conv.weight.mul_(2.0)  # type: ignore[union-attr]
    assert not torch.equal(network(images)[1]["heatmap"], after[1]["heatmap"])


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"widths": (8,), "blocks": (1,)}, "at least two widths.*got 1 widths and 1 blocks"),
        ({"widths": (8, 8, 8)}, None),
        ({"widths": (8, 8, 8), "blocks": (1, 1)}, "as many block counts; got 3 widths and 2 blocks"),
        ({"widths": (7, 8, 8)}, r"must be even \(the stem halves it\), got 7"),
        ({"blocks": (1, 0, 1)}, r"whole numbers above 0 for blocks, got \[1, 0, 1\]"),
        ({"num_stacks": 0}, r"whole numbers above 0 for num_stacks, got \[0\]"),
    ],
)
def test_numbers_that_make_no_network_are_refused(numbers: dict[str, Any], says: str | None) -> None:
    if says is None:
        small(**numbers)
        return
    with pytest.raises(ValueError, match=says):
        small(**numbers)
