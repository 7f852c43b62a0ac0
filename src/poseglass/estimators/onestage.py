"""OneStageEstimator: a whole image in, everybody in it out, by one network (CenterNet)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from poseglass.core.boxes import iou
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.prediction import Decoded
from poseglass.core.view import View
from poseglass.estimators.estimator import Boxes, Frame, image_and_boxes
from poseglass.estimators.of_program import OfProgram
from poseglass.estimators.topdown import check_boxes, check_one_image
from poseglass.programs.program import Program


@dataclass(frozen=True, slots=True, eq=False)
class OneStageEstimator(OfProgram):
    """Finds all instances of an image, with their boxes and, if the network predicts them, keypoints.

    Args:
        program: Views to any number of instances. An image is shown to it as large as fits, in the middle of a view.
        min_box_score: Instances with a lower score are not returned.
        batch_size: Number of images per call of the program.
        card: Card of the weights, if they came from a file.

    Raises:
        ValueError: A score outside [0, 1] or a batch size below 1. When called: an image that is not uint8 RGB, or
            boxes that are not valid.
    """

    program: Program
    min_box_score: float = 0.3
    batch_size: int = 8
    card: WeightCard | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_box_score <= 1 or self.batch_size < 1:
            raise ValueError(
                "OneStageEstimator needs min_box_score in [0, 1] and a batch_size of at least 1, got "
                f"{self.min_box_score} and {self.batch_size}."
            )

    def __repr__(self) -> str:
        return self.described(self.input.size_wh)

    @property
    def input(self) -> InputSpec:
        """Size of the views, and normalisation."""
        return self.program.input

    def __call__(self, image: np.ndarray, boxes: Boxes = None) -> Instances:
        """Find the instances of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes: ``(N, 4)`` x0 y0 x1 y1 in image pixels, or None.

        Returns:
            In image pixels, best first. If boxes are given, one instance per box, in their order: the one that was
            found with the largest overlap, each at most once; where none overlaps by half (IoU), all keypoints are
            unknown (NaN, score 0).
        """
        return next(self.stream([(image, boxes)]))

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find the instances of many images; yields one ``Instances`` each, in order.

        Memory stays bounded: only the views of one batch are held.

        Args:
            frames: Images, or pairs of an image and its boxes.
            causal: Yield the result of each frame before the next one is requested.
        """
        pixels: list[np.ndarray] = []
        waiting: list[tuple[View, tuple[int, int], np.ndarray | None]] = []
        for frame in frames:
            image, boxes = image_and_boxes(frame)
            check_one_image(image)
            given = None if boxes is None else check_boxes(image, boxes)
            size_wh = (image.shape[1], image.shape[0])
            view = View.letterbox(size_wh, self.input.size_wh)
            pixels.append(view.read(image))
            waiting.append((view, size_wh, given))
            if causal or len(pixels) == self.batch_size:
                yield from self._run(pixels, waiting)
                pixels, waiting = [], []
        if pixels:
            yield from self._run(pixels, waiting)

    def _run(
        self, pixels: list[np.ndarray], waiting: list[tuple[View, tuple[int, int], np.ndarray | None]]
    ) -> Iterator[Instances]:
        decoded = self.program(torch.from_numpy(np.stack(pixels))).cpu()
        for row, (view, size_wh, given) in enumerate(waiting):
            found = self._instances(decoded, row, view, size_wh)
            yield found if given is None else of_boxes(found, given)

    def _instances(self, decoded: Decoded, row: int, view: View, size_wh: tuple[int, int]) -> Instances:
        """Return the instances of one view in image pixels: boxes clipped to the image, those outside it dropped.

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
        keep = decoded.valid[row].numpy() & (score >= self.min_box_score)
        keep &= (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        return Instances(
            self.skeleton, view.home(decoded.xy[row].double().numpy()[keep]), decoded.score[row].numpy()[keep],
            box[keep], score[keep], decoded.label[row].numpy()[keep],
        )  # fmt: skip


def of_boxes(found: Instances, boxes_xyxy: np.ndarray) -> Instances:
    """Return the instance found at each given box, matched greedily by overlap of at least 0.5 (IoU), each once.

    Args:
        found: Any number of instances.
        boxes_xyxy: ``(N, 4)``, in the pixels of the instances.

    Returns:
        N instances with the given boxes; without a match, unknown keypoints (NaN) and scores of 0.
    """
    keypoints = len(found.skeleton)
    xy = np.full((len(boxes_xyxy), keypoints, 2), np.nan, np.float32)
    score = np.zeros((len(boxes_xyxy), keypoints), np.float32)
    box_score, label = np.zeros(len(boxes_xyxy), np.float32), np.zeros(len(boxes_xyxy), np.int64)
    overlap = iou(boxes_xyxy, found.box_xyxy)
    while overlap.size and overlap.max() >= 0.5:
        box, row = np.unravel_index(int(overlap.argmax()), overlap.shape)
        xy[box], score[box], box_score[box], label[box] = (
            found.xy[row], found.score[row], found.box_score[row], found.label[row],
        )  # fmt: skip
        overlap[box], overlap[:, row] = -1.0, -1.0
    return Instances(found.skeleton, xy, score, boxes_xyxy, box_score, label)
