"""WholeImageEstimator: an exported file that reads its views from the image itself."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.large_image import LargeImage, ReadableImage
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.estimator import Boxes, Frame, image_and_boxes
from poseglass.estimators.onestage import of_boxes
from poseglass.estimators.topdown import check_boxes, check_one_image
from poseglass.programs.graph_program import GraphFile

_FIELDS = ("xy", "score", "box_xyxy", "box_score", "label", "visibility", "probability", "xyz_mm")
_MOST_BOXES = 32
"""Boxes per call, so that memory stays bounded."""

_BY_KEYPOINT = ("visibility_probability", "radius_px")
_BY_INSTANCE = ("box_probability",)


@dataclass(frozen=True, slots=True, eq=False)
class WholeImageEstimator:
    """Finds instances with an exported file of kind "boxes", "people" or "two_stage".

    Args:
        file: The opened file.
        min_box_score: Instances that the file finds with a lower score are not returned; None leaves it to the file.

    Raises:
        ValueError: A file of views, or a lower ``min_box_score`` than that which the file was exported with. When
            called: an image that is not uint8 RGB, boxes that are not valid, or boxes for a detector followed by poses,
            which finds its own.
    """

    file: GraphFile
    min_box_score: float | None = None

    def __post_init__(self) -> None:
        built_in = self.file.card.min_box_score
        if self.file.card.kind == "views":
            raise ValueError("This file takes views, which the caller reads. Open it with poseglass.load.")
        if self.min_box_score is not None and built_in is not None and self.min_box_score < built_in - 1e-9:
            raise ValueError(
                f"This file returns nobody with a score below {built_in:g}, which was set when it was exported, so "
                f"min_box_score={self.min_box_score:g} would miss people. Export it with --min-box-score "
                f"{self.min_box_score:g}."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.file!r})"

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints; it has none if only boxes are detected."""
        return self.file.card.skeleton

    @property
    def card(self) -> WeightCard | None:
        """Card of the weights that the file was exported from."""
        return self.file.card.card

    @property
    def input(self) -> InputSpec:
        """Size of the views that the file reads."""
        return self.file.card.input

    @property
    def flip_test(self) -> bool:
        """Whether the flip test is in the file."""
        return self.file.card.flip_test

    @property
    def finds_boxes(self) -> bool:
        """Whether the file finds the instances of an image itself."""
        return self.file.card.kind != "boxes"

    @property
    def calibrated(self) -> bool:
        """Whether results have probabilities and radii."""
        return self.file.card.calibrated

    def with_flip_test(self, flip_test: bool) -> "WholeImageEstimator":
        """Return the same estimator, if its flip test is as requested.

        Raises:
            ValueError: It is not; it is part of the file.
        """
        if flip_test != self.flip_test:
            raise ValueError(
                f"This file was exported {'with' if self.flip_test else 'without'} the flip test, which cannot be "
                "changed in it. Export the weights again, or load the weights themselves."
            )
        return self

    def __call__(self, image: ReadableImage, boxes: Boxes = None) -> Instances:
        """Find the instances of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes: ``(N, 4)`` x0 y0 x1 y1 in image pixels. None is the whole image for a file of kind "boxes", and
                leaves it to the file otherwise.

        Returns:
            In image pixels; if boxes are given, one instance per box, in the same order.

        Raises:
            ValueError: The image is a ``LargeImage``, of which the file cannot read parts.
        """
        if isinstance(image, LargeImage):
            raise ValueError(
                f"{image.path} is too large for a file that takes whole images. Use the weights that it was exported "
                "from, or a file exported without --whole-image."
            )
        kind = self.file.card.kind
        if kind == "boxes":
            box = check_boxes(image, boxes)
            if not len(box):
                return self._instances({})
            pixels = np.ascontiguousarray(image)
            parts = [
                self._instances(self.file.run({"image": pixels, "boxes_xyxy": box[i : i + _MOST_BOXES]}))
                for i in range(0, len(box), _MOST_BOXES)
            ]
            return parts[0] if len(parts) == 1 else Instances.concatenate(parts)
        check_one_image(image)
        given = None if boxes is None else check_boxes(image, boxes)
        if given is not None and kind == "two_stage":
            raise ValueError(
                "This file finds the boxes itself and takes none. For given boxes, export the weights of the poses "
                "alone: poseglass export WEIGHTS --whole-image."
            )
        found = self._instances(self.file.run({"image": np.ascontiguousarray(image)}))
        if self.min_box_score is not None:
            found = found[found.box_score >= self.min_box_score]
        return found if given is None else of_boxes(found, given)

    def stream(self, frames: Iterable[Frame], *, causal: bool = False) -> Iterator[Instances]:
        """Find the instances of many images, one after the other; yields one ``Instances`` each, in order.

        Args:
            frames: Images, or pairs of an image and its boxes.
            causal: Has no effect: the result of each frame is always yielded before the next one is requested.
        """
        for frame in frames:
            yield self(*image_and_boxes(frame))

    def _instances(self, found: dict[str, np.ndarray]) -> Instances:
        """Return the outputs of a graph as instances; none for no outputs."""
        if not found:
            nobody = Instances.empty(self.skeleton)
            outputs = self.file.card.outputs
            found = {name: np.asarray(getattr(nobody, name)) for name in _FIELDS[:5]}
            found |= {name: nobody.score for name in ("probability", "radius_px") if name in outputs}
        columns: dict[str, Any] = {name: found[name] for name in _FIELDS if name in found}
        return Instances(
            self.skeleton,
            **columns,
            extra={name: found[name] for name in _BY_INSTANCE if name in found},
            keypoint_extra={name: found[name] for name in _BY_KEYPOINT if name in found},
        )


def is_graph_file(path: str | Path) -> bool:
    """Return whether a path has the suffix of an exported file."""
    return Path(path).suffix in (".onnx", ".xml", ".pt2")


def open_graph(path: str | Path, *, device: str = "cpu", trust_code: bool = False) -> GraphFile:
    """Open an exported file in the runtime that it was exported for, by its suffix.

    Raises:
        FileNotFoundError: No such file.
        RuntimeError: The runtime is not installed, or it lacks the device.
        ValueError: Not such a file, damaged, or without a card that fits.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such exported file: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.suffix == ".onnx":
        from poseglass.programs.onnx_file import open_onnx

        return open_onnx(path, device=device)
    if path.suffix == ".xml":
        from poseglass.programs.openvino_file import open_openvino

        if not str(device).startswith("cpu"):
            raise ValueError(f"{path} is run by OpenVINO on the CPU, got device {device!r}. Omit the device.")
        return open_openvino(path)
    from poseglass.programs.torch_file import open_torch

    return open_torch(path, device=device, trust_code=trust_code)
