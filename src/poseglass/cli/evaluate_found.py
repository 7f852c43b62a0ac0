"""``poseglass evaluate --found``: weights with the boxes of the annotations beside those found in whole images."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from poseglass.cli.write_poses import TELL_SECONDS
from poseglass.core.device import choose_device
from poseglass.core.files import write_bytes
from poseglass.core.sample import Dataset, boxes_complete
from poseglass.core.table import counted, lookup
from poseglass.estimators import load as loading
from poseglass.estimators.estimator import Estimator
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.estimators.whole_image import WholeImageEstimator
from poseglass.evaluation.evaluate import Evaluation, evaluate
from poseglass.evaluation.found import LEAST_SCORE, evaluate_found
from poseglass.evaluation.reliability import reliability_of
from poseglass.metrics import METRICS
from poseglass.programs.fast import Precision
from poseglass.runs.build import make

AVERAGE_PRECISION = ("box_ap", "oks_ap")
"""Metrics of what is found; they need no given boxes."""

LOWEST_SCORE = 0.05
"""Box score below which nothing is asked of the pose network, although average precision would still see it."""


def check_found(found: bool, detector: str | None, protocol: str | None, scales: str | None = None) -> None:
    """Raise unless the options of found boxes go together.

    Raises:
        ValueError: A detector or scales without ``found``, or a protocol with it.
    """
    if scales is not None and not found:
        raise ValueError(
            "--scales says how people are looked for, which only --found does. Add --found, or omit --scales. The "
            "scales at which crops are shown are --crop-scales."
        )
    if detector is not None and not found:
        raise ValueError("--detector finds the boxes for --found. Add --found, or omit --detector.")
    if found and protocol is not None:
        raise ValueError(
            f"--protocol {protocol} prescribes the boxes, and --found takes those that are found. Omit one of them."
        )


def load_one(
    weights: str,
    *,
    device: torch.device,
    size_wh: tuple[int, int] | None,
    precision: Precision,
    compiled: bool,
    crop_scales: tuple[float, ...] = (1.0,),
    early_exit_px: float | None = None,
) -> TopDownEstimator | OneStageEstimator:
    """Open weights of either kind, without a detector before them.

    Raises:
        ValueError: An exported file of whole images, whose least score is fixed.
    """
    estimator = loading.load(
        weights, device=device, size_wh=size_wh, precision=precision, compiled=compiled, crop_scales=crop_scales,
        early_exit_px=early_exit_px,
    )  # fmt: skip
    if isinstance(estimator, WholeImageEstimator):
        raise ValueError(
            f"{weights} takes whole images and returns nobody with a low score, which average precision needs. Export "
            "the weights without --whole-image, or evaluate the weights themselves."
        )
    assert not isinstance(estimator, TwoStageEstimator)  # only load() without a name has a detector
    return estimator


def compare_found(
    estimator: TopDownEstimator | OneStageEstimator,
    weights: str,
    data: Path,
    dataset: Dataset,
    parts: Sequence[dict[str, Any]],
    console: Console,
    *,
    detector: str | None,
    scales: tuple[float, ...] | None = None,
    device: str,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """Evaluate with given and with found boxes, and print the results side by side.

    Args:
        estimator: The weights: poses in a box, or everybody in an image.
        weights: Their name.
        data: Path of the data, for the report's title.
        dataset: The labelled images.
        parts: Metrics of poses, as tables; average precision is added.
        console: Where to print.
        detector: Weights that find the boxes for a pose network; None takes those that ship.
        scales: Scales at which what finds everybody looks at each image; None is 1, or chips if trained on them.
        device: Where the detector runs.
        json_file: Where to write all results.
        report: Where to write the report, of the found boxes.

    Raises:
        ValueError: There is no detector, or one is given for weights that find everybody themselves.
    """
    classes: Sequence[str] = ()
    given: Evaluation | None = None
    finder: Estimator
    posed = len(dataset.skeleton) > 0
    if isinstance(estimator, OneStageEstimator):
        parts = [part for part in parts if posed or _of_boxes(part["name"])]
        if detector is not None:
            raise ValueError(
                f"Weights {weights} find everybody themselves, so no --detector comes before them. Omit it."
            )
        finder = _with_low_scores(estimator)
        if scales is not None:
            finder = dataclasses.replace(finder, scales=scales, chips=None)
        classes = estimator.card.classes if estimator.card is not None else ()
        how = f"found by {weights}"
    else:
        parts = [part for part in parts if posed]
        name = detector or loading.DEFAULT_DETECTOR
        if name is None:
            raise ValueError("--found needs weights that find the boxes: add --detector NAME_OR_FILE.")
        first = loading.load_detector(name, min_box_score=LOWEST_SCORE, scales=scales, device=choose_device(device))
        finder = TwoStageEstimator(first, estimator)
        telling = estimator.card if finder.tells_classes else first.card
        classes = telling.classes if telling is not None else ()
        how = f"found by {name}, then {weights}"
        with bar_of(console, "in given boxes", len(dataset)) as advance:
            given = evaluate(estimator, dataset, _metrics(parts), on_image=advance)
    more = _average_precision(dataset)
    with bar_of(console, "finding", len(dataset)) as advance:
        found = evaluate_found(finder, dataset, _metrics([*parts, *more]), on_image=advance, classes=classes)
    if scales is not None:
        how += f", at the scales {', '.join(f'{scale:g}' for scale in scales)}"
    flip = "flip test" if estimator.flip_test else "no flip test"
    partly = sum(not boxes_complete(dataset, i) for i in range(len(dataset)))
    lines = [
        f"measured: {'; '.join(map(in_words, [*parts, *more]))}; {how}; {flip}",
        f"A person counts as found where a box with a score of at least {LEAST_SCORE:g} overlaps theirs by half (IoU); "
        "all keypoints of others are missed.",
    ]
    if partly:
        lines.append(
            f"Average precision leaves out {counted(partly, 'image')} of {len(dataset):,}, in which not everybody is "
            "labelled: people found there who have no label would count as wrong."
        )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    people = sum(len(t) for t in found.truth)
    seen = sum(int((p.box_score > 0).sum()) for p in found.predicted)
    share = f"{seen / people:.3f}" if people else "-"
    console.print(
        f"{people:,} {'person' if people == 1 else 'people'} in {len(found.truth):,} "
        f"image{'s' * (len(found.truth) != 1)}; {seen:,} found ({share})"
    )
    console.print(_side_by_side(None if given is None else given.results, found.results))
    known = estimator.calibration
    reliable = None if known is None else reliability_of(found.predicted, found.truth, known)
    if reliable is not None:
        console.print(f"Of those found: {reliable.in_words()}", soft_wrap=True, highlight=False)
    if json_file is not None:
        results: dict[str, Any] = {"measured": lines[0], "found": found.results, "people": people, "people_found": seen}
        if given is not None:
            results["given"] = given.results
        if reliable is not None:
            results["calibration"] = reliable.results()
        write_bytes(json_file, json.dumps(results, indent=1).encode())
    if report is not None:
        from poseglass.evaluation.report import write_report
        from poseglass.evaluation.summary import report_of

        title = f"{weights} on {data.name}, found"
        write_report(report, report_of(found, dataset, title=title, notes=lines, reliability=reliable))
        console.print(f"report: {report}")


def in_words(part: dict[str, Any]) -> str:
    """Return a metric with its options as text: "pck, normaliser torso, thresholds 0.2 0.1"."""
    given = (
        f"{key} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in part.items()
        if key != "name"
    )
    return ", ".join([part["name"], *given])


def _metrics(parts: Sequence[dict[str, Any]]) -> list[Any]:
    return [make(METRICS, part, "metric") for part in parts]


def _of_boxes(name: str) -> bool:
    """Return whether a metric compares everything that is found with everything that is labelled, without keypoints."""
    return not getattr(lookup(METRICS, name, kind="metric"), "rows_correspond", True)


def _average_precision(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the metrics of what is found that the labels allow, as tables."""
    if not any(boxes_complete(dataset, i) for i in range(len(dataset))):
        return []
    parts: list[dict[str, Any]] = [{"name": "box_ap"}]
    if dataset.skeleton.sigmas:
        labelled = (dataset.instances(i) for i in range(len(dataset)))
        areas = all("area" in people.extra for people in labelled if len(people))
        parts.append({"name": "oks_ap"} | ({} if areas else {"box_area_factor": 0.53}))
    return parts


def _with_low_scores(estimator: OneStageEstimator) -> OneStageEstimator:
    """Return an estimator that also returns what it is not sure of, as average precision needs."""
    return dataclasses.replace(estimator, min_box_score=min(LOWEST_SCORE, estimator.min_box_score))


@contextmanager
def bar_of(console: Console, words: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, elsewhere a line now and then; yield what moves it by one image."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(words, total=total)
        done, told_at = 0, time.monotonic()

        def advance() -> None:
            nonlocal done, told_at
            done += 1
            bar.advance(task)
            if not console.is_terminal and time.monotonic() - told_at > TELL_SECONDS:
                told_at = time.monotonic()
                console.print(f"{words}: {done:,} of {total:,}", highlight=False)
                console.file.flush()

        yield advance


def _side_by_side(given: Mapping[str, float] | None, found: Mapping[str, float]) -> Table:
    """Return a table of the results by name, without those per joint."""
    table = Table(header_style="bold")
    table.add_column("")
    if given is not None:
        table.add_column("given boxes", justify="right")
    table.add_column("found", justify="right")
    for name, value in found.items():
        if "/" in name or value == -1:  # nothing of that size is labelled
            continue
        row = [name]
        if given is not None:
            row.append(f"{given[name]:.4f}" if name in given else "")
        table.add_row(*row, f"{value:.4f}")
    return table
