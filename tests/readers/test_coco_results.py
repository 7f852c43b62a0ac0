import gzip
import json

import numpy as np
import pytest

from poseglass.readers import coco
from poseglass.readers.coco_results import read_boxes, read_coco_results

GOOD = {"image_id": 3, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5}


def written(path, data):
    path.write_text(json.dumps(data))
    return path


def test_reads_boxes_and_poses(tmp_path):
    pose = {
        "image_id": 4,
        "category_id": 1,
        "keypoints": [1, 2, 0.5, 0, 0, 0, 11, 22, 0.1],
        "score": 1,
        "file_name": "a.png",
    }
    path = written(tmp_path / "found.json", [GOOD, pose])
    found = read_coco_results(path)
    np.testing.assert_array_equal(found.box_xyxy, [[10, 20, 40, 60], [1, 2, 11, 22]])
    assert found.image_id.tolist() == [3, 4]
    assert found.score.tolist() == [0.5, 1.0]
    assert found.file_name == ("", "a.png")
    (tmp_path / "packed").write_bytes(gzip.compress(path.read_bytes()))
    assert len(read_coco_results(tmp_path / "packed")) == 2


def test_chooses_categories_and_keeps_to_images(tmp_path):
    found = read_coco_results(written(tmp_path / "f.json", [GOOD, GOOD | {"category_id": 44, "image_id": 5}]))
    assert found.of_categories({1}, where="x").image_id.tolist() == [3]
    assert found.of_images([3, 5, 9], where="x") is found
    with pytest.raises(ValueError, match=r"f.json: 1 of 2 detections are of images that x does not have.* image_id 5"):
        found.of_images([3], where="x")
    with pytest.raises(ValueError, match=r"none of 2 detections is of a category of x \(2\); 'category_id' is 1, 44"):
        found.of_categories({2}, where="x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "is an empty list"),
        ({"annotations": []}, "holds annotations, not results"),
        ({"images": []}, "expected a list of results .*, got dict"),
        ([GOOD, 5], "result 1: expected an object .* got 5"),
        (
            [{k: v for k, v in GOOD.items() if k != "score"}],
            "result 0: 'score' must be a finite number, and",
        ),
        ([GOOD | {"score": "0.5"}], "result 0: 'score' must be a finite number, got '0.5'"),
        ([GOOD | {"image_id": 1.5}], "'image_id' must be a whole number, got 1.5"),
        ([GOOD | {"image_id": "0001"}], "'image_id' must be a whole number, got '0001'"),
        ([GOOD | {"category_id": None}], "'category_id' must be a whole number, got None"),
        ([GOOD | {"bbox": [1, 2, 3]}], r"'bbox' must be x, y, width and height .* got \[1, 2, 3\]"),
        ([GOOD | {"bbox": [1, 2, 0, 3]}], "both sides above 0"),
        ([GOOD | {"bbox": [1, 2, None, 3]}], "'bbox' must be"),
        ([GOOD | {"bbox": []}], r"'bbox' \(or 'keypoints'\) is empty; the record has"),
        ([GOOD | {"bbox": None, "keypoints": [1, 2]}], "'keypoints' must be x, y and score of each"),
        ([GOOD | {"bbox": None, "keypoints": [1, 2, 1]}], "span no area"),
        ([GOOD | {"bbox": None, "keypoints": [1, 2, 1, 0, 0, 0]}], "span no area"),
        ([GOOD | {"bbox": None, "keypoints": [0, 0, 0, 5, 5, 0]}], "span no area"),
    ],
)
def test_names_file_record_and_field(tmp_path, data, message):
    with pytest.raises(ValueError, match=f"found.json.*{message}"):
        read_coco_results(written(tmp_path / "found.json", data))


def test_invalid_numbers(tmp_path):
    path = tmp_path / "found.json"
    path.write_text('[{"image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4], "score": NaN}]')
    with pytest.raises(ValueError, match="'score' must be a finite number, got nan"):
        read_coco_results(path)
    with pytest.raises(FileNotFoundError, match=r"gone.json"):
        read_coco_results(tmp_path / "gone.json")


def test_labels_and_boxes_read_the_same_ids(tmp_path):
    """Text is a number only where the number is written like it: "1" and "01" are two images."""
    ids = ["0001", "1", "01", 7, 8.0, "frame_2"]
    labels = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 50, "height": 80} for n, i in enumerate(ids)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "bbox": [1, 2, 30, 40], "keypoints": [5, 6, 2]}
            for n, i in enumerate(ids)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}],
    }
    path = written(tmp_path / "labels.json", labels)
    expected = ("0001", 1, "01", 7, 8, "frame_2")
    assert coco(path).image_ids == expected
    assert coco(path).num_instances == len(ids)
    assert read_boxes(path).image_id == expected
    results = [GOOD | {"image_id": i} for i in ids]
    assert read_boxes(written(tmp_path / "results.json", results)).image_id == expected
