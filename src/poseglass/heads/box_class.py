"""Features to one logit per class: the head of a classifier of crops."""

from torch import Tensor, nn

from poseglass.core.prediction import Prediction


class BoxClassHead(nn.Module):
    """The mean of the features over the view, and a linear layer.

    Args:
        in_channels: Channels of the features.
        num_keypoints: Not used: a class is all that is told.
        num_classes: Number of classes, C.
        width: Channels of a 1x1 convolution with batch norm before the mean; 0 for none.
        dropout: Share of the means that is left out in training.

    Raises:
        ValueError: Fewer than one class, a negative width, or a share outside [0, 1).
    """

    def __init__(
        self, in_channels: int, num_keypoints: int = 0, *, num_classes: int = 1, width: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if num_classes < 1 or width < 0 or not 0 <= dropout < 1:
            raise ValueError(
                "BoxClassHead takes at least 1 class, a width of 0 or more and a dropout in [0, 1), got "
                f"num_classes={num_classes}, width={width}, dropout={dropout}."
            )
        self.mix = (
            nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            if width
            else nn.Identity()
        )
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(width or in_channels, num_classes)

    def forward(self, features: Tensor) -> Prediction:
        """Map ``(B, in_channels, h, w)`` to ``"class"`` ``(B, C)``, logits."""
        return {"class": self.classes(self.dropout(self.mix(features).mean((-2, -1))))}
