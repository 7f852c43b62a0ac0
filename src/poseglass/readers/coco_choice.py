"""Which images of a COCO file are read: a choice by the fields of their records."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poseglass.core.table import counted, listed, nearest

Value = str | int | float | bool
Allowed = Value | Sequence[Value]
"""The value that a field must have, or a list of allowed ones."""


def chosen_images(path: Path, records: list[Any], where: Mapping[str, Allowed], notes: list[str]) -> list[bool]:
    """Return for each record whether it fits every field of ``where``.

    Records that are no objects fit: the reader reports them. A record without a field does not fit. True and 1 differ.

    Args:
        path: Path of the file, for messages.
        records: The images.
        where: Allowed values by field.
        notes: How many images were kept of how many is appended.

    Raises:
        ValueError: A value is not a text, a number, true or false, or a list of such; no image has the field; or no
            image is left.
    """
    tables = [r for r in records if isinstance(r, dict)]
    fields = list(dict.fromkeys(str(key) for r in tables for key in r))
    allowed: dict[str, list[Value]] = {}
    for field, value in where.items():
        values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
        if not values or not all(isinstance(v, str | int | float) for v in values):
            raise ValueError(
                f"{path}: where.{field} must be a text, a number, true or false, or a list of such, got {value!r:.60}."
            )
        if field not in fields:
            raise ValueError(
                f"{path}: no image has the field {field!r} that where asks for.{nearest(field, fields)} "
                f"The images have: {', '.join(fields) or 'no fields'}."
            )
        allowed[field] = values
    keep = [
        not isinstance(r, dict) or all(f in r and _is_one_of(r[f], values) for f, values in allowed.items())
        for r in records
    ]
    asked = " and ".join(
        f"{field} = {values[0]!r}" if len(values) == 1 else f"{field} one of {listed([repr(v) for v in values])}"
        for field, values in allowed.items()
    )
    if tables and not any(k for k, r in zip(keep, records, strict=True) if isinstance(r, dict)):
        found = {f: Counter(repr(r[f])[:40] for r in tables if f in r) for f in allowed}
        has = "; ".join(
            f"{field} is {', '.join(f'{v} ({n:,})' for v, n in counts.most_common(8))}"
            + (f" and {len(counts) - 8:,} more values" if len(counts) > 8 else "")
            for field, counts in found.items()
        )
        raise ValueError(f"{path}: none of its {counted(len(tables), 'image')} has {asked}. In the file {has}.")
    note = f"Kept {sum(keep):,} of {counted(len(records), 'image')}: those with {asked}."
    for field in allowed:
        lacking = sum(field not in r for r in tables)
        note += f" {counted(lacking, 'image')} without {field!r} left out." if lacking else ""
    notes.append(note)
    return keep


def _is_one_of(value: Any, allowed: list[Value]) -> bool:
    return any(isinstance(value, bool) == isinstance(a, bool) and value == a for a in allowed)
