"""Where poseglass keeps what it can make or fetch again."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder(what: str) -> Path:
    """Return the folder of the cache for weights, crops and the like; it may not exist yet.

    It is ``$POSEGLASS_CACHE/<what>``, or ``poseglass/<what>`` in the user's cache: ``$XDG_CACHE_HOME`` or ``~/.cache``
    on Linux, ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.

    Args:
        what: The name of the folder, "weights".

    Raises:
        FileNotFoundError: ``POSEGLASS_CACHE`` is not set (or starts with the home of a user who is unknown) and the
            user has no home folder.
    """
    given = os.environ.get("POSEGLASS_CACHE")
    try:
        folder = Path(given).expanduser() if given else user_cache_path("poseglass", appauthor=False, opinion=False)
    except RuntimeError:
        folder = None
    if folder is None or not (given or folder.is_absolute()):
        raise FileNotFoundError(
            f"This user has no home folder. Set POSEGLASS_CACHE to a folder for {what} that poseglass keeps."
        )
    return folder / what
