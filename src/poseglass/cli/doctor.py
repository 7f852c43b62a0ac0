"""``poseglass doctor``: describes this machine and installation, for bug reports."""

import importlib.util
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from poseglass.core.allocator import keep_freed_memory
from poseglass.core.environment import environment
from poseglass.core.precision import choose_precision, narrow_convolution_fault
from poseglass.estimators.load import SHIPPED_FOLDER, shipped

EXTRAS = {"tensorboard": "tensorboard", "onnx": "onnxruntime", "openvino": "openvino"}
"""Maps each extra of the package to the module that it installs."""


def doctor(
    plain: Annotated[
        bool, typer.Option("--plain", help="Print lines of 'name: value' instead of a table, for a bug report.")
    ] = False,
) -> None:
    """Print versions, devices, precision, extras and the built-in weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = environment()
    rows["trains on"] = f"{device}, {str(choose_precision('auto', device)).removeprefix('torch.')}"
    if narrow_convolution_fault(device):
        rows["bfloat16"] = (
            "this processor has AMX, on which PyTorch computes wrong results for bfloat16 maps one pixel wide; "
            "networks with such maps run in float32"
        )
    rows["allocator"] = "glibc, keeps freed memory" if keep_freed_memory() else "system default"
    for extra, module in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        rows[f"extra {extra}"] = (
            "found" if found else f"missing: pip install 'poseglass[{extra}]' (in a clone: pip install -e '.[{extra}]')"
        )
    rows["weights"] = ", ".join(shipped()) or f"none in {SHIPPED_FOLDER}"
    console = Console()
    if plain:
        for name, value in rows.items():
            console.print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console.print(table)
