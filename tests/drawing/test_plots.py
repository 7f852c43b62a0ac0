import sys
import threading

import cv2
import numpy as np
import pytest

from poseglass.core.skeletons import LSP14
from poseglass.drawing.plots import (
    ERROR_KINDS,
    channel_dependency,
    error_breakdown,
    joint_bars,
    pck_curve,
    to_png,
    training_curves,
)


def decoded(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def rows() -> list[dict[str, float]]:
    return [
        {"epoch": float(e), "loss": 0.1 * 0.8**e, "heatmap/0": 0.05 * 0.8**e, "lr": 1e-3, "images_per_second": 90.0}
        | ({"val/pck@0.2": 0.05 * e} if e % 2 == 0 else {"val/pck@0.2": float("nan")})
        for e in range(11)
    ]


def test_columns_sort_themselves_into_losses_scores_and_rate():
    figure = training_curves(rows())
    labels = [[str(line.get_label()) for line in axes.get_lines()] for axes in figure.axes]
    assert labels[0] == ["loss", "heatmap/0"]
    assert labels[1][0] == "val/pck@0.2"
    assert labels[2] == ["lr"]
    score = figure.axes[1].get_lines()[0]
    assert np.asarray(score.get_xdata()).tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(("best", "texts"), [(None, []), (("val/pck@0.2", 8), ["0.4"]), (("loss", 10), ["0.0107"])])
def test_the_row_of_the_best_weights_is_marked(best, texts):
    figure = training_curves(rows(), best=best)
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == texts


def test_curves_without_epoch_one_row_and_broken_values():
    for some in ([{"loss": 1.0}], [{"loss": float("nan")}, {"loss": float("inf")}], [{"epoch": 1.0}], [{"pck": 0.5}]):
        assert decoded(to_png(training_curves(some))).shape[2] == 3
    with pytest.raises(ValueError, match="at least one row, got none"):
        training_curves([])


def test_pck_curve_draws_all_and_each_joint():
    thresholds = np.linspace(0, 0.5, 20)
    figure = pck_curve(thresholds, thresholds * 2, per_joint=np.tile(thresholds[:, None], (1, 14)), skeleton=LSP14)
    assert len(figure.axes[0].get_lines()) == 15
    assert np.allclose(figure.axes[0].get_lines()[-1].get_ydata(), thresholds * 2)
    with pytest.raises(ValueError, match=r"thresholds \(T,\) and values \(T,\), T > 1, got \(20,\), \(19,\)"):
        pck_curve(thresholds, thresholds[1:])
    with pytest.raises(ValueError, match=r"per_joint must be \(20, 14\), got \(20, 3\)"):
        pck_curve(thresholds, thresholds, per_joint=np.zeros((20, 3)), skeleton=LSP14)


def test_bars_have_the_values_and_mark_what_was_not_measured():
    axes = joint_bars({"left_knee": 0.25, "right_knee": 0.75, "head": float("nan")}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.75, 0.0]  # type: ignore[attr-defined]
    assert axes.texts[2].get_text() == "not measured"
    with pytest.raises(ValueError, match="at least one keypoint, got none"):
        joint_bars({})


def test_breakdown_scales_counts_and_ignores_other_columns():
    errors = {"left_knee": {"count": 10.0, "good": 6, "jitter": 2, "miss": 2}, "head": {"good": float("nan")}}
    axes = error_breakdown(errors).axes[0]
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert widths == pytest.approx([0.6, 0, 0.2, 0, 0.2, 0])
    with pytest.raises(ValueError, match="some of good, jitter, inversion, swap, miss"):
        error_breakdown({"left_knee": {"count": 3.0}})


def test_kinds_are_those_of_the_metric():
    from poseglass.metrics.errors import KINDS

    assert ERROR_KINDS == KINDS


def test_strange_names_are_shown_as_they_are():
    names = ["$x_{", "_hidden", "日本", "a\nb", "\\frac"]
    png = to_png(joint_bars({name: 0.5 for name in names}))
    assert decoded(png).any()
    figure = training_curves([{f"loss {n}": 1.0 for n in names}, {f"loss {n}": 2.0 for n in names}])
    assert decoded(to_png(figure)).any()


def test_themes_and_no_state_of_pyplot():
    light, dark = (decoded(to_png(joint_bars({"a": 0.5}, theme=t))) for t in ("light", "dark"))
    assert light[0, 0].min() > 240
    assert dark[0, 0].max() < 60
    with pytest.raises(ValueError, match="theme must be 'light' or 'dark', got 'blue'"):
        joint_bars({"a": 0.5}, theme="blue")  # type: ignore[arg-type]
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_figures_can_be_drawn_in_a_thread_and_come_out_the_same():
    out: list[bytes] = []
    threads = [threading.Thread(target=lambda: out.append(to_png(joint_bars({"a": 0.5})))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(out) == 2
    assert out[0] == out[1]


def two_steps() -> dict[str, np.ndarray]:
    """Pairs, then the first and the last half."""
    return {"pairs": np.kron(np.eye(4), np.ones((2, 2))) > 0, "halves": np.kron(np.eye(2), np.ones((3, 4))) > 0}


def test_the_channel_graph_has_a_line_for_each_dependency_and_the_field_of_one_output_stands_out():
    figure = channel_dependency(two_steps(), output=4, title="a block")
    axes = figure.axes[0]
    lines = axes.get_lines()
    assert len(lines) == 16 + 24
    lit = [line for line in lines if line.get_linewidth() > 1]
    assert len(lit) == 8 + 4  # the last half of the channels between, and the two inputs of each
    assert axes.get_title("left") == "a block: output 4 depends on 4 of 8 inputs"
    assert [text.get_text() for text in axes.texts] == ["pairs", "halves", "inputs", "outputs"]
    nodes = [len(np.asarray(dots.get_offsets())) for dots in axes.collections]
    assert nodes == [8, 8, 6]
    assert decoded(to_png(figure)).shape[2] == 3


def test_a_channel_graph_of_many_channels_is_a_matrix_of_the_whole():
    steps = {"one": np.eye(100, dtype=bool), "other": np.roll(np.eye(100, dtype=bool), 3, 1)}
    axes = channel_dependency(steps, theme="dark").axes[0]
    assert np.array_equal(np.asarray(axes.images[0].get_array()), steps["other"])
    assert axes.get_title("left") == "output 0 depends on 1 of 100 inputs"


def test_steps_that_make_no_channel_graph():
    with pytest.raises(ValueError, match="at least one step, got none"):
        channel_dependency({})
    with pytest.raises(ValueError, match=r"Step 'b' takes 3 channels, but gets 4\."):
        channel_dependency({"a": np.ones((4, 2), bool), "b": np.ones((2, 3), bool)})
    with pytest.raises(ValueError, match=r"output must be from 0 to 3, got 4\."):
        channel_dependency({"a": np.ones((4, 2), bool)}, output=4)
    with pytest.raises(ValueError, match="theme must be 'light' or 'dark', got 'blue'"):
        channel_dependency({"a": np.ones((4, 2), bool)}, theme="blue")  # type: ignore[arg-type]
