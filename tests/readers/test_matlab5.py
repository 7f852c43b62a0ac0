"""What SciPy writes is read back, in every kind that the datasets use; SciPy's reader is the reference."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from poseglass.readers.mat_file import listed, read_mat
from poseglass.readers.matlab5 import variables


def struct_array(rows):
    out = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        for name, value in row.items():
            out[name][0, i] = value
    return out


KINDS = {
    "double": np.arange(24.0).reshape(2, 3, 4) / 7,
    "single": np.float32([[1.5, np.nan], [np.inf, -0.0]]),
    "int8": np.int8([[-1, 2], [3, -128]]),
    "uint64": np.uint64([[2**63, 1]]),
    "logical": np.array([[True, False, True]]),
    "number": 3.25,
    "whole": np.int32(-7),
    "empty": np.zeros((0, 0)),
    "text": "im0001.jpg",
    "accents": "Müller",
    "no text": "",
    "rows of text": np.array(["abc", "def"]),
    "cell": np.array([[1.0, "two", np.arange(3.0)]], dtype=object),
    "struct": struct_array([{"x": 1.0, "y": "q"}]),
    "struct array": struct_array([{"x": 1.0, "y": "q"}, {"x": np.zeros((0, 0)), "y": np.eye(2)}]),
    "nested": struct_array([{"x": struct_array([{"z": struct_array([{"id": 1}, {"id": 2}])}])}]),
}


def equal(ours, theirs) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            equal(ours[key], theirs[key])
    elif isinstance(theirs, list) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            equal(one, other)
    elif isinstance(theirs, str):
        assert ours == theirs
    elif isinstance(theirs, np.ndarray) and theirs.dtype.kind == "U":
        assert listed(ours) == theirs.tolist() or (ours == "" and theirs.size == 0)
    else:
        np.testing.assert_array_equal(np.asarray(ours).ravel(), np.asarray(theirs).ravel())
        assert np.squeeze(ours).shape == np.squeeze(theirs).shape or np.size(theirs) == 0


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_as_scipy_reads_it(tmp_path, kind, packed):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"first": 1.0, "it": KINDS[kind], "last": "z"}, do_compression=packed)
    equal(read_mat(path, "it"), scipy.io.loadmat(path, simplify_cells=True)["it"])


def test_a_missing_variable_is_reported(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"a": 1.0, "b": 2.0})
    with pytest.raises(ValueError, match=r"x\.mat has no variable 'c', which .* It has: a, b\."):
        read_mat(tmp_path / "x.mat", "c")


@pytest.mark.parametrize(
    ("value", "match"), [(1 + 2j, "complex numbers"), (scipy.sparse.eye(3), "a matrix of class 5")]
)
def test_kinds_no_dataset_uses_are_refused(tmp_path, value, match):
    scipy.io.savemat(tmp_path / "x.mat", {"a": value})
    with pytest.raises(ValueError, match=match):
        read_mat(tmp_path / "x.mat", "a")


def deep(levels: int) -> bytes:
    """Return a file of cells in cells, of which SciPy would not write so many."""
    inside = b"\x0e\0\0\0" + bytes(4)
    for level in range(levels):
        name = b"\x01\0\x01\0a\0\0\0" if level == levels - 1 else b"\x01\0\0\0" + bytes(4)
        body = b"\x06\0\0\0\x08\0\0\0\x01" + bytes(7) + b"\x05\0\0\0\x08\0\0\0\x01\0\0\0\x01\0\0\0" + name + inside
        inside = b"\x0e\0\0\0" + len(body).to_bytes(4, "little") + body
    return bytes(124) + b"\x00\x01IM" + inside


def test_nesting_is_bounded():
    assert variables(deep(3), "a", max_bytes=10**6)[0][0][0][0].size == 0
    with pytest.raises(ValueError, match="nested deeper than 32"):
        variables(deep(5000), "a", max_bytes=10**6)


def test_other_bytes_are_refused():
    with pytest.raises(ValueError, match="no MATLAB 5 header"):
        variables(b"text", "a", max_bytes=10)
    assert variables(bytes(124) + b"\x00\x01IM", "a", max_bytes=10) == (None, [])
    with pytest.raises(ValueError, match="a block of kind 9 where a variable should be"):
        variables(bytes(124) + b"\x00\x01IM" + b"\x09" + bytes(7), "a", max_bytes=10)
