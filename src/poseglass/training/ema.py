"""An exponential moving average of a network's weights: less noisy than the last step, at almost no cost."""

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """A copy of the network with averaged weights.

    The decay warms up, ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the average forgets the random
    initial weights. Running statistics of batch norm are averaged too; counters are copied.

    Source:
        Polyak and Juditsky 1992; the warm-up is TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network's current weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        _lerp([mine[n] for n in floating], [theirs[n] for n in floating], 1 - decay)
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])


def _lerp(mine: list[Tensor], theirs: list[Tensor], weight: float) -> None:
    """Move each tensor towards its counterpart, in place."""
    # A private function that PyTorch's optimisers use: one call instead of one per tensor.
    together = getattr(torch, "_foreach_lerp_", None)
    if together is not None:
        together(mine, theirs, weight)
        return
    for own, other in zip(mine, theirs, strict=True):
        own.lerp_(other, weight)
