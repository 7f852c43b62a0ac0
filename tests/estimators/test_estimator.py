"""One way to call whatever finds people: an image at a time, a stream in batches, or frame by frame."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from poseglass.codecs import HeatmapCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.estimator import Estimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.programs import TorchProgram

TOY = Skeleton("toy", ("red", "green", "blue"), flip_pairs=())


class Spots(nn.Module):
    """Finds the brightest place of each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return [{"heatmap": nn.functional.avg_pool2d(images, 4)}]


class Counting:
    """A program that keeps the sizes of its batches."""

    def __init__(self) -> None:
        self.inner = TorchProgram(Spots(), HeatmapCodec(), TOY, InputSpec((32, 32), 1.0))
        self.skeleton, self.input, self.spec = self.inner.skeleton, self.inner.input, self.inner.spec
        self.flip_test, self.calibrated = False, False
        self.batches: list[int] = []

    def __call__(self, views: torch.Tensor) -> Decoded:
        self.batches.append(len(views))
        return self.inner(views)


def frames(asked: list[int], count: int = 5) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images with 1, 2, 3, 0, 1, ... boxes; what was asked for is written down."""
    rng = np.random.default_rng(0)
    for i in range(count):
        asked.append(i)
        boxes = rng.uniform(0, 20, (i % 4 + 1 if i % 4 != 3 else 0, 4))
        boxes[:, 2:] = boxes[:, :2] + 15
        yield rng.integers(0, 256, (40, 40, 3), np.uint8), boxes


def test_a_stream_shares_batches_and_a_causal_one_answers_before_it_asks() -> None:
    together, one_by_one = Counting(), Counting()
    asked: list[int] = []
    estimator: Estimator = TopDownEstimator(together, batch_size=4)
    at_once = list(estimator.stream(frames(asked)))
    assert together.batches == [4, 3]
    assert [len(people) for people in at_once] == [1, 2, 3, 0, 1]

    asked.clear()
    estimator = TopDownEstimator(one_by_one, batch_size=4)
    for i, people in enumerate(estimator.stream(frames(asked), causal=True)):
        assert asked == list(range(i + 1))  # frame i is answered, frame i + 1 has not been asked for
        np.testing.assert_array_equal(people.xy, at_once[i].xy)
        np.testing.assert_array_equal(people.score, at_once[i].score)
    assert one_by_one.batches == [1, 2, 3, 1]


def test_images_alone_are_frames_too() -> None:
    image = next(frames([]))[0]
    work = TopDownEstimator(Counting())
    alone, pair = list(work.stream([image, (image, None)]))
    np.testing.assert_array_equal(alone.xy, work(image).xy)
    np.testing.assert_array_equal(alone.xy, pair.xy)
    assert alone.box_xyxy.tolist() == [[-0.5, -0.5, 39.5, 39.5]]


def test_what_another_runtime_hides_is_said() -> None:
    work = TopDownEstimator(Counting())
    assert "Counting" in repr(work)
    assert work.with_flip_test(False) is work
    assert work.with_padding(1.5).input.padding == 1.5
    for ask in (lambda: work.network, lambda: work.codec, lambda: work.with_flip_test(True),
                lambda: work.heatmaps(np.zeros((8, 8, 3), np.uint8))):  # fmt: skip
        with pytest.raises(
            ValueError, match=r"runs a Counting, whose network, maps and flip test are not accessible.*load\(FILE"
        ):
            ask()


def test_flip_test_and_padding_are_changed_by_a_copy() -> None:
    work = TopDownEstimator(TorchProgram(Spots(), HeatmapCodec(), TOY, InputSpec((32, 32), 1.0)), batch_size=3)
    other = work.with_flip_test(True).with_padding(1.5)
    assert (work.flip_test, work.input.padding) == (False, 1.0)
    assert (other.flip_test, other.input.padding, other.batch_size) == (True, 1.5, 3)
    assert other.network is work.network


def test_what_a_program_says_besides_is_passed_on() -> None:
    """Class, visibility, calibrated probability and depth reach the instances, rows in the order of the boxes."""

    class Telling(Counting):
        def __call__(self, views: torch.Tensor) -> Decoded:
            decoded = self.inner(views)
            count = torch.arange(len(views))
            decoded.label = count[:, None]
            decoded.visibility = torch.full((len(views), 1, 3), 2)
            decoded.visibility_probability = torch.tensor([0.7, 0.2, 0.1]).expand(len(views), 1, 3, 3)
            decoded.probability = decoded.score / 2
            decoded.xyz_mm = count[:, None, None, None].float().expand(-1, 1, 3, 3)
            return decoded

    image, boxes = list(frames([]))[2]
    people = TopDownEstimator(Telling())(image, boxes)
    assert people.label.tolist() == [0, 1, 2]
    assert people.visibility is not None
    assert people.visibility.tolist() == [[2, 2, 2]] * 3
    assert people.keypoint_extra["visibility_probability"].shape == (3, 3, 3)
    assert people.keypoint_extra["visibility_probability"][2, 1].tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert people.probability is not None
    np.testing.assert_array_equal(people.probability, people.score / 2)
    assert people.xyz_mm is not None
    assert people.xyz_mm[:, 0, 0].tolist() == [0.0, 1.0, 2.0]
    plain = TopDownEstimator(Counting())(image, boxes)
    assert plain.visibility is plain.probability is plain.xyz_mm is None
    assert plain.keypoint_extra == {}


class Many(Counting):
    """A program that finds two instances a view, or one that it takes back."""

    def __init__(self, count: int, valid: bool = True) -> None:
        super().__init__()
        self.count, self.valid = count, valid

    def __call__(self, views: torch.Tensor) -> Decoded:
        one = self.inner(views)
        wide = [value.expand(-1, self.count, *value.shape[2:]) for value in (one.xy, one.score, one.valid, one.label)]
        xy, score, valid, label = wide
        return Decoded(xy, score, valid & self.valid, label, score[..., 0])


def test_a_program_of_many_instances_is_for_another_estimator() -> None:
    image, boxes = next(frames([]))
    with pytest.raises(ValueError, match="predicts one instance in each crop, this one predicts 2 per view"):
        TopDownEstimator(Many(2))(image, boxes)


def test_what_is_not_valid_has_no_score() -> None:
    image, boxes = next(frames([]))
    assert TopDownEstimator(Many(1))(image, boxes).score.max() > 0
    assert TopDownEstimator(Many(1, valid=False))(image, boxes).score.max() == 0
