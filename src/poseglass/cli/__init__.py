"""Layer 10: the command line. It parses arguments, prints results and errors, and sets the exit status.

Only the command that is called is imported, so that `poseglass --help` need not wait for PyTorch.
"""

import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from poseglass.cli.help import HelpCommand, HelpGroup
from poseglass.cli.screen import in_commands


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command, or a group of them, is written, and what it does.

    Args:
        module: Module in ``poseglass.cli``.
        attribute: The function, or the ``typer.Typer`` of a group.
        about: The first paragraph of its help.
    """

    module: str
    attribute: str
    about: str

    def load(self) -> Any:
        """Import it."""
        return getattr(import_module(f"poseglass.cli.{self.module}"), self.attribute)


COMMANDS = {
    "demo": Command(
        "demo", "demo",
        "Find everybody's pose in images with the built-in weights; then train a small network on synthetic people.",
    ),
    "predict": Command(
        "predict", "predict",
        "Find the poses of everybody in images: in given boxes, in those of a detector, or in one stage.",
    ),
    "train": Command(
        "train", "train", "Train a network from a recipe. Stop it with Ctrl-C, and continue with --resume."
    ),
    "train-lifter": Command(
        "train_lifter", "train_lifter_command",
        "Train a lifter of 2D keypoints to 3D on motion capture: RepNet without pairs, or others with pairs.",
    ),
    "evaluate": Command(
        "evaluate", "evaluate_weights", "Evaluate weights on labelled people, in pixels of the original images."
    ),
    "look": Command(
        "look", "look",
        "Draw people of a dataset on one sheet, augmented as in a recipe or, without one, in a common way.",
    ),
    "check": Command(
        "check", "check",
        "Audit labels: swapped sides, wrong flip pairs, visibility, positions, boxes, bones, duplicates, images.",
    ),
    "import": Command(
        "import_weights", "import_weights",
        "Convert a checkpoint of a public implementation to a weights file. Code in a checkpoint is never run.",
    ),
    "export": Command(
        "export", "export",
        "Write a file that takes an image and gives keypoints, for a runtime; or weights in a public layout.",
    ),
    "bench": Command(
        "bench", "bench",
        "Measure every installed runtime and precision on this machine, and choose the fastest within a bound.",
    ),
    "models": Command(
        "models", "models",
        "List the networks with parameters, multiply-adds and stride, and the built-in weights with their terms.",
    ),
    "channels": Command(
        "channels", "channels",
        "Show which input channels the outputs of each block depend on, and whether that is all of them.",
    ),
    "calibrate": Command(
        "calibrate", "calibrate",
        "Fit how often a keypoint of a given score is right, so that predictions state a probability and a radius.",
    ),
    "pack": Command(
        "pack", "pack",
        "Write weights in half precision, with data, terms and notes in the card; --set can change the decoding.",
    ),
    "codecs": Command(
        "codecs", "codecs", "Measure the error of each codec when points are encoded and decoded."
    ),
    "doctor": Command("doctor", "doctor", "Print versions, devices, precision, extras and the built-in weights."),
}  # fmt: skip
"""Commands of ``poseglass`` by name, except the groups."""

GROUPS = {"weights": Command("weights", "weights", "Find, fetch and remove weights by name, with their terms.")}
"""Groups of commands by name, as in ``poseglass weights list``."""


def app_of(names: Collection[str]) -> typer.Typer:
    """Return the command line with the commands and groups of these names; of the others it has the help's line only.

    Args:
        names: Names of ``COMMANDS`` and ``GROUPS`` to import; others are ignored.
    """
    app = typer.Typer(
        name="poseglass",
        help="A toolkit to train, evaluate and deploy keypoint models.",
        cls=HelpGroup,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, command in COMMANDS.items():
        app.command(name, cls=HelpCommand)(command.load() if name in names else _stub(command))
    for name, group in GROUPS.items():
        if name in names:
            app.add_typer(group.load(), name=name)
        else:
            app.command(name)(_stub(group))
    return app


def whole_app() -> typer.Typer:
    """Return the command line with every command imported."""
    return app_of([*COMMANDS, *GROUPS])


def _stub(command: Command) -> Callable[[], None]:
    def stub() -> None:
        raise AssertionError("a command that was not imported is only listed")

    stub.__doc__ = command.about
    return stub


def main() -> None:
    """Run a command. An error that the user can fix is one message on stderr and exit status 2; Ctrl-C gives 130."""
    try:
        app = app_of([word for word in sys.argv[1:2] if word in COMMANDS or word in GROUPS])
        if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
            from poseglass.core.allocator import keep_freed_memory

            keep_freed_memory()
        app()
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        if os.environ.get("POSEGLASS_DEBUG"):
            raise
        Console(stderr=True).print(f"[red]poseglass:[/red] {escape(_sentence(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("poseglass: stopped.")
        sys.exit(130)


def _sentence(error: BaseException) -> str:
    """Return the error's message with arguments named by their options; for a KeyError, without its quotes."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return in_commands(str(text)) or type(error).__name__
