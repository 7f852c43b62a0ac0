"""CenterNet's losses and criterion: closed forms, masks, and that a network learns two boxes by heart."""

import math

import pytest
import torch

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.targets import ModelInput, Targets
from poseglass.losses.centernet import l1_at_pixels, penalty_reduced_focal
from poseglass.training.centernet import CenterNetCriterion


def test_a_perfect_heatmap_costs_what_the_clipping_leaves() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, 3, 4] = target[1, 0, 1, 1] = 1
    logits = torch.where(target == 1, 50.0, -50.0)
    loss = penalty_reduced_focal(logits, target, torch.ones_like(target))
    one = (1e-4) ** 2 * -math.log(1 - 1e-4)
    assert float(loss) == pytest.approx(one + 126 / 2 * one, rel=0.01)


def test_without_a_centre_the_loss_is_not_divided() -> None:
    target, logits = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    loss = penalty_reduced_focal(logits, target, torch.ones_like(target))
    assert float(loss) == pytest.approx(16 * 0.25 * math.log(2), rel=1e-5)


def test_near_a_centre_the_penalty_is_reduced_by_the_fourth_power() -> None:
    logits = torch.zeros(1, 1, 1, 2)
    target = torch.tensor([[[[1.0, 0.5]]]])
    expected = 0.25 * math.log(2) + 0.5**4 * 0.25 * math.log(2)
    assert float(penalty_reduced_focal(logits, target, torch.ones(1, 1, 1, 1))) == pytest.approx(expected, rel=1e-5)


def test_pixels_without_weight_give_no_gradient() -> None:
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    target, weight = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    weight[..., :2, :] = 0
    penalty_reduced_focal(logits, target, weight).backward()
    assert logits.grad is not None
    assert logits.grad[..., :2, :].abs().max() == 0
    assert logits.grad[..., 2:, :].abs().min() > 0


def test_l1_over_two_channels_is_half_of_the_papers_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, target = torch.randn(1, 2, 5, 6, generator=generator), torch.randn(1, 2, 5, 6, generator=generator)
    index = torch.tensor([[3, 17, 0]])
    weight = torch.tensor([[1.0, 1.0, 0.0]])
    papers = (maps - target).abs().flatten(2)[0, :, [3, 17]].sum() / 2
    assert float(l1_at_pixels(maps, target, index, weight)) == pytest.approx(float(papers) / 2, rel=1e-3)


def pieces(*, poses: bool) -> tuple[CenterNetCodec, ModelInput, list[dict[str, torch.Tensor]]]:
    box = torch.tensor([[[10.0, 12.0, 40.0, 60.0], [60.0, 20.0, 90.0, 50.0]]])
    xy = box[:, :, None, :2].expand(1, 2, 3, 2) + torch.tensor([[4.0, 5.0], [12.0, 20.0], [20.0, 9.0]])
    known = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    if not poses:
        xy, known = xy[:, :, :0], known[:, :, :0]
    flat = torch.zeros(1, 2)
    targets = Targets(xy, known, flat == 0, flat.long(), box, flat > 0)
    codec = CenterNetCodec(poses=poses)
    shapes = codec.spec.shapes(3, (96, 64))
    torch.manual_seed(0)
    stages = [{key: torch.randn(1, *shape).requires_grad_() for key, shape in shapes.items()} for _ in range(2)]
    return codec, ModelInput(torch.zeros(1, 3, 64, 96), targets), stages


@pytest.mark.parametrize("poses", [False, True])
def test_terms_are_averaged_over_stages_and_weighted(poses: bool) -> None:
    codec, batch, stages = pieces(poses=poses)
    targets = codec.encode(batch.targets, batch.size_wh)
    both = CenterNetCriterion()(stages, targets, batch)
    single = [CenterNetCriterion()([stage], targets, batch) for stage in stages]
    assert set(both) == set(codec.spec.outputs)
    for name, value in both.items():
        assert value.item() == pytest.approx((single[0][name] + single[1][name]).item() / 2, rel=1e-5)
    more = CenterNetCriterion({"size": 0.2})(stages, targets, batch)
    assert more["size"].item() == pytest.approx(2 * both["size"].item(), rel=1e-5)


def test_unlabelled_keypoints_and_people_without_any_give_no_gradient() -> None:
    codec, batch, stages = pieces(poses=True)
    terms = CenterNetCriterion()(stages[:1], codec.encode(batch.targets, batch.size_wh), batch)
    sum(terms.values(), torch.zeros(())).backward()
    vectors, heatmap = stages[0]["keypoints"].grad, stages[0]["heatmap"].grad
    assert vectors is not None
    assert heatmap is not None
    assert (vectors[0].abs().sum((1, 2, 3)) > 0).tolist() == [True, True, False]
    inside_second = heatmap[0, :, 6:12, 16:22]
    assert inside_second.abs().max() == 0
    assert heatmap[0, 2, 4:14, 3:10].abs().max() == 0


def test_two_boxes_are_learnt_by_heart() -> None:
    codec, batch, stages = pieces(poses=True)
    stage = {
        key: value.detach() * 0.1 - (2.19 if key in ("center", "heatmap") else 0.0) for key, value in stages[0].items()
    }
    stage = {key: value.requires_grad_() for key, value in stage.items()}
    optimizer = torch.optim.Adam(stage.values(), lr=0.2)
    targets = codec.encode(batch.targets, batch.size_wh)
    for _ in range(400):
        optimizer.zero_grad()
        sum(CenterNetCriterion()([stage], targets, batch).values(), torch.zeros(())).backward()
        optimizer.step()
    found = codec.decode({key: value.detach() for key, value in stage.items()})
    assert found.box_xyxy is not None
    kept = found.box_xyxy[0, found.box_score[0] > 0.5]
    assert len(kept) == 2
    order = kept[:, 0].argsort()
    torch.testing.assert_close(kept[order], batch.targets.box_xyxy[0], atol=1.0, rtol=0)


def test_a_class_too_many_and_an_unknown_weight_are_named() -> None:
    codec, batch, stages = pieces(poses=False)
    targets = codec.encode(batch.targets, batch.size_wh, num_classes=4)
    with pytest.raises(ValueError, match="The data have 4 classes, but the network predicts 1"):
        CenterNetCriterion()(stages, targets, batch)
    with pytest.raises(ValueError, match=r"got 'sizes': 1.0. Did you mean 'size'"):
        CenterNetCriterion({"sizes": 1.0})
