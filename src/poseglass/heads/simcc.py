"""Features to one vector of logits per keypoint and axis."""

from torch import Tensor, nn

from poseglass.core.prediction import Prediction


class SimccHead(nn.Module):
    """A 1x1 convolution to one map per keypoint, flattened, then a linear layer per axis; for one input size.

    Args:
        in_channels: Channels of the features.
        num_keypoints: Number of keypoints, K.
        size_wh: Size of the network's input, pixels.
        stride: Input pixels per feature pixel.
        split: Bins per input pixel, as in the codec.

    Raises:
        ValueError: A size that is not divisible by the stride; when called, features of another size.

    Source:
        Li et al. 2022, section 3.
    """

    def __init__(
        self, in_channels: int, num_keypoints: int, *, size_wh: tuple[int, int], stride: int = 4, split: int = 2
    ) -> None:
        super().__init__()
        width, height = size_wh
        if width % stride or height % stride:
            raise ValueError(f"SimccHead.size_wh must be divisible by stride={stride}, got {width} x {height}.")
        self.size_wh, self.stride = (width, height), stride
        self.conv = nn.Conv2d(in_channels, num_keypoints, 1)
        pixels = (width // stride) * (height // stride)
        self.x = nn.Linear(pixels, width * split)
        self.y = nn.Linear(pixels, height * split)

    def forward(self, features: Tensor) -> Prediction:
        """Map ``(B, in_channels, h, w)`` to ``"x"`` ``(B, K, W * split)`` and ``"y"`` ``(B, K, H * split)``, logits.

        Raises:
            ValueError: The features are not from an input of ``size_wh``.
        """
        height, width = features.shape[-2:]
        if (width * self.stride, height * self.stride) != self.size_wh:
            raise ValueError(
                f"The simcc head was built for an input of {self.size_wh[0]} x {self.size_wh[1]} (width x height) at "
                f"stride {self.stride}, got features of {width} x {height}. Set network.head.size_wh and .stride to "
                "those of the input and of the neck; a trained head supports only one size."
            )
        maps = self.conv(features).flatten(2)
        return {"x": self.x(maps), "y": self.y(maps)}
