import pytest
import torch

from poseglass.core.prediction import Stages
from poseglass.heads.centernet import CenterNetHead
from poseglass.heads.stacked_centernet import MapFeedback, StackedCenterNetHead
from poseglass.networks.centernet import CenterNetHourglass
from poseglass.networks.compose import ComposedNetwork

FEATURES = torch.rand(2, 16, 12, 10, generator=torch.Generator().manual_seed(0))


def shapes(stages: Stages) -> list[dict[str, tuple[int, ...]]]:
    return [{name: tuple(maps.shape) for name, maps in stage.items()} for stage in stages]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_every_stage_gives_what_centernet_gives(stages, shared):
    head = StackedCenterNetHead(16, 5, stages=stages, shared=shared, width=8, visibility=True)
    made = head(FEATURES)
    assert shapes(made) == shapes([CenterNetHead(16, 5, width=8, visibility=True)(FEATURES)]) * stages


def count(module: torch.nn.Module) -> int:
    return sum(values.numel() for values in module.parameters())


def test_shared_weights_are_counted_once():
    one, two, three = (StackedCenterNetHead(16, 5, stages=n, width=8) for n in (1, 2, 3))
    more = count(two) - count(one)
    assert count(one) == count(CenterNetHead(16, 5, width=8))
    assert count(three) - count(two) == more
    assert count(StackedCenterNetHead(16, 5, stages=3, width=8, shared=True)) == count(two)
    # What a stage adds, by hand: its outputs, the feedback of 20 maps, and two blocks of 7x7 by channel and 1x1.
    maps = 1 + 2 + 2 + 10 + 5 + 2
    feedback, block = 2 * maps + 16 * maps + 16, 49 * 16 + 2 * 16 + 16 * 16 + 2 * 16
    assert more == count(CenterNetHead(16, 5, width=8)) + feedback + 2 * block


def test_a_stage_sees_the_maps_of_the_one_before_and_its_gradient_reaches_it():
    torch.manual_seed(0)
    head = StackedCenterNetHead(16, 0, stages=2, width=8).eval()
    first = head.first.outputs["center"].last
    with torch.no_grad():
        head.feedback[0].merge.weight.normal_()
    before = head(FEATURES)[1]["center"]
    with torch.no_grad():
        first.bias += 3.0
    assert (head(FEATURES)[1]["center"] - before).abs().max() > 1e-3
    head(FEATURES)[1]["center"].sum().backward()
    assert first.weight.grad.abs().max() > 0


def test_a_stage_begins_as_if_there_was_none_before_it():
    torch.manual_seed(0)
    feedback = MapFeedback(CenterNetHead(16, 5), 16)
    assert feedback(CenterNetHead(16, 5)(FEATURES)).abs().max() < 0.05


def test_a_stage_sees_as_far_as_its_kernels():
    head = StackedCenterNetHead(16, 0, stages=2, width=8, blocks=2, kernel=7).eval()
    features = FEATURES[:1].repeat(1, 1, 4, 4).requires_grad_()
    head(features)[1]["center"][0, 0, 24, 20].backward()
    rows = features.grad[0].abs().sum((0, 2)).nonzero().flatten()
    # 3x3 of the output and two of 7x7 on the features; through the maps, another 3x3
    assert rows.max() - rows.min() + 1 == 1 + 2 + 6 + 6 + 2


def test_composed_networks_and_hourglasses_have_the_stages():
    parts = {"backbone": {"name": "mobilenet_v3_small"}, "neck": {"name": "unet", "width": 16}}
    network = ComposedNetwork(5, **parts, head={"name": "stacked_centernet", "stages": 3, "width": 8})
    assert len(network(torch.rand(2, 3, 64, 64))) == 3
    numbers = {"num_stacks": 3, "widths": (16, 16), "blocks": (1, 1), "head_width": 8}
    plain, fed = CenterNetHourglass(5, **numbers), CenterNetHourglass(5, **numbers, map_feedback=True)
    assert shapes(fed(torch.rand(2, 3, 64, 64))) == shapes(plain(torch.rand(2, 3, 64, 64)))
    assert count(fed) - count(plain) == 2 * count(MapFeedback(fed.heads[0], 16))
    assert set(plain.state_dict()) < set(fed.state_dict())


def test_feedback_near_zero_leaves_an_hourglass_nearly_as_it_was():
    torch.manual_seed(0)
    numbers = {"num_stacks": 2, "widths": (16, 16), "blocks": (1, 1), "head_width": 8}
    plain, fed = CenterNetHourglass(0, **numbers).eval(), CenterNetHourglass(0, **numbers, map_feedback=True).eval()
    fed.load_state_dict(plain.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    first, second = ((a["center"] - b["center"]).abs().max() for a, b in zip(plain(images), fed(images), strict=True))
    assert first == 0
    assert second < 0.02


@pytest.mark.parametrize("numbers", [{"stages": 0}, {"blocks": 0}, {"kernel": 4}, {"kernel": 0}])
def test_impossible_numbers(numbers):
    with pytest.raises(ValueError, match="StackedCenterNetHead takes at least 1 stage and 1 block, and an odd kernel"):
        StackedCenterNetHead(16, 5, **numbers)
