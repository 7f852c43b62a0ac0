"""Overlap of boxes in space and KITTI's average precision, against slow references written out from its description."""

import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeletons import BOXES
from poseglass.metrics.kitti_ap import KittiAp
from poseglass.metrics.rotated import outlines_of, overlaps_3d, shared_area

CAMERA = np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]])


def some_boxes(rng: np.random.Generator, count: int, *, near: float = 3.0) -> np.ndarray:
    at, size = rng.uniform(-near, near, (count, 3)), rng.uniform(0.5, 4, (count, 3))
    return np.concatenate([at, size, rng.uniform(-np.pi, np.pi, (count, 1))], 1)


def clipped_area(p: np.ndarray, q: np.ndarray) -> float:
    """Return the area that two convex polygons share, one being cut along each edge of the other."""

    def area(points):
        return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, [*points[1:], points[0]], strict=True)) / 2

    subject, knife = ([tuple(v) for v in each] for each in (p, q))
    subject = subject if area(subject) > 0 else subject[::-1]
    knife = knife if area(knife) > 0 else knife[::-1]
    for (x0, y0), (x1, y1) in zip(knife, [*knife[1:], knife[0]], strict=True):
        kept = []
        for a, b in zip(subject, [*subject[1:], subject[0]], strict=True):
            sides = [(x1 - x0) * (v[1] - y0) - (y1 - y0) * (v[0] - x0) for v in (a, b)]
            if sides[0] >= 0:
                kept.append(a)
            if sides[0] * sides[1] < 0:
                share = sides[0] / (sides[0] - sides[1])
                kept.append((a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])))
        subject = kept
        if not subject:
            return 0.0
    return area(subject)


def slow_overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bev, solid = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            shared = clipped_area(outlines_of(p[None])[0], outlines_of(q[None])[0])
            tall = min(p[1] + p[4] / 2, q[1] + q[4] / 2) - max(p[1] - p[4] / 2, q[1] - q[4] / 2)
            both = shared * max(tall, 0)
            bev[i, j] = shared / (p[3] * p[5] + q[3] * q[5] - shared)
            solid[i, j] = both / (np.prod(p[3:6]) + np.prod(q[3:6]) - both)
    return bev, solid


def test_overlaps_are_those_of_clipped_polygons():
    rng = np.random.default_rng(0)
    a, b = some_boxes(rng, 25), some_boxes(rng, 25)
    for fast, slow in zip(overlaps_3d(a, b), slow_overlaps(a, b), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-9)
        assert 0.2 < (fast > 0).mean() < 0.9


def test_overlaps_in_closed_form():
    one = np.array([[0.0, 0, 10, 4, 2, 2, 0.7]])
    for fast in overlaps_3d(one, one):
        np.testing.assert_allclose(fast, 1.0)
    turned = one + np.array([0, 0, 0, 0, 0, 0, np.pi])
    np.testing.assert_allclose(overlaps_3d(one, turned)[1], 1.0)
    ahead = one + np.array([2 * np.cos(0.7), 0, -2 * np.sin(0.7), 0, 0, 0, 0])  # half of its length further
    np.testing.assert_allclose(overlaps_3d(one, ahead)[0], 1 / 3)
    higher = one + np.array([0, 1.0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose([v.item() for v in overlaps_3d(one, higher)], [1.0, 1 / 3])
    square, diamond = np.array([[0.0, 0, 0, 2, 1, 2, 0.0]]), np.array([[0.0, 0, 0, 2, 1, 2, np.pi / 4]])
    octagon = shared_area(outlines_of(square), outlines_of(diamond))
    np.testing.assert_allclose(octagon, 8 * (np.sqrt(2) - 1))
    inside = np.array([[0.2, 0, 0.1, 0.5, 1, 0.5, 1.1]])
    np.testing.assert_allclose(shared_area(outlines_of(square), outlines_of(inside)), 0.25)
    assert overlaps_3d(np.zeros((0, 7)), one)[0].shape == (0, 1)


def scene(rng: np.random.Generator, count: int) -> Instances:
    box = np.stack(
        [
            rng.uniform(-20000, 20000, count), np.full(count, 700.0), rng.uniform(5000, 50000, count),
            rng.uniform(3500, 4500, count), rng.uniform(1400, 1600, count), rng.uniform(1500, 1800, count),
            rng.uniform(-np.pi, np.pi, count),
        ], -1,
    )  # fmt: skip
    left, top = rng.uniform(0, 1000, count), rng.uniform(0, 200, count)
    flat = np.stack([left, top, left + rng.uniform(20, 150, count), top + rng.uniform(20, 120, count)], -1)
    return Instances(
        BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), flat, np.ones(count), rng.integers(0, 2, count),
        box_3d=box, projection=np.broadcast_to(CAMERA, (count, 3, 4)),
        extra={
            "occlusion": rng.choice(4, count, p=[0.6, 0.2, 0.15, 0.05]), "truncation": rng.uniform(0, 0.8, count) ** 3,
            "crowd": rng.random(count) < 0.15,
        },
    )  # fmt: skip


def guesses(rng: np.random.Generator, truth: Instances) -> Instances:
    """Return detections near most labels, twice near some, and some elsewhere."""
    rows = rng.permutation(
        np.concatenate([np.flatnonzero(rng.random(len(truth)) < 0.85), rng.integers(0, len(truth), 2)])
    )
    near, far = truth[rows], scene(rng, 3)
    found = Instances.concatenate([near, far])
    size = rng.choice([30.0, 300.0, 1500.0], len(found))
    box = found.box_3d + rng.normal(0, 1, (len(found), 7)) * np.array([1, 0.2, 1, 0.3, 0.1, 0.1, 3e-4]) * size[:, None]
    score = np.round(rng.random(len(found)), 3)
    return Instances(
        BOXES, found.xy, found.score, found.box_xyxy, score, found.label, box_3d=box, projection=found.projection
    )


def reference(images: list[tuple[Instances, Instances]], label: int, kind: int, level: int, least: float) -> np.ndarray:
    """Return precision at 41 points, with loops, as the benchmark's description has it."""
    heights, hidden, cut = (40, 25, 25)[level], (0, 1, 2)[level], (0.15, 0.3, 0.5)[level]
    prepared, counted = [], 0
    for found, truth in images:
        wanted, columns = [], []
        for n in range(len(truth)):
            if truth.label[n] != label:
                continue
            low, high = truth.box_xyxy[n, [1, 3]]
            easy = (
                truth.extra["occlusion"][n] <= hidden and truth.extra["truncation"][n] <= cut and high - low > heights
            )
            wanted.append("counts" if easy and not truth.extra["crowd"][n] else "ignored")
            columns.append(n)
        counted += wanted.count("counts")
        overlap = slow_overlaps(found.box_3d.astype(float), truth.box_3d.astype(float))[kind]
        rows = []
        for m in range(len(found)):
            if int(found.box_xyxy[m, 3] - found.box_xyxy[m, 1]) < heights:
                rows.append("ignored")
            else:
                rows.append("counts" if found.label[m] == label else "other")
        prepared.append((wanted, rows, found.box_score.astype(float), overlap[:, columns]))
    scores = []
    for wanted, rows, score, overlap in prepared:
        taken = set()
        for n, want in enumerate(wanted):
            best = None
            for m, row in enumerate(rows):
                if row != "other" and m not in taken and overlap[m, n] > least:
                    best = m if best is None or score[m] > score[best] else best
            if best is not None:
                taken.add(best)
                if want == rows[best] == "counts":
                    scores.append(score[best])
    scores.sort(reverse=True)
    thresholds, recall = [], 0.0
    for n, score in enumerate(scores):
        last = n == len(scores) - 1
        right = (n + 1) / counted if last else (n + 2) / counted
        if not last and right - recall < recall - (n + 1) / counted:
            continue
        thresholds.append(score)
        recall += 1 / 40
    precision = np.zeros(41)
    for place, threshold in enumerate(thresholds):
        right = wrong = 0
        for wanted, rows, score, overlap in prepared:
            taken = set()
            for n, want in enumerate(wanted):
                best, most, small = None, 0.0, False
                for m, row in enumerate(rows):
                    if row == "other" or m in taken or score[m] < threshold or not overlap[m, n] > least:
                        continue
                    if row == "counts" and (overlap[m, n] > most or small):
                        best, most, small = m, overlap[m, n], False
                    elif row == "ignored" and best is None:
                        best, small = m, True
                if best is not None:
                    taken.add(best)
                    right += want == "counts" and rows[best] == "counts"
            wrong += sum(row == "counts" and score[m] >= threshold and m not in taken for m, row in enumerate(rows))
        precision[place] = right / (right + wrong) if right + wrong else 0.0
    return np.array([precision[n:].max() for n in range(41)])


def test_average_precision_is_that_of_the_reference():
    rng = np.random.default_rng(7)
    images = []
    metric = KittiAp(least_overlap=(0.5, 0.7))
    for _ in range(14):
        truth = scene(rng, 9)
        found = guesses(rng, truth)
        images.append((found, truth))
        metric.update(found, truth)
    seen = []
    for label, least in ((0, 0.5), (1, 0.7)):
        for kind in (0, 1):
            for level in (0, 1, 2):
                expected = reference(images, label, kind, level, least)
                got = metric.precisions(label, kind, level)
                np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
                seen.append(expected[1:].mean())
                table = metric.table()[str(label)]
                name = f"{('bev', '3d')[kind]}_{('easy', 'moderate', 'hard')[level]}"
                assert table[f"AP40_{name}"] == pytest.approx(expected[1:].mean())
                assert table[f"AP11_{name}"] == pytest.approx(
                    expected[[0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]].mean()
                )
    assert 0 < min(seen) < 0.2 < max(seen) < 0.95  # neither nothing nor everything


def test_parts_merge_to_the_whole():
    rng = np.random.default_rng(3)
    parts, whole = [KittiAp(), KittiAp()], KittiAp()
    for n in range(8):
        truth = scene(rng, 6)
        found = guesses(rng, truth)
        parts[n // 4].update(found, truth)
        whole.update(found, truth)
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()
    with pytest.raises(ValueError, match="Only metrics with the same fields"):
        whole.merge(KittiAp(min_score=0.5))


def one(z: float = 20000.0, yaw: float = 0.0, score: float = 1.0, **extra) -> Instances:
    box = np.array([[0.0, 700, z, 4000, 1500, 1700, yaw]])
    return Instances(
        BOXES, np.zeros((1, 0, 2)), np.zeros((1, 0)), [[10, 10, 80, 70]], [score], [1], box_3d=box,
        projection=CAMERA[None], extra={name: np.array([value]) for name, value in extra.items()},
    )  # fmt: skip


def test_errors_of_depth_and_yaw():
    metric = KittiAp()
    metric.update(one(22000.0, yaw=np.deg2rad(14)), one())
    metric.update(one(19000.0, yaw=np.deg2rad(-16)), one())
    metric.update(one(score=0.2), one())  # too unsure
    metric.update(one(), one(occlusion=3))  # counts at no level
    results = metric.compute()
    assert results["depth_error"] == pytest.approx(0.075)
    assert results["yaw_15"] == 0.5
    assert results["found"] == pytest.approx(2 / 3)
    assert metric.better("depth_error") == "lower"
    assert metric.better("yaw_15") == "higher"


def test_nothing_to_find_is_not_a_number():
    metric = KittiAp()
    metric.update(one(), one()[:0])
    assert np.isnan(metric.compute()["AP40_3d_moderate"])
    assert all(np.isnan(value) for value in KittiAp().compute().values())


def test_boxes_in_space_are_needed():
    plain = Instances(BOXES, np.zeros((1, 0, 2)), np.zeros((1, 0)), [[0, 0, 50, 50]], np.ones(1))
    with pytest.raises(ValueError, match=r"the predictions have none"):
        KittiAp().update(plain, one())
    with pytest.raises(ValueError, match=r"the labels have none"):
        KittiAp().update(one(), plain)
    with pytest.raises(ValueError, match=r"A label is of class 1, but KittiAp has least_overlap for 1 classes"):
        KittiAp(least_overlap=(0.5,)).update(one(), one())
    for options, says in (
        ({"least_overlap": ()}, "least_overlap must have"), ({"least_height_px": (1, 2)}, "three heights"),
        ({"min_score": 2}, "min_score must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            KittiAp(**options)
