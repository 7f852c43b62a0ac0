"""The categories of a COCO file: their keypoints, bones, flip pairs and OKS constants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.sides import name_pairs, side_of
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import BOXES, SKELETONS
from poseglass.core.table import nearest
from poseglass.readers.json_file import finite_number, shortened, whole_number
from poseglass.readers.mixed import union
from poseglass.readers.sigmas import KNOWN_SIGMAS, estimate_sigmas


@dataclass(frozen=True, slots=True)
class Categories:
    """The chosen categories: the union skeleton, where each category's keypoints go in it, each skeleton and name."""

    skeleton: Skeleton
    places: dict[int, np.ndarray]
    sigmas: dict[str, float]
    all_ids: frozenset[int]
    own: dict[int, Skeleton]
    names: dict[int, str] = field(default_factory=dict)

    @property
    def class_ids(self) -> list[int]:
        """Ids of the chosen categories; the position of an id is the label of its instances."""
        return sorted(self.places)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the chosen categories by label."""
        return tuple(self.names.get(key, str(key)) for key in self.class_ids)


def read_categories(
    path: Path,
    data: dict[str, Any],
    category: str | int | Sequence[str | int] | None,
    skeleton: Skeleton | dict[str, Any] | None,
    notes: list[str],
) -> Categories:
    """Read and check the table of categories, and select the requested ones.

    Raises:
        ValueError: The table is missing or invalid, or a requested category is not in it.
    """
    given = Skeleton.from_dict(skeleton) if isinstance(skeleton, dict) else skeleton
    table = data.get("categories")
    if table is None and given is not None:
        table = [{"id": 1, "name": given.name}]
    if not isinstance(table, list) or not table:
        raise ValueError(
            f"{path} is not COCO keypoint JSON: expected a list 'categories' with the names of the keypoints, "
            f"got {type(table).__name__}. If the file has no names, set the data set's option skeleton."
        )
    by_id = _by_id(path, table)
    wanted = _choose(path, by_id, category, given)
    skeletons = {key: _category_skeleton(path, key, by_id[key], given, notes) for key in wanted}
    try:
        joined = union(list(skeletons.values()))
    except ValueError as error:
        raise ValueError(
            f"{path}: its categories cannot be read together. {error} Choose one with the data set's option category."
        ) from error
    sigma = {n: s for one in reversed(skeletons.values()) for n, s in zip(one.keypoints, one.sigmas, strict=False)}
    names = joined.keypoints
    first = next(iter(skeletons.values()))
    same = all(s.keypoints == first.keypoints for s in skeletons.values())
    if not same:
        notes.append(
            f"{len(skeletons)} categories with different keypoints share one skeleton of {len(names)} names; "
            "keypoints that a category lacks are unknown."
        )
    known = next((s for s in SKELETONS.values() if s.keypoints == names), None)
    if known is not None and given is None:
        joined = replace(known, sigmas=(), flip_pairs=joined.flip_pairs)
    elif not joined.bones:  # those of a known skeleton, matched by name
        listed = [b for s in SKELETONS.values() for b in s.bones if b[0] in names and b[1] in names]
        bones = [b for i, b in enumerate(listed) if b not in listed[:i] and b[::-1] not in listed[:i]]
        joined = replace(joined, bones=tuple(bones))
    places = {key: joined.indices_of(s.keypoints) for key, s in skeletons.items()}
    own = {key: joined if same else s for key, s in skeletons.items()}
    labels = {key: str(by_id[key].get("name", key)) for key in wanted}
    return Categories(replace(joined, sigmas=()), places, sigma, frozenset(by_id), own, labels)


def read_classes(path: Path, data: dict[str, Any], category: str | int | Sequence[str | int] | None) -> Categories:
    """Read and check the table of categories of a file that is read for its boxes alone: there are no keypoints.

    Raises:
        ValueError: The table is missing or invalid, a name is missing or used twice, or a requested category is not in
            it.
    """
    table = data.get("categories")
    if not isinstance(table, list) or not table:
        raise ValueError(
            f"{path} is not COCO JSON: expected a list 'categories' with the names of the classes, got "
            f"{type(table).__name__}. Without it nobody knows what the boxes contain."
        )
    by_id = _by_id(path, table)
    wanted = list(by_id) if category is None else _choose(path, by_id, category, None)
    names: dict[int, str] = {}
    for key in wanted:
        name = by_id[key].get("name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{path}: category {key}: 'name' must be the name of the class, got {shortened(name)}.")
        if name in names.values():
            raise ValueError(f"{path}: category {key}: the name {name!r} is used twice; names of classes are unique.")
        names[key] = name
    places = {key: np.zeros(0, np.int64) for key in wanted}
    return Categories(BOXES, places, {}, frozenset(by_id), dict.fromkeys(wanted, BOXES), names)


def _by_id(path: Path, table: list[Any]) -> dict[int, dict[str, Any]]:
    by_id: dict[int, dict[str, Any]] = {}
    for number, record in enumerate(table):
        where = f"{path}: category number {number}"
        if not isinstance(record, dict) or whole_number(record.get("id")) is None:
            raise ValueError(f"{where}: expected an object with a whole number 'id', got {shortened(record)}.")
        key = whole_number(record["id"])
        assert key is not None
        if key in by_id:
            raise ValueError(f"{where}: id {key} is used twice; category ids must be unique.")
        by_id[key] = record
    return by_id


def _choose(
    path: Path,
    by_id: dict[int, dict[str, Any]],
    category: str | int | Sequence[str | int] | None,
    given: Skeleton | None,
) -> list[int]:
    if category is None:
        wanted = [key for key, record in by_id.items() if record.get("keypoints")]
        if not wanted and given is not None and len(by_id) == 1:
            wanted = list(by_id)
        if not wanted:
            raise ValueError(
                f"{path}: none of its {len(by_id)} categories has 'keypoints' (their names); these are annotations "
                "of boxes, which the data set's option boxes_only = true reads, or the names are missing: then set its "
                "options skeleton and category."
            )
        return wanted
    names = {str(record.get("name")): key for key, record in by_id.items()}
    wanted = []
    for one in [category] if isinstance(category, str | int) else list(category):
        key = names.get(one) if isinstance(one, str) else (one if one in by_id else None)
        if key is None:
            known = ", ".join(f"{k} {n!r}" for n, k in names.items())
            raise ValueError(f"{path} has no category {one!r}.{nearest(str(one), names)} It has: {known}.")
        if key not in wanted:
            wanted.append(key)
    if not wanted:
        raise ValueError("category must name at least one category; None reads all with keypoints.")
    return wanted


def _category_skeleton(
    path: Path, key: int, record: dict[str, Any], given: Skeleton | None, notes: list[str]
) -> Skeleton:
    """Return the category's own skeleton: bones, sigmas and flip pairs where the file states them."""
    label = str(record.get("name", key))
    where = f"{path}: category {key} ({label!r})"
    names = record.get("keypoints")
    if names is None and given is not None:
        return given
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise ValueError(
            f"{where}: 'keypoints' must be a list of names, got {shortened(names)}. Or name them with the data set's "
            "option skeleton."
        )
    if given is not None:
        if len(given) != len(names):
            raise ValueError(
                f"{where} has {len(names)} keypoints, skeleton {given.name!r} has {len(given)}; "
                "it must name the file's keypoints in the file's order."
            )
        moved = [n for i, n in enumerate(names) if n in given.keypoints and given.index(n) != i]
        if moved:
            raise ValueError(
                f"{where}: keypoint {moved[0]!r} is number {names.index(moved[0])} in the file and number "
                f"{given.index(moved[0])} in skeleton {given.name!r}; it must name the file's keypoints in the "
                "file's order. To reorder, read first and use Instances.in_skeleton."
            )
        return given
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise ValueError(f"{where}: 'keypoints' must be unique, repeated: {', '.join(twice)}.")
    bones = _bones(where, names, record.get("skeleton"), notes)
    sigmas = _listed_sigmas(where, names, record.get("sigmas"))
    pairs = record.get("flip_pairs")
    if pairs is None and record.get("flip_idx") is not None:
        pairs = _pairs_of_order(where, names, record["flip_idx"])
    mirrored = None if pairs is None else named_pairs(where, names, pairs)
    return Skeleton(label, tuple(names), tuple(bones), sigmas, mirrored)


def _bones(where: str, names: list[str], listed: Any, notes: list[str]) -> list[tuple[str, str]]:
    """Read "skeleton": pairs of numbers from 1 (some files: from 0), or of names."""
    if listed is None or listed == []:
        return []
    fault = f"{where}: 'skeleton' must be a list of pairs of keypoint numbers from 1 to {len(names)}"
    if not isinstance(listed, list):
        raise ValueError(f"{fault}, got {shortened(listed)}.")
    ends: list[tuple[int, int]] = []
    for pair in listed:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{fault}, got {shortened(pair)}.")
        if all(isinstance(p, str) for p in pair):
            for p in pair:
                if p not in names:
                    raise ValueError(f"{where}: bone {pair} names unknown keypoint {p!r}.{nearest(p, names)}")
            ends.append((names.index(pair[0]) + 1, names.index(pair[1]) + 1))
            continue
        a, b = whole_number(pair[0]), whole_number(pair[1])
        if a is None or b is None:
            raise ValueError(f"{fault}, got {shortened(pair)}.")
        ends.append((a, b))
    numbers = [n for pair in ends for n in pair]
    base = 1
    if min(numbers) == 0 and max(numbers) < len(names):
        base = 0
        notes.append(f"Category {where.rsplit('category ', 1)[-1]}: bones are numbered from 0, not from 1 as in COCO.")
    elif min(numbers) < 1 or max(numbers) > len(names):
        outside = next(list(p) for p in ends if min(p) < 1 or max(p) > len(names))
        notes.append(
            f"Category {where.rsplit('category ', 1)[-1]}: bone {outside} is outside 1 to {len(names)}, so the bones "
            "belong to another skeleton and are ignored; those of known skeletons are matched by name."
        )
        return []
    found: list[tuple[str, str]] = []
    for a, b in ends:
        bone = (names[a - base], names[b - base])
        if a != b and bone not in found:
            found.append(bone)
    return found


def _listed_sigmas(where: str, names: list[str], listed: Any) -> tuple[float, ...]:
    if listed is None or listed == []:
        return ()
    numbers = [finite_number(s) for s in listed] if isinstance(listed, list) else [None]
    if len(numbers) != len(names) or any(s is None or s <= 0 for s in numbers):
        raise ValueError(f"{where}: 'sigmas' must be {len(names)} positive numbers, got {shortened(listed)}.")
    return tuple(s for s in numbers if s is not None)


def _pairs_of_order(where: str, names: list[str], order: Any) -> list[tuple[str, str]]:
    """Return the flip pairs of YOLO's "flip_idx": for each keypoint the 0-based number of its partner, or its own.

    Raises:
        ValueError: It is not such an order.
    """
    numbers = [whole_number(i) for i in order] if isinstance(order, list) else []
    if sorted(i for i in numbers if i is not None) != list(range(len(names))) or any(
        numbers[numbers[i]] != i  # type: ignore[index]
        for i in range(len(names))
    ):
        raise ValueError(
            f"{where}: 'flip_idx' must give for each of the {len(names)} keypoints the 0-based number of the one that "
            f"it is swapped with, or its own, got {shortened(order)}."
        )
    return [(names[i], names[j]) for i, j in enumerate(numbers) if j is not None and i < j]


def named_pairs(where: str, names: Sequence[str], pairs: Any) -> tuple[tuple[str, str], ...]:
    """Check flip pairs: pairs of known names, each name at most once.

    Raises:
        ValueError: A pair names an unknown keypoint, or a name is used twice.
    """
    found: list[tuple[str, str]] = []
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise ValueError(f"{where}: flip pairs must be pairs of keypoint names, got {shortened(pairs)}.")
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"{where}: a flip pair must be two keypoint names, got {shortened(pair)}.")
        for end in pair:
            if not isinstance(end, str) or end not in names:
                hint = nearest(end, names) if isinstance(end, str) else " Give names, not numbers."
                raise ValueError(
                    f"{where}: flip pair {list(pair)} names unknown keypoint {end!r}.{hint} Known: {', '.join(names)}."
                )
        found.append((pair[0], pair[1]))
    ends = [n for pair in found for n in pair]
    if len(set(ends)) != len(ends):
        twice = next(n for n in ends if ends.count(n) > 1)
        raise ValueError(f"{where}: keypoint {twice!r} is in two flip pairs; it can be swapped with one keypoint only.")
    return tuple(found)


def finish_skeleton(
    path: Path,
    chosen: Categories,
    people: Instances,
    flip_pairs: Iterable[tuple[str, str]] | None,
    sigmas: Sequence[float] | Mapping[str, float] | None,
    notes: list[str],
) -> Skeleton:
    """Return the skeleton with its flip pairs and sigmas, and note where they come from if that is not obvious."""
    skeleton = chosen.skeleton
    names = skeleton.keypoints
    mirrored = skeleton.flip_pairs
    if flip_pairs is not None:
        mirrored = named_pairs(str(path), names, flip_pairs)
    if mirrored is None:
        guessed = [(names[i], names[j]) for i, j in name_pairs(names) if side_of(names[i]) is None]
        if guessed:
            notes.append(
                f"Taken as left and right by the spelling of their names: {', '.join(map(' and '.join, guessed))}. "
                "The data set's option flip_pairs overrides this."
            )
    skeleton = replace(skeleton, flip_pairs=mirrored)
    if sigmas is not None:
        if isinstance(sigmas, Mapping):
            lacking = [n for n in names if n not in sigmas]
            if lacking:
                raise ValueError(f"{path}: sigmas must name every keypoint, missing: {', '.join(lacking)}.")
            sigmas = [sigmas[n] for n in names]
        return replace(skeleton, sigmas=tuple(float(s) for s in sigmas))
    known = KNOWN_SIGMAS | chosen.sigmas
    lacking = [n for n in names if n not in known]
    if lacking:
        estimate = dict(zip(names, estimate_sigmas(people), strict=True))
        known = estimate | known
        notes.append(
            f"OKS sigmas of {len(lacking)} keypoints are not known and are estimated from the distances between "
            f"keypoints: {', '.join(f'{n} {estimate[n]:g}' for n in lacking)}. The data set's option sigmas sets them."
        )
    return replace(skeleton, sigmas=tuple(known[n] for n in names))
