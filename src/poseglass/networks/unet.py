"""U-Net: a contracting path, and an expanding path that concatenates the contracting path's features of each size.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
https://arxiv.org/abs/1505.04597. Written from the paper.

How this differs from the paper: it does not, at ``UNet(2, in_channels=1, padded=False, norm=False)``: 31,030,658
parameters, 572 x 572 pixels to 388 x 388. For keypoints, convolutions are padded, since heatmaps must cover the whole
input, and have batch norm, since the paper's initialisation and weighted loss are not used. The stem and the light
variant are our own. A U-Net neck for any backbone is in ``necks/unet.py``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.core.prediction import Stages
from poseglass.heads.heatmap import start_empty
from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.input_size import check_input


class DoubleConv(nn.Module):
    """3x3 convolution and ReLU, twice.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        padded: Whether the size is kept; otherwise each convolution removes a pixel from every side.
        norm: Whether batch norm precedes each ReLU, in place of a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, *, padded: bool, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=int(padded), bias=not norm)
        self.norm1 = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=int(padded), bias=not norm)
        self.norm2 = nn.BatchNorm2d(out_channels) if norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``, or 4 pixels less in each dimension if not padded."""
        features = functional.relu(self.norm1(self.conv1(features)), inplace=True)
        return functional.relu(self.norm2(self.conv2(features)), inplace=True)


class UNet(nn.Module):
    """The whole network: images to one stage of heatmaps.

    Args:
        num_keypoints: Number of keypoints, K; the paper's number of classes.
        width: Channels at the finest level; each coarser level has twice as many.
        depth: Number of poolings.
        in_channels: Channels of the images.
        padded: Whether heatmaps cover the whole input; if not, as in the paper, they cover its middle, and no codec
            here supports that.
        norm: Whether every 3x3 convolution has batch norm.
        stem_stride: 1, or 2 or 4 to add a stem of strided 3x3 convolutions before the U-Net, whose maps are then
            smaller by that factor.

    Attributes:
        stride: ``stem_stride``.
        divisor: Both sides of an input must be divisible by it. If unpadded, the maps before every pooling must have
            even sides instead, as with the paper's 572.
        usual_size_wh: Usual training input size, pixels, if padded.

    Raises:
        ValueError: An invalid argument; the message says what is allowed.

    Source:
        Ronneberger et al. 2015, section 2 and figure 1.
    """

    usual_size_wh: tuple[int, int] = (128, 128)

    def __init__(
        self,
        num_keypoints: int,
        *,
        width: int = 64,
        depth: int = 4,
        in_channels: int = 3,
        padded: bool = True,
        norm: bool = True,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        counts = {"num_keypoints": num_keypoints, "width": width, "depth": depth, "in_channels": in_channels}
        for name, value in counts.items():
            if int(value) != value or value < 1:
                raise ValueError(f"UNet: {name} must be a whole number above 0, got {value!r}.")
        if stem_stride not in (1, 2, 4) or (stem_stride > 1 and not padded):
            raise ValueError(
                f"UNet: stem_stride must be 1, 2 or 4, and 1 where padded=False, got {stem_stride!r} with "
                f"padded={padded}."
            )
        self.num_keypoints, self.in_channels, self.padded, self.depth = num_keypoints, in_channels, padded, depth
        self.stride = stem_stride
        self.divisor = stem_stride * 2**depth
        halvings = stem_stride.bit_length() - 1
        stem = [in_channels, *[width] * halvings]
        self.stem = nn.ModuleList(ConvNorm(stem[i], width, 3, stride=2) for i in range(halvings))
        widths = [width * 2**level for level in range(depth + 1)]
        given = [stem[-1], *widths[:-1]]
        self.down = nn.ModuleList(
            DoubleConv(below, made, padded=padded, norm=norm) for below, made in zip(given, widths, strict=True)
        )
        self.widen = nn.ModuleList(nn.ConvTranspose2d(2 * made, made, 2, stride=2) for made in widths[:-1])
        self.up = nn.ModuleList(DoubleConv(2 * made, made, padded=padded, norm=norm) for made in widths[:-1])
        self.heatmap = start_empty(nn.Conv2d(width, num_keypoints, 1))

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, in_channels, H, W)`` to one stage, ``{"heatmap": (B, K, H / stride, W / stride)}``.

        If unpadded, maps are smaller than the input by the border that 3x3 convolutions need: 184 pixels at depth 4.

        Raises:
            ValueError: H or W cannot be halved evenly; the message suggests valid sizes.
        """
        check_input(images, self.divisor if self.padded else 1, self.in_channels)
        if not self.padded:
            self._check_unpadded(images)
        features = images
        for conv in self.stem:
            features = conv(features)
        skips = []
        for level, convs in enumerate(self.down):
            features = convs(functional.max_pool2d(features, 2) if level else features)
            skips.append(features)
        for level in reversed(range(self.depth)):
            features = self.widen[level](features)
            skip = skips[level]
            top = (skip.shape[2] - features.shape[2]) // 2  # 0 if convolutions are padded
            left = (skip.shape[3] - features.shape[3]) // 2
            skip = skip[:, :, top : top + features.shape[2], left : left + features.shape[3]]
            features = self.up[level](torch.cat([skip, features], dim=1))
        return [{"heatmap": self.heatmap(features)}]

    def _check_unpadded(self, images: Tensor) -> None:
        """Raise unless each side is 4 more than an even number at every pooling, and the output is not empty."""
        step, border = 2**self.depth, 4 * (2**self.depth - 1)
        least = border + step * -(-(border + 4 * step + 1) // step)
        for side in images.shape[2:]:
            if side < least or (side - border) % step:
                near = max(least, border + step * round((side - border) / step))
                raise ValueError(
                    f"Input of {images.shape[3]} x {images.shape[2]} pixels (w x h): an unpadded U-Net of depth "
                    f"{self.depth} takes sides of {least} and up in steps of {step}. Nearest to {side}: {near}."
                )


def unet_full(num_keypoints: int) -> UNet:
    """The paper's widths, padded, with batch norm: 31,038,608 parameters at 16 keypoints, heatmap stride 1."""
    return UNet(num_keypoints)


def unet_light(num_keypoints: int) -> UNet:
    """Narrower, of depth 3, with a stem of stride 4, for inputs of 128 px: 4,375,216 parameters at 16 keypoints.

    0.371 G multiply-adds at 128 x 128. With stride 4 instead of 1, maps, loss and decoding are a sixteenth of the size,
    codecs still decode sub-pixel positions, and hourglass, FPN and U-Net can be compared with the same codec.
    """
    return UNet(num_keypoints, width=48, depth=3, stem_stride=4)
