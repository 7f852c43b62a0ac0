"""The criterion over levels: closed form, weights, stages, and a network on a pyramid that learns by heart."""

import pytest
import torch
from torch import Tensor

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.codecs.centernet_levels import CenterNetLevelsCodec
from poseglass.core.targets import ModelInput, Targets
from poseglass.losses.centernet import l1_at_pixels, penalty_reduced_focal
from poseglass.training.centernet import WEIGHTS, CenterNetCriterion
from poseglass.training.centernet_levels import CenterNetLevelsCriterion

SIZE_WH = (128, 96)


def pieces(poses: bool = True) -> tuple[CenterNetLevelsCodec, ModelInput, list[dict[str, Tensor]]]:
    """Return two views: of two small objects and one large; and of a large one and padding."""
    box = torch.tensor([
        [[8.0, 8, 30, 40], [50, 40, 70, 60], [10, 12, 120, 90]], [[20.0, 10, 70, 80], [0, 0, 0, 0], [0, 0, 0, 0]],
    ])  # fmt: skip
    valid = torch.tensor([[True, True, True], [True, False, False]])
    xy = box[:, :, None, :2] + torch.tensor([[4.0, 5.0], [9.0, 12.0]])
    known = valid[..., None].expand(2, 3, 2).float()
    if not poses:
        xy, known = xy[:, :, :0], known[:, :, :0]
    targets = Targets(xy, known, valid, torch.zeros(2, 3, dtype=torch.int64), box, torch.zeros_like(valid))
    codec = CenterNetLevelsCodec(poses=poses, reach=2.0)  # bounds of 32 and 64 px
    torch.manual_seed(0)
    shapes = codec.spec.shapes(2, SIZE_WH)
    stages = [{key: torch.randn(2, *shape).requires_grad_() for key, shape in shapes.items()} for _ in range(2)]
    return codec, ModelInput(torch.zeros(2, 3, 96, 128), targets), stages


@pytest.mark.parametrize("poses", [False, True])
def test_a_term_is_the_sum_over_levels_divided_by_the_objects_of_all(poses: bool) -> None:
    codec, batch, stages = pieces(poses)
    targets = codec.encode(batch.targets, SIZE_WH)
    terms = CenterNetLevelsCriterion()(stages[:1], targets, batch)
    assert set(terms) == {key.rpartition("_")[0] for key in codec.spec.outputs}
    on = [int(targets[f"weight_{stride}"].sum()) for stride in (8, 16, 32)]
    assert on == [2, 0, 2]
    focal = size = 0.0
    for stride, count in zip((8, 16, 32), on, strict=True):
        center = stages[0][f"center_{stride}"], targets[f"center_{stride}"], targets[f"center_weight_{stride}"]
        focal += penalty_reduced_focal(*center).item() * max(count, 1)
        rows = targets[f"index_{stride}"], targets[f"weight_{stride}"]
        maps = stages[0][f"size_{stride}"], targets[f"size_{stride}"]
        size += l1_at_pixels(*maps, *rows).item() * (2 * count + 1e-4)
    assert terms["center"].item() == pytest.approx(focal / 4, rel=1e-5)
    assert terms["size"].item() == pytest.approx(WEIGHTS["size"] * size / (8 + 1e-4), rel=1e-5)


def test_one_level_costs_what_the_criterion_of_one_level_says() -> None:
    _, batch, stages = pieces()
    many, one = CenterNetLevelsCodec((8,)), CenterNetCodec(8)
    stage = {key: value for key, value in stages[0].items() if key.endswith("_8")}
    ours = CenterNetLevelsCriterion()([stage], many.encode(batch.targets, SIZE_WH), batch)
    plain = {key.removesuffix("_8"): value for key, value in stage.items()}
    theirs = CenterNetCriterion()([plain], one.encode(batch.targets, SIZE_WH), batch)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.item() == pytest.approx(theirs[name].item(), rel=1e-6), name


def test_terms_are_averaged_over_stages_and_weighted() -> None:
    codec, batch, stages = pieces()
    targets = codec.encode(batch.targets, SIZE_WH)
    both = CenterNetLevelsCriterion()(stages, targets, batch)
    single = [CenterNetLevelsCriterion()([stage], targets, batch) for stage in stages]
    for name, value in both.items():
        assert value.item() == pytest.approx((single[0][name] + single[1][name]).item() / 2, rel=1e-5)
    more = CenterNetLevelsCriterion({"size": 0.2})(stages, targets, batch)
    assert more["size"].item() == pytest.approx(2 * both["size"].item(), rel=1e-5)


def test_objects_of_three_sizes_are_learnt_by_heart() -> None:
    codec, batch, stages = pieces(poses=False)
    stage = {key: value.detach() * 0.1 - 2.19 * key.startswith("center_") for key, value in stages[0].items()}
    stage = {key: value.requires_grad_() for key, value in stage.items()}
    optimizer = torch.optim.Adam(stage.values(), lr=0.2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 250, 0.05)
    targets = codec.encode(batch.targets, SIZE_WH)
    for _ in range(350):
        optimizer.zero_grad()
        sum(CenterNetLevelsCriterion()([stage], targets, batch).values(), torch.zeros(())).backward()
        optimizer.step()
        schedule.step()
    found = codec.decode({key: value.detach() for key, value in stage.items()})
    assert found.box_xyxy is not None
    for i, count in ((0, 3), (1, 1)):
        kept = found.box_xyxy[i, found.valid[i] & (found.box_score[i] > 0.5)]
        assert len(kept) == count
        wanted = batch.targets.box_xyxy[i, :count]
        order = torch.cdist(wanted, kept).argmin(1)
        torch.testing.assert_close(kept[order], wanted, atol=1.0, rtol=0)


def test_what_does_not_fit_is_named() -> None:
    codec, batch, stages = pieces(poses=False)
    targets = codec.encode(batch.targets, SIZE_WH, num_classes=4)
    with pytest.raises(ValueError, match="The data have 4 classes, but the network predicts 1"):
        CenterNetLevelsCriterion()(stages, targets, batch)
    with pytest.raises(ValueError, match=r"got 'sizes': 1.0. Did you mean 'size'"):
        CenterNetLevelsCriterion({"sizes": 1.0})
    plain = CenterNetCodec(poses=False).encode(batch.targets, SIZE_WH)
    with pytest.raises(ValueError, match="takes targets of CenterNetLevelsCodec, got center"):
        CenterNetLevelsCriterion()(stages, plain, batch)
    fewer = [{key: value for key, value in stages[0].items() if not key.endswith("32")}]
    with pytest.raises(ValueError, match=r"the targets have center_32\. Give codec\.strides"):
        CenterNetLevelsCriterion()(fewer, codec.encode(batch.targets, SIZE_WH), batch)
