"""Checks that an imported file computes what the original does: the file, as ``load`` opens it, against a reference.

The original side is an importer's ``reference``: its tensors, under their own names, through ``torch.nn.functional``,
without any code from ``networks``. The same crops go through both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poseglass.checkpoints.importer import Importer
from poseglass.core.boxes import whole_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Prediction
from poseglass.core.view import View
from poseglass.estimators.fit import card_network
from poseglass.estimators.load import load_top_down
from poseglass.estimators.weights_file import CheckpointError, read_weights
from poseglass.programs.normalise import normalise
from poseglass.programs.torch_program import torch_forward
from poseglass.synthetic.people import synthetic_people

THRESHOLD, THRESHOLD_HALF = 1e-3, 1e-2
"""The largest relative difference of heatmaps that counts as agreement, for float32 and float16 kernels."""

CLEAR = 2e-5
"""How far a peak must exceed every other pixel of its map, as a share of the largest value of all maps, for its
keypoint to be required to agree within one heatmap pixel: two maps that agree to 1e-5, as those of every correct import
do, cannot have different peaks then.
"""

NUM_SYNTHETIC = 2
"""Number of synthetic people to compare if no images are given."""


def certify(
    path: str | Path,
    original: Mapping[str, Tensor],
    importer: Importer,
    *,
    named_images: Sequence[tuple[str, np.ndarray]] = (),
    half: bool = False,
) -> dict[str, Any]:
    """Compare a weights file with the checkpoint it was made from.

    Args:
        path: The weights file; it is opened with the ordinary ``load``.
        original: The checkpoint's state, prefixes stripped.
        importer: Importer of its layout.
        named_images: Names and ``(H, W, 3)`` uint8 RGB images, each used whole. None uses synthetic people.
        half: Whether the file has float16 kernels.

    Returns:
        The card's certificate: ``maps_relative`` max |a - b| / max |b| over all heatmaps (for a backbone, the largest
        over its levels), ``keypoints_max_px`` and ``keypoints_mean_px`` in pixels of the network's input (not for a
        backbone), what was compared on which images, and the PyTorch version.

    Raises:
        CheckpointError: The layout has no reference, one of the two networks outputs NaN or infinity, the heatmaps
            differ by more than the threshold, or (with float32 kernels) a keypoint with a clear peak is off by more
            than a heatmap pixel, since a map of small values may be entirely wrong within the threshold. Differences
            below one pixel are tolerated: they can result from two nearly equal neighbours of a peak.
    """
    if importer.reference is None:
        raise CheckpointError(
            f"There is no check for {importer.layout} yet: the importer has no reference. Import without --check."
        )
    if not named_images:
        people = synthetic_people(NUM_SYNTHETIC, seed=0)
        named_images = [(f"synthetic person {i}", people.image(i)) for i in range(NUM_SYNTHETIC)]
    state = importer.current(original)
    threshold = THRESHOLD_HALF if half else THRESHOLD
    if importer.part == "backbone" or importer.compares == "outputs":
        what = "features" if importer.part == "backbone" else "outputs"
        relative = _outputs_apart(path, state, importer.reference, named_images)
        if not relative <= threshold:
            raise _differs(
                f"{what} differ by {relative:.2g} of their largest value, over {threshold:g},", named_images, importer
            )
        return _certificate(
            f"{what} of this file with those of the original's tensors", importer, named_images, half
        ) | {"maps_relative": relative}
    estimator = load_top_down(path)
    run = torch_forward(estimator.network)
    differences, largest, moved, clear = [], [], [], []
    cell_px = 0.0
    for name, image in named_images:
        images = _images(image, estimator.input)
        ours = run(images)["heatmap"]
        with torch.inference_mode():
            theirs = importer.reference(state, images.contiguous())
        assert isinstance(theirs, Tensor)
        _check_comparable(ours, theirs, name)
        differences.append((ours - theirs).abs().max())
        largest.append(theirs.abs().max())
        a, b = (estimator.codec.decode({"heatmap": maps}).xy for maps in (ours, theirs))
        moved.append((a - b).norm(dim=-1).flatten())
        first, second = theirs.flatten(2).topk(2).values.unbind(-1)
        clear.append((first - second).flatten())
        cell_px = images.shape[-1] / ours.shape[-1]
    scale = float(torch.stack(largest).max())
    relative = float(torch.stack(differences).max()) / scale if scale > 0 else math.nan
    px = torch.cat(moved)
    far = max(px[torch.cat(clear) > CLEAR * scale].tolist(), default=0.0)  # finite, because the maps are
    what = ""
    if not relative <= threshold:
        what = f"heatmaps differ by {relative:.2g} of their largest value, over {threshold:g},"
    elif not half and not far <= cell_px:
        what = f"a keypoint with a clear peak is off by {far:.3g} px, over {cell_px:g},"
    if what:
        raise _differs(what, named_images, importer)
    compared = "heatmaps and keypoints of this file with those of the original's tensors"
    return _certificate(compared, importer, named_images, half) | {
        "maps_relative": relative,
        "keypoints_max_px": float(px.max()),
        "keypoints_mean_px": float(px.mean()),
    }


def _outputs_apart(
    path: str | Path,
    state: Mapping[str, Tensor],
    reference: Callable[[Mapping[str, Tensor], Tensor], Tensor | list[Tensor] | Prediction],
    named_images: Sequence[tuple[str, np.ndarray]],
) -> float:
    """Return the largest relative difference of a backbone's levels, or a network's outputs, over all images."""
    weights, card = read_weights(path)
    network = card_network(card, weights)
    apart: list[Tensor] = []
    for name, image in named_images:
        images = _images(image, card.input)
        with torch.inference_mode():
            ours, theirs = network(images), reference(state, images.contiguous())
        if card.part == "network":
            ours = ours[-1]
        if len(ours) != len(theirs):
            levels = "levels" if card.part == "backbone" else "outputs"
            raise CheckpointError(f"The file outputs {len(ours)} {levels}, the original {len(theirs)}.")
        for key, its in theirs.items() if isinstance(theirs, dict) else enumerate(theirs):
            _check_comparable(ours[key], its, name)
            apart.append((ours[key] - its).abs().max() / its.abs().max())
    return float(torch.stack(apart).max())


def _check_comparable(ours: Tensor, theirs: Tensor, image_name: str) -> None:
    if ours.shape != theirs.shape:
        raise CheckpointError(f"The file outputs maps {tuple(ours.shape)}, the original {tuple(theirs.shape)}.")
    if not bool(ours.isfinite().all() and theirs.isfinite().all()):
        whose = "imported weights" if theirs.isfinite().all() else "original's tensors"
        raise CheckpointError(
            f"The {whose} output NaN or infinity on {image_name}, so nothing can be compared. Nothing was written; "
            "download the checkpoint from its publisher again, or import without --check."
        )


def _differs(what: str, named_images: Sequence[tuple[str, np.ndarray]], importer: Importer) -> CheckpointError:
    return CheckpointError(
        f"The imported weights do not compute what the original does: {what} "
        f"on {', '.join(name for name, _ in named_images)}. Nothing was written; please report the checkpoint's origin "
        f"and its layout ({importer.name})."
    )


def _certificate(
    compared: str, importer: Importer, named_images: Sequence[tuple[str, np.ndarray]], half: bool
) -> dict[str, Any]:
    return {
        "checked": True,
        "compared": f"{compared} ({importer.layout})",
        "images": [name for name, _ in named_images],
        "half": half,
        "torch": str(torch.__version__),
    }


def _images(image: np.ndarray, spec: InputSpec) -> Tensor:
    """Return an image, seen whole, as input of a network with that input spec: ``(1, 3, H, W)``."""
    crop = View.crop(whole_image((image.shape[1], image.shape[0])), spec).read(image)
    return normalise(torch.from_numpy(crop[None]), spec)
