import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseglass.metrics.box_average_precision import (
    AREAS,
    BoxDetections,
    BoxTruth,
    box_ap,
    evaluate_boxes,
    pair_iou,
    read_coco_boxes,
)

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

SHARED = Path(__file__).parents[2] / ".." / "shared"
SAMPLES = SHARED / "data/samples"
NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
         "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]  # fmt: skip


def reference(dataset: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    """Evaluate with pycocotools, quietly."""
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equal_to_reference(dataset, results):
    ours, theirs = box_ap(dataset, results), reference(dataset, results)
    assert list(ours.results()) == NAMES
    np.testing.assert_allclose(list(ours.results().values()), theirs.stats, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.precision, theirs.eval["precision"][..., -1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.recall, theirs.eval["recall"], rtol=0, atol=1e-6)
    return ours.results()


def random_set(seed, *, images=12, objects=60, detections=200, categories=1, crowd=0.1, ties=False):
    """Make objects of all sizes, some crowds, some twice; and detections near and far from them."""
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(rng.choice(1000, images, replace=False))
    image, category = rng.integers(0, images, objects), rng.integers(0, categories, objects)
    size_wh = np.exp(rng.uniform(np.log(10), np.log(300), (objects, 2))).round()
    box = np.concatenate([rng.uniform(0, 400, (objects, 2)).round(), size_wh], -1)
    for i in range(1, objects, 9):  # the same box twice: equal IoU with both
        box[i], image[i], category[i] = box[i - 1], image[i - 1], category[i - 1]
    annotations = [
        {
            "id": i + 1,
            "image_id": int(image_ids[image[i]]),
            "category_id": int(category[i]) * 2 + 3,
            "bbox": box[i].tolist(),
            # Some on the edge of a range; else a part of the box, as the area of a segmentation is.
            "area": float(rng.choice([1024.0, 9216.0, box[i, 2:].prod() * 0.6], p=[0.1, 0.1, 0.8])),
            "iscrowd": int(rng.random() < crowd),
        }
        for i in range(objects)
    ]
    results = []
    for _ in range(detections):
        i = int(rng.integers(objects))
        noise = np.exp(rng.uniform(np.log(0.01), np.log(0.5)))
        moved = (box[i] + rng.normal(0, 1, 4) * noise * box[i, [2, 3, 2, 3]]).round(1)
        score = 1 - noise + rng.normal(0, 0.2)
        results.append(
            {
                "image_id": int(image_ids[image[i] if rng.random() < 0.8 else rng.integers(images)]),
                "category_id": int(category[i] if rng.random() < 0.9 else rng.integers(categories)) * 2 + 3,
                "bbox": [*moved[:2].tolist(), *np.maximum(moved[2:], 0).tolist()],
                "score": float(round(score * 4) / 4 if ties else score),
            }
        )
    dataset = {
        "info": {},
        "images": [{"id": int(i)} for i in image_ids],
        "annotations": annotations,
        "categories": [{"id": c * 2 + 3, "name": str(c)} for c in range(categories)],
    }
    return dataset, results


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"ties": True},
        {"categories": 4, "ties": True},
        {"crowd": 0.5},
        {"images": 2, "detections": 600, "objects": 40, "ties": True},  # far more than 100 detections an image
        {"images": 40, "objects": 10, "detections": 30},  # images with nothing, and with no detection
        {"categories": 30, "objects": 20},  # categories with nothing
        {"objects": 1, "detections": 60},
        {"objects": 60, "detections": 1},
    ],
    ids=lambda numbers: ",".join(f"{k}={v}" for k, v in numbers.items()) or "plain",
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_pycocotools_on_random_sets(numbers, seed):
    assert_equal_to_reference(*random_set(seed, **numbers))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_equal_to_pycocotools_on_any_set(seed, images, categories, ties):
    assert_equal_to_reference(
        *random_set(seed, images=images, categories=categories, ties=ties, objects=25, detections=80)
    )


def moved_boxes(dataset, spread, seed):
    """Turn labels into detections: each moved by up to ``spread`` of its size."""
    rng = np.random.default_rng(seed)
    results = []
    for annotation in dataset["annotations"]:
        box, amount = np.array(annotation["bbox"], float), rng.uniform(0, spread)
        box += rng.normal(0, amount, 4) * box[[2, 3, 2, 3]]
        results.append({key: annotation[key] for key in ("image_id", "category_id")})
        results[-1] |= {"bbox": np.maximum(box, 0).tolist(), "score": float(1 - amount)}
    return results


@pytest.mark.shared
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/data/samples")
@pytest.mark.parametrize(
    ("labels", "detections"),
    [
        ("coco/test_coco.json", "coco/test_coco_det_AP_H_56.json"),
        ("crowdpose/test_crowdpose.json", "crowdpose/test_crowdpose_det_AP_40.json"),
    ],
)
def test_equal_to_pycocotools_on_the_samples(labels, detections):
    dataset = json.loads((SAMPLES / labels).read_text())
    for annotation in dataset["annotations"]:  # CrowdPose has no areas
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    inside = {image["id"] for image in dataset["images"]}
    found = [r for r in json.loads((SAMPLES / detections).read_text()) if r["image_id"] in inside]
    assert assert_equal_to_reference(dataset, found)["AP"] > 0.2
    for seed, spread in enumerate((0.02, 0.3)):
        assert assert_equal_to_reference(dataset, moved_boxes(dataset, spread, seed) + found)["AP"] > 0.1


def one_image(boxes, scores, labels, crowd=None):
    boxes, labels = np.array(boxes, float).reshape(-1, 4), np.array(labels, float).reshape(-1, 4)
    crowd = np.zeros(len(labels), bool) if crowd is None else np.array(crowd)
    zeros = [np.zeros(len(part), np.int64) for part in (boxes, labels)]
    truth = BoxTruth(zeros[1], zeros[1], labels, labels[:, 2:].prod(-1), crowd)
    return truth, BoxDetections(zeros[0], zeros[0], boxes, np.array(scores, float))


def test_iou_by_hand():
    detected = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 0, 4], [0, 0, 10, 10]])
    labelled = np.array([[5, 5, 10, 10], [5, 5, 10, 10], [10, 0, 10, 10], [0, 0, 20, 20], [0, 0, 10, 10]])
    crowd = np.array([False, True, False, True, False])
    assert pair_iou(detected, labelled, crowd) == pytest.approx([25 / 175, 25 / 100, 0, 0, 1])


def test_a_false_alarm_of_higher_score_halves_precision():
    # Two objects; detections from the best: right, wrong, right. Precision 1 up to recall 0.5, then 2/3.
    truth, found = one_image(
        [[0, 0, 10, 10], [200, 0, 10, 10], [50, 0, 10, 10]], [0.9, 0.8, 0.7], [[0, 0, 10, 10], [50, 0, 10, 10]]
    )
    results = evaluate_boxes(truth, found).results()
    assert results["AP"] == results["AP_small"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert (results["AR1"], results["AR10"], results["AR100"]) == (0.5, 1.0, 1.0)
    assert results["AP_medium"] == results["AR_large"] == -1


def test_a_crowd_takes_any_number_of_detections_and_none_counts():
    boxes = [[0, 0, 10, 10], [100, 0, 20, 20], [120, 0, 20, 20], [300, 0, 20, 20]]
    truth, found = one_image(boxes, [0.5, 0.9, 0.8, 0.1], [[0, 0, 10, 10], [90, 0, 100, 100]], [False, True])
    assert evaluate_boxes(truth, found).results()["AP"] == pytest.approx(1)
    truth, found = one_image(boxes, [0.5, 0.9, 0.8, 0.1], [[0, 0, 10, 10], [90, 0, 100, 100]], [False, False])
    assert evaluate_boxes(truth, found).results()["AP"] == pytest.approx(51 * (1 / 3) / 101)


def test_only_the_best_detections_count():
    truth, found = one_image([[0, 0, 9, 9], [50, 0, 9, 9]], [0.1, 0.9], [[0, 0, 9, 9]])
    assert evaluate_boxes(truth, found, max_detections=(1,)).results()["AP"] == 0
    both = evaluate_boxes(truth, found, max_detections=(1, 2)).results()
    assert (both["AP"], both["AR1"], both["AR2"]) == (pytest.approx(0.5), 0, 1)


def test_no_detections_and_nothing_to_find():
    dataset, results = random_set(0)
    none = box_ap(dataset, []).results()
    assert none["AP"] == none["AR100"] == 0
    for found in (results, []):
        assert set(box_ap({**dataset, "annotations": []}, found).results().values()) == {-1.0}


def test_results_of_a_category_and_of_other_ranges():
    dataset, results = random_set(2, categories=2)
    both = box_ap(dataset, results)
    alone = {**dataset, "categories": dataset["categories"][1:]}
    assert both.results(1) == pytest.approx(box_ap(alone, results).results())
    truth, detections, _ = read_coco_boxes(dataset, results)
    part = evaluate_boxes(truth, detections, thresholds=(0.5,), areas={"all": AREAS["all"]})
    assert part.results()["AP"] == part.results()["AP50"] == pytest.approx(both.results()["AP50"])
    assert part.results()["AP75"] == part.results()["AP_large"] == part.results()["AR_small"] == -1


@pytest.mark.parametrize(
    ("where", "change", "match"),
    [
        ("dataset", lambda d: d.pop("categories"), "A COCO dataset has .* 'categories' missing, got 'info', 'images'"),
        ("annotation", lambda a: a.pop("area"), "Annotation 4 of 60 has no 'area'; AP needs it in each annotation"),
        ("annotation", lambda a: a.update(bbox=[1, 2]), "'bbox' of annotation 4 must be 4 numbers, got a list of 2"),
        ("result", lambda r: r.pop("bbox"), "Result 4 of 200 has no 'bbox'"),
        ("result", lambda r: r.update(score=float("inf")), r"must be finite, got inf in detection 4 \(1 in all\)"),
        ("result", lambda r: r["bbox"].__setitem__(2, float("nan")), "needs a finite box of every detection, .* nan,"),
        ("result", lambda r: r.update(image_id=5000), "1 of 200 results belong to images .* such as image_id 5000"),
    ],
)  # fmt: skip
def test_bad_files(where, change, match):
    dataset, results = random_set(0)
    change({"dataset": dataset, "annotation": dataset["annotations"][4], "result": results[4]}[where])
    with pytest.raises(ValueError, match=match):
        box_ap(dataset, results)


def test_bad_arrays():
    with pytest.raises(ValueError, match=r"BoxDetections.score must have shape \(2,\), got \(1,\)"):
        one_image([[0, 0, 1, 1]] * 2, [0.5], [])
    with pytest.raises(ValueError, match=r"finite box of every label, got .* in label 1 \(1 in all\); give it a box"):
        one_image([], [], [[0, 0, 1, 1], [0, 0, np.nan, 1]])
    for wrong in ((), (10, 1), (0, 1), (1, 1), (1.5,)):
        with pytest.raises(ValueError, match="max_detections must be ascending positive whole numbers, such as"):
            evaluate_boxes(*one_image([], [], []), max_detections=wrong)  # type: ignore[arg-type]
