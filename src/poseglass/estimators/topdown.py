"""TopDownEstimator: an image and boxes in, instances in image pixels out. The one inference path."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from poseglass.codecs import Codec
from poseglass.codecs.heatmap import Activation, activate
from poseglass.core.affine import Affine
from poseglass.core.batch import Prediction
from poseglass.core.boxes import fit_aspect, whole_image
from poseglass.core.card import InputSpec, WeightCard
from poseglass.core.instances import Instances
from poseglass.core.sample import check_image
from poseglass.core.skeleton import Skeleton
from poseglass.transforms import warp_image

Runner = Callable[[Tensor], Prediction]
"""Normalised images ``(B, 3, H, W)`` to the last stage's prediction: a torch module, an ONNX session, ..."""


def torch_runner(network: nn.Module) -> Runner:
    """Return a runner over a network: evaluation mode, no gradients, on the network's device."""
    network.eval()

    def run(images: Tensor) -> Prediction:
        device = next(network.parameters()).device
        with torch.inference_mode():
            return network(images.to(device))[-1]

    return run


def flipped(runner: Runner, codec: Codec, skeleton: Skeleton) -> Runner:
    """Wrap a runner so that each prediction is averaged with the mirrored image's, mirrored back (flip test)."""

    def run(images: Tensor) -> Prediction:
        straight = runner(images)
        mirrored = codec.flip(runner(images.flip(-1)), skeleton)
        return {name: (straight[name] + mirrored[name]) / 2 for name in mirrored}

    return run


def normalise(images_uint8: Tensor, spec: InputSpec) -> Tensor:
    """Turn ``(B, H, W, 3)`` uint8 RGB into ``(B, 3, H, W)`` float32, normalised, in channels-last memory.

    The channels come out in the order of ``spec.color``, which is also that of its mean and deviation.
    """
    device = images_uint8.device
    mean, std = torch.tensor(spec.mean, device=device) * 255, torch.tensor(spec.std, device=device) * 255
    # one multiply-add over contiguous NHWC memory; the permuted view is channels_last for free
    ordered = images_uint8.flip(-1) if spec.color == "bgr" else images_uint8
    return torch.addcmul(-mean / std, ordered.float(), 1 / std).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class TopDownEstimator:
    """Finds the keypoints of people whose boxes are known.

    Args:
        network: Images to stages.
        codec: Reads keypoints out of the last stage.
        skeleton: Names the keypoints.
        input: Crop size, padding, crop rule, normalisation.
        flip_test: Average with the mirrored crop: twice the work, a little more accurate.
        batch_size: Crops through the network at once.
        card: Of the weights, where they came from a file.
        runner: What runs the network; the network itself unless given. ``runners.fast_runner`` makes faster ones.

    Raises:
        ValueError: When called: an image that is not uint8 RGB; boxes of another shape, without area, not finite, or
            wholly outside the image.
    """

    network: nn.Module
    codec: Codec
    skeleton: Skeleton
    input: InputSpec
    flip_test: bool = False
    batch_size: int = 32
    card: WeightCard | None = None
    runner: Runner | None = None

    def __repr__(self) -> str:
        what = type(self.network).__name__ if self.card is None else f"{self.card.name!r}: {self.card.network['name']}"
        width, height = self.input.size_wh
        flip = ", flip test" if self.flip_test else ""
        return (
            f"{type(self).__name__}({what}, {type(self.codec).__name__}, {len(self.skeleton)} keypoints of "
            f"{self.skeleton.name!r}, {width} x {height} px{flip})"
        )

    def __call__(self, image: np.ndarray, boxes: np.ndarray | list | None = None) -> Instances:
        """Find one pose per box.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes: ``(N, 4)`` x0 y0 x1 y1 in image pixels. None takes the whole image as the box of one person.

        Returns:
            N instances in image pixels, in the order of the boxes.
        """
        return next(self.stream([(image, boxes)]))

    def stream(self, pictures: Iterable[tuple[np.ndarray, np.ndarray | list | None]]) -> Iterator[Instances]:
        """Find poses in many pictures; crops of several pictures share a batch. Yields one ``Instances`` each.

        Memory stays bounded: only the crops of one batch and the pictures it spans are held.
        """
        runner = self.runner or torch_runner(self.network)
        if self.flip_test:
            runner = flipped(runner, self.codec, self.skeleton)
        crops: list[np.ndarray] = []
        maps: list[Affine] = []
        waiting: list[np.ndarray] = []  # boxes of pictures whose poses are not all known yet
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for image, boxes in pictures:
            boxes_xyxy = check_boxes(image, boxes)
            waiting.append(boxes_xyxy)
            for box in fit_aspect(boxes_xyxy.astype(np.float64), self.input.aspect, padding=self.input.padding):
                to_crop = Affine.crop(box, self.input.size_wh, self.input.crop)
                crops.append(warp_image(image, to_crop, self.input.size_wh))
                maps.append(to_crop)
                if len(crops) == self.batch_size:
                    found += self._run(runner, crops, maps)
                    crops, maps = [], []
            while waiting and len(waiting[0]) <= len(found):
                yield self._gather(waiting.pop(0), found)
        if crops:
            found += self._run(runner, crops, maps)
        for boxes_xyxy in waiting:
            yield self._gather(boxes_xyxy, found)

    def _run(self, runner: Runner, crops: list[np.ndarray], maps: list[Affine]) -> list[tuple[np.ndarray, np.ndarray]]:
        images = normalise(torch.from_numpy(np.stack(crops)), self.input)
        decoded = self.codec.decode(runner(images))
        xy, score = decoded.xy[:, 0].cpu().numpy(), decoded.score[:, 0].cpu().numpy()
        return [(to_crop.inverse()(p), s) for to_crop, p, s in zip(maps, xy, score, strict=True)]

    def _gather(self, boxes_xyxy: np.ndarray, found: list[tuple[np.ndarray, np.ndarray]]) -> Instances:
        mine = [found.pop(0) for _ in range(len(boxes_xyxy))]
        if not mine:
            return Instances.empty(self.skeleton)
        xy, score = (np.stack(part) for part in zip(*mine, strict=True))
        return Instances(self.skeleton, xy, score, boxes_xyxy, np.ones(len(mine), np.float32))

    def heatmaps(self, image: np.ndarray, box_xyxy: np.ndarray | list | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return one crop as the network sees it and its heatmaps, for looking at.

        Returns:
            The crop ``(H, W, 3)`` uint8 and maps ``(K, h, w)`` float32 in [0, 1]. Softmax maps are scaled so that a
            map that puts all its belief into the target's Gaussian peaks at 1, like a map of the Gaussian itself. Of
            SimCC the maps are the product of the beliefs in x and in y, at the size of the crop.

        Raises:
            ValueError: The network gives neither maps nor SimCC's vectors.
        """
        box = check_boxes(image, None if box_xyxy is None else [box_xyxy])[0]
        fitted = fit_aspect(box, self.input.aspect, padding=self.input.padding)
        to_crop = Affine.crop(fitted, self.input.size_wh, self.input.crop)
        crop = warp_image(image, to_crop, self.input.size_wh)
        runner = self.runner or torch_runner(self.network)
        prediction = runner(normalise(torch.from_numpy(crop[None]), self.input))
        if {"x", "y"} <= prediction.keys():
            return crop, _product_of_axes(prediction, self.input.size_wh)
        if "heatmap" not in prediction:
            raise ValueError(
                f"heatmaps() shows 'heatmap', or 'x' and 'y', but this network gives {', '.join(prediction)}; "
                "there is nothing to show. Call the estimator for its keypoints."
            )
        maps = prediction["heatmap"]
        activation: Activation = getattr(self.codec, "activation", "none")
        sigma: float = getattr(self.codec, "sigma", 1.0)
        shown = activate(maps, activation) * (2 * math.pi * sigma**2 if activation == "softmax" else 1.0)
        return crop, shown.clamp(0.0, 1.0)[0].cpu().numpy()


def _product_of_axes(prediction: Prediction, size_wh: tuple[int, int]) -> np.ndarray:
    """Return the belief in each pixel ``(K, H, W)`` from logits over the bins of x and y, each map's peak at 1."""
    x, y = (
        prediction[axis][0].float().softmax(-1).unflatten(-1, (pixels, -1)).sum(-1)
        for axis, pixels in zip("xy", size_wh, strict=True)
    )
    maps = y[:, :, None] * x[:, None, :]
    return (maps / maps.amax((-1, -2), keepdim=True).clamp_min(1e-12)).cpu().numpy()


def check_boxes(image: np.ndarray, boxes: np.ndarray | list | None) -> np.ndarray:
    """Return boxes ``(N, 4)`` float32 that have area and touch the image; None is the whole image.

    Raises:
        ValueError: The image or a box will not do; the box is named by its number.
    """
    check_image(image)
    height, width = image.shape[:2]
    if boxes is None:
        return whole_image((width, height))[None]
    array = np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must be (N, 4) x0 y0 x1 y1 in image pixels, got shape {array.shape}.")
    for i, (x0, y0, x1, y1) in enumerate(array.tolist()):
        what = f"box {i} [{x0:g}, {y0:g}, {x1:g}, {y1:g}]"
        if not np.isfinite([x0, y0, x1, y1]).all():
            raise ValueError(f"{what} has a coordinate that is not a finite number.")
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"{what} has no area. Expected x0 < x1 and y0 < y1; is it x, y, width, height?")
        if x1 <= -0.5 or y1 <= -0.5 or x0 >= width - 0.5 or y0 >= height - 0.5:
            raise ValueError(f"{what} lies outside the image of {width} x {height} pixels.")
    return array
