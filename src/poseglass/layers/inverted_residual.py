"""The inverted residual (Sandler et al. 2018, https://arxiv.org/abs/1801.04381): wide inside, narrow between blocks."""

from typing import Literal

from torch import Tensor, nn

from poseglass.layers.conv_norm import Activation, ConvNorm, activate
from poseglass.layers.squeeze_excite import SqueezeExcite

Order = Literal["activate_excite", "excite_activate"]


class InvertedResidual(nn.Module):
    """Expand by 1x1, depthwise convolution, project by 1x1; added to the input if the shapes agree.

    No activation follows the projection's norm. A block that does not expand has no first convolution.

    Args:
        in_channels: Channels of the input.
        expanded: Channels inside.
        out_channels: Channels of the output.
        kernel_size: Kernel size of the depthwise convolution.
        stride: Stride of the depthwise convolution.
        dilation: Dilation of the depthwise convolution.
        squeeze: Whether the block has squeeze-and-excitation.
        activation: Activation after the expansion and after the depthwise convolution.
        order: What comes first after the depthwise norm: the activation (torchvision, timm) or squeeze-and-excitation
            (d-li14/mobilenetv3.pytorch, whose blocks without expansion nevertheless activate first).
        eps: Epsilon of the norms.
        same: Whether the depthwise convolution pads as TensorFlow does, see ``conv_norm.pad_same``.
        adds: Whether the input is added; None adds it if the shapes agree. A block that has dilation in place of its
            stride never adds, as the one with a stride does not.

    Source:
        Howard et al. 2019, section 5.3 and figure 4, https://arxiv.org/abs/1905.02244.
    """

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        squeeze: bool = False,
        activation: Activation = "relu",
        order: Order = "activate_excite",
        eps: float = 1e-5,
        same: bool = False,
        adds: bool | None = None,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        widens = expanded != in_channels
        self.expand = ConvNorm(in_channels, expanded, 1, activation=activation, eps=eps) if widens else None
        self.depthwise = ConvNorm(
            expanded,
            expanded,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=expanded,
            activation="none",
            eps=eps,
            same=same,
        )
        self.squeeze_excite = SqueezeExcite(expanded) if squeeze else None
        self.excites_first = order == "excite_activate" and widens
        self.project = ConvNorm(expanded, out_channels, 1, activation="none", eps=eps)
        self.adds = stride == 1 and in_channels == out_channels if adds is None else adds

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h / stride, w / stride)``."""
        inside = self.depthwise(features if self.expand is None else self.expand(features))
        if self.squeeze_excite is None:
            inside = activate(inside, self.activation)
        elif self.excites_first:
            inside = activate(self.squeeze_excite(inside), self.activation)
        else:
            inside = self.squeeze_excite(activate(inside, self.activation))
        inside = self.project(inside)
        return features + inside if self.adds else inside
