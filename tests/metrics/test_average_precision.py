import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseglass.core.skeletons import COCO17
from poseglass.metrics.average_precision import (
    AREAS,
    OksDetections,
    OksTruth,
    evaluate_oks,
    oks_ap,
    read_coco,
)

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

SHARED = Path(__file__).parents[2] / ".." / "shared"
SAMPLES = SHARED / "data/samples"
CROWDPOSE_SIGMAS = (
    0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079
)  # fmt: skip


def reference(dataset: dict[str, Any], results: list[dict[str, Any]], sigmas) -> Any:
    """Evaluate with pycocotools, quietly."""
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equal_to_reference(dataset, results, sigmas):
    ours, theirs = oks_ap(dataset, results, sigmas), reference(dataset, results, sigmas)
    np.testing.assert_allclose(list(ours.results().values()), theirs.stats, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.precision, theirs.eval["precision"][..., 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.recall, theirs.eval["recall"][..., 0], rtol=0, atol=1e-6)
    return ours.results()


def random_set(seed, *, images=12, people=40, detections=150, k=7, categories=1, crowd=0.1, ties=False, boxes=False):
    """Make people of all sizes, some unlabelled, some crowds, some twice; and detections near and far from them."""
    rng = np.random.default_rng(seed)
    sigmas = rng.uniform(0.02, 0.15, k)
    image_ids = rng.permutation(rng.choice(1000, images, replace=False))
    image, category = rng.integers(0, images, people), rng.integers(0, categories, people)
    size = np.exp(rng.uniform(np.log(20), np.log(300), people))
    xy = (rng.uniform(0, 500, (people, 1, 2)) + rng.normal(0, 0.5, (people, k, 2)) * size[:, None, None]).round()
    visible = (rng.random((people, k)) < 0.7) * rng.integers(1, 3, (people, k))
    visible[rng.random(people) < 0.15] = 0
    for i in range(1, people, 9):  # the same person twice: equal OKS with both
        xy[i], visible[i], image[i], size[i] = xy[i - 1], visible[i - 1], image[i - 1], size[i - 1]
    low, high = xy.min(1), xy.max(1)
    annotations = [
        {
            "id": i + 1,
            "image_id": int(image_ids[image[i]]),
            "category_id": int(category[i]) + 3,
            "keypoints": np.concatenate([xy[i] * (visible[i] > 0)[:, None], visible[i][:, None]], -1).ravel().tolist(),
            "num_keypoints": int((visible[i] > 0).sum()),
            "area": float(size[i] ** 2),
            "bbox": [*low[i].tolist(), *(high[i] - low[i]).tolist()],
            "iscrowd": int(rng.random() < crowd),
        }
        for i in range(people)
    ]
    dataset = {
        "info": {},
        "images": [{"id": int(i)} for i in image_ids],
        "annotations": annotations,
        "categories": [{"id": c + 3, "name": str(c)} for c in range(categories)],
    }
    results = []
    for _ in range(detections):
        i = int(rng.integers(people))
        noise = np.exp(rng.uniform(np.log(0.005), np.log(0.6)))
        there = image[i] if rng.random() < 0.8 else rng.integers(images)
        points = xy[i] + rng.normal(0, 1, (k, 2)) * noise * size[i]
        score = 1 - noise + rng.normal(0, 0.2)
        results.append(
            {
                "image_id": int(image_ids[there]),
                "category_id": int(category[i]) + 3,
                "keypoints": np.concatenate([points, np.ones((k, 1))], -1).round(2).ravel().tolist(),
                "score": float(round(score * 4) / 4 if ties else score),
            }
        )
        if boxes:
            results[-1]["bbox"] = [*points.min(0).tolist(), *(np.ptp(points, axis=0) * 1.3).tolist()]
    return dataset, results, sigmas


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"ties": True},
        {"categories": 3, "ties": True},
        {"boxes": True},
        {"k": 1},
        {"k": 40, "crowd": 0.5},
        {"images": 2, "people": 30, "detections": 200, "ties": True},  # far more than 20 detections an image
        {"images": 40, "people": 10, "detections": 30},  # images with nobody, and with no detection
        {"people": 60, "detections": 1},
        {"people": 1, "detections": 60},
    ],
    ids=lambda numbers: ",".join(f"{k}={v}" for k, v in numbers.items()) or "plain",
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_to_pycocotools_on_random_sets(numbers, seed):
    assert_equal_to_reference(*random_set(seed, **numbers))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 6), st.booleans(), st.booleans())
def test_equal_to_pycocotools_on_any_set(seed, k, images, ties, boxes):
    assert_equal_to_reference(*random_set(seed, k=k, images=images, ties=ties, boxes=boxes, detections=60, people=15))


def test_many_rivals_for_the_same_people():
    # Everybody on one spot: each detection has each person as a candidate.
    dataset, results, sigmas = random_set(5, images=2, people=12, detections=60, crowd=0.2)
    rng = np.random.default_rng(0)
    for record in (*dataset["annotations"], *results):
        points = np.array(record["keypoints"]).reshape(-1, 3)
        points[:, :2] = rng.normal(0, 6, points[:, :2].shape).round(1)
        record["keypoints"] = points.ravel().tolist()
    for annotation in dataset["annotations"]:
        annotation["area"] = float(rng.choice([900.0, 1024.0, 5000.0, 9216.0, 20000.0]))
    assert assert_equal_to_reference(dataset, results, sigmas)["AP"] > 0


def mean_pose_in_boxes(dataset, boxes, k):
    """Turn detected boxes into poses: the mean pose of the labels, stretched into each box."""
    poses = []
    for annotation in dataset["annotations"]:
        points, box = np.array(annotation["keypoints"], float).reshape(-1, 3), annotation["bbox"]
        where = (points[:, :2] - box[:2]) / box[2:]
        poses.append(np.where(points[:, 2:] > 0, where, np.nan))
    mean = np.array([[np.nanmean(axis) if np.isfinite(axis).any() else 0.5 for axis in part.T]
                     for part in np.stack(poses, 1)])  # fmt: skip
    assert mean.shape == (k, 2)
    return [
        {**box, "keypoints": np.concatenate([mean * box["bbox"][2:] + box["bbox"][:2], np.ones((k, 1))], -1).ravel()
         .tolist()}
        for box in boxes
        if box["category_id"] == 1 and box["image_id"] in {image["id"] for image in dataset["images"]}
    ]  # fmt: skip


def jittered_truth(dataset, spread, seed):
    """Turn labels into detections: each moved by up to ``spread`` of its size."""
    rng = np.random.default_rng(seed)
    results = []
    for annotation in dataset["annotations"]:
        points = np.array(annotation["keypoints"], float).reshape(-1, 3)
        amount = rng.uniform(0, spread)
        points[:, :2] += rng.normal(0, 1, (len(points), 2)) * amount * annotation["area"] ** 0.5
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "keypoints": points.ravel().tolist(),
                "score": float(1 - amount),
            }
        )
    return results


@pytest.mark.shared
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/data/samples")
@pytest.mark.parametrize(
    ("labels", "detections", "sigmas", "lowest"),
    [
        ("coco/test_coco.json", "coco/test_coco_det_AP_H_56.json", COCO17.sigmas, 0.001),
        ("crowdpose/test_crowdpose.json", "crowdpose/test_crowdpose_det_AP_40.json", CROWDPOSE_SIGMAS, 0.01),
    ],
)
def test_equal_to_pycocotools_on_the_samples(labels, detections, sigmas, lowest):
    dataset = json.loads((SAMPLES / labels).read_text())
    for annotation in dataset["annotations"]:  # CrowdPose has no areas; half of the box is usual
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3] * 0.53)
    in_boxes = mean_pose_in_boxes(dataset, json.loads((SAMPLES / detections).read_text()), len(sigmas))
    assert assert_equal_to_reference(dataset, in_boxes, sigmas)["AP"] > lowest
    for seed, spread in enumerate((0.02, 0.1, 0.3)):
        moved = jittered_truth(dataset, spread, seed)
        assert assert_equal_to_reference(dataset, moved, sigmas)["AP"] > lowest
        boxed = jittered_truth(dataset, spread, seed + 10) + [{**r, "bbox": []} for r in in_boxes]
        assert assert_equal_to_reference(dataset, boxed, sigmas)["AP"] > lowest


def test_perfect_detections_score_one_and_the_order_of_files_does_not_matter():
    dataset, _, sigmas = random_set(3, crowd=0)
    for i in range(1, 40, 9):  # nobody twice
        dataset["annotations"][i]["num_keypoints"] = 0
    labelled = {**dataset, "annotations": [a for a in dataset["annotations"] if a["num_keypoints"]]}
    results = jittered_truth(labelled, 0.0, 0)
    for i, result in enumerate(results):
        result["score"] = 1 - i / 100
    figures = oks_ap(dataset, results, sigmas).results()
    assert figures["AP"] == pytest.approx(1)
    assert figures["AR"] == pytest.approx(1)
    dataset, results, sigmas = random_set(4)
    figures = oks_ap(dataset, results, sigmas).results()
    turned = {**dataset, "images": dataset["images"][::-1], "annotations": dataset["annotations"][::-1]}
    assert oks_ap(turned, results[::-1], sigmas).results() == pytest.approx(figures)


def test_no_detections_and_nobody_to_find():
    dataset, results, sigmas = random_set(0)
    none = oks_ap(dataset, [], sigmas).results()
    assert none["AP"] == none["AR"] == 0
    nobody = oks_ap({**dataset, "annotations": []}, results, sigmas).results()
    assert set(nobody.values()) == {-1.0}
    nothing = oks_ap({**dataset, "annotations": []}, [], sigmas).results()
    assert set(nothing.values()) == {-1.0}


def test_an_annotation_with_id_0_can_be_found():
    dataset, results, sigmas = random_set(0)
    figures = oks_ap(dataset, results, sigmas).results()
    for annotation in dataset["annotations"]:
        annotation["id"] -= 1
    assert oks_ap(dataset, results, sigmas).results() == figures


@pytest.mark.parametrize("seed", range(4))
def test_counts_crowds_and_areas_as_files_have_them(seed):
    """A count of 0 beside labelled keypoints ignores the person; areas on an edge are in both ranges, or are 0."""
    dataset, results, sigmas = random_set(seed, crowd=0.3, categories=2, ties=True)
    rng = np.random.default_rng(seed)
    annotations = dataset["annotations"]
    bare = 0
    for annotation in annotations:
        if any(v > 0 for v in annotation["keypoints"][2::3]):
            if rng.random() < 0.3:
                annotation["num_keypoints"] = 0
        else:
            bare += 1
            annotation["num_keypoints"] = 3 * (bare % 2)
        if rng.random() < 0.4:
            annotation["area"] = float(rng.choice([0.0, 1024.0, 9216.0]))
    labelled = [sum(v > 0 for v in a["keypoints"][2::3]) for a in annotations]
    counts = [a["num_keypoints"] for a in annotations]
    assert any(n and not count for n, count in zip(labelled, counts, strict=True))
    assert any(count and not n for n, count in zip(labelled, counts, strict=True))
    assert any(a["iscrowd"] and n for a, n in zip(annotations, labelled, strict=True))
    assert 0 < assert_equal_to_reference(dataset, results, sigmas)["AP"] < 1


def test_results_of_other_categories_and_labels_of_other_images_are_dropped():
    dataset, results, sigmas = random_set(1, categories=2)
    one = {**dataset, "categories": dataset["categories"][:1], "images": dataset["images"][:6]}
    inside = {image["id"] for image in one["images"]}
    assert_equal_to_reference(one, [r for r in results if r["image_id"] in inside], sigmas)


def test_figures_of_a_category_and_of_other_ranges():
    dataset, results, sigmas = random_set(2, categories=2)
    both = oks_ap(dataset, results, sigmas)
    alone = {**dataset, "categories": dataset["categories"][1:]}
    assert both.results(1) == pytest.approx(oks_ap(alone, results, sigmas).results())
    truth, detections, _ = read_coco(dataset, results, 7)
    part = evaluate_oks(truth, detections, sigmas, thresholds=(0.5,), areas={"all": AREAS["all"]})
    assert part.results()["AP"] == part.results()["AP50"] == pytest.approx(both.results()["AP50"])
    assert part.results()["AP75"] == part.results()["AP_large"] == -1


def broken(where, change):
    dataset, results, sigmas = random_set(0)
    records = {"dataset": dataset, "annotation": dataset["annotations"][4], "result": results[4]}
    change(records[where])
    return dataset, results, sigmas


@pytest.mark.parametrize(
    ("where", "change", "match"),
    [
        ("dataset", lambda d: d.pop("images"), "A COCO dataset has .* 'images' missing, got 'info', 'annotations'"),
        ("annotation", lambda a: a.pop("area"), "Annotation 4 of 40 has no 'area'.* It has: bbox, category_id"),
        ("annotation", lambda a: a["keypoints"].pop(), "'keypoints' of annotation 4 must be 21 .* a list of 20"),
        ("annotation", lambda a: a.update(bbox=None), "'bbox' of annotation 4 must be 4 numbers, got NoneType"),
        ("result", lambda r: r.pop("score"), "Result 4 of 150 has no 'score'"),
        ("result", lambda r: r.update(score=float("nan")), r"must be finite, got nan in detection 4 \(1 in all\)"),
        ("result", lambda r: r.update(image_id=5000), "1 of 150 results belong to images .* such as image_id 5000"),
        ("result", lambda r: r.update(keypoints=["a"] * 21), "'keypoints' of result 4 must be 21 .* list of 21: .'a'"),
    ],
)  # fmt: skip
def test_bad_files(where, change, match):
    with pytest.raises(ValueError, match=match):
        oks_ap(*broken(where, change))


def test_bad_arrays():
    dataset, results, sigmas = random_set(0)
    truth, detections, _ = read_coco(dataset, results, 7)
    with pytest.raises(ValueError, match="the same number of keypoints, got 3 sigmas, 7 and 7 keypoints"):
        evaluate_oks(truth, detections, sigmas[:3])
    with pytest.raises(ValueError, match=r"OksDetections.score must have shape \(150,\), got \(149,\)"):
        OksDetections(
            detections.image, detections.category, detections.xy, detections.score[1:], detections.area
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"OksTruth.labelled must have shape \(40, 7\), got \(40, 6\)"):
        OksTruth(
            truth.image, truth.category, truth.xy, truth.labelled[:, 1:], truth.area, truth.box_xywh, truth.crowd,
            truth.ignored,
        )  # fmt: skip
