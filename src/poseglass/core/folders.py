"""Where poseglass caches files that it can create or download again."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder(what: str) -> Path:
    """Return the cache folder for weights, crops and the like; it may not exist yet.

    It is ``$POSEGLASS_CACHE/<what>``, or ``poseglass/<what>`` in the user's cache: ``$XDG_CACHE_HOME`` or ``~/.cache``
    on Linux, ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.

    Args:
        what: Name of the folder, "weights".

    Raises:
        FileNotFoundError: ``POSEGLASS_CACHE`` is not set (or starts with the home of an unknown user) and the user has
            no home folder.
    """
    given = os.environ.get("POSEGLASS_CACHE")
    try:
        folder = Path(given).expanduser() if given else user_cache_path("poseglass", appauthor=False, opinion=False)
    except RuntimeError:
        folder = None
    if folder is None or not (given or folder.is_absolute()):
        raise FileNotFoundError(
            f"This user has no home folder. Set POSEGLASS_CACHE to a folder where poseglass can keep {what}."
        )
    return folder / what
