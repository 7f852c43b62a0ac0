"""From the unit and axes of a motion capture file to the world frame: millimetres, y up."""

import numpy as np

from poseglass.core.table import nearest
from poseglass.readers.joint_names import LEG_MM, UNITS_MM, check_leg, leg_length, unit_of, upright_axis, why_no_leg

ASKED_LEG_MM = (450.0, 1300.0)
"""A stated unit may give legs of this length: those of children too, but no legs in another unit."""

_TO_Y_UP = {
    "+y": np.eye(3),
    "-y": np.diag([1.0, -1.0, -1.0]),
    "+z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "-z": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "+x": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "-x": np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
}
"""Rotations, so left stays left."""

_SURE = 0.85  # somebody who lies or bends has less, and says nothing about the axes


def to_world(
    names: tuple[str, ...],
    positions: np.ndarray,
    unit: str | float | None,
    up: str | None,
    where: str,
    *,
    stated_mm: float | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return positions in the world frame, ``(T, K, 3)``, millimetres, y up; and what was assumed, a sentence.

    Args:
        names: K names of joints.
        positions: ``(T, K, 3)`` in the unit and axes of the file.
        unit: One of ``UNITS_MM``, or millimetres per unit. None takes the unit in which the legs are a person's.
        up: The axis that points up, "+y", "+z", "-y" ...; None takes +y, or +z if heads are above pelves along it.
        where: The file, for messages.
        stated_mm: Millimetres per unit that the file itself states; None if it states none.

    Raises:
        ValueError: No such unit or axis; the unit is neither given nor told by the legs; or in the unit given, the legs
            are no person's.
    """
    if isinstance(unit, str) and unit not in UNITS_MM:
        raise ValueError(
            f"unit must be one of {', '.join(UNITS_MM)}, or millimetres per unit, got {unit!r}."
            f"{nearest(unit, tuple(UNITS_MM))}"
        )
    if isinstance(unit, int | float) and not (np.isfinite(unit) and unit > 0):
        raise ValueError(f"Millimetres per unit must be positive, got {unit}.")
    if up is not None and up not in _TO_Y_UP:
        raise ValueError(f"up must be one of {', '.join(_TO_Y_UP)}, got {up!r}.")
    leg = leg_length(names, positions)
    scale, about_unit = _unit(unit, leg, where, stated_mm, "" if leg is not None else why_no_leg(names))
    found = upright_axis(names, positions)
    about_up = ""
    if up is None:
        up = "+y"
        if found is not None and found[0] == "+z" and found[1] >= _SURE:  # the only other one that is in use
            up = found[0]
            about_up = f" Up is {up}, along which the heads are above the pelves; it became y."
        elif found is not None and found[0] != "+y":
            about_up = " Up is taken as +y, though bodies are not upright along it; give up= if it is another axis."
    return positions @ _TO_Y_UP[up].T * scale, (f"{about_unit}{about_up}",)


def _unit(
    unit: str | float | None, leg: float | None, where: str, stated_mm: float | None, no_leg: str
) -> tuple[float, str]:
    """Return millimetres per unit, and a sentence on why; ``no_leg`` says why there is no leg, if there is none."""
    if isinstance(unit, int | float):
        return float(unit), f"The unit is {unit:g} mm, as given."
    fits = unit_of(leg) if leg is not None else None
    if unit is None and stated_mm is None:
        if leg is None:
            raise ValueError(
                f"{where} does not state its unit, and it cannot be told from the legs, as {no_leg}. Give unit=, "
                f"one of {', '.join(UNITS_MM)}, or millimetres per unit."
            )
        if fits is None:
            raise ValueError(
                f"{where} does not state its unit, and legs (hip to ankle) of {leg:.4g} are a person's "
                f"{LEG_MM[0]:g} to {LEG_MM[1]:g} mm in none of {', '.join(UNITS_MM)}. Give unit=, or millimetres per "
                "unit."
            )
        return UNITS_MM[fits], f"The unit is taken as {fits}: the legs are then {leg * UNITS_MM[fits]:.0f} mm long."
    mm = UNITS_MM[unit] if unit is not None else stated_mm
    assert mm is not None
    about = f"the unit {unit!r}" if unit is not None else f"the unit that it states, {mm:.4g} mm"
    if leg is not None:
        hint = f"They would be {leg * UNITS_MM[fits]:.0f} mm in {fits}: use unit={fits!r}. " if fits else ""
        advice = f"{hint}If it is right, give millimetres per unit: unit={mm:.6g}."
        check_leg(leg * mm, f"{where}: in {about},", advice, within_mm=ASKED_LEG_MM)
    said = f"{unit}, as given" if unit is not None else f"{mm:.4g} mm, as the file states"
    return mm, f"The unit is {said}." if leg is not None else f"The unit is {said}. No leg confirms it, as {no_leg}."
