"""CenterNet's maps on several levels of a feature pyramid: each object is a peak of the level that fits its size.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850, for the maps of one level; Tian et
al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, https://arxiv.org/abs/1904.01355, section 3.2,
for the ranges of sizes. Levels P3 to P5 are those that detectors use of a pyramid (Lin et al., "Feature Pyramid
Networks for Object Detection", CVPR 2017).

How this differs from FCOS: an object is only found at its centre, so the distance from there to the sides of its box,
half the longer side, decides about its level; the coarsest level takes all that are larger, since there is no P6 and
P7; and of duplicates, only those on different levels are removed, because peaks of one level are distinct.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from poseglass.codecs.centernet import CenterNetCodec, count_classes
from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, check_targets


@dataclass(frozen=True, slots=True)
class CenterNetLevelsCodec:
    """Encodes every object on one of several levels, by its size; decodes the best peaks of all levels together.

    Every map's name ends in the stride of its level: ``"center_8"``, ``"size_16"``. Sizes, offsets and ways to
    keypoints are in pixels of their level's map, so that one head can be shared by all levels.

    Args:
        strides: View pixels per map pixel of every level, finest first.
        poses: Whether instances have keypoints, besides boxes.
        most: Largest number of instances decoded per view, before duplicates are removed.
        reach: Farthest that a side of a box may be from its centre, pixels of the level's map: half the box's longer
            side. An object is put on the finest level where it is not farther (a side exactly as far is not), the
            coarsest level takes the rest. 8 gives FCOS's bounds of 64 and 128 view pixels for strides 8 and 16.
        overlap: Of two instances of one class on different levels whose boxes overlap by more than this (IoU), the one
            with the lower score is removed. 1 keeps all.
        radius: As in ``CenterNetCodec``.
        min_overlap: As in ``CenterNetCodec``.
        unposed: As in ``CenterNetCodec``.

    Raises:
        ValueError: A number or option out of range, or strides that do not ascend.

    Source:
        Tian et al. 2019, section 3.2, for the rule; ``overlap`` is the threshold of its public code's suppression.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    poses: bool = True
    most: int = 100
    reach: float = 8.0
    overlap: float = 0.6
    radius: Literal["public", "exact"] = "public"
    min_overlap: float = 0.7
    unposed: Literal["detect", "ignore"] = "detect"

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides))
        if not self.strides or list(self.strides) != sorted(set(self.strides)) or self.strides[0] < 1:
            raise ValueError(
                "CenterNetLevelsCodec.strides must be at least one whole number from 1 on, ascending and each once, "
                f"such as (8, 16, 32); got {self.strides}."
            )
        if not self.reach > 0 or not 0 < self.overlap <= 1:
            raise ValueError(
                "CenterNetLevelsCodec needs a reach above 0 and an overlap in (0, 1], got "
                f"reach={self.reach}, overlap={self.overlap}."
            )
        self.levels()  # checks what it takes

    def levels(self) -> list[CenterNetCodec]:
        """Return the codec of each level, finest first."""
        return [
            CenterNetCodec(
                stride, self.poses, self.most, radius=self.radius, min_overlap=self.min_overlap, unposed=self.unposed
            )
            for stride in self.strides
        ]

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes; the stride is that of the finest level, each output has its own."""
        outputs: dict[str, Output] = {}
        extra: list[str] = []
        for level in self.levels():
            one = level.spec
            for key, output in one.outputs.items():
                outputs[f"{key}_{level.stride}"] = replace(output, stride=level.stride)
            extra += [f"{key}_{level.stride}" for key in (*one.loss_keys, "weight")]
        return CodecSpec(outputs, self.strides[0], loss_keys=tuple(extra), instances=self.most, keypoints=self.poses)

    def level_of(self, box_xyxy: Tensor) -> Tensor:
        """Return the index of the level of boxes ``(..., 4)``, view pixels: ``(...)`` int64, 0 is the finest.

        Example:
            >>> boxes = torch.tensor([[0.0, 0, 20, 128], [0, 0, 129, 20], [0, 0, 257, 300]])
            >>> CenterNetLevelsCodec().level_of(boxes).tolist()
            [0, 1, 2]
        """
        far = (box_xyxy[..., 2:] - box_xyxy[..., :2]).amax(-1) / 2
        bounds = torch.tensor([self.reach * stride for stride in self.strides[:-1]], device=far.device)
        return (far[..., None] > bounds).sum(-1)

    def encode(self, targets: Targets, size_wh: tuple[int, int], *, num_classes: int | None = None) -> Prediction:
        """Draw the maps of every level for views of ``size_wh``, on the targets' device.

        Args:
            targets: B views with up to N instances each. An instance is drawn on one level, chosen by what of its box
                is in the view, and is background on the others. On all levels, crowds are left out of the loss of
                their class.
            size_wh: Size of the views.
            num_classes: Number of classes, C; None takes the largest label and 1.

        Returns:
            The keys that ``CenterNetCodec.encode`` returns, once per level, with the level's stride at the end; and
            ``"weight"`` ``(B, N)``, instances that count on any level.

        Raises:
            TypeError: A whole batch was passed instead of its targets.
            ValueError: A label is not below ``num_classes``, or a view has no pixel on the coarsest level.
        """
        check_targets(targets)
        if min(size_wh) < self.strides[-1]:
            raise ValueError(
                f"A view of {size_wh[0]} x {size_wh[1]} pixels has no map of stride {self.strides[-1]}. Use views "
                "whose sides are multiples of it, or fewer strides."
            )
        classes = count_classes(targets, num_classes)
        corners = targets.box_xyxy.float().nan_to_num(0.0).unflatten(-1, (2, 2))
        limit = torch.tensor(size_wh, device=corners.device) - 0.5
        on = self.level_of(torch.minimum(corners.clamp_min(-0.5), limit).flatten(-2))
        found: Prediction = {}
        weight = torch.zeros(targets.valid.shape, device=corners.device)
        for number, level in enumerate(self.levels()):
            own = replace(targets, valid=targets.valid & (targets.crowd | (on == number)))
            drawn = level.encode(own, size_wh, num_classes=classes)
            found |= {f"{key}_{level.stride}": value for key, value in drawn.items()}
            weight = weight + drawn["weight"]
        return found | {"weight": weight}

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode the ``most`` highest peaks of all levels, and remove duplicates on different levels.

        Args:
            prediction: The keys of ``spec.outputs``, ``"center"`` and ``"heatmap"`` of all levels as logits.

        Returns:
            N = ``most`` instances (fewer if all maps together have fewer pixels), best first, in view pixels. Removed
            duplicates, and places that are not peaks, are not ``valid``.

        Source:
            Removing an instance for any better one that it overlaps, even if that one is itself removed, needs no loop
            and can be exported: Bolya et al., "YOLACT", ICCV 2019, section 3.3 (Fast NMS).
        """
        each = [level.decode(_of_level(prediction, level.stride)) for level in self.levels()]
        boxes = [one.box_xyxy for one in each if one.box_xyxy is not None]
        score, order = torch.cat([one.box_score for one in each], 1).sort(dim=1, descending=True, stable=True)
        score, order = score[:, : self.most], order[:, : self.most]
        number = torch.cat([torch.full_like(one.label, i) for i, one in enumerate(each)], 1).gather(1, order)
        label = torch.cat([one.label for one in each], 1).gather(1, order)
        box = _chosen(torch.cat(boxes, 1), order)
        valid = torch.cat([one.valid for one in each], 1).gather(1, order)
        both = (label[:, :, None] == label[:, None]) & (number[:, :, None] != number[:, None]) & valid[:, :, None]
        better = torch.ones_like(both[0]).triu(1)  # the first index is that of the better one
        duplicate = (both & better & (_iou(box) > self.overlap)).any(1)
        return Decoded(
            _chosen(torch.cat([one.xy for one in each], 1), order),
            _chosen(torch.cat([one.score for one in each], 1), order),
            valid & ~duplicate, label, score, box,
        )  # fmt: skip

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image; offsets are left out."""
        turned: Prediction = {}
        for level in self.levels():
            flipped = level.flip(_of_level(prediction, level.stride), skeleton)
            turned |= {f"{key}_{level.stride}": value for key, value in flipped.items()}
        return turned


def _of_level(prediction: Prediction, stride: int) -> Prediction:
    """Return the maps of one level under the names that ``CenterNetCodec`` gives them."""
    end = f"_{stride}"
    return {key.removesuffix(end): value for key, value in prediction.items() if key.endswith(end)}


def _chosen(values: Tensor, order: Tensor) -> Tensor:
    """Return rows ``(B, M, ...)`` of values ``(B, N, ...)`` by their indices ``(B, M)``."""
    index = order.reshape(*order.shape, *(1,) * (values.ndim - 2)).expand(*order.shape, *values.shape[2:])
    return values.gather(1, index)


def _iou(box_xyxy: Tensor) -> Tensor:
    """Return the overlap of all pairs of boxes ``(B, N, 4)``: ``(B, N, N)``, 0 where both are empty."""
    low = torch.maximum(box_xyxy[:, :, None, :2], box_xyxy[:, None, :, :2])
    high = torch.minimum(box_xyxy[:, :, None, 2:], box_xyxy[:, None, :, 2:])
    both = (high - low).clamp_min(0.0).prod(-1)
    area = (box_xyxy[..., 2:] - box_xyxy[..., :2]).clamp_min(0.0).prod(-1)
    return both / (area[:, :, None] + area[:, None] - both).clamp_min(1e-9)
