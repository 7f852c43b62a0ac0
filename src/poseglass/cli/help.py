"""The help of commands: flags are shown without a value, not as ``<bool>``."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class HelpCommand(TyperCommand):
    """A command whose flags take no value in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, ``--help`` included."""
        return _without_flag_values(super().get_params(ctx))


class HelpGroup(TyperGroup):
    """A group of commands whose flags take no value in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, ``--help`` included."""
        return _without_flag_values(super().get_params(ctx))


def _without_flag_values(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
