"""``poseglass bench WEIGHTS``: which installed runtime and precision run weights fastest on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from poseglass.cli.export import samples_of
from poseglass.cli.read_data import FORMATS, read_data
from poseglass.cli.screen import wide_console
from poseglass.estimators.choice import read_choices, this_machine, write_choices
from poseglass.export.bench import choice_of, exported_way, fastest, gain, measure, ways
from poseglass.export.export import photograph_samples


def bench(
    weights: Annotated[str, typer.Argument(help="A weights file, or the name of built-in or fetched weights.")],
    batch: Annotated[
        list[int] | None, typer.Option(help="Number of crops or images per call. May be repeated. Default: 1 and 8.")
    ] = None,
    max_drift: Annotated[
        float,
        typer.Option(help="Choose only what moves keypoints by at most this many pixels of a crop (the median)."),
    ] = 0.5,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="An exported file of views of these weights to measure as well, such as one in int8."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A dataset to compare keypoints on. Default: a photograph of people."),
    ] = None,
    format: Annotated[str, typer.Option(help=f"Format of --data: {', '.join(sorted(FORMATS))}.")] = "coco",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images of --data. Default: next to the labels.")
    ] = None,
    flip_test: Annotated[bool, typer.Option("--flip-test", help="Measure with the flip test.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also try PyTorch's compiler, which takes minutes.")
    ] = True,
    repeats: Annotated[int, typer.Option(help="Runs of each way; times are medians.")] = 11,
    write: Annotated[
        bool, typer.Option("--write/--no-write", help="Write the choice beside the weights, for predict and evaluate.")
    ] = True,
) -> None:
    """Measure every installed runtime and precision on this machine, and choose the fastest within a bound.

    PyTorch (eager and compiled), ONNX Runtime and OpenVINO take turns in one process. The choice is written beside the
    weights; `predict` and `evaluate` use it on this machine, and say so. Without a choice, nothing but plain PyTorch in
    float32 runs unless you ask for it.
    """
    sizes = tuple(batch or (1, 8))
    if min(sizes) < 1 or repeats < 1:
        raise ValueError(f"--batch and --repeats must be at least 1, got {min(sizes)} and {repeats}.")
    if not max_drift >= 0:
        raise ValueError(f"--max-drift must be a number of pixels from 0 on, got {max_drift:g}.")
    console = wide_console()
    console.print("preparing the ways to run it, which takes a minute, or some with the compiler ...", highlight=False)
    work, found = ways(
        weights, flip_test=flip_test, compiled=compiled,
        on_note=lambda note: console.print(note, highlight=False, markup=False, soft_wrap=True),
    )  # fmt: skip
    found += [exported_way(file, work) for file in also or ()]
    samples, inputs = photograph_samples(), "the photograph that ships with poseglass"
    if data is not None:
        samples, inputs = samples_of(read_data(data, format, images)), data.name
    rows = measure(work, found, sizes, samples, inputs, repeats=repeats)
    chosen_row = fastest(rows, max_drift)
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("runtime")
    for size in sizes:
        table.add_column(f"batch {size}, ms", justify="right")
    for name in ("times as fast", "median drift, px", "99 % below, px"):
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -gain(row, rows[0])):
        mark = " *" if row is chosen_row else ""
        table.add_row(
            row.way.name + mark, *(f"{row.ms[size]:.1f}" for size in sizes), f"{gain(row, rows[0]):.2f}",
            f"{row.drift.median_px:.2g}", f"{row.drift.p99_px:.2g}",
        )  # fmt: skip
    console.print(f"{weights} on {this_machine()}", highlight=False, markup=False)
    console.print(table)
    console.print(
        f"* the fastest whose median drift is at most {max_drift:g} px; times include normalisation and decoding.",
        highlight=False,
    )
    if not write:
        return
    others = [choice for choice in read_choices(weights) if choice.flip_test != flip_test]
    path = write_choices(weights, [choice_of(chosen_row, rows[0], weights, flip_test, max_drift), *others])
    console.print(
        f"wrote {path}: predict and evaluate use it on this machine. Delete it to undo that.", highlight=False,
        markup=False, soft_wrap=True,
    )  # fmt: skip
