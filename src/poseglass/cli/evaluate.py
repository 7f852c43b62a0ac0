"""``poseglass evaluate``: the results of weights on a dataset."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from poseglass.cli.read_data import FORMATS, read_data, say_notes
from poseglass.cli.speed import BFLOAT16, COMPILED, say_compiling
from poseglass.core.card import WeightCard
from poseglass.core.files import write_bytes
from poseglass.core.table import lookup
from poseglass.estimators.load import DEFAULT, load
from poseglass.evaluation.evaluate import Evaluation, evaluate
from poseglass.metrics import METRICS, Pck
from poseglass.metrics.metric import Metric
from poseglass.readers.mixed import respelt
from poseglass.runs.build import PROTOCOLS, choose_device, make
from poseglass.runs.recipe import EvaluatePart, Recipe, apply_override


def evaluate_weights(
    data: Annotated[Path, typer.Argument(help="A COCO JSON, or the path of a set in --format.")],
    weights: Annotated[str, typer.Option(help="A name that ships, a .safetensors file, or a run's folder.")] = DEFAULT,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"How DATA is written: {', '.join(sorted(FORMATS))}. Unless given, what --protocol reads, or coco.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images, if not beside the labels.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help=f"One of {', '.join(METRICS)}. May be repeated. Unless given, what training monitored.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help=f"Follow a published test protocol: {', '.join(PROTOCOLS)}."),
    ] = None,
    detections: Annotated[
        Path | None, typer.Option("--detections", help="COCO results whose boxes --protocol coco starts from.")
    ] = None,
    normaliser: Annotated[
        str | None, typer.Option(help="What PCK divides errors by: torso (the default), head, box_diagonal, ...")
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", help="PCK's thresholds. May be repeated.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="PCK counts errors below the threshold (<), not up to it (<=).")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An argument of the reader, a metric or the protocol: --set data.split=val, --set pckh.excluded=[], "
            "--set protocol.nms=soft. May be repeated.",
        ),
    ] = None,
    flip_test: Annotated[
        bool | None,
        typer.Option(
            "--flip-test/--no-flip-test",
            help="Average with the flipped crop. Unless given, as training monitored; else on.",
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the crops, pixels; 0 takes the card's size.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results as JSON.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write an .html report for offline reading.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    bfloat16: BFLOAT16 = False,
    compiled: COMPILED = False,
) -> None:
    """Measure weights on labelled people in source pixels: from the annotations' boxes, or as a protocol says."""
    console = Console()
    for file in (json_file, report):
        if file is not None and not file.parent.is_dir():
            raise FileNotFoundError(f"Cannot write {file}: no folder {file.parent}. Make it first.")
    if protocol is not None and (metric or normaliser or threshold or strict):
        raise ValueError(
            "--protocol says what is measured; leave --metric, --normaliser, --threshold and --strict out, and change "
            "its own options: --set protocol.KEY=VALUE."
        )
    if protocol is not None:
        lookup(PROTOCOLS, protocol, kind="protocol")
    estimator = load(
        weights, device=choose_device(device), size_wh=(size, size) if size else None,
        precision="bfloat16" if bfloat16 else "float32", compiled=compiled,
    )  # fmt: skip
    parts: list[dict[str, Any]] = []
    followed: dict[str, Any] = {}
    hint = ""
    if protocol is None and metric is None and normaliser is None and threshold is None and not strict:
        monitored = recipe_evaluation(estimator.card)
        parts = monitored.metrics
        if monitored.protocol is not None and monitored.protocol["name"] == (format or "coco"):
            # the boxes of that run's validation set are not those of these data
            followed = {key: value for key, value in monitored.protocol.items() if key != "detections"}
            protocol = followed["name"]
            hint = f" The weights were selected by protocol {protocol}; to measure otherwise give --metric pck."
        if flip_test is None and monitored.measures:
            flip_test = followed.get("flip_test", monitored.flip_test) and estimator.skeleton.mirrors
    elif flip_test is None and protocol is None and estimator.card is not None and estimator.card.recipe:
        flip_test = recipe_flip_test(estimator.card) and estimator.skeleton.mirrors
    if detections is not None and protocol != "coco":
        raise ValueError("--detections gives boxes to --protocol coco; add it, or leave --detections out.")
    if flip_test is None:
        flip_test = estimator.skeleton.mirrors  # evaluation says why, where it is not
    estimator = estimator.with_flip_test(flip_test)
    followed |= {"name": protocol, "flip_test": flip_test}
    if detections is not None:
        followed["detections"] = detections
    if not parts and protocol is None:
        more: dict[str, Any] = {"comparator": "<" if strict else "<="}
        known = {
            "pck": {"normaliser": normaliser or "torso", "thresholds": tuple(threshold or (0.2, 0.1)), **more},
            "pckh": {"thresholds": tuple(threshold or (0.5, 0.1)), **more},
        }
        parts = [{"name": name, **known.get(name, {})} for name in metric or ["pck"]]
    tables: dict[str, dict[str, Any]] = {"data": {}} | {part["name"]: part for part in reversed(parts)}
    if protocol is not None:
        tables["protocol"] = followed
    for override in overrides or ():
        chosen = next((name for name in tables if override.startswith(f"{name}.")), None)
        key = override.removeprefix(f"{chosen}.")
        if chosen is None:
            raise ValueError(f"--set takes {' or '.join(f'{name}.KEY=VALUE' for name in tables)}; got {override!r}.")
        if key.partition("=")[0].strip() == "name":
            which = {"data": "--format", "protocol": "--protocol"}.get(chosen, "--metric")
            raise ValueError(f"--set {override!r}: which one it is says {which}.")
        apply_override(tables[chosen], key)
    metrics: list[Metric] = [make(METRICS, part, "metric") for part in parts]
    published = None if protocol is None else make(PROTOCOLS, followed, "protocol")
    dataset = read_data(data, format or (protocol if protocol in FORMATS else None) or "coco", images, tables["data"])
    say_notes(dataset, console, mirroring=False)
    say_compiling(compiled)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("estimating", total=len(dataset))
        try:
            if published is None:
                result = evaluate(estimator, dataset, metrics, on_image=lambda: bar.advance(task))
            else:
                result = published.evaluate(estimator, dataset, on_image=lambda: bar.advance(task))
        except ValueError as error:
            raise ValueError(f"{error}{hint}") from error
    if published is None:
        unknown = estimator.skeleton.mirroring_unknown
        flip = "flip test" if flip_test else "no flip test" + (f", as {unknown}" if unknown else "")
        convention = {"measured": f"measured: {'; '.join(map(in_words, parts))}; boxes of the annotations; {flip}"}
    else:
        convention = {"protocol": published.convention(estimator)}
    for line in convention.values():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    print_evaluation(result, console)
    for each in metrics:
        if isinstance(each, Pck):
            say_uncounted(each, sum(len(t) for t in result.truth), console)
    names = respelt(estimator.skeleton, dataset.skeleton.keypoints)
    respelled = [
        f"{old} as {new}"
        for old, new in zip(estimator.skeleton.keypoints, names.keypoints, strict=True)
        if old != new and published is None
    ]
    if respelled:
        console.print(
            f"matched in another spelling: {', '.join(respelled)}", soft_wrap=True, highlight=False, markup=False
        )
    excluded = [name for name in dataset.skeleton.keypoints if name not in names.keypoints]
    if excluded:
        console.print(f"not counted, as these weights do not predict them: {', '.join(excluded)}")
    if json_file is not None:
        write_bytes(
            json_file, json.dumps({**convention, "results": result.results, "table": result.table}, indent=1).encode()
        )
    if report is not None:
        from poseglass.evaluation.report import write_report
        from poseglass.evaluation.summary import report_of, with_pairs

        pairs = with_pairs(result, estimator if published is None else published.adjusted(estimator), dataset)
        notes = list(convention.values())
        write_report(report, report_of(pairs, dataset, title=f"{weights} on {data.name}", notes=notes))
        console.print(f"report: {report}")


def in_words(part: dict[str, Any]) -> str:
    """Return a metric and what it was given: "pck, normaliser torso, thresholds 0.2 0.1"."""
    given = (
        f"{key} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in part.items()
        if key != "name"
    )
    return ", ".join([part["name"], *given])


def recipe_evaluation(card: WeightCard | None) -> EvaluatePart:
    """Return what training monitored, as their card's recipe states it; nothing measured where it does not.

    A card is somebody else's word: nothing that its recipe names outside poseglass is imported.

    Raises:
        ValueError: A metric or a protocol outside poseglass is monitored.
    """
    if card is None or not card.recipe:
        return EvaluatePart()
    try:
        part = Recipe.from_dict(tomllib.loads(card.recipe), trust_code=False).evaluate
    except (ValueError, RecursionError):  # of another version, or malicious
        Console(stderr=True).print(
            f"The recipe in the card of {card.name!r} cannot be read, so what its weights were chosen by is unknown; "
            "the defaults are measured.",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
        return EvaluatePart()
    names = [table["name"] for table in part.metrics if table["name"] not in METRICS]
    if part.protocol is not None and part.protocol["name"] not in PROTOCOLS:
        names.append(part.protocol["name"])
    if names:
        raise ValueError(
            f"Weights {card.name!r} were selected by {names[0]!r}, code outside poseglass, which a card cannot run. "
            "Say what to measure: --metric or --protocol."
        )
    return part


def recipe_flip_test(card: WeightCard) -> bool:
    """Return whether training evaluated with a flip test, as the card's recipe says; True if it cannot be read."""
    try:
        return Recipe.from_dict(tomllib.loads(card.recipe), trust_code=False).evaluate.flip_test
    except (ValueError, RecursionError):
        return True


def say_uncounted(metric: Pck, people: int, console: Console) -> None:
    """Say how many people a PCK leaves out, because the length that it divides by is not known of them."""
    if metric.people < people:
        console.print(
            f"{metric.name} counts {metric.people:,} of {people:,} people: of the others the length that it divides by "
            f"({metric.normaliser}) is not labelled. --normaliser box_diagonal counts everyone.",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip


def print_evaluation(result: Evaluation, console: Console) -> None:
    """Print the results and a row per joint."""
    people = sum(len(t) for t in result.truth)
    images = len(result.truth)
    console.print(f"{people:,} {'person' if people == 1 else 'people'} in {images:,} image{'s' * (images != 1)}")
    for name, value in result.results.items():
        console.print(f"  {name:<28} {value:.4f}")
    if result.table:
        if len(result.table) == 1:  # one row of many columns would not fit: its values stand above
            return
        columns = list(next(iter(result.table.values())))
        table = Table(header_style="bold")
        for column in ("", *columns):
            table.add_column(column, justify="left" if not column else "right")
        for name, row in result.table.items():
            if not row.get("count", 1):  # nobody's is labelled, or the weights do not know it
                continue
            table.add_row(name, *(f"{row[c]:.0f}" if c == "count" else f"{row[c]:.3f}" for c in columns))
        console.print(table)
