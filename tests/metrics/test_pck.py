from pathlib import Path

import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import LSP14, MPII16
from poseglass.metrics.pck import NORMALISERS, Pck, auc, length_px, normalised_distance, pck, pck_curve, pckh

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

SHARED = Path(__file__).parents[2] / ".." / "shared"
ARM = Skeleton("arm", ("left_shoulder", "right_shoulder", "left_hip", "right_hip", "left_wrist"))
"""Shoulders at the top, hips below: with ``body`` the diagonals of the torso are 50 long."""


def body(n=1, wrist=(0.0, 0.0)):
    return np.tile(np.array([[0.0, 0], [30, 0], [0, 40], [30, 40], wrist]), (n, 1, 1))


def people(xy, skeleton=ARM, **extra):
    return Instances.from_keypoints(skeleton, np.asarray(xy), extra={k: np.asarray(v) for k, v in extra.items()})


def scored(metric, *pairs):
    for predicted, truth in pairs:
        metric.update(predicted, truth)
    return metric.compute()


def random_people(seed, n=3):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 100, (n, 14, 2))
    predicted = truth + rng.normal(0, 15, truth.shape)
    truth[rng.random((n, 14)) < 0.2] = np.nan
    predicted[rng.random((n, 14)) < 0.1] = np.nan
    return people(predicted, LSP14), people(truth, LSP14)


@pytest.mark.parametrize(
    ("comparator", "expected"),
    [("<=", 1.0), ("<", 0.8)],  # one of five keypoints is exactly at the threshold
)
def test_comparator_decides_an_error_exactly_at_the_limit(comparator, expected):
    predicted = people(body(wrist=(10.0, 0.0)))
    results = scored(Pck(thresholds=(0.2,), comparator=comparator), (predicted, people(body())))
    assert results["pck@0.2"] == expected


@pytest.mark.parametrize(
    ("normaliser", "expected"),
    [
        ("torso", 50.0),
        ("torso_flic", 50.0),
        ("box_diagonal", 50.0),
        ("box_side", 40.0),
        ("head", 12.0),
        ("extra:face_px", 7.0),
        (("left_shoulder", "right_shoulder"), 30.0),
        ("pixel", 1.0),
    ],
)
def test_every_normaliser(normaliser, expected):
    truth = people(body(2), head_px=[12.0, 12.0], face_px=[7.0, 7.0])
    assert length_px(truth, normaliser).tolist() == [expected] * 2
    assert set(NORMALISERS) == {"torso", "torso_flic", "box_diagonal", "box_side", "head", "pixel"}


def test_people_without_all_four_torso_joints_are_left_out():
    truth = body(3)
    truth[1, 0] = np.nan
    truth[2, 4] = np.nan
    metric = Pck()
    results = scored(metric, (people(body(3)), people(truth)))
    assert metric.people == 2
    assert np.isnan(metric.distance[1]).all()
    assert sum(row["count"] for row in metric.table().values()) == 9
    assert results["pck@0.2"] == 1.0


def test_missing_predictions_are_wrong_and_unknown_truth_does_not_count():
    predicted, truth = body(2), body(2)
    predicted[0, 4] = np.nan
    truth[1, 4] = np.nan
    metric = Pck()
    results = scored(metric, (people(predicted), people(truth)))
    assert results["pck@0.2"] == pytest.approx(8 / 9)
    assert metric.table()["left_wrist"] == {"count": 1, "pck@0.2": 0, "pck_auc@0.2": 0, "median": np.inf}


def test_a_keypoint_predicted_with_score_zero_is_missing():
    predicted = people(body())
    predicted = Instances(ARM, predicted.xy, np.array([[1, 1, 1, 1, 0.0]]), predicted.box_xyxy, predicted.box_score)
    assert scored(Pck(), (predicted, people(body())))["pck@0.2"] == pytest.approx(0.8)


def test_the_means_are_those_of_their_names():
    # The wrist is labelled once and wrong, the four others twice and right.
    predicted, truth = body(2), body(2)
    predicted[0, 4] = 100
    truth[1, 4] = np.nan
    results = scored(Pck(excluded=("left_hip", "right_hip")), (people(predicted), people(truth)))
    assert results["pck@0.2/micro"] == pytest.approx(4 / 5)
    assert results["pck@0.2/macro"] == pytest.approx(2 / 3)
    assert results["pck@0.2/micro_all"] == pytest.approx(8 / 9)
    assert results["pck@0.2/macro_all"] == pytest.approx(4 / 5)
    assert results["pck@0.2"] == results["pck@0.2/micro"]
    other = scored(Pck(excluded=("left_hip", "right_hip"), mean="macro"), (people(predicted), people(truth)))
    assert other["pck@0.2"] == results["pck@0.2/macro"]


def test_noise_of_single_precision_in_a_length_does_not_decide():
    truth = people(body(wrist=(502.9999939, 0)), head_px=[29.99999926757812])
    results = scored(pckh(thresholds=(0.1,), excluded=()), (people(body(wrist=(500.0, 0))), truth))
    assert results["pckh@0.1"] == 1.0


def test_auc_is_the_limit_of_the_trapezoids_and_of_the_curve():
    distance = np.random.default_rng(0).exponential(0.3, 500)
    distance[:20] = np.nan
    distance[20:60] = np.inf
    assert auc(distance, 0.5, steps=20000) == pytest.approx(auc(distance, 0.5), abs=1e-4)
    thresholds = np.linspace(0, 0.5, 11)
    by_hand = [np.mean(distance[20:] <= x) for x in thresholds]
    np.testing.assert_allclose(pck_curve(distance, thresholds), by_hand)
    assert np.isnan(auc(np.array([np.nan]), 0.5))
    assert np.isnan(auc(np.array([np.nan]), 0.5, steps=5))


def test_curve_meets_the_results_at_its_thresholds():
    metric = Pck(thresholds=(0.1, 0.2), excluded=("neck",))
    results = scored(metric, *(random_people(seed) for seed in range(5)))
    thresholds, micro, per_joint = metric.curve(steps=10)
    assert thresholds[-1] == 0.2
    assert per_joint.shape == (11, 14)
    assert micro[-1] == results["pck@0.2"]
    assert micro[5] == results["pck@0.1"]
    assert per_joint[-1].tolist() == [row["pck@0.2"] for row in metric.table().values()]


def test_pairs_of_the_table_are_the_mean_of_both_sides():
    metric = Pck()
    scored(metric, *(random_people(seed) for seed in range(5)))
    single, pairs = metric.table(), metric.table(pairs=True)
    assert list(pairs) == ["ankle", "knee", "hip", "wrist", "elbow", "shoulder", "neck", "head_top"]
    both = single["left_knee"]["pck@0.2"] + single["right_knee"]["pck@0.2"]
    assert pairs["knee"]["pck@0.2"] == pytest.approx(both / 2)
    assert pairs["neck"] == single["neck"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["<=", "<"]), st.sampled_from(["torso", "box_side", "pixel"]))
def test_properties_of_any_pck(seed, comparator, normaliser):
    pairs = [random_people(seed + i) for i in range(3)]
    results = scored(Pck(normaliser, comparator=comparator), *pairs)
    # The order of images does not matter, nor do two processes.
    assert scored(Pck(normaliser, comparator=comparator), *pairs[::-1]) == pytest.approx(results, nan_ok=True)
    one, two = Pck(normaliser, comparator=comparator), Pck(normaliser, comparator=comparator)
    scored(one, pairs[0]), scored(two, *pairs[1:])
    one.merge(two)
    assert one.compute() == pytest.approx(results, nan_ok=True)
    # What is predicted for an unknown keypoint does not matter.
    moved = [(people(np.where(t.known[..., None], p.xy, 5.0), LSP14), t) for p, t in pairs]
    assert scored(Pck(normaliser, comparator=comparator), *moved) == pytest.approx(results, nan_ok=True)
    # The truth itself scores best, something far away worst.
    best = scored(Pck(normaliser, comparator=comparator), *((t, t) for _, t in pairs))
    far = [(people(t.xy + 1e5, LSP14), t) for _, t in pairs]
    worst = scored(Pck(normaliser, comparator=comparator), *far)
    for key, value in results.items():
        assert np.isnan(value) or worst[key] == 0 <= value <= best[key] == 1


def test_no_images_and_no_people():
    metric = pckh()
    assert all(np.isnan(value) for value in metric.compute().values())
    assert metric.table() == {}
    metric.update(Instances.empty(MPII16), Instances.empty(MPII16))
    assert np.isnan(metric.compute()["pckh@0.5"])
    assert metric.table()["neck"]["count"] == 0


def test_normalised_distance_takes_one_length_for_all():
    assert normalised_distance(np.ones((1, 1, 2)), np.zeros((1, 1, 2)), 2**0.5).item() == pytest.approx(1)
    assert np.isnan(normalised_distance(np.ones((1, 1, 2)), np.zeros((1, 1, 2)), 0.0)).all()


@pytest.mark.parametrize(
    ("numbers", "error", "match"),
    [
        ({"thresholds": ()}, ValueError, r"PCK thresholds must be above 0, got thresholds=\(\)"),
        ({"thresholds": (0.0,)}, ValueError, "PCK thresholds must be above 0"),
        ({"auc_to": -1.0}, ValueError, "auc_to=-1.0"),
        ({"comparator": "=<"}, ValueError, "comparator must be '<=' or '<', got '=<'"),
        ({"mean": "average"}, ValueError, "mean must be 'micro' or 'macro', got 'average'"),
        ({"normaliser": "torsoo"}, LookupError, "Unknown normaliser 'torsoo'. Did you mean 'torso'?"),
    ],
)
def test_bad_numbers(numbers, error, match):
    with pytest.raises(error, match=match):
        Pck(**numbers)


def test_bad_use():
    truth = people(body(2))
    with pytest.raises(ValueError, match=r"Rows of predictions.*got 1 predicted and 2 true.*align"):
        Pck().update(people(body(1)), truth)
    with pytest.raises(ValueError, match=r"'lsp14' \(14 keypoints\), labels in 'arm' \(5\); use predicted.in_skeleton"):
        Pck().update(people(np.zeros((2, 14, 2)), LSP14), truth)
    with pytest.raises(LookupError, match=r"no extra\['head_px'\] to divide errors by \(they have: none\)"):
        pckh(excluded=()).update(truth, truth)
    with pytest.raises(ValueError, match=r"no keypoint 'pelvis' to exclude.*excluded=\(\) excludes none"):
        pckh().update(truth, truth)
    metric = Pck()
    metric.update(truth, truth)
    other = people(np.zeros((2, 14, 2)), LSP14)
    with pytest.raises(ValueError, match="has seen skeleton 'arm' and now gets 'lsp14'"):
        metric.update(other, other)
    with pytest.raises(ValueError, match="Only metrics with the same fields can be merged"):
        metric.merge(Pck(thresholds=(0.1,)))
    second = Pck()
    second.update(other, other)
    with pytest.raises(ValueError, match="Only metrics of one skeleton can be merged, got 'arm' and 'lsp14'"):
        metric.merge(second)
    with pytest.raises(ValueError, match="needs a highest threshold above 0 and at least 1 step"):
        auc(np.zeros(3), 0.5, steps=0)
    with pytest.raises(ValueError, match="comparator must be"):
        pck(np.zeros(3), 0.5, ">")  # type: ignore[arg-type]


def read_published_mpii_validation(folder: Path) -> tuple[Instances, Instances]:
    """Return 2,958 validation people: the 8-stack network's published predictions, and the labels with head sizes."""
    import h5py
    from scipy.io import loadmat

    with h5py.File(folder / "valid-ours.h5") as file:
        predicted = np.asarray(file["preds"])
    official = loadmat(folder / "detections_our_format.mat")
    truth = official["pos_gt_src"].transpose(2, 0, 1)
    truth = np.where(official["jnt_missing"].T[..., None] == 0, truth, np.nan)
    head_box = official["headboxes_src"]
    head_px = 0.6 * np.linalg.norm(head_box[1] - head_box[0], axis=0)
    with h5py.File(folder / "valid.h5") as file:  # the same people in the same order
        np.testing.assert_allclose(head_px, np.asarray(file["normalize"]), atol=1e-3)
    return Instances.from_keypoints(MPII16, predicted), people(truth, MPII16, head_px=head_px)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data/mpii").is_dir(), reason="no ../shared/data/mpii")
def test_published_figures_of_the_original_network_on_mpii():
    predicted, truth = read_published_mpii_validation(SHARED / "data/mpii")
    metric = pckh()
    for row in range(len(truth)):
        metric.update(predicted[row], truth[row])
    results = metric.compute()
    assert round(100 * results["pckh@0.5"], 3) == 88.035
    assert round(100 * results["pckh@0.1"], 3) == 28.647
    assert metric.people == 2958
    assert results["pckh@0.5/micro"] != results["pckh@0.5/macro"] != results["pckh@0.5/macro_all"]
    table = metric.table(pairs=True)
    assert table["head_top"]["pckh@0.5"] > table["shoulder"]["pckh@0.5"] > table["wrist"]["pckh@0.5"]


def test_a_skeleton_without_hips_has_no_torso():
    hand = Skeleton("hand", ("wrist", "left_shoulder", "tip"))
    truth = people(np.zeros((1, 3, 2)), hand)
    with pytest.raises(LookupError, match=r"'hand' has no left_hip and no right_hip .*--normaliser box_diagonal"):
        Pck().update(truth, truth)
