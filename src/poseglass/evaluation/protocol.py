"""The test protocols behind published results: boxes, suppression and scores as named options.

If one of these differs, the results of the same weights differ by whole points. So each is a field with the public
default, and ``convention`` states in one line which were followed. The crop, the network and the decoding are those of
the estimator, as for every user; conventions of the weights rather than of a protocol (where a box's centre lands in
the crop, the grid of the heatmap and with it the one-pixel shift of the flip test, the colour order) are in the weight
card.

Sources: the public code of SimpleBaseline and HRNet (COCO, MPII) and of the stacked hourglass (MPII), read for facts;
docs/how-to/follow_a_protocol.md has the table.
"""

from typing import Any, get_args, get_type_hints

from poseglass.core.sample import Dataset
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.readers.labelled import LabelledImages


def check_keypoints(predicted: Skeleton, labels: Skeleton) -> None:
    """Raise unless every keypoint of the labels is predicted, as a protocol requires.

    Raises:
        ValueError: Some are missing; the message names them.
    """
    missing = [name for name in labels.keypoints if name not in predicted.keypoints]
    if missing:
        raise ValueError(
            f"A protocol evaluates every keypoint of {labels.name!r}, but these weights do not predict "
            f"{listed(missing)}. Use weights for that skeleton (--weights FILE), or evaluate without a protocol, which "
            "compares the keypoints that both have."
        )


def with_conventions(estimator: TopDownEstimator, flip_test: bool, padding: float) -> TopDownEstimator:
    """Return the estimator with a protocol's padding, and its flip test if the skeleton can be flipped."""
    return estimator.with_flip_test(flip_test and estimator.skeleton.mirrors).with_padding(padding)


def padding_of(padding: float | None, estimator: TopDownEstimator) -> float:
    """Return a protocol's padding, or that of the weights if it has none."""
    return estimator.input.padding if padding is None else padding


def crop_in_words(estimator: TopDownEstimator) -> str:
    """Return the crop conventions of the weights: where a box's centre lands, and the colour order."""
    return f"{estimator.input.crop} crops in {estimator.input.color.upper()}"


def flip_in_words(flip_test: bool, estimator: TopDownEstimator) -> str:
    """Return whether there is a flip test, and whether flipped maps are shifted."""
    if not flip_test:
        return "no flip test"
    if not estimator.skeleton.mirrors:
        return f"no flip test, as {estimator.skeleton.mirroring_unknown}"
    spec = estimator.program.spec
    moved = "heatmap" in spec.outputs and spec.alignment == "corner"
    return f"flip test, flipped maps {'moved right by a pixel' if moved else 'not moved'}"


def name_of(dataset: Dataset) -> str:
    """Return the name of a dataset for messages."""
    return dataset.name if isinstance(dataset, LabelledImages) else "the dataset"


def check_words(protocol: Any) -> None:
    """Raise unless each field with a fixed set of values has one of them."""
    for name, kind in get_type_hints(type(protocol)).items():
        words = get_args(kind)
        value = getattr(protocol, name)
        if words and all(isinstance(w, str) for w in words) and value not in words:
            raise ValueError(f"A protocol's {name} must be {' or '.join(map(repr, words))}, got {value!r}.")
