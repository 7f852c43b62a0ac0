"""Checks the tables of a recipe against the signatures of what they name, when the recipe is read.

For built-in names, values are also checked against the annotations, and what is cheap and has no side effects (codecs,
transforms, metrics, protocols) is constructed once, so that invalid values are reported early. Nothing else is run.
``"package.module:name"`` is imported only if the caller trusts the recipe; otherwise such a table is not checked.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from poseglass.backbones import BACKBONES
from poseglass.codecs import CODECS
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import lookup, nearest
from poseglass.data import DATASETS
from poseglass.evaluation import PROTOCOLS
from poseglass.heads import HEADS
from poseglass.losses import LOSSES
from poseglass.losses.loss import find_loss
from poseglass.metrics import METRICS
from poseglass.necks import NECKS
from poseglass.networks import NETWORKS
from poseglass.training.criteria import CRITERIA
from poseglass.training.criterion import LossPart
from poseglass.transforms import TRANSFORMS


@dataclass(frozen=True, slots=True)
class Family:
    """What the tables at one place of a recipe may name.

    Args:
        kind: Kind for messages, such as "network".
        table: Maps names to classes and functions.
        first: Arguments passed before those of the table, mapped to where they come from.
        later: Arguments without a default that a recipe may omit, because they come from the data or the input.
        inner: Arguments that are tables themselves.
        own: Additional keys of the recipe that are not arguments.
        cheap: Whether constructing one is cheap and has no side effects.
    """

    kind: str
    table: Mapping[str, Callable[..., Any]]
    first: Mapping[str, str] = field(default_factory=dict)
    later: tuple[str, ...] = ()
    inner: Mapping[str, "Family"] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    cheap: bool = False


_INSIDE = {
    "backbone": Family("backbone", BACKBONES),
    "neck": Family("neck", NECKS, first={"channels": "the backbone", "strides": "the backbone"}),
    "head": Family("head", HEADS, first={"in_channels": "the neck", "num_keypoints": "the data"}, later=("size_wh",)),
}

PLACES: dict[str, Family] = {
    "network": Family("network", NETWORKS, later=("num_keypoints",), inner=_INSIDE),
    "codec": Family("codec", CODECS, cheap=True),
    "criterion": Family("criterion", CRITERIA),
    "augment": Family("transform", TRANSFORMS, cheap=True),
    "data.train": Family("dataset", DATASETS, own=("repeat",)),
    "data.val": Family("dataset", DATASETS),
    "evaluate.metrics": Family("metric", METRICS, cheap=True),
    "evaluate.protocol": Family("protocol", PROTOCOLS, cheap=True),
}
"""Keys of a recipe that hold a named table, or a list of them, except ``loss``."""

_COMPARED = {"prediction": "the network", "target": "the codec", "weight": "the codec"}
_LOSS_KEYS = tuple(key for key in LossPart.model_fields if key != "name")


def recipe_faults(data: Mapping[str, Any], *, trust_code: bool) -> list[str]:
    """Return the errors in the tables of a recipe; each begins with its dotted key.

    Values that are not tables, or have no name, are left to the recipe's own validation.

    Args:
        data: The recipe as nested tables.
        trust_code: Import code outside poseglass that tables name, and check those tables too.
    """
    faults = _skeleton_faults(data.get("skeleton"), "skeleton", trust_code)
    for place, family in PLACES.items():
        for where, part in _tables_at(data, place):
            faults += part_faults(family, part, where, trust_code=trust_code)
    for where, part in _tables_at(data, "loss"):
        faults += loss_faults(part, where, trust_code=trust_code)
    return faults


def _tables_at(data: Mapping[str, Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each named table of a place with its dotted key."""
    here: Any = data
    for key in place.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    items = [(place, here)] if isinstance(here, Mapping) else []
    if isinstance(here, list | tuple):
        items = [(f"{place}.{i}", item) for i, item in enumerate(here) if isinstance(item, Mapping)]
    yield from ((where, table) for where, table in items if isinstance(table.get("name"), str))


def part_faults(family: Family, part: Mapping[str, Any], where: str, *, trust_code: bool) -> list[str]:
    """Return the errors in a table: its name, a key, or a value.

    Args:
        family: What the table may name.
        part: ``{"name": ..., ...}``.
        where: Its dotted key.
        trust_code: As in ``recipe_faults``.
    """
    name = part["name"]
    ours = name in family.table
    if not ours and ":" in name and not trust_code:
        return []
    try:
        constructor = lookup(family.table, name, kind=family.kind)
    except LookupError as error:
        return [f"{where}.name: {_words(error)}"]
    what = f"{family.kind} {name!r}"
    if not callable(constructor):
        return [f"{where}.name: {what} is a {type(constructor).__name__}; a class or function is needed"]
    numbers = {key: value for key, value in part.items() if key not in ("name", *family.own)}
    hint = "" if ours else f". A recipe names a class or function that makes the {family.kind}, with its arguments"
    faults = signature_faults(
        constructor, numbers, what, where, first=family.first, later=family.later, own=family.own, hint=hint
    )
    repeat = part.get("repeat", 1)
    if "repeat" in family.own and (isinstance(repeat, bool) or not isinstance(repeat, int | float) or not repeat > 0):
        faults.append(f"{where}.repeat must be a number above 0, got {repeat!r}")
    if family.kind == "dataset":
        faults += _skeleton_faults(numbers.get("skeleton"), f"{where}.skeleton", trust_code)
    if not ours:  # only custom code knows the meaning of its nested tables
        return faults
    asked = {key: value for key, value in numbers.items() if key != "skeleton" and key not in family.inner}
    faults += _value_faults(constructor, asked, what, where, first=len(family.first))
    for key, inner in family.inner.items():
        if key in numbers and key in {p.name for p in _parameters(constructor)}:
            faults += _inner_faults(inner, numbers[key], f"{where}.{key}", trust_code)
    if family.cheap and not faults:
        try:
            constructor(**numbers)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            faults.append(f"{where}: {_words(error)}")
    return faults


def _value_faults(
    function: Callable[..., Any], numbers: Mapping[str, Any], what: str, where: str, *, first: int = 0
) -> list[str]:
    """Return errors for values that do not fit the annotations, except those of the first few arguments."""
    faults: list[str] = []
    for parameter in _parameters(function)[first:]:
        key, kind = parameter.name, parameter.annotation
        if key not in numbers or kind is parameter.empty or isinstance(kind, str):
            continue
        value = numbers[key]
        # validated as JSON: a list is accepted as a tuple, as in TOML, and otherwise types are strict
        text = json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
        try:
            TypeAdapter(kind).validate_json(text, strict=True)
        except (PydanticUserError, NameError):  # an argument that a recipe cannot give
            continue
        except ValidationError:
            words = _words_of(kind)
            takes = " or ".join(map(repr, words)) or inspect.formatannotation(kind)
            near = nearest(value, words) if isinstance(value, str) else ""
            faults.append(f"{where}.{key}: {what} takes {takes}, got {value!r}{near and '.'}{near}")
    return faults


def _words_of(kind: Any) -> list[Any]:
    """Return the literals of an annotation; empty if it allows anything besides literals and None."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    kinds = [one for one in kinds if one is not NoneType]
    return [word for one in kinds for word in get_args(one)] if all(get_origin(k) is Literal for k in kinds) else []


def _inner_faults(family: Family, part: Any, where: str, trust_code: bool) -> list[str]:
    if part is None:
        return []
    if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
        example = part if isinstance(part, str) else next(iter(family.table))
        key = where.rpartition(".")[2]
        return [f'{where} must be a table with a name, got {part!r}; write {key} = {{ name = "{example}" }}']
    return part_faults(family, part, where, trust_code=trust_code)


def loss_faults(part: Mapping[str, Any], where: str, *, trust_code: bool) -> list[str]:
    """Return the errors in an entry of ``loss``: its name, or the arguments of the loss; as ``part_faults``."""
    name = part["name"]
    if name not in LOSSES and ":" in name and not trust_code:
        return []
    try:
        function = find_loss(LOSSES, name).function
    except LookupError as error:
        return [f"{where}.name: {_words(error)}"]
    numbers = {key: value for key, value in part.items() if key not in LossPart.model_fields}
    what = f"loss {name!r}"
    faults = signature_faults(function, numbers, what, where, first=_COMPARED, own=_LOSS_KEYS)
    return faults + (_value_faults(function, numbers, what, where, first=len(_COMPARED)) if name in LOSSES else [])


def _parameters(constructor: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a class or function; arbitrary ones if Python cannot inspect it."""
    try:
        return list(inspect.signature(constructor).parameters.values())
    except ValueError:
        return [
            inspect.Parameter("any", kind) for kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        ]


def _words(error: Exception) -> str:
    """Return an error's message without the full stop, for a list; for a KeyError, without its quotes."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return (str(text) or type(error).__name__).removesuffix(".")


def _skeleton_faults(name: Any, where: str, trust_code: bool) -> list[str]:
    """Return the error in the name of a skeleton; empty if there is no name."""
    if not isinstance(name, str) or (":" in name and name not in SKELETONS and not trust_code):
        return []
    try:
        lookup(SKELETONS, name, kind="skeleton")
    except LookupError as error:
        return [f"{where}: {_words(error)}"]
    return []


def signature_faults(
    constructor: Callable[..., Any],
    numbers: Mapping[str, Any],
    what: str,
    where: str = "",
    *,
    first: Mapping[str, str] | None = None,
    later: Sequence[str] = (),
    own: Sequence[str] = (),
    hint: str = "",
) -> list[str]:
    """Return errors for unknown keys and missing arguments of a class or function.

    Args:
        constructor: The class or function; only its signature is used.
        numbers: Its arguments by name.
        what: Its description for messages, such as "codec 'dark'".
        where: Dotted key of the table, which is prefixed to each error if given.
        first: Arguments passed before those of the table, by position, mapped to where they come from.
        later: Arguments that may be missing.
        own: Additional keys of the table, for the list of known keys.
        hint: Text appended to the error of a missing argument.
    """
    first = first or {}
    parameters = _parameters(constructor)
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(places) < len(first) and all(p.kind is not p.VAR_POSITIONAL for p in parameters):
        fault = f"{what} has the arguments ({', '.join(places)}), expected ({', '.join(first)}, ...)"
        return [f"{where}.name: {fault}" if where else fault]
    given = dict(zip(places, first.values(), strict=False))
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "name"}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [*own, *(key for key in named if key not in given)]
    knows = f"Known: {', '.join(known)}" if known else "Its only key is name"
    faults: list[str] = []
    for key in numbers:
        place = f"{where}.{key}: " if where else ""
        if key in given:
            faults.append(f"{place}{what} gets {key!r} from {given[key]}: omit it")
        elif key not in named and not takes_any:
            faults.append(f"{place}{what} takes no {key!r}.{nearest(key, known)} {knows}")
    missing = [k for k, p in named.items() if p.default is p.empty and k not in (*numbers, *given, *later)]
    if missing:
        keys = " and ".join(f"{where}.{key}" if where else repr(key) for key in missing)
        are = "is" if len(missing) == 1 else "are"
        needs = f"{keys} {are} missing: {what} needs {'it' if len(missing) == 1 else 'them'}"
        faults.append(f"{needs}{hint}" if where else f"{what} needs {keys}, which {are} missing{hint}")
    return faults
