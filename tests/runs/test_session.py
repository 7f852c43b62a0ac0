import dataclasses
import errno
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from poseglass.backbones import BACKBONES
from poseglass.codecs import HeatmapCodec, SimccCodec, SoftArgmaxCodec, UdpCombinedCodec
from poseglass.core.card import WeightCard
from poseglass.core.device import choose_device
from poseglass.core.input_spec import InputSpec
from poseglass.core.table import build
from poseglass.data import DATASETS
from poseglass.estimators.load import load_detector
from poseglass.estimators.weights_file import CheckpointError, read_weights, save_weights
from poseglass.heads import SimccHead
from poseglass.metrics import METRICS
from poseglass.networks import NETWORKS
from poseglass.readers import write_coco
from poseglass.readers.labelled import LabelledImages
from poseglass.runs import folder as run_folder
from poseglass.runs import session as module
from poseglass.runs.build import crop_sizes, make
from poseglass.runs.check import check_evaluation, check_loss, check_shapes
from poseglass.runs.folder import RunFolder
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import synthetic_people
from poseglass.training.checkpoint import load_checkpoint
from poseglass.training.criterion import LossPart
from poseglass.training.loop import TrainingStopped
from poseglass.training.monitor import Monitor

pytestmark = pytest.mark.usefixtures("plain_reports")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(8, seed=1, size_wh=(48, 48)), folder / "train.json", write_images=True)
    return folder / "train.json"


def tiny(data: Path, *overrides: str) -> Recipe:
    table = {"name": "coco", "annotations": str(data)}
    return Recipe.from_dict(
        {
            "name": "tiny",
            "network": {"name": "stacked_hourglass", "num_stacks": 1, "width": 16, "depth": 2},
            "codec": {"name": "heatmap"},
            "input": {"size_wh": [32, 32]},
            "data": {"train": table, "val": table},
            "train": {"epochs": 2, "batch_size": 4, "workers": 0},
            "evaluate": {"metrics": [{"name": "pck", "thresholds": [1.0]}], "flip_test": False},
        },
        overrides=overrides,
    )


@contextmanager
def full_disk():
    """Let no file grow beyond a kilobyte: writing fails as on a full disk, in the C library, not in a stand-in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_on_the_way_is_told_and_training_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    run = prepare(tiny(data, "train.checkpoint_seconds=1e-9", "train.epochs=3"), tmp_path / "run")
    told, saved, disk = [], [], None
    run.on_warning = told.append

    def on_step(progress, terms, lr):
        nonlocal disk
        if progress.step == 3:  # with a checkpoint of step 2 there
            disk = full_disk()
            disk.__enter__()
        if progress.step == 5:
            saved.append(load_checkpoint(run.folder.checkpoint)["progress"]["step"])
            disk.__exit__(None, None, None)

    run.on_step = on_step
    run.train()
    assert saved == [2]
    assert len(set(told)) == len(told), told  # once in a row of failures, and when it works again
    assert "The checkpoint could not be written" in told[0]
    assert "(File too large). Training continues and will try again; the previous file is untouched." in told[0]
    assert "The checkpoint could be written again." in told
    assert load_checkpoint(run.folder.checkpoint)["progress"]["step"] == 6
    assert not list(run.folder.path.glob(".*.part"))


def test_a_full_disk_at_the_end_is_an_error_and_resuming_finishes(data, tmp_path):
    run = prepare(tiny(data), tmp_path / "run")
    disk = full_disk()
    run.on_step = lambda progress, terms, lr: disk.__enter__() if progress.step == 3 else None
    run.on_warning = lambda words: None
    with pytest.raises(
        OSError, match=r"All 4 steps are done, but the last checkpoint could not be written .*File too "
    ):
        run.train()
    disk.__exit__(None, None, None)
    assert load_checkpoint(run.folder.checkpoint)["progress"]["step"] == 2
    again = prepare(tiny(data), tmp_path / "run", resume=True)
    again.train()
    assert again.folder.report.is_file()
    assert again.folder.last.is_file()


def test_no_room_for_the_report(data, tmp_path, monkeypatch):
    run = prepare(tiny(data), tmp_path / "run")
    write = module.finish.__globals__["write_report"]

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(module.finish.__globals__, "write_report", full)
    with pytest.raises(
        OSError,
        match=r"Training is complete .*\(No space left on device\)\. Free some space, then run again with --resume",
    ):
        run.train()
    monkeypatch.setitem(module.finish.__globals__, "write_report", write)
    again = prepare(tiny(data), tmp_path / "run", resume=True)
    assert again.complete
    again.train()
    assert again.folder.report.is_file()


def test_no_room_to_start_leaves_no_folder(data, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder, "write_bytes", full)
    with pytest.raises(OSError, match=r"run cannot be created: No space left on device\. Name another with --run"):
        prepare(tiny(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_checkpoint_is_made_of_broken_weights(data, tmp_path):
    run = prepare(tiny(data, "train.checkpoint_seconds=1e-9"), tmp_path / "run")

    def break_it(progress, terms, lr):
        if progress.step == 3:
            run.loop.network.stem.conv.weight.data[0] = float("nan")

    run.on_step = break_it
    with pytest.raises(
        TrainingStopped, match=r"After step 3 1 weights are not finite, 'stem\.conv\.weight' first\. .*step 2"
    ):
        run.train()
    assert load_checkpoint(run.folder.checkpoint)["progress"]["step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_after_a_checkpoint(tmp_path, workers):
    write_coco(synthetic_people(8, seed=1, size_wh=(48, 48)), tmp_path / "train.json", write_images=True)
    recipe = tiny(tmp_path / "train.json", f"train.workers={workers}", "train.epochs=9", "evaluate.metrics=[]")
    run = prepare(recipe, tmp_path / "run")

    def spoil(progress, terms, lr):
        for image in (tmp_path / "images").iterdir():
            image.write_bytes(image.read_bytes()[:99])

    run.on_step = spoil
    with pytest.raises(ValueError, match=r"^\S+\.png is a damaged or truncated image") as caught:
        run.train()
    assert "Traceback" not in str(caught.value)
    assert load_checkpoint(run.folder.checkpoint)["progress"]["step"] == run.loop.progress.step > 0


def test_errors_of_loader_processes_in_their_own_words():
    wrapped = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\n  x\nValueError: a.jpg: bad\n"
    )
    assert str(module._own_words(wrapped)) == "a.jpg: bad"
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert "because memory ran out: lower train.workers" in str(module._own_words(killed))
    plain = ValueError("plain")
    assert module._own_words(plain) is plain


@pytest.mark.slow
def test_what_is_kept_for_the_best_weights(data, tmp_path):
    run = prepare(tiny(data), tmp_path / "run")
    evaluation = run.train()
    assert evaluation is not None
    best = max(row["val/pck@1"] for row in run.loop.progress.rows)
    assert evaluation.results["pck@1"] == pytest.approx(best)
    assert run.loop.progress.best == best


class Told:
    """A metric that gives prepared values, one an evaluation; falling ones are better."""

    values: ClassVar[list[float]] = []

    def __init__(self) -> None:
        self.images = 0

    def update(self, predicted, truth):
        self.images += 1

    def compute(self):
        return {"told": Told.values.pop(0) if self.images > 1 else 1.0}  # one image is prepare's own check

    def better(self, name):
        return {"told": "lower"}[name]

    def table(self):
        return {}

    def merge(self, other):
        self.images += other.images


def told(monkeypatch, values: list[float]) -> str:
    """Return a recipe's metric that gives some values."""
    monkeypatch.setitem(METRICS, "told", Told)
    monkeypatch.setattr(Told, "values", [*values, 0.0])  # the last evaluation is that of the best weights
    return "evaluate.metrics=[{name='told'}, {name='pck', thresholds=[1.0]}]"


@pytest.mark.slow
def test_a_run_that_monitors_an_error_keeps_the_epoch_of_the_smallest(data, tmp_path, monkeypatch):
    metrics = told(monkeypatch, [0.5, math.nan, 0.2, 0.3, 0.2])
    schedule = "train.schedule={name='plateau', patience=1, factor=0.5}"
    run = prepare(tiny(data, metrics, schedule, "train.epochs=5"), tmp_path / "run")
    run.train()
    assert run.monitor == Monitor("val/told", "lower")
    assert run.loop.progress.best == 0.2
    weights, card = read_weights(run.folder.best)
    assert card.results["val told"] == 0.2
    assert run.loop.schedule.dropped == 3  # after the NaN, 0.3, and the second 0.2, which is no new best
    assert "best.safetensors, epoch 3)" in run.folder.report.read_text()
    last, _ = read_weights(run.folder.last)
    assert any(not torch.equal(weights[name], last[name]) for name in weights)


@pytest.mark.slow
def test_the_share_of_misses_is_monitored_downwards(data, tmp_path):
    more = "evaluate={metrics=[{name='errors'}], monitor='errors/miss', flip_test=false}"
    run = prepare(tiny(data, more, "train.epochs=3"), tmp_path / "run")
    evaluation = run.train()
    misses = [row["val/errors/miss"] for row in run.loop.progress.rows]
    assert run.loop.progress.best == min(misses) == pytest.approx(evaluation.results["errors/miss"])


@pytest.mark.slow
def test_a_run_without_a_new_best_stops_early(data, tmp_path, monkeypatch):
    metrics = told(monkeypatch, [0.5, 0.4, 0.6, math.nan, 0.4])
    recipe = tiny(data, metrics, "train.stop_after=3", "train.epochs=20", "evaluate.every_epochs=2")
    run = prepare(recipe, tmp_path / "run")
    run.train()
    assert [row["epoch"] for row in run.loop.progress.rows] == list(range(1, 11))
    assert run.early_end == (
        "Training stopped early, after epoch 10 of 20: no new best told in 3 evaluations (train.stop_after); the best "
        "was in epoch 4."
    )
    assert run.early_end in run.folder.report.read_text()
    assert run.loop.progress.best == 0.4
    assert read_weights(run.folder.last)[1].results["val told"] == 0.4
    # the run is complete, and stays so
    monkeypatch.setattr(Told, "values", [])
    again = prepare(recipe, tmp_path / "run", resume=True)
    assert again.complete
    assert again.early_end == run.early_end
    # a run of its own keeps the key like any other
    with pytest.raises(RecipeError, match=r"was started with train\.stop_after = 3, not 9"):
        prepare(tiny(data, metrics, "train.stop_after=9", "train.epochs=20"), tmp_path / "run", resume=True)


@pytest.mark.slow
def test_a_run_that_ends_with_its_last_epoch_did_not_stop_early(data, tmp_path, monkeypatch):
    for values, patience in (([0.5, 0.6, 0.6], 2), ([0.5, 0.4, 0.3], 1), ([0.5, 0.6, 0.6], 0)):
        metrics = told(monkeypatch, values)
        run = prepare(tiny(data, metrics, f"train.stop_after={patience}", "train.epochs=3"), tmp_path / str(patience))
        run.train()
        assert run.loop.progress.step == run.total_steps == 6
        assert run.early_end == ""


def test_nothing_finite_to_choose_by_stops_early_too(data, tmp_path, monkeypatch):
    run = prepare(
        tiny(data, told(monkeypatch, [math.nan, math.inf]), "train.stop_after=2", "train.epochs=9"), tmp_path / "run"
    )
    run.train()
    assert run.early_end.endswith("in 2 evaluations (train.stop_after); no value was finite.")
    assert not run.folder.best.exists()


def test_without_a_validation_set_a_loss_that_does_not_fall_stops_early(data, tmp_path, monkeypatch):
    recipe = tiny(data, "train.stop_after=2", "train.epochs=9", "evaluate.metrics=[]")
    run = prepare(recipe, tmp_path / "run")
    losses, measure = [3.0, 2.0, 2.5, 2.0], module._Keeper.measure

    def given(self, progress, row):
        row["loss"] = losses[len(progress.rows)]
        measure(self, progress, row)

    monkeypatch.setattr(module._Keeper, "measure", given)
    assert run.train() is None
    assert run.early_end.startswith("Training stopped early, after epoch 4 of 9: no new best loss in 2 evaluations")
    assert run.early_end in run.folder.report.read_text()


def test_a_metric_must_say_which_way_is_better(data, monkeypatch):
    val = synthetic_people(2, size_wh=(48, 48))
    recipe = tiny(data, told(monkeypatch, []))
    assert check_evaluation(recipe, val, val.skeleton) == Monitor("val/told", "lower")
    other = tiny(data, told(monkeypatch, []), "evaluate.monitor=pck@1")
    assert check_evaluation(other, val, val.skeleton) == Monitor("val/pck@1", "higher")
    monkeypatch.setattr(Told, "better", lambda self, name: "up")
    with pytest.raises(RecipeError, match=r"Told\.better\('told'\) must return 'higher' or 'lower', got 'up'\. Fix"):
        check_evaluation(recipe, val, val.skeleton)
    monkeypatch.delattr(Told, "better")
    with pytest.raises(RecipeError, match=r"must return 'higher' or 'lower', but there is no such method\. Fix the"):
        check_evaluation(recipe, val, val.skeleton)


def test_without_a_validation_set_the_loss_drives_the_plateau(data, tmp_path):
    recipe = tiny(data, "train.schedule.name=plateau", "train.schedule.patience=1", "train.optimizer.lr=0.0")
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"val": None})})
    run = prepare(recipe, tmp_path / "run")
    seen = []
    run.loop.schedule.__class__.observe, original = (
        lambda self, value: seen.append(value),
        run.loop.schedule.__class__.observe,
    )
    try:
        assert run.train() is None
    finally:
        run.loop.schedule.__class__.observe = original
    assert seen == [row["loss"] for row in run.loop.progress.rows]
    assert (run.monitor, run.loop.schedule.better) == (Monitor("loss", "lower"), "lower")
    assert "There was no validation set" in run.folder.report.read_text()
    assert not run.folder.best.exists()


def test_two_programs_do_not_train_in_one_folder(data, tmp_path):
    run = prepare(tiny(data), tmp_path / "run")
    child = os.fork()
    if child == 0:  # another process: locks of one's own do not bind
        try:
            RunFolder(tmp_path / "run").reopen()
        except BlockingIOError as error:
            os._exit(7 if f"process {os.getppid()}) is training in" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert run.folder.path.is_dir()


CLAIMS_AND_LEAVES_A_CHILD = """
import os, sys, time
from pathlib import Path
from poseglass.runs.folder import RunFolder
RunFolder(Path(sys.argv[1])).claim()
if os.fork() == 0:  # as a loader process, which outlives a killed program by seconds
    time.sleep(60)
    os._exit(0)
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_lock_goes_with_the_program_though_its_children_live(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMS_AND_LEAVES_A_CHILD, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as program:  # fmt: skip
        try:
            assert program.stdout.readline() == "claimed\n"
            with pytest.raises(BlockingIOError, match=rf"process {program.pid}\) is training in"):
                RunFolder(tmp_path).claim()
            program.kill()
            program.wait()
            os.killpg(program.pid, 0)  # the child is there
            RunFolder(tmp_path).claim()
        finally:
            os.killpg(program.pid, signal.SIGKILL)


def test_a_folder_that_was_deleted_is_claimed_anew(tmp_path):
    for _ in range(2):
        folder = RunFolder(tmp_path / "run")
        folder.path.mkdir()
        folder.claim()
        folder.claim()  # a second time is no conflict
        assert (tmp_path / "run" / "run.lock").read_text() == str(os.getpid())
        shutil.rmtree(folder.path)


def test_a_damaged_checkpoint_is_not_gone_on_from(data, tmp_path):
    prepare(tiny(data), tmp_path / "run").train()
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is not a complete training checkpoint"):
        prepare(tiny(data), tmp_path / "run", resume=True)
    path.unlink()
    assert prepare(tiny(data), tmp_path / "run", resume=True).loop.progress.step == 0


def test_a_folder_in_which_a_program_died_at_once_is_as_good_as_empty(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").touch()
    (tmp_path / "run" / ".recipe.toml.x.part").touch()
    with pytest.raises(FileNotFoundError, match=r"run holds no run to resume: there is no recipe\.toml in it"):
        prepare(tiny(data), tmp_path / "run", resume=True)
    prepare(tiny(data), tmp_path / "run")
    assert RunFolder(tmp_path / "run").stored_recipe() == tiny(data)
    assert RunFolder(tmp_path / "run").stored_recipe(["train.workers=3"]).train.workers == 3
    prepare(tiny(data), tmp_path / "run", resume=True)


WHOLE = (
    'network={name="centernet_light"}', 'codec={name="centernet"}', 'criterion={name="centernet"}',
    "input.size_wh=[32, 32]", 'evaluate.metrics=[{name="pck", normaliser="box_diagonal"}, {name="box_ap"}]',
)  # fmt: skip


def test_a_codec_of_several_instances_trains_on_whole_images(data, tmp_path):
    torch.set_num_threads(1)
    run = prepare(tiny(data, *WHOLE), tmp_path / "run")
    evaluation = run.train()
    assert run.examples.kind == "images"
    assert {"box_AP", "pck@0.2"} <= set(evaluation.results)
    assert (tmp_path / "run" / "report.html").is_file()
    detector = load_detector(tmp_path / "run" / "best.safetensors", min_box_score=0.0)
    found = detector(synthetic_people(1, seed=1, size_wh=(48, 48))[0].image)
    assert found.skeleton.keypoints == run.examples.skeleton.keypoints


def test_a_run_on_whole_images_is_resumed_bit_for_bit(data, tmp_path):
    straight = prepare(tiny(data, *WHOLE, "train.epochs=2"), tmp_path / "straight")
    straight.train()
    half = prepare(tiny(data, *WHOLE, "train.epochs=2"), tmp_path / "half")
    half.on_step = lambda progress, terms, lr: _interrupt_at(progress.step, 3)
    with pytest.raises(KeyboardInterrupt):
        half.train()
    half.save()
    prepare(tiny(data, *WHOLE, "train.epochs=2"), tmp_path / "half", resume=True).train()
    a, b = (read_weights(tmp_path / name / "last.safetensors")[0] for name in ("straight", "half"))
    assert all(a[key].equal(b[key]) for key in a)


def _interrupt_at(step: int, last: int) -> None:
    if step == last:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("", r"the losses of single outputs do not train\. Write criterion = \{ name = \"centernet"),
        ("data.cache_gb=1", r"data\.cache_gb is 1, but only crops can be cached, .* Omit data\.cache_gb"),
        (
            'evaluate={protocol={name="coco"}}',
            r"evaluate\.protocol is 'coco', which gives the boxes .* Write metrics instead",
        ),
    ],
)
def test_what_does_not_go_with_whole_images_is_refused(data, tmp_path, override, words):
    overrides = [each for each in WHOLE if override or "criterion" not in each]
    with pytest.raises(RecipeError, match=words):
        prepare(tiny(data, *overrides, *([override] if override else [])), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_recipe(data, tmp_path):
    prepare(tiny(data), tmp_path / "run").train()
    with pytest.raises(RecipeError, match=r"was started with network\.width = 16, not 32; a resumed run keeps"):
        prepare(tiny(data, "network.width=32"), tmp_path / "run", resume=True)
    prepare(tiny(data, "train.workers=1", "notes=x"), tmp_path / "run", resume=True)


def test_other_circumstances_are_told(data, tmp_path):
    prepare(tiny(data), tmp_path / "run").train()
    threads = torch.get_num_threads()
    assert prepare(tiny(data), tmp_path / "run", resume=True).note == ""
    torch.set_num_threads(threads + 1)
    try:
        note = prepare(tiny(data), tmp_path / "run", resume=True).note
    finally:
        torch.set_num_threads(threads)
    assert f"threads {threads} before, {threads + 1} now" in note
    assert "not bit for bit" in note


@pytest.mark.slow
def test_weights_to_start_from(data, tmp_path):
    first = prepare(tiny(data), tmp_path / "first")
    first.train()
    path = tmp_path / "start.safetensors"
    path.write_bytes(first.folder.last.read_bytes())
    second = prepare(tiny(data, f"train.init_from={path}"), tmp_path / "second")
    assert second.note == f"Started from {first.recipe.name} ({path}): all of its weights."
    for name, value in first.trained.state_dict().items():
        assert torch.equal(second.loop.network.state_dict()[name], value), name
    second.train()
    path.unlink()  # a run that goes on does not need them
    prepare(tiny(data, f"train.init_from={path}"), tmp_path / "second", resume=True)
    with pytest.raises(FileNotFoundError, match=r"start\.safetensors"):
        prepare(tiny(data, f"train.init_from={path}"), tmp_path / "third")


def two_layers(*, eps: float = 1e-5) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8, eps))


class Halved(nn.Module):
    """A backbone of one level at stride 4 under a 1x1 head."""

    stride, divisor = 4, 4

    def __init__(self, num_keypoints: int, *, backbone: dict | None = None) -> None:
        super().__init__()
        self.backbone = two_layers(**{k: v for k, v in (backbone or {}).items() if k != "name"})
        self.backbone.eps = (backbone or {}).get("eps", 1e-3)  # type: ignore[assignment]
        self.head = nn.Conv2d(8, num_keypoints, 1)

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [{"heatmap": self.head(self.backbone(images))}]


def test_a_backbone_to_start_from(data, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "halved", Halved)
    monkeypatch.setitem(BACKBONES, "two_layers", two_layers)
    weights = Halved(1).backbone.state_dict()
    path = tmp_path / "backbone.safetensors"
    card = WeightCard("halved-imagenet", {"name": "two_layers", "eps": 1e-3}, {}, None, InputSpec(), part="backbone")
    save_weights(path, weights, card)
    run = prepare(tiny(data, 'network={name="halved"}', f"train.init_from={path}"), tmp_path / "run")
    assert run.note == (
        f"Started from halved-imagenet ({path}): all of the backbone; the layers above it have initial values."
    )
    for name, value in weights.items():
        assert torch.equal(run.loop.network.state_dict()[f"backbone.{name}"], value), name
    network = 'network={name="halved", backbone={name="two_layers", eps=1e-5}}'
    with pytest.raises(RecipeError, match=r"with eps = 0\.001, but the network's has 1e-05\. Set eps of the network"):
        prepare(tiny(data, network, f"train.init_from={path}"), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"'halved-imagenet' are a backbone, but \w+ has none"):
        prepare(tiny(data, f"train.init_from={path}"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_network_may_use_less_of_a_backbone_than_was_trained(data, tmp_path):
    small = {"width": 4, "num_modules": [1, 1, 1], "num_blocks": 1, "num_bottlenecks": 1, "stem_width": 8}
    torch.manual_seed(1)
    weights = build(BACKBONES, "hrnet", **small).state_dict()  # all four resolutions, as for classification
    card = WeightCard("w4-imagenet", {"name": "hrnet", **small}, {}, None, InputSpec(), part="backbone")
    path = tmp_path / "backbone.safetensors"
    save_weights(path, weights, card)
    numbers = ", ".join(f"{key} = {value}" for key, value in small.items())
    run = prepare(tiny(data, f'network={{name="hrnet", {numbers}}}', f"train.init_from={path}"), tmp_path / "run")
    state = run.loop.network.state_dict()
    used = [name for name in weights if f"backbone.{name}" in state]
    assert 0 < len(used) < len(weights)
    assert all(torch.equal(state[f"backbone.{name}"], weights[name]) for name in used)
    assert f"{len(weights) - len(used)} tensors of the weights are unused: stages.2.0.exchange.1" in run.note


def test_sizes_change_with_the_epoch(data):
    recipe = tiny(data, "train.epochs=5", "train.sizes=[{epoch=3, size_wh=[64, 64]}, {epoch=1, size_wh=[48, 48]}]")
    assert crop_sizes(recipe) == [(32, 32), (48, 48), (48, 48), (64, 64), (64, 64)]
    with pytest.raises(RecipeError, match=r"input\.size_wh or train\.sizes: Input of 50 x 48 pixels"):
        prepare(tiny(data, "train.sizes=[{epoch=1, size_wh=[50, 48]}]"), Path("never"))


def test_a_key_that_a_part_does_not_take():
    with pytest.raises(
        RecipeError, match=r"network 'hg8' takes no 'stemm'\. Did you mean 'stem'\? Known: num_keypoints, stem"
    ):
        make(NETWORKS, {"name": "hg8", "num_keypoints": 3, "stemm": "newell"}, "network")
    with pytest.raises(RecipeError, match=r"network 'hg8' needs 'num_keypoints', which is missing\."):
        make(NETWORKS, {"name": "hg8"}, "network")
    with pytest.raises(LookupError, match=r"Unknown network 'hg9'\. Did you mean 'hg"):
        make(NETWORKS, {"name": "hg9"}, "network")
    with pytest.raises(RecipeError, match="is a str; a class or function is needed"):
        make(NETWORKS, {"name": "poseglass:__version__"}, "network")


def test_a_figure_that_cannot_be_had_is_found_before_training(data):
    val = synthetic_people(2, size_wh=(48, 48))
    recipe = tiny(data, "evaluate.monitor=pck@2")
    with pytest.raises(
        RecipeError, match=r"evaluate\.monitor is 'pck@2', but no metric computes it\. Did you mean 'pck@1'"
    ):
        check_evaluation(recipe, val, val.skeleton)
    with pytest.raises(LookupError, match=r"have no extra\['head_px'\]"):
        check_evaluation(tiny(data, 'evaluate.metrics=[{name="pckh", excluded=[]}]'), val, val.skeleton)
    with pytest.raises(ValueError, match=r"None of the 3 images of data\.val has a labelled person"):
        check_evaluation(tiny(data), synthetic_people(3, size_wh=(48, 48), people=0), val.skeleton)


def test_a_protocol_may_give_what_labels_lack(data):
    drawn = synthetic_people(2, size_wh=(48, 48))
    people = tuple(dataclasses.replace(drawn.instances(i), extra={}) for i in range(2))
    val = LabelledImages("d", drawn.skeleton, (Path("a"), Path("b")), people, (1, 2), np.array([[48, 48]] * 2))
    sigmas = [0.1] * len(val.skeleton)
    for more, problem in (("", "OKS needs the area"), (", box_area_factor = 0.53", "")):
        protocol = f'{{ name = "coco", sigmas = {sigmas}{more} }}'
        recipe = tiny(data, f'evaluate={{ protocol = {protocol}, monitor = "AP" }}')
        with pytest.raises(ValueError, match=problem) if problem else nullcontext():
            check_evaluation(recipe, val, val.skeleton)


def parts(*losses: str | dict) -> list[LossPart]:
    return [LossPart(name=loss) if isinstance(loss, str) else LossPart(**loss) for loss in losses]


def squared(prediction, target, weight, *, power: float = 2.0):
    return (((prediction - target).abs() ** power).mean((-1, -2)) * weight).mean()


def test_a_loss_that_reads_maps_otherwise_than_the_codec(data):
    with pytest.raises(
        RecipeError,
        match=r"loss\.0 is 'mse', which trains 'heatmap' with activation 'none', but the codec's is 'softmax'\. Write "
        r"codec\.activation = \"none\", or loss = \[\{ name = \"softmax_cross_entropy\" \}\]\.$",
    ):
        prepare(tiny(data, 'codec={name="heatmap", activation="softmax"}', 'loss=[{name="mse"}]'), Path("never"))
    with pytest.raises(RecipeError, match=r"or loss = \[\{ name = \"mse\" \}\]"):
        check_loss(parts("softmax_cross_entropy"), HeatmapCodec())
    with pytest.raises(LookupError, match=r"Unknown loss 'msee'\. Did you mean 'mse'"):
        check_loss(parts("msee"), HeatmapCodec())
    check_loss(parts("softmax_cross_entropy"), HeatmapCodec(activation="softmax"))
    check_loss(parts("mse", {"name": "mse", "weight": 2.0}), HeatmapCodec(), sigmas=(3.0, 2.0))
    check_loss(parts("mse", {"name": "offset", "weight": 0.5}), UdpCombinedCodec())
    check_loss(parts("softmax_cross_entropy"), SimccCodec())
    check_loss(parts("integral_l1", "jensen_shannon"), SoftArgmaxCodec())
    check_loss(parts("softmax_cross_entropy"), SoftArgmaxCodec())
    with pytest.raises(RecipeError, match=r"loss\.0 is 'mse', .*the codec's is 'softmax'\. Write loss = \[\{ name = "):
        check_loss(parts("mse", "integral_l1"), SoftArgmaxCodec())
    with pytest.raises(
        RecipeError, match=r'Write loss = \[\{ name = "mse", weight = 2\.0 \}, \{ name = "offset" \}\]\.$'
    ):
        check_loss(parts({"name": "softmax_cross_entropy", "weight": 2.0}, "offset"), UdpCombinedCodec())


def test_everything_that_the_codec_reads_is_trained_in_every_stage():
    with pytest.raises(
        RecipeError,
        match=r"loss trains heatmap, but the codec reads offset too\. Write loss = \[\{ name = \"mse\" \}, \{ name = "
        r"\"offset\" \}\]\.$",
    ):
        check_loss(parts("mse"), UdpCombinedCodec())
    with pytest.raises(
        RecipeError, match=r'reads heatmap too\. Write loss = \[\{ name = "offset" \}, \{ name = "mse" \}'
    ):
        check_loss(parts("offset"), UdpCombinedCodec())
    with pytest.raises(
        RecipeError,
        match=r"loss\.0: 'mse' applies to 'heatmap', but the codec reads 'x', 'y'\. Use another codec, or write "
        r"loss = \[\{ name = \"softmax_cross_entropy\" \}\]\.$",
    ):
        check_loss(parts("mse"), SimccCodec())
    with pytest.raises(
        RecipeError, match=r"loss\.0: 'integral_l1' compares 'heatmap' with 'xy', but the codec encodes 'heatm"
    ):
        check_loss(parts("integral_l1"), HeatmapCodec(activation="softmax"))
    with pytest.raises(
        RecipeError,
        match=r"trains x, but the codec reads y too\. Write loss = .*, of = \"x\" \}, \{ .*, of = \"y\" \}\]",
    ):
        check_loss(parts({"name": "softmax_cross_entropy", "of": "x"}), SimccCodec())
    staged = parts("mse", {"name": "offset", "stages": [0, 2]}, {"name": "mse_hard_keypoints", "stages": [1]})
    with pytest.raises(
        RecipeError,
        match=r"trains heatmap in stage 1, but the codec reads offset too\. .* \{ name = \"offset\", stages = \[1\]",
    ):
        check_loss(staged, UdpCombinedCodec())


def test_what_an_entry_is_of():
    with pytest.raises(
        RecipeError, match=r"loss\.0\.of is 'hetmap', but the codec reads 'heatmap'\. Did you mean 'heatmap'"
    ):
        check_loss(parts({"name": "mse", "of": "hetmap"}), HeatmapCodec())
    with pytest.raises(
        RecipeError, match=r"loss\.1\.of is 'offset', which 'mse' does not apply to; set of to 'heatmap'"
    ):
        check_loss(parts("offset", {"name": "mse", "of": "offset"}), UdpCombinedCodec())
    own = f"{__name__}:squared"
    check_loss(parts({"name": own, "power": 1.0}), HeatmapCodec())
    check_loss(parts({"name": own, "of": "x"}, {"name": own, "of": "y"}), SimccCodec())
    with pytest.raises(
        RecipeError, match=r"loss\.0 does not state which output .*reads 'x', 'y'\. Write .*, of = \"x\" \}\]\.$"
    ):
        check_loss(parts(own), SimccCodec())


def test_a_loss_refuses_its_numbers_before_training():
    hard = {"name": "mse_hard_keypoints", "hardest": 4}
    check_loss(parts(hard), HeatmapCodec())
    with pytest.raises(
        RecipeError, match=r"loss\.0: mse_hard_keypoints: hardest must be a whole number above 0, got 0"
    ):
        check_loss(parts(hard | {"hardest": 0}), HeatmapCodec())
    with pytest.raises(RecipeError, match=r"loss\.0\.powr: loss '.*:squared' takes no 'powr'\. Did you mean 'power'"):
        check_loss(parts({"name": f"{__name__}:squared", "powr": 1.0}), HeatmapCodec())


def test_losses_there_are_none_of_and_widths_without_gaussians():
    with pytest.raises(
        RecipeError, match=r'loss is an empty list\. Write loss = \[\{ name = "mse" \}, \{ name = "offset"'
    ):
        check_loss([], UdpCombinedCodec())
    with pytest.raises(RecipeError, match=r"stage_sigmas must be positive \(in heatmap pixels\)"):
        check_loss(parts("mse"), HeatmapCodec(), sigmas=(0.0,))
    with pytest.raises(RecipeError, match="the codec encodes no Gaussians"):
        check_loss(parts("mse", "offset"), UdpCombinedCodec(), sigmas=(2.0,))


class _Axes(nn.Module):
    """A head of two bins a pixel on the images themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.head = SimccHead(3, 3, size_wh=(64, 64), stride=1)

    def forward(self, images):
        return [self.head(images)]


def test_what_the_network_gives_must_be_what_the_codec_encodes(data):
    recipe = tiny(data)
    network = build(NETWORKS, "stacked_hourglass", num_keypoints=3, num_stacks=2, width=16, depth=2)
    check_shapes(network, HeatmapCodec(), [(64, 64)], recipe, 3)
    with pytest.raises(
        RecipeError, match=r"encodes 'x', but stage 0 of the network returns 'heatmap'\..*takes no head"
    ):
        check_shapes(network, SimccCodec(), [(64, 64)], recipe, 3)
    with pytest.raises(RecipeError, match=r"but the codec's are \(8, 8\)\. Set codec\.stride to 4"):
        check_shapes(network, HeatmapCodec(stride=8), [(64, 64)], recipe, 3)
    with pytest.raises(RecipeError, match=r"returns 'x' of 128 bins, but the codec encodes 192\. Set codec\.split and"):
        check_shapes(_Axes(), SimccCodec(split=3), [(64, 64)], recipe, 3)
    for stages, says in (
        ([0, 2], r"loss\.0\.stages has 2, but the network's stages are 0, 1\. Omit stages to apply the loss to all"),
        (
            [0],
            r'loss trains nothing in stage 1, but .* Write loss = \[.*\[0\] \}, \{ name = "mse", stages = \[1\] \}\]',
        ),
    ):
        changed = recipe.model_copy(update={"loss": parts({"name": "mse", "stages": stages})})
        with pytest.raises(RecipeError, match=says):
            check_shapes(network, HeatmapCodec(), [(64, 64)], changed, 3)
    with pytest.raises(
        RecipeError, match=r"stage_sigmas must have one entry or one per stage of the network \(2\), got 3"
    ):
        check_shapes(
            network, HeatmapCodec(), [(64, 64)], recipe.model_copy(update={"stage_sigmas": (1.0, 2.0, 3.0)}), 3
        )


def test_a_network_with_another_number_of_keypoints_is_refused(data):
    """One map would be compared with every target, and nobody would see it."""
    network = build(NETWORKS, "stacked_hourglass", num_keypoints=1, num_stacks=1, width=16, depth=2)
    with pytest.raises(RecipeError, match="The network returns maps of 1 keypoints, but the data have 3"):
        check_shapes(network, HeatmapCodec(), [(64, 64)], tiny(data), 3)


class _Given(nn.Module):
    """Gives what a function makes of the images."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, images):
        return self.make(images)


def test_a_network_that_fails_is_told_from_one_that_needs_numbers(data):
    recipe = tiny(data)
    for forward in (
        lambda images: [{"heatmap": images[images > 0]}], lambda images: images.max().item(),
        lambda images: images.numpy(), lambda images: images + torch.zeros(images.shape),
        lambda images: int(images.max()),
    ):  # fmt: skip
        check_shapes(_Given(forward), HeatmapCodec(), [(64, 64)], recipe, 3)
    for forward, says in (
        (lambda images: images @ images[..., 1:, :], r"network fails on images of \(2, 3, 64, 64\): RuntimeError"),
        (lambda images: images(), r"network fails on images of .*: TypeError"),
        (lambda images: [], r"The network returns list, expected a list of stages, each a dict"),
        (lambda images: images, r"The network returns Tensor, expected a list of stages, each a dict"),
    ):
        with pytest.raises(RecipeError, match=says):
            check_shapes(_Given(forward), HeatmapCodec(), [(64, 64)], recipe, 3)


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match=r"device must be auto, cpu, cuda, cuda:0, \.\.\., got 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ValueError, match="device 'cuda:99' is not available"):
        choose_device("cuda:99")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="device 'mps' is not available"):
            choose_device("mps")


def test_a_skeleton_is_given_to_a_dataset_by_name():
    drawn = make(DATASETS, {"name": "synthetic", "count": 1, "skeleton": "coco17"}, "dataset")
    assert len(drawn.skeleton) == 17


def test_the_curve_is_a_table(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_curve([{"epoch": 1.0, "loss": 0.25}, {"epoch": 2.0, "loss": 0.125, "val/pck": 1 / 3}])
    assert folder.curve.read_text() == "epoch,loss,val/pck\n1,0.25,\n2,0.125,0.333333\n"
    assert np.genfromtxt(folder.curve, delimiter=",", names=True)["loss"].tolist() == [0.25, 0.125]
