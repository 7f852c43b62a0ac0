"""Does an imported file compute what the original does? The file, loaded as any other, against the original's names.

The original side is an importer's ``reference``: its tensors under their own names through ``torch.nn.functional``,
with nothing of ``networks``. The same crops go through both.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poseglass.convert.importer import Importer
from poseglass.core.affine import Affine
from poseglass.core.boxes import fit_aspect, whole_image
from poseglass.datasets.synthetic import synthetic_people
from poseglass.estimators.load import load
from poseglass.estimators.topdown import TopDownEstimator, normalise, torch_runner
from poseglass.estimators.weights import CheckpointError
from poseglass.transforms import warp_image

LIMIT, LIMIT_HALF = 1e-3, 1e-2
"""The largest relative difference of heatmaps that is agreement, with float32 and with float16 kernels."""

CLEAR = 2e-5
"""How far, as a share of the largest value of all maps, a peak must stand above every other pixel of its map for its
keypoint to be held to one pixel of the heatmap: two maps that agree to 1e-5, as those of
every right import do, cannot have another peak then.
"""

NUM_DRAWN = 2
"""Drawn people that are compared where no pictures are given."""


def certify(
    path: str | Path,
    original: Mapping[str, Tensor],
    importer: Importer,
    *,
    pictures: Sequence[tuple[str, np.ndarray]] = (),
    half: bool = False,
) -> dict[str, Any]:
    """Compare a weights file with the checkpoint it was made from.

    Args:
        path: The weights file; it goes through the ordinary ``load``.
        original: The checkpoint's state, prefixes stripped.
        importer: Of its layout.
        pictures: Names and ``(H, W, 3)`` uint8 RGB, each seen whole. None takes drawn people.
        half: The file has float16 kernels.

    Returns:
        What a card keeps: ``maps_relative`` max |a - b| / max |b| over all heatmaps, ``keypoints_max_px`` and
        ``keypoints_mean_px`` in pixels of the network's input, what was compared on what, and the PyTorch version.

    Raises:
        CheckpointError: The layout has no reference, one of the two gives NaN or infinity, the heatmaps differ by more
            than the limit, or (with float32 kernels) a keypoint with a clear peak lies over a heatmap pixel elsewhere:
            a map of small values may be all wrong within the limit. Less than that pixel two neighbours of a peak that
            are alike may make by their order alone.
    """
    if importer.reference is None:
        raise CheckpointError(
            f"Nothing checks {importer.layout} yet: the importer has no independent reading. Import without --check."
        )
    estimator = load(path)
    if not pictures:
        people = synthetic_people(NUM_DRAWN, seed=0)
        pictures = [(f"drawn person {i}", people.image(i)) for i in range(NUM_DRAWN)]
    state = importer.current(original)
    run = torch_runner(estimator.network)
    differences, largest, moved, clear = [], [], [], []
    cell_px = 0.0
    for name, image in pictures:
        images = normalise(torch.from_numpy(_crop(estimator, image)[None]), estimator.input)
        ours = run(images)["heatmap"]
        with torch.inference_mode():
            theirs = importer.reference(state, images.contiguous())
        if ours.shape != theirs.shape:
            raise CheckpointError(f"The file gives maps {tuple(ours.shape)}, the original {tuple(theirs.shape)}.")
        if not bool(ours.isfinite().all() and theirs.isfinite().all()):
            whose = "imported weights" if theirs.isfinite().all() else "original's tensors"
            raise CheckpointError(
                f"The {whose} give NaN or infinity on {name}, so nothing can be compared. Nothing was written; take "
                "the checkpoint from where it was published again, or import without --check."
            )
        differences.append((ours - theirs).abs().max())
        largest.append(theirs.abs().max())
        a, b = (estimator.codec.decode({"heatmap": maps}).xy for maps in (ours, theirs))
        moved.append((a - b).norm(dim=-1).flatten())
        first, second = theirs.flatten(2).topk(2).values.unbind(-1)
        clear.append((first - second).flatten())
        cell_px = images.shape[-1] / ours.shape[-1]
    scale = float(torch.stack(largest).max())
    relative = float(torch.stack(differences).max()) / scale if scale > 0 else math.nan
    limit = LIMIT_HALF if half else LIMIT
    px = torch.cat(moved)
    far = max(px[torch.cat(clear) > CLEAR * scale].tolist(), default=0.0)  # maps are finite, and so are these
    what = ""
    if not relative <= limit:
        what = f"heatmaps differ by {relative:.2g} of their largest value, over {limit:g},"
    elif not half and not far <= cell_px:
        what = f"a keypoint with a clear peak lies {far:.3g} px elsewhere, over {cell_px:g},"
    if what:
        raise CheckpointError(
            f"The imported weights do not compute what the original does: {what} "
            f"on {', '.join(name for name, _ in pictures)}. Nothing was written; please report the checkpoint's origin "
            f"and its layout ({importer.name})."
        )
    return {
        "checked": True,
        "compared": f"heatmaps and keypoints of this file with those of the original's tensors ({importer.layout})",
        "pictures": [name for name, _ in pictures],
        "maps_relative": relative,
        "keypoints_max_px": float(px.max()),
        "keypoints_mean_px": float(px.mean()),
        "half": half,
        "torch": str(torch.__version__),
    }


def _crop(estimator: TopDownEstimator, image: np.ndarray) -> np.ndarray:
    spec = estimator.input
    box = fit_aspect(whole_image((image.shape[1], image.shape[0])), spec.aspect, padding=spec.padding)
    return warp_image(image, Affine.crop(box, spec.size_wh, spec.crop), spec.size_wh)
