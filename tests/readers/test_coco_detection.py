"""What training detectors needs of a COCO file: a choice of images, classes, and where everybody has a box."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseglass.core.sample import boxes_complete, classes_of
from poseglass.core.skeletons import COCO17
from poseglass.data import DATASETS
from poseglass.readers import LabelledImages, coco, mixed
from poseglass.runs.build import make

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def write(folder: Path, **tables: Any) -> Path:
    """Write three images, of which two are to train on, with a cat, a person and a crowd of people."""
    document = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": 30, "split": "train", "boxes_complete": False},
            {"id": 2, "file_name": "b.png", "width": 40, "height": 30, "split": "val"},
            {"id": 3, "file_name": "c.png", "width": 40, "height": 30, "split": "train", "group": 1},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 12]},
            {"id": 2, "image_id": 2, "category_id": 3, "bbox": [3, 2, 20, 12], "keypoints": [5, 6, 2]},
            {"id": 3, "image_id": 3, "category_id": 3, "bbox": [4, 2, 30, 12], "iscrowd": 1},
            {"id": 4, "image_id": 3, "category_id": 3, "bbox": [4, 2, 9, 12]},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "person"}],
    } | tables
    path = folder / "boxes.json"
    path.write_text(json.dumps(document))
    return path


def test_boxes_of_any_classes(tmp_path):
    data = coco(write(tmp_path), boxes_only=True)
    assert data.classes == classes_of(data) == ("person", "cat")
    assert len(data.skeleton) == 0
    assert data.everyone.xy.shape == (4, 0, 2)
    assert data.everyone.label.tolist() == [1, 0, 0, 0]
    assert data.instances(0).box_xyxy.tolist() == [[1.0, 2.0, 11.0, 14.0]]
    assert data.everyone.extra["crowd"].tolist() == [False, False, True, False]
    cats = coco(write(tmp_path), boxes_only=True, category="cat")
    assert cats.classes == ("cat",)
    assert cats.everyone.label.tolist() == [0]
    with pytest.raises(ValueError, match=r"none of its 2 categories has 'keypoints'.*option boxes_only = true reads"):
        coco(write(tmp_path))


def test_people_without_keypoints_and_crowds_stay(tmp_path):
    named = [{"id": 3, "name": "person", "keypoints": ["nose"]}, {"id": 7, "name": "cat"}]
    data = coco(write(tmp_path, categories=named))
    assert data.classes == ("person",)
    assert data.instances(2).extra["crowd"].tolist() == [True, False]
    assert data.everyone.known.any(1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ([1, 2, 0, 5], r"annotation 1: 'bbox' \[1\.0, 2\.0, 0\.0, 5\.0\] \(x, y, width, height\) has no area"),
        ([90, 2, 5, 5], "annotation 1: 'bbox' .* lies outside image 1 of 40 x 30"),
        ([1, 2, 5], r"annotation 1: 'bbox' must be 4 numbers"),
        (None, "annotation 1: 'bbox' is missing: where only boxes are read"),
    ],
)
def test_an_invalid_box_is_reported(tmp_path, box, says):
    one = {"id": 1, "image_id": 1, "category_id": 7, "bbox": box}
    path = write(tmp_path, annotations=[one, {"id": 2, "image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5]}])
    with pytest.raises(ValueError, match=rf"boxes\.json: {says}"):
        coco(path, boxes_only=True)
    data = coco(path, boxes_only=True, bad="drop")
    assert data.num_instances == 1
    assert "Skipped annotation 1" in data.notes[-1]


def test_boxes_alone_as_fractions_or_corners(tmp_path):
    def boxes(*rows):
        return [{"id": i, "image_id": 1, "category_id": 7, "bbox": row} for i, row in enumerate(rows)]

    with pytest.raises(ValueError, match=r"all values of 'bbox' lie between 0 and 0\.50: fractions"):
        coco(write(tmp_path, annotations=boxes(*[[0.1, 0.2, 0.3, 0.5]] * 4)), boxes_only=True)
    corners = write(tmp_path, annotations=boxes(*[[20, 15, 35, 28]] * 5))
    with pytest.raises(ValueError, match=r"5 of 5 leave their image, and as corners .*box_format = \"xyxy\""):
        coco(corners, boxes_only=True)
    assert coco(corners, boxes_only=True, box_format="xyxy").everyone.box_xyxy[0].tolist() == [20.0, 15.0, 35.0, 28.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"skeleton": COCO17}, "boxes_only reads no keypoints, so skeleton cannot apply"),
        ({"unlabelled": "drop", "sigmas": [1.0]}, 'so sigmas and unlabelled = "drop" cannot apply'),
    ],
)
def test_options_for_keypoints_do_not_go_with_boxes(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        coco(write(tmp_path), boxes_only=True, **options)


@pytest.mark.parametrize(
    ("categories", "says"),
    [
        (None, "expected a list 'categories' with the names of the classes, got NoneType"),
        ([{"id": 7}, {"id": 3, "name": "b"}], "category 7: 'name' must be the name of the class"),
        ([{"id": 7, "name": "b"}, {"id": 3, "name": "b"}], "category 3: the name 'b' is used twice"),
    ],
)
def test_classes_need_different_names(tmp_path, categories, says):
    with pytest.raises(ValueError, match=says):
        coco(write(tmp_path, categories=categories), boxes_only=True)


def test_a_choice_of_images(tmp_path):
    table = {"name": "coco", "annotations": str(write(tmp_path)), "boxes_only": True}
    data = make(DATASETS, table | {"where": {"split": "train"}}, "dataset")
    assert data.image_ids == (1, 3)
    assert data.num_instances == 3
    assert data.notes[0] == "Kept 2 of 3 images: those with split = 'train'."
    both = make(DATASETS, table | {"where": {"split": ["val", "train"], "group": 1}}, "dataset")
    assert both.image_ids == (3,)
    assert both.notes[0] == (
        "Kept 1 of 3 images: those with split one of 'val', 'train' and group = 1. 2 images without 'group' left out."
    )


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"splt": "train"}, r"no image has the field 'splt' .* Did you mean 'split'\? The images have: id, file_name"),
        ({"split": "test"}, r"none of its 3 images has split = 'test'\. In the file split is 'train' \(2\), 'val' \(1"),
        ({"group": True}, r"none of its 3 images has group = True\. In the file group is 1 \(1\)"),  # not the same as 1
        ({"split": {"a": 1}}, r"where\.split must be a text, a number, true or false, or a list of such"),
        ({"split": []}, r"where\.split must be a text, a number, true or false, or a list of such"),
    ],
)
def test_an_impossible_choice_says_why(tmp_path, where, says):
    with pytest.raises(ValueError, match=says):
        coco(write(tmp_path), boxes_only=True, where=where)


def test_images_in_which_not_everybody_has_a_box(tmp_path):
    data = coco(write(tmp_path), boxes_only=True)
    assert [boxes_complete(data, i) for i in range(3)] == [False, True, True]
    assert [data.subset([2, 0]).boxes_complete(i) for i in range(2)] == [True, False]
    unsure = coco(write(tmp_path), boxes_only=True, boxes_complete=False)
    assert not any(unsure.boxes_complete(i) for i in range(3))
    joined = mixed([data, unsure])
    assert [boxes_complete(joined, i) for i in range(6)] == [False, True, True, False, False, False]
    assert boxes_complete(object(), 0)  # type: ignore[arg-type]  # a dataset that does not say
    assert classes_of(object()) == ()  # type: ignore[arg-type]
    images = [{"id": 1, "file_name": "a.png", "boxes_complete": "no"}]
    path = write(
        tmp_path, images=images, annotations=[{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}]
    )
    with pytest.raises(ValueError, match=r"'boxes_complete' must be true or false .*, got 'no'"):
        coco(path, boxes_only=True)


def test_classes_are_joined_by_name(tmp_path):
    both, cats = coco(write(tmp_path), boxes_only=True), coco(write(tmp_path), boxes_only=True, category="cat")
    joined = mixed([cats, both])
    assert joined.classes == ("cat", "person")
    assert [joined.instances(i).label.tolist() for i in range(6)] == [[0], [], [], [0], [1], [1, 1]]
    assert any("different classes; labels count through all: cat, person. Nothing" in note for note in joined.notes)


def test_labels_need_a_class(tmp_path):
    data = coco(write(tmp_path), boxes_only=True)
    parts = {"skeleton": data.skeleton, "paths": data.paths, "labels": data.labels, "image_ids": data.image_ids}
    with pytest.raises(ValueError, match=r"a label is 1, but there are 1 classes \(cat\)\. Name a class"):
        LabelledImages("a", **parts, classes=("cat",))
    with pytest.raises(ValueError, match=r"complete must be \(3,\) bool, got \(2,\)"):
        LabelledImages("a", **parts, classes=("cat", "dog"), complete=np.ones(2, bool))


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(("folder", "train", "val"), [("coco", 111, 15), ("coco_more", 69, 46)])
def test_test_images_can_be_kept_out(folder, train, val):
    path = SHARED / folder / "train.json"
    assert len(coco(path, where={"split": "train2017"})) == train
    assert len(coco(path, where={"split": "val2017"})) == val


def test_who_is_dropped_is_still_in_the_image(tmp_path):
    """A detector must not learn them as background."""
    data = coco(write(tmp_path), boxes_only=True, crowd="drop")
    assert [boxes_complete(data, i) for i in range(3)] == [False, True, False]
    assert len(data.instances(2)) == 1


def test_an_image_of_a_part_that_labels_fewer_classes_is_not_complete(tmp_path):
    both, cats = coco(write(tmp_path), boxes_only=True), coco(write(tmp_path), boxes_only=True, category="cat")
    joined = mixed([both, cats])
    assert [boxes_complete(joined, i) for i in range(6)] == [False, True, True, False, False, False]
