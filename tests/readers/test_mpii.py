import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from poseglass.core.affine import Affine
from poseglass.core.boxes import fit_aspect
from poseglass.core.skeletons import MPII16
from poseglass.readers import mpii

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")

# Two people in one image and one in another: 16 joints that count from 1, the last of the first person unlabelled,
# the second joint of the second person hidden.
JOINTS = np.stack([np.stack([np.arange(16) * 7.0 + 10 * p + 1, np.arange(16) * 11.0 + p + 1], -1) for p in range(3)])
JOINTS[0, 15] = 0
VISIBLE = np.ones((3, 16))
VISIBLE[0, 15] = VISIBLE[1, 1] = 0
NAMES = ["a.jpg", "a.jpg", "b.jpg"]
CENTER = np.array([[51.0, 81.0], [61.0, 90.0], [71.0, 99.0]])
SCALE = np.array([1.0, 0.8, 1.2])
HEAD = np.array([12.0, 13.0, 14.0])


def as_hrnet(folder: Path, change=None) -> Path:
    joints = np.where((JOINTS == 0).all(-1, keepdims=True), -1.0, JOINTS)
    records = [
        {
            "image": NAMES[i], "joints": joints[i].tolist(), "center": CENTER[i].tolist(), "scale": SCALE[i],
            "joints_vis": (JOINTS[i] != 0).all(-1).astype(int).tolist(),
        }
        for i in range(3)
    ]  # fmt: skip
    if change is not None:
        change(records)
    path = folder / "valid.json"
    path.write_text(json.dumps(records))
    return path


def as_ports(folder: Path, change=None) -> Path:
    records = [
        {
            "img_paths": NAMES[i], "joint_self": np.concatenate([JOINTS[i], VISIBLE[i, :, None]], -1).tolist(),
            "objpos": CENTER[i].tolist(), "scale_provided": SCALE[i], "isValidation": float(i == 2),
            "img_width": 640.0, "img_height": 480.0,
        }
        for i in range(3)
    ]  # fmt: skip
    if change is not None:
        change(records)
    path = folder / "mpii_annotations.json.gz"
    path.write_bytes(gzip.compress(json.dumps(records).encode()))
    return path


def as_hdf5(folder: Path, *, adjusted: bool = True, **changed: np.ndarray | None) -> Path:
    path = folder / "valid.h5"
    fields: dict[str, np.ndarray | None] = {
        "imgname": np.array([n.encode() for n in NAMES]),
        "part": JOINTS,
        "visible": VISIBLE,
        "center": CENTER + (np.stack([0 * SCALE, 15 * SCALE], 1) if adjusted else 0),
        "scale": SCALE * (1.25 if adjusted else 1),
        "normalize": HEAD,
    } | changed
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file[name] = value
    return path


def struct(**fields):
    """Return a 1 x 1 Matlab struct."""
    return structs([fields])


def structs(rows: list[dict]):
    """Return a 1 x n Matlab struct array."""
    out = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        for name, value in row.items():
            out[name][0, i] = value
    return out


def as_release(folder: Path, change=None) -> Path:
    def person(i: int) -> dict:
        points = [
            {"x": JOINTS[i, k, 0], "y": JOINTS[i, k, 1], "id": k, "is_visible": str(int(VISIBLE[i, k])) if k else []}
            for k in range(16)
            if (JOINTS[i, k] != 0).all()
        ]
        diagonal = HEAD[i] / 0.6
        return {
            "x1": 10.0, "y1": 20.0, "x2": 10.0 + diagonal * 0.6, "y2": 20.0 + diagonal * 0.8,
            "annopoints": struct(point=structs(points)), "scale": SCALE[i],
            "objpos": struct(x=CENTER[i, 0], y=CENTER[i, 1]),
        }  # fmt: skip

    test = {k: np.zeros((0, 0)) for k in ("x1", "y1", "x2", "y2", "annopoints")}
    test |= {"scale": 2.0, "objpos": struct(x=9.0, y=8.0)}
    head_only = person(2) | {"scale": np.zeros((0, 0)), "objpos": np.zeros((0, 0))}
    images = [
        {"image": struct(name="a.jpg"), "annorect": structs([person(0), person(1)])},
        {"image": struct(name="empty.jpg"), "annorect": np.zeros((0, 0))},
        {"image": struct(name="b.jpg"), "annorect": structs([head_only, person(2)])},
        {"image": struct(name="c.jpg"), "annorect": structs([test])},
    ]
    release = {"annolist": structs(images), "img_train": np.array([[1, 1, 1, 0]])}
    if change is not None:
        change(release)
    path = folder / "mpii_human_pose_v1_u12_1.mat"
    scipy.io.savemat(path, {"RELEASE": struct(**release)}, do_compression=True)
    return path


FORMS = {"hrnet": as_hrnet, "ports": as_ports, "hdf5": as_hdf5, "release": as_release}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_people(tmp_path, form):
    data = mpii(FORMS[form](tmp_path), **({"split": "train"} if form == "release" else {}))
    assert data.skeleton == MPII16
    assert [p.name for p in data.paths] == ["a.jpg", "b.jpg"]
    everyone = data.everyone
    expected = np.where(JOINTS == 0, np.nan, JOINTS - 1)
    np.testing.assert_allclose(everyone.xy, expected, rtol=1e-6)
    assert everyone.known.sum() == 47
    hidden = np.zeros((3, 16), bool)
    hidden[1, 1] = form != "hrnet"  # that format does not mark them
    np.testing.assert_array_equal(everyone.keypoint_extra["occluded"], hidden)
    assert everyone.extra["annotation_id"].tolist() == [0, 1, 2]
    side = 200 * SCALE
    x, y = CENTER[:, 0] - 1, CENTER[:, 1] - 1 + 15 * SCALE
    box = np.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], 1)
    np.testing.assert_allclose(everyone.box_xyxy, box, rtol=1e-5)
    if form in ("hdf5", "release"):
        np.testing.assert_allclose(everyone.extra["head_px"], HEAD, rtol=1e-5)
    else:
        assert "head_px" not in everyone.extra
    assert len(data.instances(0)) == 2


def test_padding_1_25_gives_the_protocols_crop(tmp_path):
    """The protocol: centre down by 15 s, s times 1.25, a square of 200 s; the centre is the middle of the crop."""
    person = mpii(as_hrnet(tmp_path)).instances(1)
    crop = fit_aspect(person.box_xyxy[0].astype(np.float64), 1.0, padding=1.25)
    assert crop[2] - crop[0] == pytest.approx(250 * SCALE[2])
    to_crop = Affine.crop(crop, (256, 256))
    middle = to_crop(CENTER[2] - 1 + [0, 15 * SCALE[2]])
    np.testing.assert_allclose(middle, [127.5, 127.5], atol=1e-4)


def test_splits_are_separated_where_the_file_marks_them(tmp_path):
    ports, release = as_ports(tmp_path), as_release(tmp_path)
    assert mpii(ports, split="train").num_instances == 2
    val = mpii(ports, split="val")
    assert (val.num_instances, val.name, val.size_wh(0)) == (1, "mpii/val", (640, 480))
    test = mpii(release, split="test")
    assert test.num_instances == 1
    assert not test.everyone.known.any()
    assert test.everyone.box_xyxy.tolist() == [[8 - 200, 37 - 200, 8 + 200, 37 + 200]]
    for path, split, match in (
        (ports, "test", "holds 'train' and 'val' people, not 'test'"),
        (release, "val", "the validation people are a subset of 'train' chosen by Tompson"),
        (as_hrnet(tmp_path), "val", "does not mark splits; omit split="),
        (as_hdf5(tmp_path), "val", "does not mark splits"),
        (ports, "vall", r"split must be 'train', 'val', 'test' or None, got 'vall'\. Did you mean 'val'"),
    ):
        with pytest.raises(ValueError, match=match):
            mpii(path, split=split)


def test_raw_hdf5_is_distinguished_from_adjusted(tmp_path):
    raw = mpii(as_hdf5(tmp_path, adjusted=False), adjusted=False).everyone
    np.testing.assert_allclose(raw.box_xyxy, mpii(as_hrnet(tmp_path)).everyone.box_xyxy, rtol=1e-5)
    many = {
        "imgname": np.array([f"{i}.jpg".encode() for i in range(60)]),
        "part": np.repeat(JOINTS[1:2], 60, 0),  # 165 px high
        "visible": np.ones((60, 16)),
        "center": np.repeat(CENTER[1:2], 60, 0),
        "normalize": None,
    }
    span = 165 / 200
    ok = mpii(as_hdf5(tmp_path, **many, scale=np.full(60, span / 0.70)))
    assert ok.num_instances == 60
    with pytest.raises(ValueError, match=r"people extend over 0.87 of 200 px .* Pass adjusted=False"):
        mpii(as_hdf5(tmp_path, **many, scale=np.full(60, span / 0.87)))


def test_names_as_character_codes(tmp_path):
    codes = np.array([[*n.encode(), 0, 0] for n in NAMES], dtype=np.float64)
    assert [p.name for p in mpii(as_hdf5(tmp_path, imgname=codes)).paths] == ["a.jpg", "b.jpg"]


def test_head_boxes_of_the_evaluation(tmp_path):
    boxes = np.zeros((2, 2, 3))
    boxes[1] = [[3, 6, 9], [4, 8, 12]]
    gt = JOINTS.transpose(1, 2, 0)
    path = tmp_path / "heads.mat"
    scipy.io.savemat(path, {"headboxes_src": boxes, "pos_gt_src": gt})
    data = mpii(as_hrnet(tmp_path), head_boxes=path)
    np.testing.assert_allclose(data.everyone.extra["head_px"], [3, 6, 9], rtol=1e-6)
    scipy.io.savemat(path, {"headboxes_src": boxes, "pos_gt_src": gt + 50})
    with pytest.raises(ValueError, match=r"its joints are 71 px \(median\) from those of"):
        mpii(as_hrnet(tmp_path), head_boxes=path)
    scipy.io.savemat(path, {"headboxes_src": boxes[..., :2], "pos_gt_src": gt[..., :2]})
    with pytest.raises(ValueError, match=r"has 2 head boxes, .* has 3 people"):
        mpii(as_hrnet(tmp_path), head_boxes=path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r[1].update(joints=[[1, 2]]), "person 1: 'joints' must be 16 x 2 numbers"),
        (lambda r: r[1]["joints"][3].__setitem__(0, "7"), "person 1: 'joints' must be 16 x 2 numbers"),
        (lambda r: r[1]["joints"][3].__setitem__(0, float("nan")), "person 1: 'joints' must be 16 x 2 numbers"),
        (lambda r: r[1].pop("joints"), "person 1 has no 'joints' while others have"),
        (lambda r: r[1].update(joints_vis=[1] * 15), "person 1: 'joints_vis' must be 16 numbers"),
        (lambda r: r[2].update(scale=0), "person 2: 'scale' must be above 0, got 0"),
        (lambda r: r[2].update(scale=None), "person 2: 'scale' must be a number, got None"),
        (lambda r: r[2].update(center=[1]), "person 2: 'center' must be 2 numbers"),
        (lambda r: r[2].update(image=""), "person 2: 'image' must be the name of an image, got ''"),
        (lambda r: r.__setitem__(1, 5), "person 1: expected an object, got 5"),
        (lambda r: r.clear(), "is an empty list"),
        (lambda r: r.__setitem__(slice(None), [{"x": 1}]), "is not MPII JSON: .* got a list of objects with 'x'"),
    ],
)
def test_a_faulty_person_is_named(tmp_path, change, match):
    path = as_hrnet(tmp_path, change)
    with pytest.raises(ValueError, match=match) as raised:
        mpii(path)
    assert str(path) in str(raised.value)


def test_other_json_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"got dict\. For COCO keypoint JSON use poseglass\.readers\.coco"):
        mpii(path)
    with pytest.raises(ValueError, match="person 0: 'joint_self' must be 16 x 3 numbers"):
        mpii(as_ports(tmp_path, lambda r: r[0].update(joint_self=[])))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"part": None}, "is not MPII in HDF5: expected 'part'|expected 'imgname'"),
        ({"part": JOINTS[:, :3]}, r"expected 'part' of shape \(3, 16, 2\), got \(3, 3, 2\)"),
        ({"scale": np.array([1.0, np.nan, 1.0])}, "'scale' must be finite numbers"),
        ({"scale": np.array([1.0, -1.0, 1.0])}, "person 1: 'scale' must be above 0, got -1"),
        ({"imgname": np.arange(3)}, "expected 3 names in 'imgname', got int64"),
        ({"center": None}, r"expected 'center' of shape \(3, 2\), got nothing"),
    ],
)
def test_faulty_hdf5_is_refused(tmp_path, changed, match):
    with pytest.raises(ValueError, match=match):
        mpii(as_hdf5(tmp_path, **changed))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r.pop("img_train"), "'RELEASE' must be a struct with 'annolist' and 'img_train'"),
        (lambda r: r.update(img_train=np.array([[1, 0]])), "4 images in 'annolist' need as many 'img_train', got 2"),
        (
            lambda r: r["annolist"]["image"].__setitem__((0, 1), struct(name=3.0)),
            "image 2: 'image.name' must be the na",
        ),
        (lambda r: r["annolist"]["annorect"][0, 0]["scale"].__setitem__((0, 1), -1.0), "image 1: 'objpos' must have x"),
        (
            lambda r: r["annolist"]["annorect"][0, 0]["annopoints"][0, 0]["point"][0, 0]["id"].__setitem__((0, 2), 16),
            "image 1: a point has id 16, expected 0 to 15",
        ),
        (
            lambda r: r["annolist"]["annorect"][0, 0]["annopoints"][0, 0]["point"][0, 0]["x"].__setitem__((0, 2), "q"),
            "image 1: a point must have numbers x, y and id",
        ),
    ],
)
def test_a_faulty_release_is_refused(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        mpii(as_release(tmp_path, change))


# -------------------- real files


@pytest.mark.slow
@needs_shared
@pytest.mark.shared
def test_the_published_counts():
    whole = SHARED / "mpii" / "mpii_annotations.json.gz"
    everybody = mpii(whole)
    assert everybody.num_instances == 22_246 + 2_958
    assert int(everybody.everyone.known.sum()) == 376_263
    assert int(everybody.everyone.keypoint_extra["occluded"].sum()) == 86_703


@pytest.mark.slow
@needs_shared
@pytest.mark.shared
def test_json_and_hdf5_agree_to_the_rounding():
    folder = SHARED / "mpii"
    json_people = mpii(
        folder / "mpii_annotations.json.gz", split="val", head_boxes=folder / "detections_our_format.mat"
    )  # fmt: skip
    hdf5_people = mpii(folder / "valid.h5")
    assert (len(json_people), json_people.num_instances) == (2_729, 2_958)
    assert [p.name for p in json_people.paths] == [p.name for p in hdf5_people.paths]
    a, b = json_people.everyone, hdf5_people.everyone
    np.testing.assert_array_equal(a.known, b.known)
    np.testing.assert_array_equal(a.keypoint_extra["occluded"], b.keypoint_extra["occluded"])
    np.testing.assert_array_equal(a.extra["annotation_id"], b.extra["annotation_id"])
    assert np.nanmax(np.abs(a.xy - b.xy)) <= 1.0  # the HDF5 file truncates to whole pixels
    assert np.abs(a.box_xyxy - b.box_xyxy).max() < 0.1
    np.testing.assert_allclose(a.extra["head_px"], b.extra["head_px"], atol=1e-3)


@needs_shared
@pytest.mark.shared
def test_the_hrnet_sample_agrees_with_the_hdf5():
    few, all_people = mpii(SHARED / "samples" / "mpii" / "test_mpii.json"), mpii(SHARED / "mpii" / "valid.h5")
    names = [p.name for p in all_people.paths]
    for i, path in enumerate(few.paths):
        one, other = few.instances(i), all_people.instances(names.index(path.name))
        np.testing.assert_allclose(one.box_xyxy[0], other.box_xyxy[0], atol=0.1)
        assert np.nanmax(np.abs(one.xy[0] - other.xy[0])) <= 1.0
        width, height = few[i].size_wh
        assert (np.nan_to_num(one.xy[0]) < [width, height]).all()
