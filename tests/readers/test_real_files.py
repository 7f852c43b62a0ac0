"""What label tools write: unused records, ids of text, names of other machines, boxes as corners; nothing is silent."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from poseglass.audit.audit import audit
from poseglass.audit.labels import read_coco_leniently
from poseglass.core.image import write_image
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import LSP14
from poseglass.readers import LabelledImages, coco, mixed
from poseglass.readers.image_files import find_images
from poseglass.readers.mixed import respelt
from poseglass.readers.notes import notes_of

K = 4
NAMES = ["left_tip", "right_tip", "top", "base"]


def people(change=None, *, count: int = 4, names: list[str] = NAMES) -> dict:
    """Return a document of people right of and below the middle of images of 200 x 160."""
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(count):
        xy = rng.uniform([110, 90], [180, 150], (len(names), 2))
        low, high = xy.min(0) - 5, xy.max(0) + 5
        annotations.append(
            {
                "id": i + 1, "image_id": i + 1, "category_id": 1,
                "keypoints": np.concatenate([xy, np.full((len(names), 1), 2.0)], 1).ravel().tolist(),
                "bbox": [*map(float, low), *map(float, high - low)], "area": float((high - low).prod() * 0.6),
            }
        )  # fmt: skip
    document = {
        "images": [{"id": i + 1, "file_name": f"{i + 1:04d}.png", "width": 200, "height": 160} for i in range(count)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing", "keypoints": names}],
    }
    if change is not None:
        change(document)
    return document


def written(folder: Path, change=None, **options) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps(people(change, **options)))
    return path


def corners(document: dict) -> None:
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        record["bbox"] = [x, y, x + w, y + h]


UNUSED = {
    "an empty track": lambda a: a.update(keypoints=[], bbox=[0, 0, 0, 0], num_keypoints=0, area=0),
    "all v = 0 and no box": lambda a: a.update(keypoints=[5, 5, 0] * K, bbox=[1, 1, -3, 0]),
    "no keypoints, a box of text": lambda a: a.update(keypoints=None, bbox=["a", 1, 2, 3]),
    "of an image that is not there": lambda a: a.update(keypoints=[0] * 3 * K, image_id=99),
    "of another length": lambda a: a.update(keypoints=[0] * 6),
    "an area of text": lambda a: a.update(keypoints=[], area="none", bbox=[0, 0, 0, 1]),
}


@pytest.mark.parametrize("change", UNUSED.values(), ids=list(UNUSED))
def test_an_unusable_record_that_nobody_labelled_is_skipped_and_counted(tmp_path, change):
    data = coco(written(tmp_path, lambda d: change(d["annotations"][1])))
    assert data.num_instances == 3
    assert any(n.startswith("Skipped 1 unusable record without a labelled keypoint: annotation 2:")
               for n in data.notes), data.notes  # fmt: skip


def test_an_unlabelled_record_with_a_box_stays(tmp_path):
    data = coco(written(tmp_path, lambda d: d["annotations"][1].update(keypoints=[])))
    assert data.num_instances == 4  # OKS-AP needs it as a region to ignore
    assert not data.instances(1).known.any()


@pytest.mark.parametrize("value", [float("nan"), None, "?", float("inf"), 10**30])
def test_coordinates_of_an_unlabelled_keypoint_may_be_anything(tmp_path, value):
    def change(document: dict) -> None:
        document["annotations"][2]["keypoints"][3:6] = [value, value, 0]

    data = coco(written(tmp_path, change))
    assert data.instances(2).known[0].tolist() == [True, False, True, True]
    assert data.num_instances == 4


def test_an_image_that_nothing_is_labelled_in_may_be_faulty(tmp_path):
    data = coco(written(tmp_path, lambda d: d["images"].append({"id": 50, "file_name": None})))
    assert len(data) == 4
    assert any("image 50" in note for note in data.notes)
    with pytest.raises(ValueError, match="image 2: 'file_name' must be the name of an image"):
        coco(written(tmp_path, lambda d: d["images"][1].update(file_name=None)))


def test_ids_may_be_texts(tmp_path):
    def change(document: dict) -> None:
        for image, record in zip(document["images"], document["annotations"], strict=True):
            image["id"] = record["image_id"] = f"img_{image['id']}"
            record["id"] = f"a{record['id']}"

    data = coco(written(tmp_path, change))
    assert data.image_ids == ("img_1", "img_2", "img_3", "img_4")
    assert data.everyone.extra["annotation_id"].tolist() == [1, 2, 3, 4]
    assert any("Annotation ids are strings" in note for note in data.notes)


def test_boxes_as_corners_are_refused_and_can_be_read(tmp_path):
    sound = coco(written(tmp_path))
    path = written(tmp_path, corners)
    with pytest.raises(ValueError, match=r"labels.json: 'bbox' .* 4 of 4 look like corners .*annotation 1") as raised:
        coco(path)
    assert 'box_format = "xyxy"' in str(raised.value)
    np.testing.assert_allclose(coco(path, box_format="xyxy").everyone.box_xyxy, sound.everyone.box_xyxy, rtol=1e-6)
    assert coco(path, box_format="xywh").num_instances == 4  # who says so is believed


def test_fractions_are_refused(tmp_path):
    def points(document: dict) -> None:
        for record in document["annotations"]:
            record["keypoints"] = [v / (200, 160, 1)[i % 3] for i, v in enumerate(record["keypoints"])]

    def boxes(document: dict) -> None:
        for record in document["annotations"]:
            record["bbox"] = [v / (200, 160)[i % 2] for i, v in enumerate(record["bbox"])]

    with pytest.raises(ValueError, match=r"all coordinates of keypoints lie between 0 and 0.9.: fractions"):
        coco(written(tmp_path, points))
    with pytest.raises(ValueError, match=r"all values of 'bbox' lie between 0 and .* fractions"):
        coco(written(tmp_path, boxes))


@pytest.mark.parametrize("area", [0, 1, 0.4, 1e7])
def test_areas_that_cannot_be_are_said_and_can_be_replaced(tmp_path, area):
    path = written(tmp_path, lambda d: [a.update(area=area) for a in d["annotations"]])
    data = coco(path)
    assert any("'area' of 4 of 4 annotations cannot be right" in n and 'area = "box"' in n for n in data.notes)
    of_boxes = coco(path, area="box")
    assert not of_boxes.notes or not any("cannot be right" in n for n in of_boxes.notes)
    box = of_boxes.everyone.box_xyxy
    np.testing.assert_allclose(of_boxes.everyone.extra["area"], (box[:, 2:] - box[:, :2]).prod(1), rtol=1e-5)
    assert not any("cannot be right" in n for n in coco(written(tmp_path)).notes)


def test_an_image_of_another_size_than_declared_is_refused_when_read(tmp_path):
    path = written(tmp_path)
    write_image(tmp_path / "0001.png", np.zeros((160, 200, 3), np.uint8))
    write_image(tmp_path / "0002.png", np.zeros((640, 800, 3), np.uint8))
    write_image(tmp_path / "0003.jpg", np.zeros((200, 160, 3), np.uint8))
    data = coco(path)
    assert data.image(0).shape == (160, 200, 3)
    with pytest.raises(ValueError, match=r"0002.png is 800 x 640 pixels, the labels 'labels' declare 200 x 160"):
        data.image(1)
    assert coco(path, sizes="file").image(1).shape == (640, 800, 3)
    turned = coco(written(tmp_path, lambda d: d["images"][2].update(file_name="0003.jpg")))
    for reduce in (1, 2, 4):
        with pytest.raises(ValueError, match="Width and height are exchanged"):
            turned.image(2, reduce=reduce)
    with pytest.raises(ValueError, match=r"0002.png is 800 x 640"):
        data.subset([0, 1]).check_images(most=10)
    assert data.subset([0]).check_images(most=10) == 1


def test_a_jpeg_read_at_a_part_of_its_size_is_not_of_another_size(tmp_path):
    for width, height in ((201, 163), (64, 48), (9, 17)):
        path = tmp_path / "x.jpg"
        write_image(path, np.zeros((height, width, 3), np.uint8))
        data = LabelledImages("x", LSP14, (path,), (coco_empty(),), (1,), np.array([[width, height]]))
        for reduce in (1, 2, 4, 8):
            data.image(0, reduce=reduce)


def coco_empty():
    from poseglass.core.instances import Instances

    return Instances.empty(LSP14)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("images\\a.jpg", "a.jpg"),
        ("C:\\Users\\me\\sub\\b.jpg", "sub/b.jpg"),
        ("/home/me/project/sub/b.jpg", "sub/b.jpg"),
        ("/data/local-files/?d=sub/b.jpg", "sub/b.jpg"),
        ("https://example.org/files/sub/b.jpg?size=large", "sub/b.jpg"),
        ("s3://bucket/a.jpg", "a.jpg"),
        ("other/b.jpg", "sub/b.jpg"),
        ("B.JPG", "sub/b.jpg"),
        ("twice.jpg", None),
        ("none.jpg", None),
        ("../a.jpg", None),
    ],
)
def test_names_of_images_are_found_by_one_rule(tmp_path, name, expected):
    root = tmp_path / "images"
    touch(root, "a.jpg", "sub/b.jpg", "sub/twice.jpg", "other2/twice.jpg")
    notes: list[str] = []
    found = find_images(root, [name], notes)
    if expected is None and name != "../a.jpg":
        assert found == (root / name,)
        assert notes == [] or "does not tell which file below" in notes[0]
    elif expected is not None:
        assert found == (root / expected,)
        assert bool(notes) == (name != expected)
    assert find_images(tmp_path / "nowhere", [name], notes) == (tmp_path / "nowhere" / name,)


def test_a_name_of_another_folder_does_not_leave_the_folder(tmp_path):
    touch(tmp_path, "secret.jpg", "images/a.jpg")
    notes: list[str] = []
    assert find_images(tmp_path / "images", ["x/../../secret.jpg"], notes)[0] == tmp_path / "images/x/../../secret.jpg"


def test_joined_by_name_whatever_the_spelling(tmp_path):
    plain = coco(written(tmp_path))
    (tmp_path / "b").mkdir()
    other = coco(written(tmp_path / "b", names=["tip L", "TipR", "Top", "BASE"]))
    joined = mixed([plain, other], skeleton=plain.skeleton)
    assert joined.instances(5).known.all()
    np.testing.assert_array_equal(joined.instances(5).xy, other.instances(1).xy)
    assert any("4 keypoints of labels are spelt differently: 'tip L' as 'left_tip'" in n for n in notes_of(joined))
    assert mixed([plain, other]).skeleton.keypoints == plain.skeleton.keypoints


def test_keypoints_that_drop_out_are_said_and_nearly_all_are_refused(tmp_path):
    plain = coco(written(tmp_path))
    (tmp_path / "b").mkdir()
    other = coco(written(tmp_path / "b", names=["left_tip", "right_tip", "nose", "chin"]))
    notes = notes_of(mixed([plain, other], skeleton=plain.skeleton))
    assert any("2 of 4 keypoints of labels are dropped" in n and "nose, chin" in n for n in notes)
    assert any("2 of 4 keypoints are not labelled in labels" in n and "top, base" in n for n in notes)
    strange = coco(written(tmp_path / "b", names=["a", "b", "c", "base"]))
    with pytest.raises(ValueError, match=r"shares 1 of 4 keypoints .* 3 of its own would be dropped: a, b, c"):
        mixed([plain, strange], skeleton=plain.skeleton)


def test_two_names_that_would_become_one_stay_apart():
    skeleton = Skeleton("s", ("Left Tip", "l_tip", "top"))
    assert respelt(skeleton, ["left_tip", "top"]) is skeleton
    assert respelt(Skeleton("s", ("Top", "left_tip")), ["left tip", "left_tip", "top"]).keypoints == ("top", "left_tip")
    renamed = respelt(Skeleton("s", ("Tip L", "Tip R"), (("Tip L", "Tip R"),), flip_pairs=(("Tip L", "Tip R"),)), NAMES)
    assert (renamed.bones, renamed.flip_pairs) == ((("left_tip", "right_tip"),), (("left_tip", "right_tip"),))


def test_notes_tell_what_is_never_labelled_and_why_nothing_is_mirrored(tmp_path):
    def change(document: dict) -> None:
        for record in document["annotations"]:
            record["keypoints"][6:9] = [0, 0, 0]

    notes = notes_of(coco(written(tmp_path, change, names=["a", "b", "c", "d"])))
    assert any("1 of 4 keypoints are labelled in no image" in n and n.endswith("nor evaluated: c.") for n in notes)
    assert any("Neither training nor the flip test flips images" in n and "(a, b, c, d)" in n for n in notes)
    sound = notes_of(coco(written(tmp_path)))
    assert not any("flips images" in n or "labelled in no image" in n for n in sound)
    told = coco(written(tmp_path, names=["a", "b", "c", "d"]), flip_pairs=[("a", "b")])
    assert not any("flips images" in n for n in notes_of(told))
    order = coco(written(tmp_path, lambda d: d["categories"][0].update(flip_idx=[1, 0, 2, 3]), names=list("abcd")))
    assert order.skeleton.flip.tolist() == [1, 0, 2, 3]
    with pytest.raises(ValueError, match="'flip_idx' must give for each of the 4 keypoints"):
        coco(written(tmp_path, lambda d: d["categories"][0].update(flip_idx=[1, 2, 0, 3]), names=list("abcd")))


def test_guessed_sides_are_said(tmp_path):
    names = ["lwri", "rwri", "lelb", "relb"]
    notes = coco(written(tmp_path, names=names)).notes
    assert any("lwri and rwri, lelb and relb" in n for n in notes)


@pytest.mark.parametrize("option", ["box_format", "area", "sizes"])
def test_an_unknown_choice_is_refused(tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} must be .* got 'flie'"):
        coco(written(tmp_path), **{option: "flie"})


def test_the_document_is_sound(tmp_path):
    assert copy.deepcopy(people()) == people()
    assert not [n for n in coco(written(tmp_path)).notes if "sigmas" not in n]


def test_two_names_never_become_one_image(tmp_path):
    root = tmp_path / "images"
    touch(root, "0001.jpg")
    notes: list[str] = []
    names = ["cam1/0001.jpg", "cam2/0001.jpg", "0001.jpg"]
    assert find_images(root, names, notes) == tuple(root / name for name in names)
    assert len(notes) == 1
    assert "2 images not where the name says" in notes[0]
    twice: list[str] = []  # one image listed twice is another matter
    assert find_images(root, ["cam1/0001.jpg"] * 2, twice) == (root / "0001.jpg",) * 2


def test_nothing_is_guessed_in_a_folder_too_large_to_list(tmp_path, monkeypatch):
    monkeypatch.setattr("poseglass.readers.image_files.MAX_LISTED", 3)
    touch(tmp_path, *(f"{folder}/{i}.jpg" for folder in "ab" for i in range(3)), "c/same.jpg")
    notes: list[str] = []
    assert find_images(tmp_path, ["same.jpg"], notes) == (tmp_path / "same.jpg",)
    assert "holds more than 3 files" in notes[0]


@pytest.mark.parametrize("name", ["//[img.jpg", "http://[x/y.jpg", "//[a]/b.jpg", "\0", "x" * 5000])
def test_names_that_are_no_names_are_looked_for_without_a_crash(tmp_path, name):
    assert len(find_images(tmp_path, [name], [])) == 1


def test_one_odd_list_among_thousands_is_found(tmp_path):
    def change(document: dict) -> None:
        first = document["annotations"][0]
        document["annotations"] = [{**first, "id": i} for i in range(3000)]
        document["annotations"][2500] = {**first, "id": 2500, "keypoints": [None, None, 0, *first["keypoints"][3:]]}
        document["annotations"][1500] = {**first, "id": 1500, "keypoints": ["a", *first["keypoints"][1:]]}

    data = coco(written(tmp_path, change), bad="drop")
    assert data.num_instances == 2999
    assert data.everyone.known[:, 0].sum() == 2998
    assert any("annotation 1500" in note for note in data.notes)


def test_accents_are_found_however_a_system_writes_them(tmp_path):
    composed, decomposed = "H\u00e4user/gr\u00f6\u00dfe.jpg", "Ha\u0308user/gro\u0308\u00dfe.jpg"
    for there, asked in ((composed, decomposed), (decomposed, composed)):
        root = tmp_path / ("a" if there == composed else "b")
        touch(root, there)
        assert find_images(root, [asked], []) == (root / there,)


def test_an_image_in_place_of_its_labels_is_called_an_image(tmp_path):
    write_image(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.jpg is a JPEG image, not a JSON file of labels"):
        coco(tmp_path / "a.jpg")


def test_check_says_what_is_never_labelled(tmp_path):
    def change(document: dict) -> None:
        for record in document["annotations"]:
            record["keypoints"][6:9] = [0, 0, 0]

    notes = read_coco_leniently(written(tmp_path, change)).notes
    assert any("1 of 4 keypoints are labelled in no image" in note for note in notes)


def test_check_takes_sizes_from_files_where_labels_declare_none(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"{i + 1:04d}.png", np.zeros((80, 100, 3), np.uint8))
    path = written(tmp_path, lambda d: [(image.pop("width"), image.pop("height")) for image in d["images"]])
    kinds = {f.kind for f in audit(read_coco_leniently(path)).findings}
    assert "outside-image" in kinds
