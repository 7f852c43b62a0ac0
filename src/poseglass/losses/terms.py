"""From a recipe's words for a loss to terms: which function, of which prediction and which target, times what."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from poseglass.core.table import lookup

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

READS: dict[str, tuple[tuple[str, str], ...]] = {
    "softmax_cross_entropy": (("heatmap", "heatmap"), ("x", "x"), ("y", "y")),
    "offset": (("offset", "offset"),),
    "integral_l1": (("heatmap", "xy"),),
}
"""Pairs of a prediction's key and a target's key that a loss can be of; those the codec encodes are taken. A loss that
does not stand here is of ``("heatmap", "heatmap")``."""


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a stage's loss.

    Args:
        loss: Prediction, target and weight ``(B, K)`` to one number.
        prediction: Key of the network's stage.
        target: Key of what the codec encodes.
        factor: Of the term.
    """

    loss: Loss
    prediction: str = "heatmap"
    target: str = "heatmap"
    factor: float = 1.0


def names_in(text: str) -> list[tuple[float, str]]:
    """Split ``"mse + 0.5 * offset"`` into factors and names.

    Raises:
        ValueError: It is not of that form.
    """
    found = []
    for part in re.split(r"(?<![\d.][eE])\+|\+(?!\d)", text):  # not the sign of an exponent
        match = re.fullmatch(r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*)?\s*([^\W\d][\w.:]*)\s*", part)
        if match is None:
            raise ValueError(
                f"loss must be names with factors, like 'mse' or 'mse + 0.5 * offset', got {text!r} at {part!r}."
            )
        found.append((float(match[1] or 1), match[2]))
    return found


def terms_of(text: str, encoded: Collection[str], table: Mapping[str, Loss]) -> tuple[Term, ...]:
    """Return the terms of a recipe's loss, ``"mse"`` or ``"mse + 0.5 * offset"``, for what a codec encodes.

    Args:
        text: Names of losses, joined by ``+``, each with a factor before a ``*`` if it has one.
        encoded: Keys of the codec's targets.
        table: Names to losses.

    Raises:
        LookupError: An unknown loss; the nearest is given.
        ValueError: Not of that form, or a loss is of nothing that the codec encodes.
    """
    terms: list[Term] = []
    for factor, name in names_in(text):
        loss = lookup(table, name, kind="loss")
        pairs = READS.get(name, (("heatmap", "heatmap"),))
        mine = [pair for pair in pairs if pair[1] in encoded]
        if not mine:
            fitting = [
                known for known in table
                if any(target in encoded for _, target in READS.get(known, (("heatmap", "heatmap"),)))
            ]  # fmt: skip
            raise ValueError(
                f"loss {name!r} is of {' or '.join(repr(pair[1]) for pair in pairs)}, the codec encodes "
                f"{', '.join(repr(key) for key in sorted(encoded) if key != 'weight')}. Losses of that: "
                f"{', '.join(fitting)}; or take another codec."
            )
        terms += [Term(loss, *pair, factor) for pair in mine]
    return tuple(terms)
