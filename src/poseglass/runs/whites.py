"""Whether training and validation data of more than 8 bits have the same white levels."""

from poseglass.core.sample import Dataset
from poseglass.readers.mixed import MixedDatasets, files_of


def different_whites(train: Dataset, val: Dataset | None) -> str:
    """Return which data sets of a recipe have different white levels for one kind of values; "" where none have.

    Each data set finds its own white level where its option ``white`` does not set it (see ``core.levels``). If two
    find different ones, the same brightness is two in the network's input. Two levels that are both set are accepted:
    the images may come from two cameras. Up to 32 images of each data set are read.

    Args:
        train: As ``training_data`` returns it.
        val: As ``validation_data`` returns it.

    Returns:
        A sentence with both values, and one on what to do.
    """
    parts = train.parts if isinstance(train, MixedDatasets) else (train,)
    tables = [(f"data.train.{i}", part) for i, part in enumerate(parts)]
    tables += [] if val is None else [("data.val", val)]
    earlier: dict[str, list[tuple[str, float, bool]]] = {}
    for key, table in tables:
        for part in files_of(table):
            is_set = part.white is not None
            for kind, white in part.whites().items():
                for other_key, other, other_is_set in earlier.setdefault(kind, []):
                    if white != other and not (is_set and other_is_set):
                        right = white if is_set else other if other_is_set else max(white, other)
                        return _sentence(kind, (other_key, other, other_is_set), (key, white, is_set), right)
                earlier[kind].append((key, white, is_set))
    return ""


def _sentence(kind: str, one: tuple[str, float, bool], two: tuple[str, float, bool], right: float) -> str:
    said = [f"{white:,.10g} in {key} ({'set' if is_set else 'guessed'})" for key, white, is_set in (one, two)]
    tables = " and ".join(dict.fromkeys((one[0], two[0])))
    return (
        f"White in images of {kind} values is {said[0]}, but {said[1]}, so the network would see them at different "
        f"exposures. Set white = {right:.10g}, or the value that is right, in {tables}; if their images differ in bit "
        "depth, set the white of each."
    )
