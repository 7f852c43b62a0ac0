"""What a network costs: parameters, multiply-adds, and time on this machine.

The convention of every result in poseglass: one multiply-add is one; convolutions and matrix products count, which
PyTorch's own counter of operations sees wherever they are called; a transposed convolution is counted by its *input*
positions, the arithmetic that is needed; biases, normalisation, activations, resizing and sums are left out; batch 1.
Published tables often differ: the HRNet
repository divides by 2^30 and counts transposed convolutions by output positions, others count a multiply and an add
as two.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


def parameters(network: nn.Module) -> int:
    """Return the number of learnable numbers; running statistics are not among them, a shared tensor counts once.

    Example:
        >>> parameters(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        240
    """
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, size_wh: tuple[int, int]) -> int:
    """Return the multiply-adds of one image, by the convention above.

    Shapes alone are computed (PyTorch's meta device): half a second for the largest network here, no memory, at any
    size. The network stays as it is, and may itself lie on the meta device.

    Args:
        network: Images ``(B, 3, H, W)`` to anything.
        size_wh: Of the image, pixels.

    Raises:
        ValueError: The network does not take this size, in its own words.

    Example:
        >>> multiply_adds(nn.Conv2d(3, 8, 3, stride=2, padding=1), (64, 32))
        110592
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes a while, and few ask

    state: dict[str, Any] = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        state[name] = torch.empty_like(tensor, device="meta")
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    image = torch.empty(1, 3, size_wh[1], size_wh[0], device="meta", dtype=dtype)
    counter = FlopCounterMode(display=False)
    with _evaluating(network), torch.no_grad(), counter:
        functional_call(network, state, (image,))
    return counter.get_total_flops() // 2  # a multiply and an add are two there


def latency_ms(
    network: nn.Module, size_wh: tuple[int, int], *, batch: int = 1, repeats: int = 20, warm_up: int = 3
) -> float:
    """Return the median time of a forward pass on the network's device, as it is (dtype, memory layout, threads).

    Args:
        network: Images ``(B, 3, H, W)`` to anything; measured in evaluation mode, without gradients.
        size_wh: Of the images, pixels.
        batch: Images at once; the time is that of the whole batch.
        repeats: Passes of which the median is taken.
        warm_up: Passes before those.

    Raises:
        ValueError: A count below 1, or a size that the network does not take.
    """
    for name, value in (("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"latency_ms: {name} must be at least 1, got {value}.")
    first = next(network.parameters(), torch.empty(0))
    images = torch.full((batch, 3, size_wh[1], size_wh[0]), 0.5, device=first.device, dtype=first.dtype)
    seconds: list[float] = []
    with _evaluating(network), torch.inference_mode():
        for _ in range(warm_up + repeats):
            start = time.perf_counter()
            network(images)
            if first.device.type == "cuda":
                torch.cuda.synchronize(first.device)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warm_up:]) * 1000


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each module as it was."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
