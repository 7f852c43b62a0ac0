import copy
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from poseglass.core.image import write_image
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, LSP14
from poseglass.readers import LabelledImages, coco, mixed, write_coco
from poseglass.readers.notes import notes_of
from poseglass.readers.sigmas import SIGMA_OF_SPACING, estimate_sigmas
from poseglass.synthetic import synthetic_people

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")

FISH = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 3, "file_name": "b.png", "width": 50, "height": 60},
    ],
    "annotations": [
        {
            "id": 1, "image_id": 3, "category_id": 1, "keypoints": [1, 2, 2, 10, 5, 1, 0, 0, 0],
            "bbox": [0, 1, 20, 10], "area": 150.5, "iscrowd": 0,
        },
        {
            "id": 2, "image_id": 7, "category_id": 1, "keypoints": [4, 4, 2, 8, 4, 2, 6, 9, 2],
            "bbox": [2, 2, 10, 12], "area": 90.0, "iscrowd": 0,
        },
        {
            "id": 5, "image_id": 7, "category_id": 1, "keypoints": [0] * 9,
            "bbox": [0, 0, 40, 30], "area": 1200.0, "iscrowd": 1,
        },
    ],
    "categories": [
        {"id": 1, "name": "fish", "keypoints": ["left_fin", "right_fin", "tail"], "skeleton": [[1, 3], [2, 3]]}
    ],
}  # fmt: skip


def fish(tmp_path: Path, change=None, name: str = "fish.json") -> Path:
    document = copy.deepcopy(FISH)
    if change is not None:
        change(document)
    path = tmp_path / name
    path.write_text(json.dumps(document))
    return path


def put(*keys):
    """Return a change that sets ``document[keys[0]][keys[1]]... = keys[-1]``."""

    def change(document):
        for key in keys[:-2]:
            document = document[key]
        document[keys[-2]] = keys[-1]

    return change


def test_a_custom_skeleton(tmp_path):
    data = coco(fish(tmp_path))
    assert data.skeleton.keypoints == ("left_fin", "right_fin", "tail")
    assert data.skeleton.name == "fish"
    assert data.skeleton.bones == (("left_fin", "tail"), ("right_fin", "tail"))
    assert data.skeleton.flip.tolist() == [1, 0, 2]
    assert data.image_ids == (7, 3)
    assert data.size_wh(1) == (50, 60)
    second = data.instances(1)
    np.testing.assert_array_equal(second.xy[0], [[1, 2], [10, 5], [np.nan, np.nan]])
    assert second.score.tolist() == [[1, 1, 0]]
    assert second.keypoint_extra["occluded"].tolist() == [[False, True, False]]
    assert second.box_xyxy.tolist() == [[0, 1, 20, 11]]
    assert second.extra["area"].tolist() == [150.5]
    first = data.instances(0)
    assert first.extra["annotation_id"].tolist() == [2, 5]
    assert first.extra["category_id"].tolist() == [1, 1]
    assert first.extra["crowd"].tolist() == [False, True]


def test_crowds_and_unlabelled_people_can_be_excluded(tmp_path):
    path = fish(tmp_path, lambda d: d["annotations"].append({**d["annotations"][1], "id": 9, "keypoints": [0] * 9}))
    assert coco(path).everyone.extra["annotation_id"].tolist() == [2, 5, 9, 1]
    assert coco(path, crowd="drop").everyone.extra["annotation_id"].tolist() == [2, 9, 1]
    assert coco(path, unlabelled="drop").everyone.extra["annotation_id"].tolist() == [2, 1]
    assert len(coco(path, unlabelled="drop")) == 2  # images stay
    with pytest.raises(ValueError, match=r"crowd must be 'keep' or 'drop', got 'drpo'\. Did you mean 'drop'"):
        coco(path, crowd="drpo")  # type: ignore[arg-type]


def test_images_are_looked_for_where_they_are(tmp_path):
    path = fish(tmp_path)
    write_image(tmp_path / "a.png", np.full((30, 40, 3), 9, np.uint8))
    assert coco(path)[0].size_wh == (40, 30)
    assert coco(path, images="elsewhere").source(0) == str(Path("elsewhere") / "a.png")
    (tmp_path / "images").mkdir()
    assert coco(path).source(0) == str(tmp_path / "a.png")  # nothing is in the other folder
    write_image(tmp_path / "images" / "a.png", np.full((30, 40, 3), 9, np.uint8))
    assert coco(path).source(0) == str(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"No such image: .*images.a\.png"):
        coco(path)[0]


def test_gzip_is_read_by_its_content(tmp_path):
    packed = tmp_path / "labels"
    packed.write_bytes(gzip.compress(fish(tmp_path).read_bytes()))
    assert len(coco(packed)) == 2


# -------------------- notes


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (put("categories", 0, "skeleton", [[0, 2], [1, 2]]), "bones are numbered from 0"),
        (put("categories", 0, "skeleton", [[1, 9]]), r"bone \[1, 9\] is outside 1 to 3"),
        (put("categories", 0, "keypoints", ["a", "b", "c"]), "no two of the names differ by left and right"),
        (put("categories", 0, "keypoints", ["left_a", "b", "c"]), "the other side of left_a is not among"),
        (put("annotations", 0, "keypoints", [1, 2, 0, 10, 5, 1, 0, 0, 0]), "1 keypoint with coordinates and v = 0"),
        (put("annotations", 0, "keypoints", [0, 0, 2, 10, 5, 1, 0, 0, 0]), r"1 keypoint with v > 0 at"),
        (lambda d: d["annotations"][0].pop("area"), "1 annotation without 'area'"),
        (lambda d: d["annotations"][0].pop("bbox"), "1 annotation without 'bbox'"),
        (lambda d: [a.pop("id") for a in d["annotations"]], "Annotations have no 'id'"),
        (lambda d: None, "OKS sigmas of 3 keypoints are not known and are estimated"),
    ],
)
def test_assumptions_are_noted(tmp_path, change, note):
    notes = notes_of(coco(fish(tmp_path, change)))
    assert any(re.search(note, n) for n in notes), notes


def test_bones_from_zero_are_understood(tmp_path):
    data = coco(fish(tmp_path, put("categories", 0, "skeleton", [[0, 2], [1, 2]])))
    assert data.skeleton.bones == (("left_fin", "tail"), ("right_fin", "tail"))


def test_without_twos_nothing_is_hidden(tmp_path):
    def ones(document):
        for a in document["annotations"]:
            a["keypoints"] = [min(v, 1) if i % 3 == 2 else v for i, v in enumerate(a["keypoints"])]

    data = coco(fish(tmp_path, ones))
    assert not data.everyone.keypoint_extra["occluded"].any()
    assert data.everyone.known.sum() == 5
    assert any("v = 1 is taken as labelled" in n for n in data.notes)


def test_a_missing_box_is_drawn_around_the_keypoints(tmp_path):
    data = coco(fish(tmp_path, lambda d: d["annotations"][0].pop("bbox")))
    assert data.instances(1).box_xyxy.tolist() == [[1, 2, 10, 5]]


# -------------------- symmetry and sigmas


def test_flip_pairs_can_be_given(tmp_path):
    path = fish(tmp_path, put("categories", 0, "keypoints", ["sinister", "dexter", "tail"]))
    assert coco(path).skeleton.flip.tolist() == [0, 1, 2]
    assert coco(path, flip_pairs=[("sinister", "dexter")]).skeleton.flip.tolist() == [1, 0, 2]
    for pairs, match in (
        ([("sinister", "dextre")], r"names unknown keypoint 'dextre'\. Did you mean 'dexter'"),
        ([(0, 1)], "unknown keypoint 0. Give names, not numbers"),
        ([("sinister", "dexter"), ("tail", "dexter")], "keypoint 'dexter' is in two flip pairs"),
        ([("sinister",)], "must be two keypoint names"),
        (3, "must be pairs of keypoint names"),
    ):
        with pytest.raises(ValueError, match=match):
            coco(path, flip_pairs=pairs)  # type: ignore[arg-type]


def test_sigmas_given_or_in_the_file(tmp_path):
    path = fish(tmp_path)
    assert coco(path, sigmas=[0.1, 0.2, 0.3]).skeleton.sigmas == (0.1, 0.2, 0.3)
    assert coco(path, sigmas={"tail": 3, "left_fin": 1, "right_fin": 2}).skeleton.sigmas == (1, 2, 3)
    assert coco(fish(tmp_path, put("categories", 0, "sigmas", [1, 2, 3]))).skeleton.sigmas == (1, 2, 3)
    with pytest.raises(ValueError, match="missing: right_fin, tail"):
        coco(path, sigmas={"left_fin": 1})
    with pytest.raises(ValueError, match="expected 3 sigmas"):
        coco(path, sigmas=[1, 2])
    with pytest.raises(ValueError, match="'sigmas' must be 3 positive numbers"):
        coco(fish(tmp_path, put("categories", 0, "sigmas", [1, 2, 0])))


def test_estimated_sigmas_follow_the_spacing(tmp_path):
    data = coco(fish(tmp_path))
    # the only person with the tail: fins 4 apart, each sqrt(4 + 25) from the tail; area 90
    tail = SIGMA_OF_SPACING * np.sqrt(29) / np.sqrt(90)
    assert data.skeleton.sigmas[2] == pytest.approx(tail, abs=0.005)
    assert estimate_sigmas(data.everyone[:0]).tolist() == [0.05] * 3


@needs_shared
@pytest.mark.shared
def test_the_estimate_comes_near_cocos_own_sigmas():
    estimate = estimate_sigmas(coco(SHARED / "coco" / "train.json").everyone)
    error = np.log(estimate / np.array(COCO17.sigmas))
    assert error.std() < 0.25
    assert abs(error.mean()) < 0.03


def test_known_keypoints_give_the_known_skeleton(tmp_path):
    def human(document):
        document["categories"][0] |= {"keypoints": list(COCO17.keypoints), "skeleton": [[16, 14]]}
        document["annotations"] = []

    assert coco(fish(tmp_path, human)).skeleton == COCO17


# -------------------- categories


def two_kinds(document):
    document["categories"].append({"id": 4, "name": "bird", "keypoints": ["beak", "tail"], "skeleton": [[1, 2]]})
    document["categories"].append({"id": 9, "name": "stone"})
    document["annotations"].append(
        {"id": 8, "image_id": 3, "category_id": 4, "keypoints": [3, 3, 2, 9, 9, 2], "bbox": [1, 1, 9, 9], "area": 81}
    )
    document["annotations"].append({"id": 11, "image_id": 3, "category_id": 9, "bbox": [1, 1, 9, 9], "area": 81})


def test_categories_with_different_keypoints_share_names(tmp_path):
    data = coco(fish(tmp_path, two_kinds))
    assert data.skeleton.keypoints == ("left_fin", "right_fin", "tail", "beak")
    bird = data.instances(1)[data.instances(1).extra["category_id"] == 4]
    np.testing.assert_array_equal(bird.xy[0, 2:], [[9, 9], [3, 3]])
    assert bird.known.tolist() == [[False, False, True, True]]
    assert any("2 categories with different keypoints" in n for n in data.notes)


def test_flip_pairs_of_one_category_leave_the_others_names_alone(tmp_path):
    def change(document):
        two_kinds(document)
        document["categories"][1]["flip_pairs"] = []

    assert coco(fish(tmp_path, change)).skeleton.flip.tolist() == [1, 0, 2, 3]
    path = fish(tmp_path, lambda d: (two_kinds(d), d["categories"][1].update(flip_pairs=[["beak", "tail"]]),
                                     d["categories"][0].update(flip_pairs=[["left_fin", "tail"]])))  # fmt: skip
    with pytest.raises(ValueError, match=r"fish\.json: its categories cannot be read together\. .* flips 'tail'"):
        coco(path)


def test_one_category_is_chosen_by_name_or_id(tmp_path):
    path = fish(tmp_path, two_kinds)
    assert coco(path, category="bird").skeleton.keypoints == ("beak", "tail")
    assert coco(path, category=4).num_instances == 1
    assert coco(path, category=["fish", 4]).num_instances == 4
    with pytest.raises(ValueError, match=r"has no category 'brid'\. Did you mean 'bird'\? It has: 1 'fish', 4 'bird'"):
        coco(path, category="brid")
    with pytest.raises(ValueError, match=r"category 9 \('stone'\): 'keypoints' must be a list of names"):
        coco(path, category="stone")
    with pytest.raises(ValueError, match="at least one category"):
        coco(path, category=[])


def test_a_given_skeleton_names_the_files_keypoints(tmp_path):
    nameless = fish(tmp_path, lambda d: d["categories"][0].pop("keypoints"))
    with pytest.raises(ValueError, match="none of its 1 categories has 'keypoints'"):
        coco(nameless)
    mine = Skeleton("mine", ("a", "b", "c"))
    assert coco(nameless, skeleton=mine).skeleton.keypoints == ("a", "b", "c")
    assert coco(nameless, skeleton=mine.to_dict()).instances(1).xy[0, 0].tolist() == [1, 2]
    named = fish(tmp_path)
    assert coco(named, skeleton=mine).skeleton.name == "mine"
    with pytest.raises(ValueError, match="has 3 keypoints, skeleton 'mine' has 1"):
        coco(named, skeleton=Skeleton("mine", ("a",)))
    with pytest.raises(ValueError, match="keypoint 'left_fin' is number 0 in the file and number 2 in skeleton"):
        coco(named, skeleton=Skeleton("mine", ("tail", "right_fin", "left_fin")))
    without = fish(tmp_path, lambda d: d.pop("categories"))
    assert coco(without, skeleton=mine).num_instances == 3


# -------------------- bad input


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("annotations", 0, "keypoints", [1, 2, 2]), r"annotation 1: 'keypoints' must have 9 numbers .*, got 3"),
        (put("annotations", 0, "keypoints", [1, 2] * 3), "got 6; these look like x, y without v"),
        (put("annotations", 0, "keypoints", [[1, 2, 2]] * 3), "got 3; these look like one list per point"),
        (put("annotations", 0, "keypoints", "abc"), "annotation 1: 'keypoints' must be a flat list"),
        (
            put("annotations", 0, "keypoints", [1, "2", 2] + [0] * 6),
            r"'keypoints'\[1\] \(y of number 0\) must be a num",
        ),
        (put("annotations", 0, "keypoints", [1, None, 2] + [0] * 6), r"'keypoints'\[1\] .* got None"),
        (put("annotations", 0, "keypoints", [1, float("nan"), 2] + [0] * 6), r"annotation 1: .*\[1\] .* got nan"),
        (put("annotations", 0, "keypoints", [1, 10**400, 2] + [0] * 6), r"annotation 1: .*\[1\] .* must be a number"),
        (put("annotations", 0, "keypoints", [1, 2, 0.7] + [0] * 6), "v of 'left_fin' must be 0 .* got 0.7. Scores"),
        (put("annotations", 0, "keypoints", [1, 2, 3] + [0] * 6), "must be 0 .unlabelled., 1 .hidden. or 2"),
        (put("annotations", 0, "bbox", [0, 1, 0, 10]), r"annotation 1: 'bbox' \[0.0, 1.0, 0.0, 10.0\] .* has no area"),
        (put("annotations", 0, "bbox", [0, 1, -5, 10]), "has no area"),
        (put("annotations", 0, "bbox", [50, 1, 5, 10]), "lies outside image 3 of 50 x 60 pixels"),
        (put("annotations", 0, "bbox", [-9, 1, 5, 10]), "lies outside image 3"),
        (put("annotations", 0, "bbox", [1, 2, 3]), "annotation 1: 'bbox' must be 4 numbers"),
        (put("annotations", 0, "bbox", ["1", 2, 3, 4]), "annotation 1: 'bbox' must be 4 numbers"),
        (put("annotations", 0, "area", "big"), "annotation 1: 'area' must be a number of square pixels, got 'big'"),
        (put("annotations", 0, "area", -1), "annotation 1: 'area' must be"),
        (put("annotations", 0, "image_id", 99), "annotation 1: 'image_id' 99 is not in the table 'images'"),
        (put("annotations", 0, "category_id", 99), r"annotation 1: 'category_id' must be one of \[1\], got 99"),
        (put("annotations", 0, "id", 2), "annotation 2: its id is used twice"),
        (put("annotations", 0, "id", None), "annotation number 0: 'id' must be a whole number or a text, got None"),
        (put("annotations", 0, 3), "annotation number 0: expected an object, got 3"),
        (put("images", 0, "id", 3), "image 3: its id is used twice"),
        (put("images", 0, "id", None), "image number 0: 'id' must be a whole number or a text, got None"),
        (put("images", 0, "file_name", 5), "image 7: 'file_name' must be the name of an image, got 5"),
        (put("images", 0, "width", 0), "image 7: 'width' must be a whole number of pixels above 0, got 0"),
        (put("images", 0, "height", "tall"), "image 7: 'height' must be a whole number"),
        (put("images", 0, "x"), "image number 0: expected an object with 'id' and 'file_name'"),
    ],
)
def test_an_invalid_record_is_named_or_skipped(tmp_path, change, match):
    path = fish(tmp_path, change)
    with pytest.raises(ValueError, match=match) as raised:
        coco(path)
    assert str(path) in str(raised.value)
    assert """Fix the file, or skip them with the data set's option bad = "drop".""" in str(raised.value)
    rest = coco(path, bad="drop")
    assert any(n.startswith("Skipped ") for n in rest.notes)
    assert rest.num_instances < 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("categories", 0, "keypoints", ["a", "a", "b"]), "'keypoints' must be unique, repeated: a"),
        (put("categories", 0, "keypoints", [1, 2, 3]), "'keypoints' must be a list of names"),
        (put("categories", 0, "skeleton", [[1, 2, 3]]), "'skeleton' must be a list of pairs .* from 1 to 3, got"),
        (put("categories", 0, "skeleton", "x"), "'skeleton' must be a list of pairs"),
        (put("categories", 0, "skeleton", [["tail", "tial"]]), r"names unknown keypoint 'tial'\. Did you mean 'tail'"),
        (put("categories", 0, "flip_pairs", [["left_fin", "x"]]), "names unknown keypoint 'x'"),
        (put("categories", 0, "id", "x"), "category number 0: expected an object with a whole number 'id'"),
        (lambda d: d["categories"].append(d["categories"][0]), "id 1 is used twice"),
        (put("categories", []), "expected a list 'categories'"),
        (put("categories", 5), "expected a list 'categories' .* got int"),
    ],
)
def test_a_faulty_category_is_refused(tmp_path, change, match):
    path = fish(tmp_path, change)
    with pytest.raises(ValueError, match=match) as raised:
        coco(path, bad="drop")
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("{", "is not valid JSON .*; it starts with '{'"),
        ("[" * 100_000, "nested too deeply"),
        ("3", "is not COCO keypoint JSON: expected an object .*, got int"),
        ("[]", "got a list of 0"),
        ('[{"image_id": 1, "keypoints": []}]', "got a list of results"),
        ('[{"joints": []}]', "got a list of MPII records. Use poseglass.readers.mpii"),
        ('{"shapes": []}', "got an object with 'shapes'"),
        ('{"images": {}, "annotations": []}', "got an object with 'images', 'annotations'"),
        ("9" * 6000, "is not valid JSON"),
    ],
)
def test_json_that_is_not_coco(tmp_path, text, match):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=match) as raised:
        coco(path)
    assert str(path) in str(raised.value)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such label file: .*x\.json"):
        coco(tmp_path / "x.json")
    with pytest.raises(ValueError, match="got a folder"):
        coco(tmp_path)


def test_many_invalid_records_are_counted(tmp_path):
    def spoil(document):
        document["annotations"] = [{**document["annotations"][0], "id": i, "area": -1} for i in range(80)]

    notes = coco(fish(tmp_path, spoil), bad="drop").notes
    assert "Skipped 60 more invalid records." in notes
    assert len(notes) < 60


# -------------------- writing


def same(a: LabelledImages, b: LabelledImages) -> None:
    assert len(a) == len(b)
    for i in range(len(a)):
        one, other = a.instances(i), b.instances(i)
        np.testing.assert_array_equal(one.xy, other.xy)
        np.testing.assert_array_equal(one.score, other.score)
        np.testing.assert_allclose(one.box_xyxy, other.box_xyxy, rtol=1e-6)
        assert one.extra.keys() == other.extra.keys()
        for key in ("area", "crowd", "annotation_id"):
            np.testing.assert_array_equal(one.extra[key], other.extra[key])
        np.testing.assert_array_equal(one.keypoint_extra["occluded"], other.keypoint_extra["occluded"])


def test_written_is_read_back(tmp_path):
    data = coco(fish(tmp_path), flip_pairs=[("left_fin", "tail")])
    (tmp_path / "out").mkdir()
    write_coco(data, tmp_path / "out" / "x.json", category="fish")
    again = coco(tmp_path / "out" / "x.json")
    same(data, again)
    assert again.skeleton == data.skeleton
    assert again.image_ids == data.image_ids
    assert [p.resolve() for p in again.paths] == [p.resolve() for p in data.paths]
    assert not any("estimated" in n for n in again.notes)


def test_images_can_be_written_too(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    write_image(tmp_path / "a.png", image)
    data = coco(fish(tmp_path)).subset([0])
    (tmp_path / "out").mkdir()
    write_coco(mixed([data]), tmp_path / "out" / "x.json", write_images=True)
    again = coco(tmp_path / "out" / "x.json")
    np.testing.assert_array_equal(again[0].image, image)
    assert again.paths[0] == tmp_path / "out" / "images" / "000000000001.png"
    np.testing.assert_array_equal(again.instances(0).xy, data.instances(0).xy)


def test_synthetic_people_become_a_coco_file(tmp_path):
    drawn = synthetic_people(2, seed=3, size_wh=(64, 64), people=2, effects=False)
    write_coco(drawn, tmp_path / "x.json", write_images=True)
    again = coco(tmp_path / "x.json")
    assert again.skeleton == drawn.skeleton
    assert again.num_instances == sum(len(drawn.instances(i)) for i in range(2))
    np.testing.assert_array_equal(again[1].image, drawn[1].image)
    np.testing.assert_array_equal(again.instances(1).xy, drawn.instances(1).xy)
    assert len(set(again.everyone.extra["annotation_id"].tolist())) == again.num_instances


# -------------------- real files


@needs_shared
@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "images", "people", "skeleton"),
    [
        ("lspet/train.json", 7517, 7517, LSP14),
        ("lspet/val.json", 500, 500, LSP14),
        ("coco/train.json", 126, 341, COCO17),
        ("samples/coco/test_coco.json", 4, 14, COCO17),
        ("samples/crowdpose/test_crowdpose.json", 2, 5, None),
        ("samples/freihand/test_freihand.json", 8, 8, None),
        ("samples/onehand10k/test_onehand10k.json", 4, 4, None),
        ("samples/panoptic/test_panoptic.json", 4, 4, None),
    ],
)
def test_real_files(file, images, people, skeleton):
    data = coco(SHARED / file)
    assert (len(data), data.num_instances) == (images, people)
    assert len(data.skeleton.sigmas) == len(data.skeleton)
    if skeleton is not None:
        assert data.skeleton == skeleton
    sample = data[0]
    assert sample.size_wh == data.size_wh(0)


@needs_shared
@pytest.mark.shared
def test_real_people_survive_the_round_trip(tmp_path):
    data = coco(SHARED / "coco" / "train.json")
    write_coco(data, tmp_path / "x.json")
    same(data, coco(tmp_path / "x.json"))
