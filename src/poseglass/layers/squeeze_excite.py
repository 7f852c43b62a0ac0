"""Squeeze-and-excitation (Hu et al. 2018, https://arxiv.org/abs/1709.01507), as MobileNetV3 uses it."""

from torch import Tensor, nn
from torch.nn import functional

from poseglass.layers.round_channels import round_channels


class SqueezeExcite(nn.Module):
    """Multiply each channel by a factor in [0, 1] computed from the means of all channels.

    Mean over the map, 1x1 to a quarter of the channels (rounded to a multiple of 8), ReLU, 1x1 back, hard sigmoid. The
    original uses a sixteenth and the exact sigmoid.

    Args:
        channels: Channels of input and output.

    Source:
        Howard et al. 2019, sections 5.2 and 5.3, https://arxiv.org/abs/1905.02244.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = round_channels(channels / 4)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, channels, h, w)`` to the same shape."""
        means = features.mean((2, 3), keepdim=True)
        weights = self.expand(functional.relu(self.reduce(means), inplace=True))
        return features * functional.hardsigmoid(weights)
