"""Two processes train as one: the same losses, and the same weights within rounding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from poseglass.datasets import synthetic_people, write_coco
from poseglass.engine.checkpoint import load_checkpoint
from poseglass.engine.processes import Processes
from poseglass.engine.recipe import Recipe, RecipeError
from poseglass.engine.run import prepare
from poseglass.engine.run_folder import RunFolder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """By plain SGD: Adam and RMSProp divide rounding noise by its own size where a gradient is zero in theory."""
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(12, seed=1, size_wh=(48, 48)), folder / "train.json", write_pictures=True)
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
                "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
                "schedule": {"name": "plateau", "patience": 1},
                "ema_decay": 0.9,
                "clip_norm": 1.0,
                "precision": "float32",
                "workers": 0,
            },
            "evaluate": {"metrics": [{"name": "pck", "limits": [1.0]}], "flip_test": False},
        }
    )


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "poseglass", "train", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def assert_close(one: RunFolder, other: RunFolder) -> None:
    a, b = (load_checkpoint(folder.checkpoint) for folder in (one, other))
    for kind in ("network", "ema"):
        x, y = (s["network"] if kind == "network" else s["ema"]["network"] for s in (a, b))
        assert x.keys() == y.keys()
        for name in x:
            torch.testing.assert_close(x[name], y[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    rows = [s["progress"]["rows"] for s in (a, b)]
    assert len(rows[0]) == len(rows[1]) == 2
    for mine, theirs in zip(*rows, strict=True):
        for name in ("epoch", "step", "lr", "loss", "heatmap/0", "heatmap/1"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4)


@pytest.mark.xfail(
    strict=False,
    reason="known fault: equal for the first steps (3e-5), then the weights of two processes drift from those of one",
)
def test_two_processes_give_the_weights_of_one(recipe, tmp_path):
    alone = prepare(recipe, tmp_path / "alone", processes=Processes())
    alone.train()
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    done = torchrun(tmp_path / "recipe.toml", "--run-folder", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert_close(alone.folder, RunFolder(tmp_path / "two"))
    # one process prints, measures and writes
    assert done.stdout.count("2 processes; run folder") == 1
    assert done.stdout.count("epoch 2/2") == 1
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in alone.folder.path.iterdir()}
    # and what two wrote goes on in one
    longer = Recipe.from_dict(recipe.model_dump(), overrides=["train.batch_size=4"])
    again = prepare(longer, tmp_path / "two", resume=True, processes=Processes())
    assert again.complete
    assert "processes 2 before, 1 now" in again.note


def test_a_batch_that_does_not_divide(recipe, tmp_path):
    with pytest.raises(
        RecipeError, match=r"train\.batch_size is 4, which does not divide among 3 processes\. Set it to"
    ):
        prepare(recipe, tmp_path / "run", processes=Processes(0, 3, 0))
    assert not (tmp_path / "run").exists()
