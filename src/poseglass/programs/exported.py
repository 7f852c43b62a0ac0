"""Programs traced by ``torch.export`` into graphs that run without the network's Python code."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poseglass.core.boxes import whole_image
from poseglass.programs.graph_card import GraphCard, Kind
from poseglass.programs.graph_program import GraphFile, GraphProgram, Run
from poseglass.programs.graphs import BoxesGraph, PeopleGraph, TwoStageGraph, ViewsGraph, names
from poseglass.programs.torch_program import TorchProgram

_EXAMPLE_WH = (150, 110)
"""Size of the image that graphs of whole images are traced with; any size runs."""

KINDS: dict[type[nn.Module], Kind] = {
    ViewsGraph: "views", BoxesGraph: "boxes", PeopleGraph: "people", TwoStageGraph: "two_stage",
}  # fmt: skip
"""The kind of each graph."""


def example(graph: nn.Module) -> tuple[Tensor, ...]:
    """Return inputs to trace a graph with; a batch of one or a square image would be taken for fixed."""
    kind, device = KINDS[type(graph)], next(graph.parameters()).device
    if kind == "views":
        assert isinstance(graph, ViewsGraph)
        width, height = graph.spec.size_wh
        views = torch.zeros(2, height, width, 3, dtype=torch.uint8, device=device)
        return views, torch.eye(2, 3, device=device).expand(2, 2, 3).clone()
    width, height = _EXAMPLE_WH
    image = torch.zeros(height, width, 3, dtype=torch.uint8, device=device)
    if kind == "boxes":
        box = torch.from_numpy(np.stack([whole_image(_EXAMPLE_WH), whole_image((width // 2, height // 2))]))
        return image, box.to(device)
    return (image,)


def traced(graph: nn.Module) -> torch.export.ExportedProgram:
    """Return a graph as ``torch.export`` traces it: batch size, size of images and number of boxes are free.

    Raises:
        torch.export's own errors: The network or the codec does something that cannot be traced.
    """
    free = torch.export.Dim.DYNAMIC
    inputs = example(graph)
    views_or_boxes: dict[int, Any] = {0: free}
    image: dict[int, Any] = {0: free, 1: free}
    sizes = {"views": (views_or_boxes, views_or_boxes), "boxes": (image, views_or_boxes)}
    given = sizes.get(KINDS[type(graph)], (image,))
    with torch.no_grad(), quiet():
        # graphs name their inputs, except for the base class, whose forward takes any number
        shapes = (given,) if not isinstance(graph, TwoStageGraph) else given
        return torch.export.export(graph.eval(), inputs, dynamic_shapes=shapes, strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what ``torch.export`` and the exporter to ONNX say about themselves and about libraries not needed."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def torch_run(program: torch.export.ExportedProgram, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Run:
    """Return a function that runs a traced graph with PyTorch, on the CPU or where its weights are."""
    module = program.module()
    device = next((tensor.device for tensor in program.state_dict.values()), torch.device("cpu"))

    def run(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = module(*(torch.from_numpy(given[name]).to(device) for name in inputs))
        return {name: value.cpu().numpy() for name, value in zip(outputs, found, strict=True)}

    return run


def exported(program: TorchProgram) -> GraphProgram:
    """Return a program as a graph of views with a dynamic batch size, which PyTorch runs.

    Raises:
        torch.export's own errors: The network or the codec does something that cannot be traced.
    """
    graph = ViewsGraph(program)
    outputs = names(graph, example(graph))
    card = GraphCard("views", program.skeleton, program.input, program.spec, outputs, flip_test=program.flip_test)
    return GraphProgram(GraphFile(card, torch_run(traced(graph), card.inputs, outputs), "PyTorch"))
