"""ExportedProgram: a program as a graph of ``torch.export``, which runs without the network's Python code."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from poseglass.codecs import CodecSpec
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.programs.torch_program import TorchProgram


@dataclass(frozen=True, slots=True, eq=False)
class ExportedProgram:
    """A graph that takes any number of uint8 views of one size and returns decoded instances.

    Args:
        graph: As ``torch.export.export`` made it.
        skeleton: Names the keypoints.
        input: Input spec of the original program; normalisation is in the graph.
        spec: Spec of its codec.
        flip_test: Whether the flip test is in the graph.
        device: The device the graph runs on.
    """

    graph: torch.export.ExportedProgram
    skeleton: Skeleton
    input: InputSpec
    spec: CodecSpec
    flip_test: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_module", self.graph.module())

    def __call__(self, views: Tensor) -> Decoded:
        """Run views ``(B, H, W, 3)`` uint8 RGB of the program's size.

        Raises:
            ValueError: Views of another size.
        """
        width, height = self.input.size_wh
        if views.shape[1:] != (height, width, 3):
            raise ValueError(
                f"This program was exported for views of {width} x {height} pixels, (B, {height}, {width}, 3); got "
                f"{tuple(views.shape)}. Export it for that size, or read views of the program's size."
            )
        with torch.inference_mode():
            return self._module(views.to(self.device))


def exported(program: TorchProgram) -> ExportedProgram:
    """Return a program as a graph with a dynamic batch size; see ``TorchProgram.module``.

    Raises:
        torch.export's own errors: The network or the codec does something that cannot be traced.
    """
    width, height = program.input.size_wh
    device = next(program.network.parameters()).device
    views = torch.zeros(2, height, width, 3, dtype=torch.uint8, device=device)  # a batch of one would be fixed
    with torch.no_grad():
        graph = torch.export.export(program.module(), (views,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return ExportedProgram(graph, program.skeleton, program.input, program.spec, program.flip_test, device)
