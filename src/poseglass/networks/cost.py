"""The cost of a network: parameters, multiply-adds, and time on this machine.

All results in poseglass follow one convention: one multiply-add counts as one operation. Convolutions and matrix
products are counted, by PyTorch's own operation counter, wherever they are called. A transposed convolution is counted
by its *input* positions, which is the arithmetic that is needed. Biases, normalisation, activations, resizing and sums
are not counted. The batch size is 1. Published tables often differ: the HRNet repository divides by 2^30 and counts
transposed convolutions by output positions; others count a multiply and an add as two operations.
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
    """Return the number of learnable parameters, without running statistics; a shared tensor counts once.

    Example:
        >>> parameters(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        240
    """
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, size_wh: tuple[int, int]) -> int:
    """Return the multiply-adds for one image, by the convention above.

    Only shapes are computed (on PyTorch's meta device): this takes half a second for the largest network here and no
    memory, at any size. The network is not changed, and may itself be on the meta device.

    Args:
        network: Maps images ``(B, 3, H, W)`` to any output.
        size_wh: Size of the image, pixels.

    Raises:
        ValueError: The network does not accept this size; the message is the network's own.

    Example:
        >>> multiply_adds(nn.Conv2d(3, 8, 3, stride=2, padding=1), (64, 32))
        110592
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import and rarely needed

    state: dict[str, Any] = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        state[name] = torch.empty_like(tensor, device="meta")
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    image = torch.empty(1, 3, size_wh[1], size_wh[0], device="meta", dtype=dtype)
    counter = FlopCounterMode(display=False)
    with _evaluating(network), torch.no_grad(), counter:
        functional_call(network, state, (image,))
    return counter.get_total_flops() // 2  # PyTorch counts a multiply and an add as two


def latency_ms(
    network: nn.Module, size_wh: tuple[int, int], *, batch: int = 1, repeats: int = 20, warm_up: int = 3
) -> float:
    """Return the median time of a forward pass on the network's device, as it is (dtype, memory layout, threads).

    Args:
        network: Maps images ``(B, 3, H, W)`` to any output; measured in evaluation mode, without gradients.
        size_wh: Size of the images, pixels.
        batch: Batch size; the time is that of the whole batch.
        repeats: Number of timed passes, of which the median is returned.
        warm_up: Number of passes before those, not timed.

    Raises:
        ValueError: A count below 1, or a size that the network does not accept.
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
    """Switch to evaluation mode inside the context; afterwards restore the mode of each module."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
