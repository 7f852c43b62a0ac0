"""The one inference path: boxes to crops to maps to image pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poseglass.codecs import HeatmapCodec, SimccCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets
from poseglass.estimators.topdown import TopDownEstimator, check_boxes
from poseglass.programs.normalise import normalise
from poseglass.programs.program import with_flip_test
from poseglass.programs.torch_program import TorchProgram

RED = Skeleton("spots", ("left_spot", "right_spot", "middle"))
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


class SpotFinder(nn.Module):
    """A network made by hand: map k is the share of colour channel k at a quarter of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        self.batches.append(len(images))
        return [{"heatmap": nn.functional.avg_pool2d(images, 4)}]


def image_of_spots(rng: np.random.Generator, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One blurred spot per colour; returns the image and the spots' places (3, 2)."""
    width, height = size_wh
    xy = rng.uniform([width * 0.2, height * 0.2], [width * 0.8, height * 0.8], (3, 2))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.zeros((height, width, 3))
    for k, (cx, cy) in enumerate(xy):
        image[..., k] = 255 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (width / 30) ** 2))
    return image.round().astype(np.uint8), xy


def estimator(
    size_wh: tuple[int, int] = (128, 128), *, flip_test: bool = False, batch_size: int = 32
) -> TopDownEstimator:
    program = TorchProgram(SpotFinder(), HeatmapCodec(), RED, InputSpec(size_wh, 1.0), flip_test=flip_test)
    return TopDownEstimator(program, batch_size=batch_size)  # type: ignore[arg-type]


@pytest.mark.parametrize("size_wh", [(128, 128), (96, 128), (192, 128)], ids=["square", "tall", "wide"])
@pytest.mark.parametrize("image_wh", [(128, 128), (300, 200), (57, 91)], ids=["same", "large", "small"])
def test_a_spot_is_found_in_image_pixels(rng, size_wh, image_wh):
    image, xy = image_of_spots(rng, image_wh)
    people = estimator(size_wh)(image)
    # arg-max with the quarter offset is right to half a heatmap pixel, which is this many image pixels
    heatmap_pixel = 4 * max(image_wh[0] / size_wh[0], image_wh[1] / size_wh[1])
    assert np.abs(people.xy[0] - xy).max() < 0.5 * heatmap_pixel + 0.5
    assert people.score.min() > 0.3
    assert people.score.max() <= 1.0


def test_boxes_choose_the_person(rng):
    left, left_xy = image_of_spots(rng, (100, 100))
    right, right_xy = image_of_spots(rng, (100, 100))
    image = np.concatenate([left, right], 1)
    people = estimator()(image, boxes=[[99.5, -0.5, 199.5, 99.5], [-0.5, -0.5, 99.5, 99.5]])
    assert len(people) == 2
    assert np.abs(people.xy[0] - (right_xy + np.array([100, 0]))).max() < 2.5
    assert np.abs(people.xy[1] - left_xy).max() < 2.5


def test_many_images_share_batches_and_keep_their_order(rng):
    work = estimator(batch_size=4)
    images = [image_of_spots(rng, (64 + 8 * i, 64)) for i in range(5)]
    boxes = [None, [], [[0, 0, 60, 60]] * 3, None, [[0, 0, 50, 50]] * 6]
    streamed = list(work.stream([(image, b) for (image, _), b in zip(images, boxes, strict=True)]))
    assert [len(people) for people in streamed] == [1, 0, 3, 1, 6]
    assert work.network.batches == [4, 4, 3]
    for (image, _), b, people in zip(images, boxes, streamed, strict=True):
        assert np.allclose(work(image, b).xy, people.xy)


def test_the_flip_test_agrees_on_a_network_that_sees_no_left_or_right():
    work = estimator()
    rng = np.random.default_rng(1)
    image, _ = image_of_spots(rng, (128, 128))

    def runner(images: Tensor) -> dict[str, Tensor]:
        # left and right change places with the flipped image, as a trained network would have it
        maps = nn.functional.avg_pool2d(images, 4)
        spots = torch.tensor([0, 1, 2])
        return {"heatmap": maps[:, spots]}

    straight = runner(normalise(torch.from_numpy(image[None]), work.input))["heatmap"]

    def knows_sides(images: Tensor) -> dict[str, Tensor]:
        maps = runner(images)["heatmap"]
        mirrored = not torch.allclose(maps, straight, atol=1e-4)
        return {"heatmap": maps[:, [1, 0, 2]] if mirrored else maps}

    averaged = with_flip_test(knows_sides, work.codec, RED)(normalise(torch.from_numpy(image[None]), work.input))
    assert torch.allclose(averaged["heatmap"], straight, atol=1e-5)


def test_normalise_is_channels_last_and_exact():
    images = torch.arange(2 * 4 * 6 * 3, dtype=torch.uint8).view(2, 4, 6, 3)
    spec = InputSpec((6, 4), 1.0, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    got = normalise(images, spec)
    wanted = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[
        :, None, None
    ]
    assert torch.allclose(got, wanted, atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 10]], r"boxes must be \(N, 4\)"),
        ([[5, 5, 5, 20]], r"box 1 of 1 .* has no area.*x, y, width, height"),
        ([[0, 0, 5, 5], [200, 200, 300, 300]], "box 2 of 2 .* lies outside the image of 40 x 30 pixels"),
        ([[0, 0, float("nan"), 5]], "box 1 of 1 .* not a finite number"),
        ([[0.1, 0.2, 0.6, 1.0]], "box 1 of 1 .* fractions of the image.*multiply x by 40 and y by 30"),
    ],
    ids=["three numbers", "no area", "outside", "nan", "fractions"],
)
def test_bad_boxes_are_named(boxes, message):
    with pytest.raises(ValueError, match=message):
        check_boxes(np.zeros((30, 40, 3), np.uint8), boxes)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("a.jpg", r"takes an image, not its path. Read it first: poseglass.read_image\('a.jpg'\)"),
        (Path("a.jpg"), "takes an image, not its path"),
        ([np.zeros((8, 8, 3), np.uint8)] * 2, r"one image at a time, got a list of 2. .*stream\(\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"one image \(H, W, 3\), got an array of \(2, 8, 8, 3\). .*stream\(\)"),
    ],
)
def test_a_path_or_several_images_are_refused_with_what_to_call(image, message):
    with pytest.raises(ValueError, match=message):
        estimator()(image)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float64), np.zeros((0, 8, 3), np.uint8)]
)
def test_images_that_are_not_uint8_rgb_are_refused(image):
    with pytest.raises(ValueError, match=r"uint8 RGB|at least one pixel"):
        estimator()(image)


def test_encode_then_estimate_agrees(rng):
    """What the codec draws for a crop is what the estimator reads back, in the same pixels."""
    codec = HeatmapCodec(sigma=2.0)
    xy = torch.tensor(rng.uniform(20, 100, (1, 1, 3, 2)), dtype=torch.float32)
    target = codec.encode(Targets.of_keypoints(xy[:, 0]), (128, 128))["heatmap"]
    work = TopDownEstimator(
        TorchProgram(SpotFinder(), codec, RED, InputSpec((128, 128), 1.0), forward=lambda _: {"heatmap": target})
    )
    people = work(np.zeros((128, 128, 3), np.uint8))
    assert np.abs(people.xy[0] - xy[0, 0].numpy()).max() <= 1.01  # a quarter of a heatmap pixel of 4 px


def test_channels_come_in_the_order_the_card_says() -> None:
    """Mean and deviation are those of the network's channels: the first of a BGR network is blue's."""
    pixel = torch.tensor([[[[10, 20, 30]]]], dtype=torch.uint8)
    spec = InputSpec((1, 1), mean=(0.0, 0.1, 0.2), std=(0.5, 1.0, 2.0), color="bgr")
    expected = [30 / 255 / 0.5, 20 / 255 - 0.1, (10 / 255 - 0.2) / 2]
    torch.testing.assert_close(normalise(pixel, spec).flatten(), torch.tensor(expected))
    assert normalise(torch.zeros((2, 4, 6, 3), dtype=torch.uint8), spec).is_contiguous(
        memory_format=torch.channels_last
    )


class OneHot(nn.Module):
    """Maps with one peak, at column 5 and row 9, whatever comes; its right and lower neighbours are the higher."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        maps = torch.zeros(len(images), 3, images.shape[2] // 4, images.shape[3] // 4)
        maps[:, :, 9, 5], maps[:, :, 9, 6], maps[:, :, 10, 5] = 1.0, 0.5, 0.5
        return [{"heatmap": maps}]


def test_msra_crops_decode_as_the_public_code_does() -> None:
    """Column 5.25, row 9.25 of a 24 x 32 map, back by box / map from the corner of the fitted box.

    A box of 60 x 100 about (50, 70) becomes 75 x 100 at 3 : 4, times 1.25: 93.75 x 125.
    """
    spec = InputSpec((96, 128), 1.25, crop="msra")
    work = TopDownEstimator(TorchProgram(OneHot(), HeatmapCodec(alignment="corner"), RED, spec))
    people = work(np.zeros((140, 120, 3), np.uint8), boxes=[[20, 20, 80, 120]])
    x = 5.25 * 93.75 / 24 + 50 - 93.75 / 2
    y = 9.25 * 125 / 32 + 70 - 125 / 2
    np.testing.assert_allclose(people.xy[0], [[x, y]] * 3, atol=1e-4)


def test_without_heatmaps_the_beliefs_in_x_and_y_are_shown_or_it_says_so():
    image, codec = np.zeros((64, 64, 3), np.uint8), SimccCodec()
    xy = torch.tensor([[[[20.0, 30.0], [40.0, 10.0], [5.0, 50.0]]]])
    encoded = codec.encode(Targets.of_keypoints(xy[:, 0]), (64, 64))
    logits = {key: value.clamp_min(1e-6).log() for key, value in encoded.items() if key != "weight"}
    work = TopDownEstimator(TorchProgram(SpotFinder(), codec, RED, InputSpec((64, 64), 1.0), forward=lambda _: logits))
    _, maps = work.heatmaps(image)
    assert maps.shape == (3, 64, 64)
    assert maps.max() == pytest.approx(1.0)
    for found, (x, y) in zip(maps, xy[0, 0].tolist(), strict=True):
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert (abs(column - x), abs(row - y)) <= (1, 1)
    other = TopDownEstimator(
        TorchProgram(SpotFinder(), codec, RED, InputSpec((64, 64), 1.0), forward=lambda _: {"z": logits["x"]})
    )
    with pytest.raises(ValueError, match=r"heatmaps\(\) shows 'heatmap', or 'x' and 'y', but this network outputs z"):
        other.heatmaps(image)
