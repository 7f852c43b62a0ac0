"""Features to one logit per class: the head of a classifier of crops."""

from torch import Tensor, nn

from poseglass.core.prediction import Prediction
from poseglass.layers.conv_norm import activate


class BoxClassHead(nn.Module):
    """The mean of the features over the view, and a linear layer, or two with h-swish between them.

    Args:
        in_channels: Channels of the features.
        num_keypoints: Not used: a class is all that is told.
        num_classes: Number of classes, C.
        width: Channels of a 1x1 convolution with batch norm and ReLU before the mean; 0 for none.
        hidden_width: Channels of a linear layer with h-swish after the mean, as in MobileNetV3 (1280 in Large); 0 for
            none.
        dropout: Share of the inputs of the last layer that is left out in training.

    Raises:
        ValueError: Fewer than one class, a negative width, or a share outside [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int = 0,
        *,
        num_classes: int = 1,
        width: int = 0,
        hidden_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1 or width < 0 or hidden_width < 0 or not 0 <= dropout < 1:
            raise ValueError(
                "BoxClassHead takes at least 1 class, widths of 0 or more and a dropout in [0, 1), got "
                f"num_classes={num_classes}, width={width}, hidden_width={hidden_width}, dropout={dropout}."
            )
        self.mix = (
            nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            if width
            else nn.Identity()
        )
        self.hidden = nn.Linear(width or in_channels, hidden_width) if hidden_width else None
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(hidden_width or width or in_channels, num_classes)

    def forward(self, features: Tensor) -> Prediction:
        """Map ``(B, in_channels, h, w)`` to ``"class"`` ``(B, C)``, logits."""
        means = self.mix(features).mean((-2, -1))
        if self.hidden is not None:
            means = activate(self.hidden(means), "hardswish")
        return {"class": self.classes(self.dropout(means))}
