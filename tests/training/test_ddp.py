"""Two processes train as one: the same losses, and the same weights within rounding.

How much of the rounding is left in the weights hangs on the network: a step of this tiny one, by SGD at a rate of 0.1,
makes of a difference of 1e-7 one of 1e-4 (the norms divide by variances near zero). So the command is held to one
process at a small rate, and the arithmetic at that large one in double precision: there rounding (of the loss, which
is single all the same) comes to 3e-8 after six steps, and an error of a thousandth in one sum to far more than 1e-6.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from poseglass.readers import write_coco
from poseglass.runs.folder import RunFolder
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import synthetic_people
from poseglass.training.checkpoint import load_checkpoint
from poseglass.training.distributed import Processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """By plain SGD: Adam and RMSProp divide rounding noise by its own size where a gradient is zero in theory."""
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(12, seed=1, size_wh=(48, 48)), folder / "train.json", write_images=True)
    data = {"name": "coco", "annotations": str(folder / "train.json")}
    return Recipe.from_dict(
        {
            "name": "two",
            "network": {"name": "stacked_hourglass", "num_stacks": 2, "width": 16, "depth": 2},
            "codec": {"name": "heatmap"},
            "input": {"size_wh": [32, 32]},
            "augment": [{"name": "random_affine"}],
            "data": {"train": data, "val": data},
            "train": {
                "epochs": 2,
                "batch_size": 4,
                "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.9},
                "schedule": {"name": "plateau", "patience": 1},
                "ema_decay": 0.9,
                "clip_norm": 1.0,
                "precision": "float32",
                "workers": 0,
            },
            "evaluate": {"metrics": [{"name": "pck", "thresholds": [1.0]}], "flip_test": False},
        }
    )


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment
    )


def relative(value: Tensor, truth: Tensor) -> float:
    """Return the largest difference, as a share of the largest value; a counter must be the same."""
    if not value.is_floating_point():
        return float(not torch.equal(value, truth))
    return float((value - truth).abs().max() / truth.abs().max().clamp_min(1e-2))


def assert_close(one: RunFolder, other: RunFolder, start: dict[str, Tensor]) -> None:
    """Compare what training has changed: a weight has moved by a few thousandths, its rounding is of 1e-7."""
    a, b = (load_checkpoint(folder.checkpoint) for folder in (one, other))
    moved = []
    for kind in ("network", "ema"):
        x, y = (s["network"] if kind == "network" else s["ema"]["network"] for s in (a, b))
        assert x.keys() == y.keys()
        for name in x:
            assert relative(x[name], y[name]) < 1e-4, name
            if kind == "network" and x[name].is_floating_point() and "running" not in name:
                moved.append((x[name] - start[name], y[name] - start[name]))
    mine, theirs = (torch.cat([pair[i].flatten() for pair in moved]) for i in (0, 1))
    assert mine.norm() > 1e-3
    assert (mine - theirs).norm() < 1e-2 * mine.norm()
    rows = [s["progress"]["rows"] for s in (a, b)]
    assert len(rows[0]) == len(rows[1]) == 2
    for mine, theirs in zip(*rows, strict=True):
        for name in ("epoch", "step", "lr", "loss", "heatmap/0", "heatmap/1"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4)
        # what is measured of them too, but for a keypoint on the threshold
        assert mine["val/pck@1"] == pytest.approx(theirs["val/pck@1"], abs=1.5 / (12 * 14))
        assert mine.keys() == theirs.keys()


def test_two_processes_give_the_weights_of_one(recipe, tmp_path):
    alone = prepare(recipe, tmp_path / "alone", processes=Processes())
    start = {name: value.clone() for name, value in alone.loop.network.state_dict().items()}
    alone.train()
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    done = torchrun("-m", "poseglass", "train", tmp_path / "recipe.toml", "--run-folder", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert_close(alone.folder, RunFolder(tmp_path / "two"), start)
    # one process prints and writes
    assert done.stdout.count("2 processes; run folder") == 1
    assert done.stdout.count("epoch 2/2") == 1
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in alone.folder.path.iterdir()}
    # two are given another end together
    done = torchrun(
        "-m", "poseglass", "train", "--resume", "--run-folder", tmp_path / "two", "--set", "train.epochs=3"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "The end was moved from epoch 2 to 3." in done.stdout
    assert done.stdout.count("epoch 3/3") == 1
    # and what two wrote goes on in one
    longer = RunFolder(tmp_path / "two").stored_recipe()
    again = prepare(longer, tmp_path / "two", resume=True, processes=Processes())
    assert again.complete
    assert "processes 2 before, 1 now" in again.note


# The same run with network and images in double precision, at a hundred times the rate.
DOUBLE = """
import sys
from pathlib import Path
import torch
import poseglass.runs.session as module
from poseglass.core.targets import ModelInput
from poseglass.runs.prepare import prepare
from poseglass.training.distributed import leave
from poseglass.runs.recipe import Recipe

plain = module.supervised

def in_double(*parts, **by_name):
    step = plain(*parts, **by_name)
    def cast(network, batch):
        return step(network, ModelInput(batch.images.double(), batch.targets))
    return cast

module.supervised = in_double
run = prepare(Recipe.read(sys.argv[1], ["train.optimizer.lr=0.1", "evaluate.metrics=[]"]), Path(sys.argv[2]))
run.loop.network.double()
if run.loop.ema is not None:
    run.loop.ema.network.double()
with module.asked_to_stop() as asked:
    run._fit(asked)
if run.processes.first:
    torch.save(run.loop.state(), sys.argv[3])
leave()
"""


def test_in_double_precision_two_processes_agree_to_six_digits(recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    (tmp_path / "double.py").write_text(DOUBLE)
    names = ["recipe.toml", "alone", "alone.pt"]
    alone = subprocess.run(
        [sys.executable, str(tmp_path / "double.py"), *(str(tmp_path / n) for n in names)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    done = torchrun(tmp_path / "double.py", tmp_path / "recipe.toml", tmp_path / "two", tmp_path / "two.pt")
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("alone", "two"))
    assert one["progress"]["step"] == two["progress"]["step"] == 6
    assert one["network"]["stem.conv.weight"].dtype == torch.float64
    start = prepare(recipe, tmp_path / "start", processes=Processes()).loop.network.state_dict()
    assert (one["network"]["stem.conv.weight"] - start["stem.conv.weight"]).abs().max() > 1e-2
    for a, b in ((one["network"], two["network"]), (one["ema"]["network"], two["ema"]["network"])):
        for name, value in a.items():
            assert relative(b[name], value) < 1e-6, name


# A run of which nothing gets better; and the same, interrupted in one of its processes while it is measured.
EARLY = """
import signal
import sys
from pathlib import Path
import poseglass.runs.finish
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe
from poseglass.runs.session import Run
from poseglass.training.distributed import leave

poseglass.runs.finish.write_report = lambda path, report: path.write_text(str(report.notes))
never = 'evaluate.metrics=[{name="pck", thresholds=[1e-9]}, {name="pck", thresholds=[1.0]}]'
recipe = Recipe.read(sys.argv[1], ["train.stop_after=2", "train.epochs=9", never])
run = prepare(recipe, Path(sys.argv[2]) / "undisturbed")
evaluation = run.train()
first = run.processes.first
assert (evaluation is not None) == first
assert run.complete
ema = run.loop.ema.network.state_dict()
ends = run.processes.gather(lambda: (run.loop.progress.step, run.early_end, [v.tolist() for v in ema.values()]))
assert not first or ends[0] == ends[1]

run = prepare(recipe, Path(sys.argv[2]) / "told")
measure = Run.measure

def told(self, *arguments, **more):
    if not first:
        signal.raise_signal(signal.SIGTERM)
    return measure(self, *arguments, **more)

Run.measure = told
try:
    run.train()
    raise SystemExit("expected an interrupt")
except KeyboardInterrupt:
    pass
Run.measure = measure
run = prepare(recipe, Path(sys.argv[2]) / "told", resume=True)
assert run.loop.progress.step == 3
assert run.loop.progress.rows == []
run.train()
leave()
"""


def test_two_processes_stop_early_together_and_may_be_interrupted_while_they_measure(recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    (tmp_path / "early.py").write_text(EARLY)
    done = torchrun(tmp_path / "early.py", tmp_path / "recipe.toml", tmp_path)
    assert done.returncode == 0, done.stderr
    folders = [RunFolder(tmp_path / name) for name in ("undisturbed", "told")]
    states = [load_checkpoint(folder.checkpoint) for folder in folders]
    for state in states:
        state["progress"].pop("seconds")
        assert [row.pop("train_seconds") > 0 for row in state["progress"]["rows"]] == [True] * 3
    assert states[0]["progress"] == states[1]["progress"]
    assert states[0]["schedule"] == states[1]["schedule"]
    for name, value in states[0]["network"].items():
        assert torch.equal(states[1]["network"][name], value), name
    for folder in folders:
        assert "stopped early, after epoch 3 of 9: no new best pck@1e-09 in 2 evaluations" in folder.report.read_text()
        assert "12 people in 12 images" in folder.report.read_text()


def test_a_batch_that_does_not_divide(recipe, tmp_path):
    with pytest.raises(RecipeError, match=r"train\.batch_size is 4, which is not divisible by 3 processes\. Set it to"):
        prepare(recipe, tmp_path / "run", processes=Processes(0, 3, 0))
    assert not (tmp_path / "run").exists()
