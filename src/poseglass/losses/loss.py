"""Loss: a function of prediction and target, and the codec outputs it applies to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor

from poseglass.core.table import lookup


@dataclass(frozen=True, slots=True)
class Loss:
    """A function that compares a prediction with a target, and the outputs it applies to.

    Args:
        function: ``(prediction, target, weight) -> scalar``, with weight ``(B, K)``. Further arguments can be set in an
            entry of a recipe, so they must be numbers, accepted by keyword, with defaults.
        outputs: Keys of the codec outputs it applies to; empty means any.
        target: Key of the encoded target to compare with; None means the output's own key.
        activation: Activation the output must have, as in ``codecs.spec.Output``; None means any.
    """

    function: Callable[..., Tensor]
    outputs: tuple[str, ...] = ("heatmap",)
    target: str | None = None
    activation: Literal["none", "softmax", "sigmoid"] | None = None


def find_loss(table: Mapping[str, Loss], name: str) -> Loss:
    """Return a loss by its name; ``"package.module:name"`` may be a ``Loss``, or a plain function for any output.

    Raises:
        LookupError: The name is unknown or cannot be imported, or is neither of the two.
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
