"""OneStageEstimator: a whole image in, everybody in it out, by one network (CenterNet), at one scale or several.

Several test scales, whose boxes are joined by soft-NMS, are those of Zhou, Wang, Krähenbühl, "Objects as Points", 2019,
section 5; its public code uses 0.5, 0.75, 1, 1.25 and 1.5. How this differs: the views are letterboxes of the scaled
size, not padded images.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from poseglass.core.box_3d import lift
from poseglass.core.boxes import iou
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.large_image import ReadableImage
from poseglass.core.prediction import Decoded
from poseglass.core.view import View
from poseglass.estimators.chips import Chips
from poseglass.estimators.estimator import Boxes, Frame, image_and_boxes, projection_given
from poseglass.estimators.of_program import OfProgram
from poseglass.estimators.topdown import check_boxes, check_one_image
from poseglass.metrics.box_nms import soft_box_nms
from poseglass.programs.graphs import LEAST_SIDE_PX
from poseglass.programs.program import Program
from poseglass.programs.torch_program import TorchProgram

_Waiting = tuple[list[View], tuple[int, int], np.ndarray | None, np.ndarray | None]
"""An image that was read: its views, one per scale, its size, the given boxes, and the calibration of its camera."""

UNCALIBRATED = (
    "These weights find boxes in space, for which the calibration of the camera of each image must be known: a "
    "projection of 3 rows and 4 columns, camera frame in millimetres to pixels. Give it as estimator(image, "
    "projection=P), or to `poseglass predict` with --calibration FILE; evaluate on data that state it, such as kitti "
    "or streets."
)
"""What is said of an image without a calibration."""

LARGEST_SIDE_PX = 4096
"""Longest side of a view that a test scale may ask for; memory grows with its square."""


@dataclass(frozen=True, slots=True, eq=False)
class OneStageEstimator(OfProgram):
    """Finds all instances of an image, with their boxes and, if the network predicts them, keypoints.

    Args:
        program: Views to any number of instances. An image is shown to it as large as fits, in the middle of a view.
        min_box_score: Instances with a lower score are not returned.
        batch_size: Number of images per call of the program.
        card: Card of the weights, if they came from a file.
        scales: Each image is shown once per scale, in a view whose sides are the program's times the scale, rounded to
            multiples of the network's ``divisor``; at scale 1 they are the program's. The instances of several scales
            are joined class by class by Gaussian soft-NMS, which lowers the scores of duplicates; keypoints stay with
            their instance, and the codec's largest number of instances remains. Time grows with the sum of the squares.
        chips: Look at each image in overlapping chips at several scales instead: for images that are much larger than
            the program's views. All instances of all chips are joined by soft-NMS, without a largest number.
        on_views: Called after each batch of an image's chips, with the number of those done and of all.

    Raises:
        ValueError: A score outside [0, 1] or a batch size below 1; chips together with scales; scales that are not
            positive, or of which two give the same view; several scales, and the program is not PyTorch's, which runs
            views of one size, or its network does not state its ``divisor``. When called: an image that is not uint8
            RGB, or boxes that are not valid, or no calibration for a program that finds boxes in space.
    """

    program: Program
    min_box_score: float = 0.3
    batch_size: int = 8
    card: WeightCard | None = None
    scales: tuple[float, ...] = (1.0,)
    chips: Chips | None = None
    on_views: Callable[[int, int], None] | None = field(default=None, repr=False)
    _sizes_wh: tuple[tuple[int, int], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.min_box_score <= 1 or self.batch_size < 1:
            raise ValueError(
                "OneStageEstimator needs min_box_score in [0, 1] and a batch_size of at least 1, got "
                f"{self.min_box_score} and {self.batch_size}."
            )
        object.__setattr__(self, "scales", tuple(self.scales))
        if self.chips is not None and self.scales != (1.0,):
            raise ValueError(f"Chips have scales of their own, and scales is {self.scales}: give one of the two.")
        object.__setattr__(self, "_sizes_wh", _sizes_of(self.program, self.scales))

    def __repr__(self) -> str:
        described = self.described(self.input.size_wh)
        if self.chips is not None:
            return f"{described[:-1]}, in chips)"
        if self.scales == (1.0,):
            return described
        return f"{described[:-1]}, scales {', '.join(f'{scale:g}' for scale in self.scales)})"

    @property
    def input(self) -> InputSpec:
        """Size of the views, and normalisation."""
        return self.program.input

    @property
    def finds_boxes(self) -> bool:
        """True: it finds the instances of an image itself."""
        return True

    @property
    def finds_boxes_3d(self) -> bool:
        """Whether instances have boxes in space, for which each image needs the calibration of its camera."""
        return self.program.spec.boxes_3d

    def __call__(self, image: ReadableImage, boxes: Boxes = None, *, projection: np.ndarray | None = None) -> Instances:
        """Find the instances of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes: ``(N, 4)`` x0 y0 x1 y1 in image pixels, or None.
            projection: For a program that finds boxes in space, the calibration of the image, ``(3, 4)``: camera frame
                in millimetres to its pixels.

        Returns:
            In image pixels, best first, without boxes that are narrower than half a pixel in the image. If boxes are
            given, one instance per box, in their order: the one that was found with the largest overlap, each at most
            once; where none overlaps by half (IoU), all keypoints are unknown (NaN, score 0).
        """
        return next(self.stream([(image, boxes, projection)]))

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find the instances of many images; yields one ``Instances`` each, in order.

        Memory stays bounded: only the views of one batch are held.

        Args:
            frames: Images, alone or with boxes, and with the calibration of the camera; see ``Frame``.
            causal: Yield the result of each frame before the next one is requested.
        """
        pixels: list[list[np.ndarray]] = []
        waiting: list[_Waiting] = []
        for frame in frames:
            image, boxes = image_and_boxes(frame)
            check_one_image(image)
            given = None if boxes is None else check_boxes(image, boxes)
            projection = projection_given(frame)
            if self.finds_boxes_3d and projection is None:
                raise ValueError(UNCALIBRATED)
            size_wh = (image.shape[1], image.shape[0])
            if self.chips is not None:
                found = self._in_chips(image, self.chips, projection)
                yield found if given is None else of_boxes(found, given)
                continue
            views = [View.letterbox(size_wh, side) for side in self._sizes_wh]
            pixels.append([view.read(image) for view in views])
            waiting.append((views, size_wh, given, projection))
            if causal or len(pixels) == self.batch_size:
                yield from self._run(pixels, waiting)
                pixels, waiting = [], []
        if pixels:
            yield from self._run(pixels, waiting)

    def _in_chips(self, image: ReadableImage, chips: Chips, projection: np.ndarray | None) -> Instances:
        """Return what is found in the chips of an image, a batch of chips at a time."""
        image_wh = (image.shape[1], image.shape[0])
        rule = chips.rule_for(image_wh, self.input.size_wh)
        places = chips.of_image(image_wh, rule)
        found = [Instances.empty(self.skeleton)]
        for first in range(0, len(places), self.batch_size):
            batch = places[first : first + self.batch_size]
            decoded = self.program(torch.from_numpy(np.stack([chip.view.read(image) for chip in batch]))).cpu()
            for row, chip in enumerate(batch):
                here = self._instances(decoded, row, chip.view, image_wh, self.min_box_score, projection)
                here = here[chips.counts(here.box_xyxy, chip, rule, image_wh)]
                if len(here):
                    found.append(here)
            if self.on_views is not None:
                self.on_views(first + len(batch), len(places))
        return self._joined(found[1:] or found, most=None)

    def _run(self, pixels: list[list[np.ndarray]], waiting: list[_Waiting]) -> Iterator[Instances]:
        by_scale = [self.program(torch.from_numpy(np.stack(views))).cpu() for views in zip(*pixels, strict=True)]
        for row, (views, size_wh, given, projection) in enumerate(waiting):
            if len(views) == 1:
                found = self._instances(by_scale[0], row, views[0], size_wh, self.min_box_score, projection)
            else:
                of_scales = [
                    self._instances(decoded, row, view, size_wh, 0.0, projection)
                    for decoded, view in zip(by_scale, views, strict=True)
                ]
                found = self._joined(of_scales, most=self.program.spec.instances)
            yield found if given is None else of_boxes(found, given)

    def _joined(self, found: list[Instances], *, most: int | None) -> Instances:
        """Return the instances of several views of an image by their scores after soft-NMS, best first.

        Args:
            found: Of each view, in image pixels.
            most: Largest number; those of a score below ``min_box_score`` are left out in any case.
        """
        together = Instances.concatenate(found)
        rows, lowered = soft_box_nms(together.box_xyxy, together.box_score, together.label)
        rows, lowered = rows[:most], lowered[:most]
        keep = lowered >= self.min_box_score
        extra = {name: values for name, values in together.extra.items() if name != "box_probability"}
        # calibrations were measured at one scale, and without soft-NMS
        of_points = {name: values for name, values in together.keypoint_extra.items() if name != "radius_px"}
        plain = replace(together, probability=None, extra=extra, keypoint_extra=of_points)
        return replace(plain[rows[keep]], box_score=lowered[keep])

    def _instances(
        self, decoded: Decoded, row: int, view: View, size_wh: tuple[int, int], lowest: float,
        projection: np.ndarray | None,
    ) -> Instances:  # fmt: skip
        """Return the instances of one view in image pixels: boxes clipped to the image, none outside or tiny.

        Args:
            decoded: What the program returned for a batch of views.
            row: The view in the batch.
            view: The view.
            size_wh: Size of the image, pixels.
            lowest: Least score of a box.
            projection: Calibration of the image, for boxes in space.

        Raises:
            ValueError: The program finds no boxes.
        """
        if decoded.box_xyxy is None:
            raise ValueError(
                "A OneStageEstimator needs a program that finds boxes, this one predicts one instance in a given box. "
                "Use a TopDownEstimator."
            )
        box = view.home.box(decoded.box_xyxy[row].double().numpy())
        limit = np.array([*size_wh, *size_wh], np.float64) - 0.5
        box = np.clip(box, -0.5, limit)
        score = decoded.box_score[row].numpy()
        keep = decoded.valid[row].numpy() & (score >= lowest)
        keep &= (box[:, 2:] - box[:, :2] >= LEAST_SIDE_PX).all(1)
        seen, sure = decoded.visibility, decoded.probability
        by_keypoint = {"visibility_probability": decoded.visibility_probability, "radius_px": decoded.radius_px}
        by_box = {"box_probability": decoded.box_probability}
        box_3d = projections = None
        if decoded.observed_3d is not None and projection is not None:
            observed = decoded.observed_3d[row].double().numpy()[keep]
            if (self.scales != (1.0,) or self.chips is not None) and (observed[:, 3] == 0).any():
                raise ValueError(
                    "These weights tell depths at the scale of whole images only, so several scales or chips would "
                    "give wrong ones. Show each image once, or train with codec.focal_px, which states depths at one "
                    "focal length."
                )
            # a focal length is in pixels of the view, as the middle is
            observed = np.concatenate(
                [view.home(observed[:, :2]), observed[:, 2:3], observed[:, 3:4] * view.home.scale, observed[:, 4:]], 1
            )
            box_3d = lift(observed, projection)
            projections = np.broadcast_to(projection, (len(box_3d), 3, 4))
        return Instances(
            self.skeleton, view.home(decoded.xy[row].double().numpy()[keep]), decoded.score[row].numpy()[keep],
            box[keep], score[keep], decoded.label[row].numpy()[keep],
            visibility=None if seen is None else seen[row].numpy()[keep],
            probability=None if sure is None else sure[row].numpy()[keep],
            box_3d=box_3d, projection=projections,
            extra={name: values[row].numpy()[keep] for name, values in by_box.items() if values is not None},
            keypoint_extra={
                name: values[row].float().numpy()[keep] * (view.home.scale if name == "radius_px" else 1.0)
                for name, values in by_keypoint.items()
                if values is not None
            },
        )  # fmt: skip


def _sizes_of(program: Program, scales: tuple[float, ...]) -> tuple[tuple[int, int], ...]:
    """Return the size of the view of every scale.

    Raises:
        ValueError: See ``OneStageEstimator``.
    """
    full = program.input.size_wh
    if scales == (1.0,):
        return (full,)
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(
            "OneStageEstimator.scales must be positive numbers, such as (0.5, 0.75, 1.0, 1.25, 1.5), got "
            f"{scales}. (1.0,) shows an image once."
        )
    if max(scales) * max(full) > LARGEST_SIDE_PX:
        raise ValueError(
            f"Scale {max(scales):g} of a view of {full[0]} x {full[1]} pixels has a side of more than "
            f"{LARGEST_SIDE_PX:,} pixels. Use smaller scales."
        )
    if not isinstance(program, TorchProgram):
        raise ValueError(
            f"A {type(program).__name__} runs views of one size, so it has no scales but (1.0,), got {scales}. Load "
            "the weights file it was made from: poseglass.load_detector(FILE.safetensors)."
        )
    divisor = getattr(program.network, "divisor", None)
    if not isinstance(divisor, int) or divisor < 1:
        raise ValueError(
            f"scales need to know by what the sides of a view must be divisible, but {type(program.network).__name__} "
            f"states divisor={divisor!r}. Give the network an attribute divisor, such as 32, or use scales=(1.0,)."
        )
    sizes: dict[tuple[int, int], float] = {}
    for scale in scales:
        width, height = (max(int(side * scale / divisor + 0.5), 1) * divisor for side in full)
        size = full if scale == 1 else (width, height)
        if size in sizes:
            raise ValueError(
                f"Scales {sizes[size]:g} and {scale:g} both give a view of {size[0]} x {size[1]} pixels, since sides "
                f"are multiples of {divisor} for {type(program.network).__name__}. Leave one of them out, or use a "
                "larger input."
            )
        sizes[size] = scale
    return tuple(sizes)


def of_boxes(found: Instances, boxes_xyxy: np.ndarray) -> Instances:
    """Return the instance found at each given box, matched greedily by overlap of at least 0.5 (IoU), each once.

    Args:
        found: Any number of instances.
        boxes_xyxy: ``(N, 4)``, in the pixels of the instances.

    Returns:
        N instances with the given boxes; without a match, unknown keypoints and box in space (NaN), and scores and
        visibility of 0.
    """
    keypoints = len(found.skeleton)
    xy = np.full((len(boxes_xyxy), keypoints, 2), np.nan, np.float32)
    score = np.zeros((len(boxes_xyxy), keypoints), np.float32)
    box_score, label = np.zeros(len(boxes_xyxy), np.float32), np.zeros(len(boxes_xyxy), np.int64)
    visibility = None if found.visibility is None else np.zeros(score.shape, np.int64)
    probability = None if found.probability is None else np.zeros_like(score)
    more = {
        name: np.zeros((len(boxes_xyxy), *np.shape(values)[1:]), values.dtype)
        for name, values in found.keypoint_extra.items()
    }
    box_3d = None if found.box_3d is None else np.full((len(boxes_xyxy), 7), np.nan, np.float32)
    projection = None if found.projection is None else np.full((len(boxes_xyxy), 3, 4), np.nan)
    overlap = iou(boxes_xyxy, found.box_xyxy)
    while overlap.size and overlap.max() >= 0.5:
        box, row = np.unravel_index(int(overlap.argmax()), overlap.shape)
        xy[box], score[box], box_score[box], label[box] = (
            found.xy[row], found.score[row], found.box_score[row], found.label[row],
        )  # fmt: skip
        if visibility is not None and found.visibility is not None:
            visibility[box] = found.visibility[row]
        if probability is not None and found.probability is not None:
            probability[box] = found.probability[row]
        if box_3d is not None and found.box_3d is not None:
            box_3d[box] = found.box_3d[row]
        if projection is not None and found.projection is not None:
            projection[box] = found.projection[row]
        for name, values in found.keypoint_extra.items():
            more[name][box] = values[row]
        overlap[box], overlap[:, row] = -1.0, -1.0
    return Instances(
        found.skeleton, xy, score, boxes_xyxy, box_score, label, visibility=visibility, probability=probability,
        box_3d=box_3d, projection=projection, keypoint_extra=more,
    )  # fmt: skip
