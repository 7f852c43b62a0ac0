"""The folder of a run: its files, its lock, and atomic writing."""

import csv
import io
import json
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from poseglass.core.environment import environment
from poseglass.core.files import write_bytes
from poseglass.runs.recipe import Recipe

_CLAIMS: dict[Path, FileLock] = {}
"""Folders that this process has locked. A lock is held until the process ends, even if it is killed, and is not
inherited by loader processes."""


class RunFolder:
    """The files of a run.

    Every file is written under a temporary name and renamed, so that it is complete or absent if the program is killed.

    Attributes:
        path: The folder.
        recipe: ``recipe.toml`` with all values; ``poseglass train`` reads it like any recipe.
        environment: ``environment.json``: machine, versions, commit.
        checkpoint: ``checkpoint.pt``: everything needed to resume.
        curve: ``curve.csv``, one row per epoch.
        best: ``best.safetensors``: the weights with the best validation result.
        last: ``last.safetensors``: the weights at the end.
        report: ``report.html``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.environment = path / "environment.json"
        self.checkpoint = path / "checkpoint.pt"
        self.curve = path / "curve.csv"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.report = path / "report.html"

    @property
    def taken(self) -> bool:
        """Whether the folder is in use, so that a new run cannot use it."""
        # a program killed right after creating it may have left its lock
        return self.path.exists() and any(
            p.name != self._lock.name and p.suffix != ".part" for p in self.path.iterdir()
        )

    def check_free(self) -> None:
        """Raise if a new run cannot use the folder.

        Raises:
            FileExistsError: It already holds a run.
        """
        if self.taken:
            raise FileExistsError(
                f"The run folder {self.path} is not empty. Resume its run with --resume, or name another with --run."
            )

    def create(self, recipe: Recipe) -> None:
        """Create the folder for a new run, and lock it.

        Raises:
            FileExistsError: It already holds a run.
            OSError: It cannot be created or written to; nothing is left behind.
        """
        made = not self.path.exists()
        try:
            self.check_free()
            self.path.mkdir(parents=True, exist_ok=True)
            self.claim()
            self.write_recipe(recipe)
            write_bytes(self.environment, json.dumps(environment(), indent=1).encode())
        except (FileExistsError, BlockingIOError):
            raise
        except OSError as error:
            if made and self.path.is_dir():
                for file in (self.recipe, self.environment, self._lock):
                    file.unlink(missing_ok=True)
                self.path.rmdir()
            raise OSError(
                f"The run folder {self.path} cannot be created: {error.strerror or error}. Name another with --run."
            ) from error

    def reopen(self) -> None:
        """Lock the folder to resume its run, and remove files that a killed program left incomplete.

        Raises:
            FileNotFoundError: It holds no run.
            BlockingIOError: Another program is training in it.
        """
        self._check()
        self.claim()
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    def claim(self) -> None:
        """Lock the folder, so that no other program trains in it until this one ends.

        Raises:
            BlockingIOError: Another program has locked it.
        """
        path = self._lock.absolute()
        held = _CLAIMS.get(path)
        if held is not None and held.is_locked and path.exists():
            return
        # thread_local would release the lock when the thread that acquired it ends
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                f"Another program (process {_owner(path)}) is training in {self.path}. "
                "Stop it first, or name another folder with --run."
            ) from None
        _CLAIMS[path] = lock
        with suppress(OSError):  # on Windows a locked file cannot be written through another handle
            path.write_text(str(os.getpid()))

    def stored_recipe(self, overrides: tuple[str, ...] | list[str] = ()) -> Recipe:
        """Read the recipe this run was started with.

        Raises:
            FileNotFoundError: The folder holds no run.
            RecipeError: The file is damaged, or an override is invalid.
        """
        self._check()
        return Recipe.read(self.recipe, overrides)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe that the run uses from now on.

        Raises:
            OSError: The disk is full or not writable; the previous file is untouched.
        """
        write_bytes(self.recipe, recipe.to_toml().encode())

    def stored_environment(self) -> dict[str, str]:
        """Return the environment in which the run was started; empty if unknown."""
        try:
            return {str(k): str(v) for k, v in json.loads(self.environment.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def write_curve(self, rows: list[dict[str, float]]) -> None:
        """Write the curve so far as CSV, one row per epoch; the columns are the union of all rows' names.

        Raises:
            OSError: The disk is full or not writable; the previous file is untouched.
        """
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
        write_bytes(self.curve, text.getvalue().encode())

    @property
    def _lock(self) -> Path:
        return self.path / "run.lock"

    def _check(self) -> None:
        if not self.recipe.is_file():
            raise FileNotFoundError(
                f"{self.path} holds no run to resume: there is no {self.recipe.name} in it. Start one without --resume."
            )


def _owner(lock: Path) -> str:
    """Return the ID of the process that holds a lock, as written in the file."""
    try:
        return lock.read_text(encoding="ascii", errors="replace")[:20].strip() or "unknown"
    except OSError:
        return "unknown"
