import itertools
import math

import pytest
import torch
from torch import nn

from poseglass.codecs import HeatmapCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.precision import choose_precision
from poseglass.core.targets import RawBatch, Targets
from poseglass.losses.heatmap import mean_squared_error
from poseglass.training.criterion import StageCriterion, Term, supervised
from poseglass.training.ema import MovingAverage
from poseglass.training.loop import Interrupted, Loop, Progress, TrainingStopped, fit
from poseglass.training.optimizer import OptimizerPart, freeze, make_optimizer
from poseglass.training.schedule import Schedule, SchedulePart


class Toy(nn.Module):
    """Two stages of a convolution each."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.stages = nn.ModuleList(nn.Conv2d(3, 2, 4, stride=4) for _ in range(2))

    def forward(self, images):
        return [{"heatmap": stage(self.norm(images))} for stage in self.stages]


class Diary:
    """A listener that writes down what it hears."""

    def __init__(self, stop_at: int = -1, enough_after: int = -1) -> None:
        self.steps: list[int] = []
        self.rows: list[dict[str, float]] = []
        self.lrs: list[float] = []
        self.asked, self.stop_at, self.enough_after = 0, stop_at, enough_after

    def stop_wanted(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_at

    def on_step(self, progress, terms, lr) -> None:
        self.steps.append(progress.step)
        self.lrs.append(lr)

    def measure(self, progress, row) -> None:
        row["val/x"] = 1.0

    def on_epoch(self, progress, row) -> None:
        assert progress.rows[-1] is row
        self.rows.append(row)

    def enough(self, progress) -> bool:
        return len(progress.rows) == self.enough_after


def batches(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    while True:
        xy = torch.rand(4, 1, 2, 2, generator=generator) * 16
        images = torch.zeros(4, 16, 16, 3, dtype=torch.uint8)
        for i, (x, y) in enumerate(xy[:, 0, 0].long().tolist()):
            images[i, y, x] = 255
        yield RawBatch(images, Targets.of_keypoints(xy[:, 0]), torch.zeros(4, 2, 3), [""] * 4)


def loop(lr: float = 1e-2, *, name: str = "adam", ema: bool = True) -> Loop:
    torch.manual_seed(0)
    network = Toy()
    return Loop(
        network,
        make_optimizer(network, OptimizerPart(name=name, lr=lr)),
        Schedule(SchedulePart(name="constant"), 12, 4),
        MovingAverage(network, 0.9) if ema else None,
        Progress(),
    )


STEP = supervised(HeatmapCodec(), StageCriterion([Term(mean_squared_error)]))


def run(parts: Loop, diary: Diary, *, steps: int = 12, lr: float = 1e-2, step=STEP, given=None, **more) -> None:
    fit(
        parts, given or batches(), step, diary,
        spec=InputSpec((16, 16)), steps_per_epoch=4, total_steps=steps, base_lr=lr, **more,
    )  # fmt: skip


def test_steps_epochs_and_the_curve():
    parts, diary = loop(), Diary()
    run(parts, diary)
    assert diary.steps == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert [row["epoch"] for row in diary.rows] == [1, 2, 3]
    assert [row["step"] for row in diary.rows] == [4, 8, 12]
    assert diary.rows[0].keys() == {
        "epoch", "step", "lr", "loss", "heatmap/0", "heatmap/1", "train_seconds", "val/x",
    }  # fmt: skip
    assert diary.rows[0]["loss"] == pytest.approx(diary.rows[0]["heatmap/0"] + diary.rows[0]["heatmap/1"])
    assert diary.rows[2]["loss"] < diary.rows[0]["loss"]
    assert parts.ema is not None
    assert parts.ema.updates == 12
    assert parts.progress.images == 0
    assert not parts.progress.epoch_due(4)


def test_the_learning_rate_follows_the_schedule():
    parts, diary = loop(), Diary()
    parts.schedule = Schedule(SchedulePart(name="constant", warmup_steps=4), 12, 4)
    run(parts, diary, lr=8.0, step=lambda network, batch: {"x": network(batch.images)[0]["heatmap"].sum() * 0 + 1})
    assert diary.lrs[:3] == [2.0, 4.0, 6.0]
    assert diary.rows[0]["lr"] == 8.0
    assert {group["lr"] for group in parts.optimizer.param_groups} == {8.0}


def test_not_a_number_stops_before_it_reaches_the_weights():
    parts = loop()
    before = {k: v.clone() for k, v in parts.network.named_parameters()}

    def step(network, batch):
        return {"good": network(batch.images)[0]["heatmap"].mean(), "bad": network.norm.weight.sum() * math.inf}

    with pytest.raises(
        TrainingStopped, match=r"The loss is not finite at step 0 \(good = .*, bad = inf; learning rate"
    ):
        run(parts, Diary(), step=step)
    assert all(torch.equal(v, before[k]) for k, v in parts.network.named_parameters())
    assert parts.progress.step == 0


def test_a_gradient_that_is_not_finite_stops_too():
    def step(network, batch):
        return {"x": (network.norm.weight.sum() * 0).sqrt()}

    with pytest.raises(TrainingStopped, match=r"The gradient is not finite at step 0 .*train\.clip_norm=1\.0"):
        run(loop(), Diary(), step=step, clip_norm=1.0)


def test_a_flat_loss_stops_with_a_reason():
    always = itertools.repeat(next(batches()))
    words = r"The loss is flat: .* over the first 20 steps, .* after 30 steps\..*poseglass look"
    with pytest.raises(TrainingStopped, match=words):
        run(loop(0.0, name="sgd"), Diary(), steps=40, lr=0.0, given=always, flat_after_steps=30)


def test_a_loss_of_exactly_0_stops_with_a_reason():
    always = itertools.repeat(next(batches()))

    def nothing(network, batch):
        return {"x": network(batch.images)[0]["heatmap"].sum() * 0}

    with pytest.raises(
        TrainingStopped, match=r"exactly 0 in 20 consecutive steps, up to step 20, so nothing is .*poseglass check"
    ):
        run(loop(), Diary(), steps=40, given=always, step=nothing)
    with pytest.raises(TrainingStopped, match="exactly 0 in 5 consecutive steps"):  # as a rehearsal makes
        run(loop(), Diary(), steps=5, given=always, step=nothing)

    made = itertools.count()

    def now_and_then(network, batch):
        return {"x": network(batch.images)[0]["heatmap"].square().mean() * (next(made) % 15 == 0)}

    run(loop(), Diary(), steps=40, given=always, step=now_and_then)


def test_a_flat_loss_may_be_allowed_and_a_falling_one_is_not_flat():
    diary = Diary()
    run(loop(0.0, name="sgd"), diary, steps=40, lr=0.0, flat_after_steps=0)
    assert diary.rows[-1]["step"] == 40
    run(loop(), Diary(), steps=40, flat_after_steps=40)


def test_a_wish_to_stop_is_granted_after_a_whole_step():
    parts, diary = loop(), Diary(stop_at=6)
    with pytest.raises(Interrupted):
        run(parts, diary)
    assert parts.progress.step == 6
    assert parts.progress.steps_summed == 2
    assert parts.ema is not None
    assert parts.ema.updates == 6


def test_stopped_at_the_end_of_an_epoch_the_epoch_is_ended_first_thing():
    parts, diary = loop(), Diary(stop_at=4)
    with pytest.raises(Interrupted):
        run(parts, diary)
    assert parts.progress.epoch_due(4)
    assert diary.rows == []
    run(parts, diary, steps=4)
    assert [row["step"] for row in diary.rows] == [4]
    assert parts.progress.step == 4


def test_training_ends_after_the_epoch_that_is_enough():
    parts, diary = loop(), Diary(enough_after=2)
    run(parts, diary)
    assert parts.progress.step == 8
    assert [row["step"] for row in diary.rows] == [4, 8]


def test_clipping_bounds_the_step():
    parts = loop(name="sgd")
    before = torch.cat([p.detach().clone().flatten() for p in parts.network.parameters()])
    run(parts, Diary(), steps=1, lr=1.0, clip_norm=1e-3)
    after = torch.cat([p.detach().flatten() for p in parts.network.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_trains_the_same_within_its_precision():
    losses = []
    for precision in (torch.float32, torch.bfloat16):
        diary = Diary()
        run(loop(), diary, precision=precision)
        losses.append([row["loss"] for row in diary.rows])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_biases_and_norms_are_not_decayed():
    network = Toy()
    for name in ("adamw", "adam", "rmsprop", "sgd"):
        optimizer = make_optimizer(network, OptimizerPart(name=name, weight_decay=0.1))
        decayed, plain = optimizer.param_groups
        assert decayed["weight_decay"] == 0.1
        assert plain["weight_decay"] == 0.0
        assert {p.ndim for p in decayed["params"]} == {4}
        assert {p.ndim for p in plain["params"]} == {1}


class WithBackbone(Toy):
    """A toy whose norm, and a convolution after it, are its backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(self.norm, nn.Conv2d(3, 3, 1))
        del self.norm

    def forward(self, images):
        return [{"heatmap": stage(self.backbone(images))} for stage in self.stages]


def test_a_backbone_may_have_a_smaller_rate():
    part = OptimizerPart(name="sgd", lr=0.5, weight_decay=0.1, backbone_lr_scale=0.1)
    network = WithBackbone()
    optimizer = make_optimizer(network, part)
    groups = [(g.get("lr_scale", 1.0), g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
    assert groups == [(1.0, 0.1, 2), (1.0, 0.0, 2), (0.1, 0.1, 1), (0.1, 0.0, 3)]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in network.parameters()}
    with_rate = Loop(network, optimizer, Schedule(SchedulePart(name="constant"), 4, 4), None, Progress())
    diary = Diary()
    run(with_rate, diary, steps=4, lr=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert {row["lr"] for row in diary.rows} == {0.5}
    assert len(make_optimizer(network, part.model_copy(update={"backbone_lr_scale": 1.0})).param_groups) == 2
    with pytest.raises(
        ValueError, match=r"backbone_lr_scale is for networks with a backbone, which Toy has not\. Omit"
    ):
        make_optimizer(Toy(), part)


def test_norms_of_a_backbone_may_keep_their_statistics():
    network = WithBackbone()
    network.stages.append(nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), nn.BatchNorm2d(2)))
    kept = Loop(
        network,
        make_optimizer(network, OptimizerPart()),
        Schedule(SchedulePart(name="constant"), 8, 4),
        None,
        Progress(),
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run(kept, Diary(), steps=8, freeze_norms=True)  # over the end of an epoch
    after = network.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in same if name.startswith("backbone.")} == {
        "backbone.0.running_mean", "backbone.0.running_var", "backbone.0.num_batches_tracked",
    }  # fmt: skip
    assert not {name for name in same if name.startswith("stages.2.")}
    with pytest.raises(ValueError, match=r"freeze_norms is for networks with a backbone, which Toy has not"):
        run(loop(), Diary(), freeze_norms=True)


def test_frozen_modules_keep_everything():
    network = WithBackbone()
    network.stages.append(nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), nn.BatchNorm2d(2)))
    modules = freeze(network, ["backbone"])
    optimizer = make_optimizer(network, OptimizerPart(weight_decay=0.1))
    trained = Loop(network, optimizer, Schedule(SchedulePart(name="constant"), 8, 4), None, Progress())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run(trained, Diary(), steps=8, frozen=modules)  # over the end of an epoch
    same = {name for name, tensor in network.state_dict().items() if torch.equal(before[name], tensor)}
    assert same == {name for name in before if name.startswith("backbone.")}
    with pytest.raises(ValueError, match=r"train.frozen: WithBackbone has no module 'bakcbone'.*backbone"):
        freeze(network, ["bakcbone"])
    with pytest.raises(ValueError, match=r"all of the network is frozen"):
        freeze(Toy(), [name for name, _ in Toy().named_children()])


def test_precision_by_device():
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert choose_precision("auto", cpu) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("auto", torch.device("meta")) == torch.float32


def test_a_checkpoint_of_another_network_is_refused():
    state = loop().state()
    other = loop()
    other.network.stages.append(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match=r"The checkpoint's network differs from the recipe's: .*stages\.2"):
        other.restore(state)


def test_weights_that_are_not_finite_are_named():
    parts = loop()
    assert parts.not_finite() == []
    parts.network.norm.running_var[0] = math.nan
    assert parts.not_finite() == ["norm.running_var"]


def test_terms_that_come_and_go_are_refused():
    """Their means would be mixed up among processes, and over an epoch."""
    steps = iter(range(9))

    def step(network, batch):
        value = network(batch.images)[0]["heatmap"].square().mean()
        return {"a": value, "b": value} if next(steps) < 2 else {"b": value, "a": value}

    with pytest.raises(TrainingStopped, match=r"must be the same, in the same order.*: a, b first, b, a at step 2"):
        run(loop(), Diary(), step=step)
