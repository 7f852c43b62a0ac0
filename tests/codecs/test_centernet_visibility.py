"""Visible, occluded and absent keypoints in CenterNet's codec: what labels say, masks, borders, decoding, the flip."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.codecs.conformance import as_output
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets
from poseglass.programs.program import with_flip_test

TOY = Skeleton("toy3", ("nose", "left_eye", "right_eye"))
SIZE_WH = (256, 192)
CODEC = CenterNetCodec(visibility=True)
VISIBLE, OCCLUDED, ABSENT = 0, 1, 2


def labels(
    xy: list[list[list[float]]], occluded: list[list[bool]] | None, known: list[list[float]] | None = None,
    *, box: list[list[float]] | None = None,
) -> Targets:  # fmt: skip
    """Return targets of one view; boxes are 40 pixels wide, at 40, 100, ... pixels, unless they are given."""
    points = torch.tensor([xy])
    n, k = points.shape[1:3]
    made = [[40.0 + 60 * i, 40.0, 80.0 + 60 * i, 120.0] for i in range(n)]
    flat = torch.zeros(1, n)
    return Targets(
        points, torch.ones(1, n, k) if known is None else torch.tensor([known]), flat == 0, flat.long(),
        torch.tensor([made if box is None else box]), flat > 0,
        occluded=None if occluded is None else torch.tensor([occluded]),
    )  # fmt: skip


def states(target: dict[str, Tensor]) -> list[list[int | None]]:
    """Return the state of every keypoint at the centres of the first view, None where it does not count."""
    maps, index = target["visibility"][0].flatten(2), target["index"][0]
    found: list[list[int | None]] = []
    for n, place in enumerate(index):
        row = maps[:, :, place]
        weight = target["visibility_weight"][0, n]
        assert torch.equal(row.sum(1), weight)
        found.append([int(row[k].argmax()) if weight[k] else None for k in range(len(row))])
    return found


def perfect(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the output of a perfect network for targets."""
    out = as_output(CODEC, target)
    return out | {name: out[name].logit() for name in ("center", "heatmap")}


TWO = [[[50.0, 50.0], [60.0, 60.0], [70.0, 70.0]], [[110.0, 50.0], [120.0, 60.0], [130.0, 70.0]]]


def test_labels_in_and_the_same_states_out() -> None:
    target = CODEC.encode(labels(TWO, [[False, True, False], [True, False, True]]), SIZE_WH)
    assert states(target) == [[VISIBLE, OCCLUDED, VISIBLE], [OCCLUDED, VISIBLE, OCCLUDED]]
    found = CODEC.decode(perfect(target))
    assert found.visibility is not None
    assert found.visibility_probability is not None
    order = found.xy[0, :2, 0, 0].argsort()
    assert found.visibility.dtype == torch.int64
    assert found.visibility[0, order].tolist() == [[2, 1, 2], [1, 2, 1]]
    sure = found.visibility_probability[0, order]
    torch.testing.assert_close(sure, target["visibility"][0].flatten(2)[:, :, target["index"][0]].permute(2, 0, 1),
                               atol=1e-5, rtol=0)  # fmt: skip
    torch.testing.assert_close(sure.sum(-1), torch.ones(2, 3))


def test_a_keypoint_that_the_view_cuts_off_is_absent_and_stays_where_it_is() -> None:
    xy = [[[-30.0, 60.0], [20.0, 60.0], [20.0, 250.0]]]
    target = CODEC.encode(labels(xy, [[False, False, True]], box=[[-40.0, 40.0, 40.0, 150.0]]), SIZE_WH)
    assert states(target) == [[ABSENT, VISIBLE, ABSENT]]  # whether it is occluded, too, does not matter
    assert target["keypoint_weight"].tolist() == [[[0.0, 1.0, 0.0]]]
    prediction = perfect(target)
    place = int(target["index"][0, 0])
    prediction["keypoints"].flatten(3)[0, 0, :, place] = torch.tensor([-12.0, -3.0])  # what a network might say
    found = CODEC.decode(prediction)
    assert found.visibility is not None
    assert found.visibility[0, 0].tolist() == [0, 2, 0]
    without = CenterNetCodec().decode(prediction)
    assert torch.equal(found.xy, without.xy)
    assert torch.equal(found.score, without.score)
    assert (found.xy[0, 0, 0].abs() > 1).all()


@pytest.mark.parametrize("alignment", ["center", "corner"])
@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [
        (-0.5, 60.0, True), (-0.51, 60.0, False), (255.4, 60.0, True), (255.5, 60.0, False),
        (60.0, -0.5, True), (60.0, -0.51, False), (60.0, 191.4, True), (60.0, 191.5, False),
    ],
)  # fmt: skip
def test_the_border_is_that_of_the_view(x: float, y: float, inside: bool, alignment: str) -> None:
    codec = replace(CODEC, alignment=alignment)
    target = codec.encode(labels([[[x, y]] * 3], [[True] * 3], box=[[0.0, 0.0, 255.0, 191.0]]), SIZE_WH)
    assert states(target) == [[OCCLUDED if inside else ABSENT] * 3]


def test_the_last_pixels_of_a_view_that_the_map_lacks_are_in_the_view() -> None:
    target = CODEC.encode(labels([[[257.0, 60.0]] * 3], [[False] * 3], box=[[200.0, 20.0, 257.0, 90.0]]), (258, 192))
    assert target["keypoint_weight"].sum() == 0
    assert states(target) == [[VISIBLE] * 3]


def test_unlabelled_is_unknown_unless_the_codec_is_told_that_it_is_absent() -> None:
    known = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    given = labels(TWO, [[False, False, True], [False, False, False]], known)
    assert states(CODEC.encode(given, SIZE_WH)) == [[VISIBLE, None, OCCLUDED], [None, None, None]]
    told = replace(CODEC, unlabelled="absent").encode(given, SIZE_WH)
    assert states(told) == [[VISIBLE, ABSENT, OCCLUDED], [None, None, None]]  # nobody said a thing of the second


@pytest.mark.parametrize("unlabelled", ["unknown", "absent"])
def test_without_marks_of_occlusion_nothing_is_said(unlabelled: Any) -> None:
    xy = [[[50.0, 50.0], [-60.0, 60.0], [70.0, 70.0]]]
    target = replace(CODEC, unlabelled=unlabelled).encode(labels(xy, None, [[1.0, 1.0, 0.0]]), SIZE_WH)
    assert target["visibility_weight"].sum() == 0
    assert target["visibility"].sum() == 0


def test_crowds_padding_and_people_outside_say_nothing() -> None:
    three = labels([TWO[0]] * 4, [[True] * 3] * 4, box=[[40.0, 40.0, 80.0, 120.0]] * 3 + [[300.0, 40.0, 340.0, 90.0]])
    three = replace(
        three, valid=torch.tensor([[True, False, True, True]]), crowd=torch.tensor([[True, False, False, False]])
    )
    target = replace(CODEC, unlabelled="absent").encode(three, SIZE_WH)
    assert target["visibility_weight"].sum(-1).tolist() == [[0.0, 0.0, 3.0, 0.0]]


def test_by_default_nothing_changes() -> None:
    given = labels(TWO, [[False, True, False], [True, False, True]])
    plain, more = CenterNetCodec(), CODEC
    assert set(more.spec.outputs) - set(plain.spec.outputs) == {"visibility"}
    before, after = plain.encode(given, SIZE_WH), more.encode(given, SIZE_WH)
    assert set(after) - set(before) == {"visibility", "visibility_weight"}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert set(after) == {*more.spec.outputs, *more.spec.loss_keys, "weight"}
    shapes = more.spec.shapes(3, SIZE_WH)
    assert shapes["visibility"] == (3, 3, 48, 64) == tuple(after["visibility"].shape[1:])
    found = plain.decode(perfect(after))  # more than it reads
    assert found.visibility is None
    assert found.visibility_probability is None
    assert more.decode({key: value for key, value in perfect(after).items() if key != "visibility"}).visibility is None


@pytest.mark.parametrize("content", [torch.nan, torch.inf, -torch.inf, 1e6])
def test_whatever_comes_gives_probabilities(content: float) -> None:
    shapes = CODEC.spec.shapes(3, SIZE_WH)
    noise = {key: torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) for key, shape in shapes.items()}
    found = CODEC.decode({key: value.where(value < 1, content) for key, value in noise.items()})
    assert found.visibility is not None
    assert found.visibility_probability is not None
    torch.testing.assert_close(found.visibility_probability.sum(-1), torch.ones(2, 100, 3))
    assert set(found.visibility.unique().tolist()) <= {0, 1, 2}


def test_the_most_probable_state_counts() -> None:
    target = CODEC.encode(labels(TWO[:1], [[False] * 3]), SIZE_WH)
    prediction = perfect(target)
    shares = torch.tensor([[0.5, 0.2, 0.3], [0.3, 0.4, 0.3], [0.2, 0.1, 0.7]])
    prediction["visibility"].flatten(3)[0, :, :, int(target["index"][0, 0])] = shares.log()
    found = CODEC.decode(prediction)
    assert found.visibility is not None
    assert found.visibility[0, 0].tolist() == [2, 1, 0]
    assert found.visibility_probability is not None
    torch.testing.assert_close(found.visibility_probability[0, 0], shares)


def test_a_flipped_image_has_its_sides_exchanged_and_is_averaged() -> None:
    box = torch.tensor([[[20.0, 24.0, 104.0, 120.0]]])
    xy = torch.tensor([[[[53.5, 61.5], [61.5, 101.5], [73.5, 33.5]]]])
    flat = torch.zeros(1, 1)
    hidden = torch.tensor([[[False, True, False]]])
    straight = Targets(xy, torch.ones(1, 1, 3), flat == 0, flat.long(), box, flat > 0, hidden)
    order = torch.as_tensor(TOY.flip)
    turned_box = torch.stack([255 - box[..., 2], box[..., 1], 255 - box[..., 0], box[..., 3]], -1)
    turned_xy = torch.stack([255 - xy[..., 0], xy[..., 1]], -1)[:, :, order]
    turned = replace(straight, xy=turned_xy, box_xyxy=turned_box, occluded=hidden[..., order])
    back = CODEC.flip(CODEC.encode(turned, SIZE_WH), TOY)["visibility"]
    assert back.shape == (1, 3, 3, 48, 64)
    assert torch.equal(back[0].sum((-1, -2)), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    place = int(CODEC.encode(straight, SIZE_WH)["index"][0, 0])
    assert abs(int(back.sum((0, 1, 2)).flatten().argmax()) - place) <= 1
    torch.manual_seed(0)
    first = {key: torch.randn(1, *shape) for key, shape in CODEC.spec.shapes(3, SIZE_WH).items()}
    second = {key: torch.randn(1, *shape) for key, shape in CODEC.spec.shapes(3, SIZE_WH).items()}
    answers = iter([first, second])
    averaged = with_flip_test(lambda _: next(answers), CODEC, TOY)(torch.zeros(1, 3, 4, 4))
    expected = (first["visibility"] + second["visibility"][:, order].flip(-1)) / 2
    torch.testing.assert_close(averaged["visibility"], expected)
    assert "visibility" not in CenterNetCodec().flip(first, TOY)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"visibility": True, "poses": False}, "visibility is of keypoints, but poses is False.* Set poses to True"),
        ({"unlabelled": "absent"}, "unlabelled is 'absent'.* but visibility is False. Set visibility to True"),
        ({"visibility": True, "unlabelled": "hidden"}, "unlabelled must be 'unknown' or 'absent', got 'hidden'"),
    ],
)
def test_invalid_options_are_named(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CenterNetCodec(**numbers)
