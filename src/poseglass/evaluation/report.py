"""The report of a training or an evaluation: one HTML file that opens anywhere, offline, with nothing beside it.

Plots and images lie inside the file. It has no script and asks for nothing: a content security policy forbids
both, so that neither a file's name nor a recipe, however made, can do anything but be read.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from poseglass.core.files import write_bytes
from poseglass.core.instances import Instances
from poseglass.core.sample import check_image
from poseglass.core.skeleton import Skeleton
from poseglass.drawing import plots
from poseglass.drawing.pose import draw_pair
from poseglass.drawing.text import printable

MAX_EXAMPLES = 24
"""Images in a report, best and worst together; it stays under 3 MB."""

TILE_PX = 288
"""Longest side of one half of an image."""

MAX_IMAGE_BYTES = 64_000
"""Above it an image is encoded again, at a lower quality."""

MAX_TEXT = 100_000
"""Characters of a recipe that are shown."""

ERROR_MEANINGS = {
    "good": "at its own place",
    "jitter": "near its own place, not near enough",
    "inversion": "on the flipped keypoint of the same person: left and right exchanged",
    "swap": "on another person's keypoint",
    "miss": "near none of these, or not found",
}
"""What ``metrics.errors`` calls each kind, in the reader's words."""


class Example(NamedTuple):
    """An image of the report.

    Args:
        caption: A file's name, or any words.
        image: ``(H, W, 3)`` uint8 RGB, the crop of one or more people.
        truth: In the crop's pixels.
        predicted: In the crop's pixels, row for row the people of ``truth``.
        result: How good the prediction is; higher is better.
    """

    caption: str
    image: np.ndarray
    truth: Instances
    predicted: Instances
    result: float


@dataclass(frozen=True, eq=False)
class Report:
    """What a report shows; every part but title and skeleton may be empty and is then absent.

    Args:
        title: Of the run.
        skeleton: Names the K keypoints, in the order of tables and bars.
        headline: Results by name, most important first: ``{"pck@0.2": 0.81}``.
        curve: Rows of the curve's CSV, one per epoch or log line.
        best: A column of the curve and the number of the row that the best weights are of; marked in its plot.
        per_joint: Keypoint name to its results: ``{"left_knee": {"count": 500.0, "pck@0.2": 0.8}}``. The first that
            is not a count is drawn as bars.
        pck_curve: Thresholds ``(T,)`` and shares ``(T,)`` in [0, 1].
        joint_curves: ``(T, K)`` shares of each keypoint at the same thresholds, or none.
        threshold_name: What the thresholds are measured in, under the PCK curve.
        examples: Images with truth and prediction. Sorted by result, the first half is shown as the best, the
            second as the worst, ``MAX_EXAMPLES`` in all.
        result_name: Of the examples' results.
        errors: Keypoint name to the shares of its predictions by ``drawing.plots.ERROR_KINDS``, with their count or
            without: ``KeypointErrors.table()``.
        recipe: TOML text.
        environment: Machine and versions: ``{"torch": "2.13.0", "processor": "..."}``.
        notes: Sentences a reader should know: what was excluded, what the box was.

    Raises:
        ValueError: The curve's halves differ in length, or an example's image is not uint8 RGB.
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
    """Write the report as one HTML file; aside first, so no half page is left.

    Raises:
        OSError: The folder is missing, full or not writable.
    """
    write_bytes(path, render_report(report).encode("utf-8", "replace"))


def render_report(report: Report) -> str:
    """Return the report as HTML text."""
    parts = [
        ("Results", _headline(report)),
        ("Training", _training(report)),
        ("Joint by joint", _joints(report)),
        ("How near", _nearness(report)),
        ("Where errors come from", _errors(report)),
        ("Best and worst", _examples(report)),
        ("Recipe", _recipe(report)),
        ("Machine and versions", _environment(report)),
    ]
    shown = [(name, body) for name, body in parts if body]
    links = "".join(f'<a href="#s{i}">{_text(name)}</a>' for i, (name, _) in enumerate(shown))
    sections = "\n".join(
        f'<section aria-labelledby="s{i}"><h2 id="s{i}">{_text(name)}</h2>\n{body}</section>'
        for i, (name, body) in enumerate(shown)
    )
    notes = "".join(f"<p>{_text(note)}</p>" for note in report.notes)
    about = f"{len(report.skeleton)} keypoints, skeleton {report.skeleton.name}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="generator" content="poseglass">\n'
        f"<title>{_text(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header><h1>{_text(report.title)}</h1><p class="about">{_text(about)}</p></header>\n'
        f'<nav aria-label="Sections">{links}</nav>\n<main>\n'
        + (f'<div class="notes" role="note">{notes}</div>\n' if notes else "")
        + f"{sections}\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Return untrusted words as HTML text, also safe inside quoted attributes."""
    clean = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c.isprintable() or c in "\n\t" else "�" for c in clean), quote=True)


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


def _headline(report: Report) -> str:
    cards = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(_number(value))}</dd></div>" for name, value in report.headline.items()
    )
    return f'<dl class="cards">{cards}</dl>\n' if cards else ""


def _training(report: Report) -> str:
    if not report.curve:
        return ""
    first, last = report.curve[0], report.curve[-1]
    ends = [
        f"{name} from {_number(first[name])} to {_number(last[name])}"
        for name in last
        if name in first and name not in ("epoch", "step")
    ][:8]
    words = f"Training curves over {len(report.curve)} rows: " + ("; ".join(ends) or "no results") + "."
    if report.best is not None:
        column, row = report.best
        words += f" The best weights are those of row {row + 1}, {column} {_number(report.curve[row][column])}."
    themes = {theme: plots.training_curves(report.curve, best=report.best, theme=theme) for theme in ("light", "dark")}
    return _figure(themes, words)


def _joints(report: Report) -> str:
    if not report.per_joint:
        return ""
    names = _in_order(report.per_joint, report.skeleton)
    columns = list(dict.fromkeys(column for name in names for column in report.per_joint[name]))
    table = _table("Results of each keypoint", "keypoint", columns, {n: report.per_joint[n] for n in names})
    drawn = next((c for c in columns if c != "count"), None)
    if drawn is None:
        return table
    values = {name: float(report.per_joint[name].get(drawn, math.nan)) for name in names}
    words = f"{drawn} of each keypoint: " + ", ".join(f"{n} {_number(v)}" for n, v in values.items()) + "."
    themes = {theme: plots.joint_bars(values, xlabel=drawn, theme=theme) for theme in ("light", "dark")}
    return f'<div class="beside">{table}{_figure(themes, words)}</div>\n'


def _nearness(report: Report) -> str:
    if report.pck_curve is None or len(report.pck_curve[0]) < 2:
        return ""
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
        "Share of all keypoints within a threshold", "threshold", ["share"],
        {f"{thresholds[i]:.3g}": {"share": float(shares[i])} for i in rows},
    )  # fmt: skip
    return f'<div class="beside">{_figure(themes, f"Share of keypoints over the threshold: {points}.")}{table}</div>\n'


def _errors(report: Report) -> str:
    if not any(kind in row for row in report.errors.values() for kind in plots.ERROR_KINDS):
        return ""
    names = _in_order(report.errors, report.skeleton)
    rows = {name: report.errors[name] for name in names}
    columns = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    columns.sort(key=lambda c: plots.ERROR_KINDS.index(c) if c in plots.ERROR_KINDS else -1)
    meanings = "".join(
        f"<dt>{kind}</dt><dd>{_text(ERROR_MEANINGS[kind])}</dd>" for kind in plots.ERROR_KINDS if kind in columns
    )
    words = "Where the predictions of each keypoint end up; the table beside it has the numbers."
    themes = {theme: plots.error_breakdown(rows, theme=theme) for theme in ("light", "dark")}
    table = _table("Errors of each keypoint", "keypoint", columns, rows)
    return f'<dl class="meanings">{meanings}</dl>\n<div class="beside">{table}{_figure(themes, words)}</div>\n'


def _examples(report: Report) -> str:
    examples = [Example(*e) for e in report.examples]
    if not examples:
        return ""
    ranked = sorted(examples, key=lambda e: -e.result if math.isfinite(e.result) else math.inf)
    half = len(ranked) // 2
    best, worst = ranked[:half][: MAX_EXAMPLES // 2], ranked[half:][::-1][: MAX_EXAMPLES // 2]
    blocks = []
    for name, some in (("Best", best), ("Worst", worst)):
        if some:
            results = "\n".join(_example(e, report.result_name) for e in some)
            blocks.append(f'<h3>{name}</h3>\n<div class="images">{results}</div>\n')
    key = (
        "Left of each pair the labels (rings: occluded), right the prediction, fainter where its score is low; "
        "a pink line leads from each predicted keypoint to its true place. "
        "Orange is the person's left, blue the right, white the middle."
    )
    dropped = len(examples) - len(best) - len(worst)
    more = f" {dropped} more were given and are not shown." if dropped else ""
    return f'<p class="key">{_text(key + more)}</p>\n' + "".join(blocks)


def _example(example: Example, result_name: str) -> str:
    pair = draw_pair(example.image, example.truth, example.predicted, tile_px=TILE_PX)
    source = "data:image/jpeg;base64," + base64.b64encode(_jpeg(pair)).decode("ascii")
    caption = printable(example.caption)
    words = f"Labels and prediction for {caption}, {result_name} {_number(example.result)}"
    return (
        f'<figure><img src="{source}" width="{pair.shape[1]}" height="{pair.shape[0]}" alt="{_text(words)}">'
        f"<figcaption><span>{_text(caption)}</span> <b>{_text(result_name)} {_text(_number(example.result))}</b>"
        "</figcaption></figure>"
    )


def _jpeg(image: np.ndarray) -> bytes:
    data = b""
    for quality in (85, 70, 50, 30):  # a crop needs some 20 kB; noise and foliage give way, not the page's size
        ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise ValueError(f"An image of {image.shape} cannot be encoded as JPEG; give a smaller crop.")
        data = encoded.tobytes()
        if len(data) <= MAX_IMAGE_BYTES:
            break
    return data


def _recipe(report: Report) -> str:
    if not report.recipe.strip():
        return ""
    text = report.recipe[:MAX_TEXT]
    cut = "" if len(text) == len(report.recipe) else f"<p>The first {MAX_TEXT:,} characters of it.</p>"
    return f'<pre tabindex="0">{_text(text)}</pre>\n{cut}'


def _environment(report: Report) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="words">{_text(value)}</td></tr>'
        for name, value in report.environment.items()
    )
    if not rows:
        return ""
    head = '<thead><tr><th scope="col">what</th><th scope="col" class="words">value</th></tr></thead>'
    return f"{_OPEN}<caption>Where it ran</caption>{head}<tbody>{rows}</tbody></table></div>\n"


def _in_order(rows: Mapping[str, object], skeleton: Skeleton) -> list[str]:
    """Return the rows' names, the skeleton's keypoints first and in its order, then the others (means)."""
    return [n for n in skeleton.keypoints if n in rows] + [n for n in rows if n not in skeleton.keypoints]


def _table(caption: str, first: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, float]]) -> str:
    head = "".join(f'<th scope="col">{_text(c)}</th>' for c in columns)
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th>'
        + "".join(f"<td>{_text(_number(row[c], c)) if c in row else ''}</td>" for c in columns)
        + "</tr>"
        for name, row in rows.items()
    )
    return (
        f'{_OPEN}<caption>{_text(caption)}</caption><thead><tr><th scope="col">{_text(first)}</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def _figure(themes: Mapping[str, plots.Figure], words: str) -> str:
    """Return a figure in two colourings, of which the reader's setting shows one; print shows the light one."""
    source = {
        theme: "data:image/png;base64," + base64.b64encode(plots.to_png(figure)).decode("ascii")
        for theme, figure in themes.items()
    }
    width, height = (round(v * 100) for v in themes["light"].get_size_inches())
    return (
        f'<picture><source media="screen and (prefers-color-scheme: dark)" srcset="{source["dark"]}">'
        f'<img class="plot" src="{source["light"]}" width="{width}" height="{height}" alt="{_text(words)}"></picture>\n'
    )


_OPEN = '<div class="table" tabindex="0"><table>'

_STYLE = """
:root { color-scheme: light dark; --ground: #f4f5f8; --card: #ffffff; --text: #20242c; --soft: #565e6c;
  --line: #dfe3ea; --accent: #a85b00; }
@media (prefers-color-scheme: dark) { :root { --ground: #12151b; --card: #1b1f27; --text: #e7eaf0; --soft: #a6aebc;
  --line: #3a404c; --accent: #ffb454; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem clamp(0.8rem, 3vw, 2.5rem) 4rem; background: var(--ground);
  color: var(--text); font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 0.8rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.6rem; }
.about, .key { color: var(--soft); margin: 0.3rem 0 0.8rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0.6rem 0 1.2rem; font-size: 0.9rem; }
a { color: var(--accent); }
section, .notes { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.3rem;
  margin: 0 0 1.1rem; }
.notes { border-left: 4px solid var(--accent); }
.notes p { margin: 0.2rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 0.8rem; margin: 0; }
.cards div { border: 1px solid var(--line); border-radius: 8px; padding: 0.6rem 0.9rem; }
.cards div:first-child { border-color: var(--accent); border-width: 2px; }
.cards dt { color: var(--soft); font-size: 0.82rem; overflow-wrap: anywhere; }
.cards dd { margin: 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.meanings { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 0.9rem; margin: 0 0 1rem;
  font-size: 0.9rem; }
.meanings dt { font-weight: 600; }
.meanings dd { margin: 0; color: var(--soft); }
.beside { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
.beside > * { flex: 1 1 24rem; min-width: 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: 0.82rem; padding-bottom: 0.3rem; }
th, td { padding: 0.22rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
th[scope="row"] { font-weight: 500; }
.words { text-align: left; white-space: normal; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 0.9rem; }
figure { margin: 0; break-inside: avoid; }
figure img { border-radius: 6px; width: 100%; }
figcaption { display: flex; justify-content: space-between; gap: 0.8rem; font-size: 0.84rem; padding-top: 0.2rem; }
figcaption span { overflow-wrap: anywhere; color: var(--soft); }
figcaption b { white-space: nowrap; }
pre { margin: 0; overflow-x: auto; font: 0.84rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre; }
@media print {
  :root { --ground: #ffffff; --card: #ffffff; --text: #000000; --soft: #444444; --line: #cccccc; --accent: #7a4200; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  nav { display: none; }
  section, .notes { border: 0; border-radius: 0; padding: 0.4rem 0; }
  h2, h3 { break-after: avoid; }
  tr, .cards div, picture, .table { break-inside: avoid; }
  .beside { display: block; }
  .beside .plot { max-width: 80%; }
  .images { grid-template-columns: 1fr 1fr; }
  pre { white-space: pre-wrap; }
}
"""
