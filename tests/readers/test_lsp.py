import numpy as np
import pytest
import scipy.io

from poseglass.core.skeletons import LSP14
from poseglass.readers import lsp


def people(count: int) -> np.ndarray:
    """Return ``(N, 14, 3)``: coordinates that count from 1, and flags of which joint 2 of everybody is 1."""
    rng = np.random.default_rng(0)
    out = np.concatenate([rng.uniform(1, 150, (count, 14, 2)), np.zeros((count, 14, 1))], -1)
    out[:, 2, 2] = 1
    return out


def save(path, array):
    scipy.io.savemat(path, {"joints": array})
    return path


def test_lsp_flags_what_is_hidden(tmp_path):
    raw = people(4)
    data = lsp(save(tmp_path / "joints.mat", raw.transpose(2, 1, 0)))
    assert data.skeleton == LSP14
    everyone = data.everyone
    np.testing.assert_allclose(everyone.xy, raw[..., :2] - 1, rtol=1e-6)
    assert everyone.known.all()
    assert everyone.keypoint_extra["occluded"].sum(0).tolist() == [0, 0, 4] + [0] * 11
    assert [p.name for p in data.paths] == ["im0001.jpg", "im0002.jpg", "im0003.jpg", "im0004.jpg"]
    assert "1 = hidden" in data.notes[0]


def test_the_extended_set_flags_what_is_labelled(tmp_path):
    raw = people(4)
    data = lsp(save(tmp_path / "joints.mat", raw.transpose(1, 2, 0)))
    everyone = data.everyone
    assert everyone.known.sum(0).tolist() == [0, 0, 4] + [0] * 11
    np.testing.assert_allclose(everyone.xy[:, 2], raw[:, 2, :2] - 1, rtol=1e-6)
    assert not everyone.keypoint_extra["occluded"].any()
    assert data.paths[3].name == "im00004.jpg"
    assert "1 = labelled" in data.notes[0]


def test_the_box_is_larger_than_the_joints(tmp_path):
    raw = people(1)
    raw[0, :, 0], raw[0, :, 1] = 51, 51
    raw[0, 0, :2], raw[0, 1, :2] = (1, 11), (101, 61)
    box = lsp(save(tmp_path / "j.mat", raw.transpose(2, 1, 0))).instances(0).box_xyxy[0]
    np.testing.assert_allclose(box, [50 - 60, 35 - 30, 50 + 60, 35 + 30], rtol=1e-5)


def test_parts(tmp_path):
    small = save(tmp_path / "lsp.mat", people(6).transpose(2, 1, 0))
    assert lsp(small, split="train").image_ids == (1, 2, 3)
    test = lsp(small, split="test")
    assert (test.image_ids, test.name, test.paths[0].name) == ((4, 5, 6), "lsp/test", "im0004.jpg")
    extended = save(tmp_path / "lspet.mat", people(6).transpose(1, 2, 0))
    assert len(lsp(extended, split="train")) == 6
    with pytest.raises(ValueError, match="LSP extended, which has no 'test' people"):
        lsp(extended, split="test")
    with pytest.raises(ValueError, match=r"split must be 'train', 'test' or None, got 'tset'. Did you mean 'test'"):
        lsp(extended, split="tset")  # type: ignore[arg-type]


def change(where, value):
    raw = people(3)
    raw[where] = value
    return raw.transpose(2, 1, 0)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((3, 16, 5)), r"'joints' must be 3 x 14 x N numbers .*, got 3 x 16 x 5"),
        (np.zeros(()), "'joints' must be 3 x 14 x N .* got one number"),
        ("text", "'joints' must be 3 x 14 x N .* got str"),
        (change((1, 4, 0), np.nan), "person 2: 'left_knee' must have finite coordinates"),
        (change((1, 4, 2), 7), "person 2: the third number of a joint must be 0 or 1, got 7"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, match):
    with pytest.raises(ValueError, match=match):
        lsp(save(tmp_path / "joints.mat", array))
