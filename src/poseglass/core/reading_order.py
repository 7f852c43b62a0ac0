"""The order in which the characters of a page are read."""

import numpy as np


def reading_order(box_xyxy: np.ndarray) -> np.ndarray:
    """Return the order of characters that are written in columns, down, from right to left.

    Columns are chains: each character is followed by the nearest one below that is about in line with it. So a column
    may be tilted, or run in a curve, as long as it moves sideways by less than half a character from one to the next.
    Columns are ordered by where they are at the height that they share with others, or by their middles.

    Args:
        box_xyxy: ``(N, 4)``, pixels of the page.

    Returns:
        ``(N,)`` int64, indices of the boxes, the first to be read first.

    Example:
        >>> reading_order(np.array([[0, 0, 9, 9], [40, 12, 49, 21], [1, 11, 10, 20], [41, 0, 50, 9]])).tolist()
        [3, 1, 0, 2]
    """
    box = np.asarray(box_xyxy, dtype=np.float64).reshape(-1, 4)
    count = len(box)
    if not count:
        return np.zeros(0, np.int64)
    middle, size = (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]
    typical = float(np.median(size.max(1)))
    upper, lower, cost = _pairs(middle, typical)
    after, before = np.full(count, -1), np.full(count, -1)
    for pair in np.argsort(cost, kind="stable"):
        i, j = int(upper[pair]), int(lower[pair])
        if after[i] < 0 and before[j] < 0:
            after[i], before[j] = j, i
    columns = []
    for start in np.flatnonzero(before < 0):
        chain = [int(start)]
        while after[chain[-1]] >= 0:
            chain.append(int(after[chain[-1]]))
        columns.append(np.array(chain))
    ordered = _from_right(columns, middle, typical)
    return np.concatenate(ordered).astype(np.int64)


def _pairs(middle: np.ndarray, typical: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of an upper and a lower character that are about in line: rows of both, and the cost of each.

    They are looked for among the neighbours along x alone: all pairs of 20,000 characters would take gigabytes.
    """
    order = np.argsort(middle[:, 0], kind="stable")
    along = middle[order, 0]
    first = np.searchsorted(along, middle[:, 0] - 0.5 * typical)
    number = np.searchsorted(along, middle[:, 0] + 0.5 * typical, side="right") - first
    upper = np.repeat(np.arange(len(middle)), number)
    lower = order[np.arange(len(upper)) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first, number)]
    beside, below = np.abs(middle[lower, 0] - middle[upper, 0]), middle[lower, 1] - middle[upper, 1]
    follows = np.flatnonzero((below > 0.25 * typical) & (beside < 0.5 * typical))
    follows = follows[np.lexsort((lower[follows], upper[follows]))]  # equal costs: by their order in the list
    return upper[follows], lower[follows], below[follows] + 2 * beside[follows]


def _from_right(columns: list[np.ndarray], middle: np.ndarray, typical: float) -> list[np.ndarray]:
    """Order columns from right to left, and parts of one column, one above the other, from the top.

    A page may be tilted, so columns are compared where they would cross the middle of the page, by the common tilt.
    """
    steps = [np.diff(middle[chain], axis=0).sum(0) for chain in columns if len(chain) > 2]
    tilt = float(np.median([dx / dy for dx, dy in steps])) if steps else 0.0
    height = float(middle[:, 1].mean())
    at = [float((middle[chain, 0] - tilt * (middle[chain, 1] - height)).mean()) for chain in columns]
    order = sorted(range(len(columns)), key=lambda number: -at[number])
    groups: list[list[int]] = []
    for number in order:
        if groups and at[groups[-1][0]] - at[number] < 0.5 * typical:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [
        columns[number] for group in groups for number in sorted(group, key=lambda n: float(middle[columns[n][0], 1]))
    ]
