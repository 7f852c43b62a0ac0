import html

import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import FLIC11, LSP14, MPII16
from poseglass.evaluation.evaluate import Evaluation
from poseglass.evaluation.report import render_report
from poseglass.evaluation.summary import report_of, usual_pck
from poseglass.metrics.pck import Pck
from poseglass.synthetic import synthetic_people


def evaluation(errors_px: list[float], skeleton: Skeleton = LSP14, **results: float) -> tuple[Evaluation, object]:
    """One synthetic person an image; the prediction is off by a number of pixels."""
    data = synthetic_people(len(errors_px), seed=4, size_wh=(96, 96), skeleton=skeleton)
    truth = [data.instances(i) for i in range(len(data))]
    found = [
        Instances.from_keypoints(skeleton, t.xy + np.array([e, 0.0]), box_xyxy=t.box_xyxy)
        for t, e in zip(truth, errors_px, strict=True)
    ]
    metric = Pck("torso", (0.2,))
    for f, t in zip(found, truth, strict=True):
        metric.update(f, t)
    made = Evaluation(
        skeleton, list(range(len(data))), found, truth, [data.source(i) for i in range(len(data))],
        metric.compute() | results, metric.table(),
    )  # fmt: skip
    return made, data


def test_poses_that_are_nobodys_in_particular_make_no_report():
    found = Evaluation(LSP14, [], [], [], [], {}, {}, paired=False)
    with pytest.raises(ValueError, match="poses are not paired with labelled people"):
        report_of(found, synthetic_people(1, seed=0), title="none")


def test_best_and_worst_are_the_people_with_the_smallest_and_largest_errors():
    errors = [0.0, 1.0, 2.0, 30.0, 40.0, 50.0]
    result, data = evaluation(errors)
    report = report_of(result, data, title="t", pck=Pck("torso", (0.2,)), examples=2)
    assert [e[0] for e in report.examples] == [f"synthetic-4-{i}" for i in (0, 1, 5, 4)]
    assert [e[4] for e in report.examples] == [1.0, 1.0, 0.0, 0.0]
    for caption, image, truth, found, _ in report.examples:
        assert image.shape == (288, 288, 3)
        off = found.xy - truth.xy  # moved into the crop together, and scaled as the image is
        i = int(caption.rpartition("-")[2])
        scale = np.nanmedian(off[..., 0]) / errors[i] if errors[i] else 1.0
        assert scale >= 1.0
        inside = (truth.xy[truth.known] > 0) & (truth.xy[truth.known] < 288)
        assert inside.all()


def test_nobody_is_shown_twice():
    for count in (1, 2, 3, 5):
        result, data = evaluation([float(i) for i in range(count)])
        captions = [e[0] for e in report_of(result, data, title="t", examples=8).examples]
        assert sorted(captions) == [f"synthetic-4-{i}" for i in range(count)]


@pytest.mark.slow
def test_every_part_reaches_the_page():
    result, data = evaluation([0.0, 1.0, 20.0], other=0.125)
    report = report_of(
        result,
        data,
        title="a title",
        headline_first="other",
        curve=[{"epoch": 1.0, "loss": 2.0}, {"epoch": 2.0, "loss": 1.0}],
        best=("loss", 1),
        recipe='name = "x"',
        environment={"torch": "9"},
        notes=["a note"],
    )
    assert next(iter(report.headline)) == "other"
    assert report.headline["people"] == 3
    assert report.threshold_name == "error, in torso lengths"
    page = html.unescape(render_report(report))
    for words in (
        "a title", "a note", 'name = "x"', "right_ankle", "Kinds of error",
        "pck@0.2", "Training curves over 2 rows", "The best weights are from row 2, loss 1.000.",
    ):  # fmt: skip
        assert words in page, words


def test_the_metric_given_is_left_as_it_is():
    result, data = evaluation([0.0, 1.0])
    metric = Pck("torso", (0.5,))
    metric.update(result.predicted[0], result.truth[0])
    report = report_of(result, data, title="t", pck=metric)
    assert len(metric.distance) == 1
    assert report.result_name == "pck@0.5"
    assert report.pck_curve is not None
    assert report.pck_curve[0][-1] == 0.5


def people(skeleton: Skeleton, **extra: np.ndarray) -> list[Instances]:
    xy = np.random.default_rng(0).uniform(0, 100, (2, len(skeleton), 2))
    return [Instances.from_keypoints(skeleton, xy, extra=extra)]


def test_the_pck_that_suits_the_labels():
    assert usual_pck(LSP14, people(LSP14)).normaliser == "torso"
    assert usual_pck(MPII16, people(MPII16, head_px=np.array([9.0, 8.0]))).name == "pckh"
    assert usual_pck(MPII16, people(MPII16, head_px=np.array([9.0, 8.0]))).excluded == ("pelvis", "thorax")
    assert usual_pck(FLIC11, people(FLIC11, head_px=np.array([9.0, 8.0]))).excluded == ()
    hand = Skeleton("hand", ("tip", "root"))
    assert usual_pck(hand, people(hand)).normaliser == "box_diagonal"
    no_hips = people(LSP14)
    no_hips[0].score[:, LSP14.index("left_hip")] = 0
    assert usual_pck(LSP14, no_hips).normaliser == "box_diagonal"


@pytest.mark.slow
def test_people_of_unknown_length_are_not_ranked_but_reported():
    result, data = evaluation([0.0, 1.0])
    for truth in result.truth:
        truth.score[:, LSP14.index("left_hip")] = 0
    report = report_of(result, data, title="t", pck=Pck("torso", (0.2,)))
    assert report.examples == ()
    assert report.pck_curve is None
    assert "Kinds of error" in render_report(report)
