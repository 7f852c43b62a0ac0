"""Levels: how values of more than 8 bits become 0 to 255. One rule, stated here and nowhere else.

Values of 0 or less and NaN are black, values of ``white`` or more are 255, and the map is linear between them. The
white level never depends on how bright a single image of integers is:

1. ``white`` where the caller passes it.
2. What the file declares: a TIFF's ``BitsPerSample`` (10, 12, 14) or ``MaxSampleValue`` (if it is that of a whole
   number of bits), the largest value of a PGM or PPM, a PNG's ``sBIT``. A PNG with ``sBIT`` should have its values
   scaled to the full range, as the standard requires; where they use the low bits nevertheless, those bits are taken.
3. What was found for the source, if the image comes from a source (a folder, a data set, the images of one command):
   ``white_levels`` examines images spread evenly over it and takes the smallest usual depth (8, 10, 12, 14, 16, 24, 32
   bits) that holds all their values. It is decided once and is the same for every image, in every process.
4. Otherwise the largest value of the type: 65,535 for 16 bits, 32,767 for signed 16 bits. Floating point has none;
   there it is the smallest of 1, 255, 1,023, 4,095, 16,383, 65,535, ... that the image does not exceed. (An excess of a
   tenth is allowed, and values up to 2 for a white of 1, because resampling overshoots.) For frames of one source,
   find the white level first, or pass it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from poseglass.core.table import listed

_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
"""Usual bit depths."""


@dataclass(frozen=True, slots=True)
class Levels:
    """How the values of one file were scaled to 0 to 255.

    Args:
        kind: Kind of the values: "16-bit", "signed 16-bit", "floating-point", ...
        white: The value that became 255.
        highest: The largest finite value in the file.
        full: The largest value of the type, infinity for floating point.
        declared: Whether the file itself declares its white level.
        below: How many values are below 0.
        above: How many values are above ``white``.
        not_finite: How many values are NaN or infinite.
    """

    kind: str
    white: float
    highest: float
    full: float
    declared: bool
    below: int = 0
    above: int = 0
    not_finite: int = 0

    @property
    def likely(self) -> float:
        """The white level that the largest value suggests: the smallest usual one that holds it."""
        return likely_white(self.highest, self.full)


@dataclass(frozen=True, slots=True)
class WhiteLevels:
    """The white levels of the images of one source, by the kind of their values.

    Args:
        whites: Pairs of a kind and its white level.
        examples: Names of the examined images of each kind.
        full: The largest value of each kind's type.
    """

    whites: tuple[tuple[str, float], ...] = ()
    examples: tuple[tuple[str, ...], ...] = ()
    full: tuple[float, ...] = ()

    def of(self, kind: str) -> float | None:
        """Return the white level for a kind of values, None if no examined image of the source has that kind."""
        return dict(self.whites).get(kind)

    def notes(self, how: str = "") -> list[str]:
        """Return what was guessed, a sentence or two for each kind of values; none where the full range is used.

        Args:
            how: A sentence on how to set another white level, "Set it with --white."
        """
        said = []
        for (kind, white), names, full in zip(self.whites, self.examples, self.full, strict=True):
            if white == full or (full == np.inf and white in (1.0, 255.0)):
                continue
            depth = f" as {int(white).bit_length()}-bit ones" if white == int(white) else ""
            whole = f" The full range goes up to {full:,.0f}." if full < np.inf else ""
            said.append(
                f"The {kind} values of {listed(names)} were read{depth}: {white:,.0f} is white in all images of this "
                f"source, as no examined value is above it.{whole}{' ' * bool(how)}{how}"
            )
        return said

    @classmethod
    def decided(cls, found: Iterable[tuple[str, Levels]]) -> "WhiteLevels":
        """Decide from images of the source, ``(name, levels)`` each; declared white levels need no decision."""
        highest: dict[str, float] = {}
        full: dict[str, float] = {}
        names: dict[str, list[str]] = {}
        for name, levels in found:
            if not levels.declared:
                highest[levels.kind] = max(highest.get(levels.kind, 0.0), levels.highest)
                full[levels.kind] = levels.full
                names.setdefault(levels.kind, []).append(name)
        kinds = sorted(highest)
        return cls(
            tuple((kind, likely_white(highest[kind], full[kind])) for kind in kinds),
            tuple(tuple(names[kind]) for kind in kinds),
            tuple(full[kind] for kind in kinds),
        )


def likely_white(highest: float, full: float) -> float:
    """Return the smallest usual white level that holds ``highest``, at most ``full``; ``full`` for a black image.

    Example:
        >>> likely_white(3000, 65535), likely_white(0, 65535), likely_white(1.1, float("inf"))
        (4095.0, 65535.0, 1.0)
    """
    if full == np.inf and highest <= 2:
        return 1.0
    if highest <= 0:
        return float(full)
    over = 1.1 if full == np.inf else 1.0
    held = (2.0**bits - 1 for bits in _DEPTHS if highest <= over * (2.0**bits - 1))
    return min(next(held, float(highest)), float(full))


def check_white(white: float) -> None:
    """Raise unless a white level is a finite number above 0.

    Raises:
        ValueError: It is not.
    """
    if not (np.isfinite(white) and white > 0):
        raise ValueError(f"The white level must be a number above 0, such as 4095 for 12 bits; got {white}.")


def to_uint8(values: np.ndarray, white: float) -> np.ndarray:
    """Scale values of any shape and type to uint8 by the rule of this module."""
    if values.dtype == np.uint16:  # by far the most common: a table is several times faster
        table = np.clip(np.arange(65536) / white * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return table[values]
    scaled = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    return np.clip(scaled / white * 255.0 + 0.5, 0, 255).astype(np.uint8)


def measured(
    values: np.ndarray, kind: str, *, full: float, declared: float | None, white: "float | WhiteLevels | None"
) -> Levels:
    """Return the levels of a file's values, given what it declares and what its source or the caller specifies."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        not_finite = int(values.size - finite.sum())
        highest = float(values.max(where=finite, initial=0.0))
    else:
        not_finite = 0
        highest = float(values.max(initial=0))
    top: float | None = None
    if isinstance(white, WhiteLevels):
        top = declared if declared is not None else white.of(kind)
    elif white is not None:
        check_white(white)
        top = float(white)
    if top is None:
        top = declared if declared is not None else full if full < np.inf else likely_white(highest, full)
    below = int((values < 0).sum()) if values.dtype.kind != "u" else 0
    above = int((values > top).sum()) if highest > top else 0
    return Levels(kind, top, highest, full, declared is not None, below, above, not_finite)
