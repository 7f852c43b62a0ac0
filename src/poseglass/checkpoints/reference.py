"""Layers for the references of importers; they take their tensors from a state by the original names.

A reference computes what the public network does without any code from ``networks``, so that an error in an importer's
reading of the layout cannot affect both sides of a comparison. Evaluation mode, float32.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional


def conv(state: Mapping[str, Tensor], name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    """Convolve with ``NAME.weight``, and ``NAME.bias`` if it exists; odd kernels, padded to keep the size."""
    weight = state[f"{name}.weight"].float()
    bias = state.get(f"{name}.bias")
    return functional.conv2d(x, weight, None if bias is None else bias.float(), stride, weight.shape[-1] // 2)


def norm(state: Mapping[str, Tensor], name: str, x: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Normalise with the running statistics of a batch norm."""
    mean, var, weight, bias = (
        state[f"{name}.{leaf}"].float() for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)


def norm_relu(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Apply batch norm and ReLU."""
    return functional.relu(norm(state, name, x))


def doubled(x: Tensor, times: int = 2) -> Tensor:
    """Upsample by repeating every pixel."""
    return functional.interpolate(x, scale_factor=times, mode="nearest")


def pooled(x: Tensor) -> Tensor:
    """Apply 3 x 3 max pooling with stride 2 and a padding of one, as ResNets do after their first convolution."""
    return functional.max_pool2d(x, 3, 2, 1)


def conv_bn(state: Mapping[str, Tensor], name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    """Apply ``NAME.conv``, then ``NAME.bn`` and a ReLU if there is one: mmpose's naming of such a group."""
    x = conv(state, f"{name}.conv", x, stride=stride)
    return norm_relu(state, f"{name}.bn", x) if f"{name}.bn.weight" in state else x


def blocks(state: Mapping[str, Tensor], name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    """Apply ``NAME.0``, ``NAME.1``, ...: ResNet's basic or bottleneck blocks, the first with a stride.

    A bottleneck has its stride in the 3 x 3 convolution (He et al. 2015, table 1, as torchvision builds it).
    """
    i = 0
    while f"{name}.{i}.conv1.weight" in state:
        x, i = block(state, f"{name}.{i}", x, stride=stride if i == 0 else 1), i + 1
    return x


def block(state: Mapping[str, Tensor], name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    """Apply one basic or bottleneck block: ``conv1``, ``bn1``, ..., and ``downsample`` if the shape changes."""
    convs = 3 if f"{name}.conv3.weight" in state else 2
    inside = x
    for k in range(1, convs + 1):
        inside = conv(state, f"{name}.conv{k}", inside, stride=stride if k == convs - 1 else 1)
        inside = norm(state, f"{name}.bn{k}", inside)
        inside = functional.relu(inside) if k < convs else inside
    if f"{name}.downsample.0.weight" in state:
        x = norm(state, f"{name}.downsample.1", conv(state, f"{name}.downsample.0", x, stride=stride))
    return functional.relu(inside + x)
