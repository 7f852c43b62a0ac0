"""Read MATLAB and HDF5 label files: limited in size, with errors that name the file."""

from pathlib import Path
from typing import Any

import numpy as np

from poseglass.readers.matlab5 import variables

MAX_UNPACKED_BYTES = 2 * 1024**3
"""Size of all variables of a .mat file together. MPII's largest has about 120 MB."""

_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Return whether a file is HDF5, by its first bytes."""
    with path.open("rb") as file:
        return file.read(8) == _HDF5


def is_mat(path: Path) -> bool:
    """Return whether a file is a MATLAB 5 to 7.2 file, by its header."""
    with path.open("rb") as file:
        head = file.read(128)
    return head[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


def read_mat(path: str | Path, variable: str) -> Any:
    """Read one variable of a MATLAB file; ``matlab5.variables`` tells how structs, cells and numbers are returned.

    Arrays of one element are returned as the element itself; see ``listed``.

    Args:
        path: Path of the file, MATLAB 5 to 7.2.
        variable: Name of the variable, "RELEASE".

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not such a file, damaged, too large, or without the variable.
    """
    path = Path(path)
    check_file(path)
    if is_hdf5(path):
        raise ValueError(
            f"{path} is a MATLAB 7.3 (HDF5) file; only files up to version 7.2 are read. "
            "In MATLAB: save(name, '-v7'), or use the file as published."
        )
    if not is_mat(path):
        raise ValueError(f"{path} is not a MATLAB file of version 5 to 7.2 (its header says so).")
    try:
        found, names = variables(path.read_bytes(), variable, max_bytes=MAX_UNPACKED_BYTES)
    except ValueError as error:
        raise ValueError(f"{path} is a damaged or truncated MATLAB file ({error}). Fetch it again.") from error
    if found is None:
        known = ", ".join(names) or "nothing"
        raise ValueError(f"{path} has no variable {variable!r}, which holds this dataset. It has: {known}.")
    return found


def read_hdf5(path: str | Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read whole arrays of an HDF5 file; missing names are skipped.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not HDF5, damaged, or an array too large.
    """
    path = Path(path)
    check_file(path)
    if not is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file (its first bytes say so).")
    try:
        import h5py  # here, as it takes long and few files need it

        with h5py.File(path, "r") as file:
            found: dict[str, np.ndarray] = {}
            for name in names:
                item = file.get(name)
                if not isinstance(item, h5py.Dataset):
                    continue
                if item.size * item.dtype.itemsize > MAX_UNPACKED_BYTES:
                    raise ValueError(f"{name!r} has shape {item.shape}, more than {MAX_UNPACKED_BYTES:,} bytes")
                found[name] = np.asarray(item[()])
            return found
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError, TypeError ... for damaged files
        raise ValueError(
            f"{path} is a damaged or truncated HDF5 file ({_first_line(error)}). Fetch it again."
        ) from error


def check_file(path: Path) -> None:
    """Raise unless the file exists and is not too large.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A folder, or too large.
    """
    if not path.exists():
        raise FileNotFoundError(f"No such label file: {path}. Check the path; it is relative to {Path.cwd()}.")
    if path.is_dir():
        raise ValueError(f"Expected a label file, got a folder: {path}.")
    if path.stat().st_size > MAX_UNPACKED_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_UNPACKED_BYTES:,} are read.")


def listed(value: Any) -> list[Any]:
    """Return a struct array, cell or vector as a list; a single element may be bare, and none an empty array."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, np.ndarray):
        return list(value.ravel()) if value.dtype == object else value.ravel().tolist()
    return [value]


def as_numbers(value: Any) -> np.ndarray | None:
    """Return a variable as float64 if it holds real numbers, else None (text, structs, cells, complex)."""
    if isinstance(value, str | bytes | dict | list) or value is None:
        return None
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "iufb" else None


def as_number(value: Any) -> float | None:
    """Return one finite number below a billion; None for empty arrays, text and the like."""
    array = as_numbers(value)
    if array is None or array.size != 1:
        return None
    number = float(array.reshape(-1)[0])
    return number if np.isfinite(number) and abs(number) < 1e9 else None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120] or type(error).__name__
