"""Measures every installed way to run weights on this machine: speed, and how far keypoints move."""

import hashlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poseglass.core.folders import cache_folder
from poseglass.core.precision import has_bfloat16
from poseglass.estimators.choice import PACKAGES, Choice, file_hash, this_machine, version_of
from poseglass.estimators.load import find_weights, load
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.weights_file import sha256_of
from poseglass.export.export import TARGETS
from poseglass.export.exportable import Exportable, exportable
from poseglass.export.parity import Drift, Sample, drift_of
from poseglass.programs.fast import Precision as TorchPrecision
from poseglass.programs.fast import fast_program
from poseglass.programs.graph_card import Precision
from poseglass.programs.graph_program import GraphProgram, Run
from poseglass.programs.program import Program
from poseglass.programs.torch_program import TorchProgram

NAMES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}
"""Names of the runtimes."""

_SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One way to run weights.

    Args:
        runtime: "torch", "onnx" or "openvino".
        precision: What the network computes in.
        compiled: Whether PyTorch compiles it.
        program: The program.
        file: The exported file that it was opened from; empty for PyTorch.
    """

    runtime: str
    precision: Precision
    compiled: bool
    program: Program
    file: str = ""

    @property
    def name(self) -> str:
        """Name of the runtime, precision, and whether it is compiled."""
        return f"{NAMES[self.runtime]} {self.precision}{', compiled' if self.compiled else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one way.

    Args:
        way: The way.
        ms: Median milliseconds per batch size.
        drift: How far keypoints are from PyTorch's in float32.
    """

    way: Way
    ms: dict[int, float]
    drift: Drift


def ways(
    weights: str | Path, *, flip_test: bool = False, compiled: bool = True, on_note: Callable[[str], None]
) -> tuple[Exportable, list[Way]]:
    """Return every way to run weights that is installed; the first is PyTorch in float32, in eager mode.

    Exported files are written into the folder ``programs`` of the cache, and used again by the next call.

    Args:
        weights: As for ``poseglass.load``.
        flip_test: Average with the flipped image.
        compiled: Also try PyTorch's compiler, which takes minutes.
        on_note: Called with a sentence for each way that is left out.
    """
    work = exportable(weights, flip_test=flip_test)
    estimator = work.estimator
    assert isinstance(estimator, TopDownEstimator | OneStageEstimator)
    plain = estimator.torch_program
    found = [Way("torch", "float32", False, plain)]
    bfloat16 = has_bfloat16(torch.device("cpu"))
    if not bfloat16:
        on_note("bfloat16 is left out: this processor has no arithmetic for it.")
    precisions: tuple[TorchPrecision, ...] = ("float32", "bfloat16") if bfloat16 else ("float32",)
    for compile_it in (False, True) if compiled else (False,):
        for precision in precisions:
            if compile_it or precision != "float32":
                way = _fast(plain, precision, compile_it, on_note)
                found += [] if way is None else [way]
    return work, [*found, *_exported(weights, work, bfloat16, on_note)]


def _fast(plain: TorchProgram, precision: TorchPrecision, compiled: bool, on_note: Callable[[str], None]) -> Way | None:
    """Return a faster PyTorch, or None with a note if it falls back to something else."""
    warnings: list[str] = []
    program = fast_program(plain, precision=precision, compiled=compiled, on_warning=warnings.append)
    if compiled:  # compiles now, so that a fall back shows itself
        width, height = plain.input.size_wh
        program(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    way = Way("torch", precision, compiled, program)
    if warnings:
        on_note(f"{way.name} is left out: {warnings[0]}")
        return None
    return way


def _exported(weights: str | Path, work: Exportable, bfloat16: bool, on_note: Callable[[str], None]) -> list[Way]:
    """Return the exported files' ways, for the runtimes that are installed."""
    wanted: list[tuple[str, Precision]] = [("onnx", "float32"), ("openvino", "float32")]
    if bfloat16:
        wanted.append(("openvino", "bfloat16"))
    folder = cache_folder("programs")
    versions = json.dumps(work.card.to_metadata(), sort_keys=True)  # other code or options, another file
    about = hashlib.sha256(versions.encode()).hexdigest()[:8]
    stem = f"{sha256_of(find_weights(weights))[:16]}-{about}"
    found: list[Way] = []
    model: Any = None
    for runtime, precision in wanted:
        target = TARGETS[runtime]
        if importlib.util.find_spec(PACKAGES[runtime]) is None:
            if precision == "float32":
                on_note(f"{NAMES[runtime]} is left out: it is not installed (pip install 'poseglass[{runtime}]').")
            continue
        path = folder / f"{stem}-{precision}{target.suffix}"
        try:
            estimator = load(path)
        except (FileNotFoundError, ValueError):  # none yet, or of another version
            try:
                target.check()
                model = target.convert(work) if model is None else model
                path.parent.mkdir(parents=True, exist_ok=True)
                target.write(path, model, work, replace(work.card, precision=precision))
                estimator = load(path)
            except (RuntimeError, ValueError, OSError) as error:
                on_note(f"{NAMES[runtime]} {precision} is left out: {error}")
                continue
        assert isinstance(estimator, TopDownEstimator | OneStageEstimator)
        found.append(Way(runtime, precision, False, estimator.program, str(path)))
    return found


def measure(
    work: Exportable,
    found: Sequence[Way],
    batches: Sequence[int],
    samples: Sequence[Sample],
    inputs: str,
    *,
    repeats: int = 11,
) -> list[Row]:
    """Time ways interleaved, and compare their keypoints with PyTorch's in float32.

    Args:
        work: The graph of the weights.
        found: The ways, the plain one first.
        batches: Numbers of views per call.
        samples: Images to compare keypoints on.
        inputs: What they are, in words.
        repeats: Number of runs of each, after one that is not counted; times are medians.
    """
    drifts = [drift_of(work, _run_of(way.program), samples, inputs) for way in found]
    width, height = work.card.input.size_wh
    seconds: list[dict[int, list[float]]] = [{batch: [] for batch in batches} for _ in found]
    for batch in batches:
        views = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)
        for repeat in range(repeats + 1):
            for way, took in zip(found, seconds, strict=True):
                start = time.perf_counter()
                way.program(views)
                if repeat:
                    took[batch].append(time.perf_counter() - start)
    return [
        Row(way, {batch: 1e3 * statistics.median(values) for batch, values in took.items()}, drift)
        for way, took, drift in zip(found, seconds, drifts, strict=True)
    ]


def fastest(rows: Sequence[Row], max_drift_px: float) -> Row:
    """Return the fastest way whose median drift is within a bound; the first, plain PyTorch in float32, always is."""
    allowed = [row for row in rows if row.drift.median_px <= max_drift_px]
    return max(allowed, key=lambda row: gain(row, rows[0]))


def choice_of(best: Row, plain: Row, weights: str | Path, flip_test: bool, max_drift_px: float) -> Choice:
    """Return a row as a choice to keep beside the weights.

    Args:
        best: What was chosen.
        plain: Plain PyTorch in float32.
        weights: The weights.
        flip_test: Whether the flip test was measured.
        max_drift_px: The bound that was asked for, pixels of a view.
    """
    return Choice(
        best.way.runtime, best.way.precision, best.way.compiled, best.way.file, best.drift.median_px, max_drift_px,
        gain(best, plain), flip_test, sha256_of(find_weights(weights)), this_machine(),
        version_of(best.way.runtime), file_hash(best.way.file),
    )  # fmt: skip


def exported_way(file: Path, work: Exportable) -> Way:
    """Return an exported file of the user's as a way to run its weights.

    Raises:
        ValueError: It is of other weights, or with another flip test or size, or reads its views itself.
    """
    if file.suffix not in _SUFFIXES:
        raise ValueError(f"--also takes an exported file, {' or '.join(_SUFFIXES)}; got {file}.")
    estimator = load(file)
    if not isinstance(estimator, TopDownEstimator | OneStageEstimator):
        raise ValueError(f"{file} reads its views itself. Give a file exported without --whole-image.")
    assert isinstance(estimator.program, GraphProgram)
    card, own = estimator.program.file.card, work.card
    assert card.card is not None
    assert own.card is not None
    same = (card.card.to_json(), card.input, card.flip_test, card.skeleton)
    if same != (own.card.to_json(), own.input, own.flip_test, own.skeleton):
        flip = "with" if card.flip_test else "without"
        width, height = card.input.size_wh
        raise ValueError(
            f"{file} was exported from {card.card.name!r} at {width} x {height} px {flip} the flip test, with "
            f"keypoints {card.skeleton.name!r}; what is measured differs in that or in its weights. Export these "
            "weights again, with the same options."
        )
    runtime = _SUFFIXES[file.suffix]
    return Way(runtime, card.precision, False, estimator.program, str(file.resolve()))


def gain(row: Row, plain: Row) -> float:
    """Return how many times as fast as the plain way a way is: the geometric mean over batch sizes."""
    return statistics.geometric_mean([plain.ms[batch] / row.ms[batch] for batch in row.ms])


def _run_of(program: Program) -> Run:
    """Return a program as a graph of views whose points stay in view pixels."""
    if isinstance(program, GraphProgram):
        return program.file.run

    def run(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        decoded = program(torch.from_numpy(given["views"]))
        named = {name: getattr(decoded, name) for name in decoded.__slots__}
        return {name: value.cpu().numpy() for name, value in named.items() if value is not None}

    return run
