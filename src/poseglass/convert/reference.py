"""What the references of importers are written in: layers that take their tensors from a state by the original names.

A reference computes what the public network does without anything of ``networks``, so that an error in an importer's
reading of the layout cannot stand on both sides of a comparison. Evaluation mode, float32.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional


def conv(state: Mapping[str, Tensor], name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    """Convolve with ``NAME.weight``, and ``NAME.bias`` if there is one; odd kernels, padded to keep the size."""
    weight = state[f"{name}.weight"].float()
    bias = state.get(f"{name}.bias")
    return functional.conv2d(x, weight, None if bias is None else bias.float(), stride, weight.shape[-1] // 2)


def norm(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Normalise with the statistics of a BatchNorm, epsilon 1e-5."""
    mean, var, weight, bias = (
        state[f"{name}.{leaf}"].float() for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)


def norm_relu(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Normalise, then set what is below zero to zero."""
    return functional.relu(norm(state, name, x))


def doubled(x: Tensor, times: int = 2) -> Tensor:
    """Enlarge by repeating every pixel."""
    return functional.interpolate(x, scale_factor=times, mode="nearest")
