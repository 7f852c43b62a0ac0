"""``poseglass codecs``: how exactly each codec gives back what it was given."""

from typing import Annotated

import typer

from poseglass.codecs import CODECS
from poseglass.codecs.conformance import CONDITIONS, Measure, NumpyCodec, OurCodec, measure
from poseglass.core.table import lookup


def codecs(
    codec: Annotated[
        str | None,
        typer.Option(help="Another library's: package.module:name of an object with encode, decode and maybe flip."),
    ] = None,
) -> None:
    """Print the error of encode then decode at 192 x 256, input pixels: median / 95 % / largest; and the scores."""
    typer.echo(table({codec: other(codec)} if codec else {name: OurCodec(make()) for name, make in CODECS.items()}))
    typer.echo(
        "\nError of encode then decode, input pixels at 192 x 256: median / 95 % / largest. Inside and on the border,\n"
        "with noise, in the two half precisions, and after the flip test's flipping; then the range of scores."
    )


def other(path: str) -> NumpyCodec:
    """Import an object to measure.

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


def table(subjects: dict[str, NumpyCodec]) -> str:
    """Return a Markdown table, a row a codec."""
    lines = [f"| codec | {' | '.join(CONDITIONS)} | scores |", "|" + "---|" * (len(CONDITIONS) + 2)]
    for name, subject in subjects.items():
        found = {m.condition: m for m in measure(subject)}
        cells = [_cell(found[c]) if c in found else "-" for c in CONDITIONS]
        low, high = min(m.score_low for m in found.values()), max(m.score_high for m in found.values())
        lines.append(f"| {name} | {' | '.join(cells)} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def _cell(one: Measure) -> str:
    return f"{one.median_px:.2f} / {one.p95_px:.2f} / {one.max_px:.2f}"
