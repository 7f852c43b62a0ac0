"""``poseglass evaluate``: evaluates weights on a dataset."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from poseglass.cli.evaluate_found import AVERAGE_PRECISION, bar_of, check_found, compare_found, in_words, load_one
from poseglass.cli.images import parse_scales
from poseglass.cli.read_data import FORMATS, read_data, say_notes
from poseglass.cli.speed import BFLOAT16, COMPILED, CROP_SCALES, EARLY_EXIT, benched, say_compiling
from poseglass.core.card import WeightCard
from poseglass.core.device import choose_device
from poseglass.core.files import write_bytes
from poseglass.core.table import lookup
from poseglass.estimators.choice import load_chosen
from poseglass.estimators.load import DEFAULT, load_top_down
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.evaluate import Evaluation, evaluate
from poseglass.evaluation.reliability import Reliability, reliability_of
from poseglass.metrics import METRICS, Pck
from poseglass.metrics.metric import Metric
from poseglass.programs.graph_program import GraphProgram
from poseglass.readers.mixed import respelt
from poseglass.runs.build import PROTOCOLS, make
from poseglass.runs.recipe import EvaluatePart, Recipe, apply_override


def evaluate_weights(
    data: Annotated[Path, typer.Argument(help="A COCO JSON file, or the path of a dataset in --format.")],
    weights: Annotated[str, typer.Option(help="Name of weights, a .safetensors file, or a run folder.")] = DEFAULT,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"Format of DATA: {', '.join(sorted(FORMATS))}. Default: that of --protocol, or coco.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images. Default: next to the labels.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help=f"One of {', '.join(METRICS)}. May be repeated. Default: as in the recipe of training, else pck.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help=f"Follow a published test protocol: {', '.join(PROTOCOLS)}."),
    ] = None,
    detections: Annotated[
        Path | None, typer.Option("--detections", help="COCO results with the input boxes for --protocol coco.")
    ] = None,
    normaliser: Annotated[
        str | None,
        typer.Option(help="Length that PCK divides errors by: torso, head, box_diagonal, ... Default: torso."),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold",
            help="PCK threshold, in units of --normaliser. May be repeated. Default: 0.2 and 0.1 (pckh: 0.5 and 0.1).",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count a keypoint as correct only below the PCK threshold (<), not at it.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set an option of the reader, a metric or the protocol: --set data.split=val, --set pckh.excluded=[], "
            "--set protocol.nms=soft. May be repeated.",
        ),
    ] = None,
    flip_test: Annotated[
        bool | None,
        typer.Option(
            "--flip-test/--no-flip-test",
            help="Average with the flipped crop. Default: as in the recipe of training, else on.",
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the square crops in pixels; 0 uses the size in the card.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results to a JSON file.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write an .html report for offline reading.")] = None,
    found: Annotated[
        bool,
        typer.Option("--found", help="Also evaluate with the boxes that are found in the whole images, side by side."),
    ] = False,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="For --found: name of weights that find boxes, a .safetensors file, or a run folder. Default: the "
            "detector that ships, for people.",
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            "--scales",
            help="For --found: scales at which the detector looks at each image, such as 0.5,1,1.5. Default: 1, or "
            "chips if it was trained on them.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, ...")] = "auto",
    bfloat16: BFLOAT16 = False,
    compiled: COMPILED = False,
    crop_scales: CROP_SCALES = None,
    early_exit: EARLY_EXIT = None,
) -> None:
    """Evaluate weights on labelled people, in pixels of the original images.

    Boxes are those of the annotations, unless a protocol says otherwise. With --found, the boxes found in the whole
    images are used too, and what is found is evaluated itself; weights that find everybody need it.
    """
    console = Console()
    for file in (json_file, report):
        if file is not None and not file.parent.is_dir():
            raise FileNotFoundError(f"Cannot write {file}: no folder {file.parent}. Create it first.")
    if protocol is not None and (metric or normaliser or threshold or strict):
        raise ValueError(
            "--protocol defines its own metric. Omit --metric, --normaliser, --threshold and --strict, and set the "
            "protocol's options instead: --set protocol.KEY=VALUE."
        )
    if protocol is not None:
        lookup(PROTOCOLS, protocol, kind="protocol")
    check_found(found, detector, protocol, scales)
    shown_at = None if scales is None else parse_scales(scales)
    crops_at = (1.0,) if crop_scales is None else parse_scales(crop_scales, "--crop-scales")
    changed = bfloat16 or compiled or crops_at != (1.0,) or early_exit is not None
    estimator = (load_one if found else load_top_down)(
        weights, device=choose_device(device), size_wh=(size, size) if size else None,
        precision="bfloat16" if bfloat16 else "float32", compiled=compiled, crop_scales=crops_at,
        early_exit_px=early_exit,
    )  # fmt: skip
    if flip_test is None and isinstance(estimator.program, GraphProgram):
        flip_test = estimator.flip_test  # fixed in an exported file
    parts: list[dict[str, Any]] = []
    followed: dict[str, Any] = {}
    hint = ""
    if protocol is None and metric is None and normaliser is None and threshold is None and not strict:
        monitored = recipe_evaluation(estimator.card)
        parts = monitored.metrics
        if monitored.protocol is not None and monitored.protocol["name"] == (format or "coco") and not found:
            # the detections are those of that run's validation set, not of these data
            followed = {key: value for key, value in monitored.protocol.items() if key != "detections"}
            protocol = followed["name"]
            hint = f" The weights were selected by protocol {protocol}; for another metric, use --metric pck."
        if flip_test is None and monitored.measures:
            flip_test = followed.get("flip_test", monitored.flip_test) and estimator.skeleton.mirrors
    elif flip_test is None and protocol is None:
        flip_test = evaluate_part(estimator.card).flip_test and estimator.skeleton.mirrors
    if detections is not None and protocol != "coco":
        raise ValueError("--detections is only for --protocol coco. Add it, or omit --detections.")
    if flip_test is None:
        flip_test = estimator.skeleton.mirrors  # if it is off, the printed convention says why
    estimator = estimator.with_flip_test(flip_test)
    choice = benched(
        weights, flip_test=flip_test, device=choose_device(device), faster=changed or found, console=console, size=size,
    )  # fmt: skip
    if choice is not None:
        other = load_chosen(choice, weights)
        assert isinstance(other, TopDownEstimator | OneStageEstimator)
        estimator = other
    followed |= {"name": protocol, "flip_test": flip_test}
    if detections is not None:
        followed["detections"] = detections
    parts = [part for part in parts if not found or part["name"] not in AVERAGE_PRECISION]
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
            raise ValueError(f"--set must be {' or '.join(f'{name}.KEY=VALUE' for name in tables)}; got {override!r}.")
        if key.partition("=")[0].strip() == "name":
            which = {"data": "--format", "protocol": "--protocol"}.get(chosen, "--metric")
            raise ValueError(f"--set {override!r}: the name is set by {which}.")
        apply_override(tables[chosen], key)
    metrics: list[Metric] = [make(METRICS, part, "metric") for part in parts]
    published = None if protocol is None else make(PROTOCOLS, followed, "protocol")
    kind = format or (protocol if protocol in FORMATS else None) or "coco"
    if not len(estimator.skeleton) and kind == "coco":
        if "boxes_only" not in tables["data"]:
            console.print("Labels are read without keypoints, since these weights find none.", highlight=False)
        tables["data"].setdefault("boxes_only", True)
    dataset = read_data(data, kind, images, tables["data"])
    say_notes(dataset, console, mirroring=False)
    say_compiling(compiled)
    if found:
        compare_found(
            estimator, weights, data, dataset, parts, console,
            detector=detector, scales=shown_at, device=device, json_file=json_file, report=report,
        )  # fmt: skip
        return
    assert isinstance(estimator, TopDownEstimator)
    with bar_of(console, "estimating", len(dataset)) as advance:
        try:
            if published is None:
                classes = estimator.card.classes if estimator.card is not None else ()
                result = evaluate(estimator, dataset, metrics, on_image=advance, classes=classes)
            else:
                result = published.evaluate(estimator, dataset, on_image=advance)
        except ValueError as error:
            raise ValueError(f"{error}{hint}") from error
    if published is None:
        unknown = estimator.skeleton.mirroring_unknown
        flip = "flip test" if flip_test else "no flip test" + (f", as {unknown}" if unknown else "")
        convention = {"measured": f"measured: {'; '.join(map(in_words, parts))}; boxes from the annotations; {flip}"}
    else:
        convention = {"protocol": published.convention(estimator)}
    if crops_at != (1.0,):
        convention["crop scales"] = f"crops at the scales {', '.join(f'{s:g}' for s in crops_at)}, heatmaps averaged"
    if isinstance(estimator, TopDownEstimator) and estimator.early_exit is not None:
        convention["early exit"] = estimator.early_exit.in_words()
    for line in convention.values():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    print_evaluation(result, console)
    for each in metrics:
        if isinstance(each, Pck):
            say_uncounted(each, sum(len(t) for t in result.truth), console)
    reliable = reliability_for(estimator, result)
    if reliable is not None:
        console.print(reliable.in_words(), soft_wrap=True, highlight=False)
    names = respelt(estimator.skeleton, dataset.skeleton.keypoints)
    respelled = [
        f"{old} as {new}"
        for old, new in zip(estimator.skeleton.keypoints, names.keypoints, strict=True)
        if old != new and published is None
    ]
    if respelled:
        console.print(
            f"matched despite different spelling: {', '.join(respelled)}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    excluded = [name for name in dataset.skeleton.keypoints if name not in names.keypoints]
    if excluded:
        console.print(f"not evaluated, because these weights do not predict them: {', '.join(excluded)}")
    if json_file is not None:
        write_bytes(
            json_file, json.dumps(
                {**convention, "results": result.results, "table": result.table}
                | ({} if reliable is None else {"calibration": reliable.results()}), indent=1,
            ).encode(),
        )  # fmt: skip
    if report is not None:
        from poseglass.evaluation.report import write_report
        from poseglass.evaluation.summary import report_of, with_pairs

        pairs = with_pairs(result, estimator if published is None else published.adjusted(estimator), dataset)
        notes = list(convention.values())
        write_report(
            report, report_of(pairs, dataset, title=f"{weights} on {data.name}", notes=notes, reliability=reliable)
        )
        console.print(f"report: {report}")


def reliability_for(estimator: TopDownEstimator, result: Evaluation) -> Reliability | None:
    """Return how well an estimator's probabilities held, or None where it states none."""
    calibration = estimator.calibration
    if calibration is None or not result.paired:
        return None
    return reliability_of(result.predicted, result.truth, calibration)


def evaluate_part(card: WeightCard | None) -> EvaluatePart:
    """Return the ``evaluate`` table of the recipe in a weight card; the defaults if there is none that can be read.

    A card may come from anyone, so no code outside poseglass that its recipe names is imported.
    """
    if card is None or not card.recipe:
        return EvaluatePart()
    try:
        return Recipe.from_dict(tomllib.loads(card.recipe), trust_code=False).evaluate
    except (ValueError, RecursionError):  # from another version, or malicious
        Console(stderr=True).print(
            f"The recipe in the card of {card.name!r} cannot be read, so how its training was evaluated is unknown; "
            "the defaults are used.",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
        return EvaluatePart()


def recipe_evaluation(card: WeightCard | None) -> EvaluatePart:
    """Return the ``evaluate`` table of a card as ``evaluate_part`` does, if it can be followed.

    Raises:
        ValueError: The recipe names a metric or a protocol outside poseglass.
    """
    part = evaluate_part(card)
    if card is None:
        return part
    names = [table["name"] for table in part.metrics if table["name"] not in METRICS]
    if part.protocol is not None and part.protocol["name"] not in PROTOCOLS:
        names.append(part.protocol["name"])
    if names:
        raise ValueError(
            f"Weights {card.name!r} were selected by {names[0]!r}, which is code outside poseglass that a card may not "
            "run. Choose a metric with --metric or --protocol."
        )
    return part


def say_uncounted(metric: Pck, people: int, console: Console) -> None:
    """Print how many people a PCK excludes because the length that it divides by is not labelled."""
    if metric.people < people:
        console.print(
            f"{metric.name} includes {metric.people:,} of {people:,} people: for the others, the length that it "
            f"divides by ({metric.normaliser}) is not labelled. --normaliser box_diagonal includes everyone.",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip


def print_evaluation(result: Evaluation, console: Console) -> None:
    """Print the results and a table with one row per joint."""
    people = sum(len(t) for t in result.truth)
    images = len(result.truth)
    console.print(f"{people:,} {'person' if people == 1 else 'people'} in {images:,} image{'s' * (images != 1)}")
    for name, value in result.results.items():
        console.print(f"  {name:<28} {value:.4f}")
    if result.table:
        if len(result.table) == 1:  # a single row repeats the values above
            return
        columns = list(next(iter(result.table.values())))
        table = Table(header_style="bold")
        for column in ("", *columns):
            table.add_column(column, justify="left" if not column else "right")
        for name, row in result.table.items():
            if not row.get("count", 1):  # never labelled, or not predicted by the weights
                continue
            table.add_row(name, *(f"{row[c]:.0f}" if c == "count" else f"{row[c]:.3f}" for c in columns))
        console.print(table)
