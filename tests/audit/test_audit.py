import copy
import csv
import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from poseglass.audit.audit import Audit, audit
from poseglass.audit.critic import IMPOSSIBLE, _Weighing, faults_of, judge
from poseglass.audit.images import check_images, find_duplicates, find_leaks
from poseglass.audit.labels import KINDS, Finding, Labels, labels_of, read_coco_leniently, with_flip
from poseglass.audit.page import image_of, write_csv, write_page
from poseglass.audit.pose import bone_scores, check_flip, check_observer_sides, with_bones
from poseglass.audit.records import check_records
from poseglass.core.affine import Affine
from poseglass.core.image import write_image
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeletons import COCO17

K = len(COCO17)
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def stick_people(count: int, seed: int = 0) -> np.ndarray:
    """Jointed people from all sides, upright, limbs swinging: ``(N, 17, 2)``. A face is only seen from the front."""
    rng = np.random.default_rng(seed)
    back = rng.random(count) < 0.3
    turn = np.deg2rad(rng.uniform(-70, 70, count)) + np.pi * back

    def limb(root, lengths, swing, spread, sign):
        points, angle, side = [], rng.normal(0, swing, count), sign * np.abs(rng.normal(0.15, spread, count))
        for length in lengths:
            root = root + length * np.stack(
                [np.sin(side), np.cos(angle) * np.cos(side), -np.sin(angle) * np.cos(side)], -1
            )
            points.append(root)
            angle = angle + np.abs(rng.normal(0.4, 0.3, count)) * (1 if lengths[0] < 0.35 else -1)
        return points

    # x to the person's left, y down, z away from where the person looks.
    body = {n: np.zeros((count, 3)) for n in COCO17.keypoints}
    body["nose"] += [0, -0.75, -0.12]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        body[f"{side}_eye"] += [0.035 * sign, -0.79, -0.1]
        body[f"{side}_ear"] += [0.08 * sign, -0.77, 0.0]
        body[f"{side}_shoulder"] += [0.18 * sign, -0.5, 0.0]
        body[f"{side}_hip"] += [0.1 * sign, 0.0, 0.0]
        elbow, wrist = limb(body[f"{side}_shoulder"], (0.29, 0.26), 0.7, 0.4, sign)
        knee, ankle = limb(body[f"{side}_hip"], (0.42, 0.4), 0.4, 0.15, sign)
        body |= {f"{side}_elbow": elbow, f"{side}_wrist": wrist, f"{side}_knee": knee, f"{side}_ankle": ankle}
    xyz = np.stack([body[n] for n in COCO17.keypoints], 1)
    x = xyz[..., 0] * np.cos(turn)[:, None] - xyz[..., 2] * np.sin(turn)[:, None]
    xy = np.stack([x, xyz[..., 1]], -1) * 100 + rng.normal(0, 1.0, (count, K, 2))
    xy[np.ix_(back, np.arange(3))] = np.nan
    return xy * rng.uniform(0.8, 1.6, (count, 1, 1)) + [200, 200]


def coco(xy: np.ndarray, *, skeleton=COCO17, size=(400, 400)) -> dict:
    people = []
    for i, points in enumerate(xy):
        known = np.isfinite(points).all(-1)
        low, high = np.nanmin(points, 0) - 5, np.nanmax(points, 0) + 5
        people.append(
            {
                "id": i + 1, "image_id": i + 1, "category_id": 1, "num_keypoints": int(known.sum()), "iscrowd": 0,
                "area": float((high - low).prod()), "bbox": [*map(float, low), *map(float, high - low)],
                "keypoints": np.concatenate([np.nan_to_num(points), 2.0 * known[:, None]], 1).ravel().tolist(),
            }
        )  # fmt: skip
    bones = [[skeleton.index(a) + 1, skeleton.index(b) + 1] for a, b in skeleton.bones]
    return {
        "images": [{"id": p["id"], "file_name": f"{p['id']}.png", "width": size[0], "height": size[1]} for p in people],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoints), "skeleton": bones}],
    }


def read(data: dict, tmp_path: Path, **options) -> Labels:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(data))
    return read_coco_leniently(path, **options)


def found(labels: Labels, **options) -> dict[str, list[Finding]]:
    result = audit(labels, read_images=False, **options)
    return {kind: [f for f in result.findings if f.kind == kind] for kind in KINDS}


def edited(data: dict, row: int, k: int, value: list[float]) -> dict:
    data["annotations"][row]["keypoints"][3 * k : 3 * k + 3] = value
    return data


SMALL = stick_people(12, seed=5)


def test_clean_labels_break_no_rule(tmp_path):
    result = audit(read(coco(SMALL), tmp_path), read_images=False)
    assert result.findings == ()
    assert any("too few to judge left and right" in n for n in result.notes)


RULES = [
    ("wrong-k", lambda d: d["annotations"][3].update(keypoints=[1.0] * 48), r"must have 51 numbers .* got 48; they"),
    ("wrong-k", lambda d: d["annotations"][3].update(keypoints={"a": 1}), r"must be a flat list of 51 numbers, got"),
    ("bad-record", lambda d: edited(d, 3, 5, ["x", 1, 2]), r"\(x of number 5\) must be a number, got 'x'"),
    ("bad-record", lambda d: edited(d, 3, 5, [float("nan"), 1, 2]), r"\(x of number 5\) must be a number, got nan"),
    ("bad-record", lambda d: d["annotations"][3].update(image_id=999), r"'image_id' 999 is not in the table 'images'"),
    ("bad-record", lambda d: d["annotations"][3].update(id=1), r"its id is used twice"),
    ("bad-record", lambda d: d["images"].append({"file_name": "a"}), r"image number 12: 'id' must be a whole number"),
    ("bad-record", lambda d: d["annotations"].append(5), r"annotation number 12: expected an object, got 5"),
    ("bad-category", lambda d: d["categories"][0]["skeleton"].append([1]), r"'skeleton' must be a list of pairs"),
    ("bad-category", lambda d: d["categories"][0].pop("keypoints"), r"none of its 1 categories has 'keypoints'"),
    ("bad-category", lambda d: d["categories"].clear(), r"expected a list 'categories' with the names"),
    ("bad-category", lambda d: d["categories"][0].update(flip_pairs=[["left_eye", "tail"]]), r"flip pair .* names un"),
    ("visibility-value", lambda d: edited(d, 3, 6, [200, 200, 3]), r"right_shoulder is none of 0, 1, 2"),
    ("labelled-at-origin", lambda d: edited(d, 3, 6, [0, 0, 2]), r"right_shoulder: labelled \(v > 0\) but at 0, 0"),
    ("unlabelled-with-place", lambda d: edited(d, 3, 6, [200, 150, 0]), r"right_shoulder: has coordinates but v = 0"),
    ("num-keypoints", lambda d: d["annotations"][3].update(num_keypoints=2), r"num_keypoints says 2, but \d+"),
    ("outside-image", lambda d: edited(d, 3, 10, [450, 200, 2]), r"right_wrist: outside the image by more than 2 %"),
    ("outside-box", lambda d: edited(d, 3, 10, [5, 395, 2]), r"right_wrist.*: outside the box by \d+% of its longer"),
    ("box-elsewhere", lambda d: d["annotations"][3].update(bbox=[0, 0, 30, 30]), r"% of the keypoints lie outside"),
    ("box-empty", lambda d: d["annotations"][3].update(bbox=[9, 9, 0, 5]), r"no area: width 0, height 5"),
    ("box-empty", lambda d: d["annotations"][3].pop("bbox"), r"no area: none"),
    ("box-outside-image", lambda d: d["annotations"][3].update(bbox=[-900, 0, 1300, 400]), r"Only 31% of the box"),
    ("image-named-twice", lambda d: d["images"][3].update(file_name="1.png"), r"1.png is listed 2 times"),
    ("duplicate-person", lambda d: d["annotations"].append({**d["annotations"][3], "id": 99}), r"same pose as"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "text"), RULES, ids=[f"{r[0]}-{i}" for i, r in enumerate(RULES)])
def test_a_broken_rule_is_named_and_the_rest_still_read(tmp_path, kind, spoil, text):
    data = coco(SMALL)
    spoil(data)
    by_kind = found(read(data, tmp_path))
    assert any(re.search(text, f.text) for f in by_kind[kind]), by_kind[kind]
    assert len(by_kind[kind]) == 1


def test_every_broken_record_is_listed_not_only_the_first(tmp_path):
    data = coco(SMALL)
    for row in (1, 4, 7):
        data["annotations"][row]["keypoints"] = [1.0] * 10
    assert [f.annotation for f in found(read(data, tmp_path))["wrong-k"]] == [2, 5, 8]


def test_a_systematic_error_is_reported_once_with_its_extent(tmp_path):
    data = coco(stick_people(60))
    for row in data["annotations"]:
        row["keypoints"][0:3] = [50.0, 50.0, 0]
        row["num_keypoints"] = 17
        row["keypoints"] = [1 if i % 3 == 2 and v == 2 else v for i, v in enumerate(row["keypoints"])]
    by_kind = found(read(data, tmp_path))
    assert [f.count for f in by_kind["unlabelled-with-place"]] == [60]
    assert [f.count for f in by_kind["visibility-constant"]] == [60]
    assert len(by_kind["num-keypoints"]) == 1
    assert "60 of 60 annotations" in by_kind["unlabelled-with-place"][0].text


def test_fractions_instead_of_pixels(tmp_path):
    by_kind = found(read(coco(stick_people(50) / 400), tmp_path))
    assert len(by_kind["normalised"]) == 1
    assert not by_kind["joint-misplaced"]


def test_two_people_holding_each_other_are_not_one_labelled_twice(tmp_path):
    data = coco(SMALL)
    other = copy.deepcopy(data["annotations"][3])
    other["id"] = 99
    values = np.array(other["keypoints"]).reshape(-1, 3)
    values[:, 0] += np.where(values[:, 2] > 0, 40, 0)
    other["keypoints"] = values.ravel().tolist()
    data["annotations"].append(other)
    assert not found(read(data, tmp_path))["duplicate-person"]


UNREADABLE = [
    ("[1, 2]", r"is not COCO keypoint JSON: expected an object .* got a list of 2"),
    ('{"shapes": []}', r"got an object with 'shapes'"),
    ('{"images": [], "annotations": [{"id": 1, "bbox": [0, 0, 1, 1]}]}', r"none has 'keypoints'"),
    ("{", r"is not valid JSON"),
]


@pytest.mark.parametrize(("text", "message"), UNREADABLE)
def test_what_is_no_keypoint_file_is_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_coco_leniently(path)


def test_missing_folders_and_wrong_flip_orders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such folder of images"):
        read(coco(SMALL), tmp_path, images=tmp_path / "none")
    with pytest.raises(ValueError, match="must name each of the 17 keypoints"):
        with_flip(COCO17, tuple(range(16)))
    labels = read(coco(SMALL), tmp_path)
    with pytest.raises(ValueError, match="sure must be above 0"):
        audit(labels, sure=0)
    with pytest.raises(ValueError, match="Unknown kind of finding: swaped"):
        audit(labels, ignore=("swaped",))


# Poses against each other


def test_bone_scores_find_the_long_bone_and_no_other():
    rng = np.random.default_rng(0)
    length = rng.uniform(20, 60, (200, 1)) * np.array([1.0, 2.0, 0.5, 1.5, 1.0, 2.0]) * rng.uniform(0.7, 1.0, (200, 6))
    length[17, 2] *= 6
    z, ratio = bone_scores(length)
    assert np.argwhere(z > 5).tolist() == [[17, 2]]
    assert 4 < ratio[17, 2] < 9


def test_bones_impossible_and_of_no_length(tmp_path):
    xy = stick_people(80)
    xy[7, COCO17.index("left_ankle")] += [150, 150]
    xy[9, COCO17.index("left_wrist")] = xy[9, COCO17.index("left_elbow")]
    by_kind = found(read(coco(xy), tmp_path))
    assert [f.annotation for f in by_kind["impossible-bone"]] == [8]
    assert "left_ankle" in by_kind["impossible-bone"][0].keypoints
    assert [f.annotation for f in by_kind["zero-bone"]] == [10]


def test_bones_are_learnt_where_the_file_has_none(tmp_path):
    data = coco(stick_people(80))
    names = [f"p_{n}" for n in COCO17.keypoints]
    data["categories"][0] |= {"skeleton": [], "keypoints": names}
    bones = with_bones(read(data, tmp_path).groups[0]).skeleton.bones
    assert len(bones) == 16
    assert {("p_left_elbow", "p_left_wrist"), ("p_left_knee", "p_left_ankle")} <= set(bones)


FLIPS = [
    ("right pairs", COCO17.flip.tolist(), []),
    ("wrists forgotten", [9 if i == 9 else 10 if i == 10 else int(j) for i, j in enumerate(COCO17.flip)], ["wrist"]),
    ("no pairs at all", list(range(17)), ["shoulder", "hip", "knee", "ankle", "elbow"]),
    ("elbow with wrist", [0, 2, 1, 4, 3, 6, 5, 10, 9, 8, 7, 12, 11, 14, 13, 16, 15], ["elbow", "wrist"]),
]


@pytest.mark.parametrize(("order", "wrong"), [f[1:] for f in FLIPS], ids=[f[0] for f in FLIPS])
def test_flip_pairs_are_tested_against_the_data(tmp_path, order, wrong):
    labels = read(coco(stick_people(90)), tmp_path, flip=tuple(order))
    findings = check_flip(labels, 0)
    named = {n for f in findings for n in f.keypoints}
    for part in wrong:
        assert {f"left_{part}", f"right_{part}"} <= named
    assert bool(findings) == bool(wrong)


def test_names_in_the_wrong_order_contradict_the_data(tmp_path):
    data = coco(stick_people(90))
    names = data["categories"][0]["keypoints"]
    i, j = names.index("left_knee"), names.index("right_ankle")
    names[i], names[j] = names[j], names[i]
    data["categories"][0]["skeleton"] = []
    assert check_flip(read(data, tmp_path), 0)


def test_the_observers_sides_are_noticed(tmp_path):
    xy = stick_people(120)
    assert check_observer_sides(read(coco(xy), tmp_path), 0) == []
    finding = check_observer_sides(read(coco(xy[:, COCO17.flip]), tmp_path), 0)[0]
    assert finding.kind == "observer-sides"
    assert finding.value == pytest.approx(0, abs=0.1)


# The critic


def exchanged(points: np.ndarray, words: tuple[str, ...]) -> np.ndarray:
    order = [COCO17.flip[i] if any(w in n for w in words) else i for i, n in enumerate(COCO17.keypoints)]
    return points[order]


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, dict[int, str]]:
    xy = stick_people(600, seed=3)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(xy))[:96]
    truth: dict[int, str] = {}
    for i, row in enumerate(rows):
        kind = ("swapped-body", "swapped-arms", "swapped-legs", "joint-misplaced")[i % 4]
        truth[int(row)] = kind
        if kind == "joint-misplaced":
            angle = rng.uniform(0, 2 * np.pi)
            xy[row, rng.choice([9, 10])] += 90 * np.array([np.cos(angle), np.sin(angle)])
        else:
            arms, legs = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
            xy[row] = exchanged(xy[row], {"swapped-body": ("",), "swapped-arms": arms, "swapped-legs": legs}[kind])
    return xy, truth


@pytest.fixture(scope="module")
def judged(planted, tmp_path_factory) -> Audit:
    return audit(read(coco(planted[0]), tmp_path_factory.mktemp("judged")), read_images=False, steps=200)


STATISTICAL = ("swapped-body", "swapped-arms", "swapped-legs", "swapped-part", "joint-misplaced", "impossible-bone")


@pytest.mark.slow
def test_planted_errors_are_found_and_few_others(planted, judged):
    truth = planted[1]
    flagged = {f.person[1] for f in judged.findings if f.kind in STATISTICAL and f.person}
    recall = len(flagged & set(truth)) / len(truth)
    precision = len(flagged & set(truth)) / len(flagged)
    assert recall >= 0.45
    assert precision >= 0.7


@pytest.mark.slow
def test_swaps_are_reported_as_swaps(planted, judged):
    truth = {row for row, k in planted[1].items() if k.startswith("swapped")}
    named = {f.person[1] for f in judged.findings if f.kind.startswith("swapped") and f.person}
    assert len(named & truth) >= 0.4 * len(truth)
    arms = {row for row, k in planted[1].items() if k == "swapped-arms"}
    assert {f.person[1] for f in judged.findings if f.kind == "swapped-arms" and f.person} & arms


@pytest.mark.slow
def test_clean_people_raise_few_alarms():
    verdict = judge(COCO17, stick_people(300, seed=4), steps=60)
    assert verdict is not None
    assert (verdict.probability[:, 0] < 0.4).mean() < 0.03


@pytest.mark.slow
def test_the_audit_says_how_much_it_would_find(judged):
    assert 0.2 < judged.power["swapped-body"] <= 1
    lines = {line.kind: line for line in judged.summary()}
    assert lines["swapped-body"].power == judged.power["swapped-body"]


@pytest.mark.slow
def test_probabilities_are_probabilities_and_the_seed_decides():
    xy = stick_people(160, seed=8)
    first, again = (judge(COCO17, xy, seed=1, steps=20) for _ in range(2))
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first.probability, again.probability)
    np.testing.assert_allclose(first.probability.sum(1), 1)
    assert (first.probability >= 0).all()


def scores_of(faulty: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(faulty, rng.normal(3, 0.4, len(faulty)), rng.normal(-1, 1, len(faulty)))


def test_shares_of_faults_are_bounded_by_what_is_seen():
    rng = np.random.default_rng(0)
    # 4 in 100 labels have the fault and look like planted ones, of which one in five does not show.
    faulty = rng.random(4000) < 0.04
    score = scores_of(faulty, rng)[:, None]
    spoilt = scores_of(rng.random(800) < 0.8, rng)[:, None]
    weigh = _Weighing.measure(score, spoilt, np.ones(800, int), np.array([0.005]), np.array([5]))
    assert 0.03 < weigh.share[0] < 0.07
    wrong = 1 - weigh(score)[:, 0]
    assert np.quantile(wrong[faulty], 0.1) > 0.7
    assert np.quantile(wrong[~faulty], 0.98) < 0.3


def test_few_who_stand_out_are_taken_for_chance():
    rng = np.random.default_rng(1)
    score = np.where(np.arange(200) < 2, 2.0, rng.normal(-1, 1, 200))[:, None]
    spoilt = scores_of(np.ones(800, bool), rng)[:, None]
    weigh = _Weighing.measure(score, spoilt, np.ones(800, int), np.array([0.005]), np.array([5]))
    assert weigh.share[0] <= 0.005
    assert (1 - weigh(score)[:, 0]).max() < 0.6


def test_a_fault_that_few_can_have_and_nothing_tells_is_not_found_in_all_of_them():
    """The critic's scores say nothing; 20 of 400 people have the pair at all."""
    rng = np.random.default_rng(2)
    score = np.full((400, 1), IMPOSSIBLE)
    score[:20, 0] = rng.normal(0, 1, 20)
    spoilt = rng.normal(0, 1, (20, 1))
    wrong = 1 - _Weighing.measure(score, spoilt, np.ones(20, int), np.array([0.01]), np.array([5]))(score)[:, 0]
    assert wrong[:20].max() < 0.5
    assert wrong[20:].max() == 0


def test_faults_follow_the_names():
    kinds = [f.kind for f in faults_of(COCO17)]
    assert [kinds.count(k) for k in ("swapped-body", "swapped-arms", "swapped-legs", "joint-misplaced")] == [
        1,
        1,
        1,
        17,
    ]
    assert judge(COCO17, stick_people(100)) is None


# Images


def scene(seed: int, size=(120, 90)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.float32)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def with_images(tmp_path: Path, count: int = 8) -> Labels:
    data = coco(SMALL[:count], size=(120, 90))
    for row in data["images"]:
        write_image(tmp_path / row["file_name"], scene(row["id"]))
    return read(data, tmp_path)


def test_images_missing_unreadable_and_of_another_size(tmp_path):
    labels = with_images(tmp_path)
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_text("not an image")
    write_image(tmp_path / "4.png", scene(4, (90, 120)))
    findings, _ = check_images(labels)
    assert {(f.kind, f.image) for f in findings} == {
        ("image-missing", "2.png"),
        ("image-unreadable", "3.png"),
        ("image-size", "4.png"),
    }
    assert any("Width and height are exchanged" in f.text for f in findings)


def test_the_same_image_is_found_smaller_and_brighter(tmp_path):
    labels = with_images(tmp_path)
    copy_of_1 = np.clip(scene(1, (100, 75)) * 0.8 + 20, 0, 255).astype(np.uint8)
    write_image(tmp_path / "7.png", copy_of_1)
    _, looks = check_images(labels)
    assert [(f.image, f.other) for f in find_duplicates(labels, looks)] == [("7.png", 0)]


def test_leakage_between_two_sets(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = with_images(tmp_path / "a"), with_images(tmp_path / "b")
    for i in range(1, 9):
        if i != 5:
            write_image(tmp_path / "b" / f"{i}.png", scene(100 + i))
    looks = check_images(first)[1], check_images(second)[1]
    assert [f.image for f in find_leaks(first, looks[0], second, looks[1])] == ["5.png"]


# Any dataset, and the pages


class TwoPeople:
    skeleton = COCO17

    def __init__(self):
        xy = stick_people(2, seed=11)
        xy[1, 9] = [5000, 5000]
        self.people = Instances.from_keypoints(COCO17, xy)

    def __len__(self):
        return 1

    def source(self, index):
        return "drawn-0"

    def instances(self, index):
        return self.people

    def image(self, index, *, reduce=1):
        return scene(0, (400, 400))

    def __getitem__(self, index):
        return PoseSample(self.image(index), self.people, Affine.identity(), self.source(index))


def test_any_dataset_can_be_audited():
    labels = labels_of(TwoPeople(), "two")
    assert labels.num_people == 2
    result = audit(labels)
    assert not any(f.kind.startswith(("image", "visibility", "num")) for f in result.findings)
    assert check_records(labels, 0) == []  # sizes are not declared, and the box is around the keypoints


def test_page_and_csv_are_whole_and_escaped(tmp_path):
    labels = with_images(tmp_path)
    spoilt = Finding(
        "outside-box", "warning", 1.0, "<script>x</script>", "=1.png", 4, ("nose",), person=(0, 3), image_index=3
    )
    other = Finding("duplicate-image", "warning", 0.9, "same", "2.png", image_index=1, other=2)
    gone = Finding("image-unreadable", "error", 1.0, "broken", "3.png", image_index=2)
    (tmp_path / "3.png").write_text("x")
    result = Audit(labels, (spoilt, gone), ("a note & more",), {})
    page = write_page(result)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a note &amp; more" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "No image" in page
    assert not re.search(r"(src|href)=['\"]http", page)
    rows = list(csv.reader(io.StringIO(write_csv(result))))
    assert rows[1][3] == "'=1.png"
    assert len(rows) == 3
    write_image(tmp_path / "3.png", scene(3))
    assert image_of(labels, other).shape == (280, 560, 3)


def test_the_page_shares_its_images_among_the_kinds(tmp_path):
    labels = with_images(tmp_path)
    many = tuple(
        Finding("outside-box", "warning", 1.0, "x", "1.png", i, (), person=(0, 0), image_index=0) for i in range(9)
    )
    one = Finding("box-empty", "error", 1.0, "y", "2.png", 2, (), person=(0, 1), image_index=1)
    page = write_page(Audit(labels, (*many, one), (), {}), worst=4)
    assert page.count("<figure>") == 4
    assert "id='box-empty'" in page
    assert "(3 of 9 shown)" in page


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="wants ../shared/data")
def test_real_coco_files_are_read_without_a_word_on_their_records():
    for name in ("coco/test_coco.json", "crowdpose/test_crowdpose.json", "onehand10k/test_onehand10k.json"):
        labels = read_coco_leniently(SHARED / "samples" / name)
        assert labels.num_people > 0
        assert not [f for f in labels.findings if f.kind in ("wrong-k", "bad-record")]
