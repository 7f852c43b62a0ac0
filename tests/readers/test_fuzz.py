"""Whatever a file of labels holds, a reader answers with a dataset or with a ValueError that names the file."""

import copy
import gzip
import io
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from poseglass.audit.audit import audit
from poseglass.audit.labels import read_coco_leniently
from poseglass.core.motion import PoseClips
from poseglass.core.skeletons import H36M17, MPI3DHP17
from poseglass.readers import LabelledImages, coco, flic, lsp, mat_file, mpii
from poseglass.readers.h36m import read_h36m
from poseglass.readers.json_file import read_bytes, read_json
from poseglass.readers.mpi_inf_3dhp import read_mpi_inf_3dhp
from poseglass.readers.poses_npz import read_poses, write_poses

hypothesis = pytest.importorskip("hypothesis")
HealthCheck, given, settings, st = hypothesis.HealthCheck, hypothesis.given, hypothesis.settings, hypothesis.strategies

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

GOOD = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [
        {
            "id": 4, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 1], "bbox": [1, 1, 9, 9],
            "area": 9.5, "iscrowd": 0, "num_keypoints": 2,
        },
        {"id": 5, "image_id": 2, "category_id": 2, "keypoints": [5, 6, 2], "bbox": [2, 2, 8, 8], "iscrowd": 1},
    ],
    "categories": [
        {"id": 1, "name": "p", "keypoints": ["left_x", "right_x"], "skeleton": [[1, 2]], "sigmas": [0.1, 0.1]},
        {"id": 2, "name": "q", "keypoints": ["tip"], "flip_pairs": []},
    ],
}  # fmt: skip

odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([10**30, -(2**63), math.nan, math.inf, -0.0, 1e300, 1e-300, "", "1", "\0", "x" * 99, "ü", "3.0"]),
    st.lists(st.integers(-1, 3), max_size=7),
    st.lists(st.lists(st.one_of(st.integers(-1, 3), st.text(max_size=2)), max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(["id", "keypoints", "x"]), st.integers(0, 2), max_size=2),
)


def places(value: Any, here: tuple = ()) -> list[tuple]:
    """Return the path of everything inside a JSON value."""
    inside = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    return [p for key, inner in inside for p in [(*here, key), *places(inner, (*here, key))]]


@st.composite
def spoilt(draw) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        *outer, last = draw(st.sampled_from(places(document)))
        inner: Any = document
        for key in outer:
            inner = inner[key]
        match draw(st.sampled_from(["set", "delete", "double"])):
            case "set":
                inner[last] = draw(odd_values)
            case "delete":
                del inner[last]
            case _ if isinstance(inner, list):
                inner.append(copy.deepcopy(inner[last]))
        if not places(document):
            break
    return document


def answers(reader, path: Path, **arguments) -> LabelledImages | None:
    """Return what the reader reads, or None for a ValueError that names the file; anything else is a failure."""
    try:
        data = reader(path, **arguments)
    except ValueError as error:
        said = str(error)
    else:
        check(data)
        return data
    assert str(path) in said
    assert len(said) < 2000
    return None


def check(data: LabelledImages) -> None:
    for i in range(len(data)):
        people = data.instances(i)
        assert people.skeleton == data.skeleton
        assert np.isfinite(people.xy[people.score > 0]).all()


@pytest.mark.slow
@few
@given(document=spoilt(), bad=st.sampled_from(["raise", "drop"]))
def test_coco_json_with_anything_in_it(tmp_path_factory, document, bad):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(document))
    answers(coco, path, bad=bad)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(document=spoilt())
def test_what_an_audit_passes_can_be_read_and_what_is_refused_it_finds(tmp_path_factory, document):
    path = tmp_path_factory.getbasetemp() / "both.json"
    path.write_text(json.dumps(document))
    try:
        labels = read_coco_leniently(path)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            coco(path)
        return
    result = audit(labels, read_images=False, steps=1)
    refused = answers(coco, path) is None
    kinds = {f.kind for f in result.findings if f.severity == "error"}
    if refused:
        assert kinds, document
    unreadable = {"bad-record", "wrong-k", "bad-category", "visibility-value", "normalised", "box-corners"}
    if kinds & unreadable:
        assert refused, kinds


def test_the_file_that_is_spoilt_is_good(tmp_path):
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    data = answers(coco, tmp_path / "good.json")
    assert data is not None
    assert data.num_instances == 2


@few
@given(data=st.data())
def test_coco_json_with_bytes_changed(tmp_path_factory, data):
    text = bytearray(json.dumps(GOOD).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text)
    answers(coco, path)


def lsp_bytes(folder: Path) -> bytes:
    array = np.zeros((3, 14, 4))
    array[:2] = 9
    scipy.io.savemat(folder / "lsp.mat", {"joints": array})
    return (folder / "lsp.mat").read_bytes()


def packed_lsp_bytes(folder: Path) -> bytes:
    array = np.random.default_rng(0).integers(0, 2, (14, 3, 4)).astype(np.uint8)
    scipy.io.savemat(folder / "lspet.mat", {"joints": array}, do_compression=True)
    return (folder / "lspet.mat").read_bytes()


def flic_bytes(folder: Path) -> bytes:
    row = {
        "filepath": "a.jpg", "coords": np.ones((2, 29)), "torsobox": [[1.0, 2.0, 30.0, 40.0]],
        "imgdims": [[48.0, 72.0, 3.0]], "istrain": 1.0,
    }  # fmt: skip
    out = np.empty((1, 2), dtype=[(field, object) for field in row])
    for field, value in row.items():
        out[field][0, 0] = out[field][0, 1] = value
    scipy.io.savemat(folder / "flic.mat", {"examples": out})
    return (folder / "flic.mat").read_bytes()


def hdf5_bytes(folder: Path) -> bytes:
    with h5py.File(folder / "mpii.h5", "w") as file:
        file["imgname"] = np.array([b"a.jpg", b"b.jpg"])
        file["part"] = np.ones((2, 16, 2))
        file["visible"] = np.ones((2, 16))
        file["center"] = np.ones((2, 2))
        file["scale"] = np.ones(2)
        file["normalize"] = np.ones(2)
    return (folder / "mpii.h5").read_bytes()


def gzip_bytes(folder: Path) -> bytes:
    record = {"img_paths": "a.jpg", "joint_self": [[1, 1, 1]] * 16, "objpos": [1, 1], "scale_provided": 1}
    return gzip.compress(json.dumps([record]).encode())


BINARY = {
    "lsp": (lsp, lsp_bytes),
    "lspet": (lsp, packed_lsp_bytes),
    "flic": (flic, flic_bytes),
    "mpii.h5": (mpii, hdf5_bytes),
    "mpii.json.gz": (mpii, gzip_bytes),
}


@pytest.mark.parametrize("kind", BINARY)
def test_binary_files_cut_anywhere(tmp_path, kind):
    reader, make = BINARY[kind]
    whole = make(tmp_path)
    path = tmp_path / "cut"
    path.write_bytes(whole)
    assert answers(reader, path) is not None
    for end in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:end])
        assert answers(reader, path) is None or kind in ("lsp", "flic")  # zeros at the end may be missed by nobody


@pytest.mark.parametrize("kind", BINARY)
@few
@given(data=st.data())
def test_binary_files_with_bytes_changed(tmp_path_factory, kind, data):
    folder = tmp_path_factory.getbasetemp()
    reader, make = BINARY[kind]
    content = bytearray(make(folder))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "changed"
    path.write_bytes(content)
    answers(reader, path)


@few
@given(content=st.binary(max_size=300), head=st.sampled_from([b"", b"\x1f\x8b\x08", b"\x89HDF\r\n\x1a\n", b"[", b"{"]))
def test_garbage(tmp_path_factory, content, head):
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(head + content)
    for reader in (coco, mpii, flic, lsp):
        assert answers(reader, path) is None or head in (b"[", b"{")


def test_a_small_file_that_unpacks_to_much_is_stopped(tmp_path, monkeypatch):
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * 5_000_000 + b"]"))
    assert path.stat().st_size < 10_000
    assert read_json(path) == []
    with pytest.raises(ValueError, match=r"bomb\.json\.gz unpacks to more than 1,000,000 bytes"):
        read_json(path, max_bytes=1_000_000)
    with pytest.raises(ValueError, match=r"has .* bytes; at most 10 are read"):
        read_bytes(path, max_bytes=10)
    monkeypatch.setattr(mat_file, "MAX_UNPACKED_BYTES", 100_000)
    scipy.io.savemat(tmp_path / "bomb.mat", {"joints": np.zeros((3, 14, 9000))}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"bomb\.mat is a damaged .* unpacks to more than 100,000 bytes"):
        lsp(tmp_path / "bomb.mat")
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("part", shape=(10**6, 16, 2), dtype="f8", chunks=(1000, 16, 2), compression="gzip")
    with pytest.raises(ValueError, match=r"'part' has shape \(1000000, 16, 2\), more than 100,000 bytes"):
        mpii(tmp_path / "bomb.h5")


def test_a_matlab_file_that_declares_more_than_it_holds(tmp_path):
    """An array header of 2**30 x 2**30 elements with no elements behind it."""
    whole = bytearray(lsp_bytes(tmp_path))
    place = whole.index((3).to_bytes(4, "little") + (14).to_bytes(4, "little"))
    whole[place : place + 8] = (2**30).to_bytes(4, "little") * 2
    path = tmp_path / "x.mat"
    path.write_bytes(whole)
    assert answers(lsp, path) is None


def test_a_matlab_7_3_file_is_reported(tmp_path):
    hdf5_bytes(tmp_path)
    with pytest.raises(ValueError, match=r"is a MATLAB 7\.3 \(HDF5\) file"):
        lsp(tmp_path / "mpii.h5")
    packed = packed_lsp_bytes(tmp_path)
    spoilt_stream = packed[:136] + zlib.compress(b"nothing")[:9] + packed[145:]
    (tmp_path / "x.mat").write_bytes(spoilt_stream)
    with pytest.raises(ValueError, match="is a damaged or truncated MATLAB file"):
        lsp(tmp_path / "x.mat")


PERSON = np.zeros((2, 17, 3), np.float32)
PERSON[:, [2, 5], 1], PERSON[:, [3, 6], 1] = 0.42, 0.83  # knees and ankles, metres; hips are the origin


def poses_bytes(path: Path) -> None:
    clips = PoseClips(H36M17, PERSON * 1000, np.zeros(2), ("walk",), ("ann",), 15.0)
    write_poses(path, clips)


def h36m_bytes(path: Path) -> None:
    np.savez_compressed(path, positions_3d=np.array({"S1": {"Walking": PERSON}}, object))


def dhp_bytes(path: Path) -> None:
    whole = np.ones((2, 17, 4), np.float32)
    whole[..., :3] = 0.0
    whole[:, MPI3DHP17.index("left_knee"), 1], whole[:, MPI3DHP17.index("left_ankle"), 1] = 0.42, 0.83
    np.savez(path, part=np.ones((2, 17, 3), np.float32), S=whole)


PACKED = {
    "poses": (read_poses, poses_bytes), "h36m": (read_h36m, h36m_bytes), "mpi_inf_3dhp": (read_mpi_inf_3dhp, dhp_bytes),
}  # fmt: skip


def answers_or_names(reader, path: Path) -> bool:
    """Return whether the file was read; a ValueError must name it, and anything else is a failure."""
    try:
        reader(path)
    except ValueError as error:
        text = str(error)
    else:
        return True
    assert str(path) in text
    assert len(text) < 2000
    return False


def changed_arrays(whole: bytes, path: Path, change) -> None:
    """Write the archive anew, with sums that are right, after changing the bytes of each member."""
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, bytes(change(bytearray(old.read(name)))))


@pytest.mark.parametrize("kind", PACKED)
def test_npz_files_with_bytes_changed(tmp_path, kind):
    reader, make = PACKED[kind]
    path = tmp_path / "changed.npz"
    make(path)
    whole = path.read_bytes()
    assert answers_or_names(reader, path)
    rng = np.random.default_rng(0)

    def spoil(content: bytearray, end: int) -> bytearray:
        for _ in range(int(rng.integers(1, 5))):
            content[int(rng.integers(0, min(end, len(content))))] = int(rng.integers(0, 256))
        return content

    for _ in range(150):
        path.write_bytes(spoil(bytearray(whole), len(whole)))
        answers_or_names(reader, path)
    for end in (128, 128, 400):  # the headers of the arrays, and what follows
        for _ in range(70):
            changed_arrays(whole, path, lambda content, end=end: spoil(content, end))
            answers_or_names(reader, path)


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 17, 3), }",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 17, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, " + "9" * 90 + "), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 17, 3",
        "(" * 3000,
        "{[]: 1}",
    ],
)
def test_headers_that_promise_what_is_not_there(tmp_path, kind, header):
    reader, make = PACKED[kind]
    path = tmp_path / "bomb.npz"
    make(path)
    line = header.encode() + b"\n"
    magic = b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little")
    changed_arrays(path.read_bytes(), path, lambda _: magic + line + bytes(100))
    assert not answers_or_names(reader, path)
