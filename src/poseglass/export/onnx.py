"""OnnxTarget: a graph as an ONNX file, one file with the weights inside and the card in its metadata."""

import importlib.util
from pathlib import Path
from typing import Any

import torch

from poseglass.core.files import write_bytes
from poseglass.core.table import listed
from poseglass.export.exportable import Exportable
from poseglass.programs.exported import quiet, traced
from poseglass.programs.graph_card import GraphCard, Precision
from poseglass.programs.graph_program import Run
from poseglass.programs.graphs import MAPS
from poseglass.programs.onnx_file import EXTRA, open_session, session_run

LARGEST_BYTES = 2**31 - 1
"""An ONNX file, which is one message of protobuf, cannot be larger."""


class OnnxTarget:
    """Files for ONNX Runtime, and for everything else that reads ONNX; see ``Target``."""

    suffix = ".onnx"
    precisions: tuple[Precision, ...] = ("float32", "float16")
    lowers = True

    def check(self) -> None:
        """Raise unless the packages that convert to ONNX can be imported."""
        check_installed("ONNX", ("onnx", "onnxscript", "onnxruntime"), EXTRA)

    def convert(self, work: Exportable) -> Any:
        """Return an ``onnx.ModelProto``."""
        return onnx_model(work)

    def run(self, model: Any, work: Exportable, folder: Path) -> Run:
        """Return a function that runs a model in ONNX Runtime."""
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return session_run(open_session(path), work.outputs)

    def write(self, path: Path, model: Any, work: Exportable, card: GraphCard) -> list[Path]:
        """Write one file."""
        import onnx

        small = without_maps(model)
        for key, value in card.to_metadata().items():
            small.metadata_props.add(key=key, value=value)
        if small.ByteSize() > LARGEST_BYTES:
            raise ValueError(
                f"The model has {small.ByteSize() / 1e9:.1f} GB, more than one ONNX file can hold (2 GB). Use "
                "--precision float16, or --to openvino."
            )
        onnx.checker.check_model(small)
        write_bytes(path, small.SerializeToString())
        return [path]


def onnx_model(work: Exportable) -> Any:
    """Return a graph as an ``onnx.ModelProto``, maps included, without a card.

    Raises:
        ValueError: The network or the codec does something that cannot be converted.
    """
    try:
        graph = traced(work.graph)
        with quiet():
            converted = torch.onnx.export(
                graph, (), dynamo=True, verbose=False, external_data=False, optimize=True,
                input_names=list(work.card.inputs), output_names=list(work.outputs),
            )  # fmt: skip
    except Exception as error:  # the exporter's errors have no common base, and a custom network may raise anything
        raise ValueError(cannot_convert(work, "ONNX", error)) from error
    if converted is None:
        raise ValueError(f"PyTorch {torch.__version__} converted nothing to ONNX. Use version 2.13, which was tested.")
    model = converted.model_proto
    del model.metadata_props[:]
    return model


def check_installed(what: str, packages: tuple[str, ...], extra: str) -> None:
    """Raise unless packages can be imported.

    Raises:
        RuntimeError: Gives the command that installs them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise RuntimeError(f"Exporting to {what} needs {listed(missing)}: {extra}.")


def without_maps(model: Any) -> Any:
    """Return a copy of a model that returns no maps."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [output for output in copy.graph.output if not output.name.startswith(MAPS)]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy


def cannot_convert(work: Exportable, to: str, error: BaseException) -> str:
    """Return a message about a graph that cannot be converted, with the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    cause = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    name = "the program" if work.card.card is None else repr(work.card.card.name)
    return f"{name} cannot be converted to {to}: {cause}."
