"""Opens an exported ONNX file in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.precision import NO_INT8, has_int8
from poseglass.programs.graph_card import GraphCard
from poseglass.programs.graph_program import GraphFile, Run

EXTRA = "pip install 'poseglass[onnx]' (in a clone: pip install -e '.[onnx]')"

_UNKNOWN_OPERATOR = (
    "is not a registered function", "No Op registered", "NOT_IMPLEMENTED", "Opset", "opset version",
)  # fmt: skip
"""Words in what ONNX Runtime says about an operator, or a version of it, that it does not have."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Maps the kind of a device to the part of ONNX Runtime that uses it."""


def open_onnx(path: str | Path, *, device: str = "cpu", threads: int = 0) -> GraphFile:
    """Open an ONNX file that poseglass exported.

    Args:
        path: The file.
        device: "cpu", "cuda", or "cuda:1" for the second GPU.
        threads: Number of threads; 0 leaves it to ONNX Runtime, which takes one per core.

    Raises:
        RuntimeError: ONNX Runtime is not installed, or the device is not available in it.
        ValueError: Not an ONNX file, truncated, without its external data, with an operator that ONNX Runtime does not
            have, or without a card that fits.
    """
    session = open_session(path, device=device, threads=threads)
    try:
        card = GraphCard.from_metadata(session.get_modelmeta().custom_metadata_map)
        _check(card, [one.name for one in session.get_inputs()], [one.name for one in session.get_outputs()])
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if card.precision == "int8" and device == "cpu" and not has_int8():
        raise ValueError(f"{path} is in int8. {NO_INT8}")
    import onnxruntime

    return GraphFile(card, session_run(session, card.outputs), f"ONNX Runtime {onnxruntime.__version__}")


def open_session(path: str | Path, *, device: str = "cpu", threads: int = 0) -> Any:
    """Return the ``onnxruntime.InferenceSession`` of any ONNX file.

    Raises:
        RuntimeError, ValueError: As ``open_onnx``, which also checks the card.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(f"{path} is an ONNX file, which needs ONNX Runtime: {EXTRA}.") from error
    kind, _, number = device.partition(":")
    provider = PROVIDERS.get(kind)
    if provider is None or provider not in onnxruntime.get_available_providers():
        have = [name for name, one in PROVIDERS.items() if one in onnxruntime.get_available_providers()]
        raise RuntimeError(
            f"ONNX Runtime {onnxruntime.__version__} cannot use device {device!r} here; it can use {', '.join(have)}."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors are raised; its warnings are about its own optimisations
    try:
        chosen = provider if not number else (provider, {"device_id": number})
        session = onnxruntime.InferenceSession(str(path), options, providers=[chosen])
    except Exception as error:  # its exceptions have no common base but Exception
        raise ValueError(_reason(path, error)) from error
    if session.get_providers()[0] != provider:
        raise RuntimeError(
            f"ONNX Runtime could not use device {device!r} for {path}, and would have run on the CPU. Check the CUDA "
            "libraries, or use device 'cpu'."
        )
    return session


def session_run(session: Any, outputs: tuple[str, ...]) -> Run:
    """Return a function that runs a session."""
    names = list(outputs)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def _check(card: GraphCard, inputs: list[str], outputs: list[str]) -> None:
    """Raise unless a graph has the inputs and outputs that its card names."""
    if set(inputs) != set(card.inputs) or not set(card.outputs) <= set(outputs):
        raise ValueError(
            f"has a card of a graph from {', '.join(card.inputs)} to {', '.join(card.outputs)}, but its graph goes "
            f"from {', '.join(inputs)} to {', '.join(outputs)}. Export it again."
        )


def _reason(path: str | Path, error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    text = text.replace(str(path), "the file")
    if "Protobuf parsing failed" in text or "ModelProto does not have a graph" in text:
        return f"{path} is not an ONNX file, or it is truncated: it cannot be parsed. Export or copy it again."
    if "xternal data" in text or "file_size" in text:
        return (
            f"{path} keeps its weights in a file beside it, which is missing or truncated ({text}). Copy that "
            "file too; what `poseglass export` writes is one file."
        )
    if any(words in text for words in _UNKNOWN_OPERATOR):
        return (
            f"{path} uses an operator that this ONNX Runtime does not have ({text}). Update onnxruntime, or export the "
            "weights again."
        )
    return f"{path} cannot be opened by ONNX Runtime: {text}"
