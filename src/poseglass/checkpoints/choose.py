"""Finds the network of a known layout in a checkpoint, whatever else was saved with it.

Every tensor of a checkpoint has a path, "state_dict.module.net.conv1.weight". A network has a prefix of the path; the
names after the prefix are those of a known layout. It does not matter which wrappers, dicts and lists come before, nor
which losses, teachers, averages and optimizers are saved beside it; what is not used is counted and named.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from poseglass.checkpoints.checkpoint import TOP, Checkpoint
from poseglass.checkpoints.importer import Importer
from poseglass.core.table import listed, lookup, nearest
from poseglass.estimators.weights_file import CheckpointError

TRANSPARENT = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_module"}
)
"""Prefixes added by PyTorch's own wrappers to the part that they wrap, which may be inside the network."""

USUAL = ("state_dict", "model_state_dict", "model", "network", "net")
"""Keys under which trained weights are commonly stored, in order of preference."""

AVERAGE = re.compile(r"(^|[._])(ema|swa|avg|averaged?|shadow|polyak|momentum)(?=[._\d]|$)")
TEACHER = re.compile(r"(^|[._])(teacher|discriminator|critic|previous|old)(?=[._\d]|$)")
"""Words in paths of networks that are averages of others, or were not trained here."""

BESIDE = re.compile(
    r"(^|_)(ema|swa|optim\w*|queue|teacher)(?=_|\d|$)|loss|criteri|metric|discriminator|log_?var|preproc"
)
"""Names of parts that are not used to compute anything from an image."""


FROM_PYTHON = {
    "classifier.low_classifier.weight": "poseglass.checkpoints.lr_aspp_torchvision.read_lr_aspp reads torchvision's "
    "LR-ASPP"
}
"""Names that tell a network which no weights file can hold, and what reads it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Tensors that have the names of a layout.

    Args:
        prefix: Prefix of the names, including the last dot; "" for the top level.
        importer: Importer of the layout.
        own: Name in the checkpoint to name in the layout, for every tensor that belongs to it.
        rest: The same for tensors under the prefix that do not belong to it.
    """

    prefix: str
    importer: Importer
    own: Mapping[str, str]
    rest: Mapping[str, str]

    @property
    def path(self) -> str:
        """The prefix as a user specifies it."""
        return self.prefix.removesuffix(".") or TOP


@dataclass(frozen=True, slots=True)
class Choice:
    """The network chosen from a checkpoint.

    Args:
        state: Its tensors, with the original names.
        importer: Importer of its layout.
        path: Where it was.
        notes: What was decided and excluded, as sentences.
    """

    state: dict[str, Tensor]
    importer: Importer
    path: str
    notes: tuple[str, ...]


def choose(checkpoint: Checkpoint, importers: Mapping[str, Importer], *, layout: str = "", take: str = "") -> Choice:
    """Choose the network in a checkpoint; return its tensors and notes on what was decided.

    If there are several, trained weights are preferred over averages and teachers, whole networks over backbones, and
    then the usual or first place.

    Args:
        checkpoint: The opened file.
        importers: The known layouts.
        layout: Name of the importer, if the names are ambiguous.
        take: Path of the network, if another one than the default choice is wanted.

    Raises:
        LookupError: No importer is called ``layout``.
        CheckpointError: No tensors have the names of a layout, or none under ``take``; or they are in a network that
            was pickled whole, and ``take`` does not select them.
    """
    wanted = lookup(importers, layout, kind="layout") if layout else None
    found = sorted(candidates(checkpoint, importers), key=lambda candidate: _rank(candidate, checkpoint))
    if take:
        chosen = _taken(take, found)
    elif found:
        chosen = found[0]
    elif wanted is not None:
        chosen = Candidate("", wanted, main_names(checkpoint), {})
    else:
        raise _unknown(checkpoint, importers)
    module = _module_of(chosen.prefix, checkpoint)
    if module is not None and not take:
        raise _whole(checkpoint, module, chosen if found else None)
    others = [candidate for candidate in found if candidate is not chosen]
    belonging = {name for other in others for name in other.own}
    left_over = {name: short for name, short in chosen.rest.items() if not _beside(name, short, belonging, checkpoint)}
    taken = {**chosen.own, **left_over}  # renaming the tensors will reject those left over, by name
    state = {taken[name]: tensor for name, tensor in checkpoint.read(taken).items()}
    notes = (
        *_why(chosen, others, checkpoint, state, take=take),
        *_excluded([n for n in checkpoint.tensors if n not in taken and n not in belonging], chosen.prefix),
        *_ignored(checkpoint.foreign),
    )
    return Choice(state, wanted or chosen.importer, chosen.path, notes)


def candidates(checkpoint: Checkpoint, importers: Mapping[str, Importer]) -> list[Candidate]:
    """Return every place in a checkpoint whose tensors have the names of a layout, in the order of the file.

    A backbone inside a recognised network is not listed again.
    """
    under: dict[str, list[str]] = {"": list(checkpoint.tensors)}
    for name in checkpoint.tensors:
        at = name.find(".")
        while at >= 0:
            under.setdefault(name[: at + 1], []).append(name)
            at = name.find(".", at + 1)
    found: dict[frozenset[str], Candidate] = {}
    for prefix, members in sorted(under.items(), key=lambda item: item[0].count(".")):
        names = _stripped(members, prefix)
        importer = next((i for i in importers.values() if i.recognises(names.values())), None)
        if importer is not None:
            known = _known(importer, names, checkpoint)
            own = {name: short for name, short in names.items() if known is None or short in known}
            rest = {name: short for name, short in names.items() if name not in own}
            found[frozenset(own)] = Candidate(prefix, importer, own, rest)  # the innermost prefix of the same tensors
    return [c for own, c in found.items() if not any(own < other for other in found)]


def _stripped(members: Sequence[str], prefix: str) -> dict[str, str]:
    """Return name in the checkpoint -> name without the prefix and without prefixes of PyTorch's wrappers inside it."""
    plain = {name: name[len(prefix) :] for name in members}
    bare = {name: _bare(short) for name, short in plain.items()}
    return bare if len(set(bare.values())) == len(bare) and "" not in bare.values() else plain


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in TRANSPARENT)


def _known(importer: Importer, names: Mapping[str, str], checkpoint: Checkpoint) -> set[str] | None:
    """Return a layout's names for the network that these tensors form, or None if they form none."""
    shapes = {names[name]: tensor for name, tensor in checkpoint.shapes(names).items()}
    current = importer.current(shapes)
    renamed = dict(zip(current, shapes, strict=True)) if len(current) == len(shapes) else {}
    try:
        network = importer.network(current)
        known = {*importer.names(network).values(), *importer.never_run(network)}
    except (CheckpointError, LookupError, ValueError):
        return None
    known |= {name for name in current if name.startswith(importer.excluded)}
    return {renamed.get(name, name) for name in known}


def main_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Return name in the checkpoint -> bare name of the most likely tensors, if no layout is known.

    Of several containers, the usual one, without the prefixes of PyTorch's wrappers.
    """
    names, prefix = list(checkpoint.tensors), ""
    while True:
        tops = dict.fromkeys(name[len(prefix) :].partition(".")[0] for name in names)
        inner = next((top for top in (*USUAL, *TRANSPARENT) if top in tops), None)
        members = [name for name in names if name.startswith(f"{prefix}{inner}.")]
        if inner is None or not members or (inner in TRANSPARENT and len(members) < len(names)):
            return _stripped(names, prefix)
        names, prefix = members, f"{prefix}{inner}."


def _rank(candidate: Candidate, checkpoint: Checkpoint) -> tuple[object, ...]:
    """Return a sort key for candidates, preferred first."""
    first = candidate.prefix.partition(".")[0]
    return (
        _module_of(candidate.prefix, checkpoint) is not None,
        AVERAGE.search(candidate.prefix) is not None,
        TEACHER.search(candidate.prefix) is not None,
        candidate.importer.part == "backbone",
        USUAL.index(first) if first in USUAL else len(USUAL),
    )


_REASONS = (
    "weights are preferred over networks that were pickled whole",
    "trained weights are preferred over averages of them",
    "trained weights are preferred over a teacher",
    "a whole network is preferred over a backbone",
    "it is the usual place",
)


def _why(
    chosen: Candidate, others: Sequence[Candidate], checkpoint: Checkpoint, state: Mapping[str, Tensor], *, take: str
) -> Iterator[str]:
    """Yield which of several networks was chosen, why, and how to choose another."""
    if not others:
        return
    mine = _rank(chosen, checkpoint)
    differing = [
        [i for i, (a, b) in enumerate(zip(mine, _rank(other, checkpoint), strict=True)) if a != b] for other in others
    ]
    firsts = {places[0] if places else len(_REASONS) for places in differing}
    last = max(firsts)  # the reason that decided against the strongest of the others
    reason = "as requested" if take else _REASONS[last] if last < len(_REASONS) else "it comes first in the file"
    yield (
        f"Taken: {chosen.path} ({reason}), one of {len(others) + 1} networks in the file. Not taken: "
        f"{'; '.join(_described(other, chosen, checkpoint, state) for other in others)}."
        f"{'' if take else ' Take another with --take PATH.'}"
    )
    if chosen.path == "state_dict" and any(other.path.startswith("ema_state_dict") for other in others):
        yield "mmengine stores the averaged weights under state_dict, and those before averaging under ema_state_dict."


def _described(other: Candidate, chosen: Candidate, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> str:
    what = [_counted(len(other.own), "tensor")]
    if AVERAGE.search(other.prefix):
        what.append("an average by its name")
    if other.importer is not chosen.importer:
        what.append(other.importer.layout)
    elif set(other.own.values()) == state.keys():
        values = checkpoint.read(other.own)
        if all(
            values[name].shape == state[short].shape and bool((values[name] == state[short]).all())
            for name, short in other.own.items()
        ):
            what.append("the same values")
    return f"{other.path} ({', '.join(what)})"


def _beside(name: str, short: str, belonging: Collection[str], checkpoint: Checkpoint) -> bool:
    """Return whether a tensor under a network's own prefix does not belong to it.

    It belongs to another network, it is a lone counter, or its name says that it is only for training.
    """
    tensor = checkpoint.tensors[name]
    counter = not tensor.shape and not tensor.dtype.is_floating_point and "." not in short
    return name in belonging or counter or BESIDE.search(short.partition(".")[0]) is not None


def _excluded(names: Sequence[str], prefix: str) -> Iterator[str]:
    """Yield how many tensors were not used, grouped by the parts that they belong to."""
    groups: dict[str, int] = {}
    for name in names:
        parts, above = name.split("."), prefix.split(".")
        shared = 0
        while shared < len(parts) - 1 and shared < len(above) and parts[shared] == above[shared]:
            shared += 1
        group = ".".join(parts[: shared + 1])
        groups[group] = groups.get(group, 0) + 1
    if groups:
        kinds = listed([f"{group} ({count})" for group, count in groups.items()])
        yield f"Excluded: {_counted(len(names), 'tensor')} beside the network, under {kinds}."


def _ignored(foreign: Mapping[str, int]) -> Iterator[str]:
    """Yield how many objects of other classes were ignored."""
    if foreign:
        kinds = listed([f"{name} ({count})" for name, count in foreign.items()])
        yield f"Ignored: {_counted(sum(foreign.values()), 'object')} of classes that are not loaded here, {kinds}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _taken(take: str, found: Sequence[Candidate]) -> Candidate:
    path = take.strip(".") or TOP
    fitting = [c for c in found if c.path == path]
    fitting = fitting or [c for c in found if c.path.startswith(f"{path}.")]
    if len(fitting) != 1:
        there = ", ".join(f"{c.path} ({c.importer.name})" for c in (fitting or found)) or "none"
        which = "there is more than one network" if fitting else "there is no network of a known layout"
        close = "" if fitting else nearest(path, [c.path for c in found])
        raise CheckpointError(f"--take {take!r}: {which}.{close} Available: {there}.")
    return fitting[0]


def _module_of(prefix: str, checkpoint: Checkpoint) -> str | None:
    """Return the path of the network, pickled whole, that contains a prefix; None if there is none."""
    for path in checkpoint.modules:
        if not path or prefix == f"{path}." or prefix.startswith(f"{path}."):
            return path
    return None


def _whole(checkpoint: Checkpoint, module: str, candidate: Candidate | None) -> CheckpointError:
    name = checkpoint.modules[module]
    at = "".join(f"[{part!r}]" for part in module.split(".")) if module else ""
    here = f" under {module!r}" if module else ""
    offer, doubt = "", ""
    if candidate is None:
        names = [_bare(n) for n in checkpoint.tensors if not module or n.startswith(f"{module}.")]
        doubt = f" The names of its {len(names)} tensors ({listed(names)}) match no known layout."
    else:
        offer = (
            f" Or read its {len(candidate.own)} tensors here by name, without the class, if it uses only standard "
            f"attributes: --take {candidate.path} (the names are those of {candidate.importer.layout})."
        )
    return CheckpointError(
        f"The file contains{here} a whole network, an object of class {name}, rather than its weights. Such classes "
        f"are not instantiated here.{doubt} Where that class can be imported, and if you trust the file, save only the "
        f"weights and import those: torch.save(torch.load({checkpoint.path.name!r}, weights_only=False){at}"
        f".state_dict(), 'weights.pth').{offer}"
    )


def _unknown(checkpoint: Checkpoint, importers: Mapping[str, Importer]) -> CheckpointError:
    if checkpoint.modules:
        return _whole(checkpoint, next(iter(checkpoint.modules)), None)
    names = [*main_names(checkpoint).values()]
    known = "; ".join(f"{i.name} ({i.source.repository})" for i in importers.values())
    odd = "".join(
        f" Not read: {_counted(count, 'tensor')} of another kind ({name})."
        for name, count in checkpoint.foreign.items()
        if name.startswith("torch._utils.")
    )
    odd += "".join(
        f" It is a network for segmentation, which is used from Python: {how}."
        for name, how in FROM_PYTHON.items()
        if name in names
    )
    return CheckpointError(
        f"No importer recognises a checkpoint with names such as {listed(names)} ({_counted(len(names), 'tensor')})."
        f"{odd} Known: {known}."
    )
