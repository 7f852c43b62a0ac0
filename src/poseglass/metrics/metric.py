"""The interface of every metric: updated image by image, then computed."""

import math
from dataclasses import fields
from typing import Any, Literal, Protocol, Self

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton

Better = Literal["higher", "lower"]
"""Whether higher or lower values of a result are better."""


class Metric(Protocol):
    """Compares predicted with true instances, one image at a time; always in source pixels.

    The parameters of a metric are its fields and do not change; only the data that ``update`` collects does.

    Row n of predictions and labels is the same person, unless the class sets ``rows_correspond = False``: such a metric
    matches them itself, and gets everything that was found and labelled.
    """

    def update(self, predicted: Instances, truth: Instances) -> None:
        """Add one image."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the results over all images so far, by name. It may be called at any time, repeatedly."""
        ...

    def better(self, name: str) -> Better:
        """Return whether higher or lower values of a result of ``compute`` are better.

        It depends on the name because one metric may have both: of the kinds of keypoint errors, "good" is no error.
        """
        ...

    def table(self) -> dict[str, dict[str, float]]:
        """Return results per keypoint (or per category): row name to column name to value."""
        ...

    def merge(self, other: Self) -> None:
        """Merge the data of another metric with the same fields, as if its images came after this one's.

        Metrics of consecutive parts of a data set, merged in order, give exactly the results of one metric that has
        seen every image in order.
        """
        ...


def is_new_best(value: float, best: float | None, better: Better) -> bool:
    """Whether a value beats the best so far; an equal one does not, nor does NaN or infinity.

    Args:
        value: The latest value.
        best: The best value before it; None if there is none yet.
        better: Whether higher or lower is better.

    Example:
        >>> is_new_best(0.2, 0.3, "lower"), is_new_best(0.3, 0.3, "lower"), is_new_best(float("nan"), None, "lower")
        (True, False, False)
    """
    if not math.isfinite(value):
        return False
    return best is None or (value > best if better == "higher" else value < best)


def check_pair(predicted: Instances, truth: Instances, *, same_rows: bool) -> None:
    """Raise unless the two can be compared.

    Args:
        predicted: Predictions of one image.
        truth: Labels of the same image.
        same_rows: Whether row n of both must be the same person.

    Raises:
        ValueError: The skeletons differ, or the rows do not correspond.
    """
    if predicted.skeleton.keypoints != truth.skeleton.keypoints:
        raise ValueError(
            f"Predictions are in skeleton {predicted.skeleton.name!r} ({len(predicted.skeleton)} keypoints), labels in "
            f"{truth.skeleton.name!r} ({len(truth.skeleton)}); use predicted.in_skeleton(truth.skeleton) first."
        )
    if same_rows and len(predicted) != len(truth):
        raise ValueError(
            f"Rows of predictions and labels must be the same people, got {len(predicted)} predicted and {len(truth)} "
            "true; use poseglass.metrics.matching.align(predicted, truth) first."
        )


def check_seen(seen: list[Skeleton], skeleton: Skeleton) -> None:
    """Raise unless the keypoints of a skeleton are those that a metric has seen so far.

    Args:
        seen: The skeleton that the metric has seen, or nothing.
        skeleton: That of the next image.

    Raises:
        ValueError: They differ.
    """
    if seen and seen[0].keypoints != skeleton.keypoints:
        raise ValueError(
            f"This metric has seen skeleton {seen[0].name!r} and now gets {skeleton.name!r}; use one metric per "
            "skeleton, or in_skeleton() first."
        )


def check_same(metric: Any, other: Any) -> None:
    """Raise unless two metrics, both dataclasses, have the same parameters and have seen the same skeleton.

    Raises:
        ValueError: They cannot be merged.
    """
    mine, theirs = ({f.name: getattr(m, f.name) for f in fields(m) if f.init} for m in (metric, other))
    if type(metric) is not type(other) or mine != theirs:
        raise ValueError(f"Only metrics with the same fields can be merged, got {metric} and {other}.")
    seen = {m._skeleton[0].keypoints: m._skeleton[0].name for m in (metric, other) if m._skeleton}
    if len(seen) > 1:
        raise ValueError(f"Only metrics of one skeleton can be merged, got {' and '.join(map(repr, seen.values()))}.")
