"""The term "visibility" of CenterNet's criterion: closed forms, what gives no gradient, and that it is learnt."""

import math

import pytest
import torch
from torch import Tensor, nn

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.targets import ModelInput, Targets
from poseglass.heads.centernet import CenterNetHead
from poseglass.losses.centernet import cross_entropy_at_pixels
from poseglass.training.centernet import CenterNetCriterion

CODEC = CenterNetCodec(visibility=True)
SIZE_WH = (96, 64)


def batch() -> ModelInput:
    """Return a view of two people: the second keypoint of the first is unlabelled, the third cut off."""
    box = torch.tensor([[[-20.0, 12.0, 40.0, 60.0], [60.0, 20.0, 90.0, 50.0]]])
    xy = torch.tensor([[[[10.0, 20.0], [0.0, 0.0], [-10.0, 30.0]], [[70.0, 30.0], [75.0, 25.0], [80.0, 40.0]]]])
    known = torch.tensor([[[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]])
    occluded = torch.tensor([[[False, False, False], [True, False, True]]])
    flat = torch.zeros(1, 2)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, SIZE_WH[1], SIZE_WH[0], generator=generator)
    return ModelInput(images, Targets(xy, known, flat == 0, flat.long(), box, flat > 0, occluded))


def term(stage: dict[str, Tensor], weight: float = 1.0) -> Tensor:
    given = batch()
    criterion = CenterNetCriterion({"visibility": weight})
    return criterion([stage], CODEC.encode(given.targets, SIZE_WH), given)["visibility"]


def stage_of(value: float) -> dict[str, Tensor]:
    return {key: torch.full((1, *shape), value) for key, shape in CODEC.spec.shapes(3, SIZE_WH).items()}


def test_a_network_that_knows_nothing_costs_the_logarithm_of_3() -> None:
    assert term(stage_of(0.7)).item() == pytest.approx(math.log(3))
    assert term(stage_of(0.7), 0.25).item() == pytest.approx(math.log(3) / 4)


def test_a_perfect_one_costs_nothing_and_an_opposite_one_the_difference() -> None:
    target = CODEC.encode(batch().targets, SIZE_WH)["visibility"]
    assert term(stage_of(0.0) | {"visibility": 40 * target}).item() == pytest.approx(0.0, abs=1e-6)
    opposite = term(stage_of(0.0) | {"visibility": -40 * target}).item()
    assert opposite == pytest.approx(40 + math.log(2), rel=1e-5)


def test_only_known_states_at_centres_give_gradients() -> None:
    stage = stage_of(0.0)
    maps = torch.randn(1, 3, 3, 16, 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
    term(stage | {"visibility": maps}).backward()
    assert maps.grad is not None
    touched = maps.grad[0].abs().sum(1).flatten(1) > 0
    first, second = CODEC.encode(batch().targets, SIZE_WH)["index"][0].tolist()
    assert touched[:, first].tolist() == [True, False, True]
    assert touched[:, second].tolist() == [True, True, True]
    assert touched.sum() == 5


def test_what_does_not_count_may_be_anything_and_nothing_costs_nothing() -> None:
    target = torch.zeros(1, 1, 3, 2, 2)
    maps = torch.full((1, 1, 3, 2, 2), torch.inf, requires_grad=True)
    index = torch.tensor([[1]])
    nothing = cross_entropy_at_pixels(maps, target, index, torch.zeros(1, 1, 1))
    assert nothing.item() == 0
    target[0, 0, 1, 0, 1] = 1.0
    flat = torch.zeros(1, 1, 3, 2, 2)
    assert cross_entropy_at_pixels(flat, target, index, torch.ones(1, 1, 1)).item() == pytest.approx(math.log(3))
    # of two instances in a pixel, the last one is unknown: its target is empty and costs nothing either
    assert cross_entropy_at_pixels(flat, 0 * target, index, torch.ones(1, 1, 1)).item() == 0


def test_a_network_without_the_output_is_named() -> None:
    stage = {key: value for key, value in stage_of(0.0).items() if key != "visibility"}
    with pytest.raises(ValueError, match=r"returns only center, size.*visibility=True.*set codec.visibility to false"):
        term(stage)


def test_a_codec_without_it_ignores_the_output() -> None:
    given = batch()
    assert "visibility" not in CenterNetCriterion()(
        [stage_of(0.0)], CenterNetCodec().encode(given.targets, SIZE_WH), given
    )


def test_a_short_training_lowers_the_term_until_the_states_are_right() -> None:
    torch.manual_seed(0)
    given = batch()
    targets = CODEC.encode(given.targets, SIZE_WH)
    body = nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    head = CenterNetHead(16, 3, width=16, visibility=True)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.01)
    values = []
    for _ in range(60):
        terms = CenterNetCriterion()([head(body(given.images))], targets, given)
        optimizer.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        optimizer.step()
        values.append(terms["visibility"].item())
    assert values[0] == pytest.approx(math.log(3), abs=0.05)
    assert values[-1] < 0.2
    with torch.no_grad():
        logits = head(body(given.images))["visibility"].flatten(3)[0]
    first, second = targets["index"][0].tolist()
    assert logits[[0, 2], :, first].argmax(1).tolist() == [0, 2]
    assert logits[:, :, second].argmax(1).tolist() == [1, 0, 1]
