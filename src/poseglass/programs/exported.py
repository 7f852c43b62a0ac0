"""ExportedProgram: a program as a graph of ``torch.export``, which runs without the network's Python code."""

from dataclasses import dataclass

import torch
from torch import Tensor

from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.programs.torch_program import TorchProgram


@dataclass(frozen=True, slots=True, eq=False)
class ExportedProgram:
    """A graph that takes uint8 views of one size, any number of them, and gives decoded instances.

    Args:
        graph: As ``torch.export.export`` made it.
        skeleton: Names the keypoints.
        input: Of the program it was made from; normalisation is in the graph.
    """

    graph: torch.export.ExportedProgram
    skeleton: Skeleton
    input: InputSpec

    def __call__(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB of the program's size."""
        with torch.inference_mode():
            return self.graph.module()(views)


def exported(program: TorchProgram) -> ExportedProgram:
    """Return a program as a graph with a batch of any size; see ``TorchProgram.module``.

    Raises:
        torch.export's own errors: The network or the codec does what cannot be traced.
    """
    width, height = program.input.size_wh
    device = next(program.network.parameters()).device
    views = torch.zeros(2, height, width, 3, dtype=torch.uint8, device=device)  # an example of one would fix the batch
    with torch.no_grad():
        graph = torch.export.export(program.module(), (views,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return ExportedProgram(graph, program.skeleton, program.input)
