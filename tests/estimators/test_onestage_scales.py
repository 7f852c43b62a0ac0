"""Several test scales: sizes of the views, instances that are joined by soft-NMS, and what cannot be scaled."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.prediction import Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.onestage import OneStageEstimator, _sizes_of
from poseglass.metrics.box_nms import soft_box_nms
from poseglass.programs.torch_program import TorchProgram

PAIR = Skeleton("pair", ("left_end", "right_end"), sigmas=(0.05, 0.05))
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)


class Disc(nn.Module):
    """A network made by hand: its maps are the brightness of pixels, of two classes; objects are 24 x 16 pixels."""

    divisor = 32

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.sizes_wh: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        self.sizes_wh.append((images.shape[3], images.shape[2]))
        gray = nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4)
        flat = torch.zeros_like(gray)
        ends = torch.tensor([[-3.0, 0.5], [3.0, -0.5]]).view(1, 2, 2, 1, 1)
        return [{
            "center": torch.cat([8 * gray - 4, 2 - 8 * gray], 1),
            "size": torch.cat([flat + 6, flat + 4], 1),
            "center_offset": torch.cat([gray - 0.5, 0.2 - gray], 1),
            "keypoints": ends.expand(len(images), 2, 2, *gray.shape[-2:]),
            "heatmap": torch.cat([gray, -gray], 1),
            "heatmap_offset": torch.cat([flat, flat], 1),
        }]  # fmt: skip


def finder(**numbers: Any) -> OneStageEstimator:
    program = TorchProgram(Disc(), CenterNetCodec(most=30), PAIR, InputSpec((128, 96)))
    return OneStageEstimator(program, **{"min_box_score": 0.1} | numbers)


def images(count: int = 3) -> list[np.ndarray]:
    """Return smooth noise of several sizes, so that maps have many distinct peaks."""
    generator = torch.Generator().manual_seed(0)
    sides = [(150, 200), (96, 128), (300, 90)]
    made = []
    for i in range(count):
        coarse = torch.rand(1, 3, 12, 16, generator=generator)
        full = nn.functional.interpolate(coarse, size=sides[i % 3], mode="bilinear")[0].permute(1, 2, 0)
        made.append((255 * full).to(torch.uint8).numpy())
    return made


def assert_same(one: Instances, other: Instances) -> None:
    for name in ("xy", "score", "box_xyxy", "box_score", "label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_one_scale_is_bit_identical_to_none() -> None:
    for plain, scaled in zip(finder().stream(images()), finder(scales=[1]).stream(images()), strict=True):
        assert len(plain) >= 3
        assert_same(plain, scaled)
    assert finder(scales=(1.0,)).scales == (1.0,)
    assert "scales" not in repr(finder())


def test_views_are_scaled_and_rounded_to_the_divisor_and_scale_1_is_as_it_is() -> None:
    estimate = finder(scales=SCALES)
    estimate(images(1)[0])
    network = estimate.network
    assert isinstance(network, Disc)
    assert network.sizes_wh == [(64, 64), (96, 64), (128, 96), (160, 128), (192, 160)]
    odd = OneStageEstimator(TorchProgram(network, estimate.codec, PAIR, InputSpec((132, 100))), scales=(1.0, 2.0))
    network.sizes_wh.clear()
    odd(images(1)[0])
    assert network.sizes_wh == [(132, 100), (256, 192)]
    assert repr(estimate).endswith("128 x 96 px, scales 0.5, 0.75, 1, 1.25, 1.5)")


def test_joined_instances_are_those_of_every_scale_after_soft_nms_with_their_keypoints() -> None:
    scales = (0.5, 1.0, 1.5)
    joined = list(finder(scales=scales, batch_size=2).stream(images()))
    single = [list(finder(scales=(scale,), min_box_score=0.0, batch_size=2).stream(images())) for scale in scales]
    for found, each in zip(joined, zip(*single, strict=True), strict=True):
        box, score, label = (
            np.concatenate([getattr(one, n) for one in each]) for n in ("box_xyxy", "box_score", "label")
        )
        rows, lowered = soft_box_nms(box, score, label)
        rows, lowered = rows[:30], lowered[:30]
        rows, lowered = rows[lowered >= 0.1], lowered[lowered >= 0.1]
        np.testing.assert_array_equal(found.box_xyxy, box[rows])
        np.testing.assert_array_equal(found.box_score, lowered.astype(np.float32))
        np.testing.assert_array_equal(found.xy, np.concatenate([one.xy for one in each])[rows])
        np.testing.assert_array_equal(found.score, np.concatenate([one.score for one in each])[rows])
        np.testing.assert_array_equal(found.label, label[rows])
        assert set(found.label) == {0, 1}
        assert (np.diff(found.box_score) <= 0).all()
        assert 3 < len(found) <= 30
        whole = np.concatenate([each_one.box_score for each_one in each])
        assert (found.box_score < whole[rows] - 1e-3).any()  # some were duplicates
        # the ends are at the sides of the box, half of a map's pixel off its middle: they came along
        inside = (found.box_xyxy[:, 0] > 1) & (found.box_xyxy[:, 2] < 60)
        assert np.isfinite(found.xy[inside]).all()


class Known(TorchProgram):
    """A program that finds the same box of the image at every scale, and one that only the larger view shows."""

    def __call__(self, views: Tensor) -> Decoded:
        width = views.shape[2]
        at = width / 128
        box = torch.tensor([[20.0, 20, 60, 60], [80, 40, 110, 70]]) + 0.5
        box = (box * at - 0.5)[None].expand(len(views), -1, -1)
        valid = torch.tensor([True, at > 1])[None].expand(len(views), -1)
        score = torch.tensor([0.9 if at > 1 else 0.8, 0.6])[None].expand(len(views), -1)
        xy = torch.stack([box[..., :2], box[..., 2:]], -2)
        return Decoded(xy, torch.ones(xy.shape[:3]) * at / 2, valid, torch.zeros(valid.shape).long(), score, box)


def test_a_box_found_twice_is_lowered_once_and_one_found_once_is_as_it_was() -> None:
    program = Known(Disc(), CenterNetCodec(), PAIR, InputSpec((128, 96)))
    found = OneStageEstimator(program, 0.0, scales=(1.0, 2.0))(np.zeros((96, 128, 3), np.uint8))
    assert found.box_score.tolist() == pytest.approx([0.9, 0.6, 0.8 * np.exp(-2.0)])  # an IoU of 1: exp(-1 / 0.5)
    np.testing.assert_allclose(found.box_xyxy[[0, 2]], [[20, 20, 60, 60]] * 2, atol=1e-4)
    np.testing.assert_allclose(found.box_xyxy[1], [80, 40, 110, 70], atol=1e-4)
    np.testing.assert_allclose(found.xy[0], [[20, 20], [60, 60]], atol=1e-4)
    assert found.score[:, 0].tolist() == pytest.approx([1.0, 1.0, 0.5])
    assert len(OneStageEstimator(program, 0.3, scales=(1.0, 2.0))(np.zeros((96, 128, 3), np.uint8))) == 2


def test_given_boxes_batches_and_the_flip_test_go_with_scales() -> None:
    estimate = finder(scales=(1.0, 1.5), batch_size=2)
    together = list(estimate.stream(images()))
    for found, image in zip(together, images(), strict=True):
        np.testing.assert_allclose(found.box_xyxy, estimate(image).box_xyxy, atol=1e-3)
    boxes = together[0].box_xyxy[:2] + 1
    np.testing.assert_array_equal(estimate(images()[0], boxes).box_xyxy, boxes)
    assert estimate.with_flip_test(True).scales == (1.0, 1.5)
    assert len(estimate.with_flip_test(True)(images()[0])) > 0
    assert replace(estimate, scales=(1.0,)).scales == (1.0,)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), r"scales must be positive numbers, such as \(0.5, 0.75, .* got \(\)"),
        ((1.0, 0.0), r"positive numbers, .* got \(1.0, 0.0\)"),
        ((float("inf"),), "positive numbers, .* got"),
        ((1.0, 1.05), "Scales 1 and 1.05 both give a view of 128 x 96 pixels, .* multiples of 32 for Disc"),
    ],
)
def test_scales_that_are_none_or_the_same_are_named(scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finder(scales=scales)


def test_what_cannot_be_scaled_is_named() -> None:
    program = finder().torch_program

    class Other:
        skeleton, input, spec, flip_test = program.skeleton, program.input, program.spec, False

        def __call__(self, views: Tensor) -> Decoded:
            return program(views)

    assert OneStageEstimator(Other()).scales == (1.0,)
    with pytest.raises(ValueError, match=r"A Other runs views of one size, .* poseglass.load_detector"):
        OneStageEstimator(Other(), scales=SCALES)
    program.network.divisor = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"but Disc states divisor=None\. Give the network an attribute divisor"):
        OneStageEstimator(program, scales=SCALES)


def test_a_scale_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Scale 100 of a view of .* more than 4,096 pixels\. Use smaller scales"):
        _sizes_of(SimpleNamespace(input=InputSpec((320, 320))), (1.0, 100.0))  # type: ignore[arg-type]
