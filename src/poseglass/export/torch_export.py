"""TorchTarget: a graph as a ``.pt2`` file of ``torch.export``, for PyTorch without poseglass."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch

from poseglass.core.files import write_bytes
from poseglass.export.exportable import Exportable
from poseglass.export.int8 import Int8Plan
from poseglass.export.onnx import cannot_convert
from poseglass.programs.exported import quiet, torch_run, traced
from poseglass.programs.graph_card import GraphCard, Precision
from poseglass.programs.graph_program import Run
from poseglass.programs.graphs import Graph


class TorchTarget:
    """Files for PyTorch; see ``Target``."""

    suffix = ".pt2"
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    lowers = True

    def check(self) -> None:
        """Do nothing: PyTorch is installed."""

    def convert(self, work: Exportable) -> torch.export.ExportedProgram:
        """Return the traced graph."""
        try:
            return traced(work.graph)
        except Exception as error:  # a custom network may raise anything when it is traced
            raise ValueError(cannot_convert(work, "a graph of torch.export", error)) from error

    def quantise(self, model: Any, work: Exportable, plan: Int8Plan, folder: Path) -> Any:
        """Raise: it is not among its precisions."""
        raise ValueError("PyTorch's graphs are not quantised here. Use --to onnx or --to openvino.")

    def run(self, model: Any, work: Exportable, folder: Path) -> Run:
        """Return a function that runs a traced graph."""
        return torch_run(model, work.card.inputs, work.outputs)

    def write(self, path: Path, model: Any, work: Exportable, card: GraphCard) -> list[Path]:
        """Trace the graph again without maps, and write it as one file."""
        graph = copy.copy(work.graph)
        if isinstance(graph, Graph):
            graph.maps = False
            model = traced(graph)
        with tempfile.TemporaryDirectory() as folder, quiet():
            whole = Path(folder) / "model.pt2"
            torch.export.save(model, whole, extra_files=card.to_metadata())
            write_bytes(path, whole.read_bytes())
        return [path]
