"""Loss: a function of prediction and target, and which outputs of a codec it may be of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor

from poseglass.core.table import lookup


@dataclass(frozen=True, slots=True)
class Loss:
    """A function that compares a prediction with a target, and what it is for.

    Args:
        function: ``(prediction, target, weight) -> scalar``, the weight ``(B, K)``. Further arguments are numbers that
            an entry of a recipe may state, so they are given by keyword and have defaults.
        outputs: Keys of a codec's outputs that it may be of; empty is any.
        target: Key of what the codec encodes that it compares with; None is the output's own.
        activation: What the output has to hold, in the words of ``codecs.spec.Output``; None where that is all one.
    """

    function: Callable[..., Tensor]
    outputs: tuple[str, ...] = ("heatmap",)
    target: str | None = None
    activation: Literal["none", "softmax", "sigmoid"] | None = None


def find_loss(table: Mapping[str, Loss], name: str) -> Loss:
    """Return a loss by its name; ``"package.module:name"`` is a ``Loss`` or a plain function of any output.

    Raises:
        LookupError: The name is unknown, or cannot be imported, or is neither of the two.
    """
    found: Any = lookup(table, name, kind="loss")
    if isinstance(found, Loss):
        return found
    if not callable(found) or isinstance(found, type):
        what = "class" if isinstance(found, type) else type(found).__name__
        raise LookupError(
            f"loss {name!r} is a {what}; expected a function (prediction, target, weight) -> scalar, or a "
            "poseglass.losses.Loss of one."
        )
    return Loss(cast(Callable[..., Tensor], found), outputs=())
