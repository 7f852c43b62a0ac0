"""Several processes share an evaluation, and find what one finds.

Images go through the network one crop at a time here, so that predictions are the same bit for bit and results can be
held to equality; with larger batches the network's rounding depends on what else is in the batch.
"""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import dataclasses

import numpy as np
import torch

from poseglass.codecs import HeatmapCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import COCO17
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.evaluate import evaluate
from poseglass.evaluation.mpii import MpiiProtocol
from poseglass.evaluation.summary import with_pairs
from poseglass.metrics import METRICS
from poseglass.networks import StackedHourglass
from poseglass.programs.torch_program import TorchProgram
from poseglass.synthetic import synthetic_people
from poseglass.training.distributed import ALONE, from_environment, join, leave
from poseglass.training.loop import Interrupted

processes = from_environment()
join(processes, torch.device("cpu"))
rank, first = processes.rank, processes.first

# Parts come to the first process by rank, and what fails in one process is raised in all.
assert processes.gather(lambda: rank) == ([0, 1, 2] if first else [rank])

def failing(where, error):
    def work():
        if rank in where:
            raise error(f"of {rank}")
        return rank
    try:
        processes.gather(work)
    except BaseException as caught:
        return f"{type(caught).__name__} {caught}"

assert failing([1], FileNotFoundError) == "FileNotFoundError of 1"
assert failing([1, 2], KeyboardInterrupt) == "KeyboardInterrupt of 1"
assert failing([0], ValueError) == "ValueError of 0"
try:
    processes.gather(lambda: (lambda: 0) if rank == 2 else 0)  # a function cannot be sent
    raise SystemExit("expected an error")
except (AttributeError, TypeError) as error:
    assert "lambda" in str(error)


class People:
    "Synthetic people with heads; every fourth image is of nobody."

    def __init__(self, count):
        numbers = {"size_wh": (48, 48), "skeleton": COCO17}
        self.parts = [synthetic_people(1, seed=i, people=i % 4, **numbers) for i in range(count)]
        self.skeleton = COCO17

    def __len__(self):
        return len(self.parts)

    def __getitem__(self, index):
        return self.parts[index][0]

    def instances(self, index):
        people = self.parts[index].instances(0)
        return dataclasses.replace(people, extra=people.extra | {"head_px": np.full(len(people), 9.0 + index)})

    def source(self, index):
        return f"{index}.png"

    def size_wh(self, index):
        return 48, 48

    def image(self, index, *, reduce=1):
        return self.parts[index].image(0)


torch.manual_seed(0)
network = StackedHourglass(17, num_stacks=1, width=16, depth=2)
program = TorchProgram(network, HeatmapCodec(activation="softmax"), COCO17, InputSpec((32, 32)))
estimator = TopDownEstimator(program, batch_size=1)


def judged(kind, dataset, who, on_image=None):
    if kind == "coco":  # every pose has the same score, so that all hangs on the order of the images
        protocol = CocoProtocol(flip_test=False, rescoring="box", nms="none", sigmas=(0.5,) * 17)
        found = protocol.evaluate(estimator, dataset, on_image=on_image, processes=who)
        pairs = with_pairs(found, estimator, dataset, processes=who)
        assert pairs.paired and pairs.results == found.results
        return found
    if kind == "mpii":
        protocol = MpiiProtocol(flip_test=False, head_factor=0.9, excluded=(), add_one=False, thresholds=(2.0, 4.0))
        return protocol.evaluate(estimator, dataset, on_image=on_image, processes=who)
    options = {"pck": {"thresholds": (1.0, 2.0)}, "pckh": {"excluded": (), "thresholds": (2.0,)}}
    # people have no boxes in space
    metrics = [make(**options.get(name, {})) for name, make in METRICS.items() if name != "kitti_ap"]
    return evaluate(estimator, dataset, metrics, on_image=on_image, processes=who)


for count in (11, 2):  # the second: one image with a person, for three processes
    dataset = People(count)
    for kind in ("metrics", "coco", "mpii"):
        alone, seen = judged(kind, dataset, ALONE), []
        together = judged(kind, dataset, processes, on_image=lambda: seen.append(1))
        np.testing.assert_equal(together.results, alone.results)
        np.testing.assert_equal(together.table, alone.table)
        assert len(together.indices) == len(together.predicted) == len(together.truth) == len(together.sources)
        images = processes.gather(lambda: len(seen))
        if not first:
            assert len(together.indices) == len(seen)
            assert together.indices == [i for i in alone.indices if i in set(together.indices)]
            continue
        assert together.indices == alone.indices
        assert together.sources == alone.sources
        assert sum(images) == len(alone.indices)
        if count == 11:
            assert min(images) > 0
            some = {"metrics": "errors/miss", "coco": "AP", "mpii": "pckh@2"}[kind]
            assert 0 < together.results[some] < 1, together.results
        for mine, theirs in ((together.predicted, alone.predicted), (together.truth, alone.truth)):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_equal(a.xy, b.xy)
                np.testing.assert_equal(a.box_score, b.box_score)
                np.testing.assert_equal(a.extra.get("head_px"), b.extra.get("head_px"))

# Somebody asks one process to stop: all of them leave, none waits.
def leave_if_last():
    if rank == 2:
        raise Interrupted

try:
    judged("metrics", People(11), processes, on_image=leave_if_last)
    raise SystemExit("expected an interrupt")
except Interrupted:
    pass
print("well", flush=True)
leave()
"""


@pytest.mark.slow
def test_three_processes_find_what_one_finds(tmp_path):
    (tmp_path / "together.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    done = subprocess.run(
        [*command, str(tmp_path / "together.py")],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("well") == 3
