"""Exportable: a graph of weights, ready to be written for a runtime, with the estimator that it must agree with."""

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

import poseglass
from poseglass.core.prediction import Prediction, Stages
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.load import load as load_any
from poseglass.estimators.load import load_detector
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.estimators.weights_file import CheckpointError
from poseglass.programs.exported import KINDS, example
from poseglass.programs.fast import fold_batch_norms, lowered
from poseglass.programs.graph_card import GraphCard, Precision
from poseglass.programs.graphs import MAPS, BoxesGraph, PeopleGraph, TwoStageGraph, ViewsGraph, names
from poseglass.programs.torch_program import TorchProgram

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, eq=False)
class Exportable:
    """A graph to write for a runtime.

    Args:
        graph: One of ``programs.graphs``, in the precision to export; it also returns maps, except with two stages.
        card: What the file will state, without what the maps are called.
        outputs: Names of all outputs of the graph, the maps included.
        reference: The same graph in float32.
        estimator: The estimator of the same weights in float32, which reads views itself.
    """

    graph: nn.Module
    card: GraphCard
    outputs: tuple[str, ...]
    reference: nn.Module
    estimator: TopDownEstimator | OneStageEstimator | TwoStageEstimator


def exportable(
    weights: str | Path,
    *,
    detector: str | Path | None = None,
    whole_image: bool = False,
    flip_test: bool = False,
    skeleton: Skeleton | str | None = None,
    size_wh: tuple[int, int] | None = None,
    min_box_score: float = 0.3,
    precision: Precision = "float32",
    lowers: bool = True,
    trust_code: bool = False,
) -> Exportable:
    """Return the graph of weights.

    Args:
        weights: As for ``poseglass.load``.
        detector: Weights of a detector: the graph takes a whole image, and finds the boxes for the poses itself.
        whole_image: The graph takes a whole image of any size and reads the views itself, given the boxes, or, for
            weights that find everybody, without. Otherwise it takes views.
        flip_test: Average with the flipped image.
        skeleton: Which keypoints to return, as for ``poseglass.load``.
        size_wh: Size of the views other than the card's.
        min_box_score: People found with a lower score are not returned by a graph of whole images.
        precision: "bfloat16" and "float16" store and compute the network in half precision, except for its last layers
            and batch norm.
        lowers: Half precision is in the graph. Otherwise the graph is in float32, and the runtime lowers it.
        trust_code: As for ``poseglass.load``.

    Raises:
        FileNotFoundError, LookupError: As ``poseglass.load``.
        CheckpointError: As ``poseglass.load``; or a detector for weights that find everybody themselves.
        ValueError: An unknown precision, or one that needs calibration data; views of two networks at once; or a size
            that the network does not accept.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}.")
    if detector is not None and not whole_image:
        raise ValueError(
            "A detector and poses in one file read the boxes' crops from the whole image. Add --whole-image, or export "
            "the two as files of their own."
        )
    estimator = load_any(
        weights, flip_test=flip_test, skeleton=skeleton, size_wh=size_wh, min_box_score=min_box_score,
        trust_code=trust_code,
    )  # fmt: skip
    if not isinstance(estimator, TopDownEstimator | OneStageEstimator) or not isinstance(
        estimator.program, TorchProgram
    ):
        raise CheckpointError(f"{weights} is an exported file already. Export the weights that it was made from.")
    program, card = estimator.program, estimator.card
    assert card is not None
    one_stage = isinstance(estimator, OneStageEstimator)
    if one_stage and detector is not None:
        raise CheckpointError(
            f"Weights {card.name!r} find everybody in a whole image themselves, and take no boxes from a detector "
            f"({detector}). Omit --detector."
        )
    found: OneStageEstimator | None = None
    if detector is not None:
        found = load_detector(detector, min_box_score=min_box_score, trust_code=trust_code)
    chips_in_whole = whole_image and one_stage and card.chips
    if chips_in_whole or (found is not None and found.chips is not None):
        raise CheckpointError(
            f"Weights {(card if chips_in_whole or found is None or found.card is None else found.card).name!r} were "
            "trained on chips, of which several are needed for an image, and a file that takes whole images shows it "
            "once. Export them without --whole-image and --detector."
        )

    if whole_image and one_stage and program.spec.boxes_3d:
        raise CheckpointError(
            f"Weights {card.name!r} find boxes in space, for which the calibration of each image is needed, and a file "
            "that takes whole images has no place for it. Export them without --whole-image."
        )

    def graph_of(pose: TorchProgram, finds: TorchProgram | None) -> nn.Module:
        if finds is not None:
            return TwoStageGraph(finds, pose, min_box_score, sigmas=tuple(pose.skeleton.sigmas or ()))
        if not whole_image:
            return ViewsGraph(pose, maps=True)
        return PeopleGraph(pose, min_box_score, maps=True) if one_stage else BoxesGraph(pose, maps=True)

    reference = graph_of(program, None if found is None else found.torch_program).eval()
    with torch.no_grad():
        outputs = names(reference, example(reference))
    graph = reference
    if lowers and precision in _HALF:
        finds = None if found is None else in_half(found.torch_program, _HALF[precision])
        graph = graph_of(in_half(program, _HALF[precision]), finds).eval()
    kind = KINDS[type(graph)]
    graph_card = GraphCard(
        kind, program.skeleton, program.input, program.spec,
        tuple(name for name in outputs if not name.startswith(MAPS)), card,
        flip_test=flip_test, precision=precision,
        min_box_score=min_box_score if kind in ("people", "two_stage") else None,
        detector_card=None if found is None else found.card,
        made_with={"poseglass": poseglass.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )  # fmt: skip
    if isinstance(estimator, TopDownEstimator) and found is not None:
        return Exportable(graph, graph_card, outputs, reference, TwoStageEstimator(found, estimator))
    return Exportable(graph, graph_card, outputs, reference, estimator)


def in_half(program: TorchProgram, dtype: torch.dtype) -> TorchProgram:
    """Return a program whose network computes in half precision, with float32 input and output."""
    width, height = program.input.size_wh
    images = torch.zeros(1, 3, height, width)
    network = lowered(fold_batch_norms(program.network, images), images, dtype)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, _NormInFloat32(module))
    return replace(program, network=_InHalf(network, dtype), forward=None)


class _NormInFloat32(nn.Module):
    """Batch norm in float32 inside a network in half precision; PyTorch casts by itself, a converter needs it said."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(features.float()).to(features.dtype)


class _InHalf(nn.Module):
    """A network in half precision that takes float32 images and returns float32 maps."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: Tensor) -> Stages:
        last: Prediction = self.network(images.to(self.dtype))[-1]
        return [{name: maps.float() for name, maps in last.items()}]
