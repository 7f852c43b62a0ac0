"""``poseglass codecs``: the error of each codec from encoding and decoding."""

from collections.abc import Mapping
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from poseglass.codecs import CODECS
from poseglass.codecs.conformance import CONDITIONS, Measure, NumpyCodec, OurCodec, measure
from poseglass.core.table import lookup


def codecs(
    codec: Annotated[
        str | None,
        typer.Option(
            help="Measure a custom codec instead of the built-in ones: package.module:name of an object with encode, "
            "decode and, optionally, flip."
        ),
    ] = None,
) -> None:
    """Measure the error of each codec when points are encoded and decoded.

    Errors are in input pixels at 192 x 256 (w x h). The table is fitted to a terminal, and is Markdown in a file.
    """
    subjects: Mapping[str, NumpyCodec] = {codec: other(codec)} if codec else codecs_of_one_instance()
    console = Console()
    if console.is_terminal:
        print_table(subjects, console)
    else:
        typer.echo(f"{table(subjects)}\n")
    console.print(
        "Error of encoding and decoding, in input pixels at 192 x 256: median, 95th percentile and maximum; for points "
        "inside and on the border, with noise, in both half precisions, and flipped as in the flip test. Last column: "
        "range of the scores. Codecs of several instances per view (centernet, centernet_levels) are not measured.",
        highlight=False,
    )


def codecs_of_one_instance() -> dict[str, OurCodec]:
    """Return the built-in codecs that decode the keypoints of one instance per view, by name."""
    made = {name: make() for name, make in CODECS.items()}
    return {name: OurCodec(codec) for name, codec in made.items() if codec.spec.instances == 1 and codec.spec.keypoints}


def other(path: str) -> NumpyCodec:
    """Import a codec to measure.

    Raises:
        LookupError: It cannot be imported.
        ValueError: It has no ``encode`` or no ``decode``.
    """
    found = lookup({}, path, kind="codec")
    if isinstance(found, type):
        found = found()
    missing = [name for name in ("encode", "decode") if not callable(getattr(found, name, None))]
    if missing:
        raise ValueError(
            f"{path} has no {' and no '.join(missing)}. Expected encode(xy, size_wh) -> dict of arrays and "
            "decode(dict) -> points, scores; see poseglass.codecs.conformance.NumpyCodec."
        )
    return found


def table(subjects: Mapping[str, NumpyCodec]) -> str:
    """Return a Markdown table with one row per codec."""
    lines = [f"| codec | {' | '.join(CONDITIONS)} | scores |", "|" + "---|" * (len(CONDITIONS) + 2)]
    for name, subject in subjects.items():
        found = measure(subject)
        cells = [" / ".join(errors) for errors in _errors(found)]
        lines.append(f"| {name} | {' | '.join(cells)} | {_scores(found)} |")
    return "\n".join(lines)


def print_table(subjects: Mapping[str, NumpyCodec], console: Console) -> None:
    """Print a table of 80 columns, three lines per codec: the median error, the 95th percentile and the maximum."""
    shown = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("codec", overflow="fold")
    shown.add_column("error", no_wrap=True)
    for column in (*CONDITIONS, "scores"):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, subject in subjects.items():
        found = measure(subject)
        cells = ["\n".join(errors) for errors in _errors(found)]
        shown.add_row(escape(name), "median\n95 %\nlargest", *cells, _scores(found).replace(" ", "\n", 1))
    console.print(shown)


def _errors(found: list[Measure]) -> list[tuple[str, ...]]:
    """Return the three errors under every condition, as text; a dash if not measured."""
    known = {m.condition: (f"{m.median_px:.2f}", f"{m.p95_px:.2f}", f"{m.max_px:.2f}") for m in found}
    return [known.get(condition, ("-",)) for condition in CONDITIONS]


def _scores(found: list[Measure]) -> str:
    return f"{min(m.score_low for m in found):.2f} to {max(m.score_high for m in found):.2f}"
