"""What is checked before training respects outputs that have a stride of their own."""

from types import SimpleNamespace
from typing import Any

import pytest

from poseglass.codecs.centernet_levels import CenterNetLevelsCodec
from poseglass.networks.centernet_fpn import CenterNetFPN
from poseglass.runs.check import check_shapes
from poseglass.runs.recipe import RecipeError

BARE: Any = SimpleNamespace(stage_sigmas=(), stage_occluded=(), loss=None)
"""What of a recipe is compared with shapes; one with a criterion lists no losses."""


def test_every_level_is_compared_at_its_own_stride() -> None:
    network = CenterNetFPN(2, num_classes=3, width=8, fpn_width=8, head_width=4)
    check_shapes(network, CenterNetLevelsCodec(), [(96, 64), (128, 64)], BARE, 2)
    with pytest.raises(RecipeError, match=r"encodes 'center_4', but stage 0 of the network returns 'center_8'"):
        check_shapes(network, CenterNetLevelsCodec((4, 8, 16, 32)), [(96, 64)], BARE, 2)


def test_a_level_of_another_size_is_named_with_its_stride() -> None:
    network = CenterNetFPN(2, width=8, fpn_width=8, head_width=4)
    network.strides = (4, 16, 32)  # so that a map of stride 8 is named as one of 4
    with pytest.raises(
        RecipeError, match=r"maps 'center_4' are \(8, 12\) .* the codec's are \(16, 24\), of stride 4\. Use inputs"
    ):
        check_shapes(network, CenterNetLevelsCodec((4, 16, 32)), [(96, 64)], BARE, 2)
