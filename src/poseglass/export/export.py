"""``export_file``: converts a graph, checks it against PyTorch, and writes it with what the check found."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import poseglass
from poseglass.core.boxes import whole_image
from poseglass.core.files import write_bytes
from poseglass.core.image import read_image
from poseglass.estimators.load import AnyEstimator, load
from poseglass.export.exportable import Exportable
from poseglass.export.int8 import FLOAT_SHARES, Int8Plan, Rounding, check_images
from poseglass.export.onnx import OnnxTarget
from poseglass.export.openvino import OpenVinoTarget
from poseglass.export.parity import Drift, DriftError, Sample, drift_of, one_by_one
from poseglass.export.target import Target
from poseglass.export.torch_export import TorchTarget
from poseglass.programs.graph_card import GraphCard

TARGETS: dict[str, Target] = {"onnx": OnnxTarget(), "openvino": OpenVinoTarget(), "torch": TorchTarget()}
"""Kinds of files by name, for ``poseglass export --to NAME``."""

PHOTOGRAPH = Path(poseglass.__file__).parent / "photographs" / "surfers.jpg"
"""The photograph that ships, on which an export is checked if there is no dataset."""

_PEOPLE_XYXY = ((285, 73, 498, 400), (190, 290, 242, 392), (58, 281, 165, 398), (458, 296, 579, 403))
"""The people in it, as the built-in detector finds them."""

Measure = Callable[[AnyEstimator], dict[str, float]]
"""Evaluates an estimator on a dataset: results by name."""


def photograph_samples() -> list[Sample]:
    """Return the photograph that ships, whole and in part, with boxes of all its people and of the whole image."""
    image = read_image(PHOTOGRAPH)
    height, width = image.shape[:2]
    people = np.array(_PEOPLE_XYXY, np.float32)
    part = image[50:410, 250:].copy()
    return [
        (image, np.concatenate([whole_image((width, height))[None], people])),
        (part, people[[0, 3]] - np.array([250, 50, 250, 50], np.float32)),
    ]


def export_file(
    work: Exportable,
    target: Target,
    out: Path,
    samples: Sequence[Sample],
    inputs: str,
    *,
    calibration: Sequence[Sample] = (),
    max_drift_px: float | None = None,
    measure: Measure | None = None,
    on_call: Callable[[int, int], None] | None = None,
) -> tuple[GraphCard, Drift, list[Path]]:
    """Convert a graph, check it, and write it.

    Args:
        work: The graph.
        target: The kind of file.
        out: The file to write; its name ends with the target's suffix.
        samples: What to compare on.
        inputs: What they are, in words.
        calibration: Images to quantise on for int8, other ones than the samples.
        max_drift_px: Limit for how far keypoints may move, view pixels; None takes that of the precision.
        measure: Evaluates PyTorch's estimator and the exported file's on a dataset.
        on_call: For int8, called after each convolution that was measured, with its number and the number of all.

    Returns:
        What the file states, how far keypoints moved, and the files written.

    Raises:
        DriftError: Keypoints moved too far. What was made is then in a folder beside ``out``, ending with ".refused".
        ValueError: The graph cannot be converted, or there is nothing to compare.
        OSError: The folder is missing, full or not writable.
    """
    if work.card.precision == "int8":
        check_images([image for image, _ in calibration])
    model = target.convert(work)
    quantised: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="poseglass-export-") as name:
        folder = Path(name)
        if work.card.precision == "int8":
            model, drift, quantised = _in_int8(
                work, target, model, samples, inputs, calibration, folder, max_drift_px, on_call
            )
        else:
            drift = drift_of(work, target.run(model, work, folder), samples, inputs)
        if measure is not None:
            made = target.write(folder / f"measured{target.suffix}", model, work, work.card)
            before, after = measure(work.estimator), measure(_opened(made[0]))
            drift = replace(drift, results={key: (before[key], after[key]) for key in before})
    card = replace(work.card, drift=drift.to_dict(), quantised=quantised)
    try:
        drift.check(card.precision, max_drift_px)
    except DriftError as error:
        beside = out.with_name(out.name + ".refused")
        if beside.is_dir() and (beside / "drift.json").is_file():  # of an earlier try
            shutil.rmtree(beside)
        beside.mkdir()
        target.write(beside / out.name, model, work, card)
        write_bytes(beside / "drift.json", json.dumps(drift.to_dict(), indent=1).encode())
        raise DriftError(f"{error} The file and its figures are in {beside}, to look at.") from error
    return card, drift, target.write(out, model, work, card)


def _in_int8(
    work: Exportable,
    target: Target,
    model: Any,
    samples: Sequence[Sample],
    inputs: str,
    calibration: Sequence[Sample],
    folder: Path,
    max_drift_px: float | None,
    on_call: Callable[[int, int], None] | None,
) -> tuple[Any, Drift, dict[str, Any]]:
    """Return a quantised model, its drift, and what was done.

    More and more convolutions stay in float until keypoints move little enough, or ``FLOAT_SHARES`` is exhausted.
    """
    given = one_by_one(work, calibration)
    rounding = Rounding(work, given)
    found = rounding.sensitivity(on_call)
    best: tuple[float, Any, Drift, tuple[int, ...]] | None = None
    for share in FLOAT_SHARES:
        in_float = found.in_float(share)
        if best is not None and in_float == best[3]:
            continue
        made = target.quantise(
            model, work, Int8Plan(given, found.calls, in_float, rounding.bias_shifts(in_float)), folder
        )
        try:
            drift = drift_of(work, target.run(made, work, folder), samples, inputs)
        except DriftError:  # nothing is found any more
            if share == FLOAT_SHARES[-1] and best is None:
                raise
            continue
        accepted = drift.within(work.card.precision, max_drift_px)
        if accepted or best is None or drift.median_px < best[0]:
            best = (drift.median_px, made, drift, in_float)
        if accepted:
            break
    assert best is not None
    _, made, drift, in_float = best
    return (
        made,
        drift,
        {
            "int8_share": round(found.int8_share(in_float), 4),
            "in_float": [found.calls[i].name for i in in_float],
            "images": len(calibration),
        },
    )


def _opened(path: Path) -> AnyEstimator:
    """Return the estimator of a file that was just made, which is therefore trusted."""
    return load(path, trust_code=True)
