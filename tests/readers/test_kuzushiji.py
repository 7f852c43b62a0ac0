import numpy as np
import pytest

from poseglass.core.image import write_image
from poseglass.core.sample import classes_of
from poseglass.readers.kuzushiji import (
    kuzushiji,
    read_submission,
    read_translation,
    score_submission,
    write_submission,
)

ROWS = {
    "100241706_00004_2": "U+306F 30 40 20 10 U+304C 5 6 7 8",
    "100241706_00005_1": "",
    "umgy003-011": "U+306F 0 0 100 80",
}


def files(folder, rows=None, *, header="image_id,labels", pages="train_images", translation=None):
    (folder / pages).mkdir(exist_ok=True)
    for page in ROWS:
        write_image(folder / pages / f"{page}.jpg", np.full((120, 100, 3), 200, np.uint8))
    text = "\n".join([header, *(f"{page},{labels}" for page, labels in (rows or ROWS).items())])
    (folder / "train.csv").write_text(text + "\n")
    if translation is not None:
        (folder / "unicode_translation.csv").write_text("Unicode,char\n" + translation)
    return folder / "train.csv"


def test_pages_have_their_characters(tmp_path):
    data = kuzushiji(files(tmp_path))
    assert len(data) == 3
    assert data.image_ids == tuple(ROWS)
    assert classes_of(data) == ("U+304C", "U+306F")
    first = data[0]
    np.testing.assert_array_equal(first.instances.box_xyxy, [[29.5, 39.5, 49.5, 49.5], [4.5, 5.5, 11.5, 13.5]])
    assert first.instances.label.tolist() == [1, 0]
    assert len(first.instances.skeleton) == 0
    assert first.image.shape == (120, 100, 3)
    assert data.notes == ("1 page without characters.",)


def test_classes_come_from_the_translation(tmp_path):
    path = files(tmp_path, pages="pages", translation="U+306F,は\nU+3042,あ\nU+304C,が\n")
    data = kuzushiji(path, images=tmp_path / "pages", translation=tmp_path / "unicode_translation.csv")
    assert classes_of(data) == ("U+306F", "U+3042", "U+304C")
    assert data.instances(0).label.tolist() == [0, 2]
    assert read_translation(tmp_path / "unicode_translation.csv") == {"U+306F": "は", "U+3042": "あ", "U+304C": "が"}


def test_a_code_point_beyond_the_last_is_named_with_its_row(tmp_path):
    files(tmp_path, translation="U+10FFFF,\nU+FFFFFF,\n")
    with pytest.raises(ValueError, match=r"row 2: expected a code point from U\+0000 to U\+10FFFF, .* got 'U\+FFFFFF'"):
        read_translation(tmp_path / "unicode_translation.csv")


def test_all_characters_may_be_one_class(tmp_path):
    data = kuzushiji(files(tmp_path), one_class=True)
    assert classes_of(data) == ("character",)
    assert data.instances(0).label.tolist() == [0, 0]


def test_a_submission_of_the_labels_is_perfect(tmp_path):
    data = kuzushiji(files(tmp_path))
    pages = [(str(page), data.instances(i)) for i, page in enumerate(data.image_ids)]
    assert write_submission(tmp_path / "submission.csv", pages, data.classes) == 0
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0] == "image_id,labels"
    assert lines[1] == "100241706_00004_2,U+306F 40 44 U+304C 8 10"
    score = score_submission(tmp_path / "submission.csv", data)
    assert score.results == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "place_f1": 1.0}
    assert score.missing == score.notes == ()


def test_pages_that_a_submission_lacks_are_empty_and_named(tmp_path):
    data = kuzushiji(files(tmp_path, ROWS | {"umgy003-011": "U+306F 0 0 40 80 U+306F 40 0 40 80 U+304C 0 0 9 9"}))
    path = tmp_path / "submission.csv"
    path.write_text("image_id,labels\n100241706_00004_2,U+306F 40 44 U+3042 8 10\n")  # U+3042 is labelled nowhere
    score = score_submission(path, data)
    assert score.results == {"f1": 2 / 7, "precision": 1 / 2, "recall": 1 / 5, "place_f1": 4 / 7}
    assert score.missing == ("100241706_00005_1", "umgy003-011")
    assert score.notes == (
        f"2 labelled pages of 3 missing in {path}, such as 100241706_00005_1: nothing was read there.",
    )


def test_pages_without_labels_cannot_be_scored(tmp_path):
    data = kuzushiji(files(tmp_path))
    path = tmp_path / "submission.csv"
    path.write_text("image_id,labels\na,U+306F 1 2\numgy003-011,\nb,\n")
    with pytest.raises(ValueError, match=r"2 pages of 3 not labelled in train, such as a\. Give the labels of all"):
        score_submission(path, data)
    one = kuzushiji(tmp_path / "train.csv", one_class=True)
    with pytest.raises(ValueError, match=r"classes are code points .*, got 'character'. Read them without one_class"):
        score_submission(path, one)


@pytest.mark.parametrize("code", ["foo", "u+306f", "U+D800", "U+0306F", "U+110000"])
def test_what_is_no_character_is_refused_in_a_submission(tmp_path, code):
    path = tmp_path / "submission.csv"
    path.write_text(f"image_id,labels\n100241706_00004_2,U+306F 1 2 {code} 16 22\n")
    with pytest.raises(ValueError, match=r"page 100241706_00004_2: entry "):
        score_submission(path, kuzushiji(files(tmp_path)))


def test_no_more_predictions_than_allowed(tmp_path):
    data = kuzushiji(files(tmp_path))
    many = data.instances(2)[np.zeros(1300, int)]
    assert write_submission(tmp_path / "submission.csv", [("umgy003-011", many)], data.classes) == 100
    assert len(read_submission(tmp_path / "submission.csv", data.classes)["umgy003-011"]) == 1200


@pytest.mark.parametrize(("rows", "says"), [
    ({"umgy003-011": "U+306F 1 2 3"},
     r"page umgy003-011: entry 1, 'U\+306F 1 2 3', has 4 words; expected 5: code point, x, y, width and height"),
    ({"umgy003-011": "U+306F 1 2 3 4 U+306F 1 2 3 4 U+304C"}, r"entry 3, 'U\+304C', has 1 word; expected 5"),
    ({"umgy003-011": "U+306F 1 2 3 U+304C 5 6 7 8"}, r"entry 1, 'U\+306F 1 2 3', has 4 words"),
    ({"umgy003-011": "U+306F 1 2 3 U+304C 5 6 7 8 9"}, r"entry 1, 'U\+306F 1 2 3', has 4 words"),
    ({"umgy003-011": "U+306F 1 2 3 4 5"}, r"entry 1, 'U\+306F 1 2 3 4 5', has 6 words"),
    ({"umgy003-011": "U+306F 1 2 3 4 u+304c 1 2 3 4"}, r"entry 2: expected a code point .*, got 'u\+304c'"),
    ({"umgy003-011": "3042 1 2 3 4"}, r"page umgy003-011: entry 1: expected a code point such as U\+306F, got '3042'"),
    ({"umgy003-011": "U+306F 1 2 x 4"}, r"entry 1: expected numbers of pixels, got '1 2 x 4'"),
    ({"umgy003-011": "U+306F 1 2 nan 4"}, r"entry 1: '1 2 nan 4' are not all finite"),
    ({"umgy003-011": "U+306F 1 2 0 4"}, r"entry 1: the box of U\+306F has a width of 0 and a height of 4"),
    ({"umgy003-011": "U+4E00 1 2 3 4"}, r"entry 1 is U\+4E00, which .*unicode_translation.csv does not list"),
])  # fmt: skip
def test_a_wrong_entry_is_named(tmp_path, rows, says):
    path = files(tmp_path, rows, translation="U+306F,は\n")
    with pytest.raises(ValueError, match=says):
        kuzushiji(path, translation=tmp_path / "unicode_translation.csv")


def test_a_missing_page_is_named(tmp_path):
    path = files(tmp_path, ROWS | {"hnsd004-001": "U+306F 1 2 3 4"})
    with pytest.raises(FileNotFoundError, match=r"1 page of 4 have no image in .*, such as hnsd004-001 \(expected"):
        kuzushiji(path)
    with pytest.raises(FileNotFoundError, match="there is no folder with pages: tried"):
        kuzushiji(path, images=tmp_path / "none")


def test_a_page_with_two_images_is_named(tmp_path):
    path = files(tmp_path)
    write_image(tmp_path / "train_images" / "umgy003-011.png", np.zeros((9, 9, 3), np.uint8))
    write_image(tmp_path / "train_images" / "unlabelled.png", np.zeros((9, 9, 3), np.uint8))
    says = r"1 page of 3 with several images in .*, such as umgy003-011: umgy003-011.jpg and umgy003-011.png. Keep the"
    with pytest.raises(ValueError, match=says):
        kuzushiji(path)


@pytest.mark.parametrize(("text", "says"), [
    ("image,labels\n", "expected the columns image_id, labels, got image, labels"),
    ("", "expected the columns image_id, labels, got nothing"),
    ("image_id,labels\na,b,c\n", "line 2: expected image_id and labels, got 3 columns"),
    ("image_id,labels\na,\na,\n", "line 3: 'a' is there twice"),
])  # fmt: skip
def test_other_csv(tmp_path, text, says):
    path = files(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        kuzushiji(path)


def test_bytes_that_are_no_text(tmp_path):
    path = files(tmp_path)
    path.write_bytes(b"image_id,labels\n\xff\xfe\n")
    with pytest.raises(ValueError, match="is not CSV in UTF-8"):
        kuzushiji(path)
    with pytest.raises(FileNotFoundError, match="Expected a CSV file with image_id and labels"):
        kuzushiji(tmp_path / "none.csv")


@pytest.mark.parametrize(("labels", "says"), [
    ("U+306F 1", r"page a: entry 1, 'U\+306F 1', has 2 words; expected 3: code point, x and y"),
    ("U+306F 1 U+306F 2 3", r"page a: entry 1, 'U\+306F 1', has 2 words"),
    ("U+306F 1 U+306F 2 3 4", r"page a: entry 1, 'U\+306F 1', has 2 words"),
    ("U+3042 1 2", r"page a: entry 1: 'U\+3042' is none of the 1 classes"),
    ("U+306F 1 two", r"page a: entry 1: expected numbers of pixels, got '1 two'"),
    ("U+306F 1 2 " * 1201, r"page a: 1,201 predictions; at most 1,200 are allowed"),
])  # fmt: skip
def test_a_wrong_submission(tmp_path, labels, says):
    path = tmp_path / "submission.csv"
    path.write_text(f"image_id,labels\na,{labels.strip()}\n")
    with pytest.raises(ValueError, match=says):
        read_submission(path, ("U+306F",))


def test_classes_must_be_code_points(tmp_path):
    data = kuzushiji(files(tmp_path))
    with pytest.raises(ValueError, match=r"A submission needs code points such as U\+306F as classes, got 'person'"):
        write_submission(tmp_path / "s.csv", [], ("person",))
    with pytest.raises(ValueError, match="Page a has a label that is none of the 1 classes"):
        write_submission(tmp_path / "s.csv", [("a", data.instances(0))], ("U+306F",))


def test_a_page_has_one_row(tmp_path):
    data = kuzushiji(files(tmp_path))
    pages = [("a", data.instances(0)), ("b", data.instances(1)), ("a", data.instances(2))]
    with pytest.raises(ValueError, match="A submission has one row for a page, but two are named a"):
        write_submission(tmp_path / "s.csv", pages, data.classes)
    assert not (tmp_path / "s.csv").exists()
