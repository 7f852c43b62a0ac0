"""GraphProgram: a graph of views that some runtime runs, as a program for estimators."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poseglass.codecs import CodecSpec
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.programs.graph_card import GraphCard
from poseglass.programs.part import check_part, in_part

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
"""Runs a graph: inputs by name to outputs by name."""


@dataclass(frozen=True, slots=True, eq=False)
class GraphFile:
    """An opened file, or a graph in memory, on one runtime.

    Args:
        card: What it states about itself.
        run: Runs it.
        runtime: Name and version of the runtime, for ``repr`` and reports.
    """

    card: GraphCard
    run: Run
    runtime: str

    def __repr__(self) -> str:
        name = "" if self.card.card is None else f"{self.card.card.name!r}, "
        return f"GraphFile({name}{self.card.kind}, {self.card.precision}, {self.runtime})"


@dataclass(frozen=True, slots=True, eq=False)
class GraphProgram:
    """A graph that takes any number of uint8 views of one size and returns decoded instances.

    Args:
        file: A graph of kind "views".
        given_out: Skeleton of the result, with some or all of the file's keypoints, by name. None keeps all.

    Raises:
        ValueError: A graph of another kind, or keypoints to return that the file does not.
    """

    file: GraphFile
    given_out: Skeleton | None = None

    def __post_init__(self) -> None:
        if self.file.card.kind != "views":
            raise ValueError(
                f"A GraphProgram runs a graph of views, this one is of kind {self.file.card.kind!r}, which reads its "
                "views itself. Open it with poseglass.load."
            )

        if self.given_out is not None:
            check_part(self.given_out, self.file.card.skeleton)

    def __repr__(self) -> str:
        width, height = self.input.size_wh
        flip = ", flip test" if self.flip_test else ""
        precision = "" if self.file.card.precision == "float32" else f", {self.file.card.precision}"
        return f"GraphProgram({self.file.runtime}, {width} x {height} px{flip}{precision})"

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints of the result."""
        return self.file.card.skeleton if self.given_out is None else self.given_out

    @property
    def input(self) -> InputSpec:
        """Size, padding and crop rule of the views; normalisation is in the graph."""
        return self.file.card.input

    @property
    def spec(self) -> CodecSpec:
        """Spec of the codec in the graph."""
        return self.file.card.spec

    @property
    def flip_test(self) -> bool:
        """Whether the flip test is in the graph."""
        return self.file.card.flip_test

    @property
    def calibrated(self) -> bool:
        """Whether results have probabilities and radii."""
        return self.file.card.calibrated

    def __call__(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB of the program's size; the result is in view pixels, on the CPU.

        Raises:
            ValueError: Views of another size.
        """
        width, height = self.input.size_wh
        if views.shape[1:] != (height, width, 3):
            raise ValueError(
                f"This program was exported for views of {width} x {height} pixels, (B, {height}, {width}, 3); got "
                f"{tuple(views.shape)}. Export it for that size, or read views of the program's size."
            )
        home = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (len(views), 2, 3)).copy()
        found = self.file.run({"views": views.cpu().numpy(), "home": home})
        decoded = Decoded(**{name: torch.from_numpy(value) for name, value in found.items()})
        return in_part(decoded, self.file.card.skeleton, self.given_out)
