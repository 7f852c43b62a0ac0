"""Forward kinematics: from the rotations of joints to their positions."""

import numpy as np

_CHUNK = 4096  # frames whose rotations are in memory together


def rotation_matrices(angles_rad: np.ndarray, axes: str) -> np.ndarray:
    """Return the product of rotations about coordinate axes: ``(T, 3, 3)``.

    Args:
        angles_rad: ``(T, C)``, one column for each letter of ``axes``.
        axes: C letters of "XYZ". "ZXY" is R_Z @ R_X @ R_Y: a vector is rotated about Y first. C may be 0.

    Raises:
        ValueError: The numbers of angles and axes differ.

    Example:
        >>> rotation_matrices(np.array([[np.pi / 2]]), "Z")[0].round().astype(int).tolist()
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    """
    angles_rad = np.asarray(angles_rad, np.float64)
    if angles_rad.ndim != 2 or angles_rad.shape[1] != len(axes):
        raise ValueError(f"Axes {axes!r} need angles of shape (T, {len(axes)}), got {angles_rad.shape}.")
    whole = np.broadcast_to(np.eye(3), (len(angles_rad), 3, 3))
    for column, axis in enumerate(axes):
        cos, sin = np.cos(angles_rad[:, column]), np.sin(angles_rad[:, column])
        i, j = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
        one = np.zeros((len(angles_rad), 3, 3))
        one[:, "XYZ".index(axis), "XYZ".index(axis)] = 1.0
        one[:, i, i], one[:, j, j], one[:, i, j], one[:, j, i] = cos, cos, -sin, sin
        whole = whole @ one
    return whole


def forward_kinematics(
    parents: np.ndarray, translations: list[np.ndarray], angles_rad: list[np.ndarray], axes: list[str]
) -> np.ndarray:
    """Return the positions of K joints in T frames: ``(T, K, 3)``, in the unit of the translations.

    A joint lies at its translation in the frame of its parent, and turns what hangs on it by its rotation.

    Args:
        parents: ``(K,)`` int, each before its children; -1 for roots.
        translations: For each joint ``(T, 3)`` or ``(3,)``, from its parent in the parent's frame; a root's is its
            position.
        angles_rad: For each joint ``(T, C)``.
        axes: For each joint C letters, as in ``rotation_matrices``.

    Example:
        >>> arm = forward_kinematics(
        ...     np.array([-1, 0]), [np.zeros(3), np.array([1.0, 0, 0])], [np.array([[np.pi / 2]]), np.zeros((1, 0))],
        ...     ["Z", ""])
        >>> arm[0, 1].round(6).tolist()
        [0.0, 1.0, 0.0]
    """
    frames = max(len(a) for a in angles_rad)
    positions = np.zeros((frames, len(parents), 3))
    moving = set(np.asarray(parents).tolist())  # only the rotations of parents are needed
    for start in range(0, frames, _CHUNK):
        part = slice(start, min(start + _CHUNK, frames))
        turned: dict[int, np.ndarray] = {}
        for joint, parent in enumerate(np.asarray(parents).tolist()):
            offset = translations[joint][part] if translations[joint].ndim == 2 else translations[joint]
            if parent < 0:
                positions[part, joint] = offset
            else:
                offset = np.broadcast_to(offset, (part.stop - part.start, 3))
                positions[part, joint] = positions[part, parent] + np.einsum("tij,tj->ti", turned[parent], offset)
            if joint in moving:
                own = rotation_matrices(angles_rad[joint][part], axes[joint])
                turned[joint] = own if parent < 0 else turned[parent] @ own
    return positions
