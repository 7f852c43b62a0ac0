"""The outputs of CenterNet's head: names, shapes and first values."""

from typing import Any

import pytest
import torch

from poseglass.heads.centernet import CenterNetHead


def test_boxes_and_poses_have_their_outputs() -> None:
    features = torch.rand(2, 8, 6, 10)
    boxes = CenterNetHead(8, 0, num_classes=80)(features)
    assert {name: tuple(maps.shape) for name, maps in boxes.items()} == {
        "center": (2, 80, 6, 10), "size": (2, 2, 6, 10), "center_offset": (2, 2, 6, 10),
    }  # fmt: skip
    poses = CenterNetHead(8, 5)(features)
    assert {name: tuple(maps.shape) for name, maps in poses.items()} == {
        "center": (2, 1, 6, 10), "size": (2, 2, 6, 10), "center_offset": (2, 2, 6, 10),
        "keypoints": (2, 5, 2, 6, 10), "heatmap": (2, 5, 6, 10), "heatmap_offset": (2, 2, 6, 10),
    }  # fmt: skip


def test_keypoints_are_x_then_y_of_each() -> None:
    head = CenterNetHead(8, 3)
    last = head.outputs["keypoints"].last  # type: ignore[union-attr]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[union-attr, operator]
        last.bias.copy_(torch.arange(6.0))  # type: ignore[union-attr, operator]
    keypoints = head(torch.rand(1, 8, 2, 2))["keypoints"]
    assert keypoints[0, :, :, 1, 1].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_visibility_is_one_more_output_of_three_states_of_each_keypoint() -> None:
    torch.manual_seed(0)
    head = CenterNetHead(8, 3, visibility=True)
    made = head(torch.rand(2, 8, 6, 10))
    assert made["visibility"].shape == (2, 3, 3, 6, 10)
    assert (made["visibility"].softmax(2) - 1 / 3).abs().max() < 0.02
    assert set(made) - set(CenterNetHead(8, 3)(torch.rand(2, 8, 6, 10))) == {"visibility"}
    last = head.outputs["visibility"].last  # type: ignore[union-attr]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[union-attr, operator]
        last.bias.copy_(torch.arange(9.0))  # type: ignore[union-attr, operator]
    assert head(torch.rand(1, 8, 2, 2))["visibility"][0, :, :, 1, 1].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_it_starts_with_a_tenth_everywhere_and_no_size() -> None:
    torch.manual_seed(0)
    made = CenterNetHead(8, 5)(torch.zeros(1, 8, 4, 4))
    for name, maps in made.items():
        if name in ("center", "heatmap"):
            assert (maps.sigmoid() - 0.1).abs().max() < 0.05
        else:
            assert maps.abs().max() < 0.05


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"num_keypoints": -1}, "at least 0 keypoints.* got num_keypoints=-1.*give num_keypoints=0"),
        ({"num_keypoints": 3, "num_classes": 0}, "1 class.* num_classes=0"),
        ({"num_keypoints": 3, "width": 0}, "a width of 1, got .* width=0"),
        ({"num_keypoints": 0, "visibility": True}, "visibility=True, .* but num_keypoints=0. Give the number"),
    ],
)
def test_numbers_that_make_no_head_are_refused(numbers: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CenterNetHead(8, **numbers)
