import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from poseglass.core.box_3d import corners_of, observe, project
from poseglass.core.image import write_image
from poseglass.core.sample import boxes_complete, classes_of, projection_of
from poseglass.data import DATASETS, write_streets
from poseglass.metrics.box_ap import BoxAp
from poseglass.readers.kitti import (
    CLASSES,
    checked_names,
    kitti,
    read_calibration,
    read_results,
    write_calibration,
    write_labels,
    write_results,
)
from poseglass.runs.build import make
from poseglass.synthetic.streets import streets, streets_of_width

P2 = "721.5377 0 609.5593 44.85728 0 721.5377 172.854 0.2163791 0 0 1 0.002745884"
CALIBRATION = f"P0: {P2.replace('44.85728', '0')}\nP2: {P2}\nR0_rect: 1 0 0 0 1 0 0 0 1\n\n"
CAR = "Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"
PERSON = "Pedestrian 0.20 1 -0.20 712.40 143.00 810.73 307.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01"
VAN = "Van 0.00 0 -1.6 300 150 400 200 2.0 1.9 5.0 -5 1.7 20 -1.8"
TRUCK = "Truck 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56"
TRAM = "Tram 0.00 3 -1.6 20 100 90 300 3.5 2.5 16 -10 1.7 30 -1.8"
NOT_CARED = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"


def folder(tmp_path, *labels: str, calibration: str = CALIBRATION):
    for part in ("label_2", "calib", "image_2"):
        (tmp_path / part).mkdir(exist_ok=True)
    for number, label in enumerate(labels):
        (tmp_path / "label_2" / f"{number:06}.txt").write_text(label)
        (tmp_path / "calib" / f"{number:06}.txt").write_text(calibration)
        write_image(tmp_path / "image_2" / f"{number:06}.png", np.full((375, 1242, 3), 90, np.uint8))
    return tmp_path


def test_labels_are_read(tmp_path):
    data = kitti(folder(tmp_path, "\n".join([PERSON, CAR, VAN, TRUCK, TRAM, NOT_CARED]), ""))
    assert len(data) == 2
    assert classes_of(data) == ("pedestrian", "car", "cyclist")
    assert data.image_ids == ("000000", "000001")
    assert boxes_complete(data, 0)
    people = data.instances(0)
    assert people.label.tolist() == [0, 1, 1, 1, 0, 1, 2]  # the last three are one region
    assert people.extra["crowd"].tolist() == [False, False, True, True, True, True, True]
    np.testing.assert_allclose(people.box_3d[0], [1840, 1470 - 945, 8410, 1200, 1890, 480, 0.01], rtol=1e-6)
    np.testing.assert_allclose(people.box_3d[1], [-16530, 2390 - 835, 58490, 3690, 1670, 1870, 1.57], rtol=1e-6)
    assert np.isfinite(people.box_3d[2]).all()
    assert np.isnan(people.box_3d[3:]).all()
    np.testing.assert_allclose(people.box_xyxy[1], [387.63, 181.54, 423.81, 203.12], rtol=1e-6)
    assert people.extra["occlusion"].tolist() == [1, 0, 0, 0, 3, 3, 3]
    np.testing.assert_allclose(people.extra["truncation"], [0.2, 0, 0, 0, 0, 0, 0])
    assert data.notes == (
        "Regions to ignore, in which nothing of their classes is learnt: 1 Van, 1 Truck, 1 DontCare.",
        "Left out: 1 Tram.",
    )  # fmt: skip
    assert projection_of(data, 1)[0, 3] == pytest.approx(44857.28)
    assert data[1].image.shape == (375, 1242, 3)
    assert len(data.instances(1)) == 0


def test_what_is_found_where_nobody_cares_is_not_wrong(tmp_path):
    """A region is ignored for every class, by the metric of boxes too."""
    truth = kitti(folder(tmp_path, f"{CAR}\n{NOT_CARED}")).instances(0)
    for label in range(3):
        found = truth[[1, 0]]
        found = replace(found, label=np.array([label, 1]), box_score=np.array([0.9, 0.8], np.float32))
        metric = BoxAp()
        metric.update(found, truth)
        assert metric.compute()["box_AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(("row", "p2", "off_px"), [
    (CAR, P2, (0.3, 0.3)),
    (PERSON, "707.0493 0 604.0814 45.75831 0 707.0493 180.5066 -0.3454157 0 0 1 0.004981016", (10.0, 1.1)),
])  # fmt: skip
def test_labels_agree_with_their_calibration(tmp_path, row, p2, off_px):
    """Two rows of KITTI: alpha and the box in the picture follow from the box in space."""
    people = kitti(folder(tmp_path, row, calibration=f"P2: {p2}")).instances(0)
    alpha = observe(people.box_3d, people.projection)[:, 7]
    np.testing.assert_allclose(alpha, float(row.split()[3]), atol=0.02)
    corners = project(corners_of(people.box_3d), people.projection[:, None])
    tight = np.concatenate([corners.min(1), corners.max(1)], 1)
    # annotators draw arms and legs into the box in the picture, not all of them into that in space
    assert (np.abs(tight - people.box_xyxy) < [*off_px, *off_px]).all()


def test_a_split_chooses(tmp_path):
    root = folder(tmp_path, CAR, PERSON, CAR)
    (root / "val.txt").write_text("000002\n000001\n")
    data = make(DATASETS, {"name": "kitti", "folder": str(root), "split": str(root / "val.txt")}, "dataset")
    assert data.image_ids == ("000002", "000001")
    assert data.name == "val"
    part = data.subset([1])
    assert part.projection(0)[0, 3] == data.projection(1)[0, 3]
    (root / "val.txt").write_text("000002\n000002\n")
    with pytest.raises(ValueError, match="names pictures twice: 000002"):
        kitti(root, split=root / "val.txt")
    (root / "val.txt").write_text("000009\n")
    says = r"val.txt names 1 picture, of which 1 have no label in .*label_2: 000009. Correct the split"
    with pytest.raises(FileNotFoundError, match=says):
        kitti(root, split=root / "val.txt")
    (root / "image_2" / "000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"label_2 has labels of 3 pictures, of which 1 have no picture in"):
        kitti(root)


def test_results_come_back(tmp_path):
    data = kitti(folder(tmp_path, "\n".join([PERSON, CAR])))
    people = data.instances(0)
    write_results(tmp_path / "000000.txt", people, classes=data.classes)
    lines = (tmp_path / "000000.txt").read_text().splitlines()
    assert lines[1].startswith("Car -1 -1 1.8")
    assert all(len(line.split()) == 16 for line in lines)
    again = read_results(tmp_path / "000000.txt", data.projection(0))
    np.testing.assert_allclose(again.box_3d[:, :6], people.box_3d[:, :6], atol=0.2)
    np.testing.assert_allclose(again.box_3d[:, 6], people.box_3d[:, 6], atol=1e-4)
    np.testing.assert_allclose(again.box_xyxy, people.box_xyxy, atol=0.01)
    assert again.label.tolist() == [0, 1]
    assert again.box_score.tolist() == [1.0, 1.0]
    write_results(tmp_path / "none.txt", people[:0])
    assert (tmp_path / "none.txt").read_text() == ""


def test_results_without_extent_come_back(tmp_path):
    data = kitti(folder(tmp_path, "\n".join([PERSON, CAR])))
    found = data.instances(0)
    box, solid = found.box_xyxy.copy(), found.box_3d.copy()
    box[1] = [387.631, 181.54, 387.634, 181.542]
    solid[0, 3], solid[1, 3:6] = 0.04, 0.0
    flat = replace(found, box_xyxy=box, box_3d=solid)
    write_results(tmp_path / "r.txt", flat)
    again = read_results(tmp_path / "r.txt", data.projection(0))
    np.testing.assert_allclose(again.box_3d[1], [*solid[1, :3], 0.1, 0.1, 0.1, solid[1, 6]], atol=0.06)
    assert again.box_3d[0, 3] == pytest.approx(0.1)
    np.testing.assert_allclose(again.box_xyxy[1], [387.63, 181.54, 387.64, 181.55], atol=1e-4)
    write_labels(tmp_path / "label_2" / "000000.txt", replace(flat, extra=flat.extra | {"crowd": np.array([0, 1])}))
    assert len(kitti(tmp_path).instances(0)) == 4


@pytest.mark.parametrize(("row", "says"), [
    (f"{CAR} 0.9", r"000000.txt: row 1 has 16 fields; a label has 15. The 16th is the score of a result"),
    (CAR.rsplit(" ", 1)[0], r"row 1 has 14 fields; a label has 15\.$"),
    (f"\n{CAR.replace('1.67', '-1.67')}", r"000000.txt: row 2: height must be metres above 0, got -1.67"),
    (CAR.replace("3.69", "0"), r"row 1: length must be metres above 0, got 0"),
    (CAR.replace("Car", "Cat"), r"row 1: type 'Cat' is none of KITTI's: Pedestrian, Car, .* Did you mean 'Car'"),
    (CAR.replace("58.49", "far"), r"row 1: z must be a number, got 'far'"),
    (CAR.replace("58.49", "nan"), r"row 1: z must be a finite number, got 'nan'"),
    (CAR.replace("387.63", "500"), r"row 1: the box has left 500, .* right must be larger than left"),
    (CAR.replace("1.57", "157"), r"row 1: rotation_y must be radians from -pi to pi, got 157"),
    (CAR.replace("0.00 0 ", "0.00 7 "), r"row 1: occluded must be 0, 1, 2 or 3, got 7"),
    (CAR.replace("0.00 0 ", "1.50 0 "), r"row 1: truncated must be from 0 to 1, got 1.5"),
])  # fmt: skip
def test_bad_rows_are_named(tmp_path, row, says):
    with pytest.raises(ValueError, match=says):
        kitti(folder(tmp_path, row))


def test_a_label_is_no_result(tmp_path):
    (tmp_path / "000000.txt").write_text(CAR)
    with pytest.raises(ValueError, match=r"row 1 has 15 fields; a result has 16. Results end in a score"):
        read_results(tmp_path / "000000.txt", np.eye(3, 4))


@pytest.mark.parametrize(("text", "says"), [
    (f"P2: {P2[:-12]}", r"P2 must have 12 numbers, 3 rows of 4, got 11"),
    (f"P3: {P2}", r"has no camera P2; it has P3. Did you mean 'P3'"),
    ("P2: a b c", r"expected the numbers of P2, got 'a b c'"),
    ("P2: " + "0 " * 12, r"P2 is singular"),
    ("", r"P2 must have 12 numbers, 3 rows of 4, got 0"),
])  # fmt: skip
def test_bad_calibrations_are_named(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        kitti(folder(tmp_path, CAR, calibration=text))


def test_a_calibration_may_be_twelve_numbers(tmp_path):
    (tmp_path / "a.txt").write_text(P2.replace("0.2163791 ", "0.2163791\n"))
    (tmp_path / "b.txt").write_text(CALIBRATION)
    np.testing.assert_array_equal(read_calibration(tmp_path / "a.txt"), read_calibration(tmp_path / "b.txt"))
    with pytest.raises(FileNotFoundError, match="No such calibration file"):
        read_calibration(tmp_path / "c.txt")
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a text file in UTF-8, so it is no calibration"):
        read_calibration(tmp_path / "d.txt")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*label_2. KITTI's training data have"):
        kitti(tmp_path)
    (tmp_path / "label_2").mkdir()
    (tmp_path / "calib").mkdir()
    (tmp_path / "image_2").mkdir()
    with pytest.raises(FileNotFoundError, match=r"label_2 has no label such as 000000.txt"):
        kitti(tmp_path)


def test_results_need_boxes_in_space(tmp_path):
    data = kitti(folder(tmp_path, CAR))
    with pytest.raises(ValueError, match=r"'lorry' is none of KITTI's types"):
        write_results(tmp_path / "r.txt", data.instances(0), classes=("lorry",))
    with pytest.raises(ValueError, match=r"Label 1 is none of the 1 classes"):
        write_results(tmp_path / "r.txt", data.instances(0), classes=("car",))
    flat = replace(data.instances(0), box_3d=None, projection=None)
    with pytest.raises(ValueError, match=r"these instances have no box_3d and projection"):
        write_results(tmp_path / "r.txt", flat)
    assert checked_names(CLASSES) == ("Pedestrian", "Car", "Cyclist")


def test_labels_and_calibrations_come_back(tmp_path):
    root = folder(tmp_path, CAR, PERSON)
    data = kitti(root)
    for index, name in enumerate(data.image_ids):
        write_labels(root / "label_2" / f"{name}.txt", data.instances(index))
        write_calibration(root / "calib" / f"{name}.txt", data.projection(index))
    again = kitti(root)
    for index in range(2):
        first, second = data.instances(index), again.instances(index)
        assert np.abs(first.box_3d - second.box_3d)[:, :6].max() <= 0.1
        assert np.abs(first.box_3d - second.box_3d)[:, 6].max() <= 1e-4
        assert (first.label == second.label).all()
        assert np.abs(first.box_xyxy - second.box_xyxy).max() <= 0.01
        assert all((first.extra[key] == second.extra[key]).all() for key in ("occlusion", "crowd", "truncation"))
        assert np.allclose(data.projection(index), again.projection(index), rtol=1e-12)
    region = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"
    (root / "label_2" / "000000.txt").write_text(f"{CAR}\n{region}\n")
    write_labels(root / "label_2" / "000000.txt", kitti(root).instances(0))  # one region, which is read once per class
    assert (root / "label_2" / "000000.txt").read_text().splitlines()[1:] == [region]
    assert len(kitti(root).instances(0)) == 1 + len(CLASSES)
    nowhere = replace(data.instances(0), box_3d=np.full((1, 7), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"Instance 0 has no box in space .* as have 1 of 1. Mark such as crowds"):
        write_labels(root / "a.txt", nowhere)
    with pytest.raises(
        ValueError, match=r"projection must be a projection of 3 rows and 4 columns, got shape \(3, 3\)"
    ):
        write_calibration(root / "a.txt", np.eye(3))
    with pytest.raises(ValueError, match=r"these instances have no truncation, occlusion, crowd. Give instances as"):
        write_labels(root / "a.txt", replace(data.instances(0), extra={}))


def test_wider_streets_show_as_much(tmp_path, monkeypatch, capsys):
    wide, usual = streets_of_width(3, 3, 576), streets(3, seed=3)
    for index in range(3):
        assert wide.image(index).shape == (192, 576, 3)
        np.testing.assert_allclose(wide.projection(index)[:2], 1.5 * usual.projection(index)[:2], rtol=1e-6)
        first, second = wide.instances(index), usual.instances(index)
        assert len(first) == len(second) > 0
        assert not (first.extra["crowd"] & ~second.extra["crowd"]).any()  # what is labelled stays so
        np.testing.assert_allclose(first.box_3d, second.box_3d)
        np.testing.assert_allclose(first.box_xyxy, 1.5 * second.box_xyxy, atol=2.0)
    monkeypatch.setattr(sys, "argv", ["write_streets", str(tmp_path / "s"), "--count", "1", "--width", "400"])
    with pytest.raises(SystemExit):
        write_streets.main()
    assert "must be divisible by 3, as they are a third as high, got 400" in capsys.readouterr().err


def test_streets_are_written_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["write_streets", str(tmp_path / "s"), "--count", "4", "--seed", "3"])
    write_streets.main()
    assert "4 streets written" in capsys.readouterr().out
    read, rendered = kitti(tmp_path / "s"), streets(4, seed=3)
    boxes = 0
    for index in range(4):
        first, second = (data.instances(index) for data in (read, rendered))
        first, second = (one[~one.extra["crowd"]] for one in (first, second))
        assert (first.label == second.label).all()
        assert np.allclose(first.box_3d[:, :6], second.box_3d[:, :6], atol=0.1)
        assert np.allclose(first.box_3d[:, 6], second.box_3d[:, 6], atol=1e-4)
        assert (first.extra["occlusion"] == second.extra["occlusion"]).all()
        assert np.allclose(first.extra["truncation"], second.extra["truncation"], atol=0.006)
        assert np.allclose(read.projection(index), rendered.projection(index))
        assert np.allclose(first.box_xyxy, second.box_xyxy, atol=0.006)
        assert (read.image(index) == rendered.image(index)).all()
        boxes += len(first)
    assert boxes > 5
    with pytest.raises(SystemExit):  # not over what is there
        write_streets.main()
    assert "has files already. Give another folder" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "s" / "label_2")  # nor over pictures without labels, such as KITTI's for testing
    before = (tmp_path / "s" / "image_2" / "000000.png").read_bytes()
    monkeypatch.setattr(sys, "argv", ["write_streets", str(tmp_path / "s"), "--count", "1", "--seed", "9"])
    with pytest.raises(SystemExit):
        write_streets.main()
    assert (tmp_path / "s" / "image_2" / "000000.png").read_bytes() == before
