"""OpenVinoTarget: a graph as OpenVINO's ``.xml`` with its ``.bin``, converted by way of ONNX."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from poseglass.core.precision import NO_INT8, has_int8
from poseglass.export.exportable import Exportable
from poseglass.export.int8 import Int8Plan
from poseglass.export.onnx import (
    cannot_convert,
    check_convolutions,
    check_installed,
    convolution_nodes,
    onnx_model,
    with_shifts,
    without_maps,
)
from poseglass.programs.exported import quiet
from poseglass.programs.graph_card import GraphCard, Precision
from poseglass.programs.graph_program import Run
from poseglass.programs.graphs import MAPS
from poseglass.programs.openvino_file import EXTRA, compiled_run, computes_bfloat16

_IN_FLOAT = ("BatchNormInference", "Add", "Multiply", "Concat", "Interpolate", "MaxPool")
"""OpenVINO's types of operations between convolutions that stay in float."""


class OpenVinoTarget:
    """Files for OpenVINO on processors; see ``Target``.

    A file for bfloat16 holds float32 weights, which OpenVINO lowers on opening. One for float16 holds float16 weights
    and is computed in float32, which is what processors without half arithmetic can do.
    """

    suffix = ".xml"
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "float16", "int8")
    lowers = False

    def check(self) -> None:
        """Raise unless OpenVINO and the packages that convert to ONNX can be imported."""
        check_installed("OpenVINO", ("openvino", "nncf", "onnx", "onnxscript"), EXTRA)

    def convert(self, work: Exportable) -> Any:
        """Return an ``onnx.ModelProto``, which OpenVINO reads.

        Raises:
            ValueError: Also if the processor lacks bfloat16, so that it could not be checked.
        """
        if work.card.precision == "bfloat16" and not computes_bfloat16():
            raise ValueError("This processor does not compute in bfloat16, so the file could not be checked here.")
        return onnx_model(work)

    def quantise(self, model: Any, work: Exportable, plan: Int8Plan, folder: Path) -> Any:
        """Return an ``openvino.Model`` that NNCF has quantised.

        Only convolutions are quantised. NNCF by itself also quantises sums, pooling and resizing between them; for
        ``hg2-light-lspet`` this takes 11.5 ms instead of 10.7 and moves keypoints by 0.25 px in the median instead of
        0.16 (one thread of an AMD EPYC, batch 1). Batch norm that is not part of a convolution it quantises wrongly
        (NNCF 3.4): keypoints then move by 54 px.
        """
        if not has_int8():
            raise ValueError(NO_INT8)
        os.environ.setdefault("NNCF_CI", "1")  # without it, NNCF reports its use to a server
        import nncf

        check_convolutions(model, plan.calls)
        whole = self._read(with_shifts(model, plan), work, folder)
        kept = {node.name for number, node in enumerate(convolution_nodes(model)) if number in set(plan.in_float)}
        ignored = [*_outside_network(whole), *_named(whole, kept)]
        given = nncf.Dataset(list(plan.inputs))
        nncf.set_log_level(logging.ERROR)
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            return nncf.quantize(
                whole, given, preset=nncf.QuantizationPreset.MIXED, subset_size=len(plan.inputs),
                advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
                ignored_scope=nncf.IgnoredScope(names=ignored, types=list(_IN_FLOAT), validate=False),
            )  # fmt: skip

    def run(self, model: Any, work: Exportable, folder: Path) -> Run:
        """Return a function that runs a model in OpenVINO, in the card's precision."""
        import openvino

        read = self._read(model, work, folder)
        if work.card.precision == "float16":  # what is checked is what is written
            openvino.save_model(read, folder / "half.xml", compress_to_fp16=True)
            read = openvino.Core().read_model(folder / "half.xml")
        return compiled_run(read, work.outputs, work.card.precision)

    def write(self, path: Path, model: Any, work: Exportable, card: GraphCard) -> list[Path]:
        """Write two files: the ``.bin`` first, so that an ``.xml`` never lacks it, or has another one's."""
        import openvino

        binary = path.with_suffix(".bin")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"Cannot write {path}: no folder {path.parent}. Create it first.")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
            folder = Path(name)
            whole = isinstance(model, openvino.Model)
            small = _without_maps(model) if whole else self._read(without_maps(model), work, folder)
            for key, value in card.to_metadata().items():
                small.set_rt_info(value, ["poseglass", key])
            try:
                openvino.save_model(small, folder / path.name, compress_to_fp16=card.precision == "float16")
            except RuntimeError as error:
                raise OSError(f"Cannot write {path}: {str(error).strip().splitlines()[-1]}") from error
            path.unlink(missing_ok=True)  # an old one with the new weights would open, and give nonsense
            (folder / binary.name).replace(binary)
            (folder / path.name).replace(path)
        return [path, binary]

    def _read(self, model: Any, work: Exportable, folder: Path) -> Any:
        """Return a model as an ``openvino.Model``; one that is quantised is one already."""
        import openvino

        if isinstance(model, openvino.Model):
            return model
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            return openvino.Core().read_model(path)
        except Exception as error:  # its exceptions have no common base but Exception
            raise ValueError(cannot_convert(work, "OpenVINO", error)) from error


def _outside_network(model: Any) -> list[str]:
    """Return the names of the operations before the network's first convolutions and after its maps."""
    after: set[str] = set()  # what depends on a convolution
    before: set[str] = set()  # what maps depend on
    ordered = model.get_ordered_ops()
    for one in ordered:
        inputs = [one.input_value(i).get_node().get_friendly_name() for i in range(one.get_input_size())]
        if "Convolution" in one.get_type_name() or any(name in after for name in inputs):
            after.add(one.get_friendly_name())
    waiting = [
        result.input_value(0).get_node()
        for result in model.get_results()
        if any(name.startswith(MAPS) for name in result.input_value(0).get_names())
    ]
    while waiting:
        one = waiting.pop()
        if one.get_friendly_name() not in before:
            before.add(one.get_friendly_name())
            waiting += [one.input_value(i).get_node() for i in range(one.get_input_size())]
    return [
        one.get_friendly_name()
        for one in ordered
        if one.get_type_name() not in ("Constant", "Parameter", "Result")
        and one.get_friendly_name() not in (after & before)
    ]


def _named(model: Any, nodes: Collection[str]) -> list[str]:
    """Return the names of the operations that were made from these nodes of an ONNX graph."""
    names = [one.get_friendly_name() for one in model.get_ordered_ops()]
    return [name for name in names if name.split("/")[0] in nodes]


def _without_maps(model: Any) -> Any:
    """Return a model that returns no maps."""
    import openvino

    kept = [
        result
        for result in model.get_results()
        if not any(name.startswith(MAPS) for name in result.input_value(0).get_names())
    ]
    make: Any = openvino.Model  # whose overloads name a class of the compiled module
    return make(kept, model.get_parameters(), model.get_friendly_name())
