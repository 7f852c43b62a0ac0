"""Visibility of a one-stage network: to the instances, given boxes, several scales, the flip test, an export, files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import poseglass as pg
from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import build
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import NETWORKS
from poseglass.programs.exported import exported
from poseglass.programs.torch_program import TorchProgram

TRIO = Skeleton("trio", ("left_end", "right_end", "top"), sigmas=(0.05,) * 3, flip_pairs=(("left_end", "right_end"),))
STATES = torch.tensor([[4.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0]])


class Told(nn.Module):
    """A network made by hand: bright pixels are centres of objects; left_end is visible, right_end occluded, ..."""

    divisor = 32

    def __init__(self, visibility: bool = True) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.visibility = visibility

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        white = nn.functional.avg_pool2d(nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4), 5, 1, 2)
        flat = torch.zeros_like(white)
        tilted = white + 1e-4 * torch.arange(white.shape[-1]) + 1e-4 * torch.arange(white.shape[-2])[:, None]
        size = white.shape[-2:]
        ends = torch.tensor([[-3.0, -3.0], [3.0, -3.0], [0.0, -4.0]]).view(1, 3, 2, 1, 1)
        stage = {
            "center": 20 * (tilted - 0.8), "size": torch.cat([flat + 6, flat + 6], 1),
            "center_offset": torch.cat([flat, flat], 1), "keypoints": ends.expand(images.shape[0], 3, 2, *size),
            "heatmap": flat.expand(-1, 3, -1, -1) - 5, "heatmap_offset": torch.cat([flat, flat], 1),
        }  # fmt: skip
        if self.visibility:
            stage["visibility"] = STATES.view(1, 3, 3, 1, 1).expand(images.shape[0], 3, 3, *size)
        return [stage]


def program(visibility: bool = True, **more: Any) -> TorchProgram:
    return TorchProgram(Told(), CenterNetCodec(visibility=visibility), TRIO, InputSpec((128, 128)), **more)


def image_with(*corner_xy: tuple[int, int]) -> np.ndarray:
    image = np.zeros((160, 256, 3), np.uint8)
    for x, y in corner_xy:
        image[y : y + 48, x : x + 48] = 255
    return image


def test_visibility_comes_with_the_instances_and_moves_nothing() -> None:
    image = image_with((16, 24), (160, 88))
    found = OneStageEstimator(program(), 0.5)(image)
    assert found.visibility is not None
    assert found.visibility.tolist() == [[2, 1, 0]] * 2
    assert found.visibility_words[0] == ["visible", "occluded", "absent"]
    share = found.keypoint_extra["visibility_probability"]
    assert share.shape == (2, 3, 3)
    np.testing.assert_allclose(share[1], STATES.softmax(-1).numpy(), rtol=1e-5)
    plain = OneStageEstimator(program(False), 0.5)(image)
    assert plain.visibility is None
    assert plain.keypoint_extra == {}
    np.testing.assert_array_equal(found.xy, plain.xy)
    np.testing.assert_array_equal(found.score, plain.score)
    assert (found.xy != 0).all()
    assert (found.score > 0).all()  # low, and kept


def test_given_boxes_without_a_match_have_no_visibility() -> None:
    image = image_with((16, 24))
    free = OneStageEstimator(program(), 0.5)(image)
    found = OneStageEstimator(program(), 0.5)(image, np.stack([[90, 5, 130, 60], free.box_xyxy[0] + 3]))
    assert found.visibility_words == [[None] * 3, ["visible", "occluded", "absent"]]
    assert found.keypoint_extra["visibility_probability"][0].max() == 0


def test_several_scales_keep_it() -> None:
    found = OneStageEstimator(program(), 0.3, scales=(0.75, 1.0))(image_with((16, 24)))
    assert len(found) >= 1
    assert found.visibility is not None
    assert found.visibility.tolist() == [[2, 1, 0]] * len(found)
    assert found.keypoint_extra["visibility_probability"].shape == (len(found), 3, 3)


def test_the_flip_test_averages_the_sides() -> None:
    found = OneStageEstimator(program(flip_test=True), 0.5)(image_with((16, 24)))
    mean = (STATES + STATES[[1, 0, 2]]) / 2
    expected = np.broadcast_to(mean.softmax(-1).numpy(), (len(found), 3, 3))
    np.testing.assert_allclose(found.keypoint_extra["visibility_probability"], expected, rtol=1e-5)


@pytest.mark.slow
def test_it_is_in_an_exported_graph() -> None:
    views = torch.randint(0, 255, (3, 128, 128, 3), dtype=torch.uint8)
    straight, graph = program()(views), exported(program())(views)
    assert straight.visibility is not None
    assert straight.visibility_probability is not None
    assert graph.visibility is not None
    assert graph.visibility_probability is not None
    assert torch.equal(straight.visibility, graph.visibility)
    torch.testing.assert_close(straight.visibility_probability, graph.visibility_probability)


def small(**more: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    torch.manual_seed(0)
    table = {
        "name": "centernet_hourglass", "num_keypoints": 3, "num_stacks": 1, "widths": [16, 16], "blocks": [1, 1],
        "head_width": 8,
    } | more  # fmt: skip
    network = build(NETWORKS, table["name"], **{key: value for key, value in table.items() if key != "name"})
    return table, dict(network.state_dict())


def test_weights_with_and_without_it_are_opened(tmp_path: Path) -> None:
    spec, image = InputSpec((64, 64)), image_with((16, 24))
    table, state = small()
    assert not any("visibility" in name for name in state)  # weights in the world have no such tensors
    card = pg.WeightCard("old", table, {"name": "centernet"}, TRIO, spec)
    save_weights(tmp_path / "old.safetensors", state, card)
    assert pg.load_detector(tmp_path / "old.safetensors", min_box_score=0.0)(image).visibility is None
    table, state = small(visibility=True)
    state["heads.0.outputs.size.last.bias"].fill_(4.0)
    state["heads.0.outputs.visibility.last.bias"].copy_(torch.tensor([0.0, 0.0, 9.0] * 3))
    card = replace(card, network=table, codec={"name": "centernet", "visibility": True})
    save_weights(tmp_path / "new.safetensors", state, card)
    found = pg.load_detector(tmp_path / "new.safetensors", min_box_score=0.0)(image)
    assert len(found) > 0
    assert found.visibility is not None
    assert (found.visibility == 0).all()
    assert np.isfinite(found.xy).all()
