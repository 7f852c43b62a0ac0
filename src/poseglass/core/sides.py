"""Left and right in the names of keypoints: which ones are swapped when an image is flipped."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

LEFT = ("left", "l", "lt", "links", "gauche", "izquierda", "izquierdo", "左")
RIGHT = ("right", "r", "rt", "rechts", "droite", "droit", "derecha", "derecho", "右")
"""Words that name a side; "l", "r", "lt" and "rt" only as words of their own."""

_COMPOUND = {
    "lf": ("left", "f"), "rf": ("right", "f"), "fl": ("left", "f"), "fr": ("right", "f"),
    "lh": ("left", "h"), "rh": ("right", "h"), "hl": ("left", "h"), "hr": ("right", "h"),
    "lb": ("left", "b"), "rb": ("right", "b"), "bl": ("left", "b"), "br": ("right", "b"),
    "tl": ("left", "t"), "tr": ("right", "t"), "ul": ("left", "u"), "ur": ("right", "u"),
    "ll": ("left", "l"), "lr": ("right", "l"), "rl": ("left", "r"), "rr": ("right", "r"),
}  # fmt: skip
"""Left front, hind left, top left, lower right, ...: a side only if the same name exists for the other side too."""

_WORD = re.compile(r"[左右]|[A-Z](?=[A-Z][a-z])|[A-Z]{2,}(?![a-z])|[A-Z]?[^\W\d_A-Z左右]+|[A-Z]|\d+")
"""A word of a name: a capital starts one ("leftWrist", "LWrist", "wristL"), digits form one."""


def name_words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case.

    Example:
        >>> name_words("left_wrist"), name_words("LeftWrist"), name_words("wristL"), name_words("LWrist")
        (('left', 'wrist'), ('left', 'wrist'), ('wrist', 'l'), ('l', 'wrist'))
        >>> name_words("upright"), name_words("hip.L"), name_words("LEFT-EYE 2")
        (('upright',), ('hip', 'l'), ('left', 'eye', '2'))
    """
    return tuple(word.lower() for word in _WORD.findall(name))


def side_of(name: str) -> str | None:
    """Return "left" or "right" if the name itself says so, None if it names neither side or both.

    A single letter followed by a digit ("L5", a vertebra) is not a side by itself.

    Example:
        >>> side_of("wrist.R"), side_of("lt_ear"), side_of("kneeLeft"), side_of("upright"), side_of("L5")
        ('right', 'left', 'left', None, None)
    """
    sides = {_side(word) for word in _sided_words(name)} - {None}
    return sides.pop() if len(sides) == 1 else None


def canonical_name(name: str) -> str:
    """Return one spelling for names that differ only in case, separators and the position of the side.

    Example:
        >>> canonical_name("Left Wrist"), canonical_name("wrist_l"), canonical_name("LWrist"), canonical_name("C7")
        ('left_wrist', 'left_wrist', 'left_wrist', 'c_7')
    """
    side = side_of(name)
    if side is None:
        return "_".join(name_words(name))
    return "_".join([side, *(word for word in _sided_words(name) if _side(word) is None)])


def name_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of positions ``(left, right)`` of names that differ only in left and right.

    Names with a side of their own come first ("left_wrist", "L_wrist", "wristL", "lt_wrist", "leftWrist"). Words that
    could mean something else count only if the other side exists too: "lf_paw" and "rf_paw", "L1" and "R1",
    "leftwrist" and "rightwrist"; a single letter attached to a word ("lwrist", "WRISTL") counts only if at least two
    pairs are written like that.

    Example:
        >>> name_pairs(["nose", "wristL", "wristR", "lt_eye", "RT_EYE"])
        ((1, 2), (3, 4))
        >>> name_pairs(["lamp", "ramp"]), name_pairs(["lhip", "rhip", "lknee", "rknee"])
        ((), ((0, 1), (2, 3)))
    """
    return _paired(names)[0]


def alone(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with a side whose counterpart on the other side is missing.

    Example:
        >>> alone(["left_eye", "right_eye", "left_ear", "nose"])
        ('left_ear',)
    """
    return tuple(names[i] for i in _paired(names)[1])


def _paired(names: Sequence[str]) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Return the pairs of positions, and the positions of names with a side but no partner.

    A name that names a side has one whatever the others are. Otherwise a spelling counts for the names left over as
    soon as it has made a pair: beside "fl_paw" and "fr_paw", "hl_paw" has a side.
    """
    pairs: list[tuple[int, int]] = []
    sided = {i for i, name in enumerate(names) if side_of(name) is not None}

    def take(keys: Sequence[tuple[str, str] | None], *, least: int = 1) -> None:
        """Pair names that are still free and whose keys (side, the rest) differ only in the side."""
        taken = {i for pair in pairs for i in pair}
        places: dict[tuple[str, str], list[int]] = {}
        for i, key in enumerate(keys):
            if key is not None and i not in taken:
                places.setdefault(key, []).append(i)
        found = [
            (own[0], others[0])
            for (side, rest), own in places.items()
            if side == "left" and len(own) == 1 and len(others := places.get(("right", rest), [])) == 1
        ]
        if len(found) >= least:
            pairs.extend(found)
            sided.update(i for group in places.values() for i in group)

    take([_key(_sided_words(name), _side) for name in names])
    take([_key(name_words(name), _side) for name in names])
    take([_key(name_words(name), _compound_side) for name in names])
    take([(side, canonical_name(name).partition("_")[2]) if (side := side_of(name)) else None for name in names])
    joined = ["_".join(name_words(name)) for name in names]
    take([_glued(name, r"(?P<side>left|right)(?P<rest>.+)") for name in joined])
    take([_glued(name, r"(?P<rest>.+?)(?P<side>left|right)") for name in joined])
    take([_glued(name, r"(?P<side>l|r)(?P<rest>.{3,})") for name in joined], least=2)
    take([_glued(name, r"(?P<rest>.{3,})(?P<side>l|r)") for name in joined], least=2)
    paired = {i for pair in pairs for i in pair}
    return tuple(sorted(pairs)), tuple(sorted(sided - paired))


def _side(word: str) -> str | None:
    return "left" if word in LEFT else "right" if word in RIGHT else None


def _compound_side(word: str) -> str | None:
    """Return the side of a word, also of "lf" (left front) and the like."""
    return _COMPOUND[word][0] if word in _COMPOUND else _side(word)


def _sided_words(name: str) -> list[str]:
    """Return the words of a name; a single letter followed by a digit forms one word with it."""
    spans = [(match.group(0).lower(), match.start(), match.end()) for match in _WORD.finditer(name)]
    words = [word for word, _, _ in spans]
    for i, ((word, _, end), (_, start, _)) in enumerate(pairwise(spans)):
        if len(word) == 1 and word in "lr" and end == start and words[i + 1].isdigit():
            words[i], words[i + 1] = "", word + words[i + 1]
    return [word for word in words if word]


def _key(words: Sequence[str], side_of_word: Callable[[str], str | None]) -> tuple[str, str] | None:
    """Return the side that words name and the words with "*" in its place; None if they name neither side or both."""
    sides = [side_of_word(word) for word in words]
    named = {side for side in sides if side is not None}
    if len(named) != 1:
        return None
    marks = []
    for word, side in zip(words, sides, strict=True):
        compound = side is not None and _side(word) is None
        marks.append(word if side is None else f"*{_COMPOUND[word][1]}" if compound else "*")
    return named.pop(), " ".join(marks)


def _glued(name: str, pattern: str) -> tuple[str, str] | None:
    match = re.fullmatch(pattern, name)
    return None if match is None else ("left" if match["side"].startswith("l") else "right", match["rest"])
