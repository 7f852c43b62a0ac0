"""Layer 10: the command line. It parses arguments, prints results and errors, and sets the exit status."""

import os
import sys

import typer
from rich.console import Console
from rich.markup import escape

from poseglass.cli.calibrate import calibrate
from poseglass.cli.check import check
from poseglass.cli.codecs import codecs
from poseglass.cli.demo import demo
from poseglass.cli.doctor import doctor
from poseglass.cli.evaluate import evaluate_weights
from poseglass.cli.export_weights import export_weights
from poseglass.cli.help import HelpCommand, HelpGroup
from poseglass.cli.import_weights import import_weights
from poseglass.cli.look import look
from poseglass.cli.models import models
from poseglass.cli.pack import pack
from poseglass.cli.predict import predict
from poseglass.cli.screen import in_commands
from poseglass.cli.train import train
from poseglass.cli.weights import weights
from poseglass.core.allocator import keep_freed_memory

COMMANDS = {
    "demo": demo,
    "predict": predict,
    "train": train,
    "evaluate": evaluate_weights,
    "look": look,
    "check": check,
    "import": import_weights,
    "export": export_weights,
    "models": models,
    "calibrate": calibrate,
    "pack": pack,
    "codecs": codecs,
    "doctor": doctor,
}
"""Commands of ``poseglass`` by name, except the groups."""

GROUPS = {"weights": weights}
"""Groups of commands by name, as in ``poseglass weights list``."""

app = typer.Typer(
    name="poseglass",
    help="A toolkit to train, evaluate and deploy keypoint models.",
    cls=HelpGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _function in COMMANDS.items():
    app.command(_name, cls=HelpCommand)(_function)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def main() -> None:
    """Run a command. An error that the user can fix is one message on stderr and exit status 2; Ctrl-C gives 130."""
    keep_freed_memory()
    try:
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
