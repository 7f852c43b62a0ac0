"""Acclaim files give the positions that the same motion gives as BVH, and their faults are named."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from poseglass.core.skeletons import H36M17
from poseglass.readers.acclaim import read_amc
from poseglass.readers.bvh import read_bvh
from poseglass.readers.joint_names import to_h36m17

BONES = {
    # name: (parent, direction, length, axis, dof)
    "lowerback": ("root", (0.02, 1.0, -0.05), 2.0, (3.0, 1.0, -7.0, "XYZ"), "rx ry rz"),
    "upperback": ("lowerback", (0.0, 1.0, 0.02), 2.0, (0.0, 0.0, 0.0, "XYZ"), "rx ry rz"),
    "thorax": ("upperback", (0.0, 1.0, 0.03), 2.1, (0.0, 0.0, 0.0, "XYZ"), "rx ry rz"),
    "lowerneck": ("thorax", (0.0, 1.0, 0.1), 1.6, (0.0, 0.0, 0.0, "XYZ"), "rx ry rz"),
    "head": ("lowerneck", (0.0, 1.0, 0.0), 3.2, (0.0, 0.0, 0.0, "XYZ"), "rx ry rz"),
    "lhipjoint": ("root", (0.7, -0.7, 0.3), 2.5, (0.0, 0.0, 0.0, "XYZ"), ""),
    "lfemur": ("lhipjoint", (0.34, -0.94, 0.0), 6.8, (10.0, -20.0, 20.0, "XYZ"), "rx ry rz"),
    "ltibia": ("lfemur", (0.34, -0.94, 0.1), 7.1, (0.0, 15.0, 20.0, "ZXY"), "rx"),
    "rhipjoint": ("root", (-0.7, -0.7, 0.3), 2.5, (0.0, 0.0, 0.0, "XYZ"), ""),
    "rfemur": ("rhipjoint", (-0.34, -0.94, 0.0), 6.9, (0.0, 0.0, -20.0, "XYZ"), "rx ry rz"),
    "rtibia": ("rfemur", (-0.34, -0.94, 0.0), 7.2, (0.0, 0.0, -20.0, "XYZ"), "rx"),
    "lclavicle": ("thorax", (0.94, 0.34, 0.0), 3.4, (0.0, 0.0, 0.0, "XYZ"), "ry rz"),
    "lhumerus": ("lclavicle", (1.0, 0.0, 0.0), 5.0, (180.0, 30.0, -90.0, "XYZ"), "rx ry rz"),
    "lradius": ("lhumerus", (1.0, 0.0, 0.0), 3.2, (0.0, 30.0, -90.0, "XYZ"), "rx"),
    "rclavicle": ("thorax", (-0.94, 0.34, 0.0), 3.4, (0.0, 0.0, 0.0, "XYZ"), "ry rz"),
    "rhumerus": ("rclavicle", (-1.0, 0.0, 0.0), 5.0, (180.0, -30.0, 90.0, "XYZ"), "rz rx ry"),
    "rradius": ("rhumerus", (-1.0, 0.0, 0.0), 3.2, (0.0, -30.0, 90.0, "XYZ"), "rx"),
}


def direction(name: str) -> np.ndarray:
    vector = np.array(BONES[name][1])
    return vector / np.linalg.norm(vector)


def values(frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the root's place and angles, and each bone's angles in degrees."""
    rng = np.random.default_rng(seed)
    root = np.concatenate([rng.uniform(-20, 20, (frames, 3)), rng.uniform(-170, 170, (frames, 3))], 1)
    return {"root": root} | {
        name: rng.uniform(-60, 60, (frames, len(bone[4].split()))) for name, bone in BONES.items() if bone[4]
    }


def write_acclaim(folder: Path, moved: dict[str, np.ndarray], *, radians: bool = False, stem: str = "08") -> Path:
    """Write ``08.asf`` and ``08_01.amc``; returns the latter."""
    unit = np.pi / 180 if radians else 1.0
    text = [
        "# made for a test", ":version 1.10", ":name test", ":units", "  mass 1.0", "  length 0.45",
        f"  angle {'rad' if radians else 'deg'}", ":documentation", "   nothing", ":root", "   order TX TY TZ RX RY RZ",
        "   axis XYZ", "   position 0 0 0", "   orientation 0 0 0", ":bonedata",
    ]  # fmt: skip
    for number, (name, (_, _, length, axis, dof)) in enumerate(BONES.items(), 1):
        text += ["  begin", f"     id {number}", f"     name {name}"]
        text += [f"     direction {' '.join(f'{x:.12f}' for x in direction(name))}", f"     length {length}"]
        text += [f"    axis {' '.join(f'{x * unit:.12f}' for x in axis[:3])}   {axis[3]}"]
        if dof:
            text += [f"    dof {dof}", "    limits (-180 180)"] + ["           (-90 90)"] * (len(dof.split()) - 1)
        text += ["  end"]
    text += [":hierarchy", "  begin"]
    for parent in dict.fromkeys(bone[0] for bone in BONES.values()):
        text += [f"    {parent} {' '.join(name for name, bone in BONES.items() if bone[0] == parent)}"]
    text += ["  end", ""]
    (folder / f"{stem}.asf").write_text("\n".join(text))
    lines = ["#!made for a test", ":FULLY-SPECIFIED", ":RADIANS" if radians else ":DEGREES"]
    for t in range(len(moved["root"])):
        lines.append(str(t + 1))
        for name, angles in moved.items():
            row = angles[t] * unit if name != "root" else np.concatenate([angles[t, :3], angles[t, 3:] * unit])
            lines.append(f"{name} {' '.join(f'{x:.12f}' for x in row)}")
    path = folder / f"{stem}_01.amc"
    path.write_text("\n".join([*lines, ""]))
    return path


def write_bvh(path: Path, moved: dict[str, np.ndarray]) -> Path:
    """Write the same motion as BVH: a joint stands where its bone starts, and its children at the bone's end."""
    frames = len(moved["root"])
    columns = [moved["root"][:, :3], moved["root"][:, [5, 4, 3]]]  # R_Z R_Y R_X is x first about fixed axes

    def joint(name: str, depth: int) -> list[str]:
        _, _, length, axis, dof = BONES[name]
        own = Rotation.from_euler(axis[3].lower(), axis[:3], degrees=True)  # lower case: fixed axes, first letter first
        order = dof.replace("r", "").replace(" ", "")
        turn = Rotation.from_euler(order, moved[name], degrees=True) if dof else Rotation.identity(frames)
        columns.append((own * turn * own.inv()).as_euler("YXZ", degrees=True))
        below = [n for n, bone in BONES.items() if bone[0] == name]
        tip = " ".join(f"{x:.12f}" for x in direction(name) * length)
        start = "0 0 0" if BONES[name][0] == "root" else "{}"
        lines = [f"JOINT {name}", "{", f"OFFSET {start}", "CHANNELS 3 Yrotation Xrotation Zrotation"]
        for child in below:
            lines += [line.replace("{}", tip) for line in joint(child, depth + 1)]
        if not below:
            lines += ["End Site", "{", f"OFFSET {tip}", "}"]
        return [*lines, "}"]

    text = ["HIERARCHY", "ROOT root", "{", "OFFSET 0 0 0"]
    text += ["CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"]
    for name, bone in BONES.items():
        if bone[0] == "root":
            text += joint(name, 1)
    text += ["}", "MOTION", f"Frames: {frames}", "Frame Time: 0.0083333"]
    text += [" ".join(f"{x:.12f}" for x in row) for row in np.concatenate(columns, 1)]
    path.write_text("\n".join([*text, ""]))
    return path


@pytest.mark.parametrize("radians", [False, True])
def test_the_same_positions_as_bvh(tmp_path, radians):
    moved = values(9)
    motion = read_amc(write_acclaim(tmp_path, moved, radians=radians), up="+y")
    same = read_bvh(write_bvh(tmp_path / "same.bvh", moved), unit="inch*0.45", up="+y")
    assert set(motion.names) == {"root", *BONES}
    np.testing.assert_allclose(motion.positions_mm[:, 0], moved["root"][:, :3] / 0.45 * 25.4, atol=1e-6)
    for name in BONES:
        child = next((n for n, bone in BONES.items() if bone[0] == name), f"{name}_end")
        expected = same.positions_mm[:, same.index(child)]
        np.testing.assert_allclose(motion.positions_mm[:, motion.index(name)], expected, atol=1e-5, err_msg=name)
    assert motion.frames_per_second == 120
    unit, rate = motion.notes
    assert unit == "The unit is 56.44 mm, as the file states."
    assert rate == "120 frames per second are assumed, as neither file states it."
    stated = read_amc(tmp_path / "08_01.amc", frames_per_second=60.0, up="+y")
    assert (stated.frames_per_second, stated.notes) == (60, (unit,))


def test_positions_by_hand(tmp_path):
    """A thigh is turned by 90 degrees about its own axis z, which is the world's z, and by 90 with the root."""
    moved = {name: np.zeros_like(angles) for name, angles in values(1).items()}
    moved["root"][0] = [1, 2, 3, 0, 0, 90]  # x becomes y
    moved["rfemur"][0] = [0, 0, 90]
    motion = read_amc(write_acclaim(tmp_path, moved), up="+y")
    at = {name: motion.positions_mm[0, motion.index(name)] * 0.45 / 25.4 for name in motion.names}
    hip = np.array([-0.7, -0.7, 0.3]) / np.linalg.norm([-0.7, -0.7, 0.3]) * 2.5
    np.testing.assert_allclose(at["rhipjoint"], [1 - hip[1], 2 + hip[0], 3 + hip[2]], atol=1e-9)
    thigh = np.array([-0.34, -0.94, 0]) / np.linalg.norm([-0.34, -0.94, 0]) * 6.9
    np.testing.assert_allclose(at["rfemur"] - at["rhipjoint"], [-thigh[0], -thigh[1], 0], atol=1e-9)  # 180 about z


def test_keypoints_and_the_skeleton_beside(tmp_path):
    motion = read_amc(write_acclaim(tmp_path, values(3)))
    xyz_mm, notes = to_h36m17(motion)
    assert np.isfinite(xyz_mm).all()
    assert notes == ()
    knee = motion.positions_mm[:, motion.index("lfemur")]
    np.testing.assert_allclose(xyz_mm[:, H36M17.index("left_knee")], knee, atol=1e-3)
    write_acclaim(tmp_path, values(3), stem="09")
    read_amc(tmp_path / "08_01.amc")  # takes 08.asf, whose name it begins with
    (tmp_path / "walk.amc").write_bytes((tmp_path / "08_01.amc").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"walk.amc needs its skeleton, and beside it there are 08.asf, 09.asf"):
        read_amc(tmp_path / "walk.amc")
    assert len(read_amc(tmp_path / "walk.amc", tmp_path / "09.asf")) == 3
    with pytest.raises(FileNotFoundError, match=r"No such ASF file: .*10.asf"):
        read_amc(tmp_path / "walk.amc", tmp_path / "10.asf")


def test_an_axis_without_its_order_is_xyz(tmp_path):
    path = write_acclaim(tmp_path, values(2))
    before = read_amc(path, up="+y").positions_mm
    asf = tmp_path / "08.asf"
    asf.write_text(asf.read_text().replace("   XYZ\n", "\n"))
    np.testing.assert_array_equal(read_amc(path, up="+y").positions_mm, before)


def test_a_part_of_a_recording_keeps_its_numbers(tmp_path):
    path = write_acclaim(tmp_path, values(3))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(str(int(line) + 99) if line.isdecimal() else line for line in lines))
    assert len(read_amc(path)) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("length 0.45", "length 0.01", r"08_01.amc: in the unit that it states, 2540 mm, legs .* are 3.556e\+04 mm"),
        ("length 0.45", "length nan", r"08.asf, line 6: expected a number \(finite, below 10,000,000\), got 'nan'"),
        ("length 0.45", "length -1", r"line 6: the unit of length must be positive, got -1"),
        ("length 0.45", "length", r"line 6: 'length' needs 1 value, got 0"),
        ("angle deg", "angle grad", r"line 7: angle must be deg or rad, got 'grad'"),
        ("order TX TY TZ RX RY RZ", "order TX TX", r"line 11: the root's order must be some of TX TY TZ RX RY RZ, got"),
        ("orientation 0 0 0", "orientation 0 90 0", r"line 14: a root with an orientation of its own, 0 90 0, is not"),
        ("position 0 0 0", "position 0 zero 0", r"line 13: expected a number .*, got 'zero'"),
        ("name upperback", "name lowerback", r"line \d+: bone names must be unique and not 'root', got 'lowerback'"),
        ("direction 1.0", "direction 2.0", r"the direction of 'lhumerus' must have length 1, got 2"),
        ("length 6.8", "length -6.8", r"the length of 'lfemur' must not be negative, got -6.8"),
        ("length 6.8", "# none", r"line \d+: bone 'lfemur' of line \d+ lacks its direction or length"),
        ("   XYZ", "   XXZ", r"line \d+: the order of an axis must be XYZ or another order of these, got 'XXZ'"),
        ("dof ry rz", "dof ry tz", r"degrees of freedom of 'lclavicle' must be some of rx ry rz, .* 'ry tz'. Bones"),
        ("    name lfemur", "    id 3", r"line \d+: 'direction' comes before the name of its bone"),
        ("  begin\n     id 2", "     id 2", r"line \d+: expected 'begin' of a bone, got 'id'"),
        ("  end\n:hierarchy", ":hierarchy", r"line \d+: :hierarchy comes before the end of the block that begins in"),
        ("    lfemur ltibia", "    lfemur ltibia rtibia", r"bone 'rtibia' has two parents, 'lfemur' and 'rfemur'"),
        ("    lfemur ltibia", "    lfemur ltibia lfoot", r"line \d+: no bone 'lfoot' in :bonedata"),
        ("    lfemur ltibia", "    ltibia root", r"root is below 'ltibia'; a hierarchy must not go in a circle"),
        ("    lfemur ltibia\n", "", r"line \d+: 1 bone \(ltibia\) have no parent in :hierarchy"),
        (":hierarchy", ":nothing", r"no :hierarchy; this is no ASF file, or it is truncated"),
        ("    root lowerback lhipjoint", "    head lowerback lhipjoint", r"the hierarchy goes in a circle; lower"),
    ],
)  # fmt: skip
def test_faults_of_the_skeleton(tmp_path, old, new, message):
    path = write_acclaim(tmp_path, values(2))
    asf = tmp_path / "08.asf"
    assert old in asf.read_text()
    asf.write_text(asf.read_text().replace(old, new))
    if "has two parents" in message:  # rfemur comes later and is the second
        message = message.replace("'lfemur' and 'rfemur'", "'.femur' and '.femur'")
    with pytest.raises(ValueError, match=message):
        read_amc(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("ltibia ", "lshin ", 1), r"08_01.amc, line \d+: no bone 'lshin' in 08.asf"),
        (lambda t: t.replace("lfemur ", "lfemur 1 ", 1), r"line \d+: 'lfemur' needs 3 numbers, .* each dof, got 4"),
        (lambda t: t.replace("rtibia ", "rtibia x", 1), r"line \d+: expected a number .*, got 'x"),
        (lambda t: t.replace("rtibia ", "lhipjoint 1 #", 1), r"bone 'lhipjoint' has no dof in 08.asf, and values here"),
        (lambda t: t.replace("rtibia ", "rfemur 1 2 3 #", 1), r"bone 'rfemur' has a second line in frame 1"),
        (lambda t: t.replace("\n2\n", "\n3\n"), r"line \d+: expected frame 2, got 3"),
        (lambda t: t[: t.rindex("rradius")], r"frame 2 has no values of rradius; the file is truncated, or belongs to"),
        (lambda t: t.replace("\n1\n", "\n"), r"line 4: expected the number of the first frame, got 'root'"),
        (lambda t: "", r"line 0: no frame; this is no AMC file, or it is truncated"),
    ],
)  # fmt: skip
def test_faults_of_the_motion(tmp_path, change, message):
    path = write_acclaim(tmp_path, values(2))
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        read_amc(path)


@pytest.mark.slow
def test_changed_bytes_are_refused_or_read(tmp_path):
    rng = np.random.default_rng(0)
    path = write_acclaim(tmp_path, values(2))
    handled = 0
    for file in (tmp_path / "08.asf", path):
        whole = file.read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            at = rng.integers(len(data))
            if rng.random() < 0.5:
                data[at] = rng.integers(256)
            else:
                del data[at : at + rng.integers(1, 60)]
            file.write_bytes(data)
            try:
                motion = read_amc(path)
            except ValueError as error:
                handled += "08" in str(error)
            else:
                handled += bool(np.isfinite(motion.positions_mm).all())
        file.write_bytes(whole)
    assert handled == 300


def test_truncated_files(tmp_path):
    """Refused, but for a cut behind the last line of a frame: a motion file does not state how many there are."""
    path = write_acclaim(tmp_path, values(2))
    for file in (tmp_path / "08.asf", path):
        whole = file.read_bytes()
        refused = 0
        for end in range(0, len(whole) - 20, 211):
            file.write_bytes(whole[:end])
            try:
                frames = len(read_amc(path))
            except ValueError as error:
                refused += file.name in str(error)
            else:
                assert frames < 2
        assert refused >= end // 211
        file.write_bytes(whole)
