"""OnnxTarget: a graph as an ONNX file, one file with the weights inside and the card in its metadata."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poseglass.core.files import write_bytes
from poseglass.core.precision import NO_INT8, has_int8
from poseglass.core.table import listed
from poseglass.export.exportable import Exportable
from poseglass.export.int8 import ConvCall, Int8Plan
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
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8")
    lowers = True

    def check(self) -> None:
        """Raise unless the packages that convert to ONNX can be imported."""
        check_installed("ONNX", ("onnx", "onnxscript", "onnxruntime"), EXTRA)

    def convert(self, work: Exportable) -> Any:
        """Return an ``onnx.ModelProto``."""
        return onnx_model(work)

    def quantise(self, model: Any, work: Exportable, plan: Int8Plan, folder: Path) -> Any:
        """Return a model with pairs of QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses.

        By default ONNX Runtime's quantiser also rounds what each convolution returns, between the least and largest
        value on any image. On ``people-pose``, keypoints then move by 1.3 px in the median; with the options used here,
        by 0.24 px, at 1.1 times the time.
        """
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            """Gives the inputs one after the other."""

            def __init__(self) -> None:
                self.left = iter(plan.inputs)

            def get_next(self) -> Any:
                return next(self.left, None)

        if not has_int8():
            raise ValueError(NO_INT8)
        check_convolutions(model, plan.calls)
        nodes = convolution_nodes(model)
        chosen = [node.name for number, node in enumerate(nodes) if number not in set(plan.in_float)]
        before, after = folder / "float.onnx", folder / "int8.onnx"
        before.write_bytes(with_shifts(model, plan).SerializeToString())
        with quiet():
            quantize_static(
                before, after, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_quantize=chosen,
                op_types_to_quantize=["Conv", "ConvTranspose"], activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, extra_options={
                    "WeightSymmetric": True, "ActivationSymmetric": False,
                    # ranges are means over the images of their least and largest values: single outliers cost precision
                    "CalibMovingAverage": True,
                    # what a convolution returns is not rounded before it is added to something or normalised
                    "OpTypesToExcludeOutputQuantization": ["Conv", "ConvTranspose"],
                },
            )  # fmt: skip
        return onnx.load(after)

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


def convolution_nodes(model: Any) -> list[Any]:
    """Return the nodes of convolutions that maps depend on, in the order of the computation."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    waiting = [output.name for output in model.graph.output if output.name.startswith(MAPS)]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in made_by and name not in needed:
            needed.update(made_by[name].output)
            waiting += made_by[name].input
    return [
        node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose") and needed & set(node.output)
    ]


def check_convolutions(model: Any, calls: Sequence[ConvCall]) -> None:
    """Raise unless a model's convolutions are those that PyTorch called, in the same order.

    Raises:
        ValueError: They are not.
    """
    shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    got = [shapes.get(node.input[1]) for node in convolution_nodes(model)]
    expected = [call.weight_shape for call in calls]
    if got != expected:
        raise ValueError(
            f"The converted graph has {len(got)} convolutions and PyTorch called {len(expected)}, or they are in "
            "another order, so it is not known which layer is which. Use --precision float32 or float16."
        )


def with_shifts(model: Any, plan: Int8Plan) -> Any:
    """Return a copy of a model with the plan's shifts added to the biases of its convolutions."""
    import onnx

    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    values = {one.name: one for one in shifted.graph.initializer}
    for number, node in enumerate(convolution_nodes(shifted)):
        bias = plan.bias_shifts[number].astype(np.float32)
        if len(node.input) > 2 and node.input[2]:
            bias = bias + onnx.numpy_helper.to_array(values[node.input[2]])
            del node.input[2:]
        name = f"{node.name}_shifted_bias"
        shifted.graph.initializer.append(onnx.numpy_helper.from_array(bias, name))
        node.input.append(name)
    used = {name for node in shifted.graph.node for name in node.input}
    kept = [one for one in shifted.graph.initializer if one.name in used]
    del shifted.graph.initializer[:]
    shifted.graph.initializer.extend(kept)  # ONNX Runtime warns of each that is not used any more
    return shifted


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
