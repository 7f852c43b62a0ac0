"""Losses: hand-computed values, what masking means, and parts that add up to the whole."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from poseglass.codecs import HeatmapCodec
from poseglass.codecs.heatmap import draw_gaussians
from poseglass.core.targets import Targets
from poseglass.losses import LOSSES
from poseglass.losses.heatmap import hard_keypoint_squared_error, mean_squared_error, softmax_cross_entropy
from poseglass.losses.integral import integral_l1, jensen_shannon
from poseglass.losses.loss import Loss, find_loss
from poseglass.losses.offset import smooth_l1_in_disc

Function = Callable[..., Tensor]
OF_MAPS = {name: loss.function for name, loss in LOSSES.items() if loss.outputs != ("class",)}
losses = pytest.mark.parametrize("loss", OF_MAPS.values(), ids=OF_MAPS)


def example(people: int = 4, loss: Function | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, targets and weights of the shapes that a loss takes; heatmaps unless it is of something else."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(people, 3, 8, 6, generator=generator)
    if loss is smooth_l1_in_disc:
        offset = torch.rand(people, 3, 2, 8, 6, generator=generator) * 4 - 2
        return torch.randn(people, 3, 2, 8, 6, generator=generator), offset, torch.ones(people, 3)
    if loss is integral_l1:
        return maps, torch.rand(people, 3, 2, generator=generator) * 5, torch.ones(people, 3)
    target = draw_gaussians(torch.rand(people, 3, 2, generator=generator) * 5, (6, 8), 1.0)
    return maps, target, torch.ones(people, 3)


def gradient(loss: Function, maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    maps = maps.clone().requires_grad_()
    loss(maps, target, weight).backward()
    assert maps.grad is not None
    return maps.grad


def test_mean_squared_error_by_hand() -> None:
    maps, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    maps[0, 0, 0, 0], target[0, 1] = 2.0, 1.0
    assert mean_squared_error(maps, target, torch.ones(1, 2)).item() == pytest.approx((1.0 + 1.0) / 2)
    assert mean_squared_error(maps, target, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.5)


def test_hard_keypoints_by_hand() -> None:
    maps, target = torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 1, 2)
    maps[0, :, 0, 0] = torch.tensor([2.0, 4.0, 6.0])  # per joint, the mean over two pixels: 2, 8, 18
    maps[1, :, 0, 0] = torch.tensor([8.0, 2.0, 4.0])  # 32, 2, 8
    weight = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    value = hard_keypoint_squared_error(maps, target, weight, hardest=2)
    assert value.item() == pytest.approx((18 + 8 + 8 + 2) / 4)
    assert hard_keypoint_squared_error(maps, target, weight, hardest=1).item() == pytest.approx((18 + 8) / 2)
    maps.requires_grad_()
    hard_keypoint_squared_error(maps, target, weight, hardest=1).backward()
    assert maps.grad is not None
    assert (maps.grad.abs().amax((-1, -2)) > 0).tolist() == [[False, False, True], [False, False, True]]


def test_hard_keypoints_are_eight_and_all_where_there_are_no_more() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, target = torch.randn(4, 17, 6, 5, generator=generator), torch.zeros(4, 17, 6, 5)
    given = gradient(hard_keypoint_squared_error, maps, target, torch.ones(4, 17)).abs().amax((-1, -2)) > 0
    assert given.sum(1).tolist() == [8] * 4
    few = (maps[:, :8], target[:, :8], torch.ones(4, 8))
    torch.testing.assert_close(hard_keypoint_squared_error(*few), mean_squared_error(*few))


def test_hard_keypoints_of_parts_of_a_batch_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, target = torch.randn(4, 17, 6, 5, generator=generator), torch.zeros(4, 17, 6, 5)
    weight = (torch.rand(4, 17, generator=generator) > 0.6).float()  # some people have fewer than eight labelled
    assert weight[:2].sum() != weight[2:].sum()
    assert weight.sum(1).min() < 8
    whole = gradient(hard_keypoint_squared_error, maps, target, weight)
    halves = [slice(0, 2), slice(2, 4)]
    parts = [gradient(hard_keypoint_squared_error, maps[i], target[i], weight[i]) / 2 for i in halves]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_softmax_cross_entropy_by_hand() -> None:
    maps, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, 1.0]]]])
    maps[..., 0] = math.log(3.0)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert softmax_cross_entropy(maps, target, torch.ones(1, 1)).item() == pytest.approx(entropy)


def test_cross_entropy_is_least_where_the_softmax_is_the_target() -> None:
    _, target, weight = example()
    assert gradient(softmax_cross_entropy, target.clamp_min(1e-12).log(), target, weight).abs().max() < 1e-6


@losses
def test_a_masked_joint_gives_no_gradient_and_the_others_do(loss: Function) -> None:
    maps, target, weight = example(loss=loss)
    weight[1, 2] = weight[3, 0] = 0.0
    target[1, 2] = 0.0  # as codecs give it
    given = gradient(loss, maps, target, weight).abs().flatten(2).amax(-1)
    assert torch.equal(given > 0, weight > 0)


@losses
def test_a_batch_without_any_label_is_zero_and_not_nan(loss: Function) -> None:
    maps, target, weight = example(loss=loss)
    assert loss(maps, target * 0, weight * 0).item() == 0
    assert gradient(loss, maps, target * 0, weight * 0).abs().max() == 0


@losses
def test_parts_of_a_batch_add_up_to_the_whole_whatever_is_masked(loss: Function) -> None:
    """Datasets that label different joints train together, and two processes train as one."""
    maps, target, weight = example(loss=loss)
    weight[:2, 0] = 0.0
    weight[2:, 1:] = 0.0
    whole = gradient(loss, maps, target, weight)
    parts = [gradient(loss, maps[i : i + 2], target[i : i + 2], weight[i : i + 2]) / 2 for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), whole)


@losses
def test_a_weight_is_a_factor(loss: Function) -> None:
    maps, target, weight = example(loss=loss)
    torch.testing.assert_close(loss(maps, target, weight * 0.5), loss(maps, target, weight) * 0.5)


@losses
def test_half_precision_predictions_are_summed_in_float32(loss: Function) -> None:
    maps, target, weight = example(loss=loss)
    value = loss(maps.bfloat16(), target, weight)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(maps.bfloat16().float(), target, weight))


def test_background_trains_unknown_joints_and_ignore_does_not() -> None:
    xy = torch.full((1, 1, 3, 2), 16.0)
    targets = Targets.of_keypoints(xy[:, 0], torch.tensor([[1.0, 0.0, 1.0]]))
    maps = example(1)[0]
    for unlabelled, trained in (("ignore", [True, False, True]), ("background", [True, True, True])):
        target = HeatmapCodec(unlabelled=unlabelled).encode(targets, (24, 32))  # type: ignore[arg-type]
        given = gradient(mean_squared_error, maps, target["heatmap"], target["weight"])
        assert (given.abs().amax((-1, -2)) > 0)[0].tolist() == trained


def test_offsets_count_inside_their_disc_only() -> None:
    target = torch.zeros(1, 1, 2, 1, 2)
    target[0, 0, 0] = torch.tensor([0.5, 1.5])  # along x: the second pixel is outside
    maps = torch.full_like(target, 3.0)
    # smooth L1: |d| - 0.5 beyond 1; along x 2.5 - 0.5, along y 3 - 0.5
    assert smooth_l1_in_disc(maps, target, torch.ones(1, 1)).item() == pytest.approx((2.0 + 2.5) / 2)
    other = maps.clone()
    other[..., 1] = 100.0
    assert smooth_l1_in_disc(other, target, torch.ones(1, 1)) == smooth_l1_in_disc(maps, target, torch.ones(1, 1))


def test_the_integral_is_the_mean_place_by_hand() -> None:
    maps = torch.full((1, 1, 2, 4), -math.inf)
    maps[0, 0, 0, 1], maps[0, 0, 1, 3] = math.log(0.25), math.log(0.75)  # mean (2.5, 0.75)
    target = torch.tensor([[[2.0, 0.0]]])
    assert integral_l1(maps, target, torch.ones(1, 1)).item() == pytest.approx((0.5 + 0.75) / 2)


def test_jensen_shannon_is_zero_for_the_target_and_log_2_apart() -> None:
    target = torch.tensor([[[[1.0, 3.0, 0.0, 0.0]]]])
    same, apart = (target + 1e-20).log(), torch.tensor([[[[-90.0, -90.0, 0.0, 0.0]]]])
    assert jensen_shannon(same, target, torch.ones(1, 1)).item() == pytest.approx(0, abs=1e-6)
    assert jensen_shannon(apart, target, torch.ones(1, 1)).item() == pytest.approx(math.log(2))


def test_hard_keypoints_are_a_whole_number() -> None:
    for hardest in (0, 2.5, "all"):
        with pytest.raises(ValueError, match=r"mse_hard_keypoints: hardest must be a whole number above 0, got"):
            hard_keypoint_squared_error(*example(), hardest=hardest)  # type: ignore[arg-type]


def focal(prediction: Tensor, target: Tensor, weight: Tensor, *, gamma: float = 2.0) -> Tensor:
    return (((prediction - target).abs() ** gamma).mean((-1, -2)) * weight).mean()


FOCAL = Loss(focal, ("center",), activation="sigmoid")


def test_a_loss_of_ones_own_is_a_function_or_says_what_it_is_of() -> None:
    assert find_loss(LOSSES, "mse") is LOSSES["mse"]
    assert find_loss(LOSSES, f"{__name__}:focal") == Loss(focal, outputs=())
    assert find_loss(LOSSES, f"{__name__}:FOCAL").outputs == ("center",)
    with pytest.raises(LookupError, match=r"Unknown loss 'offst'\. Did you mean 'offset'"):
        find_loss(LOSSES, "offst")
    for name, what in (("torch.nn:MSELoss", "class"), ("math:pi", "float")):
        with pytest.raises(
            LookupError, match=rf"loss '{name}' is a {what}; expected a function \(prediction, target, "
        ):
            find_loss(LOSSES, name)
