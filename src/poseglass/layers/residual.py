"""The pre-activation bottleneck residual (He et al. 2016, arXiv 1603.05027) as hourglass networks use it."""

from torch import Tensor, nn
from torch.nn import functional


def check_widths(kind: str, in_channels: int, out_channels: int, *, multiple: int) -> None:
    """Raise unless a residual can have these widths.

    Raises:
        ValueError: Fewer than one channel, or an output whose width is not a multiple of ``multiple``.
    """
    if in_channels < 1 or out_channels < 1:
        raise ValueError(
            f"A {kind} residual needs at least 1 channel before and behind, got {in_channels} and {out_channels}."
        )
    if out_channels % multiple:
        number = "an even number of output channels" if multiple == 2 else f"output channels in multiples of {multiple}"
        raise ValueError(f"A {kind} residual needs {number}, got {out_channels}.")


class PreActivationResidual(nn.Module):
    """BN - ReLU - conv, three times (1x1, 3x3, 1x1), added to the input.

    The middle is half as wide as the output. Nothing follows the addition. A plain 1x1 convolution adapts the skip
    connection if the widths differ; otherwise it has no weights. Every convolution has a bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, even.

    Raises:
        ValueError: Fewer than one channel, or ``out_channels`` is odd.

    Source:
        Newell et al. 2016, section 3.1 and figure 4 left; public Lua code, ``Residual.lua``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_widths("bottleneck", in_channels, out_channels, multiple=2)
        middle = out_channels // 2
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, middle, 1)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out_channels, 1)
        self.adapt = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``."""
        inside = self.conv1(functional.relu(self.norm1(features), inplace=True))
        inside = self.conv2(functional.relu(self.norm2(inside), inplace=True))
        inside = self.conv3(functional.relu(self.norm3(inside), inplace=True))
        return inside + (features if self.adapt is None else self.adapt(features))
