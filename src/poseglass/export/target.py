"""Target: how a graph is written for one runtime."""

from pathlib import Path
from typing import Any, Protocol

from poseglass.export.exportable import Exportable
from poseglass.export.int8 import Int8Plan
from poseglass.programs.graph_card import GraphCard, Precision
from poseglass.programs.graph_program import Run


class Target(Protocol):
    """A kind of file for a runtime."""

    suffix: str
    """Suffix of the file, with its dot."""

    precisions: tuple[Precision, ...]
    """What it can store and compute in."""

    lowers: bool
    """Whether half precision is in the graph itself; otherwise the runtime lowers a graph in float32 on opening."""

    def check(self) -> None:
        """Raise unless what it needs is installed.

        Raises:
            RuntimeError: Gives the command that installs it.
        """
        ...

    def convert(self, work: Exportable) -> Any:
        """Return the graph as a model of this kind, maps included.

        Raises:
            ValueError: The network or the codec does something that cannot be converted.
        """
        ...

    def quantise(self, model: Any, work: Exportable, plan: Int8Plan, folder: Path) -> Any:
        """Return a model whose convolutions compute in int8, except for some of their calls.

        Args:
            model: What ``convert`` returned.
            work: The graph.
            plan: Inputs to measure the ranges of activations on, and which convolutions stay in float.
            folder: For temporary files.

        Raises:
            RuntimeError: What quantises is not installed.
            ValueError: The model's convolutions are not those of the network.
        """
        ...

    def run(self, model: Any, work: Exportable, folder: Path) -> Run:
        """Return a function that runs a model with all of its outputs; files may be written into ``folder``."""
        ...

    def write(self, path: Path, model: Any, work: Exportable, card: GraphCard) -> list[Path]:
        """Write a model without its maps, with a card, so that no half-written file is left; return the files.

        Raises:
            ValueError: It is too large for the format.
            OSError: The folder is missing, full or not writable; an existing file is not changed.
        """
        ...
