"""A head gives what its codec encodes, in every shape, and a composed network trains with it."""

from typing import Any

import pytest
import torch

from poseglass.codecs import CODECS
from poseglass.core.table import build
from poseglass.core.targets import ModelInput, Targets
from poseglass.heads import HEADS, SimccHead
from poseglass.runs.check import check_loss
from poseglass.training.criterion import LossPart, StageCriterion, supervised, terms_of

SIZE_WH = (64, 96)

USED_BY: dict[str, tuple[dict[str, Any], dict[str, tuple[str, ...]]]] = {
    "heatmap": (
        {},
        {"heatmap": ("mse",), "dark": ("mse",), "udp": ("mse",), "soft_argmax": ("integral_l1", "jensen_shannon")},
    ),
    "offset": ({}, {"udp_combined": ("mse", "offset")}),
    "simcc": ({"size_wh": SIZE_WH, "stride": 4, "split": 2}, {"simcc": ("softmax_cross_entropy",)}),
    "centernet": ({}, {}),
    "stacked_centernet": ({"stages": 2}, {}),
    "box_class": ({"num_classes": 3}, {"box_class": ("class_cross_entropy",)}),
}
"""Head -> its arguments, and the codecs that read it, each with losses."""


class Alone(torch.nn.Module):
    """A head on two convolutions."""

    def __init__(self, name: str, numbers: dict[str, Any]) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 4, stride=4), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU()
        )
        self.head = build(HEADS, name, 32, 5, **numbers)

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found = self.head(self.body(images))
        return found if isinstance(found, list) else [found]


def batch() -> ModelInput:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(2, 1, 5, 2, generator=generator) * 60
    images = torch.randn(2, 3, SIZE_WH[1], SIZE_WH[0], generator=generator)
    return ModelInput(images, Targets.of_keypoints(xy[:, 0]))


def test_every_head_and_every_codec_stands_here() -> None:
    assert set(USED_BY) == set(HEADS)
    # CenterNet's codecs have criteria of their own; the tests of those, beside this folder, learn with them
    theirs = {"centernet", "centernet_levels"}
    assert {codec for _, codecs in USED_BY.values() for codec in codecs} == set(CODECS) - theirs


@pytest.mark.parametrize("visibility", [False, True])
def test_the_head_of_centernet_gives_what_its_codec_encodes(visibility: bool) -> None:
    codec = build(CODECS, "centernet", visibility=visibility)
    [stage] = Alone("centernet", {"visibility": visibility})(batch().images)
    expected = codec.spec.shapes(5, SIZE_WH)
    assert {key: tuple(value.shape[1:]) for key, value in stage.items()} == expected
    assert ("visibility" in expected) == visibility


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "codec", "losses"), [(head, *pair) for head, (_, codecs) in USED_BY.items() for pair in codecs.items()]
)
def test_a_head_learns_what_its_codec_encodes(head: str, codec: str, losses: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    network, reader, people = Alone(head, USED_BY[head][0]), build(CODECS, codec), batch()
    parts = [LossPart(name=loss) for loss in losses]
    check_loss(parts, reader)
    step = supervised(reader, StageCriterion(terms_of(parts, reader.spec)))
    optimizer = torch.optim.Adam(network.parameters(), 0.005)
    totals = []
    for _ in range(150):
        terms = step(network, people)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.9 * totals[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    keypoints = 5 if reader.spec.keypoints else 0
    assert reader.decode(network(people.images)[-1]).xy.shape == (2, 1, keypoints, 2)


def test_the_simcc_head_names_the_size_that_it_was_built_for() -> None:
    head = SimccHead(8, 5, size_wh=(64, 96))
    with pytest.raises(ValueError, match=r"built for an input of 64 x 96 .* got features of 24 x 16"):
        head(torch.zeros(1, 8, 16, 24))
    with pytest.raises(ValueError, match="size_wh must be divisible by stride=4, got 63 x 96"):
        SimccHead(8, 5, size_wh=(63, 96))
