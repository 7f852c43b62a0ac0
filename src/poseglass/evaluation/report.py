"""The report of a training run or an evaluation: one self-contained HTML file that works offline.

Plots and images are embedded. It has no scripts and loads nothing: a content security policy forbids both, so that a
malicious file name or recipe can do no harm.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from poseglass.core.files import write_bytes
from poseglass.core.instances import Instances
from poseglass.core.page import render_page
from poseglass.core.sample import check_image
from poseglass.core.skeleton import Skeleton
from poseglass.drawing import plots
from poseglass.drawing.pose import draw_pair
from poseglass.drawing.text import printable
from poseglass.evaluation.reliability import Reliability

MAX_EXAMPLES = 24
"""Largest number of images in a report, best and worst together, to keep it under 3 MB."""

TILE_PX = 288
"""Longest side of one half of an example image (labels or prediction)."""

MAX_IMAGE_BYTES = 64_000
"""Size above which an image is encoded again, at a lower quality."""

MAX_TEXT = 100_000
"""Characters of a recipe that are shown."""

ERROR_MEANINGS = {
    "good": "close to its label",
    "jitter": "near its label, but not close enough",
    "inversion": "on the flipped keypoint of the same person: left and right swapped",
    "swap": "on another person's keypoint",
    "miss": "near none of these, or not found",
}
"""Explanation of each kind of ``metrics.errors``."""


class Example(NamedTuple):
    """An example image of the report.

    Args:
        caption: A file name, or any text.
        image: ``(H, W, 3)`` uint8 RGB, the crop of one or more people.
        truth: Labels in pixels of the crop.
        predicted: Predictions in pixels of the crop, in the same order as ``truth``.
        result: Quality of the prediction; higher is better.
    """

    caption: str
    image: np.ndarray
    truth: Instances
    predicted: Instances
    result: float


@dataclass(frozen=True, eq=False)
class Report:
    """The content of a report; every part except title and skeleton may be empty and is then omitted.

    Args:
        title: Title of the page.
        skeleton: Names the K keypoints, in the order of tables and bars.
        headline: Results by name, most important first: ``{"pck@0.2": 0.81}``.
        curve: Rows of the curve's CSV, one per epoch or log line.
        best: A column of the curve and the index of the row of the best weights, which is marked in the plot.
        per_joint: Maps each keypoint to its results: ``{"left_knee": {"count": 500.0, "pck@0.2": 0.8}}``. The first
            one that is not a count is plotted as bars.
        pck_curve: Thresholds ``(T,)`` and fractions ``(T,)`` in [0, 1].
        joint_curves: ``(T, K)`` fractions of each keypoint at the same thresholds, or None.
        threshold_name: Label of the threshold axis of the PCK curve, with the unit.
        examples: Images with truth and prediction. Sorted by result, the first half is shown as the best, the
            second half as the worst, ``MAX_EXAMPLES`` in total.
        result_name: Name of the examples' results.
        errors: Maps each keypoint to the fractions of its predictions by ``drawing.plots.ERROR_KINDS``, with or without
            their count: ``KeypointErrors.table()``.
        reliability: Probabilities of the predicted keypoints and what came of them, for a reliability diagram; or None.
        recipe: TOML text.
        environment: Machine and versions: ``{"torch": "2.13.0", "processor": "..."}``.
        notes: Sentences that a reader should know: what was excluded, which boxes were used.

    Raises:
        ValueError: The arrays of the PCK curve differ in length, or an example's image is not uint8 RGB.
    """

    title: str
    skeleton: Skeleton
    headline: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    best: tuple[str, int] | None = None
    per_joint: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pck_curve: tuple[np.ndarray, np.ndarray] | None = None
    joint_curves: np.ndarray | None = None
    threshold_name: str = "threshold, in units of the person's length"
    examples: Sequence[Example | tuple[str, np.ndarray, Instances, Instances, float]] = ()
    result_name: str = "PCK"
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reliability: Reliability | None = None
    recipe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "examples", tuple(Example(*e) for e in self.examples))
        if self.pck_curve is not None:
            thresholds, shares = (np.asarray(a, dtype=np.float64) for a in self.pck_curve)
            if thresholds.ndim != 1 or thresholds.shape != shares.shape:
                raise ValueError(
                    f"Report.pck_curve must be thresholds (T,) and shares (T,), got {thresholds.shape} and "
                    f"{shares.shape}."
                )
            k = len(self.skeleton)
            if self.joint_curves is not None and np.shape(self.joint_curves) != (len(thresholds), k):
                raise ValueError(
                    f"Report.joint_curves must be ({len(thresholds)}, {k}) (T thresholds, K={k} of "
                    f"{self.skeleton.name!r}), got {np.shape(self.joint_curves)}."
                )
        for i, example in enumerate(self.examples):
            check_image(example[1], f"Report.examples[{i}].image")


def write_report(path: str | Path, report: Report) -> None:
    """Write the report as one HTML file, atomically.

    Raises:
        OSError: The folder is missing, full or not writable.
    """
    write_bytes(path, render_report(report).encode("utf-8", "replace"))


def render_report(report: Report) -> str:
    """Return the report as HTML text."""
    parts = [
        _headline(report),
        _training(report),
        _joints(report),
        _nearness(report),
        _errors(report),
        _reliability(report),
        _examples(report),
        _recipe(report),
        _environment(report),
    ]
    values = {
        "title": report.title,
        "about": f"{len(report.skeleton)} keypoints, skeleton {report.skeleton.name}",
        "notes": report.notes,
        "parts": [part for part in parts if part is not None],
    }
    return render_page("report.html", values)


RELIABILITY_NAMES = {
    "ece": "expected calibration error",
    "brier": "Brier score of the probabilities",
    "brier of score": "Brier score of the raw scores",
    "brier of constant": "Brier score of the overall share",
    "coverage": "share of keypoints within their radius",
    "median radius px": "median radius, pixels",
}
"""What the results of ``Reliability`` are called on the page."""

Part = dict[str, object]
"""A section of the page: its "name", the "kind" of its template, and the values for it."""


def _number(value: float, name: str = "") -> str:
    value = float(value)
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"  # noqa: RUF001
    if name == "count" or (value.is_integer() and abs(value) >= 2):
        return f"{value:,.0f}"
    if name in plots.ERROR_KINDS and abs(value) <= 1:
        return f"{value:.3f}"
    if value != 0 and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.2f}"


def _headline(report: Report) -> Part | None:
    if not report.headline:
        return None
    cards = [(name, _number(value)) for name, value in report.headline.items()]
    return {"name": "Results", "kind": "results", "cards": cards}


def _training(report: Report) -> Part | None:
    if not report.curve:
        return None
    first, last = report.curve[0], report.curve[-1]
    ends = [
        f"{name} from {_number(first[name])} to {_number(last[name])}"
        for name in last
        if name in first and name not in ("epoch", "step")
    ][:8]
    words = f"Training curves over {len(report.curve)} rows: " + ("; ".join(ends) or "no results") + "."
    if report.best is not None:
        column, row = report.best
        words += f" The best weights are from row {row + 1}, {column} {_number(report.curve[row][column])}."
    themes = {theme: plots.training_curves(report.curve, best=report.best, theme=theme) for theme in ("light", "dark")}
    return _measured("Training", plot=_plot(themes, words))


def _joints(report: Report) -> Part | None:
    if not report.per_joint:
        return None
    title = "Results per joint"
    names = _in_order(report.per_joint, report.skeleton)
    columns = list(dict.fromkeys(column for name in names for column in report.per_joint[name]))
    table = _table("Results per keypoint", "keypoint", columns, {n: report.per_joint[n] for n in names})
    drawn = next((c for c in columns if c != "count"), None)
    if drawn is None:
        return _measured(title, table)
    values = {name: float(report.per_joint[name].get(drawn, math.nan)) for name in names}
    words = f"{drawn} of each keypoint: " + ", ".join(f"{n} {_number(v)}" for n, v in values.items()) + "."
    themes = {theme: plots.joint_bars(values, xlabel=drawn, theme=theme) for theme in ("light", "dark")}
    return _measured(title, table, _plot(themes, words))


def _nearness(report: Report) -> Part | None:
    if report.pck_curve is None or len(report.pck_curve[0]) < 2:
        return None
    thresholds, shares = (np.asarray(a, dtype=np.float64) for a in report.pck_curve)
    rows = np.unique(np.linspace(0, len(thresholds) - 1, 6).round().astype(int))[1:]
    points = ", ".join(f"{_number(float(shares[i]))} within {thresholds[i]:.3g}" for i in rows)
    themes = {
        theme: plots.pck_curve(
            thresholds, shares, per_joint=report.joint_curves, skeleton=report.skeleton, xlabel=report.threshold_name,
            theme=theme,
        )
        for theme in ("light", "dark")
    }  # fmt: skip
    table = _table(
        "Share of all keypoints within each threshold", "threshold", ["share"],
        {f"{thresholds[i]:.3g}": {"share": float(shares[i])} for i in rows},
    )  # fmt: skip
    words = f"Share of keypoints within each threshold: {points}."
    return {**_measured("PCK curve", table, _plot(themes, words)), "plot_first": True}


def _errors(report: Report) -> Part | None:
    if not any(kind in row for row in report.errors.values() for kind in plots.ERROR_KINDS):
        return None
    names = _in_order(report.errors, report.skeleton)
    rows = {name: report.errors[name] for name in names}
    columns = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    columns.sort(key=lambda c: plots.ERROR_KINDS.index(c) if c in plots.ERROR_KINDS else -1)
    meanings = [(kind, ERROR_MEANINGS[kind]) for kind in plots.ERROR_KINDS if kind in columns]
    words = "Kinds of error of each keypoint's predictions; the table beside it has the numbers."
    themes = {theme: plots.error_breakdown(rows, theme=theme) for theme in ("light", "dark")}
    table = _table("Errors per keypoint", "keypoint", columns, rows)
    return {**_measured("Kinds of error", table, _plot(themes, words)), "meanings": meanings}


def _reliability(report: Report) -> Part | None:
    if report.reliability is None:
        return None
    stated, right = report.reliability.diagram()
    themes = {theme: plots.reliability(stated, right, theme=theme) for theme in ("light", "dark")}
    table = _table(
        "Calibration of the scores", "result", ["value"],
        {RELIABILITY_NAMES.get(name, name): {"value": value} for name, value in report.reliability.results().items()},
    )  # fmt: skip
    pairs = ", ".join(f"{_number(float(a))}: {_number(float(b))}" for a, b in zip(stated, right, strict=True))
    words = f"Share of keypoints that are right, by their stated probability: {pairs}."
    return {**_measured("Reliability of the probabilities", table, _plot(themes, words)), "plot_first": True}


def _measured(name: str, table: Part | None = None, plot: Part | None = None) -> Part:
    """Return a section with a table, a plot, or both side by side."""
    return {"name": name, "kind": "measured", "table": table, "plot": plot, "plot_first": False, "meanings": []}


def _examples(report: Report) -> Part | None:
    examples = [Example(*e) for e in report.examples]
    if not examples:
        return None
    ranked = sorted(examples, key=lambda e: -e.result if math.isfinite(e.result) else math.inf)
    half = len(ranked) // 2
    best, worst = ranked[:half][: MAX_EXAMPLES // 2], ranked[half:][::-1][: MAX_EXAMPLES // 2]
    blocks = [
        (name, [_example(e, report.result_name) for e in some])
        for name, some in (("Best", best), ("Worst", worst))
        if some
    ]
    key = (
        "In each pair, the left image shows the labels (rings: occluded), the right one the prediction, fainter where "
        "its score is low; a pink line leads from each predicted keypoint to its label. "
        "Orange is the person's left side, blue the right, white the middle."
    )
    dropped = len(examples) - len(best) - len(worst)
    more = f" {dropped} more are not shown." if dropped else ""
    return {"name": "Best and worst", "kind": "examples", "key": key + more, "blocks": blocks}


def _example(example: Example, result_name: str) -> Part:
    pair = draw_pair(example.image, example.truth, example.predicted, tile_px=TILE_PX)
    source = "data:image/jpeg;base64," + base64.b64encode(_jpeg(pair)).decode("ascii")
    caption = printable(example.caption)
    result = f"{result_name} {_number(example.result)}"
    return {
        "source": source, "width": pair.shape[1], "height": pair.shape[0], "caption": caption, "result": result,
        "words": f"Labels and prediction for {caption}, {result}",
    }  # fmt: skip


def _jpeg(image: np.ndarray) -> bytes:
    data = b""
    for quality in (85, 70, 50, 30):  # a crop needs about 20 kB; lower the quality of noise and foliage
        ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise ValueError(f"An image of shape {image.shape} cannot be encoded as JPEG; use a smaller crop.")
        data = encoded.tobytes()
        if len(data) <= MAX_IMAGE_BYTES:
            break
    return data


def _recipe(report: Report) -> Part | None:
    if not report.recipe.strip():
        return None
    text = report.recipe[:MAX_TEXT]
    cut = "" if len(text) == len(report.recipe) else f"Only the first {MAX_TEXT:,} characters are shown."
    return {"name": "Recipe", "kind": "recipe", "text": text, "cut": cut}


def _environment(report: Report) -> Part | None:
    if not report.environment:
        return None
    facts = list(report.environment.items())
    return {"name": "Machine and versions", "kind": "environment", "facts": facts}


def _in_order(rows: Mapping[str, object], skeleton: Skeleton) -> list[str]:
    """Return the names of the rows: the skeleton's keypoints in its order, then the others (means)."""
    return [n for n in skeleton.keypoints if n in rows] + [n for n in rows if n not in skeleton.keypoints]


def _table(caption: str, first: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, float]]) -> Part:
    body = [(name, [_number(row[c], c) if c in row else "" for c in columns]) for name, row in rows.items()]
    return {"caption": caption, "first": first, "columns": columns, "body": body}


def _plot(themes: Mapping[str, "plots.Figure"], words: str) -> Part:
    """Return a plot in a light and a dark theme; the browser's setting selects one, and printing uses the light one."""
    source = {
        theme: "data:image/png;base64," + base64.b64encode(plots.to_png(figure)).decode("ascii")
        for theme, figure in themes.items()
    }
    width, height = (round(v * 100) for v in themes["light"].get_size_inches())
    return {**source, "width": width, "height": height, "words": words}
