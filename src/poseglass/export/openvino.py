"""OpenVinoTarget: a graph as OpenVINO's ``.xml`` with its ``.bin``, converted by way of ONNX."""

import tempfile
from pathlib import Path
from typing import Any

from poseglass.export.exportable import Exportable
from poseglass.export.onnx import cannot_convert, check_installed, onnx_model, without_maps
from poseglass.programs.graph_card import GraphCard, Precision
from poseglass.programs.graph_program import Run
from poseglass.programs.openvino_file import EXTRA, compiled_run


class OpenVinoTarget:
    """Files for OpenVINO on processors; see ``Target``.

    A file for bfloat16 holds float32 weights, which OpenVINO lowers on opening. One for float16 holds float16 weights
    and is computed in float32, which is what processors without half arithmetic can do.
    """

    suffix = ".xml"
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    lowers = False

    def check(self) -> None:
        """Raise unless OpenVINO and the packages that convert to ONNX can be imported."""
        check_installed("OpenVINO", ("openvino", "onnx", "onnxscript"), EXTRA)

    def convert(self, work: Exportable) -> Any:
        """Return an ``onnx.ModelProto``, which OpenVINO reads."""
        return onnx_model(work)

    def run(self, model: Any, work: Exportable, folder: Path) -> Run:
        """Return a function that runs a model in OpenVINO, in the card's precision."""
        return compiled_run(self._read(model, work, folder), work.outputs, work.card.precision)

    def write(self, path: Path, model: Any, work: Exportable, card: GraphCard) -> list[Path]:
        """Write two files: the ``.bin`` first, so that an ``.xml`` never lacks it."""
        import openvino

        binary = path.with_suffix(".bin")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"Cannot write {path}: no folder {path.parent}. Create it first.")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
            folder = Path(name)
            small = self._read(without_maps(model), work, folder)
            for key, value in card.to_metadata().items():
                small.set_rt_info(value, ["poseglass", key])
            try:
                openvino.save_model(small, folder / path.name, compress_to_fp16=card.precision == "float16")
            except RuntimeError as error:
                raise OSError(f"Cannot write {path}: {str(error).strip().splitlines()[-1]}") from error
            (folder / binary.name).replace(binary)
            (folder / path.name).replace(path)
        return [path, binary]

    def _read(self, model: Any, work: Exportable, folder: Path) -> Any:
        import openvino

        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            return openvino.Core().read_model(path)
        except Exception as error:  # its exceptions have no common base but Exception
            raise ValueError(cannot_convert(work, "OpenVINO", error)) from error
