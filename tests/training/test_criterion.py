"""Criteria: the ordinary one by hand, and three of other kinds that train through the ordinary loop."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import pytest
import torch
from torch import Tensor, nn

from poseglass.codecs import CodecSpec, HeatmapCodec, Output, SimccCodec, SoftArgmaxCodec, UdpCombinedCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded, Prediction, Stages
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import ModelInput, RawBatch, Targets
from poseglass.losses.heatmap import hard_keypoint_squared_error, mean_squared_error, softmax_cross_entropy
from poseglass.losses.integral import integral_l1
from poseglass.losses.offset import smooth_l1_in_disc
from poseglass.programs.normalise import model_input
from poseglass.training.criterion import Criterion, LossPart, StageCriterion, Term, loss_line, supervised, terms_of
from poseglass.training.loop import Loop, Progress, fit
from poseglass.training.optimizer import OptimizerPart, make_optimizer
from poseglass.training.schedule import Schedule, SchedulePart


class Toy(nn.Module):
    """Two stages of a convolution each."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.stages = nn.ModuleList(nn.Conv2d(3, 2, 4, stride=4) for _ in range(2))

    def forward(self, images: Tensor) -> Stages:
        return [{"heatmap": stage(self.norm(images))} for stage in self.stages]


class Curve:
    """A listener that keeps the terms of every step."""

    def __init__(self) -> None:
        self.terms: list[dict[str, float]] = []

    def stop_wanted(self) -> bool:
        return False

    def on_step(self, progress: Progress, terms: dict[str, float], lr: float) -> None:
        self.terms.append(terms)

    def measure(self, progress: Progress, row: dict[str, float]) -> None: ...

    def on_epoch(self, progress: Progress, row: dict[str, float]) -> None: ...


def trained(network: nn.Module, codec, criterion: Criterion, batches: Iterator[RawBatch], steps: int = 30) -> Curve:
    """Train a network through the ordinary loop; return its curve."""
    part, curve = OptimizerPart(name="adam", lr=2e-2), Curve()
    loop = Loop(
        network, make_optimizer(network, part), Schedule(SchedulePart(name="constant"), steps, 99), None, Progress()
    )
    fit(
        loop, batches, supervised(codec, criterion), curve,
        spec=InputSpec((32, 32)), steps_per_epoch=steps + 1, total_steps=steps, base_lr=part.lr,
    )  # fmt: skip
    return curve


def one_each(seed: int = 0) -> RawBatch:
    """Return four images of one instance of two keypoints; the first keypoint is a white pixel."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(4, 2, 2, generator=generator) * 16
    images = torch.zeros(4, 16, 16, 3, dtype=torch.uint8)
    for i, (x, y) in enumerate(xy[:, 0].long().tolist()):
        images[i, y, x] = 255
    return RawBatch(images, Targets.of_keypoints(xy), torch.zeros(4, 2, 3), [""] * 4)


MSE = Term(mean_squared_error)


def step_by_hand(**more) -> tuple[dict[str, Tensor], Stages, ModelInput]:
    """Return the terms of one step with these arguments of StageCriterion, the stages and the batch."""
    torch.manual_seed(0)
    network, batch = Toy(), model_input(one_each(), InputSpec())
    terms = more.pop("terms", [MSE])
    return supervised(HeatmapCodec(), StageCriterion(terms, **more))(network, batch), network(batch.images), batch


def test_every_stage_is_supervised_alike():
    terms, stages, batch = step_by_hand()
    targets = HeatmapCodec().encode(batch.targets, batch.size_wh)
    assert list(terms) == ["heatmap/0", "heatmap/1"]
    for i, stage in enumerate(stages):
        expected = mean_squared_error(stage["heatmap"], targets["heatmap"], targets["weight"])
        assert torch.equal(terms[f"heatmap/{i}"], expected)


def test_a_stage_may_leave_out_what_is_hidden():
    codec, criterion = HeatmapCodec(), StageCriterion([MSE], occluded=(False, True))
    torch.manual_seed(0)
    network, batch = Toy(), model_input(one_each(), InputSpec())
    step = supervised(codec, criterion)
    with pytest.raises(ValueError, match="stage_occluded excludes occluded keypoints, but the batch does not state"):
        step(network, batch)
    batch.targets.occluded = torch.zeros(4, 1, 2, dtype=torch.bool)
    all_of_them = step(network, batch)
    assert torch.equal(all_of_them["heatmap/0"], step_by_hand()[0]["heatmap/0"])
    batch.targets.occluded[1, 0, 0] = True
    targets, stages = codec.encode(batch.targets, batch.size_wh), network(batch.images)
    seen = targets["weight"].clone()
    assert seen[1, 0] == 1
    seen[1, 0] = 0
    terms = step(network, batch)
    for stage, weight in enumerate((seen, targets["weight"])):
        assert torch.equal(
            terms[f"heatmap/{stage}"], mean_squared_error(stages[stage]["heatmap"], targets["heatmap"], weight)
        )
    assert terms["heatmap/0"].item() != all_of_them["heatmap/0"].item()
    batch.targets.occluded = torch.zeros(4, 3, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"keypoints \(4, 3, 2\), but the codec's weight \(4, 2\) is not per keypoint"):
        step(network, batch)


def test_each_stage_has_its_own_loss_and_width():
    """One width is the codec's own, 1; for the other one Gaussians are drawn besides."""
    terms = [Term(mean_squared_error, stages=(0,)), Term(mean_squared_error, weight=3.0, stages=(1,))]
    values, stages, batch = step_by_hand(terms=terms, codec=HeatmapCodec(), sigmas=(2.0, 1.0))
    for i, (stage, sigma, factor) in enumerate(zip(stages, (2.0, 1.0), (1.0, 3.0), strict=True)):
        target = HeatmapCodec(sigma=sigma).encode(batch.targets, batch.size_wh)
        expected = factor * mean_squared_error(stage["heatmap"], target["heatmap"], target["weight"])
        assert torch.equal(values[f"heatmap/{i}"], expected)


def test_terms_of_one_target_add_up():
    both, stages, batch = step_by_hand(terms=[MSE, Term(hard_keypoint_squared_error, weight=0.5, stages=(1,))])
    target = HeatmapCodec().encode(batch.targets, batch.size_wh)
    given = (stages[1]["heatmap"], target["heatmap"], target["weight"])
    assert torch.equal(both["heatmap/1"], mean_squared_error(*given) + 0.5 * hard_keypoint_squared_error(*given))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"occluded": (True, False, True)},
            r"stage_occluded must have one entry or one per stage of the network \(2\), got 3",
        ),
        (
            {"codec": HeatmapCodec(), "sigmas": (1.0, 2.0, 3.0)},
            r"stage_sigmas must have one entry or one per stage of the network \(2\), got 3",
        ),
        ({"sigmas": (1.0,)}, "sigmas need a codec that encodes them, got none. Pass codec="),
        (
            {"terms": [MSE, Term(mean_squared_error, stages=(2,))]},
            "loss names stage 2, but the network's stages are 0, 1",
        ),
        ({"terms": [Term(mean_squared_error, stages=(0,))]}, "No loss applies to stage 1 of the network, which has 2"),
    ],
)
def test_stages_that_are_not_there(more, words):
    with pytest.raises(ValueError, match=words):
        step_by_hand(**more)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ([], r"A criterion must return named terms, e\.g\. \{\"heatmap/0\": loss\}, got \[\]"),
        ({}, r"named terms, .* got \{\}"),
        ({"a": torch.zeros(2)}, r"must be scalar tensors; 'a' is a tensor \(2,\)\. Return its mean"),
        ({"a": 0.0}, r"must be scalar tensors; 'a' is a float"),
    ],
)
def test_what_a_criterion_may_not_give(terms, words):
    step = supervised(HeatmapCodec(), lambda stages, targets, batch: terms)
    with pytest.raises(ValueError, match=words):
        step(Toy(), model_input(one_each(), InputSpec()))


def test_entries_of_a_recipe_become_terms_of_what_the_codec_encodes():
    def of(codec, *entries):
        return terms_of([LossPart(**entry) for entry in entries], codec.spec)

    found = of(UdpCombinedCodec(), {"name": "mse"}, {"name": "offset", "weight": 0.5, "stages": [1]})
    assert found == (
        Term(mean_squared_error, "heatmap", "heatmap", 1.0),
        Term(smooth_l1_in_disc, "offset", "offset", 0.5, (1,)),
    )
    assert of(SimccCodec(), {"name": "softmax_cross_entropy"}) == tuple(
        Term(softmax_cross_entropy, axis, axis) for axis in ("x", "y")
    )
    assert of(SimccCodec(), {"name": "softmax_cross_entropy", "of": "y"}) == (Term(softmax_cross_entropy, "y", "y"),)
    assert of(SoftArgmaxCodec(), {"name": "integral_l1"}) == (Term(integral_l1, "heatmap", "xy"),)
    hard = of(HeatmapCodec(), {"name": "mse_hard_keypoints", "hardest": 1})[0]
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    given = (maps, torch.zeros_like(maps), torch.ones(2, 3))
    assert torch.equal(hard.function(*given), hard_keypoint_squared_error(*given, hardest=1))
    own = of(HeatmapCodec(), {"name": "poseglass.losses.heatmap:mean_squared_error"})
    assert own == (MSE,)
    with pytest.raises(ValueError, match="'integral_l1' compares 'heatmap' with 'xy', but the codec encodes 'heatmap'"):
        of(HeatmapCodec(), {"name": "integral_l1"})


def test_the_line_of_a_recipe():
    parts = [LossPart(name="mse", weight=1.0, stages=(0, 1)), LossPart(name="a.b:c", of="x", words=["d"], on=True)]
    assert loss_line(parts) == (
        'loss = [{ name = "mse", stages = [0, 1] }, { name = "a.b:c", of = "x", words = ["d"], on = true }]'
    )


# Three criteria that are not sums over stages.


@dataclass(frozen=True)
class Centers:
    """N instances a view: a map of their centres, and at each of them the way to its keypoints."""

    stride: int = 4
    most: int = 3

    @property
    def spec(self) -> CodecSpec:
        outputs = {"center": Output(("C", "h", "w"), "sigmoid"), "joints": Output(("K", 2, "h", "w"))}
        return CodecSpec(outputs, self.stride, sigma=None, loss_keys=("at",))

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        width, height = size_wh[0] // self.stride, size_wh[1] // self.stride
        there = targets.valid & ~targets.crowd
        box = torch.where(there[..., None], targets.box_xyxy, 0.0)  # whatever padding holds
        center = (box[..., :2] + box[..., 2:]) / 2 / self.stride
        pixel = center.round().clamp_min(0).minimum(torch.tensor([width - 1, height - 1]))
        grid = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1)
        blobs = (-(grid - pixel[:, :, None, None]).square().sum(-1) / 2).exp() * there[..., None, None]
        xy = torch.where(there[..., None, None], targets.xy, 0.0) / self.stride
        return {
            "center": blobs.amax(1, keepdim=True),
            "joints": xy - pixel[:, :, None],
            "at": (pixel[..., 1] * width + pixel[..., 0]).long(),
            "weight": torch.where(there[..., None], targets.known, 0.0),
        }

    def decode(self, prediction: Prediction) -> Decoded:
        center, joints = prediction["center"].sigmoid(), prediction["joints"]
        peak = center == nn.functional.max_pool2d(center, 3, 1, 1)
        score, at = (center * peak).flatten(1).topk(self.most)
        way = gathered(joints, at)
        pixel = torch.stack([at % center.shape[-1], at // center.shape[-1]], -1)
        xy = (way + pixel[:, :, None]) * self.stride
        whole = score[..., None].expand(way.shape[:3])
        return Decoded(xy, whole, score > 0.3, torch.zeros_like(at), score)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        joints = prediction["joints"].flip(-1)[:, list(skeleton.flip)] * torch.tensor([-1.0, 1.0])[:, None, None]
        return {"center": prediction["center"].flip(-1), "joints": joints}


def gathered(maps: Tensor, at: Tensor) -> Tensor:
    """Return what maps ``(B, K, 2, h, w)`` hold at pixels ``(B, N)``: ``(B, N, K, 2)``."""
    flat = maps.flatten(3).permute(0, 3, 1, 2)
    return flat.gather(1, at[..., None, None].expand(-1, -1, *flat.shape[2:]))


class CenterCriterion:
    """Focal loss on the centres; of the ways only what stands at them."""

    def __init__(self, joints: float = 0.1) -> None:
        self.joints = joints

    def __call__(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for i, stage in enumerate(stages):
            belief, truth = stage["center"].sigmoid().clamp(1e-4, 1 - 1e-4), targets["center"]
            peak = truth == 1
            found = ((1 - belief).square() * belief.log() * peak).sum()
            missed = ((1 - truth) ** 4 * belief.square() * (1 - belief).log() * ~peak).sum()
            terms[f"center/{i}"] = -(found + missed) / batch.targets.valid.sum().clamp_min(1)
            error = (gathered(stage["joints"], targets["at"]) - targets["joints"]).abs().sum(-1)
            terms[f"joints/{i}"] = (
                self.joints * (error * targets["weight"]).sum() / targets["weight"].sum().clamp_min(1)
            )
        return terms


class CenterNet(nn.Module):
    """A toy that sees centres and ways."""

    def __init__(self, num_keypoints: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.center, self.joints = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 2 * num_keypoints, 1)
        nn.init.constant_(self.center.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Stages:
        features = self.body(images)
        return [{"center": self.center(features), "joints": self.joints(features).unflatten(1, (-1, 2))}]


def several(*, padding: float = 0.0) -> RawBatch:
    """Return three images of 1, 2 and 3 white squares, each an instance of two keypoints, padded to N = 3."""
    corners = [[(4, 4)], [(2, 16), (20, 6)], [(2, 2), (18, 4), (10, 22)]]
    images = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
    xy = torch.full((3, 3, 2, 2), padding)
    box = torch.full((3, 3, 4), padding)
    known, valid = torch.zeros(3, 3, 2), torch.zeros(3, 3, dtype=torch.bool)
    for i, squares in enumerate(corners):
        for n, (x, y) in enumerate(squares):
            images[i, y : y + 8, x : x + 8] = 255
            xy[i, n] = torch.tensor([[x, y], [x + 7.0, y + 7]])
            box[i, n] = torch.tensor([x, y, x + 7.0, y + 7])
            known[i, n], valid[i, n] = 1.0, True
    zeros = torch.zeros(3, 3, dtype=torch.int64)
    targets = Targets(xy, known, valid, zeros, box, torch.zeros_like(valid))
    return RawBatch(images, targets, torch.zeros(3, 2, 3), [""] * 3)


def test_a_criterion_may_gather_at_the_centres_of_many_instances():
    torch.manual_seed(0)
    network, codec, batch = CenterNet(), Centers(), several()
    curve = trained(network, codec, CenterCriterion(), repeat(batch), steps=150)
    assert curve.terms[0].keys() == {"center/0", "joints/0"}
    assert curve.terms[-1]["center/0"] < 0.1 * curve.terms[0]["center/0"]
    assert curve.terms[-1]["joints/0"] < 0.3 * curve.terms[0]["joints/0"]
    found = codec.decode(network.eval()(model_input(batch, InputSpec((32, 32))).images)[-1])
    assert found.valid.sum(1).tolist() == [1, 2, 3]
    for i in range(3):  # each instance once
        apart = torch.cdist(
            found.xy[i, found.valid[i]].flatten(1), batch.targets.xy[i, batch.targets.valid[i]].flatten(1)
        )
        assert sorted(apart.argmin(1).tolist()) == list(range(i + 1))


def test_what_stands_in_padding_does_not_matter():
    torch.manual_seed(0)
    network = CenterNet()
    step = supervised(Centers(), CenterCriterion())
    one, other = (step(network, model_input(several(padding=p), InputSpec((32, 32)))) for p in (0.0, float("nan")))
    assert {name: value.item() for name, value in one.items()} == {name: value.item() for name, value in other.items()}


class Distillation(nn.Module):
    """The labels, and what a teacher makes of the same images."""

    def __init__(self, teacher: nn.Module, weight: float) -> None:
        super().__init__()
        self.teacher, self.weight = teacher.eval().requires_grad_(False), weight

    def forward(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        with torch.no_grad():
            told = self.teacher(batch.images)[-1]["heatmap"]
        terms: dict[str, Tensor] = {}
        for i, stage in enumerate(stages):
            terms[f"heatmap/{i}"] = mean_squared_error(stage["heatmap"], targets["heatmap"], targets["weight"])
            terms[f"teacher/{i}"] = self.weight * (stage["heatmap"] - told).square().mean()
        return terms


def test_a_criterion_may_run_a_teacher():
    torch.manual_seed(1)
    teacher = Toy()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    batch = one_each()
    students = []
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        students.append(Toy())
        curve = trained(students[-1], HeatmapCodec(), Distillation(teacher, weight), repeat(batch))
    assert curve.terms[-1]["teacher/1"] < 0.3 * curve.terms[0]["teacher/1"]
    images = model_input(batch, InputSpec()).images
    far = [(s.eval()(images)[-1]["heatmap"] - teacher(images)[-1]["heatmap"]).square().mean().item() for s in students]
    assert far[1] < 0.5 * far[0]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


class OutsideOfCrowds:
    """Squared differences where no crowd is; codecs do not see crowds, the batch does."""

    def __call__(self, stages: Stages, targets: Prediction, batch: ModelInput) -> dict[str, Tensor]:
        crowd = batch.targets.box_xyxy * (batch.targets.crowd & batch.targets.valid)[..., None] / 4
        height, width = targets["heatmap"].shape[-2:]
        across, down = torch.arange(width), torch.arange(height)[:, None]
        left, top, right, bottom = (side[..., None, None] for side in crowd.unbind(-1))
        outside = ~((across >= left) & (across < right) & (down >= top) & (down < bottom)).any(1, keepdim=True)
        return {
            f"heatmap/{i}": ((stage["heatmap"] - targets["heatmap"]).square() * outside).sum() / outside.sum()
            for i, stage in enumerate(stages)
        }


def test_a_criterion_may_leave_regions_out():
    torch.manual_seed(0)
    batch = one_each()
    crowd = Targets.of_keypoints(torch.tensor([[[0.0, 0.0], [8.0, 8.0]]]).repeat(4, 1, 1), torch.ones(4, 2))
    known = batch.targets

    class Single(HeatmapCodec):
        """Draws the first instance; the second is a region."""

        def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
            return super().encode(Targets.of_keypoints(targets.xy[:, 0], targets.known[:, 0]), size_wh)

    def both(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat([one, other], 1)

    flags = torch.tensor([[False, True]]).repeat(4, 1)
    batch.targets = Targets(
        both(known.xy, crowd.xy), both(known.known, crowd.known * 0), both(known.valid, crowd.valid),
        both(known.label, crowd.label), both(known.box_xyxy, crowd.box_xyxy), flags,
    )  # fmt: skip
    curve = trained(Toy(), Single(), OutsideOfCrowds(), repeat(batch))
    assert curve.terms[-1]["heatmap/0"] < 0.7 * curve.terms[0]["heatmap/0"]
    maps = torch.zeros(4, 2, 4, 4, requires_grad=True)
    given = model_input(batch, InputSpec())
    OutsideOfCrowds()([{"heatmap": maps + 1}], Single().encode(given.targets, given.size_wh), given)[
        "heatmap/0"
    ].backward()
    assert maps.grad is not None
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[:2, :2] = True
    assert not maps.grad[..., inside].any()
    assert (maps.grad[..., ~inside] != 0).float().mean() > 0.9
