"""Opens an exported file in OpenVINO: its own ``.xml`` with ``.bin``, or an ONNX file."""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.programs.graph_card import CARD_KEY, DETECTOR_KEY, DIGEST_KEY, GRAPH_KEY, GraphCard, Precision
from poseglass.programs.graph_program import GraphFile, Run

EXTRA = "pip install 'poseglass[openvino]' (in a clone: pip install -e '.[openvino]')"

_HINTS: dict[Precision, str] = {"float32": "f32", "int8": "f32", "bfloat16": "bf16", "float16": "f32"}
"""What OpenVINO computes in where layers are not quantised. It lowers float32 to bfloat16 by itself unless told."""


def open_openvino(path: str | Path, *, threads: int = 0) -> GraphFile:
    """Open a file that poseglass exported, on the CPU.

    Args:
        path: An ``.xml``, whose ``.bin`` lies beside it, or an ``.onnx``.
        threads: Number of threads; 0 leaves it to OpenVINO.

    Raises:
        RuntimeError: OpenVINO is not installed.
        ValueError: Not such a file, truncated, without its ``.bin``, with an operator that OpenVINO does not have,
            without a card that fits, or exported for a precision that this processor does not have.
    """
    try:
        import openvino
    except ImportError as error:
        raise RuntimeError(f"{path} is to be run by OpenVINO, which is not installed: {EXTRA}.") from error
    path = Path(path)
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise ValueError(
            f"{path} keeps its weights in {path.with_suffix('.bin').name} beside it, which is missing. Copy that too."
        )
    core = openvino.Core()
    try:
        model = core.read_model(path)
    except Exception as error:  # its exceptions have no common base but Exception
        raise ValueError(_reason(path, error)) from error
    try:
        card = GraphCard.from_metadata(_metadata(model, path))
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if card.precision == "bfloat16" and not computes_bfloat16():
        raise ValueError(
            f"{path} computes in bfloat16, which this processor does not have. Export it with --precision float32."
        )
    try:
        run = compiled_run(model, card.outputs, card.precision, threads=threads)
    except RuntimeError as error:
        raise ValueError(_reason(path, error)) from error
    return GraphFile(card, run, f"OpenVINO {openvino.__version__.split('-')[0]}")


def computes_bfloat16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compiled_run(model: Any, outputs: tuple[str, ...], precision: Precision, *, threads: int = 0) -> Run:
    """Compile a model for the CPU, and return a function that runs it.

    Args:
        model: An ``openvino.Model``.
        outputs: Names of its outputs.
        precision: What to compute in.
        threads: Number of threads; 0 leaves it to OpenVINO.
    """
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    ports = {name: compiled.output(name) for name in outputs}
    own = threading.local()  # a request runs one call at a time

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer(inputs)
        return {name: found[port] for name, port in ports.items()}

    return run


def _metadata(model: Any, path: Path) -> dict[str, str]:
    """Return the texts of poseglass in a model's information, which OpenVINO also takes over from ONNX files."""
    found: dict[str, str] = {}
    for name in (CARD_KEY, DETECTOR_KEY, GRAPH_KEY, DIGEST_KEY):
        for place in (["poseglass", name], ["framework", name]):
            if model.has_rt_info(place):
                found[name] = str(model.get_rt_info(place).value)
    return found


def _reason(path: Path, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in reversed(lines) if not line.startswith(("Exception from", "Check '"))), "")
    if "onversion" in str(error) or "nsupported op" in str(error):
        return f"{path} uses an operator that this OpenVINO does not have: {text}. Use --to onnx, or update openvino."
    return (
        f"{path} cannot be read by OpenVINO, or it or its .bin is truncated: {text or type(error).__name__}. Export or "
        "copy it again."
    )
