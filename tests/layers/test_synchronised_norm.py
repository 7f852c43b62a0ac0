import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from poseglass.layers.synchronised_norm import SynchronisedBatchNorm, synchronise_norms

# Two processes, each with its part of a batch (of different sizes), write what they compute.
SCRIPT = """
import sys, torch
from torch import distributed
from poseglass.layers.synchronised_norm import SynchronisedBatchNorm

folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
parts = {}
for name, case in given.items():
    norm = SynchronisedBatchNorm(case["images"].shape[1], momentum=case["momentum"], affine=case["affine"])
    norm.load_state_dict(case["state"])
    mine = case["images"].split([1, 3])[rank].clone().requires_grad_()
    out = norm(mine)
    loss = (out.float() * case["upper"].split([1, 3])[rank]).sum()
    loss.backward()
    norm.eval()
    parts[name] = {
        "out": out.detach(), "grad": mine.grad, "state": norm.state_dict(), "calm": norm(mine).detach(),
        "weights": [p.grad for p in norm.parameters()],
    }
try:
    SynchronisedBatchNorm(2)(torch.zeros(0, 2, 1, 1))
except ValueError as error:
    parts["error"] = str(error)
torch.save(parts, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def case(shape: tuple[int, ...], *, affine: bool = True, momentum: float | None = 0.1, dtype=torch.float32) -> dict:
    generator = torch.Generator().manual_seed(5)
    norm = nn.BatchNorm2d(shape[1], momentum=momentum, affine=affine)
    if affine:
        nn.init.normal_(norm.weight, generator=generator)
        nn.init.normal_(norm.bias, generator=generator)
    images = torch.randn(shape, generator=generator)
    images[:1] += 100.0  # the parts differ in mean: joining them must not lose the variance
    return {
        "images": images.to(dtype).contiguous(memory_format=torch.channels_last),
        "upper": torch.randn(shape, generator=generator),
        "state": norm.state_dict(), "affine": affine, "momentum": momentum,
    }  # fmt: skip


CASES = {
    "usual": case((4, 6, 5, 7)),
    "plain": case((4, 3, 2, 2), affine=False),
    "cumulative": case((4, 3, 2, 2), momentum=None),
    "bfloat16": case((4, 3, 4, 4), dtype=torch.bfloat16),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("norm")
    torch.save(CASES, folder / "given.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(rank)], env=environment, cwd=Path.cwd())
        for rank in range(2)
    ]
    assert [process.wait(300) for process in both] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def alone(given: dict) -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
    norm = nn.BatchNorm2d(given["images"].shape[1], momentum=given["momentum"], affine=given["affine"])
    norm.load_state_dict(given["state"])
    images = given["images"].clone().requires_grad_()
    out = norm(images)
    (out.float() * given["upper"]).sum().backward()
    return norm, images, out.detach()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_compute_what_one_does(parts, name):
    norm, images, out = alone(CASES[name])
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if name == "bfloat16" else {"rtol": 1e-4, "atol": 1e-4}
    mine = [part[name] for part in parts]
    assert mine[0]["out"].dtype == CASES[name]["images"].dtype
    torch.testing.assert_close(torch.cat([p["out"] for p in mine]), out, **tolerance)
    torch.testing.assert_close(torch.cat([p["grad"] for p in mine]), images.grad, **tolerance)
    for i, parameter in enumerate(norm.parameters()):
        torch.testing.assert_close(mine[0]["weights"][i] + mine[1]["weights"][i], parameter.grad, **tolerance)
    for key, value in norm.state_dict().items():
        torch.testing.assert_close(mine[0]["state"][key], value, rtol=1e-5, atol=1e-4)
        assert torch.equal(mine[0]["state"][key], mine[1]["state"][key])
    norm.eval()
    torch.testing.assert_close(torch.cat([p["calm"] for p in mine]), norm(images).detach(), **tolerance)


@pytest.mark.slow
def test_too_few_values_are_refused(parts):
    assert "needs more than 1 value per channel" in parts[0]["error"]


def test_converting_keeps_names_tensors_and_results():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    network[2].eval()
    before, weight, names = copy.deepcopy(network), network[1].weight, list(network.state_dict())
    made = synchronise_norms(network, torch.device("cpu"))
    assert made is network
    assert isinstance(network[1], SynchronisedBatchNorm)
    assert network[1].training
    assert not network[2][0].training
    assert network[1].weight is weight
    assert list(network.state_dict()) == names
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(network(images), before(images), rtol=0, atol=0)
    torch.testing.assert_close(network.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert synchronise_norms(network, torch.device("cpu"))[1] is network[1]
    assert isinstance(synchronise_norms(nn.BatchNorm2d(2), torch.device("cpu")), SynchronisedBatchNorm)


def test_axes_are_checked():
    with pytest.raises(ValueError, match=r"takes \(B, C, ...\), got 1 axes"):
        SynchronisedBatchNorm(3)(torch.zeros(3))
