"""Write the options of every command into docs/reference/commands: python docs/command_pages.py.

What stands above the marker in a page is written by hand and stays. tests/docs asserts that the pages are up to date.
"""

import sys
from pathlib import Path
from typing import Any, get_args

import typer

from poseglass.cli import whole_app

FOLDER = Path(__file__).parent / "reference" / "commands"
MARKER = "<!-- What follows is written by docs/command_pages.py. -->"


def pages() -> dict[str, str]:
    """Return the generated part of each command's page, by the command's name."""
    return {name: "\n".join(_command(f"poseglass {name}", command)) for name, command in _commands(whole_app()).items()}


def with_generated(page: str, generated: str) -> str:
    """Return a page with its generated part replaced; what is written by hand stays."""
    return f"{page.split(MARKER)[0].rstrip()}\n\n{MARKER}\n\n{generated}"


def _commands(of: typer.Typer) -> dict[str, Any]:
    return getattr(typer.main.get_command(of), "commands", {})


def _command(words: str, command: Any, level: int = 2) -> list[str]:
    """Return the lines of a command: what it is for, how it is called, its arguments and options."""
    inner = getattr(command, "commands", None)
    if inner is not None:
        lines = []
        for name, one in inner.items():
            lines += [f"{'#' * level} {words.removeprefix('poseglass ')} {name}", ""]
            lines += _command(f"{words} {name}", one, level + 1)
        return lines
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-")]
    called = [_usage(p) for p in arguments] + [f"{p.opts[0]} {_kind(p)}" for p in options if p.required]
    lines = ["\n\n".join(p.replace("\n", " ") for p in command.help.split("\n\n")), ""]
    lines += ["```", " ".join([words, *called, "[OPTIONS]"]), "```", ""]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{_usage(p)}` | {_cell(p.help)} |" for p in arguments] + [""]
    if options:
        lines += ["| option | value | default | meaning |", "|---|---|---|---|"]
        lines += [f"| {_names(p)} | {_cell(_kind(p))} | {_default(p)} | {_cell(p.help)} |" for p in options] + [""]
    return lines


def _usage(argument: Any) -> str:
    word = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _names(option: Any) -> str:
    both = [", ".join(f"`{o}`" for o in names) for names in (option.opts, option.secondary_opts) if names]
    return ", ".join(both)


def _kind(option: Any) -> str:
    if option.is_flag:
        return ""
    kind = option.type_descriptor.annotation
    kind = next(iter(get_args(kind)), kind)  # of list[str]: str
    name = getattr(kind, "__name__", str(kind))
    word = {"str": "TEXT", "Path": "PATH", "int": "INTEGER", "float": "NUMBER"}.get(name, name)
    low, high = (None if v is None else f"{v:g}" for v in (option.min, option.max))
    if low and high:
        return f"{word} {low} to {high}"
    return word + (f" from {low}" if low else "") + (f" up to {high}" if high else "")


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag and option.secondary_opts:
        return "" if option.default is None else f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    if option.is_flag:
        return "off"
    if option.default in (None, "", (), []) or (isinstance(option.default, Path) and option.default.is_absolute()):
        return ""
    return f"`{option.default}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    for command_name, generated_part in pages().items():
        file = FOLDER / f"{command_name}.md"
        written = file.read_text(encoding="utf-8") if file.exists() else f"# poseglass {command_name}\n"
        new = with_generated(written, generated_part)
        if new != written:
            file.write_text(new, encoding="utf-8")
            print(f"wrote {file}", file=sys.stderr)
