"""HTML pages from templates; every value is escaped."""

from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render_page(template: str, values: Mapping[str, object]) -> str:
    """Fill a template of ``poseglass/templates``.

    Every value is escaped, in text and in quoted attributes, and characters that cannot be shown (control characters,
    halves of a surrogate pair) become U+FFFD.

    Args:
        template: The file's name, "report.html".
        values: Values of the names in the template; a missing name is an error.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("poseglass", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )


def _printable(value: object) -> object:
    if isinstance(value, Markup):  # the output of a template's macro
        return value
    clean = str(value).encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in clean)
