"""Multi-Scale DenseNet: a classifier with exits, whose every layer keeps features at several scales.

Huang, Chen, Li, Wu, van der Maaten, Weinberger, "Multi-Scale Dense Networks for Resource Efficient Image
Classification", ICLR 2018, https://arxiv.org/abs/1703.09844, section 4. Written from the paper.

How this differs from the paper: a classifier is attached after a chosen number of layers, the same between all exits,
and the transition layers that halve the channels between blocks of its ImageNet networks are omitted; finer scales are
left out in later layers as there ("network reduction").
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from poseglass.core.prediction import Prediction, Stages
from poseglass.layers.conv_norm import ConvNorm
from poseglass.layers.input_size import check_input

EXIT_CHANNELS = 128
"""Channels of the two convolutions of a classifier; section 4, "Classifiers"."""

BOTTLENECK = 4
"""The 1x1 convolution before a 3x3 one has as many times its channels, at most; appendix A."""


class MultiScaleDenseNet(nn.Module):
    """Images to the classes of several exits; early exits do not depend on what comes after them.

    Args:
        num_keypoints: Not used; there are none.
        num_classes: Number of classes, C.
        exits: Number of classifiers.
        layers: Layers before the first classifier and between two.
        growth: Channels that a layer adds at the finest scale.
        factors: Multiplier of the channels at each scale, finest first; their number is that of the scales.
        width: Channels of the first layer at the finest scale.
        stem_stride: 1 for small images, as the paper's for CIFAR; 4 for others.
        reduces: Whether later layers leave out the finer scales, which the coarsest no longer needs.

    Attributes:
        num_stages: Number of classifiers.
        stride, divisor: Both sides of an input must be divisible by ``divisor``.
        usual_size_wh: Usual training input size, pixels.

    Raises:
        ValueError: A number that is not positive; the message says which.

    Source:
        Huang et al. 2018, section 4.
    """

    stride = 1

    def __init__(
        self,
        num_keypoints: int = 0,
        *,
        num_classes: int = 1000,
        exits: int = 5,
        layers: int = 4,
        growth: int = 16,
        factors: Sequence[int] = (1, 2, 4, 4),
        width: int = 32,
        stem_stride: int = 4,
        reduces: bool = True,
    ) -> None:
        super().__init__()
        numbers = {"num_classes": num_classes, "exits": exits, "layers": layers, "growth": growth, "width": width}
        for name, value in [*numbers.items(), *(("factors", factor) for factor in factors)]:
            if int(value) != value or value < 1:
                raise ValueError(f"MultiScaleDenseNet: {name} must be a whole number above 0, got {value!r}.")
        if not factors:
            raise ValueError("MultiScaleDenseNet: factors must name at least one scale, got none.")
        if stem_stride not in (1, 4):
            raise ValueError(f"MultiScaleDenseNet: stem_stride must be 1 or 4, got {stem_stride!r}.")
        self.num_keypoints, self.num_classes, self.num_stages = num_keypoints, num_classes, exits
        self.stem_stride = stem_stride
        scales = len(factors)
        self.divisor = stem_stride * 2 ** (scales - 1)
        self.usual_size_wh = (32, 32) if stem_stride == 1 else (224, 224)
        self.stem = nn.ModuleList(
            ConvNorm(3 if s == 0 else width * factors[s - 1], width * factor, 7 if s == 0 and stem_stride == 4 else 3,
                     stride=(2 if stem_stride == 4 else 1) if s == 0 else 2)
            for s, factor in enumerate(factors)
        )  # fmt: skip
        channels = [width * factor for factor in factors]
        self.layers = nn.ModuleList()
        self.classifiers = nn.ModuleList()
        total, before = exits * layers, 0
        for number in range(total):
            # divided into as many blocks as scales, each without the finest scale of the one before; figure 3
            finest = min(number * scales // total, before + 1) if reduces else 0
            grows = [growth * factor for factor in factors]
            self.layers.append(MultiScaleLayer(channels, grows, finest, sees_finer=finest > before))
            before = finest
            channels = [c + (growth * factors[s] if s >= finest else 0) for s, c in enumerate(channels)]
            if (number + 1) % layers == 0:
                self.classifiers.append(Classifier(channels[-1], num_classes))

    def forward(self, images: Tensor) -> Stages:
        """Map ``(B, 3, H, W)`` to one ``{"class": (B, C)}`` of logits for each exit; the last is the prediction.

        Raises:
            ValueError: H or W is not divisible by ``divisor``; the message suggests valid sizes.
        """
        state = self.begin(images)
        stages: Stages = []
        for number in range(self.num_stages):
            prediction, state = self.stage(number, state)
            stages.append(prediction)
        return stages

    def begin(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features of every scale, finest first; see ``programs.early_exit.StageByStage``.

        Raises:
            ValueError: H or W is not divisible by ``divisor``.
        """
        check_input(images, self.divisor)
        features, scales = images, []
        for s, conv in enumerate(self.stem):
            features = conv(features)
            if s == 0 and self.stem_stride == 4:
                features = functional.max_pool2d(features, 3, stride=2, padding=1)
            scales.append(features)
        return tuple(scales)

    def stage(self, number: int, state: tuple[Tensor, ...]) -> tuple[Prediction, tuple[Tensor, ...]]:
        """Run the layers up to the next classifier, and that; return its logits and the features of every scale."""
        each = len(self.layers) // self.num_stages
        for layer in self.layers[number * each : (number + 1) * each]:  # type: ignore[union-attr]
            state = layer(state)
        return {"class": self.classifiers[number](state[-1])}, state


class MultiScaleLayer(nn.Module):
    """Add to the features of every scale what is made of those of the same scale, and of the next finer one.

    Args:
        channels: Channels so far, by scale.
        grows: Channels added, by scale; half of them come from the finer scale, where it is used.
        finest: First scale that is made; finer ones are passed on as they are.
        sees_finer: Whether that scale also sees the next finer one, which the layer before still made.
    """

    def __init__(self, channels: Sequence[int], grows: Sequence[int], finest: int, *, sees_finer: bool) -> None:
        super().__init__()
        self.first = finest
        self.same, self.finer = nn.ModuleDict(), nn.ModuleDict()
        for s in range(finest, len(channels)):
            from_finer = grows[s] // 2 if s > finest or sees_finer else 0
            self.same[str(s)] = _bottlenecked(channels[s], grows[s] - from_finer, stride=1)
            if from_finer:
                self.finer[str(s)] = _bottlenecked(channels[s - 1], from_finer, stride=2)

    def forward(self, scales: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Map the features of every scale, finest first, to those with more channels."""
        result = list(scales)
        for s in range(self.first, len(scales)):
            parts = [scales[s], self.same[str(s)](scales[s])]
            if str(s) in self.finer:
                parts.append(self.finer[str(s)](scales[s - 1]))
            result[s] = torch.cat(parts, dim=1)
        return tuple(result)


def _bottlenecked(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    inside = min(in_channels, BOTTLENECK * out_channels)
    return nn.Sequential(ConvNorm(in_channels, inside, 1), ConvNorm(inside, out_channels, 3, stride=stride))


class Classifier(nn.Module):
    """Two strided convolutions, the mean over what is left, and a linear layer; section 4, "Classifiers"."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvNorm(in_channels, EXIT_CHANNELS, 3, stride=2), ConvNorm(EXIT_CHANNELS, EXIT_CHANNELS, 3, stride=2)
        )
        self.classes = nn.Linear(EXIT_CHANNELS, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to logits ``(B, C)``."""
        return self.classes(self.convs(features).mean((2, 3)))


def msdnet(
    num_keypoints: int = 0,
    *,
    num_classes: int = 1000,
    exits: int = 5,
    layers: int = 4,
    growth: int = 16,
    stem_stride: int = 4,
) -> MultiScaleDenseNet:
    """Five exits, four layers apart, over four scales: 16,162,888 parameters at 1000 classes, for inputs of 224 px."""
    return MultiScaleDenseNet(
        num_keypoints, num_classes=num_classes, exits=exits, layers=layers, growth=growth, stem_stride=stem_stride
    )
