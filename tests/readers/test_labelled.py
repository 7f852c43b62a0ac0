import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poseglass.core.image import write_image
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.readers import LabelledImages, PackedLabels
from poseglass.readers.labelled import header_size_wh

TOY = Skeleton("toy2", ("left_eye", "right_eye"), (("left_eye", "right_eye"),))


def people(count: int, first: float = 0.0) -> Instances:
    xy = np.arange(count * 4, dtype=np.float32).reshape(count, 2, 2) + first
    return Instances.from_keypoints(TOY, xy, extra={"annotation_id": np.arange(count)})


def dataset(tmp_path: Path, counts=(2, 0, 1), **fields) -> LabelledImages:
    everyone = people(sum(counts))
    labels = PackedLabels(everyone, np.concatenate([[0], np.cumsum(counts)]))
    paths = tuple(tmp_path / f"{i}.png" for i in range(len(counts)))
    return LabelledImages("toy", TOY, paths, labels, tuple(range(10, 10 + len(counts))), **fields)


def test_an_image_comes_with_its_own_people(tmp_path):
    data = dataset(tmp_path)
    write_image(tmp_path / "2.png", np.full((6, 9, 3), 7, np.uint8))
    assert [len(data.instances(i)) for i in range(3)] == [2, 0, 1]
    sample = data[2]
    assert sample.size_wh == (9, 6)
    assert sample.instances.extra["annotation_id"].tolist() == [2]
    np.testing.assert_array_equal(sample.instances.xy[0], [[8, 9], [10, 11]])
    assert sample.source == data.source(-1) == str(tmp_path / "2.png")
    assert data.num_instances == 3
    assert data.size_wh(2) == (9, 6)


def test_labels_packed_and_in_a_tuple_are_the_same(tmp_path):
    packed = dataset(tmp_path)
    plain = LabelledImages("toy", TOY, packed.paths, [packed.labels[i] for i in range(3)], packed.image_ids)
    for data in (packed, plain):
        chosen = data.subset([2, 0, 2][:2], name="few")
        assert chosen.name == "few"
        assert chosen.image_ids == (12, 10)
        assert [p.name for p in chosen.paths] == ["2.png", "0.png"]
        assert chosen.everyone.extra["annotation_id"].tolist() == [2, 0, 1]
        assert data.subset(np.array([False, True, True])).image_ids == (11, 12)
        assert len(data.subset([])) == 0


def test_people_are_sorted_by_image_in_their_order():
    labels = PackedLabels.by_image(people(4), np.array([2, 0, 2, 0]), 3)
    assert [labels[i].extra["annotation_id"].tolist() for i in range(3)] == [[1, 3], [], [0, 2]]
    assert [len(p) for p in labels[1:]] == [0, 2]
    assert [len(p) for p in labels] == [2, 0, 2]


def test_forty_thousand_people_stay_small(tmp_path):
    n = 40_000
    xy = np.zeros((n, 2, 2), np.float32)
    labels = PackedLabels.by_image(Instances.from_keypoints(TOY, xy), np.arange(n), n)
    assert len(pickle.dumps(labels)) < n * 64


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_ids": (1, 1, 2)}, r"image_ids must be unique, repeated: \[1\]"),
        ({"image_ids": (1, 2)}, "3 paths need 3 image_ids, got 2"),
        ({"labels": [people(1)]}, "3 paths need 3 labels, got 1"),
        ({"sizes_wh": np.zeros((2, 2))}, r"sizes_wh must be \(3, 2\), got \(2, 2\)"),
        ({"skeleton": Skeleton("other", ("a", "b"))}, "labels have the skeleton 'toy2', expected 'other'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, match):
    data = dataset(tmp_path)
    fields = {n: getattr(data, n) for n in ("name", "skeleton", "paths", "labels", "image_ids", "sizes_wh")} | change
    with pytest.raises(ValueError, match=match):
        LabelledImages(**fields)


@pytest.mark.parametrize(
    ("start", "match"),
    [([0, 2], "must run from 0 to 3"), ([0, 2, 1, 3], "must not decrease"), ([[0, 3]], "must run from 0")],
)
def test_packed_labels_check_their_rows(start, match):
    with pytest.raises(ValueError, match=match):
        PackedLabels(people(3), np.array(start))


def test_numbers_outside_are_refused(tmp_path):
    data = dataset(tmp_path)
    with pytest.raises(IndexError, match="image 3 of 3: expected -3 to 2"):
        data.instances(3)
    with pytest.raises(IndexError, match="image 7 of 3"):
        data.subset([7])
    with pytest.raises(ValueError, match="a mask must have 3 entries"):
        data.subset(np.array([True]))


def test_sizes_come_from_the_labels_or_the_header(tmp_path):
    data = dataset(tmp_path, sizes_wh=np.array([[4, 5], [0, 0], [0, 0]]))
    assert data.size_wh(0) == (4, 5)
    with pytest.raises(FileNotFoundError, match=r"No such image: .*1\.png"):
        data.size_wh(1)
    (tmp_path / "2.png").write_text("text")
    with pytest.raises(ValueError, match="is not an image that can be read"):
        header_size_wh(tmp_path / "2.png")


def test_the_header_is_read_upright(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "0.jpg", exif=exif)
    assert header_size_wh(tmp_path / "0.jpg") == (4, 8)


def test_one_white_for_a_data_set_and_its_subsets(tmp_path):
    """Twelve bits in a 16-bit file: decided once from the set, whichever image is asked for first."""
    paths = []
    for i, top in enumerate((700, 4095, 1400)):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((4, 4), top, np.uint16)).save(paths[-1])
    nobody = Instances.empty(TOY)
    data = LabelledImages("camera", TOY, tuple(paths), (nobody,) * 3, (1, 2, 3))
    expected = [round(top / 4095 * 255) for top in (700, 4095, 1400)]
    assert [int(data.image(i).max()) for i in range(3)] == expected
    assert int(data.subset([0]).image(0).max()) == expected[0]
    (note,) = data.white_notes()
    assert "0.png, 1.png, 2.png were read as 12-bit ones: 4,095 is white" in note
    whole = replace(data, white=65535)
    assert int(whole.image(1).max()) == 16
    assert whole.white_notes() == []


def test_sizes_of_headers_are_those_of_the_images(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.tif", tiffinfo={274: 6})
    data = LabelledImages("turned", TOY, (tmp_path / "a.tif",), (Instances.empty(TOY),), (1,))
    assert data.size_wh(0) == data[0].size_wh == (4, 6)
