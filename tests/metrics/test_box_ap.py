import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.metrics.box_ap import BoxAp
from poseglass.metrics.box_average_precision import box_ap

THING = Skeleton("thing", ())


def boxed(box_xyxy, score=None, label=None, **extra):
    boxes = np.array(box_xyxy, float).reshape(-1, 4)
    n = len(boxes)
    scores = np.ones(n) if score is None else score
    labels = np.zeros(n, np.int64) if label is None else label
    return Instances(THING, np.zeros((n, 0, 2)), np.zeros((n, 0)), boxes, scores, labels, extra=extra)


def random_image(seed):
    """Return detections (some near a label) and labels of one image, in whole quarters of a pixel."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(0, 9)), int(rng.integers(0, 6))
    corner = rng.integers(0, 800, (m, 2)) / 4
    labels = np.concatenate([corner, corner + rng.integers(20, 600, (m, 2)) / 4], -1)
    classes = rng.integers(0, 3, m) * 2
    near = rng.integers(0, m, n) if m else np.zeros(0, int)
    found = labels[near] + rng.integers(-40, 40, (len(near), 4)) / 8 * rng.integers(0, 3, (len(near), 1))
    truth = boxed(labels, None, classes, area=rng.uniform(100, 20000, m), crowd=rng.random(m) < 0.2)
    other = rng.random(len(near)) < 0.1
    return boxed(found, rng.integers(1, 9, len(near)) / 8, np.where(other, 7, classes[near])), truth


def metric_of(images, **numbers):
    metric = BoxAp(**numbers)
    for predicted, truth in images:
        metric.update(predicted, truth)
    return metric


def as_coco(images):
    annotations, results = [], []
    for i, (predicted, truth) in enumerate(images):
        for side, out in ((truth, annotations), (predicted, results)):
            for n in range(len(side)):
                x0, y0, x1, y1 = map(float, side.box_xyxy[n])
                out.append({"image_id": i, "category_id": int(side.label[n]), "bbox": [x0, y0, x1 - x0, y1 - y0]})
                if side is truth:
                    area, crowd = float(side.extra["area"][n]), int(side.extra["crowd"][n])
                    out[-1] |= {"id": len(out), "area": area, "iscrowd": crowd}
                else:
                    out[-1]["score"] = float(side.box_score[n])
    categories = [{"id": c} for c in (0, 2, 4)]
    return {"images": [{"id": i} for i in range(len(images))], "categories": categories, "annotations": annotations}, (
        results
    )


@pytest.mark.parametrize("seed", range(3))
def test_instances_give_the_results_of_their_own_coco_json(seed):
    images = [random_image(100 * seed + i) for i in range(30)]
    expected = box_ap(*as_coco(images))
    metric = metric_of(images)
    assert 0 < expected.results()["AP"] < 1
    named = {f"box_{name}": value for name, value in expected.results().items()}
    assert metric.compute() == pytest.approx(named, abs=1e-6)
    assert list(metric.table()) == ["0", "2", "4"]
    for c, row in enumerate(metric.table().values()):
        assert row == pytest.approx(expected.results(c), abs=1e-6)


def test_parts_merge_into_the_whole_and_an_empty_one_changes_nothing():
    images = [random_image(i) for i in range(12)]
    first = BoxAp()
    first.merge(metric_of(images[:5]))
    first.merge(metric_of(images[5:]))
    first.merge(BoxAp())
    np.testing.assert_equal(first.compute(), metric_of(images).compute())


def test_the_area_of_the_box_stands_in_for_a_missing_one():
    box = [0, 0, 50, 50]
    assert metric_of([(boxed(box), boxed(box))]).compute()["box_AP_medium"] == pytest.approx(1)
    assert metric_of([(boxed(box), boxed(box, area=np.array([900.0])))]).compute()["box_AP_small"] == pytest.approx(1)
    nothing = metric_of([(boxed(box), boxed(box, area=np.array([np.nan])))]).compute()
    assert nothing["box_AP_medium"] == pytest.approx(1)


def test_classes_are_matched_and_averaged():
    truth = boxed([[0, 0, 50, 50], [100, 0, 150, 50]], None, [3, 5])
    found = boxed([[0, 0, 50, 50], [100, 0, 150, 50]], [0.9, 0.8], [3, 3])
    metric = metric_of([(found, truth)])
    assert metric.compute()["box_AP"] == pytest.approx(0.5)
    assert {name: row["AP50"] for name, row in metric.table().items()} == {"3": pytest.approx(1), "5": 0}
    assert metric.better("AR_small") == "higher"
    assert list(metric.compute())[:2] == ["box_AP", "box_AP50"]


def test_nothing_labelled():
    metric = metric_of([(boxed([0, 0, 5, 5]), boxed([]))])
    assert set(metric.compute().values()) == {-1.0}
    assert list(metric.table()) == ["all"]


def test_messages():
    box = boxed([0, 0, 5, 5])
    with pytest.raises(ValueError, match="BoxAp has seen no image yet"):
        BoxAp().compute()
    with pytest.raises(ValueError, match=r"max_detections must be ascending positive whole numbers, .* got \(10, 1\)"):
        BoxAp(max_detections=(10, 1))
    with pytest.raises(ValueError, match=r"finite box of every detection, got \[nan, .* in detection 0 \(1 in all\)"):
        BoxAp().update(boxed([np.nan] * 4), box)
    with pytest.raises(ValueError, match="finite box of every label"):
        BoxAp().update(box, boxed([np.nan] * 4))
    person = Instances.empty(COCO17)
    with pytest.raises(ValueError, match="Predictions are in skeleton 'coco17'"):
        BoxAp().update(person, box)
    metric = metric_of([(box, box)])
    with pytest.raises(ValueError, match="has seen skeleton 'thing' and now gets 'coco17'"):
        metric.update(person, person)
    with pytest.raises(ValueError, match="Only metrics with the same fields"):
        metric.merge(BoxAp(max_detections=(1,)))
    with pytest.raises(ValueError, match="Only metrics of one skeleton"):
        metric.merge(metric_of([(person, person)]))
    with pytest.raises(ValueError, match="must be finite, got nan in detection 0"):
        metric_of([(boxed([0, 0, 5, 5], [np.nan]), box)]).compute()
