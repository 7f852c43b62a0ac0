import numpy as np
import pytest
import scipy.io

from poseglass.core.boxes import fit_aspect
from poseglass.core.skeletons import FLIC11
from poseglass.readers import flic

ORDER = (
    "lsho", "lelb", "lwri", "rsho", "relb", "rwri", "lhip", "lkne", "lank", "rhip", "rkne", "rank", "leye", "reye",
    "lear", "rear", "nose",
)  # fmt: skip
SHORT = {"lsho": "left_shoulder", "lelb": "left_elbow", "lwri": "left_wrist", "rsho": "right_shoulder",
         "relb": "right_elbow", "rwri": "right_wrist", "lhip": "left_hip", "rhip": "right_hip", "leye": "left_eye",
         "reye": "right_eye", "nose": "nose"}  # fmt: skip


def facing(middle: float, person: bool = True) -> dict[str, tuple[float, float]]:
    """Return somebody who faces the camera: the person's left is on the right of the image. Counted from 1."""
    side = 1 if person else -1
    rows = {"sho": 40.0, "elb": 60.0, "wri": 80.0, "hip": 100.0, "eye": 20.0}
    points = {f"l{n}": (middle + side * 15, y) for n, y in rows.items()}
    points |= {f"r{n}": (middle - side * 15, y) for n, y in rows.items()}
    return points | {"nose": (middle, 25.0)}


def examples(path, people, change=None):
    fields = ("filepath", "coords", "torsobox", "imgdims", "istrain", "istest")
    out = np.empty((1, len(people)), dtype=[(f, object) for f in fields])
    for i, points in enumerate(people):
        coords = np.full((2, 29), np.nan)
        for name, xy in points.items():
            coords[:, ORDER.index(name)] = xy
        row = (f"{i}.jpg", coords, [[81.0, 31.0, 121.0, 111.0]], [[480.0, 720.0, 3.0]], float(i != 1), float(i == 1))
        for field, value in zip(fields, row, strict=True):
            out[field][0, i] = value
    if change is not None:
        change(out)
    scipy.io.savemat(path, {"examples": out})
    return path


def test_the_eleven_joints(tmp_path):
    data = flic(examples(tmp_path / "examples.mat", [facing(101), facing(201)]))
    assert data.skeleton == FLIC11
    assert data.notes == ()
    person = data.instances(1)
    for short, xy in facing(201).items():
        np.testing.assert_allclose(person.xy[0, FLIC11.index(SHORT[short])], np.array(xy) - 1)
    assert person.extra["torso_px"][0] == pytest.approx(np.hypot(30, 60))
    assert data.size_wh(0) == (720, 480)
    assert data.source(1) == str(tmp_path / "1.jpg")


def test_train_and_test(tmp_path):
    path = examples(tmp_path / "examples.mat", [facing(101), facing(201), facing(301)])
    assert flic(path, split="train").image_ids == (1, 3)
    assert flic(path, split="test").image_ids == (2,)
    assert flic(path, split="test").name == "flic/test"


def test_the_crop_of_the_ports(tmp_path):
    data = flic(examples(tmp_path / "examples.mat", [facing(101), facing(201)]))
    crop = fit_aspect(data.instances(0).box_xyxy[0], 1.0, padding=1.25)
    np.testing.assert_allclose(crop, [100 - 220, 239.5 - 220, 100 + 220, 239.5 + 220])


def test_an_observers_file_is_converted_to_the_persons_view(tmp_path):
    own = flic(examples(tmp_path / "own.mat", [facing(101), facing(201)]))
    path = examples(tmp_path / "observer.mat", [facing(101, person=False), facing(201, person=False)])
    turned = flic(path, view="observer")
    assert turned.notes == ()
    np.testing.assert_array_equal(turned.everyone.xy, own.everyone.xy)
    (note,) = flic(path).notes
    assert "left of the right one in 100% of the images" in note
    assert "Pass view='observer'" in note


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("coords", np.zeros((2, 11)), "example 2: 'coords' must be 2 x 29 numbers"),
        ("coords", "x", "example 2: 'coords' must be 2 x 29 numbers"),
        ("coords", np.full((2, 29), 1e12), "example 2: 'coords' must be pixels, got 1e.12"),
        ("filepath", 3.0, "example 2: 'filepath' must be the name of an image"),
        ("torsobox", [[1.0, 2.0, 3.0]], "example 2: 'torsobox' must be 4 numbers"),
        ("torsobox", [[9.0, 2.0, 3.0, 4.0]], "example 2: 'torsobox' .* has no area"),
        ("imgdims", [[0.0, 5.0, 3.0]], "example 2: 'imgdims' must be height, width, channels"),
        ("istest", 5.0, "example 2: 'istest' must be 0 or 1"),
    ],
)
def test_a_faulty_example_is_named(tmp_path, field, value, match):
    path = examples(tmp_path / "x.mat", [facing(101), facing(201)], lambda e: e[field].__setitem__((0, 1), value))
    with pytest.raises(ValueError, match=match) as raised:
        flic(path, split="test")
    assert str(path) in str(raised.value)


def test_choices_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"view must be one of 'person', 'observer', got 'persn'\. Did you mean 'pers"):
        flic(tmp_path / "x.mat", view="persn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', None, got 'val'"):
        flic(tmp_path / "x.mat", split="val")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="No such label file"):
        flic(tmp_path / "x.mat")
    scipy.io.savemat(tmp_path / "x.mat", {"other": 1.0})
    with pytest.raises(ValueError, match=r"has no variable 'examples', .* It has: other\."):
        flic(tmp_path / "x.mat")
