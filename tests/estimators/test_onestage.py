"""Whole images: coordinates through the letterbox, given boxes, batches; and a detector followed by poses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import poseglass as pg
from poseglass.codecs.centernet import CenterNetCodec
from poseglass.codecs.heatmap import HeatmapCodec
from poseglass.core.boxes import iou
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import build
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.estimators.weights_file import CheckpointError, save_weights
from poseglass.networks import NETWORKS
from poseglass.programs.torch_program import TorchProgram

NOTHING = Skeleton("objects", ())
PAIR = Skeleton("pair", ("left_end", "right_end"), sigmas=(0.05, 0.05))


class WhiteSquares(nn.Module):
    """A network made by hand: a white square of 24 view pixels is an object; its ends are its upper corners."""

    def __init__(self, keypoints: int = 0) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.keypoints = keypoints
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        self.batches.append(len(images))
        white = nn.functional.avg_pool2d(nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4), 5, 1, 2)
        flat = torch.zeros_like(white)
        white = white + 1e-4 * torch.arange(white.shape[-1])  # of equal neighbours, each would be a peak
        white = white + 1e-4 * torch.arange(white.shape[-2])[:, None]
        stage = {
            "center": 20 * (white - 0.8),
            "size": torch.cat([flat + 6, flat + 6], 1),
            "center_offset": torch.cat([flat, flat], 1),
        }
        if self.keypoints:
            corners = torch.tensor([[-3.0, -3.0], [3.0, -3.0]]).view(1, 2, 2, 1, 1)
            stage["keypoints"] = corners.expand(len(images), 2, 2, *white.shape[-2:])
            stage["heatmap"] = flat.expand(-1, 2, -1, -1) - 5
            stage["heatmap_offset"] = torch.cat([flat, flat], 1)
        return [stage]


class Corners(nn.Module):
    """A top-down network made by hand: ends at a quarter and three quarters of the crop."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        maps = torch.zeros(len(images), 2, 16, 16)
        maps[:, 0, 4, 4] = maps[:, 1, 4, 12] = 0.8
        return [{"heatmap": maps}]


def finder(keypoints: int = 0, **numbers: float) -> OneStageEstimator:
    skeleton = PAIR if keypoints else NOTHING
    codec = CenterNetCodec(poses=keypoints > 0)
    program = TorchProgram(WhiteSquares(keypoints), codec, skeleton, InputSpec((128, 128)))
    return OneStageEstimator(program, **{"min_box_score": 0.5} | numbers)  # type: ignore[arg-type]


def image_with(*corner_xy: tuple[int, int], size_wh: tuple[int, int] = (256, 160), side: int = 48) -> np.ndarray:
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    for x, y in corner_xy:
        image[y : y + side, x : x + side] = 255
    return image


def test_boxes_come_back_in_image_pixels() -> None:
    found = finder()(image_with((16, 24), (160, 88)))
    assert len(found) == 2
    expected = np.array([[15.5, 23.5, 63.5, 71.5], [159.5, 87.5, 207.5, 135.5]])
    overlap = iou(expected, found.box_xyxy)
    assert overlap.max(1).min() > 0.65  # the centre is the pixel of the map that is on or above the exact place
    assert found.xy.shape == (2, 0, 2)
    assert found.box_score.min() > 0.5


def test_keypoints_come_back_in_image_pixels() -> None:
    found = finder(2)(image_with((16, 24)))
    box = found.box_xyxy[0]
    assert found.xy[0, 0].tolist() == pytest.approx(box[:2].tolist(), abs=8)
    assert found.xy[0, 1].tolist() == pytest.approx([box[2], box[1]], abs=8)


def test_a_stream_is_in_order_in_batches_and_equal_to_single_calls() -> None:
    estimate = finder(batch_size=2)
    images = [image_with((16, 24)), image_with(size_wh=(90, 300)), image_with((8, 8), (100, 100))]
    together = list(estimate.stream(images))
    network = estimate.network
    assert isinstance(network, WhiteSquares)
    assert network.batches == [2, 1]
    assert [len(found) for found in together] == [1, 0, 2]
    for found, image in zip(together, images, strict=True):
        np.testing.assert_allclose(found.box_xyxy, estimate(image).box_xyxy, atol=1e-3)
    network.batches.clear()
    assert [len(found) for found in estimate.stream(images, causal=True)] == [1, 0, 2]
    assert network.batches == [1, 1, 1]


def test_given_boxes_get_the_instance_that_overlaps_or_none() -> None:
    estimate = finder(2)
    image = image_with((16, 24), (160, 88))
    free = estimate(image)
    boxes = np.stack([free.box_xyxy[0] + 3, [90, 5, 130, 60]]).astype(np.float32)
    found = estimate(image, boxes)
    np.testing.assert_array_equal(found.box_xyxy, boxes)
    np.testing.assert_allclose(found.xy[0], free.xy[0])
    assert np.isnan(found.xy[1]).all()
    assert found.score[1].tolist() == [0, 0]
    assert len(estimate(image, np.zeros((0, 4)))) == 0


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 500), (3000, 2)])
def test_images_of_any_size_and_of_one_colour(size_wh: tuple[int, int]) -> None:
    assert len(finder()(np.zeros((size_wh[1], size_wh[0], 3), np.uint8))) == 0


def test_two_stages_take_boxes_from_the_detector_or_from_the_caller() -> None:
    poses = TopDownEstimator(TorchProgram(Corners(), HeatmapCodec(), PAIR, InputSpec((64, 64), 1.0)))
    both = TwoStageEstimator(finder(), poses, images_per_batch=2)
    image = image_with((16, 24), (160, 88))
    detected = finder()(image)
    found = both(image)
    assert found.skeleton is PAIR
    assert sorted(map(tuple, found.box_xyxy.tolist())) == sorted(map(tuple, detected.box_xyxy.tolist()))
    np.testing.assert_allclose(np.sort(found.box_score), np.sort(detected.box_score))
    given = [[10.0, 10.0, 74.0, 74.0]]
    np.testing.assert_allclose(both(image, given).xy, poses(image, given).xy)
    frames = [image, (image, given), image_with(), image]
    assert [len(one) for one in both.stream(frames)] == [2, 1, 0, 2]
    assert [len(one) for one in both.stream(frames, causal=True)] == [2, 1, 0, 2]


def test_the_same_person_found_twice_is_kept_once() -> None:
    poses = TopDownEstimator(TorchProgram(Corners(), HeatmapCodec(), PAIR, InputSpec((64, 64), 1.0)))

    class Twice:
        skeleton = NOTHING

        def __call__(self, image: np.ndarray, boxes: object = None) -> pg.Instances:
            box = np.array([[10, 10, 74, 74], [10.2, 10, 74.2, 74], [150, 20, 214, 84]], np.float32)
            return pg.Instances(NOTHING, np.zeros((3, 0, 2)), np.zeros((3, 0)), box, np.array([0.6, 0.9, 0.7]))

        def stream(self, frames, *, causal: bool = False):
            return (self(frame) for frame in frames)

    found = TwoStageEstimator(Twice(), poses)(image_with())
    assert found.box_score.tolist() == pytest.approx([0.9, 0.7])
    assert len(TwoStageEstimator(Twice(), poses, nms_oks=None)(image_with())) == 3


def test_invalid_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"min_box_score in \[0, 1\]"):
        finder(min_box_score=1.5)
    poses = TopDownEstimator(TorchProgram(Corners(), HeatmapCodec(), PAIR, InputSpec((64, 64), 1.0)))
    with pytest.raises(ValueError, match=r"nms_oks in \(0, 1\] or None"):
        TwoStageEstimator(finder(), poses, nms_oks=0.0)
    with pytest.raises(ValueError, match="predicts one instance in a given box"):
        OneStageEstimator(poses.program)(image_with())
    with pytest.raises(CheckpointError, match="find no boxes"):
        pg.load_detector("hg2-light-lspet")


def test_weights_of_a_detector_are_opened_as_what_they_are(tmp_path: Path, tiny_weights: Path) -> None:
    numbers = {"num_keypoints": 0, "num_stacks": 1, "widths": [16, 16], "blocks": [1, 1], "head_width": 8}
    card = pg.WeightCard(
        "finder", {"name": "centernet_hourglass"} | numbers, {"name": "centernet", "poses": False}, NOTHING,
        pg.InputSpec((64, 64)),
    )  # fmt: skip
    state = build(NETWORKS, "centernet_hourglass", **numbers).state_dict()
    state["heads.0.outputs.size.last.bias"].fill_(4.0)  # at first half of the boxes have no area, by chance
    save_weights(tmp_path / "finder.safetensors", state, card)
    found = pg.load_detector(tmp_path / "finder.safetensors", min_box_score=0.0)(image_with((16, 24)))
    assert 0 < len(found) <= 100
    assert "boxes only" in repr(pg.load_detector(tmp_path / "finder.safetensors"))
    assert pg.load_detector(tmp_path / "finder.safetensors", scales=(0.5, 1.0)).scales == (0.5, 1.0)
    name = tmp_path / "finder.safetensors"
    assert isinstance(pg.load(name), OneStageEstimator)
    assert len(pg.load(name, min_box_score=0.0, precision="bfloat16")(image_with((16, 24))))
    with pytest.raises(CheckpointError, match=r"'finder' find any number of instances .*load\(detector=...\)"):
        pg.load_top_down(name)
    with pytest.raises(CheckpointError, match=r"'finder' find everybody .* Omit the detector"):
        pg.load(name, detector=name)
    with pytest.raises(CheckpointError, match=r"find no boxes.*a detector is weights of a whole image"):
        pg.load(tiny_weights, detector=tiny_weights)


def test_a_default_detector_comes_before_the_default_poses(tmp_path: Path, tiny_weights: Path, monkeypatch) -> None:
    numbers = {"num_keypoints": 0, "num_stacks": 1, "widths": [16, 16], "blocks": [1, 1], "head_width": 8}
    card = pg.WeightCard(
        "finder", {"name": "centernet_hourglass"} | numbers, {"name": "centernet", "poses": False}, NOTHING,
        pg.InputSpec((64, 64)),
    )  # fmt: skip
    name = tmp_path / "finder.safetensors"
    save_weights(name, build(NETWORKS, "centernet_hourglass", **numbers).state_dict(), card)
    monkeypatch.setattr("poseglass.estimators.load.DEFAULT_DETECTOR", None)
    assert isinstance(pg.load(), TopDownEstimator)
    two = pg.load(tiny_weights, detector=name, min_box_score=0.2)
    assert isinstance(two, TwoStageEstimator)
    assert isinstance(two.detector, OneStageEstimator)
    assert two.detector.min_box_score == 0.2
    monkeypatch.setattr("poseglass.estimators.load.DEFAULT_DETECTOR", str(name))
    assert isinstance(pg.load(), TwoStageEstimator)
    assert isinstance(pg.load(tiny_weights), TopDownEstimator)
    assert isinstance(pg.load_top_down(), TopDownEstimator)


def test_found_boxes_that_hold_no_pose_are_dropped() -> None:
    """A detector may find a person of one pixel, in a corner too; what is an error in a given box is none there."""
    box = np.array(
        [[-0.5, -0.5, 0.5, 0.5], [9, 9, 9, 20], [np.nan, 0, 5, 5], [400, 10, 500, 90], [40, 40, 41, 41]], np.float32
    )

    class Fixed:
        skeleton = NOTHING

        def __call__(self, image: np.ndarray, boxes: object = None) -> pg.Instances:
            return pg.Instances(NOTHING, np.zeros((5, 0, 2)), np.zeros((5, 0)), box, np.full(5, 0.5))

        def stream(self, frames, *, causal: bool = False):
            return (self(frame) for frame in frames)

    poses = TopDownEstimator(TorchProgram(Corners(), HeatmapCodec(), PAIR, InputSpec((64, 64), 1.0)))
    found = TwoStageEstimator(Fixed(), poses)(image_with())
    assert found.box_xyxy.tolist() == [[40, 40, 41, 41]]
