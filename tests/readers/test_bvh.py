"""BVH: positions by hand and against recorded ones, units and axes, and faults that are named with their line."""

import re
from dataclasses import replace

import numpy as np
import pytest

from poseglass.core.skeletons import H36M17
from poseglass.readers.bvh import read_bvh
from poseglass.readers.joint_names import NAMINGS, Naming, to_h36m17

SMALL = """HIERARCHY
ROOT Hips
{
  OFFSET 9 9 9
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Arm
  {
    OFFSET 2 0 0
    CHANNELS 3 Yrotation Zrotation Xrotation
    End Site
    {
      OFFSET 1 0 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
10 20 30 90 0 0 0 0 0
1 2 3 0 0 0 90 0 0
"""


def body(unit=1.0, swap=False, naming: Naming = NAMINGS[3], facing=0.0):
    """Return the BVH text of a standing person 1.7 m tall, whose joints all have channels of position."""
    joints = naming.joints()
    name = {keypoint: joint.removesuffix("_end") for keypoint, joint in joints.items()}
    tree = {
        name["pelvis"]: (None, (0, 900, 0)),
        name["spine"]: (name["pelvis"], (0, 200, 0)),
        name["thorax"]: (name["spine"], (0, 250, 0)),
        name["neck"]: (name["thorax"], (0, 80, 10)),
    }
    if name.get("head_top") not in (None, name["neck"]):
        tree[name["head_top"]] = (name["neck"], (0, 0 if joints["head_top"].endswith("_end") else 150, 0))
    tips = {}
    for side, x in (("left", 1), ("right", -1)):
        tree[name[f"{side}_hip"]] = (name["pelvis"], (100 * x, -20, 0))
        tree[name[f"{side}_knee"]] = (name[f"{side}_hip"], (0, -430, 5))
        for joint, above, offset in (("ankle", "knee", (0, -400, -10)), ("wrist", "elbow", (250 * x, 0, 0))):
            if name[f"{side}_{joint}"] == name[f"{side}_{above}"]:
                tips[name[f"{side}_{above}"]] = offset  # the limb ends without a joint
            else:
                tree[name[f"{side}_{joint}"]] = (name[f"{side}_{above}"], offset)
        tree[name[f"{side}_shoulder"]] = (name["thorax"], (180 * x, 0, 0))
        tree[name[f"{side}_elbow"]] = (name[f"{side}_shoulder"], (300 * x, 0, 0))
    numbers = []

    def words(offset):
        x, y, z = (value / unit for value in offset)
        return (x, -z, y) if swap else (x, y, z)

    def lines(joint):
        parent, offset = tree[joint]
        out = [f"{'JOINT' if parent else 'ROOT'} {joint}", "{", "OFFSET 0 0 0"]
        out += ["CHANNELS 6 Zrotation Yrotation Xrotation Zposition Yposition Xposition"]
        numbers.extend([facing if swap and not parent else 0, 0 if swap or parent else facing, 0])
        numbers.extend(words(offset)[::-1])
        for child in [child for child, (above, _) in tree.items() if above == joint]:
            out += lines(child)
        if not any(above == joint for above, _ in tree.values()):
            out += ["End Site", "{", "OFFSET {} {} {}".format(*words(tips.get(joint, (0, 150, 0)))), "}"]
        return [*out, "}"]

    text = ["HIERARCHY", *lines(name["pelvis"]), "MOTION", "Frames: 1", "Frame Time: .05"]
    return "\n".join([*text, " ".join(f"{n:.9f}" for n in numbers), ""])


def read(tmp_path, text, **given):
    path = tmp_path / "clip.bvh"
    path.write_text(text, newline="")
    return read_bvh(path, **given)


def test_positions_by_hand(tmp_path):
    motion = read(tmp_path, SMALL, unit="cm")
    assert motion.names == ("Hips", "Arm", "Arm_end")
    assert motion.parents.tolist() == [-1, 0, 1]
    assert motion.frames_per_second == 20
    assert motion.name == "clip"
    expected = [
        [[10, 20, 30], [10, 22, 30], [10, 23, 30]],  # the root turns x into y; its channels replace its offset
        [[1, 2, 3], [3, 2, 3], [3, 2, 2]],  # the arm turns x into -z
    ]
    np.testing.assert_allclose(motion.positions_mm, np.array(expected) * 10, atol=1e-9)


def test_rotations_multiply_in_the_order_of_the_channels(tmp_path):
    """Z by 90 degrees after X by 90: the arm's y becomes z under X, and stays; Z then does nothing to it."""
    text = SMALL.replace("OFFSET 2 0 0", "OFFSET 0 2 0").replace("10 20 30 90 0 0", "0 0 0 90 90 0")
    assert read(tmp_path, text, unit="mm").positions_mm[0, 1] == pytest.approx([0, 0, 2])
    other = text.replace("Zrotation Xrotation Yrotation", "Xrotation Zrotation Yrotation")
    assert read(tmp_path, other, unit="mm").positions_mm[0, 1] == pytest.approx([-2, 0, 0])


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("cm", 10), ("m", 1000), ("inch", 25.4), ("inch*0.45", 25.4 / 0.45)]
)
def test_the_unit_is_told_by_the_legs(tmp_path, unit, mm):
    motion = read(tmp_path, body(mm))
    assert motion.notes == (f"The unit is taken as {unit}: the legs are then 830 mm long.",)
    xyz_mm, notes = to_h36m17(motion)
    assert notes == ()
    assert xyz_mm[0, H36M17.index("left_wrist")] == pytest.approx([730, 1350, 0], abs=0.01)
    assert read(tmp_path, body(mm), unit=unit).notes == (f"The unit is {unit}, as given.",)
    assert read(tmp_path, body(mm), unit=mm / 2).positions_mm == pytest.approx(motion.positions_mm / 2)


@pytest.mark.parametrize("naming", [n for n in NAMINGS if n.name != "CMU, Acclaim"], ids=lambda naming: naming.name)
def test_every_naming_gives_the_same_person(tmp_path, naming):
    """Acclaim has bones instead of joints, see test_acclaim."""
    full = "thorax" in naming.middle
    text = body(naming=naming if full else replace(naming, middle={**naming.middle, "thorax": "Collar"}))
    xyz_mm, notes = to_h36m17(read(tmp_path, text))
    expected, _ = to_h36m17(read(tmp_path, body()))
    lacking = [k for k, name in enumerate(H36M17.keypoints) if name == "thorax" and not full]
    assert np.isnan(xyz_mm[:, lacking]).all()
    assert ("1 of 17 keypoints have no joint" in " ".join(notes)) == bool(lacking)
    same = [k for k, name in enumerate(H36M17.keypoints) if name != "head_top" and k not in lacking]
    np.testing.assert_allclose(xyz_mm[:, same], expected[:, same], atol=0.01)
    head = xyz_mm[0, H36M17.index("head_top")] - xyz_mm[0, H36M17.index("neck")]
    assert np.linalg.norm(head) == pytest.approx(naming.head_mm or 150, abs=0.01)


BIOVISION = NAMINGS[6]


@pytest.mark.parametrize("mm", [1, 25.4 / 0.45, 1000])
def test_a_leg_with_a_misspelt_joint_leaves_the_other(tmp_path, mm):
    """In inches times 0.45, both mm and m would be wrong; whichever leg it is, the other tells."""
    for side in ("Left", "Right"):
        text = body(mm, naming=BIOVISION).replace(f"{side}Knee", f"{side}Kne")
        motion = read(tmp_path, text)
        assert motion.notes[0].endswith("the legs are then 830 mm long.")
        assert to_h36m17(motion)[1][0].endswith(
            f"unknown: {side.lower()}_knee (no joint '{side}Knee', only a similar '{side}Kne')."
        )
    for unit, its_mm in (("mm", 1), ("m", 1000)):
        if its_mm != mm:
            with pytest.raises(ValueError, match=rf"clip\.bvh: in the unit '{unit}', legs .*would be 830 mm in"):
                read(tmp_path, text, unit=unit)


def test_without_any_leg_the_missing_joints_are_named(tmp_path):
    text = body(10.0, naming=BIOVISION).replace("LeftKnee", "LeftKne").replace("RightHip", "RightThigh")
    why = "as the hierarchy (BioVision) has no joint 'LeftKnee', only a similar 'LeftKne'; no joint 'RightHip'."
    with pytest.raises(ValueError, match=rf"clip\.bvh does not state its unit, .* legs, {re.escape(why)} Give unit="):
        read(tmp_path, text)
    assert read(tmp_path, text, unit="cm").notes == (f"The unit is cm, as given. No leg confirms it, {why}",)
    whole = body(10.0, naming=BIOVISION)
    cut = whole[: whole.index("Frames: 1")] + "Frames: 0\nFrame Time: .05\n"
    with pytest.raises(ValueError, match=r"cannot be told from the legs, as there is no frame\. Give unit="):
        read(tmp_path, cut)


def test_z_up_becomes_y_up_and_left_stays_left(tmp_path):
    upright = read(tmp_path, body(10.0, facing=30))
    turned = read(tmp_path, body(10.0, swap=True, facing=30))
    assert turned.positions_mm == pytest.approx(upright.positions_mm, abs=0.01)
    assert turned.notes[0].endswith("Up is +z, along which the heads are above the pelves; it became y.")
    kept = read(tmp_path, body(10.0, swap=True), up="+y")
    assert kept.positions_mm[0, kept.index("Head"), 1] != pytest.approx(1430, abs=100)
    down = read(tmp_path, body(10.0), up="-y")
    assert down.positions_mm[0, 0] == pytest.approx([0, -900, 0])
    lying = body(10.0).replace("\n0.000000000 0.000000000 0.000000000 ", "\n90 0.000000000 0.000000000 ")
    assert "Up is taken as +y, though bodies are not upright" in read(tmp_path, lying).notes[0]


def test_several_hierarchies_in_one_file(tmp_path):
    head, tail = SMALL.split("MOTION")
    second = head.removeprefix("HIERARCHY\n").replace("ROOT Hips", "ROOT Pelvis")
    frames = "\n".join(f"{line} 5 6 7 0 0 0 0 0 0" for line in tail.strip().splitlines()[2:])
    text = head + second + "MOTION\nFrames: 2\nFrame Time: 0.05\n" + frames
    with pytest.raises(
        ValueError, match=r"clip.bvh has 2 hierarchies, of the roots Hips, Pelvis. Choose one: root='Hi"
    ):
        read(tmp_path, text, unit="cm")
    first = read(tmp_path, text, unit="cm", root="Hips")
    assert first.positions_mm == pytest.approx(read(tmp_path, SMALL, unit="cm").positions_mm)
    for root in ("Pelvis", 1):
        other = read(tmp_path, text, unit="mm", root=root)
        assert other.names == ("Pelvis", "Arm", "Arm_end")
        assert other.positions_mm[0] == pytest.approx(np.array([[5, 6, 7], [7, 6, 7], [8, 6, 7]]))
    with pytest.raises(ValueError, match=r"has no root 'Hip'. It has: Hips, Pelvis"):
        read(tmp_path, text, unit="cm", root="Hip")
    with pytest.raises(ValueError, match=r"has 2 hierarch.*; root must be below it, got 2"):
        read(tmp_path, text, unit="cm", root=2)
    with pytest.raises(ValueError, match=r"has 2 roots named 'Hips'. Choose one by number: root=0"):
        read(tmp_path, text.replace("Pelvis", "Hips"), unit="cm", root="Hips")
    assert len(read(tmp_path, text.replace("Pelvis", "Hips"), unit="cm", root=1)) == 2


def test_line_ends_marks_tabs_and_letters(tmp_path):
    plain = read(tmp_path, SMALL, unit="cm").positions_mm
    odd = "\ufeff" + SMALL.replace("\n", "\r\n").replace("  ", "\t").replace("Frames: 2", "Frames:\t2 ")
    assert read(tmp_path, odd, unit="cm").positions_mm == pytest.approx(plain)
    assert read(tmp_path, SMALL.replace("ROOT", "Root").replace("rotation", "Rotation"), unit="cm") is not None
    assert read(tmp_path, SMALL.replace("\n", "\n\n"), unit="cm").positions_mm == pytest.approx(plain)
    assert read(tmp_path, SMALL.replace("{", " ").replace("Hips\n", "Hips {\n").replace("Arm\n", "Arm {\n").replace(
        "Site\n", "Site {\n"), unit="cm").positions_mm == pytest.approx(plain)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "ASF", r"clip.bvh, line 1: a BVH file starts with HIERARCHY, got 'ASF'"),
        ("ROOT Hips", "ROOT", r"line 3: expected \{, got 'OFFSET'|line 2: ROOT has no name"),
        ("ROOT Hips", "JOINT Hips", r"line 2: JOINT must stand inside of a joint"),
        ("JOINT Arm", "ROOT Arm", r"line 6: ROOT must stand outside of a joint"),
        ("JOINT Arm", "JOINT Hips", r"line 6: a second joint named 'Hips'. Names of one hierarchy must be unique"),
        ("JOINT Arm", "BONE Arm", r"line 6: expected ROOT, JOINT, End Site, OFFSET, CHANNELS or MOTION, got 'BONE'"),
        ("JOINT Arm\n  {", "JOINT Arm\n", r"line 8: expected \{, got 'OFFSET'"),
        ("OFFSET 2 0 0", "OFFSET 2 0", r"line 8, OFFSET: expected a number .*, got 'CHANNELS'"),
        ("OFFSET 2 0 0", "OFFSET 2 0,5 0", r"line 8, OFFSET: expected a number .*, got '0,5'. Write decimals with"),
        ("OFFSET 2 0 0", "OFFSET 2 inf 0", r"line 8, OFFSET: expected a number \(finite, below 10,000,000\), got"),
        ("    OFFSET 2 0 0\n", "", r"line 13: joint 'Arm' of line 6 has no OFFSET"),
        ("CHANNELS 3", "CHANNELS 300", r"line 9: a joint has 0 to 6 CHANNELS, got '300'"),
        ("CHANNELS 3", "CHANNELS 4", r"line 9: expected 4 channels such as Xrotation .*, each once, got 'End'"),
        ("Yrotation Zrotation Xr", "Yrotation Yrotation Xr", r"line 9: expected 3 channels .*, got 'Yrotation'"),
        ("      OFFSET 1 0 0", "      OFFSET 1 0 0 CHANNELS 0", r"line 12: joint 'Arm_end' cannot have CHANNELS"),
        ("      OFFSET 1 0 0", "      OFFSET 1 0 0 JOINT Hand", r"line 12: an End Site has no joints below it"),
        ("}\nMOTION", "MOTION", r"line 15: joint 'Hips' of line 2 is not closed before MOTION"),
        ("}\nMOTION", "}\n}\nMOTION", r"line 16: a brace closes that was not opened"),
        ("Frames: 2", "Frames: two", r"line 17: the number of frames must be a whole number, got 'two'"),
        ("Frames: 2", "Frames: -2", r"line 17: the number of frames must be a whole number, got '-2'"),
        ("Frames: 2", "Frames: 3", r"line 17: it declares 3 frames, and 2 lines of numbers follow; the file is"),
        ("Frames: 2", "Frames: 1", r"line 17: it declares 1 frames, and 2 .*; the number is wrong. .* 'Frames: 2'"),
        ("Frames: 2", "Frames: 99999999999999999999", r"line 17: it declares 99999999999999999999 frames, and 2 lines"),
        ("Frames: 2\n", "", r"line 17: expected 'Frames:' after MOTION, got 'Frame Time: 0.05'"),
        ("Time: 0.05", "Time: 0", r"line 18: the frame time must be a positive number, got '0'"),
        ("Time: 0.05", "Time: nan", r"line 18: the frame time must be a positive number, got 'nan'"),
        ("0 90 0 0\n", "0 90 0\n", r"line 20: a frame has 9 numbers, one for each channel, got 8; the file is"),
        ("30 90 0", "30 90", r"line 19: a frame has 9 numbers, one for each channel, got 8\."),
        ("30 90 0", "30 90 x", r"line 19: expected a number .*, got 'x'"),
        ("30 90 0", "30 90 nan", r"line 19: expected a number \(finite, below 10,000,000\), got 'nan'"),
        ("30 90 0", "30 9_0 0", r"line 19: expected a number .*, got '9_0'"),
        ("30 90 0", "30 1e300 0", r"line 19: expected a number .*, got '1e300'"),
        ("MOTION\nFrames: 2\nFrame Time: 0.05\n10 20 30 90 0 0 0 0 0\n1 2 3 0 0 0 90 0 0\n", "",
         r"line 15: it ends within the hierarchy, before MOTION"),
        (SMALL, "HIERARCHY MOTION", r"line 1: MOTION comes without a ROOT before it"),
        (SMALL, "", r"line 1: a BVH file starts with HIERARCHY, got ''"),
        ("Arm", "A\0rm", r"clip.bvh is not a BVH file, which is text: it contains zero bytes"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_line(tmp_path, old, new, message):
    assert old in SMALL
    with pytest.raises(ValueError, match=message):
        read(tmp_path, SMALL.replace(old, new, 1), unit="cm")


def test_faults_of_units_and_axes(tmp_path):
    with pytest.raises(ValueError, match=r"clip.bvh does not state its unit, and it cannot be told from the legs"):
        read(tmp_path, SMALL)
    with pytest.raises(
        ValueError, match=r"legs \(hip to ankle\) of 4.151 are a person's 600 to 1100 mm in none of mm, cm"
    ):
        read(tmp_path, body(200.0))
    with pytest.raises(
        ValueError, match=r"in the unit 'mm', legs .* are 0.8302 mm .* would be 830 mm in m: use unit='m'"
    ):
        read(tmp_path, body(1000.0), unit="mm")
    with pytest.raises(ValueError, match=r"in the unit 'm', legs .* are 8.302e\+05 mm .* 830 mm in mm: use unit='mm'"):
        read(tmp_path, body(1.0), unit="m")
    with pytest.raises(
        ValueError, match=r"unit must be one of mm, cm, m, inch, inch\*0.45, .* got 'inches'. Did you mean"
    ):
        read(tmp_path, SMALL, unit="inches")
    with pytest.raises(ValueError, match=r"Millimetres per unit must be positive, got -1"):
        read(tmp_path, SMALL, unit=-1.0)
    with pytest.raises(ValueError, match=r"up must be one of \+y, -y, \+z, -z, \+x, -x, got 'y'"):
        read(tmp_path, SMALL, unit="cm", up="y")
    with pytest.raises(FileNotFoundError, match=r"No such BVH file: .*nothing.bvh"):
        read_bvh(tmp_path / "nothing.bvh")
    with pytest.raises(ValueError, match=r"Expected a BVH file, got a folder"):
        read_bvh(tmp_path)


def test_files_are_bounded(tmp_path, monkeypatch):
    deep = "".join(f"JOINT j{i} {{ OFFSET 0 0 0\n" for i in range(3000))
    with pytest.raises(ValueError, match=r"line 2001: more than 2,000 joints"):
        read(tmp_path, "HIERARCHY ROOT r { OFFSET 0 0 0\n" + deep, unit="cm")
    monkeypatch.setattr("poseglass.readers.motion_file.MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"clip.bvh has \d+ bytes; at most 100 are read. Cut the recording into parts"):
        read(tmp_path, SMALL, unit="cm")


@pytest.mark.slow
def test_truncated_anywhere_it_is_refused(tmp_path):
    """But for a cut in the last number, of which nothing tells."""
    for end in range(len(SMALL) - 3):
        with pytest.raises(ValueError, match=r"clip\.bvh"):
            read(tmp_path, SMALL[:end], unit="cm")


@pytest.mark.slow
def test_changed_bytes_are_refused_or_read(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "clip.bvh"
    refused = 0
    for _ in range(400):
        data = bytearray(SMALL.encode())
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(len(data))
            if rng.random() < 0.5:
                data[at] = rng.integers(256)
            else:
                del data[at : at + rng.integers(1, 30)]
        path.write_bytes(data)
        try:
            motion = read_bvh(path, unit="cm")
        except ValueError as error:
            refused += "clip.bvh" in str(error)
        else:
            refused += bool(np.isfinite(motion.positions_mm).all())
    assert refused == 400


def test_unknown_hierarchies(tmp_path):
    motion = read(tmp_path, SMALL, unit="cm")
    with pytest.raises(
        ValueError, match=r"clip\.bvh: the hierarchy of 3 joints \(Hips, Arm, Arm_end\) is none of the known"
    ):
        to_h36m17(motion)
    xyz_mm, notes = to_h36m17(motion, {"pelvis": "Hips", "left_wrist": "Arm_end"})
    assert xyz_mm[1, H36M17.index("left_wrist")].tolist() == [30, 20, 20]
    assert np.isfinite(xyz_mm).all(-1).sum(1).tolist() == [2, 2]
    assert notes[0].startswith("15 of 17 keypoints have no joint in this hierarchy and are unknown: right_hip, ")
    with pytest.raises(LookupError, match=r"clip\.bvh: No joint 'Arms'. Did you mean 'Arm'\?"):
        to_h36m17(motion, {"pelvis": "Arms"})
    with pytest.raises(LookupError, match=r"has no keypoint 'hand'"):
        to_h36m17(motion, {"hand": "Arm"})


def test_a_keypoint_without_a_joint_is_unknown_and_named(tmp_path):
    text = body().replace("Spine1", "Torso")
    xyz_mm, notes = to_h36m17(read(tmp_path, text))
    assert notes == ("1 of 17 keypoints have no joint in this hierarchy and are unknown: spine (no joint 'Spine1').",)
    assert np.isnan(xyz_mm[:, H36M17.index("spine")]).all()
    prefixed = body().replace("ROOT ", "ROOT mixamorig:").replace("JOINT ", "JOINT mixamorig:")
    assert to_h36m17(read(tmp_path, prefixed))[1] == ()


@pytest.mark.shared
@pytest.mark.parametrize("name", ["08_01", "08_10", "female_b_walk", "002_01", "002_02", "002_03", "006_09", "007_01",
                                  "007_09", "007_10", "007_11", "007_12"])  # fmt: skip
def test_recorded_clips_to_half_a_millimetre(shared, name):
    poses = np.load(shared / "data/mocap/poses.npz", allow_pickle=False)
    motion = read_bvh(shared / f"data/mocap/bvh/{name}.bvh")
    xyz_mm, _ = to_h36m17(motion)
    assert tuple(poses["keypoints"].tolist()) == H36M17.keypoints
    expected = poses["xyz_mm"][poses["clip"] == poses["clip_names"].tolist().index(name)]
    found = xyz_mm[:: round(motion.frames_per_second / 15)]
    assert np.abs(found - expected).max() < 0.1  # they are stored to a tenth


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "unit", "lacking"),
    [("37_01", "inch", ()), ("7256", "cm", ()), ("Male2_B3_Walk", "cm", ()), ("Walking0001", "inch", ("thorax",)),
     ("Walking0003", "inch", ("thorax",)), ("walk_bold", "inch", ()), ("walk_rapid", "cm", ())],
)  # fmt: skip
def test_other_hierarchies_are_people(shared, name, unit, lacking):
    """No recorded positions: upright, a person's size, both sides alike, and feet below heads."""
    motion = read_bvh(shared / f"data/mocap/bvh/{name}.bvh")
    assert motion.notes[0].startswith(f"The unit is taken as {unit}:")
    xyz_mm, notes = to_h36m17(motion)
    known = np.isfinite(xyz_mm).all(-1)
    assert tuple(n for k, n in enumerate(H36M17.keypoints) if not known[:, k].all()) == lacking
    assert ("thorax" in " ".join(notes)) == bool(lacking)
    height = xyz_mm[:, H36M17.index("head_top"), 1] - xyz_mm[
        :, H36M17.indices_of(("left_ankle", "right_ankle")), 1
    ].min(1)
    assert 1400 < np.median(height) < 1900
    left, right = (
        xyz_mm[:, H36M17.indices_of([f"{s}_{p}" for p in ("hip", "knee", "ankle")])] for s in ("left", "right")
    )
    lengths = [np.linalg.norm(np.diff(side, axis=1), axis=-1) for side in (left, right)]
    assert np.abs(lengths[0] - lengths[1]).max() < 30
