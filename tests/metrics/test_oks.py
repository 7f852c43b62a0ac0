import numpy as np
import pytest

from poseglass.core.boxes import around
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.metrics.average_precision import oks_ap
from poseglass.metrics.oks import OksAp, keypoint_similarity, known_sigmas, oks, oks_matrix, person_area

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

PLAIN = Skeleton("plain", ("a", "b"))


def random_image(seed, n=3, m=4):
    """Return predictions (some near a label) and labels of one image, in whole hundredths of a pixel."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 200, (m, 1, 2)) + rng.uniform(0, 80, (m, 17, 2)).round(2)
    predicted = truth[rng.integers(0, m, n)] + (rng.normal(0, 1, (n, 17, 2)) * rng.uniform(0, 9, (n, 1, 1))).round(2)
    box_xyxy = around(truth)
    truth[rng.random((m, 17)) < 0.3] = np.nan
    truth[1:2] = np.nan  # somebody without a keypoint, if there are two
    extra = {"area": rng.uniform(500, 12000, m), "crowd": rng.random(m) < 0.2}
    labels = Instances.from_keypoints(COCO17, truth, box_xyxy=box_xyxy, extra=extra)
    guess = Instances.from_keypoints(COCO17, predicted, score=np.ones((n, 17)))
    return Instances(COCO17, guess.xy, guess.score, guess.box_xyxy, rng.random(n)), labels


def as_coco(images):
    """Return a COCO dataset and results of the same images, ids in the same order."""
    annotations, results = [], []
    for i, (predicted, truth) in enumerate(images):
        for n in range(len(truth)):
            points = np.where(truth.known[n][:, None], truth.xy[n], 0.0)
            flat = np.concatenate([points, truth.known[n][:, None] * 2], -1).astype(float)
            box = truth.box_xyxy[n].astype(float)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 1,
                    "keypoints": flat.ravel().tolist(),
                    "num_keypoints": int(truth.known[n].sum()),
                    "area": float(truth.extra["area"][n]),
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "iscrowd": int(truth.extra["crowd"][n]),
                }
            )
        results += predicted.to_coco(image_id=i)
    dataset = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": 1}], "annotations": annotations}
    return dataset, results


def results_of(images, **numbers):
    metric = OksAp(**numbers)
    for predicted, truth in images:
        metric.update(predicted, truth)
    return metric.compute()


@pytest.mark.parametrize("seed", range(4))
def test_instances_give_the_figures_of_their_own_coco_json(seed):
    images = [random_image(100 * seed + i, n=i % 5, m=1 + i % 4) for i in range(30)]
    dataset, results = as_coco(images)
    expected = oks_ap(dataset, results, COCO17.sigmas).results()
    assert 0 < expected["AP"] < 1
    assert results_of(images) == pytest.approx(expected, abs=1e-6)


def test_a_matrix_is_one_pose_with_one_person_at_a_time():
    predicted, truth = random_image(0)
    matrix = oks_matrix(predicted, truth)
    sigmas = np.array(COCO17.sigmas)
    assert np.isnan(matrix[:, 1]).all()  # somebody without a keypoint
    for n in range(3):
        for m in (0, 2, 3):
            known = truth.known[m]
            squared = ((predicted.xy[n].astype(float) - truth.xy[m].astype(float))[known] ** 2).sum(-1)
            term = np.exp(-squared / (2 * truth.extra["area"][m] * (2 * sigmas[known]) ** 2))
            assert matrix[n, m] == pytest.approx(term.mean())


def test_missing_and_unknown_keypoints():
    truth, predicted = np.zeros((3, 2)), np.zeros((3, 2))
    truth[0], predicted[1] = np.nan, np.nan
    assert keypoint_similarity(predicted, truth, 100.0, (0.1,) * 3).tolist() == pytest.approx(
        [np.nan, 0, 1], nan_ok=True
    )
    assert oks(predicted, truth, 100.0, (0.1,) * 3) == 0.5
    assert np.isnan(oks(predicted, np.full((3, 2), np.nan), 100.0, (0.1,) * 3))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_properties(seed):
    images = [random_image(seed + i) for i in range(4)]
    results = results_of(images)
    # The order of images does not matter, nor do two processes.
    assert results_of(images[::-1]) == pytest.approx(results)
    one, two = OksAp(), OksAp()
    one.update(*images[0])
    for image in images[1:]:
        two.update(*image)
    one.merge(two)
    assert one.compute() == pytest.approx(results)
    # What stands at an unknown keypoint does not matter.
    hidden = [
        (p, Instances(COCO17, np.nan_to_num(t.xy, nan=7.0), t.score, t.box_xyxy, t.box_score, extra=t.extra))
        for p, t in images
    ]
    assert results_of(hidden) == pytest.approx(results)
    # The truth itself scores best, something far away worst.
    best = results_of([(t[~t.extra["crowd"]], t) for _, t in images])
    far = [(Instances(COCO17, p.xy + 1e5, p.score, p.box_xyxy, p.box_score), t) for p, t in images]
    worst = results_of(far)
    for name, value in results.items():
        assert (worst[name], value, best[name]) == (-1, -1, -1) or worst[name] == 0 <= value <= best[name] + 1e-9
        assert best[name] == pytest.approx(1) or value == -1


def test_missing_keypoints_lower_the_figure():
    _, truth = random_image(1)
    xy = truth.xy.copy()
    xy[:, ::2] = np.nan
    some = Instances.from_keypoints(COCO17, xy)
    assert 0 < results_of([(some, truth)])["AP"] < 0.8


def test_scores_order_the_detections():
    _, truth = random_image(2, m=1)
    xy = np.concatenate([np.nan_to_num(truth.xy), np.nan_to_num(truth.xy) + 300])
    truth = truth[:]
    truth.extra["crowd"][:] = False
    score = np.ones((2, 17))
    score[0] = 0.5
    people = Instances(COCO17, xy, score, np.tile([0, 0, 70, 70], (2, 1)), [0.9, 0.8])
    # By box score alone the right one comes first; times the keypoints' it comes second, behind a wrong one.
    assert results_of([(people, truth)], score="box")["AP"] == pytest.approx(1)
    assert results_of([(people, truth)])["AP"] == pytest.approx(0.5)


def test_categories_by_themselves():
    parts = [random_image(seed) for seed in (1, 2)]
    for predicted, truth in parts:
        truth.extra["crowd"][:] = False
        predicted.extra["category_id"] = np.full(len(predicted), 4)
        truth.extra["category_id"] = np.full(len(truth), 4)
    parts[1][0].extra["category_id"][:] = parts[1][1].extra["category_id"][:] = 9
    metric = OksAp(per_category=True)
    for predicted, truth in parts:
        metric.update(predicted, truth)
    table = metric.table()
    assert list(table) == ["4", "9"]
    assert table["9"] == pytest.approx(results_of(parts[1:]))
    assert metric.compute()["AP"] == pytest.approx((table["4"]["AP"] + table["9"]["AP"]) / 2)
    metric = OksAp(per_category=True)
    metric.update(Instances.empty(COCO17), Instances.empty(COCO17))
    assert metric.compute()["AP"] == -1


def test_area_from_the_box():
    _, truth = random_image(3, m=5)
    truth = truth[[0, 2, 3, 4]]
    plain = Instances.from_keypoints(COCO17, truth.xy)
    box = plain.box_xyxy
    expected = 0.53 * (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    assert person_area(plain, 0.53) == pytest.approx(expected)
    area = np.array([50.0, np.nan, 60.0, 70.0])
    mixed = Instances.from_keypoints(COCO17, truth.xy, extra={"area": area})
    assert person_area(mixed, 0.53).tolist() == pytest.approx([50, expected[1], 60, 70])
    assert results_of([(plain, plain)], box_area_factor=0.53)["AP"] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"extra\['area'\]; 1 of 4 people of 'coco17' have none.*box_area_factor=0.53"):
        person_area(mixed)


def test_predictions_without_a_box_take_the_extent_of_their_keypoints():
    # A small wrong detection: outside the range "large" by its extent, so it is not counted there.
    point = Skeleton("pair", ("a", "b"), sigmas=(0.05, 0.05))
    truth = Instances.from_keypoints(point, np.array([[[0.0, 0], [200, 200]]]), extra={"area": np.array([20000.0])})
    xy = np.array([[[500.0, 500], [510, 510]], [[0, 0], [200, 200]]])
    nan = np.full((2, 4), np.nan)
    found = Instances(point, xy, np.ones((2, 2)), nan, [0.9, 0.8])
    results = results_of([(found, truth)])
    assert results["AP"] == pytest.approx(0.5)
    assert results["AP_large"] == pytest.approx(1)


def test_bad_use():
    empty = Instances.empty(PLAIN)
    people = Instances.from_keypoints(PLAIN, np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match=r"'plain' has no sigmas.*Give sigmas=\(...\), 2 numbers"):
        OksAp().update(empty, empty)
    with pytest.raises(ValueError, match=r"OKS needs 2 positive sigmas .* of 'plain'\), got 3: \[0.1, 0.1, 0.1\]"):
        known_sigmas(PLAIN, (0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="OksAp has seen no image yet"):
        OksAp().compute()
    with pytest.raises(ValueError, match="OksAp score must be 'box_times_keypoints' or 'box', got 'mean'"):
        OksAp(score="mean")
    with pytest.raises(ValueError, match=r"needs extra\['category_id'\], and the labels have none"):
        OksAp((0.1, 0.1), 0.53, per_category=True).update(people, people)
    with pytest.raises(ValueError, match=r"use predicted\.in_skeleton"):
        oks_matrix(people, Instances.empty(COCO17))
    metric = OksAp((0.1, 0.1))
    metric.update(empty, empty)
    other = Instances.empty(Skeleton("other", ("a", "c")))
    with pytest.raises(ValueError, match="has seen skeleton 'plain' and now gets 'other'"):
        metric.update(other, other)
    with pytest.raises(ValueError, match="Only metrics with the same fields"):
        metric.merge(OksAp())
