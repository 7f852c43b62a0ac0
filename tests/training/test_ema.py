import pytest
import torch
from torch import nn

from poseglass.training.ema import MovingAverage


def test_follows_fast_at_first_then_slowly():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.9)
    nn.init.ones_(network.weight)
    expected = 0.0
    for n in range(1, 101):
        average.update(network)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
        assert float(average.network.weight) == pytest.approx(expected, rel=1e-5)
    assert average.updates == 100


def test_averages_statistics_and_copies_counters():
    network = nn.BatchNorm2d(2)
    average = MovingAverage(network, 0.5)
    network(torch.full((2, 2, 1, 1), 10.0) + torch.randn(2, 2, 1, 1))
    average.update(network)
    kept, now = average.network.state_dict(), network.state_dict()
    assert kept["num_batches_tracked"] == now["num_batches_tracked"] == 1
    decay = 2 / 11
    torch.testing.assert_close(kept["running_mean"], (1 - decay) * now["running_mean"])


def test_the_copy_is_calm_and_apart():
    network = nn.BatchNorm2d(2).train()
    average = MovingAverage(network, 0.9)
    assert not average.network.training
    assert not any(p.requires_grad for p in average.network.parameters())
    nn.init.constant_(network.weight, 5.0)
    assert float(average.network.weight[0]) == 1.0
    assert network.training


def test_without_pytorch_s_private_function_it_is_the_same(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    fast, plain = MovingAverage(network, 0.9), MovingAverage(network, 0.9)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    fast.update(network)
    monkeypatch.delattr(torch, "_foreach_lerp_")
    plain.update(network)
    before, after = fast.network.state_dict(), plain.network.state_dict()
    assert not torch.equal(before["0.weight"], network.state_dict()["0.weight"])
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-7)
