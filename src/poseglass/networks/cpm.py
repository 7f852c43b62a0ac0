"""Convolutional Pose Machines: belief maps, refined stage by stage from themselves and from image features.

Wei, Ramakrishna, Kanade, Sheikh, "Convolutional Pose Machines", CVPR 2016, https://arxiv.org/abs/1602.00134. The sizes
are those of open-mmlab/mmpose (Apache-2.0), written from a table of its layers; the authors' release was not read.

How this differs from the paper, following mmpose: batch norm after every convolution except the last of a stage,
overlapping 3x3 pooling, no background map, no map of the person's centre (the crop provides it), and the number of
feature channels given there (32). The first stage sees the image through its own convolutions; all later stages share
theirs, except for the last convolution.
"""

import itertools

import torch
from torch import Tensor, nn

from poseglass.core.prediction import Prediction, Stages
from poseglass.heads.heatmap import start_empty
from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.input_size import check_input


def trunk(width: int, kernel_size: int, stride: int) -> nn.Sequential:
    """Return three convolutions, each followed by pooling until ``stride`` is reached: image to features."""
    layers: list[nn.Module] = []
    for given in (3, width, width):
        layers.append(ConvNorm(given, width, kernel_size))
        if stride > 1:
            layers.append(nn.MaxPool2d(3, 2, 1))
            stride //= 2
    return nn.Sequential(*layers)


class Refinement(nn.Module):
    """One later stage: refines the previous stage's belief maps using image features.

    Args:
        num_keypoints: Number of keypoints, K.
        width: Channels inside, and of the input features.
        feature_width: Channels to which the features are projected before they are concatenated with the maps.
        kernel_size: Kernel size of the three convolutions over both, odd. It determines a stage's receptive field.

    Source:
        Wei et al. 2016, section 3.2.
    """

    def __init__(self, num_keypoints: int, width: int, feature_width: int, kernel_size: int) -> None:
        super().__init__()
        self.features = ConvNorm(width, feature_width, 5)
        widths = [num_keypoints + feature_width, width, width, width]
        self.convs = nn.Sequential(*(ConvNorm(a, b, kernel_size) for a, b in itertools.pairwise(widths)))
        self.mix = ConvNorm(width, width, 1)
        self.belief = start_empty(nn.Conv2d(width, num_keypoints, 1))

    def forward(self, belief: Tensor, features: Tensor) -> Tensor:
        """Map ``(B, K, h, w)`` and ``(B, width, h, w)`` to ``(B, K, h, w)``."""
        return self.belief(self.mix(self.convs(torch.cat([belief, self.features(features)], dim=1))))


class ConvolutionalPoseMachine(nn.Module):
    """The whole network: images to one stage of belief maps (heatmaps) per stage of the machine.

    Args:
        num_keypoints: Number of keypoints, K.
        num_stages: Number of stages, at least 2: the first sees only the image, the others refine.
        stride: Stride of the belief maps: 8 as published, or 4 (one pooling fewer).
        width: Channels of the convolutions.
        first_width: Channels of the first stage's last layers.
        feature_width: Channels of the image features concatenated with the belief maps.
        kernel_size: Kernel size of the convolutions over the image, odd.
        stage_kernel_size: Kernel size of the convolutions over belief maps and features, odd.

    Attributes:
        stride: Stride of the belief maps.
        divisor: Both sides of an input must be divisible by it.
        usual_size_wh: Usual training input size, pixels; variants for another size override it.

    Raises:
        ValueError: An invalid argument; the message says what is allowed.

    Source:
        Wei et al. 2016, section 3.
    """

    usual_size_wh: tuple[int, int] = (368, 368)

    def __init__(
        self,
        num_keypoints: int,
        *,
        num_stages: int = 6,
        stride: int = 8,
        width: int = 128,
        first_width: int = 512,
        feature_width: int = 32,
        kernel_size: int = 9,
        stage_kernel_size: int = 11,
    ) -> None:
        super().__init__()
        if int(num_stages) != num_stages or num_stages < 2:
            raise ValueError(f"A pose machine needs num_stages of 2 or more, got {num_stages!r}.")
        for name, value in {"width": width, "first_width": first_width, "feature_width": feature_width}.items():
            if int(value) != value or value < 1:
                raise ValueError(f"A pose machine's {name} must be a whole number above 0, got {value!r}.")
        for name, value in {"kernel_size": kernel_size, "stage_kernel_size": stage_kernel_size}.items():
            if value < 1 or value % 2 != 1:
                raise ValueError(f"A pose machine's {name} must be odd, to keep the size of maps; got {value!r}.")
        if stride not in (4, 8):
            raise ValueError(f"A pose machine's stride must be 4 or 8, got {stride!r}.")
        self.num_keypoints = num_keypoints
        self.stride = self.divisor = stride
        self.first_trunk = trunk(width, kernel_size, stride)
        self.first = nn.Sequential(
            ConvNorm(width, feature_width, 5),
            ConvNorm(feature_width, first_width, kernel_size),
            ConvNorm(first_width, first_width, 1),
            start_empty(nn.Conv2d(first_width, num_keypoints, 1)),
        )
        self.trunk = trunk(width, kernel_size, stride)
        self.refinements = nn.ModuleList(
            Refinement(num_keypoints, width, feature_width, stage_kernel_size) for _ in range(num_stages - 1)
        )

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to S stages ``{"heatmap": (B, K, H/stride, W/stride)}``; the last is the prediction.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        state = self.begin(images)
        stages: Stages = []
        for number in range(self.num_stages):
            prediction, state = self.stage(number, state)
            stages.append(prediction)
        return stages

    @property
    def num_stages(self) -> int:
        """Number of stages that ``stage`` runs."""
        return 1 + len(self.refinements)

    def begin(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the first stage sees: the images; see ``programs.early_exit.StageByStage``.

        Raises:
            ValueError: H or W is not divisible by ``divisor``.
        """
        check_input(images, self.divisor)
        return (images,)

    def stage(self, number: int, state: tuple[Tensor, ...]) -> tuple[Prediction, tuple[Tensor, ...]]:
        """Run one stage; return its heatmaps and what the next one sees. Every tensor of a state has the axis B."""
        if number == 0:
            (images,) = state
            belief = self.first(self.first_trunk(images))
            return {"heatmap": belief}, (images, belief)
        given, belief = state
        features = self.trunk(given) if number == 1 else given  # what later stages share; a view that leaves needs none
        belief = self.refinements[number - 1](belief, features)
        return {"heatmap": belief}, (features, belief)


def cpm(num_keypoints: int) -> ConvolutionalPoseMachine:
    """Six stages at stride 8: 31,225,568 parameters at 16 keypoints, 175.440 G multiply-adds at 368 x 368."""
    return ConvolutionalPoseMachine(num_keypoints)


def cpm_light(num_keypoints: int) -> ConvolutionalPoseMachine:
    """Three narrow stages at stride 4, for inputs of 128 px.

    351,040 parameters at 16 keypoints, 0.502 G multiply-adds at 128 x 128.

    Stride 4, because at stride 8 the maps are 16 x 16 and each pixel covers 8 px of such an input, too coarse for
    wrists and ankles. Kernels shrink with the input.
    """
    network = ConvolutionalPoseMachine(
        num_keypoints,
        num_stages=3,
        stride=4,
        width=24,
        first_width=128,
        feature_width=16,
        kernel_size=5,
        stage_kernel_size=7,
    )
    network.usual_size_wh = (128, 128)
    return network
