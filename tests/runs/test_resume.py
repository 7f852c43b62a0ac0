"""A run that is stopped in whatever way goes on where it was and ends bit for bit where an undisturbed one ends."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from poseglass.estimators.weights_file import read_safetensors, read_weights, save_weights
from poseglass.readers import write_coco
from poseglass.runs.folder import RunFolder
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.runs.session import Run
from poseglass.synthetic import synthetic_people
from poseglass.training.checkpoint import load_checkpoint
from poseglass.training.loop import Progress

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plain_reports")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """Everything that keeps a state: sampler, augmentation, EMA, optimiser, plateau schedule, growing crops."""
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(14, seed=1, size_wh=(48, 48)), folder / "train.json", write_images=True)
    data = {"name": "coco", "annotations": str(folder / "train.json")}
    return Recipe.from_dict(
        {
            "name": "tiny",
            "seed": 3,
            "network": {"name": "stacked_hourglass", "num_stacks": 2, "width": 16, "depth": 2},
            "codec": {"name": "heatmap"},
            "input": {"size_wh": [32, 32]},
            "augment": [{"name": "random_affine"}, {"name": "color_jitter"}, {"name": "occlusion"}],
            "data": {"train": data, "val": data},
            "train": {
                "epochs": 4,
                "batch_size": 4,
                "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01},
                "schedule": {"name": "plateau", "warmup_steps": 3, "patience": 1},
                "ema_decay": 0.9,
                "clip_norm": 1.0,
                "workers": 0,
                "sizes": [{"epoch": 2, "size_wh": [48, 48]}],
                "checkpoint_seconds": 1e-9,  # after every step
            },
            "evaluate": {"metrics": [{"name": "pck", "thresholds": [1.0]}], "flip_test": False},
        }
    )


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program may catch it."""


def kill_after(run: Run, step: int) -> None:
    def on_step(progress: Progress, terms: dict[str, float], lr: float) -> None:
        if progress.step == step:
            raise Killed

    run.on_step = on_step


def assert_same(one: RunFolder, other: RunFolder) -> None:
    """Compare all that two runs left, but for the time they took."""
    states = [load_checkpoint(folder.checkpoint) for folder in (one, other)]
    for state in states:
        state["progress"].pop("seconds")
        for row in state["progress"]["rows"]:
            row.pop("train_seconds")
    assert set(states[0]) == set(states[1])
    same(states[0], states[1], "checkpoint")
    for name in ("best", "last"):
        tensors = [read_safetensors(getattr(folder, name))[0] for folder in (one, other)]
        same(tensors[0], tensors[1], name)
    curves = []
    for folder in (one, other):
        header, *rows = (line.split(",") for line in folder.curve.read_text().splitlines())
        drop = header.index("train_seconds")
        curves.append([[v for i, v in enumerate(line) if i != drop] for line in (header, *rows)])
    assert curves[0] == curves[1]


def same(a: object, b: object, where: str) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory) -> Run:
    run = prepare(recipe, tmp_path_factory.mktemp("runs") / "undisturbed")
    run.train()
    return run


def test_the_undisturbed_run_exercises_what_is_kept(undisturbed):
    state = load_checkpoint(undisturbed.folder.checkpoint)
    assert state["progress"]["step"] == 12
    assert state["ema"]["updates"] == 12
    assert state["schedule"]["dropped"] >= 1
    assert len({row["val/pck@1"] for row in state["progress"]["rows"]}) > 1


def test_ending_after_any_step_changes_nothing(recipe, undisturbed, tmp_path):
    """Steps 3, 6, 9 and 12 end an epoch, where on_step is not called: the checkpoint written there is one of these."""
    folder = tmp_path / "run"
    resume = False
    for step in (1, 2, 4, 5, 7, 8, 10, 11):
        run = prepare(recipe, folder, resume=resume)
        kill_after(run, step)
        with pytest.raises(Killed):
            run.train()
        resume = True
    run = prepare(recipe, folder, resume=True)
    assert run.loop.progress.step == 10  # killed before step 11 was saved
    run.train()
    assert_same(run.folder, undisturbed.folder)


def test_a_run_that_stops_early_may_be_ended_after_any_step(recipe, tmp_path):
    """At a rate of 1e-12 nothing gets better by more than chance."""
    early = changed(recipe, "train.epochs=30", "train.stop_after=2", "train.optimizer.lr=1e-12", "train.sizes=[]")
    undisturbed = prepare(early, tmp_path / "undisturbed")
    undisturbed.train()
    steps = undisturbed.loop.progress.step
    assert undisturbed.early_end
    assert undisturbed.loop.schedule.dropped >= 1
    run = prepare(early, tmp_path / "run")
    for step in (s for s in range(1, steps) if s % 3):  # every third ends an epoch
        kill_after(run, step)
        with pytest.raises(Killed):
            run.train()
        run = prepare(early, tmp_path / "run", resume=True)
    run.train()
    assert run.early_end == undisturbed.early_end
    assert_same(run.folder, undisturbed.folder)
    # ended after the last checkpoint and before the report: nothing is trained again
    run.folder.report.unlink()
    run.folder.last.unlink()
    again = prepare(early, tmp_path / "run", resume=True)
    assert again.complete
    again.train()
    assert_same(again.folder, undisturbed.folder)


def test_ending_while_an_epoch_is_measured_changes_nothing(recipe, undisturbed, tmp_path):
    folder = tmp_path / "run"
    run = prepare(recipe, folder)
    measure = Run.measure
    for where in ("before", "after"):
        with pytest.MonkeyPatch.context() as patch:

            def ended(self, *args, where=where, **more):
                if where == "before":
                    raise Killed
                measure(self, *args, **more)
                raise Killed

            patch.setattr(Run, "measure", ended)
            with pytest.raises(Killed):
                run.train()
        run = prepare(recipe, folder, resume=True)
    assert run.loop.progress.step == 2
    run.train()
    assert_same(run.folder, undisturbed.folder)


def test_being_asked_to_stop_while_an_epoch_is_measured_keeps_the_step(recipe, undisturbed, tmp_path):
    run = prepare(recipe, tmp_path / "run")
    measure = Run.measure
    with pytest.MonkeyPatch.context() as patch:

        def asked(self, *args, **more):
            signal.raise_signal(signal.SIGTERM)
            return measure(self, *args, **more)

        patch.setattr(Run, "measure", asked)
        with pytest.raises(KeyboardInterrupt):
            run.train()
    run = prepare(run.recipe, tmp_path / "run", resume=True)
    assert run.loop.progress.step == 3
    assert run.loop.progress.rows == []
    run.train()
    assert_same(run.folder, undisturbed.folder)


def test_loader_processes_and_a_used_generator_change_nothing(recipe, undisturbed, tmp_path):
    """Two loader processes instead of none; and torch's generator is where it was, whatever loaders draw from it."""
    two = Recipe.from_dict(recipe.model_dump(), overrides=["train.workers=2"])
    run = prepare(two, tmp_path / "run")
    kill_after(run, 5)
    with pytest.raises(Killed):
        run.train()
    torch.rand(7)
    run = prepare(recipe, tmp_path / "run", resume=True)
    run.train()
    assert_same(run.folder, undisturbed.folder)


FLAT = 'train.schedule={name="cosine", warmup_steps=2, decay_epochs=1}'


def changed(recipe: Recipe, *overrides: str) -> Recipe:
    return Recipe.from_dict(recipe.model_dump(), overrides=overrides)


@pytest.mark.parametrize("first_end", [9, 3], ids=["nearer", "further"])
def test_a_flat_run_can_be_given_another_end(recipe, tmp_path, first_end):
    """And is then, bit for bit, the run that was meant to end there from the beginning; its cards say so too."""
    meant = changed(recipe, FLAT, "train.epochs=4", "evaluate.every_epochs=2")
    prepare(meant, tmp_path / "meant").train()
    other = changed(meant, f"train.epochs={first_end}")
    run = prepare(other, tmp_path / "run")
    kill_after(run, 5)
    with pytest.raises(Killed):
        run.train()
    # what does not change the weights is not kept, the end is
    moved = prepare(changed(meant, "train.workers=1"), tmp_path / "run", resume=True)
    assert moved.folder.stored_recipe() == meant
    assert f"The end was moved from epoch {first_end} to 4." in moved.note
    again = prepare(meant, tmp_path / "run", resume=True)
    assert "moved" not in again.note
    again.train()
    assert_same(again.folder, RunFolder(tmp_path / "meant"))
    for name in ("best", "last"):
        assert read_weights(getattr(again.folder, name))[1].recipe == meant.to_toml()
    with pytest.raises(
        RecipeError, match=r"epochs = 4, not 9\. Its end can be changed until step 9, .* 12 steps are done"
    ):
        prepare(changed(meant, "train.epochs=9"), tmp_path / "run", resume=True)


def test_a_finished_run_of_a_constant_rate_goes_on(recipe, tmp_path):
    constant = changed(recipe, 'train.schedule={name="constant"}', "train.sizes=[]")
    short, long = changed(constant, "train.epochs=2"), changed(constant, "train.epochs=3")
    prepare(short, tmp_path / "run").train()
    prepare(long, tmp_path / "meant").train()
    run = prepare(long, tmp_path / "run", resume=True)
    assert not run.folder.last.exists()  # of the earlier end
    assert not run.folder.report.exists()
    run.train()
    assert_same(run.folder, RunFolder(tmp_path / "meant"))
    # a last epoch whose number would not ask for it has been measured: too late
    odd = changed(constant, "train.epochs=3", "evaluate.every_epochs=2")
    prepare(odd, tmp_path / "odd").train()
    with pytest.raises(RecipeError, match=r"Its end can be changed until step 8, .* 9 steps are done"):
        prepare(changed(odd, "train.epochs=4"), tmp_path / "odd", resume=True)


def test_another_end_may_not_change_the_sizes_of_crops(recipe, tmp_path):
    flat = changed(recipe, 'train.schedule={name="constant"}')
    run = prepare(flat, tmp_path / "run")
    kill_after(run, 2)
    with pytest.raises(Killed):
        run.train()
    with pytest.raises(RecipeError, match=r"With train\.epochs = 2 crops have other sizes than with 4"):
        prepare(changed(flat, "train.epochs=2"), tmp_path / "run", resume=True)


def test_another_end_keeps_no_weights_of_steps_that_are_undone(recipe, tmp_path):
    """Ended between writing the best weights and the checkpoint: they belong to the end that was meant then."""
    near, far = (changed(recipe, FLAT, "train.sizes=[]", f"train.epochs={n}") for n in (3, 9))
    run = prepare(near, tmp_path / "run")
    kill_after(run, 5)
    with pytest.raises(Killed):
        run.train()
    weights, card = read_weights(run.folder.best)
    save_weights(run.folder.best, weights, replace(card, results={"val pck@1": 2.0}))
    with pytest.raises(RecipeError, match=r"best\.safetensors was written after the last checkpoint, in steps towards"):
        prepare(far, tmp_path / "run", resume=True)
    assert run.folder.stored_recipe() == near
    prepare(near, tmp_path / "run", resume=True)


# ---- the real command, really killed -------------------------------------------------------------------------------

# The command, with a process that dies inside fsync, with a checkpoint half written.
DIES_WRITING = """
import os, signal
from poseglass.cli import main
sync, count = os.fsync, 0
def fsync(handle):
    global count
    count += 1
    if count == 7:  # recipe, environment, steps 1 and 2, best weights, curve; and now step 3
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)
os.fsync = fsync
main()
"""


@pytest.fixture
def start():
    """Start the command; whatever still runs when the test ends is ended."""
    started: list[subprocess.Popen] = []

    def command(arguments: list[str], code: str | None = None) -> subprocess.Popen:
        words = [sys.executable, *(("-c", code) if code else ("-m", "poseglass")), "train", *arguments]
        started.append(
            subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                # a shell that starts the tests in the background has them ignore Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        return started[-1]

    yield command
    for process in started:
        process.kill()
        process.communicate()


def wait_for_saves(path: Path, count: int, process: subprocess.Popen) -> None:
    """Wait until a file has been replaced some times."""
    seen: set[tuple[int, int]] = set()
    while len(seen) < count and process.poll() is None:
        if path.exists():
            seen.add((path.stat().st_ino, path.stat().st_mtime_ns))
        time.sleep(0.001)


def test_killing_the_command(recipe, tmp_path, start):
    longer = Recipe.from_dict(recipe.model_dump(), overrides=["train.epochs=20", "train.workers=1"])
    (tmp_path / "recipe.toml").write_text(longer.to_toml())
    new = [str(tmp_path / "recipe.toml"), "--run"]
    undisturbed = start([*new, str(tmp_path / "undisturbed")])

    folder = RunFolder(tmp_path / "killed")
    process = start([*new, str(folder.path)], DIES_WRITING)
    assert process.wait(300) == -signal.SIGKILL
    parts = list(folder.path.glob(".*.part"))
    assert [part.name[:15] for part in parts] == [".checkpoint.pt."]
    step = load_checkpoint(folder.checkpoint)["progress"]["step"]
    assert step == 2

    again = ["--resume", "--run", str(folder.path)]
    process = start(again)
    wait_for_saves(folder.checkpoint, 4, process)
    time.sleep(random.uniform(0.0, 0.05))
    process.kill()
    assert process.wait(300) == -signal.SIGKILL
    assert not parts[0].exists()
    before, step = step, load_checkpoint(folder.checkpoint)["progress"]["step"]
    assert before < step < 60

    process = start(again)
    wait_for_saves(folder.checkpoint, 3, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the loader process gets it too
    _, words = process.communicate(timeout=300)
    assert process.returncode == 130, words
    assert words.count("\n") == 1
    assert f"stopped; a checkpoint is kept. Continue with: poseglass train --resume --run {folder.path}" in words
    before, step = step, load_checkpoint(folder.checkpoint)["progress"]["step"]
    assert before < step < 60

    process = start(again)
    out, words = process.communicate(timeout=300)
    assert process.returncode == 0, words
    assert f"resuming from step {step} of 60" in out
    out, words = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, words
    assert_same(folder, RunFolder(tmp_path / "undisturbed"))
    assert not list(folder.path.glob(".*.part"))
