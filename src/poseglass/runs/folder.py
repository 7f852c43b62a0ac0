"""The folder of a run: its files, its lock, and how they survive whatever happens."""

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
"""What this process has claimed. A lock goes with its process, also when that is killed, and loader processes do not
inherit it; until then it is held, on purpose."""


class RunFolder:
    """The files of a run.

    Every file is written aside and renamed, so that it is whole or absent whatever kills the program.

    Attributes:
        path: The folder.
        recipe: ``recipe.toml``, every value of it; ``poseglass train`` takes it like any recipe.
        environment: ``environment.json``: machine, versions, commit.
        checkpoint: ``checkpoint.pt``: everything that going on needs.
        curve: ``curve.csv``, a row an epoch.
        best: ``best.safetensors``: the weights that did best on the validation set.
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
        """Whether the folder holds anything, so that a new run cannot take it."""
        # a program killed right after making it may have left its lock
        return self.path.exists() and any(
            p.name != self._lock.name and p.suffix != ".part" for p in self.path.iterdir()
        )

    def check_free(self) -> None:
        """Raise if a new run cannot take the folder.

        Raises:
            FileExistsError: It holds a run already.
        """
        if self.taken:
            raise FileExistsError(
                f"The run folder {self.path} is not empty. Go on with it by --resume, or name another with --run."
            )

    def create(self, recipe: Recipe) -> None:
        """Make the folder for a new run, and claim it.

        Raises:
            FileExistsError: It holds a run already.
            OSError: It cannot be made or written to; nothing is left behind.
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
                f"The run folder {self.path} cannot be made: {error.strerror or error}. Name another with --run."
            ) from error

    def reopen(self) -> None:
        """Claim the folder to go on with its run, and clear away what a killed program left half written.

        Raises:
            FileNotFoundError: It holds no run.
            BlockingIOError: Another program trains in it.
        """
        self._check()
        self.claim()
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    def claim(self) -> None:
        """Keep other programs from training in this folder until this one ends, however it ends.

        Raises:
            BlockingIOError: Another program has claimed it.
        """
        path = self._lock.absolute()
        held = _CLAIMS.get(path)
        if held is not None and held.is_locked and path.exists():
            return
        # thread_local would give a claim of this process back when the thread that made it ends
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                f"Another program (process {_owner(path)}) is training in {self.path}. "
                "Stop it first, or name another folder with --run."
            ) from None
        _CLAIMS[path] = lock
        with suppress(OSError):  # Windows: what is locked cannot be written by another handle
            path.write_text(str(os.getpid()))

    def stored_recipe(self, overrides: tuple[str, ...] | list[str] = ()) -> Recipe:
        """Read the recipe this run was started with.

        Raises:
            FileNotFoundError: The folder holds no run.
            RecipeError: The file has been damaged, or an override will not do.
        """
        self._check()
        return Recipe.read(self.recipe, overrides)

    def write_recipe(self, recipe: Recipe) -> None:
        """Keep the recipe the run goes by from now on.

        Raises:
            OSError: No disk or no permission; the previous file is untouched.
        """
        write_bytes(self.recipe, recipe.to_toml().encode())

    def stored_environment(self) -> dict[str, str]:
        """Return what the run was started on, or nothing if that is unknown."""
        try:
            return {str(k): str(v) for k, v in json.loads(self.environment.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def write_curve(self, rows: list[dict[str, float]]) -> None:
        """Write the curve so far as CSV, a row an epoch; columns are the union of all rows' names.

        Raises:
            OSError: No disk or no permission; the previous file is untouched.
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
                f"{self.path} holds no run to go on with: there is no {self.recipe.name} in it. "
                "Start one without --resume."
            )


def _owner(lock: Path) -> str:
    """Return the number of the process that holds a lock, as it wrote it."""
    try:
        return lock.read_text(encoding="ascii", errors="replace")[:20].strip() or "unknown"
    except OSError:
        return "unknown"
