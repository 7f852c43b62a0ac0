"""Which runtime and precision run weights fastest on this machine, as ``poseglass bench`` found, kept beside them."""

import importlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch

from poseglass.core.environment import cpu_model
from poseglass.core.files import write_bytes
from poseglass.estimators.fetch import weights_folder
from poseglass.estimators.load import SHIPPED_FOLDER, AnyEstimator, find_weights, load
from poseglass.estimators.weights_file import sha256_of
from poseglass.programs.fast import Precision as TorchPrecision
from poseglass.programs.graph_card import Precision

PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
"""Maps each runtime to the module that it is."""

FORMAT = 1
"""Version of the file; others are ignored, as if there was none."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest way to run weights within a bound of how far keypoints move.

    Args:
        runtime: "torch", "onnx" or "openvino".
        precision: What the network computes in.
        compiled: Whether PyTorch compiles it.
        file: The exported file that the runtime opens; empty for PyTorch.
        median_px: How far keypoints are from PyTorch's in float32: the median, in pixels of a view.
        max_drift_px: The bound that was asked for.
        times_as_fast: Compared with PyTorch in eager mode in float32, the geometric mean over batch sizes.
        flip_test: Whether the flip test was measured.
        weights_sha256: Hash of the weights file.
        machine: Processor and number of threads.
        version: Version of the runtime.
        file_sha256: Hash of the exported file; empty for PyTorch.

    Raises:
        ValueError: A field has the wrong type, an unknown runtime or precision, or a file that this runtime does not
            open.
    """

    runtime: str
    precision: str
    compiled: bool
    file: str
    median_px: float
    max_drift_px: float
    times_as_fast: float
    flip_test: bool
    weights_sha256: str
    machine: str
    version: str
    file_sha256: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), field.type
            if not isinstance(value, (int, float) if kind is float else kind):  # type: ignore[arg-type]
                raise ValueError(f"Choice.{field.name} must be {getattr(kind, '__name__', kind)}, got {value!r}.")
        if self.runtime not in PACKAGES or self.precision not in get_args(Precision):
            raise ValueError(f"Choice has an unknown runtime or precision: {self.runtime!r}, {self.precision!r}.")
        if Path(self.file).suffix != {"torch": "", "onnx": ".onnx", "openvino": ".xml"}[self.runtime]:
            raise ValueError(f"Choice.file must be one that {self.runtime} opens, got {self.file!r}.")

    def in_words(self) -> str:
        """Return what runs and why, in one sentence."""
        how = {"torch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}[self.runtime]
        compiled = ", compiled" if self.compiled else ""
        return (
            f"Run by {how} in {self.precision}{compiled}, as `poseglass bench` chose: {self.times_as_fast:.1f} times "
            f"as fast as plain PyTorch, keypoints {self.median_px:.2g} px of a crop apart in the median."
        )


def version_of(runtime: str) -> str:
    """Return the version of an installed runtime; empty if it is not installed."""
    try:
        return str(importlib.import_module(PACKAGES[runtime]).__version__)
    except ImportError:
        return ""


def file_hash(file: str | Path) -> str:
    """Return the hash of an exported file, of OpenVINO's together with its ``.bin``; empty for no file."""
    if not file:
        return ""
    binary = Path(file).with_suffix(".bin")
    return sha256_of(file) + (sha256_of(binary) if Path(file).suffix == ".xml" else "")


def this_machine() -> str:
    """Return processor and number of threads; a choice made on another machine does not count."""
    return f"{cpu_model()}, {torch.get_num_threads()} threads"


def choice_file(weights: str | Path) -> Path:
    """Return where the choice for weights is kept: beside them, or with the fetched weights for those that ship."""
    path = find_weights(weights)
    folder = weights_folder() if path.parent == SHIPPED_FOLDER else path.parent
    return folder / f"{path.stem}.bench.json"


def write_choices(weights: str | Path, choices: list[Choice]) -> Path:
    """Write choices, one per flip test, and return the file.

    Raises:
        OSError: The folder cannot be written.
    """
    path = choice_file(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"format": FORMAT, "choices": [asdict(choice) for choice in choices]}
    write_bytes(path, json.dumps(data, indent=1).encode())
    return path


def read_choices(weights: str | Path) -> list[Choice]:
    """Return the choices for weights that are valid here: same weights, machine and runtime, the file unchanged.

    A file that cannot be read is as good as none.
    """
    path = choice_file(weights)
    try:
        data: Any = json.loads(path.read_text())
        found = [Choice(**one) for one in data["choices"]] if data["format"] == FORMAT else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not found:
        return []
    sha, here = sha256_of(find_weights(weights)), this_machine()
    return [one for one in found if one.weights_sha256 == sha and one.machine == here and _is_as_it_was(one)]


def _is_as_it_was(choice: Choice) -> bool:
    """Return whether runtime and exported file are those that were measured."""
    try:
        return version_of(choice.runtime) == choice.version and file_hash(choice.file) == choice.file_sha256
    except OSError:  # the file is gone
        return False


def load_chosen(choice: Choice, weights: str | Path) -> AnyEstimator:
    """Open weights as a choice says."""
    if choice.file:
        return load(choice.file)
    precision: TorchPrecision = "bfloat16" if choice.precision == "bfloat16" else "float32"
    return load(weights, flip_test=choice.flip_test, precision=precision, compiled=choice.compiled)
