"""Plots of training and evaluation: curves, bars, sources of error. Matplotlib without pyplot's state."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from poseglass.core.skeleton import Skeleton
from poseglass.drawing.palette import joint_colors, sides
from poseglass.drawing.text import printable

if TYPE_CHECKING:  # imported where it is used: it takes a third of a second, and most commands draw no plot
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]

_THEMES: dict[str, dict[str, str]] = {
    "light": {"ground": "#ffffff", "text": "#20242c", "grid": "#dfe3ea"},
    "dark": {"ground": "#1b1f27", "text": "#e7eaf0", "grid": "#3a404c"},
}
_LINES = ("#e08a00", "#2f7df6", "#12a17d", "#d4559a", "#8a63d2", "#8b8f98")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
_SIDE_BARS = {"left": "#f29a1f", "right": "#3b82f6", "middle": "#8b93a3"}

ERROR_KINDS = ("good", "jitter", "inversion", "swap", "miss")
"""Where predicted keypoints end up, from correct to wrong (Ronchi and Perona 2017)."""

_ERROR_COLORS = {
    "good": "#2b9d74",
    "jitter": "#e9c33b",
    "inversion": "#e8833a",
    "swap": "#b455b0",
    "miss": "#66718a",
}


def to_png(figure: "Figure", *, dpi: int = 120) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A glyph that the font lacks is drawn as an empty box; that is no reason to lose the figure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def training_curves(
    rows: Sequence[Mapping[str, float]], *, best: tuple[str, int] | None = None, theme: Theme = "light"
) -> "Figure":
    """Return a figure of the course of training: losses, scores and the learning rate over epochs or steps.

    Columns are grouped by their names: a word like pck, pckh, ap, ar, auc, oks, accuracy or score makes a score,
    ``lr`` the learning rate; times, speeds, counts and gradient norms are excluded; the rest are losses. Values that
    are missing or not finite leave a gap.

    Args:
        rows: One per epoch or log line, as read from the curve's CSV; the x axis is ``"epoch"``, else ``"step"``, else
            the row's number.
        best: A column and the number of a row whose value is marked: that of the best weights.
        theme: Colours for a light or dark background.

    Raises:
        ValueError: No rows.
    """
    from matplotlib.ticker import MaxNLocator

    if not rows:
        raise ValueError("Training curves need at least one row, got none; has an epoch finished?")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    groups: dict[str, list[str]] = {"loss": [], "score": [], "learning rate": []}
    for name in columns:
        kind = _column_kind(name)
        if kind in groups:
            groups[kind].append(name)
    shown = {kind: names for kind, names in groups.items() if names} or {"loss": []}
    x_name = next((n for n in ("epoch", "step") if n in columns), None)
    x = np.array([row.get(x_name, np.nan) if x_name else i for i, row in enumerate(rows)], dtype=np.float64)
    figure = _figure((3.9 * len(shown), 3.0), theme)
    for place, (kind, names) in enumerate(shown.items()):
        axes = figure.add_subplot(1, len(shown), place + 1)
        # A total comes before its terms; more than six lines cannot be told apart.
        names = sorted(names, key=lambda n: (n.count("/"), columns.index(n)))[: len(_LINES)]
        lowest, highest = np.inf, 0.0
        for i, name in enumerate(names):
            y = np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)
            there = np.isfinite(y) & np.isfinite(x)
            if not there.any():
                continue
            marker = "o" if there.sum() <= 2 else None
            axes.plot(x[there], y[there], color=_LINES[i], linestyle=_STYLES[i], linewidth=1.6, marker=marker,
                      label=_label(name))  # fmt: skip
            lowest, highest = min(lowest, float(y[there].min())), max(highest, float(y[there].max()))
            if best is not None and name == best[0] and there[best[1]] and there.sum() > 2:
                at = best[1]
                axes.plot(x[at], y[at], "o", color=_LINES[i], markersize=5)
                axes.annotate(
                    f"{y[at]:.3g}", (x[at], y[at]), xytext=(0, 6), textcoords="offset points", ha="center",
                    fontsize=8, color=_THEMES[theme]["text"],
                )  # fmt: skip
        if kind == "loss" and lowest > 0 and highest > 8 * lowest:
            axes.set_yscale("log")
        if kind == "score":
            axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        _style(axes, theme, title=kind, xlabel=x_name or "row")
        if len(names) > 1:
            _legend(axes, theme)
        elif names:
            axes.set_title(f"{kind}: {_label(names[0])}" if kind != names[0] else kind, fontsize=9, loc="left",
                           color=_THEMES[theme]["text"])  # fmt: skip
    return figure


def pck_curve(
    thresholds: np.ndarray,
    values: np.ndarray,
    *,
    per_joint: np.ndarray | None = None,
    skeleton: Skeleton | None = None,
    xlabel: str = "threshold, in units of the person's length",
    ylabel: str = "fraction of keypoints within the threshold",
    theme: Theme = "light",
) -> "Figure":
    """Return a figure of the fraction of correct keypoints over the threshold.

    Args:
        thresholds: ``(T,)``.
        values: ``(T,)`` in [0, 1], of all keypoints.
        per_joint: ``(T, K)`` in [0, 1], thin lines in the joints' colours; needs the skeleton.
        skeleton: Names the K keypoints.
        xlabel: Unit of the threshold.
        ylabel: What is counted.
        theme: Colours for a light or dark background.

    Raises:
        ValueError: The lengths differ, or ``per_joint`` is given without a skeleton.
    """
    thresholds, values = np.asarray(thresholds, np.float64), np.asarray(values, np.float64)
    if thresholds.ndim != 1 or thresholds.shape != values.shape or len(thresholds) < 2:
        raise ValueError(
            f"A PCK curve needs thresholds (T,) and values (T,), T > 1, got {thresholds.shape}, {values.shape}."
        )
    figure = _figure((5.4, 3.4), theme)
    axes = figure.add_subplot()
    if per_joint is not None:
        if skeleton is None or np.shape(per_joint) != (len(thresholds), len(skeleton)):
            size = "(T, K) with its skeleton" if skeleton is None else f"({len(thresholds)}, {len(skeleton)})"
            raise ValueError(f"per_joint must be {size}, got {np.shape(per_joint)}.")
        dashes = {"left": "--", "right": "-", "middle": ":"}
        for k, (rgb, side) in enumerate(zip(joint_colors(skeleton), sides(skeleton), strict=True)):
            color = tuple(float(c) for c in np.asarray(rgb) / 255 * 0.85)
            axes.plot(thresholds, np.asarray(per_joint)[:, k], color=color, linewidth=0.9, linestyle=dashes[side],
                      alpha=0.85, label=_label(skeleton.keypoints[k]))  # fmt: skip
    axes.plot(thresholds, values, color=_THEMES[theme]["text"], linewidth=2.4, label="all")
    axes.set_ylim(0, 1.01)
    axes.set_xlim(float(thresholds.min()), float(thresholds.max()))
    _style(axes, theme, xlabel=xlabel, ylabel=ylabel)
    if per_joint is not None:
        legend = axes.legend(
            fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, ncols=1 + len(axes.lines) // 19
        )
        for text in legend.get_texts():
            text.set_color(_THEMES[theme]["text"])
    return figure


def reliability(stated: np.ndarray, right: np.ndarray, *, theme: Theme = "light") -> "Figure":
    """Return a reliability diagram: the share that is right over the stated probability, beside the diagonal.

    Args:
        stated: ``(B,)`` mean probability of each bin.
        right: ``(B,)`` share that is right in each bin.
        theme: Colours for a light or dark background.

    Source:
        Guo et al. 2017, figure 1, https://arxiv.org/abs/1706.04599.
    """
    figure = _figure((3.8, 3.6), theme)
    axes = figure.add_subplot()
    text = _THEMES[theme]["text"]
    axes.plot([0, 1], [0, 1], color=text, linewidth=0.9, linestyle=":", label="perfect")
    axes.plot(stated, right, color=text, linewidth=1.6, marker="o", markersize=4, label="measured")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    _style(axes, theme, xlabel="stated probability", ylabel="share of keypoints that are right")
    _legend(axes, theme)
    return figure


def joint_bars(values: Mapping[str, float], *, xlabel: str = "PCK", theme: Theme = "light") -> "Figure":
    """Return a figure with a bar per joint, coloured by side.

    Args:
        values: Keypoint name to a result in [0, 1]; NaN is shown as not measured.
        xlabel: What the result is.
        theme: Colours for a light or dark background.

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("Bars per joint need at least one keypoint, got none.")
    skeleton = Skeleton("bars", tuple(values))
    numbers = np.array(list(values.values()), dtype=np.float64)
    there = np.isfinite(numbers)
    figure = _figure((5.4, 0.7 + 0.22 * len(values)), theme)
    axes = figure.add_subplot()
    rows = np.arange(len(values))
    axes.barh(rows, np.where(there, numbers, 0), color=[_SIDE_BARS[s] for s in sides(skeleton)], height=0.72)
    top = max(1.0, float(numbers[there].max(initial=0.0)))
    for row, (number, known) in enumerate(zip(numbers, there, strict=True)):
        words = f"{number:.3f}" if known else "not measured"
        axes.text((number if known else 0) + 0.01 * top, row, words, va="center", fontsize=7.5,
                  color=_THEMES[theme]["text"])  # fmt: skip
    _name_rows(axes, list(values))
    axes.set_xlim(0, 1.1 * top)
    _style(axes, theme, xlabel=xlabel, grid="x")
    return figure


def error_breakdown(errors: Mapping[str, Mapping[str, float]], *, theme: Theme = "light") -> "Figure":
    """Return a figure of what each joint's predictions are: one stacked bar per joint.

    Args:
        errors: Keypoint name to ``{"good": 0.7, "jitter": 0.1, "inversion": ..., "swap": ..., "miss": ...}``: fractions
            or counts (each bar is scaled to its sum). Other keys are ignored; "good" may be missing, then the bars show
            only the errors.
        theme: Colours for a light or dark background.

    Raises:
        ValueError: No keypoints, or none of the known kinds in any of them.
    """
    kinds = [kind for kind in ERROR_KINDS if any(kind in row for row in errors.values())]
    if not kinds:
        raise ValueError(
            f"An error breakdown needs keypoints with some of {', '.join(ERROR_KINDS)}, got "
            f"{ {name: list(row) for name, row in list(errors.items())[:2]} }."
        )
    table = np.array([[row.get(kind, 0.0) for kind in kinds] for row in errors.values()], dtype=np.float64)
    table = np.where(np.isfinite(table), np.maximum(table, 0), 0)
    total = table.sum(axis=1, keepdims=True)
    share = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
    figure = _figure((5.4, 1.0 + 0.22 * len(errors)), theme)
    axes = figure.add_subplot()
    left = np.zeros(len(errors))
    for column, kind in enumerate(kinds):
        axes.barh(np.arange(len(errors)), share[:, column], left=left, height=0.72, color=_ERROR_COLORS[kind],
                  label=kind)  # fmt: skip
        left = left + share[:, column]
    _name_rows(axes, list(errors))
    axes.set_xlim(0, 1)
    _style(
        axes,
        theme,
        xlabel="fraction of labelled keypoints" if "good" in kinds else "fraction of wrong keypoints",
        grid="x",
    )
    legend = axes.legend(
        fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(kinds), frameon=False, handlelength=1.0
    )
    for text in legend.get_texts():
        text.set_color(_THEMES[theme]["text"])
    return figure


_MOST_NODES = 64
"""Channels of a row up to which lines can be told apart."""


def channel_dependency(
    steps: Mapping[str, np.ndarray], *, output: int = 0, title: str = "", theme: Theme = "light"
) -> "Figure":
    """Return a drawing of which channels depend on which: a row of nodes before and after each step, and lines.

    Inputs are on top and outputs below. Everything that one output depends on is highlighted, step by step, up to its
    channel receptive field among the inputs. With more than 64 channels in a row, the steps are combined and drawn as a
    matrix, a row for each output.

    Args:
        steps: Name to ``(outputs, inputs)`` bool, in the order in which they are applied.
        output: Output channel whose field is highlighted.
        title: Line above the drawing.
        theme: Colours for a light or dark background.

    Raises:
        ValueError: No steps, steps that do not fit each other, or no such output channel.

    Source:
        Zhang 2018, https://arxiv.org/abs/1712.06145, figure 2.
    """
    tables = [np.asarray(table, bool) for table in steps.values()]
    if not tables:
        raise ValueError("A channel dependency graph needs at least one step, got none.")
    for (name, table), before in zip(list(steps.items())[1:], tables, strict=False):
        if np.shape(table)[1] != before.shape[0]:
            raise ValueError(f"Step {name!r} takes {np.shape(table)[1]} channels, but gets {before.shape[0]}.")
    if not 0 <= output < len(tables[-1]):
        raise ValueError(f"output must be from 0 to {len(tables[-1]) - 1}, got {output}.")
    fields = [np.arange(len(tables[-1])) == output]
    for table in reversed(tables):
        fields.insert(0, table[fields[0]].any(0))
    words = f"output {output} depends on {int(fields[0].sum())} of {len(fields[0])} inputs"
    counts = [tables[0].shape[1], *(len(table) for table in tables)]
    if max(counts) > _MOST_NODES:
        whole = tables[0]
        for table in tables[1:]:
            whole = (table.astype(np.float32) @ whole.astype(np.float32)) > 0
        figure = _figure((5.0, 4.4), theme)
        axes = figure.add_subplot()
        axes.imshow(whole, cmap="Greys", vmin=0, vmax=1.4, interpolation="nearest", aspect="auto")
        _style(axes, theme, xlabel="input channel", ylabel="output channel", title=title or words)
        axes.grid(False)
        return figure
    figure = _figure((max(3.6, 0.19 * max(counts) + 1.6), 1.1 * len(tables) + 0.7), theme)
    axes = figure.add_subplot()
    colors = _THEMES[theme]
    places = [(np.arange(count) - (count - 1) / 2) * (max(counts) - 1) / max(count - 1, 1) for count in counts]
    for row, (name, table) in enumerate(zip(steps, tables, strict=True)):
        for lit in (False, True):
            chosen = table & fields[row + 1][:, None]
            to, of = np.nonzero(chosen if lit else table & ~chosen)
            axes.plot(
                np.stack([places[row][of], places[row + 1][to]]), np.tile([[-row], [-row - 1]], len(of)),
                color=_LINES[0] if lit else _LINES[5], linewidth=1.1 if lit else 0.5, alpha=1.0 if lit else 0.45,
                zorder=2 + lit,
            )  # fmt: skip
        axes.text(places[0].min() - 1.0, -row - 0.5, _label(name), ha="right", va="center", fontsize=8,
                  color=colors["text"])  # fmt: skip
    for row, (place, field) in enumerate(zip(places, fields, strict=True)):
        face = [_LINES[0] if lit else colors["ground"] for lit in field]
        axes.scatter(
            place, np.full(len(place), -row), s=26, c=face, edgecolors=colors["text"], linewidths=0.7, zorder=5
        )
    for row, words_at in ((0, "inputs"), (len(tables), "outputs")):
        axes.text(places[0].min() - 1.0, -row, words_at, ha="right", va="center", fontsize=8, color=colors["text"])
    axes.set_title(_label(f"{title}: {words}" if title else words), fontsize=9, color=colors["text"], loc="left")
    axes.set_axis_off()
    return figure


def _column_kind(name: str) -> str:
    words = set(re.split(r"[^a-z]+", name.lower())) - {""}
    if words & {"pck", "pckh", "ap", "ar", "auc", "oks", "accuracy", "score", "map"}:
        return "score"
    if words & {"lr"} or {"learning", "rate"} <= words:
        return "learning rate"
    other = {"epoch", "step", "time", "second", "seconds", "eta", "images", "speed", "memory", "norm", "samples", "s"}
    return "other" if words & other else "loss"


def _label(name: str) -> str:
    """Return a name that matplotlib shows unchanged: no mathematics, no leading underscore (which hides it)."""
    return printable(str(name)).replace("$", r"\$").lstrip("_")[:60] or " "


def _figure(size_inch: tuple[float, float], theme: Theme) -> "Figure":
    if theme not in _THEMES:
        raise ValueError(f"theme must be 'light' or 'dark', got {theme!r}.")
    from matplotlib.figure import Figure

    return Figure(figsize=size_inch, dpi=120, layout="constrained", facecolor=_THEMES[theme]["ground"])


def _style(
    axes: "Axes", theme: Theme, *, title: str = "", xlabel: str = "", ylabel: str = "", grid: Any = "both"
) -> None:
    colors = _THEMES[theme]
    axes.set_facecolor(colors["ground"])
    axes.set_axisbelow(True)
    axes.grid(True, axis=grid, color=colors["grid"], linewidth=0.8)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(colors["grid"])
    axes.tick_params(colors=colors["text"], labelsize=8, which="both", length=0)
    axes.set_title(_label(title), fontsize=9, color=colors["text"], loc="left")
    axes.set_xlabel(_label(xlabel), fontsize=8.5, color=colors["text"])
    axes.set_ylabel(_label(ylabel), fontsize=8.5, color=colors["text"])


def _legend(axes: "Axes", theme: Theme) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(fontsize=7.5, frameon=False, loc="best")
    for text in legend.get_texts():
        text.set_color(_THEMES[theme]["text"])


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), [_label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
