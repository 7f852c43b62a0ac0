"""TopDownEstimator: an image and boxes in, instances in image pixels out. The only inference path."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poseglass.codecs.heatmap import activate
from poseglass.core.boxes import whole_image
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.large_image import LargeImage, ReadableImage
from poseglass.core.prediction import Prediction
from poseglass.core.sample import check_image
from poseglass.core.view import View
from poseglass.estimators.estimator import Boxes, Frame, image_and_boxes
from poseglass.estimators.of_program import OfProgram
from poseglass.programs.program import Program

_TAKEN = (
    "xy",
    "score",
    "box_score",
    "label",
    "visibility",
    "probability",
    "xyz_mm",
    "visibility_probability",
    "radius_px",
)
"""Fields that a program predicts per instance and an estimator passes on; boxes are those that were given."""


@dataclass(frozen=True, slots=True, eq=False)
class TopDownEstimator(OfProgram):
    """Finds the keypoints of people whose boxes are known.

    Args:
        program: Views to decoded keypoints.
        batch_size: Number of crops per call of the program.
        card: Card of the weights, if they came from a file.
        padding: Factor by which boxes are enlarged once they have the crop's aspect ratio; None uses the program's own.

    Attributes:
        input: Crop size, padding, crop rule, normalisation.

    Raises:
        ValueError: A padding that is not positive. When called: a program that does not predict one instance per view;
            an image that is not uint8 RGB; boxes of another shape, without area, not finite, or entirely outside the
            image.
    """

    program: Program
    batch_size: int = 32
    card: WeightCard | None = None
    padding: float | None = None
    input: InputSpec = field(init=False)

    def __post_init__(self) -> None:
        spec = self.program.input
        object.__setattr__(self, "input", spec if self.padding is None else replace(spec, padding=self.padding))

    def __repr__(self) -> str:
        return self.described(self.input.size_wh)

    @property
    def finds_boxes(self) -> bool:
        """False: boxes are given; without them, the whole image is the box of one person."""
        return False

    def with_padding(self, padding: float) -> "TopDownEstimator":
        """Return the same estimator with boxes enlarged by another factor.

        Raises:
            ValueError: The padding is not positive.
        """
        return replace(self, padding=padding)

    def __call__(self, image: ReadableImage, boxes: Boxes = None) -> Instances:
        """Find one pose per box.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes: ``(N, 4)`` x0 y0 x1 y1 in image pixels. None uses the whole image as the box of one person.

        Returns:
            N instances in image pixels, in the order of the boxes.
        """
        return next(self.stream([(image, boxes)]))

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find poses in many images; crops of several images share a batch. Yields one ``Instances`` each.

        Memory stays bounded: only the crops of one batch and the boxes of the images it spans are held.

        Args:
            frames: Images, or pairs of an image and its boxes; None for boxes means the whole image.
            causal: Yield the result of each frame before the next one is requested; a batch then covers one image only.
        """
        crops: list[np.ndarray] = []
        views: list[View] = []
        waiting: deque[np.ndarray] = deque()  # boxes of images whose poses are not complete yet
        found: deque[dict[str, np.ndarray]] = deque()
        for frame in frames:
            image, boxes = image_and_boxes(frame)
            boxes_xyxy = check_boxes(image, boxes)
            waiting.append(boxes_xyxy)
            for box_xyxy in boxes_xyxy:
                view = View.crop(box_xyxy, self.input)
                crops.append(view.read(image))
                views.append(view)
                if len(crops) == self.batch_size:
                    found += self._run(crops, views)
                    crops, views = [], []
            if causal and crops:
                found += self._run(crops, views)
                crops, views = [], []
            while waiting and len(waiting[0]) <= len(found):
                yield self._gather(waiting.popleft(), found)
        if crops:
            found += self._run(crops, views)
        while waiting:
            yield self._gather(waiting.popleft(), found)

    def _run(self, crops: list[np.ndarray], views: list[View]) -> list[dict[str, np.ndarray]]:
        """Return the instance found in each crop, by the field names of ``Instances``, keypoints in image pixels."""
        decoded = self.program(torch.from_numpy(np.stack(crops)))
        if decoded.xy.shape[1] != 1:
            raise ValueError(
                f"A TopDownEstimator needs a program that predicts one instance in each crop, this one predicts "
                f"{decoded.xy.shape[1]} per view. Use it with an estimator of whole images."
            )
        decoded = replace(decoded, score=decoded.score * decoded.valid[..., None])
        given = {name: getattr(decoded, name) for name in _TAKEN}
        arrays = {name: value[:, 0].cpu().numpy() for name, value in given.items() if value is not None}
        rows = [{name: values[i] for name, values in arrays.items()} for i in range(len(views))]
        for row, view in zip(rows, views, strict=True):
            row["xy"] = view.home(row["xy"])
            if "radius_px" in row:
                row["radius_px"] = (row["radius_px"] * view.home.scale).astype(np.float32)
        return rows

    def _gather(self, boxes_xyxy: np.ndarray, found: deque[dict[str, np.ndarray]]) -> Instances:
        mine = [found.popleft() for _ in range(len(boxes_xyxy))]
        if not mine:
            return self._nobody()
        columns: dict[str, Any] = {name: np.stack([row[name] for row in mine]) for name in mine[0]}
        named = ("visibility_probability", "radius_px")
        columns["keypoint_extra"] = {name: columns.pop(name) for name in named if name in columns}
        return Instances(self.skeleton, box_xyxy=boxes_xyxy, **columns)

    def _nobody(self) -> Instances:
        """Return no instances, with the fields that a calibration adds, so that they can be read without a check."""
        nobody = Instances.empty(self.skeleton)
        if not self.program.calibrated:
            return nobody
        return replace(nobody, probability=nobody.score, keypoint_extra={"radius_px": nobody.score})

    def heatmaps(
        self, image: ReadableImage, box_xyxy: np.ndarray | list | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return one crop as the network sees it, and its heatmaps, for display.

        Returns:
            The crop ``(H, W, 3)`` uint8 and maps ``(K, h, w)`` float32 in [0, 1]. Softmax maps are scaled so that a map
            that puts all its probability mass into the target's Gaussian peaks at 1, like a map of the Gaussian itself.
            For SimCC, the maps are the product of the probabilities along x and y, at the size of the crop.

        Raises:
            ValueError: The network outputs neither maps nor SimCC's vectors, or the program is not PyTorch's.
        """
        box = check_boxes(image, None if box_xyxy is None else [box_xyxy])[0]
        crop = View.crop(box, self.input).read(image)
        program = replace(self.torch_program, flip_test=False)
        prediction = program.predict(torch.from_numpy(crop[None]))
        spec = program.codec.spec
        order = program.network_skeleton.indices_of(self.skeleton.keypoints)
        if prediction.keys() >= {"x", "y"}:
            return crop, _product_of_axes(prediction, self.input.size_wh)[order]
        if "heatmap" not in prediction:
            raise ValueError(
                f"heatmaps() shows 'heatmap', or 'x' and 'y', but this network outputs {', '.join(prediction)}; "
                "there is nothing to show. Call the estimator for its keypoints."
            )
        activation = spec.outputs["heatmap"].activation
        peak = 2 * math.pi * (spec.sigma or 1.0) ** 2 if activation == "softmax" else 1.0
        shown = activate(prediction["heatmap"], activation) * peak
        return crop, shown.clamp(0.0, 1.0)[0].cpu().numpy()[order]


def _product_of_axes(prediction: Prediction, size_wh: tuple[int, int]) -> np.ndarray:
    """Return the probability of each pixel ``(K, H, W)`` from logits over the bins of x and y, each map's peak at 1."""
    x, y = (
        prediction[axis][0].float().softmax(-1).unflatten(-1, (pixels, -1)).sum(-1)
        for axis, pixels in zip("xy", size_wh, strict=True)
    )
    maps = y[:, :, None] * x[:, None, :]
    return (maps / maps.amax((-1, -2), keepdim=True).clamp_min(1e-12)).cpu().numpy()


def check_one_image(image: Any) -> None:
    """Raise unless it is a single image.

    Raises:
        ValueError: It is not an image, but a path or several; the message says what to call instead.
    """
    if isinstance(image, str | Path):
        raise ValueError(
            f"An estimator takes an image, not its path. Read it first: poseglass.read_image({str(image)!r})."
        )
    if isinstance(image, list | tuple):
        raise ValueError(
            f"An estimator takes one image at a time, got a {type(image).__name__} of {len(image)}. For several, use "
            "its stream(): it takes images, or (image, boxes) pairs as tuples, and yields the instances of each."
        )
    if isinstance(image, np.ndarray) and image.ndim == 4:
        raise ValueError(
            f"An estimator takes one image (H, W, 3), got an array of {image.shape}. For a batch, use its stream(), "
            "which takes images one after the other: estimator.stream(images)."
        )
    if not isinstance(image, LargeImage):
        check_image(image)


def check_boxes(image: ReadableImage, boxes: np.ndarray | list | None) -> np.ndarray:
    """Return boxes ``(N, 4)`` float32 that have area and overlap the image; None means the whole image.

    Raises:
        ValueError: The image or a box is not valid; boxes are numbered from 1, as in what ``predict`` prints. A box of
            at most a pixel at the corner, as results from fractions of the image, is rejected too.
    """
    check_one_image(image)
    height, width = image.shape[:2]
    if boxes is None:
        return whole_image((width, height))[None]
    array = np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must be (N, 4) x0 y0 x1 y1 in image pixels, got shape {array.shape}.")
    for i, (x0, y0, x1, y1) in enumerate(array.tolist()):
        what = f"box {i + 1} of {len(array)} [{x0:g}, {y0:g}, {x1:g}, {y1:g}]"
        if not np.isfinite([x0, y0, x1, y1]).all():
            raise ValueError(f"{what} has a coordinate that is not a finite number.")
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"{what} has no area. Expected x0 < x1 and y0 < y1; is it x, y, width, height?")
        if max(abs(x0), abs(y0), abs(x1), abs(y1)) <= 1.5 and max(width, height) > 2:
            raise ValueError(
                f"{what} lies within one pixel: it seems to be given as fractions of the image. Boxes are in pixels; "
                f"multiply x by {width} and y by {height}."
            )
        if x1 <= -0.5 or y1 <= -0.5 or x0 >= width - 0.5 or y0 >= height - 0.5:
            raise ValueError(f"{what} lies outside the image of {width} x {height} pixels.")
    return array
