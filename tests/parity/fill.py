"""Weights and images by formula, so that parity with public code is tested without storing any weights.

What is random here is raw output of PCG64 seeded by NumPy's SeedSequence, which NumPy keeps the same in every version;
its distributions (``standard_normal``) it does not.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent


def uniform(seed: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Return numbers of ``shape`` in [-1, 1), float32, the same for the same seed everywhere."""
    raw = np.random.PCG64(seed).random_raw(math.prod(shape)).view(np.int64) >> 40  # 24 bits: exact in float32
    return (raw.astype(np.float32) * np.float32(2.0**-23)).reshape(shape)


def fill(shapes: Mapping[str, Sequence[int]], gain: float = 1.0) -> dict[str, Tensor]:
    """Return a state dict of those names and shapes; what a value is depends on its name alone, not on the order.

    Args:
        shapes: By name.
        gain: Factor of kernels. Without shortcuts around its layers, a network wants 1.5 for its first layers to show
            in its output.
    """
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        leaf = name.rpartition(".")[2]
        if leaf == "num_batches_tracked":
            state[name] = torch.zeros(tuple(shape), dtype=torch.int64)
            continue
        value = uniform([zlib.crc32(name.encode())], shape)
        if leaf == "running_var":
            value = np.float32(1) + np.float32(0.5) * value
        elif leaf in ("running_mean", "bias"):
            value = np.float32(0.2) * value
        elif len(shape) == 1:  # the scale of a normalisation layer
            value = np.float32(1) + np.float32(0.2) * value
        else:  # a kernel, of variance gain^2 / fan-in
            value = np.float32(gain * math.sqrt(3 / math.prod(shape[1:]))) * value
        state[name] = torch.from_numpy(value)
    return state


def image(height: int, width: int) -> Tensor:
    """Return one image ``(1, 3, height, width)`` with values in [0, 1)."""
    return torch.from_numpy(uniform([7], (1, 3, height, width)) / 2 + np.float32(0.5))


def names_and_shapes(name: str) -> dict[str, list[int]]:
    """Return the state dict's names and shapes of a recorded network."""
    with np.load(HERE / "networks" / f"{name}.npz") as file:
        return json.loads(file["names_and_shapes"].tobytes())


def output(name: str) -> np.ndarray:
    """Return what the public code computed for ``fill(names_and_shapes(name), gain)`` and ``image``."""
    with np.load(HERE / "networks" / f"{name}.npz") as file:
        return file["output"]


def noisy(targets: np.ndarray) -> np.ndarray:
    """Return what a network might answer: targets with noise of 0.02 about them, float16."""
    return (targets + np.float32(0.02 * math.sqrt(3)) * uniform([3], targets.shape)).astype(np.float16)


def integral_maps() -> np.ndarray:
    """Return logits ``(3, 17, 64, 48)``, float32: one peak above noise in each, whose softmax it does not fill."""
    maps = uniform([4], (3, 17, 64, 48))
    x, y = ((uniform([seed], (3, 17)) / 2 + np.float32(0.5)) * size for seed, size in ((5, 48), (6, 64)))
    away = (np.arange(48) - x[..., None, None]) ** 2 + (np.arange(64)[:, None] - y[..., None, None]) ** 2
    return (maps + 10 * (away < 8)).astype(np.float32)


def recorded_codec(name: str) -> dict[str, np.ndarray]:
    """Return what a codec of mmpose encoded and decoded, and what it decoded from (``network_output...``)."""
    with np.load(HERE / "codecs" / f"{name}.npz") as file:
        data = dict(file)
    for key in [key for key in data if key.startswith("encoded_") and not key.endswith("weights")]:
        kind = key.removeprefix("encoded_").removeprefix("heatmaps").removeprefix("keypoint_").removesuffix("_labels")
        if kind:  # SimCC's "x" and "y": (N, 1, K, bins) as encoded, (N, K, bins) as a network gives them
            data[f"network_output_{kind}"] = noisy(data[key])[:, 0]
        else:
            data["network_output"] = noisy(data[key])
    return data
