"""Look up and build parts from plain dicts of names, with "did you mean"."""

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""


def lookup(table: Mapping[str, T], name: str, *, kind: str = "name") -> T:
    """Return ``table[name]``, or what ``"package.module:attribute"`` points to.

    Args:
        table: The family's dict, e.g. ``NETWORKS``.
        name: A key of it, or "package.module:attribute" for your own code, installed or in the current folder.
        kind: What the table holds, for the message: "network", "codec".

    Raises:
        LookupError: The name is neither in the table nor importable.
    """
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(_own_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise LookupError(
                f"{kind} {name!r} cannot be imported ({error}). Expected 'package.module:name' of importable code."
            ) from error
    raise LookupError(
        f"Unknown {kind} {name!r}.{nearest(name, table)} Known: {', '.join(sorted(table)) or 'none'}. "
        "Your own code: 'package.module:name'."
    )


def _own_module(name: str) -> ModuleType:
    """Import a module, from the current folder if it is found nowhere else.

    The command ``poseglass`` does not have that folder on its path, as ``python -m poseglass`` does. It is added last,
    and only for a module that is found nowhere else: a file there never shadows an installed module.
    """
    here, first = str(Path.cwd()), name.partition(".")[0]
    if first not in sys.modules and here not in sys.path and importlib.util.find_spec(first) is None:
        sys.path.append(here)
    return importlib.import_module(name)


def build_part(table: Mapping[str, Callable[..., T]], part: Mapping[str, Any], kind: str, *first: Any) -> T:
    """Build ``table[part["name"]]`` from ``first`` and the part's other entries.

    Args:
        table: The family's dict.
        part: ``{"name": ..., ...}``.
        kind: What the part is, for the message: "neck".
        first: Leading positional arguments.

    Raises:
        LookupError, TypeError: As ``build``.
        ValueError: The part has no name.
    """
    numbers = dict(part)
    name = numbers.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f'{kind} needs a name, e.g. {{ name = "{next(iter(table), "...")}" }}, got {dict(part)}.')
    return build(table, name, *first, **numbers)


def build(table: Mapping[str, Callable[..., T]], name: str, /, *first: Any, **numbers: Any) -> T:
    """Build ``table[name](*first, **numbers)``. ``name`` may also be ``"package.module:attribute"``.

    Raises:
        LookupError: The name is unknown; the closest name is suggested.
        TypeError: An argument the constructor does not take (Python's own message).

    Example:
        >>> build({"complex": complex}, "complex", real=1.0, imag=2.0)
        (1+2j)
    """
    return lookup(table, name)(*first, **numbers)


def counted(number: int, thing: str) -> str:
    """Return a number with its noun in the singular or plural.

    Example:
        >>> counted(1, "keypoint"), counted(1200, "keypoint")
        ('1 keypoint', '1,200 keypoints')
    """
    return f"{number:,} {thing}{'s' * (number != 1)}"


_SHOWN = 4  # names shown in a message before "and 12 more"


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed([str(i) for i in range(9)])
        ('a, b', '0, 1, 2, 3 and 5 more')
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
